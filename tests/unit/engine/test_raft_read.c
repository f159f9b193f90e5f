/* Linearizable reads (ReadIndex). The harness also checks each answer against what was committed when it was asked for. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

/* Replica 1 leads over ghosts 2 and 3; its opening entry (index 2) is committed if `ready`. */
static void lead(bool ready)
{
    struct raft_options o = cluster_options();
    struct nh_message m;

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    if (ready) {
        m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);
        m.log_index = 2;
        cluster_inject(&c, m);
        cluster_settle(&c);
    }
    cluster_forget_sent(&c);
}

static void confirm(uint64_t from, uint64_t round)
{
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT_RESP, from, 1, 2);

    m.hint = round;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static void forward(uint64_t from, uint64_t low, uint64_t high)
{
    struct nh_message m = cluster_message(NH_MSG_READ_INDEX, from, 1, 2);

    m.hint = low;
    m.hint_high = high;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static uint64_t newest_round(void)
{
    return cluster_sent(&c, NH_MSG_HEARTBEAT, 2)->hint;
}

Test(raft_read, every_replica_can_read)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    for (uint64_t id = 1; id <= 3; id++) {
        uint64_t ctx = cluster_read(&c, id);

        cluster_settle(&c);
        cr_assert_eq(c.nodes[id].reads.n, 1);
        cr_assert_eq(c.nodes[id].reads.items[0].low, ctx);
        cr_assert_eq(c.nodes[id].reads.items[0].high, id);
        cr_assert_eq(c.nodes[id].reads.items[0].index, 3);
    }
    cluster_deinit(&c);
}

/* Statement 69: before an entry of the own term is committed a read waits; it is not dropped. */
Test(raft_read, a_read_before_the_first_commit_of_the_term_is_deferred)
{
    struct nh_message m;

    lead(false);
    cluster_read(&c, 1);
    cluster_settle(&c);
    cluster_tick(&c, 1);
    cr_assert_eq(newest_round(), 0, "no round is asked for yet");
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);
    m.log_index = 2;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].reads.n, 0, "an acknowledged entry is no confirmation");
    confirm(2, newest_round());
    cr_assert_eq(c.nodes[1].reads.n, 1);
    cr_assert_eq(c.nodes[1].reads.items[0].index, 2);
    cluster_deinit(&c);
}

/* Statement 70: the index is the commit index at arrival; a majority of voters confirms it. */
Test(raft_read, a_read_has_the_commit_index_of_its_arrival)
{
    lead(true);
    cluster_read(&c, 1);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);
    m.log_index = 3;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    confirm(2, newest_round());
    cr_assert_eq(c.nodes[1].reads.items[0].index, 2);
    cluster_deinit(&c);
}

Test(raft_read, one_round_confirms_all_earlier_reads_each_with_its_own_context)
{
    uint64_t first, second;

    lead(true);
    first = cluster_read(&c, 1);
    cluster_settle(&c);
    forward(3, 77, 3);
    second = cluster_read(&c, 1);
    cluster_settle(&c);
    confirm(2, newest_round());
    cr_assert_eq(c.nodes[1].reads.n, 2);
    cr_assert_eq(c.nodes[1].reads.items[0].low, first);
    cr_assert_eq(c.nodes[1].reads.items[1].low, second);
    cr_assert_eq(cluster_sent(&c, NH_MSG_READ_INDEX_RESP, 3)->hint, 77);
    cr_assert_eq(cluster_sent(&c, NH_MSG_READ_INDEX_RESP, 3)->hint_high, 3);
    cr_assert_eq(cluster_sent(&c, NH_MSG_READ_INDEX_RESP, 3)->log_index, 2);
    cluster_deinit(&c);
}

/* Statement 71: acknowledgements of an older round do not confirm. */
Test(raft_read, an_older_round_does_not_confirm_a_newer_read)
{
    uint64_t round;

    lead(true);
    cluster_read(&c, 1);
    cluster_settle(&c);
    round = newest_round();
    cluster_read(&c, 1);
    cluster_settle(&c);
    confirm(2, round);
    cr_assert_eq(c.nodes[1].reads.n, 1);
    confirm(3, round);
    cr_assert_eq(c.nodes[1].reads.n, 1);
    confirm(3, round + 1);
    cr_assert_eq(c.nodes[1].reads.n, 2);
    cluster_deinit(&c);
}

/* Statement 71: a context that is asked for again after its answer was lost gets a round of its own: a late answer to
 * its first round must not confirm a read that came in between. */
