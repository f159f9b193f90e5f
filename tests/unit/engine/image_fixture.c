#include "tests/unit/engine/image_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ---- bytes ---- */

void bytes_add(struct bytes *b, const void *data, size_t n)
{
    b->data = realloc(b->data, b->n + n ? b->n + n : 1);
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
}

void bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){0};
}

void bytes_fill(struct bytes *b, size_t n, unsigned seed)
{
    b->data = realloc(b->data, n ? n : 1);
    b->n = n;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        b->data[i] = i & 64 ? (uint8_t)(seed >> 24) : (uint8_t)(i & 15);
    }
}

/* ---- sink and source ---- */

static int sink_write(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    struct memory_sink *m = ctx;

    if (++m->n_writes == m->fail_at)
        return nh_error_set(err, NH_ENOSPC, "no space for write %u", m->n_writes);
    bytes_add(&m->out, data, size_bytes);
    return NH_OK;
}

struct image_sink memory_sink(struct memory_sink *m)
{
    return (struct image_sink){.write = sink_write, .ctx = m};
}

static int64_t source_read(void *ctx, void *data, size_t cap_bytes, struct nh_error *err)
{
    struct memory_source *m = ctx;
    size_t n = m->in.n - m->at;

    if (n > cap_bytes)
        n = cap_bytes;
    if (m->step && n > m->step)
        n = m->step;
    if (m->at + n > m->fail_at)
        n = m->fail_at - m->at;
    if (m->at == m->fail_at)
        return nh_error_set(err, NH_EIO, "cannot read at %zu", m->at);
    if (n)
        memcpy(data, m->in.data + m->at, n);
    m->at += n;
    return (int64_t)n;
}

struct image_source memory_source(struct memory_source *m, const struct bytes *in)
{
    *m = (struct memory_source){.in = *in, .fail_at = SIZE_MAX};
    return (struct image_source){.read = source_read, .ctx = m};
}

/* ---- content ---- */

void content_init(struct content *c, enum image_compression compression)
{
    static struct nh_member members[3] = {{.replica_id = 1, .address = "h1:26000"},
                                          {.replica_id = 2, .address = "h2:26000"},
                                          {.replica_id = 3, .kind = NH_MEMBER_WITNESS, .address = "h3:26000"}};
    static uint64_t removed[1] = {4};
    struct nh_snapshot record = {
        .shard_id = 7,
        .index = 1000,
        .term = 5,
        .membership = {.config_change_id = 12, .n_members = 3, .members = members, .n_removed = 1, .removed = removed},
    };

    *c = (struct content){.head = {.machine_name = "kv", .machine_version = "3", .compression = compression}};
    nh_snapshot_copy(&c->head.record, &record);
}

void content_add_file(struct content *c, uint64_t id, const char *meta, size_t n)
{
    cr_assert_lt(c->n_files, CONTENT_FILES);
    c->files[c->n_files].id = id;
    bytes_add(&c->files[c->n_files].meta, meta, strlen(meta));
    bytes_fill(&c->files[c->n_files].bytes, n, (unsigned)id);
    c->n_files++;
}

void content_small(struct content *c, enum image_compression compression)
{
    content_init(c, compression);
    bytes_add(&c->sessions, "\1\0\0\0\0\0\0\0", 8);
    bytes_add(&c->data, "what the machine wrote, and wrote, and wrote, and wrote, and wrote", 66);
    content_add_file(c, 3, "name", 5);
    content_add_file(c, 1, "", 0);
}

void content_deinit(struct content *c)
{
    image_head_deinit(&c->head);
    bytes_free(&c->sessions);
    bytes_free(&c->data);
    for (unsigned i = 0; i < CONTENT_FILES; i++) {
        bytes_free(&c->files[i].meta);
        bytes_free(&c->files[i].bytes);
    }
}

typedef int (*write_fn)(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err);

static void write_pieces(struct image_writer *w, write_fn write, const struct bytes *b, size_t max_piece)
{
    struct nh_error err = {0};

    for (size_t at = 0, n; at < b->n; at += n) {
        n = max_piece ? 1 + (size_t)rand() % max_piece : b->n;
        if (n > b->n - at)
            n = b->n - at;
        cr_assert_eq(write(w, b->data + at, n, &err), NH_OK, "%s", err.text);
    }
}

struct bytes content_write(const struct content *c, size_t max_piece)
{
    struct memory_sink m = {0};
    struct image_sink sink = memory_sink(&m);
    struct nh_error err = {0};
    struct image_writer *w;
    uint64_t size = 0;

