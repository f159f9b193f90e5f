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

/* The keys [low, end) of blocks that lie wholly below `limit` and are not the last. Returns 1 if there are any. */
static int find_dead(struct nh_logdb *db, const struct replica *r, uint64_t limit, struct layout_key *ret_low,
                     struct layout_key *ret_end)
{
    uint64_t shard_id = r->node.shard_id, replica_id = r->node.replica_id;
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    int found = 0;

    layout_range_begin(ret_low, shard_id, replica_id);
    layout_block_key(ret_end, shard_id, replica_id, limit);
    rocksdb_iter_seek_for_prev(it, ret_end->bytes, ret_end->size_bytes);
    if (rocksdb_iter_valid(it)) {
        size_t size;
        const char *key = rocksdb_iter_key(it, &size);

        if (layout_key_is(key, size, shard_id, replica_id, LAYOUT_BLOCK)) {
            memcpy(ret_end->bytes, key, size);
            rocksdb_iter_prev(it);
            if (rocksdb_iter_valid(it)) {
                key = rocksdb_iter_key(it, &size);
                found = layout_key_is(key, size, shard_id, replica_id, LAYOUT_BLOCK);
            }
        }
    }
    rocksdb_iter_destroy(it);
    return found;
}

static uint64_t table_bytes(struct nh_logdb *db, const struct layout_key *low, const struct layout_key *end)
{
    const char *starts[1] = {low->bytes}, *limits[1] = {end->bytes};
    uint64_t size = 0;
    char *message = NULL;

    rocksdb_approximate_sizes(db->db, 1, starts, &low->size_bytes, limits, &end->size_bytes, &size, &message);
    free(message);
    return message ? 0 : size;
}

/* Deletes the dead blocks of a held replica. *ret_compact: their range deserves a compaction. */
static int delete_dead(struct nh_logdb *db, struct replica *r, uint64_t index, struct layout_key *ret_low,
                       struct layout_key *ret_end, bool *ret_compact, struct nh_error *err)
{
    uint64_t limit = index < r->now.bounds.first ? index + 1 : r->now.bounds.first;
    rocksdb_writebatch_t *batch;
    char *message = NULL;
    int status;

    *ret_compact = false;
    if (!find_dead(db, r, limit, ret_low, ret_end))
        return NH_OK;
    batch = rocksdb_writebatch_create();
    rocksdb_writebatch_delete_range(batch, ret_low->bytes, ret_low->size_bytes, ret_end->bytes, ret_end->size_bytes);
    status = store_write_batch(db, batch, false, err);
    rocksdb_writebatch_destroy(batch);
    if (status < 0 || table_bytes(db, ret_low, ret_end) < DEAD_BYTES_TO_COMPACT)
        return status;
    rocksdb_delete_file_in_range(db->db, ret_low->bytes, ret_low->size_bytes, ret_end->bytes, ret_end->size_bytes, &message);
    *ret_compact = message == NULL;
    return message ? store_error(message, "drop table files", err) : NH_OK;
}

static int compact(struct nh_logdb *db, const struct compact_job *job, struct nh_error *err)
{
    struct replica *r = replica_hold(db, job->shard_id, job->replica_id);
    struct layout_key low, end;
    bool wanted = false;
    int status = replica_load(db, r, err);

    if (status == NH_OK)
        status = delete_dead(db, r, job->index, &low, &end, &wanted, err);
    replica_release(db, r);
    if (status == NH_OK && wanted) {
        rocksdb_compactoptions_t *options = rocksdb_compactoptions_create();

        rocksdb_compactoptions_set_exclusive_manual_compaction(options, 0);
        rocksdb_compact_range_opt(db->db, options, low.bytes, low.size_bytes, end.bytes, end.size_bytes);
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
