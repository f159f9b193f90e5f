/* Three engines in one process on threads: elections, proposals and reads from several client threads on every host, replicas
 * stopped and started under load, snapshots and compaction all the time with machines of all three kinds, a clean stop with
 * requests pending. Run under ThreadSanitizer too.
 *
 * Checks: every accepted request ends exactly once, also if its deadline comes while the machine is being asked; what completed
 * is applied exactly once on every host; a read sees every write that completed before it was asked for; all hosts end with the
 * same state.
 */
#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "logdb/memory/memory_logdb.h"
#include "raftio/support/memory.h"
#include "transport/loopback/loopback.h"

#define N_HOSTS     3u
#define N_SHARDS    8u
#define N_CLIENTS   3u
#define N_ROUNDS    2000u
#define DEADLINE_NS (20ull * 1000000000u)

/* ---- a counter: adds what it is told, knows how often. Of each kind ---- */

struct state {
    uint64_t sum, n, applied;
};

struct nh_machine {
    struct state now;      /* atomic: looked at beside updates, but for a regular one */
    struct state *durable; /* on-disk: what the last sync kept */
};

static int counter_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args;
    (void)err;
    *ret = xcalloc(1, sizeof **ret);
    *ret_applied = 0;
    return NH_OK;
}

static struct state durable[N_HOSTS + 1][N_SHARDS + 1];

static int disk_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    int r = counter_open(args, ret, ret_applied, err);

    (*ret)->durable = &durable[args->replica_id][args->shard_id];
    (*ret)->now = *(*ret)->durable;
    *ret_applied = (*ret)->now.applied;
    return r;
}

static uint64_t look(const uint64_t *field)
{
    return __atomic_load_n(field, __ATOMIC_RELAXED);
}

static struct state look_at(const struct nh_machine *m)
{
    return (struct state){look(&m->now.sum), look(&m->now.n), look(&m->now.applied)};
}

static void set(struct nh_machine *m, struct state s)
{
    __atomic_store_n(&m->now.sum, s.sum, __ATOMIC_RELAXED);
    __atomic_store_n(&m->now.n, s.n, __ATOMIC_RELAXED);
    __atomic_store_n(&m->now.applied, s.applied, __ATOMIC_RELAXED);
}

static int counter_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)err;
    for (size_t i = 0; i < n; i++) {
        struct state s = look_at(m);
        uint64_t v;

        assert(entries[i].size_bytes == sizeof v);
        assert(entries[i].index > s.applied);
        memcpy(&v, entries[i].cmd, sizeof v);
        set(m, (struct state){s.sum + v, s.n + 1, entries[i].index});
        entries[i].result.value = s.sum + v;
    }
    return NH_OK;
}

static int counter_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                          struct nh_error *err)
{
    (void)err;
    if (size_bytes)
        usleep(*(const useconds_t *)query);
    *ret_value = look(&m->now.sum);
    return out->write(out->ctx, ret_value, sizeof *ret_value);
}

static void counter_close(struct nh_machine *m)
{
    free(m);
}

static uint64_t counter_hash(struct nh_machine *m)
{
    return look(&m->now.sum) * 31 + look(&m->now.n);
}

static int counter_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    struct state now = look_at(m);

    (void)err;
    *ret_ctx = xmemdup(&now, sizeof now);
    return NH_OK;
}

static void counter_release(struct nh_machine *m, void *snapshot_ctx)
{
    (void)m;
    free(snapshot_ctx);
}

/* Large enough for several chunks. */
#define PADDING_BYTES (700u * 1024u)

static int counter_save(struct nh_machine *m, void *snapshot_ctx, struct nh_writer *out, const volatile bool *stop,
                        struct nh_error *err)
{
    const struct state *moment = snapshot_ctx ? snapshot_ctx : &m->now;
    uint8_t *padding = xcalloc(1, PADDING_BYTES);
    int r = out->write(out->ctx, moment, sizeof *moment);

