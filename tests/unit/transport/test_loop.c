/* When the thread of an event loop polls for the next read (raftio/support/short_wait.h). The loops have no thread here. */
#include "transport/tcp/loop.h"

#include <criterion/criterion.h>

#include "transport/tcp/tcp_private.h"

static struct nh_transport transport;
static struct tcp_loop loop;

static void setup(void)
{
    transport = (struct nh_transport){.polls = true};
    cr_assert_eq(loop_init(&loop, &transport, NULL), NH_OK);
    cr_assert_eq(loop_open(&loop, NULL), NH_OK);
}

static void teardown(void)
{
    loop_stop(&loop);
    loop_deinit(&loop);
}

TestSuite(loop, .init = setup, .fini = teardown, .timeout = 20);

static bool polls_after(size_t read_bytes)
{
    loop_read_begins(&loop);
    loop.wait = (struct short_wait){0}; /* without the time that the test itself takes */
    loop_read_ends(&loop, read_bytes);
    return uv_is_active((uv_handle_t *)&loop.polling);
}

Test(loop, polls_after_a_small_read)
{
    cr_assert(polls_after(1));
    cr_assert(polls_after(LOOP_POLL_BYTES_MAX));
}

Test(loop, a_larger_read_ends_it)
{
    cr_assert(polls_after(1));
    cr_assert_not(polls_after(LOOP_POLL_BYTES_MAX + 1));
    cr_assert(polls_after(1));
}

Test(loop, ends_it_by_itself)
{
    cr_assert(polls_after(1));
    while (uv_is_active((uv_handle_t *)&loop.polling)) /* else the test's time is over */
        uv_run(&loop.uv, UV_RUN_NOWAIT);
}

Test(loop, does_not_poll_if_waits_are_long)
{
    loop.wait.longest_ns = SHORT_WAIT_LONG_NS;
    loop_read_begins(&loop);
    loop_read_ends(&loop, 1);
    cr_assert_not(uv_is_active((uv_handle_t *)&loop.polling));
}

Test(loop, does_not_poll_if_it_is_told_so)
{
    transport.polls = false;
    cr_assert_not(polls_after(1));
}

Test(loop, stops_while_it_polls)
{
    cr_assert(polls_after(1));
    loop_stop(&loop);
    cr_assert_not(polls_after(1), "a handle that is closed was started");
}
