#include "engine/engine.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/apply_worker.h"
#include "engine/bootstrap.h"
#include "engine/engine_private.h"
#include "engine/inbound.h"
#include "engine/step_worker.h"
#include "raftio/support/memory.h"

#define DEFAULT_MAX_PENDING           65536u
#define DEFAULT_MAX_INBOX_BYTES       (64u << 20)
#define DEFAULT_MAX_UNCOMMITTED_BYTES ((uint64_t)1 << 30)
#define INCARNATION_MAX               ((uint64_t)1 << 24)
#define KEY_SHIFT                     40u

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
    if (e->config.max_pending_per_replica == 0)
        e->config.max_pending_per_replica = DEFAULT_MAX_PENDING;
    if (e->config.max_inbox_bytes == 0)
        e->config.max_inbox_bytes = DEFAULT_MAX_INBOX_BYTES;
    if (e->config.max_uncommitted_bytes == 0)
        e->config.max_uncommitted_bytes = DEFAULT_MAX_UNCOMMITTED_BYTES;
    liveness_init(&e->liveness);
    pthread_rwlock_init(&e->routes_lock, NULL);
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

static bool is_running(struct engine *e)
{
    return __atomic_load_n(&e->running, __ATOMIC_ACQUIRE);
}

void engine_start(struct engine *e)
{
    assert(e->transport && !is_running(e));
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_start(e->apply_workers[i]);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_start(e->step_workers[i]);
    set_running(e, true);
}

void engine_stop(struct engine *e)
{
    if (!is_running(e))
        return;
    set_running(e, false);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_stop(e->step_workers[i]);
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_stop(e->apply_workers[i]);
    /* All workers stand still: what is left is done here. */
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_drain(e->step_workers[i]);
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_poll(e->apply_workers[i]);
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
    assert(!is_running(e) && e->routes.n == 0);
    discard_mailboxes(e);
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        step_worker_free(e->step_workers[i]);
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        apply_worker_free(e->apply_workers[i]);
    for (size_t i = 0; (used = map_next(&e->used_keys, &i, NULL));)
        free(used);
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
    if (is_running(e))
        inbound_post(e, batch);
}

static void on_unreachable(void *ctx, struct nh_replica_info to)
{
    struct engine *e = ctx;

    if (is_running(e))
        step_worker_post_unreachable(e->step_workers[hash_u64(to.shard_id) % e->config.n_step_workers], to);
}