    (void)stop;
    (void)err;
    if (r == NH_OK)
        r = out->write(out->ctx, padding, PADDING_BYTES);
    free(padding);
    return r;
}

static int counter_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    struct state s;
    uint8_t byte[4096];
    int64_t n = in->read(in->ctx, &s, sizeof s);

    (void)stop;
    if (n != (int64_t)sizeof s)
        return n < 0 ? (int)n : nh_error_set(err, NH_ECORRUPT, "%d bytes", (int)n);
    while ((n = in->read(in->ctx, byte, sizeof byte)) > 0) {
    }
    set(m, s);
    return n < 0 ? (int)n : NH_OK;
}

static int disk_sync(struct nh_machine *m, struct nh_error *err)
{
    (void)err;
    *m->durable = look_at(m);
    return NH_OK;
}

static const struct nh_machine_ops counter = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "counter",
    .version = "1",
    .open = counter_open,
    .update = counter_update,
    .lookup = counter_lookup,
    .close = counter_close,
    .hash = counter_hash,
    .save_snapshot = counter_save,
    .recover = counter_recover,
};

/* Kinds of the shards. */
static struct nh_machine_ops machines[3];

static void make_machines(void)
{
    for (uint32_t kind = 0; kind < 3; kind++) {
        machines[kind] = counter;
        machines[kind].kind = kind;
        machines[kind].flags = kind == NH_MACHINE_ON_DISK ? 0 : NH_MACHINE_QUICK;
        if (kind == NH_MACHINE_REGULAR)
            continue;
        machines[kind].prepare_snapshot = counter_prepare;
        machines[kind].release_snapshot = counter_release;
    }
    machines[NH_MACHINE_ON_DISK].open = disk_open;
    machines[NH_MACHINE_ON_DISK].sync = disk_sync;
}

/* ---- hosts ---- */

struct host {
    struct runtime *runtime;
    struct engine *engine;
    struct nh_logdb *logdb;
    struct nh_registry *registry;
    struct nh_transport *transport;
    char address[32];
    uint32_t unloaded; /* atomic */
    char snapshots[64];
};
static uint64_t snapshot_events[ENGINE_LOGDB_COMPACTED + 1]; /* atomic */

static struct host hosts[N_HOSTS];
static struct nh_membership members;

static void on_leader(void *ctx, const struct nh_leader_info *info)
{
    (void)ctx;
    (void)info;
}

static void on_replica(void *ctx, struct nh_replica_info info)
{
    (void)ctx;
    (void)info;
}

static void on_unloaded(void *ctx, struct nh_replica_info info)
{
    struct host *h = ctx;

    (void)info;
    __atomic_add_fetch(&h->unloaded, 1, __ATOMIC_ACQ_REL);
}

static void on_quarantined(void *ctx, struct nh_replica_info info, const char *reason)
{
    (void)ctx;
    fprintf(stderr, "shard %" PRIu64 " in quarantine: %s\n", info.shard_id, reason);
    abort();
}

static void on_snapshot(void *ctx, enum engine_snapshot_event what, const struct nh_snapshot_info *info)
{
    (void)ctx;
    (void)info;
    __atomic_add_fetch(&snapshot_events[what], 1, __ATOMIC_RELAXED);
}

static void on_overload(void *ctx, struct nh_replica_info info, bool overloaded)
{
    (void)ctx;
    (void)info;
    (void)overloaded;
}

static void on_removed(void *ctx, struct nh_replica_info info)
{
    (void)ctx;
    (void)info;
}

static void on_fenced(void *ctx, const char *reason)
{
    (void)ctx;
    fprintf(stderr, "fenced: %s\n", reason);
    abort();
}

