/* Joint configurations, witnesses, removed replicas (statements 45 to 56, 70, 73). */
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

/* Statement 51, when configured so. */
Test(raft_joint, a_removed_leader_may_be_told_to_lead_on)
{
    struct raft_options o = cluster_options();

    o.lead_when_removed = true;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    cluster_tick(&c, 5);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_propose(&c, 1, 1, 1);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cluster_read(&c, 1);
    cr_assert_eq(c.nodes[1].dropped.n, 2);
    cluster_deinit(&c);
}

/* Statement 51: nor does a leader that was demoted count itself, as long as it leads on. */
Test(raft_joint, a_demoted_leader_does_not_count_itself)
{
    struct raft_options o = cluster_options();
    struct nh_member_change demote[] = {cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 1)};
    uint64_t last;

    o.lead_when_removed = true;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose_changes(&c, 1, NH_TRANSITION_AUTO, demote, 1);
    cluster_settle(&c);
    cluster_isolate(&c, 2, true);
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 1, 1);
    last = cluster_status(&c, 1).last_index;
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].membership.members[0].kind, NH_MEMBER_NON_VOTING);
    cluster_isolate(&c, 2, false);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_peer(&c, 1, 2).match, last);
    cr_assert_lt(cluster_status(&c, 1).commit_index, last, "one of two voters");
    cluster_deinit(&c);
}

/* It gives way and stays a member: its host must not throw its files away. */
Test(raft_joint, a_demoted_leader_was_not_removed)
{
    struct nh_member_change demote[] = {cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 1)};

    cluster_start(&c, 3);
    cluster_propose_changes(&c, 1, NH_TRANSITION_AUTO, demote, 1);
    cluster_settle(&c);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert(!c.nodes[1].removed);
    cr_assert_neq(cluster_leader(&c), 0);
    cr_assert_eq(cluster_peer(&c, cluster_leader(&c), 1).kind, NH_MEMBER_NON_VOTING);
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

/* ---- who was removed ---- */

/* A replica that was cut off while it was removed hears of it from whom it asks for a vote. */
Test(raft_joint, a_removed_replica_is_told)
{
    cluster_start(&c, 3);
    cluster_isolate(&c, 3, true);
    cluster_propose_change(&c, 1, false, 3);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cluster_heal(&c);
    cr_assert(!c.nodes[3].removed);
    cluster_tick(&c, 40);
    cr_assert(c.nodes[3].removed);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert_eq(cluster_status(&c, 1).term, 2, "it disturbed nobody");
    cluster_deinit(&c);
}

/* A leader that was taken out is not told before a majority knows; statement 55 rests on it. */
Test(raft_joint, two_voters_survive_the_removal_of_their_leader)
{
    cluster_start(&c, 2);
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    cluster_tick(&c, 60);
    cr_assert(c.nodes[1].removed);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_deinit(&c);
}

/* Statement 55, with a crash: the survivor heard that the removal is committed, but a restart would not know. The leader stays
 * until the survivor's disk knows. */
Test(raft_joint, a_removed_leader_waits_until_the_survivor_would_remember)
{
    cluster_start(&c, 2);
    cluster_propose_change(&c, 1, false, 1);
    c.nodes[2].hold_saves = true;
    cluster_settle(&c);
    c.nodes[2].hold_saves = false;
    cluster_save(&c, 2); /* the entry */
    c.nodes[2].hold_saves = true;
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_geq(cluster_status(&c, 2).commit_index, 3, "it has heard");
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert(!c.nodes[1].removed);
    cluster_crash(&c, 2);
    c.nodes[2].hold_saves = false;
    cluster_restart(&c, 2);
    cluster_tick(&c, 60);
    cr_assert(c.nodes[1].removed);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_crash(&c, 1);
    cluster_crash(&c, 2);
    cluster_restart(&c, 2);
    cluster_tick(&c, 40);
    cr_assert_eq(cluster_leader(&c), 2, "alone, and it knows");
    cluster_deinit(&c);
}

static bool lose_commits(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->from == 1 && (m->type == NH_MSG_HEARTBEAT || (m->type == NH_MSG_REPLICATE && m->n_runs == 0));
}

/* Statement 55, when the old leader restarts before the survivor has heard: it stays, teaches, and goes then. */
Test(raft_joint, a_removed_leader_that_restarts_teaches_the_survivor)
{
    cluster_start(&c, 2);
    c.lose = lose_commits;
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 3);
    cr_assert_eq(cluster_status(&c, 2).commit_index, 2, "it has the entry and does not know");
    cluster_isolate(&c, 2, true);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    cluster_tick(&c, 100);
    cr_assert(!c.nodes[1].removed, "nobody else knows");
    cr_assert_neq(raft_next_deadline(c.nodes[1].core), RAFT_NEVER);
    cluster_heal(&c);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_leader(&c), 2);
    cr_assert(c.nodes[1].removed);
    cluster_deinit(&c);
}

