/* The sender's threads: what was posted from elsewhere, whose turn it is, the end. One stream, step by step: snapshot_sending.c.
 */
#include "engine/snapshot_stream.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/snapshot_sender_private.h"
#include "raftio/support/memory.h"

/* Answers that wait for the sender's task; more are forgotten, and asked for again. */
#define ANSWERS_MAX 4096u
/* After a pass of this length what was posted comes first. A step may block for the transport's time-outs. */
#define PASS_NS 100000000ull

enum post_type { POST_SEND, POST_ANSWER, POST_CANCEL };

struct post {
    struct queue_node node;
    enum post_type type;
    struct stream *stream;    /* SEND */
    struct nh_message answer; /* ANSWER: without runs and snapshot */
    uint64_t shard_id;        /* CANCEL, as what follows */
    void (*done)(void *ctx);
    void *ctx;
};

/* ---- what was posted ---- */

static struct stream *find_stream(struct snapshot_sender *s, uint64_t shard_id, uint64_t from, uint64_t to)
{
    for (struct list *at = s->streams.next; at != &s->streams; at = at->next) {
        struct stream *st = container_of(at, struct stream, link);

        if (st->state != STREAM_ENDING && st->id.shard_id == shard_id && st->id.from == from && st->id.to == to)
            return st;
    }
    return NULL;
}

static void on_send(struct snapshot_sender *s, struct stream *st)
{
    struct stream *old = find_stream(s, st->id.shard_id, st->id.from, st->id.to);

    sending_share_rest(s, st);
    if (old)
        sending_end(s, old, true, STREAM_REPLACED);
    list_push_back(&s->streams, &st->link);
    s->config.started(s->config.ctx, &st->id);
}

static void on_answer_posted(struct snapshot_sender *s, const struct nh_message *m)
{
    struct stream *st = find_stream(s, m->shard_id, m->to, m->from);

    if (st && st->id.index == m->log_index && m->hint_high <= SNAPSHOT_REFUSED)
        sending_store_answer(st, m);
}

/* Ends streams of a shard; true: none is left. */
static bool cancel_shard(struct snapshot_sender *s, uint64_t shard_id)
{
    struct list *at, *next;
    bool left = false;

    for (at = s->streams.next; at != &s->streams; at = next) {
        struct stream *st = container_of(at, struct stream, link);

        next = at->next;
        if (st->id.shard_id != shard_id)
            continue;
        sending_end(s, st, true, "the replica is being stopped");
        left |= sending_step(s, st) == TASK_POLL_NEVER;
    }
    return !left;
}

static void handle(struct snapshot_sender *s, struct post *p)
{
    switch (p->type) {
    case POST_SEND: on_send(s, p->stream); break;
    case POST_ANSWER: on_answer_posted(s, &p->answer); break;
    case POST_CANCEL: queue_push(&s->cancels, &p->node); return;
    }
    free(p);
}

/* Answers those whose streams have all ended. */
static void work_on_cancels(struct snapshot_sender *s)
{
    struct queue waiting = {0};
    struct queue_node *n;

    while ((n = queue_pop(&s->cancels))) {
        struct post *p = container_of(n, struct post, node);

        if (!cancel_shard(s, p->shard_id)) {
            queue_push(&waiting, n);
            continue;
        }
        p->done(p->ctx);
        free(p);
    }
    s->cancels = waiting;
}

static void take_posts(struct snapshot_sender *s)
{
    struct queue taken = {0};
    struct queue_node *n;

    pthread_mutex_lock(&s->lock);
    queue_splice(&taken, &s->posts);
    s->n_answers = 0;
    pthread_mutex_unlock(&s->lock);
    while ((n = queue_pop(&taken)))
        handle(s, container_of(n, struct post, node));
    work_on_cancels(s);
}

/* ---- the task ---- */

static bool is_closed(struct snapshot_sender *s)
{
    bool closed;

    pthread_mutex_lock(&s->lock);
    closed = s->closed;
    pthread_mutex_unlock(&s->lock);
    return closed;
}

/* One step for each stream that was there at the beginning: a stream that moves goes behind the last of them. A pass that has to
 * end early is no loss for the others: who has held it up has moved, or waits for an answer now. */
static uint64_t poll(void *arg)
{
    struct snapshot_sender *s = arg;
    uint64_t next_ns = TASK_POLL_NEVER, began_ns;
    struct list *at, *next, *last;
    bool more;

    take_posts(s);
    began_ns = runtime_now_ns(s->config.runtime);
    last = s->streams.prev;
    more = !list_empty(&s->streams);
    for (at = s->streams.next; more; at = next) {
        uint64_t wanted;

        if (is_closed(s) || runtime_now_ns(s->config.runtime) - began_ns >= PASS_NS)
            return TASK_POLL_NOW;
        next = at->next;
        more = at != last;
        wanted = sending_step(s, container_of(at, struct stream, link));
        next_ns = wanted < next_ns ? wanted : next_ns;
    }
    work_on_cancels(s);
    return next_ns;
}

