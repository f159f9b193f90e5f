/* The log in memory at its edges: blocks that are cut or taken in part, terms at a compaction, an anchor of unknown term, the
 * last index. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

#include "engine/raft/raft_internal.h"

static struct cluster c;

static void follower_with(const uint64_t *terms, uint32_t n_terms, uint64_t commit)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, terms, n_terms, (struct nh_state){.term = terms[n_terms - 1], .commit = commit}, commit);
    cluster_settle(&c);
}

static struct nh_message replicate(uint64_t from, uint64_t term, uint64_t anchor, uint64_t anchor_term, uint64_t commit)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, from, 1, term);

    m.log_index = anchor;
    m.log_term = anchor_term;
    m.commit = commit;
    return m;
}

/* One block of n entries of 48 bytes, of the message's term. */
static void add_block(struct nh_message *m, uint32_t n)
{
    struct run_list runs = {0};
    struct block_builder b = {0};
    struct nh_block *block;

    for (uint32_t i = 0; i < n; i++)
        block_builder_add(&b, &(struct block_record){.origin = 2, .key = m->term * 100 + i, .payload = "x", .payload_bytes = 1});
    block = block_seal(&b, m->term, m->log_index + 1);
    run_list_add(&runs, block, 0, n);
    nh_block_unref(block);
    m->runs = runs.runs;
    m->n_runs = runs.n;
}

static void inject(struct nh_message m)
{
    cluster_inject(&c, m);
    cluster_settle(&c);
}

/* One change of the configuration, of the message's term; it changes nobody. */
static void add_change(struct nh_message *m)
{
    struct run_list runs = {0};
    struct block_builder b = {0};
    struct nh_block *block;

    block_builder_add(&b, &(struct block_record){.type = NH_ENTRY_CONFIG_CHANGE, .origin = 2, .key = m->term * 100});
    block = block_seal(&b, m->term, m->log_index + 1);
    run_list_add(&runs, block, 0, 1);
    nh_block_unref(block);
    m->runs = runs.runs;
    m->n_runs = runs.n;
}

/* ---- blocks ---- */

/* The new leader agrees with the first entry of the block alone. */
Test(raft_log, a_conflict_cuts_a_block_in_two)
{
    struct nh_message m = replicate(2, 5, 1, 1, 1);

    follower_with((const uint64_t[]){1}, 1, 1);
    c.nodes[1].hold_applies = true;
    add_block(&m, 3);
    inject(m);
    cr_assert_eq(cluster_status(&c, 1).cached_bytes, 3 * 48);
    m = replicate(3, 6, 2, 5, 3);
    add_block(&m, 1);
    inject(m);
    cr_assert_eq(cluster_status(&c, 1).last_index, 3);
    cr_assert_eq(cluster_status(&c, 1).cached_bytes, 2 * 48);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 2), 5);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 3), 6);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_applied_times(&c, 1, 500), 1);
    cr_assert_eq(cluster_applied_times(&c, 1, 600), 1);
    cluster_deinit(&c);
}

/* A block of which the first entries are here already: they stay, the rest is taken. */
Test(raft_log, a_block_is_taken_from_the_first_new_entry_on)
{
    struct nh_message m = replicate(2, 5, 1, 1, 1);

    follower_with((const uint64_t[]){1}, 1, 1);
    add_block(&m, 2);
    inject(m);
    m = replicate(2, 5, 1, 1, 4);
    add_block(&m, 3);
    inject(m);
    cr_assert_eq(cluster_status(&c, 1).truncated_suffixes, 0);
    cr_assert_eq(cluster_status(&c, 1).last_index, 4);
    cr_assert_eq(c.nodes[1].disk.n, 4);
    for (uint64_t i = 0; i < 3; i++)
        cr_assert_eq(cluster_applied_times(&c, 1, 500 + i), 1);
    cluster_deinit(&c);
}

/* ---- terms ---- */

Test(raft_log, a_compaction_may_end_where_a_term_does)
{
    struct raft_event ev = {.type = RAFT_EV_COMPACTED, .compacted = 2};

    follower_with((const uint64_t[]){1, 1, 2, 2}, 4, 4);
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).first_index, 3);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 1), 0);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 2), 1, "the anchor's");
    cr_assert_eq(raft_term_at(c.nodes[1].core, 3), 2);
    ev.compacted = 3; /* and in the middle of one */
    cluster_step(&c, 1, &ev);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 2), 0);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 3), 2);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 4), 2);
    cluster_deinit(&c);
}

/* Statement 30: nothing here is as old as the anchor, so the logs can only agree before the first entry. */
Test(raft_log, a_refusal_hints_the_beginning_if_all_is_newer)
{
    follower_with((const uint64_t[]){3, 3, 3}, 3, 0);
    inject(replicate(2, 4, 3, 2, 0));
    cr_assert(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->reject);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 3);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->hint, 0);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_term, 0);
    cluster_deinit(&c);
}

/* ---- a core alone ---- */

static struct raft_options alone_options(void)
{
    struct raft_options o = cluster_options();

    o.replica_id = 1;
    return o;
}

/* One event, then all that it wants saved is saved, and all that it wants applied is applied. `out` is what came last. */
static void drive(struct raft *r, struct raft_event ev, struct raft_update *out)
{
    const char *clause = "";

    for (bool more = true; more;) {
        raft_update_release(out);
        raft_step(r, &ev, out);
        raft_collect(r, out);
        cr_assert(raft_check(r, &clause), "%s", clause);
        more = out->save_id || out->apply_first;
        if (out->save_id)
            ev = (struct raft_event){.type = RAFT_EV_SAVED, .saved = out->save_id};
        else
            ev = (struct raft_event){.type = RAFT_EV_APPLIED, .applied = out->apply_last};
    }
}

