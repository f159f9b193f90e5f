/* Elections. "Statement n" counts as in the project's list of what a Raft core must do; the words here say it too. */
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

Test(raft_election, a_group_elects_one_leader_that_all_follow)
{
    cluster_init(&c, 3, NULL);
    cluster_tick(&c, 40);
    cr_assert_neq(cluster_leader(&c), 0);
    for (uint64_t id = 1; id <= 3; id++) {
        cr_assert_eq(cluster_status(&c, id).leader_id, cluster_leader(&c));
        cr_assert_eq(cluster_status(&c, id).term, cluster_status(&c, cluster_leader(&c)).term);
    }
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statement 1: given a vote for 2 in a term, then 3 is refused, and 2 is granted again. */
Test(raft_election, a_vote_is_given_once_and_repeated_to_the_same)
{
    with_ghosts(false, false);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 5, 1, 1));
    cluster_settle(&c);
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cluster_forget_sent(&c);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject);
    cluster_deinit(&c);
}

/* Statement 2: given a granted vote, when the replica crashes after sending it, then it refuses others after the restart. */
Test(raft_election, a_vote_survives_a_crash)
{
    with_ghosts(false, false);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
    cluster_settle(&c);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).term, 5);
    cr_assert_eq(cluster_status(&c, 1).vote, 2);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 5, 1, 1));
    cluster_settle(&c);
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cluster_deinit(&c);
}

/* Statement 3: given a save in flight, then the granted vote does not leave before it is durable. */
Test(raft_election, a_granted_vote_waits_for_its_save)
{
    with_ghosts(false, false);
    c.nodes[1].hold_saves = true;
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
    cluster_settle(&c);
    cr_assert_null(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2));
    cluster_save(&c, 1);
    cluster_settle(&c);
    cr_assert_not_null(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2));
    cluster_deinit(&c);
}

/* Statement 3: a candidate's own vote counts only when it is durable, and its requests wait as long. */
Test(raft_election, a_candidates_own_vote_counts_when_it_is_saved)
{
    with_ghosts(false, false);
    c.nodes[1].hold_saves = true;
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cr_assert_null(cluster_sent(&c, NH_MSG_REQUEST_VOTE, 2));
    /* Both others vote for it although they were not asked yet: not even then does it lead with an unsaved term. */
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 3, 1, 2));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_deinit(&c);
}

Test(raft_election, a_single_voter_leads_after_its_vote_is_saved)
{
    cluster_init(&c, 1, NULL);
    c.nodes[1].hold_saves = true;
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 2);
    cluster_deinit(&c);
}

/* Statement 4: a candidate with a lower last term, or the same and a lower index, is refused whatever its length. */
Test(raft_election, a_vote_needs_a_log_that_is_as_complete)
{
    static const struct {
        uint64_t log_term, log_index;
        bool granted;
    } cases[] = {{2, 9, false}, {3, 2, false}, {3, 3, true}, {3, 4, true}, {4, 1, true}};
    static const uint64_t terms[] = {1, 2, 3};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        with_ghosts(false, false);
        cluster_crash(&c, 1);
        cluster_boot_with(&c, 1, terms, 3, (struct nh_state){.term = 3, .commit = 1}, 1);
        cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 4, cases[i].log_term, cases[i].log_index));
        cluster_settle(&c);
        cr_assert_eq(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject, cases[i].granted, "case %zu", i);
        cluster_deinit(&c);
    }
}

/* Statement 5: the known leader of a term bars a vote in that term even if none was cast. */
Test(raft_election, a_known_leader_bars_votes_in_its_term)
{
    with_ghosts(false, false);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cr_assert_eq(cluster_status(&c, 1).vote, 0);
    cr_assert_eq(cluster_status(&c, 1).leader_id, 2);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 5, 1, 1));
    cluster_settle(&c);
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cluster_deinit(&c);
}

/* Statement 6: given a candidate, when a leader of its term appends, then it follows and keeps its vote. */
Test(raft_election, a_candidate_follows_the_leader_of_its_term)
{
    struct nh_message m;

    with_ghosts(false, false);
    cluster_campaign(&c, 1);
    m = cluster_message(NH_MSG_REPLICATE, 3, 1, 2);
    m.log_index = m.log_term = 1;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert_eq(cluster_status(&c, 1).leader_id, 3);
    cr_assert_eq(cluster_status(&c, 1).vote, 1);
    cluster_deinit(&c);
}

