/* logdb/rocksdb/store.h - the open store: what the files of this folder share.
 *
 * Readers use a RocksDB iterator, that is one consistent view, and no memory of ours. Writers of one replica exclude each
 * other: a writer *holds* the replica (replica_hold) while it works on it, so different replicas never wait for each
 * other and no mutex is held across I/O. A save holds all its replicas at once; every other writer holds one at a time,
 * so there is no circular wait.
 *
 * Field guards: [lock] = store->lock, [held] = whoever holds the replica, [worker] = the caller with that worker_id.
 */
#ifndef NH_LOGDB_ROCKSDB_STORE_H
#define NH_LOGDB_ROCKSDB_STORE_H

#include <pthread.h>
#include <rocksdb/c.h>

#include "logdb/replica_map.h"
#include "logdb/rocksdb/layout.h"
#include "logdb/rocksdb/pack.h"
#include "logdb/update.h"
#include "raftio/logdb.h"
#include "raftio/support/list.h"

/* What the database holds of a replica besides records of entries. */
struct stored {
    bool exists; /* anything but a bootstrap or snapshot record */
    struct log_bounds bounds;
    uint64_t state_number; /* 0: no hard state was saved */
    struct nh_state state;
};

/* The write side's memory of a replica, so that a save reads nothing. About 200 bytes; freed when its data is removed. */
struct replica {
    struct replica_node node;
    bool held;               /* [lock] */
    bool loaded;             /* [held] `now` is what the database holds */
    uint64_t call;           /* [held] the save that holds it */
    struct stored now;       /* [held] */
    struct stored next;      /* [held] after the batch being built */
    uint64_t cut;            /* [held] blocks of the database from this index on are dead after the batch; UINT64_MAX: none */
    uint64_t clip;           /* [held] first index of the entries of a later update of the same call */
    uint64_t snapshot_index; /* [held] newest snapshot that the batch holds; 0: none */
};

/* Per worker_id, reused by each save. */
struct save_buffers {
    rocksdb_writebatch_t *batch;
    struct replica **replicas; /* of update i */
    uint64_t *clips;           /* of update i: its entries from here on are replaced by a later update */
    size_t cap;
    const char **parts; /* of the block being built; part 0 is the header */
    size_t *part_sizes;
    size_t cap_parts;
    uint8_t *packed; /* records of the block being built, if it is a packed one */
    size_t cap_packed;
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
    rocksdb_writeoptions_t *write_lazy, *write_synced;
    rocksdb_readoptions_t *read;
    const struct nh_plugin_services *services;
    bool fenced; /* atomic; set once */

    pthread_mutex_t lock;
    pthread_cond_t released;     /* with lock: some replica is no longer held */
    struct replica_map replicas; /* [lock] */
    uint64_t n_calls;            /* [lock] */
    uint32_t n_waiting;          /* [lock] writers that wait for a held replica */

    uint32_t n_workers;
    struct save_buffers *workers; /* [worker] number worker_id - 1 */

    pthread_t compactor;
    pthread_cond_t has_jobs; /* with lock */
    struct queue jobs;       /* [lock] */
    bool closing;            /* [lock] */
    bool compactor_started;

    bool busy;              /* atomic */
    uint64_t busy_until_ns; /* atomic: `busy` is not looked up again before */
};

/* open.c */
int store_open(const struct nh_logdb_config *config, struct nh_logdb **ret, struct nh_error *err);
void store_close(struct nh_logdb *db);
/* Writes a batch; fences the store on failure. Errors: EFENCED, EIO, ECORRUPT. */
int store_write(struct nh_logdb *db, rocksdb_writebatch_t *batch, bool sync, struct nh_error *err);
int store_check_fence(struct nh_logdb *db, struct nh_error *err);
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
/* Hold and load for all replicas of a save; on failure none is held. A replica that occurs twice is held once. */
int replica_hold_all(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct replica **ret, struct nh_error *err);
void replica_release_all(struct nh_logdb *db, struct replica **replicas, size_t n);

/* read.c */
/* Reads through `it`, which may have been used before. Errors: EIO, ECORRUPT. */
int stored_read(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, struct stored *ret,
                struct nh_error *err);
/* Moves `it` to the block that holds `index`, or fails with ENOTFOUND. Errors: ECORRUPT, EIO. */
int block_seek(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, uint64_t index,
               uint64_t *ret_first, struct layout_header *ret, struct nh_error *err);
/* A block with its header as if it were not packed; zeroed at first, may be opened again, free unpacked.data at last. */
struct block_value {
    const char *value; /* in the iterator, or unpacked */
    size_t size_bytes;
    struct unpacked unpacked;
};
/* Opens the block at `it`, of which block_seek gave index and header. Errors: ECORRUPT. */
int block_open(rocksdb_iterator_t *it, uint64_t first, const struct layout_header *h, struct block_value *ret,
               struct nh_error *err);
int store_list_replicas(struct nh_logdb *db, int (*each)(void *ctx, struct nh_replica_info info), void *ctx,
                        struct nh_error *err);
int store_iterate_entries(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                          size_t max_bytes, const struct nh_entry_sink *sink, struct nh_error *err);
int store_read_raft_state(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_raft_state *ret,
                          struct nh_error *err);

/* save.c */
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

static inline struct replica *replica_of(struct replica_node *n)
{
    return container_of(n, struct replica, node);
}

#endif
