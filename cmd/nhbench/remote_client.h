/* cmd/nhbench/remote_client.h - one connection of `nhbench remote`: commands out, replies in. Threads: one. */
#ifndef NH_CMD_NHBENCH_REMOTE_CLIENT_H
#define NH_CMD_NHBENCH_REMOTE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "cmd/nhbench/latencies.h"
#include "cmd/nhbench/options.h"

#define REMOTE_LINE_BYTES 160u

/* What the clients of a thread share. */
struct remote_counts {
    uint64_t begin_ns, end_ns; /* of the measured interval */
    struct latencies writes, reads;
    uint64_t errors, done; /* done: atomic, for progress, errors too */
    char first_error[REMOTE_LINE_BYTES];
    uint64_t random;
    const char *value; /* --payload bytes */
};

struct remote_sent {
    uint64_t begun_ns;
    bool is_read;
};

struct remote_client {
    const struct bench_options *options;
    struct remote_counts *counts;
    int fd;
    char *out;
    size_t out_size, out_at, out_cap;
    struct remote_sent *sent; /* ring of --pipeline commands without reply */
    uint32_t first, n;
    char line[REMOTE_LINE_BYTES]; /* of a reply, as far as it has come; longer ones are cut */
    size_t line_size;
    uint64_t skip; /* bytes of a value that are still to come */
};

/* fd is connected and does not block; owned from here on. */
void remote_client_init(struct remote_client *c, const struct bench_options *o, struct remote_counts *counts, int fd);
void remote_client_deinit(struct remote_client *c);
/* Puts commands behind what is to be sent until the pipeline is full. */
void remote_client_fill(struct remote_client *c);
/* Sends what it can; false: the connection is broken. Something is left if out_at < out_size. */
bool remote_client_send(struct remote_client *c);
/* Takes what has come; false: the connection is broken, or speaks something else. */
bool remote_client_receive(struct remote_client *c);

#endif
