/* logdb/rocksdb/layout.h - keys and values of the RocksDB store. Pure: no database, no threads.
 *
 * Keys are big-endian, so that everything of one replica lies together and its blocks are in index order:
 *
 *     shard_id u64 | replica_id u64 | kind u8 [ | number u64 ]
 *
 *     kind           number           value
 *     1 block        index of entry 0 state header with n > 0, then n records as in raftio/entry.h, or packed (pack.h); or where
 *                                     these lie in the journal
 *     2 bootstrap    -                envelope: raftpb Bootstrap
 *     3 state        -                state header with n = 0
 *     4 start        -                envelope: first index of the log, u64. Absent: 1
 *     5 snapshot     -                envelope: raftpb Snapshot
 *     6 use          segment id       envelope: index of the first block that was put into this segment of the journal, u64
 *     7 horizon      -                of shard 0, replica 0. Envelope: horizon u64, floor u64 (journal.h)
 *
 * Ranges are deleted from the 16 bytes shard_id | replica_id on, which is no key and before all of the replica; blocks are
 * the first kind so that a range may end behind any of them. (RocksDB 7.8 keeps one insertion hint per key prefix for two
 * skip lists, keys and range tombstones, and corrupts them if a tombstone begins with a prefix that has a hint: open.c.)
 *
 * Values are little-endian and begin with a checksum.
 *
 *     envelope       offset size                       state header  offset size
 *                      0     4  crc32c of the rest                     0     4  crc32c of bytes [4, 48)
 *                      4     4  format = 1                             4     4  format: 1; 2 of a packed block; 3 and 4 the same,
 *                                                                              in the journal; 5 and 6, in several parts there
 *                      8     -  content                                8     4  n
 *                                                                     12     4  zero
 *                                                                     16     8  number of this save: 1, 2, ...
 *                                                                     24    24  term, vote, commit
 *
 * A block in the journal has behind its header the location of each of its *parts*: segment id u64, offset u64, size u32, n u32
 * (of one alone that of the header counts, older versions wrote zero). What it points to has the checksums of its records. Large
 * blocks lie there, small ones in the table, and what is moved out of the journal (reclaim.c). A replica's blocks in segment s
 * have indexes below those of its next use: once the log begins there, s is free of them, and parts below the start may point
 * to what is there no more.
 *
 * Blocks tile the log: the next block's key is this one's plus n. Only blocks below the start may be missing, or begin
 * below it. A block carries the hard state as of its save, so that the usual save (entries and state) is one key; the
 * state key is written when there is no block to carry it. The state of a replica is the one with the higher number of
 * {state key, last block}; saves are counted that have entries or a state. Truncation keeps this true because it always writes a
 * new last block; when a snapshot replaces the log, the state key is written; compaction never deletes the last block.
 */
#ifndef NH_LOGDB_ROCKSDB_LAYOUT_H
#define NH_LOGDB_ROCKSDB_LAYOUT_H

#include "raftio/types.h"

#define LAYOUT_FORMAT         1u
#define LAYOUT_FORMAT_PACKED  2u  /* of a block with packed records */
#define LAYOUT_FORMAT_LOCATED 3u  /* of a block in the journal; a packed one is one more */
#define LAYOUT_FORMAT_JOINED  5u  /* of one in several parts there; the same */
#define LAYOUT_REPLICA_BYTES  16u /* shard, replica */
#define LAYOUT_PREFIX_BYTES   17u /* shard, replica, kind */
#define LAYOUT_KEY_BYTES      25u /* the longest key */
#define LAYOUT_ENVELOPE_BYTES 8u
#define LAYOUT_HEADER_BYTES   48u
#define LAYOUT_LOCATION_BYTES 24u
#define LAYOUT_LOCATED_MAX    (NH_ENTRY_PAYLOAD_MAX + 4096u) /* bytes of a block in the journal: one record may be that large */

enum layout_kind {
    LAYOUT_BLOCK = 1,
    LAYOUT_BOOTSTRAP = 2,
    LAYOUT_STATE = 3,
    LAYOUT_START = 4,
    LAYOUT_SNAPSHOT = 5,
    LAYOUT_USE = 6,
    LAYOUT_HORIZON = 7,
    LAYOUT_END = 8, /* no record; the bound of a replica's keys */
};

typedef uint32_t (*layout_crc_fn)(uint32_t seed, const void *data, size_t size_bytes);

struct layout_key {
    size_t size_bytes;
    char bytes[LAYOUT_KEY_BYTES];
};

/* The part of a value that blocks and state records share. */
struct layout_header {
    uint32_t n;
    bool packed;
    bool located; /* locations follow, and not the records */
    bool joined;  /* several of them */
    uint64_t number;
    struct nh_state state;
};

/* Where in the journal the records of a block, or of a part of it, lie. */
struct layout_location {
    uint64_t segment_id;
    uint64_t offset;
    uint32_t size_bytes;
    uint32_t n; /* records */
};

/* The bound below all keys of the replica. Not a key. */
void layout_range_begin(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id);
void layout_key(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id, enum layout_kind kind);
void layout_block_key(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id, uint64_t index);
void layout_use_key(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id, uint64_t segment_id);
/* True if `key` is one of this replica and kind. */
bool layout_key_is(const char *key, size_t size_bytes, uint64_t shard_id, uint64_t replica_id, enum layout_kind kind);
/* Whose key or bound of keys it is; false if it is none. */
bool layout_key_replica(const char *key, size_t size_bytes, struct nh_replica_info *ret);
/* True if it is the bound behind all keys of a replica. */
bool layout_key_ends_replica(const char *key, size_t size_bytes);
/* Takes a key apart; false if it is not one of ours. *ret_index is its number, 0 for kinds without one. */
bool layout_key_parse(const char *key, size_t size_bytes, struct nh_replica_info *ret, enum layout_kind *ret_kind,
                      uint64_t *ret_index);

void layout_header_encode(const struct layout_header *h, layout_crc_fn crc, uint8_t out[LAYOUT_HEADER_BYTES]);
/* Errors: ECORRUPT. */
int layout_header_decode(const char *data, size_t size_bytes, layout_crc_fn crc, struct layout_header *ret, struct nh_error *err);

void layout_location_encode(const struct layout_location *l, uint8_t out[LAYOUT_LOCATION_BYTES]);
/* In the value of a block in the journal, the part with the record that `at` < h->n others are before; *ret_before of them are
 * before the part. Errors: ECORRUPT. */
int layout_location_find(const char *value, size_t size_bytes, const struct layout_header *h, uint32_t at,
                         struct layout_location *ret, uint32_t *ret_before, struct nh_error *err);

/* `out` holds LAYOUT_ENVELOPE_BYTES and then the content, which is there already. */
void layout_envelope_seal(uint8_t *out, size_t content_bytes, layout_crc_fn crc);
/* The content begins at data + LAYOUT_ENVELOPE_BYTES. Errors: ECORRUPT. */
int layout_envelope_check(const char *data, size_t size_bytes, layout_crc_fn crc, struct nh_error *err);

/* Walks the records of a block's value, which is not packed, whose first has index `first`: checks lengths and indexes, not the
 * checksums of the records (whoever decodes them does). Gives the offsets of record `from` and of the end of record `to - 1`,
 * stops early behind the record with which more than `max_bytes` are reached; *ret_to tells where. Errors: ECORRUPT. */
int layout_block_slice(const char *value, size_t size_bytes, uint64_t first, const struct layout_header *h, uint32_t from,
                       uint32_t to, size_t max_bytes, size_t *ret_begin, size_t *ret_end, uint32_t *ret_to, struct nh_error *err);

#endif
