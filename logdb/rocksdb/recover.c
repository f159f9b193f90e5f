/* What an opening does with the journal:
 *
 *     1  sync the segments from the floor on, and forget what the page cache has of them
 *     2  look there for the calls from the horizon on
 *     3  put the calls into RocksDB, in the order of their LSNs; if some of them are lost, not over what is newer
 *     4  move the horizon behind them
 *     5  count who uses which segment
 *
 * A segment ends at the first record that does not verify. If it had been durable, that is damage, and the opening fails, unless
 * the operator accepts the loss (wal_recovery_mode).
 *
 * A crash leaves what only the page cache holds. A replica must not tell others of an entry that a power cut can take, hence the
 * syncs. After a failed sync it even holds what the next one takes for written: hence it is read again.
 */
#include "logdb/rocksdb/store.h"

#include <inttypes.h>
#include <stdlib.h>

#include "logdb/rocksdb/batch.h"
#include "raftio/support/memory.h"

struct call {
    uint64_t lsn;
    struct segment *segment;
    uint64_t at;
    struct segment_record record;
};

struct recovery {
    struct nh_logdb *db;
    uint64_t horizon, floor;
    uint64_t lsn_max; /* later calls are given up */
    struct call *calls;
    size_t n_calls, cap_calls;
    struct segment_buffer buffer;
    struct replica_map repeated; /* if some calls are given up */
};

/* ---- finding them ---- */

/* A record from the horizon on is wanted only as a whole; of an earlier one nothing is wanted but where it ends. Returns 1, or 0
 * at the end of what verifies. */
static int look_at(struct recovery *rec, struct segment *s, struct segment_record *ret, struct nh_error *err)
{
    segment_crc_fn crc = rec->db->journal.crc;
    int r = segment_record_at(s, s->end, crc, ret, err);

    if (r > 0 && ret->kind == SEGMENT_CALL && ret->lsn >= rec->horizon)
        r = segment_read_record(s, s->end, ret, crc, &rec->buffer, err);
    return r;
}

static void take_call(struct recovery *rec, struct segment *s, const struct segment_record *r)
{
    s->last_lsn = r->lsn;
    if (r->lsn < rec->horizon)
        return;
    array_reserve((void **)&rec->calls, &rec->cap_calls, rec->n_calls + 1, sizeof *rec->calls);
    rec->calls[rec->n_calls++] = (struct call){.lsn = r->lsn, .segment = s, .at = s->end, .record = *r};
}

/* What was given up with the operator's consent is given up in all segments: later calls may build on it. */
static int check_end(struct recovery *rec, const struct segment *s, struct nh_error *err)
{
    int r = segment_was_durable(s, s->end, rec->db->journal.crc, err);

    if (r <= 0)
        return r;
    if (rec->db->accepts_loss) {
        if (s->last_lsn < rec->lsn_max)
            rec->lsn_max = s->last_lsn;
        rec->db->services->log(NH_LOG_WARN, "logdb",
                               "segment %016" PRIx64 " of the journal is damaged at byte %" PRIu64
                               ": what follows is given up, as configured",
                               s->id, s->end);
        return NH_OK;
    }
    return nh_error_set(err, NH_ECORRUPT,
                        "segment %016" PRIx64 " of the journal is damaged at byte %" PRIu64
                        ", and acknowledged writes follow (restore it, or remove this host's replicas and let new ones join)",
                        s->id, s->end);
}

static int scan(struct recovery *rec, struct segment *s, struct nh_error *err)
{
    struct segment_record record;
    int r = segment_sync_and_reload(s, err);

    if (r < 0)
        return r;
    while ((r = look_at(rec, s, &record, err)) > 0) {
        if (record.kind == SEGMENT_SEAL) {
            s->peak_users = record.peak_users;
            return NH_OK;
        }
        take_call(rec, s, &record);
        s->end += segment_record_pages(&record);
    }
    return r < 0 ? r : check_end(rec, s, err);
}

/* ---- what tables have and the calls have not ---- */

/* Of a replica with saves among the calls that are repeated. */
struct repeated {
    struct replica_node node;
    uint64_t number; /* of the last of them; UINT64_MAX: all that tables have of it is deleted anyway */
    bool stays;      /* as tables have it */
};

static bool is_lossy(const struct recovery *rec)
{
    return rec->lsn_max != UINT64_MAX;
}

static int read_call(struct recovery *rec, const struct call *c, struct nh_error *err)
{
    int r = segment_read_record(c->segment, c->at, &c->record, rec->db->journal.crc, &rec->buffer, err);

    return r == 0 ? nh_error_set(err, NH_ECORRUPT, "call %" PRIu64 " of the journal has changed", c->lsn) : r;
}

