#include "transport/loopback/loopback.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"
#include "transport/check.h"
#include "transport/loopback/batch_copy.h"
#include "transport/loopback/loopback_private.h"

/* ---- the default hub ---- */

static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER;
static struct loopback_hub *default_hub; /* guarded by default_lock, as what follows */
static bool default_is_given;
static unsigned n_default_users;

void loopback_hub_set_default(struct loopback_hub *hub)
{
    assert(n_default_users == 0);
    default_hub = hub;
    default_is_given = hub != NULL;
}

static struct loopback_hub *use_default(void)
{
    struct loopback_hub *hub;

    pthread_mutex_lock(&default_lock);
    if (!default_hub)
        default_hub = loopback_hub_new(NULL);
    n_default_users++;
    hub = default_hub;
    pthread_mutex_unlock(&default_lock);
    return hub;
}

static void leave_default(void)
{
    struct loopback_hub *unused = NULL;

    pthread_mutex_lock(&default_lock);
    if (--n_default_users == 0 && !default_is_given) {
        unused = default_hub;
        default_hub = NULL;
    }
    pthread_mutex_unlock(&default_lock);
    loopback_hub_free(unused);
}

/* ---- opening ---- */

static bool address_ok(const char *address)
{
    return address && address[0] && strnlen(address, NH_ADDRESS_BYTES) < NH_ADDRESS_BYTES;
}

int loopback_open(struct loopback_hub *hub, const struct nh_transport_config *config,
                  const struct nh_transport_handlers *handlers, struct nh_transport **ret, struct nh_error *err)
{
    struct nh_transport_config c = {0};
    struct nh_transport_handlers h = {0};
    struct nh_transport *t;

    memcpy(&c, config, config->struct_size < sizeof c ? config->struct_size : sizeof c);
    memcpy(&h, handlers, handlers->struct_size < sizeof h ? handlers->struct_size : sizeof h);
    if (!c.services || !h.on_batch)
        return nh_error_set(err, NH_EINVAL, "transport loopback: services or the handler on_batch are missing");
    if (!address_ok(c.address))
        return nh_error_set(err, NH_EINVAL, "transport loopback: an address is missing or too long");
    t = xcalloc(1, sizeof *t);
    t->hub = hub;
    t->deployment_id = c.deployment_id;
    t->data_layout = c.data_layout;
    memcpy(t->address, c.address, strlen(c.address) + 1);
    t->send_queue_bytes = c.send_queue_bytes ? c.send_queue_bytes : LOOPBACK_SEND_QUEUE_BYTES_DEFAULT;
    t->frame_bytes_max = c.frame_bytes_max ? c.frame_bytes_max : LOOPBACK_FRAME_BYTES_DEFAULT;
    t->services = c.services;
    t->handlers = h;
    list_init(&t->connections);
    pthread_cond_init(&t->arrived, NULL);
    pthread_mutex_lock(&hub->lock);
    t->instance = ++hub->last_instance;
    list_push_back(&hub->transports, &t->link);
    pthread_mutex_unlock(&hub->lock);
    *ret = t;
    return NH_OK;
}

static int open_on_default(const struct nh_transport_config *config, const struct nh_transport_handlers *handlers,
                           struct nh_transport **ret, struct nh_error *err)
{
    int r = loopback_open(use_default(), config, handlers, ret, err);

    if (r < 0)
        leave_default();
    else
        (*ret)->of_default_hub = true;
    return r;
}

/* ---- the thread ---- */

/* Waits for the next parcel; NULL: the transport closes. */
static struct loopback_parcel *next_parcel(struct nh_transport *t)
{
    struct queue_node *n = NULL;

    pthread_mutex_lock(&t->hub->lock);
    while (!t->closing && queue_empty(&t->inbox))
        pthread_cond_wait(&t->arrived, &t->hub->lock);
    if (!t->closing)
        n = queue_pop(&t->inbox);
    pthread_mutex_unlock(&t->hub->lock);
    return n ? container_of(n, struct loopback_parcel, node) : NULL;
}

static void *thread_main(void *arg)
{
    struct nh_transport *t = arg;
    struct loopback_parcel *p;

    while ((p = next_parcel(t)))
        parcel_handle(t, p);
    return NULL;
}

/* Locked. */
static bool address_taken(const struct nh_transport *t)
{
    for (struct list *at = t->hub->transports.next; at != &t->hub->transports; at = at->next) {
        const struct nh_transport *other = container_of(at, struct nh_transport, link);

        if (other != t && other->started && strcmp(other->address, t->address) == 0)
            return true;
    }
    return false;
}

