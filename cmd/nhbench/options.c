#include "cmd/nhbench/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nhbench/guard.h"

const char bench_usage[] =
    "Usage:\n"
    "    nhbench run [options]       three hosts on this machine, and load inside each of them\n"
    "    nhbench idle [options]      the same without load: what quiet shards cost, start and restart\n"
    "    nhbench remote [options]    load on a running cluster, through the Redis protocol\n"
    "    nhbench plot [options]      series of runs as SVG charts\n"
    "    nhbench guard [options]     this build against an older commit, pair by pair\n"
    "Options of a run:\n"
    "    --shards N            shards of three replicas each (48)\n"
    "    --payload BYTES       of a proposal, or of a value with --machine kv (16)\n"
    "    --in-flight N         requests under way per host (16384)\n"
    "    --seconds S           measured time (5)\n"
    "    --warm-up S           load before it (2)\n"
    "    --machine noop|kv     what the shards run (noop)\n"
    "    --read-share F        part of the requests that are reads, 0 to 1 (0)\n"
    "    --read-mode readindex|lease|stale\n"
    "    --sessions            every proposal in a session: applied exactly once\n"
    "    --one-by-one          a call per proposal instead of one per shard and round\n"
    "    --chained             with --in-flight 1: the next write is made in the completion of the last, on the host's thread\n"
    "    --rate N              requests per second and host at fixed times; --in-flight bounds what is open at once\n"
    "    --keys N              different keys per shard, for kv (10000)\n"
    "    --log-store NAME      rocksdb, memory (nothing durable), or the path of a shared object (rocksdb)\n"
    "    --log-store-options T text for it\n"
    "    --step-workers N, --apply-workers N, --load-threads N, --rtt-ms N\n"
    "    --log-workers         saves on threads of their own\n"
    "    --no-polling          threads that wait sleep at once\n"
    "    --start-threads N     that start replicas (8)\n"
    "    --snapshot-entries N  of a shard between two snapshots, or never (the host's default)\n"
    "    --spread even         how requests are dealt to shards (even)\n"
    "    --gather-us N         wait so long for more answers before proposing again (0)\n"
    "    --pin LIST:LIST:LIST  cores of each host's process, like 0-3:4,5:6\n"
    "    --plugins DIR         where kv.so is\n"
    "    --dir DIR             for data, emptied at the end; must be empty (a temporary one in the current directory)\n"
    "    --limit               also what the machine could do at best with batches like those of the run\n"
    "    --restart             afterwards all hosts are killed with kill -9, and start with what they wrote\n"
    "    --json                the result as JSON\n"
    "    --quiesce             quiet shards stop their timers (always with idle)\n"
    "    --verbose             log lines of the hosts, warnings and worse, on stderr\n"
    "Options of idle:\n"
    "    --shards N (1000), --warm-up S until all is quiet (20), --seconds S (10),\n"
    "    --machine, --rtt-ms, --log-store, --dir, --json as above\n"
    "Options of remote:\n"
    "    --hosts A:P,A:P       where to connect\n"
    "    --clients N, --pipeline N    connections, and commands under way on each (16, 64)\n"
    "    --load-threads, --payload, --keys, --read-share, --seconds, --warm-up, --json as above\n"
    "Options of plot, besides those of a run:\n"
    "    --out DIR             where the charts go (.)\n"
    "    --in-flights LIST, --shard-counts LIST    points of the two charts, like 1,4,16\n"
    "Options of guard, besides those of a run:\n"
    "    --against COMMIT      which one; it is built in a temporary directory here\n"
    "    --source DIR          where its repository is (.)\n"
    "    --rounds N            pairs of runs (5)\n"
    "    --below F             medians of the ratios below it are a regression: exit code 1 (0.95)\n";

enum kind { FLAG, COUNT, REAL, TEXT, MACHINE, READ_MODE, SNAPSHOTS, NUMBER };

struct option_rule {
    const char *name;
    enum kind kind;
    size_t offset;
    double min, max;
};

