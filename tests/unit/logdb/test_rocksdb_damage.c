/* What a damaged store says: garbage in values, torn and flipped segments. Never a crash, never silence. */
#include "tests/conformance/logdb/fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <rocksdb/c.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "logdb/rocksdb/layout.h"
#include "logdb/rocksdb/segment.h"
#include "raftio/support/crc32c.h"

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    fixture_init();
}

TestSuite(damage, .init = init, .fini = fixture_deinit, .timeout = 120);

/* ---- garbage values, put with RocksDB's own interface ---- */

static rocksdb_t *open_raw(rocksdb_options_t **ret_options)
{
    char db_dir[256], wal_dir[256], *message = NULL;
    rocksdb_t *db;

    snprintf(db_dir, sizeof db_dir, "%s/db", f.dir);
    snprintf(wal_dir, sizeof wal_dir, "%s/wal", f.dir);
    *ret_options = rocksdb_options_create();
    rocksdb_options_set_wal_dir(*ret_options, wal_dir);
    db = rocksdb_open(*ret_options, db_dir, &message);
    cr_assert_null(message, "%s", message);
    return db;
}

static void edit(const struct layout_key *key, const void *value, size_t size_bytes)
{
    rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
    rocksdb_options_t *options;
    char *message = NULL;
    rocksdb_t *db;

    fixture_reopen(); /* the journal would bring back what is edited */
    fixture_close();
    db = open_raw(&options);
    if (value)
        rocksdb_put(db, write, key->bytes, key->size_bytes, value, size_bytes, &message);
    else
        rocksdb_delete(db, write, key->bytes, key->size_bytes, &message);
    cr_assert_null(message, "%s", message);
    rocksdb_close(db);
    rocksdb_options_destroy(options);
    rocksdb_writeoptions_destroy(write);
    fixture_open();
}

static void edit_kind(enum layout_kind kind, const void *value, size_t size_bytes)
{
    struct layout_key key;

    layout_key(&key, SHARD, REPLICA, kind);
    edit(&key, value, size_bytes);
}

static void edit_block(uint64_t index, const void *value, size_t size_bytes)
{
    struct layout_key key;

    layout_block_key(&key, SHARD, REPLICA, index);
    edit(&key, value, size_bytes);
}

static void expect_corrupt_state(void)
{
    struct nh_update u = make_update(SHARD, REPLICA, 31, 1, 1);
    struct nh_raft_state s;

    cr_assert_eq(f.ops->read_raft_state(f.db, SHARD, REPLICA, &s, &f.err), NH_ECORRUPT, "%s", f.err.text);
    cr_assert_eq(save(&u, 1, 1), NH_ECORRUPT, "nothing is built on it: %s", f.err.text);
    update_deinit(&u);
    /* The others live, and this one can be removed. */
    must_save_entries(SHARD + 1, REPLICA, 1, 1, 1);
    expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
    must_save_entries(SHARD, REPLICA, 1, 1, 1);
    expect_entries(SHARD, REPLICA, 1, 1, 1);
}

static void expect_corrupt_entries(uint64_t low, uint64_t high)
{
    struct collected c;

    cr_assert_eq(collect(SHARD, REPLICA, low, high, SIZE_MAX, &c), NH_ECORRUPT, "%s", f.err.text);
    collected_deinit(&c);
}

static void save_three_blocks(void)
{
    for (uint64_t first = 1; first < 30; first += 10)
        must_save_entries(SHARD, REPLICA, first, 10, 1);
}

Test(damage, a_garbage_state)
{
    save_three_blocks();
    edit_kind(LAYOUT_STATE, "garbage", 7);
    expect_corrupt_state();
}

Test(damage, a_state_with_a_tail)
{
    const struct layout_header h = {.number = 9};
    uint8_t value[LAYOUT_HEADER_BYTES + 1] = {0};

    layout_header_encode(&h, crc32c, value);
    edit_kind(LAYOUT_STATE, value, sizeof value);
    expect_corrupt_state();
}

Test(damage, a_garbage_start)
{
    save_three_blocks();
    edit_kind(LAYOUT_START, "garbage garbage!", 16);
    expect_corrupt_entries(5, 6);
    expect_corrupt_state();
}

Test(damage, a_start_with_a_tail)
{
    uint8_t value[LAYOUT_ENVELOPE_BYTES + sizeof(uint64_t) + 1] = {0};

    layout_envelope_seal(value, sizeof(uint64_t) + 1, crc32c);
    save_three_blocks();
    edit_kind(LAYOUT_START, value, sizeof value);
    expect_corrupt_entries(5, 6);
    expect_corrupt_state();
}

Test(damage, a_garbage_last_block)
{
    save_three_blocks();
    edit_block(21, "garbage garbage garbage garbage garbage garbage garbage", 55);
    expect_corrupt_state();
}

Test(damage, a_block_without_entries)
{
    const struct layout_header h = {.n = 0};
    uint8_t value[LAYOUT_HEADER_BYTES];

    layout_header_encode(&h, crc32c, value);
    save_three_blocks();
    edit_block(31, value, sizeof value);
    expect_corrupt_state();
}

