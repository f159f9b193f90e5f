#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>

#include "raftio/support/map.h"

#define KEYS 300u

static void *value_of(uint64_t v)
{
    return (void *)(uintptr_t)v;
}

Test(map, an_empty_map_has_nothing)
{
    struct map m = {0};
    size_t i = 0;

    cr_assert_null(map_get(&m, 1));
    cr_assert_null(map_get(&m, 0));
    cr_assert_null(map_remove(&m, 1));
    cr_assert_null(map_next(&m, &i, NULL));
    map_deinit(&m);
}

Test(map, put_replaces)
{
    struct map m = {0};

    map_put(&m, 7, value_of(1));
    map_put(&m, 7, value_of(2));
    cr_assert_eq(m.n, 1);
    cr_assert_eq(map_get(&m, 7), value_of(2));
    cr_assert_null(map_get(&m, 0)); /* the key that is not allowed is never there */
    cr_assert_null(map_remove(&m, 0));
    cr_assert_eq(map_remove(&m, 7), value_of(2));
    cr_assert_null(map_remove(&m, 7));
    cr_assert_eq(m.n, 0);
    map_deinit(&m);
    map_deinit(&m);
}

Test(map, capacity_is_a_power_of_two_with_room_left)
{
    struct map m = {0};

    for (uint64_t k = 1; k <= 1000; k++) {
        map_put(&m, k, value_of(k));
        cr_assert_eq(m.cap & (m.cap - 1), 0);
        cr_assert_lt(m.n, m.cap);
    }
    map_deinit(&m);
}

static void check_against(const struct map *m, const uint64_t *model)
{
    size_t n = 0, seen = 0, i = 0;
    uint64_t key;
    void *v;

    for (uint64_t k = 1; k <= KEYS; k++) {
        cr_assert_eq(map_get(m, k), value_of(model[k]), "key %lu", (unsigned long)k);
        n += model[k] != 0;
    }
    cr_assert_eq(m->n, n);
    while ((v = map_next(m, &i, &key))) {
        cr_assert_eq(value_of(model[key]), v);
        seen++;
    }
    cr_assert_eq(seen, n); /* each once */
}

/* Few keys and many removals: clusters that wrap around and holes in their middle. */
Test(map, random_operations_agree_with_a_model)
{
    uint64_t model[KEYS + 1] = {0};
    struct map m = {0};

    srand(42);
    for (uint64_t step = 1; step <= 60000; step++) {
        uint64_t key = 1 + (uint64_t)rand() % KEYS;

        if (rand() % 2) {
            map_put(&m, key, value_of(step));
            model[key] = step;
        } else {
            cr_assert_eq(map_remove(&m, key), value_of(model[key]));
            model[key] = 0;
        }
        if (step % 500 == 0)
            check_against(&m, model);
    }
    map_deinit(&m);
}

Test(map, hash_spreads_consecutive_and_strided_ids)
{
    for (uint64_t stride = 1; stride <= 1u << 20; stride <<= 10) {
        unsigned counts[16] = {0};

        for (uint64_t id = 1; id <= 16000; id++)
            counts[hash_u64(id * stride) % 16]++;
        for (int i = 0; i < 16; i++)
            cr_assert(counts[i] > 800 && counts[i] < 1200, "stride %lu: %u of 16000", (unsigned long)stride, counts[i]);
    }
}
