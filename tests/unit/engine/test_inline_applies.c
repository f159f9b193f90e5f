/* A step worker that applies in place of the apply worker: what it may do, what it must not, and that order is kept.
 *
 * The apply worker is held: what completes was done by the step worker. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>
#include <string.h>

#include "engine/apply_inline.h"
#include "engine/engine_private.h"
#include "engine/replica.h"
#include "engine/rsm/sessions.h"
#include "tests/sim/memory_files.h"

static struct memory_files *disk;

static void begin(const struct nh_machine_ops *machine, uint64_t snapshot_entries)
{
    disk = memory_files_new();
    host_files = memory_files_base(disk);
    cr_assert_eq(host_files->ops->make_dir(host_files, "snapshots", &host.err), 0);
    host_inline_applies = true;
    host_replica_config.machine = machine;
    if (snapshot_entries)
        host_replica_config.snapshot_entries = snapshot_entries;
    host_start(false, 1);
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    host_await_leader(1);
    host_run(10);
    host.hold_apply = true;
}

static void begin_quick(void)
{
    begin(&host_quick_machine, 0);
}

static void end(void)
{
    host.hold_apply = false;
    host_stop();
    host_forget_disk();
    memory_files_free(disk);
}

static void release(void)
{
    host.hold_apply = false;
    host_run(2);
}

TestSuite(inline_applies, .fini = end);

static void add(uint64_t value, struct ended *e)
{
    cr_assert_eq(host_propose(1, value, 60000, e), 0, "%s", host.err.text);
}

/* It ends only when the apply worker may. */
static void expect_left(const struct ended *e)
{
    uint32_t n = e->n;

    host_run(1);
    cr_assert_eq(e->n, n);
    release();
    cr_assert_gt(e->n, n);
}

Test(inline_applies, little_needs_no_apply_worker)
{
    struct ended e = {0};

    begin_quick();
    add(5, &e);
    host_run(1);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.value, 5);
}

Test(inline_applies, it_takes_the_authors_word)
{
    struct ended e = {0};

    begin(&host_machine, 0);
    add(5, &e);
    expect_left(&e);
}

Test(inline_applies, machines_with_files_are_left)
{
    struct ended e = {0};

    begin(&host_disk_machine, 0);
    add(5, &e);
    expect_left(&e);
}

Test(inline_applies, queries_are_left)
{
    struct ended e = {0};

    begin_quick();
    cr_assert_eq(host_read(1, 1000, &e), 0);
    expect_left(&e);
}

/* In its completion the machine may be asked. */
Test(inline_applies, reads_are_left)
{
    struct ended e = {0};

    begin_quick();
    cr_assert_eq(host_read_index(1, 1000, &e), 0);
    expect_left(&e);
}

/* The machine has an update before a no-op and one behind it; the lock is taken for the first. */
Test(inline_applies, entries_around_a_no_op_are_left)
{
    uint64_t one = 1, sum, first;
    struct block_builder b = {0};
    struct apply_inline all = {0};
    struct run_list runs = {0};
    struct apply_item *item;
    struct nh_block *block;
    struct replica *r;

    begin_quick();
    r = engine_find(host.engine, 1);
    first = rsm_applied(r->rsm) + 1;
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(block_builder_add(&b, &(struct block_record){.payload = &one, .payload_bytes = i == 1 ? 0 : sizeof one}), 0);
    block = block_seal(&b, 1, first);
    run_list_add(&runs, block, 0, 3);
    nh_block_unref(block);
    item = apply_entries_new(r, first, first + 2, &runs);
    cr_assert_not(apply_inline_begin(&all, item));
    apply_worker_post(r->apply, item);
    release();
    cr_assert_eq(host_lookup(1, &sum), 0);
    cr_assert_eq(sum, 2);
    run_list_deinit(&runs);
    replica_unref(r);
}

Test(inline_applies, sessions_are_left)
{
    struct engine_session opening = {.client_id = 7, .series_id = SESSION_OPEN};
    struct ended e = {0};
    uint32_t limit = 10;

    begin_quick();
    cr_assert_eq(host_propose_in_session(1, opening, &limit, sizeof limit, &e), 0);
    expect_left(&e);
}

Test(inline_applies, as_many_as_allowed)
{
    struct ended e = {0};

    begin_quick();
    for (uint32_t i = 0; i < APPLY_INLINE_MAX; i++)
        add(1, &e);
    host_run(1);
    cr_assert_eq(e.n, APPLY_INLINE_MAX);
}

