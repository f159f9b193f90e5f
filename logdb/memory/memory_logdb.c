#include "logdb/memory/memory_logdb.h"

#include <inttypes.h>
#include <stdlib.h>

#include "logdb/memory/disk.h"
#include "raftio/support/memory.h"

#define N_WORKERS_MAX 1024u

struct nh_logdb {
    struct memory_disk *disk;
    const struct nh_plugin_services *services;
    bool fenced;        /* [disk->lock] */
    uint64_t n_crashes; /* of the disk, when it was opened: another number means that this store died with its host */
};

static int open_store(const struct nh_logdb_config *config, struct nh_logdb **ret, struct nh_error *err)
{
    struct memory_disk *d;
    struct nh_logdb *db;

    if (config->n_workers == 0 || config->n_workers > N_WORKERS_MAX)
        return nh_error_set(err, NH_EINVAL, "%u workers; 1 to %u are possible", config->n_workers, N_WORKERS_MAX);
    if (config->options && config->options[0])
        return nh_error_set(err, NH_EINVAL, "the memory store has no options");
    d = memory_disk_get(config->dir);
    pthread_mutex_lock(&d->lock);
    if (d->open_by) {
        pthread_mutex_unlock(&d->lock);
        return nh_error_set(err, NH_ELOCKED, "%s is open already", config->dir);
    }
    db = xcalloc(1, sizeof *db);
    *db = (struct nh_logdb){.disk = d, .services = config->services, .n_crashes = d->n_crashes};
    disk_set_workers(d, config->n_workers);
    d->open_by = db;
    pthread_mutex_unlock(&d->lock);
    *ret = db;
    return NH_OK;
}

static void close_store(struct nh_logdb *db)
{
    if (!db)
        return;
    pthread_mutex_lock(&db->disk->lock);
    disk_sync_all(db->disk);
    db->disk->open_by = NULL;
    pthread_mutex_unlock(&db->disk->lock);
    free(db);
}

static uint32_t binary_format(struct nh_logdb *db)
{
    (void)db;
    return NH_LOGDB_BIN_VERSION;
}

/* ---- writing ---- */

static int check_fence(const struct nh_logdb *db, struct nh_error *err)
{
    if (db->fenced || db->n_crashes != db->disk->n_crashes)
        return nh_error_set(err, NH_EFENCED, "an earlier write failed: restart");
    return NH_OK;
}

/* True if this write call is the one that fails. */
static bool injected_failure(struct nh_logdb *db)
{
    struct memory_disk *d = db->disk;

    if (d->fail_after == UINT64_MAX)
        return false;
    if (d->fail_after-- > 0)
        return false;
    d->fail_after = UINT64_MAX;
    db->fenced = true;
    return true;
}

/* Begins a write that is durable on return. On success the disk is locked and all queues are synced. */
static int begin_durable(struct nh_logdb *db, struct nh_error *err)
{
    int r;

    pthread_mutex_lock(&db->disk->lock);
    r = check_fence(db, err);
    if (r == NH_OK && injected_failure(db))
        r = nh_error_set(err, NH_EIO, "injected failure");
    if (r < 0)
        pthread_mutex_unlock(&db->disk->lock);
    else
        disk_sync_all(db->disk);
    return r;
}

static void end_durable(struct nh_logdb *db)
{
    pthread_mutex_unlock(&db->disk->lock);
}

/* The change waits in no queue, so both images take it. */
static void apply_durable(struct memory_replica *r, struct image_change *c)
{
    image_apply(&r->live, c);
    image_apply(&r->synced, c);
    image_change_deinit(c);
}

static struct blob *blob_new(struct nh_logdb *db, const struct nh_snapshot *s)
{
    size_t size = db->services->encode_snapshot(s, NULL, 0);
    struct blob *b = xmalloc(sizeof *b + size);

    *b = (struct blob){.refs = 1, .index = s->index, .term = s->term, .size_bytes = size};
    db->services->encode_snapshot(s, b->data, size);
    return b;
}

