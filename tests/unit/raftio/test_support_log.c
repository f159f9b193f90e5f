#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "raftio/support/log.h"

#define LOG_COMPONENT "test"

static struct {
    int n;
    enum nh_log_level level;
    char component[32];
    char text[4096];
} seen;

static void sink(void *ctx, enum nh_log_level level, const char *component, const char *text)
{
    cr_assert_eq(ctx, &seen);
    seen.n++;
    seen.level = level;
    snprintf(seen.component, sizeof seen.component, "%s", component);
    snprintf(seen.text, sizeof seen.text, "%s", text);
}

Test(log, a_sink_gets_level_component_and_text)
{
    log_set_sink(sink, &seen);
    LOG_WARN("shard %d", 7);
    cr_assert_eq(seen.n, 1);
    cr_assert_eq(seen.level, NH_LOG_WARN);
    cr_assert_str_eq(seen.component, "test");
    cr_assert_str_eq(seen.text, "shard 7");
}

Test(log, lines_below_the_level_are_not_written)
{
    log_set_sink(sink, &seen);
    LOG_DEBUG("no");
    cr_assert_eq(seen.n, 0);
    log_set_level(NH_LOG_DEBUG);
    LOG_DEBUG("yes");
    cr_assert_eq(seen.n, 1);
    log_set_level(NH_LOG_ERROR);
    LOG_WARN("no");
    LOG_ERROR("yes");
    cr_assert_eq(seen.n, 2);
    cr_assert(log_enabled(NH_LOG_ERROR));
    cr_assert_not(log_enabled(NH_LOG_WARN));
}

Test(log, errno_survives)
{
    errno = ENOSPC;
    LOG_ERROR("x");
    cr_assert_eq(errno, ENOSPC);
}

Test(log, a_long_text_is_cut)
{
    static char text[5000];

    memset(text, 'a', sizeof text - 1);
    log_set_sink(sink, &seen);
    LOG_ERROR("%s", text);
    cr_assert_eq(strlen(seen.text), 1023);
}

/* Runs log_write with stderr in a pipe and returns what one read gives. */
static size_t capture(const char *component, const char *text, char *ret, size_t cap)
{
    int pipe_fd[2], kept = dup(STDERR_FILENO);
    ssize_t n;

    cr_assert_eq(pipe(pipe_fd), 0);
    dup2(pipe_fd[1], STDERR_FILENO);
    log_write(NH_LOG_ERROR, component, "%s", text);
    dup2(kept, STDERR_FILENO);
    n = read(pipe_fd[0], ret, cap - 1);
    cr_assert_gt(n, 0);
    ret[n] = '\0';
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    close(kept);
    return (size_t)n;
}

Test(log, a_line_on_stderr_is_logfmt)
{
    char line[8192];
    int year, month, day, hour, minute, second, ms, used = 0;

    capture("engine", "leader of term 3", line, sizeof line);
    cr_assert_eq(sscanf(line, "time=%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &ms, &used),
                 7);
    cr_assert_str_eq(line + used, " level=error component=engine msg=\"leader of term 3\"\n");
}

Test(log, text_is_escaped_so_that_a_record_is_one_line)
{
    char line[8192];

    capture(NULL,
            "a\"b\\c\nd\x01"
            "e\x7f",
            line, sizeof line);
    cr_assert_not_null(strstr(line, " component=host msg=\"a\\\"b\\\\c\\nd\\x01e\\x7f\"\n"));
}

Test(log, the_worst_text_fits_the_line)
{
    static char text[3000];
    char line[8192];
    size_t n;

    memset(text, 1, sizeof text - 1);
    n = capture("a_component_name_that_is_far_longer_than_any_real_one", text, line, sizeof line);
    cr_assert_gt(n, 4 * 1023);
    cr_assert_eq(line[n - 1], '\n');
}

Test(log, null_sink_means_stderr_again)
{
    char line[8192];

    log_set_sink(sink, &seen);
    log_set_sink(NULL, NULL);
    capture("x", "y", line, sizeof line);
    cr_assert_eq(seen.n, 0);
}
