#include "engine/engine.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/apply_worker.h"
#include "engine/engine_private.h"
#include "engine/inbound.h"
#include "engine/rsm/sessions.h"
#include "engine/snapshots.h"
#include "engine/step_worker.h"
#include "raftio/support/counter.h"
#include "raftio/support/memory.h"

#define DEFAULT_MAX_PENDING           65536u
#define DEFAULT_MAX_INBOX_BYTES       (64u << 20)
#define DEFAULT_MAX_UNCOMMITTED_BYTES ((uint64_t)1 << 30)
#define INCARNATION_MAX               ((uint64_t)1 << 24)

/* ---- life of the engine ---- */

static int check_config(const struct engine_config *c, struct nh_error *err)
{
    if (c->rtt_ms == 0)
        return nh_error_set(err, NH_EINVAL, "rtt_ms is 0");
    if (c->n_step_workers == 0 || c->n_step_workers > ENGINE_WORKERS_MAX || c->n_apply_workers == 0 ||
        c->n_apply_workers > ENGINE_WORKERS_MAX)
        return nh_error_set(err, NH_EINVAL, "%" PRIu32 " step and %" PRIu32 " apply workers, want 1 .. %u of each",
                            c->n_step_workers, c->n_apply_workers, ENGINE_WORKERS_MAX);
    if (c->incarnation == 0 || c->incarnation >= INCARNATION_MAX)
        return nh_error_set(err, NH_EINVAL, "incarnation %" PRIu64 " is not in 1 .. 2^24 - 1", c->incarnation);
    if (!c->address || c->address[0] == 0 || strlen(c->address) >= NH_ADDRESS_BYTES)
        return nh_error_set(err, NH_EINVAL, "the address is missing or longer than %u bytes", NH_ADDRESS_BYTES - 1);
    return NH_OK;
}

/* Who starts or forgets a replica goes before later requests: clients that keep asking would hold him up for ever. Nobody takes
 * it twice. */
static void init_routes_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

int engine_new(const struct engine_config *config, struct engine **ret, struct nh_error *err)
{
    struct engine *e;
    int r = check_config(config, err);

    if (r < 0)
        return r;
    e = xcalloc(1, sizeof *e);
    e->config = *config;
    strcpy(e->address, config->address);
    e->config.address = e->address;
    e->snapshot_root = xstrdup(config->snapshot_root);
    e->config.snapshot_root = e->snapshot_root;
    if (e->config.max_pending_per_replica == 0)
        e->config.max_pending_per_replica = DEFAULT_MAX_PENDING;
    if (e->config.max_inbox_bytes == 0)
        e->config.max_inbox_bytes = DEFAULT_MAX_INBOX_BYTES;
    if (e->config.max_uncommitted_bytes == 0)
        e->config.max_uncommitted_bytes = DEFAULT_MAX_UNCOMMITTED_BYTES;
    liveness_init(&e->liveness);
    init_routes_lock(&e->routes_lock);
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        e->apply_workers[i] = apply_worker_new(e);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        e->step_workers[i] = step_worker_new(e, i + 1);
    *ret = e;
    return NH_OK;
}

void engine_set_transport(struct engine *e, const struct nh_transport_ops *ops, struct nh_transport *transport)
{
    e->transport_ops = ops;
    e->transport = transport;
}

static void set_running(struct engine *e, bool running)
{
    __atomic_store_n(&e->running, running, __ATOMIC_RELEASE);
}

bool engine_is_running(struct engine *e)
{
    return __atomic_load_n(&e->running, __ATOMIC_ACQUIRE);
}

