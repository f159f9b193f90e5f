/* Requests cut anywhere, every limit at it and one past, replies as bytes. */
#include "cmd/nodehostd/resp.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct resp_parser p;

static void setup(void)
{
    resp_parser_init(&p);
}

static void teardown(void)
{
    resp_parser_deinit(&p);
}

TestSuite(resp, .init = setup, .fini = teardown);

static void expect_args(uint32_t n, const char *const *args)
{
    cr_assert_eq(p.n_args, n, "%u arguments instead of %u", p.n_args, n);
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(p.args[i].size, strlen(args[i]), "argument %u: '%.*s'", i, (int)p.args[i].size,
                     (const char *)p.args[i].data);
        cr_assert_eq(memcmp(p.args[i].data, args[i], p.args[i].size), 0);
    }
}

/* Parses a copy whole, and fed byte by byte (an array only: an inline line is parsed when it is whole). */
static void expect(const char *text, uint32_t n, const char *const *args)
{
    size_t size = strlen(text), used = 0;
    char *copy = strdup(text);

    cr_assert_eq(resp_parse(&p, copy, size, &used), RESP_REQUEST, "%s", text);
    cr_assert_eq(used, size);
    expect_args(n, args);
    strcpy(copy, text);
    for (size_t end = 0; end < size; end++)
        cr_assert_eq(resp_parse(&p, copy, end, &used), RESP_MORE, "%s at %zu", text, end);
    cr_assert_eq(resp_parse(&p, copy, size, &used), RESP_REQUEST);
    expect_args(n, args);
    free(copy);
}

static void expect_error(const char *text, const char *error)
{
    char *copy = strdup(text);
    size_t used;

    cr_assert_eq(resp_parse(&p, copy, strlen(text), &used), RESP_ERROR, "%s", text);
    cr_assert(strstr(p.error, error), "%s", p.error);
    free(copy);
    resp_parser_deinit(&p);
}

Test(resp, arrays_of_bulk_strings)
{
    expect("*1\r\n$4\r\nPING\r\n", 1, (const char *[]){"PING"});
    expect("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n", 3, (const char *[]){"SET", "a", ""});
    expect("*2\r\n$3\r\nGET\r\n$6\r\na\r\nb\r\n\r\n", 2, (const char *[]){"GET", "a\r\nb\r\n"});
}

Test(resp, inline_lines_with_quotes)
{
    expect("PING\r\n", 1, (const char *[]){"PING"});
    expect("  set a\tb \n", 3, (const char *[]){"set", "a", "b"});
    expect("set \"a b\" 'c d'\r\n", 3, (const char *[]){"set", "a b", "c d"});
    expect("set \"\\x41\\n\\\"\" 'it\\'s'\r\n", 3, (const char *[]){"set", "A\n\"", "it's"});
    expect("echo \"\"\r\n", 2, (const char *[]){"echo", ""});
    expect("echo \"\\xZZ\"\r\n", 2, (const char *[]){"echo", "xZZ"});
}

Test(resp, nothing_is_no_request)
{
    char text[] = "\r\n*0\r\n*-1\r\nPING\r\n";
    size_t used, at = 0;

    for (int i = 0; i < 3; i++) {
        cr_assert_eq(resp_parse(&p, text + at, sizeof text - 1 - at, &used), RESP_EMPTY);
        at += used;
    }
    cr_assert_eq(resp_parse(&p, text + at, sizeof text - 1 - at, &used), RESP_REQUEST);
}

Test(resp, a_request_that_waits_is_found_again)
{
    char text[] = "set \"a b\" c\r\n", moved[sizeof text];
    size_t used;

    cr_assert_eq(resp_parse(&p, text, sizeof text - 1, &used), RESP_REQUEST);
    memcpy(moved, text, sizeof text);
    memset(text, 'x', sizeof text - 1);
    resp_resolve(&p, moved);
    expect_args(3, (const char *[]){"set", "a b", "c"});
}

Test(resp, broken_requests_say_what_is_wrong)
{
    expect_error("*x\r\n", "invalid multibulk length");
    expect_error("*1\n", "invalid multibulk length");
    expect_error("*1\r\n:4\r\n", "expected '$'");
    expect_error("*1\r\n$x\r\n", "invalid bulk length");
    expect_error("*1\r\n$-1\r\n", "invalid bulk length");
    expect_error("*1\r\n$3\r\nabcd\r\n", "does not end where its length says");
    expect_error("*1\r\n$1111111111111111111111\r\n", "invalid bulk length");
    expect_error("get \"a\r\n", "unbalanced quotes");
    expect_error("get \"a\"b\r\n", "unbalanced quotes");
    expect_error("get 'a\r\n", "unbalanced quotes");
}

