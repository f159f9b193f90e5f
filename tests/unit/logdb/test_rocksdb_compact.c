/* Compaction of a log whose tables are large enough for whole files to be dropped: never one with a block that must stay. */
#include "tests/conformance/logdb/fixture.h"

#include <semaphore.h>

#include "logdb/rocksdb/store.h"
#include "raftio/support/crc32c.h"
#include "raftio/support/memory.h"

/* Some blocks fill a file, and together they are more than what is left to RocksDB's own compactions. */
#define FILE_BYTES    "target_file_size_base=1048576"
#define PAYLOAD_BYTES (240u * 1024)
#define LAST          330u /* one entry each */
#define DEAD_MIN      300u

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    setenv("NH_LOGDB_OPTIONS", FILE_BYTES, 1);
    fixture_init();
}

TestSuite(compact, .init = init, .fini = fixture_deinit, .timeout = 120);

/* As one that was moved out of the journal. */
static void put_block(uint64_t index)
{
    const struct layout_header h = {.n = 1, .number = index, .state = {.term = 2, .vote = REPLICA, .commit = index}};
    struct nh_block *b = make_block_sized(index, 1, 1, PAYLOAD_BYTES);
    size_t size = LAYOUT_HEADER_BYTES + b->offsets[1];
    uint8_t *value = xmalloc(size);
    struct layout_key key;

    layout_header_encode(&h, crc32c, value);
    memcpy(value + LAYOUT_HEADER_BYTES, b->data, b->offsets[1]);
    layout_block_key(&key, SHARD, REPLICA, index);
    expect_ok(store_put(f.db, &key, value, size, &f.err));
    free(value);
    nh_block_unref(b);
}

static void fill_tables(void)
{
    for (uint64_t i = 1; i <= LAST; i++)
        put_block(i);
    rocksdb_compact_range(f.db->db, NULL, 0, NULL, 0);
}

/* Of a block; other keys are behind all. */
static uint64_t index_of(const char *key, size_t size)
{
    struct nh_replica_info info;
    enum layout_kind kind;
    uint64_t index;

    cr_assert(layout_key_parse(key, size, &info, &kind, &index));
    return info.shard_id == SHARD && kind == LAYOUT_BLOCK ? index : UINT64_MAX;
}

/* The newest block that is the last of its file, and not of the log. */
static uint64_t find_last_of_a_file(void)
{
    const rocksdb_livefiles_t *files = rocksdb_livefiles(f.db->db);
    uint64_t found = 0;

    for (int i = 0; i < rocksdb_livefiles_count(files); i++) {
        size_t size;
        const char *key = rocksdb_livefiles_largestkey(files, i, &size);
        uint64_t index = index_of(key, size);

        if (rocksdb_livefiles_level(files, i) > 0 && index < LAST && index > found)
            found = index;
    }
    rocksdb_livefiles_destroy(files);
    cr_assert_gt(found, DEAD_MIN);
    return found;
}

static void on_done(void *ctx)
{
    sem_post(ctx);
}

static void remove_and_compact(uint64_t index)
{
    sem_t done;

    sem_init(&done, 0, 0);
    expect_ok(f.ops->remove_entries_to(f.db, SHARD, REPLICA, index, &f.err));
    expect_ok(f.ops->compact_entries_to(f.db, SHARD, REPLICA, index, on_done, &done, &f.err));
    sem_wait(&done);
    sem_destroy(&done);
}

static void expect_files_are_dropped(uint64_t live)
{
    const rocksdb_livefiles_t *files = rocksdb_livefiles(f.db->db);

    for (int i = 0; i < rocksdb_livefiles_count(files); i++) {
        size_t size;
        const char *key = rocksdb_livefiles_largestkey(files, i, &size);

        cr_assert_geq(index_of(key, size), live, "a file of dead blocks stays");
    }
    rocksdb_livefiles_destroy(files);
}

/* Found by a review: RocksDB drops a file that ends with the very key that ends the range. */
Test(compact, a_file_that_ends_with_the_block_of_the_start_stays)
{
    struct collected c;
    uint64_t start;

    fill_tables();
    start = find_last_of_a_file();
    remove_and_compact(start - 1);
    for (int i = 0; i < 2; i++) {
        expect_bounds(SHARD, REPLICA, start, LAST);
        expect_ok(collect(SHARD, REPLICA, start, LAST + 1, SIZE_MAX, &c));
        cr_assert_eq(c.n, LAST + 1 - start);
        collected_deinit(&c);
        expect_files_are_dropped(start);
        fixture_reopen();
    }
}

Test(compact, the_last_block_stays_with_the_hard_state)
{
    fill_tables();
    remove_and_compact(LAST);
    fixture_reopen();
    expect_bounds(SHARD, REPLICA, LAST + 1, LAST);
    expect_state(SHARD, REPLICA, 2, REPLICA, LAST);
}
