#include "cmd/nhbench/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/nhbench/clock.h"

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static double cpu_seconds(const struct sample *s)
{
    return (double)(s->user_us + s->system_us) / 1e6;
}

static uint64_t ops_of(const struct load_result *l)
{
    return l->writes.count + l->reads.count;
}

/* ---- what is derived: named once, for table and JSON ---- */

struct figure {
    const char *name, *label;
    double value;
    const char *format;
};

enum { N_FIGURES = 22 };

static uint32_t figures(const struct run *r, struct figure *f)
{
    const struct load_result *l = &r->load;
    const struct sample *u = &r->used;
    double ops = (double)ops_of(l), cpu = cpu_seconds(u), writes = (double)l->writes.count;
    const struct figure all[] = {
        {"ops_per_second", "ops/s", ops / r->seconds, "%.0f"},
        {"writes_per_second", "writes/s", writes / r->seconds, "%.0f"},
        {"reads_per_second", "reads/s", (double)l->reads.count / r->seconds, "%.0f"},
        {"cpu_seconds", "CPU seconds, all processes", cpu, "%.2f"},
        {"ops_per_cpu_second", "ops per CPU second", ratio(ops, cpu), "%.0f"},
        {"system_cpu_share", "of it in the kernel", ratio((double)u->system_us / 1e6, cpu), "%.2f"},
        {"written_bytes_per_op", "bytes to disk per op", ratio((double)u->written_bytes, ops), "%.1f"},
        {"synced_saves_per_op", "synced saves per op", ratio((double)u->synced_saves, ops), "%.5f"},
        {"proposals_per_call", "proposals per call", ratio((double)l->proposed, (double)l->calls), "%.1f"},
        {"entries_per_save", "entries per save", ratio((double)u->saved_entries, (double)u->saves), "%.1f"},
        {"updates_per_save", "updates per save", ratio((double)u->saved_updates, (double)u->saves), "%.1f"},
        {"messages_per_frame", "messages per frame", ratio((double)u->messages, (double)u->batches), "%.1f"},
        {"entries_per_apply", "entries per apply call", ratio((double)u->applied, (double)u->apply_calls), "%.1f"},
        {"passes_per_op", "step passes per op", ratio((double)u->passes, ops), "%.5f"},
        {"switches_per_op", "context switches per op", ratio((double)(u->voluntary + u->involuntary), ops), "%.4f"},
        {"voluntary_switches_per_op", "of them voluntary", ratio((double)u->voluntary, ops), "%.4f"},
        {"peak_rss_bytes", "peak RSS, sum (bytes)", (double)u->peak_rss_bytes, "%.0f"},
        {"start_seconds", "start until all are led (s)", (double)r->start.lead_ns / 1e9, "%.2f"},
        {"leads", "shards led where they should be", r->leads, "%.0f"},
        {"dropped", "dropped", (double)l->dropped, "%.0f"},
        {"errors", "timeouts and errors", (double)(l->timeouts + l->rejected + l->terminated + l->failed), "%.0f"},
        {"busy", "not taken at first, or late", (double)(l->busy + l->late), "%.0f"},
    };

    _Static_assert(sizeof all / sizeof all[0] == N_FIGURES, "room for all");
    for (uint32_t i = 0; i < N_FIGURES; i++)
        f[i] = all[i];
    return N_FIGURES;
}

static const struct {
    const char *name;
    uint32_t parts;
} percentiles[] = {{"p50", 500000}, {"p90", 900000}, {"p99", 990000}, {"p999", 999000}};
#define N_PERCENTILES (sizeof percentiles / sizeof percentiles[0])

/* What the run did, in the unit of a limit: entries saved by all hosts together, or sent to followers. */
static double run_rate(const struct run *r, enum limit_kind kind)
{
    double n = kind == LIMIT_LOOPBACK ? 2.0 * (double)r->load.writes.count : (double)r->used.saved_entries;

    return n / r->seconds;
}

/* What a write costs beyond what the bare RocksDB loop takes for it on each of the hosts. Means something without reads. */
static double cpu_ns_outside_rocksdb(const struct run *r)
{
    return ratio(cpu_seconds(&r->used) * 1e9, (double)r->load.writes.count) -
           BENCH_HOSTS * r->limits[LIMIT_ROCKSDB].cpu_ns_per_entry;
}

