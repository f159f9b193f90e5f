/* transport/tcp/listener.h - the listening socket: accepts, and deals connections out to the loops in turn.
 *
 * It accepts by hand (uv_poll_t + accept4) for two reasons: a uv_tcp_t cannot move to another loop, and when file
 * descriptors run out it must pause instead of being told about the same connection for ever.
 */
#ifndef NH_TRANSPORT_TCP_LISTENER_H
#define NH_TRANSPORT_TCP_LISTENER_H

#include "transport/tcp/loop.h"

struct listener {
    struct nh_transport *transport; /* NULL: never opened */
    struct tcp_loop *loop;
    int fd;         /* -1: none */
    uv_poll_t poll; /* these belong to the loop's thread once it runs */
    uv_timer_t pause;
    unsigned next_loop;
};

/* Binds and listens, before the loop's thread runs. Errors: EIO, with the address in the text. */
int listener_open(struct listener *l, struct tcp_loop *loop, const char *address, struct nh_error *err);
/* Closes the handles, if they are on this loop. Thread: the loop's. */
void listener_close(struct listener *l, const struct tcp_loop *loop);
/* Closes the socket, when the loop has stopped. Takes a zeroed listener. */
void listener_deinit(struct listener *l);

#endif
