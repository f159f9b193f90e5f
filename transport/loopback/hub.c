#include "transport/loopback/loopback_private.h"

#include <assert.h>
#include <stdlib.h>

#include "raftio/support/memory.h"
#include "transport/check.h"
#include "transport/loopback/batch_copy.h"

/* ---- hub ---- */

struct loopback_hub *loopback_hub_new(const struct loopback_policy *policy)
{
    struct loopback_hub *hub = xcalloc(1, sizeof *hub);

    if (policy)
        hub->policy = *policy;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_cond_init(&hub->changed, NULL);
    list_init(&hub->transports);
    return hub;
}

void loopback_hub_free(struct loopback_hub *hub)
{
    if (!hub)
        return;
    assert(list_empty(&hub->transports) && hub->n_parcels == 0);
    pthread_cond_destroy(&hub->changed);
    pthread_mutex_destroy(&hub->lock);
    free(hub);
}

/* Locked. */
static struct nh_transport *find_target(const struct loopback_hub *hub, const char *address)
{
    for (struct list *at = hub->transports.next; at != &hub->transports; at = at->next) {
        struct nh_transport *t = container_of(at, struct nh_transport, link);

        if (t->started && !t->closing && strcmp(t->address, address) == 0)
            return t;
    }
    return NULL;
}

/* The sender, if it is still the one that sent. Locked. */
static struct nh_transport *find_source(const struct loopback_parcel *p)
{
    const struct list *head = &p->hub->transports;

    for (struct list *at = head->next; at != head; at = at->next) {
        struct nh_transport *t = container_of(at, struct nh_transport, link);

        if (t->instance == p->source_instance && !t->closing)
            return t;
    }
    return NULL;
}

/* The transport that would take this parcel now; or NULL and why. Locked. */
static struct nh_transport *find_receiver(const struct loopback_parcel *p, const char **ret_reason)
{
    struct nh_transport *t = find_target(p->hub, p->target);

    *ret_reason = !t ? "nobody listens" : "refused: another deployment, or another layout of the data";
    return t && t->deployment_id == p->deployment_id && transport_layouts_agree(t->data_layout, p->data_layout) ? t : NULL;
}

/* ---- parcels ---- */

static struct loopback_parcel *parcel_alloc(struct loopback_hub *hub, enum parcel_kind kind)
{
    struct loopback_parcel *p = xcalloc(1, sizeof *p);

    p->hub = hub;
    p->kind = kind;
    __atomic_fetch_add(&hub->n_parcels, 1, __ATOMIC_RELAXED);
    return p;
}

struct loopback_parcel *parcel_new(enum parcel_kind kind, const struct nh_transport *t, struct nh_connection *c,
                                   size_t size_bytes)
{
    struct loopback_parcel *p = parcel_alloc(t->hub, kind);

    memcpy(p->source, t->address, sizeof p->source);
    memcpy(p->target, c->target, sizeof p->target);
    p->source_instance = t->instance;
    p->deployment_id = t->deployment_id;
    p->data_layout = t->data_layout;
    p->snapshot = c->snapshot;
    p->services = t->services;
    p->connection = c;
    p->size_bytes = size_bytes;
    return p;
}

void connection_put(struct nh_connection *c)
{
    if (c->n_users == 0 && c->n_parcels == 0) {
        list_remove(&c->link);
        free(c);
    }
}

/* Gives back what the parcel holds of its sender. Locked. */
static void settle(struct loopback_parcel *p, enum parcel_outcome outcome)
{
    struct nh_connection *c = p->connection;

    if (p->outcome)
        *p->outcome = outcome;
    p->outcome = NULL;
    p->connection = NULL;
    if (!c)
        return;
    assert(c->bytes >= p->size_bytes && c->n_parcels > 0);
    c->bytes -= p->size_bytes;
    c->n_parcels--;
    c->failed |= p->kind == PARCEL_CHUNK && outcome == PARCEL_REFUSED;
    connection_put(c);
}

/* Locked. */
static void parcel_end(struct loopback_parcel *p, enum parcel_outcome outcome)
{
    struct loopback_hub *hub = p->hub;

    settle(p, outcome);
    pthread_cond_broadcast(&hub->changed);
    batch_copy_free(p->shared);
    free(p->encoded);
    free(p->to);
    free(p);
    __atomic_fetch_sub(&hub->n_parcels, 1, __ATOMIC_RELAXED);
}

/* ---- handing over: no lock is held ---- */

static void give_batch(struct nh_transport *t, const struct loopback_parcel *p)
{
    struct nh_message_batch *batch = p->shared;
    struct nh_error err;
    int r = NH_OK;

    if (!p->shared)
        r = t->services->decode_batch(p->encoded, p->size_bytes, &batch, &err);
    if (r < 0) {
        t->services->log(NH_LOG_ERROR, "transport", "loopback from %s: %s", p->source, err.text);
        return;
    }
    if (transport_check_received(batch, t->deployment_id, p->source, &err) < 0)
        t->services->log(NH_LOG_ERROR, "transport", "loopback from %s: %s", p->source, err.text);
    else
        t->handlers.on_batch(t->handlers.ctx, batch);
    if (!p->shared)
        t->services->free_batch(batch);
    if (t->handlers.on_drained)
        t->handlers.on_drained(t->handlers.ctx);
}

