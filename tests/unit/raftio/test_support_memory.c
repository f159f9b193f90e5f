#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

Test(memory, zero_bytes_give_a_pointer_that_can_be_freed)
{
    void *p[3] = {xmalloc(0), xcalloc(0, 8), xmemdup(NULL, 0)};

    for (int i = 0; i < 3; i++) {
        cr_assert_not_null(p[i]);
        free(p[i]);
    }
}

Test(memory, strdup_keeps_null)
{
    char *s = xstrdup("abc");

    cr_assert_null(xstrdup(NULL));
    cr_assert_str_eq(s, "abc");
    free(s);
}

Test(memory, an_array_starts_at_eight_and_doubles)
{
    uint32_t *array = NULL;
    size_t cap = 0;

    array_reserve((void **)&array, &cap, 0, sizeof *array);
    cr_assert_eq(cap, 0);
    array_reserve((void **)&array, &cap, 1, sizeof *array);
    cr_assert_eq(cap, 8);
    array[7] = 77;
    array_reserve((void **)&array, &cap, 8, sizeof *array);
    cr_assert_eq(cap, 8);
    array_reserve((void **)&array, &cap, 9, sizeof *array);
    cr_assert_eq(cap, 16);
    cr_assert_eq(array[7], 77);
    array_reserve((void **)&array, &cap, 100, sizeof *array);
    cr_assert_eq(cap, 100);
    free(array);
}

Test(memory, a_tight_array_starts_as_it_is_asked_for_and_grows_by_a_half)
{
    uint32_t *array = NULL;
    size_t cap = 0;

    array_reserve_tight((void **)&array, &cap, 0, sizeof *array);
    cr_assert_null(array);
    array_reserve_tight((void **)&array, &cap, 1, sizeof *array);
    cr_assert_eq(cap, 1);
    array[0] = 77;
    array_reserve_tight((void **)&array, &cap, 2, sizeof *array);
    cr_assert_eq(cap, 2);
    array_reserve_tight((void **)&array, &cap, 8, sizeof *array);
    cr_assert_eq(cap, 8);
    array_reserve_tight((void **)&array, &cap, 8, sizeof *array);
    cr_assert_eq(cap, 8);
    array_reserve_tight((void **)&array, &cap, 9, sizeof *array);
    cr_assert_eq(cap, 12);
    cr_assert_eq(array[0], 77);
    free(array);
}

Test(memory, an_array_beyond_the_address_space_ends_the_process, .signal = SIGABRT)
{
    void *array = NULL;
    size_t cap = 0;

    array_reserve(&array, &cap, SIZE_MAX / 4, 8);
}
