/* The plan of a run: what it is made of, faults, recovery, calm. See tests/sim/sim.h. */
#include <inttypes.h>
#include <stdio.h>

#include "engine/raft/describe.h"
#include "raftio/support/map.h"
#include "tests/sim/sim.h"

#define RECOVERY_MS 60000u  /* by then every shard must work again */
#define IMAGES_MS   200000u /* and so much later if images must arrive: one whose sender is gone is in the way for 30 s */
#define CALM_MS     1000u
#define QUIET_MS    6000u /* by then an idle group is quiet: 20 election timeouts, and some */
#define SLOW_IMAGES 10u   /* so often longer, where a second may bring no more than 50 KB of an image of up to 1.2 MB */

/* ---- options ---- */

/* Small, so that images are made and logs cut all the time. */
static void draw_snapshots(struct sim_options *o)
{
    o->kind = sim_chance(40) ? NH_MACHINE_REGULAR : 1 + (uint32_t)sim_below(2);
    o->compress = sim_chance(30);
    o->kept = 1 + (uint32_t)sim_below(2);
    o->streams = 1 + (uint32_t)sim_below(3);
    o->padding = sim_chance(75) ? (uint32_t)sim_below(3000) : (uint32_t)sim_below(1200000);
    o->snapshot_entries = sim_chance(80) ? 5 + sim_below(56) : ENGINE_NEVER;
    o->snapshot_bytes = sim_chance(30) ? 500 + sim_below(20000) : 0;
    o->overhead = 1 + sim_below(20);
    o->send_bytes_per_s = sim_chance(25) ? 50000 + sim_below(2000000) : 0;
    o->fail_files = sim_chance(50);
}

void plan_draw(void)
{
    static const uint32_t sizes[] = {3, 3, 3, 5, 3, 5, 1, 3};

    sim.options = (struct sim_options){
        .n_hosts = sizes[sim_below(8)],
        .n_shards = 1 + (uint32_t)sim_below(SIM_SHARDS_MAX),
        .step_workers = 1 + (uint32_t)sim_below(2),
        .apply_workers = 1 + (uint32_t)sim_below(2),
        .inline_saves = sim_chance(25),
        .pre_vote = sim_chance(80),
        .check_quorum = sim_chance(80),
        .quiesce = sim_chance(60),
        .share_blocks = sim_chance(50),
        .fail_disks = sim_chance(20),
        .small_limits = sim_chance(15),
        .small_windows = sim_chance(30),
        .in_order = sim_chance(40),
        .faults = (uint32_t)(sim_random() | sim_random()) | (sim_chance(30) ? UINT32_MAX : 0),
        .faults_ms = 3000 + sim_below(5000),
        .moves = sim_chance(40),
        .priorities = sim_chance(15),
    };
    sim.options.leases = sim.options.check_quorum && sim_chance(30);
    sim.options.churn = sim_chance(35);
    if (sim.options.churn)
        sim.options.n_hosts = SIM_HOSTS_MAX;
    sim.options.sessions = sim_chance(50);
    sim.options.snapshots = sim_chance(50);
    if (sim.options.snapshots)
        draw_snapshots(&sim.options);
    sim.options.inline_applies = hash_u64(sim.seed) & 1; /* not drawn: older seeds stay what they are, half of them */
    sim.options.step_in = hash_u64(sim.seed) >> 1 & 1;
    sim.options.damage_blocks = (hash_u64(sim.seed) >> 2 & 3) == 0;
    sim.options.n_members = sim.options.churn ? 1 + (uint32_t)sim_below(SIM_HOSTS_MAX) : sim.options.n_hosts;
}

/* Lets things happen until `until_ns`. */
void plan_run_until(uint64_t until_ns)
{
    while (sim.now_ns < until_ns) {
        uint64_t tasks, parcels;

        if (sim_chance(50) ? clock_run_one() || network_run_one() : network_run_one() || clock_run_one()) {
            host_bury_dead();
            continue;
        }
        tasks = clock_next_ns();
        parcels = network_next_ns();
        tasks = tasks < parcels ? tasks : parcels;
        sim.now_ns = tasks < until_ns ? tasks : until_ns;
    }
}

