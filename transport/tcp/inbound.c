#include "transport/tcp/inbound.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"
#include "transport/check.h"
#include "transport/tcp/tcp_private.h"

#define TO(s) (1u << INBOUND_##s)

static const uint32_t edges[] = {
    [INBOUND_HELLO] = TO(OPEN) | TO(REFUSING) | TO(CLOSING),
    [INBOUND_REFUSING] = TO(CLOSING),
    [INBOUND_OPEN] = TO(CLOSING),
    [INBOUND_CLOSING] = 0,
};

static void move(struct inbound *in, enum inbound_state to)
{
    assert(edges[in->state] & (1u << to));
    if (in->state == INBOUND_HELLO) {
        list_remove(&in->on_strangers);
        in->loop->n_strangers--;
    }
    in->state = to;
}

/* ---- limits ---- */

bool inbound_admit(struct nh_transport *t, int fd)
{
    uint32_t all = __atomic_add_fetch(&t->n_inbound, 1, __ATOMIC_RELAXED);

    if (all <= TCP_INBOUND_MAX) {
        TCP_COUNT(t, accepted, 1);
        return true;
    }
    TCP_COUNT(t, accepts_dropped, 1);
    inbound_discard(t, fd);
    return false;
}

void inbound_discard(struct nh_transport *t, int fd)
{
    __atomic_fetch_sub(&t->n_inbound, 1, __ATOMIC_RELAXED);
    close(fd);
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct inbound *in = handle->data;

    if (--in->live > 0)
        return;
    __atomic_fetch_sub(&in->transport->n_inbound, 1, __ATOMIC_RELAXED);
    list_remove(&in->on_loop);
    frame_parser_deinit(&in->parser);
    free(in);
}

void inbound_close(struct inbound *in)
{
    if (in->state == INBOUND_CLOSING)
        return;
    move(in, INBOUND_CLOSING);
    uv_close((uv_handle_t *)&in->tcp, on_closed);
    uv_close((uv_handle_t *)&in->timer, on_closed);
}

/* The connection ended, and it was nobody's fault. */
static void finish(struct inbound *in, const char *reason, bool clean)
{
    bool was_open = in->state == INBOUND_OPEN;

    inbound_close(in);
    /* A snapshot connection ends when its chunks are sent. */
    if (was_open && !(clean && in->snapshot))
        tcp_failed(in->transport, in->source, in->snapshot, reason);
}

/* They broke a rule. */
static void cut(struct inbound *in, const char *fmt, ...) NH_PRINTF(2, 3);
static void cut(struct inbound *in, const char *fmt, ...)
{
    char reason[NH_ERROR_TEXT_BYTES];
    va_list args;

    va_start(args, fmt);
    vsnprintf(reason, sizeof reason, fmt, args);
    va_end(args);
    TCP_COUNT(in->transport, cut, 1);
    loop_warn(in->loop, "connection from %s (%s) cut: %s", in->remote, in->source[0] ? in->source : "no hello yet", reason);
    finish(in, reason, false);
}

static void on_timeout(uv_timer_t *timer)
{
    struct inbound *in = timer->data;

    if (in->state == INBOUND_HELLO)
        cut(in, "no hello within %u ms", TCP_HANDSHAKE_TIMEOUT_MS);
    else
        inbound_close(in);
}

/* ---- hello ---- */

static void on_answered(uv_write_t *req, int status)
{
    struct inbound *in = req->data;

    if (in->state == INBOUND_REFUSING)
        inbound_close(in);
    else if (status < 0 && in->state == INBOUND_OPEN)
        finish(in, uv_strerror(status), false);
}

/* Sends in->answer, whose payload already stands behind the header. */
static void answer(struct inbound *in, enum frame_type type, size_t size_bytes)
{
    uv_buf_t buf = uv_buf_init((char *)in->answer, (unsigned)(FRAME_HEADER_BYTES + size_bytes));
    int r;

    frame_header_encode(in->answer, type, in->answer + FRAME_HEADER_BYTES, size_bytes);
    in->answer_req.data = in;
    r = uv_write(&in->answer_req, (uv_stream_t *)&in->tcp, &buf, 1, on_answered);
    if (r < 0)
        finish(in, uv_strerror(r), false);
}