/* Refuses a call before anything of it is applied. */
static int check_bounds(struct memory_disk *d, const struct nh_update *updates, size_t i, uint64_t call, struct nh_error *err)
{
    const struct nh_update *u = &updates[i];
    struct memory_replica *r = disk_find_or_add(d, u->shard_id, u->replica_id);
    uint64_t term;

    if (r->check_call != call) {
        r->check_call = call;
        r->check = r->live.bounds;
    }
    if (u->snapshot && (!r->live.snapshot || u->snapshot->index >= r->live.snapshot->index)) {
        if (!updates_find_term(updates, i, u->snapshot->index, &term))
            term = image_term(&r->live, u->snapshot->index);
        if (bounds_replaced_by(&r->check, u->snapshot->index, term, u->snapshot->term))
            r->check = (struct log_bounds){.first = u->snapshot->index + 1, .last = u->snapshot->index};
    }
    return update_has_entries(u) ? bounds_save(&r->check, u, err) : NH_OK;
}

static struct unsynced_call *call_new(struct nh_logdb *db, const struct nh_update *updates, size_t n)
{
    struct unsynced_call *c = xmalloc(sizeof *c + n * sizeof c->updates[0]);

    *c = (struct unsynced_call){.n = n};
    for (size_t i = 0; i < n; i++) {
        const struct nh_update *u = &updates[i];

        c->updates[i].replica = disk_find(db->disk, u->shard_id, u->replica_id);
        c->updates[i].change = (struct image_change){
            .has_state = u->has_state,
            .state = u->state,
            .segment = update_has_entries(u) ? segment_new(u) : NULL,
            .snapshot = u->snapshot ? blob_new(db, u->snapshot) : NULL,
        };
    }
    return c;
}

static int save_locked(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id, struct nh_error *err)
{
    uint64_t call_number = ++db->disk->n_calls;
    struct unsynced_call *call;
    bool sync = false;
    int r = check_fence(db, err);

    for (size_t i = 0; i < n && r == NH_OK; i++) {
        r = check_bounds(db->disk, updates, i, call_number, err);
        sync |= updates[i].must_sync;
    }
    if (r < 0)
        return r;
    call = call_new(db, updates, n);
    call->failed = injected_failure(db);
    for (size_t i = 0; i < n && !call->failed; i++)
        image_apply(&call->updates[i].replica->live, &call->updates[i].change);
    disk_enqueue(db->disk, worker_id, call);
    if (db->fenced)
        return nh_error_set(err, NH_EIO, "injected failure");
    if (sync)
        disk_sync_worker(db->disk, worker_id);
    return NH_OK;
}

static int save_raft_state(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id,
                           struct nh_error *err)
{
    int r = updates_check(updates, n, err);

    if (r < 0)
        return r;
    pthread_mutex_lock(&db->disk->lock);
    if (worker_id == 0 || worker_id > db->disk->n_workers)
        r = nh_error_set(err, NH_EINVAL, "worker %u of %u", worker_id, db->disk->n_workers);
    else
        r = save_locked(db, updates, n, worker_id, err);
    pthread_mutex_unlock(&db->disk->lock);
    return r;
}

static void put_bootstrap(struct nh_logdb *db, struct memory_replica *r, const struct nh_bootstrap *bootstrap)
{
    free(r->bootstrap);
    r->bootstrap_bytes = db->services->encode_bootstrap(bootstrap, NULL, 0);
    r->bootstrap = xmalloc(r->bootstrap_bytes + 1); /* an empty record has no bytes */
    db->services->encode_bootstrap(bootstrap, r->bootstrap, r->bootstrap_bytes);
}

static int save_bootstrap(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, const struct nh_bootstrap *bootstrap,
                          struct nh_error *err)
{
    int r;

    if (!shard_id || !replica_id)
        return nh_error_set(err, NH_EINVAL, "shard or replica id is 0");
    r = begin_durable(db, err);
    if (r < 0)
        return r;
    put_bootstrap(db, disk_find_or_add(db->disk, shard_id, replica_id), bootstrap);
    end_durable(db);
    return NH_OK;
}

static int save_snapshots(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct nh_error *err)
{
    int r = updates_check(updates, n, err);

    if (r == NH_OK)
        r = begin_durable(db, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        struct image_change c = {0};

        if (!updates[i].snapshot)
            continue;
        c.snapshot = blob_new(db, updates[i].snapshot);
        apply_durable(disk_find_or_add(db->disk, updates[i].shard_id, updates[i].replica_id), &c);
    }
    end_durable(db);
    return NH_OK;
}