static void run_faults(void)
{
    uint64_t end = sim.now_ns + sim.options.faults_ms * SIM_MS, next_fault = sim.now_ns + 500 * SIM_MS, idle_until = 0;
    uint64_t n_leaders = 0;

    while (sim.now_ns < end) {
        plan_run_until(sim.now_ns + sim_below(20 * SIM_MS));
        if (sim.coverage.leaders != n_leaders) {
            n_leaders = sim.coverage.leaders;
            faults_reboot_voter();
        }
        faults_hit_stream();
        if (sim.now_ns >= next_fault) {
            faults_one();
            faults_mend_some();
            disks_check_all();
            next_fault = sim.now_ns + sim_below(400 * SIM_MS);
        }
        if (sim_chance(1) && sim_chance(30)) {
            faults_quiet_spell();
            idle_until = sim.now_ns + 4000 * SIM_MS; /* long enough to go quiet */
            if (sim_chance(50))
                next_fault = idle_until;
        }
        if (sim.now_ns < idle_until)
            continue;
        client_act();
        if ((sim.options.churn || sim.options.moves) && sim_chance(10))
            admin_act();
        if (sim_chance(2))
            admin_snapshot();
    }
}

/* ---- faults are over: everything must work again ---- */

/* To stderr, before a failure of liveness: who believes what. */
static void print_shard(uint64_t shard)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        const struct raft *core = host_core(sim.hosts[i], shard);
        struct nh_membership m = {0};
        struct raft_status status;
        char text[1024];

        if (!core) {
            fprintf(stderr, "host %u: no replica of shard %" PRIu64 "\n", i + 1, shard);
            continue;
        }
        raft_get_status(core, &status);
        raft_describe_status(&status, text, sizeof text);
        fprintf(stderr, "host %u: replica %" PRIu64 ": %s; members", i + 1, sim.hosts[i]->replica[shard], text);
        engine_get_membership(sim.hosts[i]->engine, shard, &m, NULL);
        for (uint32_t k = 0; k < m.n_members; k++)
            fprintf(stderr, " %" PRIu64 "%s%s", m.members[k].replica_id, &"v\0n\0w\0l\0x"[2 * m.members[k].kind],
                    m.members[k].outgoing ? "o" : "");
        fprintf(stderr, "%s of %" PRIu64 "\n", m.joint ? " joint" : "", m.config_change_id);
        nh_membership_deinit(&m);
    }
}

/* A replica may have been stopping when the faults ended, or have found its log store fenced. */
void plan_start_missing(void)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        if (sim.hosts[i]->fenced) {
            host_crash(sim.hosts[i]);
            host_start(sim.hosts[i]);
        }
        host_start_missing(sim.hosts[i]);
    }
}

static void await(uint32_t (*submit)(struct sim_host *h, uint64_t shard), struct sim_host *h, uint64_t shard, uint64_t end_ns,
                  const char *what)
{
    if (!admin_is_served(h, shard))
        return;
    for (uint32_t op = submit(h, shard); client_outcome(op) != NH_REQUEST_COMPLETED && admin_is_served(h, shard);) {
        if (sim.now_ns > end_ns)
            print_shard(shard);
        if (sim.now_ns > end_ns)
            sim_fail("liveness: no %s completes on host %u shard %" PRIu64 " after the faults are over", what, h->id + 1, shard);
        plan_run_until(sim.now_ns + 10 * SIM_MS);
        plan_start_missing();
        if (op == UINT32_MAX || (client_outcome(op) != 0 && client_outcome(op) != NH_REQUEST_COMPLETED))
            op = submit(h, shard);
    }
}

/* Of those that hold the data. */
bool plan_is_equal(uint64_t shard)
{
    uint64_t hash, applied, first_hash = 0, first_applied = 0;
    uint32_t first = UINT32_MAX;

    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        if (!admin_is_served(sim.hosts[i], shard))
            continue;
        if (engine_get_hash(sim.hosts[i]->engine, shard, &hash, &applied, NULL) < 0)
            return false;
        if (first == UINT32_MAX) {
            first = i;
            first_hash = hash;
            first_applied = applied;
        }
        if (applied != first_applied)
            return false;
        if (hash != first_hash)
            sim_fail("shard %" PRIu64 ": hosts %u and %u have applied %" PRIu64 " entries and differ", shard, first + 1, i + 1,
                     applied);
    }
    return true;
}