/* Snapshots are not received yet. */
static bool on_chunk(void *ctx, const struct nh_chunk *chunk)
{
    (void)ctx;
    (void)chunk;
    return false;
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
    if (!is_running(e))
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

/* Keeps others from starting the same shard meanwhile. */
static int reserve(struct engine *e, uint64_t shard_id, struct nh_error *err)
{
    bool taken;

    pthread_rwlock_wrlock(&e->routes_lock);
    taken = map_get(&e->routes, shard_id) || map_get(&e->starting, shard_id);
    if (!taken)
        map_put(&e->starting, shard_id, e);
    pthread_rwlock_unlock(&e->routes_lock);
    return taken ? nh_error_set(err, NH_EEXIST, "it has a replica on this host that runs, starts or stops") : NH_OK;
}

/* `r` NULL: it did not start. Its START is posted under the lock: before any request can find it, and it cannot stop by itself
 * (a removed replica does) and be forgotten before it is known. */
static void unreserve(struct engine *e, uint64_t shard_id, struct replica *r)
{
    pthread_rwlock_wrlock(&e->routes_lock);
    map_remove(&e->starting, shard_id);
    if (r) {
        step_worker_post_replica(r->step, STEP_START, r);
        map_put(&e->routes, shard_id, r);
    }
    pthread_rwlock_unlock(&e->routes_lock);
}

/* ---- replicas ---- */

static void set_keys(struct engine *e, struct replica *r)
{
    const struct used_keys *used;
    uint64_t first = e->config.incarnation << KEY_SHIFT | 1;

    pthread_rwlock_rdlock(&e->routes_lock);
    used = map_get(&e->used_keys, r->shard_id);
    r->ring.base = r->ring.next = used ? used->next_proposal : first;
    r->next_read = used ? used->next_read : first;
    pthread_rwlock_unlock(&e->routes_lock);
}

static struct replica *replica_new(struct engine *e, const struct engine_replica_config *c, struct bootstrap_result *boot,
                                   struct raft *raft)
{
    struct replica *r = xcalloc(1, sizeof *r);
    struct rsm_config rsm = {c->shard_id, c->replica_id, c->machine, c->machine_dir};

    r->engine = e;
    r->step = e->step_workers[hash_u64(c->shard_id) % e->config.n_step_workers];
    r->apply = e->apply_workers[hash_u64(c->shard_id) / e->config.n_step_workers % e->config.n_apply_workers];
    r->rsm = rsm_new(&rsm);
    r->shard_id = c->shard_id;
    r->replica_id = c->replica_id;
    r->election_ticks = c->election_rtt;
    r->uses_leases = c->lease_reads;
    r->boot_commit = boot->boot.state.commit;
    r->refs = 2; /* the routes and the apply worker; the START item brings the step worker's */
    pthread_mutex_init(&r->lock, NULL);
    r->notify.type = STEP_NOTIFY;
    r->earliest_ns = r->reads_earliest_ns = REQUESTS_NO_DEADLINE;
    r->status = (struct engine_replica_status){
        .shard_id = c->shard_id,
        .replica_id = c->replica_id,
        .term = boot->boot.state.term,
        .last_index = boot->boot.last_index,
        .commit_index = boot->boot.state.commit,
    };
    set_keys(e, r);
    r->raft = raft;
    list_init(&r->active);
    timer_init(&r->timer);
    list_init(&r->reads_waiting);
    list_init(&r->reads_confirmed);
    r->boot_runs = boot->first;
    boot->first = (struct run_list){0};
    r->boot_save = boot->save_first;
    r->boot_state = boot->boot.state;
    return r;
}

static int make_raft(struct engine *e, const struct engine_replica_config *c, struct bootstrap_result *boot, struct raft **ret,
                     struct nh_error *err)
{
    struct raft_options options = {
        .shard_id = c->shard_id,
        .replica_id = c->replica_id,
        .election_ticks = c->election_rtt,
        .heartbeat_ticks = c->heartbeat_rtt,
        .pre_vote = c->pre_vote,
        .check_quorum = c->check_quorum,
        .quiesce = c->quiesce,
        .lease_reads = c->lease_reads,
        .lease_drift_percent = c->lease_drift_percent,
        .priority = c->priority,
        .max_uncommitted_bytes = c->max_uncommitted_bytes,
        .max_unapplied_bytes = c->max_unapplied_bytes,
        .seed = hash_u64(e->config.seed ^ hash_u64(c->shard_id) ^ c->replica_id),
    };

    boot->boot.now = engine_now_ns(e) / 1000000u / e->config.rtt_ms;
    return raft_new(&options, &boot->boot, ret, err);
}

static int register_members(struct engine *e, uint64_t shard_id, const struct nh_membership *m, struct nh_error *err)
{
    int r = NH_OK;

    for (uint32_t i = 0; i < m->n_members && r == NH_OK; i++)
        r = e->config.registry_ops->add(e->config.registry, shard_id, m->members[i].replica_id, m->members[i].address, err);
    return r;
}

static int start_reserved(struct engine *e, const struct engine_replica_config *c, struct nh_error *err)
{
    struct bootstrap_result boot = {0};
    struct raft *raft = NULL;
    struct replica *r = NULL;
    int rc = bootstrap_replica(&e->config, c, &boot, err);

    if (rc == NH_OK)
        rc = register_members(e, c->shard_id, &boot.members, err);
    if (rc == NH_OK)
        rc = make_raft(e, c, &boot, &raft, err);
    if (rc == NH_OK)
        r = replica_new(e, c, &boot, raft);
    unreserve(e, c->shard_id, r);
    bootstrap_result_deinit(&boot);
    return rc;
}

static int check_replica_config(struct engine *e, const struct engine_replica_config *c, struct nh_error *err)
{
    if (!is_running(e))
        return nh_error_set(err, NH_ECLOSED, "the host is being closed");
    if (engine_is_fenced(e))
        return nh_error_set(err, NH_EFENCED, "%s", nh_status_text(NH_EFENCED));
    if (c->shard_id == NH_NO_SHARD || c->replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "shard or replica id is 0");
    if (c->machine->kind != NH_MACHINE_REGULAR)
        return nh_error_set(err, NH_EUNSUPPORTED,
                            "machine \"%s\" is of kind %" PRIu32 "; only regular machines run in this version", c->machine->name,
                            c->machine->kind);
    return NH_OK;
}

int engine_start_replica(struct engine *e, const struct engine_replica_config *config, struct nh_error *err)
{
    int r = check_replica_config(e, config, err);

    if (r == NH_OK)
        r = reserve(e, config->shard_id, err);
    if (r == NH_OK)
        r = start_reserved(e, config, err);
    return r < 0 ? nh_error_wrap(err, r, "start replica %" PRIu64 " of shard %" PRIu64, config->replica_id, config->shard_id)
                 : NH_OK;
}

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

/* ---- requests ---- */

int engine_propose(struct engine *e, uint64_t shard_id, const struct engine_proposal *proposals, size_t n, uint64_t deadline_ns,
                   struct nh_error *err)
{
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    if (__atomic_load_n(&e->logdb_busy, __ATOMIC_RELAXED))
        rc = nh_error_set(err, NH_EBUSY, "the log store cannot take more writes at present");
    else
        rc = replica_propose(r, proposals, n, deadline_ns, err);
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

static uint64_t read_counter(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void engine_get_stats(struct engine *e, struct engine_stats *ret)
{
    *ret = (struct engine_stats){.messages_ignored = read_counter(&e->ignored)};
    for (uint32_t i = 0; i < e->config.n_step_workers; i++) {
        const struct step_worker *w = e->step_workers[i];

        ret->passes += read_counter(&w->passes);
        ret->saves += read_counter(&w->saves);
        ret->saved_updates += read_counter(&w->saved_updates);
        ret->saved_entries += read_counter(&w->saved_entries);
        ret->synced_saves += read_counter(&w->synced_saves);
        ret->messages_sent += read_counter(&w->outbox.messages_sent);
        ret->batches_sent += read_counter(&w->outbox.batches_sent);
        ret->messages_received += read_counter(&w->messages_received);
        ret->messages_ignored += read_counter(&w->ignored);
    }
    for (uint32_t i = 0; i < e->config.n_apply_workers; i++) {
        const struct apply_worker *w = e->apply_workers[i];

        ret->entries_applied += read_counter(&w->entries_applied);
        ret->apply_calls += read_counter(&w->apply_calls);
        ret->reads_answered += read_counter(&w->reads_answered);
    }
}
