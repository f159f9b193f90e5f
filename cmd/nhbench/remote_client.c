#include "cmd/nhbench/remote_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/command.h"
#include "cmd/nhbench/must.h"

#define RECEIVE_BYTES 65536u
/* Of a command without its value. */
#define COMMAND_BYTES_MAX 128u

void remote_client_init(struct remote_client *c, const struct bench_options *o, struct remote_counts *counts, int fd)
{
    *c = (struct remote_client){.options = o, .counts = counts, .fd = fd};
    c->out_cap = (size_t)o->pipeline * (o->payload + COMMAND_BYTES_MAX);
    c->out = must(malloc(c->out_cap));
    c->sent = must(calloc(o->pipeline, sizeof *c->sent));
}

void remote_client_deinit(struct remote_client *c)
{
    if (c->fd > 0)
        close(c->fd);
    free(c->out);
    free(c->sent);
}

/* ---- out ---- */

static void add_command(struct remote_client *c, bool is_read)
{
    uint32_t payload = c->options->payload, key;
    char *at = c->out + c->out_size;

    key = (uint32_t)((commands_random(&c->counts->random) >> 32) * c->options->keys >> 32);
    at += sprintf(at, "*%d\r\n$3\r\n%s\r\n$16\r\nnhbench-", is_read ? 2 : 3, is_read ? "GET" : "SET");
    commands_digits((uint8_t *)at, key);
    at += 8;
    if (!is_read) {
        at += sprintf(at, "\r\n$%u\r\n", payload);
        memcpy(at, c->counts->value, payload);
        at += payload;
    }
    memcpy(at, "\r\n", 2);
    c->out_size = (size_t)(at + 2 - c->out);
}

/* There is room: what is not sent belongs to commands without reply, and there are never more of them than --pipeline. */
void remote_client_fill(struct remote_client *c)
{
    uint32_t cap = c->options->pipeline;
    uint64_t now_ns = clock_ns(), limit = (uint64_t)(c->options->read_share * 4294967296.0);

    memmove(c->out, c->out + c->out_at, c->out_size - c->out_at);
    c->out_size -= c->out_at;
    c->out_at = 0;
    for (; c->n < cap; c->n++) {
        bool is_read = limit && commands_random(&c->counts->random) >> 32 < limit;

        add_command(c, is_read);
        c->sent[(c->first + c->n) % cap] = (struct remote_sent){now_ns, is_read};
    }
}

bool remote_client_send(struct remote_client *c)
{
    while (c->out_at < c->out_size) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_size - c->out_at, MSG_NOSIGNAL);

        if (n < 0)
            return errno == EAGAIN;
        c->out_at += (size_t)n;
    }
    return true;
}

/* ---- in ---- */

static void note_error(struct remote_client *c)
{
    struct remote_counts *counts = c->counts;

    if (!counts->first_error[0])
        memcpy(counts->first_error, c->line, sizeof c->line);
    __atomic_store_n(&counts->errors, counts->errors + 1, __ATOMIC_RELAXED);
}

static void end_reply(struct remote_client *c, bool failed, uint64_t now_ns)
{
    const struct remote_sent *s = &c->sent[c->first];
    struct remote_counts *counts = c->counts;

    if (failed)
        note_error(c);
    else if (now_ns >= counts->begin_ns && now_ns < counts->end_ns)
        latencies_add(s->is_read ? &counts->reads : &counts->writes, now_ns - s->begun_ns);
    c->first = (c->first + 1) % c->options->pipeline;
    c->n--;
    __atomic_store_n(&counts->done, counts->done + 1, __ATOMIC_RELAXED);
}

/* The first line of a reply is complete. */
static bool take_line(struct remote_client *c, uint64_t now_ns)
{
    long long size;

    c->line[c->line_size < REMOTE_LINE_BYTES ? c->line_size : REMOTE_LINE_BYTES - 1] = 0;
    c->line[strcspn(c->line, "\r")] = 0;
    c->line_size = 0;
    if (c->n == 0)
        return false;
    switch (c->line[0]) {
    case '+':
    case '_':
    case ':': end_reply(c, false, now_ns); return true;
    case '-': end_reply(c, true, now_ns); return true;
    case '$':
        size = atoll(c->line + 1);
        if (size < 0)
            end_reply(c, false, now_ns);
        else
            c->skip = (uint64_t)size + 2;
        return true;
    default: return false;
    }
}

static bool parse(struct remote_client *c, const char *data, size_t size, uint64_t now_ns)
{
    bool ok = true;

    while (size > 0 && ok) {
        const char *newline = c->skip ? NULL : memchr(data, '\n', size);
        size_t n = c->skip ? (c->skip < size ? (size_t)c->skip : size) : newline ? (size_t)(newline - data) + 1 : size;

        if (c->skip) {
            c->skip -= n;
            if (c->skip == 0)
                end_reply(c, false, now_ns);
        } else {
            for (size_t i = 0; i < n && c->line_size < REMOTE_LINE_BYTES; i++)
                c->line[c->line_size++] = data[i];
            if (newline)
                ok = take_line(c, now_ns);
        }
        data += n;
        size -= n;
    }
    return ok;
}

bool remote_client_receive(struct remote_client *c)
{
    static _Thread_local char data[RECEIVE_BYTES];

    for (;;) {
        ssize_t n = recv(c->fd, data, sizeof data, 0);

        if (n < 0)
            return errno == EAGAIN;
        if (n == 0 || !parse(c, data, (size_t)n, clock_ns()))
            return false;
        if (n < (ssize_t)sizeof data)
            return true;
    }
}
