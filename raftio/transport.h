/* raftio/transport.h - the ITransport contract: how hosts exchange message batches and snapshot chunks.
 *
 * A transport moves batches between hosts named by an address ("host:port"). Delivery is *at most once*: a batch may be
 * lost or (tolerated, slower) overtaken, but is never delivered corrupt, and never twice to one incarnation of the
 * receiver unless the network itself duplicates it (the core bears that too). Loss must be *reported*: for every message
 * of a batch that was accepted and then could not be sent, `unreachable` is called with its shard and receiver.
 *
 * The transports that ship are transport/tcp (libuv) and transport/loopback (in-process); tests/conformance/transport
 * runs over any table.
 *
 * Threads. All functions may be called from any thread, from inside handlers too. Handlers are called on the transport's own
 * threads, never from inside send_batch, and must not block (but on_drained may); none is called after close has returned.
 */
#ifndef NH_RAFTIO_TRANSPORT_H
#define NH_RAFTIO_TRANSPORT_H

#include "raftio/plugin.h"
#include "raftio/types.h"

NH_BEGIN_DECLS

#define NH_TRANSPORT_ABI 1u
/* Version of the framing and of the hello; hosts with another one refuse each other. */
#define NH_TRANSPORT_BIN_VERSION 1u

struct nh_transport;
struct nh_connection;
struct nh_snapshot_connection;

/* What the host gives a transport to call. `ctx` comes first in each. */
struct nh_transport_handlers {
    uint32_t struct_size;
    void *ctx;
    /* A batch arrived from another host. Borrowed for the call; the host retains the blocks that it needs. */
    void (*on_batch)(void *ctx, const struct nh_message_batch *batch);
    /* A chunk arrived. false: the host refuses it, the transport cuts this snapshot connection. */
    bool (*on_chunk)(void *ctx, const struct nh_chunk *chunk);
    /* Message to (shard, replica) was accepted by send_batch but is now known to be lost. Once per message. */
    void (*on_unreachable)(void *ctx, struct nh_replica_info to);
    /* A connection to or from `address` came up / failed. */
    void (*on_connected)(void *ctx, const char *address, bool snapshot);
    void (*on_failed)(void *ctx, const char *address, bool snapshot, const char *reason);
    /* since 1.0 ends here; append below */

    /* All batches that had arrived were given to on_batch. For transports that set calls_on_drained. The host may work on them
     * here, on the transport's thread, until they are saved: this one handler may wait for the disk. NULL: the host does not
     * want it. */
    void (*on_drained)(void *ctx);
};

struct nh_transport_config {
    uint32_t struct_size;
    uint64_t deployment_id;                    /* peers with another one are refused in the hello */
    const char *address;                       /* our identity: what others call us */
    const char *listen_address;                /* NULL: same as address */
    size_t send_queue_bytes;                   /* most bytes queued for one peer, 0: default */
    size_t frame_bytes_max;                    /* largest frame accepted or sent, 0: default */
    uint32_t n_loops;                          /* event-loop threads, 0: default */
    const struct nh_plugin_services *services; /* lives as long as the transport */
    /* What hosts must have in common besides, as nh_host_config says: peers with another one are refused in the hello, unless
     * theirs or ours is 0. */
    uint64_t data_layout;
    bool no_polling; /* a thread that waits for messages sleeps at once: nh_host_config */
};

struct nh_transport_ops {
    uint32_t abi_version; /* NH_TRANSPORT_ABI */
    uint32_t struct_size;
    const char *name;

    /* Makes a transport; nothing runs yet. Strings of the config are copied. Required. */
    int (*open)(const struct nh_transport_config *config, const struct nh_transport_handlers *handlers, struct nh_transport **ret,
                struct nh_error *err);
    /* Starts listening and the threads. Errors: EIO with the address in the text. Required. */
    int (*start)(struct nh_transport *t, struct nh_error *err);
    /* Stops: connections are closed, queued batches are given up, threads joined. Connections handed out become
     * invalid. Takes NULL. Required. */
    void (*close)(struct nh_transport *t);

    /* A connection to the host at `target`; returns at once, connecting happens behind it and is retried with back-off
     * for as long as there is something to send. The same target may give the same connection. Required. */
    int (*get_connection)(struct nh_transport *t, const char *target, struct nh_connection **ret, struct nh_error *err);
    /* Queues a batch; what is needed is copied or retained before it returns. NH_OK: queued, at most once. NH_EBUSY: the
     * queue of this peer is full, nothing was queued and no `unreachable` follows. NH_EINVAL: contains a local-only type or
     * exceeds frame_bytes_max. A batch without messages is sent too: it tells the other host that we live. Required. */
    int (*send_batch)(struct nh_connection *c, const struct nh_message_batch *batch, struct nh_error *err);
    /* Gives the connection back; what is queued may still be sent. Required. */
    void (*close_connection)(struct nh_connection *c);

    /* The three for snapshots are optional, all or none: without them nobody is sent one, and a replica that is behind the log of
     * its leader stays so. */

    /* A connection of its own for the chunks of one snapshot. NH_EBUSY: no more are allowed at once; it is asked for again. */
    int (*get_snapshot_connection)(struct nh_transport *t, const char *target, struct nh_snapshot_connection **ret,
                                   struct nh_error *err);
    /* Sends one chunk, in order; blocks (snapshot workers only) until it is handed to the network or the connection
     * failed (EIO), which it reports. Data is borrowed for the call. */
    int (*send_chunk)(struct nh_snapshot_connection *c, const struct nh_chunk *chunk, struct nh_error *err);
    void (*close_snapshot_connection)(struct nh_snapshot_connection *c);
    /* since 1.0 ends here; append below */

    /* After calls of on_batch comes one of on_drained, soon and on the same thread, which holds no lock that another function of
     * this table takes. With it a quiet host spares the switch to a thread of its own. */
    bool calls_on_drained;
};

NH_END_DECLS
#endif
