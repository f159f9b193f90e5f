/* The journal of the store from outside: which files it keeps, that blocks are found wherever they lie, and what a power cut
 * leaves. pwrite and the syncs of the process are replaced here, to know what a power cut could take. */
#include "tests/conformance/logdb/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "logdb/rocksdb/segment.h"
#include "raftio/support/memory.h"
#include "tests/unit/logdb/async_hook.h"

/* Segments of 64 KiB, 256 KiB of them. */
#define SHORT_JOURNAL "max_total_wal_size=262144"
#define LARGE         4000u /* payload: surely in the journal */

static void init_short(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    setenv("NH_LOGDB_OPTIONS", SHORT_JOURNAL, 1);
    fixture_init();
}

TestSuite(journal, .init = init_short, .fini = fixture_deinit, .timeout = 120);

static void must_save_large(uint64_t shard_id, uint64_t first, uint32_t n)
{
    struct nh_run run = {.block = make_block_sized(first, n, 1, LARGE), .from = 0, .to = n};
    struct nh_update u = {.shard_id = shard_id, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};

    must_save(&u, 1);
    nh_block_unref(run.block);
}

static void expect_large(uint64_t shard_id, uint64_t first, uint64_t last)
{
    size_t size = 0;
    struct collected c;

    expect_ok(collect(shard_id, REPLICA, first, last + 1, SIZE_MAX, &c));
    cr_assert_eq(c.n, last + 1 - first);
    for (uint64_t i = first; i <= last; i++) {
        struct nh_block *b = make_block_sized(i, 1, 1, LARGE);

        cr_assert_eq(memcmp(c.bytes + size, b->data, b->offsets[1]), 0, "entry %lu", i);
        size += b->offsets[1];
        nh_block_unref(b);
    }
    collected_deinit(&c);
}

/* ---- which files there are ---- */

static size_t count_files(const char *suffix)
{
    char path[256];
    struct dirent *e;
    size_t n = 0;
    DIR *d;

    snprintf(path, sizeof path, "%s/wal", f.dir);
    d = opendir(path);
    cr_assert_not_null(d);
    while ((e = readdir(d))) {
        const char *dot = strrchr(e->d_name, '.');

        n += dot && strcmp(dot, suffix) == 0;
    }
    closedir(d);
    return n;
}

static void wait_for_few_segments(size_t most)
{
    for (int i = 0; i < 2000 && count_files(".segment") > most; i++)
        usleep(5000);
    cr_assert_leq(count_files(".segment"), most);
}

/* 40 segments' worth; all but the last entries is removed as it goes. */
static void write_and_remove(uint64_t shard_id, uint64_t first)
{
    for (uint64_t i = first; i < first + 600; i += 4) {
        must_save_large(shard_id, i, 4);
        if (i > first + 8)
            expect_ok(f.ops->remove_entries_to(f.db, shard_id, REPLICA, i - 8, &f.err));
    }
}

Test(journal, what_is_removed_is_not_kept)
{
    write_and_remove(SHARD, 1);
    wait_for_few_segments(10);
    expect_large(SHARD, 590, 600);
    fixture_reopen();
    expect_large(SHARD, 590, 600);
    cr_assert_leq(count_files(".segment") + count_files(".spare"), 8);
}

Test(journal, a_log_that_stays_is_moved_out_of_the_way)
{
    must_save_large(SHARD + 1, 1, 3);
    write_and_remove(SHARD, 1);
    must_save_large(SHARD + 2, 1, 1);
    write_and_remove(SHARD, 601);
    wait_for_few_segments(12);
    expect_large(SHARD + 1, 1, 3);
    expect_large(SHARD + 2, 1, 1);
    fixture_reopen();
    expect_large(SHARD + 1, 1, 3);
    expect_large(SHARD + 2, 1, 1);
    expect_large(SHARD, 1192, 1200);
    must_save_large(SHARD + 1, 3, 2);
    expect_large(SHARD + 1, 1, 4);
}

