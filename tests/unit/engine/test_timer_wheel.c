/* The wheel against a plain array of deadlines. */
#include "engine/timer_wheel.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct timer_wheel w;

static size_t advance(uint64_t now_ms)
{
    struct list due, *node;
    size_t n = 0;

    list_init(&due);
    wheel_advance(&w, now_ms, &due);
    while ((node = list_pop_front(&due)))
        n++;
    return n;
}

Test(timer_wheel, fires_at_its_time_and_not_before)
{
    static const uint64_t distances[] = {1,    2,    63,     64,     65,       127,      128,     4095,
                                         4096, 4097, 262143, 262144, 16777215, 16777216, 99999999};

    for (size_t i = 0; i < sizeof distances / sizeof *distances; i++) {
        struct timer t;

        for (uint64_t start = 1000; start < 1070; start += 3) {
            wheel_init(&w, start);
            timer_init(&t);
            wheel_set(&w, &t, start + distances[i]);
            cr_assert_eq(advance(start + distances[i] - 1), 0, "distance %zu from %zu", (size_t)distances[i], (size_t)start);
            cr_assert(timer_is_set(&t));
            cr_assert_eq(advance(start + distances[i]), 1);
            cr_assert_not(timer_is_set(&t));
        }
    }
}

Test(timer_wheel, a_deadline_in_the_past_fires_next)
{
    struct timer t;

    wheel_init(&w, 500);
    timer_init(&t);
    wheel_set(&w, &t, 3);
    cr_assert_eq(wheel_next(&w), 501);
    cr_assert_eq(advance(500), 0);
    cr_assert_eq(advance(501), 1);
}

Test(timer_wheel, a_cancelled_timer_does_not_fire)
{
    struct timer t, other;

    wheel_init(&w, 0);
    timer_init(&t);
    timer_init(&other);
    wheel_set(&w, &t, 100);
    wheel_set(&w, &other, 100);
    wheel_cancel(&w, &t);
    wheel_cancel(&w, &t);
    cr_assert_eq(advance(1000), 1);
    cr_assert_eq(wheel_next(&w), WHEEL_NEVER);
}

Test(timer_wheel, setting_again_moves_it)
{
    struct timer t;

    wheel_init(&w, 0);
    timer_init(&t);
    wheel_set(&w, &t, 10);
    wheel_set(&w, &t, 5000);
    cr_assert_eq(advance(4999), 0);
    cr_assert_eq(advance(5000), 1);
}

Test(timer_wheel, time_without_timers_is_skipped)
{
    struct timer t;

    wheel_init(&w, 0);
    timer_init(&t);
    cr_assert_eq(advance((uint64_t)1 << 60), 0);
    wheel_set(&w, &t, ((uint64_t)1 << 60) + 7);
    cr_assert_eq(wheel_next(&w), ((uint64_t)1 << 60) + 7);
}

#define N_TIMERS 200u

/* Every timer fires in the step whose time first reaches it; wheel_next is never after the first deadline. */
Test(timer_wheel, agrees_with_a_plain_array)
{
    struct timer timers[N_TIMERS];
    uint64_t at[N_TIMERS] = {0}, now = 12345;

    srand(7);
    wheel_init(&w, now);
    for (size_t i = 0; i < N_TIMERS; i++)
        timer_init(&timers[i]);
    for (uint32_t step = 0; step < 20000; step++) {
        size_t i = (size_t)rand() % N_TIMERS;
        uint64_t first = WHEEL_NEVER;
        struct list due, *node;

        if (rand() % 4 == 0) {
            wheel_cancel(&w, &timers[i]);
            at[i] = 0;
        } else {
            at[i] = now + 1 + (uint64_t)rand() % (rand() % 3 ? 100 : 100000);
            wheel_set(&w, &timers[i], at[i]);
        }
        for (size_t k = 0; k < N_TIMERS; k++)
            first = at[k] && at[k] < first ? at[k] : first;
        cr_assert_leq(wheel_next(&w), first);
        now += (uint64_t)rand() % (rand() % 50 ? 20 : 20000);
        list_init(&due);
        wheel_advance(&w, now, &due);
        while ((node = list_pop_front(&due))) {
            size_t k = (size_t)(container_of(node, struct timer, node) - timers);

            cr_assert(at[k] && at[k] <= now, "timer %zu is early", k);
            at[k] = 0;
        }
        for (size_t k = 0; k < N_TIMERS; k++)
            cr_assert(!at[k] || at[k] > now, "timer %zu is late", k);
    }
}
