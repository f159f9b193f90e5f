#include "raftio/support/short_wait.h"

#include <criterion/criterion.h>

TestSuite(short_wait, .timeout = 20);

static unsigned count_until_expected(struct short_wait *w, uint64_t each_ns)
{
    unsigned n = 0;

    for (; !short_wait_is_expected(w) && n < 1000; n++)
        short_wait_note(w, each_ns);
    return n;
}

Test(short_wait, is_expected_while_none_is_long)
{
    struct short_wait w = {0};

    for (unsigned i = 0; i < 100; i++) {
        cr_assert(short_wait_is_expected(&w));
        short_wait_note(&w, SHORT_WAIT_NS - 1);
    }
    short_wait_note(&w, SHORT_WAIT_NS);
    cr_assert_not(short_wait_is_expected(&w), "a longer one was not believed");
    cr_assert_eq(count_until_expected(&w, 100000), 1, "hardly longer: forgotten with the next");
}

Test(short_wait, is_expected_again_after_a_row_of_them)
{
    struct short_wait w = {0};

    short_wait_note(&w, 1000000);
    cr_assert_eq(count_until_expected(&w, 100000), 5);
    short_wait_note(&w, UINT64_MAX);
    cr_assert_eq(count_until_expected(&w, 100000), 10, "a pause counts as %u ns", SHORT_WAIT_LONG_NS);
    cr_assert_eq(count_until_expected(&w, 0), 0);
}

/* As of many connections in one look of the event loop. */
Test(short_wait, what_was_there_already_says_nothing)
{
    struct short_wait w = {0};

    short_wait_note(&w, UINT64_MAX);
    for (unsigned i = 0; i < 1000; i++)
        short_wait_note(&w, SHORT_WAIT_NONE_NS - 1);
    cr_assert_eq(w.longest_ns, SHORT_WAIT_LONG_NS);
    cr_assert_eq(count_until_expected(&w, SHORT_WAIT_NONE_NS), 10);
}

/* Four hosts' heartbeats at once, then a tick without any. */
Test(short_wait, is_not_expected_of_what_comes_in_small_groups)
{
    struct short_wait w = {0};

    for (unsigned tick = 0; tick < 100; tick++) {
        short_wait_note(&w, 100000000);
        for (unsigned i = 0; i < 4; i++) {
            cr_assert_not(short_wait_is_expected(&w));
            short_wait_note(&w, 20000);
        }
    }
}

Test(short_wait, is_not_expected_for_a_second_if_others_have_much_to_do)
{
    const uint64_t at = 5000000000u, late = at + SHORT_WAIT_YIELD_NS;
    struct short_wait w = {.began_ns = at};

    short_wait_note_yield(&w, at, late - 1);
    cr_assert(short_wait_is_expected(&w));
    short_wait_note_yield(&w, at, late);
    w.began_ns = late;
    cr_assert_not(short_wait_is_expected(&w));
    w.began_ns = late + SHORT_WAIT_PAUSE_NS - 1;
    cr_assert_not(short_wait_is_expected(&w));
    w.began_ns++;
    cr_assert(short_wait_is_expected(&w));
}

Test(short_wait, goes_on_for_a_while_if_it_is_expected)
{
    struct short_wait w = {0};
    unsigned n = 0;

    while (n == 0) { /* others may have the core meanwhile */
        w = (struct short_wait){0};
        short_wait_begin(&w);
        while (short_wait_goes_on(&w))
            n++;
        short_wait_end(&w);
        cr_assert_geq(w.longest_ns, SHORT_WAIT_NS);
    }
    short_wait_begin(&w);
    cr_assert_not(short_wait_goes_on(&w), "what took too long is polled for again");
}
