/* Removal of the old end of a log, and the thread that reclaims its space.
 *
 * remove_entries_to only moves the start record: one small write. compact_entries_to deletes the blocks below it, on a
 * thread of its own: one range tombstone per call, over keys that nobody reads or writes any more. It ends before the
 * block that holds the start, so the last block, which carries the hard state, always stays.
 *
 * RocksDB reclaims the space when tombstone and blocks meet in a compaction. A replica with much dead data in tables is
 * not left to that: whole files are dropped and the range is compacted at once.
 */
#include "logdb/rocksdb/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

#define DEAD_BYTES_TO_COMPACT ((uint64_t)64 * 1024 * 1024)

static int move_start(struct nh_logdb *db, struct replica *r, struct nh_error *err)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    size_t n_uses = replica_uses_behind(r, r->next.bounds.first);
    int status;

    record_put_start(db, batch, r->node.shard_id, r->node.replica_id, r->next.bounds.first);
    for (size_t i = 0; i < n_uses; i++)
        record_delete_use(batch, r->node.shard_id, r->node.replica_id, r->uses[i].segment_id);
    status = store_write_batch(db, batch, true, err);
    rocksdb_writebatch_destroy(batch);
    if (status < 0)
        return status;
    replica_forget_uses(db, r, n_uses);
    r->now = r->next;
    return NH_OK;
}

int store_remove_entries_to(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index, struct nh_error *err)
{
    struct replica *replica;
    int r = store_check_fence(db, err);

    if (r < 0)
        return r;
    replica = replica_hold(db, shard_id, replica_id);
    r = replica_load(db, replica, err);
    if (r == NH_OK && bounds_remove_to(&replica->next.bounds, index))
        r = move_start(db, replica, err);
    replica_release(db, replica);
    return r < 0 ? nh_error_wrap(err, r, "remove entries of shard %" PRIu64, shard_id) : NH_OK;
}

/* Keys of dead blocks, from a bound before the first of them to `last`. They end before `end`, a block that stays. */
struct dead {
    struct layout_key low, last, end;
};

static bool take_block_key(rocksdb_iterator_t *it, const struct replica *r, struct layout_key *ret)
{
    const char *key;

    if (!rocksdb_iter_valid(it))
        return false;
    key = rocksdb_iter_key(it, &ret->size_bytes);
    if (!layout_key_is(key, ret->size_bytes, r->node.shard_id, r->node.replica_id, LAYOUT_BLOCK))
        return false;
    memcpy(ret->bytes, key, ret->size_bytes);
    return true;
}

/* The blocks that lie wholly below `limit` and are not the last. False: there are none. */
static bool find_dead(struct nh_logdb *db, const struct replica *r, uint64_t limit, struct dead *ret)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    struct layout_key key;
    bool found;

    layout_range_begin(&ret->low, r->node.shard_id, r->node.replica_id);
    layout_block_key(&key, r->node.shard_id, r->node.replica_id, limit);
    rocksdb_iter_seek_for_prev(it, key.bytes, key.size_bytes);
    found = take_block_key(it, r, &ret->end);
    if (found) {
        rocksdb_iter_prev(it);
        found = take_block_key(it, r, &ret->last);
    }
    rocksdb_iter_destroy(it);
    return found;
}

static uint64_t table_bytes(struct nh_logdb *db, const struct dead *d)
{
    const char *starts[1] = {d->low.bytes}, *limits[1] = {d->end.bytes};
    uint64_t size = 0;
    char *message = NULL;

    rocksdb_approximate_sizes(db->db, 1, starts, &d->low.size_bytes, limits, &d->end.size_bytes, &size, &message);
    free(message);
    return message ? 0 : size;
}

/* Files with nothing but dead blocks. One that ends with the limit itself is among them, so that must be a dead block. */
static int drop_files(struct nh_logdb *db, const struct dead *d, struct nh_error *err)
{
    char *message = NULL;

    rocksdb_delete_file_in_range(db->db, d->low.bytes, d->low.size_bytes, d->last.bytes, d->last.size_bytes, &message);
    return message ? store_error(message, "drop table files", err) : NH_OK;
}

/* Deletes the dead blocks of a held replica. *ret_compact: their range deserves a compaction. */
static int delete_dead(struct nh_logdb *db, struct replica *r, uint64_t index, struct dead *ret, bool *ret_compact,
                       struct nh_error *err)
{
    uint64_t limit = index < r->now.bounds.first ? index + 1 : r->now.bounds.first;
    rocksdb_writebatch_t *batch;
    int status;

