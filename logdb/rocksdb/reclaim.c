/* The thread that keeps the journal short.
 *
 * Moving the horizon. After some hundred megabytes of journal RocksDB gets what still waits for it (tail.h), and makes tables of
 * what it has in memory; then the journal up to there is not needed for recovery, only for the blocks that lie in it.
 *
 * Dropping. A segment below the horizon that no replica uses any more is used again. That is how entries usually go: their shard
 * is snapshotted and its log removed before anybody would have to write them a second time.
 *
 * Moving out. A replica whose log stays keeps a segment alive for perhaps one block. When the journal is longer than its budget,
 * finished segments that less than half of their users still use lose these: their blocks are put into the table, and only when
 * that is durable the segment is free. Above four budgets the oldest ones go although they are alive.
 *
 * What is moved is not written to the journal: a recovery that finds it not moved finds the segment as well. But a joined block
 * is split by this, and what is written to the journal on its parts, to truncate or compact the log, would be wrong for the whole
 * block. So before that tables are made of the split.
 */
#include "logdb/rocksdb/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "raftio/support/memory.h"

/* Moved blocks go into RocksDB in batches of about this size. */
#define MOVE_BYTES ((size_t)1024 * 1024)
/* The horizon moves when so much is behind it and nothing was added for so long. */
#define QUIET_BYTES   ((uint64_t)4 * 1024 * 1024)
#define QUIET_SECONDS 5

/* A journal that is all alive may be so many times its budget. */
#define ALIVE_BUDGETS 4u

static bool is_closing(struct nh_logdb *db)
{
    bool closing;

    pthread_mutex_lock(&db->lock);
    closing = db->closing;
    pthread_mutex_unlock(&db->lock);
    return closing;
}

/* ---- the horizon ---- */

static int flush(struct nh_logdb *db, struct nh_error *err)
{
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    char *message = NULL;

    rocksdb_flushoptions_set_wait(options, 1);
    rocksdb_flush(db->db, options, &message);
    rocksdb_flushoptions_destroy(options);
    return message ? store_error(message, "flush", err) : NH_OK;
}

int store_move_horizon(struct nh_logdb *db, struct nh_error *err)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    uint64_t floor, horizon = journal_make_cut(&db->journal, &floor);
    int r = tail_write_all(db, horizon, err);

    record_put_horizon(db, batch, horizon, floor);
    if (r == NH_OK)
        r = store_write_unlogged(db, batch, err); /* not if the store is fenced: a call may be pending */
    rocksdb_writebatch_destroy(batch);
    if (r == NH_OK)
        r = flush(db, err);
    if (r == NH_OK)
        journal_set_horizon(&db->journal, horizon);
    return r;
}

/* ---- moving out ---- */

struct users {
    uint64_t segment_id;
    struct nh_replica_info *items;
    size_t n, cap;
};

static int add_user(void *ctx, struct nh_replica_info info, struct use use)
{
    struct users *u = ctx;

    if (use.segment_id != u->segment_id)
        return 0;
    array_reserve((void **)&u->items, &u->cap, u->n + 1, sizeof *u->items);
    u->items[u->n++] = info;
    return 0;
}

/* What a replica's blocks are moved with. */
struct move {
    struct nh_logdb *db;
    struct replica *replica;
    uint64_t segment_id;
    rocksdb_writebatch_t *batch;
    bool splits; /* joined blocks */
};

static int flush_batch(struct move *m, size_t bytes_min, struct nh_error *err)
{
    size_t size;
    int r;

    rocksdb_writebatch_data(m->batch, &size);
    if (size < bytes_min)
        return NH_OK;
    r = store_write_unlogged(m->db, m->batch, err);
    rocksdb_writebatch_clear(m->batch);
    return r;
}