static int transport_start(struct nh_transport *t, struct nh_error *err)
{
    int r = NH_OK, sys = 0;

    pthread_mutex_lock(&t->hub->lock);
    if (t->started)
        r = nh_error_set(err, NH_EINVAL, "transport loopback: was started before");
    else if (address_taken(t))
        r = nh_error_set(err, NH_EIO, "transport loopback: %s is in use", t->address);
    else if (!t->hub->policy.on_send)
        sys = pthread_create(&t->thread, NULL, thread_main, t);
    if (sys != 0)
        r = nh_error_sys(err, NH_EIO, sys, "transport loopback: thread");
    if (r == NH_OK) {
        t->started = true;
        t->has_thread = !t->hub->policy.on_send;
    }
    pthread_mutex_unlock(&t->hub->lock);
    return r;
}

/* Locked. */
static void drop_connections(struct nh_transport *t)
{
    struct list *at, *next;

    for (at = t->connections.next; at != &t->connections; at = next) {
        struct nh_connection *c = container_of(at, struct nh_connection, link);

        next = at->next;
        list_remove(&c->link);
        c->owner = NULL;
        c->n_users = 0;
        connection_put(c);
    }
}

static void transport_close(struct nh_transport *t)
{
    struct loopback_hub *hub;
    struct queue_node *n;
    bool of_default_hub;

    if (!t)
        return;
    hub = t->hub;
    of_default_hub = t->of_default_hub;
    pthread_mutex_lock(&hub->lock);
    t->closing = true;
    pthread_cond_broadcast(&t->arrived);
    pthread_cond_broadcast(&hub->changed);
    pthread_mutex_unlock(&hub->lock);
    if (t->has_thread)
        pthread_join(t->thread, NULL);
    pthread_mutex_lock(&hub->lock);
    while (t->n_inside > 0)
        pthread_cond_wait(&hub->changed, &hub->lock);
    list_remove(&t->link);
    while ((n = queue_pop(&t->inbox)))
        hub_return(container_of(n, struct loopback_parcel, node));
    drop_connections(t);
    pthread_mutex_unlock(&hub->lock);
    pthread_cond_destroy(&t->arrived);
    free(t);
    if (of_default_hub)
        leave_default();
}

/* ---- connections ---- */

/* Locked. */
static struct nh_connection *find_connection(struct nh_transport *t, const char *target)
{
    for (struct list *at = t->connections.next; at != &t->connections; at = at->next) {
        struct nh_connection *c = container_of(at, struct nh_connection, link);

        if (!c->snapshot && c->n_users > 0 && strcmp(c->target, target) == 0)
            return c;
    }
    return NULL;
}

static int connect_to(struct nh_transport *t, const char *target, bool snapshot, struct nh_connection **ret, struct nh_error *err)
{
    struct nh_connection *c = NULL;
    bool closing;

    if (!address_ok(target))
        return nh_error_set(err, NH_EINVAL, "connect: an address is missing or too long");
    pthread_mutex_lock(&t->hub->lock);
    closing = t->closing;
    if (!closing && !snapshot)
        c = find_connection(t, target);
    if (!closing && !c) {
        c = xcalloc(1, sizeof *c);
        c->owner = t;
        c->snapshot = snapshot;
        memcpy(c->target, target, strlen(target) + 1);
        list_push_back(&t->connections, &c->link);
    }
    if (c)
        c->n_users++;
    pthread_mutex_unlock(&t->hub->lock);
    if (closing)
        return nh_error_set(err, NH_ECLOSED, "the transport is closed");
    *ret = c;
    return NH_OK;
}

static int get_connection(struct nh_transport *t, const char *target, struct nh_connection **ret, struct nh_error *err)
{
    return connect_to(t, target, false, ret, err);
}

static void close_connection(struct nh_connection *c)
{
    struct loopback_hub *hub;

    if (!c)
        return;
    hub = c->owner->hub;
    pthread_mutex_lock(&hub->lock);
    assert(c->n_users > 0);
    c->n_users--;
    connection_put(c);
    pthread_mutex_unlock(&hub->lock);
}

/* ---- sending ---- */

/* Reserves the bytes of one parcel and keeps the transport from going away. After NH_OK: send. */
static int enter(struct nh_connection *c, size_t size_bytes, struct nh_error *err)
{
    struct nh_transport *t = c->owner;
    size_t bytes, max = t->send_queue_bytes;
    int r = NH_OK;

    if (size_bytes > t->frame_bytes_max)
        return nh_error_set(err, NH_EINVAL, "%zu bytes are too many, at most %zu fit", size_bytes, t->frame_bytes_max);
    pthread_mutex_lock(&t->hub->lock);
    bytes = c->bytes;
    if (t->closing)
        r = NH_ECLOSED;
    else if (c->failed)
        r = NH_EIO;
    else if (bytes > 0 && (size_bytes > max || bytes > max - size_bytes))
        r = NH_EBUSY;
    if (r == NH_OK) {
        c->bytes += size_bytes;
        c->n_parcels++;
        t->n_inside++;
    }
    pthread_mutex_unlock(&t->hub->lock);
    if (r == NH_EBUSY)
        return nh_error_set(err, r, "send queue full: %zu of %zu bytes wait, the batch needs %zu", bytes, max, size_bytes);
    return r == NH_OK ? NH_OK : nh_error_set(err, r, r == NH_EIO ? "the connection failed" : "the transport is closed");
}

