/* The seed corpora of what snapshots are made of. */
#include "tests/fuzz/make_corpus.h"

#include <stdlib.h>
#include <string.h>

#include "engine/rsm/image.h"
#include "engine/rsm/sessions.h"

/* ---- session tables ---- */

static void open_session(struct sessions *s, uint64_t client_id)
{
    uint32_t limit = SESSIONS_DEFAULT;
    struct nh_entry_view e = {.client_id = client_id,
                              .series_id = SESSION_OPEN,
                              .payload = (uint8_t *)&limit,
                              .payload_bytes = sizeof limit};
    struct nh_result r;

    sessions_check(s, &e, &r);
}

static void apply(struct sessions *s, uint64_t client_id, uint64_t series_id, uint64_t responded_to, const char *text)
{
    struct nh_entry_view e = {.client_id = client_id, .series_id = series_id, .responded_to = responded_to};
    struct nh_result r = {.value = series_id, .data = text, .size_bytes = text ? strlen(text) : 0}, old;

    sessions_check(s, &e, &old);
    sessions_keep(s, client_id, series_id, text ? &r : NULL);
}

static void save_sessions(const char *name, const struct sessions *s)
{
    size_t n;
    uint8_t *data = sessions_encode(s, &n);

    save(name, data, n);
    free(data);
}

static void make_sessions(void)
{
    struct sessions *s = sessions_new();

    save_sessions("sessions/empty", s);
    open_session(s, 7);
    open_session(s, 9);
    apply(s, 7, 1, 0, "one");
    apply(s, 7, 2, 0, "");
    apply(s, 7, 4, 1, NULL);
    apply(s, 9, UINT64_MAX - 2, 0, "last");
    save_sessions("sessions/two", s);
    for (uint64_t i = 2; i <= SESSION_RESULTS_MAX + 3; i++)
        apply(s, 9, i, 0, NULL);
    save_sessions("sessions/lost", s);
    sessions_free(s);
}

/* Entries in the form that fuzz_sessions reads: the two halves are the same, so that everything comes again. */
static void make_entries(void)
{
    uint8_t data[256];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 128 * 37 + i % 128 / 7);
    save("sessions/entries", data, sizeof data);
}

/* ---- images ---- */

struct image {
    uint8_t *data;
    size_t n;
};

static int add(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    struct image *i = ctx;

    (void)err;
    i->data = realloc(i->data, i->n + size_bytes);
    if (!i->data)
        abort();
    memcpy(i->data + i->n, data, size_bytes);
    i->n += size_bytes;
    return NH_OK;
}

static void must(int r)
{
    if (r < 0)
        abort();
}

static void write_content(struct image_writer *w, size_t n)
{
    static const char text[] = "what the machine wrote, and wrote, and wrote, and wrote";

    must(image_write_data(w, text, sizeof text, NULL));
    for (size_t at = 0; at < n; at += sizeof text)
        must(image_write_data(w, text, sizeof text, NULL));
    must(image_write_file(w, 3, "name", 4, 5, NULL));
    must(image_write_file_data(w, "12345", 5, NULL));
    must(image_write_file(w, 1, NULL, 0, 0, NULL));
}

static void make_image(const char *name, enum image_compression compression, bool dummy, size_t n)
{
    struct nh_member members[2] = {{1, NH_MEMBER_VOTER, "h1:26000"}, {2, NH_MEMBER_WITNESS, "h2:26000"}};
    struct image_head head = {
        .record = {.shard_id = 7, .index = 1000, .term = 5, .dummy = dummy, .membership = {.n_members = 2, .members = members}},
        .machine_name = "kv",
        .machine_version = "3",
        .compression = compression,
    };
    struct image image = {0};
    struct image_sink sink = {.write = add, .ctx = &image};
    struct image_writer *w;
    uint64_t size;

    must(image_writer_new(&sink, &head, &w, NULL));
    must(image_write_sessions(w, "\1\0\0\0\0\0\0", 8, NULL));
    if (!dummy)
        write_content(w, n);
    must(image_writer_finish(w, &size, NULL));
    save(name, image.data, image.n);
    image_writer_free(w);
    free(image.data);
}

void make_snapshots(void)
{
    make_sessions();
    make_entries();
    make_image("image/stored", IMAGE_STORED, false, 0);
    make_image("image/zstd", IMAGE_ZSTD, false, 0);
    make_image("image/blocks", IMAGE_ZSTD, false, IMAGE_BLOCK_BYTES);
    make_image("image/dummy", IMAGE_STORED, true, 0);
}
