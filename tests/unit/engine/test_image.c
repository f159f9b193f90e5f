/* Snapshot images as they should be: what goes in comes out, in one form, within the limits. */
#include "tests/unit/engine/image_fixture.h"
#include "tests/unit/engine/image_golden.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct content c;
static struct bytes image;
static struct nh_error err;

static void teardown(void)
{
    content_deinit(&c);
    bytes_free(&image);
}

TestSuite(image, .fini = teardown);

/* ---- round trips ---- */

static void big_content(enum image_compression compression)
{
    content_init(&c, compression);
    bytes_fill(&c.sessions, 3000, 1);
    bytes_fill(&c.data, 2 * IMAGE_BLOCK_BYTES + 12345, 2);
    content_add_file(&c, UINT64_MAX, "first", IMAGE_BLOCK_BYTES + 1);
    content_add_file(&c, 0, "", 0);
    content_add_file(&c, 5, "third", 1);
}

static void round_trips(enum image_compression compression)
{
    static const size_t pieces[] = {0, 100, 5000, 200000, 2 * IMAGE_BLOCK_BYTES};

    srand(3);
    big_content(compression);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct bytes again = content_write(&c, pieces[i]);

        if (i == 0) {
            image = again;
            continue;
        }
        cr_assert_eq(again.n, image.n);
        cr_assert_eq(memcmp(again.data, image.data, image.n), 0, "pieces of %zu bytes give another image", pieces[i]);
        content_expect(&c, &again, pieces[i], pieces[i]);
        bytes_free(&again);
    }
}

Test(image, stored_round_trip_in_pieces_of_any_size)
{
    round_trips(IMAGE_STORED);
    cr_assert_gt(image.n, c.data.n + c.files[0].bytes.n);
}

Test(image, compressed_round_trip_in_pieces_of_any_size)
{
    round_trips(IMAGE_ZSTD);
    cr_assert_lt(image.n, c.data.n);
}

Test(image, what_does_not_compress_is_stored)
{
    struct image_block_head h;
    size_t offsets[BLOCKS_MAX + 1];

    content_init(&c, IMAGE_ZSTD);
    bytes_add(&c.data, "12345", 5);
    image = content_write(&c, 0);
    cr_assert_eq(find_blocks(&image, offsets), 3);
    image_block_head_decode(image.data + offsets[1], &h);
    cr_assert_eq(h.compression, IMAGE_STORED);
    content_expect(&c, &image, 0, 100);
}

Test(image, a_byte_at_a_time)
{
    for (int compression = IMAGE_STORED; compression <= IMAGE_ZSTD; compression++) {
        content_small(&c, (enum image_compression)compression);
        image = content_write(&c, 1);
        content_expect(&c, &image, 1, 1);
        teardown();
    }
}