Test(damage, a_garbage_block_in_the_middle)
{
    save_three_blocks();
    edit_block(11, "garbage", 7);
    expect_corrupt_entries(11, 12);
    expect_corrupt_entries(15, 31);
    expect_corrupt_entries(1, 31);
}

Test(damage, a_missing_block)
{
    save_three_blocks();
    edit_block(11, NULL, 0);
    expect_corrupt_entries(11, 12);
    expect_corrupt_entries(1, 31);
}

Test(damage, a_missing_first_block)
{
    save_three_blocks();
    edit_block(1, NULL, 0);
    expect_corrupt_entries(1, 2);
}

Test(damage, blocks_that_overlap)
{
    struct nh_block *b = make_block(15, 3, 1);
    const struct layout_header h = {.n = 3};
    uint8_t value[1024];

    layout_header_encode(&h, crc32c, value);
    memcpy(value + LAYOUT_HEADER_BYTES, b->data, b->offsets[3]);
    save_three_blocks();
    edit_block(15, value, LAYOUT_HEADER_BYTES + b->offsets[3]);
    expect_corrupt_entries(11, 31);
    nh_block_unref(b);
}

Test(damage, a_block_under_a_wrong_index)
{
    struct nh_block *b = make_block(12, 10, 1);
    const struct layout_header h = {.n = 10};
    uint8_t value[4096];

    layout_header_encode(&h, crc32c, value);
    memcpy(value + LAYOUT_HEADER_BYTES, b->data, b->offsets[10]);
    save_three_blocks();
    edit_block(11, value, LAYOUT_HEADER_BYTES + b->offsets[10]);
    expect_corrupt_entries(11, 12);
    nh_block_unref(b);
}

Test(damage, garbage_bootstrap_and_snapshot_records)
{
    struct nh_bootstrap b;
    struct nh_snapshot s = make_snapshot(SHARD, 5, 1), read;
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .snapshot = &s};
    uint8_t value[64];

    memset(value, 0xff, sizeof value);
    edit_kind(LAYOUT_BOOTSTRAP, value, sizeof value);
    edit_kind(LAYOUT_SNAPSHOT, value, sizeof value);
    cr_assert_eq(f.ops->get_bootstrap(f.db, SHARD, REPLICA, &b, &f.err), NH_ECORRUPT);
    cr_assert_eq(f.ops->get_snapshot(f.db, SHARD, REPLICA, &read, &f.err), NH_ECORRUPT);
    cr_assert_eq(f.ops->save_snapshots(f.db, &u, 1, &f.err), NH_ECORRUPT);
    layout_envelope_seal(value, sizeof value - LAYOUT_ENVELOPE_BYTES, crc32c); /* whole, but not protobuf */
    edit_kind(LAYOUT_BOOTSTRAP, value, sizeof value);
    edit_kind(LAYOUT_SNAPSHOT, value, sizeof value);
    cr_assert_eq(f.ops->get_bootstrap(f.db, SHARD, REPLICA, &b, &f.err), NH_ECORRUPT);
    cr_assert_eq(f.ops->get_snapshot(f.db, SHARD, REPLICA, &read, &f.err), NH_ECORRUPT);
}

static int on_replica(void *ctx, struct nh_replica_info info)
{
    (void)ctx, (void)info;
    return 0;
}

Test(damage, a_foreign_key)
{
    struct layout_key key = {.size_bytes = 3, .bytes = "abc"};

    edit(&key, "x", 1);
    cr_assert_eq(f.ops->list_replicas(f.db, on_replica, NULL, &f.err), NH_ECORRUPT);
}

/* ---- the journal: images of a directory, taken while the store is open, are what a crash leaves ---- */

static char image_dir[160];

