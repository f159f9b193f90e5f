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
    struct nh_snapshot_info snapshot_info;
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
    struct nh_snapshot_info *sends; /* begun, told of, not ended */
    size_t n_sends, cap_sends;
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
    free(e->sends);
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

static void deliver_snapshot(const struct nh_system_event_listener *l,
                             void (*call)(void *ctx, const struct nh_snapshot_info *info), const struct event *ev)
{
    if (call)
        call(l->ctx, &ev->snapshot_info);
}

static void deliver_entry(const struct nh_system_event_listener *l, void (*call)(void *ctx, const struct nh_entry_info *info),
                          const struct event *ev)
{
    struct nh_entry_info info = {ev->snapshot_info.shard_id, ev->snapshot_info.replica_id, ev->snapshot_info.index};

    if (call)
        call(l->ctx, &info);
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
    case EVENT_REPLICA_DELETED: deliver_replica(l, l->replica_deleted, ev); break;
    case EVENT_SEND_STARTED: deliver_snapshot(l, l->send_snapshot_started, ev); break;
    case EVENT_SEND_COMPLETED: deliver_snapshot(l, l->send_snapshot_completed, ev); break;
    case EVENT_SEND_ABORTED: deliver_snapshot(l, l->send_snapshot_aborted, ev); break;
    case EVENT_SNAPSHOT_RECEIVED: deliver_snapshot(l, l->snapshot_received, ev); break;
    case EVENT_SNAPSHOT_RECOVERED: deliver_snapshot(l, l->snapshot_recovered, ev); break;
    case EVENT_SNAPSHOT_CREATED: deliver_snapshot(l, l->snapshot_created, ev); break;
    case EVENT_SNAPSHOT_COMPACTED: deliver_snapshot(l, l->snapshot_compacted, ev); break;
    case EVENT_LOG_COMPACTED: deliver_entry(l, l->log_compacted, ev); break;
    case EVENT_LOGDB_COMPACTED: deliver_entry(l, l->logdb_compacted, ev); break;
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

/* ---- the queue; with the lock ---- */

enum place { PLACE_IF_FREE, PLACE_KEPT, PLACE_NONE };

static bool enqueue(struct events *e, struct event *ev, enum place place)
{
    if (e->stopping || place == PLACE_NONE || (place == PLACE_IF_FREE && e->n_queued >= e->queue_max)) {
        e->n_dropped++;
        return false;
    }
    if (ev->type == EVENT_SEND_STARTED) {
        array_reserve((void **)&e->sends, &e->cap_sends, e->n_sends + 1, sizeof *e->sends);
        e->sends[e->n_sends++] = ev->snapshot_info;
    }
    queue_push(&e->queue, &ev->node);
    e->n_queued++;
    pthread_cond_signal(&e->changed);
    return true;
}

static bool is_same_send(const struct nh_snapshot_info *a, const struct nh_snapshot_info *b)
{
    return a->shard_id == b->shard_id && a->replica_id == b->replica_id && a->from == b->from && a->index == b->index;
}

/* True if it was told to have started; it is not any more. */
static bool end_send(struct events *e, const struct nh_snapshot_info *info)
{
    for (size_t i = 0; i < e->n_sends; i++) {
        if (!is_same_send(&e->sends[i], info))
            continue;
        e->sends[i] = e->sends[--e->n_sends];
        return true;
    }
    return false;
}

static enum place needs_place(struct events *e, const struct event *ev)
{
    if (ev->type != EVENT_SEND_COMPLETED && ev->type != EVENT_SEND_ABORTED)
        return PLACE_IF_FREE;
    return end_send(e, &ev->snapshot_info) ? PLACE_KEPT : PLACE_NONE;
}

/* Whatever had no end until now has none any more. */
static void abort_sends(struct events *e)
{
    while (e->n_sends > 0) {
        struct event *ev = xcalloc(1, sizeof *ev);

        ev->type = EVENT_SEND_ABORTED;
        ev->snapshot_info = e->sends[--e->n_sends];
        enqueue(e, ev, PLACE_KEPT);
    }
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
    abort_sends(e);
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
    case EVENT_REPLICA_DELETED: return l->replica_deleted;
    case EVENT_SEND_STARTED: /* who hears of one end only still needs the start to be noted */
    case EVENT_SEND_COMPLETED:
    case EVENT_SEND_ABORTED: return l->send_snapshot_started || l->send_snapshot_completed || l->send_snapshot_aborted;
    case EVENT_SNAPSHOT_RECEIVED: return l->snapshot_received;
    case EVENT_SNAPSHOT_RECOVERED: return l->snapshot_recovered;
    case EVENT_SNAPSHOT_CREATED: return l->snapshot_created;
    case EVENT_SNAPSHOT_COMPACTED: return l->snapshot_compacted;
    case EVENT_LOG_COMPACTED: return l->log_compacted;
    case EVENT_LOGDB_COMPACTED: return l->logdb_compacted;
    }
    return false;
}

static void post(struct events *e, struct event *ev)
{
    bool queued;

    pthread_mutex_lock(&e->lock);
    queued = enqueue(e, ev, needs_place(e, ev));
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

void events_post_snapshot(struct events *e, enum event_type type, const struct nh_snapshot_info *info)
{
    struct event *ev;

    if (!is_heard(e, type))
        return;
    ev = xcalloc(1, sizeof *ev);
    ev->type = type;
    ev->snapshot_info = *info;
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
