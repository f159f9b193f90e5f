/* What need not be said at once: news of saves and of the machine to the core, the commit index to the peers, heartbeats beside
 * entries. test_raft_random.c has replicas that do all of this on a bad network. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static struct raft_options lazy_options(void)
{
    struct raft_options o = cluster_options();

    o.lazy_commit = o.lazy_heartbeat = true;
    return o;
}

static void three_with(const struct raft_options *o)
{
    cluster_init(&c, 3, o);
    cluster_tick(&c, 12); /* with leases who has just started is bound for E ticks */
    cluster_elect(&c, 1);
    cluster_tick(&c, 3);
    memset(c.delivered, 0, sizeof c.delivered);
}

static void three(void)
{
    struct raft_options o = lazy_options();

    three_with(&o);
}

static uint64_t commit_of(uint64_t id)
{
    return cluster_status(&c, id).commit_index;
}

static bool awaits_saved(uint64_t id)
{
    return raft_awaits_saved(c.nodes[id].core);
}

static bool awaits_applied(uint64_t id)
{
    return raft_awaits_applied(c.nodes[id].core);
}

/* Entries to disks that stand still are answered by nobody, and heartbeats would be: they are not put off then. */
Test(raft_lazy, slow_disks_of_followers_do_not_unseat_a_leader)
{
    three();
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = true;
    for (uint32_t i = 0; i < 40; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_tick(&c, 1);
    }
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_deinit(&c);
}

/* ---- the commit index ---- */

Test(raft_lazy, a_commit_index_travels_with_the_next_entries)
{
    three();
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(c.delivered[NH_MSG_REPLICATE], 2);
    cr_assert_eq(commit_of(1), cluster_status(&c, 1).last_index);
    cr_assert_lt(commit_of(2), commit_of(1));
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(c.delivered[NH_MSG_REPLICATE], 4);
    cr_assert_eq(commit_of(2), commit_of(1) - 1);
    cluster_deinit(&c);
}

Test(raft_lazy, or_with_the_next_heartbeat)
{
    three();
    cluster_propose(&c, 1, 1, 10);
    cluster_tick(&c, 3);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_eq(commit_of(3), commit_of(1));
    cr_assert_eq(c.delivered[NH_MSG_REPLICATE], 2);
    cluster_tick(&c, 1);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

Test(raft_lazy, who_forwarded_an_entry_is_told_at_once)
{
    three();
    cluster_propose(&c, 2, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_lt(commit_of(3), commit_of(1));
    cluster_propose(&c, 1, 1, 10); /* its next entry is another's */
    cluster_settle(&c);
    cr_assert_lt(commit_of(2), commit_of(1));
    cluster_deinit(&c);
}

Test(raft_lazy, who_reads_is_told_at_once)
{
    struct raft_options o = lazy_options();

    o.lease_reads = true;
    three_with(&o);
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_lt(commit_of(2), commit_of(1));
    c.delivered[NH_MSG_HEARTBEAT] = 0;
    cluster_read(&c, 2);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[2].reads.n, 1);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 0, "it was the lease that answered");
    cr_assert_lt(commit_of(3), commit_of(1));
    cluster_deinit(&c);
}

Test(raft_lazy, a_configuration_change_is_told_to_all_at_once)
{
    three();
    cluster_propose_change(&c, 1, false, 3);
    cluster_settle(&c);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_eq(c.nodes[2].membership.n_members, 2);
    cr_assert_eq(c.nodes[3].membership.n_members, 2);
    cluster_deinit(&c);
}

/* Clients of others may wait for what the leader before has taken. */
Test(raft_lazy, the_first_commit_of_a_term_is_told_at_once)
{
    three();
    cluster_transfer(&c, 1, 2);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_LEADER);
    for (uint64_t id = 1; id <= 3; id++)
        cr_assert_eq(commit_of(id), cluster_status(&c, 2).last_index);
    cluster_deinit(&c);
}

/* ---- heartbeats ---- */

