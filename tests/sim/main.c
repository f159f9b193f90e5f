/* run: simulates whole clusters, one per seed.
 *
 *     run --seeds N [--first S]     seeds S .. S + N - 1 (default: NH_SIM_SEEDS, else 500, from 1)
 *     run --seed N [--verbose]      one seed again
 *
 * --verbose tells what happens and what was covered; --trace also what every core takes and gives.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/raft/describe.h"
#include "raftio/support/log.h"
#include "tests/sim/sim.h"

#define SEEDS_DEFAULT 500u
#define RECOVERY_MS   60000u  /* by then every shard must work again */
#define IMAGES_MS     200000u /* and so much later if images must arrive: one whose sender is gone is in the way for 30 s */
#define CALM_MS       1000u
#define QUIET_MS      6000u /* by then an idle group is quiet: 20 election timeouts, and some */
#define HANG_SECONDS  120u  /* of real time, for one seed */
#define TWICE_EVERY   20u   /* every so many seeds are run twice: the same events must happen */

struct sim sim;
static const char *program;

/* ---- randomness, talk ---- */

uint64_t sim_random(void)
{
    uint64_t z = (sim.random += 0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint64_t sim_below(uint64_t n)
{
    return n ? sim_random() % n : 0;
}

bool sim_chance(uint32_t percent)
{
    return sim_below(100) < percent;
}

void sim_note(uint64_t what)
{
    sim.digest = (sim.digest ^ what ^ sim.now_ns) * 0x100000001b3;
    sim.coverage.events++;
}

void sim_log(const char *fmt, ...)
{
    va_list ap;

    if (!sim.verbose)
        return;
    printf("%9.3f ms  ", (double)sim.now_ns / SIM_MS);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static void print_replay(void)
{
    fprintf(stderr, "\nreplay: %s --seed %" PRIu64 " --verbose\n", program, sim.seed);
}

void sim_fail(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fprintf(stderr, "seed %" PRIu64 ", %.3f ms: ", sim.seed, (double)sim.now_ns / SIM_MS);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    if (self_test_runs())
        _exit(1);
    print_replay();
    exit(1);
}

/* An assertion, a sanitizer or the alarm: the text is out, the seed is not. */
static void on_signal(int number)
{
    fprintf(stderr, "\nseed %" PRIu64 ", %.3f ms: signal %d%s", sim.seed, (double)sim.now_ns / SIM_MS, number,
            number == SIGALRM ? ": the run hangs" : "");
    print_replay();
    signal(number, SIG_DFL);
    raise(number);
}

/* ---- the plan of a run ---- */

/* Small, so that images are made and logs cut all the time. */
static void draw_snapshots(struct sim_options *o)
{
    o->kind = sim_chance(40) ? NH_MACHINE_REGULAR : 1 + (uint32_t)sim_below(2);
    o->compress = sim_chance(30);
    o->kept = 1 + (uint32_t)sim_below(2);
    o->streams = 1 + (uint32_t)sim_below(3);
    o->padding = sim_chance(85) ? (uint32_t)sim_below(3000) : (uint32_t)sim_below(900000);
    o->snapshot_entries = sim_chance(80) ? 5 + sim_below(56) : ENGINE_NEVER;
    o->snapshot_bytes = sim_chance(30) ? 500 + sim_below(20000) : 0;
    o->overhead = 1 + sim_below(20);
    o->send_bytes_per_s = sim_chance(25) ? 50000 + sim_below(2000000) : 0;
    o->fail_files = sim_chance(40);
}

static void draw_options(void)
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
    sim.options.n_members = sim.options.churn ? 1 + (uint32_t)sim_below(SIM_HOSTS_MAX) : sim.options.n_hosts;
}

/* Lets things happen until `until_ns`. */
static void run_until(uint64_t until_ns)
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
        run_until(sim.now_ns + sim_below(20 * SIM_MS));
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
static void start_missing(void)
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
        run_until(sim.now_ns + 10 * SIM_MS);
        start_missing();
        if (op == UINT32_MAX || (client_outcome(op) != 0 && client_outcome(op) != NH_REQUEST_COMPLETED))
            op = submit(h, shard);
    }
}

