/* A replica that is too slow: it gets no more entries, and the others go on. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

/* Too much that is unapplied: no more entries come, commits go on without the slow one, and it catches up afterwards. */
Test(raft_load, an_overloaded_follower_gets_no_entries)
{
    cluster_start(&c, 3);
    c.nodes[3].options.max_unapplied_bytes = 3000;
    cluster_crash(&c, 3);
    cluster_restart(&c, 3);
    cluster_tick(&c, 2);
    c.nodes[3].hold_applies = true;
    for (int i = 0; i < 10; i++) {
        cluster_propose(&c, 1, 1, 1000);
        cluster_settle(&c);
    }
    cr_assert(cluster_status(&c, 3).overloaded);
    cr_assert(cluster_peer(&c, 1, 3).overloaded);
    cr_assert_lt(cluster_status(&c, 3).last_index, cluster_status(&c, 1).last_index);
    cr_assert_eq(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index);
    cluster_tick(&c, 15);
    cr_assert(cluster_peer(&c, 1, 3).overloaded, "the word is repeated");
    cr_assert_eq(cluster_leader(&c), 1, "it does not stand either: it hears heartbeats");
    c.nodes[3].hold_applies = false;
    cluster_tick(&c, 15);
    cr_assert(!cluster_status(&c, 3).overloaded);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* The others would go on and fill its memory with what its machine has not applied, and nobody would be answered. */
Test(raft_load, an_overloaded_leader_takes_no_proposals)
{
    struct raft_options o = cluster_options();
    uint64_t last;

    o.max_unapplied_bytes = 3000;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    for (int i = 0; i < 3; i++) {
        cluster_propose(&c, 1, 1, 1000);
        cluster_settle(&c);
    }
    last = cluster_status(&c, 1).last_index;
    cr_assert(cluster_status(&c, 1).overloaded);
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    cr_assert_eq(cluster_status(&c, 1).commit_index, last);
    cluster_propose(&c, 1, 2, 8);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_OVERLOADED);
    cr_assert_eq(cluster_status(&c, 1).last_index, last);
    cluster_propose(&c, 1, 1, 0);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).last_index, last + 1, "without a payload it is taken all the same");
    cluster_apply(&c, 1);
    cr_assert(cluster_status(&c, 1).overloaded, "more than half is left");
    cluster_propose(&c, 1, 1, 8);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).last_index, last + 2, "and no more than may be");
    c.nodes[1].hold_applies = false;
    cluster_tick(&c, 2);
    cr_assert(!cluster_status(&c, 1).overloaded);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* That is how its clients can be served meanwhile. */
Test(raft_load, an_overloaded_leader_gives_the_lead_away)
{
    struct raft_options o = cluster_options();

    o.max_unapplied_bytes = 1000;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose(&c, 1, 1, 1000);
    cluster_settle(&c);
    cr_assert(cluster_status(&c, 1).overloaded);
    cluster_transfer(&c, 1, 3);
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 3);
    cluster_propose(&c, 3, 1, 8);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[3].dropped.n, 0);
    cr_assert_eq(cluster_status(&c, 2).applied_index, cluster_status(&c, 3).last_index);
    c.nodes[1].hold_applies = false;
    cluster_tick(&c, 2);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* What it has not applied does not go away with the election. */