Test(raft_read, equal_contexts_do_not_share_a_confirmation)
{
    uint64_t round;

    lead(true);
    forward(3, 77, 3);
    round = newest_round();
    confirm(3, round);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_READ_INDEX_RESP, 3), 1);
    cluster_read(&c, 1);
    forward(3, 77, 3);
    cr_assert_eq(newest_round(), round + 2);
    confirm(2, round); /* late */
    cr_assert_eq(c.nodes[1].reads.n, 0);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_READ_INDEX_RESP, 3), 1);
    confirm(2, round + 2);
    cr_assert_eq(c.nodes[1].reads.n, 1);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_READ_INDEX_RESP, 3), 2);
    cluster_deinit(&c);
}

Test(raft_read, a_doubled_forwarded_read_is_answered_once)
{
    lead(true);
    forward(3, 77, 3);
    forward(3, 77, 3);
    confirm(2, newest_round());
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_READ_INDEX_RESP, 3), 1);
    cluster_deinit(&c);
}

Test(raft_read, a_lost_round_is_healed_by_the_next_heartbeat)
{
    lead(true);
    cluster_read(&c, 1);
    cluster_settle(&c);
    cluster_forget_sent(&c); /* lost */
    cluster_tick(&c, 1);
    cr_assert_neq(newest_round(), 0);
    confirm(3, newest_round());
    cr_assert_eq(c.nodes[1].reads.n, 1);
    cluster_deinit(&c);
}

Test(raft_read, reads_of_one_pass_share_one_round_of_heartbeats)
{
    struct raft_update out = {0};
    uint32_t heartbeats = 0;

    lead(true);
    for (uint64_t i = 0; i < 10; i++) {
        struct raft_event ev = {.type = RAFT_EV_READ, .now = c.now, .read = {.low = 100 + i, .high = 1}};

        raft_step(c.nodes[1].core, &ev, &out);
    }
    raft_collect(c.nodes[1].core, &out);
    for (size_t i = 0; i < out.send.n; i++)
        heartbeats += out.send.items[i].type == NH_MSG_HEARTBEAT;
    cr_assert_eq(heartbeats, 2, "one for each peer");
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

/* Statement 72: losing leadership drops reads for good, with a reason, here and at the forwarder. */
Test(raft_read, a_deposed_leader_drops_its_reads)
{
    uint64_t ctx;

    lead(true);
    ctx = cluster_read(&c, 1);
    forward(3, 77, 3);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert(c.nodes[1].dropped.items[0].is_read);
    cr_assert_eq(c.nodes[1].dropped.items[0].first_key, ctx);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_REFUSED);
    cr_assert(cluster_sent(&c, NH_MSG_READ_INDEX_RESP, 3)->reject);
    cr_assert_eq(cluster_sent(&c, NH_MSG_READ_INDEX_RESP, 3)->hint, 77);
    confirm(2, 1); /* of the old term: nobody listens */
    cr_assert_eq(c.nodes[1].reads.n, 0);
    cluster_deinit(&c);
}

Test(raft_read, a_stale_leader_cannot_confirm_a_read)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 1, true);
    cluster_read(&c, 1);
    cluster_tick(&c, 40);
    cr_assert_neq(cluster_leader(&c), 1);
    cr_assert_eq(c.nodes[1].reads.n, 0);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cluster_deinit(&c);
}

Test(raft_read, a_dropped_forwarded_read_is_reported_where_it_was_asked)
{
    uint64_t ctx;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    c.cut[2][1] = false;
    ctx = cluster_read(&c, 2); /* on its way to 1 */
    cr_assert_eq(c.network.n, 1);
    struct nh_message on_its_way = c.network.items[0];
    c.network.n = 0;
    cluster_isolate(&c, 1, true);
    cluster_tick(&c, 25); /* 1 steps down */
    cluster_heal(&c);
    cluster_inject(&c, on_its_way);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[2].dropped.n, 1);
    cr_assert(c.nodes[2].dropped.items[0].is_read);
    cr_assert_eq(c.nodes[2].dropped.items[0].first_key, ctx);
    cluster_deinit(&c);
}

Test(raft_read, without_a_leader_a_read_is_dropped)
{
    cluster_init(&c, 3, NULL);
    cluster_read(&c, 2);
    cr_assert_eq(c.nodes[2].dropped.n, 1);
    cr_assert_eq(c.nodes[2].dropped.items[0].reason, NH_DROP_NO_LEADER);
    cluster_deinit(&c);
}