/* ---- table ---- */

static void table_limits(const struct run *r)
{
    printf("limit      entries/s   batches/s  CPU ns/entry   the run, three hosts together\n");
    for (enum limit_kind i = 0; i < LIMIT_KINDS; i++)
        printf("%-8s %11.0f %11.0f  %12.1f   %11.0f entries/s = %.3f of it\n", limit_names[i], r->limits[i].entries_per_second,
               r->limits[i].batches_per_second, r->limits[i].cpu_ns_per_entry, run_rate(r, i),
               ratio(run_rate(r, i), r->limits[i].entries_per_second));
    if (r->load.writes.count > 0)
        printf("CPU of a write, all three hosts and the load: %.0f ns; beyond three times RocksDB's: %.0f ns\n",
               ratio(cpu_seconds(&r->used) * 1e9, (double)r->load.writes.count), cpu_ns_outside_rocksdb(r));
}

void report_table_latencies(const char *label, const struct latencies *l)
{
    if (l->count == 0)
        return;
    printf("%-10s mean %9.3f  p50 %9.3f  p90 %9.3f  p99 %9.3f  p99.9 %9.3f  max %9.3f ms\n", label,
           (double)latencies_mean(l) / 1e6, (double)latencies_at(l, 500000) / 1e6, (double)latencies_at(l, 900000) / 1e6,
           (double)latencies_at(l, 990000) / 1e6, (double)latencies_at(l, 999000) / 1e6, (double)l->max / 1e6);
}

static const char *read_mode_name(const struct bench_options *o)
{
    static const char *const names[] = {"readindex", "lease", "stale"};

    return names[o->read_mode];
}

static bool is_durable(const struct bench_options *o)
{
    return strcmp(o->log_store, "memory") != 0;
}

static void table_head(const struct bench_options *o)
{
    printf("%u shards x %u replicas, machine %s, payload %u bytes, %u in flight per host, log store %s (%s)\n", o->shards,
           BENCH_HOSTS, o->machine == BENCH_KV ? "kv" : "noop", o->payload, o->in_flight, o->log_store,
           is_durable(o) ? "durable: every save is synced" : "nothing is durable");
    if (o->read_share > 0)
        printf("reads: %.3g of all requests, %s\n", o->read_share, read_mode_name(o));
    if (o->rate)
        printf("open loop: %u requests/s per host\n", o->rate);
}

void report_table(const struct bench_options *o, const struct run *r)
{
    struct figure f[N_FIGURES];
    uint32_t n = figures(r, f);

    table_head(o);
    for (uint32_t i = 0; i < n; i++) {
        printf("  %-34s", f[i].label);
        printf(f[i].format, f[i].value);
        putchar('\n');
    }
    report_table_latencies("writes", &r->load.writes);
    report_table_latencies("reads", &r->load.reads);
    if (o->limit)
        table_limits(r);
    if (o->restart)
        printf("after kill -9 of all hosts: replicas started after %.2f s, all shards led after %.2f s\n",
               (double)r->restart.started_ns / 1e9, (double)r->restart.lead_ns / 1e9);
    printf("host   CPU s  user  system  ops per CPU s   switches  peak RSS MiB  written MiB\n");
    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        const struct sample *u = &r->reports[i].used;

        printf("%4u  %6.2f %5.2f  %6.2f  %13.0f  %9" PRIu64 "  %12.1f  %11.1f\n", i + 1, cpu_seconds(u), (double)u->user_us / 1e6,
               (double)u->system_us / 1e6, ratio((double)ops_of(&r->reports[i].load), cpu_seconds(u)),
               u->voluntary + u->involuntary, (double)u->peak_rss_bytes / 1048576, (double)u->written_bytes / 1048576);
    }
}

/* ---- JSON ---- */

static void json_string(const char *name, const char *text)
{
    printf("\"%s\": \"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        if ((unsigned char)*text >= 0x20)
            putchar(*text);
    }
    printf("\", ");
}

