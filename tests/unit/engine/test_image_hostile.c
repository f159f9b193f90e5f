/* Snapshot images as they should not be: damaged by accident, or made with right checksums by somebody else. */
#include "tests/unit/engine/image_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/crc32c.h"

static struct content c;
static struct bytes image;
static struct nh_error err;

static void teardown(void)
{
    content_deinit(&c);
    bytes_free(&image);
}

TestSuite(image_hostile, .fini = teardown);

static void expect_refused(const struct bytes *b, int code, const char *text)
{
    err = (struct nh_error){0};
    cr_assert_eq(verify(b->data, b->n, &err), code, "%s: %s", text, err.text);
    cr_assert_eq(err.code, code);
    cr_assert_not_null(strstr(err.text, text), "'%s' is not in: %s", text, err.text);
}

/* ---- accidents ---- */

static void damage_everywhere(enum image_compression compression)
{
    content_small(&c, compression);
    image = content_write(&c, 0);
    for (size_t i = 0; i < image.n; i++)
        for (unsigned change = 1; change <= 256; change *= 2) {
            uint8_t flips = change == 256 ? 0xff : (uint8_t)change;

            image.data[i] ^= flips;
            expect_refused(&image, NH_ECORRUPT, "");
            image.data[i] ^= flips;
        }
}

Test(image_hostile, every_flip_in_a_stored_image_is_refused)
{
    damage_everywhere(IMAGE_STORED);
}

Test(image_hostile, every_flip_in_a_compressed_image_is_refused)
{
    damage_everywhere(IMAGE_ZSTD);
}

Test(image_hostile, every_truncation_is_refused)
{
    for (int compression = IMAGE_STORED; compression <= IMAGE_ZSTD; compression++) {
        content_small(&c, (enum image_compression)compression);
        image = content_write(&c, 0);
        for (size_t n = 0; n < image.n; n++)
            expect_refused(&(struct bytes){image.data, n}, NH_ECORRUPT, "it ends here");
        bytes_add(&image, "", 1);
        expect_refused(&image, NH_ECORRUPT, "something behind the end");
        teardown();
    }
}

/* An image of many equal blocks, of which only the numbers tell one from the other. */
static unsigned make_blocks(size_t offsets[BLOCKS_MAX + 1])
{
    content_init(&c, IMAGE_ZSTD);
    bytes_fill(&c.data, 4 * IMAGE_BLOCK_BYTES, 1);
    memset(c.data.data, 'a', c.data.n);
    content_add_file(&c, 1, "", 100);
    content_add_file(&c, 2, "", 100);
    image = content_write(&c, 0);
    return find_blocks(&image, offsets);
}

/* The image with its blocks in another order, without some, with some twice. */
static struct bytes arrange(const size_t *offsets, const unsigned *order, unsigned n)
{
    struct bytes b = {0};

    bytes_add(&b, image.data, offsets[0]);
    for (unsigned i = 0; i < n; i++)
        bytes_add(&b, image.data + offsets[order[i]], offsets[order[i] + 1] - offsets[order[i]]);
    return b;
}

static void expect_arranged_refused(const size_t *offsets, const unsigned *order, unsigned n)
{
    struct bytes b = arrange(offsets, order, n);

    expect_refused(&b, NH_ECORRUPT, "");
    bytes_free(&b);
}

Test(image_hostile, swapped_blocks_are_refused)
{
    size_t offsets[BLOCKS_MAX + 1];
    unsigned n = make_blocks(offsets), order[BLOCKS_MAX];

    cr_assert_eq(n, 10);
    for (unsigned a = 0; a < n; a++)
        for (unsigned b = a + 1; b < n; b++) {
            for (unsigned i = 0; i < n; i++)
                order[i] = i == a ? b : i == b ? a : i;
            expect_arranged_refused(offsets, order, n);
        }
}