static void refuse(struct inbound *in, const struct nh_hello *hello, enum frame_refusal reason)
{
    uint32_t number = reason;

    TCP_COUNT(in->transport, refused, 1);
    loop_warn(in->loop, "connection from %s refused: %s (version %u, deployment %llu, from '%s' to '%s')", in->remote,
              frame_refusal_text(reason), hello->bin_version, (unsigned long long)hello->deployment_id, hello->source_address,
              hello->target_address);
    move(in, INBOUND_REFUSING);
    uv_read_stop((uv_stream_t *)&in->tcp);
    memcpy(in->answer + FRAME_HEADER_BYTES, &number, sizeof number);
    answer(in, FRAME_REFUSED, sizeof number);
}

/* 0: welcome; else the reason why not. */
static uint32_t judge(const struct nh_transport *t, const struct nh_hello *hello)
{
    if (hello->bin_version != NH_TRANSPORT_BIN_VERSION)
        return FRAME_REFUSED_VERSION;
    if (hello->deployment_id != t->deployment_id)
        return FRAME_REFUSED_DEPLOYMENT;
    if (strcmp(hello->target_address, t->address) != 0)
        return FRAME_REFUSED_TARGET;
    if (!transport_layouts_agree(hello->data_layout, t->data_layout))
        return FRAME_REFUSED_LAYOUT;
    return hello->source_address[0] ? 0 : FRAME_REFUSED_SOURCE;
}

static void welcome(struct inbound *in, const struct nh_hello *theirs)
{
    struct nh_transport *t = in->transport;
    struct nh_hello ours = {
        .bin_version = NH_TRANSPORT_BIN_VERSION,
        .deployment_id = t->deployment_id,
        .snapshot_connection = theirs->snapshot_connection,
        .data_layout = t->data_layout,
    };
    size_t size;

    memcpy(ours.source_address, t->address, sizeof ours.source_address);
    memcpy(ours.target_address, theirs->source_address, sizeof ours.target_address);
    memcpy(in->source, theirs->source_address, sizeof in->source);
    in->snapshot = theirs->snapshot_connection;
    in->parser.payload_bytes_max = t->payload_bytes_max;
    uv_timer_stop(&in->timer);
    move(in, INBOUND_OPEN);
    size = hello_encode(&ours, in->answer + FRAME_HEADER_BYTES, FRAME_HELLO_BYTES_MAX);
    assert(size <= FRAME_HELLO_BYTES_MAX);
    tcp_connected(t, in->source, in->snapshot);
    answer(in, FRAME_HELLO, size);
}

static void on_hello(struct inbound *in, const struct frame *f)
{
    struct nh_hello hello;
    struct nh_error err;
    uint32_t reason;

    if (f->type != FRAME_HELLO) {
        cut(in, "it does not begin with a hello");
        return;
    }
    if (hello_decode(f->payload, f->size_bytes, &hello, &err) < 0) {
        cut(in, "%s", err.text);
        return;
    }
    reason = judge(in->transport, &hello);
    if (reason)
        refuse(in, &hello, (enum frame_refusal)reason);
    else
        welcome(in, &hello);
}

/* ---- what hosts say ---- */

static void on_batch(struct inbound *in, const struct frame *f)
{
    struct nh_transport *t = in->transport;
    struct nh_message_batch *batch;
    struct nh_error err;

    if (t->services->decode_batch(f->payload, f->size_bytes, &batch, &err) < 0) {
        cut(in, "%s", err.text);
        return;
    }
    if (transport_check_received(batch, t->deployment_id, in->source, &err) < 0)
        cut(in, "%s", err.text);
    else
        t->handlers.on_batch(t->handlers.ctx, batch);
    t->services->free_batch(batch);
}

static void on_chunk(struct inbound *in, const struct frame *f)
{
    struct nh_transport *t = in->transport;
    struct nh_chunk chunk;
    struct nh_error err;

    if (t->services->decode_chunk(f->payload, f->size_bytes, &chunk, &err) < 0 ||
        transport_check_chunk(&chunk, t->deployment_id, &err) < 0)
        cut(in, "%s", err.text);
    else if (!t->handlers.on_chunk || !t->handlers.on_chunk(t->handlers.ctx, &chunk))
        finish(in, "chunk refused", false);
}

