#include "nodehost/events.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/list.h"
#include "raftio/support/memory.h"

struct event {
    struct queue_node node;
    enum event_type type;
    struct nh_leader_info leader;
    struct nh_replica_info info;
    bool snapshot;
    char *text; /* owned; NULL: none */
};

struct events {
    struct nh_raft_event_listener raft;
    struct nh_system_event_listener system;
    uint32_t queue_max;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct queue queue; /* guarded by lock, as all below */
    uint32_t n_queued;
    uint64_t n_dropped;
    bool stopping;
};

static __thread bool is_event_thread;

bool events_on_thread(void)
{
    return is_event_thread;
}

static void copy_listener(void *to, size_t to_bytes, const void *from)
{
    uint32_t from_bytes;

    if (!from)
        return;
    memcpy(&from_bytes, from, sizeof from_bytes); /* struct_size comes first */
    memcpy(to, from, from_bytes < to_bytes ? from_bytes : to_bytes);
}

struct events *events_new(const struct nh_raft_event_listener *raft, const struct nh_system_event_listener *system,
                          uint32_t queue_max)
{
    struct events *e = xcalloc(1, sizeof *e);

    copy_listener(&e->raft, sizeof e->raft, raft);
    copy_listener(&e->system, sizeof e->system, system);
    e->queue_max = queue_max ? queue_max : EVENTS_QUEUE_DEFAULT;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    return e;
}

static void event_free(struct event *ev)
{
    free(ev->text);
    free(ev);
}

