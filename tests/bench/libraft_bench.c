/* What another C library reaches on this machine: canonical's raft, of Debian's package libraft-dev. Three processes, one group,
 * a machine that does nothing; the leader makes each apply in the completion of one before, as `nhbench run --chained` does.
 *
 *     gcc -O2 -o libraft_bench tests/bench/libraft_bench.c -lraft -luv
 *     ./libraft_bench DIRECTORY APPLIES-UNDER-WAY ENTRIES-PER-APPLY BYTES SECONDS
 *
 * It is not part of the build: the project does not depend on that library. Two seconds of load before the measured time.
 */
#include <raft.h>
#include <raft/uv.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define HOSTS       3
#define ENTRIES_MAX 1024
#define NS_PER_S    1000000000u
#define WARM_UP_NS  (2ull * NS_PER_S)

static struct {
    unsigned under_way, entries, payload;
    uint64_t measured_ns;
} options;

/* Of one process. */
static struct raft raft;
static struct raft_io io;
static struct raft_uv_transport transport;
static struct uv_loop_s loop;
static struct raft_fsm machine;
static uv_timer_t timer;
static bool loading;
static uint64_t begin_ns, n_entries;
static uint32_t *latencies_ns;
static size_t n_latencies, cap_latencies;

struct request {
    struct raft_apply apply; /* first: a completion gets its address */
    uint64_t begun_ns;
};

static void must(int r, const char *what)
{
    if (r == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, raft_errmsg(&raft));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- the machine ---- */

static int apply(struct raft_fsm *m, const struct raft_buffer *entry, void **ret)
{
    (void)m, (void)entry;
    *ret = NULL;
    return 0;
}

static int save(struct raft_fsm *m, struct raft_buffer *ret[], unsigned *ret_n)
{
    (void)m;
    *ret_n = 1;
    *ret = raft_malloc(sizeof **ret);
    (*ret)[0] = (struct raft_buffer){.base = raft_calloc(1, 8), .len = 8};
    return 0;
}

static int recover(struct raft_fsm *m, struct raft_buffer *image)
{
    (void)m;
    raft_free(image->base);
    return 0;
}

/* ---- load ---- */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void report(void)
{
    double seconds = (double)options.measured_ns / NS_PER_S;

    if (n_latencies == 0)
        exit(1);
    qsort(latencies_ns, n_latencies, sizeof *latencies_ns, compare);
    printf("{\"entries_per_second\": %.0f, \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f}\n", (double)n_entries / seconds,
           latencies_ns[n_latencies / 2] / 1e3, latencies_ns[n_latencies * 9 / 10] / 1e3,
           latencies_ns[n_latencies * 99 / 100] / 1e3);
    fflush(stdout);
    _exit(0);
}

static void on_applied(struct raft_apply *done, int status, void *result);

static void make(struct request *r)
{
    struct raft_buffer entries[ENTRIES_MAX];

    for (unsigned i = 0; i < options.entries; i++) {
        entries[i].len = (options.payload + 7) / 8 * 8;
        entries[i].base = raft_calloc(1, entries[i].len);
    }
    r->begun_ns = now_ns();
    must(raft_apply(&raft, &r->apply, entries, options.entries, on_applied), "apply");
}

static void on_applied(struct raft_apply *done, int status, void *result)
{
    struct request *r = (struct request *)done;
    uint64_t end_ns = now_ns();

    (void)result;
    must(status, "applied");
    if (end_ns > begin_ns + WARM_UP_NS + options.measured_ns)
        report();
    if (end_ns > begin_ns + WARM_UP_NS) {
        if (n_latencies == cap_latencies) {
            cap_latencies = cap_latencies ? 2 * cap_latencies : 1u << 16;
            latencies_ns = realloc(latencies_ns, cap_latencies * sizeof *latencies_ns);
        }
        latencies_ns[n_latencies++] = (uint32_t)(end_ns - r->begun_ns);
        n_entries += options.entries;
    }
    make(r);
}

/* A second after it has begun to lead. */
static void on_tick(uv_timer_t *t)
{
    static unsigned led;

    (void)t;
    if (loading || raft_state(&raft) != RAFT_LEADER || ++led < 10)
        return;
    loading = true;
    begin_ns = now_ns();
    for (unsigned i = 0; i < options.under_way; i++)
        make(calloc(1, sizeof(struct request)));
}

/* ---- hosts ---- */

static void run_host(const char *dir, unsigned id, unsigned port)
{
    struct raft_configuration members;
    char own_dir[512], address[HOSTS + 1][32];

    snprintf(own_dir, sizeof own_dir, "%s/%u", dir, id);
    mkdir(own_dir, 0700);
    for (unsigned i = 1; i <= HOSTS; i++)
        snprintf(address[i], sizeof address[i], "127.0.0.1:%u", port + i);
    uv_loop_init(&loop);
    must(raft_uv_tcp_init(&transport, &loop), "transport");
    must(raft_uv_init(&io, &loop, own_dir, &transport), "log");
    raft_uv_set_connect_retry_delay(&io, 100);
    machine = (struct raft_fsm){.version = 1, .apply = apply, .snapshot = save, .restore = recover};
    must(raft_init(&raft, &io, &machine, id, address[id]), "init");
    raft_configuration_init(&members);
    for (unsigned i = 1; i <= HOSTS; i++)
        must(raft_configuration_add(&members, i, address[i], RAFT_VOTER), "configuration");
    must(raft_bootstrap(&raft, &members), "bootstrap");
    raft_configuration_close(&members);
    raft_set_snapshot_threshold(&raft, 100000);
    raft_set_snapshot_trailing(&raft, 10000);
    must(raft_start(&raft), "start");
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, on_tick, 0, 100);
    uv_run(&loop, UV_RUN_DEFAULT);
    exit(1);
}

int main(int argc, char **argv)
{
    unsigned port = 21000 + (unsigned)getpid() % 2000 * 4;
    pid_t hosts[HOSTS], first;
    int status;

    if (argc != 6 || atoi(argv[2]) < 1 || atoi(argv[3]) < 1 || atoi(argv[3]) > ENTRIES_MAX) {
        fprintf(stderr, "usage: %s DIRECTORY APPLIES-UNDER-WAY ENTRIES-PER-APPLY BYTES SECONDS\n", argv[0]);
        return 2;
    }
    options.under_way = (unsigned)atoi(argv[2]);
    options.entries = (unsigned)atoi(argv[3]);
    options.payload = (unsigned)atoi(argv[4]);
    options.measured_ns = (uint64_t)(atof(argv[5]) * NS_PER_S);
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < HOSTS; i++) {
        hosts[i] = fork();
        if (hosts[i] == 0)
            run_host(argv[1], i + 1, port);
    }
    first = wait(&status); /* the leader has reported */
    for (unsigned i = 0; i < HOSTS; i++)
        if (hosts[i] != first)
            kill(hosts[i], SIGKILL);
    while (wait(NULL) > 0) {
    }
    return status != 0;
}