#define AT(member) offsetof(struct bench_options, member)
static const struct option_rule rules[] = {
    {"shards", COUNT, AT(shards), 1, BENCH_SHARDS_MAX},
    {"payload", COUNT, AT(payload), 0, BENCH_PAYLOAD_MAX},
    {"in-flight", COUNT, AT(in_flight), 1, BENCH_IN_FLIGHT_MAX},
    {"seconds", REAL, AT(seconds), 0.1, BENCH_SECONDS_MAX},
    {"warm-up", REAL, AT(warm_up), 0, BENCH_SECONDS_MAX},
    {"machine", MACHINE, AT(machine), 0, 0},
    {"read-share", REAL, AT(read_share), 0, 1},
    {"read-mode", READ_MODE, AT(read_mode), 0, 0},
    {"sessions", FLAG, AT(sessions), 0, 0},
    {"one-by-one", FLAG, AT(one_by_one), 0, 0},
    {"chained", FLAG, AT(chained), 0, 0},
    {"rate", COUNT, AT(rate), 1, BENCH_RATE_MAX},
    {"keys", COUNT, AT(keys), 1, UINT32_MAX},
    {"log-store", TEXT, AT(log_store), 0, 0},
    {"log-store-options", TEXT, AT(log_store_options), 0, 0},
    {"step-workers", COUNT, AT(step_workers), 1, 64},
    {"apply-workers", COUNT, AT(apply_workers), 1, 64},
    {"load-threads", COUNT, AT(load_threads), 1, BENCH_LOADERS_MAX},
    {"start-threads", COUNT, AT(start_threads), 1, 256},
    {"rtt-ms", COUNT, AT(rtt_ms), 1, 60000},
    {"gather-us", COUNT, AT(gather_us), 0, 1000000},
    {"snapshot-entries", SNAPSHOTS, AT(snapshot_entries), 0, 0},
    {"seed", COUNT, AT(seed), 0, UINT32_MAX},
    {"log-workers", FLAG, AT(log_workers), 0, 0},
    {"no-polling", FLAG, AT(no_polling), 0, 0},
    {"quiesce", FLAG, AT(quiesce), 0, 0},
    {"spread", TEXT, AT(spread), 0, 0},
    {"pin", TEXT, AT(pin), 0, 0},
    {"plugins", TEXT, AT(plugins), 0, 0},
    {"dir", TEXT, AT(dir), 0, 0},
    {"hosts", TEXT, AT(hosts), 0, 0},
    {"clients", COUNT, AT(clients), 1, BENCH_CLIENTS_MAX},
    {"pipeline", COUNT, AT(pipeline), 1, BENCH_PIPELINE_MAX},
    {"out", TEXT, AT(out), 0, 0},
    {"in-flights", TEXT, AT(in_flights), 0, 0},
    {"shard-counts", TEXT, AT(shard_counts), 0, 0},
    {"against", TEXT, AT(against), 0, 0},
    {"source", TEXT, AT(source), 0, 0},
    {"rounds", COUNT, AT(rounds), 1, GUARD_ROUNDS_MAX},
    {"below", REAL, AT(below), 0, 10},
    {"limit", FLAG, AT(limit), 0, 0},
    {"restart", FLAG, AT(restart), 0, 0},
    {"json", FLAG, AT(json), 0, 0},
    {"verbose", FLAG, AT(verbose), 0, 0},
    /* of a host */
    {"as-host", COUNT, AT(host), 1, BENCH_HOSTS},
    {"channel", NUMBER, AT(channel), 3, 1023},
    {"addresses", TEXT, AT(addresses), 0, 0},
    {"host-dir", TEXT, AT(host_dir), 0, 0},
};
#define N_RULES (sizeof rules / sizeof rules[0])

static bool refuse(const char *name, const char *text)
{
    fprintf(stderr, "nhbench: --%s %s\nSee: nhbench --help\n", name, text);
    return false;
}

static bool parse_real(const struct option_rule *rule, const char *text, double *ret)
{
    char wants[96], *end;

    errno = 0;
    *ret = strtod(text, &end);
    if (end != text && !*end && errno == 0 && *ret >= rule->min && *ret <= rule->max)
        return true;
    snprintf(wants, sizeof wants, "takes a number from %g to %.0f, not \"%.20s\"", rule->min, rule->max, text);
    return refuse(rule->name, wants);
}

static bool parse_count(const struct option_rule *rule, const char *text, uint32_t *ret)
{
    char wants[96], *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && !*end && errno == 0 && (double)n >= rule->min && (double)n <= rule->max) {
        *ret = (uint32_t)n;
        return true;
    }
    snprintf(wants, sizeof wants, "takes a whole number from %.0f to %.0f, not \"%.20s\"", rule->min, rule->max, text);
    return refuse(rule->name, wants);
}

static bool parse_choice(const struct option_rule *rule, const char *text, const char *const *names, int *ret)
{
    char wants[96] = "takes one of:";

    for (int i = 0; names[i]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = i;
            return true;
        }
        strcat(strcat(wants, " "), names[i]);
    }
    return refuse(rule->name, wants);
}

static bool parse_snapshots(const struct option_rule *rule, const char *text, uint64_t *ret)
{
    struct option_rule count = {rule->name, COUNT, 0, 1, UINT32_MAX};
    uint32_t n = 0;

    if (strcmp(text, "never") == 0) {
        *ret = UINT64_MAX;
        return true;
    }
    if (!parse_count(&count, text, &n))
        return false;
    *ret = n;
    return true;
}

