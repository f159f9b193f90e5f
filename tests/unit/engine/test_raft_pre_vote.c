/* Pre-vote, check-quorum and leader stickiness: who returns from a bad network must not disturb, nor be locked out. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static void with_ghosts(bool pre_vote, bool check_quorum)
{
    struct raft_options o = cluster_options();

    o.pre_vote = pre_vote;
    o.check_quorum = check_quorum;
    cluster_init_ghosts(&c, 1, 3, &o);
}

/* Replica 1 becomes the leader of term 2 by the votes of ghost 2. */
static void lead_over_ghosts(void)
{
    struct nh_message m;

    cluster_campaign(&c, 1);
    if (c.nodes[1].options.pre_vote) {
        m = cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 2);
        cluster_inject(&c, m);
        cluster_settle(&c);
    }
    m = cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
}

/* Statement 13: a pre-vote request moves neither term nor vote nor timer, and several may be granted. */
Test(raft_pre_vote, a_pre_vote_changes_nothing_at_the_voter)
{
    struct raft_status before, after;
    uint64_t deadline;

    with_ghosts(true, true);
    before = cluster_status(&c, 1);
    deadline = raft_next_deadline(c.nodes[1].core);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 2, 7, 1, 1));
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 3, 7, 1, 1));
    cluster_settle(&c);
    after = cluster_status(&c, 1);
    cr_assert_eq(after.term, before.term);
    cr_assert_eq(after.vote, before.vote);
    cr_assert_eq(raft_next_deadline(c.nodes[1].core), deadline);
    for (uint64_t id = 2; id <= 3; id++) {
        cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, id)->reject);
        /* Statement 14: the grant carries the term that was asked for. */
        cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, id)->term, 7);
    }
    cr_assert_eq(c.nodes[1].n_saves, 0);
    cluster_deinit(&c);
}

/* Statement 15: a pre-vote request of an older term is refused with the newer term, not ignored. */
Test(raft_pre_vote, an_old_pre_vote_is_answered_with_the_newer_term)
{
    with_ghosts(true, true);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 9, 0, 0)); /* refused, but the term is 9 now */
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 2, 4, 8, 8));
    cluster_settle(&c);
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2)->reject);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2)->term, 9);
    cluster_deinit(&c);
}

Test(raft_pre_vote, a_pre_candidate_learns_a_newer_term_from_a_refusal)
{
    struct nh_message m;

    with_ghosts(true, true);
    cluster_campaign(&c, 1);
    m = cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 9);
    m.reject = true;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert_eq(cluster_status(&c, 1).term, 9);
    cluster_deinit(&c);
}

/* Statement 16: given a candidate in the real election, then late pre-votes do not count as votes. */
Test(raft_pre_vote, late_pre_votes_are_no_votes)
{
    with_ghosts(true, true);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 2));
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 3, 1, 3));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_deinit(&c);
}

Test(raft_pre_vote, pre_votes_of_another_round_do_not_count)
{
    with_ghosts(true, true);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 5));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_PRE_CANDIDATE);
    cluster_deinit(&c);
}

/* Statement 17: a pre-candidate forgets its leader, so two of them elect one although each heard from it lately. */
Test(raft_pre_vote, two_survivors_elect_at_once)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_tick(&c, 1);
    cluster_crash(&c, 1);
    cluster_campaign(&c, 3); /* 2 is sticky still */
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_PRE_CANDIDATE);
    cluster_campaign(&c, 2);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_LEADER);
    cluster_deinit(&c);
}

/* Statement 18: a request that is marked as a transfer passes where stickiness would stop it. */
Test(raft_pre_vote, a_marked_request_passes_stickiness)
{
    struct nh_message m;

    with_ghosts(true, true);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    m = cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 6, 1, 1);
    m.hint = 1;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cluster_deinit(&c);
}

/* Statement 19: "I have a leader" is no ground to refuse that very leader; and a granted pre-vote is no sign of a leader. */
Test(raft_pre_vote, the_known_leader_itself_may_ask)
{
    with_ghosts(true, true);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 2, 6, 1, 1));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2)->reject);
    c.now += 9;
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 2, 6, 1, 1));
    c.now += 1; /* E after the heartbeat */
    cluster_forget_sent(&c);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 3, 6, 1, 1));
    cluster_settle(&c);
    cr_assert_not_null(cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 3));
    cluster_deinit(&c);
}