Test(image, empty_sections)
{
    content_init(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    content_expect(&c, &image, 0, 10);
}

Test(image, data_of_no_bytes_is_as_no_call_for_data)
{
    struct memory_sink m = {0};
    struct image_sink sink = memory_sink(&m);
    struct image_writer *w;
    uint64_t size;

    content_init(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    image_writer_new(&sink, &c.head, &w, NULL);
    cr_assert_eq(image_write_sessions(w, NULL, 0, &err), NH_OK);
    cr_assert_eq(image_write_data(w, NULL, 0, &err), NH_OK);
    cr_assert_eq(image_writer_finish(w, &size, &err), NH_OK);
    cr_assert_eq(m.out.n, image.n);
    cr_assert_eq(memcmp(m.out.data, image.data, image.n), 0);
    image_writer_free(w);
    bytes_free(&m.out);
}

Test(image, a_dummy_has_sessions_only)
{
    content_init(&c, IMAGE_STORED);
    c.head.record.dummy = true;
    c.head.record.on_disk_index = 900;
    bytes_fill(&c.sessions, 100, 1);
    image = content_write(&c, 0);
    content_expect(&c, &image, 0, 64);
}

Test(image, where_it_lies_is_no_part_of_it)
{
    struct bytes other;

    content_init(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    c.head.record.file_path = strdup("/somewhere");
    c.head.record.file_size_bytes = 77;
    memset(c.head.machine_name + 3, 'x', 10); /* behind the NUL */
    other = content_write(&c, 0);
    cr_assert_eq(other.n, image.n);
    cr_assert_eq(memcmp(other.data, image.data, image.n), 0);
    bytes_free(&other);
}

Test(image, sections_may_be_skipped)
{
    struct memory_source m;
    struct image_source source;
    struct image_reader *r;
    struct image_head head;
    uint8_t some[100];

    big_content(IMAGE_STORED);
    image = content_write(&c, 0);
    source = memory_source(&m, &image);
    cr_assert_eq(image_reader_new(&source, &head, &r, &err), NH_OK);
    cr_assert_eq(image_reader_next(r, &err), IMAGE_SESSIONS);
    cr_assert_eq(image_reader_next(r, &err), IMAGE_DATA);
    cr_assert_eq(image_reader_read(r, some, sizeof some, &err), sizeof some);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(image_reader_next(r, &err), IMAGE_FILE);
    cr_assert_eq(image_reader_read(r, some, sizeof some, &err), 1);
    cr_assert_eq(image_reader_next(r, &err), IMAGE_END);
    image_reader_free(r);
    image_head_deinit(&head);
}

Test(image, verify_gives_the_head)
{
    struct memory_source m;
    struct image_source source;
    struct image_head head;

    content_small(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    source = memory_source(&m, &image);
    cr_assert_eq(image_verify(&source, &head, &err), NH_OK);
    cr_assert_eq(head.record.index, 1000);
    cr_assert_str_eq(head.machine_version, "3");
    image_head_deinit(&head);
    m.at = 0;
    cr_assert_eq(image_verify(&source, NULL, &err), NH_OK);
}

/* ---- the format ---- */

static void from_hex(const char *hex)
{
    for (; *hex; hex += 2) {
        char digits[3] = {hex[0], hex[1], 0};
        uint8_t byte = (uint8_t)strtoul(digits, NULL, 16);

        bytes_add(&image, &byte, 1);
    }
}

Test(image, the_golden_image_is_read_and_written_again_byte_for_byte)
{
    struct bytes again;

    from_hex(golden_stored);
    content_small(&c, IMAGE_STORED);
    content_expect(&c, &image, 0, 64);
    again = content_write(&c, 7);
    cr_assert_eq(again.n, image.n);
    cr_assert_eq(memcmp(again.data, image.data, image.n), 0);
    bytes_free(&again);
}

/* Another version of zstd may compress in another way; it must understand what this one wrote. */
Test(image, the_golden_compressed_image_is_read)
{
    from_hex(golden_zstd);
    cr_assert_lt(image.n, strlen(golden_stored) / 2);
    content_small(&c, IMAGE_ZSTD);
    content_expect(&c, &image, 0, 64);
}

/* ---- limits ---- */

Test(image, sections_of_whole_blocks)
{
    for (size_t more = 0; more <= 1; more++) {
        size_t offsets[BLOCKS_MAX + 1];

        content_init(&c, IMAGE_STORED);
        bytes_fill(&c.sessions, IMAGE_BLOCK_BYTES + more, 1);
        bytes_fill(&c.data, 2 * IMAGE_BLOCK_BYTES + more, 2);
        content_add_file(&c, 1, "", IMAGE_BLOCK_BYTES + more);
        image = content_write(&c, 0);
        cr_assert_eq(find_blocks(&image, offsets), 6 + 3 * more);
        content_expect(&c, &image, 0, IMAGE_BLOCK_BYTES);
        teardown();
    }
}

/* A writer that is ready for files. */
static struct image_writer *writer_of(struct memory_sink *m)
{
    struct image_sink sink = memory_sink(m);
    struct image_writer *w;

    content_init(&c, IMAGE_STORED);
    cr_assert_eq(image_writer_new(&sink, &c.head, &w, &err), NH_OK);
    cr_assert_eq(image_write_sessions(w, NULL, 0, &err), NH_OK);
    return w;
}

Test(image, as_many_files_as_can_be_and_no_more)
{
    for (int past = 0; past <= 1; past++) {
        struct memory_sink m = {0};
        struct image_writer *w = writer_of(&m);
        uint64_t size;

        for (uint64_t id = 0; id < NH_SNAPSHOT_FILES_MAX; id++)
            cr_assert_eq(image_write_file(w, id, NULL, 0, 0, &err), NH_OK);
        if (past)
            cr_assert_eq(image_write_file(w, 99, NULL, 0, 0, &err), NH_EINVAL);
        cr_assert_eq(image_writer_finish(w, &size, &err), past ? NH_EINVAL : NH_OK);
        if (!past)
            cr_assert_eq(verify(m.out.data, m.out.n, &err), NH_OK, "%s", err.text);
        image_writer_free(w);
        bytes_free(&m.out);
        teardown();
    }
}

Test(image, meta_at_the_limit_and_past_it)
{
    uint8_t meta[NH_SNAPSHOT_FILE_META_MAX + 1];

    memset(meta, 9, sizeof meta);
    for (size_t past = 0; past <= 1; past++) {
        struct memory_sink m = {0};
        struct image_writer *w = writer_of(&m);
        uint64_t size;

        cr_assert_eq(image_write_file(w, 1, meta, NH_SNAPSHOT_FILE_META_MAX + past, 0, &err), past ? NH_EINVAL : NH_OK);
        cr_assert_eq(image_writer_finish(w, &size, &err), past ? NH_EINVAL : NH_OK);
        if (!past)
            cr_assert_eq(verify(m.out.data, m.out.n, &err), NH_OK);
        image_writer_free(w);
        bytes_free(&m.out);
        teardown();
    }
}

static int write_head(void)
{
    struct memory_sink m = {0};
    struct image_sink sink = memory_sink(&m);
    struct image_writer *w = NULL;
    int r = image_writer_new(&sink, &c.head, &w, &err);

    image_writer_free(w);
    bytes_free(&image);
    image = m.out;
    return r;
}

/* Ids of ten bytes each in the record, and one of fewer to hit the limit. */
static void set_removed(uint32_t n, uint64_t last)
{
    struct nh_membership *m = &c.head.record.membership;

    free(m->removed);
    m->removed = malloc(n * sizeof *m->removed);
    m->n_removed = n;
    memset(m->removed, 0xff, n * sizeof *m->removed);
    m->removed[n - 1] = last;
}

Test(image, a_head_at_the_limit_and_past_it)
{
    uint32_t n = 1;
    uint64_t last = 1;

    content_init(&c, IMAGE_STORED);
    set_removed(6000, 1);
    cr_assert_eq(write_head(), NH_OK);
    n = 6000 + (uint32_t)(IMAGE_HEAD_BYTES_MAX - image.n) / 10;
    set_removed(n, last);
    cr_assert_eq(write_head(), NH_OK);
    while (image.n < IMAGE_HEAD_BYTES_MAX) {
        last <<= 7;
        set_removed(n, last);
        cr_assert_eq(write_head(), NH_OK);
    }
    cr_assert_eq(image.n, IMAGE_HEAD_BYTES_MAX);
    bytes_free(&image);
    image = content_write(&c, 0);
    content_expect(&c, &image, 0, 10);
    set_removed(n, last << 7);
    cr_assert_eq(write_head(), NH_ETOOBIG);
}

Test(image, names_at_the_limit_and_past_it)
{
    content_init(&c, IMAGE_STORED);
    memset(c.head.machine_name, 'n', 63);
    memset(c.head.machine_version, '~', 63);
    image = content_write(&c, 0);
    content_expect(&c, &image, 0, 10);
    c.head.machine_name[63] = 'n';
    cr_assert_eq(write_head(), NH_EINVAL);
    c.head.machine_name[63] = 0;
    c.head.machine_version[5] = '\n';
    cr_assert_eq(write_head(), NH_EINVAL);
    c.head.machine_version[5] = 'v';
    c.head.compression = IMAGE_ZSTD + 1;
    cr_assert_eq(write_head(), NH_EINVAL);
}

/* ---- calls in a wrong order ---- */

enum call { NONE, SESSIONS, DATA, FILE_2, FILE_DATA, FINISH };

static int call(struct image_writer *w, enum call what)
{
    uint64_t size;

    switch (what) {
    case SESSIONS: return image_write_sessions(w, "s", 1, &err);
    case DATA: return image_write_data(w, "d", 1, &err);
    case FILE_2: return image_write_file(w, 1, "m", 1, 2, &err);
    case FILE_DATA: return image_write_file_data(w, "f", 1, &err);
    case FINISH: return image_writer_finish(w, &size, &err);
    case NONE:
    default: return NH_OK;
    }
}

static void expect_misuse(bool dummy, enum call a, enum call b, enum call x, enum call d, enum call last)
{
    enum call calls[] = {a, b, x, d};
    struct memory_sink m = {0};
    struct image_sink sink = memory_sink(&m);
    struct image_writer *w;
    unsigned n_writes;

    content_init(&c, IMAGE_STORED);
    c.head.record.dummy = dummy;
    cr_assert_eq(image_writer_new(&sink, &c.head, &w, &err), NH_OK);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(call(w, calls[i]), NH_OK);
    cr_assert_eq(call(w, last), NH_EINVAL);
    n_writes = m.n_writes;
    for (int i = SESSIONS; i <= FINISH; i++)
        cr_assert_eq(call(w, (enum call)i), NH_EINVAL);
    cr_assert_eq(m.n_writes, n_writes);
    image_writer_free(w);
    bytes_free(&m.out);
    teardown();
}

Test(image, calls_in_a_wrong_order_are_refused)
{
    expect_misuse(false, NONE, NONE, NONE, NONE, DATA);
    expect_misuse(false, NONE, NONE, NONE, NONE, FILE_2);
    expect_misuse(false, NONE, NONE, NONE, NONE, FINISH);
    expect_misuse(false, SESSIONS, NONE, NONE, NONE, FILE_DATA);
    expect_misuse(false, SESSIONS, DATA, DATA, NONE, SESSIONS);
    expect_misuse(false, SESSIONS, DATA, FILE_2, NONE, DATA);
    expect_misuse(false, SESSIONS, DATA, FILE_2, NONE, FILE_2);
    expect_misuse(false, SESSIONS, FILE_2, FILE_DATA, NONE, FINISH);
    expect_misuse(false, SESSIONS, FILE_2, FILE_DATA, FILE_DATA, FILE_DATA);
    expect_misuse(false, SESSIONS, FILE_2, FILE_DATA, FILE_DATA, FILE_2); /* its id again */
    expect_misuse(false, SESSIONS, DATA, FINISH, NONE, FINISH);
    expect_misuse(true, SESSIONS, NONE, NONE, NONE, DATA);
    expect_misuse(true, SESSIONS, NONE, NONE, NONE, FILE_2);
}

Test(image, reading_before_a_section_is_refused)
{
    struct memory_source m;
    struct image_source source;
    struct image_reader *r;
    struct image_head head;
    uint8_t byte;

    content_small(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    source = memory_source(&m, &image);
    cr_assert_eq(image_reader_new(&source, &head, &r, &err), NH_OK);
    cr_assert_eq(image_reader_read(r, &byte, 1, &err), NH_EINVAL);
    cr_assert_eq(image_reader_next(r, &err), NH_EINVAL);
    image_reader_free(r);
    image_head_deinit(&head);
    image_writer_free(NULL);
    image_reader_free(NULL);
}

/* ---- failing sinks and sources ---- */

Test(image, a_sink_that_fails_fails_the_image)
{
    bool done = false;

    for (unsigned fail_at = 1; !done; fail_at++) {
        struct memory_sink m = {.fail_at = fail_at};
        struct image_sink sink = memory_sink(&m);
        struct image_writer *w = NULL;
        int r;

        content_init(&c, IMAGE_ZSTD);
        r = image_writer_new(&sink, &c.head, &w, &err);
        for (int i = SESSIONS; i <= FINISH && r == NH_OK; i++) {
            r = call(w, (enum call)i);
            if (i == FILE_DATA && r == NH_OK)
                r = call(w, FILE_DATA);
        }
        done = r == NH_OK;
        cr_assert(done || r == NH_ENOSPC);
        cr_assert_eq(done, fail_at == 7, "%u", fail_at);
        for (int i = SESSIONS; i <= FINISH && w && !done; i++)
            cr_assert_eq(call(w, (enum call)i), NH_ENOSPC);
        image_writer_free(w);
        bytes_free(&m.out);
        teardown();
    }
}

Test(image, a_source_that_fails_fails_the_reader)
{
    content_small(&c, IMAGE_STORED);
    image = content_write(&c, 0);
    for (size_t fail_at = 0; fail_at <= image.n; fail_at++) {
        struct memory_source m;
        struct image_source source = memory_source(&m, &image);
        struct image_reader *r;
        struct image_head head;
        int rc;

        m.fail_at = fail_at;
        rc = image_reader_new(&source, &head, &r, &err);
        if (rc == NH_OK) {
            do
                rc = image_reader_next(r, &err);
            while (rc > 0 && rc != IMAGE_END);
            m.fail_at = SIZE_MAX; /* too late */
            cr_assert_eq(image_reader_next(r, NULL), NH_EIO);
            cr_assert_eq(image_reader_read(r, &rc, 1, NULL), NH_EIO);
            rc = NH_EIO;
            image_reader_free(r);
            image_head_deinit(&head);
        }
        cr_assert_eq(rc, NH_EIO, "at %zu", fail_at);
        cr_assert_eq(err.code, NH_EIO);
    }
}
