#include "cmd/nhbench/idle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/cluster.h"
#include "cmd/nhbench/must.h"

#define POLL_MS           50u
#define LEADERS_TIMEOUT_S 300u

struct idle_start {
    double open_s, replicas_s; /* the slowest host: opening, starting its replicas */
    double all_started_s;      /* from the start of the first process */
    double all_lead_s;         /* until every shard has a leader, and every replica knows it */
};

struct idle {
    struct cluster cluster;
    struct idle_start start, restart;
    uint64_t rss_before[BENCH_HOSTS]; /* open, no replicas */
    struct said_sampled begin[BENCH_HOSTS], end[BENCH_HOSTS];
    uint64_t wire_bytes; /* received over the loopback device, by anybody */
    double seconds;
};

static double seconds_since(uint64_t begin_ns)
{
    return (double)(clock_ns() - begin_ns) / 1e9;
}

static bool sample_all(struct cluster *c, struct said_sampled *ret)
{
    union channel_words *words = must(malloc(sizeof *words));
    bool ok = cluster_say(c, SAID_SAMPLE, NULL, 0);

    for (uint32_t i = 0; i < BENCH_HOSTS && ok; i++) {
        ok = cluster_await(c, i, SAID_SAMPLED, words);
        ret[i] = words->sampled;
    }
    free(words);
    return ok;
}

static bool await_started(struct idle *d, struct idle_start *ret)
{
    union channel_words *words = must(malloc(sizeof *words));
    bool ok = true;

    for (uint32_t i = 0; i < BENCH_HOSTS && ok; i++) {
        const struct said_started *s = &words->started;

        ok = cluster_await(&d->cluster, i, SAID_STARTED, words);
        if (!ok)
            break;
        ret->open_s = (double)s->open_ns / 1e9 > ret->open_s ? (double)s->open_ns / 1e9 : ret->open_s;
        ret->replicas_s = (double)s->start_ns / 1e9 > ret->replicas_s ? (double)s->start_ns / 1e9 : ret->replicas_s;
        if (ret == &d->start)
            d->rss_before[i] = s->rss_before_bytes;
    }
    free(words);
    return ok;
}

static bool all_lead(const struct said_sampled *s, uint32_t shards)
{
    uint32_t leads = 0, leaderless = 0;

    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        leads += s[i].leads;
        leaderless += s[i].leaderless;
    }
    return leads >= shards && leaderless == 0;
}

static bool start(struct idle *d, struct idle_start *ret)
{
    uint64_t begin_ns = clock_ns();

    if (!cluster_start(&d->cluster) || !await_started(d, ret))
        return false;
    ret->all_started_s = seconds_since(begin_ns);
    while (seconds_since(begin_ns) < LEADERS_TIMEOUT_S) {
        if (!sample_all(&d->cluster, d->end))
            return false;
        if (all_lead(d->end, d->cluster.options->shards)) {
            ret->all_lead_s = seconds_since(begin_ns);
            return true;
        }
        sleep_ms(POLL_MS);
    }
    fprintf(stderr, "nhbench: after %u s there are shards without a leader\n", LEADERS_TIMEOUT_S);
    return false;
}

static uint64_t wire_bytes(void)
{
    FILE *f = fopen("/proc/self/net/dev", "re");
    uint64_t bytes = 0;
    char line[512];

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, " lo: %" SCNu64, &bytes) == 1)
            break;
    if (f)
        fclose(f);
    return bytes;
}

static bool measure(struct idle *d)
{
    const struct bench_options *o = d->cluster.options;
    uint64_t begin_ns, bytes;

    fprintf(stderr, "%.2f s until all have leaders; settling for %.0f s, measuring for %.0f s\n", d->start.all_lead_s, o->warm_up,
            o->seconds);
    sleep_ms((uint64_t)(o->warm_up * 1000));
    if (!sample_all(&d->cluster, d->begin))
        return false;
    bytes = wire_bytes();
    begin_ns = clock_ns();
    sleep_ms((uint64_t)(o->seconds * 1000));
    d->wire_bytes = wire_bytes() - bytes;
    d->seconds = seconds_since(begin_ns);
    return sample_all(&d->cluster, d->end);
}

