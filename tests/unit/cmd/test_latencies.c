#include <criterion/criterion.h>

#include "cmd/nhbench/latencies.h"

static struct latencies l, other;

Test(latencies, an_empty_one_answers_zero)
{
    cr_assert_eq(latencies_at(&l, 0), 0);
    cr_assert_eq(latencies_at(&l, 1000000), 0);
    cr_assert_eq(latencies_mean(&l), 0);
}

Test(latencies, small_values_are_exact)
{
    for (uint64_t v = 0; v < 64; v++)
        latencies_add(&l, v);
    cr_assert_eq(latencies_at(&l, 0), 0);
    cr_assert_eq(latencies_at(&l, 500000), 31);
    cr_assert_eq(latencies_at(&l, 1000000), 63);
    cr_assert_eq(latencies_mean(&l), 31);
}

/* Every power of two and its neighbours: what is answered is not below the value, and at most 1/64 above it. */
Test(latencies, buckets_are_narrow)
{
    for (unsigned bit = 0; bit < LATENCY_BITS; bit++) {
        for (int d = -1; d <= 1; d++) {
            uint64_t v = (1ull << bit) + (uint64_t)(int64_t)d;

            if (v >> LATENCY_BITS)
                continue;
            l = (struct latencies){0};
            latencies_add(&l, v);
            latencies_add(&l, UINT64_MAX / 4); /* so that max does not decide */
            cr_assert_geq(latencies_at(&l, 500000), v, "2^%u%+d", bit, d);
            cr_assert_leq(latencies_at(&l, 500000), v + v / 64, "2^%u%+d", bit, d);
        }
    }
}

Test(latencies, nothing_is_above_the_maximum)
{
    for (int i = 0; i < 1000; i++)
        latencies_add(&l, 1000001);
    cr_assert_eq(latencies_at(&l, 999000), 1000001);
    cr_assert_eq(l.max, 1000001);
}

Test(latencies, what_is_too_long_is_counted_and_kept_as_maximum)
{
    latencies_add(&l, 1ull << LATENCY_BITS);
    latencies_add(&l, UINT64_MAX / 2);
    cr_assert_eq(l.count, 2);
    cr_assert_eq(l.buckets[LATENCY_BUCKETS - 1], 2);
    cr_assert_eq(latencies_at(&l, 1000000), UINT64_MAX / 2);
}

Test(latencies, percentiles_take_the_rank_rounded_up)
{
    for (uint64_t v = 1; v <= 10; v++)
        latencies_add(&l, v);
    cr_assert_eq(latencies_at(&l, 500000), 5);
    cr_assert_eq(latencies_at(&l, 500001), 6);
    cr_assert_eq(latencies_at(&l, 990000), 10);
    cr_assert_eq(latencies_at(&l, 100000), 1);
}

Test(latencies, merged_ones_count_as_one)
{
    latencies_add(&l, 3);
    latencies_add(&other, 7);
    latencies_add(&other, 5);
    latencies_merge(&l, &other);
    cr_assert_eq(l.count, 3);
    cr_assert_eq(latencies_mean(&l), 5);
    cr_assert_eq(l.max, 7);
    cr_assert_eq(latencies_at(&l, 500000), 5);
}