int engine_start(struct engine *e, struct nh_error *err)
{
    int r;

    assert(e->transport && !engine_is_running(e));
    r = snapshots_start(e, err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_start(e->apply_workers[i]);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_start(e->step_workers[i]);
    set_running(e, true);
    return NH_OK;
}

void engine_stop(struct engine *e)
{
    if (!engine_is_running(e))
        return;
    set_running(e, false);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_stop(e->step_workers[i]);
    snapshots_stop(e); /* lent machines are on their way back */
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_stop(e->apply_workers[i]);
    /* All workers stand still: what is left is done here. */
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_drain(e->step_workers[i]);
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_drain(e->apply_workers[i]);
}

/* What the transport brought after the stop. */
static void discard_mailboxes(struct engine *e)
{
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_discard(e->step_workers[i]);
}

void engine_free(struct engine *e)
{
    void *used;

    if (!e)
        return;
    assert(!engine_is_running(e) && e->routes.n == 0);
    discard_mailboxes(e);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_free(e->step_workers[i]);
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_free(e->apply_workers[i]);
    for (size_t i = 0; (used = map_next(&e->used_keys, &i, NULL));)
        free(used);
    snapshots_free(e);
    free(e->snapshot_root);
    map_deinit(&e->used_keys);
    map_deinit(&e->starting);
    map_deinit(&e->routes);
    pthread_rwlock_destroy(&e->routes_lock);
    liveness_deinit(&e->liveness);
    free(e);
}

/* ---- what the transport calls ---- */

static void on_batch(void *ctx, const struct nh_message_batch *batch)
{
    struct engine *e = ctx;

    if (batch->source_address)
        liveness_heard(&e->liveness, batch->source_address, engine_now_ns(e));
    if (engine_is_running(e))
        inbound_post(e, batch);
}

static void on_drained(void *ctx)
{
    struct engine *e = ctx;

    if (engine_is_running(e))
        inbound_drained(e);
}

static void on_unreachable(void *ctx, struct nh_replica_info to)
{
    struct engine *e = ctx;

    if (engine_is_running(e))
        step_worker_post_unreachable(e->step_workers[hash_u64(to.shard_id) % e->config.n_step_workers], to);
}

static bool on_chunk(void *ctx, const struct nh_chunk *chunk)
{
    struct engine *e = ctx;

    return engine_is_running(e) && snapshots_chunk(e, chunk);
}

static void on_connected(void *ctx, const char *address, bool snapshot)
{
    (void)ctx;
    (void)address;
    (void)snapshot;
}

static void on_failed(void *ctx, const char *address, bool snapshot, const char *reason)
{
    struct engine *e = ctx;

    (void)reason;
    if (!snapshot && address)
        liveness_failed(&e->liveness, address);
}

void engine_transport_handlers(struct engine *e, struct nh_transport_handlers *ret)
{
    *ret = (struct nh_transport_handlers){
        .struct_size = sizeof *ret,
        .ctx = e,
        .on_batch = on_batch,
        .on_chunk = on_chunk,
        .on_unreachable = on_unreachable,
        .on_connected = on_connected,
        .on_failed = on_failed,
        .on_drained = on_drained,
    };
}

/* ---- fence ---- */

bool engine_is_fenced(struct engine *e)
{
    return __atomic_load_n(&e->fenced, __ATOMIC_ACQUIRE);
}

void engine_fence(struct engine *e, const char *reason)
{
    if (__atomic_exchange_n(&e->fenced, true, __ATOMIC_ACQ_REL))
        return;
    e->config.events.logdb_fenced(e->config.events.ctx, reason);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_wake(e->step_workers[i]);
}

/* ---- routes ---- */

struct replica *engine_find(struct engine *e, uint64_t shard_id)
{
    struct replica *r;

    pthread_rwlock_rdlock(&e->routes_lock);
    r = shard_id ? map_get(&e->routes, shard_id) : NULL;
    if (r)
        replica_ref(r);
    pthread_rwlock_unlock(&e->routes_lock);
    return r;
}

int engine_find_for_request(struct engine *e, uint64_t shard_id, struct replica **ret, struct nh_error *err)
{
    if (!engine_is_running(e))
        return nh_error_set(err, NH_ECLOSED, "the host is being closed");
    *ret = engine_find(e, shard_id);
    if (!*ret)
        return nh_error_set(err, NH_ENOTFOUND, "shard %" PRIu64 " has no replica on this host", shard_id);
    return NH_OK;
}

void engine_forget(struct engine *e, struct replica *r)
{
    struct used_keys *used;

    pthread_rwlock_wrlock(&e->routes_lock);
    map_remove(&e->routes, r->shard_id);
    used = map_get(&e->used_keys, r->shard_id);
    if (!used) {
        used = xcalloc(1, sizeof *used);
        map_put(&e->used_keys, r->shard_id, used);
    }
    *used = (struct used_keys){r->ring.next, r->next_read};
    pthread_rwlock_unlock(&e->routes_lock);
    replica_unref(r);
}

/* ---- replicas ---- */

int engine_stop_replica(struct engine *e, uint64_t shard_id, struct nh_error *err)
{
    struct replica *r;
    bool was_stopping;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&r->lock);
    was_stopping = r->refusal == NH_ECLOSED;
    r->refusal = NH_ECLOSED;
    pthread_mutex_unlock(&r->lock);
    if (!was_stopping)
        step_worker_post_replica(r->step, STEP_STOP, r);
    replica_unref(r);
    return was_stopping ? nh_error_set(err, NH_ENOTFOUND, "the replica of shard %" PRIu64 " is being stopped already", shard_id)
                        : NH_OK;
}