void report_json_latencies(const char *name, const struct latencies *l)
{
    printf("  \"%s\": {\"count\": %" PRIu64 ", \"mean_us\": %.3f", name, l->count, (double)latencies_mean(l) / 1e3);
    for (uint32_t i = 0; i < N_PERCENTILES; i++)
        printf(", \"%s_us\": %.3f", percentiles[i].name, (double)latencies_at(l, percentiles[i].parts) / 1e3);
    printf(", \"max_us\": %.3f},\n", (double)l->max / 1e3);
}

static void json_options(const struct bench_options *o)
{
    printf("  \"options\": {");
    json_string("machine", o->machine == BENCH_KV ? "kv" : "noop");
    json_string("log_store", o->log_store);
    json_string("log_store_options", o->log_store_options ? o->log_store_options : "");
    json_string("read_mode", read_mode_name(o));
    printf("\"durable\": %s, \"shards\": %u, \"payload\": %u, \"in_flight\": %u, \"rate\": %u, \"read_share\": %g, "
           "\"sessions\": %s, \"one_by_one\": %s, \"chained\": %s, \"step_workers\": %u, \"apply_workers\": %u, "
           "\"load_threads\": %u, \"rtt_ms\": %u, \"seconds\": %g, \"warm_up\": %g},\n",
           is_durable(o) ? "true" : "false", o->shards, o->payload, o->in_flight, o->rate, o->read_share,
           o->sessions ? "true" : "false", o->one_by_one ? "true" : "false", o->chained ? "true" : "false", o->step_workers,
           o->apply_workers, o->load_threads, o->rtt_ms, o->seconds, o->warm_up);
}

static void json_limits(const struct run *r)
{
    printf("  \"cpu_ns_per_write\": %.1f,\n  \"cpu_ns_per_write_outside_rocksdb\": %.1f,\n",
           ratio(cpu_seconds(&r->used) * 1e9, (double)r->load.writes.count), cpu_ns_outside_rocksdb(r));
    printf("  \"limits\": {");
    for (enum limit_kind i = 0; i < LIMIT_KINDS; i++)
        printf("%s\"%s\": {\"entries_per_second\": %.0f, \"batches_per_second\": %.1f, \"cpu_ns_per_entry\": %.2f, "
               "\"run_entries_per_second\": %.0f, \"run_fraction\": %.5f}",
               i ? ", " : "", limit_names[i], r->limits[i].entries_per_second, r->limits[i].batches_per_second,
               r->limits[i].cpu_ns_per_entry, run_rate(r, i), ratio(run_rate(r, i), r->limits[i].entries_per_second));
    printf("},\n");
}

static void json_host(const struct said_report *report, bool last)
{
    const struct sample *u = &report->used;

    printf("    {\"ops\": %" PRIu64 ", \"cpu_seconds\": %.3f, \"user_seconds\": %.3f, \"system_seconds\": %.3f, "
           "\"voluntary_switches\": %" PRIu64 ", \"involuntary_switches\": %" PRIu64 ", \"written_bytes\": %" PRIu64
           ", \"peak_rss_bytes\": %" PRIu64 ", \"leads\": %u}%s\n",
           ops_of(&report->load), cpu_seconds(u), (double)u->user_us / 1e6, (double)u->system_us / 1e6, u->voluntary,
           u->involuntary, u->written_bytes, u->peak_rss_bytes, report->leads, last ? "" : ",");
}

void report_json(const struct bench_options *o, const struct run *r)
{
    struct figure f[N_FIGURES];
    uint32_t n = figures(r, f);

    printf("{\n");
    json_options(o);
    for (uint32_t i = 0; i < n; i++)
        printf("  \"%s\": %.7g,\n", f[i].name, f[i].value);
    report_json_latencies("writes", &r->load.writes);
    report_json_latencies("reads", &r->load.reads);
    if (o->limit)
        json_limits(r);
    if (o->restart)
        printf("  \"restart\": {\"all_started_seconds\": %.3f, \"all_lead_seconds\": %.3f},\n",
               (double)r->restart.started_ns / 1e9, (double)r->restart.lead_ns / 1e9);
    printf("  \"processes\": [\n");
    for (uint32_t i = 0; i < BENCH_HOSTS; i++)
        json_host(&r->reports[i], i + 1 == BENCH_HOSTS);
    printf("  ]\n}\n");
}
