/* run: simulates whole clusters, one per seed.
 *
 *     run --seeds N [--first S]     seeds S .. S + N - 1 (default: NH_SIM_SEEDS, else 200, from 1)
 *     run --seed N [--verbose]      one seed again
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftio/support/log.h"
#include "tests/sim/sim.h"

#define SEEDS_DEFAULT 200u
#define RECOVERY_MS   60000u /* by then every shard must work again */
#define TWICE_EVERY   20u    /* every so many seeds are run twice: the same events must happen */

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

void sim_fail(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fprintf(stderr, "seed %" PRIu64 ", %.3f ms: ", sim.seed, (double)sim.now_ns / SIM_MS);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nreplay: %s --seed %" PRIu64 " --verbose\n", program, sim.seed);
    exit(1);
}

/* ---- the plan of a run ---- */

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
        .faults_ms = 3000 + sim_below(5000),
    };
}

static void good_weather(void)
{
    network_heal();
    network_set_weather((struct network_weather){0, 0, 50000, 2 * SIM_MS});
}

static void bad_weather(void)
{
    uint64_t min = sim_below(3 * SIM_MS);

    network_set_weather((struct network_weather){(uint32_t)sim_below(sim_chance(20) ? 40 : 8), (uint32_t)sim_below(10), min,
                                                 min + sim_below(sim_chance(20) ? 150 * SIM_MS : 10 * SIM_MS)});
}

/* Some pairs, one way or both ways; or one host against the rest. */
static void partition(void)
{
    uint32_t n = sim.options.n_hosts, lonely = (uint32_t)sim_below(n);
    bool one_way = sim_chance(40), whole = sim_chance(50);

    network_heal();
    for (uint32_t i = 0; i < n; i++) {
        if (i == lonely || (!whole && sim_chance(50)))
            continue;
        network_cut(lonely, i);
        if (!one_way)
            network_cut(i, lonely);
    }
    sim_log("partition around host %u%s", lonely + 1, one_way ? ", one way" : "");
    sim.coverage.partitions++;
}

static void crash_or_start(struct sim_host *h)
{
    if (h->up) {
        host_crash(h);
        if (sim_chance(60))
            return;
    }
    host_start(h); /* after a crash at once: still in the term in which it voted */
}

static void fault(void)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];

    switch (sim_below(12)) {
    case 0:
    case 1:
    case 2: crash_or_start(h); break;
    case 3:
        for (uint32_t i = 0; i < sim.options.n_hosts && sim_chance(30); i++) /* the lights go out */
            if (sim.hosts[i]->up)
                host_crash(sim.hosts[i]);
        break;
    case 4:
    case 5: partition(); break;
    case 6: good_weather(); break;
    case 7: bad_weather(); break;
    case 8:
        if (h->up) {
            clock_set_disk_ns(h->runtime, sim_chance(50) ? SIM_MS : 200 * SIM_MS);
            sim.coverage.slow_disks++;
        }
        break;
    case 9:
        if (h->up)
            clock_set_speed(h->runtime, 700 + (uint32_t)sim_below(600));
        break;
    case 10:
        if (h->up && sim.options.fail_disks)
            memory_disk_fail_after(h->disk, sim_below(20));
        break;
    default:
        if (h->up)
            host_restart_replica(h, 1 + sim_below(sim.options.n_shards));
        break;
    }
}

/* Replicas that were stopped come back, hosts that are down or fenced too, sooner or later. */
static void mend(void)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct sim_host *h = sim.hosts[i];

        if (h->up && h->fenced && sim_chance(30))
            host_crash(h);
        if (!h->up && sim_chance(30))
            host_start(h);
        host_start_missing(h);
    }
}

static void note_quiesced(void)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct engine_replica_status s;

        for (uint64_t shard = 1; shard <= sim.options.n_shards && sim.hosts[i]->up; shard++)
            if (engine_get_status(sim.hosts[i]->engine, shard, &s, NULL) == NH_OK)
                sim.coverage.quiesced += s.quiesced;
    }
}

/* Lets things happen until `until_ns`. */
static void run_until(uint64_t until_ns)
{
    while (sim.now_ns < until_ns) {
        uint64_t tasks, parcels;

        if (sim_chance(50) ? clock_run_one() || network_run_one() : network_run_one() || clock_run_one())
            continue;
        tasks = clock_next_ns();
        parcels = network_next_ns();
        tasks = tasks < parcels ? tasks : parcels;
        sim.now_ns = tasks < until_ns ? tasks : until_ns;
    }
    oracle_check_leaders();
}

/* Somebody who may have voted just now forgets what was not synced; a late request for its vote may still come. */
static void reboot_a_voter(void)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];

    if (!h->up || !sim_chance(30))
        return;
    host_crash(h);
    host_start(h);
}

