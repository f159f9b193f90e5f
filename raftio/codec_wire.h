/* raftio/codec_wire.h - the few pieces of the protobuf wire format that the codec writes or reads by hand, where protobuf-c
 * would copy bulk data once more. Fields are numbered below 16, so a tag is one byte. */
#ifndef NH_RAFTIO_CODEC_WIRE_H
#define NH_RAFTIO_CODEC_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static inline size_t wire_varint_bytes(uint64_t v)
{
    return (size_t)(63 - __builtin_clzll(v | 1)) / 7 + 1;
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

#endif
