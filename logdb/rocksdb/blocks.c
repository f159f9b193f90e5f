/* The blocks of a replica in the database: to find, open, split and clip them. Layout.h tells how they lie there. */
#include "logdb/rocksdb/store.h"

#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

int block_at(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, uint64_t *ret_first,
             struct layout_header *ret, struct nh_error *err)
{
    struct nh_replica_info info;
    enum layout_kind kind;
    const char *key, *value;
    size_t key_size, size;
    int r;

    if (!rocksdb_iter_valid(it))
        return store_iterator_error(it, err);
    key = rocksdb_iter_key(it, &key_size);
    if (!layout_key_parse(key, key_size, &info, &kind, ret_first) || kind != LAYOUT_BLOCK || info.shard_id != shard_id ||
        info.replica_id != replica_id)
        return 0;
    value = rocksdb_iter_value(it, &size);
    r = layout_header_decode(value, size, db->services->crc32c, ret, err);
    if (r == NH_OK && ret->n == 0)
        r = nh_error_set(err, NH_ECORRUPT, "no entries in it");
    return r < 0 ? nh_error_wrap(err, r, "block of entry %" PRIu64, *ret_first) : 1;
}

int block_seek(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t shard_id, uint64_t replica_id, uint64_t index,
               uint64_t *ret_first, struct layout_header *ret, struct nh_error *err)
{
    struct layout_key key;
    int r;

    layout_block_key(&key, shard_id, replica_id, index);
    rocksdb_iter_seek_for_prev(it, key.bytes, key.size_bytes);
    r = block_at(db, it, shard_id, replica_id, ret_first, ret, err);
    if (r < 0)
        return r;
    if (r > 0 && index < *ret_first + ret->n)
        return NH_OK;
    rocksdb_iter_seek(it, key.bytes, key.size_bytes);
    r = block_at(db, it, shard_id, replica_id, ret_first, ret, err);
    if (r > 0)
        return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " is missing before %" PRIu64, index, *ret_first);
    return r < 0 ? r : nh_error_set(err, NH_ENOTFOUND, "entry %" PRIu64 " is above the last one", index);
}

/* Reads header and records of what lies there into `ret`. */
static int fetch(struct nh_logdb *db, const char *value, const struct layout_location *at, struct unpacked *ret,
                 struct nh_error *err)
{
    array_reserve((void **)&ret->data, &ret->cap, LAYOUT_HEADER_BYTES + at->size_bytes, 1);
    memcpy(ret->data, value, LAYOUT_HEADER_BYTES);
    ret->size_bytes = LAYOUT_HEADER_BYTES + at->size_bytes;
    return journal_read(&db->journal, at, ret->data + LAYOUT_HEADER_BYTES, err);
}

/* From the journal, as it lies there. */
static int open_located(struct nh_logdb *db, uint64_t index, struct block_value *v, struct nh_error *err)
{
    struct layout_location at;
    uint32_t before;
    int r = layout_location_find(v->value, v->size_bytes, &v->header, (uint32_t)(index - v->first), &at, &before, err);

    if (r == NH_OK)
        r = fetch(db, v->value, &at, &v->stored, err);
    if (r < 0)
        return r;
    v->value = (const char *)v->stored.data;
    v->size_bytes = v->stored.size_bytes;
    v->first += before;
    v->header.n = at.n;
    v->header.joined = false;
    return NH_OK;
}

static int unpack(struct block_value *v, struct nh_error *err)
{
    struct unpacked *u = &v->unpacked;
    int r;

    array_reserve((void **)&u->data, &u->cap, LAYOUT_HEADER_BYTES, 1);
    memcpy(u->data, v->value, LAYOUT_HEADER_BYTES);
    u->size_bytes = LAYOUT_HEADER_BYTES;
    r = unpack_records((const uint8_t *)v->value + LAYOUT_HEADER_BYTES, v->size_bytes - LAYOUT_HEADER_BYTES, v->first, u, err);
    v->value = (const char *)u->data;
    v->size_bytes = u->size_bytes;
    return r;
}

int block_open(struct nh_logdb *db, rocksdb_iterator_t *it, uint64_t first, const struct layout_header *h, uint64_t index,
               struct block_value *ret, struct nh_error *err)
{
    int r = NH_OK;

    ret->value = rocksdb_iter_value(it, &ret->size_bytes);
    ret->first = first;
    ret->header = *h;
    if (h->located)
        r = open_located(db, index, ret, err);
    if (r == NH_OK && h->packed)
        r = unpack(ret, err);
    return r;
}

void block_value_deinit(struct block_value *v)
{
    free(v->stored.data);
    free(v->unpacked.data);
}

/* A block of its own of what lies there, with its records if it is in that segment. `value` begins with any header. */
static int put_part(struct nh_logdb *db, rocksdb_writebatch_t *batch, const struct layout_key *key, const char *value,
                    struct layout_header h, const struct layout_location *at, uint64_t segment_id, struct nh_error *err)
{
    struct unpacked part = {0};
    int r = NH_OK;

