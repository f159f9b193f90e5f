/* Which calls reach the disk before they return, and what a failed sync does. fdatasync, fsync and asynchronous writes of the
 * process are replaced here: the journal and RocksDB make these. */
#include "tests/conformance/logdb/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "logdb/rocksdb/store.h"
#include "tests/unit/logdb/async_hook.h"

static int n_syncs;   /* atomic */
static int fail_next; /* atomic: so many syncs fail */
static int refuse;    /* the next of the writes that sync themselves ends with this */
static int n_async;   /* atomic: of them, by writes that sync themselves */

static void (*before_sync)(void); /* in whoever syncs */

NH_API int fdatasync(int fd);
NH_API int fsync(int fd);

static bool takes_failure(void)
{
    __atomic_fetch_add(&n_syncs, 1, __ATOMIC_ACQ_REL);
    if (__atomic_load_n(&fail_next, __ATOMIC_ACQUIRE) == 0)
        return false;
    __atomic_fetch_sub(&fail_next, 1, __ATOMIC_ACQ_REL);
    return true;
}

static int sync_fd(long number, int fd)
{
    if (before_sync)
        before_sync();
    if (!takes_failure())
        return (int)syscall(number, fd);
    errno = EIO;
    return -1;
}

void on_async_begin(int fd, int64_t at, size_t size_bytes)
{
    (void)fd;
    (void)at;
    (void)size_bytes;
}

int64_t on_async_end(int fd, int64_t at, size_t size_bytes, int64_t result)
{
    (void)fd;
    (void)at;
    (void)size_bytes;
    __atomic_fetch_add(&n_async, 1, __ATOMIC_RELAXED);
    if (refuse) {
        result = refuse;
        refuse = 0;
        return result;
    }
    return takes_failure() ? -EIO : result;
}

int fdatasync(int fd)
{
    return sync_fd(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return sync_fd(SYS_fsync, fd);
}

static bool same_file(int a, int b)
{
    struct stat x, y;

    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    fixture_init();
    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    expect_ok(f.ops->remove_replica_data(f.db, SHARD + 1, REPLICA, &f.err)); /* both streams have a file now */
    n_syncs = n_async = 0;
}

static void deinit(void)
{
    fail_next = 0;
    fixture_deinit();
}

TestSuite(sync, .init = init, .fini = deinit);

static int take_syncs(void)
{
    return __atomic_exchange_n(&n_syncs, 0, __ATOMIC_ACQ_REL);
}

Test(sync, a_save_syncs_once_if_any_update_asks_for_it)
{
    struct nh_update u[3] = {make_state(1, 1, 1, 0, 1), make_state(2, 1, 1, 0, 1), make_update(3, 1, 1, 3, 1)};

    for (size_t i = 0; i < 3; i++)
        u[i].must_sync = false;
    must_save(u, 2);
    cr_assert_eq(take_syncs(), 0);
    u[1].must_sync = true;
    must_save(u, 2);
    cr_assert_eq(take_syncs(), 1);
    u[1].must_sync = false;
    must_save(u, 3);
    cr_assert_eq(take_syncs(), 1, "entries are always synced");
    for (size_t i = 0; i < 3; i++)
        update_deinit(&u[i]);
}

Test(sync, records_and_removals_are_synced)
{
    const struct nh_bootstrap b = {.join = true};
    struct nh_snapshot s = make_snapshot(SHARD, 10, 1);

    expect_ok(f.ops->save_bootstrap(f.db, SHARD, REPLICA, &b, &f.err));
    cr_assert_eq(take_syncs(), 1);
    must_save_snapshot(REPLICA, &s);
    cr_assert_eq(take_syncs(), 1);
    expect_ok(f.ops->remove_entries_to(f.db, SHARD, REPLICA, 5, &f.err));
    cr_assert_eq(take_syncs(), 1);
    expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
    cr_assert_eq(take_syncs(), 1);
    expect_ok(f.ops->import_snapshot(f.db, &s, REPLICA, &f.err));
    cr_assert_eq(take_syncs(), 1);
}

Test(sync, closing_syncs_what_was_saved_without)
{
    struct nh_update u = make_state(1, 1, 1, 0, 1);

    u.must_sync = false;
    must_save(&u, 1);
    fixture_close();
    cr_assert_geq(take_syncs(), 1);
}

/* The kernel reports a failed write-back once and then marks the page clean: a retry would "succeed" without the data. */
static void expect_no_retry(const struct nh_update *u)
{
    struct nh_raft_state s;

    __atomic_store_n(&fail_next, 1, __ATOMIC_RELEASE);
    cr_assert_eq(save(u, 1, 1), NH_EIO, "%s", f.err.text);
    cr_assert_eq(save(u, 1, 1), NH_EFENCED, "%s", f.err.text);
    cr_assert_eq(save(u, 1, 2), NH_EFENCED, "%s", f.err.text);
    cr_assert_eq(f.ops->remove_entries_to(f.db, SHARD, REPLICA, 5, &f.err), NH_EFENCED);
    cr_assert_eq(take_syncs(), 1, "nothing was synced after the failure");
    fixture_close();
    cr_assert_eq(take_syncs(), 0, "nor at close");
    fixture_open();
    expect_ok(f.ops->read_raft_state(f.db, SHARD, REPLICA, &s, &f.err));
    cr_assert(s.last_index == 20 || s.last_index == 23, "all of the failed save or nothing, not up to %lu", s.last_index);
}

Test(sync, a_failed_sync_is_never_retried)
{
    struct nh_update u = make_update(SHARD, REPLICA, 21, 3, 1);

    expect_no_retry(&u);
    update_deinit(&u);
}

/* Too large for what is prepared of the file. */
Test(sync, nor_is_one_that_follows_a_write)
{
    struct nh_run run = {.block = make_block_sized(21, 3, 1, 256 * 1024), .from = 0, .to = 3};
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};

    expect_no_retry(&u);
    cr_assert_eq(n_async, 0);
    nh_block_unref(run.block);
}