Test(inline_applies, one_more_is_too_much)
{
    struct ended e = {0};

    begin_quick();
    for (uint32_t i = 0; i < APPLY_INLINE_MAX + 1; i++)
        add(1, &e);
    expect_left(&e);
    cr_assert_eq(e.n, APPLY_INLINE_MAX + 1);
}

static void add_bytes(size_t size_bytes, struct ended *e)
{
    static const char zeros[APPLY_INLINE_BYTES_MAX];

    cr_assert_eq(host_propose_bytes(1, zeros, size_bytes, 1000, e), 0, "%s", host.err.text);
}

Test(inline_applies, large_ones_are_left)
{
    struct ended fits = {0}, large = {0};

    begin_quick();
    add_bytes(APPLY_INLINE_BYTES_MAX - NH_RECORD_HEADER_BYTES, &fits);
    host_run(1);
    cr_assert_eq(fits.n, 1);
    add_bytes(APPLY_INLINE_BYTES_MAX - NH_RECORD_HEADER_BYTES + 1, &large);
    expect_left(&large);
}

/* What comes after something that waits for the apply worker waits too. */
Test(inline_applies, the_order_is_kept)
{
    struct ended query = {0}, one = {0};

    begin_quick();
    cr_assert_eq(host_read(1, 1000, &query), 0);
    host_run(1);
    add(1000, &one);
    expect_left(&one);
    cr_assert_eq(query.last.value, 0);
    cr_assert_eq(one.last.value, 1000);
}

/* An update of a regular machine waits for lookups, which may take their time. */
static struct ended beside;

static void add_meanwhile(void)
{
    host.on_lookup = NULL;
    add(3, &beside);
    host_run(1);
    cr_assert_eq(beside.n, 0);
}

Test(inline_applies, a_machine_that_is_being_asked_is_left, .timeout = 20)
{
    uint64_t sum;

    begin_quick();
    host.on_lookup = add_meanwhile;
    cr_assert_eq(host_lookup(1, &sum), 0);
    cr_assert_eq(sum, 0);
    expect_left(&beside);
    cr_assert_eq(beside.last.value, 3);
}

/* What begins a snapshot is the apply worker's, as is what comes before it is announced as ready (the machine's opening). */
Test(inline_applies, the_entry_before_a_snapshot_is_left)
{
    struct ended e = {0};
    uint32_t n = 0;

    begin(&host_quick_machine, 20);
    for (; n == e.n && n < 40; n++) {
        add(1, &e);
        host_run(1);
    }
    cr_assert_gt(n, 10);
    cr_assert_lt(n, 40);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 0);
    release();
    cr_assert_eq(e.n, n);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 1);
}

/* Other shards of the step worker wait while a promise is broken: not for long, and not often. */
Test(inline_applies, a_slow_machine_is_left_for_a_while)
{
    struct ended slow = {0}, next = {0};

    begin_quick();
    host.update_ns = 5000000;
    add(1, &slow);
    host_run(1);
    cr_assert_eq(slow.n, 1);
    host.update_ns = 0;
    add(1, &next);
    host_run(400);
    cr_assert_eq(next.n, 0);
    release();
    cr_assert_eq(next.n, 1);
    host_run(200);
    host.hold_apply = true;
    add(1, &next);
    host_run(1);
    cr_assert_eq(next.n, 2, "a hundred times as long is over");
}

/* Also a machine that stood still for long: its clients are not to pay for it for ever. */
Test(inline_applies, but_not_for_longer_than_ten_seconds)
{
    struct ended slow = {0}, next = {0};

    begin_quick();
    host.update_ns = 300000000;
    add(1, &slow);
    host_run(1);
    cr_assert_eq(slow.n, 1);
    host.update_ns = 0;
    host_run(9000);
    add(1, &next);
    host_run(1);
    cr_assert_eq(next.n, 0);
    release();
    host_run(1100);
    host.hold_apply = true;
    add(1, &next);
    host_run(1);
    cr_assert_eq(next.n, 2);
}

Test(inline_applies, a_machine_that_fails_is_quarantined)
{
    struct ended e = {0};

    begin_quick();
    host.fail_value = 13;
    add(13, &e);
    host_run(1);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
}
