#include "cmd/nodehostd/resp.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ---- */

void resp_parser_init(struct resp_parser *p)
{
    *p = (struct resp_parser){.n_expected = -1};
}

void resp_parser_deinit(struct resp_parser *p)
{
    free(p->args);
    free(p->offsets);
    free(p->sizes);
    *p = (struct resp_parser){.n_expected = -1};
}

/* As the texts below say. */
_Static_assert(RESP_ARGS_MAX == 65536u && RESP_INLINE_BYTES_MAX == 65536u, "limits in texts");
_Static_assert(RESP_BULK_BYTES_MAX == 33554432u && RESP_REQUEST_BYTES_MAX == 50331648u, "limits in texts");

static enum resp_status fail(struct resp_parser *p, const char *text)
{
    p->error = text;
    return RESP_ERROR;
}

static void begin(struct resp_parser *p)
{
    p->n_args = 0;
    p->n_expected = -1;
    p->at = p->arg_bytes = 0;
}

static void reserve_args(struct resp_parser *p)
{
    if (p->n_args < p->cap_args)
        return;
    p->cap_args = p->cap_args ? p->cap_args * 2 : 8;
    p->args = must_alloc(realloc(p->args, p->cap_args * sizeof *p->args));
    p->offsets = must_alloc(realloc(p->offsets, p->cap_args * sizeof *p->offsets));
    p->sizes = must_alloc(realloc(p->sizes, p->cap_args * sizeof *p->sizes));
}

static void add_arg(struct resp_parser *p, size_t at, size_t size)
{
    reserve_args(p);
    p->offsets[p->n_args] = (uint32_t)at;
    p->sizes[p->n_args] = (uint32_t)size;
    p->n_args++;
    p->arg_bytes += size;
}

void resp_resolve(struct resp_parser *p, const char *data)
{
    for (uint32_t i = 0; i < p->n_args; i++)
        p->args[i] = (struct kv_slice){(const uint8_t *)data + p->offsets[i], p->sizes[i]};
}

/* The end of the line that begins at p->at: index of its '\n', or SIZE_MAX. */
static size_t find_line(const struct resp_parser *p, const char *data, size_t size_bytes)
{
    const char *end = memchr(data + p->at, '\n', size_bytes - p->at);

    return end ? (size_t)(end - data) : SIZE_MAX;
}

/* The decimal number in data[at .. end), as Redis reads them: an optional minus and digits. */
static bool read_number(const char *data, size_t at, size_t end, int64_t *ret)
{
    bool minus = at < end && data[at] == '-';
    int64_t n = 0;

    at += minus;
    if (at == end || end - at > 18)
        return false;
    for (; at < end; at++) {
        if (data[at] < '0' || data[at] > '9')
            return false;
        n = n * 10 + (data[at] - '0');
    }
    *ret = minus ? -n : n;
    return true;
}

/* A line "<sign><number>\r\n" at p->at. RESP_REQUEST: read, p->at is behind it. */
static enum resp_status read_header(struct resp_parser *p, const char *data, size_t size_bytes, const char *error, int64_t *ret)
{
    size_t end = find_line(p, data, size_bytes);

    if (end == SIZE_MAX)
        return size_bytes - p->at > RESP_INLINE_BYTES_MAX ? fail(p, "ERR Protocol error: too big mbulk count string") : RESP_MORE;
    if (end < p->at + 2 || data[end - 1] != '\r' || !read_number(data, p->at + 1, end - 1, ret))
        return fail(p, error);
    p->at = end + 1;
    return RESP_REQUEST;
}

static enum resp_status parse_bulk(struct resp_parser *p, const char *data, size_t size_bytes)
{
    size_t before = p->at;
    enum resp_status s;
    int64_t n;

