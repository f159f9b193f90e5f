/* Reads that the apply worker has: their deadlines, and how they end. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>
#include <string.h>

#include "engine/apply_worker.h"
#include "engine/engine_private.h"
#include "engine/reads.h"
#include "tests/sim/memory_files.h"

static struct memory_files *disk;

static void begin(void)
{
    disk = memory_files_new();
    host_files = memory_files_base(disk);
    cr_assert_eq(host_files->ops->make_dir(host_files, "snapshots", &host.err), 0);
    host_start(false, 1);
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    host_await_leader(1);
    host_run(1);
}

static void end(void)
{
    host_stop();
    host_forget_disk();
    memory_files_free(disk);
    host_files = NULL;
    host_max_pending = 0;
}

TestSuite(reads, .init = begin, .fini = end);

static void read_within(uint32_t timeout_ms, struct ended *e)
{
    cr_assert_eq(host_read(1, timeout_ms, e), 0, "%s", host.err.text);
}

static void check_reads_go_on(void)
{
    struct ended e = {0};

    read_within(1000, &e);
    host_run(5);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(host_status(1).pending_requests, 0);
}

Test(reads, behind_a_machine_that_hangs_they_time_out)
{
    struct ended e = {0};

    host.hold_apply = true;
    read_within(100, &e);
    host_run(99);
    cr_assert_eq(e.n, 0);
    host_run(21);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TIMEOUT);
    cr_assert_eq(host_status(1).pending_requests, 0);
    host.hold_apply = false;
    host_run(5);
    cr_assert_eq(e.n, 1, "answered late, and ended once");
    check_reads_go_on();
}

Test(reads, of_a_batch_those_end_whose_time_is_over)
{
    struct ended early = {0}, late = {0};

    host.hold_apply = true;
    read_within(300, &late);
    for (int i = 0; i < 3; i++)
        read_within(100, &early);
    host_run(120);
    cr_assert_eq(early.n, 3);
    cr_assert_eq(early.last.code, NH_REQUEST_TIMEOUT);
    cr_assert_eq(late.n, 0);
    cr_assert_eq(host_status(1).pending_requests, 1);
    host.hold_apply = false;
    host_run(1);
    cr_assert_eq(early.n, 3);
    cr_assert_eq(late.n, 1);
    cr_assert_eq(late.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(host_status(1).pending_requests, 0);
}

Test(reads, the_second_of_two_deadlines_counts_too)
{
    struct ended first = {0}, second = {0};

    host.hold_apply = true;
    read_within(100, &first);
    read_within(300, &second);
    host_run(299);
    cr_assert_eq(first.n, 1);
    cr_assert_eq(second.n, 0);
    host_run(21);
    cr_assert_eq(second.n, 1);
    cr_assert_eq(second.last.code, NH_REQUEST_TIMEOUT);
}

Test(reads, during_a_long_recovery_they_time_out)
{
    struct ended e = {0};

    cr_assert_eq(host_propose(1, 5, 1000, &e), 0);
    host_run(1);
    cr_assert_eq(host_snapshot(1, NULL, 0, &e), 0);
    host_run(5);
    cr_assert_eq(e.n, 2);
    host_stop();
    host_start(false, 2);
    host.hold_snapshots = true;
    cr_assert_eq(host_restart_replica(1), 0, "%s", host.err.text);
    host_await_leader(1);
    e.n = 0;
    read_within(100, &e);
    host_run(1000);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TIMEOUT);
    host.hold_snapshots = false;
    host_run(5);
    cr_assert_eq(e.n, 1);
    check_reads_go_on();
}

static void let_time_pass(void)
{
    host.on_lookup = NULL;
    host_run(200);
}

Test(reads, a_lookup_that_takes_too_long_answers_nobody)
{
    struct ended short_one = {0}, long_one = {0};

    host.on_lookup = let_time_pass;
    read_within(100, &short_one);
    read_within(1000, &long_one);
    host_run(0);
    cr_assert_eq(short_one.n, 1);
    cr_assert_eq(short_one.last.code, NH_REQUEST_TIMEOUT);
    cr_assert_eq(long_one.n, 1);
    cr_assert_eq(long_one.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(host_status(1).pending_requests, 0);
}

/* The whole batch ends while its queries are in use. */
Test(reads, a_batch_may_end_under_a_lookup)
{
    struct ended e = {0};

    host.on_lookup = let_time_pass;
    for (int i = 0; i < 3; i++)
        read_within(100, &e);
    host_run(0);
    cr_assert_eq(e.n, 3);
    cr_assert_eq(e.last.code, NH_REQUEST_TIMEOUT);
    check_reads_go_on();
}

#define LIMIT 4u