/* A file system may say so only when it was to be written. */
Test(sync, what_is_refused_late_is_written_and_synced)
{
    struct nh_update u = make_update(SHARD, REPLICA, 21, 3, 1), next = make_update(SHARD, REPLICA, 24, 3, 1);

    refuse = -EINVAL;
    must_save(&u, 1);
    if (refuse == 0) { /* else there are no such writes here */
        cr_assert_eq(take_syncs(), 1, "by fdatasync");
        must_save(&next, 1);
        cr_assert_eq(n_async, 1, "it was not tried again");
    } else
        must_save(&next, 1);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 1, 26, 1);
    update_deinit(&u);
    update_deinit(&next);
}

/* The disk may keep what was not synced in its cache when it makes a later write durable by itself. */
Test(sync, what_was_not_synced_is_synced_with_what_follows)
{
    struct nh_update u[2] = {make_state(1, 1, 1, 0, 1), make_update(3, 1, 1, 3, 1)};

    u[0].must_sync = false;
    must_save(&u[0], 1);
    must_save(&u[1], 1);
    cr_assert_eq(take_syncs(), 1);
    cr_assert_eq(n_async, 0, "it was synced by itself");
    for (size_t i = 0; i < 2; i++)
        update_deinit(&u[i]);
}

/* ---- what the page cache has and the disk has not ---- */

static int segment = -1; /* what the save that failed was written to */
static char on_disk[1 << 20];
static ssize_t on_disk_bytes;

NH_API int posix_fadvise(int fd, off_t at, off_t size_bytes, int advice);

int posix_fadvise(int fd, off_t at, off_t size_bytes, int advice)
{
    (void)at, (void)size_bytes;
    if (advice == POSIX_FADV_DONTNEED && segment >= 0 && same_file(fd, segment))
        cr_assert_eq(pwrite(segment, on_disk, (size_t)on_disk_bytes, 0), on_disk_bytes);
    return 0;
}

static void remember_segment(void)
{
    glob_t found;
    char pattern[160];

    snprintf(pattern, sizeof pattern, "%s/wal/*.segment", f.dir);
    cr_assert_eq(glob(pattern, 0, NULL, &found), 0);
    segment = open(found.gl_pathv[0], O_RDWR); /* of the worker: it was the first to write */
    cr_assert_geq(segment, 0);
    on_disk_bytes = pread(segment, on_disk, sizeof on_disk, 0);
    cr_assert(on_disk_bytes > 0 && on_disk_bytes < (ssize_t)sizeof on_disk);
    globfree(&found);
}

/* Pages that could not be written stay in the page cache, as if they had been; the next sync is no failure. */
Test(sync, what_a_failed_sync_has_lost_is_not_recovered_from_the_page_cache)
{
    struct nh_update u = make_update(SHARD, REPLICA, 21, 3, 1);

    remember_segment();
    __atomic_store_n(&fail_next, 1, __ATOMIC_RELEASE);
    cr_assert_eq(save(&u, 1, 1), NH_EIO, "%s", f.err.text);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 1, 20, 1);
    close(segment);
    update_deinit(&u);
}

