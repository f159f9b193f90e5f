/* raftio/logdb.h - the ILogDB contract: how a host stores Raft logs, hard states and records.
 *
 * A log store is a table of functions. The host calls it through raftio/plugin.h's rules: `abi_version` and
 * `struct_size` come first, new members are appended, a missing optional member is NULL. The stores that ship
 * (logdb/rocksdb, logdb/memory) use this table and nothing else; tests/conformance/logdb runs over any table.
 *
 * Threads. `save_raft_state` is never called concurrently for one `worker_id`, and all saves of one replica come from
 * one worker_id. Everything else may be called from any thread at any time between open and close, also while saves run.
 *
 * Durability. A successful return of a call is a promise: what a `must_sync` update, a bootstrap record or a removal
 * wrote survives a power cut. Without must_sync it may be lost, but only together with everything saved after it by the
 * same worker (order is kept). One save_raft_state call is atomic *per call*: after a crash all of it is there or none.
 *
 * Failure. After any failed write or sync the store must refuse every further write with NH_EFENCED: a retried fsync
 * can report success for data that is lost. The host then stops all replicas of that store; it never retries. ECORRUPT of a
 * call that saves or removes is not such a failure: what is stored of a replica that the call names cannot be read, nothing of
 * the call is written, and the store goes on. Only that replica stops then; the others' updates are saved again, one per call.
 *
 * Truncation. Entries saved from index i replace everything stored from i on, also above their own last index.
 * A reader never sees a truncated entry again, across crashes too.
 */
#ifndef NH_RAFTIO_LOGDB_H
#define NH_RAFTIO_LOGDB_H

#include "raftio/plugin.h"
#include "raftio/types.h"

NH_BEGIN_DECLS

#define NH_LOGDB_ABI 1u
/* Version of the formats below a store; a store refuses a directory of another one. */
#define NH_LOGDB_BIN_VERSION 2u

struct nh_logdb; /* an open store; defined by the plugin */

struct nh_logdb_config {
    uint32_t struct_size;
    const char *dir;                           /* exists, is exclusively ours; borrowed for the call */
    const char *wal_dir;                       /* NULL: inside dir */
    uint32_t n_workers;                        /* worker_id is 1 .. n_workers */
    const char *options;                       /* plugin-specific text, may be NULL */
    const struct nh_plugin_services *services; /* lives as long as the store */
    bool no_polling;                           /* who waits for the disk sleeps at once: nh_host_config */
};

/* Receives the records of iterate_entries. `records` are whole records with consecutive indexes, borrowed for the call.
 * Returns 0, or a negative code on which the iteration stops and which it returns. */
struct nh_entry_sink {
    int (*add)(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err);
    void *ctx;
};

struct nh_logdb_metrics {
    bool busy; /* the store cannot take more writes at present: the host answers NH_EBUSY to proposals */
};

struct nh_logdb_ops {
    uint32_t abi_version; /* NH_LOGDB_ABI */
    uint32_t struct_size; /* sizeof this struct when the plugin was built */
    const char *name;     /* "rocksdb"; static storage; stored in the data directory and checked at restart */

    /* Opens or creates the store. Errors: EMISMATCH (another format), ECORRUPT, EIO. Required. */
    int (*open)(const struct nh_logdb_config *config, struct nh_logdb **ret, struct nh_error *err);
    /* Closes it; no other call may be running. What was saved without sync is made durable on a best-effort basis. Required. */
    void (*close)(struct nh_logdb *db);
    /* A constant that names the format on disk. Required. */
    uint32_t (*binary_format)(struct nh_logdb *db);

    /* Calls `each` for every replica that has a bootstrap record, in any order; stops and returns its code when it is not 0. */
    int (*list_replicas)(struct nh_logdb *db, int (*each)(void *ctx, struct nh_replica_info info), void *ctx,
                         struct nh_error *err);

    /* Writes the bootstrap record of a replica, durably. */
    int (*save_bootstrap)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, const struct nh_bootstrap *bootstrap,
                          struct nh_error *err);
    /* Reads it into *ret (to be released by nh_bootstrap_deinit of the services). Errors: ENOTFOUND. */
    int (*get_bootstrap)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_bootstrap *ret,
                         struct nh_error *err);

    /* Saves the updates, in order, as one atomic batch; durable on return if any has must_sync. The hot path: one call
     * carries all ready replicas of a worker. An update may name a replica more than once (later ones win). Errors: ECORRUPT
     * (see above), EFENCED, EIO, ENOSPC. */
    int (*save_raft_state)(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id,
                           struct nh_error *err);

    /* Gives the records [low, high) in order to the sink, in as many calls as it likes, until high, or until at least one
     * record and more than max_bytes were given (the record that crosses is included). Starts exactly at `low`.
     * Errors: ECOMPACTED (low is below the first index), ENOTFOUND (low is above the last index), ECORRUPT. */
    int (*iterate_entries)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                           size_t max_bytes, const struct nh_entry_sink *sink, struct nh_error *err);

    /* Hard state and log bounds. Errors: ENOTFOUND (nothing was ever saved for this replica). */
    int (*read_raft_state)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_raft_state *ret,
                           struct nh_error *err);

    /* Removes entries (0, index]; quick, may only hide them. `index` must be covered by a durable snapshot. */
    int (*remove_entries_to)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index, struct nh_error *err);
    /* Reclaims the space of removed entries up to index, in the background; `done` is called once, from any thread. */
    int (*compact_entries_to)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t index,
                              void (*done)(void *ctx), void *ctx, struct nh_error *err);

    /* Records of snapshots, durably; the newest per replica wins. Entries at or below its index need not exist. */
    int (*save_snapshots)(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct nh_error *err);
    /* The newest record; ret->index is 0 when there is none. */
    int (*get_snapshot)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_snapshot *ret,
                        struct nh_error *err);
    /* Removes everything about a replica, durably, bootstrap record included. The replica must be stopped. */
    int (*remove_replica_data)(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_error *err);
    /* Replaces everything about a replica by this snapshot's record: bootstrap {join}, state {term, no vote, commit = index}. */
    int (*import_snapshot)(struct nh_logdb *db, const struct nh_snapshot *snapshot, uint64_t replica_id, struct nh_error *err);

    /* Cheap; called often. */
    void (*get_metrics)(struct nh_logdb *db, struct nh_logdb_metrics *ret);
    /* since 1.0 ends here; append below */

    /* save_raft_state in two steps, so that messages can leave while the disk writes. begin_save takes the updates, and gets the
     * write under way if it can; they and their runs are borrowed until end_save, which returns what save_raft_state would have
     * returned. After a begin_save that failed there is nothing to end. The two of one worker_id are not called concurrently,
     * but perhaps from different threads; between them no other save is begun for it. Optional, both or none: without them the
     * host calls save_raft_state. */
    int (*begin_save)(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id, struct nh_error *err);
    int (*end_save)(struct nh_logdb *db, uint32_t worker_id, struct nh_error *err);
};

NH_END_DECLS
#endif