Test(raft_lazy, entries_for_all_stand_for_a_heartbeat)
{
    three();
    for (int i = 0; i < 40; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_tick(&c, 1);
    }
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 0);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert_eq(cluster_status(&c, 1).term, cluster_status(&c, 3).term);
    cluster_tick(&c, 1);
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 0, "that may be little more than one interval");
    cluster_tick(&c, 1);
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 2, "two intervals after the last entries");
    cluster_deinit(&c);
}

Test(raft_lazy, heartbeats_go_on_while_one_gets_no_entries)
{
    three();
    cluster_isolate(&c, 3, true);
    c.report_lost = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_tick(&c, 3); /* from now on it is probed, not streamed to */
    c.delivered[NH_MSG_HEARTBEAT] = 0;
    for (int i = 0; i < 5; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_tick(&c, 1);
    }
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 5);
    cluster_deinit(&c);
}

Test(raft_lazy, leases_are_counted_from_heartbeats)
{
    struct raft_options o = lazy_options();

    o.lease_reads = true;
    three_with(&o);
    for (int i = 0; i < 20; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_tick(&c, 1);
        cr_assert(cluster_status(&c, 1).lease_held);
    }
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 40);
    cluster_deinit(&c);
}

static bool is_heartbeat(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->type == NH_MSG_HEARTBEAT;
}

/* Only heartbeats carry the round of a read; the first one is lost. */
Test(raft_lazy, a_read_that_waits_keeps_heartbeats_coming)
{
    three();
    c.lose = is_heartbeat;
    cluster_read(&c, 1);
    cluster_settle(&c);
    c.lose = NULL;
    for (int i = 0; i < 2; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_tick(&c, 1);
    }
    cr_assert_eq(c.nodes[1].reads.n, 1);
    cluster_deinit(&c);
}

/* ---- SAVED and APPLIED ---- */

Test(raft_lazy, a_follower_awaits_no_save_that_commits_nothing)
{
    three();
    c.nodes[2].hold_saves = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_gt(c.nodes[2].saves.n, 0);
    cr_assert(!awaits_saved(2));
    cluster_tick(&c, 3); /* the others have committed it: it could be applied if it were saved */
    cr_assert(awaits_saved(2));
    cluster_deinit(&c);
}

Test(raft_lazy, a_leader_awaits_its_save_when_it_makes_a_majority)
{
    three();
    c.nodes[1].hold_saves = true;
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert(!awaits_saved(1), "nobody else has it");
    c.nodes[2].hold_saves = false;
    cluster_settle(&c);
    cr_assert(awaits_saved(1));
    cr_assert_lt(commit_of(1), cluster_status(&c, 1).last_index);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(commit_of(1), cluster_status(&c, 1).last_index);
    cluster_deinit(&c);
}

Test(raft_lazy, one_that_leads_alone_awaits_each_save)
{
    struct raft_options o = lazy_options();

    cluster_init(&c, 1, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_saves = true;
    cr_assert(!awaits_saved(1));
    cluster_propose(&c, 1, 1, 10);
    cr_assert(awaits_saved(1));
    cluster_deinit(&c);
}

Test(raft_lazy, a_candidate_awaits_its_vote)
{
    struct raft_options o = lazy_options();

    o.pre_vote = o.check_quorum = false;
    three_with(&o);
    c.nodes[2].hold_saves = true;
    cluster_campaign(&c, 2);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_CANDIDATE);
    cr_assert(awaits_saved(2));
    cluster_deinit(&c);
}

Test(raft_lazy, nobody_awaits_the_machine_in_the_ordinary_case)
{
    three();
    c.nodes[1].hold_applies = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_lt(cluster_status(&c, 1).applied_index, cluster_status(&c, 1).handed_index);
    cr_assert(!awaits_applied(1));
    cluster_deinit(&c);
}

Test(raft_lazy, entries_that_wait_for_room_await_the_machine)
{
    struct raft_options o = lazy_options();

    o.max_apply_bytes = 100;
    three_with(&o);
    c.nodes[1].hold_applies = true;
    cluster_propose(&c, 1, 5, 60);
    cluster_settle(&c);
    cr_assert_lt(cluster_status(&c, 1).handed_index, commit_of(1));
    cr_assert(awaits_applied(1));
    cluster_deinit(&c);
}

