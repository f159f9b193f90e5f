#include "logdb/rocksdb/tail.h"

#include <assert.h>
#include <stdlib.h>

#include "logdb/rocksdb/store.h"
#include "raftio/support/memory.h"

/* What a save adds, mostly. */
#define PREFETCH_BYTES 192u

pthread_mutex_t *tail_lock_of(struct nh_logdb *db, uint64_t shard_id)
{
    return &db->tail_locks[hash_u64(shard_id) % TAIL_LOCKS];
}

static void release(struct tail *t)
{
    free(t->data);
    t->data = NULL;
    t->size_bytes = t->cap = 0;
}

/* With its lock. RocksDB gets it even if the store is fenced: what the journal has may be read. */
static int write_out(struct nh_logdb *db, struct replica *r, struct nh_error *err)
{
    struct tail *t = &r->tail;
    struct layout_key key;
    int status;

    if (t->size_bytes == 0)
        return NH_OK;
    layout_block_key(&key, r->node.shard_id, r->node.replica_id, t->first);
    t->header.joined = t->header.located && t->size_bytes > LAYOUT_HEADER_BYTES + LAYOUT_LOCATION_BYTES;
    layout_header_encode(&t->header, db->services->crc32c, t->data);
    status = store_put(db, &key, t->data, t->size_bytes, err);
    if (status == NH_OK)
        t->size_bytes = 0;
    return status;
}

static void append(struct tail *t, const struct tail_part *part, const uint8_t *data, uint64_t lsn)
{
    uint32_t n = part->header.n;

    if (t->size_bytes == 0) {
        t->size_bytes = LAYOUT_HEADER_BYTES;
        t->first = part->first;
        t->lsn = lsn;
    } else {
        assert(t->first + t->header.n == part->first);
        n += t->header.n;
    }
    array_reserve((void **)&t->data, &t->cap, t->size_bytes + part->size_bytes, 1);
    memcpy(t->data + t->size_bytes, data, part->size_bytes);
    t->size_bytes += part->size_bytes;
    t->header = part->header;
    t->header.n = n;
}

NH_PEEKS void tail_prefetch(const struct tail *t)
{
    const uint8_t *data = __atomic_load_n(&t->data, __ATOMIC_RELAXED);

    if (data)
        prefetch(data + t->size_bytes, PREFETCH_BYTES);
}

static bool has_room(const struct tail *t, const struct tail_part *part)
{
    return t->header.located == part->header.located && t->header.packed == part->header.packed &&
           t->size_bytes + part->size_bytes <= TAIL_BYTES_MAX;
}

int tail_add(struct nh_logdb *db, const struct tail_part *part, const uint8_t *data, uint64_t lsn, uint64_t cut,
             struct nh_error *err)
{
    struct replica *r = part->replica;
    pthread_mutex_t *lock = tail_lock_of(db, r->node.shard_id);
    int status = NH_OK;

    pthread_mutex_lock(lock);
    if (r->tail.lsn < cut || !has_room(&r->tail, part))
        status = write_out(db, r, err);
    if (status == NH_OK)
        append(&r->tail, part, data, lsn);
    pthread_mutex_unlock(lock);
    return status;
}

int tail_write(struct nh_logdb *db, struct replica *r, struct nh_error *err)
{
    pthread_mutex_t *lock = tail_lock_of(db, r->node.shard_id);
    int status;

    pthread_mutex_lock(lock);
    status = write_out(db, r, err);
    pthread_mutex_unlock(lock);
    return status;
}

/* With the lock of its tail, which keeps it here (replica_forget). */
static struct replica *find(struct nh_logdb *db, struct nh_replica_info of)
{
    struct replica_node *n;

    pthread_mutex_lock(&db->lock);
    n = replica_map_find(&db->replicas, of.shard_id, of.replica_id);
    pthread_mutex_unlock(&db->lock);
    return n ? container_of(n, struct replica, node) : NULL;
}

int tail_write_of(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_error *err)
{
    pthread_mutex_t *lock = tail_lock_of(db, shard_id);
    struct replica *r;
    int status = NH_OK;

    pthread_mutex_lock(lock);
    r = find(db, (struct nh_replica_info){shard_id, replica_id});
    if (r)
        status = write_out(db, r, err);
    pthread_mutex_unlock(lock);
    return status;
}

static int write_old(struct nh_logdb *db, struct nh_replica_info of, uint64_t cut, struct nh_error *err)
{
    pthread_mutex_t *lock = tail_lock_of(db, of.shard_id);
    struct replica *r;
    int status = NH_OK;

    pthread_mutex_lock(lock);
    r = find(db, of);
    if (r && r->tail.lsn < cut) {
        status = write_out(db, r, err);
        if (status == NH_OK)
            release(&r->tail);
    }
    pthread_mutex_unlock(lock);
    return status;
}

/* The replicas that are known now: whoever comes later has no tail from before the cut. */
static struct nh_replica_info *list(struct nh_logdb *db, size_t *ret_n)
{
    struct nh_replica_info *all = NULL;
    struct replica_node *node = NULL;
    size_t n = 0, cap = 0;

    pthread_mutex_lock(&db->lock);
    for (size_t i = 0; (node = replica_map_next(&db->replicas, &i, node));) {
        array_reserve((void **)&all, &cap, n + 1, sizeof *all);
        all[n++] = (struct nh_replica_info){node->shard_id, node->replica_id};
    }
    pthread_mutex_unlock(&db->lock);
    *ret_n = n;
    return all;
}

int tail_write_all(struct nh_logdb *db, uint64_t cut, struct nh_error *err)
{
    size_t n;
    struct nh_replica_info *all = list(db, &n);
    int status = NH_OK;

    for (size_t i = 0; i < n && status == NH_OK; i++)
        status = write_old(db, all[i], cut, err);
    free(all);
    return status;
}
