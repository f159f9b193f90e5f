/* raftio/codec_wire.h - the few pieces of the protobuf wire format that the codec writes or reads by hand, where protobuf-c
 * would copy bulk data once more. Fields that are written are numbered below 16, so a tag is one byte. */
#ifndef NH_RAFTIO_CODEC_WIRE_H
#define NH_RAFTIO_CODEC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static inline size_t wire_varint_bytes(uint64_t v)
{
    return (size_t)((63 - __builtin_clzll(v | 1)) * 9 + 73) / 64; /* bits / 7 + 1, for 0 to 63 */
}
static inline uint8_t *wire_put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}
static inline uint8_t *wire_put_tag(uint8_t *p, unsigned field, enum wire_type type)
{
    *p++ = (uint8_t)(field << 3 | (unsigned)type);
    return p;
}

/* A number; 0 is the default and takes no bytes. */
#define WIRE_NUMBER_BYTES_MAX 11u
static inline size_t wire_number_bytes(uint64_t v)
{
    return v ? 1 + wire_varint_bytes(v) : 0;
}
static inline uint8_t *wire_put_number(uint8_t *p, unsigned field, uint64_t v)
{
    return v ? wire_put_varint(wire_put_tag(p, field, WIRE_VARINT), v) : p;
}

/* Tag and length of `size_bytes` bytes that follow, and they themselves. */
static inline size_t wire_bytes_bytes(size_t size_bytes)
{
    return 1 + wire_varint_bytes(size_bytes) + size_bytes;
}
static inline uint8_t *wire_put_bytes_head(uint8_t *p, unsigned field, size_t size_bytes)
{
    return wire_put_varint(wire_put_tag(p, field, WIRE_BYTES), size_bytes);
}
static inline uint8_t *wire_put_bytes(uint8_t *p, unsigned field, const void *data, size_t size_bytes)
{
    p = wire_put_bytes_head(p, field, size_bytes);
    memcpy(p, data, size_bytes);
    return p + size_bytes;
}

/* ---- reading; input may be anything ---- */

/* Bytes that are read from their start. */
struct wire_reader {
    const uint8_t *at, *end;
};

struct wire_field {
    uint32_t field;
    enum wire_type type;
    uint64_t number;          /* of WIRE_VARINT */
    struct wire_reader bytes; /* of WIRE_BYTES; part of the input */
};

static inline size_t wire_left_bytes(const struct wire_reader *r)
{
    return (size_t)(r->end - r->at);
}
/* False: cut off, or longer than the ten bytes that a number can need. */
static inline bool wire_get_varint(struct wire_reader *r, uint64_t *ret)
{
    uint64_t v = 0;

    if (r->at < r->end && *r->at < 0x80) { /* as most are */
        *ret = *r->at++;
        return true;
    }
    for (unsigned shift = 0; shift < 70 && r->at < r->end; shift += 7) {
        uint8_t byte = *r->at++;

        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = v;
            return true;
        }
    }
    return false;
}
static inline bool wire_get_bytes(struct wire_reader *r, uint64_t size_bytes, struct wire_reader *ret)
{
    if (size_bytes > wire_left_bytes(r))
        return false;
    *ret = (struct wire_reader){r->at, r->at + size_bytes};
    r->at = ret->end;
    return true;
}
/* Takes the next field, known or not. False: the input is no protobuf message. */
static inline bool wire_get_field(struct wire_reader *r, struct wire_field *ret)
{
    uint64_t tag, size_bytes;

    if (!wire_get_varint(r, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return false;
    ret->field = (uint32_t)(tag >> 3);
    ret->type = (enum wire_type)(tag & 7);
    if (ret->type == WIRE_VARINT)
        return wire_get_varint(r, &ret->number);
    if (ret->type == WIRE_BYTES)
        return wire_get_varint(r, &size_bytes) && wire_get_bytes(r, size_bytes, &ret->bytes);
    if (ret->type == WIRE_FIXED64)
        return wire_get_bytes(r, 8, &ret->bytes);
    return ret->type == WIRE_FIXED32 && wire_get_bytes(r, 4, &ret->bytes); /* else groups, and what never was */
}

#endif