static void start_replica(struct host *h, uint64_t shard_id, bool restart)
{
    struct engine_replica_config c = {
        .shard_id = shard_id,
        .replica_id = (uint64_t)(h - hosts) + 1,
        .machine = &machines[shard_id % 3],
        .initial = restart ? NULL : &members,
        .election_rtt = 10,
        .heartbeat_rtt = 2,
        .pre_vote = true,
        .check_quorum = true,
        .quiesce = shard_id % 2,
        .snapshot_entries = 50,
        .compaction_overhead = 5,
        .compress_snapshots = shard_id % 4 == 0,
    };
    struct nh_error err;

    if (engine_start_replica(h->engine, &c, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

static void start_host(struct host *h, struct loopback_hub *hub, uint32_t id)
{
    struct nh_logdb_config lc = {.struct_size = sizeof lc, .dir = h->address, .n_workers = 2, .services = nh_plugin_services()};
    struct nh_transport_config tc = {.struct_size = sizeof tc,
                                     .deployment_id = 1,
                                     .address = h->address,
                                     .services = nh_plugin_services()};
    struct engine_config ec = {
        .rtt_ms = 10,
        .n_step_workers = 2,
        .n_apply_workers = 2,
        .inline_saves = id == 2,
        .inline_applies = id != 3,
        .deployment_id = 1,
        .address = h->address,
        .incarnation = 1,
        .seed = id,
        .logdb_ops = nh_logdb_memory(),
        .registry_ops = nh_registry_static(),
        .events = {h, on_leader, on_replica, on_unloaded, on_quarantined, on_replica, on_fenced, on_removed, on_overload,
                   on_snapshot},
    };
    struct nh_transport_handlers handlers;

    snprintf(h->snapshots, sizeof h->snapshots, "snapshots-%u", id);
    ec.snapshot_root = h->snapshots;
    ec.files = files_posix();
    if (ec.files->ops->remove(ec.files, h->snapshots, NULL) < 0 || ec.files->ops->make_dir(ec.files, h->snapshots, NULL) < 0)
        abort();
    ec.runtime = h->runtime = runtime_threads_new();
    if (ec.logdb_ops->open(&lc, &h->logdb, NULL) < 0 || ec.registry_ops->open(&h->registry, NULL) < 0)
        abort();
    ec.logdb = h->logdb;
    ec.registry = h->registry;
    if (engine_new(&ec, &h->engine, NULL) < 0)
        abort();
    engine_transport_handlers(h->engine, &handlers);
    if (loopback_open(hub, &tc, &handlers, &h->transport, NULL) < 0 || nh_transport_loopback()->start(h->transport, NULL) < 0)
        abort();
    engine_set_transport(h->engine, nh_transport_loopback(), h->transport);
    if (engine_start(h->engine, NULL) < 0)
        abort();
}

static void stop_host(struct host *h)
{
    engine_stop(h->engine);
    nh_transport_loopback()->close(h->transport);
    engine_free(h->engine);
    nh_logdb_memory()->close(h->logdb);
    memory_disk_drop(h->address);
    nh_registry_static()->close(h->registry);
    runtime_threads_free(h->runtime);
}

/* ---- clients ---- */

static uint64_t sums[N_SHARDS + 1];       /* atomic: completed additions */
static uint64_t maybe[N_SHARDS + 1];      /* atomic: additions whose outcome is unknown */
static uint64_t ended, accepted, dropped; /* atomic */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    uint32_t n_ended;
    struct nh_outcome outcome;
};

static void on_end(void *ctx, const struct nh_outcome *outcome)
{
    struct waiter *w = ctx;

    pthread_mutex_lock(&w->lock);
    w->n_ended++;
    assert(w->n_ended == 1);
    w->outcome = *outcome;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
    __atomic_add_fetch(&ended, 1, __ATOMIC_RELAXED);
}

static struct nh_outcome await(struct waiter *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->n_ended == 0)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->outcome;
}

static void propose(struct host *h, uint64_t shard, uint64_t v)
{
    struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, {0}};
    struct nh_proposal p = {&v, sizeof v, on_end, &w};
    struct nh_outcome o;
    int r = engine_propose(h->engine, shard, &p, 1, runtime_now_ns(h->runtime) + DEADLINE_NS, NULL);

    if (r < 0) {
        assert(r == NH_ECLOSED || r == NH_ENOTFOUND || r == NH_EBUSY);
        return;
    }
    __atomic_add_fetch(&accepted, 1, __ATOMIC_RELAXED);
    o = await(&w);
    if (o.code == NH_REQUEST_COMPLETED)
        __atomic_add_fetch(&sums[shard], v, __ATOMIC_SEQ_CST);
    else if (o.code == NH_REQUEST_DROPPED)
        __atomic_add_fetch(&dropped, 1, __ATOMIC_RELAXED);
    else
        __atomic_add_fetch(&maybe[shard], v, __ATOMIC_SEQ_CST);
}