/* Statement 20: within E of hearing a leader, requests of a higher term are ignored with their term; after E they count. */
Test(raft_pre_vote, who_heard_a_leader_lately_ignores_candidates)
{
    with_ghosts(true, true);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_settle(&c);
    cluster_forget_sent(&c);
    c.now += 9; /* E - 1 */
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 6, 1, 1));
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 3, 6, 1, 1));
    cluster_settle(&c);
    cr_assert_eq(c.ghosts.n, 0);
    cr_assert_eq(cluster_status(&c, 1).term, 5);
    c.now += 1; /* E */
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 6, 1, 1));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cluster_deinit(&c);
}

Test(raft_pre_vote, a_leader_ignores_candidates_under_check_quorum)
{
    with_ghosts(true, true);
    lead_over_ghosts();
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 9, 9, 9));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert_eq(cluster_status(&c, 1).term, 2);
    cluster_deinit(&c);
}

/* Statement 21: without a majority of voters heard for E, the leader steps down in its own term and knows no leader. */
Test(raft_pre_vote, a_leader_without_a_quorum_steps_down)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 1, true);
    cluster_tick(&c, 20); /* the window that began before the cut, and one whole window */
    cr_assert_eq(cluster_status(&c, 1).role != RAFT_LEADER, true);
    cr_assert_eq(cluster_status(&c, 1).term, 2);
    cr_assert_eq(cluster_status(&c, 1).leader_id, 0);
    cluster_deinit(&c);
}

Test(raft_pre_vote, one_answering_follower_of_two_keeps_the_leader)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 3, true);
    cluster_tick(&c, 100);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert_eq(cluster_status(&c, 1).term, 2);
    cluster_deinit(&c);
}

Test(raft_pre_vote, a_jump_of_time_is_one_window)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    c.now += 1000; /* the leader's host slept; its peers had answered since the last check */
    cluster_tick_node(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert_leq(raft_next_deadline(c.nodes[1].core), c.now + 1);
    cluster_deinit(&c);
}

/* Statement 22: a stale leader is told the newer term, so that it gives way. */
Test(raft_pre_vote, a_stale_leader_is_told_the_newer_term)
{
    with_ghosts(true, true);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 9, 0, 0));
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_NOOP, 2)->term, 9);
    cluster_deinit(&c);

    with_ghosts(true, true);
    lead_over_ghosts();
    cluster_inject(&c, cluster_message(NH_MSG_NOOP, 3, 1, 9));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert_eq(cluster_status(&c, 1).term, 9);
    cluster_deinit(&c);
}

Test(raft_pre_vote, an_isolated_replica_does_not_disturb_when_it_returns)
{
    uint64_t term;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    term = cluster_status(&c, 1).term;
    cluster_isolate(&c, 3, true);
    cluster_tick(&c, 200);
    cr_assert_eq(cluster_status(&c, 3).term, term, "pre-votes do not move the term");
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 20);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert_eq(cluster_status(&c, 1).term, term);
    cr_assert_eq(cluster_status(&c, 3).leader_id, 1);
    cluster_deinit(&c);
}

Test(raft_pre_vote, without_pre_vote_and_stickiness_a_returning_replica_forces_an_election)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 3, true);
    cluster_tick(&c, 200);
    cr_assert_gt(cluster_status(&c, 3).term, 2);
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 100);
    cr_assert_gt(cluster_status(&c, cluster_leader(&c)).term, 2);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statement 22: each of the two rules alone is reason enough, as it keeps elections from teaching the leader. Without them one
 * does. */
Test(raft_pre_vote, either_rule_tells_a_stale_leader)
{
    for (int rules = 0; rules < 4; rules++) {
        with_ghosts(rules & 1, rules & 2);
        cluster_inject(&c, cluster_message(NH_MSG_NOOP, 3, 1, 9));
        cluster_settle(&c);
        cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 4));
        cluster_settle(&c);
        cr_assert_eq(cluster_count_sent(&c, NH_MSG_NOOP, 2), rules != 0, "rules %d", rules);
        if (rules)
            cr_assert_eq(cluster_sent(&c, NH_MSG_NOOP, 2)->term, 9);
        cluster_deinit(&c);
    }
}
