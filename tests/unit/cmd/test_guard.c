#include <criterion/criterion.h>

#include "cmd/nhbench/guard.h"

Test(guard, finds_numbers_by_their_names)
{
    static const char json[] = "{\"ops_per_second\": 1500, \"ops_per_cpu_second\": 2.5, \"text\": \"x\"}";
    double v = 0;

    cr_assert(guard_find(json, "ops_per_second", &v));
    cr_assert_eq(v, 1500);
    cr_assert(guard_find(json, "ops_per_cpu_second", &v));
    cr_assert_eq(v, 2.5);
    cr_assert(!guard_find(json, "ops_per", &v), "the beginning of a name is another name");
    cr_assert(!guard_find(json, "text", &v), "no number");
    cr_assert(!guard_find("", "text", &v));
}

Test(guard, the_median_is_in_the_middle)
{
    double odd[] = {3, 1, 2}, even[] = {4, 1, 2, 3}, one[] = {7};

    cr_assert_eq(guard_median(odd, 3), 2);
    cr_assert_eq(guard_median(even, 4), 2.5);
    cr_assert_eq(guard_median(one, 1), 7);
}
