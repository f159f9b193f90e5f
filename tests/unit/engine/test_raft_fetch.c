/* A peer that lags behind what is in memory: entries are fetched from the log store. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static void lagging_peer(uint32_t entries)
{
    struct raft_options o = cluster_options();

    o.max_cached_bytes = 1;
    o.max_message_bytes = 300;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 3, true);
    for (uint32_t i = 0; i < entries; i++) {
        cluster_propose(&c, 1, 1, 50);
        cluster_settle(&c);
    }
    cluster_tick(&c, 2);
    cr_assert_gt(cluster_status(&c, 1).cached_first, 20);
}

Test(raft_fetch, a_lagging_peer_is_served_from_the_log_store)
{
    lagging_peer(50);
    cr_assert_eq(c.nodes[1].n_fetches, 0);
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 5);
    cr_assert_gt(c.nodes[1].n_fetches, 5);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

Test(raft_fetch, one_fetch_a_peer_is_outstanding)
{
    lagging_peer(50);
    c.nodes[1].hold_fetches = true;
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 5);
    cr_assert_eq(c.nodes[1].fetches.n, 1);
    cr_assert_eq(c.nodes[1].fetches.items[0].peer, 3);
    cr_assert_eq(c.nodes[1].fetches.items[0].low, cluster_peer(&c, 1, 3).match + 1);
    cr_assert_eq(c.nodes[1].fetches.items[0].max_bytes, 300);
    cluster_deinit(&c);
}

Test(raft_fetch, a_failed_fetch_is_tried_again_at_the_next_heartbeat_answer)
{
    uint32_t before;

    lagging_peer(50);
    c.nodes[1].fail_fetches = true;
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 3);
    before = c.nodes[1].n_fetches;
    cr_assert(before > 0 && before <= 3, "%u fetches in 3 ticks", before);
    c.nodes[1].fail_fetches = false;
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

Test(raft_fetch, a_late_answer_to_a_fetch_is_dropped)
{
    lagging_peer(50);
    c.nodes[1].hold_fetches = true;
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[1].fetches.n, 1);
    cluster_isolate(&c, 1, true);
    cluster_tick(&c, 60); /* another one leads */
    cr_assert_neq(cluster_leader(&c), 1);
    c.nodes[1].hold_fetches = false;
    cluster_isolate(&c, 1, false);
    cluster_settle(&c);
    cluster_tick(&c, 40);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}
