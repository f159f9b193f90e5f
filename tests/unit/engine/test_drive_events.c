/* Answers that need no turn of their own. */
#include "engine/drive_events.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "engine/engine_private.h"
#include "tests/unit/engine/engine_host.h"

static struct replica r;

static struct nh_message acceptance(uint64_t from, uint64_t index)
{
    return (struct nh_message){
        .type = NH_MSG_REPLICATE_RESP, .shard_id = 1, .to = 1, .from = from, .term = 5, .log_index = index, .commit = index / 2};
}

static bool keep(uint64_t from, uint64_t index)
{
    struct nh_message m = acceptance(from, index);

    return drive_keep_answer(&r, &m);
}

static void patient(void)
{
    r = (struct replica){.patience = {.term = 5, .below = 100}};
}

static void forget(void)
{
    free(r.kept);
}

TestSuite(kept_answers, .init = patient, .fini = forget);

Test(kept_answers, only_acceptances_of_this_term_and_of_what_is_committed_are_kept)
{
    struct nh_run run = {0};
    struct nh_message others[] = {acceptance(2, 100), acceptance(2, 99), acceptance(2, 99),
                                  acceptance(2, 99),  acceptance(2, 99), acceptance(2, 99)};

    others[1].term = 4;
    others[2].term = 6;
    others[3].reject = true;
    others[4].type = NH_MSG_HEARTBEAT_RESP;
    others[5].runs = &run;
    others[5].n_runs = 1;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_assert_not(drive_keep_answer(&r, &others[i]), "%zu", i);
    cr_assert(keep(2, 99));
    r.patience = (struct raft_patience){0};
    cr_assert_not(keep(2, 0));
}

Test(kept_answers, of_one_peer_the_highest_says_all)
{
    cr_assert(keep(2, 40));
    cr_assert(keep(2, 60));
    cr_assert(keep(2, 50));
    cr_assert_eq(r.kept->n, 1);
    cr_assert_eq(r.kept->items[0].index, 60);
    cr_assert_eq(r.kept->items[0].commit, 30);
}

Test(kept_answers, are_bounded)
{
    for (uint64_t from = 2; from < 2 + KEPT_ANSWERS_MAX; from++)
        cr_assert(keep(from, 50));
    cr_assert_not(keep(2 + KEPT_ANSWERS_MAX, 50));
    cr_assert(keep(2, 60), "it has its place");
}

/* ---- in a host ---- */

static void begin(void)
{
    host_start(true, 1);
    cr_assert_eq(host_start_replica(1, 3), 0, "%s", host.err.text);
}

static void end(void)
{
    host_stop();
    host_forget_disk();
}

TestSuite(drive_events, .init = begin, .fini = end);

static void accept_all(uint64_t from)
{
    struct nh_message m = acceptance(from, host_status(1).last_index);

    m.term = host_status(1).term;
    host_receive(&m, 1, "peer:2");
    host_run(0);
}

static void on_peers(void *ctx, const struct nh_outcome *outcome)
{
    const struct nh_peer_info *peers = outcome->data;

    cr_assert_eq(outcome->size_bytes, 2 * sizeof *peers);
    *(uint64_t *)ctx = peers[1].match_index;
}

Test(drive_events, an_answer_that_completes_nothing_is_told_with_the_next_event)
{
    struct replica *here;
    struct ended e = {0};
    uint64_t match = 0;

    host_win_election();
    here = engine_find(host.engine, 1);
    accept_all(2);
    accept_all(3); /* the first one of a peer is awaited: entries may be streamed from now on */
    cr_assert_null(here->kept);
    cr_assert_eq(host_propose(1, 7, 1000, &e), 0, "%s", host.err.text);
    host_run(0);
    accept_all(2);
    cr_assert_eq(e.n, 1);
    accept_all(3);
    cr_assert(here->kept && here->kept->n == 1, "no turn was made for it");
    cr_assert_eq(engine_look_at_peers(host.engine, 1, on_peers, &match, &host.err), 0);
    host_run(0);
    cr_assert_eq(match, host_status(1).last_index);
    cr_assert_eq(here->kept->n, 0);
    replica_unref(here);
}