static void on_frame(struct inbound *in, const struct frame *f)
{
    TCP_COUNT(in->transport, frames_received, 1);
    if (in->state == INBOUND_HELLO)
        on_hello(in, f);
    else if (f->type == FRAME_BATCH && !in->snapshot)
        on_batch(in, f);
    else if (f->type == FRAME_CHUNK && in->snapshot)
        on_chunk(in, f);
    else
        cut(in, "frame of type %d does not belong on this connection", (int)f->type);
}

/* ---- reading ---- */

static void on_end(struct inbound *in, int status)
{
    if (status == UV_EOF && frame_parser_at_boundary(&in->parser))
        finish(in, "closed by the other side", true);
    else if (status == UV_EOF)
        finish(in, "closed inside a frame", false);
    else
        finish(in, uv_strerror(status), false);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct inbound *in = stream->data;
    const uint8_t *data = (const uint8_t *)buf->base;
    size_t size = n > 0 ? (size_t)n : 0;
    enum frame_status status = FRAME_READY;
    struct frame frame;

    if (n < 0)
        on_end(in, (int)n);
    if (n <= 0)
        return;
    loop_read_begins(in->loop);
    while ((in->state == INBOUND_HELLO || in->state == INBOUND_OPEN) && status == FRAME_READY) {
        status = frame_parser_next(&in->parser, &data, &size, &frame);
        if (status == FRAME_READY)
            on_frame(in, &frame);
        else if (status != FRAME_MORE)
            cut(in, "%s", frame_status_text(status));
    }
    if (!in->snapshot && in->transport->handlers.on_drained)
        in->transport->handlers.on_drained(in->transport->handlers.ctx);
    loop_read_ends(in->loop, (size_t)n);
}

/* "10.0.0.1:41234" of the other end. */
static void name_remote(struct inbound *in)
{
    struct sockaddr_storage addr;
    int size = sizeof addr, port;
    char host[INET6_ADDRSTRLEN] = "?";

    if (uv_tcp_getpeername(&in->tcp, (struct sockaddr *)&addr, &size) < 0)
        return;
    if (addr.ss_family == AF_INET6) {
        uv_ip6_name((struct sockaddr_in6 *)&addr, host, sizeof host);
        port = ntohs(((struct sockaddr_in6 *)&addr)->sin6_port);
    } else {
        uv_ip4_name((struct sockaddr_in *)&addr, host, sizeof host);
        port = ntohs(((struct sockaddr_in *)&addr)->sin_port);
    }
    snprintf(in->remote, sizeof in->remote, "%s:%d", host, port);
}

static void add_stranger(struct tcp_loop *loop, struct inbound *in)
{
    list_push_back(&loop->strangers, &in->on_strangers);
    if (++loop->n_strangers > TCP_HANDSHAKES_MAX / loop->transport->n_loops)
        cut(container_of(loop->strangers.next, struct inbound, on_strangers), "no hello yet, and too many wait for one");
}

void inbound_open(struct tcp_loop *loop, int fd)
{
    struct inbound *in = xcalloc(1, sizeof *in);
    int r;

    in->transport = loop->transport;
    in->loop = loop;
    in->live = 2;
    in->tcp.data = in->timer.data = in;
    frame_parser_init(&in->parser, FRAME_HELLO_BYTES_MAX);
    list_push_back(&loop->inbounds, &in->on_loop);
    add_stranger(loop, in);
    uv_timer_init(&loop->uv, &in->timer);
    uv_tcp_init(&loop->uv, &in->tcp);
    r = uv_tcp_open(&in->tcp, fd);
    if (r < 0) {
        close(fd);
        inbound_close(in);
        return;
    }
    name_remote(in);
    tcp_socket_options(&in->tcp);
    uv_timer_start(&in->timer, on_timeout, TCP_HANDSHAKE_TIMEOUT_MS, 0);
    if (uv_read_start((uv_stream_t *)&in->tcp, loop_read_buffer, on_read) < 0)
        inbound_close(in);
}