Test(raft_read, a_single_voter_confirms_at_once)
{
    cluster_init(&c, 1, NULL);
    cluster_elect(&c, 1);
    cluster_read(&c, 1);
    cr_assert_eq(c.nodes[1].reads.n, 1);
    cr_assert_eq(c.nodes[1].reads.items[0].index, 2);
    cluster_deinit(&c);
}

/* Statement 70: a smaller majority confirms what waits. */
Test(raft_read, a_removal_that_shrinks_the_quorum_confirms_at_once)
{
    cluster_init(&c, 4, NULL);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, false, 4);
    cluster_settle(&c);
    cluster_isolate(&c, 3, true);
    cluster_isolate(&c, 4, true);
    cluster_read(&c, 1);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].reads.n, 0, "two of four");
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].reads.n, 1, "two of three");
    cluster_deinit(&c);
}

/* Contexts are the callers' own: equal ones of two replicas are two reads, as are two that differ in one word. */
Test(raft_read, equal_contexts_of_two_replicas_are_two_reads)
{
    lead(true);
    forward(2, 5, 6);
    forward(3, 5, 6);
    forward(3, 5, 7);
    confirm(2, newest_round());
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_READ_INDEX_RESP, 2), 1);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_READ_INDEX_RESP, 3), 2);
    cluster_deinit(&c);
}

/* Statement 73: a replica that is no member (any more) gets no read. */
Test(raft_read, a_stranger_gets_no_read)
{
    lead(true);
    forward(6, 5, 6);
    cr_assert(cluster_sent(&c, NH_MSG_READ_INDEX_RESP, 6)->reject);
    cluster_deinit(&c);
}

/* The limit and one past it. */
Test(raft_read, waiting_reads_are_limited)
{
    lead(true);
    for (uint64_t i = 1; i <= 4096; i++)
        forward(3, i, 3);
    cr_assert_null(cluster_sent(&c, NH_MSG_READ_INDEX_RESP, 3));
    cluster_read(&c, 1);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_OVERLOADED);
    confirm(2, newest_round());
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_READ_INDEX_RESP, 3), 4096);
    cluster_deinit(&c);
}

/* Replica 1 of n, all others ghosts: how many of them must confirm. */
static uint32_t confirmations_needed(uint32_t n)
{
    struct raft_options o = cluster_options();
    uint32_t needed = 0;

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, n, &o);
    cluster_campaign(&c, 1);
    for (uint64_t id = 2; id <= n; id++)
        cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, id, 1, 2));
    cluster_settle(&c);
    for (uint64_t id = 2; id <= n; id++) {
        struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, id, 1, 2);

        m.log_index = 2;
        cluster_inject(&c, m);
    }
    cluster_read(&c, 1);
    cluster_settle(&c);
    for (uint64_t id = 2; id <= n && c.nodes[1].reads.n == 0; id++, needed++) {
        confirm(id, newest_round());
        confirm(id, newest_round()); /* twice counts once */
    }
    cluster_deinit(&c);
    return needed;
}

Test(raft_read, a_majority_confirms)
{
    cr_assert_eq(confirmations_needed(2), 1);
    cr_assert_eq(confirmations_needed(3), 1);
    cr_assert_eq(confirmations_needed(4), 2);
    cr_assert_eq(confirmations_needed(5), 2);
}

/* A clock that has just begun is younger than a lease is long: that nobody has answered yet must not look like a lease. */
Test(raft_read, a_young_clock_is_no_lease)
{
    struct raft_options o = cluster_options();
    struct nh_message m;

    o.lease_reads = true;
    cluster_init_ghosts(&c, 1, 3, &o);
    m = cluster_message(NH_MSG_TIMEOUT_NOW, 2, 1, 1);
    cluster_inject(&c, m);
    cluster_settle(&c);
    m = cluster_message(NH_MSG_REQUEST_VOTE_RESP, 3, 1, 2);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert_eq(c.now, 0);
    cr_assert_not(cluster_status(&c, 1).lease_held);
    cluster_deinit(&c);
}

/* Statement 69: nobody was asked yet, as the read has no index; who confirms all the same gets it no answer. */
Test(raft_read, a_confirmation_before_the_question_answers_nothing)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);

    lead(false);
    cluster_read(&c, 1);
    confirm(2, 1);
    confirm(3, 1);
    cr_assert_eq(c.nodes[1].reads.n, 0);
    m.log_index = 2;
    cluster_inject(&c, m);
    cluster_tick(&c, 1);
    confirm(2, newest_round());
    cr_assert_eq(c.nodes[1].reads.n, 1);
    cr_assert_eq(c.nodes[1].reads.items[0].index, 2);
    cluster_deinit(&c);
}