/* Hands the parcel over. Waits for its outcome if it is a chunk and threads deliver. */
static enum parcel_outcome send_parcel(struct nh_transport *t, struct loopback_parcel *p)
{
    enum parcel_outcome outcome = p->kind == PARCEL_CHUNK ? PARCEL_PENDING : PARCEL_TAKEN;
    struct loopback_hub *hub = t->hub;

    if (hub->policy.on_send) {
        hub->policy.on_send(hub->policy.ctx, p);
        outcome = PARCEL_TAKEN;
    }
    pthread_mutex_lock(&hub->lock);
    if (!hub->policy.on_send) {
        p->outcome = outcome == PARCEL_PENDING ? &outcome : NULL;
        hub_post(p);
        while (outcome == PARCEL_PENDING && !t->closing)
            pthread_cond_wait(&hub->changed, &hub->lock);
        if (outcome == PARCEL_PENDING)
            p->outcome = NULL; /* it is still under way and must not write to our stack */
    }
    t->n_inside--;
    pthread_cond_broadcast(&hub->changed);
    pthread_mutex_unlock(&hub->lock);
    return outcome;
}

static int send_batch(struct nh_connection *c, const struct nh_message_batch *batch, struct nh_error *err)
{
    struct nh_transport *t = c->owner;
    struct nh_message_batch stamped = *batch;
    struct loopback_parcel *p;
    size_t size = 0;
    int r = transport_check_messages(batch, err);

    stamped.deployment_id = t->deployment_id;
    stamped.source_address = t->address;
    if (r == NH_OK) {
        size = t->services->encode_batch(&stamped, NULL, 0);
        r = enter(c, size, err);
    }
    if (r < 0)
        return nh_error_wrap(err, r, "send to %s", c->target);
    p = parcel_new(PARCEL_BATCH, t, c, size);
    p->n_to = batch->n_messages;
    p->to = xmalloc(p->n_to * sizeof *p->to);
    for (uint32_t i = 0; i < p->n_to; i++)
        p->to[i] = (struct nh_replica_info){batch->messages[i].shard_id, batch->messages[i].to};
    if (t->hub->policy.share_blocks) {
        p->shared = batch_copy(&stamped);
    } else {
        p->encoded = xmalloc(size);
        t->services->encode_batch(&stamped, p->encoded, size);
    }
    send_parcel(t, p);
    return NH_OK;
}

static int get_snapshot_connection(struct nh_transport *t, const char *target, struct nh_snapshot_connection **ret,
                                   struct nh_error *err)
{
    struct nh_connection *c;
    int r = connect_to(t, target, true, &c, err);

    if (r == NH_OK)
        *ret = (struct nh_snapshot_connection *)c; /* one struct for both: loopback_private.h */
    return r;
}

static int send_chunk(struct nh_snapshot_connection *connection, const struct nh_chunk *chunk, struct nh_error *err)
{
    struct nh_connection *c = (struct nh_connection *)connection;
    struct nh_transport *t = c->owner;
    struct nh_chunk stamped = *chunk;
    struct loopback_parcel *p;
    size_t size = 0;
    int r;

    stamped.deployment_id = t->deployment_id;
    r = transport_check_chunk(&stamped, t->deployment_id, err);
    if (r == NH_OK) {
        size = t->services->encode_chunk(&stamped, NULL, 0);
        r = enter(c, size, err);
    }
    if (r < 0)
        return nh_error_wrap(err, r, "send chunk to %s", c->target);
    p = parcel_new(PARCEL_CHUNK, t, c, size);
    p->encoded = xmalloc(size);
    t->services->encode_chunk(&stamped, p->encoded, size);
    if (send_parcel(t, p) == PARCEL_TAKEN)
        return NH_OK;
    /* The connection itself may be gone by now, if the transport was closed meanwhile. */
    return nh_error_set(err, NH_EIO, "send chunk: the connection failed");
}

static void close_snapshot_connection(struct nh_snapshot_connection *c)
{
    close_connection((struct nh_connection *)c);
}

/* ---- the table ---- */

const struct nh_transport_ops *nh_transport_loopback(void)
{
    static const struct nh_transport_ops ops = {
        .abi_version = NH_TRANSPORT_ABI,
        .struct_size = sizeof ops,
        .name = "loopback",
        .open = open_on_default,
        .start = transport_start,
        .close = transport_close,
        .get_connection = get_connection,
        .send_batch = send_batch,
        .close_connection = close_connection,
        .get_snapshot_connection = get_snapshot_connection,
        .send_chunk = send_chunk,
        .close_snapshot_connection = close_snapshot_connection,
        .calls_on_drained = true,
    };

    return &ops;
}
