#include "cmd/nhbench/run.h"

#include <stdio.h>
#include <stdlib.h>

#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/command.h"
#include "cmd/nhbench/must.h"
#include "cmd/nhbench/report.h"

/* Between the word that all lead and the first request: for the word to arrive. */
#define HEAD_START_MS 20u
#define LIMIT_SECONDS 2.0

static void print_progress(const struct said_progress *now, struct said_progress *before, uint32_t second)
{
    struct said_progress sum = {0};

    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        sum.done += now[i].done;
        sum.failed += now[i].failed;
    }
    fprintf(stderr, "\r%3u s  %9llu ops/s  %llu failed   ", second, (unsigned long long)(sum.done - before->done),
            (unsigned long long)sum.failed);
    *before = sum;
}

/* Hears one host; sets *reported when it was its report. */
static bool hear(struct cluster *c, uint32_t i, union channel_words *words, struct said_progress *progress, struct run *ret,
                 bool *reported)
{
    enum said what;

    if (!channel_hear(c->channels[i], &what, words))
        return false;
    if (what == SAID_PROGRESS)
        *progress = words->progress;
    *reported = what == SAID_REPORT;
    if (*reported)
        ret->reports[i] = words->report;
    return true;
}

/* Hears the hosts in turn, as each speaks once a second. */
static bool watch(struct cluster *c, struct run *ret)
{
    union channel_words *words = must(malloc(sizeof *words));
    struct said_progress progress[BENCH_HOSTS] = {0}, before = {0};
    bool reported[BENCH_HOSTS] = {false}, ok = true;
    uint32_t n_reported = 0, second = 0;

    while (n_reported < BENCH_HOSTS && ok) {
        for (uint32_t i = 0; i < BENCH_HOSTS && ok; i++) {
            if (reported[i])
                continue;
            ok = hear(c, i, words, &progress[i], ret, &reported[i]);
            n_reported += reported[i];
        }
        if (ok && n_reported == 0)
            print_progress(progress, &before, ++second);
    }
    fputs(ok ? "\n" : "\nnhbench: a host has ended\n", stderr);
    free(words);
    return ok;
}

static void add_up(struct run *r)
{
    r->load = (struct load_result){0};
    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        load_result_add(&r->load, &r->reports[i].load);
        sample_add(&r->used, &r->reports[i].used);
        r->leads += r->reports[i].leads;
    }
}

static bool await_started(struct cluster *c, struct said_started started[BENCH_HOSTS])
{
    union channel_words *words = must(malloc(sizeof *words));
    bool ok = true;

    for (uint32_t i = 0; i < BENCH_HOSTS && ok; i++) {
        ok = cluster_await(c, i, SAID_STARTED, words);
        started[i] = words->started;
    }
    free(words);
    return ok;
}

static bool start(struct cluster *c, struct said_started started[BENCH_HOSTS], struct run_start *ret)
{
    uint64_t begin_ns = clock_ns();

    if (!cluster_start(c) || !await_started(c, started))
        return false;
    ret->started_ns = clock_ns() - begin_ns;
    if (!cluster_lead(c))
        return false;
    ret->lead_ns = clock_ns() - begin_ns;
    return true;
}

static bool restart(struct cluster *c, struct run_start *ret)
{
    struct said_started started[BENCH_HOSTS];

    fputs("restart\n", stderr);
    cluster_kill(c);
    return start(c, started, ret);
}

bool run_once(struct cluster *c, struct run *ret)
{
    const struct bench_options *o = c->options;
    struct said_go go;

    *ret = (struct run){.seconds = o->seconds};
    if (!start(c, ret->started, &ret->start))
        return false;
    go.begin_ns = clock_ns() + HEAD_START_MS * NS_PER_MS + (uint64_t)(o->warm_up * (double)NS_PER_S);
    go.end_ns = go.begin_ns + (uint64_t)(o->seconds * (double)NS_PER_S);
    if (!cluster_say(c, SAID_GO, &go, sizeof go) || !watch(c, ret))
        return false;
    add_up(ret);
    return !o->restart || restart(c, &ret->restart);
}

/* ---- limits ---- */

static uint32_t whole(double a, double b)
{
    return b > 0 && a / b >= 1 ? (uint32_t)(a / b + 0.5) : 1;
}

/* The batches of the run. A frame carries each write to one of two followers, and much else, which is left out here. */
static struct limit_shape shape_of(const struct bench_options *o, const struct run *r)
{
    const struct sample *u = &r->used;
    struct commands commands;
    struct limit_shape shape;

    commands_init(&commands, o, 1);
    shape.entry_bytes = (uint32_t)nh_record_padded(NH_RECORD_HEADER_BYTES + commands.size_bytes);
    commands_deinit(&commands);
    shape.entries_per_save = whole((double)u->saved_entries, (double)u->saves);
    shape.updates_per_save = whole((double)u->saved_updates, (double)u->saves);
    if (shape.updates_per_save > shape.entries_per_save)
        shape.updates_per_save = shape.entries_per_save;
    shape.entries_per_frame = whole(2.0 * (double)r->load.writes.count, (double)u->batches);
    return shape;
}

static void measure_limits(const struct cluster *c, struct run *r)
{
    struct limit_shape shape = shape_of(c->options, r);
    double seconds = c->options->seconds < LIMIT_SECONDS ? c->options->seconds : LIMIT_SECONDS;

    fprintf(stderr, "limits of this machine, %.1f s each\n", seconds);
    limits_measure(c->options, c->dir, &shape, seconds, r->limits);
}

int run_main(const struct bench_options *o)
{
    struct run *r = must(calloc(1, sizeof *r));
    struct cluster c = {0};
    bool ok = cluster_init(&c, o) && run_once(&c, r);

    ok = cluster_stop(&c) && ok;
    if (ok && o->limit)
        measure_limits(&c, r);
    cluster_deinit(&c);
    if (ok && o->json)
        report_json(o, r);
    else if (ok)
        report_table(o, r);
    free(r);
    return ok ? 0 : 1;
}