static const char *batch_of(const struct recovery *rec, const struct call *c)
{
    return (const char *)rec->buffer.data + SEGMENT_RECORD_BYTES + c->record.payload_bytes;
}

static struct repeated *find_repeated(const struct recovery *rec, const struct batch_operation *op)
{
    struct nh_replica_info of;
    struct replica_node *n;

    if (!layout_key_replica(op->key, op->key_bytes, &of))
        return NULL;
    n = replica_map_find(&rec->repeated, of.shard_id, of.replica_id);
    return n ? container_of(n, struct repeated, node) : NULL;
}

static void note_number(struct recovery *rec, const struct batch_operation *op, uint64_t number)
{
    struct repeated *r = find_repeated(rec, op);
    struct nh_replica_info of;

    if (!r && layout_key_replica(op->key, op->key_bytes, &of)) {
        r = xcalloc(1, sizeof *r);
        r->node = (struct replica_node){.shard_id = of.shard_id, .replica_id = of.replica_id};
        replica_map_add(&rec->repeated, &r->node);
    }
    if (r && number > r->number)
        r->number = number;
}

static int note_operation(struct recovery *rec, const struct batch_operation *op, struct nh_error *err)
{
    struct nh_replica_info of;
    struct layout_header h;
    enum layout_kind kind;
    uint64_t index;
    int r;

    if (op->kind == BATCH_DELETE_RANGE && layout_key_ends_replica(op->value, op->value_bytes))
        note_number(rec, op, UINT64_MAX);
    if (op->kind != BATCH_PUT || !layout_key_parse(op->key, op->key_bytes, &of, &kind, &index) ||
        (kind != LAYOUT_BLOCK && kind != LAYOUT_STATE))
        return NH_OK;
    r = layout_header_decode(op->value, op->value_bytes, rec->db->services->crc32c, &h, err);
    if (r == NH_OK)
        note_number(rec, op, h.number);
    return r;
}

static int note_call(struct recovery *rec, const struct call *c, struct nh_error *err)
{
    struct batch_operation op;
    struct batch_reader b;
    int r = read_call(rec, c, err);

    if (r > 0)
        r = batch_read_begin(&b, batch_of(rec, c), c->record.batch_bytes, err);
    while (r >= 0 && (r = batch_read(&b, &op, err)) > 0)
        r = note_operation(rec, &op, err);
    return r;
}

/* What cannot be read is no reason to stay. */
static int compare_with_tables(struct nh_logdb *db, rocksdb_iterator_t *it, struct repeated *of, struct nh_error *err)
{
    uint64_t shard_id = of->node.shard_id, replica_id = of->node.replica_id, first;
    struct layout_header h;
    struct layout_key key;
    int r;

    layout_block_key(&key, shard_id, replica_id, UINT64_MAX);
    rocksdb_iter_seek_for_prev(it, key.bytes, key.size_bytes);
    r = block_at(db, it, shard_id, replica_id, &first, &h, err);
    of->stays = r > 0 && h.number > of->number;
    return r < 0 && r != NH_ECORRUPT ? r : NH_OK;
}

/* RocksDB makes tables when it likes, so they may have of a replica what calls that are given up wrote. Earlier ones must not be
 * put over that: the log would have old entries and newer ones behind them. A newest block with a later number than all that
 * would be repeated tells. Such a replica stays as tables have it, and that is all that was repeated and more: RocksDB got its
 * calls in order, and what waited in its tail before any further block. */
static int find_newer(struct recovery *rec, struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(rec->db->db, rec->db->read);
    struct replica_node *n = NULL;
    uint32_t n_stay = 0;
    int r = NH_OK;

    for (size_t i = 0; i < rec->n_calls && r == NH_OK && rec->calls[i].lsn <= rec->lsn_max; i++)
        r = note_call(rec, &rec->calls[i], err);
    for (size_t i = 0; r == NH_OK && (n = replica_map_next(&rec->repeated, &i, n));) {
        struct repeated *of = container_of(n, struct repeated, node);

        r = compare_with_tables(rec->db, it, of, err);
        n_stay += of->stays;
    }
    rocksdb_iter_destroy(it);
    if (n_stay)
        rec->db->services->log(NH_LOG_WARN, "logdb", "%u replicas have later saves in tables, and stay as they are there",
                               n_stay);
    return r;
}

