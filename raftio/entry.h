/* raftio/entry.h - log entries: the record format, blocks and runs.
 *
 * An entry is encoded once, when its proposal is taken, and that form is what the log stores, what the wire carries
 * and what a machine reads. A *record* is one encoded entry; a *block* is an immutable, reference-counted array of
 * records with consecutive indexes and one term; a *run* is a slice of a block.
 *
 * Record format, version 1 (little-endian; every record starts and ends on a multiple of 8 bytes):
 *
 *     offset size
 *       0     4   crc32c   of the bytes [4, NH_RECORD_HEADER_BYTES + size): header rest, session, payload; not the padding
 *       4     4   size     of what follows the header: session words (if any) and payload, without padding
 *       8     8   term
 *      16     8   index
 *      24     8   key      origin's request key: incarnation << 40 | counter; 0: nobody waits for this entry
 *      32     1   type     enum nh_entry_type
 *      33     1   flags    NH_RECORD_SESSION
 *      34     2   zero
 *      36     4   origin   low 32 bits of the replica id at which the entry was proposed
 *      40     -   if flags & NH_RECORD_SESSION: u64 client_id, u64 series_id, u64 responded_to
 *       -     -   payload
 *       -     -   zero bytes up to a multiple of 8
 *
 * (origin, key) names a request for ever: `incarnation` is a counter in the host's data directory that grows with
 * every start, so an entry of an earlier life of a replica cannot complete a request of a later one.
 *
 * Term, index and crc are filled by the leader when it appends ("sealed"); until then they are 0.
 *
 * Threads: records of a sealed block never change; references are counted atomically and may be dropped by any thread.
 */
#ifndef NH_RAFTIO_ENTRY_H
#define NH_RAFTIO_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "raftio/status.h"

NH_BEGIN_DECLS

enum nh_entry_type {
    NH_ENTRY_APPLICATION = 0,   /* bytes for the machine; an empty payload without key is a leader's no-op */
    NH_ENTRY_CONFIG_CHANGE = 1, /* payload: raftpb ConfigChange */
    NH_ENTRY_ENCODED = 2,       /* reserved: compressed payload */
    NH_ENTRY_METADATA = 3,      /* index and term only: what a witness stores; with a key: a barrier */
};

#define NH_RECORD_HEADER_BYTES  40u
#define NH_RECORD_SESSION_BYTES 24u
#define NH_RECORD_SESSION       1u
#define NH_RECORD_ALIGN         8u
/* Largest payload of one entry. Larger proposals are refused with NH_ETOOBIG before anything is copied. */
#define NH_ENTRY_PAYLOAD_MAX (64u * 1024u * 1024u)

/* A decoded entry: a view into a record. */
struct nh_entry_view {
    uint64_t term;
    uint64_t index;
    uint64_t key;
    uint32_t origin;
    uint8_t type; /* enum nh_entry_type */
    uint8_t flags;
    uint64_t client_id; /* 0 without session */
    uint64_t series_id;
    uint64_t responded_to;
    const uint8_t *payload;
    uint32_t payload_bytes;
};

/* An immutable array of records. `offsets` has n + 1 elements: record i is data[offsets[i] .. offsets[i + 1]).
 * Made and freed by the host only; a plugin reads it through runs. */
struct nh_block {
    uint32_t refs; /* atomic; use nh_block_ref / nh_block_unref */
    uint32_t n;
    uint64_t first_index;
    uint64_t term; /* of every record in the block */
    const uint32_t *offsets;
    const uint8_t *data;
    uint32_t types; /* 1 << type for each type (enum nh_entry_type) of which there may be records */
};

/* Records [from, to) of `block`. */
struct nh_run {
    struct nh_block *block;
    uint32_t from;
    uint32_t to;
};

static inline uint64_t nh_run_first(const struct nh_run *r)
{
    return r->block->first_index + r->from;
}
static inline uint64_t nh_run_last(const struct nh_run *r)
{
    return r->block->first_index + r->to - 1;
}
static inline uint32_t nh_run_count(const struct nh_run *r)
{
    return r->to - r->from;
}
static inline uint64_t nh_run_term(const struct nh_run *r)
{
    return r->block->term;
}
/* The records of a run lie one after another: nh_run_size bytes at nh_run_data. */
static inline const uint8_t *nh_run_data(const struct nh_run *r)
{
    return r->block->data + r->block->offsets[r->from];
}
static inline size_t nh_run_size(const struct nh_run *r)
{
    return (size_t)(r->block->offsets[r->to] - r->block->offsets[r->from]);
}

static inline uint64_t nh_load_u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v; /* hosts are little-endian: checked at compile time in raftio/support/block.c */
}
static inline uint32_t nh_load_u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}
static inline size_t nh_record_padded(size_t bytes)
{
    return (bytes + (NH_RECORD_ALIGN - 1u)) & ~(size_t)(NH_RECORD_ALIGN - 1u);
}
/* Bytes that the record at `p` occupies, padding included. At least NH_RECORD_HEADER_BYTES must be readable. */
static inline size_t nh_record_bytes(const uint8_t *p)
{
    return nh_record_padded((size_t)NH_RECORD_HEADER_BYTES + nh_load_u32(p + 4));
}
static inline uint64_t nh_record_term(const uint8_t *p)
{
    return nh_load_u64(p + 8);
}
static inline uint64_t nh_record_index(const uint8_t *p)
{
    return nh_load_u64(p + 16);
}
static inline uint64_t nh_record_key(const uint8_t *p)
{
    return nh_load_u64(p + 24);
}
static inline uint8_t nh_record_type(const uint8_t *p)
{
    return p[32];
}

/* Views a record that is known to be whole (from a sealed block). */
static inline void nh_record_view(const uint8_t *p, struct nh_entry_view *ret)
{
    uint32_t head = NH_RECORD_HEADER_BYTES;

    ret->term = nh_record_term(p);
    ret->index = nh_record_index(p);
    ret->key = nh_record_key(p);
    ret->type = p[32];
    ret->flags = p[33];
    ret->origin = nh_load_u32(p + 36);
    ret->client_id = ret->series_id = ret->responded_to = 0;
    ret->payload_bytes = nh_load_u32(p + 4);
    if (ret->flags & NH_RECORD_SESSION) {
        ret->client_id = nh_load_u64(p + 40);
        ret->series_id = nh_load_u64(p + 48);
        ret->responded_to = nh_load_u64(p + 56);
        head += NH_RECORD_SESSION_BYTES;
        ret->payload_bytes -= NH_RECORD_SESSION_BYTES;
    }
    ret->payload = p + head;
}

/* Takes a reference; gives `b` back. */
NH_API struct nh_block *nh_block_ref(struct nh_block *b);
NH_API void nh_block_unref(struct nh_block *b); /* takes NULL */

NH_END_DECLS
#endif