/* Of four members one is removed, and only one of the others knows: a majority of those who stay may still count by the old
 * configuration and need the fourth. One word is not enough, unless it is that of a leader by the new configuration. */
Test(raft_joint, one_word_is_not_enough_to_go)
{
    struct nh_message m;

    cluster_init_ghosts(&c, 1, 4, NULL);
    m = cluster_message(NH_MSG_REMOVED, 2, 1, 2);
    cluster_inject(&c, m);
    cluster_inject(&c, m);
    cluster_tick(&c, 1000);
    cr_assert(!c.nodes[1].removed);
    m.from = 3;
    cluster_inject(&c, m);
    cr_assert(c.nodes[1].removed);
    cluster_deinit(&c);
    cluster_init_ghosts(&c, 1, 4, NULL);
    m.from = 2;
    m.hint = 1;
    cluster_inject(&c, m);
    cr_assert(c.nodes[1].removed);
    cluster_deinit(&c);
}

/* ---- witnesses ---- */

static void with_witness(void)
{
    cluster_init(&c, 3, NULL);
    for (uint64_t id = 1; id <= 3; id++) {
        cluster_crash(&c, id);
        cluster_set_members(&c, id, "vvw");
        cluster_restart(&c, id);
    }
    cluster_elect(&c, 1);
}

Test(raft_joint, a_witness_acknowledges_what_it_does_not_store)
{
    with_witness();
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cluster_join(&c, 4);
    cluster_tick(&c, 2);
    cluster_crash(&c, 2);
    cluster_propose(&c, 1, 3, 1000);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[3].machine, cluster_status(&c, 1).commit_index, "voter and witness are a majority");
    for (size_t i = 1; i < c.nodes[3].disk.n; i++) {
        const struct stored_entry *e = &c.nodes[3].disk.items[i];
        const uint8_t *record = e->block->data + e->block->offsets[e->at];
        struct nh_entry_view view;

        nh_record_view(record, &view);
        cr_assert(view.type == NH_ENTRY_CONFIG_CHANGE || (view.type == NH_ENTRY_METADATA && view.payload_bytes == 0));
    }
    cr_assert_eq(c.nodes[3].membership.n_members, 4, "but configuration changes whole");
    cluster_deinit(&c);
}

/* Found by the simulator (seed 2048): the only voter crashed with entries that the witness had saved and it had not, and could
 * not get the vote of the witness ever again. A witness gets what is durable at its leader. */
Test(raft_joint, a_witness_never_has_more_than_its_leader_has_saved)
{
    cluster_init(&c, 2, NULL);
    for (uint64_t id = 1; id <= 2; id++) {
        cluster_crash(&c, id);
        cluster_set_members(&c, id, "vw");
        cluster_restart(&c, id);
    }
    cluster_elect(&c, 1);
    c.nodes[1].hold_saves = true;
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 2).last_index, 2);
    cluster_crash(&c, 1);
    c.nodes[1].hold_saves = false;
    cluster_restart(&c, 1);
    cluster_tick(&c, 40);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 2).last_index, cluster_status(&c, 1).last_index);
    cluster_deinit(&c);
}

/* Fetched entries are stripped as well. */
Test(raft_joint, a_witness_that_lags_gets_stripped_entries_from_the_store)
{
    with_witness();
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 3, 2 << 20);
    cluster_settle(&c);
    cluster_tick(&c, 12);
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 5);
    cr_assert_eq(c.nodes[3].disk.n, c.nodes[1].disk.n);
    cr_assert_gt(c.nodes[1].n_fetches, 0);
    cr_assert_eq(nh_record_type(c.nodes[3].disk.items[3].block->data), NH_ENTRY_METADATA);
    cluster_deinit(&c);
}

/* A snapshot for a witness is one without an image. */
Test(raft_joint, a_witness_gets_a_snapshot_of_metadata)
{
    with_witness();
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 12);
    cr_assert_eq(c.nodes[3].base, c.nodes[1].base);
    cr_assert(c.nodes[3].snapshot.witness);
    cr_assert(!c.nodes[1].snapshot.witness);
    cluster_deinit(&c);
}

