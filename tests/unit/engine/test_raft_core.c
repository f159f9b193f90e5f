/* The core as an object: options and stored state that are refused, size, deadlines, determinism, membership. */
#include "engine/raft/raft_internal.h"
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

static struct cluster c;

static struct raft_options options(void)
{
    struct raft_options o = cluster_options();

    o.replica_id = 1;
    return o;
}

static int try_new(const struct raft_options *o, const struct raft_boot *b)
{
    struct raft *r = NULL;
    struct nh_error err = {0};
    int code = raft_new(o, b, &r, &err);

    cr_assert_eq(code == NH_OK, r != NULL);
    cr_assert_eq(code, err.code);
    cr_assert_eq(code == NH_OK, err.text[0] == '\0');
    raft_free(r);
    return code;
}

Test(raft_core, options_are_checked)
{
    struct raft_boot b = {.first_index = 1};
    struct raft_options o = options();

    cr_assert_eq(try_new(&o, &b), NH_OK);
    o.shard_id = 0;
    cr_assert_eq(try_new(&o, &b), NH_EINVAL);
    o = options();
    o.replica_id = 0;
    cr_assert_eq(try_new(&o, &b), NH_EINVAL);
    o = options();
    o.heartbeat_ticks = 0;
    cr_assert_eq(try_new(&o, &b), NH_EINVAL);
    o.heartbeat_ticks = 5;
    o.election_ticks = 10;
    cr_assert_eq(try_new(&o, &b), NH_EINVAL);
    o.election_ticks = 11;
    cr_assert_eq(try_new(&o, &b), NH_OK);
    o.heartbeat_ticks = UINT32_MAX;
    o.election_ticks = UINT32_MAX;
    cr_assert_eq(try_new(&o, &b), NH_EINVAL);
}

static struct raft_boot sound_boot(struct raft_term_span spans[2], struct nh_membership *m, struct nh_member members[2])
{
    spans[0] = (struct raft_term_span){1, 1};
    spans[1] = (struct raft_term_span){4, 3};
    memset(members, 0, 2 * sizeof *members);
    members[0].replica_id = 1;
    members[1].replica_id = 2;
    *m = (struct nh_membership){.n_members = 2, .members = members};
    return (struct raft_boot){.state = {.term = 3, .vote = 1, .commit = 4},
                              .first_index = 1,
                              .last_index = 5,
                              .spans = spans,
                              .n_spans = 2,
                              .applied = 2,
                              .membership = m};
}

/* Statement 79 and its relatives: a stored state that contradicts itself stops the start. */
Test(raft_core, a_stored_state_that_contradicts_itself_is_refused)
{
    struct raft_options o = options();
    struct raft_term_span spans[2];
    struct nh_member members[2];
    struct nh_membership m;
    struct raft_boot b;

    for (int i = 0; i <= 19; i++) {
        b = sound_boot(spans, &m, members);
        switch (i) {
        case 0: cr_assert_eq(try_new(&o, &b), NH_OK); continue;
        case 1: b.state.commit = 6; break;
        case 2: b.applied = 6; break;
        case 3: b.state.term = 2; break;
        case 4: spans[0].first_index = 2; break;
        case 5: spans[1].first_index = 1; break;
        case 6: spans[1].term = 1; break;
        case 7: spans[1].first_index = 6; break;
        case 8: b.n_spans = 0; break;
        case 9: b.first_index = 0; break;
        case 10: b.first_index = 7; break;
        case 11: b.last_index = UINT64_MAX; break;
        case 12: members[1].replica_id = 1; break;
        case 13: members[0].replica_id = 0; break;
        case 14: members[1].kind = 3; break;
        case 15: spans[0].term = 0; break;
        case 16: members[1].kind = NH_MEMBER_LEAVING_WITNESS + 1; break;
        case 17: members[1].outgoing = true; break; /* of what? It is not joint. */
        case 18: b.state.term = UINT64_MAX; break;
        case 19: b = (struct raft_boot){.state = {.vote = 1}, .first_index = 1}; break;
        default: break;
        }
        cr_assert_eq(try_new(&o, &b), NH_ECORRUPT, "case %d", i);
    }
    b = sound_boot(spans, &m, members);
    m.n_members = NH_MEMBERS_MAX + 1;
    cr_assert_eq(try_new(&o, &b), NH_ECORRUPT);
    /* A log whose head was removed, and nothing applied of what was there. */
    b = (struct raft_boot){.state = {.term = 3}, .first_index = 10, .last_index = 12, .spans = spans, .n_spans = 1, .applied = 8};
    spans[0] = (struct raft_term_span){10, 3};
    cr_assert_eq(try_new(&o, &b), NH_ECORRUPT);
    b.applied = 9;
    cr_assert_eq(try_new(&o, &b), NH_OK);
}

