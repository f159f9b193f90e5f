#include "engine/snapshot_dir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/crc32c.h"
#include "raftio/support/memory.h"

#define RECORD_FORMAT     1u
#define RECORD_HEAD_BYTES 8u
#define NAME_BYTES        64u

/* ---- names ---- */

static int path_of(const struct snapshot_dir *d, const char *what, uint64_t index, char *out, struct nh_error *err)
{
    if (d->is_for_exports)
        return files_path(out, err, "%s/%s-%020" PRIu64 "-%020" PRIu64 "-%016" PRIx64, d->path, what, d->shard_id, d->replica_id,
                          index);
    return files_path(out, err, "%s/%s-%016" PRIx64, d->path, what, index);
}

int snapshot_dir_image(const struct snapshot_dir *d, uint64_t index, char *out, struct nh_error *err)
{
    return path_of(d, "snapshot", index, out, err);
}

static int temp_dir(const struct snapshot_dir *d, uint64_t index, uint64_t from, char *out, struct nh_error *err)
{
    if (from != 0)
        return files_path(out, err, "%s/receiving-%020" PRIu64 "-%016" PRIx64, d->path, from, index);
    return path_of(d, "saving", index, out, err);
}

/* A name in the replica's directory that is ours. */
struct found {
    char name[NAME_BYTES];
    uint64_t index;
    bool is_image; /* else a temporary directory */
};

/* False: the name is not ours. Written again it must be the same, so that no sign, blank or overflow passes. */
static bool parse_name(const char *name, struct found *ret)
{
    uint64_t from;

    *ret = (struct found){.is_image = true};
    if (sscanf(name, "snapshot-%16" SCNx64, &ret->index) == 1) {
        snprintf(ret->name, sizeof ret->name, "snapshot-%016" PRIx64, ret->index);
    } else {
        ret->is_image = false;
        if (sscanf(name, "saving-%16" SCNx64, &ret->index) == 1)
            snprintf(ret->name, sizeof ret->name, "saving-%016" PRIx64, ret->index);
        else if (sscanf(name, "receiving-%20" SCNu64 "-%16" SCNx64, &from, &ret->index) == 2)
            snprintf(ret->name, sizeof ret->name, "receiving-%020" PRIu64 "-%016" PRIx64, from, ret->index);
    }
    return strcmp(ret->name, name) == 0;
}

struct findings {
    struct found *items;
    size_t n, cap;
};

static int add_found(void *ctx, const char *name)
{
    struct findings *all = ctx;
    struct found f;

    if (!parse_name(name, &f))
        return NH_OK;
    array_reserve((void **)&all->items, &all->cap, all->n + 1, sizeof *all->items);
    all->items[all->n++] = f;
    return NH_OK;
}

static int by_index_newest_first(const void *a, const void *b)
{
    const struct found *x = a, *y = b;

    return x->index < y->index ? 1 : x->index > y->index ? -1 : strcmp(x->name, y->name);
}

/* What is ours in the directory, newest first. Nothing if it is not there: a replica without images has none. */
static int find_all(struct snapshot_dir *d, struct findings *ret, struct nh_error *err)
{
    struct nh_error cause = {0};
    int r;

    *ret = (struct findings){0};
    r = d->files->ops->list(d->files, d->path, add_found, ret, &cause);
    if (r == NH_ENOTFOUND)
        return NH_OK;
    if (r < 0 && err)
        *err = cause;
    if (r < 0)
        free(ret->items);
    else if (ret->n > 1)
        qsort(ret->items, ret->n, sizeof *ret->items, by_index_newest_first);
    return r;
}

/* ---- the directory ---- */

int snapshot_dir_name(struct snapshot_dir *d, struct files *files, const char *root, uint64_t shard_id, uint64_t replica_id,
                      struct nh_error *err)
{
    *d = (struct snapshot_dir){.files = files, .shard_id = shard_id, .replica_id = replica_id};
    return files_path(d->path, err, "%s/%020" PRIu64 "-%020" PRIu64, root, shard_id, replica_id);
}

int snapshot_dir_name_exports(struct snapshot_dir *d, struct files *files, const char *path, uint64_t shard_id,
                              uint64_t replica_id, struct nh_error *err)
{
    *d = (struct snapshot_dir){.files = files, .shard_id = shard_id, .replica_id = replica_id, .is_for_exports = true};
    return files_path(d->path, err, "%s", path);
}

static int sync_root(const struct snapshot_dir *d, struct nh_error *err)
{
    char root[FILES_PATH_BYTES];

    memcpy(root, d->path, sizeof root);
    *strrchr(root, '/') = '\0';
    return d->files->ops->sync_dir(d->files, root, err);
}