static void begin_with_limit(void)
{
    host_max_pending = LIMIT;
    begin();
}

/* What is left of a batch whose reads have ended is small, but not nothing. */
Test(reads_with_limit, no_more_batches_wait_for_the_machine_than_allowed, .init = begin_with_limit, .fini = end)
{
    struct ended e = {0}, p = {0};

    host.hold_apply = true;
    for (uint32_t i = 1; i <= LIMIT; i++) {
        read_within(20, &e);
        host_run(50);
        cr_assert_eq(e.n, i);
    }
    cr_assert_eq(host_status(1).pending_requests, 0);
    cr_assert_eq(host_read(1, 20, &e), NH_EBUSY);
    cr_assert_eq(host_propose(1, 5, 1000, &p), 0, "proposals do not suffer");
    host.hold_apply = false;
    host_run(5);
    cr_assert_eq(p.last.code, NH_REQUEST_COMPLETED);
    check_reads_go_on();
}

static void begin_with_inbox(void)
{
    host_max_inbox = 1000;
    begin();
}

static void end_with_inbox(void)
{
    end();
    host_max_inbox = 0;
}

TestSuite(reads_with_inbox, .init = begin_with_inbox, .fini = end_with_inbox);

static const char query[2000];

static int read_bytes(size_t size_bytes, uint32_t timeout_ms, struct ended *e)
{
    return host_read_bytes(1, query, size_bytes, timeout_ms, e);
}

Test(reads_with_inbox, one_query_may_be_larger_and_no_other_comes_with_it)
{
    struct ended e = {0};

    cr_assert_eq(read_bytes(sizeof query, 1000, &e), 0, "%s", host.err.text);
    cr_assert_eq(read_bytes(1, 1000, &e), NH_EBUSY);
    cr_assert_eq(host_read_index(1, 1000, &e), 0, "it has no query");
    host_run(5);
    cr_assert_eq(e.n, 2);
    cr_assert_eq(read_bytes(1, 1000, &e), 0);
    host_run(5);
}

/* They are in memory as long as the machine has not answered, taken or not. */
Test(reads_with_inbox, queries_that_wait_for_the_machine_count)
{
    struct ended e = {0}, late = {0};

    host.hold_apply = true;
    cr_assert_eq(read_bytes(600, 1000, &e), 0, "%s", host.err.text);
    host_run(1);
    cr_assert_eq(read_bytes(400, 100, &late), 0, "%s", host.err.text);
    host_run(1);
    cr_assert_eq(read_bytes(1, 1000, &e), NH_EBUSY);
    host_run(150);
    cr_assert_eq(late.n, 1, "its deadline");
    cr_assert_eq(read_bytes(401, 1000, &e), NH_EBUSY);
    cr_assert_eq(read_bytes(400, 1000, &e), 0, "what has expired takes no room");
    host.hold_apply = false;
    host_run(5);
    cr_assert_eq(e.n, 2);
    cr_assert_eq(read_bytes(1000, 1000, &e), 0);
    host_run(5);
}

Test(reads, a_fence_ends_them)
{
    struct ended e = {0};

    host.hold_apply = true;
    read_within(100000, &e);
    host_run(1);
    engine_fence(host.engine, "a test");
    host_run(5);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
    host.hold_apply = false;
    host_run(5);
    cr_assert_eq(e.n, 1);
}

static void on_read(void *ctx, const struct nh_outcome *outcome)
{
    struct ended *e = ctx;

    e->n++;
    e->last = *outcome;
}

/* A received snapshot has taken the place of the log: the read waits for the recovery, which never comes, as the replica leaves
 * before it is posted. */
Test(reads, quarantine_ends_those_that_wait_for_a_recovery)
{
    struct ended e = {0};
    struct replica *r = engine_find(host.engine, 1);
    struct apply_item *item = apply_item_new(APPLY_READS, r);

    r->installing = rsm_applied(r->rsm) + 5;
    item->reads = read_batch_new(1);
    item->reads->index = r->installing;
    read_batch_add(item->reads, &(struct request){on_read, &e, REQUESTS_NO_DEADLINE}, "?", 1);
    r->n_reads++;
    r->queries_bytes++;
    reads_note_handed(r, item->reads);
    apply_worker_post(r->apply, item);
    host_run(5);
    cr_assert_eq(e.n, 0);
    apply_worker_fail(r, "a test");
    host_run(5);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
    replica_unref(r);
}

Test(reads, a_stop_ends_them)
{
    struct ended e = {0};

    host.hold_apply = true;
    read_within(100000, &e);
    host_run(1);
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_TERMINATED);
    host.hold_apply = false;
    host_run(5);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(host.n_unloaded, 1);
}