/* Statement 7, decided: a refused request moves the term but not the timer; a granted one starts the timer anew. */
Test(raft_election, a_refused_candidate_does_not_delay_our_own_candidacy)
{
    uint64_t deadline;

    with_ghosts(false, false);
    deadline = raft_next_deadline(c.nodes[1].core);
    c.now = deadline - 1;
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 0, 0));
    cr_assert_eq(cluster_status(&c, 1).term, 5);
    cr_assert_eq(raft_next_deadline(c.nodes[1].core), deadline);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 6, 1, 1));
    cr_assert_geq(raft_next_deadline(c.nodes[1].core), c.now + 10);
    cluster_deinit(&c);
}

/* Statements 8, 9: a non-voting member votes, but never stands, and its grants do not count. */
Test(raft_election, a_non_voting_member_votes_but_never_stands)
{
    with_ghosts(false, false);
    cluster_crash(&c, 1);
    cluster_set_members(&c, 1, "nvv");
    cluster_restart(&c, 1);
    cluster_tick(&c, 25);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert_gt(cluster_count_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2), 0, "it calls");
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2)->reject);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject);
    cluster_deinit(&c);
}

Test(raft_election, grants_of_non_voting_members_do_not_count)
{
    with_ghosts(false, false);
    cluster_crash(&c, 1);
    cluster_set_members(&c, 1, "vvvnn");
    cluster_restart(&c, 1);
    cluster_settle(&c);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REQUEST_VOTE, 4), 0, "it is not even asked");
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 4, 1, 2));
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 5, 1, 2));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 3, 1, 2));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_deinit(&c);
}

/* Statement 10: given a committed but unapplied configuration change, then no campaign until it is applied. */
Test(raft_election, an_unapplied_configuration_change_bars_a_campaign)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    c.nodes[2].hold_applies = true;
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cr_assert_lt(cluster_status(&c, 2).applied_index, cluster_status(&c, 2).commit_index);
    cluster_crash(&c, 1);
    cluster_campaign(&c, 2);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_FOLLOWER);
    c.nodes[2].hold_applies = false;
    cluster_restart(&c, 1); /* four members need three */
    cluster_tick(&c, 40);
    cr_assert_neq(cluster_leader(&c), 0);
    cluster_deinit(&c);
}

/* Statements 10 and 78, at restart: nothing is scanned for changes, an upper bound is enough: entries that may hold a change bar
 * a campaign until they are applied. */
Test(raft_election, the_boot_bound_bars_a_campaign_until_it_is_applied)
{
    static const uint64_t terms[] = {1, 1, 1};

    with_ghosts(false, false);
    cluster_crash(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_boot_with(&c, 1, terms, 3, (struct nh_state){.term = 1, .commit = 3}, 1);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_apply(&c, 1);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_deinit(&c);
}

/* Statement 12: a candidate that is not in the own configuration may be newer, so it is judged by its log. */
Test(raft_election, a_candidate_that_is_not_a_member_gets_a_vote)
{
    with_ghosts(false, false);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 6, 5, 1, 1));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 6)->reject);
    cluster_deinit(&c);
}

Test(raft_election, a_quorum_of_refusals_ends_a_candidacy)
{
    struct nh_message m;

    with_ghosts(false, false);
    cluster_campaign(&c, 1);
    for (uint64_t id = 2; id <= 3; id++) {
        m = cluster_message(NH_MSG_REQUEST_VOTE_RESP, id, 1, 2);
        m.reject = true;
        cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
        cluster_inject(&c, m);
    }
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert_eq(cluster_status(&c, 1).term, 2);
    cluster_deinit(&c);
}

/* A refusal tells what is committed; only who holds that very entry believes it. */
Test(raft_election, a_refusal_tells_what_is_committed)
{
    static const struct {
        uint64_t commit, term, expected;
    } cases[] = {{3, 2, 3}, {3, 1, 1}, {4, 2, 1}, {2, 1, 2}, {0, 0, 1}, {9, 0, 1}, {UINT64_MAX, 2, 1}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nh_message m = cluster_message(i % 2 ? NH_MSG_REQUEST_VOTE_RESP : NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 2);

        with_ghosts(true, true);
        cluster_crash(&c, 1);
        cluster_boot_with(&c, 1, (const uint64_t[]){1, 1, 2}, 3, (struct nh_state){.term = 2, .commit = 1}, 1);
        m.reject = true;
        m.commit = cases[i].commit;
        m.log_term = cases[i].term;
        cluster_inject(&c, m);
        cr_assert_eq(cluster_status(&c, 1).commit_index, cases[i].expected, "case %zu", i);
        cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_PRE_VOTE, 2, 3, 1, 1));
        cluster_settle(&c);
        cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_PRE_VOTE_RESP, 2)->commit, cases[i].expected);
        cluster_deinit(&c);
    }
}