Test(resp, limits_hold_at_the_limit_and_one_past)
{
    char text[64], *line = calloc(1, RESP_INLINE_BYTES_MAX + 8);
    size_t used;

    snprintf(text, sizeof text, "*%u\r\n", RESP_ARGS_MAX);
    cr_assert_eq(resp_parse(&p, text, strlen(text), &used), RESP_MORE);
    resp_parser_deinit(&p);
    snprintf(text, sizeof text, "*%u\r\n", RESP_ARGS_MAX + 1);
    expect_error(text, "invalid multibulk length: the limit is 65536 arguments");
    snprintf(text, sizeof text, "*1\r\n$%u\r\n", RESP_BULK_BYTES_MAX);
    cr_assert_eq(resp_parse(&p, text, strlen(text), &used), RESP_MORE);
    resp_parser_deinit(&p);
    snprintf(text, sizeof text, "*1\r\n$%u\r\n", RESP_BULK_BYTES_MAX + 1);
    expect_error(text, "invalid bulk length: the limit is 33554432 bytes");
    memset(line, 'x', RESP_INLINE_BYTES_MAX);
    line[RESP_INLINE_BYTES_MAX] = '\n';
    cr_assert_eq(resp_parse(&p, line, RESP_INLINE_BYTES_MAX + 1, &used), RESP_REQUEST);
    memset(line, 'x', RESP_INLINE_BYTES_MAX + 1);
    cr_assert_eq(resp_parse(&p, line, RESP_INLINE_BYTES_MAX + 1, &used), RESP_ERROR);
    cr_assert(strstr(p.error, "too big inline request: the limit is 65536 bytes"), "%s", p.error);
    free(line);
}

Test(resp, all_arguments_together_are_limited)
{
    size_t half = RESP_REQUEST_BYTES_MAX / 2 + 1, size = half + 64, used;
    char *text = calloc(1, size);
    int n = snprintf(text, size, "*2\r\n$%zu\r\n", half);

    memset(text + n, 'x', half);
    n += (int)half;
    n += snprintf(text + n, size - (size_t)n, "\r\n$%zu\r\n", half);
    cr_assert_eq(resp_parse(&p, text, (size_t)n, &used), RESP_ERROR);
    cr_assert(strstr(p.error, "request too large: the limit of all arguments together is 50331648 bytes"), "%s", p.error);
    free(text);
}

/* ---- replies ---- */

static struct buffer b;

static void reply(const char *text)
{
    cr_assert_eq(b.size, strlen(text), "%.*s", (int)b.size, b.data);
    cr_assert_eq(memcmp(b.data, text, b.size), 0, "%.*s", (int)b.size, b.data);
    buffer_deinit(&b);
}

Test(reply, has_the_forms_of_both_versions)
{
    reply_simple(&b, "OK");
    reply("+OK\r\n");
    reply_error(&b, "ERR a\r\nb");
    reply("-ERR a  b\r\n");
    reply_integer(&b, -9223372036854775807 - 1);
    reply(":-9223372036854775808\r\n");
    reply_integer(&b, 0);
    reply(":0\r\n");
    reply_bulk(&b, "a\0b", 3);
    cr_assert_eq(memcmp(b.data, "$3\r\na\0b\r\n", 9), 0);
    buffer_deinit(&b);
    reply_null(&b, 2);
    reply("$-1\r\n");
    reply_null(&b, 3);
    reply("_\r\n");
    reply_null_array(&b, 2);
    reply("*-1\r\n");
    reply_map(&b, 2, 3);
    reply("*6\r\n");
    reply_map(&b, 3, 3);
    reply("%3\r\n");
    reply_set(&b, 2, 3);
    reply("*3\r\n");
    reply_set(&b, 3, 3);
    reply("~3\r\n");
    reply_verbatim(&b, 2, "x", 1);
    reply("$1\r\nx\r\n");
    reply_verbatim(&b, 3, "x", 1);
    reply("=5\r\ntxt:x\r\n");
}

Test(buffer, grows_and_consumes)
{
    for (int i = 0; i < 1000; i++)
        buffer_printf(&b, "%d,", i);
    buffer_consume(&b, 4);
    cr_assert_eq(memcmp(b.data, "2,3,4,", 6), 0);
    buffer_consume(&b, b.size);
    cr_assert_eq(b.size, 0);
    buffer_deinit(&b);
}
