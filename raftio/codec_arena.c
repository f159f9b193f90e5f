#include "raftio/codec_private.h"

#include <stdlib.h>

#define ARENA_ALIGN           16u
#define ARENA_CHUNK_BYTES_MIN 8192u

struct arena_chunk {
    struct arena_chunk *next;
    _Alignas(ARENA_ALIGN) uint8_t data[];
};

/* Opens a chunk with room for `bytes`. Sizes come from input here, so running out of memory is a refusal, not an abort. */
static bool add_chunk(struct arena *a, size_t bytes)
{
    size_t size = bytes > a->next_chunk_bytes ? bytes : a->next_chunk_bytes;
    struct arena_chunk *c = malloc(sizeof *c + size);

    if (!c)
        return false;
    c->next = a->chunks;
    a->chunks = c;
    a->at = c->data;
    a->end = c->data + size;
    a->next_chunk_bytes = size * 2;
    return true;
}

static void *arena_alloc(void *ctx, size_t size_bytes)
{
    struct arena *a = ctx;
    size_t bytes;
    void *p;

    if (size_bytes > a->left_bytes)
        return NULL;
    bytes = (size_bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (bytes > (size_t)(a->end - a->at) && !add_chunk(a, bytes))
        return NULL;
    a->left_bytes -= bytes < a->left_bytes ? bytes : a->left_bytes;
    p = a->at;
    a->at += bytes;
    return p;
}

static void arena_free(void *ctx, void *p)
{
    (void)ctx; /* all at once, in arena_deinit */
    (void)p;
}

void arena_init(struct arena *a, size_t input_bytes)
{
    a->allocator = (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_free, .allocator_data = a};
    a->left_bytes =
        input_bytes < (SIZE_MAX - ARENA_BYTES_MIN) / ARENA_FACTOR ? ARENA_BYTES_MIN + input_bytes * ARENA_FACTOR : SIZE_MAX;
    a->at = a->first;
    a->end = a->first + sizeof a->first;
    a->next_chunk_bytes = ARENA_CHUNK_BYTES_MIN;
    a->chunks = NULL;
}

void arena_deinit(struct arena *a)
{
    while (a->chunks) {
        struct arena_chunk *c = a->chunks;

        a->chunks = c->next;
        free(c);
    }
}

void *arena_unpack(struct arena *a, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size_bytes,
                   struct nh_error *err)
{
    void *message = protobuf_c_message_unpack(type, &a->allocator, size_bytes, data);

    if (!message)
        nh_error_set(err, NH_ECORRUPT, "%zu bytes are no %s", size_bytes, type->short_name);
    return message;
}
