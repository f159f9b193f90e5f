/* kv-disk on a disk that ends anywhere, by a kill or a power cut that leaves any of the sectors that were not synced
 * (cut_disk.h). The next life must find whole batches, all that was synced, and the state that belongs to its index; or
 * nothing, if RocksDB did not see a hole, which is rare. */
#include <dlfcn.h>
#include <inttypes.h>
#include <rocksdb/c.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/conformance/logdb/fixture.h"
#include "tests/unit/cmd/kv_replica.h"
#include "tests/unit/logdb/cut_disk.h"

#define N_LIVES            60u
#define CALLS_MAX          1000u /* of a life */
#define WRITE_BUFFER_BYTES (4 * 65536u)
#define BATCH_MAX          8u

static struct model {
    uint64_t seed;
    uint64_t synced; /* applied, when a sync returned */
    uint64_t n_synced, n_lost, n_emptied, n_memtables;
    uint64_t applied; /* in the life before */
} * model;            /* shared with the children */

/* ---- called by the machine instead of RocksDB's ---- */

NH_API void rocksdb_options_set_write_buffer_size(rocksdb_options_t *options, size_t size_bytes);
NH_API void rocksdb_write(rocksdb_t *db, const rocksdb_writeoptions_t *options, rocksdb_writebatch_t *batch, char **message);
NH_API void rocksdb_flush_wal(rocksdb_t *db, unsigned char sync, char **message);
NH_API void rocksdb_flush(rocksdb_t *db, const rocksdb_flushoptions_t *options, char **message);

static bool is_wal_synced;

/* So that a short life makes tables, too. */
void rocksdb_options_set_write_buffer_size(rocksdb_options_t *options, size_t size_bytes)
{
    void (*real)(rocksdb_options_t *, size_t);

    (void)size_bytes;
    *(void **)&real = dlsym(RTLD_NEXT, "rocksdb_options_set_write_buffer_size");
    real(options, WRITE_BUFFER_BYTES);
}

void rocksdb_write(rocksdb_t *db, const rocksdb_writeoptions_t *options, rocksdb_writebatch_t *batch, char **message)
{
    void (*real)(rocksdb_t *, const rocksdb_writeoptions_t *, rocksdb_writebatch_t *, char **);

    is_wal_synced = false;
    *(void **)&real = dlsym(RTLD_NEXT, "rocksdb_write");
    real(db, options, batch, message);
}

void rocksdb_flush_wal(rocksdb_t *db, unsigned char sync, char **message)
{
    void (*real)(rocksdb_t *, unsigned char, char **);

    *(void **)&real = dlsym(RTLD_NEXT, "rocksdb_flush_wal");
    real(db, sync, message);
    is_wal_synced = sync && !*message;
}

/* A new memtable has a new WAL. */
void rocksdb_flush(rocksdb_t *db, const rocksdb_flushoptions_t *options, char **message)
{
    void (*real)(rocksdb_t *, const rocksdb_flushoptions_t *, char **);

    MUST(is_wal_synced, "before the next WAL begins");
    model->n_memtables++;
    *(void **)&real = dlsym(RTLD_NEXT, "rocksdb_flush");
    real(db, options, message);
}

/* ---- lives ---- */

/* The batch behind an index is always the same. */
static void apply_next(struct kv_replica *r)
{
    unsigned seed = (unsigned)r->applied;
    size_t n = 1 + (size_t)rand_r(&seed) % BATCH_MAX;
    char texts[BATCH_MAX][KV_TEXT_BYTES];

    for (size_t i = 0; i < n; i++)
        kv_random_command(texts[i], &seed);
    kv_replica_apply(r, texts, n);
}

static void check(struct kv_replica *disk)
{
    struct kv_replica kv;

    if (disk->applied == 0) {
        model->n_emptied += model->synced > 0;
        model->synced = 0;
    }
    MUST(disk->applied >= model->synced, "%" PRIu64 " was synced, %" PRIu64 " is there", model->synced, disk->applied);
    kv_replica_open(&kv, KV_SO, 1, 1);
    while (kv.applied < disk->applied)
        apply_next(&kv);
    MUST(kv.applied == disk->applied, "it ends at %" PRIu64 ", within a batch", disk->applied);
    MUST(kv.ops->hash(kv.m) == disk->ops->hash(disk->m), "state at index %" PRIu64, disk->applied);
    kv_replica_close(&kv);
    model->n_lost += disk->applied < model->applied;
    model->applied = disk->applied;
}

static void live(void)
{
    uint64_t sync_every = below(&model->seed, 2) ? 10 : 1000;
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    check(&disk);
    for (;;) {
        apply_next(&disk);
        model->applied = disk.applied;
        if (below(&model->seed, sync_every) > 0)
            continue;
        MUST(disk.ops->sync(disk.m, NULL) == NH_OK, "sync");
        model->synced = disk.applied;
        model->n_synced++;
    }
}

/* RocksDB's threads do not survive a fork: whatever opens a database is a child. */
static void run_life(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        live();
        _exit(1);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "see stderr");
}

TestSuite(kv_disk_cut, .init = kv_replica_root, .fini = kv_replica_remove_root, .timeout = 240);

/* NH_SEED repeats a run, but for what RocksDB's threads do at the same time. */
Test(kv_disk_cut, whatever_a_crash_leaves_is_a_state_that_was)
{
    const char *given = getenv("NH_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)getpid();
    struct cut_disk_counts counts;

    fprintf(stderr, "NH_SEED=%" PRIu64 "\n", seed);
    model = mmap(NULL, sizeof *model, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)model, MAP_FAILED);
    model->seed = seed;
    cr_assert_eq(mkdir(kv_replica_database(), 0700), 0);
    cut_disk_begin(kv_replica_database(), seed);
    for (uint32_t i = 0; i < N_LIVES; i++) {
        cut_disk_after(1 + below(&model->seed, CALLS_MAX));
        run_life();
    }
    counts = cut_disk_counts();
    cut_disk_end();
    fprintf(stderr,
            "%" PRIu64 " lives lost batches, %" PRIu64 " all; %" PRIu64 " kills, %" PRIu64 " power cuts, %" PRIu64
            " sectors lost\n",
            model->n_lost, model->n_emptied, counts.kills, counts.cuts, counts.lost_sectors);
    cr_assert(model->n_lost > 0 && model->n_emptied < N_LIVES / 10 && counts.kills > 0 && counts.cuts > 0 &&
              counts.lost_sectors > 0 && model->n_synced > 0 && model->n_memtables > 0);
    munmap(model, sizeof *model);
}
