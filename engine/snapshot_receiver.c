/* The receiver's threads: the door, where chunks come in, the turns of the streams, the end. One stream, step by step:
 * snapshot_receiving.c. */
#include "engine/snapshot_stream.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/snapshot_receiver_private.h"
#include "raftio/support/memory.h"

/* Streams that wait at the door for their first answer, BUSY for most. More are turned away with their connections. */
#define DOOR_MAX 256u
/* Times that one stream may ask at once. */
#define HEADS_MAX 4u

struct cancel {
    struct queue_node node;
    uint64_t shard_id;
    void (*done)(void *ctx);
    void *ctx;
};

/* ---- the door: the transport's thread ---- */

/* Locked, as what follows. */
static struct receiving *find_stream(struct snapshot_receiver *r, const struct nh_chunk *c)
{
    for (struct list *at = r->streams.next; at != &r->streams; at = at->next) {
        struct receiving *st = container_of(at, struct receiving, link);

        if (st->shard_id == c->shard_id && st->replica_id == c->replica_id && st->from == c->from)
            return st;
    }
    return NULL;
}

static struct receiving *add_stream(struct snapshot_receiver *r, const struct nh_chunk *c)
{
    struct receiving *st;

    if (c->chunk_id != 0 || r->n_streams >= r->config.receiving_max + DOOR_MAX)
        return NULL;
    st = xcalloc(1, sizeof *st);
    st->shard_id = c->shard_id;
    st->replica_id = c->replica_id;
    st->from = c->from;
    list_push_back(&r->streams, &st->link);
    r->n_streams++;
    return st;
}

static bool put_parcel(struct snapshot_receiver *r, struct received_chunk *p)
{
    struct receiving *st = r->closed ? NULL : find_stream(r, &p->chunk);

    if (!st && !r->closed)
        st = add_stream(r, &p->chunk);
    if (!st || (p->batch ? st->n_heads >= HEADS_MAX : st->n_chunks >= STREAM_WINDOW))
        return false;
    st->n_heads += p->batch != NULL;
    st->n_chunks += p->batch == NULL;
    queue_push(&st->inbox, &p->node);
    return true;
}

static void wake(struct snapshot_receiver *r)
{
    struct task *t = __atomic_load_n(&r->task, __ATOMIC_ACQUIRE);

    if (t)
        r->config.runtime->ops->task_wake(t);
}

bool snapshot_receiver_chunk(struct snapshot_receiver *r, const struct nh_chunk *chunk)
{
    struct received_chunk *p = received_chunk_new(chunk, NULL);
    bool taken;

    if (!p)
        return false;
    pthread_mutex_lock(&r->lock);
    taken = put_parcel(r, p);
    pthread_mutex_unlock(&r->lock);
    if (taken)
        wake(r);
    else
        received_chunk_free(p);
    return taken;
}

/* ---- the task ---- */

static struct received_chunk *take_parcel(struct snapshot_receiver *r, struct receiving *st)
{
    struct queue_node *n;
    struct received_chunk *p = NULL;

    pthread_mutex_lock(&r->lock);
    n = queue_pop(&st->inbox);
    if (n) {
        p = container_of(n, struct received_chunk, node);
        st->n_heads -= p->batch != NULL;
        st->n_chunks -= p->batch == NULL;
    }
    pthread_mutex_unlock(&r->lock);
    return p;
}

/* Locked. */
static void unlink_stream(struct snapshot_receiver *r, struct receiving *st)
{
    list_remove(&st->link);
    r->n_streams--;
}

/* Of a stream that nobody finds any more. */
static void free_stream(struct snapshot_receiver *r, struct receiving *st)
{
    struct queue_node *n;

    receiving_drop(r, st);
    while ((n = queue_pop(&st->inbox)))
        received_chunk_free(container_of(n, struct received_chunk, node));
    free(st);
}

static void remove_stream(struct snapshot_receiver *r, struct receiving *st)
{
    pthread_mutex_lock(&r->lock);
    unlink_stream(r, st);
    pthread_mutex_unlock(&r->lock);
    free_stream(r, st);
}

/* A stream that is over stays while something waits for it: somebody may have asked again. */
static void remove_if_done(struct snapshot_receiver *r, struct receiving *st)
{
    bool done;

    pthread_mutex_lock(&r->lock);
    done = queue_empty(&st->inbox);
    if (done)
        unlink_stream(r, st);
    pthread_mutex_unlock(&r->lock);
    if (done)
        free_stream(r, st);
}

