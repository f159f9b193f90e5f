/* A step worker that applies in place of the apply worker: when it does, when it must not, and that order is kept. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/sim/memory_files.h"

/* More entries than a step worker applies itself. */
#define MANY 200u

static void setup(void)
{
    host_inline_applies = true;
    host_start(false, 1);
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    host_await_leader(1);
    host_run(10);
}

static void teardown(void)
{
    host.hold_apply = false;
    host_stop();
    host_forget_disk();
    host_inline_applies = false;
}

TestSuite(inline_applies, .init = setup, .fini = teardown);

static void add(uint64_t value, struct ended *e)
{
    cr_assert_eq(host_propose(1, value, 60000, e), 0, "%s", host.err.text);
}

Test(inline_applies, little_needs_no_apply_worker)
{
    struct ended p = {0}, r = {0};

    host.hold_apply = true;
    add(5, &p);
    host_run(1);
    cr_assert_eq(p.n, 1);
    cr_assert_eq(p.last.value, 5);
    cr_assert_eq(host_read(1, 1000, &r), 0);
    host_run(1);
    cr_assert_eq(r.n, 1);
    cr_assert_eq(r.last.value, 5);
}

Test(inline_applies, much_is_left_to_it)
{
    struct ended e = {0};

    host.hold_apply = true;
    for (uint32_t i = 0; i < MANY; i++)
        add(1, &e);
    host_run(1);
    cr_assert_eq(e.n, 0);
    host.hold_apply = false;
    host_run(1);
    cr_assert_eq(e.n, MANY);
}

/* What comes after something that waits for the apply worker waits too. */
Test(inline_applies, the_order_is_kept)
{
    struct ended many = {0}, one = {0};

    host.hold_apply = true;
    for (uint32_t i = 0; i < MANY; i++)
        add(1, &many);
    host_run(1);
    add(1000, &one);
    host_run(1);
    cr_assert_eq(one.n, 0);
    host.hold_apply = false;
    host_run(1);
    cr_assert_eq(many.n, MANY);
    cr_assert_eq(many.last.value, MANY);
    cr_assert_eq(one.n, 1);
    cr_assert_eq(one.last.value, MANY + 1000);
}

/* Other shards of the step worker wait while a machine is slow: not for long, and not often. */
Test(inline_applies, a_slow_machine_is_left_to_it_for_a_while)
{
    struct ended slow = {0}, next = {0};

    host.update_ns = 5000000;
    add(1, &slow);
    host_run(1);
    cr_assert_eq(slow.n, 1);
    host.update_ns = 0;
    host.hold_apply = true;
    add(1, &next);
    host_run(400);
    cr_assert_eq(next.n, 0);
    host.hold_apply = false;
    host_run(1);
    cr_assert_eq(next.n, 1);
    host_run(200);
    host.hold_apply = true;
    add(1, &next);
    host_run(1);
    cr_assert_eq(next.n, 2, "a hundred times as long is over");
}

Test(inline_applies, a_machine_that_fails_is_quarantined)
{
    struct ended e = {0};

    host.fail_value = 13;
    host.hold_apply = true;
    add(13, &e);
    host_run(1);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
}

/* It writes to a disk. */
Test(inline_applies_on_disk, are_left_to_it)
{
    struct memory_files *disk = memory_files_new();
    struct ended e = {0};

    host_files = memory_files_base(disk);
    cr_assert_eq(host_files->ops->make_dir(host_files, "snapshots", &host.err), 0);
    host_replica_config.machine = &host_disk_machine;
    setup();
    host.hold_apply = true;
    add(1, &e);
    host_run(1);
    cr_assert_eq(e.n, 0);
    host.hold_apply = false;
    host_run(1);
    cr_assert_eq(e.n, 1);
    teardown();
    memory_files_free(disk);
}