static bool restart(struct idle *d)
{
    struct said_sampled kept[BENCH_HOSTS];
    bool ok;

    memcpy(kept, d->end, sizeof kept);
    cluster_kill(&d->cluster);
    ok = start(d, &d->restart);
    memcpy(d->end, kept, sizeof kept);
    return ok;
}

/* ---- what came of it ---- */

struct idle_host {
    double cpu_percent, switches_per_s, messages_per_s, rss_per_replica_bytes, rss_mib;
    uint32_t quiesced;
};

static struct idle_host host_figures(const struct idle *d, uint32_t i)
{
    struct sample used;
    uint64_t rss = d->end[i].sample.rss_bytes, before = d->rss_before[i];

    sample_subtract(&d->begin[i].sample, &d->end[i].sample, &used);
    return (struct idle_host){
        .cpu_percent = (double)(used.user_us + used.system_us) / 1e4 / d->seconds,
        .switches_per_s = (double)(used.voluntary + used.involuntary) / d->seconds,
        .messages_per_s = (double)used.messages / d->seconds,
        .rss_per_replica_bytes = rss > before ? (double)(rss - before) / d->cluster.options->shards : 0,
        .rss_mib = (double)rss / 1048576,
        .quiesced = d->end[i].quiesced,
    };
}

static void print_table(const struct idle *d)
{
    const struct bench_options *o = d->cluster.options;

    printf("%u shards x %u replicas, machine %s, quiet, RTT %u ms\n", o->shards, BENCH_HOSTS,
           o->machine == BENCH_KV ? "kv" : "noop", o->rtt_ms);
    printf("             hosts open  replicas started  all processes started  all shards led\n");
    printf("start        %8.2f s  %14.2f s  %19.2f s  %12.2f s\n", d->start.open_s, d->start.replicas_s, d->start.all_started_s,
           d->start.all_lead_s);
    printf("after kill   %8.2f s  %14.2f s  %19.2f s  %12.2f s\n", d->restart.open_s, d->restart.replicas_s,
           d->restart.all_started_s, d->restart.all_lead_s);
    printf("bytes/s on the loopback device %.0f\n", (double)d->wire_bytes / d->seconds);
    printf("host   CPU %%  switches/s  messages/s  RSS MiB  RSS bytes per replica  quiesced\n");
    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        struct idle_host h = host_figures(d, i);

        printf("%4u  %6.2f  %10.1f  %10.1f  %7.1f  %21.0f  %8u\n", i + 1, h.cpu_percent, h.switches_per_s, h.messages_per_s,
               h.rss_mib, h.rss_per_replica_bytes, h.quiesced);
    }
}

static void json_start(const char *name, const struct idle_start *s)
{
    printf("  \"%s\": {\"open_seconds\": %.3f, \"replicas_seconds\": %.3f, \"all_started_seconds\": %.3f, \"all_lead_seconds\": "
           "%.3f},\n",
           name, s->open_s, s->replicas_s, s->all_started_s, s->all_lead_s);
}

static void print_json(const struct idle *d)
{
    printf("{\n  \"shards\": %u,\n", d->cluster.options->shards);
    json_start("start", &d->start);
    json_start("restart", &d->restart);
    printf("  \"wire_bytes_per_second\": %.1f,\n  \"processes\": [\n", (double)d->wire_bytes / d->seconds);
    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        struct idle_host h = host_figures(d, i);

        printf("    {\"cpu_percent\": %.4f, \"switches_per_second\": %.2f, \"messages_per_second\": %.2f, \"rss_bytes\": %" PRIu64
               ", \"rss_bytes_per_replica\": %.1f, \"quiesced\": %u}%s\n",
               h.cpu_percent, h.switches_per_s, h.messages_per_s, d->end[i].sample.rss_bytes, h.rss_per_replica_bytes, h.quiesced,
               i + 1 < BENCH_HOSTS ? "," : "");
    }
    printf("  ]\n}\n");
}

int idle_main(const struct bench_options *o)
{
    struct idle *d = must(calloc(1, sizeof *d));
    bool ok = cluster_init(&d->cluster, o) && start(d, &d->start) && measure(d) && restart(d);

    ok = cluster_stop(&d->cluster) && ok;
    cluster_deinit(&d->cluster);
    if (ok && o->json)
        print_json(d);
    else if (ok)
        print_table(d);
    free(d);
    return ok ? 0 : 1;
}
