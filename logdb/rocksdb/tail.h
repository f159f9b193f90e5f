/* logdb/rocksdb/tail.h - the newest blocks of a replica that the journal has and RocksDB has not yet.
 *
 * Where thousands of shards save an entry or some dozen each, a key in RocksDB for each save costs more than all else of it. So
 * blocks that follow one another are put together in memory, and go into RocksDB as one of some forty saves, or more: small ones
 * with their records, larger ones with their places in the journal (a *joined* block, layout.h).
 *
 *     - The journal has them, as puts of one block per save; nothing is acknowledged by being here.
 *
 *     - A tail is behind all blocks of its replica in RocksDB, and they tile the log. Before anything else is done with
 *       these blocks, also before they are deleted, the tail is written out, and before they are read; so readers go on using
 *       RocksDB alone.
 *
 *     - Calls on either side of a *cut* (journal.h) are not put together. A recovery repeats the calls from the horizon on, which
 *       is a cut, each with its own block. Key by key these take the place of what was put together from them, whatever of it
 *       RocksDB kept; and a truncation deletes the keys that such a block would have inside then.
 *
 * Where the operator accepts the loss of a part of the journal, not all calls of a block are repeated: then a replica that
 * RocksDB has such a block of stays as it is there (recover.c).
 *
 * Threads: any. Who reads a log may have to wait here for RocksDB to take its tail, as a save does. A lock for a part of all
 * replicas guards their tails; it is taken before store->lock. A tail grows only in the hands of who holds its replica, but
 * anyone may write it out.
 */
#ifndef NH_LOGDB_ROCKSDB_TAIL_H
#define NH_LOGDB_ROCKSDB_TAIL_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "logdb/rocksdb/layout.h"

/* Records of one save that may wait here, and those of which only the place does. */
#define TAIL_RECORDS_MAX ((size_t)2048)
#define TAIL_LOCATED_MAX ((size_t)64 * 1024)
/* Longer tails are written out. */
#define TAIL_BYTES_MAX ((size_t)4096)

/* Locks of the tails of all replicas. */
#define TAIL_LOCKS 64u

struct nh_logdb;
struct replica;

/* All under the lock. */
struct tail {
    uint8_t *data;               /* room for a header, then packed records (pack.h), or locations */
    size_t size_bytes, cap;      /* size_bytes with the header's room; 0: nothing waits */
    uint64_t first;              /* index of the first entry */
    uint64_t lsn;                /* of the call that it came with */
    struct layout_header header; /* n entries; the rest is of the last save */
};

/* What a save adds. */
struct tail_part {
    struct replica *replica;
    struct layout_header header;
    uint64_t first;
    size_t at, size_bytes; /* of its packed records, or its location, in save_buffers.waiting */
};

/* Adds what call `lsn`, which is in the journal, has for this tail, with its `data`; writes the tail out before if it is full, of
 * another form or on the other side of `cut`. Errors: EIO, the store is fenced then. Thread: holds the replica. */
int tail_add(struct nh_logdb *db, const struct tail_part *part, const uint8_t *data, uint64_t lsn, uint64_t cut,
             struct nh_error *err);
/* Asks for what tail_add will touch behind the tail itself. Thread: any; nothing is held. */
void tail_prefetch(const struct tail *t);
/* Writes out the tail of one replica. Errors: EIO, the store is fenced then. */
int tail_write(struct nh_logdb *db, struct replica *r, struct nh_error *err);
/* The same for one that may not be known or may go. */
int tail_write_of(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_error *err);
/* Writes out all that begin below `cut`, and gives their memory back. */
int tail_write_all(struct nh_logdb *db, uint64_t cut, struct nh_error *err);
/* The lock, for who takes a replica out of the store's map. */
pthread_mutex_t *tail_lock_of(struct nh_logdb *db, uint64_t shard_id);

#endif