/* So does a grant. */
Test(raft_election, a_grant_tells_what_is_committed)
{
    static const enum nh_message_type asked[] = {NH_MSG_REQUEST_PRE_VOTE, NH_MSG_REQUEST_VOTE};
    static const enum nh_message_type answered[] = {NH_MSG_REQUEST_PRE_VOTE_RESP, NH_MSG_REQUEST_VOTE_RESP};

    for (size_t i = 0; i < 2; i++) {
        struct nh_message m = cluster_message(answered[i], 2, 1, 2);

        with_ghosts(true, true);
        cluster_crash(&c, 1);
        cluster_boot_with(&c, 1, (const uint64_t[]){1, 1, 2}, 3, (struct nh_state){.term = 2, .commit = 1}, 1);
        m.commit = 2;
        m.log_term = 1;
        cluster_inject(&c, m);
        cluster_settle(&c);
        cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
        cluster_inject(&c, cluster_candidacy(asked[i], 2, 3, 2, 3));
        cluster_settle(&c);
        cr_assert(!cluster_sent(&c, answered[i], 2)->reject);
        cr_assert_eq(cluster_sent(&c, answered[i], 2)->commit, 2);
        cr_assert_eq(cluster_sent(&c, answered[i], 2)->log_term, 1);
        cluster_deinit(&c);
    }
}

Test(raft_election, a_doubled_vote_counts_once)
{
    cluster_init_ghosts(&c, 1, 5, NULL);
    cluster_campaign(&c, 1);
    for (uint64_t id = 2; id <= 3; id++)
        cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, id, 1, 2));
    cluster_settle(&c);
    for (int i = 0; i < 3; i++)
        cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 3, 1, 2));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_deinit(&c);
}

Test(raft_election, timeouts_are_spread_over_e_to_2e)
{
    bool low = false, high = false;

    for (int i = 0; i < 200; i++) {
        uint64_t deadline;

        if (i == 0)
            cluster_init(&c, 3, NULL);
        cluster_crash(&c, 1);
        cluster_restart(&c, 1);
        deadline = raft_next_deadline(c.nodes[1].core) - c.now;
        cr_assert(deadline >= 10 && deadline < 20);
        low |= deadline == 10;
        high |= deadline == 19;
    }
    cr_assert(low && high);
    cluster_deinit(&c);
}

/* Replica 1 of three, with E 40. */
static struct raft *start_one_with(bool early, bool pre_vote, uint64_t seed, struct nh_state state)
{
    struct raft_options o = cluster_options();
    struct nh_member members[] = {{.replica_id = 1}, {.replica_id = 2}, {.replica_id = 3}};
    struct nh_membership three = {.n_members = 3, .members = members};
    struct raft_boot boot = {.first_index = 1, .membership = &three, .stand_early = early, .now = 100, .state = state};
    struct raft *r;

    o.shard_id = o.replica_id = 1;
    o.election_ticks = 40;
    o.pre_vote = pre_vote;
    o.seed = seed;
    cr_assert_eq(raft_new(&o, &boot, &r, NULL), NH_OK);
    return r;
}

static struct raft *start_one(bool early, bool pre_vote, uint64_t seed)
{
    return start_one_with(early, pre_vote, seed, (struct nh_state){0});
}

/* Who would disturb a leader by it does not. */
Test(raft_election, one_may_be_told_to_stand_early)
{
    for (uint64_t seed = 0; seed < 100; seed++)
        for (int kind = 0; kind < 4; kind++) {
            bool early = kind & 1, pre_vote = kind & 2;
            struct raft *r = start_one(early, pre_vote, seed);
            uint64_t due = raft_next_deadline(r) - 100;

            cr_assert_geq(due, early && pre_vote ? 10 : 40);
            cr_assert_lt(due, early && pre_vote ? 20 : 80);
            raft_free(r);
        }
}

static uint64_t tick(struct raft *r, uint64_t now)
{
    struct raft_event ev = {.type = RAFT_EV_TICK, .now = now};
    struct raft_update out = {0};

    raft_step(r, &ev, &out);
    raft_collect(r, &out);
    raft_update_deinit(&out);
    return raft_next_deadline(r) - now;
}

/* The others may start later: it tries again, until somebody has led or might. */
Test(raft_election, it_stands_early_until_a_term_is_entered)
{
    struct nh_message m = {.type = NH_MSG_REQUEST_VOTE, .shard_id = 1, .to = 1, .from = 2, .term = 1};
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .now = 320, .message = &m};
    struct raft *r = start_one(true, true, 7);
    struct raft_update out = {0};

    for (uint64_t i = 0; i < 10; i++)
        cr_assert_lt(tick(r, 100 + 20 * (i + 1)), 20);
    raft_step(r, &ev, &out);
    raft_collect(r, &out);
    raft_update_deinit(&out);
    cr_assert_geq(raft_next_deadline(r) - 320, 40);
    raft_free(r);
}