int snapshot_dir_make(struct snapshot_dir *d, struct nh_error *err)
{
    int r = d->files->ops->make_dir(d->files, d->path, err);

    return r < 0 ? r : sync_root(d, err); /* also if it was there: it may be from a life that ended before this */
}

int snapshot_dir_init(struct snapshot_dir *d, struct files *files, const char *root, uint64_t shard_id, uint64_t replica_id,
                      struct nh_error *err)
{
    int r = snapshot_dir_name(d, files, root, shard_id, replica_id, err);

    return r < 0 ? r : snapshot_dir_make(d, err);
}

/* What is left if this fails half-way lacks a part and is never taken for an image. */
static int remove_found(struct snapshot_dir *d, const char *name, struct nh_error *err)
{
    char path[FILES_PATH_BYTES];
    int r = files_path(path, err, "%s/%s", d->path, name);

    return r < 0 ? r : d->files->ops->remove(d->files, path, err);
}

/* Counts the images below the recorded one that are kept; they come newest first. */
static bool is_kept(const struct found *f, uint64_t recorded, uint32_t keep, uint32_t *n_below)
{
    if (!f->is_image || recorded == 0 || f->index > recorded)
        return false;
    return f->index == recorded || ++*n_below < keep;
}

int snapshot_dir_clean(struct snapshot_dir *d, uint64_t recorded, uint32_t keep, struct nh_error *err)
{
    struct findings all;
    uint32_t n_below = 0;
    int r = find_all(d, &all, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < all.n && r == NH_OK; i++)
        if (!is_kept(&all.items[i], recorded, keep, &n_below))
            r = remove_found(d, all.items[i].name, err);
    free(all.items);
    return r;
}

int snapshot_dir_prune(struct snapshot_dir *d, uint64_t recorded, uint32_t keep, struct nh_error *err)
{
    struct findings all;
    uint32_t n_below = 0;
    int r = find_all(d, &all, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < all.n && r == NH_OK; i++) {
        const struct found *f = &all.items[i];

        if (f->is_image && f->index < recorded && !is_kept(f, recorded, keep, &n_below))
            r = remove_found(d, f->name, err);
    }
    free(all.items);
    if (r == NH_OK)
        failpoint("snapshot_pruned");
    return r;
}

int snapshot_dir_remove(struct snapshot_dir *d, struct nh_error *err)
{
    int r = d->files->ops->remove(d->files, d->path, err);

    return r < 0 ? r : sync_root(d, err);
}

/* ---- the record file ---- */

static int write_record(struct snapshot_temp *t, const struct nh_snapshot *record, struct nh_error *err)
{
    size_t size = RECORD_HEAD_BYTES + snapshot_encode(record, NULL, 0);
    struct files *fs = t->dir->files;
    uint32_t head[2] = {0, RECORD_FORMAT};
    char path[FILES_PATH_BYTES];
    struct file *f = NULL;
    uint8_t *data;
    int r, closed;

    if (size > SNAPSHOT_RECORD_BYTES_MAX)
        return nh_error_set(err, NH_ETOOBIG, "the record has %zu bytes, at most %u are possible", size,
                            SNAPSHOT_RECORD_BYTES_MAX);
    data = xmalloc(size);
    snapshot_encode(record, data + RECORD_HEAD_BYTES, size - RECORD_HEAD_BYTES);
    memcpy(data, head, sizeof head);
    head[0] = crc32c(0, data + 4, size - 4);
    memcpy(data, head, sizeof head);
    r = files_path(path, err, "%s/record", t->path);
    if (r == NH_OK)
        r = fs->ops->create(fs, path, &f, err);
    if (r == NH_OK)
        r = fs->ops->write(f, data, size, err);
    free(data);
    if (r == NH_OK) {
        failpoint("snapshot_record_written");
        r = fs->ops->sync(f, err);
    }
    closed = fs->ops->close(f, r == NH_OK ? err : NULL);
    return r < 0 ? r : closed;
}

/* Bytes of a file from its beginning: all of them, or an error. */
static int read_exactly(struct files *fs, struct file *f, uint8_t *data, size_t size_bytes, struct nh_error *err)
{
    for (size_t at = 0; at < size_bytes;) {
        int64_t n = fs->ops->read_at(f, at, data + at, size_bytes - at, err);

        if (n < 0)
            return (int)n;
        if (n == 0)
            return nh_error_set(err, NH_ECORRUPT, "the record ends early");
        at += (size_t)n;
    }
    return NH_OK;
}

