/* A save in two steps: what may leave between them, and what waits for its end. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>
#include <string.h>

static void begin(void)
{
    host_two_steps = true;
    host_start(true, 1);
    cr_assert_eq(host_start_replica(1, 3), 0, "%s", host.err.text);
    host_run(5);
}

static void end(void)
{
    host_stop();
    host_forget_disk();
}

TestSuite(two_step_saves, .init = begin, .fini = end);

Test(two_step_saves, entries_leave_before_its_end)
{
    struct nh_message vote = {.type = NH_MSG_REQUEST_VOTE_RESP, .shard_id = 1, .to = 1, .from = 2};

    for (uint32_t i = 0; host_status(1).role != RAFT_CANDIDATE; i++) {
        cr_assert_lt(i, 1000);
        host_run(1);
    }
    vote.term = host_status(1).term;
    host.n_sent = host.n_two_steps = 0;
    host_receive(&vote, 1, "peer:2");
    host_run(1);
    cr_assert_eq(host.n_two_steps, 1, "of its first entry");
    cr_assert_eq(host.n_sent_before, 2, "to both others");
}

Test(two_step_saves, votes_leave_after_its_end)
{
    struct nh_message request = {
        .type = NH_MSG_REQUEST_VOTE, .shard_id = 1, .to = 1, .from = 2, .term = 9, .log_index = 100, .log_term = 8};

    host.n_sent = host.n_two_steps = 0;
    host_receive(&request, 1, "peer:2");
    host_run(1);
    cr_assert_eq(host.n_two_steps, 1);
    cr_assert_eq(host.n_sent_before, 0);
    cr_assert_eq(host.n_sent, 1);
    cr_assert_eq(host_status(1).term, 9);
}

Test(two_step_saves, one_that_cannot_begin_fences)
{
    struct nh_message request = {
        .type = NH_MSG_REQUEST_VOTE, .shard_id = 1, .to = 1, .from = 2, .term = 9, .log_index = 100, .log_term = 8};

    host.n_sent = host.n_two_steps = 0;
    host.begin_result = NH_EIO;
    host_receive(&request, 1, "peer:2");
    host_run(1);
    cr_assert_eq(host.n_two_steps, 0, "there is nothing to end");
    cr_assert_eq(host.n_fenced, 1);
    cr_assert(strstr(host.reason, "begin_save"), "%s", host.reason);
    cr_assert_eq(host.n_sent, 0, "no vote without its save");
}

Test(two_step_saves, one_that_cannot_begin_for_one_shard_ends_that_one)
{
    struct nh_message request = {
        .type = NH_MSG_REQUEST_VOTE, .shard_id = 1, .to = 1, .from = 2, .term = 9, .log_index = 100, .log_term = 8};

    host.n_sent = 0;
    host.unreadable = 1;
    host_receive(&request, 1, "peer:2");
    host_run(1);
    cr_assert_eq(host.n_fenced, 0);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_str_eq(host.reason, "shard 1: a block is damaged");
    cr_assert_eq(host.n_sent, 0, "no vote without its save");
}