/* Alone it asks less often after a while. */
Test(raft_election, it_stands_early_for_some_timeouts_only)
{
    struct raft *r = start_one(true, true, 7);
    uint64_t now = 100;

    for (; now < 100 + 8 * 40; now += 20)
        cr_assert_lt(tick(r, now), 20);
    cr_assert_geq(tick(r, now + 20), 20, "drawn from [40, 80)");
    raft_free(r);
}

Test(raft_election, it_stands_early_with_the_longest_timeout_too)
{
    struct raft_options o = cluster_options();
    struct nh_member members[] = {{.replica_id = 1}, {.replica_id = 2}, {.replica_id = 3}};
    struct nh_membership three = {.n_members = 3, .members = members};
    struct raft_boot boot = {.first_index = 1, .membership = &three, .stand_early = true, .now = 100};
    struct raft *r;

    o.shard_id = o.replica_id = 1;
    o.election_ticks = UINT32_MAX;
    o.pre_vote = true;
    cr_assert_eq(raft_new(&o, &boot, &r, NULL), NH_OK);
    cr_assert_lt(raft_next_deadline(r), UINT32_MAX / 2 + 200u);
    o.election_ticks = 1u << 29;
    raft_free(r);
    cr_assert_eq(raft_new(&o, &boot, &r, NULL), NH_OK);
    cr_assert_lt(raft_next_deadline(r), (1u << 28) + 200u);
    raft_free(r);
}

/* It voted for itself in a term that another one won: after its restart it must not disturb that leader (seed 441422). */
Test(raft_election, it_stands_early_until_it_hears_from_a_leader_of_its_term)
{
    struct nh_message m = {.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 1, .from = 2, .term = 5};
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .now = 105, .message = &m};
    struct raft *r = start_one_with(true, true, 7, (struct nh_state){.term = 5, .vote = 1});
    struct raft_update out = {0};

    cr_assert_lt(raft_next_deadline(r), 120);
    raft_step(r, &ev, &out);
    raft_collect(r, &out);
    raft_update_deinit(&out);
    cr_assert_geq(raft_next_deadline(r), 145);
    raft_free(r);
}

Test(raft_election, a_joining_replica_waits_for_a_leader)
{
    struct nh_message m;

    cluster_init_ghosts(&c, 0, 0, NULL);
    cluster_boot_with(&c, 1, NULL, 0, (struct nh_state){0}, 0);
    cr_assert_eq(raft_next_deadline(c.nodes[1].core), RAFT_NEVER);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    m = cluster_message(NH_MSG_REPLICATE, 2, 1, 3);
    cluster_add_entries(&m, (uint64_t[]){1, 3}, 2);
    m.commit = 2;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).leader_id, 2);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 2);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 2);
    cluster_deinit(&c);
}

/* A change that is applied in the midst of an election ends it: its ballots were those of another membership. */
Test(raft_election, a_change_ends_a_candidacy)
{
    struct nh_member members[] = {{.replica_id = 2}, {.replica_id = 3}};
    struct nh_membership without = {.members = members, .n_members = 2};
    struct raft_event ev = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = 5, .membership = &without}};

    with_ghosts(false, false);
    c.nodes[1].hold_saves = true;
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_save(&c, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_deinit(&c);
}

/* Statement 11: an election may use the log in memory, because what leaves waits until it is saved. */
Test(raft_election, a_candidacy_waits_for_the_entries_that_it_boasts_of)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, 2);

    with_ghosts(false, false);
    c.nodes[1].hold_saves = true;
    m.log_index = m.log_term = 1;
    cluster_add_entries(&m, (const uint64_t[]){2, 2}, 2);
    cluster_inject(&c, m);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cr_assert_null(cluster_sent(&c, NH_MSG_REQUEST_VOTE, 2));
    cluster_save(&c, 1); /* the entries */
    cluster_settle(&c);
    cr_assert_null(cluster_sent(&c, NH_MSG_REQUEST_VOTE, 2));
    cluster_save(&c, 1); /* term and vote */
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_VOTE, 2)->log_index, 3);
    cluster_deinit(&c);
}

/* Statement 15, of real votes: who is behind learns the term, and nothing here changes for it. */
Test(raft_election, a_request_of_an_older_term_is_refused_with_the_newer_one)
{
    with_ghosts(false, false);
    cluster_inject(&c, cluster_message(NH_MSG_NOOP, 3, 1, 9));
    cluster_settle(&c);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 4, 8, 8));
    cluster_settle(&c);
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->term, 9);
    cr_assert_eq(cluster_status(&c, 1).vote, NH_NO_REPLICA);
    cluster_deinit(&c);
}