/* Of those that hold the data. */
static bool all_equal(uint64_t shard)
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

    run_until(sim.now_ns + (sim.options.churn ? 3000 * SIM_MS : 0));
    while (admin_membership(shard, &m) && m.joint) {
        if (sim.now_ns > end_ns)
            print_shard(shard);
        if (sim.now_ns > end_ns)
            sim_fail("liveness: shard %" PRIu64 " stays joint", shard);
        start_missing();
        admin_leave_joint(shard);
        run_until(sim.now_ns + 100 * SIM_MS);
        nh_membership_deinit(&m);
    }
    nh_membership_deinit(&m);
}

static void settle_sessions(uint64_t end_ns)
{
    while (!sessions_settle()) {
        if (sim.now_ns > end_ns)
            sim_fail("liveness: a proposal of a session does not come to an end");
        run_until(sim.now_ns + 10 * SIM_MS);
        start_missing();
    }
}

static void run_recovery(void)
{
    uint64_t end_ns = sim.now_ns + (RECOVERY_MS + (sim.options.snapshots ? IMAGES_MS : 0)) * SIM_MS;

    sim.calm = true;
    faults_end();
    start_missing();
    settle_sessions(end_ns);
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        leave_joint(shard, end_ns);
        for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
            await(client_write, sim.hosts[i], shard, end_ns, "write");
            await(client_read, sim.hosts[i], shard, end_ns, "read");
        }
        while (!all_equal(shard)) {
            if (sim.now_ns > end_ns)
                sim_fail("liveness: shard %" PRIu64 ": the hosts do not come to the same state", shard);
            run_until(sim.now_ns + 10 * SIM_MS);
        }
    }
}

/* ---- nothing goes wrong any more: nothing may fail ---- */

static void act_for(uint64_t ms)
{
    for (uint64_t end_ns = sim.now_ns + ms * SIM_MS; sim.now_ns < end_ns;) {
        run_until(sim.now_ns + sim_below(20 * SIM_MS));
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

static void check_quiet(void)
{
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
            struct engine_replica_status status;

            if (!admin_is_served(sim.hosts[i], shard))
                continue;
            if (engine_get_status(sim.hosts[i]->engine, shard, &status, NULL) == NH_OK && status.quiesced)
                continue;
            print_shard(shard);
            sim_fail("calm: replica %u of shard %" PRIu64 " does not go quiet", i + 1, shard);
        }
    }
}

static void run_calm(void)
{
    uint64_t n_leaders;

    faults_calm_weather();
    run_until(sim.now_ns + 3 * CALM_MS * SIM_MS); /* what is left of the faults passes */
    n_leaders = sim.coverage.leaders;
    client_set_mode(CLIENT_STRICT);
    act_for(CALM_MS);
    run_until(sim.now_ns + QUIET_MS * SIM_MS);
    if (sim.options.quiesce)
        check_quiet();
    act_for(CALM_MS / 4);
    run_until(sim.now_ns + CALM_MS * SIM_MS); /* the last requests end */
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
    run_until(sim.now_ns + QUIET_MS * SIM_MS);
    clock_pause(dead->runtime, sim.now_ns + 1000000 * SIM_MS);
    run_until(sim.now_ns + 3 * CALM_MS * SIM_MS);
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++)
        if (!is_led_by_others(shard, dead))
            sim_fail("quiet: host %u is dead, and shard %" PRIu64 " sleeps on", dead->id + 1, shard);
    client_set_mode(CLIENT_STRICT);
    act_for(CALM_MS / 4);
    run_until(sim.now_ns + CALM_MS * SIM_MS);
}

/* ---- a run ---- */