static void run_faults(void)
{
    uint64_t end = sim.now_ns + sim.options.faults_ms * SIM_MS, next_fault = sim.now_ns + 500 * SIM_MS, idle_until = 0;
    uint64_t n_leaders = 0;

    while (sim.now_ns < end) {
        run_until(sim.now_ns + sim_below(20 * SIM_MS));
        if (sim.coverage.leaders != n_leaders) {
            n_leaders = sim.coverage.leaders;
            reboot_a_voter();
        }
        if (sim.now_ns >= next_fault) {
            fault();
            mend();
            oracle_check_logs();
            next_fault = sim.now_ns + sim_below(400 * SIM_MS);
        }
        if (sim_chance(1) && sim_chance(30))
            idle_until = sim.now_ns + 4000 * SIM_MS; /* long enough to go quiet */
        if (sim.now_ns >= idle_until)
            client_act();
        else
            note_quiesced();
    }
}

/* ---- faults are over: everything must work again ---- */

static void repair(void)
{
    good_weather();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct sim_host *h = sim.hosts[i];

        memory_disk_fail_after(h->disk, UINT64_MAX);
        if (h->up && h->fenced)
            host_crash(h);
        if (!h->up)
            host_start(h);
        clock_set_disk_ns(h->runtime, SIM_MS);
        clock_set_speed(h->runtime, 1000);
    }
}

static void await(uint32_t (*submit)(struct sim_host *h, uint64_t shard), struct sim_host *h, uint64_t shard, uint64_t end_ns,
                  const char *what)
{
    for (uint32_t op = submit(h, shard); client_outcome(op) != NH_REQUEST_COMPLETED;) {
        if (sim.now_ns > end_ns)
            sim_fail("liveness: no %s completes on host %u shard %" PRIu64 " after the faults are over", what, h->id + 1, shard);
        run_until(sim.now_ns + 10 * SIM_MS);
        if (op == UINT32_MAX || (client_outcome(op) != 0 && client_outcome(op) != NH_REQUEST_COMPLETED)) {
            host_start_missing(h);
            op = submit(h, shard);
        }
    }
}

static bool all_equal(uint64_t shard)
{
    uint64_t hash[SIM_HOSTS_MAX], applied[SIM_HOSTS_MAX];

    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        if (engine_get_hash(sim.hosts[i]->engine, shard, &hash[i], &applied[i], NULL) < 0 || applied[i] != applied[0])
            return false;
        if (hash[i] != hash[0])
            sim_fail("shard %" PRIu64 ": hosts 1 and %u have applied %" PRIu64 " entries and differ", shard, i + 1, applied[0]);
    }
    return true;
}

static void run_recovery(void)
{
    uint64_t end_ns = sim.now_ns + RECOVERY_MS * SIM_MS;

    repair();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_start_missing(sim.hosts[i]);
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
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

static void run_seed(uint64_t seed)
{
    bool verbose = sim.verbose;

    sim = (struct sim){.seed = seed, .random = seed * 0x2545f4914f6cdd1d + 1, .now_ns = 1000 * SIM_MS, .verbose = verbose};
    draw_options();
    sim_log("%u hosts, %u shards%s%s%s%s", sim.options.n_hosts, sim.options.n_shards,
            sim.options.inline_saves ? ", inline saves" : "", sim.options.quiesce ? ", quiesce" : "",
            sim.options.pre_vote ? "" : ", no pre-vote", sim.options.check_quorum ? "" : ", no check-quorum");
    oracle_init();
    client_init();
    network_init();
    good_weather();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_init(i);
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_start(sim.hosts[i]);
    run_faults();
    run_recovery();
    oracle_check_logs();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        host_deinit(i);
    network_deinit();
    client_check();
    client_deinit();
    oracle_deinit();
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
    printf("events %" PRIu64 ", crashes %" PRIu64 ", restarts %" PRIu64 ", replica restarts %" PRIu64 ", partitions %" PRIu64
           ", lost %" PRIu64 ", doubled %" PRIu64 ", delayed %" PRIu64 ", slow disks %" PRIu64 ", fences %" PRIu64 "\n",
           c->events, c->crashes, c->restarts, c->replica_restarts, c->partitions, c->lost, c->doubled, c->delayed, c->slow_disks,
           c->fences);
    printf("leaders %" PRIu64 ", quiet replicas seen %" PRIu64 ", writes completed %" PRIu64 ", dropped %" PRIu64
           ", timed out %" PRIu64 ", terminated %" PRIu64 ", reads %" PRIu64 ", applied %" PRIu64 ", applied again %" PRIu64 "\n",
           c->leaders, c->quiesced, c->completed, c->dropped, c->timed_out, c->terminated, c->reads, c->applied, c->replayed);
}

/* Over many seeds nothing may stay untried. */
static void check_coverage(const struct sim_coverage *c)
{
    const uint64_t *counts = (const uint64_t *)c;

    for (size_t i = 0; i < sizeof *c / sizeof *counts; i++)
        if (counts[i] == 0)
            sim_fail("coverage: counter %zu of struct sim_coverage is 0 over all seeds", i);
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
        } else {
            fprintf(stderr, "run: what is %s? See the head of tests/sim/main.c\n", argv[i]);
            return 2;
        }
    }
    log_set_sink(no_log, NULL);
    linear_self_test();
    oracle_self_test();
    return run_seeds(first, n);
}