static int decode_record(const uint8_t *data, size_t size_bytes, struct nh_snapshot *ret, struct nh_error *err)
{
    uint32_t head[2];

    memcpy(head, data, sizeof head);
    if (head[0] != crc32c(0, data + 4, size_bytes - 4))
        return nh_error_set(err, NH_ECORRUPT, "the record's checksum is wrong");
    if (head[1] != RECORD_FORMAT)
        return nh_error_set(err, NH_EUNSUPPORTED, "the record has format %" PRIu32 ", this version reads %u", head[1],
                            RECORD_FORMAT);
    return snapshot_decode(data + RECORD_HEAD_BYTES, size_bytes - RECORD_HEAD_BYTES, ret, err);
}

int snapshot_record_load(struct files *fs, const char *path, struct nh_snapshot *ret, struct nh_error *err)
{
    struct file *f;
    uint64_t size;
    uint8_t *data;
    int r = fs->ops->open(fs, path, &f, &size, err);

    if (r < 0)
        return r;
    if (size < RECORD_HEAD_BYTES || size > SNAPSHOT_RECORD_BYTES_MAX) {
        fs->ops->close(f, NULL);
        return nh_error_set(err, NH_ECORRUPT, "the record has %" PRIu64 " bytes", size);
    }
    data = xmalloc(size);
    r = read_exactly(fs, f, data, size, err);
    fs->ops->close(f, NULL);
    if (r == NH_OK)
        r = decode_record(data, size, ret, err);
    free(data);
    return r;
}

static int nothing(void *ctx, const char *name)
{
    (void)ctx, (void)name;
    return NH_OK;
}

/* A part of an image is not found. That is corruption if its directory is there. */
static int missing(struct snapshot_dir *d, const char *dir, struct nh_error *err)
{
    struct nh_error ignored;
    int r = d->files->ops->list(d->files, dir, nothing, NULL, &ignored);

    if (r == NH_OK)
        return nh_error_set(err, NH_ECORRUPT, "its image or its record is missing");
    return r == NH_ENOTFOUND ? nh_error_set(err, r, "it is not there") : nh_error_set(err, r, "%s", ignored.text);
}

int snapshot_dir_record(struct snapshot_dir *d, uint64_t index, struct nh_snapshot *ret, struct nh_error *err)
{
    char dir[FILES_PATH_BYTES], path[FILES_PATH_BYTES];
    struct nh_snapshot record;
    int r = snapshot_dir_image(d, index, dir, err);

    if (r == NH_OK)
        r = files_path(path, err, "%s/record", dir);
    if (r == NH_OK)
        r = snapshot_record_load(d->files, path, &record, err);
    if (r == NH_ENOTFOUND)
        r = missing(d, dir, err);
    if (r < 0)
        return nh_error_wrap(err, r, "snapshot %" PRIu64 " in %s", index, d->path);
    if (record.shard_id != d->shard_id || record.index != index) {
        r = nh_error_set(err, NH_ECORRUPT, "snapshot %" PRIu64 " in %s: the record is of snapshot %" PRIu64 " of shard %" PRIu64,
                         index, d->path, record.index, record.shard_id);
        nh_snapshot_deinit(&record);
        return r;
    }
    *ret = record;
    return NH_OK;
}

int snapshot_dir_open(struct snapshot_dir *d, uint64_t index, struct file **ret, uint64_t *ret_size, struct nh_error *err)
{
    char dir[FILES_PATH_BYTES], path[FILES_PATH_BYTES];
    struct nh_snapshot record;
    uint64_t said, size;
    struct file *f;
    int r = snapshot_dir_record(d, index, &record, err);

    if (r < 0)
        return r;
    said = record.file_size_bytes;
    nh_snapshot_deinit(&record);
    r = snapshot_dir_image(d, index, dir, err);
    if (r == NH_OK)
        r = files_path(path, err, "%s/image", dir);
    if (r == NH_OK)
        r = d->files->ops->open(d->files, path, &f, &size, err);
    if (r == NH_ENOTFOUND)
        r = missing(d, dir, err);
    if (r < 0)
        return nh_error_wrap(err, r, "snapshot %" PRIu64 " in %s", index, d->path);
    if (said != 0 && said != size) {
        d->files->ops->close(f, NULL);
        return nh_error_set(err, NH_ECORRUPT,
                            "snapshot %" PRIu64 " in %s: the image has %" PRIu64 " bytes, its record says %" PRIu64, index,
                            d->path, size, said);
    }
    *ret = f;
    if (ret_size)
        *ret_size = size;
    return NH_OK;
}

/* ---- an image under construction ---- */

