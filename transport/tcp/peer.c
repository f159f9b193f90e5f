#include "transport/tcp/peer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftio/codec.h"
#include "raftio/support/map.h"
#include "raftio/support/memory.h"
#include "transport/check.h"
#include "transport/tcp/tcp_private.h"

#define TO(s) (1u << PEER_##s)

static const uint32_t edges[] = {
    [PEER_IDLE] = TO(RESOLVING) | TO(CONNECTING) | TO(CLOSING),
    [PEER_RESOLVING] = TO(CONNECTING) | TO(BACKOFF) | TO(CLOSING),
    [PEER_CONNECTING] = TO(HELLO) | TO(DRAINING) | TO(CLOSING),
    [PEER_HELLO] = TO(UP) | TO(DRAINING) | TO(CLOSING),
    [PEER_UP] = TO(DRAINING) | TO(CLOSING),
    [PEER_DRAINING] = TO(CONNECTING) | TO(BACKOFF) | TO(CLOSING),
    [PEER_BACKOFF] = TO(IDLE) | TO(CLOSING),
    [PEER_CLOSING] = TO(CLOSED),
    [PEER_CLOSED] = 0,
};

static bool has_socket(const struct peer *p)
{
    return p->state == PEER_CONNECTING || p->state == PEER_HELLO || p->state == PEER_UP;
}

static bool check(const struct peer *p)
{
    if (p->state == PEER_CLOSED && (p->live > 0 || !queue_empty(&p->writing)))
        return false;
    /* Only an open socket can have a write under way; it ends before the socket is closed. */
    return queue_empty(&p->writing) || p->state == PEER_UP || p->state == PEER_DRAINING || p->state == PEER_CLOSING;
}

/* News belong to the state in which they came, except that the peer is to be closed. */
static void move(struct peer *p, enum peer_state to)
{
    assert(edges[p->state] & (1u << to));
    p->state = to;
    p->news &= PEER_CLOSE;
    assert(check(p));
}

static void tell(struct peer *p, enum peer_news news)
{
    p->news |= news;
    peer_tick(p);
}

void peer_fail(struct peer *p, const char *fmt, ...)
{
    va_list args;

    /* What is being closed fails once more, with "operation canceled": that is no news and must not hide the reason. */
    if ((p->news & PEER_FAILED) || p->state >= PEER_DRAINING)
        return;
    va_start(args, fmt);
    vsnprintf(p->reason, sizeof p->reason, fmt, args);
    va_end(args);
    p->news |= PEER_FAILED;
}

/* ---- timers and closing of handles ---- */

static void on_timer(uv_timer_t *timer)
{
    struct peer *p = timer->data;

    if (p->state == PEER_CONNECTING)
        peer_fail(p, "connect: no answer within %u ms", TCP_CONNECT_TIMEOUT_MS);
    else if (p->state == PEER_HELLO)
        peer_fail(p, "hello: no answer within %u ms", TCP_HANDSHAKE_TIMEOUT_MS);
    tell(p, PEER_TIMER);
}

static void on_age(uv_timer_t *timer)
{
    peer_tick(timer->data);
}

static void on_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;

    p->live--;
    tell(p, handle == (uv_handle_t *)&p->tcp ? PEER_SOCKET_CLOSED : 0);
}

/* ---- resolving ---- */

static void add_address(struct peer *p, const struct sockaddr *addr, size_t size_bytes)
{
    if (p->n_addresses < PEER_ADDRESSES_MAX && size_bytes <= sizeof p->addresses[0])
        memcpy(&p->addresses[p->n_addresses++], addr, size_bytes);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct peer *p = req->data;

    p->live--;
    for (const struct addrinfo *a = found; a; a = a->ai_next)
        add_address(p, a->ai_addr, a->ai_addrlen);
    uv_freeaddrinfo(found);
    if (status < 0 || p->n_addresses == 0)
        peer_fail(p, "resolve: %s", status < 0 ? uv_strerror(status) : "no address");
    tell(p, PEER_RESOLVED);
}

/* The resolver has its own time limits, and a question cannot be taken back once it is asked. */
static void resolve(struct peer *p)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int r;

    move(p, PEER_RESOLVING);
    p->resolve_req.data = p;
    r = uv_getaddrinfo(&p->loop->uv, &p->resolve_req, on_resolved, p->target.host, p->target.port, &hints);
    if (r < 0)
        peer_fail(p, "resolve: %s", uv_strerror(r));
    else
        p->live++;
}

/* ---- connecting ---- */