    h.n = at->n;
    h.joined = false;
    h.located = at->segment_id != segment_id;
    if (h.located) {
        array_reserve((void **)&part.data, &part.cap, LAYOUT_HEADER_BYTES + LAYOUT_LOCATION_BYTES, 1);
        part.size_bytes = LAYOUT_HEADER_BYTES + LAYOUT_LOCATION_BYTES;
        layout_location_encode(at, part.data + LAYOUT_HEADER_BYTES);
    } else {
        r = fetch(db, value, at, &part, err);
    }
    if (r == NH_OK) {
        layout_header_encode(&h, db->services->crc32c, part.data);
        rocksdb_writebatch_put(batch, key->bytes, key->size_bytes, (const char *)part.data, part.size_bytes);
    }
    free(part.data);
    return r;
}

int block_split(struct nh_logdb *db, rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, const struct replica *r, uint64_t first,
                const struct layout_header *h, uint64_t end, uint64_t segment_id, struct nh_error *err)
{
    struct layout_location at;
    struct layout_key key;
    size_t size;
    const char *value = rocksdb_iter_value(it, &size);
    uint32_t before;

    for (uint32_t i = 0; first + i < end; i = before + at.n) {
        int status = layout_location_find(value, size, h, i, &at, &before, err);

        layout_block_key(&key, r->node.shard_id, r->node.replica_id, first + i);
        if (status == NH_OK)
            status = put_part(db, batch, &key, value, *h, &at, segment_id, err);
        if (status < 0)
            return status;
    }
    return NH_OK;
}

static void delete_block(rocksdb_writebatch_t *batch, const struct replica *r, uint64_t first)
{
    struct layout_key key;

    layout_block_key(&key, r->node.shard_id, r->node.replica_id, first);
    rocksdb_writebatch_delete(batch, key.bytes, key.size_bytes);
}

int block_delete_inner(rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, const struct replica *r, uint64_t first,
                       const struct layout_header *h, struct nh_error *err)
{
    struct layout_location at;
    const char *value;
    size_t size;
    uint32_t before;

    if (!h->located && h->packed)
        for (uint32_t i = 1; i < h->n; i++)
            delete_block(batch, r, first + i);
    if (!h->joined)
        return NH_OK;
    value = rocksdb_iter_value(it, &size);
    for (uint32_t i = 0; i < h->n; i = before + at.n) {
        int status = layout_location_find(value, size, h, i, &at, &before, err);

        if (status < 0)
            return status;
        if (i > 0)
            delete_block(batch, r, first + i);
    }
    return NH_OK;
}

/* Puts what was opened again without its records from `upto` on, which `end` is before. */
static void put_clipped(struct nh_logdb *db, rocksdb_writebatch_t *batch, const struct replica *r, const struct block_value *v,
                        uint32_t upto, size_t end)
{
    struct layout_header h = v->header;
    uint8_t header[LAYOUT_HEADER_BYTES];
    struct layout_key key;
    const char *keys[1] = {key.bytes};
    const char *parts[2] = {(const char *)header, v->value + LAYOUT_HEADER_BYTES};
    const size_t sizes[2] = {sizeof header, end - LAYOUT_HEADER_BYTES};

    h.n = upto;
    h.packed = h.located = false;
    layout_block_key(&key, r->node.shard_id, r->node.replica_id, v->first);
    layout_header_encode(&h, db->services->crc32c, header);
    rocksdb_writebatch_putv(batch, 1, keys, &key.size_bytes, 2, parts, sizes);
}

/* With the batch the journal has places in these segments. It is repeated if they were moved out of later and tables have that,
 * but no horizon behind it: the segments must be in use again then. */
static void put_uses(struct nh_logdb *db, rocksdb_writebatch_t *batch, const struct replica *r)
{
    for (size_t i = 0; i < r->n_uses; i++)
        record_put_use(db, batch, r->node.shard_id, r->node.replica_id, r->uses[i]);
}

int block_clip(struct nh_logdb *db, rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, const struct replica *r, uint64_t from,
               struct nh_error *err)
{
    struct block_value v = {0};
    struct layout_header h;
    uint64_t first;
    uint32_t upto = 0;
    size_t begin, end = 0;
    int status = block_seek(db, it, r->node.shard_id, r->node.replica_id, from, &first, &h, err);

    if (status < 0 || first == from)
        return status;
    status = block_open(db, it, first, &h, from, &v, err);
    if (status == NH_OK)
        status = block_delete_inner(it, batch, r, first, &h, err);
    if (status == NH_OK && v.first > first) {
        status = block_split(db, it, batch, r, first, &h, v.first, 0, err);
        put_uses(db, batch, r);
    }
    if (status == NH_OK && v.first < from) {
        status = layout_block_slice(v.value, v.size_bytes, v.first, &v.header, 0, (uint32_t)(from - v.first), SIZE_MAX, &begin,
                                    &end, &upto, err);
        if (status == NH_OK)
            put_clipped(db, batch, r, &v, upto, end);
    }
    if (status == NH_OK)
        rocksdb_iter_next(it);
    block_value_deinit(&v);
    return status;
}
