#include "cmd/nhbench/host.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/nhbench/channel.h"
#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/must.h"
#include "cmd/nhbench/noop.h"

#define LEAD_TIMEOUT_S 120u

struct bench_host {
    const struct bench_options *options;
    struct nh_host *host;
    const struct nh_machine_ops *machine;
    struct nh_member members[BENCH_HOSTS];
    _Atomic uint64_t next_shard; /* to be started, from 0 */
    uint64_t *mine;              /* shards that we are to lead */
    uint32_t n_mine;
    struct load *loads[BENCH_LOADERS_MAX];
    uint32_t n_loads;
};

static int fail(const struct bench_host *b, const char *doing, const char *why)
{
    char text[SAID_TEXT_BYTES];

    snprintf(text, sizeof text, "host %u: %s: %s", b->options->host, doing, why);
    channel_say(b->options->channel, SAID_FAILED, text, sizeof text);
    return 1;
}

/* ---- opening ---- */

static bool read_members(struct bench_host *b)
{
    const char *at = b->options->addresses;

    for (uint32_t i = 0; at && i < BENCH_HOSTS; i++) {
        size_t size = strcspn(at, ",");

        if (size == 0 || size >= NH_ADDRESS_BYTES)
            return false;
        b->members[i].replica_id = i + 1;
        b->members[i].kind = NH_MEMBER_VOTER;
        memcpy(b->members[i].address, at, size);
        at += size + (at[size] == ',');
    }
    return at != NULL;
}

/* In the build tree machines lie beside us, in ../machines; else where they are installed. */
static void find_kv(const struct bench_options *o, char *path)
{
    char program[PATH_MAX] = "", *slash;

    snprintf(path, PATH_MAX, "%s/kv.so", o->plugins ? o->plugins : nh_machine_dir());
    if (o->plugins || readlink("/proc/self/exe", program, sizeof program - 1) <= 0 || !(slash = strrchr(program, '/')))
        return;
    snprintf(slash, sizeof program - (size_t)(slash - program), "/../machines/kv.so");
    if (access(program, R_OK) == 0)
        memcpy(path, program, sizeof program);
}

static int load_machine(struct bench_host *b, struct nh_error *err)
{
    char path[PATH_MAX], whole[PATH_MAX];

    if (b->options->machine == BENCH_NOOP) {
        b->machine = noop_machine();
        return NH_OK;
    }
    find_kv(b->options, path);
    if (!realpath(path, whole))
        return nh_error_set(err, NH_ENOTFOUND, "%s is not there; --plugins says where kv.so is", path);
    return nh_machine_load(whole, &b->machine, err);
}

static int find_log_store(const struct bench_options *o, const struct nh_logdb_ops **ret, struct nh_error *err)
{
    char whole[PATH_MAX];

    *ret = nh_logdb_builtin(o->log_store);
    if (*ret)
        return NH_OK;
    if (!realpath(o->log_store, whole))
        return nh_error_set(err, NH_ENOTFOUND, "log store %s is neither rocksdb nor memory nor a file", o->log_store);
    return nh_logdb_load(whole, ret, err);
}

static int open_host(struct bench_host *b, struct nh_error *err)
{
    const struct bench_options *o = b->options;
    struct nh_host_config c = NH_HOST_CONFIG_INIT;
    int r = load_machine(b, err);

    c.host_id = o->host;
    c.data_dir = o->host_dir;
    c.address = b->members[o->host - 1].address;
    c.rtt_ms = o->rtt_ms;
    c.step_workers = o->step_workers;
    c.apply_workers = o->apply_workers;
    c.log_workers = o->log_workers;
    c.no_polling = o->no_polling;
    c.logdb_options = o->log_store_options;
    c.max_pending_per_replica = o->in_flight < 65536 ? 0 : o->in_flight;
    if (r == NH_OK)
        r = find_log_store(o, &c.logdb, err);
    return r < 0 ? r : nh_host_open(&c, &b->host, err);
}

/* ---- starting replicas: by several threads, as each start waits for the disk ---- */

struct starter {
    struct bench_host *b;
    struct nh_replica_config config;
    pthread_t thread;
    struct nh_error err;
    int result;
};

static void *run_starter(void *arg)
{
    struct starter *s = arg;
    struct bench_host *b = s->b;

    while (s->result == NH_OK) {
        s->config.shard_id = atomic_fetch_add(&b->next_shard, 1) + 1;
        if (s->config.shard_id > b->options->shards)
            break;
        s->result = nh_host_start_replica(b->host, &s->config, &s->err);
    }
    return NULL;
}

