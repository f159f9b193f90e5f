#include "logdb/rocksdb/pack.h"

#include <inttypes.h>
#include <string.h>

#include "raftio/entry.h"
#include "raftio/support/memory.h"

#define HEAD_BYTES 4u
#define TAIL_AT    32u /* of a record: type, flags, zero, origin */
/* With thousands of shards records have left the processor's cache since they were made. */
#define LOOK_AHEAD_BYTES 512u

static void put_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void put_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

/* ---- packing ---- */

static uint32_t record_size(const uint8_t *p)
{
    return nh_load_u32(p + 4);
}

static bool is_packable(const uint8_t *p)
{
    return p[33] == 0 && record_size(p) <= PACK_PAYLOAD_MAX;
}

/* Size, checksum and payload. Records are padded to words, so whole words can be read. */
static uint8_t *put_record(uint8_t *out, const uint8_t *p)
{
    uint32_t size = record_size(p);

    if (size >= 0x80)
        *out++ = (uint8_t)(size | 0x80);
    *out++ = (uint8_t)(size >= 0x80 ? size >> 7 : size);
    memcpy(out, p, sizeof(uint32_t));
    out += sizeof(uint32_t);
    for (uint32_t i = 0; i < size; i += NH_RECORD_ALIGN)
        memcpy(out + i, p + NH_RECORD_HEADER_BYTES + i, NH_RECORD_ALIGN);
    return out + size;
}

static uint8_t *put_packed(const uint8_t **from, const uint8_t *end, uint8_t *out)
{
    const uint8_t *p = *from, *second = p + nh_record_bytes(p);
    uint64_t term = nh_record_term(p), key = nh_record_key(p), tail = nh_load_u64(p + TAIL_AT);
    uint64_t step = second < end && nh_record_key(second) == key ? 0 : 1;
    uint8_t *at = out + PACK_GROUP_BYTES;
    uint32_t n = 0;

    put_u64(out + 4, term);
    put_u64(out + 12, key);
    put_u64(out + 20, tail);
    do {
        prefetch(p + LOOK_AHEAD_BYTES, 1);
        at = put_record(at, p);
        p += nh_record_bytes(p);
        key += step;
        n++;
    } while (p < end && n < PACK_N_MAX && nh_record_key(p) == key && nh_load_u64(p + TAIL_AT) == tail &&
             nh_record_term(p) == term && is_packable(p));
    put_u32(out, n | (step ? PACK_KEYS_COUNT : 0));
    *from = p;
    return at;
}

static uint8_t *put_raw(const uint8_t **from, const uint8_t *end, uint8_t *out)
{
    const uint8_t *p = *from;
    uint32_t n = 0;
    size_t size;

    for (; p < end && n < PACK_N_MAX && !is_packable(p); n++)
        p += nh_record_bytes(p);
    size = (size_t)(p - *from);
    put_u32(out, n | PACK_RAW);
    memcpy(out + HEAD_BYTES, *from, size);
    *from = p;
    return out + HEAD_BYTES + size;
}

size_t pack_records(const uint8_t *records, size_t size_bytes, uint8_t *out)
{
    const uint8_t *end = records + size_bytes;
    uint8_t *at = out;

    while (records < end)
        at = is_packable(records) ? put_packed(&records, end, at) : put_raw(&records, end, at);
    return (size_t)(at - out);
}

/* ---- unpacking ---- */

/* What is left of a packed block, and the index of the next record. */
struct reader {
    const uint8_t *at, *end;
    uint64_t index;
};

static size_t left_of(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

static int cut_off(const struct reader *r, struct nh_error *err)
{
    return nh_error_set(err, NH_ECORRUPT, "packed entry %" PRIu64 " is cut off in its block", r->index);
}

static uint8_t *extend(struct unpacked *u, size_t bytes)
{
    uint8_t *p;

    array_reserve((void **)&u->data, &u->cap, u->size_bytes + bytes, 1);
    p = u->data + u->size_bytes;
    u->size_bytes += bytes;
    return p;
}

static int unpack_raw(struct reader *r, uint32_t n, struct unpacked *ret, struct nh_error *err)
{
    const uint8_t *begin = r->at;

    for (; n > 0; n--, r->index++) {
        if (left_of(r) < NH_RECORD_HEADER_BYTES || left_of(r) < nh_record_bytes(r->at))
            return cut_off(r, err);
        r->at += nh_record_bytes(r->at);
    }
    memcpy(extend(ret, (size_t)(r->at - begin)), begin, (size_t)(r->at - begin));
    return NH_OK;
}

/* At most two bytes, as packed payloads are small. */
static bool read_size(struct reader *r, uint32_t *ret)
{
    if (left_of(r) < 1)
        return false;
    *ret = *r->at++;
    if (*ret < 0x80)
        return true;
    if (left_of(r) < 1)
        return false;
    *ret = (*ret & 0x7f) | (uint32_t)*r->at++ << 7;
    return true;
}

struct group {
    uint64_t term, key, tail, step;
};

static int unpack_one(struct reader *r, struct group *g, struct unpacked *ret, struct nh_error *err)
{
    uint32_t size;
    size_t used, bytes;
    uint8_t *p;

    if (!read_size(r, &size) || left_of(r) < sizeof(uint32_t) || left_of(r) - sizeof(uint32_t) < size)
        return cut_off(r, err);
    used = (size_t)NH_RECORD_HEADER_BYTES + size;
    bytes = nh_record_padded(used);
    p = extend(ret, bytes);
    memcpy(p, r->at, sizeof(uint32_t));
    put_u32(p + 4, size);
    put_u64(p + 8, g->term);
    put_u64(p + 16, r->index++);
    put_u64(p + 24, g->key);
    put_u64(p + TAIL_AT, g->tail);
    memcpy(p + NH_RECORD_HEADER_BYTES, r->at + sizeof(uint32_t), size);
    memset(p + used, 0, bytes - used);
    r->at += sizeof(uint32_t) + size;
    g->key += g->step;
    return NH_OK;
}

static int unpack_group(struct reader *r, struct unpacked *ret, struct nh_error *err)
{
    struct group g;
    uint32_t head, n;
    int code = NH_OK;

    if (left_of(r) < HEAD_BYTES)
        return cut_off(r, err);
    head = nh_load_u32(r->at);
    n = head & PACK_N_MAX;
    if (n == 0 || (head & PACK_RAW && head & PACK_KEYS_COUNT))
        return nh_error_set(err, NH_ECORRUPT, "the packed group before entry %" PRIu64 " has a senseless head", r->index);
    if (head & PACK_RAW) {
        r->at += HEAD_BYTES;
        return unpack_raw(r, n, ret, err);
    }
    if (left_of(r) < PACK_GROUP_BYTES)
        return cut_off(r, err);
    g = (struct group){nh_load_u64(r->at + 4), nh_load_u64(r->at + 12), nh_load_u64(r->at + 20), head & PACK_KEYS_COUNT ? 1 : 0};
    r->at += PACK_GROUP_BYTES;
    for (; n > 0 && code == NH_OK; n--)
        code = unpack_one(r, &g, ret, err);
    return code;
}

int unpack_records(const uint8_t *packed, size_t size_bytes, uint64_t first, struct unpacked *ret, struct nh_error *err)
{
    struct reader r = {packed, packed + size_bytes, first};
    int code = NH_OK;

    while (r.at < r.end && code == NH_OK)
        code = unpack_group(&r, ret, err);
    return code;
}
