/* Random schedules with all that a core can do at once: leases on clocks that differ, transfers, joint configurations, voters,
 * non-voting members and witnesses that come and go, snapshots, machines that begin anew, groups that go quiet. The harness
 * checks after every event (test_raft_random.c says what); at the end the faults are over, and the group must serve.
 *
 * NH_SEED and NH_SEEDS: from which seed on, and how many for each test. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

#include <stdlib.h>

#include "engine/raft/describe.h"

static struct cluster c;

struct storm {
    uint32_t seeds, actions;
    uint32_t loss, doubling, crash; /* per mille */
    uint32_t changes;               /* per mille of the actions */
    bool leases, quiesce, lazy, witnesses, priorities, tiny;
};

/* How often the rare paths were taken, over all seeds: a schedule that never gets there proves nothing. */
static struct {
    uint64_t joint, witnesses, compactions, installs, handed_over, lease_reads, quiet, removed;
} seen;

static uint64_t any_live(void)
{
    uint64_t id;

    do
        id = 1 + cluster_random(&c, CLUSTER_MAX - 1);
    while (!c.nodes[id].core);
    return id;
}

static bool is_gone(uint64_t id)
{
    return c.nodes[id].removed;
}

static bool was_started(uint64_t id)
{
    return c.nodes[id].core || c.nodes[id].base + c.nodes[id].disk.n > 0 || c.nodes[id].disk_state.term > 0;
}

static uint64_t someone_to_ask(void)
{
    uint64_t id = any_live();

    for (uint32_t i = 0; i < 12 && cluster_status(&c, id).role != RAFT_LEADER; i++)
        id = any_live();
    return id;
}

/* Whom somebody's configuration lists and who was never started, joins. */
static bool is_expected(uint64_t id)
{
    for (uint64_t i = 1; i < CLUSTER_MAX; i++)
        if (c.nodes[i].core && nh_membership_find(&c.nodes[i].membership, id))
            return true;
    return false;
}

static uint32_t live(void)
{
    uint32_t n = 0;

    for (uint64_t id = 1; id < CLUSTER_MAX; id++)
        n += c.nodes[id].core != NULL;
    return n;
}

static void restart(uint64_t id)
{
    uint64_t machine = c.nodes[id].machine;

    if (cluster_random(&c, 2))
        cluster_forget_machine(&c, id);
    cluster_restart(&c, id);
    if (machine > c.nodes[id].applied && cluster_random(&c, 2)) {
        struct raft_event ev = {.type = RAFT_EV_COMMITTED, .committed = machine};

        cluster_step(&c, id, &ev);
    }
}

static void crash_or_restart(const struct storm *p)
{
    uint64_t id = 1 + cluster_random(&c, CLUSTER_MAX - 1);

    if (c.nodes[id].core && live() > 1 && cluster_random(&c, 1000) < p->crash)
        cluster_crash(&c, id);
    else if (!c.nodes[id].core && !is_gone(id) && was_started(id) && cluster_random(&c, 4) == 0)
        restart(id);
    else if (!c.nodes[id].core && !was_started(id) && is_expected(id))
        cluster_join(&c, id);
}

static void stop_removed(void)
{
    for (uint64_t id = 1; id < CLUSTER_MAX; id++)
        if (c.nodes[id].core && is_gone(id)) {
            cluster_crash(&c, id);
            seen.removed++;
        }
}

static void cut_or_heal(void)
{
    uint64_t leader = cluster_leader(&c);

    if (cluster_random(&c, 3) == 0)
        cluster_isolate(&c, leader && cluster_random(&c, 2) ? leader : any_live(), true);
    else if (cluster_random(&c, 3) == 0)
        c.cut[any_live()][any_live()] = true; /* one way */
    else
        cluster_heal(&c);
}

static void tick_one(void)
{
    c.now += cluster_random(&c, 3);
    cluster_tick_node(&c, any_live());
}

/* How the way of an image ended is always told, some time. */
#define STATUSES_MAX 64u
static struct status {
    uint64_t to, peer;
    bool failed;
} statuses[STATUSES_MAX];
static uint32_t n_statuses, lull_left;

