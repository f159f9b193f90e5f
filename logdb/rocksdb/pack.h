/* logdb/rocksdb/pack.h - records of a block without what repeats. Pure: no database, no threads.
 *
 * A record has 40 bytes around its payload (raftio/entry.h), and in a block nearly all of them follow from the record before:
 * term, type and origin are the same, index and key count up. RocksDB writes a block twice and copies and checksums it more often
 * than that, so for small payloads this is what a save costs: 56 bytes per entry of 16, packed 21.
 *
 * A packed block is a sequence of groups, little-endian, nothing between or behind them:
 *
 *     u32 head: n > 0 in the low 30 bits | PACK_KEYS_COUNT | PACK_RAW
 *     raw:     n records as they are (and PACK_KEYS_COUNT is 0)
 *     packed:  term u64, key of the first u64, the bytes [32, 40) of all: type, flags = 0, zero, origin
 *              n times: size as a varint, crc u32, payload without padding
 *
 * The index of a record is the block's first plus its place. With PACK_KEYS_COUNT each key is one more than that before, else all
 * are the same. Records in a session and large ones are raw.
 *
 * Unpacked records are the same bytes again. Their checksums came along and cover all of it: whoever decodes them would notice
 * an error of this file as corruption.
 */
#ifndef NH_LOGDB_ROCKSDB_PACK_H
#define NH_LOGDB_ROCKSDB_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftio/status.h"

#define PACK_RAW         (1u << 31)
#define PACK_KEYS_COUNT  (1u << 30)
#define PACK_N_MAX       (PACK_KEYS_COUNT - 1)
#define PACK_GROUP_BYTES 28u /* before the first record of a packed group */
/* Larger ones would not become much smaller, and raw they need not be copied. */
#define PACK_PAYLOAD_MAX 256u

/* Packs whole records that lie one after another. `out` has room for pack_room of them. Returns the bytes that are used. */
size_t pack_records(const uint8_t *records, size_t size_bytes, uint8_t *out);
static inline size_t pack_room(size_t size_bytes)
{
    return size_bytes + 16; /* a group is never larger than its records, but for a head; and payloads are copied by words */
}

/* A buffer that grows; zeroed at first, free `data` at last. */
struct unpacked {
    uint8_t *data;
    size_t size_bytes, cap;
};
/* Appends the records to `ret`, `first` being the index of the first. Errors: ECORRUPT. */
int unpack_records(const uint8_t *packed, size_t size_bytes, uint64_t first, struct unpacked *ret, struct nh_error *err);

#endif
