#include "cmd/nhbench/plot.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/nhbench/must.h"
#include "cmd/nhbench/run.h"
#include "cmd/nhbench/svg.h"

#define NOTE_BYTES 2048u

struct point {
    double ops, p50_ms, p99_ms, ops_per_cpu;
};

/* "1,4,16" as numbers from 1 to `most`; 0: it makes no sense, a message is on stderr. */
static uint32_t parse_list(const char *name, const char *text, uint32_t most, uint32_t *ret)
{
    const char *at = text;
    uint32_t n = 0;
    char *end;

    do {
        unsigned long value = strtoul(at, &end, 10);

        if (end == at || value < 1 || value > most || n == SVG_POINTS_MAX || (*end && *end != ',')) {
            fprintf(stderr, "nhbench: --%s takes up to %u numbers from 1 to %u, like 1,4,16, not \"%s\"\n", name, SVG_POINTS_MAX,
                    most, text);
            return 0;
        }
        ret[n++] = (uint32_t)value;
        at = end + 1;
    } while (*end);
    return n;
}

static bool run_point(const struct bench_options *o, struct point *ret)
{
    struct run *r = must(calloc(1, sizeof *r));
    struct latencies all = {0};
    struct cluster c = {0};
    bool ok = cluster_init(&c, o) && run_once(&c, r);

    ok = cluster_stop(&c) && ok;
    cluster_deinit(&c);
    latencies_merge(&all, &r->load.writes);
    latencies_merge(&all, &r->load.reads);
    ret->ops = (double)all.count / o->seconds;
    ret->p50_ms = (double)latencies_at(&all, 500000) / 1e6;
    ret->p99_ms = (double)latencies_at(&all, 990000) / 1e6;
    ret->ops_per_cpu = ok ? (double)all.count * 1e6 / (double)(r->used.user_us + r->used.system_us + 1) : 0;
    free(r);
    return ok;
}

/* One chart's runs: each with one option at another value. */
static bool run_series(const struct bench_options *o, bool over_shards, const uint32_t *values, uint32_t n, struct point *points)
{
    for (uint32_t i = 0; i < n; i++) {
        struct bench_options at = *o;

        if (over_shards)
            at.shards = values[i];
        else
            at.in_flight = values[i];
        if (at.load_threads > at.in_flight)
            at.load_threads = at.in_flight;
        fprintf(stderr, "%s %u\n", over_shards ? "shards" : "in flight per host", values[i]);
        if (!run_point(&at, &points[i]))
            return false;
        printf("%s %9u   %10.0f ops/s   %10.0f per CPU second   p50 %9.3f ms   p99 %9.3f ms\n",
               over_shards ? "shards   " : "in flight", values[i], points[i].ops, points[i].ops_per_cpu, points[i].p50_ms,
               points[i].p99_ms);
        fflush(stdout);
    }
    return true;
}

/* The command, and what each point was. */
static void make_note(const struct bench_options *o, bool over_shards, const char *list, char *out)
{
    size_t n = (size_t)snprintf(out, NOTE_BYTES, "nhbench plot");

    for (int i = 0; i < o->n_words && n < NOTE_BYTES; i++)
        n += (size_t)snprintf(out + n, NOTE_BYTES - n, " %s", o->words[i]);
    if (n >= NOTE_BYTES)
        return;
    snprintf(out + n, NOTE_BYTES - n, " -- each point is a run of %g s with %u bytes, --%s %u, and --%s one of %s", o->seconds,
             o->payload, over_shards ? "in-flight" : "shards", over_shards ? o->in_flight : o->shards,
             over_shards ? "shards" : "in-flight", list);
}

static bool write_chart(const struct bench_options *o, const char *name, const struct svg_chart *chart)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", o->out, name);
    if (!svg_write(path, chart)) {
        fprintf(stderr, "nhbench: write %s: %s\n", path, strerror(errno));
        return false;
    }
    fprintf(stderr, "%s\n", path);
    return true;
}

static void add_point(struct svg_series *s, double x, double y)
{
    s->x[s->n] = x;
    s->y[s->n++] = y;
}

static bool plot_latency(const struct bench_options *o, const uint32_t *values, uint32_t n, const char *list)
{
    struct svg_chart *chart = must(calloc(1, sizeof *chart));
    struct point points[SVG_POINTS_MAX];
    char note[NOTE_BYTES];
    bool ok = run_series(o, false, values, n, points);

    make_note(o, false, list, note);
    *chart = (struct svg_chart){.title = "Latency and throughput, by requests in flight",
                                .x_label = "requests/s, three hosts together",
                                .y_label = "latency, ms",
                                .note = note,
                                .log_x = true,
                                .log_y = true,
                                .n_series = 2};
    chart->series[0].name = "median";
    chart->series[1].name = "p99";
    for (uint32_t i = 0; i < n && ok; i++) {
        add_point(&chart->series[0], points[i].ops, points[i].p50_ms);
        add_point(&chart->series[1], points[i].ops, points[i].p99_ms);
    }
    ok = ok && write_chart(o, "latency-throughput.svg", chart);
    free(chart);
    return ok;
}

static bool plot_shards(const struct bench_options *o, const uint32_t *values, uint32_t n, const char *list)
{
    struct svg_chart *chart = must(calloc(1, sizeof *chart));
    struct point points[SVG_POINTS_MAX];
    char note[NOTE_BYTES];
    bool ok = run_series(o, true, values, n, points);

    make_note(o, true, list, note);
    *chart = (struct svg_chart){.title = "Throughput by shards",
                                .x_label = "shards of three replicas",
                                .y_label = "requests",
                                .note = note,
                                .log_x = true,
                                .n_series = 2};
    chart->series[0].name = "per second, three hosts together";
    chart->series[1].name = "per CPU second";
    for (uint32_t i = 0; i < n && ok; i++) {
        add_point(&chart->series[0], values[i], points[i].ops);
        add_point(&chart->series[1], values[i], points[i].ops_per_cpu);
    }
    ok = ok && write_chart(o, "shards-throughput.svg", chart);
    free(chart);
    return ok;
}

int plot_main(const struct bench_options *o)
{
    uint32_t in_flights[SVG_POINTS_MAX], shards[SVG_POINTS_MAX];
    uint32_t n_in_flights = parse_list("in-flights", o->in_flights, BENCH_IN_FLIGHT_MAX, in_flights);
    uint32_t n_shards = parse_list("shard-counts", o->shard_counts, BENCH_SHARDS_MAX, shards);

    if (n_in_flights == 0 || n_shards == 0)
        return 2;
    if (mkdir(o->out, 0777) < 0 && errno != EEXIST) {
        fprintf(stderr, "nhbench: --out %s: %s\n", o->out, strerror(errno));
        return 1;
    }
    return plot_latency(o, in_flights, n_in_flights, o->in_flights) && plot_shards(o, shards, n_shards, o->shard_counts) ? 0 : 1;
}