/* The idle time that nobody asked for is 20 election timeouts, if there is such a number. */
Test(raft_core, the_default_idle_time_does_not_overflow)
{
    struct raft_boot b = {.first_index = 1};
    struct raft_options o = options();
    struct raft *r;

    cr_assert_eq(raft_new(&o, &b, &r, NULL), NH_OK);
    cr_assert_eq(r->options.quiesce_ticks, 200);
    raft_free(r);
    o.election_ticks = UINT32_MAX / 20;
    cr_assert_eq(raft_new(&o, &b, &r, NULL), NH_OK);
    cr_assert_eq(r->options.quiesce_ticks, UINT32_MAX);
    raft_free(r);
}

/* Also one that comes late: what was applied since stays so. */
Test(raft_core, what_is_applied_never_falls)
{
    struct raft_event ev = {.type = RAFT_EV_APPLIED};

    cluster_init(&c, 1, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    for (ev.applied = 5; ev.applied > 2; ev.applied--) {
        cluster_step(&c, 1, &ev);
        cr_assert_eq(cluster_status(&c, 1).applied_index, 5);
    }
    cluster_deinit(&c);
}

Test(raft_core, a_null_core_may_be_freed)
{
    struct raft_update out = {0};

    raft_free(NULL);
    raft_update_release(&out);
    raft_update_deinit(&out);
}

static size_t bytes_of(void *p)
{
    return p ? malloc_usable_size(p) : 0;
}

/* All that hangs on a core. */
static size_t footprint(const struct raft *r)
{
    size_t n = bytes_of((void *)r) + bytes_of(r->members) + bytes_of(r->marks.items) + bytes_of(r->lead) +
               bytes_of(r->log.cache.runs) + bytes_of(r->log.spans.items) + bytes_of(r->log.saves.items);

    if (r->lead) {
        n += bytes_of(r->lead->peers) + bytes_of(r->lead->reads.items);
        for (uint32_t i = 0; i < r->lead->n_peers; i++)
            n += bytes_of(r->lead->peers[i].window);
    }
    return n;
}

Test(raft_core, an_idle_replica_is_small)
{
    struct raft_options o = cluster_options();

    o.quiesce = true;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    for (int i = 0; i < 100; i++) {
        cluster_propose(&c, 1 + (uint64_t)i % 3, 20, 100);
        cluster_read(&c, 1 + (uint64_t)i % 3);
        cluster_settle(&c);
    }
    cluster_tick(&c, 5);
    for (uint64_t id = 1; id <= 3; id++) {
        cr_assert_eq(cluster_status(&c, id).cached_bytes, 0);
        cr_assert_lt(footprint(c.nodes[id].core), id == 1 ? 6144 : 2048, "awake replica %lu has %zu bytes", (unsigned long)id,
                     footprint(c.nodes[id].core));
    }
    cluster_tick(&c, 300);
    for (uint64_t id = 1; id <= 3; id++) {
        cr_assert(cluster_status(&c, id).quiesced);
        cr_assert_lt(footprint(c.nodes[id].core), 2048, "quiet replica %lu has %zu bytes", (unsigned long)id,
                     footprint(c.nodes[id].core));
    }
    cluster_deinit(&c);
}

Test(raft_core, a_deadline_is_always_in_reach)
{
    cluster_init(&c, 3, NULL);
    for (int i = 0; i < 300; i++) {
        for (uint64_t id = 1; id <= 3; id++)
            cr_assert_lt(raft_next_deadline(c.nodes[id].core), c.now + 20);
        cluster_tick(&c, 1);
        if (i == 100)
            cluster_isolate(&c, cluster_leader(&c), true);
    }
    cluster_deinit(&c);
}

Test(raft_core, a_tick_before_the_deadline_does_nothing)
{
    struct raft_event ev = {.type = RAFT_EV_TICK};

    cluster_init(&c, 3, NULL);
    c.now = raft_next_deadline(c.nodes[1].core) - 1;
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    c.now++;
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_PRE_CANDIDATE);
    cluster_deinit(&c);
}