static int remove_entries_to(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index, struct nh_error *err)
{
    struct memory_replica *replica;
    int r = begin_durable(db, err);

    if (r < 0)
        return r;
    replica = disk_find(db->disk, shard_id, replica_id);
    if (replica) {
        image_remove_to(&replica->live, index);
        image_remove_to(&replica->synced, index);
    }
    end_durable(db);
    return NH_OK;
}

/* Removal frees at once, so there is nothing left to reclaim. */
static int compact_entries_to(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index,
                              void (*done)(void *ctx), void *ctx, struct nh_error *err)
{
    int r;

    (void)shard_id, (void)replica_id, (void)index;
    pthread_mutex_lock(&db->disk->lock);
    r = check_fence(db, err);
    pthread_mutex_unlock(&db->disk->lock);
    if (r == NH_OK)
        done(ctx);
    return r;
}

static void remove_all(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id)
{
    struct memory_replica *r = disk_find(d, shard_id, replica_id);

    if (r)
        disk_remove(d, r);
}

static int remove_replica_data(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_error *err)
{
    int r = begin_durable(db, err);

    if (r < 0)
        return r;
    remove_all(db->disk, shard_id, replica_id);
    end_durable(db);
    return NH_OK;
}

static int import_snapshot(struct nh_logdb *db, const struct nh_snapshot *snapshot, uint64_t replica_id, struct nh_error *err)
{
    const struct nh_bootstrap bootstrap = {.join = true};
    struct image_change c = {.has_state = true, .state = {.term = snapshot->term, .commit = snapshot->index}};
    struct memory_replica *replica;
    int r;

    if (!snapshot->shard_id || !replica_id || !snapshot->index)
        return nh_error_set(err, NH_EINVAL, "import needs a shard id, a replica id and an index");
    r = begin_durable(db, err);
    if (r < 0)
        return r;
    remove_all(db->disk, snapshot->shard_id, replica_id);
    replica = disk_find_or_add(db->disk, snapshot->shard_id, replica_id);
    put_bootstrap(db, replica, &bootstrap);
    c.snapshot = blob_new(db, snapshot);
    apply_durable(replica, &c);
    end_durable(db);
    return NH_OK;
}

/* ---- reading ---- */

static int list_replicas(struct nh_logdb *db, int (*each)(void *ctx, struct nh_replica_info info), void *ctx,
                         struct nh_error *err)
{
    struct nh_replica_info *infos = NULL;
    struct replica_node *node = NULL;
    size_t n = 0, cap = 0;
    int r = NH_OK;

    (void)err;
    pthread_mutex_lock(&db->disk->lock);
    for (size_t i = 0; (node = replica_map_next(&db->disk->replicas, &i, node));) {
        if (!memory_replica_of(node)->bootstrap)
            continue;
        array_reserve((void **)&infos, &cap, n + 1, sizeof *infos);
        infos[n++] = (struct nh_replica_info){.shard_id = node->shard_id, .replica_id = node->replica_id};
    }
    pthread_mutex_unlock(&db->disk->lock);
    for (size_t i = 0; i < n && r == 0; i++)
        r = each(ctx, infos[i]);
    free(infos);
    return r;
}

static int get_bootstrap(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_bootstrap *ret,
                         struct nh_error *err)
{
    struct memory_replica *replica;
    int r;

    pthread_mutex_lock(&db->disk->lock);
    replica = disk_find(db->disk, shard_id, replica_id);
    if (replica && replica->bootstrap)
        r = db->services->decode_bootstrap(replica->bootstrap, replica->bootstrap_bytes, ret, err);
    else
        r = nh_error_set(err, NH_ENOTFOUND, "shard %" PRIu64 " replica %" PRIu64 " has no bootstrap record", shard_id,
                         replica_id);
    pthread_mutex_unlock(&db->disk->lock);
    return r;
}

static int get_snapshot(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_snapshot *ret,
                        struct nh_error *err)
{
    struct memory_replica *replica;
    int r = NH_OK;

    pthread_mutex_lock(&db->disk->lock);
    replica = disk_find(db->disk, shard_id, replica_id);
    if (replica && replica->live.snapshot)
        r = db->services->decode_snapshot(replica->live.snapshot->data, replica->live.snapshot->size_bytes, ret, err);
    else
        *ret = (struct nh_snapshot){0};
    pthread_mutex_unlock(&db->disk->lock);
    return r;
}

