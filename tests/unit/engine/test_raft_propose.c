/* Proposals: quota, configuration changes, forwarding, and the promise that "dropped" is. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static void lead_with(const struct raft_options *options)
{
    struct raft_options o = options ? *options : cluster_options();
    struct nh_message m;

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);
    m.log_index = 2;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cluster_forget_sent(&c);
}

static void acknowledge(uint64_t index)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);

    m.log_index = index;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static void forward(uint64_t from, uint64_t term, uint64_t first_key, uint32_t n, uint32_t payload_bytes)
{
    struct nh_message m = cluster_message(NH_MSG_PROPOSE, from, 1, term);

    cluster_add_proposals(&m, first_key, n, payload_bytes);
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static uint64_t last_index(void)
{
    return cluster_status(&c, 1).last_index;
}

static uint32_t drops_told(uint64_t to)
{
    return cluster_count_sent(&c, NH_MSG_PROPOSE_RESP, to);
}

/* ---- quota ---- */

/* Statement 74: the first batch of any size is taken, the next is refused, a commit frees. */
Test(raft_propose, the_quota_takes_the_first_batch_and_frees_on_commit)
{
    struct raft_options o = cluster_options();
    uint64_t key;

    o.max_uncommitted_bytes = 100;
    lead_with(&o);
    cluster_propose(&c, 1, 1, 1000);
    cluster_settle(&c);
    cr_assert_eq(last_index(), 3);
    key = cluster_propose(&c, 1, 2, 1);
    cr_assert_eq(last_index(), 3);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(c.nodes[1].dropped.items[0].first_key, key);
    cr_assert_eq(c.nodes[1].dropped.items[0].n_keys, 2);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_OVERLOADED);
    acknowledge(3);
    cr_assert_eq(cluster_status(&c, 1).uncommitted_bytes, 0);
    cluster_propose(&c, 1, 1, 1);
    cr_assert_eq(last_index(), 4);
    cluster_deinit(&c);
}

/* The limit and one past it; payloads are padded to 8 bytes. */
Test(raft_propose, the_quota_is_exact)
{
    struct raft_options o = cluster_options();

    o.max_uncommitted_bytes = 96;
    lead_with(&o);
    cluster_propose(&c, 1, 1, 48);
    cluster_propose(&c, 1, 1, 48);
    cr_assert_eq(cluster_status(&c, 1).uncommitted_bytes, 96);
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    cluster_propose(&c, 1, 1, 1);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cluster_deinit(&c);
}

Test(raft_propose, an_entry_without_payload_is_never_refused)
{
    struct raft_options o = cluster_options();

    o.max_uncommitted_bytes = 1;
    lead_with(&o);
    cluster_propose(&c, 1, 1, 100);
    cluster_propose(&c, 1, 3, 0);
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    cr_assert_eq(last_index(), 6);
    cluster_deinit(&c);
}

Test(raft_propose, a_new_leader_starts_with_an_empty_quota)
{
    struct raft_options o = cluster_options();

    o.max_uncommitted_bytes = 100;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 1, true);
    cluster_propose(&c, 1, 1, 500);
    cluster_settle(&c);
    cluster_tick(&c, 40);
    cluster_heal(&c);
    cluster_tick(&c, 5);
    cr_assert_eq(cluster_status(&c, cluster_leader(&c)).uncommitted_bytes, 0);
    cluster_deinit(&c);
}

/* ---- configuration changes ---- */

/* Statement 45: while a change is not applied the next one is dropped, by index. */
Test(raft_propose, one_configuration_change_at_a_time)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cluster_propose_change(&c, 1, true, 5);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_CONFIG_PENDING);
    cluster_propose(&c, 1, 1, 1);
    cr_assert_eq(c.nodes[1].dropped.n, 1, "ordinary proposals go on");
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cluster_propose_change(&c, 1, true, 5);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cluster_deinit(&c);
}

/* Statement 46: no change before an entry of the own term is committed. */
Test(raft_propose, a_configuration_change_waits_for_an_entry_of_the_own_term)
{
    struct raft_options o = cluster_options();

    o.pre_vote = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cluster_propose_change(&c, 1, true, 4);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    acknowledge(2);
    cluster_propose_change(&c, 1, true, 4);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(last_index(), 3);
    cluster_deinit(&c);
}