    cr_assert_eq(image_writer_new(&sink, &c->head, &w, &err), NH_OK, "%s", err.text);
    cr_assert_eq(image_write_sessions(w, NULL, 0, &err), NH_OK, "%s", err.text);
    write_pieces(w, image_write_sessions, &c->sessions, max_piece);
    write_pieces(w, image_write_data, &c->data, max_piece);
    for (unsigned i = 0; i < c->n_files; i++) {
        const struct bytes *meta = &c->files[i].meta, *b = &c->files[i].bytes;

        cr_assert_eq(image_write_file(w, c->files[i].id, meta->data, meta->n, b->n, &err), NH_OK, "%s", err.text);
        write_pieces(w, image_write_file_data, b, max_piece);
    }
    cr_assert_eq(image_writer_finish(w, &size, &err), NH_OK, "%s", err.text);
    cr_assert_eq(size, m.out.n);
    image_writer_free(w);
    return m.out;
}

static void expect_head(const struct image_head *got, const struct image_head *want)
{
    cr_assert_str_eq(got->machine_name, want->machine_name);
    cr_assert_str_eq(got->machine_version, want->machine_version);
    cr_assert_eq(got->compression, want->compression);
    cr_assert_eq(got->record.shard_id, want->record.shard_id);
    cr_assert_eq(got->record.index, want->record.index);
    cr_assert_eq(got->record.term, want->record.term);
    cr_assert_eq(got->record.dummy, want->record.dummy);
    cr_assert_null(got->record.file_path);
    cr_assert_eq(got->record.file_size_bytes, 0);
    cr_assert(nh_membership_equal(&got->record.membership, &want->record.membership));
}

static void expect_bytes(struct image_reader *r, const struct bytes *want, size_t cap)
{
    uint8_t *got = malloc(cap);
    struct nh_error err = {0};
    int64_t n;
    size_t at = 0;

    while ((n = image_reader_read(r, got, cap, &err)) > 0) {
        cr_assert_leq(at + (size_t)n, want->n);
        cr_assert_eq(memcmp(got, want->data + at, (size_t)n), 0);
        at += (size_t)n;
    }
    cr_assert_eq(n, 0, "%s", err.text);
    cr_assert_eq(image_reader_read(r, got, cap, &err), 0);
    cr_assert_eq(at, want->n);
    free(got);
}

static void expect_file(struct image_reader *r, const struct content *c, unsigned i, size_t cap)
{
    struct image_file_info f;

    image_reader_file(r, &f);
    cr_assert_eq(f.file_id, c->files[i].id);
    cr_assert_eq(f.size_bytes, c->files[i].bytes.n);
    cr_assert_eq(f.meta_bytes, c->files[i].meta.n);
    if (f.meta_bytes)
        cr_assert_eq(memcmp(f.meta, c->files[i].meta.data, f.meta_bytes), 0);
    expect_bytes(r, &c->files[i].bytes, cap);
}

void content_expect(const struct content *c, const struct bytes *image, size_t step, size_t cap)
{
    struct memory_source m;
    struct image_source source = memory_source(&m, image);
    struct nh_error err = {0};
    struct image_reader *r;
    struct image_head head;

    m.step = step;
    cr_assert_eq(image_reader_new(&source, &head, &r, &err), NH_OK, "%s", err.text);
    expect_head(&head, &c->head);
    cr_assert_eq(image_reader_next(r, &err), IMAGE_SESSIONS, "%s", err.text);
    expect_bytes(r, &c->sessions, cap);
    if (!c->head.record.dummy) {
        cr_assert_eq(image_reader_next(r, &err), IMAGE_DATA, "%s", err.text);
        expect_bytes(r, &c->data, cap);
    }
    for (unsigned i = 0; i < c->n_files; i++) {
        cr_assert_eq(image_reader_next(r, &err), IMAGE_FILE, "%s", err.text);
        expect_file(r, c, i, cap);
    }
    cr_assert_eq(image_reader_next(r, &err), IMAGE_END, "%s", err.text);
    cr_assert_eq(image_reader_next(r, &err), IMAGE_END);
    cr_assert_eq(image_reader_read(r, &err, 1, NULL), 0);
    image_reader_free(r);
    image_head_deinit(&head);
}

/* ---- looking inside ---- */

int verify(const uint8_t *data, size_t n, struct nh_error *err)
{
    struct bytes copy = {0};
    struct memory_source m;
    struct image_source source;
    struct image_head head;
    int r;

    bytes_add(&copy, data, n);
    source = memory_source(&m, &copy);
    r = image_verify(&source, &head, err);
    if (r == NH_OK)
        image_head_deinit(&head);
    bytes_free(&copy);
    return r;
}

unsigned find_blocks(const struct bytes *image, size_t offsets[BLOCKS_MAX + 1])
{
    size_t at = IMAGE_PREAMBLE_BYTES + (size_t)nh_load_u32(image->data + 16);
    unsigned n = 0;

    while (at < image->n) {
        struct image_block_head h;

        cr_assert_lt(n, BLOCKS_MAX);
        offsets[n++] = at;
        image_block_head_decode(image->data + at, &h);
        at += IMAGE_BLOCK_HEAD_BYTES + (size_t)h.stored_bytes;
    }
    cr_assert_eq(at, image->n);
    offsets[n] = at;
    return n;
}
