/* kv-disk when it is killed, when the power fails, and when the disk does. RocksDB's entry points for writing and the process's
 * calls for syncing are replaced here: the machine and RocksDB call these. Whatever opens a database is a child process, because
 * RocksDB's threads do not survive a fork. */
#include "tests/unit/cmd/kv_replica.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOGS_MAX 32u

struct log_file {
    char path[256];
    int64_t size_bytes; /* when it was last synced */
};

/* Between a test and its children. */
static struct shared {
    int writes, flushes; /* atomic */
    int kill_at;         /* the write at which the child dies; 0: never */
    bool kill_after;     /* it was done, or not */
    int fail_at;
    bool fail_slowly; /* until a sync has begun, or for a while */
    bool failing;     /* atomic: that write has begun */
    int late_flushes; /* atomic: since then */
    int lose_at;      /* the write that is not done, and nobody told */
    int steps;        /* atomic: writes, syncs, renames, deletions */
    int kill_at_step; /* as kill_at */
    uint64_t synced;  /* applied, when a sync returned */
    struct log_file logs[LOGS_MAX];
} * shared;

NH_API void rocksdb_write(rocksdb_t *db, const rocksdb_writeoptions_t *options, rocksdb_writebatch_t *batch, char **message);
NH_API void rocksdb_flush_wal(rocksdb_t *db, unsigned char sync, char **message);
NH_API int fdatasync(int fd);
NH_API int fsync(int fd);
NH_API int rename(const char *from, const char *to);
NH_API int unlink(const char *path);

static void die_if(bool it_is_time)
{
    if (it_is_time)
        kill(getpid(), SIGKILL);
}

static void step(void)
{
    if (shared)
        die_if(__atomic_add_fetch(&shared->steps, 1, __ATOMIC_ACQ_REL) == shared->kill_at_step);
}

int rename(const char *from, const char *to)
{
    step();
    return (int)syscall(SYS_rename, from, to);
}

int unlink(const char *path)
{
    step();
    return (int)syscall(SYS_unlink, path);
}

static void fail(char **message)
{
    __atomic_store_n(&shared->failing, true, __ATOMIC_RELEASE);
    for (int i = 0; shared->fail_slowly && i < 200 && __atomic_load_n(&shared->late_flushes, __ATOMIC_ACQUIRE) == 0; i++)
        usleep(1000);
    *message = strdup("IO error: planted");
}

void rocksdb_write(rocksdb_t *db, const rocksdb_writeoptions_t *options, rocksdb_writebatch_t *batch, char **message)
{
    void (*next)(rocksdb_t *, const rocksdb_writeoptions_t *, rocksdb_writebatch_t *, char **);
    int number = __atomic_add_fetch(&shared->writes, 1, __ATOMIC_ACQ_REL);

    step();
    *(void **)&next = dlsym(RTLD_NEXT, "rocksdb_write");
    die_if(number == shared->kill_at && !shared->kill_after);
    if (number == shared->fail_at)
        fail(message);
    else if (number != shared->lose_at)
        next(db, options, batch, message);
    die_if(number == shared->kill_at);
}

void rocksdb_flush_wal(rocksdb_t *db, unsigned char sync, char **message)
{
    void (*next)(rocksdb_t *, unsigned char, char **);

    *(void **)&next = dlsym(RTLD_NEXT, "rocksdb_flush_wal");
    __atomic_add_fetch(&shared->flushes, 1, __ATOMIC_ACQ_REL);
    if (__atomic_load_n(&shared->failing, __ATOMIC_ACQUIRE))
        __atomic_add_fetch(&shared->late_flushes, 1, __ATOMIC_ACQ_REL);
    usleep(20000);
    next(db, sync, message);
}

static void remember_size(int fd)
{
    char link[64], path[256] = "";
    struct stat st;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0 || !strstr(path, ".log") || fstat(fd, &st) < 0)
        return;
    for (size_t i = 0; i < LOGS_MAX; i++) {
        struct log_file *l = &shared->logs[i];

        if (l->path[0] && strcmp(l->path, path) != 0)
            continue;
        memcpy(l->path, path, sizeof l->path);
        l->size_bytes = st.st_size;
        return;
    }
}

static int sync_fd(long number, int fd)
{
    int r;

    step();
    r = (int)syscall(number, fd);
    if (shared)
        remember_size(fd);
    return r;
}

