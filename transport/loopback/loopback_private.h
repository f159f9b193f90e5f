/* transport/loopback/loopback_private.h - hub, transports, connections and parcels, for the files of this folder.
 *
 * One lock per hub guards everything that is not constant; it is never held across a handler, a policy or the codec.
 */
#ifndef NH_TRANSPORT_LOOPBACK_LOOPBACK_PRIVATE_H
#define NH_TRANSPORT_LOOPBACK_LOOPBACK_PRIVATE_H

#include <pthread.h>

#include "raftio/support/list.h"
#include "transport/loopback/loopback.h"

struct loopback_hub {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an outcome is known; somebody has left a transport that closes */
    struct loopback_policy policy;
    struct list transports; /* open ones */
    uint64_t last_instance;
    unsigned n_parcels; /* not ended; atomic */
};

struct nh_transport {
    struct loopback_hub *hub;
    struct list link;  /* loopback_hub.transports */
    uint64_t instance; /* of this life of the address */
    uint64_t deployment_id, data_layout;
    char address[NH_ADDRESS_BYTES];
    size_t send_queue_bytes;
    size_t frame_bytes_max;
    const struct nh_plugin_services *services;
    struct nh_transport_handlers handlers;
    bool of_default_hub;

    struct list connections; /* struct nh_connection.link */
    struct queue inbox;      /* parcels for our thread */
    pthread_cond_t arrived;
    pthread_t thread;
    bool started, has_thread, closing;
    unsigned n_inside; /* callers between enter and leave */
};

/* Also serves as nh_snapshot_connection. Freed when nobody uses it and no parcel counts on it. */
struct nh_connection {
    struct list link;
    struct nh_transport *owner; /* NULL: closed */
    char target[NH_ADDRESS_BYTES];
    bool snapshot;
    bool up;      /* the last parcel found its target */
    bool failed;  /* a chunk was lost or refused: snapshot connections only */
    size_t bytes; /* of its parcels */
    unsigned n_users, n_parcels;
};

enum parcel_kind {
    PARCEL_BATCH,
    PARCEL_CHUNK,
    PARCEL_LOST, /* for the sender: its messages are unreachable */
    PARCEL_UP,   /* for either: on_connected(target) */
    PARCEL_DOWN, /* for the sender: on_failed(target) */
};

enum parcel_outcome { PARCEL_PENDING, PARCEL_TAKEN, PARCEL_REFUSED };

struct loopback_parcel {
    struct queue_node node;
    struct loopback_hub *hub;
    enum parcel_kind kind;
    char source[NH_ADDRESS_BYTES], target[NH_ADDRESS_BYTES];
    uint64_t source_instance; /* 0: losing it concerns nobody */
    uint64_t deployment_id, data_layout;
    bool snapshot;
    struct nh_connection *connection; /* on whose bytes it counts, or NULL */
    enum parcel_outcome *outcome;     /* of a sender that waits, or NULL */
    const struct nh_plugin_services *services;
    size_t size_bytes;
    uint8_t *encoded;                /* batch or chunk */
    struct nh_message_batch *shared; /* instead of `encoded` */
    struct nh_replica_info *to;
    uint32_t n_to;
    const char *reason; /* static; PARCEL_DOWN */
};

/* hub.c; `hub->lock` is held where it says locked. */

/* A parcel from this connection, on which it counts: enter has reserved the bytes. */
struct loopback_parcel *parcel_new(enum parcel_kind kind, const struct nh_transport *t, struct nh_connection *c,
                                   size_t size_bytes);
/* Puts it into the target's inbox, or back into the sender's as lost. Locked, threads. */
void hub_post(struct loopback_parcel *p);
/* Calls the handler that this parcel is for and ends it. */
void parcel_handle(struct nh_transport *t, struct loopback_parcel *p);
/* What is to happen with a parcel whose receiver closes. Locked, threads. */
void hub_return(struct loopback_parcel *p);
/* Frees a connection that nobody needs. Locked. */
void connection_put(struct nh_connection *c);

#endif