static int read_state(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, bool synced, struct nh_raft_state *ret,
                      struct nh_error *err)
{
    const struct memory_replica *replica;
    const struct image *m;
    int r = NH_OK;

    pthread_mutex_lock(&d->lock);
    replica = disk_find(d, shard_id, replica_id);
    m = replica ? (synced ? &replica->synced : &replica->live) : NULL;
    if (m && m->exists)
        *ret = (struct nh_raft_state){.state = m->state, .first_index = m->bounds.first, .last_index = m->bounds.last};
    else
        r = nh_error_set(err, NH_ENOTFOUND, "shard %" PRIu64 " replica %" PRIu64 ": nothing is saved", shard_id, replica_id);
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* Collects references under the lock, and calls the sink without it. */
static int iterate(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, bool synced, uint64_t low, uint64_t high,
                   size_t max_bytes, const struct nh_entry_sink *sink, struct nh_error *err)
{
    const struct memory_replica *replica;
    struct image none;
    struct piece *pieces;
    size_t n;
    int r;

    if (low >= high)
        return NH_OK;
    image_init(&none);
    pthread_mutex_lock(&d->lock);
    replica = disk_find(d, shard_id, replica_id);
    r = image_collect(!replica ? &none : synced ? &replica->synced : &replica->live, low, high, max_bytes, &pieces, &n, err);
    pthread_mutex_unlock(&d->lock);
    if (r < 0)
        return nh_error_wrap(err, r, "shard %" PRIu64 " replica %" PRIu64, shard_id, replica_id);
    for (size_t i = 0; i < n && r == NH_OK; i++) {
        const struct segment *s = pieces[i].segment;
        size_t begin = s->offsets[pieces[i].from];

        r = sink->add(sink->ctx, s->data + begin, s->offsets[pieces[i].to] - begin, err);
    }
    pieces_free(pieces, n);
    return r;
}

static int iterate_entries(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                           size_t max_bytes, const struct nh_entry_sink *sink, struct nh_error *err)
{
    return iterate(db->disk, shard_id, replica_id, false, low, high, max_bytes, sink, err);
}

static int read_raft_state(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_raft_state *ret,
                           struct nh_error *err)
{
    return read_state(db->disk, shard_id, replica_id, false, ret, err);
}

int memory_disk_read_state(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, struct nh_raft_state *ret,
                           struct nh_error *err)
{
    return read_state(d, shard_id, replica_id, true, ret, err);
}

int memory_disk_read_snapshot(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, struct nh_snapshot *ret,
                              struct nh_error *err)
{
    struct memory_replica *replica;
    int r = NH_OK;

    *ret = (struct nh_snapshot){0};
    pthread_mutex_lock(&d->lock);
    replica = disk_find(d, shard_id, replica_id);
    if (replica && replica->synced.snapshot)
        r = nh_plugin_services()->decode_snapshot(replica->synced.snapshot->data, replica->synced.snapshot->size_bytes, ret, err);
    pthread_mutex_unlock(&d->lock);
    return r;
}

int memory_disk_iterate(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                        const struct nh_entry_sink *sink, struct nh_error *err)
{
    return iterate(d, shard_id, replica_id, true, low, high, SIZE_MAX, sink, err);
}

static void get_metrics(struct nh_logdb *db, struct nh_logdb_metrics *ret)
{
    (void)db;
    *ret = (struct nh_logdb_metrics){0};
}

const struct nh_logdb_ops *nh_logdb_memory(void)
{
    static const struct nh_logdb_ops ops = {
        .abi_version = NH_LOGDB_ABI,
        .struct_size = sizeof ops,
        .name = "memory",
        .open = open_store,
        .close = close_store,
        .binary_format = binary_format,
        .list_replicas = list_replicas,
        .save_bootstrap = save_bootstrap,
        .get_bootstrap = get_bootstrap,
        .save_raft_state = save_raft_state,
        .iterate_entries = iterate_entries,
        .read_raft_state = read_raft_state,
        .remove_entries_to = remove_entries_to,
        .compact_entries_to = compact_entries_to,
        .save_snapshots = save_snapshots,
        .get_snapshot = get_snapshot,
        .remove_replica_data = remove_replica_data,
        .import_snapshot = import_snapshot,
        .get_metrics = get_metrics,
    };

    return &ops;
}