int fdatasync(int fd)
{
    return sync_fd(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return sync_fd(SYS_fsync, fd);
}

/* ---- children ---- */

/* True if it ended by itself, and well. */
static bool run(void (*body)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        body();
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert((WIFEXITED(status) && WEXITSTATUS(status) == 0) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
              "status %d", status);
    return WIFEXITED(status);
}

static void must_run(void (*body)(void))
{
    shared->kill_at = 0;
    cr_assert(run(body));
}

/* In a child, where Criterion can not be told. */
static void expect(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "expected: %s (kill at %d, %s)\n", what, shared->kill_at, shared->kill_after ? "after" : "before");
    _exit(1);
}

/* What was not synced is gone: the end of each WAL. */
static void cut_the_power(void)
{
    char command[128];
    FILE *list;
    char path[256];

    snprintf(command, sizeof command, "ls %s/*.log 2>/dev/null", kv_replica_database());
    list = popen(command, "r");
    cr_assert(list);
    while (fgets(path, sizeof path, list)) {
        int64_t size = 0;

        path[strcspn(path, "\n")] = 0;
        for (size_t i = 0; i < LOGS_MAX; i++)
            if (strcmp(shared->logs[i].path, path) == 0)
                size = shared->logs[i].size_bytes;
        cr_assert_eq(truncate(path, size), 0);
    }
    pclose(list);
}

static void forget_everything(void)
{
    kv_replica_remove_root();
    kv_replica_root();
    memset(shared, 0, sizeof *shared);
}

static void setup(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    kv_replica_root();
}

TestSuite(kv_disk_crash, .init = setup, .fini = kv_replica_remove_root, .timeout = 280);

/* ---- updates ---- */

#define BATCHES 12

static size_t make_batch(char texts[][KV_TEXT_BYTES], unsigned *seed)
{
    size_t n = 1 + (size_t)rand_r(seed) % 8;

    for (size_t i = 0; i < n; i++)
        kv_random_command(texts[i], seed);
    return n;
}

static void update_and_sync(void)
{
    char texts[KV_BATCH_MAX][KV_TEXT_BYTES];
    struct kv_replica disk;
    unsigned seed = 11;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    for (int b = 0; b < BATCHES; b++) {
        kv_replica_apply(&disk, texts, make_batch(texts, &seed));
        if (b % 5 == 3) {
            expect(disk.ops->sync(disk.m, NULL) == 0, "sync works");
            shared->synced = disk.applied;
        }
    }
    kill(getpid(), SIGKILL);
}

/* All of the first batches and nothing else. */
static void check_that_it_is_a_prefix(void)
{
    char texts[KV_BATCH_MAX][KV_TEXT_BYTES];
    struct kv_replica disk, kv;
    unsigned seed = 11;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_open(&kv, KV_SO, 1, 1);
    expect(disk.applied >= shared->synced, "what was synced is there");
    while (kv.applied < disk.applied)
        kv_replica_apply(&kv, texts, make_batch(texts, &seed));
    expect(kv.applied == disk.applied, "it ends with a batch");
    expect(kv.ops->hash(kv.m) == disk.ops->hash(disk.m), "its state is that of its index");
    kv_replica_close(&disk);
    kv_replica_close(&kv);
}

static void kill_updates(bool power_too)
{
    for (int at = 1; at <= 2 * (BATCHES + 2); at++) {
        shared->kill_at = at / 2;
        shared->kill_after = at % 2;
        cr_assert_not(run(update_and_sync));
        if (power_too)
            cut_the_power();
        must_run(check_that_it_is_a_prefix);
        forget_everything();
    }
}

Test(kv_disk_crash, killed_at_any_write_it_has_whole_batches)
{
    kill_updates(false);
}

Test(kv_disk_crash, after_a_power_cut_it_has_all_that_was_synced)
{
    kill_updates(true);
}

/* ---- a hole ---- */

#define UPDATES 5

/* The first two writes are the replicas' first records, then the two take turns. */
static void update_two(void)
{
    struct kv_replica disk, other;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_open(&other, KV_DISK_SO, 2, 1);
    for (int i = 0; i < UPDATES; i++) {
        kv_replica_apply_text(&disk, "INCR a");
        kv_replica_apply_text(&other, "INCR a");
    }
    kv_replica_close(&disk);
    kv_replica_close(&other);
}

static void check_that_one_begins_empty(void)
{
    struct kv_replica disk, other;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_open(&other, KV_DISK_SO, 2, 1);
    expect(disk.applied == 0 && kv_replica_query(&disk, "GET a") == KV_REPLY_NIL, "it begins again");
    expect(other.applied == UPDATES, "the other one goes on");
    kv_replica_apply_text(&disk, "SET a 1");
    kv_replica_close(&disk);
    kv_replica_close(&other);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    expect(disk.applied == 1 && kv_replica_query(&disk, "GET a") == KV_REPLY_BULK, "and goes on then");
    kv_replica_close(&disk);
}

