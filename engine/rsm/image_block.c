#include "engine/rsm/image_private.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#include "raftio/support/crc32c.h"
#include "raftio/support/memory.h"

/* Images are made beside the work of a host: the fastest level takes most of what there is to win. */
#define ZSTD_LEVEL 1

/* ---- blocks ---- */

uint32_t image_block_crc(const uint8_t *head, const uint8_t *stored, size_t stored_bytes)
{
    return crc32c(crc32c(0, head + IMAGE_CRC_BYTES, IMAGE_BLOCK_HEAD_BYTES - IMAGE_CRC_BYTES), stored, stored_bytes);
}

void image_block_seal(uint8_t *block, const struct image_block_head *h)
{
    block[4] = h->kind;
    block[5] = h->compression;
    block[6] = (uint8_t)h->flags;
    block[7] = (uint8_t)(h->flags >> 8);
    image_put_u64(block + 8, h->number);
    image_put_u32(block + 16, h->raw_bytes);
    image_put_u32(block + 20, h->stored_bytes);
    image_put_u32(block, image_block_crc(block, block + IMAGE_BLOCK_HEAD_BYTES, h->stored_bytes));
}

void image_block_head_decode(const uint8_t *block, struct image_block_head *ret)
{
    *ret = (struct image_block_head){
        .crc = nh_load_u32(block),
        .kind = block[4],
        .compression = block[5],
        .flags = (uint16_t)(block[6] | block[7] << 8),
        .number = nh_load_u64(block + 8),
        .raw_bytes = nh_load_u32(block + 16),
        .stored_bytes = nh_load_u32(block + 20),
    };
}

/* ---- compression: a packer is zstd's context ---- */

static ZSTD_CCtx *cctx(struct image_packer *p)
{
    return (ZSTD_CCtx *)p;
}

static ZSTD_DCtx *dctx(struct image_unpacker *u)
{
    return (ZSTD_DCtx *)u;
}

size_t image_pack_bound(void)
{
    return ZSTD_COMPRESSBOUND(IMAGE_BLOCK_BYTES);
}

struct image_packer *image_packer_new(void)
{
    return (struct image_packer *)ZSTD_createCCtx();
}

void image_packer_free(struct image_packer *p)
{
    ZSTD_freeCCtx(cctx(p));
}

size_t image_pack(struct image_packer *p, uint8_t *out, const uint8_t *raw, size_t raw_bytes)
{
    size_t n = ZSTD_compressCCtx(cctx(p), out, image_pack_bound(), raw, raw_bytes, ZSTD_LEVEL);

    return !ZSTD_isError(n) && n < raw_bytes ? n : 0;
}

struct image_unpacker *image_unpacker_new(void)
{
    return (struct image_unpacker *)ZSTD_createDCtx();
}

void image_unpacker_free(struct image_unpacker *u)
{
    ZSTD_freeDCtx(dctx(u));
}

bool image_unpack(struct image_unpacker *u, uint8_t *raw, size_t raw_bytes, const uint8_t *stored, size_t stored_bytes)
{
    return ZSTD_findFrameCompressedSize(stored, stored_bytes) == stored_bytes &&
           ZSTD_decompressDCtx(dctx(u), raw, raw_bytes, stored, stored_bytes) == raw_bytes;
}

/* ---- the digest: XXH3's state, which knows its own alignment ---- */

static XXH3_state_t *xxh(const struct image_digest *d)
{
    return (XXH3_state_t *)(size_t)d;
}

struct image_digest *image_digest_new(void)
{
    XXH3_state_t *state = XXH3_createState();

    if (state)
        XXH3_128bits_reset(state);
    return (struct image_digest *)state;
}

void image_digest_free(struct image_digest *d)
{
    if (d)
        XXH3_freeState(xxh(d));
}

void image_digest_add(struct image_digest *d, const void *data, size_t size_bytes)
{
    XXH3_128bits_update(xxh(d), data, size_bytes);
}

void image_digest_get(const struct image_digest *d, uint8_t ret[IMAGE_DIGEST_BYTES])
{
    XXH128_canonical_t canonical;

    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(xxh(d)));
    memcpy(ret, canonical.digest, IMAGE_DIGEST_BYTES);
}

/* ---- files ---- */

const char *image_file_ids_add(struct image_file_ids *f, uint64_t file_id)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (f->ids[i] == file_id)
            return "an id that is there already";
    if (f->n == NH_SNAPSHOT_FILES_MAX)
        return "too many files";
    f->ids[f->n++] = file_id;
    return NULL;
}
