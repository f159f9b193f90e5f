#include "engine/rsm/image_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

/* One block at a time: read, checked, then given out. Whatever a writer would not have written is refused even if its checksum
 * is right, so that an image has one form. */
struct image_reader {
    struct image_source source;
    uint64_t offset; /* of the next byte from the source */
    uint64_t block_offset;
    uint64_t n_blocks, raw_bytes;
    bool dummy;
    bool last;       /* the present block ends its section */
    uint8_t section; /* enum image_section; 0: before the first one */
    struct image_block_head block;
    uint8_t head[IMAGE_BLOCK_HEAD_BYTES]; /* of the present block, as it is in the image */
    uint8_t *raw;                         /* bytes of the present block */
    size_t raw_at;                        /* how many of them were given out */
    uint8_t *stored;                      /* where compressed bytes are read to */
    uint64_t file_left;                   /* bytes of the present file that are in blocks to come */
    struct image_file_info file;
    uint8_t meta[NH_SNAPSHOT_FILE_META_MAX];
    struct image_file_ids files;
    struct image_digest *digest;
    struct image_unpacker *unpacker; /* NULL: nothing may be compressed */
    int failed;                      /* what it stays failed with */
};

/* ---- from the source ---- */

/* Up to n bytes: fewer only at the source's end. */
static int64_t read_some(struct image_reader *r, uint8_t *to, size_t n, struct nh_error *err)
{
    size_t got = 0;

    while (got < n) {
        int64_t more = r->source.read(r->source.ctx, to + got, n - got, err);

        if (more < 0)
            return more;
        if (more == 0)
            break;
        assert((uint64_t)more <= n - got);
        got += (size_t)more;
    }
    r->offset += got;
    return (int64_t)got;
}

/* Exactly n bytes. */
static int read_exactly(struct image_reader *r, uint8_t *to, size_t n, struct nh_error *err)
{
    int64_t got = read_some(r, to, n, err);

    if (got < 0)
        return (int)got;
    return (size_t)got == n ? NH_OK : nh_error_set(err, NH_ECORRUPT, "image at offset %" PRIu64 ": it ends here", r->offset);
}

static int refuse(const struct image_reader *r, const char *what, struct nh_error *err)
{
    return nh_error_set(err, NH_ECORRUPT, "image at offset %" PRIu64 ", block %" PRIu64 ": %s", r->block_offset, r->n_blocks,
                        what);
}

/* ---- blocks ---- */

/* What may be known before the checksum is: that the sizes are bounded. */
static const char *check_sizes(const struct image_block_head *h)
{
    if (h->raw_bytes > IMAGE_BLOCK_BYTES)
        return "a block longer than can be";
    if (h->compression == IMAGE_STORED)
        return h->stored_bytes == h->raw_bytes ? NULL : "two sizes of what is not compressed";
    return h->stored_bytes < h->raw_bytes ? NULL : "a compressed form that is not smaller";
}

static const char *check_head(const struct image_reader *r, const struct image_block_head *h)
{
    if (h->number != r->n_blocks)
        return "a block with another number";
    if (h->flags > IMAGE_BLOCK_LAST)
        return "unknown flags";
    if (h->compression > IMAGE_ZSTD || (h->compression && (!r->unpacker || h->kind == IMAGE_FILE || h->kind == IMAGE_END)))
        return "a compression that cannot be here";
    return NULL;
}

static const char *check_block(struct image_reader *r, const uint8_t *stored)
{
    const struct image_block_head *h = &r->block;
    const char *refused;

    if (image_block_crc(r->head, stored, h->stored_bytes) != h->crc)
        return "wrong checksum";
    refused = check_head(r, h);
    if (refused)
        return refused;
    if (h->compression && !image_unpack(r->unpacker, r->raw, h->raw_bytes, stored, h->stored_bytes))
        return "what cannot be decompressed";
    return NULL;
}

/* Reads the next block into `raw`. The digest at the end is of all blocks before it. */
static int load_block(struct image_reader *r, struct nh_error *err)
{
    const char *refused;
    uint8_t *to;
    int rc;

    r->block_offset = r->offset;
    rc = read_exactly(r, r->head, sizeof r->head, err);
    if (rc < 0)
        return rc;
    image_block_head_decode(r->head, &r->block);
    refused = check_sizes(&r->block);
    if (refused)
        return refuse(r, refused, err);
    to = r->block.compression && r->stored ? r->stored : r->raw;
    rc = read_exactly(r, to, r->block.stored_bytes, err);
    if (rc < 0)
        return rc;
    refused = check_block(r, to);
    if (refused)
        return refuse(r, refused, err);
    if (r->block.kind != IMAGE_END) {
        image_digest_add(r->digest, r->head, sizeof r->head);
        image_digest_add(r->digest, to, r->block.stored_bytes);
        r->n_blocks++;
        r->raw_bytes += r->block.raw_bytes;
    }
    r->raw_at = 0;
    r->last = r->block.flags & IMAGE_BLOCK_LAST;
    return NH_OK;
}

