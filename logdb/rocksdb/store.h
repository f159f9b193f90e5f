/* logdb/rocksdb/store.h - the open store: what the files of this folder share.
 *
 * A write is a RocksDB write batch. It goes to the journal first, as one record with the large blocks that it points to, and then
 * into RocksDB (journal.h, store_write).
 *
 * Readers use a RocksDB iterator, that is one consistent view, and no memory of ours; what waits in memory for RocksDB is written
 * out before (tail.h). Writers of one replica exclude each other: a writer *holds* the replica (replica_hold) while it works on
 * it, so different replicas never wait for each other and no mutex is held across I/O, but for that
 * of a tail while RocksDB takes it. A save holds all its replicas at once;
 * every other writer holds one at a time, so there is no circular wait.
 *
 * Field guards: [lock] = store->lock, [held] = whoever holds the replica, [worker] = the caller with that worker_id, [tail] =
 * tail.h.
 */
#ifndef NH_LOGDB_ROCKSDB_STORE_H
#define NH_LOGDB_ROCKSDB_STORE_H

#include <pthread.h>
#include <rocksdb/c.h>

#include "logdb/replica_map.h"
#include "logdb/rocksdb/journal.h"
#include "logdb/rocksdb/layout.h"
#include "logdb/rocksdb/pack.h"
#include "logdb/rocksdb/tail.h"
#include "logdb/update.h"
#include "raftio/logdb.h"
#include "raftio/support/list.h"

/* What the database holds of a replica besides records of entries. */
struct stored {
    bool exists; /* anything but a bootstrap or snapshot record */
    struct log_bounds bounds;
    uint64_t number; /* of the newest save of entries or a hard state; 0: none */
    struct nh_state state;
};

/* From this index on blocks were put into this segment, and none into earlier ones. */
struct use {
    uint64_t segment_id; /* 0: none */
    uint64_t from;
};

/* The write side's memory of a replica, so that a save reads nothing; freed when its data is removed. It has 312 bytes, and
 * beyond 320 it would take 384 from the allocator. */
struct replica {
    struct replica_node node;
    bool held;               /* [lock] */
    bool loaded;             /* [held] `now` is what the database holds */
    bool drops_uses;         /* [held] the batch deletes all of `uses` */
    uint32_t n_updates;      /* [held] of the call */
    uint64_t call;           /* [held] the save that holds it */
    struct stored now;       /* [held] */
    struct stored next;      /* [held] after the batch being built */
    uint64_t cut;            /* [held] blocks of the database from this index on are dead after the batch; UINT64_MAX: none */
    uint64_t clip;           /* [held] first index of the entries of a later update of the same call */
    uint64_t snapshot_index; /* [held] newest snapshot that the batch holds; 0: none */
    struct use *uses;        /* [held] by segment id */
    size_t n_uses, cap_uses;
    uint64_t located_last; /* [held] no block in the journal has a later entry */
    struct use new_use;    /* [held] that the batch adds */
    uint64_t split_lsn;    /* [held] a block was split before that call, for RocksDB alone (reclaim.c); 0: none was */
    struct tail tail;      /* [tail] */
};

/* Per worker_id, reused by each save. */
struct save_buffers {
    rocksdb_writebatch_t *batch;
    uint8_t *waiting; /* further operations of the batch, for the journal alone: RocksDB gets them, as `parts`, later */
    size_t waiting_bytes, cap_waiting;
    struct tail_part *parts; /* one for each */
    size_t n_parts, cap_parts;
    struct journal_stream *stream;
    struct replica **replicas; /* of update i */
    uint64_t *clips;           /* of update i: its entries from here on are replaced by a later update */
    size_t cap;
    size_t n; /* updates of the save that has begun; 0: none */
};

struct compact_job {
    struct queue_node node;
    uint64_t shard_id, replica_id;
    uint64_t index;
    void (*done)(void *ctx);
    void *ctx;
};

struct nh_logdb {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write; /* without its WAL */
    rocksdb_readoptions_t *read;
    struct journal journal;
    uint64_t budget_bytes; /* of the journal beyond what is live there */
    bool accepts_loss;     /* the operator lets a recovery end at damage */
    const struct nh_plugin_services *services;
    bool fenced; /* atomic; set once */

    pthread_mutex_t lock;
    pthread_cond_t released;     /* with lock: some replica is no longer held */
    struct replica_map replicas; /* [lock]; who removes one has the lock of its tail as well */
    uint64_t n_calls;            /* [lock] */
    uint32_t n_waiting;          /* [lock] writers that wait for a held replica */

    pthread_mutex_t tail_locks[TAIL_LOCKS]; /* each for the tails of some shards; before `lock` */

    uint32_t n_workers;
    struct save_buffers *workers; /* [worker] number worker_id - 1 */

    pthread_t compactor;
    pthread_cond_t has_jobs; /* with lock */
    struct queue jobs;       /* [lock] */
    bool closing;            /* [lock] */
    bool compactor_started;

