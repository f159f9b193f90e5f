#include "logdb/rocksdb/store.h"

#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

/* Errors of the iterator itself: a damaged table block, a failed read. */
int store_iterator_error(rocksdb_iterator_t *it, struct nh_error *err)
{
    char *message = NULL;

    rocksdb_iter_get_error(it, &message);
    return message ? store_error(message, "read", err) : NH_OK;
}

/* Whether it stands at exactly `key`: 1 if it does, 0 if not. */
static int is_at(rocksdb_iterator_t *it, const struct layout_key *key, const char **ret_value, size_t *ret_size,
                 struct nh_error *err)
{
    const char *found;
    size_t size;

    if (!rocksdb_iter_valid(it))
        return store_iterator_error(it, err);
    found = rocksdb_iter_key(it, &size);
    if (size != key->size_bytes || memcmp(found, key->bytes, size) != 0)
        return 0;
    *ret_value = rocksdb_iter_value(it, ret_size);
    return 1;
}

/* Moves to exactly `key`. Returns 1 if it is there, 0 if not. */
static int seek_exact(rocksdb_iterator_t *it, const struct layout_key *key, const char **ret_value, size_t *ret_size,
                      struct nh_error *err)
{
    rocksdb_iter_seek(it, key->bytes, key->size_bytes);
    return is_at(it, key, ret_value, ret_size, err);
}

static int read_state(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, struct stored *ret,
                      struct nh_error *err)
{
    struct layout_header h;
    struct layout_key key;
    const char *value = NULL;
    size_t size = 0;
    int r;

    layout_key(&key, shard_id, replica_id, LAYOUT_STATE);
    r = seek_exact(it, &key, &value, &size, err);
    if (r <= 0)
        return r;
    r = layout_header_decode(value, size, db->services->crc32c, &h, err);
    if (r == NH_OK && size != LAYOUT_HEADER_BYTES)
        r = nh_error_set(err, NH_ECORRUPT, "value of %zu bytes is too long", size);
    if (r < 0)
        return nh_error_wrap(err, r, "hard state");
    ret->exists = true;
    ret->state = h.state;
    ret->number = h.number;
    return NH_OK;
}

/* Behind read_state: the iterator stands at the state, or at the first key behind where it would be; the start comes next. To
 * move there by its key would look into each table again. */
static int read_start(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, struct stored *ret,
                      struct nh_error *err)
{
    struct layout_key key;
    const char *value = NULL;
    size_t size = 0;
    int r;

    ret->bounds.first = 1;
    if (ret->exists)
        rocksdb_iter_next(it);
    layout_key(&key, shard_id, replica_id, LAYOUT_START);
    r = is_at(it, &key, &value, &size, err);
    if (r <= 0)
        return r;
    r = layout_envelope_check(value, size, db->services->crc32c, err);
    if (r == NH_OK && size != LAYOUT_ENVELOPE_BYTES + sizeof(uint64_t))
        r = nh_error_set(err, NH_ECORRUPT, "value of %zu bytes", size);
    if (r < 0)
        return nh_error_wrap(err, r, "start of the log");
    ret->exists = true;
    ret->bounds.first = nh_load_u64((const uint8_t *)value + LAYOUT_ENVELOPE_BYTES);
    return NH_OK;
}

static int read_last_block(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id,
                           struct stored *ret, struct nh_error *err)
{
    struct layout_header h;
    struct layout_key key;
    uint64_t first;
    int r;

    ret->bounds.last = ret->bounds.first - 1;
    layout_block_key(&key, shard_id, replica_id, UINT64_MAX);
    rocksdb_iter_seek_for_prev(it, key.bytes, key.size_bytes);
    r = block_at(db, it, shard_id, replica_id, &first, &h, err);
    if (r <= 0)
        return r;
    ret->exists = true;
    if (first + h.n - 1 > ret->bounds.last)
        ret->bounds.last = first + h.n - 1;
    if (h.number > ret->number) {
        ret->number = h.number;
        ret->state = h.state;
    }
    return NH_OK;
}

int stored_read(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, struct stored *ret,
                struct nh_error *err)
{
    struct stored s = {0};
    int r = read_state(db, it, shard_id, replica_id, &s, err);

    if (r == NH_OK)
        r = read_start(db, it, shard_id, replica_id, &s, err);
    if (r == NH_OK)
        r = read_last_block(db, it, shard_id, replica_id, &s, err);
    if (r == NH_OK)
        *ret = s;
    return r;
}

/* What an iteration has still to give. */
struct wanted {
    uint64_t shard_id, replica_id;
    uint64_t low, high;
    size_t left_bytes;
    const struct nh_entry_sink *sink;
};

/* Gives the records of the block at `it`, or of a part of it, to the sink. Returns 1 when enough was given. */
static int give_part(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t first, const struct layout_header *h,
                     struct block_value *v, struct wanted *w, struct nh_error *err)
{
    int r = block_open(db, it, first, h, w->low, v, err);
    uint32_t from, to;
    size_t begin, end;

