#include <criterion/criterion.h>
#include <stdint.h>

#include "raftio/support/histogram.h"

static struct histogram h, other;

Test(histogram, an_empty_one_answers_zero)
{
    cr_assert_eq(histogram_per_mille(&h, 500), 0);
    cr_assert_eq(histogram_per_mille(&h, 1000), 0);
}

Test(histogram, small_values_are_exact)
{
    for (uint64_t v = 0; v < 32; v++)
        histogram_add(&h, v);
    cr_assert_eq(h.count, 32);
    cr_assert_eq(h.sum, 31 * 32 / 2);
    cr_assert_eq(h.max, 31);
    cr_assert_eq(histogram_per_mille(&h, 0), 0);
    cr_assert_eq(histogram_per_mille(&h, 500), 15);
    cr_assert_eq(histogram_per_mille(&h, 1000), 31);
}

/* Every power of two and its neighbours: the bucket's upper bound is not below the value and at most 1/32 above it. */
Test(histogram, buckets_are_about_three_percent_wide)
{
    for (int bit = 0; bit < 64; bit++) {
        for (int d = -1; d <= 1; d++) {
            uint64_t v = ((uint64_t)1 << bit) + (uint64_t)(int64_t)d, bound;
            struct histogram one = {0};

            histogram_add(&one, v);
            bound = histogram_per_mille(&one, 500);
            cr_assert(bound >= v && bound - v <= v / 32, "%lu has bound %lu", (unsigned long)v, (unsigned long)bound);
        }
    }
}

Test(histogram, the_largest_value_has_a_bucket)
{
    histogram_add(&h, UINT64_MAX);
    cr_assert_eq(h.buckets[HISTOGRAM_BUCKETS - 1], 1);
    cr_assert_eq(histogram_per_mille(&h, 1000), UINT64_MAX);
    cr_assert_eq(h.max, UINT64_MAX);
}

Test(histogram, per_milles_of_a_uniform_distribution)
{
    for (uint64_t v = 1; v <= 100000; v++)
        histogram_add(&h, v);
    for (unsigned pm = 1; pm <= 1000; pm++) {
        uint64_t exact = pm * 100, got = histogram_per_mille(&h, pm);

        cr_assert(got >= exact && got <= exact + exact / 32 + 1, "%u: %lu", pm, (unsigned long)got);
    }
}

Test(histogram, a_rare_value_shows_only_at_the_end)
{
    for (int i = 0; i < 999; i++)
        histogram_add(&h, 10);
    histogram_add(&h, 1000000);
    cr_assert_eq(histogram_per_mille(&h, 999), 10);
    cr_assert_geq(histogram_per_mille(&h, 1000), 1000000);
}

Test(histogram, merge_adds_up)
{
    for (int i = 0; i < 10; i++) {
        histogram_add(&h, 5);
        histogram_add(&other, 20);
    }
    histogram_merge(&h, &other);
    cr_assert_eq(h.count, 20);
    cr_assert_eq(h.sum, 250);
    cr_assert_eq(h.max, 20);
    cr_assert_eq(histogram_per_mille(&h, 500), 5);
    cr_assert_eq(histogram_per_mille(&h, 510), 20);
    cr_assert_eq(other.count, 10);
}
