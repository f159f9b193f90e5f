#include "transport/tcp/tcp_transport.h"

#include <assert.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdlib.h>

#include "raftio/support/block.h"
#include "raftio/support/memory.h"
#include "transport/check.h"
#include "transport/tcp/peer.h"
#include "transport/tcp/tcp_private.h"

/* What a batch takes beside its entries, mostly: deployment and source, and the numbers of each message. A batch that takes more
 * is encoded once more. */
#define BATCH_HEAD_BYTES   (NH_ADDRESS_BYTES + 16u)
#define MESSAGE_HEAD_BYTES 64u

/* Lock order: nh_transport.lock, then send_queue.lock. Neither is held across a handler or the encoder. */

static struct peer *peer_of(const void *connection)
{
    return (struct peer *)connection; /* both kinds of connection are peers: transport/tcp/peer.h */
}

/* ---- for the loops ---- */

void tcp_connected(struct nh_transport *t, const char *address, bool snapshot)
{
    if (t->handlers.on_connected)
        t->handlers.on_connected(t->handlers.ctx, address, snapshot);
}

void tcp_failed(struct nh_transport *t, const char *address, bool snapshot, const char *reason)
{
    if (t->handlers.on_failed)
        t->handlers.on_failed(t->handlers.ctx, address, snapshot, reason);
}

void tcp_unreachable(struct nh_transport *t, const struct nh_replica_info *to, uint32_t n)
{
    TCP_COUNT(t, messages_lost, n);
    for (uint32_t i = 0; t->handlers.on_unreachable && i < n; i++)
        t->handlers.on_unreachable(t->handlers.ctx, to[i]);
}

static void set_option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

void tcp_socket_options(uv_tcp_t *tcp)
{
    int fd;

    if (uv_fileno((uv_handle_t *)tcp, &fd) < 0)
        return;
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, TCP_KEEPALIVE_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, TCP_KEEPALIVE_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, TCP_KEEPALIVE_PROBES);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS);
}

static void unlist(struct nh_transport *t, struct peer *p)
{
    list_remove(&p->link);
    t->n_peers -= !p->snapshot;
    t->n_streams -= p->snapshot;
}

void tcp_forget_peer(struct nh_transport *t, struct peer *p)
{
    pthread_mutex_lock(&t->lock);
    unlist(t, p);
    pthread_mutex_unlock(&t->lock);
}

/* ---- opening ---- */

static int check_config(const struct nh_transport_config *c, const struct nh_transport_handlers *h, struct nh_error *err)
{
    struct tcp_address a;
    int r;

    if (!c->services || c->services->abi_version != NH_PLUGIN_SERVICES_ABI)
        return nh_error_set(err, NH_EINVAL, "services are missing or of another version");
    if (!h->on_batch)
        return nh_error_set(err, NH_EINVAL, "handler on_batch is missing");
    if (c->frame_bytes_max < TCP_FRAME_BYTES_MIN || c->frame_bytes_max > TCP_FRAME_BYTES_MAX)
        return nh_error_set(err, NH_EINVAL, "frame_bytes_max is %zu, want %u .. %u", c->frame_bytes_max, TCP_FRAME_BYTES_MIN,
                            TCP_FRAME_BYTES_MAX);
    if (c->n_loops > TCP_LOOPS_MAX)
        return nh_error_set(err, NH_EINVAL, "n_loops is %" PRIu32 ", want 1 .. %u", c->n_loops, TCP_LOOPS_MAX);
    r = tcp_address_parse(c->address, &a, err);
    if (r == NH_OK)
        r = tcp_address_parse(c->listen_address, &a, err);
    return r;
}

static int init_loops(struct nh_transport *t, struct nh_error *err)
{
    int r = NH_OK;

    t->loops = xcalloc(t->n_loops, sizeof *t->loops);
    for (uint32_t i = 0; r == NH_OK && i < t->n_loops; i++)
        r = loop_init(&t->loops[i], t, err);
    return r;
}

static void free_loops(struct nh_transport *t)
{
    for (uint32_t i = 0; i < t->n_loops; i++)
        loop_stop(&t->loops[i]);
    for (uint32_t i = 0; i < t->n_loops; i++)
        loop_deinit(&t->loops[i]);
    free(t->loops);
}

