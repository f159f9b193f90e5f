#include "cmd/nodehostd/server.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/command.h"

#define READ_BYTES 16384u

/* ---- calls ---- */

static void free_answers(struct call *call)
{
    for (uint32_t i = 0; i < call->n_parts; i++) {
        free(call->parts[i].data);
        call->parts[i].data = NULL;
        call->parts[i].size = 0;
    }
}

void call_free(struct call *call)
{
    free_answers(call);
    for (uint32_t i = 0; i < call->n_parts; i++)
        buffer_deinit(&call->parts[i].cmd);
    free(call->parts);
    free(call->key_parts);
    buffer_deinit(&call->reply);
    free(call);
}

static struct call *call_new(struct client *c, const struct command *command)
{
    struct call *call = must_alloc(calloc(1, sizeof *call));

    call->server = c->server;
    call->client = c;
    call->command = command;
    call->args = c->parser.args;
    call->n_args = c->parser.n_args;
    call->resp = c->resp;
    if (c->last)
        c->last->next = call;
    else
        c->first = call;
    c->last = call;
    c->n_calls++;
    return call;
}

/* Small replies widen the window, one call per reply; a large one narrows it to what fits. */
static void adapt_window(struct client *c, size_t reply_bytes)
{
    size_t fits = CLIENT_WINDOW_BYTES / (reply_bytes + 1);

    if (fits >= CLIENT_CALLS_MAX)
        c->calls_max += c->calls_max < CLIENT_CALLS_MAX;
    else if (fits < c->calls_max)
        c->calls_max = fits > CLIENT_CALLS_MIN ? (uint32_t)fits : CLIENT_CALLS_MIN;
}

void call_done(struct call *call)
{
    struct client *c = call->client;

    call->done = true;
    if (!c) {
        call_free(call);
        return;
    }
    free_answers(call);
    c->held_bytes += call->reply.size;
    c->n_put_off -= call->asked_again;
    adapt_window(c, call->reply.size);
    if (call->counted) {
        c->n_writes -= call->command->kind == COMMAND_WRITE;
        c->n_reads -= call->command->kind == COMMAND_READ;
        c->n_value_writes -= call->answers_value;
    }
}

/* ---- answers without room ---- */

static bool is_query(const struct call *call)
{
    for (uint32_t i = 0; i < call->n_parts; i++)
        if (!call->parts[i].is_query)
            return false;
    return true;
}

/* The first call is never put off. Behind a call that is, all are: a later one of the same shard must not be older. */
bool call_put_off(struct call *call)
{
    struct client *c = call->client;

    if (!c || call == c->first || call->asked_again || !is_query(call))
        return false;
    if (c->n_put_off == 0 && c->held_bytes + call->answer_bytes <= CLIENT_HELD_BYTES_MAX)
        return false;
    free_answers(call);
    adapt_window(c, call->answer_bytes);
    call->expected_bytes = call->answer_bytes;
    call->put_off = true;
    c->n_put_off++;
    return true;
}

/* From the front, as many as fit. */
static void ask_again(struct client *c)
{
    size_t bytes = c->held_bytes;

    for (struct call *call = c->first; call && c->n_put_off > 0; call = call->next) {
        if (call->done || !(call->put_off || call->asked_again))
            continue;
        bytes += call->expected_bytes;
        if (bytes > CLIENT_WINDOW_BYTES && call != c->first)
            return;
        if (call->put_off)
            call_ask_again(call);
    }
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle)
{
    struct client *c = handle->data;

    resp_parser_deinit(&c->parser);
    buffer_deinit(&c->in);
    buffer_deinit(&c->out);
    buffer_deinit(&c->writing);
    free(c);
}

