/* Random schedules: messages lost, doubled and reordered, saves and applications delayed, replicas crashed with what they had
 * not saved. The harness checks after every event: one leader a term, a leader holds all that was committed, nothing is
 * committed that a majority of the disks does not hold, all apply the same, what was dropped is never committed, reads are
 * not older than what was committed when they were asked for. At the end the network heals and the group must serve. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

struct plan {
    uint32_t n;
    struct raft_options options;
    uint32_t seeds, actions;
    uint32_t loss, doubling, crash; /* per mille */
    bool changes;                   /* members leave and return, leaders too */
    bool lazy;                      /* as the engine does: news of saves and of the machine wait for the next event */
};

static uint64_t any_live(struct cluster *c)
{
    uint64_t id;

    do
        id = 1 + cluster_random(c, c->n);
    while (!c->nodes[id].core);
    return id;
}

static void crash_or_restart(struct cluster *c, uint64_t id, const struct plan *p)
{
    uint32_t live = 0;

    for (uint64_t i = 1; i <= c->n; i++)
        live += c->nodes[i].core != NULL;
    if (!c->nodes[id].core && cluster_random(c, 4) == 0)
        cluster_restart(c, id);
    else if (c->nodes[id].core && live > 1 && cluster_random(c, 1000) < p->crash)
        cluster_crash(c, id);
}

/* One replica, often the leader, is cut off for a while; its log grows a tail of its own. */
static void cut_or_heal(struct cluster *c)
{
    uint64_t leader = cluster_leader(c);

    if (cluster_random(c, 3) == 0)
        cluster_isolate(c, leader && cluster_random(c, 2) ? leader : 1 + cluster_random(c, c->n), true);
    else
        cluster_heal(c);
}

/* A delayed tick: time jumps for one replica at a time. */
static void tick_one(struct cluster *c)
{
    c->now += cluster_random(c, 3);
    cluster_tick_node(c, any_live(c));
}

static void network_action(struct cluster *c, const struct plan *p)
{
    size_t i = cluster_random(c, c->network.n < 16 ? c->network.n : 16);

    if (c->network.n > 400 || cluster_random(c, 1000) < p->loss)
        cluster_lose(c, i);
    else if (cluster_random(c, 1000) < p->doubling)
        cluster_double(c, i);
    else
        cluster_deliver(c, i);
}

/* Mostly one that believes to lead, which need not be the true one. */
static uint64_t someone_to_ask(struct cluster *c)
{
    uint64_t id = any_live(c);

    for (uint32_t i = 0; i < 2 * c->n && cluster_status(c, id).role != RAFT_LEADER; i++)
        id = any_live(c);
    return id;
}

static void disk_action(struct cluster *c, uint64_t id)
{
    struct cluster_node *node = &c->nodes[id];

    if (node->saves.n > 0 && cluster_random(c, 3) > 0) {
        cluster_save(c, id);
    } else if (node->applies.n > 0) {
        cluster_apply(c, id);
    } else if (node->fetches.n > 0) {
        node->fail_fetches = cluster_random(c, 8) == 0;
        cluster_fetch(c, id);
    }
}

static void act(struct cluster *c, const struct plan *p)
{
    uint64_t kind = cluster_random(c, 1000);

    if (p->changes && cluster_random(c, 100) == 0)
        cluster_propose_change(c, someone_to_ask(c), cluster_random(c, 2), 1 + cluster_random(c, c->n));
    else if (kind < 20)
        crash_or_restart(c, 1 + cluster_random(c, c->n), p);
    else if (kind < 26)
        cut_or_heal(c);
    else if (kind < 100)
        tick_one(c);
    else if (kind < 600 && c->network.n > 0)
        network_action(c, p);
    else if (kind < 880)
        disk_action(c, any_live(c));
    else if (kind < 960)
        cluster_propose(c, someone_to_ask(c), 1 + (uint32_t)cluster_random(c, 3), (uint32_t)cluster_random(c, 200));
    else
        cluster_read(c, someone_to_ask(c));
}

/* How often the rare paths were taken, over all seeds: a schedule that never gets there proves nothing. */
struct coverage {
    uint64_t truncations, stale_saves, fetches, reads, drops, entries, terms;
};

static void cover(const struct cluster *c, struct coverage *sum)
{
    for (uint64_t id = 1; id <= c->n; id++) {
        struct raft_status s = cluster_status(c, id);

        sum->truncations += s.truncated_suffixes;
        sum->stale_saves += s.stale_saves;
        sum->fetches += c->nodes[id].n_fetches;
        sum->reads += c->nodes[id].reads.n;
        sum->drops += c->nodes[id].dropped.n;
    }
    sum->entries += c->history.committed.n;
    sum->terms += cluster_status(c, 1).term;
}

/* Who was taken out comes back, so that the end is the same for all. One that does not know that it was removed stands for
 * election in vain; it can not be asked to help. */
static void invite_all(struct cluster *c)
{
    for (uint32_t i = 0; i < 20 * c->n; i++) {
        uint64_t leader;

        cluster_tick(c, 10);
        leader = cluster_leader(c);
        if (leader && c->nodes[leader].membership.n_members == c->n &&
            c->nodes[leader].applied == cluster_status(c, leader).last_index)
            return;
        if (leader)
            cluster_propose_change(c, leader, true, 1 + i % c->n);
        cluster_settle(c);
    }
}

/* The leader that all follow; 0: an election is going on. */
static uint64_t common_leader(const struct cluster *c)
{
    uint64_t leader = cluster_leader(c);

    for (uint64_t id = 1; id <= c->n; id++)
        if (cluster_status(c, id).leader_id != leader)
            return 0;
    return leader;
}

