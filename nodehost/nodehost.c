#include "nodehost/nodehost.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/snapshot_pool.h"
#include "logdb/memory/memory_logdb.h"
#include "logdb/rocksdb/rocksdb_logdb.h"
#include "nodehost/host_private.h"
#include "nodehost/loader.h"
#include "nodehost/places.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"
#include "transport/loopback/loopback.h"
#include "transport/tcp/tcp_transport.h"

#define LOG_COMPONENT "nodehost"

#define DEFAULT_RTT_MS       100u
#define RTT_MS_MAX           10000u
#define DEFAULT_DEPLOYMENT   1u
#define WORKERS_DEFAULT_MAX  16u
#define SNAPSHOT_STREAMS_MAX 1024u

const char *nh_version(void)
{
    return NH_VERSION;
}

const char *nh_machine_dir(void)
{
    return NH_MACHINE_DIR;
}

const struct nh_logdb_ops *nh_logdb_builtin(const char *name)
{
    if (strcmp(name, "rocksdb") == 0)
        return nh_logdb_rocksdb();
    return strcmp(name, "memory") == 0 ? nh_logdb_memory() : NULL;
}

const struct nh_transport_ops *nh_transport_builtin(const char *name)
{
    if (strcmp(name, "tcp") == 0)
        return nh_transport_tcp();
    return strcmp(name, "loopback") == 0 ? nh_transport_loopback() : NULL;
}

void nh_log_set(enum nh_log_level level,
                void (*sink)(void *ctx, enum nh_log_level level, const char *component, const char *text), void *ctx)
{
    log_set_level(level);
    log_set_sink(sink, ctx);
}

/* ---- configuration ---- */

static uint32_t default_workers(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    if (n < 1)
        return 1;
    return n < (long)WORKERS_DEFAULT_MAX ? (uint32_t)n : WORKERS_DEFAULT_MAX;
}

/* Copies what the caller's version of the struct has, and fills in the defaults. */
static int take_config(const struct nh_host_config *given, struct nh_host_config *c, struct nh_error *err)
{
    if (!given || given->struct_size < offsetof(struct nh_host_config, wal_dir))
        return nh_error_set(err, NH_EINVAL, "the configuration is NULL or has no struct_size: begin with NH_HOST_CONFIG_INIT");
    *c = (struct nh_host_config){0};
    memcpy(c, given, given->struct_size < sizeof *c ? given->struct_size : sizeof *c);
    c->deployment_id = c->deployment_id ? c->deployment_id : DEFAULT_DEPLOYMENT;
    c->rtt_ms = c->rtt_ms ? c->rtt_ms : DEFAULT_RTT_MS;
    c->step_workers = c->step_workers ? c->step_workers : default_workers();
    c->apply_workers = c->apply_workers ? c->apply_workers : c->step_workers;
    c->logdb = c->logdb ? c->logdb : nh_logdb_rocksdb();
    c->transport = c->transport ? c->transport : nh_transport_tcp();
    c->registry = c->registry ? c->registry : nh_registry_static();
    return NH_OK;
}

int host_check_address(const char *address, struct nh_error *err)
{
    for (const char *p = address; *p; p++)
        if (*p <= ' ' || *p > '~')
            return nh_error_set(err, NH_EINVAL, "address contains a space or a character that is not ASCII");
    return NH_OK;
}

static int check_listener(const char *name, const void *listener, struct nh_error *err)
{
    uint32_t struct_size;

    if (!listener)
        return NH_OK;
    memcpy(&struct_size, listener, sizeof struct_size); /* comes first */
    if (struct_size < offsetof(struct nh_raft_event_listener, leader_updated))
        return nh_error_set(err, NH_EINVAL, "%s has no struct_size: none of its functions would be called", name);
    return NH_OK;
}

static int check_listeners(const struct nh_host_config *c, struct nh_error *err)
{
    int r = check_listener("raft_listener", c->raft_listener, err);

    return r < 0 ? r : check_listener("system_listener", c->system_listener, err);
}