    if (p->at >= size_bytes)
        return RESP_MORE;
    if (data[p->at] != '$')
        return fail(p, "ERR Protocol error: expected '$' before an argument");
    s = read_header(p, data, size_bytes, "ERR Protocol error: invalid bulk length", &n);
    if (s != RESP_REQUEST)
        return s;
    if (n < 0)
        return fail(p, "ERR Protocol error: invalid bulk length");
    if (n > (int64_t)RESP_BULK_BYTES_MAX)
        return fail(p, "ERR Protocol error: invalid bulk length: the limit is 33554432 bytes");
    if ((size_t)n > RESP_REQUEST_BYTES_MAX - p->arg_bytes)
        return fail(p, "ERR Protocol error: request too large: the limit of all arguments together is 50331648 bytes");
    if (size_bytes - p->at < (size_t)n + 2) {
        p->at = before;
        return RESP_MORE;
    }
    if (data[p->at + (size_t)n] != '\r' || data[p->at + (size_t)n + 1] != '\n')
        return fail(p, "ERR Protocol error: an argument does not end where its length says");
    add_arg(p, p->at, (size_t)n);
    p->at += (size_t)n + 2;
    return RESP_REQUEST;
}

static enum resp_status parse_array(struct resp_parser *p, const char *data, size_t size_bytes, size_t *ret_bytes)
{
    enum resp_status s = RESP_REQUEST;

    if (p->n_expected < 0) {
        int64_t n;

        s = read_header(p, data, size_bytes, "ERR Protocol error: invalid multibulk length", &n);
        if (s != RESP_REQUEST)
            return s;
        if (n > (int64_t)RESP_ARGS_MAX)
            return fail(p, "ERR Protocol error: invalid multibulk length: the limit is 65536 arguments");
        if (n <= 0) {
            *ret_bytes = p->at;
            begin(p);
            return RESP_EMPTY;
        }
        p->n_expected = n;
    }
    while (p->n_args < p->n_expected && s == RESP_REQUEST)
        s = parse_bulk(p, data, size_bytes);
    if (s != RESP_REQUEST)
        return s;
    resp_resolve(p, data);
    *ret_bytes = p->at;
    p->n_expected = -1;
    p->at = p->arg_bytes = 0;
    return RESP_REQUEST;
}

/* ---- inline ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads an escape behind a backslash; *at points at what follows it. */
static char unescape(const char *data, size_t *at, size_t end)
{
    char c = data[*at];

    if (c == 'x' && *at + 2 < end && hex_digit(data[*at + 1]) >= 0 && hex_digit(data[*at + 2]) >= 0) {
        c = (char)(hex_digit(data[*at + 1]) * 16 + hex_digit(data[*at + 2]));
        *at += 3;
        return c;
    }
    ++*at;
    switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'b': return '\b';
    case 'a': return '\a';
    default: return c;
    }
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\0';
}

/* One word at *at, unquoted in place; its bytes begin at `out`. Returns its size, or -1: unbalanced quotes. */
static int64_t read_word(char *data, size_t *at, size_t end, size_t out)
{
    size_t begin_out = out;
    char quote = 0;

    for (; *at < end && (quote || !is_space(data[*at]));) {
        char c = data[*at];

        if (quote == '"' && c == '\\' && *at + 1 < end) {
            ++*at;
            data[out++] = unescape(data, at, end);
        } else if (quote == '\'' && c == '\\' && *at + 1 < end && data[*at + 1] == '\'') {
            data[out++] = '\'';
            *at += 2;
        } else if (quote && c == quote) {
            ++*at;
            if (*at < end && !is_space(data[*at]))
                return -1; /* a closing quote must be followed by a space */
            return (int64_t)(out - begin_out);
        } else if (!quote && (c == '"' || c == '\'')) {
            quote = c;
            ++*at;
        } else {
            data[out++] = c;
            ++*at;
        }
    }
    return quote ? -1 : (int64_t)(out - begin_out);
}

static enum resp_status parse_inline(struct resp_parser *p, char *data, size_t size_bytes, size_t *ret_bytes)
{
    size_t end = find_line(p, data, size_bytes), at = 0;