/* Between two heartbeats its quorum window may end: that is no reason for one more. */
Test(raft_core, a_leader_sends_heartbeats_at_their_time_only)
{
    struct raft_options o = options();

    o.pre_vote = o.check_quorum = false;
    o.heartbeat_ticks = 4;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_forget_sent(&c);
    for (int i = 1; i <= 13; i++) {
        struct raft_event ev = {.type = RAFT_EV_TICK};

        c.now++;
        cluster_step(&c, 1, &ev);
        cluster_settle(&c);
        cr_assert_eq(cluster_count_sent(&c, NH_MSG_HEARTBEAT, 2), i / 4, "tick %d", i);
    }
    cluster_deinit(&c);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    return (h ^ v) * 0x100000001b3u;
}

/* A run with losses; a digest of every message and every state. */
static uint64_t digest_of_run(uint64_t seed)
{
    uint64_t h = 0xcbf29ce484222325u;

    cluster_init(&c, 3, NULL);
    c.random = seed;
    for (int i = 0; i < 3000; i++) {
        if (c.network.n > 0) {
            const struct nh_message *m = &c.network.items[0];

            h = mix(mix(mix(mix(mix(h, m->type), m->to), m->term), m->log_index), m->hint);
            if (cluster_random(&c, 20) == 0)
                cluster_lose(&c, 0);
            else
                cluster_deliver(&c, 0);
        } else {
            c.now++;
            for (uint64_t id = 1; id <= 3; id++)
                cluster_tick_node(&c, id);
            if (cluster_leader(&c))
                cluster_propose(&c, cluster_leader(&c), 1, 8);
        }
        for (uint64_t id = 1; id <= 3; id++) {
            if (c.nodes[id].saves.n > 0)
                cluster_save(&c, id);
            if (c.nodes[id].applies.n > 0)
                cluster_apply(&c, id);
            h = mix(mix(h, raft_next_deadline(c.nodes[id].core)), cluster_status(&c, id).commit_index);
        }
    }
    cluster_deinit(&c);
    return h;
}

Test(raft_core, the_same_events_give_the_same_updates)
{
    cr_assert_eq(digest_of_run(11), digest_of_run(11));
    cr_assert_neq(digest_of_run(11), digest_of_run(12));
}

Test(raft_core, a_change_of_leader_or_term_is_told_once)
{
    struct raft_update out = {0};
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5);
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};

    cluster_init_ghosts(&c, 1, 3, NULL);
    raft_step(c.nodes[1].core, &ev, &out);
    raft_collect(c.nodes[1].core, &out);
    cr_assert(out.leader_changed);
    cr_assert_eq(out.leader_id, 2);
    cr_assert_eq(out.term, 5);
    raft_update_release(&out);
    raft_step(c.nodes[1].core, &ev, &out);
    raft_collect(c.nodes[1].core, &out);
    cr_assert(!out.leader_changed);
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

Test(raft_core, messages_hold_blocks_and_release_them)
{
    struct run_list runs = {0};
    struct nh_block *block;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose(&c, 1, 1, 10);
    cr_assert(raft_cached_runs(c.nodes[1].core, 3, 4, &runs));
    cr_assert(!raft_cached_runs(c.nodes[1].core, 3, 5, &runs));
    cr_assert(!raft_cached_runs(c.nodes[1].core, 4, 3, &runs));
    block = runs.runs[0].block;
    cr_assert_geq(block->refs, 4, "cache, two messages, save, this list: one block, no copy");
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cluster_deinit(&c);
    cr_assert_eq(block->refs, 1);
    run_list_deinit(&runs);
}

/* ---- quorum ---- */

Test(raft_core, what_a_majority_reaches)
{
    static const struct {
        size_t n;
        uint64_t values[7], reached;
    } cases[] = {{1, {5}, 5},          {2, {5, 3}, 3},          {3, {1, 9, 4}, 4},
                 {4, {1, 2, 3, 4}, 2}, {5, {9, 9, 1, 1, 5}, 5}, {7, {7, 6, 5, 4, 3, 2, 1}, 4}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t values[7];

        memcpy(values, cases[i].values, sizeof values);
        cr_assert_eq(raft_quorum_reached(values, cases[i].n), cases[i].reached, "case %zu", i);
    }
}

