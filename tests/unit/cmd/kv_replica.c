#include "tests/unit/cmd/kv_replica.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

void kv_replica_root(void)
{
    snprintf(root, sizeof root, "/tmp/nh-kv-XXXXXX");
    cr_assert(mkdtemp(root));
}

static int remove_path(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void kv_replica_remove_root(void)
{
    nftw(root, remove_path, 16, FTW_DEPTH | FTW_PHYS);
}

void kv_replica_open(struct kv_replica *r, const char *so, uint64_t shard_id, uint64_t replica_id)
{
    struct nh_machine_args args = {.struct_size = sizeof args, .shard_id = shard_id, .replica_id = replica_id};

    *r = (struct kv_replica){.image = malloc(KV_IMAGE_BYTES)};
    snprintf(r->dir, sizeof r->dir, "%s/%d-%d", root, (int)shard_id, (int)replica_id);
    mkdir(r->dir, 0700);
    cr_assert_eq(nh_machine_load(so, &r->ops, &r->err), 0, "%s", r->err.text);
    args.data_dir = r->ops->kind == NH_MACHINE_ON_DISK ? r->dir : NULL;
    args.services = nh_plugin_services();
    cr_assert_eq(r->ops->open(&args, &r->m, &r->applied, &r->err), 0, "%s", r->err.text);
}

void kv_replica_close(struct kv_replica *r)
{
    r->ops->close(r->m);
    free(r->image);
    r->image = NULL;
}

void kv_replica_remove_dir(struct kv_replica *r)
{
    cr_assert_eq(nftw(r->dir, remove_path, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static size_t encode(uint8_t *out, size_t cap, const char *text)
{
    struct kv_slice args[16];
    char copy[KV_TEXT_BYTES], *save = NULL;
    uint32_t n = 0;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        args[n++] = (struct kv_slice){(const uint8_t *)word, (uint32_t)strlen(word)};
    cr_assert_leq(kv_command_bytes(args, n), cap);
    kv_command_encode(args, n, out);
    return kv_command_bytes(args, n);
}

int kv_replica_update(struct kv_replica *r, char texts[][KV_TEXT_BYTES], size_t n)
{
    static uint8_t cmds[KV_BATCH_MAX][2 * KV_TEXT_BYTES];

    cr_assert_leq(n, KV_BATCH_MAX);
    for (size_t i = 0; i < n; i++)
        r->entries[i] =
            (struct nh_entry){.index = ++r->applied, .cmd = cmds[i], .size_bytes = encode(cmds[i], sizeof cmds[i], texts[i])};
    return r->ops->update(r->m, r->entries, n, &r->err);
}

void kv_replica_apply(struct kv_replica *r, char texts[][KV_TEXT_BYTES], size_t n)
{
    cr_assert_eq(kv_replica_update(r, texts, n), 0, "%s", r->err.text);
}

void kv_replica_apply_text(struct kv_replica *r, const char *text)
{
    char texts[1][KV_TEXT_BYTES];

    snprintf(texts[0], sizeof texts[0], "%s", text);
    kv_replica_apply(r, texts, 1);
}

void kv_replica_apply_bytes(struct kv_replica *r, const void *cmd, size_t size)
{
    r->entries[0] = (struct nh_entry){.index = ++r->applied, .cmd = cmd, .size_bytes = size};
    cr_assert_eq(r->ops->update(r->m, r->entries, 1, &r->err), 0, "%s", r->err.text);
}

static int take_answer(void *ctx, const void *data, size_t size_bytes)
{
    struct kv_replica *r = ctx;

    cr_assert_leq(r->answer_size + size_bytes, sizeof r->answer);
    memcpy(r->answer + r->answer_size, data, size_bytes);
    r->answer_size += size_bytes;
    return 0;
}

uint64_t kv_replica_query(struct kv_replica *r, const char *text)
{
    struct nh_writer out = {take_answer, r};
    uint8_t query[2 * KV_TEXT_BYTES];
    uint64_t value = 99;

    r->answer_size = 0;
    cr_assert_eq(r->ops->lookup(r->m, query, encode(query, sizeof query, text), &out, &value, &r->err), 0, "%s", r->err.text);
    return value;
}

static int take_image(void *ctx, const void *data, size_t size_bytes)
{
    struct kv_replica *r = ctx;

    cr_assert_leq(r->image_size + size_bytes, KV_IMAGE_BYTES);
    memcpy(r->image + r->image_size, data, size_bytes);
    r->image_size += size_bytes;
    return 0;
}

int kv_replica_save_ctx(struct kv_replica *r, void *ctx)
{
    struct nh_writer out = {take_image, r};

    r->image_size = 0;
    return r->ops->save_snapshot(r->m, ctx, &out, &r->stop, &r->err);
}

int kv_replica_save(struct kv_replica *r)
{
    void *ctx = NULL;
    int result;

    if (r->ops->prepare_snapshot)
        cr_assert_eq(r->ops->prepare_snapshot(r->m, &ctx, &r->err), 0, "%s", r->err.text);
    result = kv_replica_save_ctx(r, ctx);
    if (r->ops->release_snapshot)
        r->ops->release_snapshot(r->m, ctx);
    return result;
}

struct input {
    const uint8_t *data;
    size_t size, at;
};

static int64_t give(void *ctx, void *data, size_t cap_bytes)
{
    struct input *in = ctx;
    size_t n = in->size - in->at < cap_bytes ? in->size - in->at : cap_bytes;

    n = n < 1000 ? n : 1000;
    if (n)
        memcpy(data, in->data + in->at, n);
    in->at += n;
    return (int64_t)n;
}

int kv_replica_recover(struct kv_replica *r, const uint8_t *image, size_t size)
{
    struct input from = {image, size, 0};
    struct nh_reader in = {give, &from};

    return r->ops->recover(r->m, &in, &r->stop, &r->err);
}

const char *kv_replica_database(void)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/kv-disk", root);
    return path;
}

size_t kv_replica_count_keys(void)
{
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_iterator_t *it;
    char *message = NULL;
    size_t n = 0;
    rocksdb_t *db;

    rocksdb_options_set_uint64add_merge_operator(options);
    db = rocksdb_open(options, kv_replica_database(), &message);
    cr_assert(!message, "%s", message);
    it = rocksdb_create_iterator(db, read);
    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it))
        n++;
    rocksdb_iter_destroy(it);
    rocksdb_close(db);
    rocksdb_readoptions_destroy(read);
    rocksdb_options_destroy(options);
    return n;
}

void kv_random_command(char text[KV_TEXT_BYTES], unsigned *seed)
{
    static const char *const forms[] = {"SET k%d v%d",        "SET k%d v%d NX",   "SET k%d v%d XX", "SET k%d v%d GET",
                                        "SET k%d v%d NX GET", "SETNX k%d w%d",    "GETSET k%d %d",  "APPEND k%d %d",
                                        "INCR k%d",           "INCRBY k%d %d",    "DECRBY k%d %d",  "DECR k%d",
                                        "DEL k%d k%d",        "MSET k%d 1 k%d 2", "DEL k%d",        "FLUSH k%d",
                                        "SET k%d v%d NX XX"};
    const char *form = forms[(size_t)rand_r(seed) % (sizeof forms / sizeof *forms)];

    snprintf(text, KV_TEXT_BYTES, form, rand_r(seed) % 12, rand_r(seed) % 12);
}
