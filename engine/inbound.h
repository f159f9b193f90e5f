/* engine/inbound.h - messages on their way from the transport to the workers.
 *
 * One batch from another host becomes at most one allocation per step worker: its messages with references on their
 * blocks. Which replica a message is for is looked up by the worker, in its own map, so that the transport's thread
 * takes no lock of ours but the mailbox's.
 *
 * Threads: inbound_post and inbound_drained on the transport's threads, the rest on the worker that received it.
 */
#ifndef NH_ENGINE_INBOUND_H
#define NH_ENGINE_INBOUND_H

#include "engine/replica.h"

struct inbound_message {
    struct queue_node node; /* in replica->inbound during a pass */
    const struct inbound *inbound;
    struct nh_message message; /* runs point into the inbound */
};

struct inbound {
    struct step_item item;
    struct queue_node done; /* in the worker's list of those to be freed at the end of a pass */
    char source[NH_ADDRESS_BYTES];
    uint32_t n, n_runs;
    size_t size_bytes; /* with the entries */
    struct inbound_message *messages;
    struct nh_run *runs;
};

/* What waits for one worker at most, unless it is one batch alone: the rest is forgotten, as if the network had lost it. Peers go
 * on sending heartbeats, and each shard a window of entries, to a host whose disk stands still. */
#define INBOUND_BYTES_MAX ((size_t)256 << 20)

/* Hands the messages of a batch (borrowed) to the workers of their shards; if the transport says when it has no more, and it
 * is little, they are told only then. */
void inbound_post(struct engine *e, const struct nh_message_batch *batch);
/* The transport has no more: tells the workers that got something, or does the work of the last of them here if it is little. */
void inbound_drained(struct engine *e);
void inbound_free(struct inbound *in); /* drops the references */

#endif