static void tell_status(void)
{
    struct status s = statuses[--n_statuses];
    struct raft_event ev = {.type = RAFT_EV_SNAPSHOT_STATUS, .status = {s.peer, s.failed}};

    if (c.nodes[s.to].core)
        cluster_step(&c, s.to, &ev);
}

static void note_status(uint64_t to, uint64_t peer, bool failed)
{
    if (n_statuses == STATUSES_MAX)
        tell_status();
    statuses[n_statuses++] = (struct status){to, peer, failed};
}

/* The engine always hears how an image's way ended. */
static void lose_or_deliver(size_t i, bool lose)
{
    const struct nh_message *m = &c.network.items[i];
    uint64_t from = m->from, to = m->to;
    bool image = m->type == NH_MSG_INSTALL_SNAPSHOT && !m->snapshot->witness;

    lose |= c.cut[from][to] || !c.nodes[to].core;
    seen.installs += m->type == NH_MSG_INSTALL_SNAPSHOT && !lose;
    if (lose)
        cluster_lose(&c, i);
    else
        cluster_deliver(&c, i);
    if (image)
        note_status(from, to, lose);
}

static void network_action(const struct storm *p)
{
    size_t i = cluster_random(&c, c.network.n < 16 ? c.network.n : 16);

    if (c.network.n > 400 || cluster_random(&c, 1000) < p->loss)
        lose_or_deliver(i, true);
    else if (cluster_random(&c, 1000) < p->doubling)
        cluster_double(&c, i);
    else
        lose_or_deliver(i, false);
}

static void disk_action(uint64_t id)
{
    struct cluster_node *node = &c.nodes[id];

    if (n_statuses > 0 && cluster_random(&c, 10) == 0) {
        tell_status();
    } else if (node->saves.n > 0 && cluster_random(&c, 3) > 0) {
        cluster_save(&c, id);
    } else if (node->applies.n > 0) {
        cluster_apply(&c, id);
    } else if (node->fetches.n > 0) {
        node->fail_fetches = cluster_random(&c, 8) == 0;
        cluster_fetch(&c, id);
    }
}

static void compact(uint64_t id)
{
    struct cluster_node *node = &c.nodes[id];
    const struct nh_member *self = nh_membership_find(&node->membership, id);

    if (node->machine > node->base + 3 && node->machine == node->applied && node->applies.n == 0 && self) {
        cluster_compact(&c, id, node->base + 1 + cluster_random(&c, node->machine - node->base));
        seen.compactions++;
    }
}

/* Adds, promotes, demotes or removes; witnesses are new ids. */
static struct nh_member_change any_change(const struct storm *p)
{
    uint64_t id = 1 + cluster_random(&c, CLUSTER_MAX - 1);
    enum nh_member_kind kind = (enum nh_member_kind)cluster_random(&c, p->witnesses ? 3 : 2);

    if (cluster_random(&c, 3) == 0)
        return cluster_change(NH_CONFIG_REMOVE_MEMBER, NH_MEMBER_VOTER, id);
    return cluster_change(NH_CONFIG_ADD_MEMBER, cluster_random(&c, 2) ? NH_MEMBER_VOTER : kind, id);
}

static void change(const struct storm *p)
{
    uint64_t id = someone_to_ask();
    struct nh_member_change changes[3];
    uint32_t n = 1 + (uint32_t)cluster_random(&c, 3);

    if (cluster_status(&c, id).joint && cluster_random(&c, 2)) {
        cluster_propose_leave(&c, id);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        changes[i] = any_change(p);
    cluster_propose_changes(&c, id, (enum nh_config_transition)cluster_random(&c, 3), changes, n);
}

static void rare_event(void)
{
    static const enum raft_event_type types[] = {RAFT_EV_CAMPAIGN, RAFT_EV_WAKE, RAFT_EV_FORGET_LEADER, RAFT_EV_UNREACHABLE};
    struct raft_event ev = {.type = types[cluster_random(&c, 4)]};

    if (ev.type == RAFT_EV_UNREACHABLE)
        ev.peer = any_live();
    cluster_step(&c, any_live(), &ev);
}

static void read_one(void)
{
    uint64_t id = someone_to_ask();
    size_t before = c.nodes[id].reads.n;
    bool held = cluster_status(&c, id).lease_held;

    cluster_read(&c, id);
    seen.lease_reads += held && c.nodes[id].reads.n > before;
}

static void look(void)
{
    for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
        const struct nh_member *self = nh_membership_find(&c.nodes[id].membership, id);

        if (!c.nodes[id].core)
            continue;
        seen.joint += cluster_status(&c, id).joint;
        seen.quiet += cluster_status(&c, id).quiesced;
        seen.witnesses += self && nh_kind_is_witness(self->kind);
    }
}