/* Longer than the budget: it lies in the journal all the same, and nothing is written twice. */
Test(journal, a_log_that_is_all_alive_stays)
{
    for (uint64_t i = 1; i <= 160; i += 4)
        must_save_large(SHARD, i, 4);
    cr_assert_geq(count_files(".segment"), 10u, "%zu", count_files(".segment"));
    expect_large(SHARD, 1, 160);
    fixture_reopen();
    cr_assert_geq(count_files(".segment"), 10u, "%zu", count_files(".segment"));
    expect_large(SHARD, 1, 160);
    expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
    fixture_reopen();
    wait_for_few_segments(1);
}

Test(journal, four_budgets_of_a_living_log_are_the_most)
{
    for (uint64_t i = 1; i <= 600; i += 4)
        must_save_large(SHARD, i, 4);
    wait_for_few_segments(22);
    expect_large(SHARD, 1, 600);
    fixture_reopen();
    expect_large(SHARD, 1, 600);
}

/* Each of many shards writes a large entry, then small ones, and forgets the large one. */
Test(journal, a_use_ends_with_the_last_large_block)
{
    for (uint64_t shard_id = 1; shard_id <= 30; shard_id++) {
        must_save_large(shard_id, 1, 14); /* nearly a segment */
        must_save_entries(shard_id, REPLICA, 15, 2, 1);
        expect_ok(f.ops->remove_entries_to(f.db, shard_id, REPLICA, 14, &f.err));
    }
    wait_for_few_segments(10);
    for (uint64_t shard_id = 1; shard_id <= 30; shard_id++)
        expect_entries(shard_id, REPLICA, 15, 16, 1);
}

/* The second snapshot of a call deletes what the first one's entries said they use: it must be said again. */
Test(journal, two_snapshots_in_one_call)
{
    struct nh_snapshot s[2] = {make_snapshot(SHARD, 100, 2), make_snapshot(SHARD, 200, 2)};
    struct nh_run runs[2] = {{.block = make_block_sized(101, 2, 2, LARGE), .to = 2},
                             {.block = make_block_sized(201, 1, 1, LARGE), .to = 1}};
    struct nh_update u[2] = {
        {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .snapshot = &s[0], .runs = &runs[0], .n_runs = 1},
        {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .snapshot = &s[1], .runs = &runs[1], .n_runs = 1}};

    must_save_large(SHARD, 1, 3);
    must_save(u, 2);
    fixture_reopen();
    expect_large(SHARD, 201, 201);
    must_save_large(SHARD, 202, 2);
    fixture_reopen();
    expect_large(SHARD, 201, 203);
    for (size_t i = 0; i < 2; i++)
        nh_block_unref(runs[i].block);
}

static bool fail_reads; /* atomic: of segments */

NH_API ssize_t pread(int fd, void *out, size_t n, off_t at);

static bool is_segment(int fd, char path[256]);

ssize_t pread(int fd, void *out, size_t n, off_t at)
{
    char path[256];

    if (__atomic_load_n(&fail_reads, __ATOMIC_ACQUIRE) && is_segment(fd, path)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, out, n, at);
}

/* The segment stays, others go on to be freed, and nothing runs in a circle. */
Test(journal, blocks_that_cannot_be_read_stay_where_they_are)
{
    must_save_large(SHARD + 1, 1, 1);
    must_save_large(SHARD + 2, 1, 1);
    __atomic_store_n(&fail_reads, true, __ATOMIC_RELEASE);
    write_and_remove(SHARD, 1);
    usleep(200000);
    __atomic_store_n(&fail_reads, false, __ATOMIC_RELEASE);
    write_and_remove(SHARD, 601);
    wait_for_few_segments(12);
    expect_large(SHARD + 1, 1, 1);
    expect_large(SHARD + 2, 1, 1);
    fixture_reopen();
    expect_large(SHARD + 1, 1, 1);
    expect_large(SHARD + 2, 1, 1);
}