/* Whether something of the block at `it` lies in the segment. */
static int lies_there(const struct move *m, rocksdb_iterator_t *it, const struct layout_header *h, struct nh_error *err)
{
    struct layout_location at;
    size_t size;
    const char *value = rocksdb_iter_value(it, &size);
    uint32_t before;

    for (uint32_t i = 0; h->located && i < h->n; i = before + at.n) {
        int r = layout_location_find(value, size, h, i, &at, &before, err);

        if (r < 0)
            return r;
        if (at.segment_id == m->segment_id)
            return 1;
    }
    return 0;
}

/* Puts the block at `it` into the table, or what of it lies in the segment. */
static int move_block(struct move *m, rocksdb_iterator_t *it, uint64_t first, const struct layout_header *h, struct nh_error *err)
{
    int r = lies_there(m, it, h, err);

    m->splits |= r > 0 && h->joined;
    if (r > 0)
        r = block_split(m->db, it, m->batch, m->replica, first, h, first + h->n, m->segment_id, err);
    return r < 0 ? r : flush_batch(m, MOVE_BYTES, err);
}

/* From the block that holds the start of the log on: those before are dead. */
static int move_blocks(struct move *m, rocksdb_iterator_t *it, struct nh_error *err)
{
    const struct replica *r = m->replica;
    struct layout_header h;
    struct layout_key key;
    uint64_t first;
    int status;

    layout_block_key(&key, r->node.shard_id, r->node.replica_id, r->now.bounds.first);
    rocksdb_iter_seek_for_prev(it, key.bytes, key.size_bytes);
    status = block_at(m->db, it, r->node.shard_id, r->node.replica_id, &first, &h, err);
    if (status == 0) {
        rocksdb_iter_seek(it, key.bytes, key.size_bytes);
        status = block_at(m->db, it, r->node.shard_id, r->node.replica_id, &first, &h, err);
    }
    while (status > 0) {
        status = move_block(m, it, first, &h, err);
        if (status < 0)
            break;
        rocksdb_iter_next(it);
        status = block_at(m->db, it, r->node.shard_id, r->node.replica_id, &first, &h, err);
    }
    return status;
}

/* Its use of the segment ends, in memory and in the database. Returns 1 if it had one. */
static int end_use(struct move *m)
{
    struct replica *r = m->replica;

    for (size_t i = 0; i < r->n_uses; i++) {
        if (r->uses[i].segment_id != m->segment_id)
            continue;
        memmove(&r->uses[i], &r->uses[i + 1], (--r->n_uses - i) * sizeof *r->uses);
        record_delete_use(m->batch, r->node.shard_id, r->node.replica_id, m->segment_id);
        return 1;
    }
    return 0;
}

int store_move_replica(struct nh_logdb *db, struct nh_replica_info info, uint64_t segment_id, struct nh_error *err)
{
    struct move m = {.db = db, .segment_id = segment_id};
    rocksdb_iterator_t *it;
    int used = 0, r;

    m.replica = replica_hold(db, info.shard_id, info.replica_id);
    r = replica_load(db, m.replica, err);
    if (r == NH_OK) {
        m.batch = rocksdb_writebatch_create();
        it = rocksdb_create_iterator(db->db, db->read);
        r = move_blocks(&m, it, err);
        rocksdb_iter_destroy(it);
        if (r == NH_OK) {
            used = end_use(&m);
            r = flush_batch(&m, 0, err);
        }
        rocksdb_writebatch_destroy(m.batch);
    }
    if (m.splits)
        m.replica->split_lsn = journal_next_lsn(&db->journal);
    replica_release(db, m.replica);
    return r < 0 ? nh_error_wrap(err, r, "shard %" PRIu64 " replica %" PRIu64, info.shard_id, info.replica_id) : used;
}

int store_settle_split(struct nh_logdb *db, struct replica *r, struct nh_error *err)
{
    int status = NH_OK;

    if (r->split_lsn == 0)
        return NH_OK;
    if (r->split_lsn >= journal_horizon(&db->journal))
        status = flush(db, err);
    if (status == NH_OK)
        r->split_lsn = 0;
    return status;
}

/* Its users' blocks leave the segment, which is theirs until that is durable. What one of them cannot do does not keep the
 * others. */
