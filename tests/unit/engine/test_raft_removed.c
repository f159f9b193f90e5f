/* Who was removed or demoted, leader or not: goes when it is not needed any more, and learns of it (statements 51, 55). */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

/* Statement 51, when configured so. */
Test(raft_removed, a_removed_leader_may_be_told_to_lead_on)
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
Test(raft_removed, a_demoted_leader_does_not_count_itself)
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
Test(raft_removed, a_demoted_leader_was_not_removed)
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

/* A replica that was cut off while it was removed hears of it from whom it asks for a vote. */
Test(raft_removed, a_removed_replica_is_told)
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
Test(raft_removed, two_voters_survive_the_removal_of_their_leader)
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
Test(raft_removed, a_removed_leader_waits_until_the_survivor_would_remember)
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
Test(raft_removed, a_removed_leader_that_restarts_teaches_the_survivor)
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
Test(raft_removed, one_word_is_not_enough_to_go)
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

/* Statement 55: what a save holds is the commit index of when it began, not of when it ended. */
Test(raft_removed, a_removed_leader_does_not_take_a_saved_entry_for_a_saved_commit)
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

/* Found by the simulator (seed 89961): the save of the removal's commit was under way when the next change was appended; what was
 * not durable was taken for known, the removed replica went, the disk failed, and the one that stayed needed its vote. */
Test(raft_removed, the_next_change_does_not_make_a_commit_durable)
{
    cluster_start(&c, 2);
    c.nodes[1].hold_saves = true;
    cluster_propose_change(&c, 1, false, 2);
    cluster_settle(&c);
    cluster_save(&c, 1); /* the entry */
    cluster_settle(&c);  /* that it is committed waits to be saved */
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cluster_propose_change(&c, 1, true, 3);
    cluster_tick(&c, 30);
    cr_assert_geq(cluster_status(&c, 1).last_index, 4);
    cr_assert_not(c.nodes[2].removed);
    c.nodes[1].hold_saves = false;
    cluster_tick(&c, 30);
    cr_assert(c.nodes[2].removed);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 2217): without check-quorum and pre-vote a leader that was taken out by its successor led on in
 * its old term for ever, and its heartbeats kept the group awake. */
Test(raft_removed, a_leader_that_its_successor_removed_is_told)
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

/* Found by the simulator (seed 58854): of two voters one was removed; the other told it so, and forgot in a crash that the change
 * is committed: it wanted the vote of the one that had gone. It tells when it would remember. */
Test(raft_removed, who_would_forget_it_tells_nobody_that_it_was_removed)
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
