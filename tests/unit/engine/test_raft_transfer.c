/* Giving the leadership away, forgetting a leader, priorities (statements 18, 23, 58 to 60). */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static void three(void)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
}

static struct raft_transfer_end last_end(uint64_t id)
{
    cr_assert_gt(c.nodes[id].transfers.n, 0, "it has not ended");
    return c.nodes[id].transfers.items[c.nodes[id].transfers.n - 1];
}

static void expect_end(uint64_t id, enum raft_transfer_code code, enum raft_transfer_reason reason)
{
    struct raft_transfer_end end = last_end(id);

    cr_assert_eq(end.key, 7);
    cr_assert_eq(end.code, code, "code %d", (int)end.code);
    cr_assert_eq(end.reason, reason, "reason %d", (int)end.reason);
    cr_assert_eq(c.nodes[id].transfers.n, 1, "it ends once");
}

Test(raft_transfer, a_voter_that_holds_all_takes_over_at_once)
{
    three();
    cluster_transfer(&c, 1, 2);
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 2);
    cr_assert_eq(cluster_status(&c, 2).term, 3);
    expect_end(1, RAFT_TRANSFER_DONE, RAFT_TRANSFER_OK);
    cluster_deinit(&c);
}

/* Statement 18: no pre-vote, and leader stickiness does not stop it, though all heard from the leader just now. */
Test(raft_transfer, leases_and_pre_votes_do_not_stop_it)
{
    three();
    cluster_tick(&c, 1);
    c.delivered[NH_MSG_REQUEST_PRE_VOTE] = 0;
    cluster_transfer(&c, 1, 3);
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 3);
    cr_assert_eq(c.delivered[NH_MSG_REQUEST_PRE_VOTE], 0);
    cluster_deinit(&c);
}

Test(raft_transfer, a_follower_forwards_the_wish_and_tells_the_end)
{
    three();
    cluster_transfer(&c, 2, 3);
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 3);
    expect_end(2, RAFT_TRANSFER_DONE, RAFT_TRANSFER_OK);
    cr_assert_eq(c.nodes[1].transfers.n, 0, "it was asked for elsewhere");
    cluster_deinit(&c);
}

/* Statement 59: TIMEOUT_NOW goes out when the target has acknowledged the last entry. */
Test(raft_transfer, a_target_that_lags_is_brought_up_first)
{
    three();
    cluster_isolate(&c, 2, true);
    cluster_propose(&c, 1, 5, 10);
    cluster_settle(&c);
    cluster_transfer(&c, 1, 2);
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert_eq(cluster_status(&c, 1).transferee, 2);
    cluster_isolate(&c, 2, false);
    cluster_tick(&c, 2);
    cr_assert_eq(cluster_leader(&c), 2);
    expect_end(1, RAFT_TRANSFER_DONE, RAFT_TRANSFER_OK);
    cluster_deinit(&c);
}

/* Statement 58: during a transfer proposals are dropped with a word; after E ticks they are taken again. */
Test(raft_transfer, proposals_are_dropped_until_it_is_given_up)
{
    three();
    cluster_isolate(&c, 2, true);
    cluster_transfer(&c, 1, 2);
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_TRANSFERRING);
    cluster_tick(&c, 10);
    cr_assert_eq(cluster_status(&c, 1).transferee, 0);
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cluster_tick(&c, 11);
    expect_end(1, RAFT_TRANSFER_TIMED_OUT, RAFT_TRANSFER_OK);
    cluster_deinit(&c);
}

/* Statement 58: whoever asks again and again for the same target does not prolong it. */
Test(raft_transfer, a_repeated_wish_gives_no_more_time)
{
    three();
    cluster_isolate(&c, 2, true);
    for (int i = 0; i < 2; i++) {
        cluster_transfer(&c, 1, 2);
        cr_assert_eq(cluster_status(&c, 1).transferee, 2);
        cluster_tick(&c, 5);
    }
    cr_assert_eq(cluster_status(&c, 1).transferee, 0);
    cluster_deinit(&c);
}

/* Statement 60: not to a non-voting member, a stranger or a witness; "to the leader itself" is done already. */
Test(raft_transfer, only_a_voter_is_given_the_leadership)
{
    cluster_init(&c, 3, NULL);
    for (uint64_t id = 1; id <= 3; id++) {
        cluster_crash(&c, id);
        cluster_set_members(&c, id, "vvvnw");
        cluster_restart(&c, id);
    }
    cluster_elect(&c, 1);
    for (uint64_t target = 4; target <= 6; target++) {
        c.nodes[1].transfers.n = 0;
        cluster_transfer(&c, 1, target);
        expect_end(1, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_NO_VOTER);
        c.nodes[2].transfers.n = 0;
        cluster_transfer(&c, 2, target);
        cluster_settle(&c);
        expect_end(2, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_NO_VOTER);
    }
    c.nodes[1].transfers.n = c.nodes[2].transfers.n = 0;
    cluster_transfer(&c, 1, 1);
    expect_end(1, RAFT_TRANSFER_DONE, RAFT_TRANSFER_OK);
    cluster_transfer(&c, 2, 1);
    cluster_settle(&c);
    expect_end(2, RAFT_TRANSFER_DONE, RAFT_TRANSFER_OK);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_deinit(&c);
}

