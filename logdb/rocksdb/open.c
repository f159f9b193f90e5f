/* Opening, closing, options, and the one place where the store writes. */
#include "logdb/rocksdb/store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "logdb/rocksdb/directory.h"
#include "raftio/support/memory.h"

#define MIB                 ((size_t)1024 * 1024)
#define WRITE_BUFFER_BYTES  (64 * MIB)
#define JOURNAL_BYTES       (512 * MIB)
#define TABLES_OPEN_MAX     512
#define N_WORKERS_MAX       1024u
#define ROCKSDB_LOG_NOTHING 6 /* above the highest of its levels */

/* What RocksDB's C interface has no setter for. The hint speeds up inserts beside a replica's earlier ones; it works
 * only with serial memtable writes, which are faster here anyway. Its prefix is that of every key (LAYOUT_PREFIX_BYTES),
 * and no range tombstone may begin with one: layout.h. The cache and the filters are for a host's start, which looks for
 * some records of each of thousands of replicas in each table. */
#define TEXT_DEFAULTS                                                    \
    "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.17;" \
    "avoid_flush_during_shutdown=true;"                                  \
    "block_based_table_factory={block_cache=64M;filter_policy=bloomfilter:10:false}"

/* What the durability contract rests on; not for the user to change. A recovery that did not flush would serve what only
 * the page cache holds; best efforts would open what is left of a database without a word. With a manifest of one byte each
 * change of the tables begins a new one, which is whole before CURRENT names it: what a power cut leaves of one that is appended
 * to may have a hole in its last record, and such a database does not open. */
#define TEXT_ENFORCED                                                                                      \
    "avoid_flush_during_recovery=false;manual_wal_flush=false;unordered_write=false;paranoid_checks=true;" \
    "allow_mmap_writes=false;allow_2pc=false;best_efforts_recovery=false;"                                 \
    "max_manifest_file_size=1"

static int error_code(const char *message)
{
    if (strncmp(message, "Corruption", 10) == 0)
        return NH_ECORRUPT;
    if (strncmp(message, "Invalid argument", 16) == 0)
        return NH_EINVAL;
    if (strstr(message, "/LOCK:") || strstr(message, "lock hold by"))
        return NH_ELOCKED;
    return NH_EIO;
}

int store_error(char *message, const char *what, struct nh_error *err)
{
    int r = nh_error_set(err, error_code(message), "%s: %s", what, message);

    rocksdb_free(message);
    return r;
}

int store_check_fence(struct nh_logdb *db, struct nh_error *err)
{
    if (!__atomic_load_n(&db->fenced, __ATOMIC_ACQUIRE))
        return NH_OK;
    return nh_error_set(err, NH_EFENCED, "an earlier write failed: repair the disk and restart");
}

void store_fence(struct nh_logdb *db)
{
    __atomic_store_n(&db->fenced, true, __ATOMIC_RELEASE);
    journal_stop(&db->journal);
}

static int write_failed(struct nh_logdb *db, char *message, struct nh_error *err)
{
    int r;

    store_fence(db);
    r = store_error(message, "write", err);
    return r == NH_ECORRUPT ? r : nh_error_wrap(err, NH_EIO, "log store");
}

int store_write_unlogged(struct nh_logdb *db, rocksdb_writebatch_t *batch, struct nh_error *err)
{
    char *message = NULL;
    int r = store_check_fence(db, err);

    if (r < 0)
        return r;
    rocksdb_write(db->db, db->write, batch, &message);
    return message ? write_failed(db, message, err) : NH_OK;
}

int store_put(struct nh_logdb *db, const struct layout_key *key, const uint8_t *value, size_t size_bytes, struct nh_error *err)
{
    char *message = NULL;

    rocksdb_put(db->db, db->write, key->bytes, key->size_bytes, (const char *)value, size_bytes, &message);
    return message ? write_failed(db, message, err) : NH_OK;
}

int store_commit_begin(struct nh_logdb *db, struct journal_stream *s, size_t batch_bytes, bool sync, struct nh_error *err)
{
    int r = store_check_fence(db, err);

    if (r == NH_OK)
        journal_commit_begin(&db->journal, s, batch_bytes, sync);
    return r;
}

int store_commit_end(struct nh_logdb *db, struct journal_stream *s, struct nh_error *err)
{
    int r = journal_commit_end(s, err);

    if (r < 0) {
        store_fence(db);
        return nh_error_wrap(err, r, "log store");
    }
    return NH_OK;
}

int store_commit(struct nh_logdb *db, struct journal_stream *s, size_t batch_bytes, bool sync, struct nh_error *err)
{
    int r = store_commit_begin(db, s, batch_bytes, sync, err);

    return r < 0 ? r : store_commit_end(db, s, err);
}

