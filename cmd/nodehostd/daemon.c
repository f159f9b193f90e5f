#include "cmd/nodehostd/daemon.h"

#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cmd/nodehostd/layout.h"
#include "cmd/nodehostd/log.h"
#include "cmd/nodehostd/server.h"

/* Starting a new shard waits for a sync of the disk; several at once share it. */
#define STARTERS 16u
/* A stop waits no longer for other hosts to take over what is led here. */
#define HAND_OVER_MS 5000u

struct machine {
    char name[CONFIG_MACHINE_BYTES];
    const struct nh_machine_ops *ops;
};

struct daemon {
    const struct config *config;
    struct nh_host *host;
    struct server server;
    struct machine machines[CONFIG_SECTIONS_MAX]; /* parallel to config->shards */
    pthread_t starters[STARTERS];
    unsigned n_starters;
    uint64_t next_shard; /* atomic: place among all shards of the configuration */
    uint32_t n_running;  /* atomic: starters that have not ended */
    bool failed;         /* atomic: a shard could not be started because of the configuration */
    uv_async_t started_async;
    uv_signal_t signals[2];
    pthread_t hand_over; /* from the first signal on */
    bool hands_over;
    uv_async_t handed_over_async;
    bool is_gone[CONFIG_PEERS_MAX]; /* atomic: server.h */
    int exit_code;
};

/* ---- machines ---- */

static int load_machines(struct daemon *d, const char *plugin_dir, struct nh_error *err)
{
    for (unsigned i = 0; i < d->config->shards_count; i++) {
        const char *name = d->config->shards[i].machine;
        char path[PATH_MAX];
        int r;

        snprintf(path, sizeof path, "%s/%s.so", plugin_dir, name);
        r = nh_machine_load(path, &d->machines[i].ops, err);
        if (r < 0)
            return r;
        if (strcmp(d->machines[i].ops->name, name) != 0)
            return nh_error_set(err, NH_EMISMATCH, "%s calls itself \"%s\", the configuration \"%s\": make them equal", path,
                                d->machines[i].ops->name, name);
    }
    return NH_OK;
}

/* ---- shards ---- */

static uint64_t count_shards(const struct config *c)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < c->shards_count; i++)
        n += c->shards[i].count;
    return n;
}

/* The section and the id of the i-th shard. */
static unsigned find_shard(const struct config *c, uint64_t i, uint64_t *ret_shard_id)
{
    unsigned section = 0;

    while (i >= c->shards[section].count)
        i -= c->shards[section++].count;
    *ret_shard_id = c->shards[section].first + i;
    return section;
}

static void set_snapshots(const struct config_shards *s, struct nh_replica_config *c)
{
    bool automatic = config_is_on(s->automatic_snapshots, true);

    c->snapshot_entries = automatic ? s->snapshot_entries : NH_NEVER;
    c->snapshot_bytes = automatic ? s->snapshot_bytes : NH_NEVER;
    c->compaction_overhead = s->compaction_overhead;
    c->snapshots_kept = s->snapshots_kept;
    c->compress_snapshots = config_is_on(s->compress_snapshots, false);
    c->pin_machine = config_is_on(s->pin_machine, false);
    c->sessions_max = s->sessions_max;
}

static int start_shard(struct daemon *d, unsigned section, uint64_t shard_id, struct nh_error *err)
{
    const struct config_shards *s = &d->config->shards[section];
    struct nh_member members[NH_MEMBERS_MAX] = {0};
    struct nh_replica_config c = NH_REPLICA_CONFIG_INIT;

    for (unsigned i = 0; i < s->replicas_count; i++) {
        members[i].replica_id = s->replicas[i];
        snprintf(members[i].address, sizeof members[i].address, "%s", config_find_peer(d->config, s->replicas[i])->raft);
    }
    c.shard_id = shard_id;
    c.replica_id = d->config->host.id;
    c.machine = d->machines[section].ops;
    c.members = members;
    c.join = config_is_on(s->join, false);
    c.n_members = c.join ? 0 : s->replicas_count;
    c.election_rtt = s->election_rtt;
    c.heartbeat_rtt = s->heartbeat_rtt;
    c.check_quorum = config_is_on(s->check_quorum, true);
    c.pre_vote = config_is_on(s->pre_vote, true);
    c.quiesce = config_is_on(s->quiesce, false);
    c.lease_reads = config_is_on(s->lease_reads, false);
    c.priority = s->priority;
    set_snapshots(s, &c);
    return nh_host_start_replica(d->host, &c, err);
}

