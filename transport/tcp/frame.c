#include "transport/tcp/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/crc32c.h"
#include "raftio/support/memory.h"

static const uint8_t magic[4] = {'N', 'H', 'F', 0x1a};

/* ---- header ---- */

#define AT_VERSION     4u
#define AT_TYPE        5u
#define AT_ZERO        6u
#define AT_SIZE        8u
#define AT_PAYLOAD_CRC 16u
#define AT_HEADER_CRC  20u

/* Hosts are little-endian (meson.build refuses others), so a copy of the number is its wire form. */
static uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], enum frame_type type, const void *payload, size_t size_bytes)
{
    uint64_t size = size_bytes;
    uint32_t crc = crc32c(0, payload, size_bytes);

    memcpy(out, magic, sizeof magic);
    out[AT_VERSION] = FRAME_VERSION;
    out[AT_TYPE] = (uint8_t)type;
    out[AT_ZERO] = out[AT_ZERO + 1] = 0;
    memcpy(out + AT_SIZE, &size, sizeof size);
    memcpy(out + AT_PAYLOAD_CRC, &crc, sizeof crc);
    crc = crc32c(0, out, AT_HEADER_CRC);
    memcpy(out + AT_HEADER_CRC, &crc, sizeof crc);
}

enum frame_status frame_header_decode(const uint8_t head[FRAME_HEADER_BYTES], size_t payload_bytes_max, struct frame_header *ret)
{
    uint64_t size;

    /* Magic and version come first: a later version may lay out the rest in another way. */
    if (memcmp(head, magic, sizeof magic) != 0)
        return FRAME_BAD_MAGIC;
    if (head[AT_VERSION] != FRAME_VERSION)
        return FRAME_BAD_VERSION;
    if (load_u32(head + AT_HEADER_CRC) != crc32c(0, head, AT_HEADER_CRC))
        return FRAME_BAD_HEADER_CRC;
    if (head[AT_TYPE] < FRAME_HELLO || head[AT_TYPE] > FRAME_CHUNK || head[AT_ZERO] || head[AT_ZERO + 1])
        return FRAME_BAD_TYPE;
    memcpy(&size, head + AT_SIZE, sizeof size);
    if (size > payload_bytes_max)
        return FRAME_BAD_SIZE;
    *ret = (struct frame_header){
        .type = (enum frame_type)head[AT_TYPE],
        .size_bytes = size,
        .payload_crc = load_u32(head + AT_PAYLOAD_CRC),
    };
    return FRAME_READY;
}

/* ---- parser ---- */

void frame_parser_init(struct frame_parser *p, size_t payload_bytes_max)
{
    *p = (struct frame_parser){.payload_bytes_max = payload_bytes_max, .failed = FRAME_READY};
}

void frame_parser_deinit(struct frame_parser *p)
{
    free(p->payload);
    *p = (struct frame_parser){.failed = FRAME_MORE};
}

bool frame_parser_at_boundary(const struct frame_parser *p)
{
    return p->head_bytes == 0;
}

/* Moves up to `want` bytes from the input. Returns how many. */
static size_t take(uint8_t *to, size_t want, const uint8_t **data, size_t *size_bytes)
{
    size_t n = want < *size_bytes ? want : *size_bytes;

    if (n)
        memcpy(to, *data, n);
    *data += n;
    *size_bytes -= n;
    return n;
}

static enum frame_status read_header(struct frame_parser *p, const uint8_t **data, size_t *size_bytes)
{
    p->head_bytes += take(p->head + p->head_bytes, FRAME_HEADER_BYTES - p->head_bytes, data, size_bytes);
    if (p->head_bytes < FRAME_HEADER_BYTES)
        return FRAME_MORE;
    p->payload_bytes = 0;
    return frame_header_decode(p->head, p->payload_bytes_max, &p->header);
}

