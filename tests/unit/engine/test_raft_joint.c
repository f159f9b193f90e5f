/* Joint configurations: both halves decide, and they are left (statements 21, 45 to 50, 54, 70). */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

#include "raftio/codec.h"

static struct cluster c;

/* {1,2,3} -> {3,4,5} */
static void replace_two(enum nh_config_transition transition)
{
    struct nh_member_change changes[] = {cluster_change(NH_CONFIG_REMOVE_MEMBER, 0, 1),
                                         cluster_change(NH_CONFIG_REMOVE_MEMBER, 0, 2),
                                         cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, 4),
                                         cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, 5)};

    cluster_start(&c, 3);
    cluster_join(&c, 4);
    cluster_join(&c, 5);
    cluster_propose_changes(&c, 1, transition, changes, 4);
}

/* Of {1,2,3} and {3,4,5} both, until the test wants to leave. */
static void enter_and_stay(void)
{
    replace_two(NH_TRANSITION_EXPLICIT);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert(cluster_status(&c, 1).joint);
}

/* Statement 49: entered, left by itself, the removed leader gives way and knows that it is out; so does the follower. */
Test(raft_joint, several_changes_at_once_leave_by_themselves)
{
    replace_two(NH_TRANSITION_AUTO);
    cluster_settle(&c);
    cluster_tick(&c, 60);
    cr_assert(!c.nodes[3].membership.joint);
    cr_assert_eq(c.nodes[3].membership.n_members, 3);
    cr_assert(c.nodes[1].removed && c.nodes[2].removed);
    cr_assert_geq(cluster_leader(&c), 3);
    cluster_crash(&c, 1);
    cluster_crash(&c, 2);
    cluster_tick(&c, 60);
    cluster_propose(&c, cluster_leader(&c), 3, 10);
    cluster_settle(&c);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statement 47: in a joint configuration neither half decides alone. */
Test(raft_joint, commits_need_both_halves)
{
    uint64_t committed;

    enter_and_stay();
    for (int half = 0; half < 2; half++) {
        cluster_isolate(&c, half ? 2 : 4, true);
        cluster_isolate(&c, half ? 3 : 5, true);
        committed = cluster_status(&c, 1).commit_index;
        cluster_propose(&c, 1, 1, 1);
        cluster_settle(&c);
        cr_assert_eq(cluster_status(&c, 1).commit_index, committed, "half %d alone has committed", half);
        cluster_heal(&c);
        cluster_tick(&c, 3);
        cr_assert_gt(cluster_status(&c, 1).commit_index, committed);
    }
    cluster_deinit(&c);
}

Test(raft_joint, elections_and_reads_need_both_halves)
{
    enter_and_stay();
    /* Of the outgoing {1,2,3} only 3 is left: the incoming half {3,4,5} alone elects nobody. */
    cluster_crash(&c, 1);
    cluster_crash(&c, 2);
    cluster_tick(&c, 80);
    cr_assert_eq(cluster_leader(&c), 0);
    cluster_restart(&c, 2);
    cluster_tick(&c, 80);
    cr_assert_neq(cluster_leader(&c), 0);
    /* A leader that hears from one half only steps down, and its reads end. */
    cluster_isolate(&c, cluster_leader(&c) == 4 ? 5 : 4, true);
    cluster_read(&c, cluster_leader(&c));
    cluster_tick(&c, 30);
    cluster_deinit(&c);
}

/* Statement 70: a read is confirmed by both halves, or not at all. */
Test(raft_joint, reads_need_both_halves)
{
    enter_and_stay();
    for (int half = 0; half < 2; half++) {
        cluster_isolate(&c, half ? 2 : 4, true);
        cluster_isolate(&c, half ? 3 : 5, true);
        cluster_read(&c, 1);
        cluster_settle(&c);
        cr_assert_eq(c.nodes[1].reads.n, half, "half %d alone has confirmed", half);
        cluster_heal(&c);
        cluster_tick(&c, 3);
        cr_assert_eq(c.nodes[1].reads.n, half + 1);
    }
    cluster_deinit(&c);
}

/* Statements 21 and 47: check-quorum asks both halves. */
Test(raft_joint, a_leader_without_either_half_steps_down)
{
    for (int half = 0; half < 2; half++) {
        enter_and_stay();
        cluster_isolate(&c, half ? 2 : 4, true);
        cluster_isolate(&c, half ? 3 : 5, true);
        cluster_tick(&c, 25);
        cr_assert_neq(cluster_status(&c, 1).role, RAFT_LEADER, "half %d alone keeps its leader", half);
        cluster_deinit(&c);
    }
}

/* Statement 54: a crash inside a joint configuration comes back joint; statement 49: a new leader leaves it too. */
Test(raft_joint, survives_crashes_and_a_new_leader_leaves_it)
{
    replace_two(NH_TRANSITION_IMPLICIT);
    c.nodes[1].hold_applies = true;
    cluster_settle(&c);
    cluster_tick(&c, 2);
    for (uint64_t id = 2; id <= 5; id++) {
        cluster_crash(&c, id);
        cluster_restart(&c, id);
    }
    cluster_crash(&c, 1);
    cluster_tick(&c, 200);
    cr_assert_neq(cluster_leader(&c), 0);
    cr_assert(!c.nodes[3].membership.joint);
    cr_assert_eq(c.nodes[3].membership.n_members, 3);
    cluster_deinit(&c);
}

/* The leader enters while it gives the leadership to 3, who hears nothing of it. */
static void enter_during_a_transfer(void)
{
    replace_two(NH_TRANSITION_IMPLICIT);
    c.nodes[1].hold_applies = true;
    cluster_settle(&c);
    cluster_isolate(&c, 3, true);
    cluster_transfer(&c, 1, 3);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).transferee, 3);
    cr_assert(cluster_status(&c, 1).joint);
}