static void copy_file(const char *from, const char *to)
{
    static char buffer[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t n;

    cr_assert(in >= 0 && out >= 0, "%s", from);
    while ((n = read(in, buffer, sizeof buffer)) > 0)
        cr_assert_eq(write(out, buffer, (size_t)n), n);
    close(in);
    close(out);
}

static int copy_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char to[512];

    (void)st, (void)ftw;
    snprintf(to, sizeof to, "%s%s", image_dir, path + strlen(f.dir));
    if (type == FTW_D)
        mkdir(to, 0700);
    else
        copy_file(path, to);
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static char segment_path[512];

static int find_segment(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    size_t n = strlen(path);

    (void)ftw;
    if (type == FTW_F && n > 8 && strcmp(path + n - 8, ".segment") == 0 && st->st_size > 0)
        snprintf(segment_path, sizeof segment_path, "%s", path);
    return 0;
}

/* Copies the directory, which has one segment. */
static void take_image(void)
{
    snprintf(image_dir, sizeof image_dir, "%s-image", f.dir);
    nftw(image_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    cr_assert_eq(nftw(f.dir, copy_entry, 16, FTW_PHYS), 0);
    segment_path[0] = '\0';
    cr_assert_eq(nftw(image_dir, find_segment, 16, FTW_PHYS), 0);
    cr_assert(segment_path[0]);
}

static void drop_image(void)
{
    nftw(image_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static int open_image(struct nh_logdb **ret)
{
    const struct nh_logdb_config config = {
        .struct_size = sizeof config, .dir = image_dir, .n_workers = 1, .options = f.options, .services = nh_plugin_services()};

    return f.ops->open(&config, ret, &f.err);
}

static uint64_t last_of_image(struct nh_logdb *db)
{
    struct nh_raft_state s = {0};
    int r = f.ops->read_raft_state(db, SHARD, REPLICA, &s, &f.err);

    cr_assert(r == NH_OK || r == NH_ENOTFOUND);
    return s.last_index;
}

#define N_SAVES 5u

/* Saves of ten entries, one page each. */
static void save_tens(void)
{
    for (uint64_t i = 0; i < N_SAVES; i++)
        must_save_entries(SHARD, REPLICA, 1 + 10 * i, 10, 1);
}

/* Wherever the segment is cut, the rest is whole calls, and shorter ones hold no more. */
Test(damage, a_torn_segment_ends_at_a_call)
{
    uint64_t last = 10 * N_SAVES;
    off_t size = (1 + N_SAVES) * SEGMENT_PAGE;

    save_tens();
    for (off_t cut = 0; cut <= size; cut += cut % SEGMENT_PAGE < 200 ? 37 : 1301) {
        struct nh_logdb *db;
        uint64_t now;

        take_image();
        cr_assert_eq(truncate(segment_path, size - cut), 0);
        expect_ok(open_image(&db));
        now = last_of_image(db);
        cr_assert(now % 10 == 0 && now <= last, "%lu after a cut of %ld", now, (long)cut);
        cr_assert(cut > 0 || now == 10 * N_SAVES);
        last = now;
        f.ops->close(db);
    }
    cr_assert_eq(last, 0);
    drop_image();
}

static void flip(off_t at)
{
    int fd = open(segment_path, O_RDWR);
    uint8_t byte;

    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* A flipped byte in an acknowledged record stops the open: dropping it and what follows would be silent loss. The last record is
 * not to be told from a torn one. */
Test(damage, a_flipped_byte_is_noticed)
{
    save_tens();
    for (off_t at = 0; at < (off_t)((1 + N_SAVES) * SEGMENT_PAGE); at += at % SEGMENT_PAGE < 64 ? 5 : 211) {
        bool is_last = at >= (off_t)(N_SAVES * SEGMENT_PAGE);
        struct nh_logdb *db;
        int r;

        take_image();
        flip(at);
        r = open_image(&db);
        cr_assert(r == NH_ECORRUPT || r == NH_OK, "%s", f.err.text);
        if (r < 0)
            continue;
        /* Behind a body there is nothing to damage; of a header only 32 bytes count. */
        cr_assert(last_of_image(db) == 10 * N_SAVES || (is_last && last_of_image(db) == 10 * (N_SAVES - 1)), "%lu after %ld",
                  last_of_image(db), (long)at);
        f.ops->close(db);
    }
    drop_image();
}

Test(damage, a_damaged_segment_is_refused_unless_the_operator_accepts_the_loss)
{
    struct nh_logdb *db;

    save_tens();
    take_image();
    flip(3 * SEGMENT_PAGE + 100);
    cr_assert_eq(open_image(&db), NH_ECORRUPT, "%s", f.err.text);
    f.options = "wal_recovery_mode=kPointInTimeRecovery";
    expect_ok(open_image(&db));
    cr_assert_eq(last_of_image(db), 20);
    f.ops->close(db);
    f.options = NULL;
    expect_ok(open_image(&db)); /* accepted once */
    cr_assert_eq(last_of_image(db), 20);
    f.ops->close(db);
    drop_image();
}

/* Also where nothing before the damage was left to recover. */
Test(damage, a_loss_is_accepted_once)
{
    struct nh_logdb *db;

    save_tens();
    take_image();
    flip(SEGMENT_PAGE + 100);
    cr_assert_eq(open_image(&db), NH_ECORRUPT, "%s", f.err.text);
    f.options = "wal_recovery_mode=kPointInTimeRecovery";
    expect_ok(open_image(&db));
    cr_assert_eq(last_of_image(db), 0);
    f.ops->close(db);
    f.options = NULL;
    expect_ok(open_image(&db));
    f.ops->close(db);
    drop_image();
}

/* What a recovery found in the page cache only is made durable before it is served: no segment is needed after an open. */
Test(damage, recovered_entries_are_in_tables_when_open_returns)
{
    struct nh_logdb *db;

    must_save_entries(SHARD, REPLICA, 1, 10, 1);
    f.options = "avoid_flush_during_recovery=true"; /* not for the user to change */
    take_image();
    expect_ok(open_image(&db));
    f.ops->close(db);
    segment_path[0] = '\0';
    cr_assert_eq(nftw(image_dir, find_segment, 16, FTW_PHYS), 0);
    cr_assert_eq(segment_path[0], '\0', "nothing lies in it, so it is gone");
    expect_ok(open_image(&db));
    cr_assert_eq(last_of_image(db), 10);
    f.ops->close(db);
    drop_image();
}
