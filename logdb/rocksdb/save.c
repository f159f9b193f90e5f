/* save_raft_state: all updates of a call become one write batch.
 *
 *     hold all replicas -> begin a record of the journal -> find what later updates of the call replace -> stage snapshots,
 *     truncations, blocks, states -> write (synced if any update asks for it) -> what is staged becomes `now` -> release
 *
 * The journal has all of the batch, but RocksDB gets blocks that only append only when they are some more (tail.h).
 *
 * A failed write fences the store, so `now` needs no repair: nothing is written any more, and readers use the database.
 */
#include "logdb/rocksdb/store.h"

#include <inttypes.h>
#include <stdlib.h>

#include "logdb/rocksdb/batch.h"
#include "raftio/support/block.h"
#include "raftio/support/memory.h"

/* A block is read from its beginning, so blocks are kept small; one record may be larger. */
#define BLOCK_BYTES_MAX ((size_t)256 * 1024)
/* Smaller ones cost more as a place and a read than as bytes that RocksDB writes again. */
#define LOCATED_BYTES_MIN ((size_t)512)
/* More than what is around key and value of an operation that puts. */
#define BATCH_PUT_BYTES 12u
/* With thousands of shards what a save touches has left the processor's cache since the last one, so it is asked for so many
 * replicas before its turn: first itself, then what it points to. */
#define LOOK_AHEAD_FAR 8u
#define LOOK_AHEAD     4u
/* A batch that grew beyond this gives its memory back. */
#define BATCH_BYTES_KEPT ((size_t)8 * 1024 * 1024)

/* A block being built: its records lie at the end of the journal's record. */
struct block_stage {
    struct nh_logdb *db;
    struct save_buffers *buf;
    struct replica *replica;
    uint64_t first;
    uint32_t n;
    size_t size_bytes;   /* of its records */
    size_t stored_bytes; /* as they lie there */
    bool packed;         /* small records: worth packing */
    bool waits;          /* is one block, which may wait in the tail */
    bool is_small;       /* and is never put into the journal alone */
};

/* A replica's first block in a segment tells that it uses it. */
static void stage_use(struct block_stage *s)
{
    struct replica *r = s->replica;
    struct use use = {.segment_id = s->buf->stream->segment->id, .from = s->first};

    if (r->new_use.segment_id || (!r->drops_uses && r->n_uses > 0 && r->uses[r->n_uses - 1].segment_id == use.segment_id))
        return;
    r->new_use = use;
    record_put_use(s->db, s->buf->batch, r->node.shard_id, r->node.replica_id, use);
}

static uint8_t *put_bytes(uint8_t *out, const void *bytes, size_t size)
{
    memcpy(out, bytes, size);
    return out + size;
}