/* Statement 49: a transfer stands in the way of leaving; afterwards it is done. */
Test(raft_joint, is_left_after_a_transfer_stood_in_the_way)
{
    enter_during_a_transfer();
    cluster_heal(&c);
    cluster_tick(&c, 150);
    cr_assert(!c.nodes[3].membership.joint);
    cluster_deinit(&c);
}

/* Statement 49: so is one that is given up. */
Test(raft_joint, is_left_after_a_transfer_that_came_to_nothing)
{
    enter_during_a_transfer();
    cluster_tick(&c, 12);
    cr_assert(!c.nodes[2].membership.joint);
    cluster_deinit(&c);
}

/* Statement 49: the leaving entry is proposed once, however long it takes to apply it. */
Test(raft_joint, is_left_once)
{
    uint64_t last;

    replace_two(NH_TRANSITION_IMPLICIT);
    c.nodes[1].hold_applies = true;
    cluster_settle(&c);
    while (!cluster_status(&c, 1).joint && c.nodes[1].applies.n > 0)
        cluster_apply(&c, 1);
    last = cluster_status(&c, 1).last_index;
    cluster_settle(&c);
    cluster_tick(&c, 5);
    cr_assert_gt(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).applied_index);
    cr_assert_eq(cluster_status(&c, 1).last_index, last);
    cluster_deinit(&c);
}

/* Statement 47: the leaving entry, too, is committed by both halves: it counts when it is applied. */
Test(raft_joint, leaving_needs_both_halves)
{
    replace_two(NH_TRANSITION_IMPLICIT);
    c.nodes[1].hold_applies = true;
    cluster_settle(&c);
    cluster_isolate(&c, 2, true);
    cluster_isolate(&c, 3, true);
    c.nodes[1].hold_applies = false;
    cluster_tick(&c, 5);
    cr_assert(cluster_status(&c, 1).pending_config, "it was proposed");
    cr_assert(c.nodes[1].membership.joint);
    cluster_heal(&c);
    cluster_tick(&c, 60);
    cr_assert(!c.nodes[3].membership.joint);
    cluster_deinit(&c);
}

/* Statement 48. */
Test(raft_joint, leaving_needs_a_joint_configuration_and_nothing_else_fits_one)
{
    struct nh_member_change one[] = {cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 6)};

    cluster_start(&c, 3);
    cluster_propose_leave(&c, 1);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].membership.config_change_id, 0, "rejected where it is applied");
    cluster_propose_changes(&c, 1, NH_TRANSITION_EXPLICIT, one, 1);
    cluster_settle(&c);
    cr_assert(c.nodes[1].membership.joint);
    cluster_propose_change(&c, 1, true, 5);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].membership.n_members, 4);
    cluster_propose_leave(&c, 1);
    cluster_settle(&c);
    cr_assert(!c.nodes[1].membership.joint);
    cluster_deinit(&c);
}

/* What the core writes for leaving is what the codec reads. */
Test(raft_joint, the_leaving_entry_is_a_configuration_change)
{
    struct nh_config_change leaving = {.type = NH_CONFIG_LEAVE_JOINT};
    uint8_t bytes[16];

    cr_assert_eq(config_change_encode(&leaving, bytes, sizeof bytes), 2);
    cr_assert_eq(bytes[0], 2 << 3);
    cr_assert_eq(bytes[1], NH_CONFIG_LEAVE_JOINT);
}

/* Statement 50: a demoted voter votes in the outgoing half, and is fed afterwards. */
Test(raft_joint, a_demoted_voter_stays_a_voter_until_the_end)
{
    struct nh_member_change changes[] = {cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 3),
                                         cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, 4)};

    cluster_start(&c, 3);
    cluster_join(&c, 4);
    cluster_propose_changes(&c, 1, NH_TRANSITION_EXPLICIT, changes, 2);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cr_assert(cluster_peer(&c, 1, 3).outgoing);
    cluster_isolate(&c, 3, true);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_PRE_CANDIDATE, "it may stand");
    cluster_heal(&c);
    cluster_tick(&c, 25);
    cluster_propose_leave(&c, 1);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_FOLLOWER, "it may not any more");
    cr_assert_eq(cluster_peer(&c, 1, 3).kind, NH_MEMBER_NON_VOTING);
    cluster_propose(&c, 1, 2, 2);
    cluster_settle(&c);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statement 45, when nobody orders changes for the caller. */
Test(raft_joint, unchecked_changes_are_not_held_back)
{
    struct raft_options o = cluster_options();

    o.unchecked_config = true;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, true, 4);
    cluster_propose_change(&c, 1, true, 5);
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    cluster_deinit(&c);
}
