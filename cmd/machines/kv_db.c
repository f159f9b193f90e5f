#include "cmd/machines/kv_db.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB                 ((size_t)1024 * 1024)
#define TABLES_OPEN_MAX     512
#define NAME                "kv-disk"
#define ROCKSDB_LOG_NOTHING 6 /* above the highest of its levels */
#define MEMTABLE_BYTES      (64 * MIB)
/* RocksDB would begin another memtable by itself at so many of them: never, as kv_db_write does it before. */
#define MEMTABLES_LIMIT 4u
/* The memtable's size is looked at after so many parts of it. */
#define LOOKS_PER_MEMTABLE 64u

struct kv_db {
    struct kv_db *next; /* guarded by all_lock, as is refs */
    uint32_t refs;
    char *path;
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write_lazy, *write_synced;
    rocksdb_flushoptions_t *flush;
    bool failed; /* atomic */

    pthread_rwlock_t wal; /* held by who writes to it; alone by who syncs or replaces it */
    size_t memtable_bytes_max;
    size_t unseen_bytes; /* atomic: written since its size was looked at */

    pthread_mutex_t lock; /* guards what follows; not held while RocksDB syncs */
    pthread_cond_t synced;
    uint64_t begun, done; /* syncs, in order: one runs at a time */
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kv_db *all;

int kv_db_error(char *message, const char *what, struct nh_error *err)
{
    int code = NH_EIO;

    if (strncmp(message, "Corruption", 10) == 0)
        code = NH_ECORRUPT;
    else if (strstr(message, "No space left"))
        code = NH_ENOSPC;
    else if (strstr(message, "/LOCK:") || strstr(message, "lock hold by"))
        code = NH_ELOCKED;
    kv_error(err, code, "%s: %s", what, message);
    rocksdb_free(message);
    return code;
}

rocksdb_t *kv_db_handle(struct kv_db *db)
{
    return db->db;
}

const rocksdb_readoptions_t *kv_db_read_options(struct kv_db *db)
{
    return db->read;
}

/* ---- opening and closing ---- */

static rocksdb_options_t *make_options(void)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_options_t *o = rocksdb_options_create();

    /* Every change looks whether its key is there; most new keys are answered by the filter. */
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_uint64add_merge_operator(o); /* for counts of batches */
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(o, MEMTABLES_LIMIT * MEMTABLE_BYTES);
    rocksdb_options_set_max_open_files(o, TABLES_OPEN_MAX);
    rocksdb_options_set_bytes_per_sync(o, MIB);
    rocksdb_options_set_wal_bytes_per_sync(o, MIB); /* so that a sync finds little to do */
    /* Each change of the tables begins a new manifest, which is whole before CURRENT names it: what a power cut leaves of one
     * that is appended to may have a hole in its last record, and such a database does not open. */
    rocksdb_options_set_max_manifest_file_size(o, 1);
    /* Only a suffix may be lost: what lies behind a hole in the WAL is not read. */
    rocksdb_options_set_wal_recovery_mode(o, rocksdb_point_in_time_recovery);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    /* RocksDB's own log: on a full disk its second line that fails ends the process, in builds with asserts as Debian's. */
    rocksdb_options_set_info_log_level(o, ROCKSDB_LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(o, 4);
    return o;
}

static void db_free(struct kv_db *db)
{
    if (db->db)
        rocksdb_close(db->db);
    rocksdb_options_destroy(db->options);
    rocksdb_readoptions_destroy(db->read);
    rocksdb_writeoptions_destroy(db->write_lazy);
    rocksdb_writeoptions_destroy(db->write_synced);
    rocksdb_flushoptions_destroy(db->flush);
    pthread_rwlock_destroy(&db->wal);
    pthread_cond_destroy(&db->synced);
    pthread_mutex_destroy(&db->lock);
    free(db->path);
    free(db);
}

/* Who wants to replace the memtable does not wait for ever for those who write to it. */
static void init_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

static struct kv_db *db_new(const char *path)
{
    struct kv_db *db = kv_must(calloc(1, sizeof *db));