    *ret_compact = false;
    status = store_settle_split(db, r, err);
    if (status < 0 || !find_dead(db, r, limit, ret))
        return status;
    batch = rocksdb_writebatch_create();
    rocksdb_writebatch_delete_range(batch, ret->low.bytes, ret->low.size_bytes, ret->end.bytes, ret->end.size_bytes);
    status = store_write_batch(db, batch, false, err);
    rocksdb_writebatch_destroy(batch);
    if (status < 0 || table_bytes(db, ret) < DEAD_BYTES_TO_COMPACT)
        return status;
    status = drop_files(db, ret, err);
    *ret_compact = status == NH_OK;
    return status;
}

static int compact(struct nh_logdb *db, const struct compact_job *job, struct nh_error *err)
{
    struct replica *r = replica_hold(db, job->shard_id, job->replica_id);
    struct dead dead;
    bool wanted = false;
    int status = replica_load(db, r, err);

    if (status == NH_OK)
        status = delete_dead(db, r, job->index, &dead, &wanted, err);
    replica_release(db, r);
    if (status == NH_OK && wanted) {
        rocksdb_compactoptions_t *options = rocksdb_compactoptions_create();

        rocksdb_compactoptions_set_exclusive_manual_compaction(options, 0);
        rocksdb_compact_range_opt(db->db, options, dead.low.bytes, dead.low.size_bytes, dead.end.bytes, dead.end.size_bytes);
        rocksdb_compactoptions_destroy(options);
    }
    return status;
}

static void run_job(struct nh_logdb *db, const struct compact_job *job)
{
    struct nh_error err;
    int status = store_check_fence(db, &err);

    if (status == NH_OK)
        status = compact(db, job, &err);
    if (status < 0)
        db->services->log(NH_LOG_WARN, "logdb", "compaction of shard %" PRIu64 " replica %" PRIu64 ": %s", job->shard_id,
                          job->replica_id, err.text);
}

static struct compact_job *next_job(struct nh_logdb *db)
{
    struct queue_node *node = NULL;

    pthread_mutex_lock(&db->lock);
    while (!db->closing && queue_empty(&db->jobs))
        pthread_cond_wait(&db->has_jobs, &db->lock);
    if (!db->closing)
        node = queue_pop(&db->jobs);
    pthread_mutex_unlock(&db->lock);
    return node ? container_of(node, struct compact_job, node) : NULL;
}

static void finish_job(struct compact_job *job)
{
    job->done(job->ctx);
    free(job);
}

static void *compactor_main(void *arg)
{
    struct nh_logdb *db = arg;
    struct compact_job *job;

    while ((job = next_job(db))) {
        run_job(db, job);
        finish_job(job);
    }
    return NULL;
}

int store_compact_entries_to(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index, void (*done)(void *ctx),
                             void *ctx, struct nh_error *err)
{
    struct compact_job *job;
    int r = store_check_fence(db, err);

    if (r < 0)
        return r;
    job = xcalloc(1, sizeof *job);
    *job = (struct compact_job){.shard_id = shard_id, .replica_id = replica_id, .index = index, .done = done, .ctx = ctx};
    pthread_mutex_lock(&db->lock);
    queue_push(&db->jobs, &job->node);
    pthread_cond_signal(&db->has_jobs);
    pthread_mutex_unlock(&db->lock);
    return NH_OK;
}

int compactor_start(struct nh_logdb *db, struct nh_error *err)
{
    int e = pthread_create(&db->compactor, NULL, compactor_main, db);

    if (e)
        return nh_error_sys(err, NH_EIO, e, "start the compaction thread");
    db->compactor_started = true;
    return NH_OK;
}

void compactor_stop(struct nh_logdb *db)
{
    struct queue_node *node;

    if (!db->compactor_started)
        return;
    pthread_mutex_lock(&db->lock);
    db->closing = true;
    pthread_cond_signal(&db->has_jobs);
    pthread_mutex_unlock(&db->lock);
    rocksdb_disable_manual_compaction(db->db); /* a compaction at work ends early */
    pthread_join(db->compactor, NULL);
    while ((node = queue_pop(&db->jobs)))
        finish_job(container_of(node, struct compact_job, node));
}