Test(raft_transfer, without_a_leader_it_is_refused)
{
    cluster_init(&c, 3, NULL);
    cluster_transfer(&c, 1, 2);
    expect_end(1, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_NO_LEADER);
    cluster_deinit(&c);
}

/* Statement 60: removing the target ends it. */
Test(raft_transfer, a_target_that_is_removed_ends_it)
{
    three();
    cluster_isolate(&c, 3, true);
    cluster_propose_change(&c, 1, false, 3);
    c.nodes[1].hold_applies = true;
    cluster_settle(&c);
    cluster_transfer(&c, 1, 3);
    cr_assert_eq(cluster_status(&c, 1).transferee, 3);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).transferee, 0);
    cr_assert_eq(c.nodes[1].transfers.n, 1, "and who asked is told at once");
    cr_assert_eq(c.nodes[1].transfers.items[0].code, RAFT_TRANSFER_REFUSED);
    cr_assert_eq(c.nodes[1].transfers.items[0].reason, RAFT_TRANSFER_LOST_TARGET);
    cluster_deinit(&c);
}

Test(raft_transfer, a_second_wish_takes_the_place_of_the_first)
{
    three();
    cluster_isolate(&c, 2, true);
    cluster_transfer(&c, 1, 2);
    cluster_transfer(&c, 1, 3);
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 3);
    cr_assert_eq(c.nodes[1].transfers.n, 2);
    cr_assert_eq(c.nodes[1].transfers.items[0].reason, RAFT_TRANSFER_REPLACED);
    cr_assert_eq(c.nodes[1].transfers.items[1].code, RAFT_TRANSFER_DONE);
    cluster_deinit(&c);
}

/* A lost TIMEOUT_NOW is sent again with the next sign of life; a follower that the wish never reached gives up. */
Test(raft_transfer, losses_delay_it_or_end_it)
{
    three();
    cluster_transfer(&c, 1, 2);
    cr_assert_eq(c.network.n, 1);
    cluster_lose(&c, 0);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_tick(&c, 1);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_transfer(&c, 1, 3);
    cluster_lose(&c, 0);
    c.nodes[1].transfers.n = 0;
    cluster_tick(&c, 21);
    expect_end(1, RAFT_TRANSFER_TIMED_OUT, RAFT_TRANSFER_OK);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_deinit(&c);
}

/* Statement 59: a target with unsaved data does not stand. Nor one that may not lead; nor at the word of a stranger. */
Test(raft_transfer, who_may_not_stand_does_not)
{
    struct nh_message m;

    cluster_init_ghosts(&c, 1, 3, NULL);
    m = cluster_message(NH_MSG_REPLICATE, 2, 1, 5);
    m.log_index = m.log_term = 1;
    cluster_add_entries(&m, (const uint64_t[]){5}, 1);
    c.nodes[1].hold_saves = true;
    cluster_inject(&c, m);
    cluster_inject(&c, cluster_message(NH_MSG_TIMEOUT_NOW, 2, 1, 5));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cluster_inject(&c, cluster_message(NH_MSG_TIMEOUT_NOW, 3, 1, 5));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_inject(&c, cluster_message(NH_MSG_TIMEOUT_NOW, 2, 1, 4));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_inject(&c, cluster_message(NH_MSG_TIMEOUT_NOW, 2, 1, 5));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_VOTE, 3)->hint, 1, "marked");
    cluster_deinit(&c);
}

static struct nh_message transfer_message(uint64_t from, uint64_t hint, uint64_t key)
{
    struct nh_message m = cluster_message(NH_MSG_LEADER_TRANSFER, from, 1, 5);

    m.hint = hint;
    m.hint_high = key;
    return m;
}

/* The leader's "no" counts for the wish that it names, with a reason that is one. */
Test(raft_transfer, a_refusal_of_another_wish_ends_nothing)
{
    struct nh_message m = transfer_message(2, RAFT_TRANSFER_NO_VOTER, 7);

    cluster_init_ghosts(&c, 1, 3, NULL);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    m.reject = true;
    cluster_inject(&c, m); /* nothing was asked for */
    m.hint_high = 0;
    cluster_inject(&c, m);
    cr_assert_eq(c.nodes[1].transfers.n, 0);
    cluster_transfer(&c, 1, 3);
    m.hint_high = 8;
    cluster_inject(&c, m);
    m.hint_high = 7;
    m.hint = RAFT_TRANSFER_LOST_TARGET + 1;
    cluster_inject(&c, m);
    m.hint = UINT64_MAX;
    cluster_inject(&c, m);
    m.hint = RAFT_TRANSFER_OK; /* no reason at all */
    cluster_inject(&c, m);
    cr_assert_eq(c.nodes[1].transfers.n, 0);
    m.hint = RAFT_TRANSFER_LOST_TARGET;
    cluster_inject(&c, m);
    expect_end(1, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_LOST_TARGET);
    cluster_inject(&c, m); /* its copy */
    cr_assert_eq(c.nodes[1].transfers.n, 1);
    cluster_deinit(&c);
}