/* A damaged replica stays out and the others run; a configuration that contradicts what is stored stops the daemon. */
static void note_start(struct daemon *d, int code, const struct nh_error *err)
{
    if (code == NH_OK) {
        __atomic_add_fetch(&d->server.n_shards_started, 1, __ATOMIC_RELAXED);
        return;
    }
    LOG_ERROR("%s", err->text);
    if (code == NH_EMISMATCH || code == NH_EINVAL || code == NH_EUNSUPPORTED || code == NH_EFENCED)
        __atomic_store_n(&d->failed, true, __ATOMIC_RELEASE);
}

static void *start_shards(void *arg)
{
    struct daemon *d = arg;
    uint64_t total = count_shards(d->config), i;

    while (!__atomic_load_n(&d->failed, __ATOMIC_ACQUIRE) &&
           (i = __atomic_fetch_add(&d->next_shard, 1, __ATOMIC_RELAXED)) < total) {
        struct nh_error err = {0};
        uint64_t shard_id;
        unsigned section = find_shard(d->config, i, &shard_id);

        if (config_has_replica(&d->config->shards[section], d->config->host.id))
            note_start(d, start_shard(d, section, shard_id, &err), &err);
    }
    if (__atomic_sub_fetch(&d->n_running, 1, __ATOMIC_ACQ_REL) == 0)
        uv_async_send(&d->started_async);
    return NULL;
}

static void on_started(uv_async_t *async)
{
    struct daemon *d = async->data;

    if (__atomic_load_n(&d->failed, __ATOMIC_ACQUIRE)) {
        d->exit_code = 1;
        server_stop(&d->server);
        return;
    }
    __atomic_store_n(&d->server.loading, false, __ATOMIC_RELEASE);
    LOG_INFO("%u of %u shards are started; clients are welcome at %s", d->server.n_shards_started, d->server.n_shards_wanted,
             d->config->redis.listen);
}

static void start_starters(struct daemon *d)
{
    d->n_running = STARTERS;
    for (; d->n_starters < STARTERS; d->n_starters++)
        if (pthread_create(&d->starters[d->n_starters], NULL, start_shards, d) != 0)
            abort(); /* a fixed number of threads at start: nothing safer to do without them */
}

/* ---- signals ---- */

static void *hand_over(void *arg)
{
    struct daemon *d = arg;
    uint32_t n_led = 0, n_left = 0;

    if (nh_hand_over_leaders(d->host, HAND_OVER_MS, &n_led, &n_left, NULL) == NH_OK && n_led > 0)
        LOG_INFO("%u shards were led here, %u still are", n_led, n_left);
    uv_async_send(&d->handed_over_async);
    return NULL;
}

static void on_handed_over(uv_async_t *async)
{
    struct daemon *d = async->data;

    server_stop(&d->server);
}

/* Clients are served until the shards are led elsewhere, or a second signal comes. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *d = handle->data;

    LOG_INFO("%s: closing", strsignal(number));
    __atomic_store_n(&d->next_shard, UINT64_MAX / 2, __ATOMIC_RELAXED); /* no further starts */
    if (d->hands_over || pthread_create(&d->hand_over, NULL, hand_over, d) != 0)
        server_stop(&d->server);
    else
        d->hands_over = true;
}

static void watch_signals(struct daemon *d)
{
    static const int numbers[2] = {SIGTERM, SIGINT};

    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&d->server.loop, &d->signals[i]);
        d->signals[i].data = d;
        uv_signal_start(&d->signals[i], on_signal, numbers[i]);
    }
}