/* ---- forwarding ---- */

Test(raft_propose, a_follower_forwards_and_it_is_applied_once)
{
    uint64_t key;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    key = cluster_propose(&c, 2, 3, 10);
    cr_assert_eq(c.network.items[0].type, NH_MSG_PROPOSE);
    cr_assert_eq(c.network.items[0].term, 2);
    cr_assert_eq(c.network.items[0].hint, key);
    cr_assert_eq(c.network.items[0].hint_high, 3);
    cluster_settle(&c);
    for (uint64_t k = key; k < key + 3; k++)
        cr_assert_eq(cluster_applied_times(&c, 2, k), 1);
    cr_assert_eq(c.nodes[2].dropped.n, 0);
    cluster_deinit(&c);
}

Test(raft_propose, without_a_leader_a_proposal_is_dropped)
{
    cluster_init(&c, 3, NULL);
    cluster_propose(&c, 2, 2, 1);
    cr_assert_eq(c.nodes[2].dropped.n, 1);
    cr_assert_eq(c.nodes[2].dropped.items[0].reason, NH_DROP_NO_LEADER);
    cluster_deinit(&c);
}

Test(raft_propose, a_doubled_batch_is_taken_once_and_not_answered)
{
    lead_with(NULL);
    forward(2, 2, 10, 3, 5);
    cr_assert_eq(last_index(), 5);
    forward(2, 2, 10, 3, 5);
    cr_assert_eq(last_index(), 5);
    cr_assert_eq(drops_told(2), 0);
    forward(2, 2, 13, 1, 5);
    cr_assert_eq(last_index(), 6);
    cluster_deinit(&c);
}

/* Keys of one origin only grow: an overtaken batch can not be told from a copy. */
Test(raft_propose, an_overtaken_batch_is_neither_taken_nor_called_dropped)
{
    lead_with(NULL);
    forward(2, 2, 20, 1, 5);
    forward(2, 2, 10, 1, 5);
    forward(2, 2, 19, 3, 5); /* overlaps */
    cr_assert_eq(last_index(), 3);
    cr_assert_eq(drops_told(2), 0);
    forward(3, 2, 10, 1, 5); /* another origin has its own order */
    cr_assert_eq(last_index(), 4);
    cluster_deinit(&c);
}

/* Statement 38: a refused batch leaves nothing behind; what is taken has its index and term at once. */
Test(raft_propose, a_refused_batch_is_answered_and_no_copy_of_it_is_taken_later)
{
    struct raft_options o = cluster_options();

    o.max_uncommitted_bytes = 10;
    lead_with(&o);
    cluster_propose(&c, 1, 1, 100);
    cluster_settle(&c);
    forward(2, 2, 10, 2, 5);
    cr_assert_eq(drops_told(2), 1);
    cr_assert(cluster_sent(&c, NH_MSG_PROPOSE_RESP, 2)->reject);
    cr_assert_eq(cluster_sent(&c, NH_MSG_PROPOSE_RESP, 2)->hint, 10);
    cr_assert_eq(cluster_sent(&c, NH_MSG_PROPOSE_RESP, 2)->hint_high, 2);
    acknowledge(3); /* there is room now */
    forward(2, 2, 10, 2, 5);
    cr_assert_eq(last_index(), 3);
    cr_assert_eq(drops_told(2), 1);
    cluster_deinit(&c);
}