void client_close(struct client *c)
{
    struct call *next;

    if (c->closing)
        return;
    c->closing = true;
    if (c->prev)
        c->prev->next = c->next;
    else
        c->server->clients = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->server->stats.clients--;
    for (struct call *call = c->first; call; call = next) { /* what is on its way ends without us */
        next = call->next;
        call->client = NULL;
        if (call->done || call->put_off)
            call_free(call);
    }
    c->first = c->last = NULL;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

/* ---- out ---- */

static void start_write(struct client *c);

static void on_written(uv_write_t *req, int status)
{
    struct client *c = req->data;

    c->is_writing = false;
    c->writing.size = 0;
    if (c->writing.cap > 4 * CLIENT_OUT_BYTES_SOFT)
        buffer_deinit(&c->writing); /* one large reply is no reason to keep so much */
    if (status < 0)
        client_close(c);
    if (!c->closing)
        client_go_on(c);
}

static void start_write(struct client *c)
{
    struct buffer spare = c->writing;
    uv_buf_t buf;

    if (c->is_writing || c->out.size == 0)
        return;
    c->writing = c->out;
    c->out = spare;
    buf = uv_buf_init(c->writing.data, (unsigned)c->writing.size);
    c->write_req.data = c;
    c->is_writing = true;
    if (uv_write(&c->write_req, (uv_stream_t *)&c->tcp, &buf, 1, on_written) < 0)
        client_close(c);
}

static void move_reply(struct buffer *out, struct buffer *reply)
{
    struct buffer spare = *out;

    if (out->size == 0 && reply->size > CLIENT_OUT_BYTES_SOFT) { /* not twice in memory */
        *out = *reply;
        *reply = spare;
        return;
    }
    buffer_add(out, reply->data, reply->size);
}

/* Replies leave in the order of the calls: those at the front that are done, as the client reads them. */
static void collect_replies(struct client *c)
{
    while (c->first && c->first->done && c->out.size < CLIENT_OUT_BYTES_SOFT) {
        struct call *call = c->first;

        c->held_bytes -= call->reply.size;
        move_reply(&c->out, &call->reply);
        c->first = call->next;
        if (!c->first)
            c->last = NULL;
        c->n_calls--;
        call_free(call);
    }
}

/* ---- in ---- */

/* As Redis says it: 128 bytes of arguments are begun, none is told behind a zero byte. */
static void answer_unknown(struct call *call)
{
    struct kv_slice name = call->args[0];
    char args[128 + 8];
    size_t n = 0;

    args[0] = 0;
    for (uint32_t i = 1; i < call->n_args && n < 128; i++) {
        size_t room = 128 - n, size = call->args[i].size < room ? call->args[i].size : room;

        n += (size_t)snprintf(args + n, sizeof args - n, "'%.*s' ", (int)size, (const char *)call->args[i].data);
    }
    reply_errorf(&call->reply, "ERR unknown command '%.*s', with args beginning with: %s",
                 (int)(name.size < 128 ? name.size : 128), (const char *)name.data, args);
}

static bool arity_fits(const struct command *command, uint32_t n_args)
{
    return command->arity >= 0 ? n_args == (uint32_t)command->arity : n_args >= (uint32_t)-command->arity;
}

static bool is_loading(const struct server *s)
{
    return __atomic_load_n(&s->loading, __ATOMIC_ACQUIRE);
}

static void run_call(struct call *call)
{
    struct server *s = call->server;

    s->stats.commands++;
    if (!call->command)
        answer_unknown(call);
    else if (!arity_fits(call->command, call->n_args))
        reply_wrong_arity(call);
    else if (is_loading(s) && !(call->command->flags & FLAG_LOADING))
        reply_errorf(&call->reply, "LOADING %u of %u shards are started; nothing was applied",
                     __atomic_load_n(&s->n_shards_started, __ATOMIC_RELAXED), s->n_shards_wanted);
    else if (call->client->in_multi && !(call->command->flags & FLAG_UNQUEUED))
        reply_simple(&call->reply, "QUEUED");
    else
        call->command->run(call);
    if (call->n_parts == 0)
        call_done(call);
    call->args = NULL;
}

/* A read must not overtake the client's writes, nor a write its reads. */
static bool must_wait(const struct client *c, const struct command *command)
{
    if (!command)
        return false;
    return (command->kind == COMMAND_READ && c->n_writes > 0) || (command->kind == COMMAND_WRITE && c->n_reads > 0);
}

static void count_call(struct client *c, struct call *call)
{
    if (call->done || !call->command)
        return;
    call->counted = true;
    c->n_writes += call->command->kind == COMMAND_WRITE;
    c->n_reads += call->command->kind == COMMAND_READ;
    c->n_value_writes += call->answers_value;
}

static void end_by_protocol_error(struct client *c)
{
    struct call *call = call_new(c, NULL);

    call->args = NULL;
    reply_error(&call->reply, c->parser.error);
    call_done(call);
    c->last_call = c->is_refused = true;
}

/* Looks for the next request. One that must wait was parsed before: it is only found again. */
static enum resp_status next_request(struct client *c)
{
    char *data = c->in.data + c->in_at;
    enum resp_status status;

    if (c->parsed_bytes > 0) {
        resp_resolve(&c->parser, data);
        return RESP_REQUEST;
    }
    status = resp_parse(&c->parser, data, c->in.size - c->in_at, &c->parsed_bytes);
    if (status != RESP_EMPTY)
        return status;
    c->in_at += c->parsed_bytes;
    c->parsed_bytes = 0;
    return RESP_EMPTY;
}

/* Takes one command; false when there is none, or it must wait. */
static bool take_command(struct client *c)
{
    enum resp_status status = next_request(c);
    const struct command *command;
    struct call *call;

    if (status == RESP_ERROR)
        end_by_protocol_error(c);
    if (status != RESP_REQUEST)
        return status == RESP_EMPTY;
    command = command_find(c->parser.args[0]);
    if (must_wait(c, command))
        return false;
    call = call_new(c, command);
    run_call(call);
    count_call(c, call);
    c->in_at += c->parsed_bytes;
    c->parsed_bytes = 0;
    return true;
}

static bool has_room(const struct client *c)
{
    return !c->closing && !c->last_call && c->n_calls < c->calls_max && c->out.size < CLIENT_OUT_BYTES_SOFT &&
           c->held_bytes < CLIENT_WINDOW_BYTES && c->n_put_off == 0 && c->n_value_writes < CLIENT_VALUE_WRITES_MAX;
}

static void take_commands(struct client *c)
{
    while (has_room(c) && c->in_at < c->in.size) {
        if (!take_command(c))
            break;
        collect_replies(c);
    }
    if (c->in_at > 0) {
        buffer_consume(&c->in, c->in_at);
        c->in_at = 0;
    }
    if (c->in.size == 0)
        buffer_deinit(&c->in); /* an idle client costs no buffer */
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct client *c = handle->data;

    (void)suggested;
    buf->base = buffer_reserve(&c->in, READ_BYTES);
    buf->len = READ_BYTES;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client *c = stream->data;

    (void)buf;
    if (n < 0) {
        client_close(c);
        return;
    }
    if (c->lingers) {
        c->refused_bytes += (size_t)n;
        if (c->refused_bytes > CLIENT_REFUSED_BYTES_MAX)
            client_close(c);
        return;
    }
    c->in.size += (size_t)n;
    client_go_on(c);
}

/* Reads while there is room for what comes; a request that is being received always has room (resp.h bounds it). */
static void set_reading(struct client *c)
{
    bool wanted = has_room(c) && c->in.size < RESP_REQUEST_BYTES_MAX + 2 * RESP_INLINE_BYTES_MAX + RESP_ARGS_MAX * 24u;

    if (wanted && c->in.size > READ_BYTES && (c->n_writes > 0 || c->n_reads > 0))
        wanted = false; /* commands wait already */
    if (wanted == c->is_reading)
        return;
    c->is_reading = wanted;
    if (wanted)
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&c->tcp);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    (void)req;
    (void)status;
}