Test(journal, truncated_blocks_in_it_keep_what_is_before)
{
    must_save_large(SHARD, 1, 20);
    must_save_large(SHARD, 8, 2);
    expect_large(SHARD, 1, 9);
    fixture_reopen();
    expect_large(SHARD, 1, 9);
    must_save_large(SHARD, 2, 1);
    expect_large(SHARD, 1, 2);
}

Test(journal, one_entry_larger_than_a_segment)
{
    struct nh_run run = {.block = make_block_sized(1, 1, 1, 1u << 20), .from = 0, .to = 1};
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};
    struct collected c;

    must_save(&u, 1);
    fixture_reopen();
    expect_ok(collect(SHARD, REPLICA, 1, 2, SIZE_MAX, &c));
    cr_assert_eq(c.size_bytes, run.block->offsets[1]);
    cr_assert_eq(memcmp(c.bytes, run.block->data, c.size_bytes), 0);
    collected_deinit(&c);
    nh_block_unref(run.block);
}

/* ---- what may lie in the directory ---- */

static void write_file(const char *name, size_t size_bytes)
{
    char path[256], *zeros = xcalloc(1, size_bytes + 1);
    int fd;

    snprintf(path, sizeof path, "%s/wal/%s", f.dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_eq(write(fd, zeros, size_bytes), (ssize_t)size_bytes);
    close(fd);
    free(zeros);
}

static void remove_a_segment(void)
{
    char path[512];
    struct dirent *e;
    DIR *d;

    snprintf(path, sizeof path, "%s/wal", f.dir);
    d = opendir(path);
    while ((e = readdir(d)) && !strstr(e->d_name, ".segment"))
        ;
    cr_assert_not_null(e);
    snprintf(path, sizeof path, "%s/wal/%s", f.dir, e->d_name);
    closedir(d);
    cr_assert_eq(unlink(path), 0);
}

static int try_open(void)
{
    const struct nh_logdb_config config = {
        .struct_size = sizeof config, .dir = f.dir, .n_workers = 1, .options = f.options, .services = nh_plugin_services()};

    return f.ops->open(&config, &f.db, &f.err);
}

Test(journal, files_of_an_interrupted_creation_are_removed)
{
    must_save_large(SHARD, 1, 3);
    fixture_close();
    write_file("00000000000000ff.segment", 0);
    write_file("0000000000000100.segment", SEGMENT_PAGE);
    write_file("0000000000000001.spare", 100);
    write_file("notes.txt", 10);
    fixture_open();
    cr_assert_eq(count_files(".segment"), 1);
    cr_assert_eq(count_files(".spare"), 0);
    cr_assert_eq(count_files(".txt"), 1);
    expect_large(SHARD, 1, 3);
}

Test(journal, a_missing_segment_is_noticed)
{
    must_save_large(SHARD, 1, 3);
    fixture_reopen(); /* the table knows of it now */
    fixture_close();
    remove_a_segment();
    cr_assert_eq(try_open(), NH_ECORRUPT, "%s", f.err.text);
    cr_assert_not_null(strstr(f.err.text, "restore"), "%s", f.err.text);
}

Test(journal, a_damaged_header_is_noticed)
{
    char path[256];
    int fd;

    must_save_large(SHARD, 1, 3);
    fixture_close();
    snprintf(path, sizeof path, "%s/wal/0000000000000001.segment", f.dir);
    fd = open(path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, "?", 1, 9), 1);
    close(fd);
    cr_assert_eq(try_open(), NH_ECORRUPT, "%s", f.err.text);
}

/* ---- power cuts ---- */

#define WRITES_MAX 4096u

struct unsynced {
    char path[256];
    off_t at;
    uint8_t old[SEGMENT_PAGE]; /* of one page; zero behind the end */
};

static struct unsynced *unsynced;
static size_t n_unsynced;
static pthread_mutex_t unsynced_lock = PTHREAD_MUTEX_INITIALIZER;
static bool recording;