static int check_config(const struct nh_host_config *c, struct nh_error *err)
{
    int r;

    if (c->host_id == 0)
        return nh_error_set(err, NH_EINVAL, "host_id is 0: give every host a number of its own");
    if (!c->data_dir || !c->data_dir[0])
        return nh_error_set(err, NH_EINVAL, "data_dir is missing");
    if (!c->address || !c->address[0] || strlen(c->address) >= NH_ADDRESS_BYTES)
        return nh_error_set(err, NH_EINVAL, "address is missing or longer than %u bytes", NH_ADDRESS_BYTES - 1);
    if (c->rtt_ms > RTT_MS_MAX)
        return nh_error_set(err, NH_EINVAL, "rtt_ms is %" PRIu32 ", the limit is %u", c->rtt_ms, RTT_MS_MAX);
    if (c->step_workers > ENGINE_WORKERS_MAX || c->apply_workers > ENGINE_WORKERS_MAX)
        return nh_error_set(err, NH_EINVAL, "%" PRIu32 " step and %" PRIu32 " apply workers, the limit is %u of each",
                            c->step_workers, c->apply_workers, ENGINE_WORKERS_MAX);
    if (c->snapshot_workers > SNAPSHOT_WORKERS_MAX)
        return nh_error_set(err, NH_EINVAL, "snapshot_workers is %" PRIu32 ", the limit is %u", c->snapshot_workers,
                            SNAPSHOT_WORKERS_MAX);
    if (c->snapshot_streams_max > SNAPSHOT_STREAMS_MAX)
        return nh_error_set(err, NH_EINVAL, "snapshot_streams_max is %" PRIu32 ", the limit is %u", c->snapshot_streams_max,
                            SNAPSHOT_STREAMS_MAX);
    if (c->snapshot_dir && !c->snapshot_dir[0])
        return nh_error_set(err, NH_EINVAL, "snapshot_dir is empty: name a directory, or leave it NULL");
    if (c->wal_dir && !c->wal_dir[0])
        return nh_error_set(err, NH_EINVAL, "wal_dir is empty: name a directory, or leave it NULL");
    r = host_check_address(c->address, err);
    return r < 0 ? r : check_listeners(c, err);
}

/* ---- what engine and transport tell ---- */

static void on_leader_updated(void *ctx, const struct nh_leader_info *info)
{
    events_post_leader(((struct nh_host *)ctx)->events, info);
}

static void on_ready(void *ctx, struct nh_replica_info info)
{
    events_post(((struct nh_host *)ctx)->events, EVENT_REPLICA_READY, info, NULL);
}

static void on_unloaded(void *ctx, struct nh_replica_info info)
{
    struct nh_host *host = ctx;

    pthread_mutex_lock(&host->lock);
    for (struct stop_waiter *w = host->waiters; w; w = w->next)
        w->done |= w->shard_id == info.shard_id;
    pthread_cond_broadcast(&host->unloaded);
    pthread_mutex_unlock(&host->lock);
    events_post(host->events, EVENT_REPLICA_UNLOADED, info, NULL);
}

static void on_quarantined(void *ctx, struct nh_replica_info info, const char *reason)
{
    events_post(((struct nh_host *)ctx)->events, EVENT_REPLICA_QUARANTINED, info, reason);
}

static void on_membership_changed(void *ctx, struct nh_replica_info info)
{
    events_post(((struct nh_host *)ctx)->events, EVENT_MEMBERSHIP_CHANGED, info, NULL);
}

static void on_removed(void *ctx, struct nh_replica_info info)
{
    events_post(((struct nh_host *)ctx)->events, EVENT_REPLICA_REMOVED, info, NULL);
}

static void on_overload_changed(void *ctx, struct nh_replica_info info, bool overloaded)
{
    events_post(((struct nh_host *)ctx)->events, overloaded ? EVENT_REPLICA_OVERLOADED : EVENT_REPLICA_RELIEVED, info, NULL);
}

static void on_snapshot(void *ctx, enum engine_snapshot_event what, const struct nh_snapshot_info *info)
{
    static const enum event_type types[] = {
        [ENGINE_SNAPSHOT_SEND_STARTED] = EVENT_SEND_STARTED,    [ENGINE_SNAPSHOT_SEND_COMPLETED] = EVENT_SEND_COMPLETED,
        [ENGINE_SNAPSHOT_SEND_ABORTED] = EVENT_SEND_ABORTED,    [ENGINE_SNAPSHOT_RECEIVED] = EVENT_SNAPSHOT_RECEIVED,
        [ENGINE_SNAPSHOT_RECOVERED] = EVENT_SNAPSHOT_RECOVERED, [ENGINE_SNAPSHOT_CREATED] = EVENT_SNAPSHOT_CREATED,
        [ENGINE_SNAPSHOT_COMPACTED] = EVENT_SNAPSHOT_COMPACTED, [ENGINE_LOG_COMPACTED] = EVENT_LOG_COMPACTED,
        [ENGINE_LOGDB_COMPACTED] = EVENT_LOGDB_COMPACTED,
    };

    events_post_snapshot(((struct nh_host *)ctx)->events, types[what], info);
}