static void heal_and_verify(struct cluster *c, bool changes)
{
    uint64_t leader = 0, key;

    cluster_heal(c);
    c->report_lost = false;
    for (uint64_t id = 1; id <= c->n; id++) {
        c->nodes[id].fail_fetches = false;
        if (!c->nodes[id].core)
            cluster_restart(c, id);
    }
    cluster_settle(c);
    if (changes)
        invite_all(c);
    for (int i = 0; i < 100 && !leader; i++) {
        cluster_tick(c, 10);
        leader = common_leader(c);
    }
    cr_assert_neq(leader, 0, "no leader after the network healed");
    key = cluster_propose(c, leader, 1, 1);
    cluster_settle(c);
    cluster_tick(c, 5);
    cr_assert(cluster_agrees(c), "replicas differ at the end");
    for (uint64_t id = 1; id <= c->n; id++)
        cr_assert_eq(cluster_applied_times(c, id, key), 1, "the last proposal is applied once");
    for (uint64_t k = 1; k < key; k++)
        cr_assert_leq(cluster_applied_times(c, 1, k), 1, "key %lu is applied twice", (unsigned long)k);
    cluster_check_logs_match(c);
}

static void run(const struct plan *p)
{
    static struct cluster c;
    struct coverage sum = {0};

    for (uint32_t seed = 1; seed <= p->seeds; seed++) {
        cluster_init(&c, p->n, &p->options);
        c.ids_return = true;
        c.lazy = p->lazy;
        c.random = seed * 0x9e3779b97f4a7c15u + p->n;
        c.report_lost = seed % 2;
        for (uint32_t i = 0; i < p->actions; i++) {
            act(&c, p);
            if (i % 64 == 0)
                cluster_check_logs_match(&c);
        }
        heal_and_verify(&c, p->changes);
        cover(&c, &sum);
        cluster_deinit(&c);
    }
    cr_log_info("truncations %lu, stale saves %lu, fetches %lu, reads %lu, drops %lu, entries %lu, terms %lu",
                (unsigned long)sum.truncations, (unsigned long)sum.stale_saves, (unsigned long)sum.fetches,
                (unsigned long)sum.reads, (unsigned long)sum.drops, (unsigned long)sum.entries, (unsigned long)sum.terms);
    cr_assert(sum.truncations && sum.fetches && sum.reads && sum.drops && sum.terms > 4u * p->seeds, "the schedule is too tame");
}

Test(raft_random, three_replicas_on_a_bad_network)
{
    struct plan p = {
        .n = 3, .options = cluster_options(), .seeds = 150, .actions = 5000, .loss = 50, .doubling = 50, .crash = 40};

    run(&p);
}

Test(raft_random, five_replicas_on_a_bad_network)
{
    struct plan p = {
        .n = 5, .options = cluster_options(), .seeds = 80, .actions = 6000, .loss = 100, .doubling = 30, .crash = 60};

    run(&p);
}

Test(raft_random, four_replicas_without_pre_vote_and_check_quorum)
{
    struct plan p = {.n = 4, .options = cluster_options(), .seeds = 80, .actions = 5000, .loss = 50, .doubling = 50, .crash = 60};

    p.options.pre_vote = p.options.check_quorum = false;
    run(&p);
}

Test(raft_random, tiny_windows_and_caches_and_quiesce)
{
    struct plan p = {
        .n = 3, .options = cluster_options(), .seeds = 120, .actions = 5000, .loss = 80, .doubling = 80, .crash = 60};

    p.options.max_inflight_messages = 2;
    p.options.max_inflight_bytes = 600;
    p.options.max_message_bytes = 150;
    p.options.max_uncommitted_bytes = 400;
    p.options.max_apply_bytes = 300;
    p.options.max_cached_bytes = 1;
    p.options.quiesce = true;
    p.options.quiesce_ticks = 12;
    run(&p);
}

Test(raft_random, crashes_all_the_time)
{
    struct plan p = {
        .n = 3, .options = cluster_options(), .seeds = 100, .actions = 5000, .loss = 10, .doubling = 10, .crash = 400};

    p.options.max_cached_bytes = 500;
    run(&p);
}

Test(raft_random, members_leave_and_return)
{
    struct plan p = {.n = 5, .options = cluster_options(), .seeds = 80, .actions = 5000, .loss = 40, .doubling = 40, .crash = 40};

    p.changes = true;
    run(&p);
}

/* What the core may be told late, and what it may tell late. */
Test(raft_random, lazy_replicas)
{
    struct plan p = {
        .n = 3, .options = cluster_options(), .seeds = 150, .actions = 5000, .loss = 50, .doubling = 50, .crash = 40};

    p.lazy = p.options.lazy_commit = p.options.lazy_heartbeat = true;
    run(&p);
}

Test(raft_random, lazy_members_leave_and_return)
{
    struct plan p = {.n = 5, .options = cluster_options(), .seeds = 80, .actions = 5000, .loss = 40, .doubling = 40, .crash = 40};

    p.changes = p.lazy = p.options.lazy_commit = p.options.lazy_heartbeat = true;
    run(&p);
}

Test(raft_random, lazy_replicas_with_tiny_windows_and_quiesce)
{
    struct plan p = {
        .n = 3, .options = cluster_options(), .seeds = 120, .actions = 5000, .loss = 80, .doubling = 80, .crash = 60};

    p.options.max_inflight_messages = 2;
    p.options.max_apply_bytes = 300;
    p.options.max_cached_bytes = 1;
    p.options.quiesce = true;
    p.options.quiesce_ticks = 12;
    p.lazy = p.options.lazy_commit = p.options.lazy_heartbeat = true;
    run(&p);
}
