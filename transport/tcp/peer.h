/* transport/tcp/peer.h - our side towards one host: the connection, its back-off, and what waits to be sent.
 *
 *                 something to send        address found           socket connected           hello answered
 *         IDLE ------------------> RESOLVING -----------> CONNECTING ------------> HELLO -----------------> UP
 *          ^  \_____ address is a number ________________/  ^   |                    |                       |
 *          |                         |                      |   | failed             | refused, broken       | broken
 *          |                         | no such name         |   v                    v                       |
 *          | timer                   v      next address    +-- DRAINING <-----------+-----------------------+
 *          +---------------------- BACKOFF <--------------------/  (socket is being closed)
 *
 *         any state --peer_close, or an orphan with nothing left to send--> CLOSING --live == 0--> CLOSED
 *         a snapshot stream that fails goes from DRAINING (RESOLVING) to CLOSING: it is never tried twice
 *
 * Frames wait in RESOLVING .. HELLO for at most TCP_WAIT_MS and TCP_WAIT_BYTES_MAX (those of streams as long as the attempt
 * lasts), are written in UP, many per system call, and are given up at once in BACKOFF. A frame leaves as written or lost,
 * exactly once, and gives its bytes back to the queue at that moment.
 *
 * In UP, while there is nothing to write, the socket is lent to the senders (transport/tcp/send_queue.h), except that of a
 * stream. The loan ends before the socket is closed, and what senders have left is then the loop's, to be given up.
 *
 * A peer is also the nh_connection and the nh_snapshot_connection that users hold.
 *
 * Threads: the loop's, except where it says any.
 */
#ifndef NH_TRANSPORT_TCP_PEER_H
#define NH_TRANSPORT_TCP_PEER_H

#include "transport/tcp/address.h"
#include "transport/tcp/frame.h"
#include "transport/tcp/loop.h"
#include "transport/tcp/send_queue.h"

/* Frames per write. */
#define PEER_WRITE_FRAMES 64u
/* A write takes no further frame once it has so many bytes. */
#define PEER_WRITE_BYTES (1024u * 1024u)
/* Addresses of one name that are tried, one after another. */
#define PEER_ADDRESSES_MAX 8u
#define PEER_AGE_CHECK_MS  250u

enum peer_state {
    PEER_IDLE,
    PEER_RESOLVING,
    PEER_CONNECTING,
    PEER_HELLO,
    PEER_UP,
    PEER_DRAINING,
    PEER_BACKOFF,
    PEER_CLOSING,
    PEER_CLOSED,
};

/* What callbacks have to tell; taken by the next tick. */
enum peer_news {
    PEER_RESOLVED = 1u << 0,
    PEER_CONNECTED = 1u << 1,
    PEER_ANSWERED = 1u << 2,
    PEER_FAILED = 1u << 3, /* why: reason */
    PEER_SOCKET_CLOSED = 1u << 4,
    PEER_TIMER = 1u << 5,
    PEER_CLOSE = 1u << 6,
};

struct peer {
    struct nh_transport *transport;
    struct tcp_loop *loop;
    struct tcp_address target;
    char address[NH_ADDRESS_BYTES];
    bool snapshot;    /* a stream of chunks, one attempt only */
    struct list link; /* nh_transport.peers, guarded by its lock */
    uint32_t n_users; /* guarded by the transport's lock; 0: orphan */
    struct send_queue queue;
    struct loop_task task; /* "look into the queue" */

    /* The rest belongs to the loop. */
    struct list on_loop; /* tcp_loop.peers */
    bool attached;       /* handles exist */
    bool wants;          /* connect, even with nothing to send */
    bool orphan;         /* as last seen in the queue */
    bool lent;           /* the socket is, or was until a take */
    enum peer_state state;
    uint32_t news; /* enum peer_news */
    char reason[NH_ERROR_TEXT_BYTES];
    char logged[NH_ERROR_TEXT_BYTES]; /* the last reason that the log was told, until it is up */
    unsigned live;                    /* handles and requests that call back once more */
    unsigned n_failed;                /* attempts since it was last up */
    uint64_t random;                  /* for jitter */

    struct queue waiting; /* to be written */
    size_t waiting_bytes;
    struct queue writing; /* given to libuv */

    struct sockaddr_storage addresses[PEER_ADDRESSES_MAX];
    unsigned n_addresses, next_address;
    struct frame_parser parser; /* of the answer to our hello */
    uint8_t hello[FRAME_HEADER_BYTES + FRAME_HELLO_BYTES_MAX];
    uv_tcp_t tcp;
    uv_timer_t timer;     /* of the state: connecting, hello, back-off */
    uv_timer_t age_timer; /* of what waits */
    uv_getaddrinfo_t resolve_req;
    uv_connect_t connect_req;
    uv_write_t hello_req, write_req;
};

/* Makes a peer with one user; the caller lists it. Thread: any. */
struct peer *peer_new(struct nh_transport *t, const char *address, const struct tcp_address *target, bool snapshot);
/* When it is closed, or its loop has stopped: refuses further frames, gives up the rest, waits for senders inside. */
void peer_join(struct peer *p);
/* Joins and frees. */
void peer_free(struct peer *p);
/* Begins to connect without waiting for something to send. Thread: any, before others know the peer. */
void peer_connect(struct peer *p);
/* Closes it, at the end of the loop and after send_queue_close; what waits is lost. */
void peer_close(struct peer *p);

/* peer_send.c */

/* Takes what senders have posted. */
void peer_take(struct peer *p);
/* Begins a write if something waits and none is under way; lends the socket if nothing is to be written. */
void peer_flush(struct peer *p);
/* Before the socket is closed: no sender will use it, and what they have left waits here. */
void peer_withdraw(struct peer *p);
/* Gives up what has waited too long. */
void peer_trim(struct peer *p);
/* Gives up all that waits. */
void peer_give_up(struct peer *p);

/* peer.c: notes that the attempt or the connection has failed; the next tick sees it. The first reason counts. */
void peer_fail(struct peer *p, const char *fmt, ...) NH_PRINTF(2, 3);
/* Does what the state and the news ask for. May free an orphan that is closed. */
void peer_tick(struct peer *p);

#endif
