/* The table of kv against an array of what it must hold: while it grows slot by slot, and what its segments begin and end with.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "cmd/machines/kv_table.h"

#define N_KEYS (3 * KV_SEGMENT_SLOTS + 100)

static struct kv_table t;
static bool held[N_KEYS];
static char text[32];

static void setup(void)
{
    kv_table_init(&t);
    memset(held, 0, sizeof held);
}

static void teardown(void)
{
    kv_table_deinit(&t);
}

TestSuite(kv_table, .init = setup, .fini = teardown);

static struct kv_slice key_of(size_t k)
{
    return (struct kv_slice){(const uint8_t *)text, (uint32_t)snprintf(text, sizeof text, "key %zu", k)};
}

static void put(size_t k)
{
    struct kv_slice key = key_of(k);

    kv_table_put(&t, key, key, (struct kv_slice){(const uint8_t *)"!", 1});
    held[k] = true;
}

static void drop(size_t k)
{
    cr_assert_eq(kv_table_drop(&t, key_of(k)), held[k]);
    held[k] = false;
}

static void check(void)
{
    static uint32_t n_seen[N_KEYS];
    size_t n = 0;

    for (size_t k = 0; k < N_KEYS; k++) {
        struct kv_item *i = kv_table_find(&t, key_of(k));

        cr_assert_eq(i != NULL, held[k], "key %zu of %zu", k, t.n);
        cr_assert(!i || i->value_size == i->key_size + 1u);
        n += held[k];
    }
    cr_assert_eq(t.n, n);
    memset(n_seen, 0, sizeof n_seen);
    for (struct kv_item *i = NULL; (i = kv_table_next(&t, i));) {
        char copy[32] = {0};
        size_t k;

        memcpy(copy, i->data, i->key_size);
        cr_assert_eq(sscanf(copy, "key %zu", &k), 1);
        cr_assert_eq(++n_seen[k], 1);
        n--;
    }
    cr_assert_eq(n, 0);
}

Test(kv_table, holds_what_was_put_while_it_grows)
{
    for (size_t k = 0; k < N_KEYS; k++) {
        put(k);
        if (k < 300 || (k + 2) % KV_SEGMENT_SLOTS < 4)
            check();
    }
    cr_assert_eq(t.n_slots, N_KEYS);
    for (size_t k = 0; k < N_KEYS; k += 2)
        drop(k);
    check();
    for (size_t k = 0; k < N_KEYS; k += 3)
        put(k);
    check();
    kv_table_clear(&t);
    memset(held, 0, sizeof held);
    check();
    put(7);
    check();
}

/* A put may move the items of one slot, and copy the first segment: nothing that grows with the table. */
Test(kv_table, no_put_makes_more_than_one_slot)
{
    for (size_t k = 0; k < N_KEYS; k++) {
        size_t before = t.n_slots;

        put(k);
        cr_assert_leq(t.n_slots, before + 1);
    }
}