    if (r < 0)
        return r;
    from = (uint32_t)(w->low - v->first);
    to = w->high - v->first < v->header.n ? (uint32_t)(w->high - v->first) : v->header.n;
    r = layout_block_slice(v->value, v->size_bytes, v->first, &v->header, from, to, w->left_bytes, &begin, &end, &to, err);
    if (r == NH_OK)
        r = w->sink->add(w->sink->ctx, (const uint8_t *)v->value + begin, end - begin, err);
    if (r < 0)
        return r;
    w->low = v->first + to;
    if (w->low >= w->high || end - begin > w->left_bytes)
        return 1;
    w->left_bytes -= end - begin;
    return 0;
}

static int give_block(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t first, const struct layout_header *h,
                      struct block_value *v, struct wanted *w, struct nh_error *err)
{
    int r = 0;

    while (r == 0 && w->low < first + h->n)
        r = give_part(db, it, first, h, v, w, err);
    return r;
}

static int iterate(struct nh_logdb *db, rocksdb_iterator_t *it, struct block_value *v, struct wanted *w, struct nh_error *err)
{
    struct layout_header h;
    uint64_t first;
    int r = record_get_start(db, w->shard_id, w->replica_id, &first, err); /* not below what the iterator sees */

    if (r < 0)
        return r;
    if (w->low < first)
        return nh_error_set(err, NH_ECOMPACTED, "entry %" PRIu64 " is removed, the first is %" PRIu64, w->low, first);
    r = block_seek(db, it, w->shard_id, w->replica_id, w->low, &first, &h, err);
    if (r < 0)
        return r;
    for (;;) {
        r = give_block(db, it, first, &h, v, w, err);
        if (r != 0)
            return r < 0 ? r : NH_OK;
        rocksdb_iter_next(it);
        r = block_at(db, it, w->shard_id, w->replica_id, &first, &h, err);
        if (r <= 0)
            return r;
        if (first != w->low)
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " is missing before %" PRIu64, w->low, first);
    }
}

int store_iterate_entries(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                          size_t max_bytes, const struct nh_entry_sink *sink, struct nh_error *err)
{
    struct wanted w = {shard_id, replica_id, low, high, max_bytes, sink};
    struct block_value v = {0};
    struct journal_view view;
    rocksdb_iterator_t *it;
    int r;

    if (low >= high)
        return NH_OK;
    r = tail_write_of(db, shard_id, replica_id, err);
    if (r < 0)
        return r;
    journal_view_begin(&db->journal, &view);
    it = rocksdb_create_iterator(db->db, db->read);
    r = iterate(db, it, &v, &w, err);
    rocksdb_iter_destroy(it);
    journal_view_end(&db->journal, &view);
    block_value_deinit(&v);
    return r < 0 ? nh_error_wrap(err, r, "shard %" PRIu64 " replica %" PRIu64, shard_id, replica_id) : NH_OK;
}

int store_read_raft_state(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_raft_state *ret,
                          struct nh_error *err)
{
    struct stored s = {0};
    int r = tail_write_of(db, shard_id, replica_id, err);

    if (r == NH_OK) {
        rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);

        r = stored_read(db, it, shard_id, replica_id, &s, err);
        rocksdb_iter_destroy(it);
    }
    if (r == NH_OK && !s.exists)
        r = nh_error_set(err, NH_ENOTFOUND, "nothing is saved");
    if (r < 0)
        return nh_error_wrap(err, r, "shard %" PRIu64 " replica %" PRIu64, shard_id, replica_id);
    *ret = (struct nh_raft_state){.state = s.state, .first_index = s.bounds.first, .last_index = s.bounds.last};
    return NH_OK;
}

/* From one replica's keys to the next one's; in each to the place of its bootstrap record. */
static int list(rocksdb_iterator_t *it, int (*each)(void *ctx, struct nh_replica_info info), void *ctx, struct nh_error *err)
{
    rocksdb_iter_seek_to_first(it);
    while (rocksdb_iter_valid(it)) {
        struct nh_replica_info info;
        enum layout_kind kind;
        struct layout_key key;
        const char *value;
        uint64_t index;
        size_t size;
        const char *found = rocksdb_iter_key(it, &size);
        int r;

        if (!layout_key_parse(found, size, &info, &kind, &index))
            return nh_error_set(err, NH_ECORRUPT, "a key of %zu bytes is not one of a log store", size);
        layout_key(&key, info.shard_id, info.replica_id, LAYOUT_BOOTSTRAP);
        r = seek_exact(it, &key, &value, &size, err);
        if (r > 0)
            r = each(ctx, info);
        if (r != 0)
            return r;
        layout_key(&key, info.shard_id, info.replica_id, LAYOUT_END);
        rocksdb_iter_seek(it, key.bytes, key.size_bytes);
    }
    return store_iterator_error(it, err);
}

