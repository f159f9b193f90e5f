/* raftio/codec_private.h - what the codec's files share: unpacking within bounds, and parts of messages. Threads: any. */
#ifndef NH_RAFTIO_CODEC_PRIVATE_H
#define NH_RAFTIO_CODEC_PRIVATE_H

#include <protobuf-c/protobuf-c.h>

#include "raftio/codec.h"
#include "raftio/raftpb.pb-c.h"

/* Fields of MessageBatch and Message. */
#define BATCH_DEPLOYMENT_ID  1u
#define BATCH_SOURCE_ADDRESS 2u
#define BATCH_MESSAGES       3u
#define BATCH_HEARTBEATS     4u  /* and the answers: 5 */
#define MESSAGE_NUMBERS      11u /* fields 1 .. 11 are numbers */
#define MESSAGE_RECORDS      12u
#define MESSAGE_SNAPSHOT     13u
#define ROW_NUMBERS          7u

/* Memory that an unpacked message may take: this much, and this much per byte of input. What our encoders write needs less
 * than 40 bytes per byte (measured over the smallest legal message, member and heartbeat in test_codec_batch.c), so only
 * input that repeats or pads its fields to blow up the receiver is refused. */
#define ARENA_BYTES_MIN    ((size_t)64 * 1024)
#define ARENA_FACTOR       40u
#define ARENA_INLINE_BYTES 2048u

struct arena_chunk;

/* A bump allocator: everything that one unpack takes is released at once. Small inputs need no heap. */
struct arena {
    ProtobufCAllocator allocator;
    size_t left_bytes; /* until the bound is reached */
    uint8_t *at, *end; /* free part of the newest chunk */
    size_t next_chunk_bytes;
    struct arena_chunk *chunks;
    _Alignas(16) uint8_t first[ARENA_INLINE_BYTES];
};

/* Must not be moved afterwards. */
void arena_init(struct arena *a, size_t input_bytes);
void arena_deinit(struct arena *a);
/* The message lives in the arena. NULL: ECORRUPT in *err. */
void *arena_unpack(struct arena *a, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size_bytes,
                   struct nh_error *err);

/* Copies text into ret[cap] and ends it with NUL. ECORRUPT: longer than cap - 1, or not all printable ASCII. */
int codec_text(const ProtobufCBinaryData *text, char *ret, size_t cap, const char *what, struct nh_error *err);
/* *ret is owned by the caller: nh_snapshot_deinit. */
int codec_snapshot(const Raftpb__Snapshot *pb, struct nh_snapshot *ret, struct nh_error *err);

#endif