static void close_handles(struct daemon *d)
{
    uv_close((uv_handle_t *)&d->started_async, NULL);
    uv_close((uv_handle_t *)&d->handed_over_async, NULL);
    for (int i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&d->signals[i], NULL);
}

/* ---- the process ---- */

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void note_connection(struct daemon *d, const char *address, bool gone)
{
    for (unsigned i = 0; i < d->config->peers_count; i++)
        if (strcmp(d->config->peers[i].raft, address) == 0)
            __atomic_store_n(&d->is_gone[i], gone, __ATOMIC_RELAXED);
}

static void on_connected(void *ctx, const struct nh_connection_info *info)
{
    note_connection(ctx, info->address, false);
}

static void on_disconnected(void *ctx, const struct nh_connection_info *info)
{
    note_connection(ctx, info->address, true);
}

static void on_fenced(void *ctx, const char *reason)
{
    struct daemon *d = ctx;

    (void)reason; /* it is in the log */
    __atomic_store_n(&d->server.log_failed, true, __ATOMIC_RELAXED);
}

static int open_host(struct daemon *d, struct nh_error *err)
{
    const struct config *c = d->config;
    struct nh_system_event_listener listener = {.struct_size = sizeof listener,
                                                .ctx = d,
                                                .connection_established = on_connected,
                                                .connection_failed = on_disconnected,
                                                .logdb_fenced = on_fenced};
    struct nh_host_config hc = NH_HOST_CONFIG_INIT;

    hc.host_id = c->host.id;
    hc.deployment_id = c->host.deployment_id;
    hc.data_layout = layout_number(c);
    hc.data_dir = c->host.data_dir;
    hc.wal_dir = c->host.wal_dir;
    hc.address = c->raft.listen;
    hc.listen_address = c->raft.bind;
    hc.system_listener = &listener;
    hc.rtt_ms = c->raft.rtt_ms;
    hc.step_workers = c->raft.step_workers;
    hc.apply_workers = c->raft.apply_workers;
    hc.log_workers = config_is_on(c->raft.log_workers, false);
    hc.no_polling = !config_is_on(c->raft.polling, true);
    hc.snapshot_dir = c->snapshots.dir;
    hc.snapshot_workers = c->snapshots.workers;
    hc.snapshot_send_bytes_per_s = c->snapshots.send_bytes_per_s;
    hc.snapshot_streams_max = c->snapshots.streams_max;
    return nh_host_open(&hc, &d->host, err);
}

/* What needs an open host, and its data directory locked. */
static int start_serving(struct daemon *d, struct nh_error *err)
{
    int r = layout_check(d->config, err);

    if (r == NH_OK)
        r = server_init(&d->server, d->config, err);
    if (r < 0)
        nh_host_close(d->host);
    d->server.host = d->host;
    d->server.is_gone = d->is_gone;
    return r;
}

static void run(struct daemon *d)
{
    uv_async_init(&d->server.loop, &d->started_async, on_started);
    d->started_async.data = d;
    uv_async_init(&d->server.loop, &d->handed_over_async, on_handed_over);
    d->handed_over_async.data = d;
    watch_signals(d);
    start_starters(d);
    server_run(&d->server);
    for (unsigned i = 0; i < d->n_starters; i++)
        pthread_join(d->starters[i], NULL);
    if (d->hands_over)
        pthread_join(d->hand_over, NULL);
    nh_host_close(d->host); /* every request ends here */
    close_handles(d);
    server_deinit(&d->server);
}

int daemon_run(const struct config *config, const char *plugin_dir)
{
    struct daemon *d = must_alloc(calloc(1, sizeof *d));
    struct nh_error err = {0};
    int r, exit_code;

    d->config = config;
    raise_file_limit();
    r = load_machines(d, plugin_dir, &err);
    if (r == NH_OK)
        r = open_host(d, &err);
    if (r == NH_OK)
        r = start_serving(d, &err);
    if (r < 0)
        LOG_ERROR("%s", err.text);
    else
        run(d);
    exit_code = r < 0 ? 1 : d->exit_code;
    free(d);
    return exit_code;
}