static void on_connected(uv_connect_t *req, int status)
{
    struct peer *p = req->data;

    if (p->state != PEER_CONNECTING) /* the socket is being closed */
        return;
    if (status < 0)
        peer_fail(p, "connect: %s", uv_strerror(status));
    tell(p, PEER_CONNECTED);
}

static void dial(struct peer *p)
{
    const struct sockaddr_storage *to = &p->addresses[p->next_address++];
    int r;

    move(p, PEER_CONNECTING);
    uv_tcp_init(&p->loop->uv, &p->tcp);
    p->tcp.data = p->connect_req.data = p;
    p->live++;
    uv_timer_start(&p->timer, on_timer, TCP_CONNECT_TIMEOUT_MS, 0);
    r = uv_tcp_connect(&p->connect_req, &p->tcp, (const struct sockaddr *)to, on_connected);
    if (r < 0)
        peer_fail(p, "connect: %s", uv_strerror(r));
}

/* A new attempt, with all addresses that there are. */
static void attempt(struct peer *p)
{
    struct sockaddr_storage numeric;

    p->wants = false;
    p->n_addresses = p->next_address = 0;
    uv_timer_start(&p->age_timer, on_age, PEER_AGE_CHECK_MS, PEER_AGE_CHECK_MS);
    if (tcp_address_numeric(&p->target, &numeric)) {
        add_address(p, (struct sockaddr *)&numeric, sizeof numeric);
        dial(p);
    } else {
        resolve(p);
    }
}

/* ---- hello ---- */

static void on_refused(struct peer *p, const struct frame *f)
{
    uint32_t reason = 0;

    if (f->size_bytes == sizeof reason)
        memcpy(&reason, f->payload, sizeof reason);
    peer_fail(p, "refused: %s", frame_refusal_text(reason));
}

static void on_hello(struct peer *p, const struct frame *f)
{
    struct nh_hello h;
    struct nh_error err;

    if (hello_decode(f->payload, f->size_bytes, &h, &err) < 0)
        peer_fail(p, "hello: %s", err.text);
    else if (h.bin_version != NH_TRANSPORT_BIN_VERSION)
        peer_fail(p, "hello: version %u, ours is %u", h.bin_version, NH_TRANSPORT_BIN_VERSION);
    else if (h.deployment_id != p->transport->deployment_id)
        peer_fail(p, "hello: deployment %llu, ours is %llu", (unsigned long long)h.deployment_id,
                  (unsigned long long)p->transport->deployment_id);
    else if (strcmp(h.source_address, p->address) != 0)
        peer_fail(p, "hello: reached '%s'", h.source_address);
    else if (!transport_layouts_agree(h.data_layout, p->transport->data_layout))
        peer_fail(p, "hello: %s", frame_refusal_text(FRAME_REFUSED_LAYOUT));
    else
        p->news |= PEER_ANSWERED;
}

static void on_frame(struct peer *p, const struct frame *f)
{
    if (p->state == PEER_HELLO && !(p->news & PEER_ANSWERED) && f->type == FRAME_HELLO)
        on_hello(p, f);
    else if (p->state == PEER_HELLO && f->type == FRAME_REFUSED)
        on_refused(p, f);
    else
        peer_fail(p, "unexpected frame of type %d", (int)f->type);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct peer *p = stream->data;
    const uint8_t *data = (const uint8_t *)buf->base;
    size_t size = n > 0 ? (size_t)n : 0;
    enum frame_status status = FRAME_READY;
    struct frame frame;

    if (n < 0)
        peer_fail(p, "%s", n == UV_EOF ? "closed by the other side" : uv_strerror((int)n));
    while (n > 0 && status == FRAME_READY && !(p->news & PEER_FAILED)) {
        status = frame_parser_next(&p->parser, &data, &size, &frame);
        if (status == FRAME_READY)
            on_frame(p, &frame);
        else if (status != FRAME_MORE)
            peer_fail(p, "%s", frame_status_text(status));
    }
    peer_tick(p);
}

static void on_hello_written(uv_write_t *req, int status)
{
    struct peer *p = req->data;

    if (status == 0 || p->state != PEER_HELLO)
        return;
    peer_fail(p, "hello: %s", uv_strerror(status));
    peer_tick(p);
}

