#include "engine/requests.h"

#include <criterion/criterion.h>
#include <string.h>

static void ignore(void *ctx, const struct nh_outcome *outcome)
{
    (void)ctx;
    (void)outcome;
}

static struct request make(uintptr_t id, uint64_t deadline_ns)
{
    return (struct request){ignore, (void *)id, deadline_ns};
}

static void add(struct request_ring *r, uintptr_t id, uint64_t deadline_ns)
{
    struct request q = make(id, deadline_ns);

    request_ring_add(r, &q);
}

Test(requests, a_key_is_taken_once)
{
    struct request_ring r = {.base = 100, .next = 100};
    struct request q;

    for (uintptr_t i = 0; i < 50; i++)
        add(&r, i, 1);
    cr_assert_not(request_ring_take(&r, 99, &q));
    cr_assert_not(request_ring_take(&r, 150, &q));
    for (uint64_t key = 149; key >= 100; key--) {
        cr_assert(request_ring_is_pending(&r, key));
        cr_assert(request_ring_take(&r, key, &q));
        cr_assert_eq((uintptr_t)q.ctx, key - 100);
        cr_assert_not(request_ring_take(&r, key, &q));
    }
    cr_assert_eq(r.n_pending, 0);
    cr_assert_eq(r.base, 150, "an empty window is forgotten");
    request_ring_deinit(&r);
}

Test(requests, the_window_grows_over_holes)
{
    struct request_ring r = {.base = 7, .next = 7};
    struct request q;

    add(&r, 0, 1); /* stays */
    for (uintptr_t i = 1; i < 5000; i++) {
        add(&r, i, 1);
        cr_assert(request_ring_take(&r, 7 + i, &q));
    }
    cr_assert_eq(r.n_pending, 1);
    cr_assert_eq(r.base, 7);
    cr_assert(request_ring_take(&r, 7, &q));
    cr_assert_eq((uintptr_t)q.ctx, 0);
    cr_assert_eq(r.cap, 0, "a large empty ring is given back");
    request_ring_deinit(&r);
}

Test(requests, only_expired_ones_are_taken_as_expired)
{
    struct request_ring r = {.base = 1, .next = 1};
    struct request q;
    uint64_t key = 0;
    size_t n = 0;

    for (uintptr_t i = 0; i < 20; i++)
        add(&r, i, i % 2 ? 1000 : 10);
    cr_assert_eq(request_ring_earliest(&r), 10);
    while (request_ring_take_expired(&r, &key, 10, &q)) {
        cr_assert_eq((uintptr_t)q.ctx % 2, 0);
        n++;
    }
    cr_assert_eq(n, 10);
    cr_assert_eq(request_ring_earliest(&r), 1000);
    for (key = 0; request_ring_take_expired(&r, &key, 1000, &q);)
        n++;
    cr_assert_eq(n, 20);
    cr_assert_eq(request_ring_earliest(&r), REQUESTS_NO_DEADLINE);
    request_ring_deinit(&r);
}

Test(requests, a_batch_of_reads_keeps_queries_and_deadlines_apart)
{
    struct read_batch *b = read_batch_new(42);
    struct request q = make(1, 10);
    size_t at = 0;

    read_batch_add(b, &q, "first", 5);
    q = make(2, 20);
    read_batch_add(b, &q, NULL, 0);
    q = make(3, 5);
    read_batch_add(b, &q, "", 0);
    cr_assert_eq(b->earliest_ns, 5);
    cr_assert(b->items[0].has_query && !b->items[1].has_query && b->items[2].has_query);
    cr_assert_eq(memcmp(b->queries + b->items[0].query_at, "first", 5), 0);
    cr_assert(read_batch_take(b, &at, 10, &q));
    cr_assert_eq((uintptr_t)q.ctx, 1);
    cr_assert(read_batch_take(b, &at, 10, &q));
    cr_assert_eq((uintptr_t)q.ctx, 3);
    cr_assert_not(read_batch_take(b, &at, 10, &q));
    read_batch_update_earliest(b);
    cr_assert_eq(b->earliest_ns, 20);
    at = 0;
    cr_assert(read_batch_take(b, &at, UINT64_MAX, &q));
    cr_assert_eq((uintptr_t)q.ctx, 2);
    cr_assert_eq(b->n_pending, 0);
    read_batch_free(b);
}