static uint8_t *put_varint(uint8_t *out, size_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

/* The same operation as rocksdb_writebatch_putv would add, which allocates twice for it. `data` is what follows the head. */
static void put_waiting(struct block_stage *s, const struct layout_header *h, const struct layout_key *key, const uint8_t *head,
                        const uint8_t *data, size_t data_bytes)
{
    struct save_buffers *buf = s->buf;
    size_t value_bytes = LAYOUT_HEADER_BYTES + data_bytes;
    uint8_t *out;

    array_reserve((void **)&buf->waiting, &buf->cap_waiting, buf->waiting_bytes + BATCH_PUT_BYTES + key->size_bytes + value_bytes,
                  1);
    array_reserve((void **)&buf->parts, &buf->cap_parts, buf->n_parts + 1, sizeof *buf->parts);
    out = buf->waiting + buf->waiting_bytes;
    *out++ = BATCH_PUT;
    out = put_varint(out, key->size_bytes);
    out = put_bytes(out, key->bytes, key->size_bytes);
    out = put_varint(out, value_bytes);
    out = put_bytes(out, head, LAYOUT_HEADER_BYTES);
    buf->parts[buf->n_parts++] = (struct tail_part){
        .replica = s->replica, .header = *h, .first = s->first, .at = (size_t)(out - buf->waiting), .size_bytes = data_bytes};
    out = put_bytes(out, data, data_bytes);
    buf->waiting_bytes = (size_t)(out - buf->waiting);
}

/* Its last bytes in the journal are the block: the table gets where they lie. */
static void encode_location(struct block_stage *s, uint8_t out[LAYOUT_LOCATION_BYTES])
{
    struct layout_location at = journal_location(s->buf->stream, s->stored_bytes);

    at.n = s->n;
    layout_location_encode(&at, out);
    if (s->first + s->n - 1 > s->replica->located_last)
        s->replica->located_last = s->first + s->n - 1;
    stage_use(s);
}

/* A large block stays in the journal, and the table gets its place; a small one goes into the table. */
static void put_block(struct block_stage *s)
{
    struct journal_stream *stream = s->buf->stream;
    struct layout_header h = {.n = s->n,
                              .packed = s->packed,
                              .located = !s->is_small && s->stored_bytes >= LOCATED_BYTES_MIN,
                              .number = s->replica->next.number,
                              .state = s->replica->next.state};
    uint8_t head[LAYOUT_HEADER_BYTES], location[LAYOUT_LOCATION_BYTES];
    struct layout_key key;
    const char *keys[1] = {key.bytes}, *parts[2] = {(const char *)head, (const char *)location};
    size_t sizes[2] = {sizeof head, sizeof location};

    if (s->n == 0)
        return;
    layout_header_encode(&h, s->db->services->crc32c, head);
    layout_block_key(&key, s->replica->node.shard_id, s->replica->node.replica_id, s->first);
    if (h.located) {
        encode_location(s, location);
    } else {
        journal_give_back(stream, s->stored_bytes);
        parts[1] = (const char *)journal_room(stream, s->stored_bytes);
        sizes[1] = s->stored_bytes;
    }
    if (s->waits)
        put_waiting(s, &h, &key, head, (const uint8_t *)parts[1], sizes[1]);
    else
        rocksdb_writebatch_putv(s->buf->batch, 1, keys, &key.size_bytes, 2, parts, sizes);
    s->first += s->n;
    s->n = 0;
    s->size_bytes = s->stored_bytes = 0;
}

/* The largest `to` for which records [from, to) of the block fit into `room` bytes. */
static uint32_t fit(const struct nh_block *b, uint32_t from, uint32_t to, size_t room)
{
    uint32_t low = from;

    if (b->offsets[to] - b->offsets[from] <= room)
        return to;
    while (to - low > 1) {
        uint32_t mid = low + (to - low) / 2;

        if (b->offsets[mid] - b->offsets[from] <= room)
            low = mid;
        else
            to = mid;
    }
    return low;
}

/* By their average. */
static bool is_worth_packing(const struct nh_block *b, uint32_t from, uint32_t to)
{
    return b->offsets[to] - b->offsets[from] <= (size_t)(to - from) * (NH_RECORD_HEADER_BYTES + PACK_PAYLOAD_MAX);
}

/* Records [from, to), which fit into the block. */
static void add_part(struct block_stage *s, const struct nh_block *b, uint32_t from, uint32_t to)
{
    size_t size = b->offsets[to] - b->offsets[from], stored = size;
    const uint8_t *records = b->data + b->offsets[from];
    uint8_t *out = journal_room(s->buf->stream, pack_room(size));

    if (s->packed)
        stored = pack_records(records, size, out);
    else
        memcpy(out, records, size);
    journal_take(s->buf->stream, stored);
    s->size_bytes += size;
    s->stored_bytes += stored;
}

static void add_records(struct block_stage *s, const struct nh_block *b, uint32_t from, uint32_t to)
{
    while (from < to) {
        uint32_t until = fit(b, from, to, BLOCK_BYTES_MAX - s->size_bytes);
        if (until == from && s->n > 0) {
            put_block(s);
            continue;
        }
        if (until == from)
            until = from + 1; /* larger than a block may be: a block of its own */
        if (s->n == 0)
            s->packed = s->is_small || is_worth_packing(b, from, until);
        add_part(s, b, from, until);
        s->n += until - from;
        from = until;
        if (s->size_bytes >= BLOCK_BYTES_MAX)
            put_block(s);
    }
}

/* Entries behind all others, and nothing else is saved of the replica in this call. */
static bool is_plain_append(const struct replica *r, const struct nh_update *u, uint64_t old_last)
{
    return r->n_updates == 1 && !u->snapshot && update_first(u) == old_last + 1;
}

/* Deletes every record from `from` on, key by key: a range tombstone would lie over all that the replica writes later.
 * Blocks of this batch are not concerned: none holds an entry >= from (`clip`). */
static int truncate_from(struct nh_logdb *db, rocksdb_writebatch_t *batch, struct replica *r, uint64_t from, struct nh_error *err)
{
    rocksdb_iterator_t *it;
    int status;

    if (from >= r->cut || from > r->now.bounds.last)
        return NH_OK; /* deleted by an earlier update of this call, or not in the database at all */
    status = store_settle_split(db, r, err);
    if (status < 0)
        return status;
    it = rocksdb_create_iterator(db->db, db->read);
    status = block_clip(db, it, batch, r, from, err);
    while (status == NH_OK) {
        struct layout_header h;
        uint64_t first;
        const char *key;
        size_t size;
        int found = block_at(db, it, r->node.shard_id, r->node.replica_id, &first, &h, err);

        if (found <= 0) {
            status = found;
            break;
        }
        key = rocksdb_iter_key(it, &size);
        rocksdb_writebatch_delete(batch, key, size);
        status = block_delete_inner(it, batch, r, first, &h, err);
        rocksdb_iter_next(it);
    }
    rocksdb_iter_destroy(it);
    r->cut = from;
    return status;
}

static int stage_entries(struct nh_logdb *db, struct save_buffers *buf, struct replica *r, const struct nh_update *u,
                         uint64_t clip, struct nh_error *err)
{
    struct block_stage s = {.db = db, .buf = buf, .replica = r, .first = update_first(u)};
    uint64_t old_last = r->next.bounds.last;
    int status = bounds_save(&r->next.bounds, u, err);

    if (status < 0)
        return status;
    if (is_plain_append(r, u, old_last)) {
        size_t bytes = runs_bytes(u->runs, u->n_runs);

        s.waits = bytes <= TAIL_LOCATED_MAX;
        s.is_small = bytes <= TAIL_RECORDS_MAX;
    }
    if (!s.waits)
        status = tail_write(db, r, err);
    if (status < 0)
        return status;
    if (s.first <= old_last && s.first < clip) {
        status = truncate_from(db, buf->batch, r, s.first, err);
        if (status < 0)
            return status;
    }
    for (uint32_t i = 0; i < u->n_runs; i++) {
        const struct nh_run *run = &u->runs[i];
        uint32_t to = run->to;

        if (nh_run_first(run) >= clip)
            break;
        if (nh_run_last(run) >= clip)
            to = run->from + (uint32_t)(clip - nh_run_first(run));
        add_records(&s, run->block, run->from, to);
    }
    put_block(&s);
    r->next.exists = true;
    return NH_OK;
}

/* The term of entry `index` as the log stands before updates[i], or 0. */
static int term_at(struct nh_logdb *db, const struct replica *r, const struct nh_update *updates, size_t i, uint64_t index,
                   uint64_t *ret_term, struct nh_error *err)
{
    struct block_value v = {0};
    struct layout_header h;
    rocksdb_iterator_t *it;
    size_t begin, end;
    uint64_t first;
    uint32_t upto;
    int status;

    *ret_term = 0;
    if (index < r->next.bounds.first || index > r->next.bounds.last || updates_find_term(updates, i, index, ret_term))
        return NH_OK;
    it = rocksdb_create_iterator(db->db, db->read);
    status = block_seek(db, it, r->node.shard_id, r->node.replica_id, index, &first, &h, err);
    if (status == NH_OK)
        status = block_open(db, it, first, &h, index, &v, err);
    if (status == NH_OK) {
        uint32_t at = (uint32_t)(index - v.first);

        status = layout_block_slice(v.value, v.size_bytes, v.first, &v.header, at, at + 1, SIZE_MAX, &begin, &end, &upto, err);
        if (status == NH_OK)
            *ret_term = nh_record_term((const uint8_t *)v.value + begin);
    }
    block_value_deinit(&v);
    rocksdb_iter_destroy(it);
    return status;
}

/* The log gives way to a snapshot: no block is left that could carry the hard state. */
static void replace_log(struct nh_logdb *db, rocksdb_writebatch_t *batch, struct replica *r, uint64_t index)
{
    uint64_t shard_id = r->node.shard_id, replica_id = r->node.replica_id;
    struct layout_key low, end;

    layout_range_begin(&low, shard_id, replica_id);
    layout_key(&end, shard_id, replica_id, LAYOUT_BOOTSTRAP);
    rocksdb_writebatch_delete_range(batch, low.bytes, low.size_bytes, end.bytes, end.size_bytes);
    for (size_t i = 0; i < r->n_uses; i++)
        record_delete_use(batch, shard_id, replica_id, r->uses[i].segment_id);
    if (r->new_use.segment_id) /* of an earlier update of this call: the deletion comes behind its put */
        record_delete_use(batch, shard_id, replica_id, r->new_use.segment_id);
    r->drops_uses = true;
    r->new_use = (struct use){0};
    record_put_start(db, batch, shard_id, replica_id, index + 1);
    if (r->next.number > 0)
        record_put_state(db, batch, shard_id, replica_id, &r->next.state, r->next.number);
    r->next.bounds = (struct log_bounds){.first = index + 1, .last = index};
    r->next.exists = true;
    r->cut = 0;
}

int stage_snapshot(struct nh_logdb *db, rocksdb_writebatch_t *batch, struct replica *r, const struct nh_update *updates, size_t i,
                   struct nh_error *err)
{
    const struct nh_snapshot *given = updates[i].snapshot;
    struct nh_snapshot stored;
    uint64_t term;
    int status = tail_write(db, r, err);

    if (status == NH_OK)
        status = store_get_snapshot(db, r->node.shard_id, r->node.replica_id, &stored, err);
    if (status < 0)
        return status;
    if (stored.index > r->snapshot_index)
        r->snapshot_index = stored.index;
    nh_snapshot_deinit(&stored);
    if (given->index < r->snapshot_index)
        return NH_OK;
    r->snapshot_index = given->index;
    status = term_at(db, r, updates, i, given->index, &term, err);
    if (status < 0)
        return status;
    record_put_snapshot(db, batch, r->node.shard_id, r->node.replica_id, given);
    if (bounds_replaced_by(&r->next.bounds, given->index, term, given->term))
        replace_log(db, batch, r, given->index);
    return NH_OK;
}

static int stage_update(struct nh_logdb *db, struct save_buffers *buf, const struct nh_update *updates, size_t i,
                        struct nh_error *err)
{
    const struct nh_update *u = &updates[i];
    struct replica *r = buf->replicas[i];
    int status = NH_OK;

    if (u->snapshot)
        status = stage_snapshot(db, buf->batch, r, updates, i, err);
    if (status == NH_OK && (u->has_state || update_has_entries(u)))
        r->next.number++;
    if (status == NH_OK && u->has_state) {
        r->next.state = u->state;
        r->next.exists = true;
    }
    if (status == NH_OK && update_has_entries(u))
        status = stage_entries(db, buf, r, u, buf->clips[i], err);
    if (status == NH_OK && u->has_state && (!update_has_entries(u) || update_first(u) >= buf->clips[i]))
        record_put_state(db, buf->batch, u->shard_id, u->replica_id, &r->next.state, r->next.number);
    return status < 0 ? nh_error_wrap(err, status, "shard %" PRIu64 " replica %" PRIu64, u->shard_id, u->replica_id) : NH_OK;
}

/* An update may name a replica more than once; entries that a later one replaces are not written at all. */
static void find_clips(struct save_buffers *buf, const struct nh_update *updates, size_t n)
{
    while (n-- > 0) {
        struct replica *r = buf->replicas[n];

        r->n_updates++;
        buf->clips[n] = r->clip;
        if (update_has_entries(&updates[n]) && update_first(&updates[n]) < r->clip)
            r->clip = update_first(&updates[n]);
    }
}

static void reserve(struct save_buffers *b, size_t n)
{
    size_t cap = b->cap;

    if (!b->batch)
        b->batch = rocksdb_writebatch_create();
    array_reserve((void **)&b->clips, &cap, n, sizeof *b->clips);
    array_reserve((void **)&b->replicas, &b->cap, n, sizeof(struct replica *));
}

static void clear_batch(struct save_buffers *b)
{
    size_t size;

    b->n_parts = b->waiting_bytes = 0;
    if (b->cap_waiting > BATCH_BYTES_KEPT) {
        free(b->waiting);
        b->waiting = NULL;
        b->cap_waiting = 0;
    }
    rocksdb_writebatch_data(b->batch, &size);
    if (size <= BATCH_BYTES_KEPT) {
        rocksdb_writebatch_clear(b->batch);
        return;
    }
    rocksdb_writebatch_destroy(b->batch);
    b->batch = NULL;
}

/* The batch with what waits, at the end of the journal's record. Returns its size. */
static size_t put_batch(struct save_buffers *buf)
{
    size_t size;
    const char *batch = rocksdb_writebatch_data(buf->batch, &size);
    uint32_t count = (uint32_t)(rocksdb_writebatch_count(buf->batch) + (int)buf->n_parts);
    uint8_t *out = journal_room(buf->stream, size + buf->waiting_bytes);

    memcpy(out, batch, size);
    memcpy(out + BATCH_COUNT_AT, &count, sizeof count);
    if (buf->waiting_bytes)
        memcpy(out + size, buf->waiting, buf->waiting_bytes);
    journal_take(buf->stream, size + buf->waiting_bytes);
    return size + buf->waiting_bytes;
}

static void prefetch_tails(const struct save_buffers *buf, size_t at)
{
    if (at + LOOK_AHEAD_FAR < buf->n_parts)
        prefetch(&buf->parts[at + LOOK_AHEAD_FAR].replica->tail, sizeof(struct tail));
    if (at + LOOK_AHEAD < buf->n_parts)
        tail_prefetch(&buf->parts[at + LOOK_AHEAD].replica->tail);
}

/* What the journal has, into RocksDB and the tails: no reader sees what it has not. */
static int write_staged(struct nh_logdb *db, struct save_buffers *buf, struct nh_error *err)
{
    struct journal_stream *s = buf->stream;
    int status = store_commit_end(db, s, err);

    if (status == NH_OK && rocksdb_writebatch_count(buf->batch) > 0)
        status = store_write_unlogged(db, buf->batch, err);
    for (size_t i = 0; i < buf->n_parts && status == NH_OK; i++) {
        prefetch_tails(buf, i);
        status = tail_add(db, &buf->parts[i], buf->waiting + buf->parts[i].at, s->pending, s->cut, err);
    }
    if (status == NH_OK)
        store_applied(db, s);
    return status;
}

/* A record for all of them, in a segment that none of them has left behind. */
static int begin_record(struct nh_logdb *db, struct save_buffers *buf, const struct nh_update *updates, size_t n,
                        struct nh_error *err)
{
    uint64_t id_min = 0;
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++) {
        const struct replica *r = buf->replicas[i];

        bytes += runs_bytes(updates[i].runs, updates[i].n_runs);
        if (r->n_uses > 0 && r->uses[r->n_uses - 1].segment_id > id_min)
            id_min = r->uses[r->n_uses - 1].segment_id;
    }
    return journal_begin(&db->journal, buf->stream, bytes, id_min, err);
}