Test(raft_propose, the_forwarder_reports_what_the_leader_dropped)
{
    struct nh_message m = cluster_message(NH_MSG_PROPOSE_RESP, 2, 1, 2);

    lead_with(NULL);
    m.reject = true;
    m.hint = 10;
    m.hint_high = 3;
    cluster_inject(&c, m);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert(!c.nodes[1].dropped.items[0].is_read);
    cr_assert_eq(c.nodes[1].dropped.items[0].first_key, 10);
    cr_assert_eq(c.nodes[1].dropped.items[0].n_keys, 3);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_REFUSED);
    for (uint64_t reason = NH_DROP_REASON_MAX; reason <= NH_DROP_REASON_MAX + 1; reason++) {
        m.hint += 10;
        m.log_index = reason;
        cluster_inject(&c, m);
    }
    cr_assert_eq(c.nodes[1].dropped.n, 3);
    cr_assert_eq(c.nodes[1].dropped.items[1].reason, NH_DROP_REASON_MAX);
    cr_assert_eq(c.nodes[1].dropped.items[2].reason, NH_DROP_REFUSED, "a reason that is not known here");
    cluster_deinit(&c);
}

/* A deposed leader still knows what it took in its last term: a copy is met with silence, an unknown batch is dropped for sure.
 */
Test(raft_propose, a_deposed_leader_tells_copies_from_batches_it_never_saw)
{
    lead_with(NULL);
    forward(2, 2, 10, 2, 5);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 3, 1, 5));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    forward(2, 2, 10, 2, 5);
    cr_assert_eq(drops_told(2), 0);
    forward(2, 2, 12, 2, 5);
    cr_assert_eq(drops_told(2), 1);
    forward(2, 2, 12, 2, 5); /* its copy */
    cr_assert_eq(drops_told(2), 1);
    cluster_deinit(&c);
}

Test(raft_propose, after_a_restart_batches_of_earlier_terms_are_met_with_silence)
{
    lead_with(NULL);
    forward(2, 2, 10, 2, 5);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    forward(2, 2, 10, 2, 5);
    forward(2, 2, 12, 2, 5);
    cr_assert_eq(drops_told(2), 0);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 0);
    cluster_deinit(&c);
}

Test(raft_propose, a_leader_is_silent_about_terms_it_may_have_led_before)
{
    lead_with(NULL);
    forward(2, 2, 10, 1, 5);
    cluster_inject(&c, cluster_message(NH_MSG_NOOP, 3, 1, 4));
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 5));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    uint64_t last = last_index();
    forward(2, 2, 10, 1, 5);
    forward(2, 2, 11, 1, 5);
    cr_assert_eq(last_index(), last);
    cr_assert_eq(drops_told(2), 0);
    forward(2, 5, 11, 1, 5); /* the marks of the old leadership are gone, keys still only grow */
    cr_assert_eq(last_index(), last + 1);
    cluster_deinit(&c);
}

/* A term that was not led and cannot be led any more: surely dropped. One that may still be led: no answer. */
Test(raft_propose, who_never_led_the_term_answers_only_what_is_sure)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 3, 1, 5));
    cluster_settle(&c);
    forward(2, 5, 10, 1, 5);
    forward(2, 4, 11, 1, 5);
    cr_assert_eq(drops_told(2), 2);
    forward(2, 6, 12, 1, 5);
    cr_assert_eq(drops_told(2), 2);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 1);
    cluster_campaign(&c, 1); /* candidate of term 6 */
    forward(2, 6, 12, 1, 5);
    cr_assert_eq(drops_told(2), 2);
    cluster_deinit(&c);
}

Test(raft_propose, a_drop_is_not_told_before_the_term_is_durable)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    c.nodes[1].hold_saves = true;
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 3, 1, 5));
    forward(2, 5, 10, 1, 5);
    cr_assert_eq(drops_told(2), 0);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(drops_told(2), 1);
    cluster_deinit(&c);
}

