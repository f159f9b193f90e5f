/* cmd/machines/kv_db.h - the RocksDB database that all kv-disk replicas of a host share, and what lies in it.
 *
 * One database for thousands of shards: one WAL, one memtable, few files; a sync by one replica is a sync for all. It lies beside
 * the directories of the replicas (<data_dir>/../kv-disk), is opened with the first replica and closed with the last.
 *
 * Keys begin with shard id and replica id, both u64 big-endian, so that one replica's data lies together:
 *
 *     prefix 'A'                           record: u8 version 3, zero[3], u32 size of the name, u64 generation, u64 applied,
 *                                          u64 n, u64 identity, u64 batches, name; little-endian. Identity and name are those
 *                                          of the replica's directory.
 *     prefix 'B'                           count of batches, u64 little-endian: each that puts the record adds 1 to it
 *     prefix 'D' u64 generation, key       value of a key; the generation is big-endian
 *
 * The record is written in the same batch as every change, so `applied` and `n` (keys) are those of the data, always. Only data
 * of the record's generation counts: recover fills the next one and then switches by writing the record. What lies in others was
 * left by a crash and is deleted when the replica is opened. Replicas whose directory is gone were removed: the first to open the
 * database deletes what they left. One whose directory has another identity was removed and made again: it begins empty
 * (kv_disk_mark.c). So does one whose count is not what its record says (below).
 *
 * Durability. A batch is in the WAL, not synced; kv_db_sync syncs the WAL. After a power cut a suffix of all batches may be
 * missing, not one in the middle: RocksDB stops at a hole in a WAL, and each WAL is synced before the next one begins. But it
 * does not see each hole: sectors of zeros where a record would begin pass for the end of a part of the WAL. So the batches of a
 * replica are counted, by adding; a replica that lacks one has another count than its last record tells, and begins empty: the
 * host applies all again from its log, or says that the machine has lost data. After a failed write or sync nothing is known any
 * more about what is on the disk: every later one is refused until the process starts again. docs/FORMATS.md, "Key-value
 * database".
 *
 * Threads: any. Errors: EIO, ECORRUPT, ENOSPC, ELOCKED (another process has it), EUNSUPPORTED (another version wrote it).
 */
#ifndef NH_CMD_MACHINES_KV_DB_H
#define NH_CMD_MACHINES_KV_DB_H

#include <rocksdb/c.h>

#include "cmd/machines/kv_ops.h"

#define KV_DB_PREFIX_BYTES   16u
#define KV_DB_DATA_KEY_BYTES 25u /* before the key itself */
#define KV_DB_NAME_BYTES     256u
#define KV_DB_RECORD_VERSION 3u

struct kv_db;

/* `data_dir`: of any of the replicas. */
int kv_db_acquire(const char *data_dir, struct kv_db **ret, struct nh_error *err);
void kv_db_release(struct kv_db *db);
rocksdb_t *kv_db_handle(struct kv_db *db);
const rocksdb_readoptions_t *kv_db_read_options(struct kv_db *db); /* for single reads */

int kv_db_write(struct kv_db *db, rocksdb_writebatch_t *batch, bool sync, struct nh_error *err);
/* Everything written before is durable on return. Callers that come while a sync is running share the next one. */
int kv_db_sync(struct kv_db *db, struct nh_error *err);
/* The error of a RocksDB call, which it frees. */
int kv_db_error(char *message, const char *what, struct nh_error *err);

/* ---- keys and records ---- */

struct kv_db_replica {
    uint64_t shard_id, replica_id;
};

struct kv_db_record {
    uint64_t generation, applied, n, identity;
    uint64_t batches; /* with this one; any number at first */
    char name[KV_DB_NAME_BYTES];
};

/* A key of the database; small ones need no memory of their own. Always ends with kv_db_key_deinit. */
struct kv_db_key {
    char *data;
    size_t size;
    char small[256];
};

void kv_db_record_key(struct kv_db_key *k, struct kv_db_replica r);
void kv_db_data_key(struct kv_db_key *k, struct kv_db_replica r, uint64_t generation, struct kv_slice key);
void kv_db_key_deinit(struct kv_db_key *k);

/* Once per batch: counts it, too. */
void kv_db_put_record(rocksdb_writebatch_t *batch, struct kv_db_replica r, const struct kv_db_record *record);
/* The same where the count begins. */
void kv_db_put_first_record(rocksdb_writebatch_t *batch, struct kv_db_replica r, const struct kv_db_record *record);
/* 1: as many batches as the record says are in the database; 0: others; or a negative code. */
int kv_db_is_whole(rocksdb_t *db, const rocksdb_readoptions_t *options, struct kv_db_replica r, const struct kv_db_record *record,
                   struct nh_error *err);
/* 1: *ret is filled; 0: there is none; or a negative code. */
int kv_db_get_record(rocksdb_t *db, const rocksdb_readoptions_t *options, struct kv_db_replica r, struct kv_db_record *ret,
                     struct nh_error *err);
/* Whatever there is of a replica. */
void kv_db_delete_replica(rocksdb_writebatch_t *batch, struct kv_db_replica r);
/* Data of the generations [from, to). */
void kv_db_delete_generations(rocksdb_writebatch_t *batch, struct kv_db_replica r, uint64_t from, uint64_t to);
/* Deletes all data of a replica that is not of generation `keep`, if there is any. */
int kv_db_clean(struct kv_db *db, struct kv_db_replica r, uint64_t keep, struct nh_error *err);
/* Deletes what belongs to replicas that have no directory below `parent`. */
int kv_db_sweep(struct kv_db *db, const char *parent, struct nh_error *err);

#endif