Test(raft_load, an_overloaded_follower_that_leads_takes_no_proposals)
{
    struct raft_options o = cluster_options();

    o.max_unapplied_bytes = 1000;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.nodes[2].hold_applies = true;
    cluster_propose(&c, 1, 1, 1000);
    cluster_tick(&c, 2);
    cr_assert(cluster_status(&c, 2).overloaded);
    cluster_transfer(&c, 1, 2);
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_propose(&c, 2, 1, 8);
    cr_assert_eq(c.nodes[2].dropped.n, 1);
    cr_assert_eq(c.nodes[2].dropped.items[0].reason, NH_DROP_OVERLOADED);
    c.nodes[2].hold_applies = false;
    cluster_settle(&c);
    cluster_propose(&c, 2, 1, 8);
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[2].dropped.n, 1);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Its «go on» may be lost, so the word lapses after E. */
Test(raft_load, the_word_of_an_overloaded_follower_lapses)
{
    struct nh_message m = cluster_message(NH_MSG_RATE_LIMIT, 3, 1, 2);

    cluster_start(&c, 3);
    m.hint = 1;
    cluster_inject(&c, m);
    cr_assert(cluster_peer(&c, 1, 3).overloaded);
    cluster_propose(&c, 1, 1, 10);
    cluster_tick(&c, 9);
    cr_assert(cluster_peer(&c, 1, 3).overloaded);
    cluster_tick(&c, 1);
    cr_assert(!cluster_peer(&c, 1, 3).overloaded);
    cluster_tick(&c, 1);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Found by the simulator (seed 21045): both followers were overloaded by entries that could not be committed without them. What
 * is not committed does not count. */
Test(raft_load, uncommitted_entries_overload_nobody)
{
    cluster_start(&c, 3);
    for (uint64_t id = 2; id <= 3; id++) {
        cluster_crash(&c, id);
        c.nodes[id].options.max_unapplied_bytes = 2000;
        cluster_restart(&c, id);
    }
    cluster_tick(&c, 2);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = true;
    for (int i = 0; i < 5; i++) {
        cluster_propose(&c, 1, 1, 1000);
        cluster_settle(&c);
    }
    cr_assert(!cluster_status(&c, 2).overloaded && !cluster_status(&c, 3).overloaded);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = false;
    cluster_settle(&c);
    cluster_tick(&c, 5);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* ---- who tells whom ---- */

static struct raft_options small_options(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    o.max_unapplied_bytes = 100;
    o.max_apply_bytes = 1; /* one entry at a time */
    return o;
}

/* Three entries of 48 bytes are committed in term 5, as ghost 2 says, and none is applied. */
static void overloaded_follower(void)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, 5);
    struct raft_options o = small_options();

    cluster_init_ghosts(&c, 1, 3, &o);
    c.nodes[1].hold_applies = true;
    m.log_index = m.log_term = 1;
    m.commit = 4;
    cluster_add_entries(&m, (const uint64_t[]){5, 5, 5}, 3);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert(cluster_status(&c, 1).overloaded);
}

static void apply_all(void)
{
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert(!cluster_status(&c, 1).overloaded);
}

Test(raft_load, the_leader_is_told_once_each_way)
{
    overloaded_follower();
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_RATE_LIMIT, 2), 1);
    cr_assert_eq(cluster_sent(&c, NH_MSG_RATE_LIMIT, 2)->hint, 1);
    apply_all();
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_RATE_LIMIT, 0), 2);
    cr_assert_eq(cluster_sent(&c, NH_MSG_RATE_LIMIT, 2)->hint, 0);
    cluster_deinit(&c);
}

Test(raft_load, without_a_leader_nobody_is_told)
{
    struct raft_event forget = {.type = RAFT_EV_FORGET_LEADER};

    overloaded_follower();
    cluster_step(&c, 1, &forget);
    cr_assert_eq(cluster_status(&c, 1).leader_id, NH_NO_LEADER);
    apply_all();
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_RATE_LIMIT, 0), 1, "only what was said before");
    cluster_deinit(&c);
}

/* A leader that applies slowly is not its own peer. */
Test(raft_load, a_leader_tells_nobody)
{
    struct raft_options o = small_options();
    struct nh_message m;

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    c.nodes[1].hold_applies = true;
    for (int i = 0; i < 6; i++)
        cluster_propose(&c, 1, 1, 8);
    cluster_settle(&c);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);
    m.log_index = cluster_status(&c, 1).last_index;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert(cluster_status(&c, 1).overloaded);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_RATE_LIMIT, 0), 0);
    apply_all();
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_RATE_LIMIT, 0), 0);
    cluster_deinit(&c);
}
