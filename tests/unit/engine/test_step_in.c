/* Who does the work that a transport's thread brings: itself, if the worker sleeps, it is little, and passes are quick. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>

#include "engine/engine_private.h"
#include "engine/step_worker.h"
#include "raftio/support/block.h"

static void begin(void)
{
    host_steps_in = true;
    host_start(true, 1);
    cr_assert_eq(host_start_replica(1, 3), 0, "%s", host.err.text);
    host_run(5);
    host.n_sent = host.n_stepped_in = 0;
}

static void end(void)
{
    host_stop();
    host_forget_disk();
}

TestSuite(step_in, .init = begin, .fini = end);

#define MESSAGES_MAX (STEP_IN_COST_MAX / STEP_IN_MESSAGE_COST)

/* Of the leader of term 5, who has nothing new. */
static struct nh_message heartbeat(void)
{
    return (struct nh_message){.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 1, .from = 2, .term = 5};
}

static void receive(uint32_t n)
{
    struct nh_message messages[2 * MESSAGES_MAX];

    for (uint32_t i = 0; i < n; i++)
        messages[i] = heartbeat();
    host_receive(messages, n, "peer:2");
}

static void drained(void)
{
    host.handlers.on_drained(host.handlers.ctx);
}

static uint64_t n_passes(void)
{
    return host.engine->step_workers[0]->passes;
}

Test(step_in, little_is_done_where_it_came)
{
    uint64_t before = n_passes();

    receive(1);
    cr_assert_eq(n_passes(), before, "there may be more");
    drained();
    cr_assert_eq(host.n_stepped_in, 1);
    cr_assert_gt(n_passes(), before);
    cr_assert_eq(host_status(1).term, 5);
    cr_assert_eq(host.n_sent, 1, "answered, after its save");
}

Test(step_in, batches_are_done_together)
{
    uint64_t before = n_passes();

    receive(1);
    receive(1);
    cr_assert_eq(n_passes(), before);
    drained();
    cr_assert_eq(host.n_stepped_in, 1);
    cr_assert_eq(host_status(1).term, 5);
}

Test(step_in, nothing_came)
{
    drained();
    receive(1);
    drained();
    drained();
    cr_assert_eq(host.n_stepped_in, 1);
}

Test(step_in, the_most_that_is_little)
{
    receive(MESSAGES_MAX);
    drained();
    cr_assert_eq(host.n_stepped_in, 1);
}

Test(step_in, much_is_left_to_the_worker)
{
    receive(MESSAGES_MAX / 2);
    receive(MESSAGES_MAX / 2 + 1);
    drained();
    cr_assert_eq(host.n_stepped_in, 0);
    host_run(1);
    cr_assert_eq(host_status(1).term, 5, "it was woken");
}

Test(step_in, so_are_large_entries)
{
    static const uint8_t payload[STEP_IN_COST_MAX];
    struct block_builder b = {0};
    struct block_record r = {.type = NH_ENTRY_APPLICATION, .key = 1, .payload = payload, .payload_bytes = sizeof payload};
    struct nh_run run = {.from = 0, .to = 1};
    struct nh_message m = {.type = NH_MSG_REPLICATE,
                           .shard_id = 1,
                           .to = 1,
                           .from = 2,
                           .term = 5,
                           .n_runs = 1,
                           .runs = &run,
                           .log_index = 99,
                           .log_term = 5};

    cr_assert_eq(block_builder_add(&b, &r), 0);
    run.block = block_seal(&b, 5, 100);
    host_receive(&m, 1, "peer:2");
    nh_block_unref(run.block);
    drained();
    cr_assert_eq(host.n_stepped_in, 0);
    host_run(1);
    cr_assert_eq(host_status(1).term, 5);
}

Test(step_in, also_behind_small_ones)
{
    receive(1);
    receive(MESSAGES_MAX + 1); /* wakes it at once */
    drained();
    cr_assert_eq(host.n_stepped_in, 0);
    host_run(1);
    cr_assert_eq(host_status(1).term, 5);
}

Test(step_in, a_worker_that_is_awake_is_left_to_itself)
{
    static struct ended e; /* ends with the host */

    host_propose(1, 1, 1000, &e); /* wakes it */
    receive(1);
    drained();
    cr_assert_eq(host.n_stepped_in, 0);
    host_run(1);
    cr_assert_eq(host_status(1).term, 5);
}

Test(step_in, while_saves_are_slow_the_worker_makes_them)
{
    host.save_ns = STEP_IN_PASS_NS_MAX + 1;
    receive(1);
    drained();
    cr_assert_eq(host.n_stepped_in, 1);
    host.save_ns = 0;
    host_run(STEP_IN_PASS_NS_MAX / 1000000 * STEP_IN_PAUSE_FACTOR / 2);
    host.n_stepped_in = 0;
    receive(1);
    drained();
    cr_assert_eq(host.n_stepped_in, 0);
    host_run(STEP_IN_PASS_NS_MAX / 1000000 * STEP_IN_PAUSE_FACTOR);
    receive(1);
    drained();
    cr_assert_eq(host.n_stepped_in, 1, "for a while");
}