static void log_options(const struct sim_options *o)
{
    sim_log("%u hosts, %u shards, %u step and %u apply workers%s%s%s%s%s%s%s%s%s%s%s", o->n_hosts, o->n_shards, o->step_workers,
            o->apply_workers, o->inline_saves ? ", inline saves" : "", o->quiesce ? ", quiesce" : "",
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

static void begin_run(uint64_t seed)
{
    bool verbose = sim.verbose;

    sim = (struct sim){.seed = seed, .random = seed * 0x2545f4914f6cdd1d + 1, .now_ns = 1000 * SIM_MS, .verbose = verbose};
    draw_options();
    log_options(&sim.options);
    sim.coverage.single_hosts += sim.options.n_hosts == 1;
    sim.coverage.inline_saves += sim.options.inline_saves;
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

static void end_run(void)
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

static void run_seed(uint64_t seed)
{
    alarm(HANG_SECONDS);
    begin_run(seed);
    run_faults();
    run_recovery();
    run_drizzle();
    run_calm();
    run_silent_death();
    end_run();
    alarm(0);
}

/* ---- command line ---- */

static void add_coverage(struct sim_coverage *total, const struct sim_coverage *one)
{
    uint64_t *to = (uint64_t *)total;
    const uint64_t *from = (const uint64_t *)one;

    for (size_t i = 0; i < sizeof *total / sizeof *to; i++)
        to[i] += from[i];
}

static void print_coverage(const struct sim_coverage *c)
{
    int column = 0;

#define X(name) \
    column += printf("%s" #name " %" PRIu64, column ? ", " : "", c->name), column > 100 ? putchar('\n'), column = 0 : 0;
    SIM_COVERAGE(X)
#undef X
    if (column)
        putchar('\n');
}

/* Over many seeds nothing may stay untried. */
static void check_coverage(const struct sim_coverage *c)
{
#define X(name)       \
    if (c->name == 0) \
        sim_fail("coverage: no " #name " in all seeds");
    SIM_COVERAGE(X)
#undef X
}

static int run_seeds(uint64_t first, uint64_t n)
{
    struct sim_coverage total = {0};
    struct timespec begin, end;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t seed = first; seed < first + n; seed++) {
        uint64_t digest;

        run_seed(seed);
        add_coverage(&total, &sim.coverage);
        if (seed % TWICE_EVERY != 0)
            continue;
        digest = sim.digest;
        run_seed(seed);
        if (sim.digest != digest)
            sim_fail("the same seed gave two different runs");
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    print_coverage(&total);
    if (n >= SEEDS_DEFAULT)
        check_coverage(&total);
    printf("%" PRIu64 " seeds passed, %.1f per second\n", n,
           (double)n / ((double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
    return 0;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = text ? strtoull(text, &end, 10) : 0;

    if (!text || !*text || *end) {
        fprintf(stderr, "run: a number is missing; see the head of tests/sim/main.c\n");
        exit(2);
    }
    return n;
}

static void no_log(void *ctx, enum nh_log_level level, const char *component, const char *text)
{
    (void)ctx;
    (void)level;
    (void)component;
    sim_log("log: %s", text);
}

int main(int argc, char **argv)
{
    const char *from_env = getenv("NH_SIM_SEEDS");
    uint64_t first = 1, n = from_env ? number(from_env) : SEEDS_DEFAULT;

    program = argv[0];
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seeds") == 0) {
            n = number(argv[++i]);
        } else if (strcmp(argv[i], "--first") == 0) {
            first = number(argv[++i]);
        } else if (strcmp(argv[i], "--seed") == 0) {
            first = number(argv[++i]);
            n = 1;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            sim.verbose = true;
        } else if (strcmp(argv[i], "--trace") == 0) {
            sim.verbose = true;
            log_set_level(NH_LOG_DEBUG);
        } else {
            fprintf(stderr, "run: what is %s? See the head of tests/sim/main.c\n", argv[i]);
            return 2;
        }
    }
    log_set_sink(no_log, NULL);
    linear_self_test();
    oracle_self_test();
    disks_self_test();
    client_self_test();
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
    return run_seeds(first, n);
}
