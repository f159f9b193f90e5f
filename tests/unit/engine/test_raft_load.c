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