/* It votes for who has all, never stands, takes no proposal and gives no read (statement 73). */
Test(raft_joint, a_witness_votes_and_that_is_all)
{
    struct nh_message forwarded;

    with_witness();
    cluster_crash(&c, 1);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_FOLLOWER);
    cluster_tick(&c, 40);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_propose(&c, 3, 1, 1);
    cluster_read(&c, 3);
    cr_assert_eq(c.nodes[3].dropped.n, 2);
    cluster_transfer(&c, 2, 3);
    cr_assert_eq(c.nodes[2].transfers.items[0].reason, RAFT_TRANSFER_NO_VOTER);
    forwarded = cluster_message(NH_MSG_READ_INDEX, 3, 2, cluster_status(&c, 2).term);
    forwarded.hint = 99;
    cluster_inject(&c, forwarded);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[3].reads.n, 0, "nor if it asks the leader all the same");
    cr_assert_eq(c.nodes[3].dropped.n, 3);
    cluster_deinit(&c);
}

/* ---- overload ---- */

/* Too much that is unapplied: no more entries come, commits go on without the slow one, and it catches up afterwards. */
Test(raft_joint, an_overloaded_follower_gets_no_entries)
{
    cluster_start(&c, 3);
    c.nodes[3].options.max_unapplied_bytes = 3000;
    cluster_crash(&c, 3);
    cluster_restart(&c, 3);
    cluster_tick(&c, 2);
    c.nodes[3].hold_applies = true;
    for (int i = 0; i < 10; i++) {
        cluster_propose(&c, 1, 1, 1000);
        cluster_settle(&c);
    }
    cr_assert(cluster_status(&c, 3).overloaded);
    cr_assert(cluster_peer(&c, 1, 3).overloaded);
    cr_assert_lt(cluster_status(&c, 3).last_index, cluster_status(&c, 1).last_index);
    cr_assert_eq(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index);
    cluster_tick(&c, 15);
    cr_assert(cluster_peer(&c, 1, 3).overloaded, "the word is repeated");
    cr_assert_eq(cluster_leader(&c), 1, "it does not stand either: it hears heartbeats");
    c.nodes[3].hold_applies = false;
    cluster_tick(&c, 15);
    cr_assert(!cluster_status(&c, 3).overloaded);
    cr_assert(cluster_agrees(&c));
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

/* Statement 55: what a save holds is the commit index of when it began, not of when it ended. */
Test(raft_joint, a_removed_leader_does_not_take_a_saved_entry_for_a_saved_commit)
{
    cluster_start(&c, 3);
    c.nodes[2].hold_saves = true;
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c); /* committed by 1 and 3 */
    cluster_tick(&c, 2);
    cluster_save(&c, 2); /* the entry, from before it was committed */
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cr_assert_geq(cluster_status(&c, 2).commit_index, 3);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    c.nodes[2].hold_saves = false;
    cluster_tick(&c, 5);
    cr_assert(c.nodes[1].removed);
    cluster_deinit(&c);
}

/* Its «go on» may be lost, so the word lapses after E. */
Test(raft_joint, the_word_of_an_overloaded_follower_lapses)
{
    struct nh_message m = cluster_message(NH_MSG_RATE_LIMIT, 3, 1, 2);

    cluster_start(&c, 3);
    m.hint = 1;
    cluster_inject(&c, m);
    cr_assert(cluster_peer(&c, 1, 3).overloaded);
    cluster_propose(&c, 1, 1, 10);
    cluster_tick(&c, 9);
    cr_assert(cluster_peer(&c, 1, 3).overloaded);
    cluster_tick(&c, 1);
    cr_assert(!cluster_peer(&c, 1, 3).overloaded);
    cluster_tick(&c, 1);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Found by the simulator (seed 2217): without check-quorum and pre-vote a leader that was taken out by its successor led on in
 * its old term for ever, and its heartbeats kept the group awake. */
Test(raft_joint, a_leader_that_its_successor_removed_is_told)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 1, true);
    cluster_elect(&c, 2);
    cluster_propose_change(&c, 2, false, 1);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_heal(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert(c.nodes[1].removed);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 20282): a witness that a joint change removes is one until the end. It was sent whole entries, and
 * its machine got those after the ones that it had never seen. */
Test(raft_joint, a_leaving_witness_is_a_witness_still)
{
    struct nh_member_change changes[] = {cluster_change(NH_CONFIG_REMOVE_MEMBER, 0, 3),
                                         cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 4)};
    const struct stored_entry *e;

    with_witness();
    cluster_propose_changes(&c, 1, NH_TRANSITION_EXPLICIT, changes, 2);
    cluster_settle(&c);
    cluster_propose(&c, 1, 1, 100);
    cluster_settle(&c);
    cr_assert(c.nodes[3].membership.joint);
    cr_assert_eq(cluster_peer(&c, 1, 3).kind, NH_MEMBER_LEAVING_WITNESS);
    e = &c.nodes[3].disk.items[c.nodes[3].disk.n - 1];
    cr_assert_eq(nh_record_type(e->block->data + e->block->offsets[e->at]), NH_ENTRY_METADATA);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_FOLLOWER);
    cluster_read(&c, 3);
    cr_assert_eq(c.nodes[3].dropped.n, 1);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 21045): both followers were overloaded by entries that could not be committed without them. What
 * is not committed does not count. */
