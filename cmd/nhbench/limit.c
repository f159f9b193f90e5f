#include "cmd/nhbench/limit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/cluster.h"
#include "cmd/nhbench/limit_loopback.h"
#include "cmd/nhbench/must.h"

#define MIB        ((size_t)1024 * 1024)
#define FILE_BYTES (256 * MIB)
#define KEY_BYTES  28u

const char *const limit_names[LIMIT_KINDS] = {"file", "rocksdb", "store", "loopback"};

/* ---- watch ---- */

static uint64_t cpu_us(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u + (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

void limit_watch_start(struct limit_watch *w, double seconds)
{
    *w = (struct limit_watch){.begin_ns = clock_ns(), .cpu_us = cpu_us()};
    w->end_ns = w->begin_ns + (uint64_t)(seconds * (double)NS_PER_S);
}

bool limit_watch_count(struct limit_watch *w)
{
    w->batches++;
    return clock_ns() < w->end_ns;
}

void limit_watch_end(const struct limit_watch *w, uint32_t entries_per_batch, struct limit *ret)
{
    double seconds = (double)(clock_ns() - w->begin_ns) / 1e9, entries = (double)w->batches * entries_per_batch;

    ret->batches_per_second = (double)w->batches / seconds;
    ret->entries_per_second = entries / seconds;
    ret->cpu_ns_per_entry = (double)(cpu_us() - w->cpu_us) * 1e3 / entries;
}

static bool failed(const char *what)
{
    fprintf(stderr, "nhbench: --limit: %s: %s\n", what, strerror(errno));
    return false;
}

/* ---- (a) a preallocated file ---- */

/* Zeroes are written, not only reserved: a write to blocks that were never written costs more than over old ones. */
static bool prepare_file(int fd, size_t size)
{
    char *zeroes = must(calloc(1, MIB));
    bool ok = true;

    for (size_t at = 0; at < size && ok; at += MIB)
        ok = pwrite(fd, zeroes, MIB, (off_t)at) == (ssize_t)MIB;
    free(zeroes);
    return (ok && fdatasync(fd) == 0) || failed("prepare a file");
}

static bool write_file(int fd, size_t size, size_t batch_bytes, struct limit_watch *w)
{
    char *data = must(malloc(batch_bytes));
    size_t at = 0;
    bool ok;

    memset(data, 'v', batch_bytes);
    do {
        if (at + batch_bytes > size)
            at = 0;
        ok = pwrite(fd, data, batch_bytes, (off_t)at) == (ssize_t)batch_bytes && fdatasync(fd) == 0;
        at += batch_bytes;
    } while (ok && limit_watch_count(w));
    free(data);
    return ok || failed("write a file");
}

static bool limit_file(const char *dir, const struct limit_shape *shape, double seconds, struct limit *ret)
{
    size_t batch = (size_t)shape->entries_per_save * shape->entry_bytes, size = FILE_BYTES;
    char path[PATH_MAX + 64];
    struct limit_watch w;
    bool ok;
    int fd;

    if (size < 2 * batch)
        size = (2 * batch + MIB - 1) / MIB * MIB;
    snprintf(path, sizeof path, "%s/limit-file", dir);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return failed(path);
    ok = prepare_file(fd, size);
    limit_watch_start(&w, seconds);
    ok = ok && write_file(fd, size, batch, &w);
    if (ok)
        limit_watch_end(&w, shape->entries_per_save, ret);
    close(fd);
    unlink(path);
    return ok;
}

/* ---- (b) RocksDB, bare ---- */

static bool said(char *message, const char *what)
{
    if (!message)
        return true;
    fprintf(stderr, "nhbench: --limit: %s: %s\n", what, message);
    rocksdb_free(message);
    return false;
}

/* As the log store sets them, as far as they matter to writing. */
static rocksdb_options_t *rocksdb_settings(const char *text)
{
    rocksdb_options_t *o = rocksdb_options_create(), *applied;
    char *message = NULL;

    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(o, 64 * MIB);
    rocksdb_options_set_max_write_buffer_number(o, 4);
    rocksdb_options_set_max_total_wal_size(o, 512 * MIB);
    rocksdb_options_set_level0_file_num_compaction_trigger(o, 8);
    rocksdb_options_set_level0_slowdown_writes_trigger(o, 20);
    rocksdb_options_set_level0_stop_writes_trigger(o, 32);
    rocksdb_options_set_target_file_size_base(o, 64 * MIB);
    rocksdb_options_set_max_bytes_for_level_base(o, 1024 * MIB);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_bytes_per_sync(o, MIB);
    rocksdb_options_set_allow_concurrent_memtable_write(o, 0);
    rocksdb_options_set_use_direct_io_for_flush_and_compaction(o, 1); /* --log-store-options can take it back, for both */
    if (!text || !text[0])
        return o;
    applied = rocksdb_options_create();
    rocksdb_get_options_from_string(o, text, applied, &message);
    if (!said(message, "options")) {
        rocksdb_options_destroy(applied);
        return o;
    }
    rocksdb_options_destroy(o);
    return applied;
}

/* Shard, replica and index, big-endian, so that keys of a shard lie together and grow. */
static void make_key(uint8_t *key, uint64_t shard, uint64_t index)
{
    memset(key, 0, KEY_BYTES);
    for (uint32_t i = 0; i < 8; i++) {
        key[7 - i] = (uint8_t)(shard >> (8 * i));
        key[KEY_BYTES - 1 - i] = (uint8_t)(index >> (8 * i));
    }
}

static bool write_rocksdb(rocksdb_t *db, const struct limit_shape *shape, struct limit_watch *w)
{
    uint32_t updates = shape->updates_per_save, most = (shape->entries_per_save + updates - 1) / updates;
    char *value = must(malloc((size_t)most * shape->entry_bytes + 1)), *message = NULL;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocksdb_writeoptions_t *options = rocksdb_writeoptions_create();
    uint64_t index = 1;
    uint8_t key[KEY_BYTES];

    rocksdb_writeoptions_set_sync(options, 1);
    memset(value, 'v', (size_t)most * shape->entry_bytes + 1);
    do {
        rocksdb_writebatch_clear(batch);
        for (uint32_t i = 0; i < updates; i++) {
            uint32_t n = shape->entries_per_save / updates + (i < shape->entries_per_save % updates);

            make_key(key, i + 1, index);
            rocksdb_writebatch_put(batch, (const char *)key, sizeof key, value, (size_t)n * shape->entry_bytes);
        }
        index += most;
        rocksdb_write(db, options, batch, &message);
    } while (!message && limit_watch_count(w));
    rocksdb_writeoptions_destroy(options);
    rocksdb_writebatch_destroy(batch);
    free(value);
    return said(message, "write to RocksDB");
}

static bool limit_rocksdb(const struct bench_options *o, const char *dir, const struct limit_shape *shape, double seconds,
                          struct limit *ret)
{
    bool is_default = strcmp(o->log_store, "rocksdb") == 0;
    rocksdb_options_t *options = rocksdb_settings(is_default ? o->log_store_options : NULL);
    char path[PATH_MAX + 64], *message = NULL;
    struct limit_watch w;
    rocksdb_t *db;
    bool ok;

    snprintf(path, sizeof path, "%s/limit-rocksdb", dir);
    db = rocksdb_open(options, path, &message);
    ok = said(message, "open RocksDB");
    if (ok) {
        limit_watch_start(&w, seconds);
        ok = write_rocksdb(db, shape, &w);
        limit_watch_end(&w, shape->entries_per_save, ret);
        rocksdb_close(db);
    }
    rocksdb_options_destroy(options);
    remove_tree(path, true);
    return ok;
}

void limits_measure(const struct bench_options *o, const char *dir, const struct limit_shape *shape, double seconds,
                    struct limit ret[LIMIT_KINDS])
{
    char path[PATH_MAX + 32];

    memset(ret, 0, LIMIT_KINDS * sizeof *ret);
    snprintf(path, sizeof path, "%s/limit", dir);
    if (mkdir(path, 0700) < 0) {
        failed(path);
        return;
    }
    limit_file(path, shape, seconds, &ret[LIMIT_FILE]);
    /* Once for nothing: the first database of a process pays for memory that later ones get from the allocator. */
    limit_rocksdb(o, path, shape, seconds / 2, &ret[LIMIT_ROCKSDB]);
    limit_rocksdb(o, path, shape, seconds, &ret[LIMIT_ROCKSDB]);
    limit_store(o, path, shape, seconds, &ret[LIMIT_STORE]);
    limit_loopback(shape, seconds, &ret[LIMIT_LOOPBACK]);
    remove_tree(path, true);
}
