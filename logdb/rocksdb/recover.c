/* What an opening does with the journal:
 *
 *     1  look for the calls from the horizon on, in the segments from the floor on
 *     2  sync these segments
 *     3  put the calls into RocksDB, in the order of their LSNs; if some of them are lost, take blocks apart before
 *     4  move the horizon behind them
 *     5  count who uses which segment
 *
 * A segment ends at the first record that does not verify. If it had been durable, that is damage, and the opening fails, unless
 * the operator accepts the loss (wal_recovery_mode).
 *
 * A crash leaves what only the page cache holds. A replica must not tell others of an entry that a power cut can take, hence the
 * syncs.
 */
#include "logdb/rocksdb/store.h"

#include <inttypes.h>
#include <stdlib.h>

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
    int r;

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

/* ---- taking blocks apart ---- */

static void put_alone(struct nh_logdb *db, rocksdb_writebatch_t *batch, struct nh_replica_info of, uint64_t index,
                      struct layout_header *h, const uint8_t *record)
{
    uint8_t header[LAYOUT_HEADER_BYTES];
    struct layout_key key;
    const char *keys[1] = {key.bytes}, *parts[2] = {(const char *)header, (const char *)record};
    const size_t sizes[2] = {sizeof header, nh_record_bytes(record)};

    layout_header_encode(h, db->services->crc32c, header);
    layout_block_key(&key, of.shard_id, of.replica_id, index);
    rocksdb_writebatch_putv(batch, 1, keys, &key.size_bytes, 2, parts, sizes);
}

/* The packed block at `it`: a block for each entry, all with its hard state. One that cannot be read stays, for its readers to
 * complain. */
static int take_apart(struct nh_logdb *db, rocksdb_iterator_t *it, struct nh_replica_info of, uint64_t first,
                      struct layout_header *h, struct nh_error *err)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct block_value v = {0};
    size_t begin = 0, end = 0;
    uint32_t n = h->n;
    int r = block_open(db, it, first, h, &v, err);

    if (r == NH_OK)
        r = layout_block_slice(v.value, v.size_bytes, first, h, 0, n, SIZE_MAX, &begin, &end, &n, err);
    if (r == NH_OK) {
        const uint8_t *at = (const uint8_t *)v.value + begin;

        h->n = 1;
        h->packed = false;
        for (uint32_t i = 0; i < n; i++, at += nh_record_bytes(at))
            put_alone(db, batch, of, first + i, h, at);
        r = store_write_unlogged(db, batch, err);
    }
    block_value_deinit(&v);
    rocksdb_writebatch_destroy(batch);
    return r == NH_ECORRUPT ? NH_OK : r;
}

/* Calls that are repeated take the place of blocks that were put together from them and from others, which are lost: what tables
 * have of those must not go with the block (tail.h). */
static int take_all_apart(struct nh_logdb *db, struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    int r = NH_OK;

    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it) && r == NH_OK; rocksdb_iter_next(it)) {
        struct nh_error unread;
        struct nh_replica_info info;
        struct layout_header h;
        enum layout_kind kind;
        uint64_t first;
        size_t size;
        const char *key = rocksdb_iter_key(it, &size);

        if (!layout_key_parse(key, size, &info, &kind, &first) || kind != LAYOUT_BLOCK)
            continue;
        if (block_at(db, it, info.shard_id, info.replica_id, &first, &h, &unread) == 1 && h.packed && !h.located && h.n > 1)
            r = take_apart(db, it, info, first, &h, err);
    }
    rocksdb_iter_destroy(it);
    return r;
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
    int r = segment_read_record(c->segment, c->at, &c->record, rec->db->journal.crc, &rec->buffer, err);

    if (r == 0)
        r = nh_error_set(err, NH_ECORRUPT, "call %" PRIu64 " of the journal has changed", c->lsn);
    if (r < 0)
        return r;
    batch = rocksdb_writebatch_create_from((const char *)rec->buffer.data + SEGMENT_RECORD_BYTES + c->record.payload_bytes,
                                           c->record.batch_bytes);
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
    for (size_t i = 0; i < j->n_segments && r == NH_OK; i++)
        if (j->segments[i]->last_lsn >= rec->horizon)
            r = segment_sync(j->segments[i], err);
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
    if (r == NH_OK && rec->lsn_max != UINT64_MAX)
        r = take_all_apart(db, err);
    if (r == NH_OK)
        r = replay_all(rec, err);
    if (r == NH_OK && (rec->n_calls > 0 || rec->lsn_max != UINT64_MAX)) /* a loss is accepted once */
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

    segment_buffer_deinit(&rec.buffer);
    free(rec.calls);
    return r;
}