/* ---- sections ---- */

/* A block of bytes: full, unless it is the last one; empty only if its section is. */
static const char *check_bytes(const struct image_reader *r, bool first)
{
    if (!r->last && r->block.raw_bytes < IMAGE_BLOCK_BYTES)
        return "a block that is not full before the last one";
    return r->block.raw_bytes == 0 && !first ? "an empty block" : NULL;
}

static const char *check_file_bytes(const struct image_reader *r)
{
    if (r->block.raw_bytes > r->file_left)
        return "a file longer than it was said to be";
    if (r->last != (r->block.raw_bytes == r->file_left))
        return "a file with another size than it was said to have";
    return check_bytes(r, false);
}

/* The next block of the present section. */
static int load_more(struct image_reader *r, struct nh_error *err)
{
    uint8_t kind = r->section == IMAGE_FILE ? IMAGE_BLOCK_FILE_BYTES : r->section;
    const char *refused;
    int rc = load_block(r, err);

    if (rc < 0)
        return rc;
    if (r->block.kind != kind)
        refused = "a block of another section";
    else
        refused = r->section == IMAGE_FILE ? check_file_bytes(r) : check_bytes(r, false);
    if (refused)
        return refuse(r, refused, err);
    if (r->section == IMAGE_FILE)
        r->file_left -= r->block.raw_bytes;
    return NH_OK;
}

static bool may_follow(const struct image_reader *r, uint8_t kind)
{
    switch (kind) {
    case IMAGE_SESSIONS: return r->section == 0;
    case IMAGE_DATA: return r->section == IMAGE_SESSIONS && !r->dummy;
    case IMAGE_FILE: return r->section == IMAGE_DATA || r->section == IMAGE_FILE;
    case IMAGE_END: return r->section == IMAGE_DATA || r->section == IMAGE_FILE || (r->section == IMAGE_SESSIONS && r->dummy);
    default: return false;
    }
}

static const char *begin_file(struct image_reader *r)
{
    const char *refused;

    if (r->block.raw_bytes < IMAGE_FILE_HEAD_BYTES || r->block.raw_bytes > IMAGE_FILE_HEAD_BYTES + sizeof r->meta)
        return "the head of a file with a size that cannot be";
    r->file = (struct image_file_info){
        .file_id = nh_load_u64(r->raw),
        .size_bytes = nh_load_u64(r->raw + 8),
        .meta = r->meta,
        .meta_bytes = r->block.raw_bytes - IMAGE_FILE_HEAD_BYTES,
    };
    refused = image_file_ids_add(&r->files, r->file.file_id);
    if (refused)
        return refused;
    if (r->last != (r->file.size_bytes == 0))
        return "a file with another size than it was said to have";
    memcpy(r->meta, r->raw + IMAGE_FILE_HEAD_BYTES, r->file.meta_bytes);
    r->file_left = r->file.size_bytes;
    r->raw_at = r->block.raw_bytes; /* none of this is the file's bytes */
    return NULL;
}

static const char *check_end(const struct image_reader *r)
{
    uint8_t digest[IMAGE_DIGEST_BYTES];

    if (!r->last || r->block.raw_bytes != IMAGE_END_BYTES)
        return "an end that cannot be";
    image_digest_get(r->digest, digest);
    if (nh_load_u64(r->raw) != r->n_blocks || nh_load_u64(r->raw + 8) != r->raw_bytes)
        return "an end that counts something else";
    return memcmp(r->raw + 16, digest, sizeof digest) != 0 ? "wrong digest" : NULL;
}

/* Nothing follows an image. */
static int end(struct image_reader *r, struct nh_error *err)
{
    uint8_t byte;
    int64_t got;

    r->raw_at = r->block.raw_bytes;
    got = read_some(r, &byte, 1, err);
    if (got < 0)
        return (int)got;
    return got ? refuse(r, "something behind the end", err) : IMAGE_END;
}

static int begin_section(struct image_reader *r, struct nh_error *err)
{
    const char *refused;
    uint8_t kind;
    int rc = load_block(r, err);

    if (rc < 0)
        return rc;
    kind = r->block.kind;
    if (!may_follow(r, kind))
        return refuse(r, "a block that cannot follow", err);
    r->section = kind;
    refused = kind == IMAGE_FILE ? begin_file(r) : kind == IMAGE_END ? check_end(r) : check_bytes(r, true);
    if (refused)
        return refuse(r, refused, err);
    return kind == IMAGE_END ? end(r, err) : kind;
}

/* ---- calls: one that fails leaves a reader that fails ---- */

static int64_t settle(struct image_reader *r, int64_t rc)
{
    if (rc < 0)
        r->failed = (int)rc;
    return rc;
}

