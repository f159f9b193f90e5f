/* transport/tcp/inbound.h - a connection that another host opened to us.
 *
 *        hello accepted             closed by them, broken, cut
 *   HELLO -------------> OPEN ------------------------------------> CLOSING -both handles closed-> freed
 *     |  |                                                             ^
 *     |  +-- refused --> REFUSING -- the reason is written, or timer --+
 *     +-- broken, no hello in time ------------------------------------+
 *
 * Until the hello is accepted, one frame of FRAME_HELLO_BYTES_MAX is all that is read, and TCP_HANDSHAKE_TIMEOUT_MS all the
 * time there is. Of those who have not said it the oldest gives way to one too many: hosts say it at once. Whatever breaks a rule
 * is cut, counted and logged (not more often than loop_warn allows).
 *
 * Threads: the loop's, except inbound_admit and inbound_discard (any).
 */
#ifndef NH_TRANSPORT_TCP_INBOUND_H
#define NH_TRANSPORT_TCP_INBOUND_H

#include "transport/tcp/frame.h"
#include "transport/tcp/loop.h"

enum inbound_state { INBOUND_HELLO, INBOUND_REFUSING, INBOUND_OPEN, INBOUND_CLOSING };

struct inbound {
    struct list on_loop;      /* tcp_loop.inbounds */
    struct list on_strangers; /* tcp_loop.strangers, in HELLO */
    struct nh_transport *transport;
    struct tcp_loop *loop;
    enum inbound_state state;
    unsigned live; /* handles that are not closed */
    uv_tcp_t tcp;
    uv_timer_t timer; /* of the handshake */
    uv_write_t answer_req;
    uint8_t answer[FRAME_HEADER_BYTES + FRAME_HELLO_BYTES_MAX];
    struct frame_parser parser;
    char source[NH_ADDRESS_BYTES]; /* from the hello */
    bool snapshot;
    char remote[64]; /* address of the socket, for the log */
};

/* Counts a new connection in, or closes it: the limits. Returns true if it may be opened. */
bool inbound_admit(struct nh_transport *t, int fd);
/* Closes an admitted connection that was never opened. */
void inbound_discard(struct nh_transport *t, int fd);
/* Takes over an admitted connection. */
void inbound_open(struct tcp_loop *loop, int fd);
/* For the end of the loop: no handler is called. Frees itself. */
void inbound_close(struct inbound *in);

#endif
