/* cmd/machines/kv_command.h - the commands and answers of the kv machine, as bytes. Shared by the machine and the daemon.
 *
 * A command (for update) and a query (for lookup) have one form: a Redis command as its client sent it, name first.
 *
 *     u8   version   KV_VERSION
 *     u8   zero[3]
 *     u32  argc      1 .. KV_ARGS_MAX
 *     argc times:    u32 size, bytes
 *
 * Numbers are little-endian. An answer is a number (enum kv_reply) and bytes: nothing for OK and NIL; i64 for INTEGER; the string
 * for BULK; the text of a Redis error for ERROR; for ARRAY u32 n, then n times u32 size (KV_NIL_SIZE: nil) and bytes.
 *
 * Format of both: docs/FORMATS.md, "Key-value commands". Threads: any; nothing is kept.
 */
#ifndef NH_CMD_MACHINES_KV_COMMAND_H
#define NH_CMD_MACHINES_KV_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KV_VERSION      1u
#define KV_HEADER_BYTES 8u
#define KV_ARGS_MAX     1048576u
#define KV_NIL_SIZE     UINT32_MAX
/* Largest value that a command may make, by APPEND too. Small enough that an answer and a command always fit into an entry. */
#define KV_VALUE_BYTES_MAX (32u * 1024u * 1024u)

enum kv_reply {
    KV_REPLY_OK = 0,
    KV_REPLY_NIL = 1,
    KV_REPLY_INTEGER = 2,
    KV_REPLY_BULK = 3,
    KV_REPLY_ARRAY = 4,
    KV_REPLY_ERROR = 5,
};

struct kv_slice {
    const uint8_t *data;
    uint32_t size;
};

static inline uint32_t kv_load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void kv_store_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t kv_load_u64(const uint8_t *p)
{
    return kv_load_u32(p) | (uint64_t)kv_load_u32(p + 4) << 32;
}

static inline void kv_store_u64(uint8_t *p, uint64_t v)
{
    kv_store_u32(p, (uint32_t)v);
    kv_store_u32(p + 4, (uint32_t)(v >> 32));
}

static inline size_t kv_command_bytes(const struct kv_slice *args, uint32_t n)
{
    size_t bytes = KV_HEADER_BYTES;

    for (uint32_t i = 0; i < n; i++)
        bytes += 4 + (size_t)args[i].size;
    return bytes;
}

/* Writes kv_command_bytes bytes. */
static inline void kv_command_encode(const struct kv_slice *args, uint32_t n, uint8_t *out)
{
    memset(out, 0, KV_HEADER_BYTES);
    out[0] = KV_VERSION;
    kv_store_u32(out + 4, n);
    out += KV_HEADER_BYTES;
    for (uint32_t i = 0; i < n; i++) {
        kv_store_u32(out, args[i].size);
        if (args[i].size)
            memcpy(out + 4, args[i].data, args[i].size);
        out += 4 + args[i].size;
    }
}

/* Takes the next length-prefixed slice off the front of `rest`; false: malformed. */
static inline bool kv_next(struct kv_slice *rest, struct kv_slice *ret)
{
    if (rest->size < 4)
        return false;
    ret->size = kv_load_u32(rest->data);
    if (ret->size > rest->size - 4)
        return false;
    ret->data = rest->data + 4;
    rest->data += 4 + (size_t)ret->size;
    rest->size -= 4 + ret->size;
    return true;
}

/* Begins to read a command: sets argc, and *ret_rest to what kv_next takes the arguments from. */
static inline bool kv_command_begin(const void *data, size_t size, uint32_t *ret_argc, struct kv_slice *ret_rest)
{
    const uint8_t *p = data;

    if (size < KV_HEADER_BYTES || size > UINT32_MAX || p[0] != KV_VERSION || p[1] || p[2] || p[3])
        return false;
    *ret_argc = kv_load_u32(p + 4);
    *ret_rest = (struct kv_slice){p + KV_HEADER_BYTES, (uint32_t)size - KV_HEADER_BYTES};
    return *ret_argc >= 1 && *ret_argc <= KV_ARGS_MAX;
}

#endif