static void check_that_the_last_is_missing(void)
{
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    expect(disk.applied == UPDATES - 1, "all but the last");
    kv_replica_close(&disk);
}

/* As RocksDB's recovery has left one out (test_kv_disk_cut.c). */
Test(kv_disk_crash, a_replica_that_lacks_a_write_in_the_middle_begins_empty)
{
    for (int update = 0; update <= UPDATES; update++) {
        shared->lose_at = 1 + 2 * update;
        must_run(update_two);
        must_run(update < UPDATES ? check_that_one_begins_empty : check_that_the_last_is_missing);
        forget_everything();
    }
}

/* ---- an update of large values ---- */

#define LARGE_KEYS  10u
#define LARGE_BYTES (4u << 20)

static void large_key(uint32_t i, char key[2])
{
    key[0] = 'k';
    key[1] = (char)('0' + i);
}

static void make_large_values(void)
{
    char *value = calloc(1, LARGE_BYTES);
    uint8_t *cmd = malloc(LARGE_BYTES + 64);
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    for (uint32_t i = 0; i < LARGE_KEYS; i++) {
        char key[2];
        struct kv_slice args[] = {{(const uint8_t *)"SET", 3}, {(const uint8_t *)key, 2}, {(const uint8_t *)value, LARGE_BYTES}};

        large_key(i, key);
        kv_command_encode(args, 3, cmd);
        kv_replica_apply_bytes(&disk, cmd, kv_command_bytes(args, 3));
    }
    expect(disk.ops->sync(disk.m, NULL) == 0, "sync works");
    shared->synced = disk.applied;
    kv_replica_close(&disk);
    free(value);
    free(cmd);
    shared->writes = 0;
}

/* One update: few bytes, that touch 40 MiB. */
static void append_to_all(void)
{
    char texts[KV_BATCH_MAX][KV_TEXT_BYTES];
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    for (uint32_t i = 0; i < LARGE_KEYS; i++)
        snprintf(texts[i], KV_TEXT_BYTES, "APPEND k%u x", i);
    shared->writes = 0;
    kv_replica_apply(&disk, texts, LARGE_KEYS);
    expect(shared->writes >= 3, "it goes into the database in parts");
    for (uint32_t i = 0; i < LARGE_KEYS; i++) {
        int64_t size;

        expect(disk.entries[i].result.size_bytes == sizeof size, "an answer for each");
        memcpy(&size, disk.entries[i].result.data, sizeof size);
        expect(size == LARGE_BYTES + 1, "and the right one");
    }
    kv_replica_close(&disk);
}

/* Whole entries, and as many as the applied index says. */
static void check_large_values(void)
{
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    expect(disk.applied >= shared->synced && disk.applied <= shared->synced + LARGE_KEYS, "an index of the update");
    for (uint32_t i = 0; i < LARGE_KEYS; i++) {
        bool is_applied = shared->synced + i < disk.applied;
        char text[KV_TEXT_BYTES];
        int64_t size;

        snprintf(text, sizeof text, "STRLEN k%u", i);
        kv_replica_query(&disk, text);
        memcpy(&size, disk.answer, sizeof size);
        expect(size == LARGE_BYTES + is_applied, "the state of its index");
    }
    kv_replica_close(&disk);
}

/* It took the memory of all values at once, on every replica and again at every start. */
Test(kv_disk_crash, an_update_of_large_values_is_taken_in_parts_of_whole_entries)
{
    for (int at = 0; at <= 4; at++) {
        must_run(make_large_values);
        shared->kill_at = at / 2;
        shared->kill_after = at % 2;
        run(append_to_all);
        must_run(check_large_values);
        forget_everything();
    }
}

/* ---- recover ---- */

#define NEW_KEYS    40u
#define VALUE_BYTES 100000u /* so that the image is written in several batches */
#define NEW_APPLIED 77u

static uint8_t image[NEW_KEYS * (VALUE_BYTES + 16u) + 64u];
static size_t image_size;

static void put_u32(uint32_t v)
{
    kv_store_u32(image + image_size, v);
    image_size += 4;
}