    if (end == SIZE_MAX)
        return size_bytes > RESP_INLINE_BYTES_MAX
                   ? fail(p, "ERR Protocol error: too big inline request: the limit is 65536 bytes")
                   : RESP_MORE;
    if (end > RESP_INLINE_BYTES_MAX)
        return fail(p, "ERR Protocol error: too big inline request: the limit is 65536 bytes");
    begin(p);
    for (;;) {
        size_t from;
        int64_t size;

        while (at < end && is_space(data[at]))
            at++;
        if (at == end)
            break;
        from = at;
        size = read_word(data, &at, end, from);
        if (size < 0)
            return fail(p, "ERR Protocol error: unbalanced quotes in request");
        add_arg(p, from, (size_t)size);
    }
    *ret_bytes = end + 1;
    if (p->n_args == 0)
        return RESP_EMPTY;
    resp_resolve(p, data);
    p->arg_bytes = 0;
    return RESP_REQUEST;
}

enum resp_status resp_parse(struct resp_parser *p, char *data, size_t size_bytes, size_t *ret_bytes)
{
    if (p->n_expected < 0) {
        begin(p);
        if (size_bytes == 0)
            return RESP_MORE;
        if (data[0] != '*')
            return parse_inline(p, data, size_bytes, ret_bytes);
    }
    return parse_array(p, data, size_bytes, ret_bytes);
}

/* ---- replies ---- */

void reply_simple(struct buffer *b, const char *text)
{
    buffer_printf(b, "+%s\r\n", text);
}

void reply_error(struct buffer *b, const char *text)
{
    size_t at;

    buffer_add(b, "-", 1);
    at = b->size;
    buffer_add_text(b, text);
    for (; at < b->size; at++)
        if (b->data[at] == '\r' || b->data[at] == '\n')
            b->data[at] = ' ';
    buffer_add(b, "\r\n", 2);
}

void reply_errorf(struct buffer *b, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    reply_error(b, text);
}

static void put_header(struct buffer *b, char sign, int64_t n)
{
    char text[24];
    int at = (int)sizeof text;
    bool minus = n < 0;
    uint64_t u = minus ? -(uint64_t)n : (uint64_t)n;

    text[--at] = '\n';
    text[--at] = '\r';
    do {
        text[--at] = (char)('0' + u % 10);
        u /= 10;
    } while (u > 0);
    if (minus)
        text[--at] = '-';
    buffer_reserve(b, sizeof text + 1);
    buffer_add(b, &sign, 1);
    buffer_add(b, text + at, sizeof text - (size_t)at);
}

void reply_integer(struct buffer *b, int64_t n)
{
    put_header(b, ':', n);
}

void reply_bulk(struct buffer *b, const void *data, size_t size)
{
    put_header(b, '$', (int64_t)size);
    buffer_add(b, data, size);
    buffer_add(b, "\r\n", 2);
}

void reply_text(struct buffer *b, const char *text)
{
    reply_bulk(b, text, strlen(text));
}

void reply_null(struct buffer *b, int resp)
{
    buffer_add_text(b, resp >= 3 ? "_\r\n" : "$-1\r\n");
}

void reply_null_array(struct buffer *b, int resp)
{
    buffer_add_text(b, resp >= 3 ? "_\r\n" : "*-1\r\n");
}

void reply_array(struct buffer *b, size_t n)
{
    put_header(b, '*', (int64_t)n);
}

void reply_map(struct buffer *b, int resp, size_t n)
{
    if (resp >= 3)
        put_header(b, '%', (int64_t)n);
    else
        put_header(b, '*', (int64_t)n * 2);
}

void reply_set(struct buffer *b, int resp, size_t n)
{
    put_header(b, resp >= 3 ? '~' : '*', (int64_t)n);
}

void reply_verbatim(struct buffer *b, int resp, const char *text, size_t size)
{
    if (resp < 3) {
        reply_bulk(b, text, size);
        return;
    }
    put_header(b, '=', (int64_t)size + 4);
    buffer_add_text(b, "txt:");
    buffer_add(b, text, size);
    buffer_add(b, "\r\n", 2);
}
