#include "cmd/nhbench/command.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/machines/kv_command.h"
#include "cmd/nhbench/must.h"

#define KEY_DIGITS 8u

uint64_t commands_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

void commands_digits(uint8_t *out, uint32_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (uint32_t i = 0; i < KEY_DIGITS; i++)
        out[i] = (uint8_t)digits[n >> (28u - 4 * i) & 15u];
}

/* The digits are the end of the key. */
static void lay_out_kv(struct commands *c, uint32_t payload)
{
    uint8_t *value = must(calloc(1, payload + 1u));
    const struct kv_slice key = {(const uint8_t *)"nhbench-00000000", BENCH_KEY_BYTES};
    const struct kv_slice set[] = {{(const uint8_t *)"SET", 3}, key, {value, payload}},
                          get[] = {{(const uint8_t *)"GET", 3}, key};

    memset(value, 'v', payload);
    c->size_bytes = kv_command_bytes(set, 3);
    c->query_bytes = kv_command_bytes(get, 2);
    c->n = (uint32_t)(COMMANDS_BYTES_MAX / c->size_bytes);
    c->n = c->n < 1 ? 1 : c->n > COMMANDS_MAX ? COMMANDS_MAX : c->n;
    c->stride_bytes = (c->size_bytes + 7) / 8 * 8;
    c->data = must(malloc(c->n * c->stride_bytes));
    for (uint32_t i = 0; i < c->n; i++)
        kv_command_encode(set, 3, c->data + i * c->stride_bytes);
    c->query = must(malloc(c->query_bytes));
    kv_command_encode(get, 2, c->query);
    c->key_at = c->query_key_at = KV_HEADER_BYTES + 4 + 3 + 4 + BENCH_KEY_BYTES - KEY_DIGITS;
    free(value);
}

static void lay_out_noop(struct commands *c, uint32_t payload)
{
    c->size_bytes = payload;
    c->query_bytes = 1;
    c->n = payload ? COMMANDS_BYTES_MAX / payload : COMMANDS_MAX;
    c->n = c->n < 1 ? 1 : c->n > COMMANDS_MAX ? COMMANDS_MAX : c->n;
    c->data = must(malloc(payload + 1u));
    memset(c->data, 'v', payload + 1u);
    c->query = must(calloc(1, 1));
}

void commands_init(struct commands *c, const struct bench_options *o, uint64_t seed)
{
    *c = (struct commands){.keys = o->keys, .random = seed * 0x9e3779b97f4a7c15u + 1};
    if (o->machine == BENCH_KV)
        lay_out_kv(c, o->payload);
    else
        lay_out_noop(c, o->payload);
}

void commands_deinit(struct commands *c)
{
    free(c->data);
    free(c->query);
}

static uint32_t next_key(struct commands *c)
{
    return (uint32_t)((commands_random(&c->random) >> 32) * c->keys >> 32);
}

const void *commands_next(struct commands *c, uint32_t i)
{
    uint8_t *command = c->data + i * c->stride_bytes;

    if (c->stride_bytes)
        commands_digits(command + c->key_at, next_key(c));
    return command;
}

const void *commands_query(struct commands *c)
{
    if (c->stride_bytes)
        commands_digits(c->query + c->query_key_at, next_key(c));
    return c->query;
}
