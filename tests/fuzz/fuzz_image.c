/* Images of any bytes: as they are, and with their checksums, numbers and digest made right, so that what lies behind those is
 * reached. What image_verify takes can be read and written again; what was written is taken, holds the same, and is written as
 * the same bytes from then on. What it refuses is refused by reading, too. */
#include <string.h>

#include "engine/rsm/image.h"
#include "engine/rsm/image_private.h"
#include "raftio/support/crc32c.h"
#include "tests/fuzz/fuzz.h"

struct bytes {
    uint8_t *data;
    size_t n, at;
    size_t step; /* most bytes of one read */
};

static int add(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    struct bytes *b = ctx;

    (void)err;
    b->data = realloc(b->data, b->n + size_bytes);
    FUZZ_CHECK(b->data);
    memcpy(b->data + b->n, data, size_bytes);
    b->n += size_bytes;
    return NH_OK;
}

static int64_t take(void *ctx, void *data, size_t cap_bytes, struct nh_error *err)
{
    struct bytes *b = ctx;
    size_t n = b->n - b->at;

    (void)err;
    if (n > cap_bytes)
        n = cap_bytes;
    if (n > b->step)
        n = b->step;
    if (n)
        memcpy(data, b->data + b->at, n);
    b->at += n;
    return (int64_t)n;
}

static struct image_source source_of(struct bytes *b, size_t step)
{
    b->at = 0;
    b->step = step;
    return (struct image_source){.read = take, .ctx = b};
}

/* ---- reading and writing again ---- */

typedef int (*write_fn)(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err);

static int copy_section(struct image_reader *r, struct image_writer *w, write_fn write, size_t cap)
{
    uint8_t *piece = malloc(cap);
    struct nh_error err = {0};
    int64_t n;

    FUZZ_CHECK(piece);
    while ((n = image_reader_read(r, piece, cap, &err)) > 0)
        FUZZ_CHECK(write(w, piece, (size_t)n, &err) == NH_OK);
    FUZZ_CHECK(n == 0 || (err.code == (int)n && err.text[0]));
    free(piece);
    return (int)n;
}

/* The writer takes sessions in one piece. */
static int copy_sessions(struct image_reader *r, struct image_writer *w)
{
    struct bytes all = {0};
    uint8_t piece[64];
    int64_t n;

    while ((n = image_reader_read(r, piece, sizeof piece, NULL)) > 0)
        add(&all, piece, (size_t)n, NULL);
    if (n == 0)
        FUZZ_CHECK(image_write_sessions(w, all.data, all.n, NULL) == NH_OK);
    free(all.data);
    return (int)n;
}

static int copy_file(struct image_reader *r, struct image_writer *w, size_t cap)
{
    struct image_file_info f;

    image_reader_file(r, &f);
    FUZZ_CHECK(f.meta_bytes <= NH_SNAPSHOT_FILE_META_MAX);
    FUZZ_CHECK(image_write_file(w, f.file_id, f.meta, f.meta_bytes, f.size_bytes, NULL) == NH_OK);
    return copy_section(r, w, image_write_file_data, cap);
}

static int copy_all(struct image_reader *r, struct image_writer *w, size_t cap)
{
    struct nh_error err = {0};
    int section, rc = NH_OK;
    uint64_t size;

    while (rc == NH_OK && (section = image_reader_next(r, &err)) != IMAGE_END) {
        if (section < 0)
            rc = section;
        else if (section == IMAGE_SESSIONS)
            rc = copy_sessions(r, w);
        else
            rc = section == IMAGE_DATA ? copy_section(r, w, image_write_data, cap) : copy_file(r, w, cap);
    }
    if (rc == NH_OK)
        FUZZ_CHECK(image_writer_finish(w, &size, &err) == NH_OK);
    return rc;
}

/* Into *ret what a writer makes of the image; the code of the reader. */
static int copy(struct bytes *image, size_t step, size_t cap, struct bytes *ret)
{
    struct image_source source = source_of(image, step);
    struct image_sink sink = {.write = add, .ctx = ret};
    struct image_writer *w;
    struct image_reader *r;
    struct image_head head;
    int rc = image_reader_new(&source, &head, &r, NULL);

    if (rc < 0)
        return rc;
    FUZZ_CHECK(image_writer_new(&sink, &head, &w, NULL) == NH_OK);
    rc = copy_all(r, w, cap);
    image_writer_free(w);
    image_reader_free(r);
    image_head_deinit(&head);
    return rc;
}

static void try_image(struct bytes *image)
{
    struct image_source source = source_of(image, SIZE_MAX);
    struct bytes first = {0}, second = {0};
    struct nh_error err = {0};
    int r = image_verify(&source, NULL, &err);

    FUZZ_CHECK(r == NH_OK || ((r == NH_ECORRUPT || r == NH_EUNSUPPORTED) && err.code == r && err.text[0]));
    FUZZ_CHECK(copy(image, 7, 1000, &first) == r);
    if (r == NH_OK) {
        source = source_of(&first, SIZE_MAX);
        FUZZ_CHECK(image_verify(&source, NULL, NULL) == NH_OK);
        FUZZ_CHECK(copy(&first, SIZE_MAX, 33, &second) == NH_OK);
        FUZZ_CHECK(first.n == second.n && memcmp(first.data, second.data, first.n) == 0);
    }
    free(first.data);
    free(second.data);
}

/* ---- repairing ---- */

/* Where the blocks begin; 0: there is no head. */
static size_t repair_head(struct bytes *b)
{
    size_t size;

    if (b->n < IMAGE_PREAMBLE_BYTES)
        return 0;
    size = IMAGE_PREAMBLE_BYTES + (size_t)nh_load_u32(b->data + 16);
    if (size > b->n || size < IMAGE_PREAMBLE_BYTES + IMAGE_CRC_BYTES)
        return 0;
    image_put_u32(b->data + 20, crc32c(0, b->data, 20));
    image_put_u32(b->data + size - IMAGE_CRC_BYTES, crc32c(0, b->data, size - IMAGE_CRC_BYTES));
    return size;
}

static void repair_end(struct bytes *b, size_t at, uint64_t n_blocks, uint64_t raw_bytes)
{
    struct image_digest *d = image_digest_new();

    FUZZ_CHECK(d);
    image_digest_add(d, b->data, at);
    at += IMAGE_BLOCK_HEAD_BYTES;
    image_put_u64(b->data + at, n_blocks);
    image_put_u64(b->data + at + 8, raw_bytes);
    image_digest_get(d, b->data + at + 16);
    image_digest_free(d);
}

static void repair(struct bytes *b)
{
    size_t at = repair_head(b);
    uint64_t raw_bytes = 0;

    for (uint64_t i = 0; at && b->n - at >= IMAGE_BLOCK_HEAD_BYTES; i++) {
        struct image_block_head h;

        image_block_head_decode(b->data + at, &h);
        if (h.stored_bytes > b->n - at - IMAGE_BLOCK_HEAD_BYTES)
            return;
        h.number = i;
        if (h.kind == IMAGE_END && h.stored_bytes == IMAGE_END_BYTES)
            repair_end(b, at, i, raw_bytes);
        image_block_seal(b->data + at, &h);
        raw_bytes += h.raw_bytes;
        at += IMAGE_BLOCK_HEAD_BYTES + (size_t)h.stored_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct bytes b = {.n = size_bytes, .data = malloc(size_bytes ? size_bytes : 1)};

    FUZZ_CHECK(b.data);
    if (size_bytes)
        memcpy(b.data, data, size_bytes);
    try_image(&b);
    repair(&b);
    try_image(&b);
    free(b.data);
    return 0;
}