static void make_image(void)
{
    memcpy(image, "NHKV", 4);
    image_size = 4;
    put_u32(1), put_u32(NEW_APPLIED), put_u32(0), put_u32(NEW_KEYS), put_u32(0);
    for (uint32_t i = 0; i < NEW_KEYS; i++) {
        put_u32(2), put_u32(VALUE_BYTES);
        image[image_size] = (uint8_t)('a' + i / 10);
        image[image_size + 1] = (uint8_t)('0' + i % 10);
        memset(image + image_size + 2, (int)i, VALUE_BYTES);
        image_size += 2 + VALUE_BYTES;
    }
}

static void make_old_state(void)
{
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_apply_text(&disk, "MSET a0 old b 2 c 3");
    expect(disk.ops->sync(disk.m, NULL) == 0, "sync works");
    kv_replica_close(&disk);
    shared->writes = 0;
}

static void recover(void)
{
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    expect(kv_replica_recover(&disk, image, image_size) == 0, "recover works");
    shared->synced = NEW_APPLIED;
    kv_replica_close(&disk);
}

static void check_old_or_new(void)
{
    struct kv_replica disk;
    bool is_new;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    is_new = disk.applied == NEW_APPLIED;
    expect(is_new || disk.applied == 1, "the index is the old or the new one");
    expect(is_new || shared->synced == 0, "a recover that returned counts");
    kv_replica_query(&disk, "DBSIZE");
    expect(disk.answer[0] == (is_new ? NEW_KEYS : 3), "so is the number of keys");
    kv_replica_query(&disk, "STRLEN a0");
    expect(disk.answer[0] == (is_new ? (uint8_t)VALUE_BYTES : 3), "so are the values");
    kv_replica_close(&disk);
    expect(kv_replica_count_keys() == 2 + (is_new ? NEW_KEYS : 3), "nothing is left over");
}

static void kill_recover(bool power_too)
{
    bool survived = false;
    int at;

    make_image();
    for (at = 1; !survived; at++) {
        must_run(make_old_state);
        shared->kill_at = (at + 1) / 2;
        shared->kill_after = at % 2 == 0;
        survived = run(recover);
        if (power_too)
            cut_the_power();
        must_run(check_old_or_new);
        forget_everything();
    }
    cr_assert_gt(at, 10, "recover wrote in several steps");
}

Test(kv_disk_crash, a_recover_that_is_killed_leaves_the_old_or_the_new)
{
    kill_recover(false);
}

Test(kv_disk_crash, a_recover_in_a_power_cut_leaves_the_old_or_the_new)
{
    kill_recover(true);
}

/* ---- a directory that was made again ---- */

static void remove_and_begin_anew(void)
{
    struct kv_replica disk, other;

    kv_replica_open(&other, KV_DISK_SO, 2, 1);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_close(&disk);
    shared->steps = 0;
    kv_replica_remove_dir(&disk);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_apply_text(&disk, "MSET a0 new b 2");
    kv_replica_apply_text(&disk, "SET c 3");
    expect(disk.ops->sync(disk.m, NULL) == 0, "sync works");
    shared->synced = disk.applied;
    kill(getpid(), SIGKILL);
}

/* The old data while its directory is there, whole; else none of it. */
static void check_old_or_anew(void)
{
    static const int n_keys[] = {0, 2, 3};
    struct kv_replica disk;
    bool is_old;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_query(&disk, "EXISTS old");
    is_old = disk.answer[0] == 1;
    expect(!is_old || (disk.applied == 1 && shared->synced == 0), "the old data only before it was removed, and at its index");
    expect(disk.applied >= shared->synced && disk.applied <= 2, "what was synced is there");
    kv_replica_query(&disk, "DBSIZE");
    expect(disk.answer[0] == (is_old ? 4 : n_keys[disk.applied]), "the keys are those of the index");
    kv_replica_close(&disk);
}

static void make_state_to_remove(void)
{
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_apply_text(&disk, "MSET a0 old b 2 c 3 old 4");
    expect(disk.ops->sync(disk.m, NULL) == 0, "sync works");
    kv_replica_close(&disk);
}

static void kill_after_the_removal(bool power_too)
{
    int at;

    for (at = 1; shared->synced == 0; at++) {
        forget_everything();
        must_run(make_state_to_remove);
        shared->kill_at_step = at;
        cr_assert_not(run(remove_and_begin_anew));
        shared->kill_at_step = 0;
        if (power_too)
            cut_the_power();
        must_run(check_old_or_anew);
    }
    cr_assert_gt(at, 6, "it took several steps");
}

Test(kv_disk_crash, killed_in_a_directory_made_again_it_has_nothing_old)
{
    kill_after_the_removal(false);
}

