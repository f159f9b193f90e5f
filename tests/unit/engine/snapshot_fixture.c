#include "tests/unit/engine/snapshot_fixture.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct snapshot_fixture x;

static void open_dir(void)
{
    OK(snapshot_dir_init(&x.dir, x.fs, x.root, SHARD, REPLICA, &x.err));
}

void snapshot_setup_posix(void)
{
    x = (struct snapshot_fixture){.fs = files_posix(), .root = "/tmp/nodehost-snapshot.XXXXXX"};
    cr_assert(mkdtemp(x.root));
    open_dir();
}

void snapshot_setup_memory(void)
{
    x = (struct snapshot_fixture){.memory = memory_files_new(), .root = "/root"};
    x.fs = memory_files_base(x.memory);
    OK(x.fs->ops->make_dir(x.fs, x.root, &x.err));
    OK(x.fs->ops->sync_dir(x.fs, "", &x.err));
    open_dir();
}

void snapshot_teardown(void)
{
    if (!x.memory)
        OK(x.fs->ops->remove(x.fs, x.root, &x.err));
    memory_files_free(x.memory);
}

/* splitmix64 */
static uint64_t next_random(void *ctx)
{
    uint64_t z = (*(uint64_t *)ctx += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void snapshot_crash(uint64_t seed)
{
    x.random = seed;
    memory_files_crash(x.memory, next_random, &x.random);
    open_dir();
}

struct nh_snapshot snapshot_record_of(uint64_t index)
{
    static struct nh_member members[] = {{.replica_id = REPLICA, .address = "127.0.0.1:7101"}};

    return (struct nh_snapshot){.shard_id = SHARD,
                                .index = index,
                                .term = 2,
                                .file_size_bytes = IMAGE_BYTES,
                                .membership = {.config_change_id = 1, .n_members = 1, .members = members}};
}

static void fill(uint64_t index, uint8_t *data)
{
    for (size_t i = 0; i < IMAGE_BYTES; i++)
        data[i] = (uint8_t)((index * 7 + i) | 1);
}

int snapshot_make(uint64_t index, uint64_t from)
{
    const struct nh_snapshot record = snapshot_record_of(index);
    uint8_t data[IMAGE_BYTES];
    struct snapshot_temp t;
    int r = snapshot_temp_begin(&t, &x.dir, index, from, &x.err);

    if (r < 0)
        return r;
    fill(index, data);
    r = snapshot_temp_write(&t, data, 700, &x.err);
    if (r == NH_OK)
        r = snapshot_temp_write(&t, data + 700, IMAGE_BYTES - 700, &x.err);
    if (r == NH_OK)
        r = snapshot_temp_commit(&t, &record, &x.err);
    snapshot_temp_abort(&t);
    return r;
}

int snapshot_take(uint64_t index, uint64_t from, uint32_t keep)
{
    int r = snapshot_make(index, from);

    if (r < 0)
        return r;
    x.recorded = index;
    return snapshot_dir_prune(&x.dir, index, keep, &x.err);
}

void snapshot_check(uint64_t index)
{
    uint8_t data[IMAGE_BYTES + 1], want[IMAGE_BYTES];
    struct nh_snapshot record;
    struct file *f;
    uint64_t size;

    OK(snapshot_dir_open(&x.dir, index, &f, &size, &x.err));
    cr_assert_eq(size, IMAGE_BYTES);
    cr_assert_eq(x.fs->ops->read_at(f, 0, data, sizeof data, &x.err), IMAGE_BYTES);
    OK(x.fs->ops->close(f, &x.err));
    fill(index, want);
    cr_assert_eq(memcmp(data, want, sizeof want), 0, "bytes of %" PRIu64, index);
    OK(snapshot_dir_record(&x.dir, index, &record, &x.err));
    cr_assert_eq(record.index, index);
    cr_assert_eq(record.term, 2);
    cr_assert_eq(record.membership.n_members, 1);
    nh_snapshot_deinit(&record);
}

struct expected {
    size_t n, n_found;
    const char *const *names;
};

static int find_name(void *ctx, const char *name)
{
    struct expected *e = ctx;

    for (size_t i = 0; i < e->n; i++)
        if (strcmp(e->names[i], name) == 0) {
            e->n_found++;
            return NH_OK;
        }
    cr_assert_fail("left behind: %s", name);
    return NH_OK;
}

void snapshot_check_names(size_t n, const char *const *names)
{
    struct expected e = {.n = n, .names = names};

    OK(x.fs->ops->list(x.fs, x.dir.path, find_name, &e, &x.err));
    cr_assert_eq(e.n_found, n);
}

void snapshot_check_images(const uint64_t *indexes)
{
    char text[8][32];
    const char *names[8];
    size_t n = 0;

    for (; indexes[n]; n++) {
        snprintf(text[n], sizeof text[n], "snapshot-%016" PRIx64, indexes[n]);
        names[n] = text[n];
        snapshot_check(indexes[n]);
    }
    snapshot_check_names(n, names);
}

const char *snapshot_path(const char *fmt, ...)
{
    static char paths[4][FILES_PATH_BYTES + 64];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    int n = snprintf(path, sizeof paths[0], "%s/", x.dir.path);
    va_list args;

    va_start(args, fmt);
    vsnprintf(path + n, sizeof paths[0] - (size_t)n, fmt, args);
    va_end(args);
    return path;
}

void snapshot_put(const char *path, const void *data, size_t size_bytes)
{
    struct file *f;

    OK(x.fs->ops->create(x.fs, path, &f, &x.err));
    OK(x.fs->ops->write(f, data, size_bytes, &x.err));
    OK(x.fs->ops->close(f, &x.err));
}
