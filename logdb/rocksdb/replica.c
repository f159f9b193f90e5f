#include "logdb/rocksdb/store.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

/* How many replicas are looked up before the first of them is touched. */
#define LOOK_AHEAD ((size_t)16)

static struct replica *find_or_add(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id)
{
    struct replica_node *n = replica_map_find(&db->replicas, shard_id, replica_id);
    struct replica *r;

    if (n)
        return replica_of(n);
    r = xcalloc(1, sizeof *r);
    r->node = (struct replica_node){.shard_id = shard_id, .replica_id = replica_id};
    replica_map_add(&db->replicas, &r->node);
    return r;
}

/* Looks the replica up again after each wait: its holder may have forgotten it. */
static struct replica *hold_locked(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t call)
{
    struct replica *r = find_or_add(db, shard_id, replica_id);

    while (r->held && r->call != call) {
        db->n_waiting++;
        pthread_cond_wait(&db->released, &db->lock);
        db->n_waiting--;
        r = find_or_add(db, shard_id, replica_id);
    }
    r->held = true;
    r->call = call;
    return r;
}

/* The same without a wait, from where a lookup begins; NULL: it is not there, or held. */
static struct replica *try_hold_locked(struct replica_node *head, uint64_t shard_id, uint64_t replica_id, uint64_t call)
{
    struct replica_node *n = replica_map_find_from(head, shard_id, replica_id);
    struct replica *r = n ? replica_of(n) : NULL;

    if (!r || (r->held && r->call != call))
        return NULL;
    r->held = true;
    r->call = call;
    return r;
}

static void wake_locked(struct nh_logdb *db)
{
    if (db->n_waiting)
        pthread_cond_broadcast(&db->released);
}

struct replica *replica_hold(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id)
{
    struct replica *r;

    pthread_mutex_lock(&db->lock);
    r = hold_locked(db, shard_id, replica_id, ++db->n_calls);
    pthread_mutex_unlock(&db->lock);
    return r;
}

static int add_use(void *ctx, struct nh_replica_info info, struct use use)
{
    struct replica *r = ctx;

    (void)info;
    array_reserve((void **)&r->uses, &r->cap_uses, r->n_uses + 1, sizeof *r->uses);
    r->uses[r->n_uses++] = use;
    return 0;
}

int replica_load_uses(struct nh_logdb *db, struct replica *r, struct nh_error *err)
{
    const struct nh_replica_info info = {r->node.shard_id, r->node.replica_id};
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    int status;

    r->n_uses = 0;
    status = replica_read_uses(db, it, info, add_use, r, err);
    rocksdb_iter_destroy(it);
    return status;
}

void replica_apply_uses(struct nh_logdb *db, struct replica *r)
{
    bool known = r->new_use.segment_id == 0 || journal_use(&db->journal, r->new_use.segment_id);

    assert(known); /* it is being written */
    if (r->drops_uses)
        replica_forget_uses(db, r, r->n_uses);
    if (r->new_use.segment_id)
        add_use(r, (struct nh_replica_info){0}, r->new_use);
    r->drops_uses = false;
    r->new_use = (struct use){0};
}

size_t replica_uses_behind(const struct replica *r, uint64_t first)
{
    size_t n = 0;

    if (first > r->located_last)
        return r->n_uses;
    while (n + 1 < r->n_uses && r->uses[n + 1].from <= first)
        n++;
    return n;
}

void replica_forget_uses(struct nh_logdb *db, struct replica *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        journal_unuse(&db->journal, r->uses[i].segment_id);
    if (n > 0)
        memmove(r->uses, r->uses + n, (r->n_uses - n) * sizeof *r->uses);
    r->n_uses -= n;
}

int replica_load(struct nh_logdb *db, struct replica *r, struct nh_error *err)
{
    rocksdb_iterator_t *it;
    int status;

    if (!r->loaded) {
        it = rocksdb_create_iterator(db->db, db->read);
        status = stored_read(db, it, r->node.shard_id, r->node.replica_id, &r->now, err);
        rocksdb_iter_destroy(it);
        r->located_last = r->now.bounds.last;
        if (status == NH_OK)
            status = replica_load_uses(db, r, err);
        if (status < 0)
            return nh_error_wrap(err, status, "shard %" PRIu64 " replica %" PRIu64, r->node.shard_id, r->node.replica_id);
        r->loaded = true;
    }
    r->next = r->now;
    r->cut = UINT64_MAX;
    r->clip = UINT64_MAX;
    r->n_updates = 0;
    r->snapshot_index = 0;
    r->drops_uses = false;
    r->new_use = (struct use){0};
    return NH_OK;
}

void replica_release(struct nh_logdb *db, struct replica *r)
{
    pthread_mutex_lock(&db->lock);
    assert(r->held);
    r->held = false;
    wake_locked(db);
    pthread_mutex_unlock(&db->lock);
}

void replica_free(struct replica *r)
{
    free(r->uses);
    free(r->tail.data);
    free(r);
}

void replica_forget(struct nh_logdb *db, struct replica *r)
{
    pthread_mutex_t *tail_lock = tail_lock_of(db, r->node.shard_id);

    pthread_mutex_lock(tail_lock);
    pthread_mutex_lock(&db->lock);
    assert(r->held);
    replica_map_remove(&db->replicas, &r->node);
    wake_locked(db);
    pthread_mutex_unlock(&db->lock);
    pthread_mutex_unlock(tail_lock);
    replica_free(r);
}

/* Brings them into the processor's cache before the first is touched: with thousands of shards each has left it since its last
 * save. */
static void hold_some_locked(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint64_t call, struct replica **ret)
{
    struct replica_node *heads[LOOK_AHEAD];
    bool is_known = true; /* and does not change as long as none is added or waited for */

    for (size_t i = 0; i < n; i++)
        replica_map_prefetch(&db->replicas, updates[i].shard_id, updates[i].replica_id);
    for (size_t i = 0; i < n; i++) {
        heads[i] = replica_map_head(&db->replicas, updates[i].shard_id, updates[i].replica_id);
        if (heads[i])
            prefetch(replica_of(heads[i]), sizeof(struct replica));
    }
    for (size_t i = 0; i < n; i++) {
        ret[i] = is_known ? try_hold_locked(heads[i], updates[i].shard_id, updates[i].replica_id, call) : NULL;
        if (ret[i])
            continue;
        is_known = false;
        ret[i] = hold_locked(db, updates[i].shard_id, updates[i].replica_id, call);
    }
}

int replica_hold_all(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct replica **ret, struct nh_error *err)
{
    uint64_t call;
    int status = NH_OK;

    pthread_mutex_lock(&db->lock);
    call = ++db->n_calls;
    for (size_t i = 0; i < n; i += LOOK_AHEAD)
        hold_some_locked(db, updates + i, n - i < LOOK_AHEAD ? n - i : LOOK_AHEAD, call, ret + i);
    pthread_mutex_unlock(&db->lock);

    for (size_t i = 0; i < n && status == NH_OK; i++)
        status = replica_load(db, ret[i], err);
    if (status < 0)
        replica_release_all(db, ret, n);
    return status;
}

void replica_release_all(struct nh_logdb *db, struct replica **replicas, size_t n)
{
    pthread_mutex_lock(&db->lock);
    for (size_t i = 0; i < n; i++)
        replicas[i]->held = false;
    wake_locked(db);
    pthread_mutex_unlock(&db->lock);
}