bool engine_is_stopping(struct engine *e, uint64_t shard_id)
{
    struct replica *r = engine_find(e, shard_id);
    bool is_stopping;

    if (!r)
        return false;
    pthread_mutex_lock(&r->lock);
    is_stopping = r->refusal == NH_ECLOSED;
    pthread_mutex_unlock(&r->lock);
    replica_unref(r);
    return is_stopping;
}

/* ---- requests ---- */

static int propose_to(struct replica *r, const struct engine_proposal_kind *kind, const struct nh_proposal *proposals, size_t n,
                      uint64_t deadline_ns, struct nh_error *err)
{
    if (__atomic_load_n(&r->engine->logdb_busy, __ATOMIC_RELAXED))
        return nh_error_set(err, NH_EBUSY, "the log store cannot take more writes at present");
    return replica_propose(r, kind, proposals, n, deadline_ns, err);
}

static int propose(struct engine *e, uint64_t shard_id, const struct engine_proposal_kind *kind,
                   const struct nh_proposal *proposals, size_t n, uint64_t deadline_ns, struct nh_error *err)
{
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    rc = propose_to(r, kind, proposals, n, deadline_ns, err);
    replica_unref(r);
    return rc;
}

int engine_propose(struct engine *e, uint64_t shard_id, const struct nh_proposal *proposals, size_t n, uint64_t deadline_ns,
                   struct nh_error *err)
{
    const struct engine_proposal_kind plain = {.type = NH_ENTRY_APPLICATION};

    return propose(e, shard_id, &plain, proposals, n, deadline_ns, err);
}

int engine_propose_as(struct engine *e, uint64_t shard_id, struct engine_proposal_kind kind, const struct nh_proposal *proposal,
                      uint64_t deadline_ns, struct nh_error *err)
{
    return propose(e, shard_id, &kind, proposal, 1, deadline_ns, err);
}

int engine_open_session(struct engine *e, uint64_t shard_id, uint64_t client_id, uint64_t deadline_ns, nh_completion_fn fn,
                        void *ctx, struct nh_error *err)
{
    const struct engine_proposal_kind opening = {.type = NH_ENTRY_APPLICATION, .session = {client_id, SESSION_OPEN, 0}};
    struct nh_proposal p = {.fn = fn, .ctx = ctx};
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    p.cmd = &r->sessions_max; /* as it is in the log, in our own order: all hosts are little-endian */
    p.size_bytes = sizeof r->sessions_max;
    rc = propose_to(r, &opening, &p, 1, deadline_ns, err);
    replica_unref(r);
    return rc;
}