/* A wish that reaches somebody else: who waits for it hears so at once. One that the leader may stay the leader needs no word. */
Test(raft_transfer, a_wish_is_answered_if_it_will_not_be)
{
    const struct nh_message *answer;
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_inject(&c, transfer_message(2, 3, 9));
    cluster_settle(&c);
    answer = cluster_sent(&c, NH_MSG_LEADER_TRANSFER, 2);
    cr_assert_not_null(answer);
    cr_assert(answer->reject);
    cr_assert_eq(answer->hint, RAFT_TRANSFER_NOT_LEADER);
    cr_assert_eq(answer->hint_high, 9);
    cluster_inject(&c, transfer_message(2, 1, 9));
    cluster_settle(&c);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_LEADER_TRANSFER, 2), 2, "it does not lead either");
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_forget_sent(&c);
    cluster_inject(&c, transfer_message(2, 1, 9));
    cluster_settle(&c);
    cr_assert_null(cluster_sent(&c, NH_MSG_LEADER_TRANSFER, 2));
    cr_assert_eq(cluster_status(&c, 1).transferee, 0);
    cluster_inject(&c, transfer_message(2, 6, 9));
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_LEADER_TRANSFER, 2)->hint, RAFT_TRANSFER_NO_VOTER);
    cluster_deinit(&c);
}

/* ---- forget leader ---- */

Test(raft_transfer, a_follower_that_forgets_its_leader_votes_at_once)
{
    struct raft_event forget = {.type = RAFT_EV_FORGET_LEADER};

    three();
    cluster_tick(&c, 1);
    cluster_step(&c, 2, &forget);
    cluster_step(&c, 3, &forget);
    cr_assert_eq(cluster_status(&c, 2).leader_id, NH_NO_LEADER);
    cr_assert_eq(cluster_status(&c, 2).term, 2, "the term stays");
    cluster_campaign(&c, 2);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_step(&c, 2, &forget);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_LEADER, "a leader does not forget itself");
    cluster_deinit(&c);
}

/* ---- priority ---- */

static void with_priorities(uint32_t first, uint32_t second, uint32_t third)
{
    uint32_t priorities[] = {first, second, third};
    struct raft_options o = cluster_options();

    cluster_init(&c, 3, &o);
    for (uint64_t id = 1; id <= 3; id++) {
        cluster_crash(&c, id);
        c.nodes[id].options.priority = priorities[id - 1];
        cluster_restart(&c, id);
    }
}

Test(raft_transfer, a_candidate_of_lower_priority_yields)
{
    with_priorities(0, 5, 5);
    cluster_campaign(&c, 1);
    cr_assert_neq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_tick(&c, 60);
    cr_assert(cluster_leader(&c) == 2 || cluster_leader(&c) == 3);
    cluster_deinit(&c);
}

Test(raft_transfer, a_longer_log_goes_before_priority)
{
    with_priorities(0, 5, 5);
    cluster_elect(&c, 2);
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 2, 1, 1);
    cluster_settle(&c);
    cluster_crash(&c, 2);
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 80);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_deinit(&c);
}

Test(raft_transfer, a_voter_that_cannot_lead_now_does_not_insist)
{
    with_priorities(0, 5, 5);
    cluster_crash(&c, 3);
    cluster_crash(&c, 2);
    c.nodes[2].options.priority = 0;
    cluster_restart(&c, 2);
    cluster_tick(&c, 60);
    cr_assert_neq(cluster_leader(&c), 0);
    cluster_deinit(&c);
}

/* A voter of higher priority with the same log refuses, already when it is only asked whether it would vote; one that may not
 * stand itself grants. */
Test(raft_transfer, only_who_can_lead_insists_on_its_priority)
{
    struct raft_options o = cluster_options();

    o.priority = 5;
    for (int can_lead = 0; can_lead < 2; can_lead++) {
        cluster_init_ghosts(&c, 1, 3, &o);
        cluster_crash(&c, 1);
        cluster_set_members(&c, 1, can_lead ? "vvv" : "nvv");
        cluster_restart(&c, 1);
        cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 2, 5, 1, 1));
        cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
        cluster_settle(&c);
        cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2)->reject, can_lead);
        cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject, can_lead);
        cluster_deinit(&c);
    }
}

/* As long, but of a newer last term: what is here may be overwritten, whatever its priority. */
Test(raft_transfer, a_newer_last_term_goes_before_priority)
{
    struct raft_options o = cluster_options();

    o.priority = 5;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 2, 5, 2, 1));
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 2, 1));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2)->reject);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject);
    cluster_deinit(&c);
}

/* A leader whom somebody wants to replace would not stand itself: it leads. */
Test(raft_transfer, a_leader_does_not_insist_on_its_priority)
{
    struct raft_options o = cluster_options();

    o.priority = 5;
    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 3, 3, 2, 2));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 3)->reject);
    cluster_deinit(&c);
}