static void read_sum(struct host *h, uint64_t shard)
{
    struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, {0}};
    uint64_t at_least = __atomic_load_n(&sums[shard], __ATOMIC_SEQ_CST);
    struct nh_outcome o;
    int r = engine_read(h->engine, shard, "", 0, runtime_now_ns(h->runtime) + DEADLINE_NS, on_end, &w, NULL);

    if (r < 0)
        return;
    __atomic_add_fetch(&accepted, 1, __ATOMIC_RELAXED);
    o = await(&w);
    if (o.code == NH_REQUEST_COMPLETED && o.value < at_least) {
        fprintf(stderr, "stale read of shard %" PRIu64 ": %" PRIu64 " < %" PRIu64 "\n", shard, o.value, at_least);
        abort();
    }
}

/* A lookup takes about as long as the read may: its answer and its deadline come together. */
static void read_slowly(struct host *h, uint64_t shard, useconds_t lookup_us)
{
    struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, {0}};
    uint64_t deadline_ns = runtime_now_ns(h->runtime) + 10000000u;

    if (engine_read(h->engine, shard, &lookup_us, sizeof lookup_us, deadline_ns, on_end, &w, NULL) < 0)
        return;
    __atomic_add_fetch(&accepted, 1, __ATOMIC_RELAXED);
    await(&w);
    usleep(1000); /* a second end would come soon */
}

static void ask_for_hash(struct host *h, uint64_t shard)
{
    uint64_t hash, applied;

    engine_get_hash(h->engine, shard, &hash, &applied, NULL);
}

static void *client(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;

    for (uint32_t i = 0; i < N_ROUNDS; i++) {
        struct host *h = &hosts[(unsigned)rand_r(&seed) % N_HOSTS];
        uint64_t shard = (unsigned)rand_r(&seed) % N_SHARDS + 1;

        if (i % 50 == 0)
            read_slowly(h, shard, 5000 + (unsigned)rand_r(&seed) % 20000);
        else if (i % 10 == 1)
            ask_for_hash(h, shard);
        else if (i % 3 == 0)
            read_sum(h, shard);
        else
            propose(h, shard, (unsigned)rand_r(&seed) % 1000 + 1);
    }
    return NULL;
}

/* However slow this machine is: there is something to recover from. */
static void await_image(struct host *h, uint64_t shard)
{
    struct engine_replica_status status = {0};

    for (; status.snapshot_index == 0; usleep(1000))
        if (engine_get_status(h->engine, shard, &status, NULL) < 0)
            abort();
}

/* Stops and starts replicas of host 3 meanwhile; while one is down, the others remove what it lacks. */
static void restart_some(void)
{
    for (uint64_t shard = 1; shard <= N_SHARDS; shard++) {
        uint32_t before = __atomic_load_n(&hosts[2].unloaded, __ATOMIC_ACQUIRE);

        usleep(100 * 1000);
        await_image(&hosts[2], shard);
        if (engine_stop_replica(hosts[2].engine, shard, NULL) < 0)
            abort();
        while (__atomic_load_n(&hosts[2].unloaded, __ATOMIC_ACQUIRE) == before)
            usleep(1000);
        usleep(300 * 1000);
        start_replica(&hosts[2], shard, true);
    }
}

