#include "logdb/rocksdb/layout.h"

#include <assert.h>
#include <endian.h>
#include <inttypes.h>

#define CRC_BYTES 4u

static void put_be64(char *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
}

static uint64_t get_be64(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static void put_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void put_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

void layout_range_begin(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id)
{
    put_be64(ret->bytes, shard_id);
    put_be64(ret->bytes + 8, replica_id);
    ret->size_bytes = LAYOUT_REPLICA_BYTES;
}

void layout_key(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id, enum layout_kind kind)
{
    layout_range_begin(ret, shard_id, replica_id);
    ret->bytes[LAYOUT_REPLICA_BYTES] = (char)kind;
    ret->size_bytes = LAYOUT_PREFIX_BYTES;
}

static void numbered_key(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id, enum layout_kind kind, uint64_t number)
{
    layout_key(ret, shard_id, replica_id, kind);
    put_be64(ret->bytes + LAYOUT_PREFIX_BYTES, number);
    ret->size_bytes = LAYOUT_KEY_BYTES;
}

void layout_block_key(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id, uint64_t index)
{
    numbered_key(ret, shard_id, replica_id, LAYOUT_BLOCK, index);
}

void layout_use_key(struct layout_key *ret, uint64_t shard_id, uint64_t replica_id, uint64_t segment_id)
{
    numbered_key(ret, shard_id, replica_id, LAYOUT_USE, segment_id);
}

bool layout_key_replica(const char *key, size_t size_bytes, struct nh_replica_info *ret)
{
    if (size_bytes < LAYOUT_REPLICA_BYTES)
        return false;
    *ret = (struct nh_replica_info){.shard_id = get_be64(key), .replica_id = get_be64(key + 8)};
    return true;
}

bool layout_key_ends_replica(const char *key, size_t size_bytes)
{
    return size_bytes == LAYOUT_PREFIX_BYTES && key[LAYOUT_REPLICA_BYTES] == LAYOUT_END;
}

static bool is_numbered(unsigned kind)
{
    return kind == LAYOUT_BLOCK || kind == LAYOUT_USE;
}

bool layout_key_parse(const char *key, size_t size_bytes, struct nh_replica_info *ret, enum layout_kind *ret_kind,
                      uint64_t *ret_index)
{
    unsigned kind;

    if (size_bytes < LAYOUT_PREFIX_BYTES)
        return false;
    kind = (unsigned char)key[LAYOUT_REPLICA_BYTES];
    if (kind < LAYOUT_BLOCK || kind >= LAYOUT_END)
        return false;
    if (size_bytes != (is_numbered(kind) ? LAYOUT_KEY_BYTES : LAYOUT_PREFIX_BYTES))
        return false;
    layout_key_replica(key, size_bytes, ret);
    *ret_kind = (enum layout_kind)kind;
    *ret_index = is_numbered(kind) ? get_be64(key + LAYOUT_PREFIX_BYTES) : 0;
    return true;
}

bool layout_key_is(const char *key, size_t size_bytes, uint64_t shard_id, uint64_t replica_id, enum layout_kind kind)
{
    struct nh_replica_info info;
    enum layout_kind found;
    uint64_t index;

    return layout_key_parse(key, size_bytes, &info, &found, &index) && info.shard_id == shard_id &&
           info.replica_id == replica_id && found == kind;
}

void layout_header_encode(const struct layout_header *h, layout_crc_fn crc, uint8_t out[LAYOUT_HEADER_BYTES])
{
    uint32_t format = h->joined ? LAYOUT_FORMAT_JOINED : h->located ? LAYOUT_FORMAT_LOCATED : LAYOUT_FORMAT;

    put_u32(out + 4, format + h->packed);
    put_u32(out + 8, h->n);
    put_u32(out + 12, 0);
    put_u64(out + 16, h->number);
    put_u64(out + 24, h->state.term);
    put_u64(out + 32, h->state.vote);
    put_u64(out + 40, h->state.commit);
    put_u32(out, crc(0, out + CRC_BYTES, LAYOUT_HEADER_BYTES - CRC_BYTES));
}

static int check_value(const uint8_t *p, size_t size_bytes, size_t covered_bytes, uint32_t format_max, layout_crc_fn crc,
                       struct nh_error *err)
{
    if (size_bytes < covered_bytes)
        return nh_error_set(err, NH_ECORRUPT, "value of %zu bytes is too short", size_bytes);
    if (nh_load_u32(p) != crc(0, p + CRC_BYTES, covered_bytes - CRC_BYTES))
        return nh_error_set(err, NH_ECORRUPT, "value has a wrong checksum");
    if (nh_load_u32(p + 4) < LAYOUT_FORMAT || nh_load_u32(p + 4) > format_max)
        return nh_error_set(err, NH_ECORRUPT, "value has format %u, this version knows up to %u", nh_load_u32(p + 4), format_max);
    return NH_OK;
}

int layout_header_decode(const char *data, size_t size_bytes, layout_crc_fn crc, struct layout_header *ret, struct nh_error *err)
{
    const uint8_t *p = (const uint8_t *)data;
    int r = check_value(p, size_bytes, LAYOUT_HEADER_BYTES, LAYOUT_FORMAT_JOINED + 1, crc, err);
    uint32_t format;

    if (r < 0)
        return r;
    format = nh_load_u32(p + 4);
    *ret = (struct layout_header){
        .n = nh_load_u32(p + 8),
        .packed = format % 2 == 0,
        .located = format >= LAYOUT_FORMAT_LOCATED,
        .joined = format >= LAYOUT_FORMAT_JOINED,
        .number = nh_load_u64(p + 16),
        .state = {.term = nh_load_u64(p + 24), .vote = nh_load_u64(p + 32), .commit = nh_load_u64(p + 40)},
    };
    return NH_OK;
}

void layout_location_encode(const struct layout_location *l, uint8_t out[LAYOUT_LOCATION_BYTES])
{
    put_u64(out, l->segment_id);
    put_u64(out + 8, l->offset);
    put_u32(out + 16, l->size_bytes);
    put_u32(out + 20, l->n);
}

static int location_decode(const uint8_t *p, struct layout_location *ret, struct nh_error *err)
{
    *ret = (struct layout_location){.segment_id = nh_load_u64(p),
                                    .offset = nh_load_u64(p + 8),
                                    .size_bytes = nh_load_u32(p + 16),
                                    .n = nh_load_u32(p + 20)};
    if (ret->size_bytes > LAYOUT_LOCATED_MAX)
        return nh_error_set(err, NH_ECORRUPT, "block of %u bytes in the journal is too large", ret->size_bytes);
    return NH_OK;
}

static int find_part(const uint8_t *parts, size_t size_bytes, uint32_t n, uint32_t at, struct layout_location *ret,
                     uint32_t *ret_before, struct nh_error *err)
{
    uint32_t before = 0;

    for (size_t i = 0; i < size_bytes; i += LAYOUT_LOCATION_BYTES) {
        int r = location_decode(parts + i, ret, err);

        if (r < 0)
            return r;
        if (ret->n > n - before)
            break;
        *ret_before = before;
        before += ret->n;
        if (at < before)
            return NH_OK;
    }
    return nh_error_set(err, NH_ECORRUPT, "the parts of a block have not the %u entries that its header tells", n);
}

int layout_location_find(const char *value, size_t size_bytes, const struct layout_header *h, uint32_t at,
                         struct layout_location *ret, uint32_t *ret_before, struct nh_error *err)
{
    const uint8_t *parts = (const uint8_t *)value + LAYOUT_HEADER_BYTES;
    size_t parts_bytes = size_bytes - LAYOUT_HEADER_BYTES;
    int r;

    assert(h->located && at < h->n && size_bytes >= LAYOUT_HEADER_BYTES);
    if (parts_bytes == 0 || parts_bytes % LAYOUT_LOCATION_BYTES != 0 || h->joined != (parts_bytes > LAYOUT_LOCATION_BYTES))
        return nh_error_set(err, NH_ECORRUPT, "value of %zu bytes tells no place in the journal", size_bytes);
    if (h->joined)
        return find_part(parts, parts_bytes, h->n, at, ret, ret_before, err);
    *ret_before = 0;
    r = location_decode(parts, ret, err);
    ret->n = h->n;
    return r;
}

void layout_envelope_seal(uint8_t *out, size_t content_bytes, layout_crc_fn crc)
{
    put_u32(out + 4, LAYOUT_FORMAT);
    put_u32(out, crc(0, out + CRC_BYTES, LAYOUT_ENVELOPE_BYTES - CRC_BYTES + content_bytes));
}

int layout_envelope_check(const char *data, size_t size_bytes, layout_crc_fn crc, struct nh_error *err)
{
    if (size_bytes < LAYOUT_ENVELOPE_BYTES)
        return nh_error_set(err, NH_ECORRUPT, "value of %zu bytes is too short", size_bytes);
    return check_value((const uint8_t *)data, size_bytes, size_bytes, LAYOUT_FORMAT, crc, err);
}

int layout_block_slice(const char *value, size_t size_bytes, uint64_t first, const struct layout_header *h, uint32_t from,
                       uint32_t to, size_t max_bytes, size_t *ret_begin, size_t *ret_end, uint32_t *ret_to, struct nh_error *err)
{
    const uint8_t *p = (const uint8_t *)value;
    size_t at = LAYOUT_HEADER_BYTES, begin = LAYOUT_HEADER_BYTES;
    uint32_t i;

    assert(from < to && to <= h->n && size_bytes >= LAYOUT_HEADER_BYTES);
    for (i = 0; i < to; i++) {
        if (size_bytes - at < NH_RECORD_HEADER_BYTES || size_bytes - at < nh_record_bytes(p + at))
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " is cut off in its block", first + i);
        if (nh_record_index(p + at) != first + i)
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " has index %" PRIu64 " in its record", first + i,
                                nh_record_index(p + at));
        if (i == from)
            begin = at;
        at += nh_record_bytes(p + at);
        if (i >= from && at - begin > max_bytes) {
            i++;
            break;
        }
    }
    if (i == h->n && at != size_bytes)
        return nh_error_set(err, NH_ECORRUPT, "%zu bytes follow the last entry of a block", size_bytes - at);
    *ret_begin = begin;
    *ret_end = at;
    *ret_to = i;
    return NH_OK;
}
