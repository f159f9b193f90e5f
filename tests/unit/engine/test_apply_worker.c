/* Items for the apply worker: that of entries that were applied is taken for later ones. */
#include "engine/apply_worker.h"

#include <criterion/criterion.h>

#include "engine/engine_private.h"
#include "tests/unit/engine/engine_host.h"

#define RUNS_MAX (APPLY_SPARE_RUNS + 1)

static struct replica *r;

static void begin(void)
{
    host_start(false, 1);
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    host_await_leader(1);
    host_run(10);
    r = engine_find(host.engine, 1);
}

static void end(void)
{
    replica_unref(r);
    host_stop();
}

TestSuite(apply_worker, .init = begin, .fini = end);

/* The next n entries, each in a run of its own. */
static struct apply_item *item_of(uint32_t n)
{
    const uint64_t one = 1, first = rsm_applied(r->rsm) + 1;
    struct run_list runs = {0};
    struct apply_item *item;

    for (uint32_t i = 0; i < n; i++) {
        struct block_builder b = {0};
        struct nh_block *block;

        cr_assert_eq(block_builder_add(&b, &(struct block_record){.payload = &one, .payload_bytes = sizeof one}), 0);
        block = block_seal(&b, 1, first + i);
        run_list_add(&runs, block, 0, 1);
        nh_block_unref(block);
    }
    cr_assert_eq(runs.n, n);
    item = apply_entries_new(r, first, first + n - 1, &runs);
    run_list_deinit(&runs);
    return item;
}

static void apply(struct apply_item *item)
{
    uint64_t last = item->last;

    apply_worker_post(r->apply, item);
    host_run(1);
    cr_assert_eq(rsm_applied(r->rsm), last);
}

/* At the limit, too, all runs have room in whatever item is found. */
Test(apply_worker, an_item_is_used_again)
{
    struct apply_item *first = item_of(1), *item;
    uint32_t n = 0;

    apply(first);
    do { /* those that the host itself has used come before it */
        item = item_of(APPLY_SPARE_RUNS);
        apply(item);
    } while (item != first && ++n < 100);
    cr_assert_eq(item, first);
}

Test(apply_worker, one_of_more_runs_is_not)
{
    struct apply_item *first = item_of(RUNS_MAX);
    uint64_t sum;

    apply(first);
    for (uint32_t n = 1; n <= RUNS_MAX; n++)
        apply(item_of(n));
    cr_assert_eq(host_lookup(1, &sum), 0);
    cr_assert_eq(sum, RUNS_MAX + RUNS_MAX * (RUNS_MAX + 1) / 2);
}