    pthread_t reclaimer;
    pthread_cond_t horizon_is_due; /* with lock */
    bool due;                      /* [lock] */
    bool reclaimer_started;

    bool busy;              /* atomic */
    uint64_t busy_until_ns; /* atomic: `busy` is not looked up again before */
};

/* open.c */
int store_open(const struct nh_logdb_config *config, struct nh_logdb **ret, struct nh_error *err);
void store_close(struct nh_logdb *db);
/* Begins to write the record that was begun on the stream, whose last bytes are the batch. Errors: EFENCED. */
int store_commit_begin(struct nh_logdb *db, struct journal_stream *s, size_t batch_bytes, bool sync, struct nh_error *err);
/* Ends that; fences the store on failure. store_applied follows when RocksDB, or a tail, has it too. Errors: EIO. */
int store_commit_end(struct nh_logdb *db, struct journal_stream *s, struct nh_error *err);
/* Both. Errors: EFENCED, EIO. */
int store_commit(struct nh_logdb *db, struct journal_stream *s, size_t batch_bytes, bool sync, struct nh_error *err);
void store_applied(struct nh_logdb *db, struct journal_stream *s);
/* A record without payload, from any thread. */
int store_write_batch(struct nh_logdb *db, rocksdb_writebatch_t *batch, bool sync, struct nh_error *err);
/* Only into RocksDB: for what a recovery need not repeat. Fences as well. */
int store_write_unlogged(struct nh_logdb *db, rocksdb_writebatch_t *batch, struct nh_error *err);
/* The same for one key, and of a fenced store too. */
int store_put(struct nh_logdb *db, const struct layout_key *key, const uint8_t *value, size_t size_bytes, struct nh_error *err);
int store_check_fence(struct nh_logdb *db, struct nh_error *err);
void store_fence(struct nh_logdb *db);
/* Turns RocksDB's message into an error and frees it. */
int store_error(char *message, const char *what, struct nh_error *err);

/* replica.c */
/* Waits until nobody holds the replica, and holds it. */
struct replica *replica_hold(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id);
/* Reads `now` if need be and starts a batch: `next` = `now`. Errors: EIO, ECORRUPT. */
int replica_load(struct nh_logdb *db, struct replica *r, struct nh_error *err);
void replica_release(struct nh_logdb *db, struct replica *r);
/* Instead of release: forgets the replica, after its data is gone. */
void replica_forget(struct nh_logdb *db, struct replica *r);
void replica_free(struct replica *r);
/* Reads its uses alone. Errors: EIO, ECORRUPT. */
int replica_load_uses(struct nh_logdb *db, struct replica *r, struct nh_error *err);
/* What the batch did to the uses has been written. */
void replica_apply_uses(struct nh_logdb *db, struct replica *r);
/* How many of its first uses are not needed by a log that begins at `first`. */
size_t replica_uses_behind(const struct replica *r, uint64_t first);
/* Takes the first n out of memory and gives them back to the journal. */
void replica_forget_uses(struct nh_logdb *db, struct replica *r, size_t n);
/* Hold and load for all replicas of a save; on failure none is held. A replica that occurs twice is held once. */
int replica_hold_all(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct replica **ret, struct nh_error *err);
void replica_release_all(struct nh_logdb *db, struct replica **replicas, size_t n);

/* read.c */
/* Reads through `it`, which may have been used before. Errors: EIO, ECORRUPT. */
int stored_read(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, struct stored *ret,
                struct nh_error *err);
/* Errors of the iterator itself: a damaged table block, a failed read. */
int store_iterator_error(rocksdb_iterator_t *it, struct nh_error *err);
/* Calls `each` for the uses of one replica, by segment id, or for all that are stored; stops when it returns not 0, and returns
 * that. Errors: EIO, ECORRUPT. */
int replica_read_uses(struct nh_logdb *db, rocksdb_iterator_t *it, struct nh_replica_info of,
                      int (*each)(void *ctx, struct nh_replica_info info, struct use use), void *ctx, struct nh_error *err);
int store_list_uses(struct nh_logdb *db, int (*each)(void *ctx, struct nh_replica_info info, struct use use), void *ctx,
                    struct nh_error *err);
/* Horizon and floor that the tables tell; 0 if none. Errors: EIO, ECORRUPT. */
int store_read_horizon(struct nh_logdb *db, uint64_t *ret_horizon, uint64_t *ret_floor, struct nh_error *err);
int store_list_replicas(struct nh_logdb *db, int (*each)(void *ctx, struct nh_replica_info info), void *ctx,
                        struct nh_error *err);
int store_iterate_entries(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                          size_t max_bytes, const struct nh_entry_sink *sink, struct nh_error *err);
int store_read_raft_state(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_raft_state *ret,
                          struct nh_error *err);

/* blocks.c; errors: ECORRUPT, EIO. `first` and `h` are index and header of the block at `it`, as block_at or block_seek gave
 * them. */
/* Moves `it` to the block that holds `index`, or fails with ENOTFOUND. */
int block_seek(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, uint64_t index,
               uint64_t *ret_first, struct layout_header *ret, struct nh_error *err);
