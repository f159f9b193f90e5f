#include "nodehost/import_image.h"

#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

#define COPY_BYTES (256u * 1024u)

static struct files *fs_of(void)
{
    return files_posix();
}

/* ---- reading ---- */

static int open_image(const struct export *e, struct file **ret, uint64_t *ret_size, struct nh_error *err)
{
    char path[FILES_PATH_BYTES];
    int r = files_path(path, err, "%s/image", e->path);

    return r < 0 ? r : fs_of()->ops->open(fs_of(), path, ret, ret_size, err);
}

/* The record beside the image is the mark that it is whole; what it says is in the image, too. */
static int check_record(const struct export *e, struct nh_error *err)
{
    const struct nh_snapshot *inside = &e->head.record;
    char path[FILES_PATH_BYTES];
    struct nh_snapshot record = {0};
    int r = files_path(path, err, "%s/record", e->path);

    if (r == NH_OK)
        r = snapshot_record_load(fs_of(), path, &record, err);
    if (r < 0)
        return r;
    if (record.shard_id != inside->shard_id || record.index != inside->index || record.term != inside->term ||
        !nh_membership_equal(&record.membership, &inside->membership) ||
        (record.file_size_bytes && record.file_size_bytes != e->size_bytes))
        r = nh_error_set(err, NH_ECORRUPT,
                         "the record is of shard %" PRIu64 ", index %" PRIu64 ", the image of shard %" PRIu64 ", index %" PRIu64
                         ", or they differ in something else",
                         record.shard_id, record.index, inside->shard_id, inside->index);
    nh_snapshot_deinit(&record);
    return r;
}

static int check_image(struct export *e, struct nh_error *err)
{
    struct file_source file;
    struct image_source source;
    struct file *f;
    int r = open_image(e, &f, &e->size_bytes, err);

    if (r < 0)
        return r;
    file_source_init(&file, fs_of(), f, &source);
    r = image_verify(&source, &e->head, err);
    fs_of()->ops->close(f, NULL);
    if (r == NH_OK && (e->head.record.dummy || e->head.record.witness))
        r = nh_error_set(err, NH_EINVAL, "the image is without the data of machine %s: make an export", e->head.machine_name);
    return r;
}

int export_open(struct export *ret, const char *directory, struct nh_error *err)
{
    int r;

    *ret = (struct export){0};
    r = files_path(ret->path, err, "%s", directory);
    if (r == NH_OK)
        r = check_image(ret, err);
    if (r == NH_OK)
        r = check_record(ret, err);
    if (r == NH_OK)
        return NH_OK;
    export_deinit(ret);
    return nh_error_wrap(err, r, "export %s", directory);
}

void export_deinit(struct export *e)
{
    image_head_deinit(&e->head);
}

/* ---- writing ---- */

struct copying {
    struct image_reader *reader;
    struct image_writer *writer;
    uint8_t *buffer;
};

static int copy_bytes(struct copying *c,
                      int (*write)(struct image_writer *w, const void *data, size_t size, struct nh_error *err),
                      struct nh_error *err)
{
    for (;;) {
        int64_t n = image_reader_read(c->reader, c->buffer, COPY_BYTES, err);
        int r;

        if (n <= 0)
            return (int)n;
        r = write(c->writer, c->buffer, (size_t)n, err);
        if (r < 0)
            return r;
    }
}

/* The section is there even if it is empty. */
static int copy_sessions(struct copying *c, struct nh_error *err)
{
    int r = image_write_sessions(c->writer, NULL, 0, err);

    return r < 0 ? r : copy_bytes(c, image_write_sessions, err);
}

static int copy_file(struct copying *c, struct nh_error *err)
{
    struct image_file_info info;
    int r;

    image_reader_file(c->reader, &info);
    r = image_write_file(c->writer, info.file_id, info.meta, info.meta_bytes, info.size_bytes, err);
    return r < 0 ? r : copy_bytes(c, image_write_file_data, err);
}

static int copy_sections(struct copying *c, struct nh_error *err)
{
    int section, r = NH_OK;

    while (r == NH_OK && (section = image_reader_next(c->reader, err)) != IMAGE_END) {
        switch (section) {
        case IMAGE_SESSIONS: r = copy_sessions(c, err); break;
        case IMAGE_DATA: r = copy_bytes(c, image_write_data, err); break;
        case IMAGE_FILE: r = copy_file(c, err); break;
        default: r = section; break;
        }
    }
    return r;
}

static int write_temp(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    return snapshot_temp_write(ctx, data, size_bytes, err);
}

static int copy(const struct export *e, const struct image_source *source, const struct nh_snapshot *record,
                struct snapshot_temp *temp, uint64_t *ret_size, struct nh_error *err)
{
    struct image_sink sink = {.write = write_temp, .ctx = temp};
    struct image_head was = {0}, now = e->head; /* shallow: with the names, and a record that is borrowed */
    struct copying c = {.buffer = xmalloc(COPY_BYTES)};
    int r;

    now.record = *record;
    r = image_reader_new(source, &was, &c.reader, err);
    if (r == NH_OK)
        r = image_writer_new(&sink, &now, &c.writer, err);
    if (r == NH_OK)
        r = copy_sections(&c, err);
    if (r == NH_OK)
        r = image_writer_finish(c.writer, ret_size, err);
    image_writer_free(c.writer);
    image_reader_free(c.reader);
    image_head_deinit(&was);
    free(c.buffer);
    return r;
}

int export_rewrite(const struct export *e, const struct nh_snapshot *record, struct snapshot_temp *temp, uint64_t *ret_size,
                   struct nh_error *err)
{
    struct file_source file;
    struct image_source source;
    struct file *f;
    int r = open_image(e, &f, NULL, err);

    if (r < 0)
        return r;
    file_source_init(&file, fs_of(), f, &source);
    r = copy(e, &source, record, temp, ret_size, err);
    fs_of()->ops->close(f, NULL);
    return r < 0 ? nh_error_wrap(err, r, "write the image anew") : NH_OK;
}
