#include "logdb/rocksdb/async_write.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "raftio/types.h"

#define PAGE 4096u

static char path[] = "async.XXXXXX"; /* tests run in a directory of their own */
static int fd;
static uint8_t *page;
static struct async_write w;

/* What io_getevents is made to answer, and how it was asked. */
static unsigned n_signals; /* so many calls are interrupted */
static unsigned n_left;    /* so many looks find nothing */
static unsigned n_looks, n_sleeps;

NH_API long syscall(long number, ...);

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    va_list args;
    long a[5];

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    va_start(args, number);
    for (size_t i = 0; i < 5; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_io_getevents && n_signals > 0) {
        n_signals--;
        errno = EINTR;
        return -1;
    }
    if (number == SYS_io_getevents && !a[4])
        n_sleeps++;
    if (number == SYS_io_getevents && a[4]) {
        n_looks++;
        if (n_left > 0) {
            n_left--;
            return 0;
        }
    }
    return real(number, a[0], a[1], a[2], a[3], a[4]);
}

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

Test(async_write, is_polled_for_if_that_pays)
{
    w.polls = true;
    if (is_refused())
        return;
    while (n_looks < 2) { /* others may have the core for so long that no second look pays */
        w.wait = (struct short_wait){0};
        n_looks = n_sleeps = 0;
        n_left = 1;
        cr_assert_eq(async_write_end(&w), PAGE);
        cr_assert(async_write_begin(&w, fd, page, PAGE, 3 * PAGE));
    }
    cr_assert(n_looks == 2 && n_sleeps == 0, "%u, %u", n_looks, n_sleeps);
    cr_assert_eq(async_write_end(&w), PAGE);
    expect_page(0);
    expect_page(3 * PAGE);
}

Test(async_write, is_slept_for_after_a_look_if_it_takes_longer)
{
    w.polls = true;
    w.wait.longest_ns = SHORT_WAIT_LONG_NS;
    if (is_refused())
        return;
    n_left = 1000;
    cr_assert_eq(async_write_end(&w), PAGE);
    cr_assert(n_looks == 1 && n_sleeps == 1, "%u, %u", n_looks, n_sleeps);
    expect_page(0);
}

Test(async_write, a_signal_does_not_end_it)
{
    if (is_refused())
        return;
    n_signals = 3;
    cr_assert_eq(async_write_end(&w), PAGE);
    w.polls = true;
    cr_assert(async_write_begin(&w, fd, page, PAGE, PAGE));
    n_signals = 3;
    cr_assert_eq(async_write_end(&w), PAGE);
    cr_assert_eq(n_signals, 0);
    expect_page(PAGE);
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