/* The operations of a call but for those on replicas that stay. */
static int copy_wanted(const struct recovery *rec, const struct call *c, rocksdb_writebatch_t *to, struct nh_error *err)
{
    struct batch_operation op;
    struct batch_reader b;
    int r = batch_read_begin(&b, batch_of(rec, c), c->record.batch_bytes, err);

    while (r >= 0 && (r = batch_read(&b, &op, err)) > 0) {
        const struct repeated *of = find_repeated(rec, &op);

        if (of && of->stays)
            continue;
        if (op.kind == BATCH_PUT)
            rocksdb_writebatch_put(to, op.key, op.key_bytes, op.value, op.value_bytes);
        else if (op.kind == BATCH_DELETE)
            rocksdb_writebatch_delete(to, op.key, op.key_bytes);
        else
            rocksdb_writebatch_delete_range(to, op.key, op.key_bytes, op.value, op.value_bytes);
    }
    return r;
}

static void free_repeated(struct replica_node *n)
{
    free(container_of(n, struct repeated, node));
}

/* ---- putting them into RocksDB ---- */

static int by_lsn(const void *a, const void *b)
{
    const struct call *x = a, *y = b;

    return x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

static int replay(struct recovery *rec, const struct call *c, struct nh_error *err)
{
    rocksdb_writebatch_t *batch;
    int r = read_call(rec, c, err);

    if (r < 0)
        return r;
    if (is_lossy(rec)) {
        batch = rocksdb_writebatch_create();
        r = copy_wanted(rec, c, batch, err);
    } else {
        batch = rocksdb_writebatch_create_from(batch_of(rec, c), c->record.batch_bytes);
    }
    if (r >= 0)
        r = store_write_unlogged(rec->db, batch, err);
    rocksdb_writebatch_destroy(batch);
    return r;
}

static int replay_all(struct recovery *rec, struct nh_error *err)
{
    struct journal *j = &rec->db->journal;
    int r = NH_OK;

    if (rec->n_calls == 0)
        return NH_OK;
    qsort(rec->calls, rec->n_calls, sizeof *rec->calls, by_lsn);
    if (is_lossy(rec))
        r = find_newer(rec, err);
    for (size_t i = 0; i < rec->n_calls && r == NH_OK && rec->calls[i].lsn <= rec->lsn_max; i++)
        r = replay(rec, &rec->calls[i], err);
    if (rec->calls[rec->n_calls - 1].lsn >= j->next_lsn)
        j->next_lsn = rec->calls[rec->n_calls - 1].lsn + 1;
    return r;
}

/* ---- */

static int count_use(void *ctx, struct nh_replica_info info, struct use use)
{
    struct recovery *rec = ctx;

    if (journal_use(&rec->db->journal, use.segment_id))
        return 0;
    rec->db->services->log(NH_LOG_ERROR, "logdb",
                           "shard %" PRIu64 " replica %" PRIu64 " has entries in segment %016" PRIx64
                           " of the journal, which is missing",
                           info.shard_id, info.replica_id, use.segment_id);
    return rec->db->accepts_loss ? 0 : NH_ECORRUPT;
}

static int recover(struct recovery *rec, struct nh_error *err)
{
    struct nh_logdb *db = rec->db;
    struct journal *j = &db->journal;
    int r = store_read_horizon(db, &rec->horizon, &rec->floor, err);

    if (r < 0)
        return r;
    if (rec->horizon > j->next_lsn)
        j->next_lsn = rec->horizon;
    if (rec->floor > j->next_id)
        j->next_id = rec->floor;
    j->horizon = rec->horizon;
    for (size_t i = 0; i < j->n_segments && r == NH_OK; i++)
        if (j->segments[i]->id >= rec->floor)
            r = scan(rec, j->segments[i], err);
    if (r == NH_OK)
        r = replay_all(rec, err);
    if (r == NH_OK && (rec->n_calls > 0 || is_lossy(rec))) /* a loss is accepted once */
        r = store_move_horizon(db, err);
    if (r == NH_OK) {
        r = store_list_uses(db, count_use, rec, err);
        if (r == NH_ECORRUPT)
            nh_error_set(err, r,
                         "a segment of the journal is missing: restore it, or remove this host's replicas and let new ones join");
    }
    for (size_t i = 0; i < j->n_segments; i++) /* it was finished long ago, or a crash has ended it: as many as now, say */
        if (j->segments[i]->peak_users == SEGMENT_PEAK_UNKNOWN)
            j->segments[i]->peak_users = j->segments[i]->n_users;
    return r < 0 ? r : journal_drop_dead(j, err);
}

int store_recover(struct nh_logdb *db, struct nh_error *err)
{
    struct recovery rec = {.db = db, .lsn_max = UINT64_MAX};
    int r = recover(&rec, err);

    replica_map_clear(&rec.repeated, free_repeated);
    segment_buffer_deinit(&rec.buffer);
    free(rec.calls);
    return r;
}