int store_list_replicas(struct nh_logdb *db, int (*each)(void *ctx, struct nh_replica_info info), void *ctx, struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    int r = list(it, each, ctx, err);

    rocksdb_iter_destroy(it);
    return r;
}

/* ---- the journal's keys ---- */

static int read_numbers(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t *ret, size_t n, struct nh_error *err)
{
    size_t size;
    const char *value = rocksdb_iter_value(it, &size);
    int r = layout_envelope_check(value, size, db->services->crc32c, err);

    if (r == NH_OK && size != LAYOUT_ENVELOPE_BYTES + n * sizeof *ret)
        r = nh_error_set(err, NH_ECORRUPT, "value of %zu bytes", size);
    for (size_t i = 0; r == NH_OK && i < n; i++)
        ret[i] = nh_load_u64((const uint8_t *)value + LAYOUT_ENVELOPE_BYTES + i * sizeof *ret);
    return r;
}

/* The use at `it`. Returns 1, or 0 if there is none of that replica. */
static int use_at(struct nh_logdb *db, rocksdb_iterator_t *it, struct nh_replica_info of, struct use *ret, struct nh_error *err)
{
    struct nh_replica_info info;
    enum layout_kind kind;
    const char *key;
    size_t size;
    int r;

    if (!rocksdb_iter_valid(it))
        return store_iterator_error(it, err);
    key = rocksdb_iter_key(it, &size);
    if (!layout_key_parse(key, size, &info, &kind, &ret->segment_id) || kind != LAYOUT_USE || info.shard_id != of.shard_id ||
        info.replica_id != of.replica_id)
        return 0;
    r = read_numbers(db, it, &ret->from, 1, err);
    return r < 0 ? nh_error_wrap(err, r, "use of segment %" PRIu64, ret->segment_id) : 1;
}

int replica_read_uses(struct nh_logdb *db, rocksdb_iterator_t *it, struct nh_replica_info of,
                      int (*each)(void *ctx, struct nh_replica_info info, struct use use), void *ctx, struct nh_error *err)
{
    struct layout_key key;
    struct use use;
    int r;

    layout_use_key(&key, of.shard_id, of.replica_id, 0);
    rocksdb_iter_seek(it, key.bytes, key.size_bytes);
    while ((r = use_at(db, it, of, &use, err)) > 0) {
        r = each(ctx, of, use);
        if (r != 0)
            return r;
        rocksdb_iter_next(it);
    }
    return r;
}

/* Uses are the last keys of a replica, but for those of no replica: the iterator stands at the next one's already. */
static void go_to_next_replica(rocksdb_iterator_t *it, struct nh_replica_info last)
{
    struct nh_replica_info info;
    enum layout_kind kind;
    struct layout_key key;
    uint64_t number;
    size_t size;
    const char *found = rocksdb_iter_valid(it) ? rocksdb_iter_key(it, &size) : NULL;

    if (!found || !layout_key_parse(found, size, &info, &kind, &number) || info.shard_id != last.shard_id ||
        info.replica_id != last.replica_id)
        return;
    layout_key(&key, last.shard_id, last.replica_id, LAYOUT_END);
    rocksdb_iter_seek(it, key.bytes, key.size_bytes);
}

static int list_uses(struct nh_logdb *db, rocksdb_iterator_t *it,
                     int (*each)(void *ctx, struct nh_replica_info info, struct use use), void *ctx, struct nh_error *err)
{
    rocksdb_iter_seek_to_first(it);
    while (rocksdb_iter_valid(it)) {
        struct nh_replica_info info;
        enum layout_kind kind;
        uint64_t number;
        size_t size;
        const char *found = rocksdb_iter_key(it, &size);
        int r;

        if (!layout_key_parse(found, size, &info, &kind, &number)) { /* list_replicas tells */
            rocksdb_iter_next(it);
            continue;
        }
        r = replica_read_uses(db, it, info, each, ctx, err);
        if (r != 0)
            return r;
        go_to_next_replica(it, info);
    }
    return store_iterator_error(it, err);
}

int store_list_uses(struct nh_logdb *db, int (*each)(void *ctx, struct nh_replica_info info, struct use use), void *ctx,
                    struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    int r = list_uses(db, it, each, ctx, err);

    rocksdb_iter_destroy(it);
    return r;
}

int store_read_horizon(struct nh_logdb *db, uint64_t *ret_horizon, uint64_t *ret_floor, struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(db->db, db->read);
    uint64_t numbers[2] = {0, 0};
    struct layout_key key;
    const char *value;
    size_t size;
    int r;

    layout_key(&key, 0, 0, LAYOUT_HORIZON);
    r = seek_exact(it, &key, &value, &size, err);
    if (r > 0)
        r = read_numbers(db, it, numbers, 2, err);
    rocksdb_iter_destroy(it);
    *ret_horizon = numbers[0];
    *ret_floor = numbers[1];
    return r < 0 ? nh_error_wrap(err, r, "horizon of the journal") : NH_OK;
}
