#include "logdb/rocksdb/async_write.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE 4096u

static char path[] = "async.XXXXXX"; /* tests run in a directory of their own */
static int fd;
static uint8_t *page;
static struct async_write w;

static void begin(void)
{
    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    page = aligned_alloc(PAGE, PAGE);
    memset(page, 'x', PAGE);
}

static void end(void)
{
    async_write_deinit(&w);
    free(page);
    close(fd);
    unlink(path);
}

TestSuite(async_write, .init = begin, .fini = end, .timeout = 20);

/* A container may have none of it. */
static bool is_refused(void)
{
    if (async_write_begin(&w, fd, page, PAGE, 0))
        return false;
    fprintf(stderr, "skipped: no asynchronous writes here\n");
    return true;
}

static void expect_page(uint64_t at)
{
    uint8_t got[PAGE];

    cr_assert_eq(pread(fd, got, PAGE, (off_t)at), PAGE);
    cr_assert_eq(memcmp(got, page, PAGE), 0);
}

Test(async_write, writes_where_it_was_told)
{
    if (is_refused())
        return;
    cr_assert_eq(async_write_end(&w), PAGE);
    cr_assert(async_write_begin(&w, fd, page, PAGE, 3 * PAGE));
    cr_assert_eq(async_write_end(&w), PAGE);
    expect_page(0);
    expect_page(3 * PAGE);
}

Test(async_write, may_be_polled_for)
{
    w.polls = true;
    if (is_refused())
        return;
    cr_assert_eq(async_write_end(&w), PAGE);
    cr_assert_gt(w.wait.usual_ns, 0, "it was not measured");
    w.wait.usual_ns = SHORT_WAIT_LONG_NS; /* too long: it sleeps */
    cr_assert(async_write_begin(&w, fd, page, PAGE, 3 * PAGE));
    cr_assert_eq(async_write_end(&w), PAGE);
    expect_page(0);
    expect_page(3 * PAGE);
}

Test(async_write, a_failure_is_told)
{
    const struct rlimit limit = {PAGE, RLIM_INFINITY};

    if (is_refused())
        return;
    cr_assert_eq(async_write_end(&w), PAGE);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    if (async_write_begin(&w, fd, page, PAGE, PAGE))
        cr_assert_lt(async_write_end(&w), 0, "a page was written behind the limit");
}

Test(async_write, what_cannot_be_begun_is_refused_for_good)
{
    cr_assert_not(async_write_begin(&w, -1, page, PAGE, 0));
    cr_assert(w.refused);
    cr_assert_not(async_write_begin(&w, fd, page, PAGE, 0));
}

Test(async_write, a_write_under_way_is_waited_for)
{
    if (is_refused())
        return;
    async_write_deinit(&w);
    cr_assert_not(w.under_way);
    expect_page(0);
}
