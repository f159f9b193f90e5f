/* cmd/nhbench/command.h - the commands that a load proposes and the queries that it asks.
 *
 * For noop any bytes do and all requests share them. For kv a command is SET of a key of BENCH_KEY_BYTES to --payload bytes; a
 * small number of them is laid out once, and each use writes another key into one. Threads: one per object.
 */
#ifndef NH_CMD_NHBENCH_COMMAND_H
#define NH_CMD_NHBENCH_COMMAND_H

#include <stddef.h>
#include <stdint.h>

#include "cmd/nhbench/options.h"

/* At most so many commands, and about so many bytes of them, are proposed by one call. */
#define COMMANDS_MAX       1024u
#define COMMANDS_BYTES_MAX (1024u * 1024u)

struct commands {
    uint32_t n; /* that may be in use at once, 1 .. COMMANDS_MAX */
    size_t size_bytes, query_bytes;
    size_t stride_bytes; /* 0: all are the same */
    size_t key_at, query_key_at;
    uint32_t keys;
    uint64_t random;
    uint8_t *data, *query;
};

void commands_init(struct commands *c, const struct bench_options *o, uint64_t seed);
void commands_deinit(struct commands *c);
/* The i-th command, i < n, with a new key; valid until the i-th is asked for again. */
const void *commands_next(struct commands *c, uint32_t i);
/* A query of query_bytes for a new key; valid until the next. */
const void *commands_query(struct commands *c);
/* xorshift64: *state is not 0. */
uint64_t commands_random(uint64_t *state);
/* Eight hexadecimal digits. */
void commands_digits(uint8_t *out, uint32_t n);

#endif