static size_t encode_hello(struct peer *p)
{
    struct nh_hello h = {
        .bin_version = NH_TRANSPORT_BIN_VERSION,
        .deployment_id = p->transport->deployment_id,
        .snapshot_connection = p->snapshot,
        .data_layout = p->transport->data_layout,
    };
    size_t size;

    memcpy(h.source_address, p->transport->address, sizeof h.source_address);
    memcpy(h.target_address, p->address, sizeof h.target_address);
    size = hello_encode(&h, p->hello + FRAME_HEADER_BYTES, FRAME_HELLO_BYTES_MAX);
    assert(size <= FRAME_HELLO_BYTES_MAX);
    frame_header_encode(p->hello, FRAME_HELLO, p->hello + FRAME_HEADER_BYTES, size);
    return FRAME_HEADER_BYTES + size;
}

/* Says who we are and waits for the answer. */
static void greet(struct peer *p)
{
    uv_buf_t buf = uv_buf_init((char *)p->hello, (unsigned)encode_hello(p));
    int r;

    move(p, PEER_HELLO);
    tcp_socket_options(&p->tcp);
    frame_parser_deinit(&p->parser);
    frame_parser_init(&p->parser, FRAME_HELLO_BYTES_MAX);
    uv_timer_start(&p->timer, on_timer, TCP_HANDSHAKE_TIMEOUT_MS, 0);
    p->hello_req.data = p;
    r = uv_read_start((uv_stream_t *)&p->tcp, loop_read_buffer, on_read);
    if (r == 0)
        r = uv_write(&p->hello_req, (uv_stream_t *)&p->tcp, &buf, 1, on_hello_written);
    if (r < 0)
        peer_fail(p, "hello: %s", uv_strerror(r));
}

static void come_up(struct peer *p)
{
    move(p, PEER_UP);
    uv_timer_stop(&p->timer);
    uv_timer_stop(&p->age_timer);
    if (p->n_failed > 0)
        p->transport->services->log(NH_LOG_INFO, "transport", "connection to %s: up again", p->address);
    p->n_failed = 0;
    p->logged[0] = '\0';
    tcp_connected(p->transport, p->address, p->snapshot);
}

/* ---- failing ---- */

/* Half of the delay is random, so that hosts that lost the same peer do not come back in step. */
static uint64_t backoff_ms(struct peer *p)
{
    uint64_t delay = TCP_BACKOFF_MIN_MS;

    for (unsigned i = 1; i < p->n_failed && delay < TCP_BACKOFF_MAX_MS; i++)
        delay *= 2;
    if (delay > TCP_BACKOFF_MAX_MS)
        delay = TCP_BACKOFF_MAX_MS;
    p->random = hash_u64(p->random + 1);
    return delay / 2 + p->random % (delay / 2 + 1);
}

static void start_closing(struct peer *p)
{
    bool socket = has_socket(p);

    if (p->state == PEER_RESOLVING && !(p->news & (PEER_RESOLVED | PEER_FAILED)))
        uv_cancel((uv_req_t *)&p->resolve_req);
    peer_withdraw(p);
    move(p, PEER_CLOSING);
    uv_close((uv_handle_t *)&p->timer, on_closed);
    uv_close((uv_handle_t *)&p->age_timer, on_closed);
    if (socket)
        uv_close((uv_handle_t *)&p->tcp, on_closed);
}

/* One line per outage, and one for each new reason: attempts go on for as long as a host is down. */
static void log_failure(struct peer *p)
{
    if (strcmp(p->reason, p->logged) == 0)
        return;
    memcpy(p->logged, p->reason, sizeof p->logged);
    loop_warn(p->loop, "%s to %s failed: %s%s", p->snapshot ? "snapshot connection" : "connection", p->address, p->reason,
              p->snapshot ? "" : "; trying again");
}

/* The attempt has failed with all addresses, or the connection is gone. */
static void back_off(struct peer *p)
{
    p->n_failed++;
    log_failure(p);
    tcp_failed(p->transport, p->address, p->snapshot, p->reason);
    if (p->snapshot) {
        start_closing(p);
        return;
    }
    move(p, PEER_BACKOFF);
    uv_timer_stop(&p->age_timer);
    uv_timer_start(&p->timer, on_timer, backoff_ms(p), 0);
}

static void drain(struct peer *p)
{
    if (p->state != PEER_CONNECTING)
        p->next_address = p->n_addresses; /* there was somebody: another address of the name is no better */
    peer_withdraw(p);
    move(p, PEER_DRAINING);
    uv_timer_stop(&p->timer);
    uv_close((uv_handle_t *)&p->tcp, on_closed);
}

/* ---- the state machine ---- */

static bool nothing_left(const struct peer *p)
{
    return queue_empty(&p->waiting) && queue_empty(&p->writing);
}

