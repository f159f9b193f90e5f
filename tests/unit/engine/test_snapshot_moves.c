/* What the engine has to do with images on their way. The streams themselves: test_snapshot_stream.c. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>

#include "tests/sim/memory_files.h"

static struct memory_files *disk;

static void begin(void)
{
    disk = memory_files_new();
    host_files = memory_files_base(disk);
    host_moves_images = true;
    cr_assert_eq(host_files->ops->make_dir(host_files, "snapshots", &host.err), 0);
    host_start(false, 1);
    for (uint64_t shard = 1; shard <= 2; shard++) {
        cr_assert_eq(host_start_replica(shard, 1), 0, "%s", host.err.text);
        host_await_leader(shard);
    }
    host_run(1);
}

static void end(void)
{
    if (host.engine)
        host_stop();
    host_forget_disk();
    memory_files_free(disk);
    host_files = NULL;
    host_moves_images = false;
}

TestSuite(snapshot_moves, .init = begin, .fini = end);

/* The sender may be waiting for a network that is frozen. */
Test(snapshot_moves, a_close_waits_for_its_streams_and_nobody_else_does)
{
    struct ended e = {0};

    host.hold_streams = true;
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(10);
    cr_assert_eq(host.n_unloaded, 0);
    cr_assert_eq(host_propose(2, 5, 1000, &e), 0);
    host_run(1);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED, "its apply worker goes on");
    host.hold_streams = false;
    host_run(1);
    cr_assert_eq(host.n_unloaded, 1);
    cr_assert_eq(host_restart_replica(1), 0, "%s", host.err.text);
    host_await_leader(1);
}

/* The pool may have all its hands full, with the machines of others. */
Test(snapshot_moves, a_close_does_not_wait_for_the_pool)
{
    host.hold_snapshots = true;
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert_eq(host.n_unloaded, 1);
}

Test(snapshot_moves, a_host_that_stops_ends_a_close_that_waits)
{
    host.hold_streams = true;
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert_eq(host.n_unloaded, 0);
    host_stop();
    cr_assert_eq(host.n_unloaded, 2);
}