/* Some actions long nobody asks for anything: time to go quiet. */
static void lull(void)
{
    uint64_t id = any_live();

    if (c.network.n > 0)
        lose_or_deliver(cluster_random(&c, c.network.n < 16 ? c.network.n : 16), cluster_random(&c, 100) == 0);
    else if (cluster_random(&c, 3) == 0)
        tick_one();
    else
        disk_action(id);
}

static void act(const struct storm *p)
{
    uint64_t kind = cluster_random(&c, 1000);

    if (lull_left == 0 && p->quiesce && cluster_random(&c, 1000) == 0)
        lull_left = 1000;
    if (lull_left > 0 && lull_left-- % 100 > 0)
        lull();
    else if (cluster_random(&c, 1000) < p->changes)
        change(p);
    else if (kind < 25)
        crash_or_restart(p);
    else if (kind < 31)
        cut_or_heal();
    else if (kind < 36)
        cluster_transfer(&c, someone_to_ask(), 1 + cluster_random(&c, CLUSTER_MAX - 1));
    else if (kind < 46)
        compact(any_live());
    else if (kind < 50)
        rare_event();
    else if (kind < 120)
        tick_one();
    else if (kind < 620 && c.network.n > 0)
        network_action(p);
    else if (kind < 880)
        disk_action(any_live());
    else if (kind < 940)
        cluster_propose(&c, someone_to_ask(), 1 + (uint32_t)cluster_random(&c, 3), (uint32_t)cluster_random(&c, 200));
    else
        read_one();
    stop_removed();
    while (live() == 0)
        crash_or_restart(p);
}

/* Everything that moves, until the time is over; what is lost is told. */
static void calm(uint32_t ticks)
{
    for (uint32_t i = 0; i < ticks; i++) {
        for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
            if (c.nodes[id].core && is_gone(id))
                cluster_crash(&c, id);
            else if (!c.nodes[id].core && !is_gone(id) && was_started(id))
                cluster_restart(&c, id);
            else if (!c.nodes[id].core && !was_started(id) && is_expected(id))
                cluster_join(&c, id);
        }
        for (size_t k = 0; k < c.network.n;) {
            if (c.nodes[c.network.items[k].to].core)
                k++;
            else
                lose_or_deliver(k, true);
        }
        for (uint64_t id = 1; id < CLUSTER_MAX; id++)
            if (c.nodes[id].core && c.nodes[id].snapshot_wanted && c.nodes[id].machine > c.nodes[id].base)
                cluster_compact(&c, id, c.nodes[id].base + 1);
        while (n_statuses > 0)
            tell_status();
        cluster_tick(&c, 1);
    }
}

static bool all_have(uint64_t leader, uint64_t key)
{
    const struct nh_membership *m = &c.nodes[leader].membership;

    for (uint32_t i = 0; i < m->n_members; i++) {
        uint64_t id = m->members[i].replica_id;

        if (!c.nodes[id].core || c.nodes[id].machine != c.nodes[leader].machine)
            return false;
    }
    return cluster_applied_times(&c, leader, key) == 1;
}

static void explain(void)
{
    char text[1024];

    for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
        struct raft_status s;

        if (!c.nodes[id].core)
            continue;
        s = cluster_status(&c, id);
        raft_describe_status(&s, text, sizeof text);
        cr_log_error("replica %lu: %s", (unsigned long)id, text);
    }
}

static bool serves(void)
{
    uint64_t leader = cluster_leader(&c), key;

    if (!leader)
        return false;
    if (cluster_status(&c, leader).joint)
        cluster_propose_leave(&c, leader);
    cluster_settle(&c);
    leader = cluster_leader(&c);
    if (!leader)
        return false;
    key = cluster_propose(&c, leader, 1, 1);
    cluster_settle(&c);
    calm(10);
    return cluster_leader(&c) == leader && !cluster_status(&c, leader).joint && all_have(leader, key);
}