Test(kv_disk_crash, a_power_cut_in_a_directory_made_again_leaves_nothing_old)
{
    kill_after_the_removal(true);
}

/* ---- a disk that fails ---- */

static void fail_a_write(void)
{
    char texts[1][KV_TEXT_BYTES] = {"SET a 1"};
    struct kv_replica disk, other;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_open(&other, KV_DISK_SO, 2, 1);
    kv_replica_apply(&disk, texts, 1);
    shared->fail_at = shared->writes + 1;
    expect(kv_replica_update(&disk, texts, 1) == NH_EIO && strstr(disk.err.text, "planted"), "the failure is told");
    expect(kv_replica_update(&disk, texts, 1) == NH_EIO && strstr(disk.err.text, "earlier"), "nothing is written any more");
    expect(kv_replica_update(&other, texts, 1) == NH_EIO, "by nobody");
    expect(disk.ops->sync(disk.m, &disk.err) == NH_EIO, "nor synced");
    kv_replica_close(&disk);
    kv_replica_close(&other);
}

static void look_after_the_failure(void)
{
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    expect(disk.applied == 1, "the update that failed is not there");
    kv_replica_close(&disk);
}

Test(kv_disk_crash, a_failed_write_is_a_failure_until_the_next_start)
{
    must_run(fail_a_write);
    shared->fail_at = 0;
    must_run(look_after_the_failure);
}

static void *sync_beside_the_failure(void *arg)
{
    struct kv_replica *r = arg;

    while (!__atomic_load_n(&shared->failing, __ATOMIC_ACQUIRE))
        usleep(100);
    expect(r->ops->sync(r->m, NULL) == NH_EIO, "what another replica's write made impossible");
    return NULL;
}

static void fail_a_write_beside_a_sync(void)
{
    char texts[1][KV_TEXT_BYTES] = {"SET a 1"};
    struct kv_replica disk, other;
    pthread_t syncer;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_open(&other, KV_DISK_SO, 2, 1);
    shared->fail_slowly = true;
    shared->fail_at = shared->writes + 1;
    pthread_create(&syncer, NULL, sync_beside_the_failure, &other);
    expect(kv_replica_update(&disk, texts, 1) == NH_EIO, "the failure is told");
    pthread_join(syncer, NULL);
    expect(shared->late_flushes == 0, "RocksDB is asked for nothing beside a write that fails, nor behind it");
    kv_replica_close(&disk);
    kv_replica_close(&other);
}

Test(kv_disk_crash, a_write_fails_beside_a_sync_of_another_replica)
{
    must_run(fail_a_write_beside_a_sync);
}

/* No file may grow any more: all that RocksDB writes fails, as on a full disk. */
static void fill_the_disk(void)
{
    char texts[1][KV_TEXT_BYTES] = {"SET a 1"};
    struct rlimit full = {.rlim_cur = 1, .rlim_max = 1};
    struct kv_replica disk;

    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    kv_replica_apply(&disk, texts, 1);
    signal(SIGXFSZ, SIG_IGN);
    expect(setrlimit(RLIMIT_FSIZE, &full) == 0, "the disk is full");
    expect(kv_replica_update(&disk, texts, 1) < 0, "the failure is told");
    expect(disk.ops->sync(disk.m, NULL) < 0, "nothing is synced");
    kv_replica_close(&disk);
}

Test(kv_disk_crash, a_full_disk_is_a_failure_and_ends_no_process)
{
    must_run(fill_the_disk);
    must_run(look_after_the_failure);
}

/* ---- syncs ---- */

#define SYNCERS 16

static void *sync_once(void *arg)
{
    struct kv_replica *r = arg;

    expect(r->ops->sync(r->m, NULL) == 0, "sync works");
    return NULL;
}

static void sync_together(void)
{
    struct kv_replica replicas[SYNCERS];
    pthread_t threads[SYNCERS];

    for (uint64_t i = 0; i < SYNCERS; i++)
        kv_replica_open(&replicas[i], KV_DISK_SO, 1 + i, 1);
    shared->flushes = 0;
    for (int i = 0; i < SYNCERS; i++)
        pthread_create(&threads[i], NULL, sync_once, &replicas[i]);
    for (int i = 0; i < SYNCERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SYNCERS; i++)
        kv_replica_close(&replicas[i]);
}

Test(kv_disk_crash, syncs_of_many_shards_are_few)
{
    must_run(sync_together);
    cr_assert_geq(shared->flushes, 1);
    cr_assert_lt(shared->flushes, SYNCERS / 2, "%d syncs", shared->flushes);
}
