/* logdb/rocksdb/rocksdb_logdb.h - the default log store: a journal of our own, and one RocksDB database per host behind it.
 *
 * A save is one record appended to a segment of the journal, and one sync. It holds a RocksDB write batch and the larger blocks
 * of entries; the batch then goes into RocksDB, without RocksDB's WAL. So RocksDB is the index, and holds what is small or stays
 * long; what is large is written once, into files that are used again and again, and is usually removed before anything else is
 * done with it (logdb/rocksdb/journal.h, reclaim.c).
 *
 * Each worker appends to segments of its own, so workers sync in parallel. There is one database and not one per worker: a save
 * is atomic per call, and a call carries whatever replicas a worker has, which may be others after a restart.
 *
 * Directory: `dir`/FORMAT, `dir`/db (tables, manifest) and the segments in `dir`/wal or in the configured wal_dir. That
 * directory carries a mark that must match FORMAT: a database that is opened without its own journal would silently lose what
 * was acknowledged, so a swapped or empty one is refused. Formats: docs/FORMATS.md, logdb/rocksdb/layout.h, segment.h.
 *
 * Recovery. A segment may end in a torn record (never acknowledged, dropped). A damaged record before that stops `open`
 * with NH_ECORRUPT rather than dropping what follows, which may be acknowledged. Whatever is recovered is in tables and
 * synced before `open` returns: a replica must not tell others about an entry that only the page cache holds.
 *
 * Options text: a RocksDB options string ("write_buffer_size=134217728;max_background_jobs=4"), applied over the
 * store's own settings. What the promises above rest on cannot be changed by it. Two options speak of the journal, as RocksDB
 * has no WAL here. max_total_wal_size (512 MiB) is its budget: when it is longer, blocks leave segments that only few replicas
 * still use, and above four budgets all of the oldest ones. wal_recovery_mode=kPointInTimeRecovery lets an operator accept the
 * loss of all calls from the first damaged one on. Tables may have some of their effects nevertheless. A replica whose newest
 * block there is of a lost save stays as tables have it, so each log is what it was at one moment, then or later. Its start,
 * snapshot and hard state may be of another one; a replica whose records do not fit together is refused when it starts.
 */
#ifndef NH_LOGDB_ROCKSDB_ROCKSDB_LOGDB_H
#define NH_LOGDB_ROCKSDB_ROCKSDB_LOGDB_H

#include "raftio/logdb.h"

/* The table of the store; static storage. */
const struct nh_logdb_ops *nh_logdb_rocksdb(void);

#endif