static size_t n_async; /* writes that were durable by themselves */

NH_API int fdatasync(int fd);
NH_API int fsync(int fd);
NH_API ssize_t pwrite(int fd, const void *data, size_t n, off_t at);

static bool is_segment(int fd, char path[256])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, 255);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strstr(path, ".segment") || strstr(path, ".spare");
}

static void remember_page(const char *path, off_t at)
{
    struct unsynced *u;
    int fd = open(path, O_RDONLY);

    MUST(fd >= 0 && n_unsynced < WRITES_MAX, "%s", path);
    u = &unsynced[n_unsynced++];
    *u = (struct unsynced){.at = at};
    snprintf(u->path, sizeof u->path, "%s", path);
    MUST(pread(fd, u->old, sizeof u->old, at) >= 0, "%s", path);
    close(fd);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    char path[256];
    ssize_t done;

    pthread_mutex_lock(&unsynced_lock);
    if (recording && is_segment(fd, path))
        for (off_t p = at; p < at + (off_t)n; p += SEGMENT_PAGE)
            remember_page(path, p);
    done = syscall(SYS_pwrite64, fd, data, n, at);
    pthread_mutex_unlock(&unsynced_lock);
    return done;
}

void on_async_begin(int fd, int64_t at, size_t size_bytes)
{
    char path[256];

    pthread_mutex_lock(&unsynced_lock);
    if (recording && is_segment(fd, path))
        for (int64_t p = at; p < at + (int64_t)size_bytes; p += SEGMENT_PAGE)
            remember_page(path, p);
    pthread_mutex_unlock(&unsynced_lock);
}

/* It makes its own pages durable, and no other. */
int64_t on_async_end(int fd, int64_t at, size_t size_bytes, int64_t result)
{
    char path[256];
    size_t kept = 0;

    pthread_mutex_lock(&unsynced_lock);
    if (recording && is_segment(fd, path)) {
        for (size_t i = 0; i < n_unsynced; i++)
            if (strcmp(unsynced[i].path, path) != 0 || unsynced[i].at < at || unsynced[i].at >= at + (int64_t)size_bytes)
                unsynced[kept++] = unsynced[i];
        n_unsynced = kept;
        n_async++;
    }
    pthread_mutex_unlock(&unsynced_lock);
    return result;
}

static int do_sync(long number, int fd)
{
    char path[256];
    size_t kept = 0;
    int r;

    pthread_mutex_lock(&unsynced_lock);
    r = (int)syscall(number, fd);
    if (recording && is_segment(fd, path)) {
        for (size_t i = 0; i < n_unsynced; i++)
            if (strcmp(unsynced[i].path, path) != 0)
                unsynced[kept++] = unsynced[i];
        n_unsynced = kept;
    }
    pthread_mutex_unlock(&unsynced_lock);
    return r;
}