/* ---- any thread ---- */

static void wake(void *ctx)
{
    struct snapshot_sender *s = ctx;
    struct task *t = __atomic_load_n(&s->task, __ATOMIC_ACQUIRE);

    if (t)
        s->config.runtime->ops->task_wake(t);
}

/* False: the sender is closed, and the post still the caller's. */
static bool post(struct snapshot_sender *s, struct post *p)
{
    bool closed, fits;

    pthread_mutex_lock(&s->lock);
    closed = s->closed;
    fits = p->type != POST_ANSWER || s->n_answers < ANSWERS_MAX;
    if (!closed && fits) {
        queue_push(&s->posts, &p->node);
        s->n_answers += p->type == POST_ANSWER;
    }
    pthread_mutex_unlock(&s->lock);
    if (closed || !fits)
        return false;
    wake(s);
    return true;
}

void snapshot_sender_send(struct snapshot_sender *s, const struct stream_request *request)
{
    struct post *p = xcalloc(1, sizeof *p);

    p->type = POST_SEND;
    p->stream = sending_new(request);
    if (post(s, p))
        return;
    sending_free(p->stream);
    free(p);
}

void snapshot_sender_answer(struct snapshot_sender *s, const struct nh_message *m)
{
    struct post *p = xcalloc(1, sizeof *p);

    p->type = POST_ANSWER;
    p->answer = *m;
    p->answer.runs = NULL;
    p->answer.n_runs = 0;
    p->answer.snapshot = NULL;
    if (!post(s, p))
        free(p);
}

void snapshot_sender_cancel(struct snapshot_sender *s, uint64_t shard_id, void (*done)(void *ctx), void *ctx)
{
    struct post *p = xcalloc(1, sizeof *p);

    p->type = POST_CANCEL;
    p->shard_id = shard_id;
    p->done = done;
    p->ctx = ctx;
    if (post(s, p))
        return;
    free(p);
    done(ctx); /* a closed sender has no streams */
}

/* ---- the owner ---- */

int snapshot_sender_new(const struct snapshot_sender_config *config, struct snapshot_sender **ret, struct nh_error *err)
{
    struct snapshot_sender *s;

    if (!config->address || !config->address[0] || strlen(config->address) >= NH_ADDRESS_BYTES)
        return nh_error_set(err, NH_EINVAL, "snapshot sender: the address is missing or too long");
    s = xcalloc(1, sizeof *s);
    s->config = *config;
    memcpy(s->address, config->address, strlen(config->address) + 1);
    s->config.address = s->address;
    if (s->config.sending_max == 0)
        s->config.sending_max = STREAM_SENDING_MAX;
    s->buffer = xmalloc(STREAM_CHUNK_BYTES);
    s->producers = producers_new(config->runtime, wake, s);
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->streams);
    token_bucket_init(&s->bucket, config->bytes_per_s, runtime_now_ns(config->runtime));
    *ret = s;
    return NH_OK;
}

void snapshot_sender_start(struct snapshot_sender *s)
{
    struct runtime *rt = s->config.runtime;

    producers_start(s->producers);
    __atomic_store_n(&s->task, rt->ops->task_start(rt, "nh-send", poll, s), __ATOMIC_RELEASE);
    wake(s); /* who wanted to before there was a task could not */
}

/* The productions are told first, so that those who run come to their end. */
static void end_all(struct snapshot_sender *s)
{
    for (struct list *at = s->streams.next; at != &s->streams; at = at->next)
        sending_end(s, container_of(at, struct stream, link), true, "the host is being closed");
}

void snapshot_sender_stop(struct snapshot_sender *s)
{
    pthread_mutex_lock(&s->lock);
    s->closed = true;
    pthread_mutex_unlock(&s->lock);
    s->config.runtime->ops->task_stop(s->task);
    take_posts(s);
    end_all(s);
    producers_stop(s->producers);
    while (!list_empty(&s->streams))
        sending_step(s, container_of(s->streams.next, struct stream, link));
    work_on_cancels(s);
}

void snapshot_sender_free(struct snapshot_sender *s)
{
    if (!s)
        return;
    assert(list_empty(&s->streams) && queue_empty(&s->posts) && queue_empty(&s->cancels));
    s->config.runtime->ops->task_free(s->task);
    producers_free(s->producers);
    pthread_mutex_destroy(&s->lock);
    free(s->buffer);
    free(s);
}