static int move_out(struct nh_logdb *db, uint64_t segment_id, struct nh_error *err)
{
    struct users users = {.segment_id = segment_id};
    struct nh_error why = {0};
    int r = store_list_uses(db, add_user, &users, err);

    for (size_t i = 0; i < users.n && r == NH_OK && !is_closing(db); i++) {
        int moved = store_move_replica(db, users.items[i], segment_id, &why);

        if (moved > 0)
            journal_moved(&db->journal, segment_id);
    }
    free(users.items);
    if (r == NH_OK)
        r = store_move_horizon(db, err);
    if (r == NH_OK && !is_closing(db) && journal_give_up(&db->journal, segment_id))
        db->services->log(NH_LOG_WARN, "logdb", "segment %016" PRIx64 " of the journal stays, its blocks cannot be moved: %s",
                          segment_id, why.text);
    return r;
}

static uint64_t choose(struct nh_logdb *db)
{
    uint64_t bytes = journal_bytes(&db->journal);

    return bytes > db->budget_bytes ? journal_choose_victim(&db->journal, bytes > ALIVE_BUDGETS * db->budget_bytes) : 0;
}

static int shorten(struct nh_logdb *db, struct nh_error *err)
{
    uint64_t victim;
    int r = journal_drop_dead(&db->journal, err);

    while (r == NH_OK && !is_closing(db) && (victim = choose(db))) {
        r = move_out(db, victim, err);
        if (r == NH_OK)
            r = journal_drop_dead(&db->journal, err);
    }
    return r;
}

/* ---- the thread ---- */

static struct timespec after(time_t seconds)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += seconds;
    return t;
}

/* Also when nothing is written any more: RocksDB's memory is given back, and a start has little to repeat. */
static bool wait_until_due(struct nh_logdb *db)
{
    uint64_t last = 0, now;
    bool go_on;

    pthread_mutex_lock(&db->lock);
    while (!db->closing && !db->due) {
        struct timespec until = after(QUIET_SECONDS);

        if (pthread_cond_timedwait(&db->horizon_is_due, &db->lock, &until) != ETIMEDOUT)
            continue;
        pthread_mutex_unlock(&db->lock);
        now = journal_new_bytes(&db->journal);
        pthread_mutex_lock(&db->lock);
        db->due |= now >= QUIET_BYTES && now == last;
        last = now;
    }
    db->due = false;
    go_on = !db->closing;
    pthread_mutex_unlock(&db->lock);
    return go_on;
}

static void *reclaimer_main(void *arg)
{
    struct nh_logdb *db = arg;

    while (wait_until_due(db)) {
        struct nh_error err;
        int r = store_check_fence(db, &err);

        if (r == NH_OK)
            r = store_move_horizon(db, &err);
        if (r == NH_OK)
            r = shorten(db, &err);
        if (r < 0 && r != NH_EFENCED)
            db->services->log(NH_LOG_WARN, "logdb", "the journal cannot be shortened: %s", err.text);
    }
    return NULL;
}

void reclaimer_wake(struct nh_logdb *db)
{
    pthread_mutex_lock(&db->lock);
    if (!db->due) {
        db->due = true;
        pthread_cond_signal(&db->horizon_is_due);
    }
    pthread_mutex_unlock(&db->lock);
}

int reclaimer_start(struct nh_logdb *db, struct nh_error *err)
{
    int e = pthread_create(&db->reclaimer, NULL, reclaimer_main, db);

    if (e)
        return nh_error_sys(err, NH_EIO, e, "start the thread that shortens the journal");
    db->reclaimer_started = true;
    return NH_OK;
}

void reclaimer_stop(struct nh_logdb *db)
{
    if (!db->reclaimer_started)
        return;
    pthread_mutex_lock(&db->lock);
    db->closing = true;
    pthread_cond_signal(&db->horizon_is_due);
    pthread_mutex_unlock(&db->lock);
    pthread_join(db->reclaimer, NULL);
}
