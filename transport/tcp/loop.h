/* transport/tcp/loop.h - an event-loop thread and the mailbox through which other threads reach it.
 *
 * Everything that belongs to a loop (peers, accepted connections, the listener) is touched by its thread only. Other
 * threads post tasks; the loop is woken once per batch of them, through an eventfd (cheaper than uv_async_t, which in
 * libuv 1.44 spins when sender and loop share a core).
 *
 * After a small read the thread polls for the next one if that usually comes soon (raftio/support/short_wait.h).
 *
 * Stopping: the stop task closes everything that the loop has; the thread ends when the last handle is closed. Tasks that
 * come later are run once more by loop_deinit, with `stopping` set, so that each can free what it carries.
 */
#ifndef NH_TRANSPORT_TCP_LOOP_H
#define NH_TRANSPORT_TCP_LOOP_H

#include <uv.h>

#include "raftio/support/list.h"
#include "raftio/support/mailbox.h"
#include "raftio/support/short_wait.h"
#include "raftio/transport.h"

/* Largest piece that is read from a socket at once; one buffer per loop. */
#define LOOP_READ_BYTES (256u * 1024u)
/* The thread polls for what comes after a read of so much: more is of a busy host, which has much to do and waits for nobody. */
#define LOOP_POLL_BYTES_MAX 512u
/* Lines about misbehaving strangers: at most so many per interval and loop. */
#define LOOP_WARNINGS_MAX         10u
#define LOOP_WARNINGS_INTERVAL_MS 5000u

struct tcp_loop;

/* Work for a loop. Embedded in what it is about. */
struct loop_task {
    struct queue_node node;
    void (*run)(struct tcp_loop *loop, struct loop_task *task); /* on the loop's thread; looks at loop->stopping first */
};

struct tcp_loop {
    struct nh_transport *transport;
    struct mailbox box;
    int wake_fd; /* eventfd; readable: the mailbox has something */
    struct loop_task stop;
    pthread_t thread;
    bool has_uv, has_thread;

    /* The rest belongs to the loop's thread. */
    uv_loop_t uv;
    uv_poll_t wake;
    bool stopping;
    struct list peers;     /* struct peer.on_loop */
    struct list inbounds;  /* struct inbound.on_loop */
    struct list strangers; /* struct inbound.on_strangers, the oldest first */
    uint32_t n_strangers;
    uint8_t *read_buffer;
    struct short_wait wait; /* for the next read */
    uv_idle_t polling;      /* active: the thread does not sleep */
    uint64_t warnings_since_ms;
    unsigned n_warnings, n_suppressed;
};

/* What posting needs: usable from now on, even before the thread runs. Errors: EIO. */
int loop_init(struct tcp_loop *l, struct nh_transport *t, struct nh_error *err);
/* Makes the event loop; handles may be added to it until loop_start. Errors: EIO. */
int loop_open(struct tcp_loop *l, struct nh_error *err);
/* Starts the thread. Errors: EIO. */
int loop_start(struct tcp_loop *l, struct nh_error *err);
/* Stops and joins the thread if it runs; closes all handles. */
void loop_stop(struct tcp_loop *l);
/* After loop_stop. Takes zeroed and half-built loops. */
void loop_deinit(struct tcp_loop *l);

void loop_post(struct tcp_loop *l, struct loop_task *task); /* thread: any */

/* A warning about something that strangers can cause as often as they like. Thread: the loop's. */
void loop_warn(struct tcp_loop *l, const char *fmt, ...) NH_PRINTF(2, 3);

/* Around what is done with bytes that were read from another host. Thread: the loop's. */
static inline void loop_read_begins(struct tcp_loop *l)
{
    short_wait_end(&l->wait);
}
void loop_read_ends(struct tcp_loop *l, size_t size_bytes);

/* For uv_read_start: hands out the loop's buffer, which is used up before the next read. */
void loop_read_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret);

#endif