/* One that was entered explicitly would stay. What is on its way meanwhile ends one way or the other. */
static void leave_joint(uint64_t shard, uint64_t end_ns)
{
    struct nh_membership m = {0};

    plan_run_until(sim.now_ns + (sim.options.churn ? 3000 * SIM_MS : 0));
    while (admin_membership(shard, &m) && m.joint) {
        if (sim.now_ns > end_ns)
            print_shard(shard);
        if (sim.now_ns > end_ns)
            sim_fail("liveness: shard %" PRIu64 " stays joint", shard);
        plan_start_missing();
        admin_leave_joint(shard);
        plan_run_until(sim.now_ns + 100 * SIM_MS);
        nh_membership_deinit(&m);
    }
    nh_membership_deinit(&m);
}

static void settle_sessions(uint64_t end_ns)
{
    while (!sessions_settle()) {
        if (sim.now_ns > end_ns)
            sim_fail("liveness: a proposal of a session does not come to an end");
        plan_run_until(sim.now_ns + 10 * SIM_MS);
        plan_start_missing();
    }
}

static void run_recovery(void)
{
    uint64_t end_ns = sim.now_ns + (RECOVERY_MS + (sim.options.snapshots ? IMAGES_MS : 0)) * SIM_MS;

    sim.calm = true;
    faults_end();
    plan_start_missing();
    settle_sessions(end_ns);
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        leave_joint(shard, end_ns);
        for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
            await(client_write, sim.hosts[i], shard, end_ns, "write");
            await(client_read, sim.hosts[i], shard, end_ns, "read");
        }
        while (!plan_is_equal(shard)) {
            if (sim.now_ns > end_ns)
                sim_fail("liveness: shard %" PRIu64 ": the hosts do not come to the same state", shard);
            plan_run_until(sim.now_ns + 10 * SIM_MS);
        }
    }
}

/* ---- nothing goes wrong any more: nothing may fail ---- */

static void act_for(uint64_t ms)
{
    for (uint64_t end_ns = sim.now_ns + ms * SIM_MS; sim.now_ns < end_ns;) {
        plan_run_until(sim.now_ns + sim_below(20 * SIM_MS));
        client_act();
    }
}

/* What is lost is asked for again, as long as that does no harm. */
static void run_drizzle(void)
{
    faults_drizzle();
    client_set_mode(CLIENT_READS);
    act_for(CALM_MS / 2);
    client_set_mode(CLIENT_FREE);
}

/* A replica that is awake: true, and which one. */
static bool find_awake(uint64_t *ret_shard, uint32_t *ret_host)
{
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
            struct engine_replica_status status;

            if (!admin_is_served(sim.hosts[i], shard))
                continue;
            if (engine_get_status(sim.hosts[i]->engine, shard, &status, NULL) == NH_OK && status.quiesced)
                continue;
            *ret_shard = shard;
            *ret_host = i;
            return true;
        }
    }
    return false;
}

/* Images may travel slowly, one after the other: by their rate, or as a short queue has no room for a chunk beside other
 * messages, and a second passes before it is tried again (seed 12878: two images of four chunks). Until the last one has come
 * their shard is not idle. */
static void check_quiet(void)
{
    uint32_t more = sim.options.send_bytes_per_s || sim.options.small_limits ? SLOW_IMAGES : 0, host;
    uint64_t shard;

    while (find_awake(&shard, &host)) {
        if (more-- == 0) {
            print_shard(shard);
            sim_fail("calm: replica %u of shard %" PRIu64 " does not go quiet", host + 1, shard);
        }
        plan_run_until(sim.now_ns + QUIET_MS * SIM_MS);
    }
}

