#include "engine/snapshot_producer.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

/* How often a production looks whether there is room again. */
#define ROOM_NS 1000000ull

struct producers {
    struct runtime *runtime;
    void (*wake)(void *ctx);
    void *ctx;
    struct task *tasks[PRODUCER_TASKS];
    pthread_mutex_t lock;
    struct list jobs;  /* guarded by lock; productions that have not begun */
    uint64_t n_writes; /* atomic; of all productions */
};

enum production_state { PRODUCTION_QUEUED, PRODUCTION_RUNNING, PRODUCTION_OVER };

struct production {
    struct list link; /* guarded by lock */
    struct producers *owner;
    const struct stream_producer *producer;
    uint64_t first;
    bool stop;         /* atomic */
    uint64_t n_writes; /* atomic */
    /* of the task that runs it */
    struct produced_chunk *filling;
    uint64_t count; /* chunks that are complete, and chunk 0 */
    /* guarded by the owner's lock */
    enum production_state state;
    struct queue ready;
    uint32_t n_ready;
    int code;
    struct nh_error err;
};

/* ---- on a producer's task ---- */

static bool is_stopped(const struct production *r)
{
    return __atomic_load_n(&r->stop, __ATOMIC_ACQUIRE);
}

static bool has_room(struct production *r)
{
    bool room;

    pthread_mutex_lock(&r->owner->lock);
    room = r->n_ready < PRODUCER_CHUNKS_MAX;
    pthread_mutex_unlock(&r->owner->lock);
    return room;
}

static void wait_for_room(struct production *r)
{
    struct runtime *rt = r->owner->runtime;

    while (!is_stopped(r) && !has_room(r))
        if (!rt->ops->sleep_ns(rt, ROOM_NS))
            return;
}

/* The chunk that was filled is complete. */
static void hand_over(struct production *r, bool last)
{
    struct produced_chunk *c = r->filling;

    c->chunk_id = r->count++;
    if (c->chunk_id < r->first) {
        c->size_bytes = 0;
        return;
    }
    c->last = last;
    r->filling = NULL;
    wait_for_room(r);
    pthread_mutex_lock(&r->owner->lock);
    queue_push(&r->ready, &c->node);
    r->n_ready++;
    pthread_mutex_unlock(&r->owner->lock);
    r->owner->wake(r->owner->ctx);
}

static struct produced_chunk *chunk_new(void)
{
    struct produced_chunk *c = xmalloc(sizeof *c);

    c->node.next = NULL;
    c->last = false;
    c->size_bytes = 0;
    return c;
}

/* A full chunk is kept until more comes: only then is it known not to be the last one. */
static int sink_write(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    struct production *r = ctx;
    const uint8_t *from = data;

    __atomic_add_fetch(&r->n_writes, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&r->owner->n_writes, 1, __ATOMIC_RELAXED);
    while (size_bytes > 0) {
        size_t n;

        if (is_stopped(r))
            return nh_error_set(err, NH_ECLOSED, "the stream has ended");
        if (r->filling && r->filling->size_bytes == STREAM_CHUNK_BYTES)
            hand_over(r, false);
        if (!r->filling)
            r->filling = chunk_new();
        n = STREAM_CHUNK_BYTES - r->filling->size_bytes;
        n = n < size_bytes ? n : size_bytes;
        memcpy(r->filling->data + r->filling->size_bytes, from, n);
        r->filling->size_bytes += n;
        from += n;
        size_bytes -= n;
    }
    return NH_OK;
}

static void produce(struct production *r)
{
    const struct image_sink sink = {sink_write, r};
    struct nh_error err = {0};
    int code = r->producer->produce(r->producer->ctx, &sink, &r->stop, &err);

    if (code == NH_OK && !r->filling)
        code = nh_error_set(&err, NH_EMACHINE, "an empty image was produced");
    if (code == NH_OK)
        hand_over(r, true);
    free(r->filling);
    r->filling = NULL;
    pthread_mutex_lock(&r->owner->lock);
    r->state = PRODUCTION_OVER;
    r->code = code;
    r->err = err;
    pthread_mutex_unlock(&r->owner->lock);
}

