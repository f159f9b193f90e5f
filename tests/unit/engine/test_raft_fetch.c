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

/* The peer moved on meanwhile: what was read for it is no longer what it needs (statement 31). */
Test(raft_fetch, an_answer_for_where_the_peer_was_is_dropped)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);
    uint64_t sent;

    lagging_peer(50);
    c.nodes[1].hold_fetches = true;
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[1].fetches.n, 1);
    m.log_index = c.nodes[1].fetches.items[0].low + 5; /* it has more than was known */
    c.cut[1][3] = true;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_peer(&c, 1, 3).match, c.nodes[1].fetches.items[0].low + 5);
    sent = cluster_peer(&c, 1, 3).next;
    cluster_fetch(&c, 1);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, sent);
    cr_assert_eq(cluster_peer(&c, 1, 3).inflight_messages, 0);
    cluster_deinit(&c);
}

/* Of other terms, or not where it was asked for: it is not what this log has. */
Test(raft_fetch, an_answer_that_contradicts_the_log_is_not_sent)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 1, 3, 9);
    struct raft_event ev = {.type = RAFT_EV_FETCHED, .fetched = {.peer = 3}};

    lagging_peer(50);
    c.nodes[1].hold_fetches = true;
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[1].fetches.n, 1);
    m.log_index = c.nodes[1].fetches.items[0].low - 1;
    cluster_add_entries(&m, (const uint64_t[]){9}, 1);
    ev.fetched.runs = m.runs;
    ev.fetched.n_runs = m.n_runs;
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 3).inflight_messages, 0);
    nh_message_deinit(&m);
    cluster_deinit(&c);
}

/* A fetch for replica 3 is under way. */
static void fetching(void)
{
    lagging_peer(50);
    c.nodes[1].hold_fetches = true;
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[1].fetches.n, 1);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_REPLICATE);
    cr_assert_eq(cluster_peer(&c, 1, 3).inflight_messages, 0);
}

/* What the log store has at this index. */
static struct nh_run stored(uint64_t index)
{
    const struct stored_entry *e = &c.nodes[1].disk.items[index - 1];

    return (struct nh_run){e->block, e->at, e->at + 1};
}

static void fetched(struct nh_run *runs, uint32_t n)
{
    struct raft_event ev = {.type = RAFT_EV_FETCHED, .fetched = {.peer = 3, .runs = runs, .n_runs = n}};

    cluster_step(&c, 1, &ev);
}

/* A log store that answers with nonsense is like one that fails: no slice, one beyond its block, one from elsewhere, a hole. */
Test(raft_fetch, an_answer_that_is_malformed_is_not_sent)
{
    for (int i = 0; i < 5; i++) {
        struct nh_run runs[2];
        uint64_t low;

        fetching();
        low = c.nodes[1].fetches.items[0].low;
        runs[0] = stored(i == 2 ? low + 1 : low);
        runs[1] = stored(i == 3 ? low + 2 : low + 1);
        if (i == 0)
            runs[0].to = runs[0].from;
        if (i == 1)
            runs[0].to = runs[0].block->n + 1;
        fetched(runs, i == 3 ? 2 : 1);
        cr_assert_eq(cluster_peer(&c, 1, 3).state, i < 4 ? RAFT_PROBE : RAFT_REPLICATE, "case %d", i);
        cr_assert_eq(cluster_peer(&c, 1, 3).inflight_messages, i < 4 ? 0 : 1, "case %d", i);
        cluster_deinit(&c);
    }
}

/* Nothing is known of its place in the log any more (statement 31). */
Test(raft_fetch, an_answer_for_a_peer_that_is_probed_is_dropped)
{
    struct raft_event lost = {.type = RAFT_EV_UNREACHABLE, .peer = 3};
    struct nh_run run;
    uint64_t next;

    fetching();
    cluster_step(&c, 1, &lost);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    next = cluster_peer(&c, 1, 3).next;
    c.delivered[NH_MSG_REPLICATE] = 0;
    run = stored(c.nodes[1].fetches.items[0].low);
    fetched(&run, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, next);
    cr_assert_eq(c.delivered[NH_MSG_REPLICATE], 0);
    cluster_deinit(&c);
}

/* It asked for no entries meanwhile, so nothing is under way for it. */
Test(raft_fetch, an_answer_that_nobody_waits_for_is_dropped)
{
    struct raft_event lost = {.type = RAFT_EV_UNREACHABLE, .peer = 3};
    struct nh_message m = cluster_message(NH_MSG_RATE_LIMIT, 3, 1, 2);
    struct nh_run run;
    uint64_t low;

    fetching();
    low = c.nodes[1].fetches.items[0].low;
    cluster_step(&c, 1, &lost);
    run = stored(low);
    fetched(&run, 1);
    m.hint = 1;
    cluster_inject(&c, m);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);
    m.log_index = low - 1;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_REPLICATE);
    cr_assert_eq(c.nodes[1].n_fetches, 1);
    fetched(&run, 1);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, low);
    cr_assert_eq(cluster_peer(&c, 1, 3).inflight_messages, 0);
    cluster_deinit(&c);
}