int snapshot_temp_begin(struct snapshot_temp *t, struct snapshot_dir *dir, uint64_t index, uint64_t from, struct nh_error *err)
{
    struct files *fs = dir->files;
    char path[FILES_PATH_BYTES];
    int r;

    *t = (struct snapshot_temp){.index = index};
    if (index == 0)
        return nh_error_set(err, NH_EINVAL, "there is no snapshot 0");
    r = temp_dir(dir, index, from, t->path, err);
    if (r == NH_OK)
        r = files_path(path, err, "%s/image", t->path);
    if (r == NH_OK)
        r = fs->ops->remove(fs, t->path, err);
    if (r < 0)
        return r;
    t->dir = dir;
    r = fs->ops->make_dir(fs, t->path, err);
    if (r == NH_OK)
        r = fs->ops->create(fs, path, &t->image, err);
    if (r < 0)
        snapshot_temp_abort(t);
    return r;
}

int snapshot_temp_write(struct snapshot_temp *t, const void *data, size_t size_bytes, struct nh_error *err)
{
    return t->dir->files->ops->write(t->image, data, size_bytes, err);
}

static int sync_image(struct snapshot_temp *t, struct nh_error *err)
{
    struct files *fs = t->dir->files;
    int r = fs->ops->sync(t->image, err), closed = fs->ops->close(t->image, r == NH_OK ? err : NULL);

    t->image = NULL;
    return r < 0 ? r : closed;
}

/* The name is taken. By a whole image: that one stays. By remains of one: they give way. */
static int move_onto(struct snapshot_temp *t, const char *path, struct nh_error *err)
{
    struct files *fs = t->dir->files;
    struct file *present;
    int r = snapshot_dir_open(t->dir, t->index, &present, NULL, err);

    if (r == NH_OK) {
        fs->ops->close(present, NULL);
        return fs->ops->remove(fs, t->path, err);
    }
    if (r != NH_ECORRUPT && r != NH_ENOTFOUND)
        return r;
    r = fs->ops->remove(fs, path, err);
    return r < 0 ? r : fs->ops->rename(fs, t->path, path, err);
}

static int move(struct snapshot_temp *t, struct nh_error *err)
{
    struct files *fs = t->dir->files;
    char path[FILES_PATH_BYTES];
    int r = snapshot_dir_image(t->dir, t->index, path, err);

    if (r == NH_OK)
        r = fs->ops->rename(fs, t->path, path, err);
    if (r == NH_EEXIST && t->dir->is_for_exports)
        return nh_error_set(err, r, "%s is there already: choose another directory, or remove it", path);
    return r == NH_EEXIST ? move_onto(t, path, err) : r;
}

/* The end of a step. */
static int step(int r, const char *name)
{
    if (r == NH_OK)
        failpoint(name);
    return r;
}

/* The order matters: see the header. */
int snapshot_temp_commit(struct snapshot_temp *t, const struct nh_snapshot *record, struct nh_error *err)
{
    struct files *fs = t->dir->files;
    int r = NH_OK;

    if (record->shard_id != t->dir->shard_id || record->index != t->index)
        r = nh_error_set(err, NH_EMISMATCH, "the record is of snapshot %" PRIu64 " of shard %" PRIu64, record->index,
                         record->shard_id);
    if (r == NH_OK)
        r = step(sync_image(t, err), "snapshot_image_synced");
    if (r == NH_OK)
        r = step(write_record(t, record, err), "snapshot_record_synced");
    if (r == NH_OK)
        r = step(fs->ops->sync_dir(fs, t->path, err), "snapshot_directory_synced");
    if (r == NH_OK)
        r = step(move(t, err), "snapshot_renamed");
    if (r == NH_OK)
        r = step(fs->ops->sync_dir(fs, t->dir->path, err), "snapshot_committed");
    if (r < 0)
        return nh_error_wrap(err, r, "commit snapshot %" PRIu64, t->index);
    t->dir = NULL;
    return NH_OK;
}

void snapshot_temp_abort(struct snapshot_temp *t)
{
    struct files *fs;

    if (!t->dir)
        return;
    fs = t->dir->files;
    fs->ops->close(t->image, NULL);
    fs->ops->remove(fs, t->path, NULL);
    t->image = NULL;
    t->dir = NULL;
}

/* ---- as a source ---- */

static int64_t file_source_read(void *ctx, void *data, size_t cap_bytes, struct nh_error *err)
{
    struct file_source *s = ctx;
    int64_t n = s->files->ops->read_at(s->file, s->offset, data, cap_bytes, err);

    if (n > 0)
        s->offset += (uint64_t)n;
    return n;
}

void file_source_init(struct file_source *s, struct files *files, struct file *file, struct image_source *ret)
{
    *s = (struct file_source){.files = files, .file = file};
    *ret = (struct image_source){.read = file_source_read, .ctx = s};
}