Test(image_hostile, lost_and_doubled_blocks_are_refused)
{
    size_t offsets[BLOCKS_MAX + 1];
    unsigned n = make_blocks(offsets), order[BLOCKS_MAX + 1];

    for (unsigned a = 0; a < n; a++) {
        for (unsigned i = 0; i < n - 1; i++)
            order[i] = i < a ? i : i + 1;
        expect_arranged_refused(offsets, order, n - 1);
        for (unsigned i = 0; i < n + 1; i++)
            order[i] = i <= a ? i : i - 1;
        expect_arranged_refused(offsets, order, n + 1);
    }
    for (unsigned i = 0; i < n; i++)
        order[i] = i;
    image.data[0] ^= 1;
    expect_arranged_refused(offsets, order, n);
    image.data[0] ^= 1;
    bytes_free(&c.data);
    c.data = arrange(offsets, order, n);
    cr_assert_eq(verify(c.data.data, c.data.n, &err), NH_OK);
}

/* A block of one image in another one, at the same place: only the digest knows. */
Test(image_hostile, a_block_of_another_image_is_refused)
{
    size_t offsets[BLOCKS_MAX + 1];
    struct bytes other;

    content_small(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    c.data.data[0] ^= 1;
    other = content_write(&c, 0);
    find_blocks(&image, offsets);
    memcpy(image.data + offsets[1], other.data + offsets[1], offsets[2] - offsets[1]);
    expect_refused(&image, NH_ECORRUPT, "wrong digest");
    bytes_free(&other);
}

/* ---- made with right checksums ---- */

static void reseal(size_t block)
{
    struct image_block_head h;

    image_block_head_decode(image.data + block, &h);
    image_put_u32(image.data + block,
                  image_block_crc(image.data + block, image.data + block + IMAGE_BLOCK_HEAD_BYTES, h.stored_bytes));
}

/* Fields of a block's head, and of what is in it. */
enum { KIND = 4, COMPRESSION = 5, FLAGS = 6, NUMBER = 8, RAW = 16, STORED = 20, BYTES = 24 };

/* The blocks of content_small: sessions, data, file 3, its 5 bytes, file 1 of no bytes, end. */
static const struct forgery {
    unsigned block;
    size_t field;
    uint32_t value;
    unsigned width;
    const char *text;
} forgeries[] = {
    {0, KIND, 0, 1, "cannot follow"},
    {0, KIND, IMAGE_DATA, 1, "cannot follow"},
    {1, KIND, IMAGE_SESSIONS, 1, "cannot follow"},
    {1, KIND, IMAGE_FILE, 1, "cannot follow"},
    {1, KIND, IMAGE_END, 1, "cannot follow"},
    {1, KIND, IMAGE_BLOCK_FILE_BYTES, 1, "cannot follow"},
    {1, KIND, 6, 1, "cannot follow"},
    {2, KIND, IMAGE_DATA, 1, "cannot follow"},
    {3, KIND, IMAGE_DATA, 1, "another section"},
    {3, KIND, IMAGE_END, 1, "another section"},
    {0, FLAGS, 2, 1, "unknown flags"},
    {0, FLAGS, 0x101, 2, "unknown flags"},
    {1, FLAGS, 0, 1, "not full before the last"},
    {1, NUMBER, 2, 4, "another number"},
    {1, NUMBER + 4, 1, 4, "another number"},
    {1, RAW, 65, 4, "two sizes"},
    {1, RAW, IMAGE_BLOCK_BYTES + 1, 4, "longer than can be"},
    {1, STORED, UINT32_MAX, 4, "two sizes"},
    {1, COMPRESSION, IMAGE_ZSTD, 1, "not smaller"},
    {2, BYTES + 8, 6, 4, "another size"},
    {2, BYTES + 8, 4, 4, "longer than it was said"},
    {2, BYTES + 12, 1, 4, "another size"},
    {2, BYTES + 8, 0, 4, "another size"},
    {2, FLAGS, 1, 1, "another size"},
    {3, FLAGS, 0, 1, "another size"},
    {4, BYTES, 3, 4, "there already"},
    {4, BYTES + 8, 1, 4, "another size"},
    {4, FLAGS, 0, 1, "another size"},
    {5, FLAGS, 0, 1, "cannot be"},
    {5, BYTES, 6, 4, "counts something else"},
    {5, BYTES + 8, 0, 4, "counts something else"},
    {5, BYTES + 16, 0, 4, "wrong digest"},
    {5, BYTES + 28, 0, 4, "wrong digest"},
};

Test(image_hostile, forged_fields_are_refused_for_what_they_are)
{
    size_t offsets[BLOCKS_MAX + 1];

    for (size_t i = 0; i < sizeof forgeries / sizeof forgeries[0]; i++) {
        const struct forgery *f = &forgeries[i];

        content_small(&c, IMAGE_STORED);
        image = content_write(&c, 0);
        cr_assert_eq(find_blocks(&image, offsets), 6);
        memcpy(image.data + offsets[f->block] + f->field, &f->value, f->width);
        if (f->field != STORED)
            reseal(offsets[f->block]);
        expect_refused(&image, NH_ECORRUPT, f->text);
        teardown();
    }
}

/* Begins an image by hand, with the head of `c`. */
static void begin(enum image_compression compression, bool dummy)
{
    uint8_t *head;
    size_t n;

    content_init(&c, compression);
    c.head.record.dummy = dummy;
    cr_assert_eq(image_head_encode(&c.head, &head, &n, &err), NH_OK);
    bytes_add(&image, head, n);
    free(head);
}

static void add_block(struct image_block_head h, const void *stored)
{
    size_t at = image.n;

    if (!h.stored_bytes)
        h.stored_bytes = h.raw_bytes;
    image.data = realloc(image.data, at + IMAGE_BLOCK_HEAD_BYTES + h.stored_bytes);
    image.n = at + IMAGE_BLOCK_HEAD_BYTES + h.stored_bytes;
    if (h.stored_bytes)
        memcpy(image.data + at + IMAGE_BLOCK_HEAD_BYTES, stored, h.stored_bytes);
    image_block_seal(image.data + at, &h);
}

static void add(uint8_t kind, bool last, uint64_t number, const void *data, size_t n)
{
    add_block((struct image_block_head){.kind = kind, .flags = last, .number = number, .raw_bytes = (uint32_t)n}, data);
}

static void begin_data(enum image_compression compression)
{
    begin(compression, false);
    add(IMAGE_SESSIONS, true, 0, "", 0);
    add(IMAGE_DATA, true, 1, "", 0);
}

static void refused(const char *text)
{
    expect_refused(&image, NH_ECORRUPT, text);
    teardown();
}

Test(image_hostile, forged_sections_are_refused_for_what_they_are)
{
    static uint8_t full[IMAGE_BLOCK_BYTES + 1];
    uint8_t file[IMAGE_FILE_HEAD_BYTES + NH_SNAPSHOT_FILE_META_MAX + 1] = {0};

    begin(IMAGE_STORED, false);
    add(IMAGE_SESSIONS, false, 0, full, IMAGE_BLOCK_BYTES);
    add(IMAGE_SESSIONS, true, 1, "", 0);
    refused("empty block");

    begin(IMAGE_STORED, false);
    add(IMAGE_SESSIONS, false, 0, full, IMAGE_BLOCK_BYTES);
    add(IMAGE_DATA, true, 1, "", 0);
    refused("another section");

    begin(IMAGE_STORED, false);
    add(IMAGE_SESSIONS, true, 0, full, IMAGE_BLOCK_BYTES + 1);
    refused("longer than can be");

    begin(IMAGE_STORED, true);
    add(IMAGE_SESSIONS, true, 0, "", 0);
    add(IMAGE_DATA, true, 1, "", 0);
    refused("cannot follow");

    begin(IMAGE_STORED, true);
    add(IMAGE_SESSIONS, true, 0, "", 0);
    add(IMAGE_FILE, true, 1, file, IMAGE_FILE_HEAD_BYTES);
    refused("cannot follow");

    begin_data(IMAGE_STORED);
    add(IMAGE_FILE, true, 2, file, IMAGE_FILE_HEAD_BYTES - 1);
    refused("head of a file");

    begin_data(IMAGE_STORED);
    add(IMAGE_FILE, true, 2, file, sizeof file);
    refused("head of a file");

    begin_data(IMAGE_STORED);
    for (unsigned i = 0; i <= NH_SNAPSHOT_FILES_MAX; i++) {
        file[0] = (uint8_t)i;
        add(IMAGE_FILE, true, 2 + i, file, IMAGE_FILE_HEAD_BYTES);
    }
    refused("too many files");

    file[8] = 3;
    begin_data(IMAGE_STORED);
    add(IMAGE_FILE, false, 2, file, IMAGE_FILE_HEAD_BYTES);
    add(IMAGE_BLOCK_FILE_BYTES, false, 3, "", 0);
    refused("not full");

    begin_data(IMAGE_STORED);
    add(IMAGE_FILE, false, 2, file, IMAGE_FILE_HEAD_BYTES);
    add(IMAGE_BLOCK_FILE_BYTES, false, 3, "x", 1);
    refused("not full");

    begin_data(IMAGE_STORED);
    add(IMAGE_END, true, 2, full, IMAGE_END_BYTES - 1);
    refused("an end that cannot be");
}

Test(image_hostile, forged_compression_is_refused_for_what_it_is)
{
    uint8_t raw[IMAGE_FILE_HEAD_BYTES + 84] = {0}, *packed = malloc(image_pack_bound());
    struct image_packer *p = image_packer_new();
    struct image_block_head h = {.kind = IMAGE_SESSIONS, .flags = 1, .compression = IMAGE_ZSTD, .raw_bytes = sizeof raw};

    h.stored_bytes = (uint32_t)image_pack(p, packed, raw, sizeof raw);
    cr_assert_gt(h.stored_bytes, 0);

    begin(IMAGE_STORED, false);
    add_block(h, packed);
    refused("a compression that cannot be here");

    begin(IMAGE_ZSTD, false);
    h.compression = IMAGE_ZSTD + 1;
    add_block(h, packed);
    refused("a compression that cannot be here");

    h.compression = IMAGE_ZSTD;
    for (int more = -1; more <= 1; more += 2) {
        begin(IMAGE_ZSTD, false);
        h.raw_bytes = (uint32_t)((int)sizeof raw + more);
        add_block(h, packed);
        refused("cannot be decompressed");
    }
    h.raw_bytes = sizeof raw;
    h.stored_bytes--;
    begin(IMAGE_ZSTD, false);
    add_block(h, packed);
    refused("cannot be decompressed");

    h.stored_bytes++;
    packed = realloc(packed, 2 * (size_t)h.stored_bytes);
    memcpy(packed + h.stored_bytes, packed, h.stored_bytes); /* two frames */
    begin(IMAGE_ZSTD, false);
    add_block((struct image_block_head){.kind = IMAGE_SESSIONS,
                                        .flags = 1,
                                        .compression = IMAGE_ZSTD,
                                        .raw_bytes = 2 * h.raw_bytes,
                                        .stored_bytes = 2 * h.stored_bytes},
              packed);
    refused("cannot be decompressed");

    h.kind = IMAGE_FILE;
    h.number = 2;
    begin_data(IMAGE_ZSTD);
    add_block(h, packed);
    refused("a compression that cannot be here");
    free(packed);
    image_packer_free(p);
}

/* ---- heads ---- */

static void reseal_head(void)
{
    size_t checked = image.n - IMAGE_CRC_BYTES;

    image_put_u32(image.data + 20, crc32c(0, image.data, 20));
    image_put_u32(image.data + checked, crc32c(0, image.data, checked));
}

static void expect_head_refused(size_t offset, uint32_t value, unsigned width, int code, const char *text)
{
    begin(IMAGE_STORED, false);
    memcpy(image.data + offset, &value, width);
    reseal_head();
    expect_refused(&image, code, text);
    teardown();
}

Test(image_hostile, forged_heads_are_refused_for_what_they_are)
{
    expect_head_refused(0, 'M', 1, NH_ECORRUPT, "not the beginning of an image");
    expect_head_refused(8, 2, 4, NH_EUNSUPPORTED, "version 2");
    expect_head_refused(8, 0, 4, NH_EUNSUPPORTED, "version 0");
    expect_head_refused(12, 2, 4, NH_EUNSUPPORTED, "compression");
    expect_head_refused(16, 128 + 3, 4, NH_ECORRUPT, "cannot be");
    expect_head_refused(16, IMAGE_HEAD_BYTES_MAX - IMAGE_PREAMBLE_BYTES + 1, 4, NH_ECORRUPT, "cannot be");
    expect_head_refused(16, IMAGE_HEAD_BYTES_MAX - IMAGE_PREAMBLE_BYTES, 4, NH_ECORRUPT, "it ends here");
    expect_head_refused(16, UINT32_MAX, 4, NH_ECORRUPT, "cannot be");
    expect_head_refused(24 + 63, 'x', 1, NH_ECORRUPT, "no text");
    expect_head_refused(24 + 1, '\n', 1, NH_ECORRUPT, "no text");
    expect_head_refused(24 + 64 + 5, 'x', 1, NH_ECORRUPT, "no text");
    expect_head_refused(24 + 128, 0xff, 1, NH_ECORRUPT, "snapshot record");
}

Test(image_hostile, a_record_that_names_a_file_is_refused)
{
    for (int i = 0; i < 2; i++) {
        struct nh_snapshot record;
        size_t n;

        begin(IMAGE_STORED, false);
        nh_snapshot_copy(&record, &c.head.record);
        record.file_path = i ? strdup("/etc/passwd") : NULL;
        record.file_size_bytes = i ? 0 : 5;
        n = snapshot_encode(&record, NULL, 0);
        image.n = IMAGE_PREAMBLE_BYTES + 128 + n + IMAGE_CRC_BYTES;
        image.data = realloc(image.data, image.n);
        snapshot_encode(&record, image.data + IMAGE_PREAMBLE_BYTES + 128, n);
        image_put_u32(image.data + 16, (uint32_t)(image.n - IMAGE_PREAMBLE_BYTES));
        reseal_head();
        expect_refused(&image, NH_ECORRUPT, "names a file");
        nh_snapshot_deinit(&record);
        teardown();
    }
}

/* ---- a reader that has failed ---- */

Test(image_hostile, a_reader_that_has_failed_stays_failed)
{
    struct memory_source m;
    struct image_source source;
    struct image_reader *r;
    struct image_head head;
    size_t offsets[BLOCKS_MAX + 1];
    uint8_t byte;

    content_small(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    find_blocks(&image, offsets);
    image.data[offsets[1] + 30] ^= 1;
    source = memory_source(&m, &image);
    cr_assert_eq(image_reader_new(&source, &head, &r, &err), NH_OK);
    cr_assert_eq(image_reader_next(r, &err), IMAGE_SESSIONS);
    cr_assert_eq(image_reader_next(r, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "block 1: wrong checksum"), "%s", err.text);
    image.data[offsets[1] + 30] ^= 1;
    m.at = offsets[1];
    cr_assert_eq(image_reader_next(r, &err), NH_ECORRUPT);
    cr_assert_eq(image_reader_read(r, &byte, 1, &err), NH_ECORRUPT);
    image_reader_free(r);
    image_head_deinit(&head);
}