static int transport_open(const struct nh_transport_config *config, const struct nh_transport_handlers *handlers,
                          struct nh_transport **ret, struct nh_error *err)
{
    struct nh_transport_config c = {0};
    struct nh_transport_handlers h = {0};
    struct nh_transport *t;
    int r;

    memcpy(&c, config, config->struct_size < sizeof c ? config->struct_size : sizeof c);
    memcpy(&h, handlers, handlers->struct_size < sizeof h ? handlers->struct_size : sizeof h);
    c.listen_address = c.listen_address ? c.listen_address : c.address;
    c.frame_bytes_max = c.frame_bytes_max ? c.frame_bytes_max : TCP_FRAME_BYTES_DEFAULT;
    r = check_config(&c, &h, err);
    if (r < 0)
        return nh_error_wrap(err, r, "transport tcp");
    t = xcalloc(1, sizeof *t);
    t->deployment_id = c.deployment_id;
    t->data_layout = c.data_layout;
    memcpy(t->address, c.address, strlen(c.address) + 1);
    memcpy(t->listen_address, c.listen_address, strlen(c.listen_address) + 1);
    t->send_queue_bytes = c.send_queue_bytes ? c.send_queue_bytes : TCP_SEND_QUEUE_BYTES_DEFAULT;
    t->payload_bytes_max = c.frame_bytes_max - FRAME_HEADER_BYTES;
    t->polls = !c.no_polling;
    t->services = c.services;
    t->handlers = h;
    t->n_loops = c.n_loops ? c.n_loops : TCP_LOOPS_DEFAULT;
    t->listener.fd = -1;
    pthread_mutex_init(&t->lock, NULL);
    list_init(&t->peers);
    r = init_loops(t, err);
    if (r < 0) {
        free_loops(t);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return nh_error_wrap(err, r, "transport tcp");
    }
    *ret = t;
    return NH_OK;
}

static int transport_start(struct nh_transport *t, struct nh_error *err)
{
    bool again;
    int r = NH_OK;

    pthread_mutex_lock(&t->lock);
    again = t->started || t->closing;
    t->started = true;
    pthread_mutex_unlock(&t->lock);
    if (again)
        return nh_error_set(err, NH_EINVAL, "transport tcp: was started before");
    for (uint32_t i = 0; r == NH_OK && i < t->n_loops; i++)
        r = loop_open(&t->loops[i], err);
    if (r == NH_OK)
        r = listener_open(&t->listener, &t->loops[0], t->listen_address, err);
    for (uint32_t i = 0; r == NH_OK && i < t->n_loops; i++)
        r = loop_start(&t->loops[i], err);
    return r == NH_OK ? NH_OK : nh_error_wrap(err, r, "transport tcp");
}

/* From now on no connection is made and no frame is accepted. */
static void shut(struct nh_transport *t)
{
    pthread_mutex_lock(&t->lock);
    t->closing = true;
    for (struct list *at = t->peers.next; at != &t->peers; at = at->next)
        send_queue_close(&container_of(at, struct peer, link)->queue);
    pthread_mutex_unlock(&t->lock);
}