/* Does one thing. Returns true if there may be more to do. */
static bool step(struct peer *p)
{
    enum peer_state before = p->state;
    bool failed = p->news & PEER_FAILED;

    if (p->state < PEER_CLOSING && ((p->news & PEER_CLOSE) || (p->orphan && nothing_left(p))))
        start_closing(p);
    switch (p->state) {
    case PEER_IDLE:
        if (p->wants || !queue_empty(&p->waiting))
            attempt(p);
        break;
    case PEER_RESOLVING:
        if (failed)
            back_off(p);
        else if (p->news & PEER_RESOLVED)
            dial(p);
        break;
    case PEER_CONNECTING:
        if (failed)
            drain(p);
        else if (p->news & PEER_CONNECTED)
            greet(p);
        break;
    case PEER_HELLO:
        if (failed)
            drain(p);
        else if (p->news & PEER_ANSWERED)
            come_up(p);
        break;
    case PEER_UP:
        if (failed)
            drain(p);
        else
            peer_flush(p);
        break;
    case PEER_DRAINING:
        if ((p->news & PEER_SOCKET_CLOSED) && p->next_address < p->n_addresses)
            dial(p);
        else if (p->news & PEER_SOCKET_CLOSED)
            back_off(p);
        break;
    case PEER_BACKOFF:
        peer_give_up(p);
        if (p->news & PEER_TIMER)
            move(p, PEER_IDLE);
        break;
    case PEER_CLOSING:
        peer_give_up(p);
        if (p->live == 0)
            move(p, PEER_CLOSED);
        break;
    case PEER_CLOSED: peer_give_up(p); break;
    }
    return p->state != before || (p->state < PEER_DRAINING && (p->news & PEER_FAILED) && !failed);
}

void peer_tick(struct peer *p)
{
    while (step(p))
        ;
    if (p->state >= PEER_RESOLVING && p->state <= PEER_HELLO)
        peer_trim(p);
    if (p->state == PEER_CLOSED && p->orphan && !p->loop->stopping) {
        tcp_forget_peer(p->transport, p);
        list_remove(&p->on_loop);
        peer_free(p);
    }
}

/* ---- life ---- */

static void attach(struct peer *p)
{
    p->attached = true;
    list_push_back(&p->loop->peers, &p->on_loop);
    uv_timer_init(&p->loop->uv, &p->timer);
    uv_timer_init(&p->loop->uv, &p->age_timer);
    p->timer.data = p->age_timer.data = p;
    p->live = 2;
}

static void run(struct tcp_loop *loop, struct loop_task *task)
{
    struct peer *p = container_of(task, struct peer, task);

    if (loop->stopping)
        return; /* its frames are freed with it */
    if (!p->attached)
        attach(p);
    peer_take(p);
    peer_tick(p);
}

static void wake(struct send_queue *b)
{
    struct peer *p = container_of(b, struct peer, queue);

    loop_post(p->loop, &p->task);
}

static uint64_t hash_text(const char *s)
{
    uint64_t h = 0;

    for (; *s; s++)
        h = hash_u64(h + (unsigned char)*s);
    return h;
}

struct peer *peer_new(struct nh_transport *t, const char *address, const struct tcp_address *target, bool snapshot)
{
    struct peer *p = xcalloc(1, sizeof *p);
    uint64_t hash = hash_text(address);

    p->transport = t;
    p->loop = &t->loops[hash % t->n_loops];
    p->target = *target;
    memcpy(p->address, address, strlen(address) + 1);
    p->snapshot = snapshot;
    p->n_users = 1;
    p->wants = true;
    p->random = hash ^ uv_hrtime();
    p->task.run = run;
    list_init(&p->link);
    list_init(&p->on_loop);
    send_queue_init(&p->queue, t->send_queue_bytes, wake);
    p->queue.frames_sent = &t->stats.frames_sent;
    p->queue.bytes_sent = &t->stats.bytes_sent;
    frame_parser_init(&p->parser, FRAME_HELLO_BYTES_MAX);
    return p;
}

void peer_connect(struct peer *p)
{
    send_queue_kick(&p->queue);
}

void peer_close(struct peer *p)
{
    assert(p->loop->stopping);
    peer_take(p);
    tell(p, PEER_CLOSE);
}

void peer_join(struct peer *p)
{
    struct queue rest = {0};

    send_queue_close(&p->queue);
    send_queue_take(&p->queue, &rest, &p->orphan);
    queue_splice(&rest, &p->waiting);
    send_queue_release(&p->queue, &rest, OUT_LOST);
    send_queue_join(&p->queue);
}

void peer_free(struct peer *p)
{
    peer_join(p);
    send_queue_deinit(&p->queue);
    frame_parser_deinit(&p->parser);
    free(p);
}