Test(raft_joint, uncommitted_entries_overload_nobody)
{
    cluster_start(&c, 3);
    for (uint64_t id = 2; id <= 3; id++) {
        cluster_crash(&c, id);
        c.nodes[id].options.max_unapplied_bytes = 2000;
        cluster_restart(&c, id);
    }
    cluster_tick(&c, 2);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = true;
    for (int i = 0; i < 5; i++) {
        cluster_propose(&c, 1, 1, 1000);
        cluster_settle(&c);
    }
    cr_assert(!cluster_status(&c, 2).overloaded && !cluster_status(&c, 3).overloaded);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = false;
    cluster_settle(&c);
    cluster_tick(&c, 5);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Found by the simulator (seed 3684): the removal of a leader was committed by itself and a witness. Nobody who stayed had the
 * payloads, and nobody could win the vote of the witness. With witnesses a change needs a majority of those who store payloads.
 */
Test(raft_joint, a_witness_does_not_help_to_commit_a_change)
{
    uint64_t change_index;

    with_witness();
    cluster_isolate(&c, 2, true);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index, "it helps with everything else");
    cluster_propose_change(&c, 1, false, 1);
    change_index = cluster_status(&c, 1).last_index;
    cluster_settle(&c);
    cluster_tick(&c, 100);
    cr_assert_lt(cluster_status(&c, 1).commit_index, change_index);
    cluster_heal(&c);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_leader(&c), 2);
    cr_assert(c.nodes[1].removed);
    cr_assert_geq(c.nodes[2].machine, change_index);
    cluster_deinit(&c);
}

/* Whatever fed it: its leader would not have. */
Test(raft_joint, a_witness_that_has_a_change_does_not_help_to_commit_it)
{
    struct raft_options o = cluster_options();
    struct nh_message m;

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_crash(&c, 1);
    cluster_set_members(&c, 1, "vvw");
    cluster_restart(&c, 1);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, cluster_status(&c, 1).term));
    cluster_settle(&c);
    for (uint64_t last = 2; last <= 3; last++) { /* the empty entry, the change */
        cr_assert_eq(cluster_status(&c, 1).last_index, last);
        m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, cluster_status(&c, 1).term);
        m.log_index = last;
        cluster_inject(&c, m);
        cluster_settle(&c);
        cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
        if (last == 2)
            cluster_propose_change(&c, 1, true, 4);
        cluster_settle(&c);
    }
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, cluster_status(&c, 1).term);
    m.log_index = 3;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 58854): of two voters one was removed; the other told it so, and forgot in a crash that the change
 * is committed: it wanted the vote of the one that had gone. It tells when it would remember. */
Test(raft_joint, who_would_forget_it_tells_nobody_that_it_was_removed)
{
    cluster_start(&c, 2);
    cluster_propose_change(&c, 1, false, 2);
    while (cluster_status(&c, 1).commit_index < 3) {
        if (c.network.n > 0)
            cluster_deliver(&c, 0);
        for (uint64_t id = 1; id <= 2; id++)
            if (c.nodes[id].saves.n > 0 && cluster_status(&c, 1).commit_index < 3)
                cluster_save(&c, id);
    }
    c.nodes[1].hold_saves = true; /* the commit index */
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].membership.n_members, 1);
    cluster_tick(&c, 60);
    cr_assert(!c.nodes[2].removed);
    cluster_crash(&c, 1);
    c.nodes[1].hold_saves = false;
    cluster_restart(&c, 1);
    cluster_tick(&c, 100);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert(c.nodes[2].removed);
    cluster_crash(&c, 2);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    cluster_tick(&c, 40);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 3132): a leader was removed; what it had taken after its removal had reached the witness, but not
 * the other voter, who could not win the vote of the witness any more. */
Test(raft_joint, a_leader_that_is_being_removed_does_not_feed_the_witness_ahead_of_the_voters)
{
    with_witness();
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    cr_assert(cluster_status(&c, 1).pending_config);
    cluster_isolate(&c, 2, true);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).last_index, 3);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).last_index, 3);
    cluster_crash(&c, 1);
    cluster_heal(&c);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_deinit(&c);
}
