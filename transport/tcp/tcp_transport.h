/* transport/tcp/tcp_transport.h - the default ITransport: TCP, one connection per direction and host pair.
 *
 * Addresses are "host:port"; IPv6 stands in brackets; names are resolved anew for every attempt to connect.
 *
 * What it promises beyond raftio/transport.h:
 *   * Every batch is stamped with this host's deployment id and address; `source_address` of the caller is not looked at.
 *   * One peer's trouble is its own: each has its connection, its queue and its back-off.
 *   * send_batch writes a small batch to the socket itself if nothing is before it: one system call that does not block, with
 *     no lock held. Else, and for what the socket does not take, the loop's thread is woken (transport/tcp/send_queue.h).
 *   * A batch is lost, and reported, when it could not be written, or was written in part, when the connection broke; when it
 *     waited TCP_WAIT_MS for a connection; or at once while the peer is in back-off after a failed attempt. What the kernel
 *     took whole is not reported: it may have arrived. Nothing is ever sent twice. close() reports nothing.
 *   * A peer proves who it is (in the sense of the hello, not of cryptography) before the first batch is sent to it.
 */
#ifndef NH_TRANSPORT_TCP_TCP_TRANSPORT_H
#define NH_TRANSPORT_TCP_TCP_TRANSPORT_H

#include "raftio/transport.h"

/* ---- defaults and limits ---- */

#define TCP_SEND_QUEUE_BYTES_DEFAULT (64u * 1024u * 1024u)
/* The largest entry plus what is around it. */
#define TCP_FRAME_BYTES_DEFAULT (NH_ENTRY_PAYLOAD_MAX + 1024u * 1024u)
#define TCP_FRAME_BYTES_MIN     4096u
#define TCP_FRAME_BYTES_MAX     (1024u * 1024u * 1024u)
#define TCP_LOOPS_DEFAULT       1u
#define TCP_LOOPS_MAX           16u

#define TCP_PEERS_MAX   4096u /* connections to hosts; one more: EBUSY */
#define TCP_STREAMS_MAX 64u   /* outgoing snapshot connections; one more: EBUSY, and the image waits (nh_host_config) */

#define TCP_CONNECT_TIMEOUT_MS   5000u
#define TCP_HANDSHAKE_TIMEOUT_MS 5000u
#define TCP_BACKOFF_MIN_MS       50u
#define TCP_BACKOFF_MAX_MS       2000u
/* What waits for a connection is given up after this time, the oldest first also above so many bytes: stale protocol
 * messages are worth less than the news that they are lost. */
#define TCP_WAIT_MS        1000u
#define TCP_WAIT_BYTES_MAX (8u * 1024u * 1024u)
/* A peer that acknowledges nothing for so long is cut (TCP_USER_TIMEOUT); an idle one is probed. */
#define TCP_USER_TIMEOUT_MS      10000u
#define TCP_KEEPALIVE_IDLE_S     10
#define TCP_KEEPALIVE_INTERVAL_S 3
#define TCP_KEEPALIVE_PROBES     3

#define TCP_INBOUND_MAX     4096u /* accepted connections; more are closed at once */
#define TCP_HANDSHAKES_MAX  1024u /* of these, such as have not said hello; one more: the oldest is closed */
#define TCP_ACCEPT_PAUSE_MS 100u  /* when file descriptors or memory have run out */

const struct nh_transport_ops *nh_transport_tcp(void);

/* Counters since open. */
struct tcp_transport_stats {
    uint64_t accepted;        /* connections */
    uint64_t accepts_dropped; /* closed at once: a limit, or no descriptors */
    uint64_t refused;         /* hellos refused with a reason */
    uint64_t cut;             /* connections cut: broken frames, forbidden content, no hello in time */
    uint64_t frames_sent, bytes_sent;
    uint64_t frames_received;
    uint64_t messages_lost; /* reported as unreachable */
};

/* Thread: any. `t` must be one of ours. */
void tcp_transport_stats(const struct nh_transport *t, struct tcp_transport_stats *ret);

#endif