/* A connection that is closed with bytes unread is reset, and a client that is still sending would not see the error that it was
 * given: so it is closed when the client does. */
static void linger(struct client *c)
{
    c->lingers = true;
    buffer_deinit(&c->in);
    if (uv_shutdown(&c->shutdown_req, (uv_stream_t *)&c->tcp, on_shutdown) < 0 ||
        (!c->is_reading && uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) < 0))
        client_close(c);
}

static void end_client(struct client *c)
{
    if (c->is_refused)
        linger(c);
    else
        client_close(c);
}

void client_go_on(struct client *c)
{
    if (c->closing || c->lingers)
        return;
    collect_replies(c);
    take_commands(c);
    collect_replies(c);
    if (c->out.size < CLIENT_OUT_BYTES_SOFT)
        ask_again(c);
    start_write(c);
    if (c->closing)
        return;
    if (c->last_call && !c->first && !c->is_writing && c->out.size == 0) {
        end_client(c);
        return;
    }
    set_reading(c);
}

/* ---- accepting ---- */

static void note_address(struct client *c)
{
    struct sockaddr_storage a;
    int size = sizeof a, port = 0;
    char ip[64] = "?";

    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&a, &size) == 0) {
        if (a.ss_family == AF_INET6) {
            uv_ip6_name((struct sockaddr_in6 *)&a, ip, sizeof ip);
            port = ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
        } else {
            uv_ip4_name((struct sockaddr_in *)&a, ip, sizeof ip);
            port = ntohs(((struct sockaddr_in *)&a)->sin_port);
        }
    }
    snprintf(c->address, sizeof c->address, "%s:%d", ip, port);
}

static void refuse(struct client *c)
{
    static const char text[] = "-ERR max number of clients reached\r\n";
    uv_buf_t buf = uv_buf_init((char *)(size_t)text, sizeof text - 1);

    c->server->stats.rejected++;
    uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
    client_close(c);
}

void client_accept(struct server *s)
{
    struct client *c = must_alloc(calloc(1, sizeof *c));

    uv_tcp_init(&s->loop, &c->tcp);
    c->tcp.data = c;
    c->server = s;
    c->resp = 2;
    c->id = ++s->next_client_id;
    c->calls_max = CLIENT_CALLS_START;
    resp_parser_init(&c->parser);
    c->next = s->clients;
    if (c->next)
        c->next->prev = c;
    s->clients = c;
    s->stats.clients++;
    if (uv_accept((uv_stream_t *)&s->listener, (uv_stream_t *)&c->tcp) < 0) {
        client_close(c);
        return;
    }
    s->stats.connections++;
    if (s->stats.clients > s->max_clients) {
        refuse(c);
        return;
    }
    note_address(c);
    uv_tcp_nodelay(&c->tcp, 1);
    set_reading(c);
}