static struct nh_replica_config replica_config(const struct bench_host *b)
{
    const struct bench_options *o = b->options;
    struct nh_replica_config c = NH_REPLICA_CONFIG_INIT;

    c.replica_id = o->host;
    c.machine = b->machine;
    c.members = b->members;
    c.n_members = BENCH_HOSTS;
    c.quiesce = o->quiesce;
    c.lease_reads = o->read_mode == BENCH_READ_LEASE;
    c.snapshot_entries = o->snapshot_entries;
    c.sessions_max = o->sessions ? 65536 : 0;
    return c;
}

static int start_replicas(struct bench_host *b, struct nh_error *err)
{
    const struct bench_options *o = b->options;
    uint32_t n = o->shards < o->start_threads ? o->shards : o->start_threads, n_threads = 0;
    struct starter *starters = must(calloc(n, sizeof *starters));
    int r = NH_OK;

    for (; n_threads < n; n_threads++) {
        starters[n_threads] = (struct starter){.b = b, .config = replica_config(b)};
        if (pthread_create(&starters[n_threads].thread, NULL, run_starter, &starters[n_threads]) != 0)
            break;
    }
    for (uint32_t i = 0; i < n_threads; i++) {
        pthread_join(starters[i].thread, NULL);
        if (r == NH_OK && starters[i].result < 0) {
            r = starters[i].result;
            *err = starters[i].err;
        }
    }
    free(starters);
    return n_threads > 0 ? r : nh_error_set(err, NH_EBUSY, "no thread");
}

static void find_mine(struct bench_host *b)
{
    const struct bench_options *o = b->options;

    b->mine = must(calloc(o->shards, sizeof *b->mine));
    for (uint64_t shard = o->host; shard <= o->shards; shard += BENCH_HOSTS)
        b->mine[b->n_mine++] = shard;
}

static int start(struct bench_host *b)
{
    struct said_started started = {0};
    struct sample before, after;
    struct nh_error err = {0};
    uint64_t begin = clock_ns();

    if (!read_members(b))
        return fail(b, "start", "the addresses make no sense");
    if (open_host(b, &err) < 0)
        return fail(b, "open", err.text);
    find_mine(b);
    started.open_ns = clock_ns() - begin;
    sample_take(NULL, &before);
    begin = clock_ns();
    if (start_replicas(b, &err) < 0)
        return fail(b, "start replicas", err.text);
    started.start_ns = clock_ns() - begin;
    sample_take(NULL, &after);
    started.rss_before_bytes = before.rss_bytes;
    started.rss_after_bytes = after.rss_bytes;
    channel_say(b->options->channel, SAID_STARTED, &started, sizeof started);
    return 0;
}

/* ---- leading ---- */

static void ignore(void *ctx, const struct nh_outcome *outcome)
{
    (void)ctx, (void)outcome;
}

/* True if we lead it; else something is done about it. */
static bool try_to_lead(const struct bench_host *b, uint64_t shard, bool act)
{
    struct nh_shard_info info = {0};

    nh_get_shard_info(b->host, shard, &info, NULL);
    if (info.role == NH_ROLE_LEADER)
        return true;
    if (!act)
        return false;
    if (info.leader_id == NH_NO_LEADER)
        nh_campaign(b->host, shard, NULL);
    else
        nh_transfer_leader(b->host, shard, b->options->host, ignore, NULL, NULL);
    return false;
}

/* Acts at once, and again after each two election timeouts; looks more often. */
static bool lead_all(struct bench_host *b)
{
    uint64_t begin = clock_ns(), act_ns = 0;

    while (clock_ns() - begin < LEAD_TIMEOUT_S * NS_PER_S) {
        bool act = clock_ns() >= act_ns, all = true;

        if (act)
            act_ns = clock_ns() + 20ull * b->options->rtt_ms * NS_PER_MS;
        for (uint32_t i = 0; i < b->n_mine; i++)
            all &= try_to_lead(b, b->mine[i], act);
        if (all)
            return true;
        sleep_ms(10);
    }
    return false;
}

static uint32_t n_led(const struct bench_host *b)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->n_mine; i++)
        n += try_to_lead(b, b->mine[i], false);
    return n;
}

