#include "logdb/rocksdb/rocksdb_logdb.h"

#include <time.h>

#include "logdb/rocksdb/store.h"

#define METRICS_PERIOD_NS 100000000u
/* So many times its budget, and the journal takes no more before some of it is moved. */
#define BUSY_BUDGETS 8u

static uint32_t binary_format(struct nh_logdb *db)
{
    (void)db;
    return NH_LOGDB_BIN_VERSION;
}

static bool property(struct nh_logdb *db, const char *name)
{
    uint64_t value = 0;

    return rocksdb_property_int(db->db, name, &value) == 0 && value != 0;
}

/* Sees to a journal that is too long. True: it grows much faster than it can be moved into tables. */
static bool journal_is_behind(struct nh_logdb *db)
{
    uint64_t bytes = journal_bytes(&db->journal);

    if (bytes <= db->budget_bytes || !journal_choose_victim(&db->journal, bytes > BUSY_BUDGETS * db->budget_bytes))
        return false;
    reclaimer_wake(db);
    return bytes > BUSY_BUDGETS * db->budget_bytes;
}

/* One caller per period asks RocksDB, which takes its mutex; all others read the answer. */
static void get_metrics(struct nh_logdb *db, struct nh_logdb_metrics *ret)
{
    struct timespec now;
    uint64_t now_ns, due_ns = __atomic_load_n(&db->busy_until_ns, __ATOMIC_ACQUIRE);

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (now_ns >= due_ns && __atomic_compare_exchange_n(&db->busy_until_ns, &due_ns, now_ns + METRICS_PERIOD_NS, false,
                                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        bool busy = property(db, "rocksdb.is-write-stopped") || property(db, "rocksdb.actual-delayed-write-rate") ||
                    journal_is_behind(db);

        __atomic_store_n(&db->busy, busy, __ATOMIC_RELEASE);
    }
    ret->busy = __atomic_load_n(&db->busy, __ATOMIC_ACQUIRE);
}

const struct nh_logdb_ops *nh_logdb_rocksdb(void)
{
    static const struct nh_logdb_ops ops = {
        .abi_version = NH_LOGDB_ABI,
        .struct_size = sizeof ops,
        .name = "rocksdb",
        .open = store_open,
        .close = store_close,
        .binary_format = binary_format,
        .list_replicas = store_list_replicas,
        .save_bootstrap = store_save_bootstrap,
        .get_bootstrap = store_get_bootstrap,
        .save_raft_state = store_save_raft_state,
        .iterate_entries = store_iterate_entries,
        .read_raft_state = store_read_raft_state,
        .remove_entries_to = store_remove_entries_to,
        .compact_entries_to = store_compact_entries_to,
        .save_snapshots = store_save_snapshots,
        .get_snapshot = store_get_snapshot,
        .remove_replica_data = store_remove_replica_data,
        .import_snapshot = store_import_snapshot,
        .get_metrics = get_metrics,
        .begin_save = store_begin_save,
        .end_save = store_end_save,
    };

    return &ops;
}
