/* engine/rsm/image_private.h - what the writer and the reader of images share: the head, blocks, the digest.
 *
 * The bytes are described in docs/FORMATS.md, "Snapshot image". Errors: ECORRUPT, EUNSUPPORTED, ENOMEM (zstd). Threads: as
 * image.h.
 */
#ifndef NH_ENGINE_RSM_IMAGE_PRIVATE_H
#define NH_ENGINE_RSM_IMAGE_PRIVATE_H

#include <stdbool.h>

#include "engine/rsm/image.h"

#define IMAGE_PREAMBLE_BYTES   24u /* of the head: what never changes, whatever the version */
#define IMAGE_CRC_BYTES        4u
#define IMAGE_BLOCK_HEAD_BYTES 24u
#define IMAGE_FILE_HEAD_BYTES  16u
#define IMAGE_DIGEST_BYTES     16u
#define IMAGE_END_BYTES        (16u + IMAGE_DIGEST_BYTES)
#define IMAGE_BLOCK_FILE_BYTES 5u /* the kind of a block: enum image_section, or this */
#define IMAGE_BLOCK_LAST       1u /* flag: ends its section */

static inline void image_put_u32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof v);
}
static inline void image_put_u64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof v);
}

/* ---- the head ---- */

/* A new allocation: preamble, content and checksum. Errors: EINVAL (a name, the compression), ETOOBIG. */
int image_head_encode(const struct image_head *head, uint8_t **ret, size_t *ret_size, struct nh_error *err);
/* Checks a preamble; *ret_rest: how many bytes follow it in the head. */
int image_preamble_decode(const uint8_t *preamble, uint32_t *ret_rest, struct nh_error *err);
/* The whole head, whose preamble was decoded. *ret: image_head_deinit. */
int image_head_decode(const uint8_t *data, size_t size_bytes, struct image_head *ret, struct nh_error *err);

/* ---- blocks ---- */

struct image_block_head {
    uint32_t crc;
    uint8_t kind;
    uint8_t compression; /* enum image_compression */
    uint16_t flags;
    uint64_t number;
    uint32_t raw_bytes;
    uint32_t stored_bytes;
};

/* Writes the head to `block`, behind which the stored bytes lie already; fills in the checksum. */
void image_block_seal(uint8_t *block, const struct image_block_head *h);
void image_block_head_decode(const uint8_t *block, struct image_block_head *ret);
/* The checksum of a block: `head` as it is in the image, and what is stored. */
uint32_t image_block_crc(const uint8_t *head, const uint8_t *stored, size_t stored_bytes);

/* ---- compression ---- */

/* Most bytes that packing a block may need. */
size_t image_pack_bound(void);
struct image_packer;   /* to zstd; NULL where nothing is compressed */
struct image_unpacker; /* from zstd */

/* NULL: no memory. */
struct image_packer *image_packer_new(void);
void image_packer_free(struct image_packer *p); /* takes NULL */
/* How many bytes the compressed form has; 0: it is not smaller. `out` has room for image_pack_bound. */
size_t image_pack(struct image_packer *p, uint8_t *out, const uint8_t *raw, size_t raw_bytes);
struct image_unpacker *image_unpacker_new(void);
void image_unpacker_free(struct image_unpacker *u); /* takes NULL */
/* True if `stored` is one frame of exactly raw_bytes, which are in `raw` now. */
bool image_unpack(struct image_unpacker *u, uint8_t *raw, size_t raw_bytes, const uint8_t *stored, size_t stored_bytes);

/* ---- the digest ---- */

struct image_digest;

struct image_digest *image_digest_new(void);
void image_digest_free(struct image_digest *d); /* takes NULL */
void image_digest_add(struct image_digest *d, const void *data, size_t size_bytes);
void image_digest_get(const struct image_digest *d, uint8_t ret[IMAGE_DIGEST_BYTES]);

/* ---- files ---- */

/* Ids that were seen: each may be there once. */
struct image_file_ids {
    uint64_t ids[NH_SNAPSHOT_FILES_MAX];
    uint32_t n;
};
/* Why this id cannot be added; NULL: it was. */
const char *image_file_ids_add(struct image_file_ids *f, uint64_t file_id);

#endif
