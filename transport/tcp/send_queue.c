#include "transport/tcp/send_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "raftio/support/memory.h"

struct out_frame *out_frame_new(size_t room_bytes, uint32_t n_to)
{
    struct out_frame *f = xmalloc(sizeof *f + n_to * sizeof f->to[0] + room_bytes);

    *f = (struct out_frame){.room_bytes = room_bytes, .size_bytes = room_bytes, .n_to = n_to};
    f->data = (uint8_t *)(f->to + n_to);
    return f;
}

void out_frame_free(struct out_frame *f)
{
    free(f);
}

static struct out_frame *frame_of(struct queue_node *n)
{
    return container_of(n, struct out_frame, node);
}

static void free_frames(struct queue *frames)
{
    struct queue_node *n;

    while ((n = queue_pop(frames)))
        out_frame_free(frame_of(n));
}

void send_queue_init(struct send_queue *b, size_t bytes_max, void (*wake)(struct send_queue *b))
{
    *b = (struct send_queue){.bytes_max = bytes_max, .wake = wake, .fd = -1};
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
}

void send_queue_deinit(struct send_queue *b)
{
    assert(b->n_senders == 0);
    free_frames(&b->in);
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

/* Tells the sender that waits for this frame, if any; b->lock is held. */
static void tell_sender(struct send_queue *b, struct out_frame *f, enum out_outcome outcome)
{
    if (!f->outcome)
        return;
    *f->outcome = outcome;
    pthread_cond_broadcast(&b->changed);
}

/* ---- writing by senders ---- */

/* The next frames, as far as they may go in one write. */
static unsigned gather(const struct send_queue *b, struct iovec iov[SEND_DIRECT_FRAMES])
{
    size_t bytes = 0;
    unsigned n = 0;

    for (struct queue_node *at = b->in.first; at && n < SEND_DIRECT_FRAMES; at = at->next) {
        struct out_frame *f = frame_of(at);

        bytes += f->size_bytes;
        if (bytes > SEND_DIRECT_BYTES_MAX)
            break;
        iov[n++] = (struct iovec){f->data, f->size_bytes};
    }
    return n;
}

/* One write that does not block and raises no signal. Returns the bytes that went, -1 and errno: an error. */
static ssize_t write_now(int fd, struct iovec *iov, unsigned n)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent;

    do {
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) ? 0 : sent;
}

static void add(uint64_t *counter, uint64_t n)
{
    if (counter && n)
        __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* `sent` bytes went. Frames that went whole give their bytes back and move to `done`. Returns how many. */
static unsigned advance(struct send_queue *b, size_t sent, struct queue *done)
{
    unsigned n = 0;

    add(b->bytes_sent, sent);
    while (sent > 0 && sent >= frame_of(b->in.first)->size_bytes) {
        struct out_frame *f = frame_of(queue_pop(&b->in));

        assert(b->bytes >= f->room_bytes);
        sent -= f->size_bytes;
        b->bytes -= f->room_bytes;
        tell_sender(b, f, OUT_WRITTEN);
        queue_push(done, &f->node);
        n++;
    }
    if (sent > 0)
        frame_of(b->in.first)->written_bytes = sent;
    add(b->frames_sent, n);
    return n;
}

/* One write; b->lock is held, but not while writing. Returns false if the rest is the loop's. */
static bool write_some(struct send_queue *b, struct queue *done)
{
    struct iovec iov[SEND_DIRECT_FRAMES];
    unsigned n = gather(b, iov);
    int fd = b->fd, error;
    ssize_t sent;

    if (fd < 0 || n == 0)
        return false;
    pthread_mutex_unlock(&b->lock);
    sent = write_now(fd, iov, n);
    error = errno;
    pthread_mutex_lock(&b->lock);
    if (sent < 0) {
        b->error = error;
        return false;
    }
    return advance(b, (size_t)sent, done) == n;
}

/* Writes what is queued as far as it goes at once, if the socket is lent and free; tells the loop if there is more to do.
 * What went is in `done`. b->lock is held, but not while writing. The caller counts as a sender. */
static void write_or_schedule(struct send_queue *b, struct queue *done)
{
    if (b->writing)
        return; /* that sender will write it, or tell the loop */
    if (b->fd < 0 || b->scheduled) {
        schedule(b);
        return;
    }
    b->writing = true;
    for (unsigned round = 0; round < SEND_DIRECT_ROUNDS && write_some(b, done); round++)
        ;
    b->writing = false;
    if (b->fd < 0)
        pthread_cond_broadcast(&b->changed); /* send_queue_withdraw */
    if (!queue_empty(&b->in))
        schedule(b);
}

int send_queue_post(struct send_queue *b, struct out_frame *f, struct nh_error *err)
{
    struct queue done = {0};
    bool closed;

    pthread_mutex_lock(&b->lock);
    closed = b->closed;
    if (closed) {
        leave(b, f->room_bytes);
    } else {
        queue_push(&b->in, &f->node);
        write_or_schedule(b, &done);
        leave(b, 0);
    }
    pthread_mutex_unlock(&b->lock);
    free_frames(&done);
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
        leave(b, f->room_bytes);
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

int send_queue_take(struct send_queue *b, struct queue *ret, bool *ret_orphan)
{
    int error = 0;

    pthread_mutex_lock(&b->lock);
    b->scheduled = false;
    *ret_orphan = b->orphan;
    if (!b->writing && !queue_empty(&b->in)) {
        b->fd = -1;
        error = b->error;
        queue_splice(ret, &b->in);
    }
    pthread_mutex_unlock(&b->lock);
    return error;
}

void send_queue_lend(struct send_queue *b, int fd)
{
    pthread_mutex_lock(&b->lock);
    assert(b->error == 0 && (b->fd < 0 || b->fd == fd));
    b->fd = fd;
    pthread_mutex_unlock(&b->lock);
}

void send_queue_withdraw(struct send_queue *b, struct queue *ret)
{
    pthread_mutex_lock(&b->lock);
    b->fd = -1;
    while (b->writing)
        pthread_cond_wait(&b->changed, &b->lock);
    b->error = 0;
    queue_splice(ret, &b->in);
    pthread_mutex_unlock(&b->lock);
}

void send_queue_release(struct send_queue *b, struct queue *frames, enum out_outcome outcome)
{
    struct queue_node *n;
    size_t bytes = 0;

    if (queue_empty(frames))
        return;
    for (n = frames->first; n; n = n->next)
        bytes += frame_of(n)->room_bytes;
    pthread_mutex_lock(&b->lock);
    assert(b->bytes >= bytes);
    b->bytes -= bytes;
    for (n = frames->first; n; n = n->next)
        tell_sender(b, frame_of(n), outcome);
    pthread_mutex_unlock(&b->lock);
    free_frames(frames);
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