static void heal_and_verify(uint32_t seed)
{
    bool served = false;

    cluster_heal(&c);
    c.report_lost = false;
    for (uint64_t id = 1; id < CLUSTER_MAX; id++)
        c.nodes[id].fail_fetches = false;
    for (int i = 0; i < 100 && !served; i++) {
        calm(20);
        served = serves();
    }
    if (!served)
        explain();
    cr_assert(served, "seed %u: the group does not serve", seed);
    cluster_check_logs_match(&c);
}

static void draw(const struct storm *p, uint32_t seed)
{
    struct raft_options o = cluster_options();
    uint64_t dice = seed * 0x9e3779b97f4a7c15u;

    o.pre_vote = dice >> 60 & 3;
    o.lease_reads = p->leases;
    o.quiesce = p->quiesce;
    o.quiesce_ticks = 12;
    o.lazy_commit = o.lazy_heartbeat = p->lazy && (dice >> 50 & 1);
    if (p->tiny) {
        o.max_inflight_messages = 2;
        o.max_inflight_bytes = 600;
        o.max_message_bytes = 150;
        o.max_uncommitted_bytes = 400;
        o.max_apply_bytes = 300;
        o.max_cached_bytes = 1;
        o.max_unapplied_bytes = 600;
    }
    cluster_init(&c, 1 + (uint32_t)(dice >> 40) % 5, &o);
    c.lazy = p->lazy;
    c.random = dice | 1;
    c.report_lost = seed % 2;
    for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
        c.nodes[id].fast_percent = p->leases ? (uint32_t)cluster_random(&c, 11) : 0;
        c.nodes[id].options.priority = p->priorities ? (uint32_t)cluster_random(&c, 3) : 0;
    }
}

static uint32_t number_of(const char *name, uint32_t otherwise)
{
    const char *text = getenv(name);

    return text ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

static void run_seed(const struct storm *p, uint32_t seed)
{
    n_statuses = lull_left = 0;
    draw(p, seed);
    for (uint32_t i = 0; i < p->actions; i++) {
        act(p);
        if (i % 64 == 0) {
            cluster_check_logs_match(&c);
            look();
        }
    }
    heal_and_verify(seed);
    for (uint64_t id = 1; id < CLUSTER_MAX; id++)
        for (size_t i = 0; i < c.nodes[id].transfers.n; i++)
            seen.handed_over += c.nodes[id].transfers.items[i].code == RAFT_TRANSFER_DONE;
    cluster_deinit(&c);
}

static void run(const struct storm *p)
{
    uint32_t first = number_of("NH_SEED", 1), n = number_of("NH_SEEDS", p->seeds);

    for (uint32_t seed = first; seed < first + n; seed++)
        run_seed(p, seed);
    if (n < p->seeds)
        return;
    cr_assert(seen.compactions && seen.installs && seen.handed_over && seen.joint && seen.removed, "the schedule is too tame");
    cr_assert((seen.lease_reads || !p->leases) && (seen.quiet || !p->quiesce) && (seen.witnesses || !p->witnesses),
              "the schedule is too tame");
}

Test(raft_storm, everything_at_once)
{
    struct storm p = {.seeds = 40, .actions = 5000, .loss = 40, .doubling = 40, .crash = 40, .changes = 8};

    p.leases = p.quiesce = p.lazy = p.witnesses = p.priorities = true;
    run(&p);
}

Test(raft_storm, without_witnesses)
{
    struct storm p = {.seeds = 40, .actions = 5000, .loss = 40, .doubling = 40, .crash = 40, .changes = 8};

    p.leases = p.quiesce = p.lazy = true;
    run(&p);
}

Test(raft_storm, tiny_windows)
{
    struct storm p = {.seeds = 40, .actions = 5000, .loss = 40, .doubling = 40, .crash = 80, .changes = 8};

    p.quiesce = p.lazy = p.tiny = p.witnesses = true;
    run(&p);
}

Test(raft_storm, leases_and_few_changes)
{
    struct storm p = {.seeds = 40, .actions = 5000, .loss = 20, .doubling = 20, .crash = 20, .changes = 2};

    p.leases = true;
    run(&p);
}