/* The store does not know the term of what was compacted; it was committed, so whoever sends what follows is right. */
Test(raft_log, an_anchor_of_unknown_term_agrees)
{
    struct nh_member members[] = {{.replica_id = 1}, {.replica_id = 2}, {.replica_id = 3}};
    struct nh_membership membership = {.n_members = 3, .members = members};
    struct raft_boot b = {.state = {.term = 3, .commit = 4}, .first_index = 5, .last_index = 4, .applied = 4};
    struct nh_message m = replicate(2, 3, 4, 2, 5);
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};
    struct raft_options o = alone_options();
    struct raft_update out = {0};
    struct raft *r;

    b.membership = &membership;
    cr_assert_eq(raft_new(&o, &b, &r, NULL), NH_OK);
    add_block(&m, 1);
    raft_step(r, &ev, &out);
    raft_collect(r, &out);
    cr_assert_eq(out.send_after_save.n, 1);
    cr_assert_eq(out.send_after_save.items[0].type, NH_MSG_REPLICATE_RESP);
    cr_assert(!out.send_after_save.items[0].reject);
    cr_assert_eq(out.send_after_save.items[0].log_index, 5);
    cr_assert_eq(raft_term_at(r, 5), 3);
    nh_message_deinit(&m);
    raft_update_deinit(&out);
    raft_free(r);
}

/* A log that ends at the last index: its leader takes nothing more and does not try to leave a joint configuration; who does not
 * lead stands no more, because it could not open its term. */
Test(raft_log, the_last_index_is_the_end)
{
    struct nh_member self = {.replica_id = 1, .outgoing = true};
    struct nh_membership membership = {.joint = true, .auto_leave = true, .n_members = 1, .members = &self};
    const uint64_t last = RAFT_INDEX_MAX - 1;
    struct raft_term_span span = {last, 5};
    struct raft_boot b = {.state = {.term = 5, .vote = 1, .commit = last},
                          .first_index = last,
                          .last_index = last,
                          .anchor_term = 5,
                          .spans = &span,
                          .n_spans = 1,
                          .applied = last,
                          .membership = &membership};
    struct block_builder records = {0};
    struct raft_event propose = {.type = RAFT_EV_PROPOSE, .propose = {.records = &records, .first_key = 1, .n_keys = 1}};
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 9);
    struct raft_options o = alone_options();
    struct raft_update out = {0};
    struct raft_status s;
    struct raft *r;

    o.check_quorum = false;
    cr_assert_eq(raft_new(&o, &b, &r, NULL), NH_OK);
    drive(r, (struct raft_event){.type = RAFT_EV_CAMPAIGN}, &out);
    raft_get_status(r, &s);
    cr_assert_eq(s.role, RAFT_LEADER);
    cr_assert_eq(s.applied_index, RAFT_INDEX_MAX);
    cr_assert(s.joint);
    cr_assert(!raft_has_work(r));

    block_builder_add(&records, &(struct block_record){.origin = 1, .key = 1});
    raft_update_release(&out);
    raft_step(r, &propose, &out);
    raft_collect(r, &out);
    cr_assert_eq(out.dropped.n, 1);
    cr_assert_eq(out.dropped.items[0].reason, NH_DROP_REFUSED);

    drive(r, (struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m}, &out);
    drive(r, (struct raft_event){.type = RAFT_EV_CAMPAIGN}, &out);
    raft_get_status(r, &s);
    cr_assert_eq(s.role, RAFT_FOLLOWER);
    cr_assert_eq(s.term, 9);
    cr_assert_eq(s.last_index, RAFT_INDEX_MAX);
    raft_update_deinit(&out);
    raft_free(r);
}

/* ---- configuration changes that are cut off ---- */

/* Statement 10: which change comes before the one that is cut off is not known, and it may be committed and not applied. */
Test(raft_log, a_change_below_the_cut_still_bars_a_campaign)
{
    struct nh_message first = replicate(2, 2, 1, 1, 2), second = replicate(2, 2, 2, 2, 2), other = replicate(3, 3, 2, 2, 2);

    follower_with((const uint64_t[]){1}, 1, 1);
    c.nodes[1].hold_applies = true;
    add_change(&first);
    inject(first);
    add_change(&second);
    inject(second);
    add_block(&other, 1);
    inject(other);
    cr_assert_eq(cluster_status(&c, 1).truncated_suffixes, 1);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_deinit(&c);
}

/* Statement 55 asks for a save before a change is said to be committed, but not of what has taken its place: who waits for that
 * word, as a leader that would go quiet, might wait for ever. */
Test(raft_log, what_replaces_a_change_is_known_to_be_committed_without_a_save)
{
    struct nh_message change = replicate(2, 2, 1, 1, 1), other = replicate(3, 3, 1, 1, 1);
    struct nh_message heartbeat = cluster_message(NH_MSG_HEARTBEAT, 3, 1, 3);

    follower_with((const uint64_t[]){1}, 1, 1);
    add_change(&change);
    inject(change);
    add_block(&other, 2);
    inject(other);
    cr_assert_eq(cluster_status(&c, 1).truncated_suffixes, 1);
    heartbeat.commit = 3;
    inject(heartbeat);
    cr_assert_eq(cluster_sent(&c, NH_MSG_HEARTBEAT_RESP, 3)->commit, 3);
    cluster_deinit(&c);
}