int fdatasync(int fd)
{
    return do_sync(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return do_sync(SYS_fsync, fd);
}

static char image_dir[160];

static int copy_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char to[512], buffer[1 << 16];
    int in, out;
    ssize_t n;

    (void)st, (void)ftw;
    snprintf(to, sizeof to, "%s%s", image_dir, path + strlen(f.dir));
    if (type == FTW_D)
        return mkdir(to, 0700);
    in = open(path, O_RDONLY);
    if (in < 0)
        return 0; /* gone meanwhile */
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while ((n = read(in, buffer, sizeof buffer)) > 0)
        cr_assert_eq(write(out, buffer, (size_t)n), n);
    close(in);
    close(out);
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static uint64_t seed = 1;

/* Each page that was not synced is there, or is what it was before. */
static void take_image(void)
{
    snprintf(image_dir, sizeof image_dir, "%s-image", f.dir);
    nftw(image_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    pthread_mutex_lock(&unsynced_lock);
    nftw(f.dir, copy_entry, 16, FTW_PHYS);
    for (size_t i = n_unsynced; i-- > 0;) {
        char path[512];
        int fd;

        if (below(&seed, 2))
            continue;
        snprintf(path, sizeof path, "%s%s", image_dir, unsynced[i].path + strlen(f.dir));
        fd = open(path, O_WRONLY);
        if (fd >= 0 && syscall(SYS_pwrite64, fd, unsynced[i].old, SEGMENT_PAGE, unsynced[i].at) < 0)
            cr_assert(false, "%s", path);
        if (fd >= 0)
            close(fd);
    }
    pthread_mutex_unlock(&unsynced_lock);
}

struct progress {
    uint64_t calls; /* the number of the last call is the term of its state */
    uint64_t last;  /* entry */
};

/* The image must have everything up to `synced`, and then whole calls in order, up to `now`. Returns true if some were lost. */
static bool check_image(uint64_t removed, struct progress synced, struct progress now)
{
    const struct nh_logdb_config config = {
        .struct_size = sizeof config, .dir = image_dir, .n_workers = 1, .options = f.options, .services = nh_plugin_services()};
    struct nh_logdb *live = f.db;
    struct nh_raft_state s;

    expect_ok(f.ops->open(&config, &f.db, &f.err));
    expect_ok(f.ops->read_raft_state(f.db, SHARD, REPLICA, &s, &f.err));
    cr_assert(s.state.term >= synced.calls && s.state.term <= now.calls, "call %lu of %lu to %lu", s.state.term, synced.calls,
              now.calls);
    cr_assert(s.last_index >= synced.last && s.last_index <= now.last, "%lu of %lu to %lu", s.last_index, synced.last, now.last);
    cr_assert_eq(s.state.commit, s.last_index, "entries and state are one call");
    cr_assert_eq(s.first_index, removed + 1);
    if (s.last_index > removed)
        expect_large(SHARD, removed + 1, s.last_index);
    expect_large(SHARD + 1, 1, 2);
    f.ops->close(f.db);
    f.db = live;
    return s.state.term < now.calls;
}

/* Large entries, or a state only, perhaps synced. */
static void save_something(struct progress *now, struct progress *synced)
{
    uint32_t n = (uint32_t)(1 + below(&seed, 6));
    bool has_entries = below(&seed, 4) > 0;
    struct nh_run run = {.block = make_block_sized(now->last + 1, n, 1, LARGE), .from = 0, .to = n};
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .has_state = true, .runs = &run, .n_runs = has_entries};

    u.must_sync = below(&seed, 3) == 0;
    now->calls++;
    now->last += has_entries ? n : 0;
    u.state = (struct nh_state){.term = now->calls, .commit = now->last};
    must_save(&u, 1);
    nh_block_unref(run.block);
    if (u.must_sync || has_entries) /* the table must not point to what can be lost */
        *synced = *now;
}

/* Saves, removals, and now and then a power cut, over many segments that are used again. */
Test(journal, what_a_power_cut_leaves)
{
    struct progress now = {0}, synced = {0};
    uint64_t removed = 0;
    size_t n_lossy = 0;

    unsynced = xcalloc(WRITES_MAX, sizeof *unsynced);
    recording = true;
    must_save_large(SHARD + 1, 1, 2); /* stays, and is moved */
    for (int step = 0; step < 600; step++) {
        save_something(&now, &synced);
        if (below(&seed, 8) == 0 && now.last > removed + 12) {
            removed = now.last - 10;
            expect_ok(f.ops->remove_entries_to(f.db, SHARD, REPLICA, removed, &f.err));
        }
        if (below(&seed, 10) == 0) {
            take_image();
            n_lossy += check_image(removed, synced, now);
        }
    }
    recording = false;
    cr_assert_gt(n_lossy, 0u, "the cuts took something");
    if (n_async == 0)
        fprintf(stderr, "no write was asynchronous: no direct I/O here\n");
    nftw(image_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(unsynced);
}