/* ---- membership ---- */

/* Statement 52: a new member is sent the log at once; a removal that shrinks the quorum commits what it can at once. */
Test(raft_core, a_new_member_is_sent_the_log)
{
    cluster_init_ghosts(&c, 3, 3, NULL);
    cluster_boot_with(&c, 4, NULL, 0, (struct nh_state){0}, 0);
    cluster_crash(&c, 4);
    cluster_set_members(&c, 4, "");
    cluster_restart(&c, 4);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 5, 10);
    cluster_settle(&c);
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_peer(&c, 1, 4).match, cluster_status(&c, 1).last_index);
    cr_assert_eq(cluster_status(&c, 4).applied_index, cluster_status(&c, 1).applied_index);
    cluster_deinit(&c);
}

Test(raft_core, a_removal_that_shrinks_the_quorum_commits_at_once)
{
    cluster_init(&c, 4, NULL);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 4, true);
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, false, 4);
    cluster_settle(&c);
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3, "1 and 2 are no majority of four");
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 4);
    cluster_deinit(&c);
}

Test(raft_core, a_kept_peer_keeps_its_progress_over_a_change)
{
    cluster_init(&c, 4, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    uint64_t match = cluster_peer(&c, 1, 4).match;
    cluster_propose_change(&c, 1, false, 2);
    c.nodes[1].hold_applies = true;
    cluster_settle(&c);
    cluster_apply(&c, 1);
    cr_assert_geq(cluster_peer(&c, 1, 4).match, match, "at once, before it is heard of again");
    cr_assert_eq(cluster_peer(&c, 1, 4).state, RAFT_REPLICATE);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_geq(cluster_peer(&c, 1, 4).match, match);
    cr_assert_eq(cluster_peer(&c, 1, 4).state, RAFT_REPLICATE);
    cluster_deinit(&c);
}

static bool tells_commit_4(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->from == 1 && m->commit >= 4;
}

/* Statement 55: two voters, the leader is removed and has a longer log, the survivor has not heard that the removal is
 * committed. A leader that left at once would take the survivor's quorum with it. */
Test(raft_core, a_removed_leader_leaves_when_the_survivors_know)
{
    cluster_init(&c, 2, NULL);
    cluster_elect(&c, 1);
    c.lose = tells_commit_4;
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 4);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_propose(&c, 1, 1, 1);
    cluster_read(&c, 1);
    cr_assert_eq(c.nodes[1].dropped.n, 2, "it takes nothing any more");
    c.lose = NULL;
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert_eq(raft_next_deadline(c.nodes[1].core), RAFT_NEVER);
    cluster_tick(&c, 40);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_deinit(&c);
}

/* The same, but the removed leader lost its leadership first: its refusal tells the survivor that the removal is committed. */
Test(raft_core, a_survivor_learns_from_a_refusal_that_the_other_is_removed)
{
    cluster_init(&c, 2, NULL);
    cluster_elect(&c, 1);
    c.lose = tells_commit_4;
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    cluster_isolate(&c, 1, true);
    cluster_propose(&c, 1, 5, 1); /* the longer log */
    c.nodes[1].hold_applies = false;
    cluster_tick(&c, 25);
    cr_assert_eq(cluster_leader(&c), 0);
    cluster_heal(&c);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_deinit(&c);
}

Test(raft_core, a_rejected_change_leaves_the_members_alone)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose_change(&c, 1, true, 3); /* is a member already */
    cluster_settle(&c);
    cr_assert_eq(raft_get_peers(c.nodes[1].core, NULL, 0), 2);
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    cr_assert_eq(raft_get_peers(c.nodes[1].core, NULL, 0), 3);
    cluster_deinit(&c);
}

/* Statement 53: a removed peer's answers do nothing, but it is told. */
Test(raft_core, a_removed_peers_answers_do_nothing)
{
    struct nh_message m;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose_change(&c, 1, false, 3);
    cluster_settle(&c);
    cluster_crash(&c, 3);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);
    m.log_index = 3;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_not_null(cluster_sent(&c, NH_MSG_REMOVED, 3));
    cr_assert_eq(raft_get_peers(c.nodes[1].core, NULL, 0), 1);
    cluster_deinit(&c);
}