Test(raft_lazy, a_change_awaits_the_machine)
{
    three();
    c.nodes[2].hold_applies = true;
    cluster_propose_change(&c, 1, false, 3);
    cluster_settle(&c);
    cr_assert(cluster_status(&c, 2).pending_config);
    cr_assert(awaits_applied(2));
    cluster_deinit(&c);
}

/* Nothing would come that brings the news along. */
Test(raft_lazy, a_quiet_replica_awaits_the_machine)
{
    struct raft_options o = lazy_options();

    o.quiesce = true;
    o.quiesce_ticks = 40;
    three_with(&o);
    c.nodes[2].hold_applies = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_tick(&c, 60);
    cr_assert(cluster_status(&c, 2).quiesced);
    cr_assert(awaits_applied(2));
    cluster_deinit(&c);
}

Test(raft_lazy, an_overloaded_replica_awaits_the_machine)
{
    three();
    c.nodes[3].options.max_unapplied_bytes = 500;
    cluster_crash(&c, 3);
    cluster_restart(&c, 3);
    cluster_tick(&c, 2);
    c.nodes[3].hold_applies = true;
    for (int i = 0; i < 2; i++) {
        cluster_propose(&c, 1, 1, 1000);
        cluster_tick(&c, 2);
    }
    cr_assert(cluster_status(&c, 3).overloaded);
    cr_assert(awaits_applied(3));
    cluster_deinit(&c);
}

/* ---- answers ---- */

static bool may_wait(uint64_t from, uint64_t index)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, from, 1, cluster_status(&c, 1).term);
    struct raft_patience patience;

    m.log_index = index;
    raft_get_patience(c.nodes[1].core, &patience);
    return raft_may_wait(&patience, &m);
}

Test(raft_lazy, an_answer_may_wait_once_a_majority_has_answered)
{
    struct raft_patience patience;

    three();
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert(may_wait(3, commit_of(1)));
    cr_assert(!may_wait(3, commit_of(1) + 1), "it makes a majority");
    c.nodes[2].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(commit_of(1), cluster_status(&c, 1).last_index);
    cr_assert(may_wait(3, commit_of(1)));
    raft_get_patience(c.nodes[2].core, &patience);
    cr_assert_eq(patience.below, 0, "a follower has none");
    cluster_deinit(&c);
}

Test(raft_lazy, the_answer_of_who_is_not_streamed_to_is_awaited)
{
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE, .peer = 3};

    three();
    cr_assert(may_wait(3, commit_of(1)));
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert(!may_wait(3, commit_of(1)));
    cluster_deinit(&c);
}

Test(raft_lazy, an_answer_that_makes_room_is_awaited)
{
    struct raft_options o = lazy_options();

    o.max_inflight_messages = 1;
    three_with(&o);
    c.nodes[3].hold_saves = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert(may_wait(3, commit_of(1)));
    cluster_propose(&c, 1, 1, 10); /* it will be sent when the one before is accepted, which is committed already */
    cluster_settle(&c);
    cr_assert_lt(cluster_peer(&c, 1, 3).next, cluster_status(&c, 1).last_index + 1);
    cr_assert(!may_wait(3, commit_of(1)));
    cluster_deinit(&c);
}

Test(raft_lazy, a_transfer_awaits_the_answer_of_its_target)
{
    three();
    c.nodes[3].hold_saves = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cluster_transfer(&c, 1, 3);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).transferee, 3);
    cr_assert(!may_wait(3, commit_of(1)));
    c.nodes[3].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 3);
    cluster_deinit(&c);
}

Test(raft_lazy, a_change_awaits_all_answers)
{
    three();
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, false, 3);
    cluster_settle(&c);
    cr_assert_eq(commit_of(1), cluster_status(&c, 1).last_index);
    cr_assert(!may_wait(2, commit_of(1)));
    cluster_deinit(&c);
}

Test(raft_lazy, a_quiet_leader_awaits_what_wakes_it)
{
    struct raft_options o = lazy_options();

    o.quiesce = true;
    o.quiesce_ticks = 40;
    three_with(&o);
    cluster_tick(&c, 60);
    cr_assert(cluster_status(&c, 1).quiesced);
    cr_assert(!may_wait(3, commit_of(1)));
    cluster_deinit(&c);
}