static void on_fenced(void *ctx, const char *reason)
{
    LOG_ERROR("the log store failed, this host writes nothing any more: %s; repair the disk and restart", reason);
    events_post(((struct nh_host *)ctx)->events, EVENT_FENCED, (struct nh_replica_info){0}, reason);
}

static void on_batch(void *ctx, const struct nh_message_batch *batch)
{
    struct nh_host *host = ctx;

    host->engine_handlers.on_batch(host->engine_handlers.ctx, batch);
}

static void on_drained(void *ctx)
{
    struct nh_host *host = ctx;

    host->engine_handlers.on_drained(host->engine_handlers.ctx);
}

static bool on_chunk(void *ctx, const struct nh_chunk *chunk)
{
    struct nh_host *host = ctx;

    return host->engine_handlers.on_chunk(host->engine_handlers.ctx, chunk);
}

static void on_unreachable(void *ctx, struct nh_replica_info to)
{
    struct nh_host *host = ctx;

    host->engine_handlers.on_unreachable(host->engine_handlers.ctx, to);
}

static void on_connected(void *ctx, const char *address, bool snapshot)
{
    events_post_connection(((struct nh_host *)ctx)->events, EVENT_CONNECTED, address, snapshot);
}

static void on_failed(void *ctx, const char *address, bool snapshot, const char *reason)
{
    struct nh_host *host = ctx;

    host->engine_handlers.on_failed(host->engine_handlers.ctx, address, snapshot, reason);
    events_post_connection(host->events, EVENT_CONNECTION_FAILED, address, snapshot); /* the transport logs the reason */
}

/* ---- open and close ---- */

/* From here on the configuration names our copies. */
static int take_tables(struct nh_host *host, struct nh_host_config *c, struct nh_error *err)
{
    int r = loader_take_logdb(c->logdb, &host->logdb_ops, err);

    if (r == NH_OK)
        r = loader_take_transport(c->transport, &host->transport_ops, err);
    if (r == NH_OK)
        r = loader_take_registry(c->registry, &host->registry_ops, err);
    c->logdb = &host->logdb_ops;
    c->transport = &host->transport_ops;
    c->registry = &host->registry_ops;
    return r;
}

static int open_logdb(struct nh_host *host, const struct nh_host_config *c, struct nh_error *err)
{
    struct nh_logdb_config lc = {
        .struct_size = sizeof lc,
        .dir = host->data_dir.logdb_path,
        .wal_dir = c->wal_dir,
        .n_workers = c->step_workers,
        .options = c->logdb_options,
        .services = nh_plugin_services(),
        .no_polling = c->no_polling,
    };
    int r;

    if (c->wal_dir) {
        r = data_dir_make(c->wal_dir, err);
        if (r < 0)
            return nh_error_wrap(err, r, "WAL directory");
    }
    r = plugin_status(c->logdb->open(&lc, &host->logdb, err), "open", err);
    if (r < 0)
        host->logdb = NULL; /* it has closed what it had */
    return r < 0 ? nh_error_wrap(err, r, "open log store %s", c->logdb->name) : NH_OK;
}

static int make_engine(struct nh_host *host, const struct nh_host_config *c, struct nh_error *err)
{
    struct engine_config ec = {
        .runtime = host->runtime,
        .rtt_ms = c->rtt_ms,
        .n_step_workers = c->step_workers,
        .n_apply_workers = c->apply_workers,
        .inline_saves = !c->log_workers,
        .inline_applies = true,
        .deployment_id = c->deployment_id,
        .address = host->address,
        .incarnation = host->data_dir.incarnation,
        .logdb_ops = c->logdb,
        .logdb = host->logdb,
        .registry_ops = c->registry,
        .registry = host->registry,
        .events = {host, on_leader_updated, on_ready, on_unloaded, on_quarantined, on_membership_changed, on_fenced, on_removed,
                   on_overload_changed, on_snapshot},
        .max_pending_per_replica = c->max_pending_per_replica,
        .files = files_posix(),
        .snapshot_root = host->snapshot_root,
        .n_snapshot_workers = c->snapshot_workers,
        .snapshot_send_bytes_per_s = c->snapshot_send_bytes_per_s,
        .snapshot_streams_max = c->snapshot_streams_max,
    };

    for (const char *p = host->data_dir.unique_id; *p; p++) /* elections of different hosts must not fall together */
        ec.seed = ec.seed * 31 + (uint64_t)*p;
    ec.seed += host->data_dir.incarnation;
    return engine_new(&ec, &host->engine, err);
}

