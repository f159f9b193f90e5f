/* logdb/rocksdb/rocksdb_logdb.h - the default log store: one RocksDB database per host.
 *
 * One database and not one per worker, although several are faster on disks that sync in parallel: a save is atomic per
 * call, and a call carries whatever replicas a worker has. Replicas are spread over workers by a count that may change
 * between starts, so no fixed number of databases could promise that. All workers share one WAL, so that what several
 * save at the same moment costs one fdatasync.
 *
 * Directory: `dir`/FORMAT, `dir`/db (tables, manifest) and the WAL in `dir`/wal or in the configured wal_dir. The WAL
 * directory carries a mark that must match FORMAT: a database that is opened without its own WAL would silently lose what
 * was acknowledged, so a swapped or empty WAL directory is refused. Formats: docs/FORMATS.md, logdb/rocksdb/layout.h.
 *
 * Recovery. The WAL may end in a torn record (never acknowledged, dropped). A damaged record before that stops `open`
 * with NH_ECORRUPT rather than dropping what follows, which may be acknowledged. Whatever is recovered is flushed and
 * synced before `open` returns: a replica must not tell others about an entry that only the page cache holds.
 *
 * Options text: a RocksDB options string ("write_buffer_size=134217728;max_background_jobs=4"), applied over the
 * store's own settings. What the promises above rest on cannot be changed by it, except wal_recovery_mode, by which an
 * operator may decide to accept a damaged WAL (see the user guide).
 */
#ifndef NH_LOGDB_ROCKSDB_ROCKSDB_LOGDB_H
#define NH_LOGDB_ROCKSDB_ROCKSDB_LOGDB_H

#include "raftio/logdb.h"

/* The table of the store; static storage. */
const struct nh_logdb_ops *nh_logdb_rocksdb(void);

#endif