/* Decodes the block at `it`. Returns 1 if there is one of this replica, 0 if not. */
int block_at(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, uint64_t *ret_first,
             struct layout_header *ret, struct nh_error *err);
/* A block, or a part of a joined one, with its header as if it were plain; zeroed at first, may be opened again. */
struct block_value {
    uint64_t first;
    struct layout_header header; /* n: what was opened */
    const char *value;           /* in the iterator, or in one of the buffers */
    size_t size_bytes;
    struct unpacked stored, unpacked; /* header and records, as they lie in the journal, and unpacked */
};
/* Opens what holds entry `index` of the block, with a view or the replica held. */
int block_open(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t first, const struct layout_header *h, uint64_t index,
               struct block_value *ret, struct nh_error *err);
void block_value_deinit(struct block_value *v);
/* For the following the replica is held. Instead of the located block the batch puts a block for each part before `end`, with its
 * records if it lies in that segment. */
int block_split(struct nh_logdb *db, rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, const struct replica *r, uint64_t first,
                const struct layout_header *h, uint64_t end, uint64_t segment_id, struct nh_error *err);
/* Deletes the keys that entries behind the first would have if the block was put together of several, and so is packed or joined:
 * a recovery may put these there (tail.h). */
int block_delete_inner(rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, const struct replica *r, uint64_t first,
                       const struct layout_header *h, struct nh_error *err);
/* Clips the block that holds `from` if it begins before, and splits it if it is joined. Moves `it` to the next one then. */
int block_clip(struct nh_logdb *db, rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, const struct replica *r, uint64_t from,
               struct nh_error *err);

/* save.c */
int store_begin_save(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id, struct nh_error *err);
int store_end_save(struct nh_logdb *db, uint32_t worker_id, struct nh_error *err);
int store_save_raft_state(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id,
                          struct nh_error *err);
/* Adds the snapshot of updates[i] to the batch, unless a newer one is stored. */
int stage_snapshot(struct nh_logdb *db, rocksdb_writebatch_t *batch, struct replica *r, const struct nh_update *updates, size_t i,
                   struct nh_error *err);
void save_buffers_deinit(struct save_buffers *b);

/* records.c */
/* Put one record each into the batch. */
void record_put_bootstrap(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                          const struct nh_bootstrap *bootstrap);
void record_put_snapshot(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                         const struct nh_snapshot *snapshot);
void record_put_start(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                      uint64_t first_index);
/* The first index of a log; 1 if nothing was removed of it. Errors: EIO, ECORRUPT. */
int record_get_start(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t *ret_first, struct nh_error *err);
void record_put_use(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id, struct use use);
void record_delete_use(rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id, uint64_t segment_id);
void record_put_horizon(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t horizon, uint64_t floor);
void record_put_state(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                      const struct nh_state *state, uint64_t number);
int store_save_bootstrap(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, const struct nh_bootstrap *bootstrap,
                         struct nh_error *err);
int store_get_bootstrap(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_bootstrap *ret,
                        struct nh_error *err);
int store_save_snapshots(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct nh_error *err);
int store_get_snapshot(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_snapshot *ret,
                       struct nh_error *err);
int store_remove_replica_data(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_error *err);
int store_import_snapshot(struct nh_logdb *db, const struct nh_snapshot *snapshot, uint64_t replica_id, struct nh_error *err);

/* compact.c */
int store_remove_entries_to(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index, struct nh_error *err);
int store_compact_entries_to(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index, void (*done)(void *ctx),
                             void *ctx, struct nh_error *err);
int compactor_start(struct nh_logdb *db, struct nh_error *err);
/* Ends the thread after the job at hand; `done` is called for those that were left. */
void compactor_stop(struct nh_logdb *db);

/* recover.c */
/* Puts what only the journal holds into the database, durably. Errors: EIO, ECORRUPT. */
int store_recover(struct nh_logdb *db, struct nh_error *err);

/* reclaim.c */
int reclaimer_start(struct nh_logdb *db, struct nh_error *err);
void reclaimer_stop(struct nh_logdb *db);
/* The horizon should move. Thread: any. */
void reclaimer_wake(struct nh_logdb *db);
/* Makes tables of all that was written so far, and says so in them. Errors: EIO. */
int store_move_horizon(struct nh_logdb *db, struct nh_error *err);
/* Puts what a replica has in that segment, which is below the horizon, into the table. Returns 1 if it used it until now, and 0
 * if not any more. Errors: EIO, ECORRUPT. */
int store_move_replica(struct nh_logdb *db, struct nh_replica_info info, uint64_t segment_id, struct nh_error *err);
/* Before something is written to the journal that follows from which keys the replica's blocks have: makes durable what was split
 * of them. The replica is held. Errors: EIO. */
int store_settle_split(struct nh_logdb *db, struct replica *r, struct nh_error *err);

static inline struct replica *replica_of(struct replica_node *n)
{
    return container_of(n, struct replica, node);
}

#endif