/* The order: refuse senders, end the loops, wait for senders inside, drop tasks that nobody will run, free. */
static void transport_close(struct nh_transport *t)
{
    struct list *at;

    if (!t)
        return;
    shut(t);
    for (uint32_t i = 0; i < t->n_loops; i++)
        loop_stop(&t->loops[i]);
    for (at = t->peers.next; at != &t->peers; at = at->next)
        peer_join(container_of(at, struct peer, link));
    listener_deinit(&t->listener);
    free_loops(t);
    while ((at = list_pop_front(&t->peers)))
        peer_free(container_of(at, struct peer, link));
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* ---- connections ---- */

/* The peer of this name that is in use, with one more user, or NULL; t->lock is held. */
static struct peer *find_peer(struct nh_transport *t, const char *address)
{
    for (struct list *at = t->peers.next; at != &t->peers; at = at->next) {
        struct peer *p = container_of(at, struct peer, link);

        if (p->n_users > 0 && !p->snapshot && strcmp(p->address, address) == 0) {
            p->n_users++;
            return p;
        }
    }
    return NULL;
}

/* A new peer on the list; t->lock is held. */
static int add_peer(struct nh_transport *t, const char *address, const struct tcp_address *target, bool snapshot,
                    struct peer **ret, struct nh_error *err)
{
    uint32_t *n = snapshot ? &t->n_streams : &t->n_peers;
    uint32_t max = snapshot ? TCP_STREAMS_MAX : TCP_PEERS_MAX;

    if (*n >= max)
        return nh_error_set(err, NH_EBUSY, "%" PRIu32 " %s exist, no more are allowed", *n,
                            snapshot ? "snapshot connections" : "connections");
    ++*n;
    *ret = peer_new(t, address, target, snapshot);
    list_push_back(&t->peers, &(*ret)->link);
    return NH_OK;
}

static int get_peer(struct nh_transport *t, const char *address, bool snapshot, struct peer **ret, struct nh_error *err)
{
    struct tcp_address target;
    struct peer *p = NULL;
    int r = tcp_address_parse(address, &target, err);

    if (r < 0)
        return r;
    pthread_mutex_lock(&t->lock);
    if (t->closing)
        r = nh_error_set(err, NH_ECLOSED, "the transport is closed");
    else if (!snapshot)
        p = find_peer(t, address);
    if (r == NH_OK && !p) {
        r = add_peer(t, address, &target, snapshot, &p, err);
        if (r == NH_OK)
            peer_connect(p);
    }
    pthread_mutex_unlock(&t->lock);
    if (r == NH_OK)
        *ret = p;
    return r;
}

static void put_peer(struct peer *p)
{
    struct nh_transport *t = p->transport;
    bool last;

    pthread_mutex_lock(&t->lock);
    assert(p->n_users > 0);
    last = --p->n_users == 0;
    pthread_mutex_unlock(&t->lock);
    if (last)
        send_queue_orphan(&p->queue);
}

static int get_connection(struct nh_transport *t, const char *target, struct nh_connection **ret, struct nh_error *err)
{
    struct peer *p = NULL;
    int r = get_peer(t, target, false, &p, err);

    if (r < 0)
        return nh_error_wrap(err, r, "connect");
    *ret = (struct nh_connection *)p;
    return NH_OK;
}

static void close_connection(struct nh_connection *c)
{
    if (c)
        put_peer(peer_of(c));
}

/* ---- batches ---- */

/* Reserves room for a frame of this payload and makes it. */
static int new_frame(struct peer *p, size_t size_bytes, uint32_t n_to, struct out_frame **ret, struct nh_error *err)
{
    size_t max = p->transport->payload_bytes_max;
    int r;

    if (size_bytes > max)
        return nh_error_set(err, NH_EINVAL, "%zu bytes are too many for a frame, at most %zu fit", size_bytes, max);
    r = send_queue_reserve(&p->queue, FRAME_HEADER_BYTES + size_bytes, err);
    if (r < 0)
        return r;
    *ret = out_frame_new(FRAME_HEADER_BYTES + size_bytes, n_to);
    (*ret)->queued_ms = uv_hrtime() / 1000000u;
    return NH_OK;
}

/* Completes a frame whose payload was written. */
static void seal_frame(struct out_frame *f, enum frame_type type, size_t written)
{
    f->size_bytes = FRAME_HEADER_BYTES + written;
    assert(f->size_bytes <= f->room_bytes);
    frame_header_encode(f->data, type, f->data + FRAME_HEADER_BYTES, written);
}

/* Room that is enough for nearly every batch: counted in a fraction of the time that measuring takes. */
static size_t likely_bytes(const struct nh_message_batch *batch)
{
    size_t bytes = BATCH_HEAD_BYTES + batch->n_messages * (size_t)MESSAGE_HEAD_BYTES;

    for (uint32_t i = 0; i < batch->n_messages; i++)
        bytes += runs_bytes(batch->messages[i].runs, batch->messages[i].n_runs);
    return bytes;
}

/* Makes the frame of a batch with this much room for the payload, or with as much as that takes. */
static int encode_frame(struct peer *p, const struct nh_message_batch *batch, size_t room_bytes, struct out_frame **ret,
                        struct nh_error *err)
{
    struct out_frame *f = NULL;
    int r = new_frame(p, room_bytes, batch->n_messages, &f, err);
    size_t size;

    if (r < 0)
        return r;
    size = p->transport->services->encode_batch(batch, f->data + FRAME_HEADER_BYTES, room_bytes);
    if (size > room_bytes) {
        send_queue_cancel(&p->queue, f->room_bytes);
        out_frame_free(f);
        return encode_frame(p, batch, size, ret, err);
    }
    seal_frame(f, FRAME_BATCH, size);
    *ret = f;
    return NH_OK;
}

static int send_batch(struct nh_connection *c, const struct nh_message_batch *batch, struct nh_error *err)
{
    struct peer *p = peer_of(c);
    size_t max = p->transport->payload_bytes_max, likely;
    struct nh_message_batch stamped = *batch;
    struct out_frame *f = NULL;
    int r = transport_check_messages(batch, err);

    if (r == NH_OK) {
        stamped.deployment_id = p->transport->deployment_id;
        stamped.source_address = p->transport->address;
        likely = likely_bytes(batch);
        r = encode_frame(p, &stamped, likely < max ? likely : max, &f, err);
    }
    if (r < 0)
        return nh_error_wrap(err, r, "send to %s", p->address);
    for (uint32_t i = 0; i < batch->n_messages; i++)
        f->to[i] = (struct nh_replica_info){batch->messages[i].shard_id, batch->messages[i].to};
    return send_queue_post(&p->queue, f, err);
}

/* ---- snapshots ---- */

static int get_snapshot_connection(struct nh_transport *t, const char *target, struct nh_snapshot_connection **ret,
                                   struct nh_error *err)
{
    struct peer *p = NULL;
    int r = get_peer(t, target, true, &p, err);

    if (r < 0)
        return nh_error_wrap(err, r, "connect for a snapshot");
    *ret = (struct nh_snapshot_connection *)p;
    return NH_OK;
}

static int send_chunk(struct nh_snapshot_connection *c, const struct nh_chunk *chunk, struct nh_error *err)
{
    struct peer *p = peer_of(c);
    const struct nh_plugin_services *s = p->transport->services;
    struct nh_chunk stamped = *chunk;
    struct out_frame *f = NULL;
    size_t size = 0;
    int r;

    stamped.deployment_id = p->transport->deployment_id;
    r = transport_check_chunk(&stamped, stamped.deployment_id, err);
    if (r == NH_OK) {
        size = s->encode_chunk(&stamped, NULL, 0);
        r = new_frame(p, size, 0, &f, err);
    }
    if (r < 0)
        return nh_error_wrap(err, r, "send chunk to %s", p->address);
    seal_frame(f, FRAME_CHUNK, s->encode_chunk(&stamped, f->data + FRAME_HEADER_BYTES, size));
    if (send_queue_post_and_wait(&p->queue, f) == OUT_WRITTEN)
        return NH_OK;
    return nh_error_set(err, NH_EIO, "send chunk to %s: the connection failed", p->address);
}

static void close_snapshot_connection(struct nh_snapshot_connection *c)
{
    if (c)
        put_peer(peer_of(c));
}

/* ---- the table ---- */

void tcp_transport_stats(const struct nh_transport *t, struct tcp_transport_stats *ret)
{
    const struct tcp_transport_stats *s = &t->stats;

    ret->accepted = __atomic_load_n(&s->accepted, __ATOMIC_RELAXED);
    ret->accepts_dropped = __atomic_load_n(&s->accepts_dropped, __ATOMIC_RELAXED);
    ret->refused = __atomic_load_n(&s->refused, __ATOMIC_RELAXED);
    ret->cut = __atomic_load_n(&s->cut, __ATOMIC_RELAXED);
    ret->frames_sent = __atomic_load_n(&s->frames_sent, __ATOMIC_RELAXED);
    ret->bytes_sent = __atomic_load_n(&s->bytes_sent, __ATOMIC_RELAXED);
    ret->frames_received = __atomic_load_n(&s->frames_received, __ATOMIC_RELAXED);
    ret->messages_lost = __atomic_load_n(&s->messages_lost, __ATOMIC_RELAXED);
}

const struct nh_transport_ops *nh_transport_tcp(void)
{
    static const struct nh_transport_ops ops = {
        .abi_version = NH_TRANSPORT_ABI,
        .struct_size = sizeof ops,
        .name = "tcp",
        .open = transport_open,
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
