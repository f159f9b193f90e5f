#include "transport/tcp/send_queue.h"

#include <assert.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

struct out_frame *out_frame_new(size_t size_bytes, uint32_t n_to)
{
    struct out_frame *f = xmalloc(sizeof *f + size_bytes);

    *f = (struct out_frame){.size_bytes = size_bytes, .n_to = n_to};
    if (n_to)
        f->to = xmalloc(n_to * sizeof *f->to);
    return f;
}

void out_frame_free(struct out_frame *f)
{
    if (f)
        free(f->to);
    free(f);
}

void send_queue_init(struct send_queue *b, size_t bytes_max, void (*wake)(struct send_queue *b))
{
    *b = (struct send_queue){.bytes_max = bytes_max, .wake = wake};
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
}

void send_queue_deinit(struct send_queue *b)
{
    struct queue_node *n;

    assert(b->n_senders == 0);
    while ((n = queue_pop(&b->in)))
        out_frame_free(container_of(n, struct out_frame, node));
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
}

/* ---- senders ---- */

int send_queue_reserve(struct send_queue *b, size_t size_bytes, struct nh_error *err)
{
    int r = NH_OK;
    size_t bytes;

    pthread_mutex_lock(&b->lock);
    bytes = b->bytes;
    if (b->closed)
        r = NH_ECLOSED;
    else if (bytes > 0 && (size_bytes > b->bytes_max || bytes > b->bytes_max - size_bytes))
        r = NH_EBUSY;
    if (r == NH_OK) {
        b->bytes += size_bytes;
        b->n_senders++;
    }
    pthread_mutex_unlock(&b->lock);
    if (r == NH_EBUSY)
        return nh_error_set(err, r, "send queue full: %zu of %zu bytes wait, the batch needs %zu", bytes, b->bytes_max,
                            size_bytes);
    return r == NH_OK ? NH_OK : nh_error_set(err, r, "the transport is closed");
}

/* Gives back a reservation; b->lock is held. */
static void leave(struct send_queue *b, size_t size_bytes)
{
    assert(b->n_senders > 0 && b->bytes >= size_bytes);
    b->bytes -= size_bytes;
    b->n_senders--;
    if (b->closed)
        pthread_cond_broadcast(&b->changed); /* send_queue_join */
}

void send_queue_cancel(struct send_queue *b, size_t size_bytes)
{
    pthread_mutex_lock(&b->lock);
    leave(b, size_bytes);
    pthread_mutex_unlock(&b->lock);
}

/* Tells the loop, unless it was told; b->lock is held, but not while telling. The caller counts as a sender, which keeps
 * the queue alive meanwhile. */
static void schedule(struct send_queue *b)
{
    assert(b->n_senders > 0);
    if (b->scheduled || b->closed)
        return;
    b->scheduled = true;
    pthread_mutex_unlock(&b->lock);
    b->wake(b);
    pthread_mutex_lock(&b->lock);
}

int send_queue_post(struct send_queue *b, struct out_frame *f, struct nh_error *err)
{
    bool closed;

    pthread_mutex_lock(&b->lock);
    closed = b->closed;
    if (closed) {
        leave(b, f->size_bytes);
    } else {
        queue_push(&b->in, &f->node);
        schedule(b);
        leave(b, 0);
    }
    pthread_mutex_unlock(&b->lock);
    if (!closed)
        return NH_OK;
    out_frame_free(f);
    return nh_error_set(err, NH_ECLOSED, "the transport is closed");
}

enum out_outcome send_queue_post_and_wait(struct send_queue *b, struct out_frame *f)
{
    enum out_outcome outcome = OUT_PENDING;
    bool closed;

    pthread_mutex_lock(&b->lock);
    closed = b->closed;
    if (closed) {
        leave(b, f->size_bytes);
    } else {
        f->outcome = &outcome;
        queue_push(&b->in, &f->node);
        schedule(b);
        while (outcome == OUT_PENDING)
            pthread_cond_wait(&b->changed, &b->lock);
        leave(b, 0);
    }
    pthread_mutex_unlock(&b->lock);
    if (closed)
        out_frame_free(f);
    return closed ? OUT_LOST : outcome;
}

/* Tells the loop without a frame. */
static void kick(struct send_queue *b, bool orphan)
{
    pthread_mutex_lock(&b->lock);
    b->orphan |= orphan;
    b->n_senders++;
    schedule(b);
    leave(b, 0);
    pthread_mutex_unlock(&b->lock);
}

void send_queue_kick(struct send_queue *b)
{
    kick(b, false);
}

void send_queue_orphan(struct send_queue *b)
{
    kick(b, true);
}

/* ---- loop ---- */

void send_queue_take(struct send_queue *b, struct queue *ret, bool *ret_orphan)
{
    pthread_mutex_lock(&b->lock);
    queue_splice(ret, &b->in);
    b->scheduled = false;
    *ret_orphan = b->orphan;
    pthread_mutex_unlock(&b->lock);
}

void send_queue_release(struct send_queue *b, struct queue *frames, enum out_outcome outcome)
{
    struct queue_node *n;
    bool told = false;
    size_t bytes = 0;

    if (queue_empty(frames))
        return;
    for (n = frames->first; n; n = n->next)
        bytes += container_of(n, struct out_frame, node)->size_bytes;
    pthread_mutex_lock(&b->lock);
    assert(b->bytes >= bytes);
    b->bytes -= bytes;
    for (n = frames->first; n; n = n->next) {
        struct out_frame *f = container_of(n, struct out_frame, node);

        if (f->outcome) {
            *f->outcome = outcome;
            told = true;
        }
    }
    if (told)
        pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    while ((n = queue_pop(frames)))
        out_frame_free(container_of(n, struct out_frame, node));
}

void send_queue_close(struct send_queue *b)
{
    pthread_mutex_lock(&b->lock);
    b->closed = true;
    pthread_mutex_unlock(&b->lock);
}

void send_queue_join(struct send_queue *b)
{
    pthread_mutex_lock(&b->lock);
    while (b->n_senders > 0)
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}
