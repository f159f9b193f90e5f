/* logdb/rocksdb/batch.h - a write batch in RocksDB's own form, as the journal has it. Pure.
 *
 *     sequence number u64, 0 | number of operations u32 | these, one after another:
 *
 *     u8 1, key, value       put
 *     u8 0, key              delete
 *     u8 15, key, key        delete from the first key on, before the second
 *
 * Numbers are little-endian; a key or value has its size before it, as a varint. There are more operations, which this store does
 * not use.
 */
#ifndef NH_LOGDB_ROCKSDB_BATCH_H
#define NH_LOGDB_ROCKSDB_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "raftio/status.h"

#define BATCH_COUNT_AT   8u
#define BATCH_HEAD_BYTES 12u

enum batch_kind { BATCH_DELETE = 0, BATCH_PUT = 1, BATCH_DELETE_RANGE = 15 };

struct batch_operation {
    enum batch_kind kind;
    const char *key, *value; /* in the batch; value: of a put, or the second key of a range */
    size_t key_bytes, value_bytes;
};

struct batch_reader {
    const uint8_t *at, *end;
};

/* Errors: ECORRUPT. */
int batch_read_begin(struct batch_reader *r, const void *batch, size_t size_bytes, struct nh_error *err);
/* The next operation. Returns 1, or 0 at the end. Errors: ECORRUPT. */
int batch_read(struct batch_reader *r, struct batch_operation *ret, struct nh_error *err);

#endif
