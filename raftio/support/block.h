/* raftio/support/block.h - building, sealing, checking and slicing blocks of records (format: raftio/entry.h).
 *
 * A `struct block_builder` collects unsealed records (proposals in an inbox); `block_seal` gives them term, indexes and
 * checksums and makes a block of them. Decoding goes the other way: bytes that came from disk or wire are verified and
 * copied into blocks, one block per term.
 *
 * Threads: a builder belongs to whoever holds its lock; a sealed block is immutable and shared by reference.
 */
#ifndef NH_RAFTIO_SUPPORT_BLOCK_H
#define NH_RAFTIO_SUPPORT_BLOCK_H

#include "raftio/entry.h"
#include "raftio/support/memory.h"

/* Records under construction. Zeroed = empty. */
struct block_builder {
    uint8_t *data;
    size_t size_bytes;
    size_t cap_bytes;
    uint32_t *offsets; /* n + 1 used */
    uint32_t n;
    uint32_t cap_offsets;
    bool is_reused; /* its owner wants the arrays back, and deinits it */
};

/* What a proposal brings. client_id 0: no session. */
struct block_record {
    uint8_t type; /* enum nh_entry_type */
    uint32_t origin;
    uint64_t key;
    uint64_t client_id, series_id, responded_to;
    const void *payload;
    uint32_t payload_bytes;
};

void block_builder_deinit(struct block_builder *b);
/* Makes room for `n` more records of `size_bytes` in all, which otherwise is found step by step. Returns NH_ETOOBIG past 4 GiB.
 */
int block_builder_reserve(struct block_builder *b, uint32_t n, size_t size_bytes);
/* Appends an unsealed record (term, index, crc 0). Returns NH_ETOOBIG past NH_ENTRY_PAYLOAD_MAX or 4 GiB in all. */
int block_builder_add(struct block_builder *b, const struct block_record *rec);
/* Appends records that came from a forwarder, still unsealed; verifies lengths and types (application, configuration change).
 * Returns NH_ECORRUPT for a malformed sequence, NH_ETOOBIG past 4 GiB in all; the builder is then unchanged. */
int block_builder_add_encoded(struct block_builder *b, const uint8_t *records, size_t size_bytes, struct nh_error *err);

/* Makes a sealed block of all records (term, indexes first_index.., crc) and empties the builder. n must be > 0. The block adopts
 * the builder's arrays; of a builder that is reused a small one is a copy. */
struct nh_block *block_seal(struct block_builder *b, uint64_t term, uint64_t first_index);
/* Makes an *unsealed* block (term 0, first_index 0, no crc): what a forwarded Propose message carries. Empties the builder. */
struct nh_block *block_unsealed(struct block_builder *b);

/* Makes a run of the records of one term at the start of `records`: *ret_bytes of them, not 0. Verifies (lengths, crc,
 * consecutive indexes) and copies; with expect_first != 0 the first record must have that index. The caller owns the run's block.
 * Errors: ECORRUPT, with the index in the text. */
int run_decode(struct nh_run *ret, const uint8_t *records, size_t size_bytes, uint64_t expect_first, size_t *ret_bytes,
               struct nh_error *err);

/* A growable array of runs, each holding a reference. Zeroed = empty. */
struct run_list {
    struct nh_run *runs;
    uint32_t n;
    uint32_t cap;
};

void run_list_deinit(struct run_list *l);
/* Appends a slice; takes a new reference. Merges with the last run when it continues it in the same block. */
void run_list_add(struct run_list *l, struct nh_block *block, uint32_t from, uint32_t to);
size_t run_list_bytes(const struct run_list *l);
static inline size_t runs_bytes(const struct nh_run *runs, size_t n)
{
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += nh_run_size(&runs[i]);
    return bytes;
}
/* Verifies (lengths, crc, consecutive indexes, terms that do not fall) and copies records into blocks, appended to `l`.
 * What `l` already holds must be continued; else, with expect_first != 0, the first record must have that index.
 * Errors: ECORRUPT, with the index in the text; `l` is then as before. */
int run_list_decode(struct run_list *l, const uint8_t *records, size_t size_bytes, uint64_t expect_first, struct nh_error *err);
/* As above for unsealed records (forwarded proposals): lengths and types only; one block with first_index 0. */
int run_list_decode_unsealed(struct run_list *l, const uint8_t *records, size_t size_bytes, struct nh_error *err);

/* Asks for what reading a run of small entries touches: first its block with the records at its beginning, and when that has come
 * the offsets, which may lie elsewhere. */
#define RUN_PREFETCH_RECORDS_BYTES 320u
static inline void run_prefetch_block(const struct nh_run *run)
{
    prefetch(run->block, sizeof *run->block + RUN_PREFETCH_RECORDS_BYTES);
}
static inline void run_prefetch_offsets(const struct nh_run *run)
{
    prefetch(run->block->offsets, 1);
}

#endif
