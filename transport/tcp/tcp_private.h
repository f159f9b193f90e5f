/* transport/tcp/tcp_private.h - the transport itself, for the files of this folder. */
#ifndef NH_TRANSPORT_TCP_TCP_PRIVATE_H
#define NH_TRANSPORT_TCP_TCP_PRIVATE_H

#include "transport/tcp/listener.h"
#include "transport/tcp/loop.h"
#include "transport/tcp/tcp_transport.h"

struct peer;

struct nh_transport {
    uint64_t deployment_id, data_layout;
    char address[NH_ADDRESS_BYTES];
    char listen_address[NH_ADDRESS_BYTES];
    size_t send_queue_bytes;
    size_t payload_bytes_max; /* of a frame */
    bool polls;
    const struct nh_plugin_services *services;
    struct nh_transport_handlers handlers;

    uint32_t n_loops;
    struct tcp_loop *loops;
    struct listener listener; /* on loops[0] */

    /* Held for looking up, adding and removing peers only; send_queue.lock may be taken inside. */
    pthread_mutex_t lock;
    struct list peers;  /* guarded by lock: struct peer.link, also snapshot streams and orphans */
    uint32_t n_peers;   /* guarded by lock */
    uint32_t n_streams; /* guarded by lock */
    bool started;       /* guarded by lock */
    bool closing;       /* guarded by lock */

    uint32_t n_inbound;               /* atomic */
    struct tcp_transport_stats stats; /* atomic */
};

#define TCP_COUNT(t, counter, n) ((void)__atomic_fetch_add(&(t)->stats.counter, (n), __ATOMIC_RELAXED))

/* Handlers, each optional. Thread: a loop's; no lock is held. */
void tcp_connected(struct nh_transport *t, const char *address, bool snapshot);
void tcp_failed(struct nh_transport *t, const char *address, bool snapshot, const char *reason);
void tcp_unreachable(struct nh_transport *t, const struct nh_replica_info *to, uint32_t n);
/* No delay, keep-alive, bounded silence. Failures are ignored: they cost speed, not correctness. */
void tcp_socket_options(uv_tcp_t *tcp);
/* Takes a peer off the list. Thread: any. */
void tcp_forget_peer(struct nh_transport *t, struct peer *p);

#endif
