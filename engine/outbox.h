/* engine/outbox.h - what one worker has to send, gathered per peer host.
 *
 * Messages of all replicas to one host leave as one batch per pass (more only where a batch would pass OUTBOX_BATCH_BYTES).
 * What the transport does not take is given back to the worker, message by message. Once per ping interval a peer that
 * nothing was sent to gets an empty batch, so that it knows we live.
 *
 * Threads: owner worker. Ownership: messages are moved in and released after sending. Errors: none; losses are reported.
 */
#ifndef NH_ENGINE_OUTBOX_H
#define NH_ENGINE_OUTBOX_H

#include "engine/liveness.h"
#include "raftio/support/list.h"
#include "raftio/transport.h"

/* Entries in one batch, unless a single message is larger. */
#define OUTBOX_BATCH_BYTES    (4u << 20)
#define OUTBOX_BATCH_MESSAGES 65536u
/* Peer hosts of one worker. A peer more gets no messages. */
#define OUTBOX_PEERS_MAX 1024u

struct messages {
    struct nh_message *items;
    size_t n, cap;
};
void messages_push(struct messages *m, const struct nh_message *message); /* moves: the source is not to be released */
void messages_clear(struct messages *m);                                  /* keeps the array */
void messages_deinit(struct messages *m);

struct outbox_peer {
    struct live_host *host; /* has the address */
    struct nh_connection *connection;
    struct messages messages;
    struct list pending; /* linked while it has messages */
    bool sent;           /* since the last ping round */
    bool silent;         /* its host was not heard of for long */
    bool down;           /* its host was down at the last look */
};

struct outbox {
    const struct nh_transport_ops *ops;
    struct nh_transport *transport;
    struct liveness *liveness;
    struct nh_message_batch head; /* deployment id and source address of every batch */
    struct outbox_peer **peers;
    size_t n_peers, cap_peers;
    struct list pending;
    uint64_t batches_sent, messages_sent; /* atomic */
};

/* A message that the transport did not take: nothing of it was queued, so it is surely lost. Borrowed. */
typedef void (*outbox_failed_fn)(void *ctx, const struct nh_message *message);

void outbox_init(struct outbox *o, struct liveness *liveness, uint64_t deployment_id, const char *source_address);
void outbox_deinit(struct outbox *o);
/* Finds or makes the peer with this address; NULL at OUTBOX_PEERS_MAX or if the transport refuses the address. */
struct outbox_peer *outbox_peer(struct outbox *o, const char *address, uint64_t now_ns);
void outbox_add(struct outbox *o, struct outbox_peer *peer, const struct nh_message *message); /* moves */
void outbox_flush(struct outbox *o, outbox_failed_fn failed, void *ctx);
/* Pings every peer that nothing was sent to since the last call. */
void outbox_ping(struct outbox *o);

#endif