static int lead(struct bench_host *b)
{
    uint64_t begin = clock_ns(), took;

    if (!lead_all(b))
        return fail(b, "lead", "not all shards could be led in time");
    took = clock_ns() - begin;
    channel_say(b->options->channel, SAID_LEADING, &took, sizeof took);
    return 0;
}

/* ---- measuring ---- */

static void make_loads(struct bench_host *b)
{
    const struct bench_options *o = b->options;
    uint32_t n = b->n_mine < o->load_threads ? b->n_mine : o->load_threads, at = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t shards = b->n_mine / n + (i < b->n_mine % n), in_flight = o->in_flight / n + (i < o->in_flight % n);
        uint32_t rate = o->rate ? (uint32_t)((uint64_t)o->rate * shards / b->n_mine) : 0;

        b->loads[b->n_loads++] = load_new(b->host, o, b->mine + at, shards, in_flight, o->rate && !rate ? 1 : rate,
                                          o->seed + o->host * BENCH_LOADERS_MAX + i);
        at += shards;
    }
}

static void tell_progress(const struct bench_host *b)
{
    struct said_progress p = {0};

    for (uint32_t i = 0; i < b->n_loads; i++)
        load_progress(b->loads[i], &p.done, &p.failed);
    channel_say(b->options->channel, SAID_PROGRESS, &p, sizeof p);
}

/* Sleeps until at_ns and tells of the progress each second, counted from the beginning. */
static void wait_until(const struct bench_host *b, uint64_t at_ns, uint64_t *next_ns)
{
    while (*next_ns < at_ns) {
        sleep_until_ns(*next_ns);
        tell_progress(b);
        *next_ns += NS_PER_S;
    }
    sleep_until_ns(at_ns);
}

static void measure(struct bench_host *b, const struct said_go *go)
{
    struct said_report *report = must(calloc(1, sizeof *report));
    uint64_t next_ns = clock_ns() + NS_PER_S;
    struct sample begin, end;

    make_loads(b);
    for (uint32_t i = 0; i < b->n_loads; i++)
        load_start(b->loads[i], go->begin_ns, go->end_ns);
    wait_until(b, go->begin_ns, &next_ns);
    sample_take(b->host, &begin);
    wait_until(b, go->end_ns, &next_ns);
    sample_take(b->host, &end);
    report->leads = n_led(b);
    report->wanted_leads = b->n_mine;
    for (uint32_t i = 0; i < b->n_loads; i++)
        load_stop(b->loads[i], &report->load);
    sample_subtract(&begin, &end, &report->used);
    channel_say(b->options->channel, SAID_REPORT, report, sizeof *report);
    free(report);
}

static void count_quiesced(void *ctx, const struct nh_shard_info *info)
{
    *(uint32_t *)ctx += info->quiesced;
}

static void tell_sample(const struct bench_host *b)
{
    struct said_sampled s = {0};
    struct nh_host_info info;

    sample_take(b->host, &s.sample);
    nh_get_host_info(b->host, &info);
    s.leads = info.n_leaders;
    s.leaderless = info.n_leaderless;
    s.shards = info.n_shards;
    nh_each_shard(b->host, count_quiesced, &s.quiesced);
    channel_say(b->options->channel, SAID_SAMPLED, &s, sizeof s);
}

static int obey(struct bench_host *b)
{
    union channel_words *words = must(calloc(1, sizeof *words));
    enum said what = SAID_QUIT;
    int code = 0;

    while (code == 0 && channel_hear(b->options->channel, &what, words) && what != SAID_QUIT) {
        if (what == SAID_LEAD)
            code = lead(b);
        else if (what == SAID_GO)
            measure(b, &words->go);
        else if (what == SAID_SAMPLE)
            tell_sample(b);
    }
    free(words);
    return code;
}

static void say_nothing(void *ctx, enum nh_log_level level, const char *component, const char *text)
{
    (void)ctx, (void)level, (void)component, (void)text;
}

int host_main(const struct bench_options *o)
{
    struct bench_host b = {.options = o};
    int code;

    nh_log_set(o->verbose ? NH_LOG_WARN : NH_LOG_ERROR, o->verbose ? NULL : say_nothing, NULL);
    code = start(&b);
    if (code == 0)
        code = obey(&b);
    nh_host_close(b.host);
    for (uint32_t i = 0; i < b.n_loads; i++)
        load_free(b.loads[i]);
    free(b.mine);
    return code;
}