static bool set(struct bench_options *o, const struct option_rule *rule, const char *text)
{
    static const char *const machines[] = {"noop", "kv", NULL}, *const modes[] = {"readindex", "lease", "stale", NULL};
    void *at = (char *)o + rule->offset;
    int choice = 0;

    switch (rule->kind) {
    case FLAG: *(bool *)at = true; return true;
    case TEXT: *(const char **)at = text; return true;
    case REAL: return parse_real(rule, text, at);
    case COUNT: return parse_count(rule, text, at);
    case NUMBER: return parse_count(rule, text, (uint32_t *)at);
    case SNAPSHOTS: return parse_snapshots(rule, text, at);
    case MACHINE:
        if (!parse_choice(rule, text, machines, &choice))
            return false;
        o->machine = (enum bench_machine)choice;
        return true;
    case READ_MODE:
        if (!parse_choice(rule, text, modes, &choice))
            return false;
        o->read_mode = (enum bench_read_mode)choice;
        return true;
    }
    return false;
}

/* "0-3,6": returns what is behind it, or NULL. */
static const char *parse_cores(const char *text, cpu_set_t *ret)
{
    CPU_ZERO(ret);
    for (;;) {
        unsigned long from, to;
        char *end;

        if (*text < '0' || *text > '9')
            return NULL;
        from = to = strtoul(text, &end, 10);
        if (*end == '-')
            to = strtoul(end + 1, &end, 10);
        if (from > to || to >= CPU_SETSIZE)
            return NULL;
        for (; from <= to; from++)
            CPU_SET(from, ret);
        if (*end != ',')
            return end;
        text = end + 1;
    }
}

bool options_cores(const char *text, uint32_t i, cpu_set_t *ret)
{
    cpu_set_t set;

    for (uint32_t k = 0; k < BENCH_HOSTS; k++) {
        text = parse_cores(text, &set);
        if (!text || *text != (k + 1 < BENCH_HOSTS ? ':' : 0))
            return false;
        text++;
        if (k == i)
            *ret = set;
    }
    return true;
}

/* What does not fit together. */
static bool check(const struct bench_options *o, const char *command)
{
    cpu_set_t cores;

    if (strcmp(command, "remote") == 0 && !o->hosts)
        return refuse("hosts", "is missing: address:port of at least one host");
    if (strcmp(command, "guard") == 0 && !o->against)
        return refuse("against", "is missing: the commit to compare with");
    if (strcmp(command, "remote") == 0 && o->rate)
        return refuse("rate", "is for runs; remote has --clients and --pipeline");
    if (strcmp(o->spread, "even") != 0)
        return refuse("spread", "takes one of: even");
    if (o->pin && !options_cores(o->pin, 0, &cores))
        return refuse("pin", "takes three lists of cores, like 0-3:4,5:6");
    if (o->sessions && o->read_share > 0)
        return refuse("sessions", "cannot be combined with --read-share");
    if (o->rate && o->sessions)
        return refuse("sessions", "cannot be combined with --rate");
    if (o->chained && (o->in_flight != 1 || o->rate || o->sessions || o->read_share > 0))
        return refuse("chained", "is for writes with --in-flight 1, without --rate and --sessions");
    if (o->restart && strcmp(o->log_store, "memory") == 0)
        return refuse("restart", "needs a log store that keeps something");
    if (o->in_flight < o->load_threads)
        return refuse("in-flight", "must be at least --load-threads");
    return true;
}

static void set_defaults(struct bench_options *o, const char *command)
{
    *o = (struct bench_options){.shards = 48,
                                .payload = 16,
                                .in_flight = 16384,
                                .seconds = 5,
                                .warm_up = 2,
                                .keys = 10000,
                                .load_threads = 1,
                                .start_threads = 8,
                                .rtt_ms = 100,
                                .log_store = "rocksdb",
                                .spread = "even",
                                .clients = 16,
                                .pipeline = 64,
                                .out = ".",
                                .in_flights = "1,4,16,64,256,1024,4096,16384,65536",
                                .shard_counts = "1,3,12,48,200,1000,3000,10000",
                                .source = ".",
                                .rounds = 5,
                                .below = 0.95,
                                .channel = -1,
                                .seed = 1};
    if (strcmp(command, "idle") == 0) {
        o->shards = 1000;
        o->warm_up = 20;
        o->seconds = 10;
        o->quiesce = true;
    }
}

bool options_parse(int argc, char **argv, int first, struct bench_options *ret)
{
    struct option list[N_RULES + 1] = {0};
    int chosen;

    set_defaults(ret, argv[first - 1]);
    for (size_t i = 0; i < N_RULES; i++)
        list[i] = (struct option){rules[i].name, rules[i].kind == FLAG ? no_argument : required_argument, NULL, (int)i + 1000};
    optind = 1;
    while ((chosen = getopt_long(argc - first + 1, argv + first - 1, "", list, NULL)) != -1) {
        if (chosen < 1000) {
            fputs("See: nhbench --help\n", stderr);
            return false;
        }
        if (!set(ret, &rules[chosen - 1000], optarg))
            return false;
    }
    if (optind < argc - first + 1) {
        fprintf(stderr, "nhbench: unknown word \"%s\"\nSee: nhbench --help\n", argv[first - 1 + optind]);
        return false;
    }
    ret->n_words = argc - first;
    ret->words = argv + first;
    return check(ret, argv[first - 1]);
}