static struct production *next_job(struct producers *p)
{
    struct production *r = NULL;
    struct list *at;

    pthread_mutex_lock(&p->lock);
    at = list_pop_front(&p->jobs);
    if (at) {
        r = container_of(at, struct production, link);
        r->state = PRODUCTION_RUNNING;
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

static uint64_t poll(void *arg)
{
    struct producers *p = arg;
    struct production *r = next_job(p);

    if (!r)
        return TASK_POLL_NEVER;
    produce(r); /* its owner may free it from here on */
    p->wake(p->ctx);
    return TASK_POLL_NOW;
}

/* ---- the owner ---- */

struct producers *producers_new(struct runtime *runtime, void (*wake)(void *ctx), void *ctx)
{
    struct producers *p = xcalloc(1, sizeof *p);

    p->runtime = runtime;
    p->wake = wake;
    p->ctx = ctx;
    pthread_mutex_init(&p->lock, NULL);
    list_init(&p->jobs);
    return p;
}

void producers_start(struct producers *p)
{
    for (uint32_t i = 0; i < PRODUCER_TASKS; i++)
        p->tasks[i] = p->runtime->ops->task_start(p->runtime, "nh-produce", poll, p);
}

void producers_stop(struct producers *p)
{
    for (uint32_t i = 0; i < PRODUCER_TASKS; i++)
        p->runtime->ops->task_stop(p->tasks[i]);
}

void producers_free(struct producers *p)
{
    if (!p)
        return;
    assert(list_empty(&p->jobs));
    for (uint32_t i = 0; i < PRODUCER_TASKS; i++)
        p->runtime->ops->task_free(p->tasks[i]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

struct production *production_new(struct producers *p, const struct stream_producer *producer, uint64_t first)
{
    struct production *r = xcalloc(1, sizeof *r);

    r->owner = p;
    r->producer = producer;
    r->first = first;
    r->count = 1;
    pthread_mutex_lock(&p->lock);
    list_push_back(&p->jobs, &r->link);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < PRODUCER_TASKS; i++) /* one of them may be busy for long */
        if (p->tasks[i])
            p->runtime->ops->task_wake(p->tasks[i]);
    return r;
}

void production_stop(struct production *r)
{
    __atomic_store_n(&r->stop, true, __ATOMIC_RELEASE);
    pthread_mutex_lock(&r->owner->lock);
    if (r->state == PRODUCTION_QUEUED) {
        list_remove(&r->link);
        r->state = PRODUCTION_OVER;
        r->code = nh_error_set(&r->err, NH_ECLOSED, "the stream has ended");
    }
    pthread_mutex_unlock(&r->owner->lock);
}

struct produced_chunk *production_take(struct production *r)
{
    struct queue_node *n;

    pthread_mutex_lock(&r->owner->lock);
    n = queue_pop(&r->ready);
    r->n_ready -= n != NULL;
    pthread_mutex_unlock(&r->owner->lock);
    return n ? container_of(n, struct produced_chunk, node) : NULL;
}

bool production_over(struct production *r, int *ret_code, uint64_t *ret_count, struct nh_error *err)
{
    bool over;

    pthread_mutex_lock(&r->owner->lock);
    over = r->state == PRODUCTION_OVER;
    if (over) {
        *ret_code = r->code;
        *ret_count = r->count;
        *err = r->err;
    }
    pthread_mutex_unlock(&r->owner->lock);
    return over;
}

uint64_t production_progress(struct production *r, bool *ret_begun)
{
    pthread_mutex_lock(&r->owner->lock);
    *ret_begun = r->state != PRODUCTION_QUEUED;
    pthread_mutex_unlock(&r->owner->lock);
    return __atomic_load_n(*ret_begun ? &r->n_writes : &r->owner->n_writes, __ATOMIC_RELAXED);
}

void production_free(struct production *r)
{
    struct produced_chunk *c;

    if (!r)
        return;
    assert(r->state == PRODUCTION_OVER);
    while ((c = production_take(r)))
        free(c);
    free(r);
}