Test(sync, an_open_that_cannot_sync_fails)
{
    fixture_deinit();
    fixture_init_closed();
    __atomic_store_n(&fail_next, 1, __ATOMIC_RELEASE);
    {
        const struct nh_logdb_config config = {.struct_size = sizeof config,
                                               .dir = f.dir,
                                               .n_workers = 1,
                                               .services = nh_plugin_services()};
        struct nh_logdb *db;

        cr_assert_eq(f.ops->open(&config, &db, &f.err), NH_EIO, "%s", f.err.text);
        expect_ok(f.ops->open(&config, &db, &f.err));
        f.ops->close(db);
    }
}

/* ---- polling for the end of a save (raftio/support/short_wait.h) ---- */

static bool store_polls(size_t struct_size, bool no_polling)
{
    const struct nh_logdb_config config = {.struct_size = (uint32_t)struct_size,
                                           .dir = f.dir,
                                           .n_workers = 1,
                                           .services = nh_plugin_services(),
                                           .no_polling = no_polling};
    struct nh_logdb *db;
    bool polls;

    expect_ok(f.ops->open(&config, &db, &f.err));
    polls = db->journal.polls;
    f.ops->close(db);
    return polls;
}

Test(sync, a_store_polls_unless_it_is_told_not_to)
{
    fixture_deinit();
    fixture_init_closed();
    cr_assert(store_polls(sizeof(struct nh_logdb_config), false));
    cr_assert_not(store_polls(sizeof(struct nh_logdb_config), true));
    cr_assert(store_polls(offsetof(struct nh_logdb_config, no_polling), true), "what an older caller does not have was read");
}

static bool polls_for(const struct nh_update *updates, size_t n)
{
    must_save(updates, n);
    return journal_stream_of(&f.db->journal, 1)->async.polls;
}

Test(sync, small_saves_of_one_replica_are_polled_for)
{
    struct nh_update both[] = {make_update(SHARD, REPLICA, 21, 1, 1), make_update(SHARD + 1, REPLICA, 1, 1, 1)};
    struct nh_update more = make_update(SHARD, REPLICA, 22, 1, 1), large = make_update(SHARD, REPLICA, 23, 1000, 1);

    cr_assert_not(polls_for(both, 2));
    cr_assert(polls_for(&more, 1));
    cr_assert_not(polls_for(&large, 1));
    f.db->journal.polls = false;
    update_deinit(&more);
    more = make_update(SHARD, REPLICA, 1023, 1, 1);
    cr_assert_not(polls_for(&more, 1));
    update_deinit(&both[0]);
    update_deinit(&both[1]);
    update_deinit(&more);
    update_deinit(&large);
}

/* ---- two writers of one replica ---- */

static bool is_in_sync, is_removed; /* atomic */
static __thread bool saves_bootstrap;

static bool someone_waits(void)
{
    bool waits;

    pthread_mutex_lock(&f.db->lock);
    waits = f.db->n_waiting > 0;
    pthread_mutex_unlock(&f.db->lock);
    return waits;
}

static void wait_for_removal(void)
{
    if (!saves_bootstrap)
        return;
    __atomic_store_n(&is_in_sync, true, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&is_removed, __ATOMIC_ACQUIRE) && !someone_waits())
        usleep(1000);
}

static void *save_bootstrap(void *arg)
{
    const struct nh_bootstrap b = {.join = true};
    struct nh_error err;

    (void)arg;
    saves_bootstrap = true;
    MUST(f.ops->save_bootstrap(f.db, SHARD, REPLICA, &b, &err) == NH_OK, "%s", err.text);
    return NULL;
}

static int get_bootstrap(void)
{
    struct nh_bootstrap b = {0};
    int r = f.ops->get_bootstrap(f.db, SHARD, REPLICA, &b, &f.err);

    nh_bootstrap_deinit(&b);
    return r;
}

/* A recovery repeats them in the order of the journal, so RocksDB must have got them in that order. */
Test(sync, a_bootstrap_during_a_removal_is_there_after_a_restart_as_before)
{
    pthread_t thread;
    int found;

    before_sync = wait_for_removal;
    cr_assert_eq(pthread_create(&thread, NULL, save_bootstrap, NULL), 0);
    while (!__atomic_load_n(&is_in_sync, __ATOMIC_ACQUIRE))
        usleep(1000);
    expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
    __atomic_store_n(&is_removed, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    found = get_bootstrap();
    fixture_reopen();
    cr_assert_eq(get_bootstrap(), found, "%s and not %s", nh_status_name(get_bootstrap()), nh_status_name(found));
}