/* The streams as they are now: only this task takes one away. */
static uint32_t collect_streams(struct snapshot_receiver *r)
{
    uint32_t n = 0;

    pthread_mutex_lock(&r->lock);
    for (struct list *at = r->streams.next; at != &r->streams; at = at->next)
        r->turns[n++] = container_of(at, struct receiving, link);
    pthread_mutex_unlock(&r->lock);
    return n;
}

static void cancel_shard(struct snapshot_receiver *r, uint64_t shard_id)
{
    uint32_t n = collect_streams(r);

    for (uint32_t i = 0; i < n; i++)
        if (r->turns[i]->shard_id == shard_id)
            remove_stream(r, r->turns[i]);
}

static void work_on_cancels(struct snapshot_receiver *r)
{
    for (;;) {
        struct queue_node *n;
        struct cancel *c;

        pthread_mutex_lock(&r->lock);
        n = queue_pop(&r->cancels);
        pthread_mutex_unlock(&r->lock);
        if (!n)
            return;
        c = container_of(n, struct cancel, node);
        cancel_shard(r, c->shard_id);
        c->done(c->ctx);
        free(c);
    }
}

/* At most one chunk of each stream, so that none has to wait for long. */
static uint64_t poll(void *arg)
{
    struct snapshot_receiver *r = arg;
    uint64_t next = TASK_POLL_NEVER;
    uint32_t n;

    work_on_cancels(r);
    n = collect_streams(r);
    for (uint32_t i = 0; i < n; i++) {
        struct receiving *st = r->turns[i];
        struct received_chunk *p = take_parcel(r, st);
        uint64_t wanted = receiving_step(r, st, p);

        if (p)
            wanted = TASK_POLL_NOW;
        received_chunk_free(p);
        if (st->state == RECEIVING_OVER)
            remove_if_done(r, st);
        next = wanted < next ? wanted : next;
    }
    return next;
}

/* ---- the owner ---- */

int snapshot_receiver_new(const struct snapshot_receiver_config *config, struct snapshot_receiver **ret, struct nh_error *err)
{
    struct snapshot_receiver *r;

    if (config->receiving_max > STREAM_RECEIVING_LIMIT)
        return nh_error_set(err, NH_EINVAL, "snapshot receiver: at most %u streams at once", STREAM_RECEIVING_LIMIT);
    r = xcalloc(1, sizeof *r);
    r->config = *config;
    if (r->config.receiving_max == 0)
        r->config.receiving_max = STREAM_RECEIVING_MAX;
    r->turns = xcalloc(r->config.receiving_max + DOOR_MAX, sizeof(struct receiving *));
    r->buffer = xmalloc(STREAM_CHUNK_BYTES);
    pthread_mutex_init(&r->lock, NULL);
    list_init(&r->streams);
    *ret = r;
    return NH_OK;
}

void snapshot_receiver_start(struct snapshot_receiver *r)
{
    struct runtime *rt = r->config.runtime;

    __atomic_store_n(&r->task, rt->ops->task_start(rt, "nh-receive", poll, r), __ATOMIC_RELEASE);
    wake(r); /* who wanted to before there was a task could not */
}

static bool post_cancel(struct snapshot_receiver *r, struct cancel *c)
{
    bool closed;

    pthread_mutex_lock(&r->lock);
    closed = r->closed;
    if (!closed)
        queue_push(&r->cancels, &c->node);
    pthread_mutex_unlock(&r->lock);
    if (!closed)
        wake(r);
    return !closed;
}

void snapshot_receiver_cancel(struct snapshot_receiver *r, uint64_t shard_id, void (*done)(void *ctx), void *ctx)
{
    struct cancel *c = xcalloc(1, sizeof *c);

    *c = (struct cancel){.shard_id = shard_id, .done = done, .ctx = ctx};
    if (post_cancel(r, c))
        return;
    free(c);
    done(ctx); /* a closed receiver has no streams */
}

void snapshot_receiver_stop(struct snapshot_receiver *r)
{
    uint32_t n;

    pthread_mutex_lock(&r->lock);
    r->closed = true;
    pthread_mutex_unlock(&r->lock);
    r->config.runtime->ops->task_stop(r->task);
    work_on_cancels(r);
    n = collect_streams(r);
    for (uint32_t i = 0; i < n; i++)
        remove_stream(r, r->turns[i]);
}

void snapshot_receiver_free(struct snapshot_receiver *r)
{
    if (!r)
        return;
    assert(list_empty(&r->streams) && queue_empty(&r->cancels));
    r->config.runtime->ops->task_free(r->task);
    pthread_mutex_destroy(&r->lock);
    free(r->turns);
    free(r->buffer);
    free(r);
}