/* The entry that opened the term may be gone from a leader's log. */
Test(raft_core, a_leader_may_compact_its_own_term)
{
    struct raft_event ev = {.type = RAFT_EV_COMPACTED};
    const char *clause = "";

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 3, 8);
    cluster_settle(&c);
    ev.compacted = cluster_status(&c, 1).applied_index;
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).first_index, ev.compacted + 1);
    cluster_propose(&c, 1, 1, 8);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert_eq(cluster_status(&c, 3).applied_index, ev.compacted + 1);
    cr_assert(raft_check(c.nodes[1].core, &clause), "%s", clause);
    cluster_deinit(&c);
}

/* A snapshot is of what is committed, whatever the stored commit index says: that one may lag. */
Test(raft_core, a_stored_snapshot_is_committed)
{
    struct raft_options o = options();
    struct raft_term_span span = {1, 1};
    struct nh_snapshot snapshot = {.index = 3, .term = 1};
    struct raft_boot b = {.state = {.term = 1, .commit = 2}, .first_index = 1, .last_index = 4, .spans = &span, .n_spans = 1};
    struct raft_status s;
    struct raft *r;

    b.snapshot = &snapshot;
    cr_assert_eq(raft_new(&o, &b, &r, NULL), NH_OK);
    raft_get_status(r, &s);
    cr_assert_eq(s.commit_index, 3);
    cr_assert_eq(s.snapshot_index, 3);
    raft_free(r);
    snapshot.index = 5;
    cr_assert_eq(try_new(&o, &b), NH_ECORRUPT);
}

static bool is_replicate(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->type == NH_MSG_REPLICATE;
}

static uint64_t commit_after(struct raft_event ev, uint64_t index)
{
    ev.type = RAFT_EV_COMMITTED;
    ev.committed = index;
    cluster_step(&c, 1, &ev);
    return cluster_status(&c, 1).commit_index;
}

/* Replica 1 of three: nothing was saved since entries were committed. */
static void restart_with_a_low_commit_index(void)
{
    cluster_start(&c, 3);
    c.nodes[1].hold_applies = true; /* the harness starts at what was applied */
    cluster_propose(&c, 1, 3, 8);
    cluster_settle(&c);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
}

/* What a machine on disk held at start: nobody needs to say again that it is committed. */
Test(raft_core, what_was_committed_in_an_earlier_life_needs_no_leader)
{
    struct raft_event ev = {0};
    struct raft_status s;

    restart_with_a_low_commit_index();
    s = cluster_status(&c, 1);
    cr_assert_lt(s.commit_index + 1, s.last_index);
    cr_assert_eq(commit_after(ev, s.last_index - 1), s.last_index - 1);
    cr_assert_eq(commit_after(ev, 1), s.last_index - 1);
    cr_assert_eq(commit_after(ev, UINT64_MAX), s.last_index, "not above the log");
    cluster_deinit(&c);
}

/* A leader's own term begins behind what was stored at start. */
Test(raft_core, nothing_of_a_leaders_term_was_committed_in_an_earlier_life)
{
    struct raft_event ev = {0};
    struct raft_status s;

    restart_with_a_low_commit_index();
    c.lose = is_replicate;
    for (uint32_t i = 0; i < 100 && cluster_leader(&c) != 1; i++)
        cluster_campaign(&c, 1);
    s = cluster_status(&c, 1);
    cr_assert_eq(s.role, RAFT_LEADER);
    cr_assert_lt(s.commit_index, s.last_index);
    cr_assert_eq(commit_after(ev, UINT64_MAX), s.last_index - 1);
    cluster_deinit(&c);
}

/* The term of the snapshot that the log begins with is not above the stored one, but in a log that is to begin so. */
Test(raft_core, the_snapshot_before_the_log_has_an_older_term)
{
    struct raft_options o = options();
    struct raft_term_span span = {4, 1};
    struct raft_boot b = {.state = {.term = 1, .commit = 3}, .first_index = 4, .last_index = 3, .anchor_term = 2, .applied = 3};

    cr_assert_eq(try_new(&o, &b), NH_ECORRUPT);
    o.start_below_snapshot_term = true;
    cr_assert_eq(try_new(&o, &b), NH_OK);
    b.anchor_term = 3;
    cr_assert_eq(try_new(&o, &b), NH_ECORRUPT);
    b.anchor_term = 2;
    b.last_index = 4;
    b.spans = &span;
    b.n_spans = 1;
    cr_assert_eq(try_new(&o, &b), NH_ECORRUPT);
}