static void prefetch_updates(const struct save_buffers *buf, const struct nh_update *updates, size_t n, size_t at)
{
    const struct nh_update *far = at + LOOK_AHEAD_FAR < n ? &updates[at + LOOK_AHEAD_FAR] : NULL;
    const struct nh_update *near = at + LOOK_AHEAD < n ? &updates[at + LOOK_AHEAD] : NULL;

    if (far && far->n_runs)
        run_prefetch_block(&far->runs[0]);
    if (near)
        prefetch(buf->replicas[at + LOOK_AHEAD], sizeof(struct replica));
    if (near && near->n_runs)
        run_prefetch_offsets(&near->runs[0]);
}

/* Only a hard state alone may go unsynced. RocksDB may flush what the journal then loses to a power cut, and calls from before
 * it are repeated over that: of a state the newest counts, but blocks would no longer tile the log. */
static int begin_held(struct nh_logdb *db, struct save_buffers *buf, const struct nh_update *updates, size_t n,
                      struct nh_error *err)
{
    bool sync = false;
    int status = begin_record(db, buf, updates, n, err);

    if (status < 0) {
        store_fence(db);
        return status;
    }
    find_clips(buf, updates, n);
    for (size_t i = 0; i < n && status == NH_OK; i++) {
        prefetch_updates(buf, updates, n, i);
        status = stage_update(db, buf, updates, i, err);
        sync |= updates[i].must_sync || update_has_entries(&updates[i]) || updates[i].snapshot;
    }
    return status < 0 ? status : store_commit_begin(db, buf->stream, put_batch(buf), sync, err);
}

