/* run: simulates whole clusters, one per seed.
 *
 *     run --seeds N [--first S]     seeds S .. S + N - 1 (default: NH_SIM_SEEDS, else 500, from 1)
 *     run --seed N [--verbose]      one seed again
 *     run --chunks                  every chunk of an image meets every fault (chunks.c)
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

#include "raftio/support/log.h"
#include "tests/sim/sim.h"

#define SEEDS_DEFAULT 500u
#define HANG_SECONDS  120u /* of real time, for one seed */
#define TWICE_EVERY   20u  /* every so many seeds are run twice: the same events must happen */

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

static struct sigaction on_fault; /* of the sanitizer, if there is one */

/* An assertion, a sanitizer or the alarm: the text is out, the seed is not. After a fault the same instruction faults again, as
 * it would without this. */
static void on_signal(int number)
{
    fprintf(stderr, "\nseed %" PRIu64 ", %.3f ms: signal %d%s", sim.seed, (double)sim.now_ns / SIM_MS, number,
            number == SIGALRM ? ": the run hangs" : "");
    print_replay();
    if (number == SIGSEGV) {
        sigaction(number, &on_fault, NULL);
        return;
    }
    signal(number, SIG_DFL);
    raise(number);
}

/* ---- a run ---- */

static void begin(uint64_t seed)
{
    bool verbose = sim.verbose;

    alarm(HANG_SECONDS);
    sim = (struct sim){.seed = seed, .random = seed * 0x2545f4914f6cdd1d + 1, .now_ns = 1000 * SIM_MS, .verbose = verbose};
}

static void run_seed(uint64_t seed)
{
    begin(seed);
    plan_draw();
    plan_begin();
    plan_run();
    plan_end();
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
    bool chunks = false;

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
        } else if (strcmp(argv[i], "--chunks") == 0) {
            chunks = true;
        } else if (strcmp(argv[i], "--trace") == 0) {
            sim.verbose = true;
            log_set_level(NH_LOG_DEBUG);
        } else {
            fprintf(stderr, "run: what is %s? See the head of tests/sim/main.c\n", argv[i]);
            return 2;
        }
    }
    signal(SIGABRT, on_signal);
    sigaction(SIGSEGV, NULL, &on_fault);
    signal(SIGSEGV, on_signal);
    signal(SIGALRM, on_signal);
    log_set_sink(no_log, NULL);
    if (chunks) {
        chunks_run(begin);
        return 0;
    }
    linear_self_test();
    oracle_self_test();
    disks_self_test();
    client_self_test();
    return run_seeds(first, n);
}