/* Room for `n` more bytes of the payload. */
static void reserve(struct frame_parser *p, size_t n)
{
    size_t want = p->payload_bytes + n, cap = p->cap_bytes ? p->cap_bytes : FRAME_BUFFER_BYTES_MIN;

    assert(want <= p->header.size_bytes);
    if (want <= p->cap_bytes)
        return;
    while (cap < want)
        cap *= 2;
    if (cap > p->header.size_bytes && p->header.size_bytes > FRAME_BUFFER_BYTES_MIN)
        cap = (size_t)p->header.size_bytes;
    p->payload = xrealloc(p->payload, cap);
    p->cap_bytes = cap;
}

/* Points *ret at the payload: into the input if it is whole there, else into the buffer once that is full. */
static enum frame_status read_payload(struct frame_parser *p, const uint8_t **data, size_t *size_bytes, const uint8_t **ret)
{
    size_t size = (size_t)p->header.size_bytes, missing = size - p->payload_bytes;

    if (p->payload_bytes == 0 && *size_bytes >= size) {
        *ret = *data;
        *data += size;
        *size_bytes -= size;
        return FRAME_READY;
    }
    if (missing > *size_bytes)
        missing = *size_bytes;
    if (missing == 0)
        return FRAME_MORE;
    reserve(p, missing);
    p->payload_bytes += take(p->payload + p->payload_bytes, missing, data, size_bytes);
    *ret = p->payload;
    return p->payload_bytes == size ? FRAME_READY : FRAME_MORE;
}

/* A large buffer was for a large frame; most frames are small and need none. */
static void shrink(struct frame_parser *p)
{
    if (p->cap_bytes > FRAME_BUFFER_BYTES_MIN) {
        free(p->payload);
        p->payload = NULL;
        p->cap_bytes = 0;
    }
}

static enum frame_status parse(struct frame_parser *p, const uint8_t **data, size_t *size_bytes, struct frame *ret)
{
    const uint8_t *payload = NULL;
    enum frame_status status;

    if (p->head_bytes < FRAME_HEADER_BYTES) {
        if (p->head_bytes == 0)
            shrink(p);
        status = read_header(p, data, size_bytes);
        if (status != FRAME_READY)
            return status;
    }
    status = read_payload(p, data, size_bytes, &payload);
    if (status != FRAME_READY)
        return status;
    if (crc32c(0, payload, (size_t)p->header.size_bytes) != p->header.payload_crc)
        return FRAME_BAD_PAYLOAD_CRC;
    p->head_bytes = 0;
    *ret = (struct frame){.type = p->header.type, .payload = payload, .size_bytes = (size_t)p->header.size_bytes};
    return FRAME_READY;
}

enum frame_status frame_parser_next(struct frame_parser *p, const uint8_t **data, size_t *size_bytes, struct frame *ret)
{
    enum frame_status status = p->failed;

    if (status == FRAME_READY)
        status = parse(p, data, size_bytes, ret);
    if (status != FRAME_READY) {
        *data += *size_bytes;
        *size_bytes = 0;
    }
    if (status != FRAME_READY && status != FRAME_MORE)
        p->failed = status;
    return status;
}

/* ---- texts ---- */

const char *frame_status_text(enum frame_status status)
{
    switch (status) {
    case FRAME_READY: return "whole";
    case FRAME_MORE: return "incomplete";
    case FRAME_BAD_MAGIC: return "not a frame";
    case FRAME_BAD_VERSION: return "frame of another version";
    case FRAME_BAD_HEADER_CRC: return "frame header with a wrong checksum";
    case FRAME_BAD_TYPE: return "frame of an unknown type";
    case FRAME_BAD_SIZE: return "frame above the size limit";
    case FRAME_BAD_PAYLOAD_CRC: return "frame payload with a wrong checksum";
    }
    return "unknown";
}

const char *frame_refusal_text(uint32_t reason)
{
    switch (reason) {
    case FRAME_REFUSED_VERSION: return "another protocol version";
    case FRAME_REFUSED_DEPLOYMENT: return "another deployment";
    case FRAME_REFUSED_TARGET: return "this is not the host that you want";
    case FRAME_REFUSED_SOURCE: return "the hello does not say who you are";
    case FRAME_REFUSED_LAYOUT:
        return "another layout of the data (nodehostd: the lists of kv shards differ, see kv_layout in INFO)";
    default: return "unknown reason";
    }
}
