/* The RocksDB store under ThreadSanitizer: saves of two workers, reads, removals and a replica that stays, with a journal so
 * short that its segments are moved out of and used again all the time. */
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "logdb/rocksdb/rocksdb_logdb.h"
#include "raftio/plugin.h"
#include "raftio/support/block.h"

#define REPLICA   1u
#define N_WORKERS 2u
#define N_ROUNDS  250u
#define N_ENTRIES 3u
#define KEPT      20u
#define PAYLOAD   4000u

#define MUST(condition)                                                                   \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: " #condition ": %s\n", __FILE__, __LINE__, err.text); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

static const struct nh_logdb_ops *ops;
static struct nh_logdb *db;
static bool stop;                     /* atomic */
static uint64_t saved[N_WORKERS + 1]; /* atomic: last index of shard i */
static uint64_t n_read;               /* atomic */

static void save(uint64_t shard_id, uint64_t first, uint32_t worker_id)
{
    struct nh_error err = {0};
    struct block_builder b = {0};
    struct nh_run run = {.to = N_ENTRIES};
    struct nh_update u = {.shard_id = shard_id, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};
    uint8_t payload[PAYLOAD];
    uint32_t payload_bytes = first / N_ENTRIES % 8 < 5 ? 16 : PAYLOAD; /* some wait for RocksDB, some lie in the journal */

    memset(payload, (int)first, sizeof payload);
    for (uint32_t i = 0; i < N_ENTRIES; i++) {
        struct block_record r = {.type = NH_ENTRY_APPLICATION,
                                 .key = first + i,
                                 .payload = payload,
                                 .payload_bytes = payload_bytes};

        MUST(block_builder_add(&b, &r) == NH_OK);
    }
    run.block = block_seal(&b, 1, first);
    MUST(ops->save_raft_state(db, &u, 1, worker_id, &err) == NH_OK);
    nh_block_unref(run.block);
}

static void *run_saver(void *arg)
{
    uint32_t worker_id = *(const uint32_t *)arg;

    for (uint64_t round = 0; round < N_ROUNDS; round++) {
        if (round % 50 == 0) /* of a log that is never removed */
            save(100 + worker_id, 1 + round / 50 * N_ENTRIES, worker_id);
        save(worker_id, 1 + round * N_ENTRIES, worker_id);
        __atomic_store_n(&saved[worker_id], (round + 1) * N_ENTRIES, __ATOMIC_RELEASE);
    }
    return NULL;
}

static int on_records(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *ret_err)
{
    uint64_t *next = ctx;
    struct nh_error err = {0};

    (void)ret_err;
    for (size_t at = 0; at < size_bytes; at += nh_record_bytes(records + at), ++*next)
        MUST(nh_record_index(records + at) == *next);
    return NH_OK;
}

static void *run_reader(void *arg)
{
    uint64_t shard_id = *(const uint32_t *)arg;

    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        struct nh_raft_state s;
        struct nh_error err = {0};
        struct nh_entry_sink sink = {.add = on_records};
        uint64_t next;
        int r = ops->read_raft_state(db, shard_id, REPLICA, &s, &err);

        MUST(r == NH_OK || r == NH_ENOTFOUND);
        if (r < 0)
            continue;
        next = s.first_index;
        sink.ctx = &next;
        r = ops->iterate_entries(db, shard_id, REPLICA, s.first_index, s.last_index + 1, SIZE_MAX, &sink, &err);
        MUST(r == NH_OK || r == NH_ENOTFOUND || r == NH_ECOMPACTED);
        __atomic_add_fetch(&n_read, next - s.first_index, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void on_done(void *ctx)
{
    (void)ctx;
}

static void *run_remover(void *arg)
{
    uint64_t removed[N_WORKERS + 1] = {0};
    struct nh_error err = {0};

    (void)arg;
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        for (uint64_t shard_id = 1; shard_id <= N_WORKERS; shard_id++) {
            uint64_t last = __atomic_load_n(&saved[shard_id], __ATOMIC_ACQUIRE);

            if (last < removed[shard_id] + 2 * KEPT)
                continue;
            removed[shard_id] = last - KEPT;
            MUST(ops->remove_entries_to(db, shard_id, REPLICA, last - KEPT, &err) == NH_OK);
            MUST(ops->compact_entries_to(db, shard_id, REPLICA, last - KEPT, on_done, NULL, &err) == NH_OK);
        }
        usleep(1000);
    }
    return NULL;
}

static void open_store(const char *dir)
{
    const struct nh_logdb_config config = {.struct_size = sizeof config,
                                           .dir = dir,
                                           .n_workers = N_WORKERS,
                                           .options = "max_total_wal_size=262144",
                                           .services = nh_plugin_services()};
    struct nh_error err = {0};

    MUST(ops->open(&config, &db, &err) == NH_OK);
}

static void expect_log(uint64_t shard_id, uint64_t low, uint64_t high)
{
    struct nh_error err = {0};
    uint64_t next = low;
    struct nh_entry_sink sink = {.add = on_records, .ctx = &next};

    MUST(ops->iterate_entries(db, shard_id, REPLICA, low, high, SIZE_MAX, &sink, &err) == NH_OK);
    MUST(next == high);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int main(void)
{
    pthread_t savers[N_WORKERS], readers[N_WORKERS], remover;
    uint32_t ids[N_WORKERS] = {1, 2}, stays[N_WORKERS] = {1, 101};
    char dir[] = "nh-logdb-stress-XXXXXX";
    struct nh_error err = {0};

    MUST(mkdtemp(dir) != NULL);
    ops = nh_logdb_rocksdb();
    open_store(dir);
    for (uint32_t i = 0; i < N_WORKERS; i++) {
        MUST(pthread_create(&savers[i], NULL, run_saver, &ids[i]) == 0);
        MUST(pthread_create(&readers[i], NULL, run_reader, &stays[i]) == 0);
    }
    MUST(pthread_create(&remover, NULL, run_remover, NULL) == 0);
    for (uint32_t i = 0; i < N_WORKERS; i++)
        pthread_join(savers[i], NULL);
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < N_WORKERS; i++)
        pthread_join(readers[i], NULL);
    pthread_join(remover, NULL);
    for (int again = 0; again < 2; again++) {
        for (uint64_t shard_id = 1; shard_id <= N_WORKERS; shard_id++) {
            expect_log(shard_id, N_ROUNDS * N_ENTRIES - KEPT / 2, N_ROUNDS * N_ENTRIES + 1);
            expect_log(100 + shard_id, 1, N_ROUNDS / 50 * N_ENTRIES + 1);
        }
        ops->close(db);
        open_store(dir);
    }
    ops->close(db);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    printf("%" PRIu64 " entries read while others were saved and moved\n", n_read);
    MUST(n_read > 0);
    return 0;
}
