#include "raftio/codec.h"

#include "raftio/codec_wire.h"

/* A chunk is almost only data: written and read by hand, so that encoding copies it once and decoding not at all. */

#define CHUNK_NUMBERS 9u
#define CHUNK_DATA    10u

static void numbers_of(const struct nh_chunk *c, uint64_t ret[CHUNK_NUMBERS])
{
    const uint64_t numbers[CHUNK_NUMBERS] = {c->shard_id, c->replica_id,      c->from,
                                             c->chunk_id, c->chunk_count,     c->index,
                                             c->term,     c->file_size_bytes, c->deployment_id};

    memcpy(ret, numbers, sizeof numbers);
}

size_t chunk_encode(const struct nh_chunk *c, uint8_t *out, size_t cap)
{
    uint64_t numbers[CHUNK_NUMBERS];
    size_t bytes = c->size_bytes ? wire_bytes_bytes(c->size_bytes) : 0;

    numbers_of(c, numbers);
    for (unsigned i = 0; i < CHUNK_NUMBERS; i++)
        bytes += wire_number_bytes(numbers[i]);
    if (bytes > cap)
        return bytes;
    for (unsigned i = 0; i < CHUNK_NUMBERS; i++)
        out = wire_put_number(out, i + 1, numbers[i]);
    if (c->size_bytes)
        wire_put_bytes(out, CHUNK_DATA, c->data, c->size_bytes);
    return bytes;
}

/* What is left to read. `bad` stays set once something was cut off or malformed. */
struct reader {
    const uint8_t *at, *end;
    bool bad;
};

static uint64_t read_varint(struct reader *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        uint8_t byte = *r->at++;

        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return v;
    }
    r->bad = true;
    return 0;
}

static const uint8_t *read_bytes(struct reader *r, uint64_t size_bytes)
{
    const uint8_t *p = r->at;

    if (size_bytes > (uint64_t)(r->end - r->at)) {
        r->bad = true;
        return NULL;
    }
    r->at += size_bytes;
    return p;
}

/* Reads one field into `numbers` (by field number) or `c`; fields of later versions are skipped. */
static void read_field(struct reader *r, uint64_t *numbers, struct nh_chunk *c)
{
    uint64_t tag = read_varint(r), field = tag >> 3;

    if (field == 0 || (field < CHUNK_DATA && (tag & 7) != WIRE_VARINT) || (field == CHUNK_DATA && (tag & 7) != WIRE_BYTES)) {
        r->bad = true;
        return;
    }
    switch (tag & 7) {
    case WIRE_VARINT: {
        uint64_t v = read_varint(r);

        if (field <= CHUNK_NUMBERS)
            numbers[field - 1] = v;
        break;
    }
    case WIRE_BYTES: {
        uint64_t size_bytes = read_varint(r);
        const uint8_t *data = read_bytes(r, size_bytes);

        if (field == CHUNK_DATA) {
            c->data = size_bytes ? data : NULL;
            c->size_bytes = (size_t)size_bytes;
        }
        break;
    }
    case WIRE_FIXED64: read_bytes(r, 8); break;
    case WIRE_FIXED32: read_bytes(r, 4); break;
    default: r->bad = true;
    }
}

int chunk_decode(const uint8_t *data, size_t size_bytes, struct nh_chunk *ret, struct nh_error *err)
{
    struct reader r = {.at = data, .end = data + size_bytes};
    uint64_t n[CHUNK_NUMBERS] = {0};
    struct nh_chunk c = {0};

    while (r.at < r.end && !r.bad)
        read_field(&r, n, &c);
    if (r.bad)
        return nh_error_set(err, NH_ECORRUPT, "chunk: malformed at byte %zu of %zu", (size_t)(r.at - data), size_bytes);
    *ret = (struct nh_chunk){
        .shard_id = n[0],
        .replica_id = n[1],
        .from = n[2],
        .chunk_id = n[3],
        .chunk_count = n[4],
        .index = n[5],
        .term = n[6],
        .file_size_bytes = n[7],
        .deployment_id = n[8],
        .data = c.data,
        .size_bytes = c.size_bytes,
    };
    return NH_OK;
}