/* Every host has the same state, and it is what was acknowledged, give or take what is unknown. */
static void check_shard(uint64_t shard)
{
    uint64_t hash[N_HOSTS], applied[N_HOSTS], sum = 0;

    for (uint32_t tries = 0;; tries++) {
        bool equal = true;

        assert(tries < 2000);
        for (uint32_t i = 0; i < N_HOSTS; i++)
            if (engine_get_hash(hosts[i].engine, shard, &hash[i], &applied[i], NULL) < 0)
                equal = false;
        for (uint32_t i = 1; i < N_HOSTS && equal; i++)
            equal = applied[i] == applied[0];
        if (equal)
            break;
        usleep(10 * 1000);
    }
    for (uint32_t i = 1; i < N_HOSTS; i++)
        assert(hash[i] == hash[0]);
    for (uint32_t i = 0; i < N_HOSTS; i++) {
        struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, {0}};

        if (engine_read(hosts[i].engine, shard, "", 0, runtime_now_ns(hosts[i].runtime) + DEADLINE_NS, on_end, &w, NULL) < 0)
            abort();
        __atomic_add_fetch(&accepted, 1, __ATOMIC_RELAXED);
        if (await(&w).code != NH_REQUEST_COMPLETED)
            abort();
        sum = w.outcome.value;
        assert(sum >= sums[shard] && sum <= sums[shard] + maybe[shard]);
    }
}

int main(void)
{
    struct loopback_hub *hub = loopback_hub_new(NULL);
    struct nh_member list[N_HOSTS] = {0};
    pthread_t threads[N_CLIENTS];

    for (uint32_t i = 0; i < N_HOSTS; i++) {
        snprintf(hosts[i].address, sizeof hosts[i].address, "host:%u", i + 1);
        list[i].replica_id = i + 1;
        strcpy(list[i].address, hosts[i].address);
    }
    make_machines();
    members = (struct nh_membership){.n_members = N_HOSTS, .members = list};
    for (uint32_t i = 0; i < N_HOSTS; i++)
        start_host(&hosts[i], hub, i);
    for (uint32_t i = 0; i < N_HOSTS; i++)
        for (uint64_t shard = 1; shard <= N_SHARDS; shard++)
            start_replica(&hosts[i], shard, false);
    for (uintptr_t i = 0; i < N_CLIENTS; i++)
        pthread_create(&threads[i], NULL, client, (void *)(i + 1));
    restart_some();
    for (uint32_t i = 0; i < N_CLIENTS; i++)
        pthread_join(threads[i], NULL);
    for (uint64_t shard = 1; shard <= N_SHARDS; shard++)
        check_shard(shard);
    for (uint32_t i = 0; i < N_HOSTS; i++)
        stop_host(&hosts[i]);
    loopback_hub_free(hub);
    assert(ended == accepted && accepted > 0);
    assert(snapshot_events[ENGINE_SNAPSHOT_SEND_STARTED] ==
           snapshot_events[ENGINE_SNAPSHOT_SEND_COMPLETED] + snapshot_events[ENGINE_SNAPSHOT_SEND_ABORTED]);
    assert(snapshot_events[ENGINE_SNAPSHOT_CREATED] > N_SHARDS && snapshot_events[ENGINE_SNAPSHOT_RECOVERED] > 0);
    printf("%" PRIu64 " requests, all ended once; %" PRIu64 " dropped; %" PRIu64 " snapshots, %" PRIu64 " sent, %" PRIu64
           " aborted, %" PRIu64 " recovered\n",
           ended, dropped, snapshot_events[ENGINE_SNAPSHOT_CREATED], snapshot_events[ENGINE_SNAPSHOT_SEND_COMPLETED],
           snapshot_events[ENGINE_SNAPSHOT_SEND_ABORTED], snapshot_events[ENGINE_SNAPSHOT_RECOVERED]);
    return 0;
}
