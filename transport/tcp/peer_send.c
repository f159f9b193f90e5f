#include "transport/tcp/peer.h"

#include <assert.h>

#include "transport/tcp/tcp_private.h"

/* The frames of a peer: waiting -> writing -> written, or lost on the way. */

static struct out_frame *frame_of(struct queue_node *n)
{
    return container_of(n, struct out_frame, node);
}

static void add_waiting(struct peer *p, struct queue *frames)
{
    for (struct queue_node *n = frames->first; n; n = n->next)
        p->waiting_bytes += frame_of(n)->size_bytes;
    queue_splice(&p->waiting, frames);
}

void peer_take(struct peer *p)
{
    struct queue taken = {0};
    int error = send_queue_take(&p->queue, &taken, &p->orphan);

    if (error)
        peer_fail(p, "write: %s", uv_strerror(-error));
    p->lent &= queue_empty(&taken);
    add_waiting(p, &taken);
}

void peer_withdraw(struct peer *p)
{
    struct queue left = {0};

    send_queue_withdraw(&p->queue, &left);
    add_waiting(p, &left);
    p->lent = false;
}

static struct out_frame *pop_waiting(struct peer *p)
{
    struct out_frame *f = frame_of(queue_pop(&p->waiting));

    assert(p->waiting_bytes >= f->size_bytes);
    p->waiting_bytes -= f->size_bytes;
    return f;
}

/* Reports every message of these frames, frees them. At the end of the transport nobody is told. */
static void lose(struct peer *p, struct queue *frames)
{
    for (struct queue_node *n = frames->first; n && !p->loop->stopping; n = n->next)
        tcp_unreachable(p->transport, frame_of(n)->to, frame_of(n)->n_to);
    send_queue_release(&p->queue, frames, OUT_LOST);
}

void peer_give_up(struct peer *p)
{
    struct queue lost = {0};

    queue_splice(&lost, &p->waiting);
    p->waiting_bytes = 0;
    lose(p, &lost);
}

void peer_trim(struct peer *p)
{
    uint64_t now = uv_now(&p->loop->uv);
    struct queue lost = {0};

    while (!p->snapshot && !queue_empty(&p->waiting)) {
        const struct out_frame *oldest = frame_of(p->waiting.first);
        bool stale = now >= oldest->queued_ms + TCP_WAIT_MS;
        bool too_many = p->waiting_bytes > TCP_WAIT_BYTES_MAX && oldest->node.next;

        if (!stale && !too_many)
            break;
        queue_push(&lost, &pop_waiting(p)->node);
    }
    lose(p, &lost);
}

/* ---- writing ---- */

static void on_written(uv_write_t *req, int status)
{
    struct peer *p = req->data;

    if (status == 0) {
        send_queue_release(&p->queue, &p->writing, OUT_WRITTEN);
    } else {
        lose(p, &p->writing);
        peer_fail(p, "write: %s", uv_strerror(status));
    }
    peer_tick(p);
}

/* Moves the next frames from waiting to writing. */
static unsigned gather(struct peer *p, uv_buf_t bufs[PEER_WRITE_FRAMES])
{
    size_t bytes = 0;
    unsigned n = 0;

    while (n < PEER_WRITE_FRAMES && bytes < PEER_WRITE_BYTES && !queue_empty(&p->waiting)) {
        struct out_frame *f = pop_waiting(p);

        bufs[n++] = uv_buf_init((char *)f->data + f->written_bytes, (unsigned)(f->size_bytes - f->written_bytes));
        bytes += f->size_bytes - f->written_bytes;
        queue_push(&p->writing, &f->node);
    }
    TCP_COUNT(p->transport, frames_sent, n);
    TCP_COUNT(p->transport, bytes_sent, bytes);
    return n;
}

static void lend(struct peer *p)
{
    int fd;

    if (p->lent || p->snapshot || p->orphan || uv_fileno((uv_handle_t *)&p->tcp, &fd) < 0)
        return;
    p->lent = true;
    send_queue_lend(&p->queue, fd);
}

/* Some of the first frame may have been written by a sender; it goes on behind that. */
static void write_waiting(struct peer *p)
{
    uv_buf_t bufs[PEER_WRITE_FRAMES];
    unsigned n = gather(p, bufs);
    int r;

    p->write_req.data = p;
    r = uv_write(&p->write_req, (uv_stream_t *)&p->tcp, bufs, n, on_written);
    if (r < 0) { /* nothing was queued, no callback follows */
        lose(p, &p->writing);
        peer_fail(p, "write: %s", uv_strerror(r));
    }
}

void peer_flush(struct peer *p)
{
    assert(p->state == PEER_UP);
    if (!queue_empty(&p->writing))
        return;
    if (queue_empty(&p->waiting))
        lend(p);
    else
        write_waiting(p);
}