static int open_transport(struct nh_host *host, const struct nh_host_config *c, struct nh_error *err)
{
    struct nh_transport_config tc = {
        .struct_size = sizeof tc,
        .deployment_id = c->deployment_id,
        .address = host->address,
        .listen_address = c->listen_address,
        .send_queue_bytes = c->send_queue_bytes,
        .services = nh_plugin_services(),
        .data_layout = c->data_layout,
        .no_polling = c->no_polling,
    };
    struct nh_transport_handlers handlers = {sizeof handlers, host,         on_batch,  on_chunk,
                                             on_unreachable,  on_connected, on_failed, on_drained};
    int r;

    engine_transport_handlers(host->engine, &host->engine_handlers);
    r = plugin_status(c->transport->open(&tc, &handlers, &host->transport, err), "open", err);
    if (r < 0)
        host->transport = NULL;
    return r < 0 ? nh_error_wrap(err, r, "open transport %s", c->transport->name) : NH_OK;
}

static int open_registry(struct nh_host *host, const struct nh_host_config *c, struct nh_error *err)
{
    int r = plugin_status(c->registry->open(&host->registry, err), "open", err);

    if (r < 0)
        host->registry = NULL;
    return r < 0 ? nh_error_wrap(err, r, "open registry") : NH_OK;
}

static int open_parts(struct nh_host *host, const struct nh_host_config *c, struct nh_error *err)
{
    struct data_dir_identity id = {host->host_id, host->deployment_id, host->address, c->logdb->name};
    int r = data_dir_open(&host->data_dir, c->data_dir, &id, err);

    if (r == NH_OK)
        r = place_make_snapshots(&host->data_dir, c->snapshot_dir, host->snapshot_root, err);
    if (r == NH_OK)
        r = open_logdb(host, c, err);
    if (r == NH_OK)
        r = open_registry(host, c, err);
    if (r == NH_OK)
        r = make_engine(host, c, err);
    if (r == NH_OK)
        r = open_transport(host, c, err);
    if (r < 0)
        return r;
    engine_set_transport(host->engine, c->transport, host->transport);
    events_start(host->events);
    r = engine_start(host->engine, err);
    if (r < 0)
        return r;
    return plugin_status(c->transport->start(host->transport, err), "start", err);
}

/* Takes a half-open host. The order: nobody calls into what is gone. */
static void close_parts(struct nh_host *host)
{
    if (host->engine)
        engine_stop(host->engine);
    if (host->transport)
        host->transport_ops.close(host->transport);
    engine_free(host->engine);
    events_stop(host->events);
    if (host->registry)
        host->registry_ops.close(host->registry);
    if (host->logdb)
        host->logdb_ops.close(host->logdb);
    data_dir_close(&host->data_dir);
    events_free(host->events);
    runtime_threads_free(host->runtime);
    pthread_cond_destroy(&host->unloaded);
    pthread_mutex_destroy(&host->lock);
    free(host);
}

int nh_host_open(const struct nh_host_config *config, struct nh_host **ret, struct nh_error *err)
{
    struct nh_host_config c;
    struct nh_host *host;
    int r = take_config(config, &c, err);

    if (r == NH_OK)
        r = check_config(&c, err);
    if (r < 0)
        return nh_error_wrap(err, r, "open host");
    host = xcalloc(1, sizeof *host);
    host->host_id = c.host_id;
    host->deployment_id = c.deployment_id;
    strcpy(host->address, c.address);
    pthread_mutex_init(&host->lock, NULL);
    pthread_cond_init(&host->unloaded, NULL);
    host->runtime = runtime_threads_new();
    host->events = events_new(c.raft_listener, c.system_listener, c.event_queue_max);
    r = take_tables(host, &c, err);
    if (r == NH_OK)
        r = open_parts(host, &c, err);
    if (r < 0) {
        close_parts(host);
        return nh_error_wrap(err, r, "open host %" PRIu64, c.host_id);
    }
    LOG_INFO("host %" PRIu64 " (%s) is open at %s, start %" PRIu64 " of %s", host->host_id, host->data_dir.unique_id,
             host->address, host->data_dir.incarnation, host->data_dir.path);
    *ret = host;
    return NH_OK;
}

void nh_host_close(struct nh_host *host)
{
    uint64_t host_id;

    if (!host)
        return;
    host_id = host->host_id;
    if (host_check_may_block(NULL) < 0) { /* it would wait for itself */
        LOG_ERROR("host %" PRIu64 " is not closed, and stays open: a completion, a listener or a machine cannot close it",
                  host_id);
        return;
    }
    events_post(host->events, EVENT_SHUTTING_DOWN, (struct nh_replica_info){0}, NULL);
    close_parts(host);
    LOG_INFO("host %" PRIu64 " is closed", host_id);
}