void events_free(struct events *e)
{
    struct queue_node *node;

    if (!e)
        return;
    while ((node = queue_pop(&e->queue)))
        event_free(container_of(node, struct event, node));
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

/* ---- delivery ---- */

static void deliver_replica(const struct nh_system_event_listener *l, void (*call)(void *ctx, const struct nh_replica_info *info),
                            const struct event *ev)
{
    if (call)
        call(l->ctx, &ev->info);
}

static void deliver_connection(const struct nh_system_event_listener *l,
                               void (*call)(void *ctx, const struct nh_connection_info *info), const struct event *ev)
{
    struct nh_connection_info info = {ev->text, ev->snapshot};

    if (call)
        call(l->ctx, &info);
}

static void deliver_quarantine(const struct nh_system_event_listener *l, const struct event *ev)
{
    struct nh_quarantine_info info = {ev->info.shard_id, ev->info.replica_id, ev->text};

    if (l->replica_quarantined)
        l->replica_quarantined(l->ctx, &info);
}

static void deliver(const struct events *e, const struct event *ev)
{
    const struct nh_system_event_listener *l = &e->system;

    switch (ev->type) {
    case EVENT_LEADER_UPDATED:
        if (e->raft.leader_updated)
            e->raft.leader_updated(e->raft.ctx, &ev->leader);
        break;
    case EVENT_SHUTTING_DOWN:
        if (l->host_shutting_down)
            l->host_shutting_down(l->ctx);
        break;
    case EVENT_REPLICA_READY: deliver_replica(l, l->replica_ready, ev); break;
    case EVENT_REPLICA_UNLOADED: deliver_replica(l, l->replica_unloaded, ev); break;
    case EVENT_REPLICA_QUARANTINED: deliver_quarantine(l, ev); break;
    case EVENT_MEMBERSHIP_CHANGED: deliver_replica(l, l->membership_changed, ev); break;
    case EVENT_CONNECTED: deliver_connection(l, l->connection_established, ev); break;
    case EVENT_CONNECTION_FAILED: deliver_connection(l, l->connection_failed, ev); break;
    case EVENT_FENCED:
        if (l->logdb_fenced)
            l->logdb_fenced(l->ctx, ev->text);
        break;
    case EVENT_REPLICA_REMOVED: deliver_replica(l, l->replica_removed, ev); break;
    case EVENT_REPLICA_OVERLOADED: deliver_replica(l, l->replica_overloaded, ev); break;
    case EVENT_REPLICA_RELIEVED: deliver_replica(l, l->replica_relieved, ev); break;
    }
}

/* Takes everything queued; false when there is nothing and the host is closing. */
static bool take(struct events *e, struct queue *ret)
{
    pthread_mutex_lock(&e->lock);
    while (queue_empty(&e->queue) && !e->stopping)
        pthread_cond_wait(&e->changed, &e->lock);
    queue_splice(ret, &e->queue);
    e->n_queued = 0;
    pthread_mutex_unlock(&e->lock);
    return !queue_empty(ret);
}

static void *run(void *arg)
{
    struct events *e = arg;
    struct queue taken = {0};

    is_event_thread = true;
    pthread_setname_np(pthread_self(), "nh-events");
    while (take(e, &taken)) {
        struct queue_node *node;

        while ((node = queue_pop(&taken))) {
            struct event *ev = container_of(node, struct event, node);

            deliver(e, ev);
            event_free(ev);
        }
    }
    return NULL;
}

void events_start(struct events *e)
{
    if (pthread_create(&e->thread, NULL, run, e) != 0)
        abort(); /* as for memory: one thread at start, nothing safer to do without it */
    e->started = true;
}

void events_stop(struct events *e)
{
    if (!e->started)
        return;
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    e->started = false;
}

/* ---- posting ---- */

static bool is_heard(const struct events *e, enum event_type type)
{
    const struct nh_system_event_listener *l = &e->system;

    switch (type) {
    case EVENT_LEADER_UPDATED: return e->raft.leader_updated;
    case EVENT_SHUTTING_DOWN: return l->host_shutting_down;
    case EVENT_REPLICA_READY: return l->replica_ready;
    case EVENT_REPLICA_UNLOADED: return l->replica_unloaded;
    case EVENT_REPLICA_QUARANTINED: return l->replica_quarantined;
    case EVENT_MEMBERSHIP_CHANGED: return l->membership_changed;
    case EVENT_CONNECTED: return l->connection_established;
    case EVENT_CONNECTION_FAILED: return l->connection_failed;
    case EVENT_FENCED: return l->logdb_fenced;
    case EVENT_REPLICA_REMOVED: return l->replica_removed;
    case EVENT_REPLICA_OVERLOADED: return l->replica_overloaded;
    case EVENT_REPLICA_RELIEVED: return l->replica_relieved;
    }
    return false;
}

static void post(struct events *e, struct event *ev)
{
    bool queued;

    pthread_mutex_lock(&e->lock);
    queued = e->n_queued < e->queue_max && !e->stopping;
    if (queued) {
        queue_push(&e->queue, &ev->node);
        e->n_queued++;
        pthread_cond_signal(&e->changed);
    } else {
        e->n_dropped++;
    }
    pthread_mutex_unlock(&e->lock);
    if (!queued)
        event_free(ev);
}

void events_post_leader(struct events *e, const struct nh_leader_info *info)
{
    struct event *ev;

    if (!is_heard(e, EVENT_LEADER_UPDATED))
        return;
    ev = xcalloc(1, sizeof *ev);
    ev->type = EVENT_LEADER_UPDATED;
    ev->leader = *info;
    post(e, ev);
}

void events_post(struct events *e, enum event_type type, struct nh_replica_info info, const char *text)
{
    struct event *ev;

    if (!is_heard(e, type))
        return;
    ev = xcalloc(1, sizeof *ev);
    ev->type = type;
    ev->info = info;
    ev->text = xstrdup(text);
    post(e, ev);
}

void events_post_connection(struct events *e, enum event_type type, const char *address, bool snapshot)
{
    struct event *ev;

    if (!is_heard(e, type))
        return;
    ev = xcalloc(1, sizeof *ev);
    ev->type = type;
    ev->text = xstrdup(address);
    ev->snapshot = snapshot;
    post(e, ev);
}

uint64_t events_dropped(struct events *e)
{
    uint64_t n;

    pthread_mutex_lock(&e->lock);
    n = e->n_dropped;
    pthread_mutex_unlock(&e->lock);
    return n;
}
