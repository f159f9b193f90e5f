/* cmd/machines/kv_image.h - the bytes of a snapshot of the key-value machines, written and read as a stream.
 *
 *     offset size
 *       0     4   magic     "NHKV"
 *       4     4   version   1
 *       8     8   applied   index of the last entry that is in it (kv-disk, which tells it at open); 0 in images of kv
 *      16     8   n         pairs that follow
 *      then n times:  u32 key size, u32 value size, key, value
 *
 * Numbers are little-endian. Keys rise strictly by bytes, so that a map has one image, whatever its history. Nothing follows the
 * last pair. The host has checksums around it (engine/rsm/image.h); a reader still takes nothing for granted: its memory is
 * bounded by the bytes that have arrived, not by the sizes that they tell. docs/FORMATS.md, "Key-value image".
 *
 * Threads: a writer or reader belongs to one. Errors: ECLOSED when `stop` is set, ECORRUPT, EUNSUPPORTED (another version), and
 * what the other end returns.
 */
#ifndef NH_CMD_MACHINES_KV_IMAGE_H
#define NH_CMD_MACHINES_KV_IMAGE_H

#include "cmd/machines/kv_ops.h"

#define KV_IMAGE_MAGIC      "NHKV"
#define KV_IMAGE_VERSION    1u
#define KV_IMAGE_HEAD_BYTES 24u

struct kv_image_writer {
    struct nh_writer *out;
    const volatile bool *stop;
    uint8_t *buffer;
    size_t size;
    int failed; /* the first failure; later pairs are ignored */
};

void kv_image_begin(struct kv_image_writer *w, struct nh_writer *out, const volatile bool *stop, uint64_t applied, uint64_t n);
/* In the order of keys. Returns 0 or the failure, on which a caller may stop early. */
int kv_image_put(struct kv_image_writer *w, struct kv_slice key, struct kv_slice value);
int kv_image_end(struct kv_image_writer *w, struct nh_error *err); /* always once; returns 0 or the failure */

struct kv_image_reader {
    struct nh_reader *in;
    const volatile bool *stop;
    uint8_t *buffer;
    size_t at, size;
    uint64_t applied, n, n_read;
    uint8_t *pair, *last; /* of the present pair and the one before */
    size_t pair_cap, last_cap;
    uint32_t last_key_size;
};

int kv_image_open(struct kv_image_reader *r, struct nh_reader *in, const volatile bool *stop, struct nh_error *err);
/* 1: a pair, valid until the next call; 0: the end, and the image was whole; or a negative code. */
int kv_image_next(struct kv_image_reader *r, struct kv_slice *ret_key, struct kv_slice *ret_value, struct nh_error *err);
void kv_image_close(struct kv_image_reader *r); /* always once */

#endif
