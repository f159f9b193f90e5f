/* What waits for a worker that stands still is bounded. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>

#include "engine/engine_private.h"
#include "engine/inbound.h"
#include "engine/step_worker.h"
#include "raftio/support/block.h"

#define PAYLOAD_BYTES (16u << 20)
#define RUNS_MAX      20u

static uint8_t payload[PAYLOAD_BYTES];
static struct nh_run runs[RUNS_MAX]; /* all of one block */

static void begin(void)
{
    struct block_builder b = {0};
    struct block_record r = {.type = NH_ENTRY_APPLICATION, .key = 1, .payload = payload, .payload_bytes = sizeof payload};

    host_start(true, 1);
    cr_assert_eq(host_start_replica(1, 3), 0, "%s", host.err.text);
    host_run(5);
    cr_assert_eq(block_builder_add(&b, &r), 0);
    runs[0] = (struct nh_run){block_seal(&b, 5, 100), 0, 1};
    for (uint32_t i = 1; i < RUNS_MAX; i++)
        runs[i] = runs[0];
}

static void end(void)
{
    host_stop();
    host_forget_disk();
    nh_block_unref(runs[0].block);
}

TestSuite(inbound, .init = begin, .fini = end);

static uint64_t n_ignored(void)
{
    struct engine_stats s;

    engine_get_stats(host.engine, &s);
    return s.messages_ignored;
}

static size_t waiting(void)
{
    return host.engine->step_workers[0]->inbound_bytes;
}

/* Entries behind a gap: they are looked at and forgotten. True: the worker is to get them. */
static bool receive(uint32_t n_runs)
{
    struct nh_message m = {.type = NH_MSG_REPLICATE,
                           .shard_id = 1,
                           .to = 1,
                           .from = 2,
                           .term = 5,
                           .n_runs = n_runs,
                           .runs = runs,
                           .log_index = 99,
                           .log_term = 5};
    uint64_t before = n_ignored();

    host_receive(&m, 1, "peer:2");
    return n_ignored() == before;
}

Test(inbound, waits_up_to_the_limit)
{
    uint32_t n = 0;

    while (n < RUNS_MAX && receive(1))
        n++;
    cr_assert_lt(n, RUNS_MAX, "all were taken");
    cr_assert_leq(waiting(), INBOUND_BYTES_MAX);
    cr_assert_gt(waiting() + waiting() / n, INBOUND_BYTES_MAX, "one more had found room");
    cr_assert(receive(0), "there is room for a small one");
}

Test(inbound, what_was_dealt_with_makes_room)
{
    while (receive(1))
        cr_assert_lt(waiting(), 2 * INBOUND_BYTES_MAX);
    host_run(1);
    cr_assert_eq(waiting(), 0);
    cr_assert_eq(host_status(1).term, 5);
    cr_assert(receive(1));
}

Test(inbound, one_alone_may_be_larger)
{
    cr_assert(receive(RUNS_MAX));
    cr_assert_gt(waiting(), INBOUND_BYTES_MAX);
    cr_assert(!receive(0), "nothing comes beside it");
    host_run(1);
    cr_assert_eq(waiting(), 0);
}