void store_applied(struct nh_logdb *db, struct journal_stream *s)
{
    if (journal_applied(&db->journal, s))
        reclaimer_wake(db);
}

static int write_batch(struct nh_logdb *db, struct journal_stream *s, rocksdb_writebatch_t *batch, bool sync,
                       struct nh_error *err)
{
    size_t size;
    const char *bytes = rocksdb_writebatch_data(batch, &size);
    int r;

    memcpy(journal_room(s, size), bytes, size);
    journal_take(s, size);
    r = store_commit(db, s, size, sync, err);
    if (r == NH_OK)
        r = store_write_unlogged(db, batch, err);
    if (r == NH_OK)
        store_applied(db, s);
    return r;
}

int store_write_batch(struct nh_logdb *db, rocksdb_writebatch_t *batch, bool sync, struct nh_error *err)
{
    struct journal_stream *s = journal_borrow(&db->journal);
    int r = store_check_fence(db, err);

    if (r == NH_OK) {
        r = journal_begin(&db->journal, s, 0, 0, err);
        if (r < 0)
            store_fence(db);
    }
    if (r == NH_OK)
        r = write_batch(db, s, batch, sync, err);
    journal_return(s);
    return r;
}

static rocksdb_options_t *default_options(void)
{
    rocksdb_options_t *o = rocksdb_options_create();

    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_bottommost_compression(o, rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(o, WRITE_BUFFER_BYTES);
    rocksdb_options_set_max_write_buffer_number(o, 4);
    rocksdb_options_set_max_total_wal_size(o, JOURNAL_BYTES); /* for us: RocksDB has no WAL here */
    rocksdb_options_set_level0_file_num_compaction_trigger(o, 8);
    rocksdb_options_set_level0_slowdown_writes_trigger(o, 20);
    rocksdb_options_set_level0_stop_writes_trigger(o, 32);
    rocksdb_options_set_target_file_size_base(o, 64 * MIB);
    rocksdb_options_set_max_bytes_for_level_base(o, 1024 * MIB);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_max_open_files(o, TABLES_OPEN_MAX);
    rocksdb_options_set_bytes_per_sync(o, MIB);
    rocksdb_options_set_allow_concurrent_memtable_write(o, 0);
    /* A torn last record was never acknowledged; anything else that is damaged must stop the host (rocksdb_logdb.h). */
    rocksdb_options_set_wal_recovery_mode(o, rocksdb_tolerate_corrupted_tail_records_recovery);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    /* RocksDB's own log: on a full disk its second line that fails ends the process, in builds with asserts as Debian's. */
    rocksdb_options_set_info_log_level(o, ROCKSDB_LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(o, 4);
    return o;
}

/* Replaces *o by a copy with the text applied. */
static int apply_text(rocksdb_options_t **o, const char *text, struct nh_error *err)
{
    rocksdb_options_t *applied = rocksdb_options_create();
    char *message = NULL;

    rocksdb_get_options_from_string(*o, text, applied, &message);
    if (message) {
        rocksdb_options_destroy(applied);
        store_error(message, "options", err);
        return nh_error_wrap(err, NH_EINVAL, "log store");
    }
    rocksdb_options_destroy(*o);
    *o = applied;
    return NH_OK;
}

/* Tables are written by the megabyte and hardly ever read again: past the page cache, whose copying costs more than all else of a
 * flush. */
static void avoid_page_cache(rocksdb_options_t *o, const struct directory *d)
{
    if (directory_takes_direct_io(d->db))
        rocksdb_options_set_use_direct_io_for_flush_and_compaction(o, 1);
}

static int make_options(struct nh_logdb *db, const struct directory *d, const char *text, struct nh_error *err)
{
    int r;

    db->options = default_options();
    avoid_page_cache(db->options, d);
    r = apply_text(&db->options, TEXT_DEFAULTS, err);
    if (r == NH_OK && text && text[0])
        r = apply_text(&db->options, text, err);
    if (r == NH_OK)
        r = apply_text(&db->options, TEXT_ENFORCED, err);
    if (r == NH_OK && rocksdb_options_get_compaction_style(db->options) == rocksdb_fifo_compaction)
        r = nh_error_set(err, NH_EINVAL, "options: FIFO compaction would delete the oldest tables, whatever is in them");
    if (r < 0)
        return r;
    rocksdb_options_set_create_if_missing(db->options, d->creating);
    rocksdb_options_set_wal_dir(db->options, d->wal);
    db->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(db->read, 0);
    db->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(db->write, 1);
    db->budget_bytes = rocksdb_options_get_max_total_wal_size(db->options);
    if (db->budget_bytes == 0) /* RocksDB's "choose yourself" */
        db->budget_bytes = JOURNAL_BYTES;
    db->accepts_loss = rocksdb_options_get_wal_recovery_mode(db->options) >= rocksdb_point_in_time_recovery;
    return NH_OK;
}

/* A database without FORMAT must be an interrupted creation: nothing in it. */
static int check_empty(struct nh_logdb *db, const struct directory *d, struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    bool empty;

    rocksdb_iter_seek_to_first(it);
    empty = !rocksdb_iter_valid(it);
    rocksdb_iter_destroy(it);
    if (!empty)
        return nh_error_set(err, NH_EMISMATCH, "%s holds data but no FORMAT file: restore the file, or use an empty directory",
                            d->dir);
    return NH_OK;
}

static int open_database(struct nh_logdb *db, const struct directory *d, struct nh_error *err)
{
    char *message = NULL;
    int r;

    db->db = rocksdb_open(db->options, d->db, &message);
    if (message) {
        r = store_error(message, "open", err);
        if (r != NH_ECORRUPT && r != NH_EINVAL)
            return r;
        /* A missing database is an invalid argument to RocksDB. */
        return nh_error_wrap(err, NH_ECORRUPT,
                             "log store damaged (restore it, or remove this host's replicas and let new ones join)");
    }
    if (!d->creating)
        return NH_OK;
    r = check_empty(db, d, err);
    return r < 0 ? r : directory_commit(d, err);
}

static int open_journal(struct nh_logdb *db, const struct directory *d, struct nh_error *err)
{
    int r = journal_open(&db->journal, d->wal, directory_takes_direct_io(d->wal), db->n_workers, db->budget_bytes,
                         db->services->crc32c, err);

    return r < 0 ? r : store_recover(db, err);
}

static bool may_poll(const struct nh_logdb_config *config)
{
    return config->struct_size < sizeof *config || !config->no_polling;
}

static struct nh_logdb *store_new(const struct nh_logdb_config *config)
{
    struct nh_logdb *db = xcalloc(1, sizeof *db);
    pthread_condattr_t monotonic;

    db->services = config->services;
    db->n_workers = config->n_workers;
    db->journal.polls = may_poll(config);
    db->workers = xcalloc(config->n_workers, sizeof *db->workers);
    pthread_mutex_init(&db->lock, NULL);
    for (size_t i = 0; i < TAIL_LOCKS; i++)
        pthread_mutex_init(&db->tail_locks[i], NULL);
    pthread_cond_init(&db->released, NULL);
    pthread_cond_init(&db->has_jobs, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&db->horizon_is_due, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return db;
}

static void free_replica(struct replica_node *n)
{
    replica_free(replica_of(n));
}

/* Takes a half-opened store. */
static void store_free(struct nh_logdb *db)
{
    for (uint32_t i = 0; i < db->n_workers; i++)
        save_buffers_deinit(&db->workers[i]);
    free(db->workers);
    replica_map_clear(&db->replicas, free_replica);
    if (db->db)
        rocksdb_close(db->db);
    if (db->options)
        rocksdb_options_destroy(db->options);
    if (db->read)
        rocksdb_readoptions_destroy(db->read);
    if (db->write)
        rocksdb_writeoptions_destroy(db->write);
    journal_deinit(&db->journal);
    pthread_cond_destroy(&db->horizon_is_due);
    pthread_cond_destroy(&db->has_jobs);
    pthread_cond_destroy(&db->released);
    for (size_t i = 0; i < TAIL_LOCKS; i++)
        pthread_mutex_destroy(&db->tail_locks[i]);
    pthread_mutex_destroy(&db->lock);
    free(db);
}

int store_open(const struct nh_logdb_config *config, struct nh_logdb **ret, struct nh_error *err)
{
    struct directory d;
    struct nh_logdb *db;
    int r;

    if (config->n_workers == 0 || config->n_workers > N_WORKERS_MAX)
        return nh_error_set(err, NH_EINVAL, "%u workers; 1 to %u are possible", config->n_workers, N_WORKERS_MAX);
    r = directory_open(&d, config, err);
    if (r < 0)
        return r;
    db = store_new(config);
    r = make_options(db, &d, config->options, err);
    if (r == NH_OK)
        r = open_database(db, &d, err);
    if (r == NH_OK)
        r = open_journal(db, &d, err);
    if (r == NH_OK)
        r = compactor_start(db, err);
    if (r == NH_OK)
        r = reclaimer_start(db, err);
    if (r < 0) {
        compactor_stop(db);
        store_free(db);
        return r;
    }
    *ret = db;
    return NH_OK;
}

void store_close(struct nh_logdb *db)
{
    struct nh_error err;

    if (!db)
        return;
    compactor_stop(db);
    reclaimer_stop(db);
    if (store_check_fence(db, NULL) == NH_OK && journal_seal(&db->journal, &err) < 0)
        db->services->log(NH_LOG_WARN, "logdb", "sync at close: %s", err.text);
    store_free(db);
}