static bool give_chunk(struct nh_transport *t, const struct loopback_parcel *p)
{
    struct nh_chunk chunk;
    struct nh_error err;

    if (t->services->decode_chunk(p->encoded, p->size_bytes, &chunk, &err) < 0 ||
        transport_check_chunk(&chunk, t->deployment_id, &err) < 0) {
        t->services->log(NH_LOG_ERROR, "transport", "loopback from %s: %s", p->source, err.text);
        return false;
    }
    return t->handlers.on_chunk && t->handlers.on_chunk(t->handlers.ctx, &chunk);
}

static void report(struct nh_transport *t, const struct loopback_parcel *p)
{
    for (uint32_t i = 0; t->handlers.on_unreachable && i < p->n_to; i++)
        t->handlers.on_unreachable(t->handlers.ctx, p->to[i]);
}

void parcel_handle(struct nh_transport *t, struct loopback_parcel *p)
{
    enum parcel_outcome outcome = PARCEL_TAKEN;
    struct loopback_hub *hub = p->hub;

    switch (p->kind) {
    case PARCEL_BATCH: give_batch(t, p); break;
    case PARCEL_CHUNK: outcome = give_chunk(t, p) ? PARCEL_TAKEN : PARCEL_REFUSED; break;
    case PARCEL_LOST: report(t, p); break;
    case PARCEL_UP:
        if (t->handlers.on_connected)
            t->handlers.on_connected(t->handlers.ctx, p->target, p->snapshot);
        break;
    case PARCEL_DOWN:
        if (t->handlers.on_failed)
            t->handlers.on_failed(t->handlers.ctx, p->target, p->snapshot, p->reason);
        break;
    }
    pthread_mutex_lock(&hub->lock);
    parcel_end(p, outcome);
    pthread_mutex_unlock(&hub->lock);
}

/* ---- threads ---- */

static void put_into(struct nh_transport *t, struct loopback_parcel *p)
{
    queue_push(&t->inbox, &p->node);
    pthread_cond_signal(&t->arrived);
}

static void tell(struct nh_transport *t, enum parcel_kind kind, const char *about, bool snapshot, const char *reason)
{
    struct loopback_parcel *p = parcel_alloc(t->hub, kind);

    memcpy(p->target, about, sizeof p->target);
    p->snapshot = snapshot;
    p->reason = reason;
    put_into(t, p);
}

/* The connection's state, as this parcel finds it; tells both sides when it changes. */
static void note(const struct loopback_parcel *p, struct nh_transport *source, struct nh_transport *target, const char *reason)
{
    struct nh_connection *c = p->connection;

    if (target && !c->up) {
        tell(source, PARCEL_UP, p->target, p->snapshot, NULL);
        tell(target, PARCEL_UP, p->source, p->snapshot, NULL);
    } else if (!target && source) {
        tell(source, PARCEL_DOWN, p->target, p->snapshot, reason);
    }
    c->up = target != NULL;
}

void hub_return(struct loopback_parcel *p)
{
    struct nh_transport *source = find_source(p);

    if (p->kind == PARCEL_BATCH && source) {
        p->kind = PARCEL_LOST;
        put_into(source, p);
    } else {
        /* A sender that waits for a chunk needs no report; the rest was for those who are gone. */
        parcel_end(p, PARCEL_REFUSED);
    }
}

void hub_post(struct loopback_parcel *p)
{
    const char *reason;
    struct nh_transport *target = find_receiver(p, &reason), *source = find_source(p);

    if (source)
        note(p, source, target, reason);
    if (target)
        put_into(target, p);
    else
        hub_return(p);
}

/* ---- for a policy: one thread, so a transport that was found stays while its handler runs ---- */

const char *loopback_parcel_source(const struct loopback_parcel *p)
{
    return p->source;
}

const char *loopback_parcel_target(const struct loopback_parcel *p)
{
    return p->target;
}

size_t loopback_parcel_bytes(const struct loopback_parcel *p)
{
    return p->size_bytes;
}

bool loopback_parcel_is_chunk(const struct loopback_parcel *p)
{
    return p->kind == PARCEL_CHUNK;
}

const struct nh_replica_info *loopback_parcel_to(const struct loopback_parcel *p, uint32_t *ret_n)
{
    *ret_n = p->n_to;
    return p->to;
}

void loopback_deliver(struct loopback_parcel *p)
{
    struct nh_transport *target;
    const char *reason;

    pthread_mutex_lock(&p->hub->lock);
    target = find_receiver(p, &reason);
    pthread_mutex_unlock(&p->hub->lock);
    if (target)
        parcel_handle(target, p);
    else
        loopback_drop(p, true);
}

struct loopback_parcel *loopback_duplicate(const struct loopback_parcel *p)
{
    struct loopback_parcel *d = parcel_alloc(p->hub, p->kind);

    *d = *p;
    d->node.next = NULL;
    d->source_instance = 0;
    d->connection = NULL;
    d->outcome = NULL;
    d->encoded = p->encoded ? xmemdup(p->encoded, p->size_bytes) : NULL;
    d->shared = p->shared ? batch_copy(p->shared) : NULL;
    d->to = p->to ? xmemdup(p->to, p->n_to * sizeof *p->to) : NULL;
    return d;
}

void loopback_drop(struct loopback_parcel *p, bool report_unreachable)
{
    struct loopback_hub *hub = p->hub;
    struct nh_transport *source;

    pthread_mutex_lock(&hub->lock);
    source = find_source(p);
    pthread_mutex_unlock(&hub->lock);
    if (source && report_unreachable)
        report(source, p);
    pthread_mutex_lock(&hub->lock);
    parcel_end(p, PARCEL_REFUSED);
    pthread_mutex_unlock(&hub->lock);
}