    db->refs = 1;
    db->path = kv_must(strdup(path));
    db->options = make_options();
    db->read = rocksdb_readoptions_create();
    db->write_lazy = rocksdb_writeoptions_create();
    db->write_synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(db->write_synced, 1);
    db->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(db->flush, 0);
    db->memtable_bytes_max = rocksdb_options_get_write_buffer_size(db->options) / MEMTABLES_LIMIT;
    init_lock(&db->wal);
    pthread_mutex_init(&db->lock, NULL);
    pthread_cond_init(&db->synced, NULL);
    return db;
}

static int make_directory(const char *parent, const char *path, struct nh_error *err)
{
    int fd, failed;

    if (mkdir(path, 0700) == 0) {
        fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        failed = fd < 0 || fsync(fd) < 0;
        if (fd >= 0)
            close(fd);
        return failed ? kv_error(err, NH_EIO, "sync %s: %s", parent, strerror(errno)) : NH_OK;
    }
    return errno == EEXIST ? NH_OK : kv_error(err, NH_EIO, "make %s: %s", path, strerror(errno));
}

static int open_new(const char *parent, const char *path, struct kv_db **ret, struct nh_error *err)
{
    int r = make_directory(parent, path, err);
    char *message = NULL;
    struct kv_db *db;

    if (r < 0)
        return r;
    db = db_new(path);
    db->db = rocksdb_open(db->options, path, &message);
    r = message ? kv_db_error(message, path, err) : kv_db_sweep(db, parent, err);
    if (r < 0) {
        db_free(db);
        return r;
    }
    db->next = all;
    all = db;
    *ret = db;
    return NH_OK;
}

static int acquire_locked(const char *parent, const char *path, struct kv_db **ret, struct nh_error *err)
{
    for (struct kv_db *db = all; db; db = db->next) {
        if (strcmp(db->path, path) == 0) {
            db->refs++;
            *ret = db;
            return NH_OK;
        }
    }
    return open_new(parent, path, ret, err);
}

int kv_db_acquire(const char *data_dir, struct kv_db **ret, struct nh_error *err)
{
    char parent[PATH_MAX], path[PATH_MAX + sizeof NAME];
    int r;

    if (!realpath(data_dir, parent))
        return kv_error(err, NH_EIO, "%s: %s", data_dir, strerror(errno));
    *strrchr(parent, '/') = 0; /* an absolute path has one */
    snprintf(path, sizeof path, "%s/" NAME, parent);
    pthread_mutex_lock(&all_lock);
    r = acquire_locked(parent[0] ? parent : "/", path, ret, err);
    pthread_mutex_unlock(&all_lock);
    return r;
}

void kv_db_release(struct kv_db *db)
{
    struct kv_db **at = &all;

    pthread_mutex_lock(&all_lock);
    if (--db->refs == 0) {
        while (*at != db)
            at = &(*at)->next;
        *at = db->next;
        db_free(db); /* under the lock: who opens it next must find it closed */
    }
    pthread_mutex_unlock(&all_lock);
}

/* ---- writing ---- */

static int check_failed(struct kv_db *db, struct nh_error *err)
{
    if (!__atomic_load_n(&db->failed, __ATOMIC_ACQUIRE))
        return NH_OK;
    return kv_error(err, NH_EIO, "%s: an earlier write or sync failed: repair the disk and restart", db->path);
}

/* With db->wal held alone: of a WAL that could not be written RocksDB may be asked nothing more. Debian's, which is built with
 * its assertions, would end the process. */
static bool sync_wal(struct kv_db *db)
{
    char *message = NULL;

    if (check_failed(db, NULL) < 0)
        return false;
    rocksdb_flush_wal(db->db, 1, &message);
    if (!message)
        return true;
    __atomic_store_n(&db->failed, true, __ATOMIC_RELEASE);
    rocksdb_free(message);
    return false;
}

static bool is_memtable_full(struct kv_db *db)
{
    uint64_t bytes;

    return rocksdb_property_int(db->db, "rocksdb.cur-size-active-mem-table", &bytes) == 0 && bytes >= db->memtable_bytes_max;
}

/* Another memtable has another WAL. RocksDB begins it while the end of the one before is in the page cache only; if then the
 * power fails, and the new one was written and the end of the old one was not, it recovers both, and what lies between is
 * missing. So the old WAL is synced before, with nobody writing. */
static void replace_memtable(struct kv_db *db)
{
    char *message = NULL;

    pthread_rwlock_wrlock(&db->wal);
    if (is_memtable_full(db) && sync_wal(db))
        rocksdb_flush(db->db, db->flush, &message); /* if it can not, the next write tells why */
    pthread_rwlock_unlock(&db->wal);
    rocksdb_free(message);
}

int kv_db_write(struct kv_db *db, rocksdb_writebatch_t *batch, bool sync, struct nh_error *err)
{
    char *message = NULL;
    size_t size_bytes;
    int r = check_failed(db, err);

    if (r < 0)
        return r;
    rocksdb_writebatch_data(batch, &size_bytes);
    pthread_rwlock_rdlock(&db->wal);
    rocksdb_write(db->db, sync ? db->write_synced : db->write_lazy, batch, &message);
    if (message)
        __atomic_store_n(&db->failed, true, __ATOMIC_RELEASE);
    pthread_rwlock_unlock(&db->wal);
    if (message)
        return kv_db_error(message, "write", err);
    if (__atomic_add_fetch(&db->unseen_bytes, size_bytes, __ATOMIC_RELAXED) >= db->memtable_bytes_max / LOOKS_PER_MEMTABLE) {
        __atomic_store_n(&db->unseen_bytes, 0, __ATOMIC_RELAXED);
        if (is_memtable_full(db))
            replace_memtable(db);
    }
    return NH_OK;
}

static void sync_now(struct kv_db *db)
{
    uint64_t number = ++db->begun;

    pthread_mutex_unlock(&db->lock);
    pthread_rwlock_wrlock(&db->wal);
    sync_wal(db);
    pthread_rwlock_unlock(&db->wal);
    pthread_mutex_lock(&db->lock);
    db->done = number;
    pthread_cond_broadcast(&db->synced);
}

int kv_db_sync(struct kv_db *db, struct nh_error *err)
{
    uint64_t number;

    pthread_mutex_lock(&db->lock);
    number = db->begun + 1; /* a sync that runs already may have begun before our writes */
    while (db->done < number && check_failed(db, NULL) == NH_OK) {
        if (db->begun == db->done)
            sync_now(db);
        else
            pthread_cond_wait(&db->synced, &db->lock);
    }
    pthread_mutex_unlock(&db->lock);
    return check_failed(db, err);
}
