/* transport/tcp/frame.h - frames: what travels on a TCP connection between hosts. Pure bytes, no sockets.
 *
 * A connection carries frames one after another, and nothing else. Frame, version 1 (little-endian):
 *
 *     offset size
 *       0     4   magic        "NHF" and 0x1a
 *       4     1   version      FRAME_VERSION
 *       5     1   type         enum frame_type
 *       6     2   zero
 *       8     8   size         bytes of the payload
 *      16     4   payload crc  crc32c of the payload
 *      20     4   header crc   crc32c of bytes [0, 20)
 *      24     -   payload
 *
 * The first frame of either side is a HELLO (raftpb Hello), at most FRAME_HELLO_BYTES_MAX long. The connecting side speaks
 * first and names itself, its deployment and whom it wants to talk to. The accepting side answers with its own HELLO, or
 * with REFUSED (u32, enum frame_refusal) and closes. After that only the connecting side sends: BATCH (raftpb
 * MessageBatch) on an ordinary connection, CHUNK (raftpb Chunk) on a snapshot connection.
 *
 * Limits: the size is compared with the caller's limit before anything is allocated, and memory grows with the bytes that
 * came, not with the size that was announced. Threads: a parser belongs to one thread.
 */
#ifndef NH_TRANSPORT_TCP_FRAME_H
#define NH_TRANSPORT_TCP_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_VERSION         1u
#define FRAME_HEADER_BYTES    24u
#define FRAME_HELLO_BYTES_MAX 512u /* payload of a HELLO or REFUSED */
/* Memory for a payload grows in doublings from here. A parser keeps a buffer up to this size between frames. */
#define FRAME_BUFFER_BYTES_MIN (64u * 1024u)

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_REFUSED = 2,
    FRAME_BATCH = 3,
    FRAME_CHUNK = 4,
};

/* Why a host refuses a connection. Numbers are part of the wire format. */
enum frame_refusal {
    FRAME_REFUSED_VERSION = 1,    /* hello of another version */
    FRAME_REFUSED_DEPLOYMENT = 2, /* of another deployment */
    FRAME_REFUSED_TARGET = 3,     /* wants to talk to another host than the one it reached */
    FRAME_REFUSED_SOURCE = 4,     /* does not say who it is */
    FRAME_REFUSED_LAYOUT = 5,     /* its data is laid out differently */
};

enum frame_status {
    FRAME_READY, /* a whole frame, verified */
    FRAME_MORE,  /* needs more bytes */
    /* The stream is broken; the connection must be cut. */
    FRAME_BAD_MAGIC,
    FRAME_BAD_VERSION,
    FRAME_BAD_HEADER_CRC,
    FRAME_BAD_TYPE, /* no such type, or the two bytes behind it are not zero */
    FRAME_BAD_SIZE, /* above the limit */
    FRAME_BAD_PAYLOAD_CRC,
};

struct frame_header {
    enum frame_type type;
    uint64_t size_bytes; /* of the payload */
    uint32_t payload_crc;
};

/* A received frame. The payload is borrowed: valid until the parser or the input is touched again. */
struct frame {
    enum frame_type type;
    const uint8_t *payload;
    size_t size_bytes;
};

/* Takes a stream apart, wherever it was cut. */
struct frame_parser {
    size_t payload_bytes_max; /* may be changed between frames */
    uint8_t head[FRAME_HEADER_BYTES];
    size_t head_bytes;
    struct frame_header header; /* valid once head_bytes == FRAME_HEADER_BYTES */
    uint8_t *payload;
    size_t payload_bytes;
    size_t cap_bytes;
    enum frame_status failed; /* FRAME_READY, or what every further call answers */
};

/* Writes the header of a frame whose payload stands (or will stand) behind it. */
void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], enum frame_type type, const void *payload, size_t size_bytes);
/* FRAME_READY, or what is wrong with the header. *ret is set on FRAME_READY only. */
enum frame_status frame_header_decode(const uint8_t head[FRAME_HEADER_BYTES], size_t payload_bytes_max, struct frame_header *ret);

void frame_parser_init(struct frame_parser *p, size_t payload_bytes_max);
void frame_parser_deinit(struct frame_parser *p);
/* Consumes bytes of [*data, *data + *size_bytes) up to the end of the next frame, at most; advances both. A payload that
 * lies whole in the input is not copied. After anything but FRAME_READY the input is used up. */
enum frame_status frame_parser_next(struct frame_parser *p, const uint8_t **data, size_t *size_bytes, struct frame *ret);
/* True between two frames: a stream may end here. */
bool frame_parser_at_boundary(const struct frame_parser *p);

const char *frame_status_text(enum frame_status status);
/* "another deployment"; "unknown reason" for a number of a later version. */
const char *frame_refusal_text(uint32_t reason);

#endif