Test(raft_propose, hostile_batches_are_ignored_and_counted)
{
    struct nh_message m;
    uint64_t last, ignored = 0;

    lead_with(NULL);
    last = last_index();
    for (int i = 0; i < 7; i++) {
        m = cluster_message(NH_MSG_PROPOSE, i == 0 ? 6 : 2, 1, 2); /* 0: a stranger */
        cluster_add_proposals(&m, 10, 2, 5);
        if (i == 1)
            m.hint = 11; /* not the records' keys */
        if (i == 2)
            m.hint_high = 3; /* not their number */
        if (i == 3)
            m.from = 3; /* not their origin */
        if (i == 4)
            m.hint = UINT64_MAX - 1; /* overflows */
        if (i == 5)
            m.runs[0].to = 7; /* beyond the block */
        if (i == 6)
            m.hint_high = 0; /* no keys */
        cluster_inject(&c, m);
        cluster_settle(&c);
        cr_assert_eq(cluster_status(&c, 1).ignored_messages, ++ignored, "case %d", i);
    }
    m = cluster_message(NH_MSG_PROPOSE, 2, 1, 2);
    m.hint = 10; /* no records at all */
    m.hint_high = 1;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, ++ignored);
    m = cluster_message(NH_MSG_PROPOSE, 2, 1, 2);
    cluster_add_proposals(&m, 0, 1, 5); /* key 0 is nobody's */
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, ++ignored);
    cr_assert_eq(last_index(), last);
    cr_assert_eq(c.ghosts.n, 0);
    cluster_deinit(&c);
}

static void add_record(struct block_builder *b, uint8_t type, uint64_t key)
{
    block_builder_add(b, &(struct block_record){.type = type, .origin = 2, .key = key, .payload = "x", .payload_bytes = 1});
}

/* n runs of one record each, with keys from 10 on; a record of that type first. */
static struct nh_message batch_of_runs(uint8_t first_type, uint32_t n)
{
    struct nh_message m = cluster_message(NH_MSG_PROPOSE, 2, 1, 2);
    struct run_list runs = {0};

    for (uint32_t i = 0; i < n; i++) {
        struct block_builder b = {0};
        struct nh_block *block;

        add_record(&b, i == 0 ? first_type : NH_ENTRY_APPLICATION, 10 + i);
        block = block_unsealed(&b);
        run_list_add(&runs, block, 0, 1);
        nh_block_unref(block);
    }
    m.hint = 10;
    m.hint_high = n;
    m.runs = runs.runs;
    m.n_runs = runs.n;
    return m;
}

/* A configuration change comes alone: how it stands to its neighbours in a batch nobody has said. */
Test(raft_propose, a_forwarded_configuration_change_comes_alone)
{
    lead_with(NULL);
    cluster_inject(&c, batch_of_runs(NH_ENTRY_CONFIG_CHANGE, 2));
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 1);
    cr_assert_eq(last_index(), 2);
    cluster_inject(&c, batch_of_runs(NH_ENTRY_CONFIG_CHANGE, 1));
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 1);
    cr_assert_eq(last_index(), 3);
    cr_assert(cluster_status(&c, 1).pending_config);
    cluster_deinit(&c);
}

/* Metadata is what a witness gets instead of an entry: nobody proposes it. Nor do the others of its batch count without it. */
Test(raft_propose, a_forwarded_record_is_one_that_may_be_proposed)
{
    struct nh_message m;

    lead_with(NULL);
    cluster_inject(&c, batch_of_runs(NH_ENTRY_METADATA, 1));
    m = batch_of_runs(NH_ENTRY_METADATA, 2);
    m.hint = 11;
    m.hint_high = 1;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 2);
    cr_assert_eq(last_index(), 2);
    cluster_deinit(&c);
}

/* A run that begins at its end, or behind it, is no slice of its block. */
Test(raft_propose, a_forwarded_run_is_not_empty)
{
    lead_with(NULL);
    for (uint32_t from = 1; from <= 2; from++) {
        struct nh_message m = batch_of_runs(NH_ENTRY_APPLICATION, 2);

        m.runs[1].from = from;
        m.hint_high = 1;
        cluster_inject(&c, m);
        cr_assert_eq(cluster_status(&c, 1).ignored_messages, from);
    }
    cr_assert_eq(last_index(), 2);
    cluster_deinit(&c);
}

/* The limit and one past it. */
Test(raft_propose, a_forwarded_batch_has_so_many_runs_and_no_more)
{
    lead_with(NULL);
    cluster_inject(&c, batch_of_runs(NH_ENTRY_APPLICATION, 1025));
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 1);
    cr_assert_eq(last_index(), 2);
    cluster_inject(&c, batch_of_runs(NH_ENTRY_APPLICATION, 1024));
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 1);
    cr_assert_eq(last_index(), 2 + 1024);
    cluster_deinit(&c);
}