static void release(struct nh_logdb *db, struct save_buffers *buf, size_t n)
{
    clear_batch(buf);
    replica_release_all(db, buf->replicas, n);
}

int store_begin_save(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id, struct nh_error *err)
{
    struct save_buffers *buf;
    int status = store_check_fence(db, err);

    if (status == NH_OK)
        status = updates_check(updates, n, err);
    if (status < 0)
        return status;
    if (worker_id == 0 || worker_id > db->n_workers)
        return nh_error_set(err, NH_EINVAL, "worker %u of %u", worker_id, db->n_workers);
    if (n == 0)
        return NH_OK;
    buf = &db->workers[worker_id - 1];
    if (buf->n > 0)
        return nh_error_set(err, NH_EINVAL, "worker %u has a save that was not ended", worker_id);
    reserve(buf, n);
    buf->stream = journal_stream_of(&db->journal, worker_id);
    buf->stream->lone = n == 1;
    status = replica_hold_all(db, updates, n, buf->replicas, err);
    if (status < 0)
        return status;
    status = begin_held(db, buf, updates, n, err);
    if (status < 0)
        release(db, buf, n);
    else
        buf->n = n;
    return status;
}

int store_end_save(struct nh_logdb *db, uint32_t worker_id, struct nh_error *err)
{
    struct save_buffers *buf;
    size_t n;
    int status;

    if (worker_id == 0 || worker_id > db->n_workers)
        return nh_error_set(err, NH_EINVAL, "worker %u of %u", worker_id, db->n_workers);
    buf = &db->workers[worker_id - 1];
    n = buf->n;
    if (n == 0)
        return NH_OK;
    status = write_staged(db, buf, err);
    for (size_t i = 0; i < n && status == NH_OK; i++) {
        replica_apply_uses(db, buf->replicas[i]);
        buf->replicas[i]->now = buf->replicas[i]->next;
    }
    buf->n = 0;
    release(db, buf, n);
    return status;
}

int store_save_raft_state(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id,
                          struct nh_error *err)
{
    int status = store_begin_save(db, updates, n, worker_id, err);

    return status < 0 ? status : store_end_save(db, worker_id, err);
}

void save_buffers_deinit(struct save_buffers *b)
{
    if (b->batch)
        rocksdb_writebatch_destroy(b->batch);
    free(b->waiting);
    free(b->parts);
    free(b->replicas);
    free(b->clips);
}