static int check_usable(const struct image_reader *r, struct nh_error *err)
{
    return r->failed ? nh_error_set(err, r->failed, "the image was refused before") : NH_OK;
}

static int go_to_next(struct image_reader *r, struct nh_error *err)
{
    int rc = check_usable(r, err);

    if (rc < 0 || r->section == IMAGE_END)
        return rc < 0 ? rc : IMAGE_END;
    while (rc == NH_OK && r->section && !r->last)
        rc = load_more(r, err);
    return rc < 0 ? rc : begin_section(r, err);
}

int image_reader_next(struct image_reader *r, struct nh_error *err)
{
    return (int)settle(r, go_to_next(r, err));
}

void image_reader_file(const struct image_reader *r, struct image_file_info *ret)
{
    *ret = r->file;
}

static int64_t read_section(struct image_reader *r, void *data, size_t cap_bytes, struct nh_error *err)
{
    int rc = check_usable(r, err);
    size_t n;

    if (rc == NH_OK && r->section == 0)
        rc = nh_error_set(err, NH_EINVAL, "no section of the image was begun");
    if (rc == NH_OK && r->raw_at == r->block.raw_bytes && !r->last)
        rc = load_more(r, err);
    if (rc < 0)
        return rc;
    n = r->block.raw_bytes - r->raw_at;
    if (n > cap_bytes)
        n = cap_bytes;
    if (n)
        memcpy(data, r->raw + r->raw_at, n);
    r->raw_at += n;
    return (int64_t)n;
}

int64_t image_reader_read(struct image_reader *r, void *data, size_t cap_bytes, struct nh_error *err)
{
    return settle(r, read_section(r, data, cap_bytes, err));
}

/* ---- the head, and the whole ---- */

/* Reads the head's rest behind its preamble. */
static int read_rest(struct image_reader *r, uint8_t *data, uint32_t rest, struct image_head *ret_head, struct nh_error *err)
{
    int rc = read_exactly(r, data + IMAGE_PREAMBLE_BYTES, rest, err);

    if (rc == NH_OK)
        rc = image_head_decode(data, IMAGE_PREAMBLE_BYTES + rest, ret_head, err);
    if (rc == NH_OK)
        image_digest_add(r->digest, data, IMAGE_PREAMBLE_BYTES + rest);
    return rc;
}

static int read_head(struct image_reader *r, struct image_head *ret_head, struct nh_error *err)
{
    uint8_t preamble[IMAGE_PREAMBLE_BYTES], *data;
    uint32_t rest;
    int rc = read_exactly(r, preamble, sizeof preamble, err);

    if (rc == NH_OK)
        rc = image_preamble_decode(preamble, &rest, err);
    if (rc < 0)
        return rc;
    data = xmalloc(IMAGE_PREAMBLE_BYTES + rest);
    memcpy(data, preamble, sizeof preamble);
    rc = read_rest(r, data, rest, ret_head, err);
    free(data);
    return rc;
}

static int prepare(struct image_reader *r, const struct image_head *head, struct nh_error *err)
{
    r->dummy = head->record.dummy;
    r->raw = xmalloc(IMAGE_BLOCK_BYTES);
    if (head->compression != IMAGE_ZSTD)
        return NH_OK;
    r->stored = xmalloc(IMAGE_BLOCK_BYTES);
    r->unpacker = image_unpacker_new();
    return r->unpacker ? NH_OK : nh_error_set(err, NH_ENOMEM, "no memory for an image");
}

int image_reader_new(const struct image_source *source, struct image_head *ret_head, struct image_reader **ret,
                     struct nh_error *err)
{
    struct image_reader *r = xcalloc(1, sizeof *r);
    struct image_head head = {0};
    int rc;

    r->source = *source;
    r->digest = image_digest_new();
    rc = r->digest ? read_head(r, &head, err) : nh_error_set(err, NH_ENOMEM, "no memory for an image");
    if (rc == NH_OK)
        rc = prepare(r, &head, err);
    if (rc < 0) {
        image_head_deinit(&head);
        image_reader_free(r);
        return rc;
    }
    *ret_head = head;
    *ret = r;
    return NH_OK;
}

void image_reader_free(struct image_reader *r)
{
    if (!r)
        return;
    image_digest_free(r->digest);
    image_unpacker_free(r->unpacker);
    free(r->raw);
    free(r->stored);
    free(r);
}

int image_verify(const struct image_source *source, struct image_head *ret_head, struct nh_error *err)
{
    struct image_head head;
    struct image_reader *r;
    int rc = image_reader_new(source, &head, &r, err);

    if (rc < 0)
        return rc;
    do
        rc = image_reader_next(r, err);
    while (rc > 0 && rc != IMAGE_END);
    image_reader_free(r);
    if (rc == IMAGE_END && ret_head)
        *ret_head = head;
    else
        image_head_deinit(&head);
    return rc < 0 ? rc : NH_OK;
}