static void run_calm(void)
{
    uint64_t n_leaders;

    faults_calm_weather();
    plan_run_until(sim.now_ns + 3 * CALM_MS * SIM_MS); /* what is left of the faults passes */
    n_leaders = sim.coverage.leaders;
    client_set_mode(CLIENT_STRICT);
    act_for(CALM_MS);
    plan_run_until(sim.now_ns + QUIET_MS * SIM_MS);
    if (sim.options.quiesce)
        check_quiet();
    act_for(CALM_MS / 4);
    plan_run_until(sim.now_ns + CALM_MS * SIM_MS); /* the last requests end */
    if (sim.coverage.leaders != n_leaders)
        sim_fail("calm: a healthy leader was replaced");
}

/* ---- a host falls silent while all sleep ---- */

static bool is_led_by_others(uint64_t shard, const struct sim_host *dead)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct engine_replica_status status;

        if (sim.hosts[i] != dead && engine_get_status(sim.hosts[i]->engine, shard, &status, NULL) == NH_OK &&
            status.role == RAFT_LEADER)
            return true;
    }
    return false;
}

/* Nothing is sent to it and no connection breaks: its ping is missed, and its followers wake. */
static void run_silent_death(void)
{
    struct sim_host *dead = sim.hosts[sim_below(sim.options.n_hosts)];

    if (!sim.options.quiesce || sim.options.n_hosts < 3 || sim.options.churn)
        return;
    client_set_mode(CLIENT_FREE);
    plan_run_until(sim.now_ns + QUIET_MS * SIM_MS);
    clock_pause(dead->runtime, sim.now_ns + 1000000 * SIM_MS);
    plan_run_until(sim.now_ns + 3 * CALM_MS * SIM_MS);
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++)
        if (!is_led_by_others(shard, dead))
            sim_fail("quiet: host %u is dead, and shard %" PRIu64 " sleeps on", dead->id + 1, shard);
    client_set_mode(CLIENT_STRICT);
    act_for(CALM_MS / 4);
    plan_run_until(sim.now_ns + CALM_MS * SIM_MS);
}

/* ---- a run ---- */

static void log_options(const struct sim_options *o)
{
    sim_log("%u hosts, %u shards, %u step and %u apply workers%s%s%s%s%s%s%s%s%s%s%s%s%s", o->n_hosts, o->n_shards,
            o->step_workers, o->apply_workers, o->inline_saves ? ", inline saves" : "",
            o->inline_applies ? ", inline applies" : "", o->step_in ? ", steps in" : "", o->quiesce ? ", quiesce" : "",
            o->pre_vote ? "" : ", no pre-vote", o->check_quorum ? "" : ", no check-quorum",
            o->small_limits ? ", small limits" : "", o->small_windows ? ", small windows" : "", o->in_order ? ", in order" : "",
            o->churn ? ", churn" : "", o->moves ? ", moves" : "", o->leases ? ", leases" : "",
            o->priorities ? ", priorities" : "");
    if (o->snapshots)
        sim_log("machines of kind %u, a snapshot every %" PRIi64 " entries or %" PRIu64 " bytes, %" PRIu64
                " stay, %u kept, padding %u%s%s",
                o->kind, (int64_t)o->snapshot_entries, o->snapshot_bytes, o->overhead, o->kept, o->padding,
                o->compress ? ", compressed" : "", o->fail_files ? ", files fail" : "");
}

void plan_begin(void)
{
    log_options(&sim.options);
    sim.coverage.single_hosts += sim.options.n_hosts == 1;
    sim.coverage.inline_saves += sim.options.inline_saves;
    sim.coverage.inline_applies += sim.options.inline_applies;
    oracle_init();
    disks_init();
    client_init();
    sessions_begin();
    network_init();
    faults_good_weather();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_init(i);
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_start(sim.hosts[i]);
}

void plan_end(void)
{
    disks_check_all();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_close(sim.hosts[i]);
    client_check();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_deinit(i);
    network_deinit();
    client_deinit();
    sessions_end();
    machines_deinit();
    disks_deinit();
    oracle_deinit();
}

void plan_run(void)
{
    run_faults();
    run_recovery();
    run_drizzle();
    run_calm();
    run_silent_death();
}