int engine_read(struct engine *e, uint64_t shard_id, const void *query, size_t size_bytes, uint64_t deadline_ns,
                nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    struct request request = {fn, ctx, deadline_ns};
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    rc = replica_read(r, query, size_bytes, &request, err);
    replica_unref(r);
    return rc;
}

int engine_lookup(struct engine *e, uint64_t shard_id, const void *query, size_t size_bytes, struct nh_writer *out,
                  uint64_t *ret_value, struct nh_error *err)
{
    struct engine_replica_status status;
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    replica_get_status(r, &status);
    if (status.quarantined)
        rc = nh_error_set(err, NH_EQUARANTINED, "shard %" PRIu64 ": its replica is in quarantine", shard_id);
    else if (!status.ready)
        rc = nh_error_set(err, NH_ENOTREADY, "shard %" PRIu64 ": its log is still being replayed", shard_id);
    else
        rc = rsm_lookup(r->rsm, query, size_bytes, out, ret_value, err);
    replica_unref(r);
    return rc;
}

/* ---- what is known ---- */

int engine_get_status(struct engine *e, uint64_t shard_id, struct engine_replica_status *ret, struct nh_error *err)
{
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    replica_get_status(r, ret);
    replica_unref(r);
    return NH_OK;
}

int engine_get_membership(struct engine *e, uint64_t shard_id, struct nh_membership *ret, struct nh_error *err)
{
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    rc = rsm_get_membership(r->rsm, ret, err);
    replica_unref(r);
    return rc;
}

bool engine_host_is_down(struct engine *e, const char *address)
{
    return liveness_is_down(&e->liveness, address);
}

void engine_each_replica(struct engine *e, void (*each)(void *ctx, const struct engine_replica_status *status), void *ctx)
{
    struct replica **all, *r;
    size_t n = 0;

    pthread_rwlock_rdlock(&e->routes_lock);
    all = xcalloc(e->routes.n, sizeof(struct replica *));
    for (size_t i = 0; (r = map_next(&e->routes, &i, NULL));)
        all[n++] = replica_ref(r);
    pthread_rwlock_unlock(&e->routes_lock);
    for (size_t i = 0; i < n; i++) {
        struct engine_replica_status status;

        replica_get_status(all[i], &status);
        each(ctx, &status);
        replica_unref(all[i]);
    }
    free(all);
}

int engine_get_hash(struct engine *e, uint64_t shard_id, uint64_t *ret_hash, uint64_t *ret_applied, struct nh_error *err)
{
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    rc = rsm_get_hash(r->rsm, ret_hash, ret_applied, err);
    replica_unref(r);
    return rc;
}

void engine_get_stats(struct engine *e, struct engine_stats *ret)
{
    *ret = (struct engine_stats){.messages_ignored = counter_read(&e->ignored)};
    for (uint32_t i = 0; i < e->config.n_step_workers; i++) {
        const struct step_worker *w = e->step_workers[i];

        ret->passes += counter_read(&w->passes);
        ret->saves += counter_read(&w->saves);
        ret->saved_updates += counter_read(&w->saved_updates);
        ret->saved_entries += counter_read(&w->saved_entries);
        ret->synced_saves += counter_read(&w->synced_saves);
        ret->messages_sent += counter_read(&w->outbox.messages_sent);
        ret->batches_sent += counter_read(&w->outbox.batches_sent);
        ret->messages_received += counter_read(&w->messages_received);
        ret->messages_ignored += counter_read(&w->ignored);
    }
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++) {
        const struct apply_worker *w = e->apply_workers[i];

        ret->entries_applied += counter_read(&w->entries_applied);
        ret->apply_calls += counter_read(&w->apply_calls);
        ret->reads_answered += counter_read(&w->reads_answered);
    }
}
