/* Lease reads (thesis 6.4.1; statement 23), and what they ask of followers. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static struct raft_options with_leases(void)
{
    struct raft_options o = cluster_options();

    o.lease_reads = true;
    return o;
}

static void three(void)
{
    struct raft_options o = with_leases();

    cluster_init(&c, 3, &o);
    cluster_tick(&c, 12); /* who has just started is bound for E ticks */
    cluster_elect(&c, 1);
    cluster_tick(&c, 2);
}

static size_t answered(uint64_t id)
{
    return c.nodes[id].reads.n;
}

Test(raft_lease, needs_check_quorum)
{
    struct raft_options o = with_leases();
    struct raft_boot b = {.first_index = 1};
    struct nh_error err = {0};
    struct raft *r;

    o.replica_id = 1;
    o.check_quorum = false;
    cr_assert_eq(raft_new(&o, &b, &r, &err), NH_EINVAL);
    o.check_quorum = true;
    o.lease_drift_percent = 51;
    cr_assert_eq(raft_new(&o, &b, &r, &err), NH_EINVAL);
}

Test(raft_lease, a_leader_answers_without_asking_while_it_holds_one)
{
    three();
    cr_assert(cluster_status(&c, 1).lease_held);
    cluster_isolate(&c, 1, true);
    cluster_read(&c, 1);
    cr_assert_eq(answered(1), 1);
    /* E = 10, a drift of 10 %, two ticks: seven ticks after the last answered heartbeat it is over. */
    for (int i = 0; i < 6; i++)
        cluster_tick(&c, 1);
    cr_assert(cluster_status(&c, 1).lease_held);
    cluster_tick(&c, 1);
    cr_assert(!cluster_status(&c, 1).lease_held);
    cluster_read(&c, 1);
    cr_assert_eq(answered(1), 1, "from now on it asks");
    cluster_deinit(&c);
}

/* Statement 69 holds for leases too. */
Test(raft_lease, not_before_the_first_commit_of_the_term)
{
    struct raft_options o = with_leases();

    cluster_init(&c, 3, &o);
    cluster_tick(&c, 12);
    for (uint64_t id = 2; id <= 3; id++)
        for (uint64_t to = 1; to <= 3; to++)
            c.nodes[id].hold_saves = false;
    cluster_elect(&c, 1);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = true;
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = false;
    cluster_tick(&c, 60);
    cr_assert_neq(cluster_leader(&c), 0);
    cluster_read(&c, cluster_leader(&c)); /* the harness checks that no read is stale */
    cluster_settle(&c);
    cluster_deinit(&c);
}

/* Statement 23: given up before a transfer, for the rest of the term: the target may stand at any time from now on. */
Test(raft_lease, is_given_up_by_a_transfer)
{
    three();
    cluster_transfer(&c, 1, 2);
    cr_assert(!cluster_status(&c, 1).lease_held);
    cluster_lose(&c, 0); /* TIMEOUT_NOW: later copies may exist */
    c.cut[1][2] = true;
    cluster_tick(&c, 12);
    cr_assert_eq(cluster_status(&c, 1).transferee, 0, "the transfer is over");
    cr_assert(!cluster_status(&c, 1).lease_held, "the lease too");
    cluster_deinit(&c);
}

/* Statement 23. */
Test(raft_lease, the_leader_is_not_forgotten_on_request)
{
    struct raft_event forget = {.type = RAFT_EV_FORGET_LEADER};

    three();
    cluster_step(&c, 2, &forget);
    cr_assert_eq(cluster_status(&c, 2).leader_id, 1);
    cluster_deinit(&c);
}

/* Who answered a heartbeat helps nobody to lead for E ticks: by no vote, nor by standing itself at somebody's wish. */
Test(raft_lease, who_answered_neither_votes_nor_stands)
{
    struct raft_options o = with_leases();
    struct nh_message m;

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_tick(&c, 10);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_settle(&c);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    /* Another term takes its leader away, not its word. */
    cluster_inject(&c, cluster_message(NH_MSG_NOOP, 3, 1, 7));
    cr_assert_eq(cluster_status(&c, 1).term, 7);
    cluster_forget_sent(&c);
    m = cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 8, 9, 9);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_null(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3));
    cr_assert_eq(cluster_status(&c, 1).term, 7);
    m = cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 8, 9, 9); /* the very leader asks: it has given its lease up */
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject);
    cluster_deinit(&c);
}

/* The same for a candidate of the term that it has come to by other ways meanwhile (a late refusal, a NOOP): its request may
 * still be on its way when the term has moved. A vote that was given before is repeated. */
Test(raft_lease, who_answered_does_not_vote_in_its_own_term_either)
{
    struct raft_options o = with_leases();

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_tick(&c, 10);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_settle(&c);
    cluster_inject(&c, cluster_message(NH_MSG_NOOP, 3, 1, 7));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).term, 7);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 7, 5, 9));
    cluster_settle(&c);
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cr_assert_eq(cluster_status(&c, 1).vote, 0);
    cluster_tick(&c, 9);
    cr_assert_eq(cluster_status(&c, 1).term, 7);
    c.now += 1; /* E is over */
    for (int i = 0; i < 2; i++) {
        cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 7, 5, 9));
        cluster_settle(&c);
        cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    }
    cluster_deinit(&c);
}

/* While leases are turned on, host by host: who does not read by them is bound by none, so it promises none. */
Test(raft_lease, who_is_not_bound_promises_nothing)
{
    struct raft_options o = cluster_options();
    struct nh_message heartbeat = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5);

    heartbeat.hint_high = 7;
    for (int i = 0; i < 2; i++) {
        o.lease_reads = i == 1;
        cluster_init_ghosts(&c, 1, 3, &o);
        cluster_inject(&c, heartbeat);
        cluster_settle(&c);
        cr_assert_eq(cluster_sent(&c, NH_MSG_HEARTBEAT_RESP, 2)->hint_high, o.lease_reads ? 7 : 0);
        cluster_deinit(&c);
    }
}

/* A restart forgets who was heard from, so it binds for E ticks. */
Test(raft_lease, a_restarted_replica_is_bound_too)
{
    struct raft_options o = with_leases();

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_tick(&c, 10);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 8, 9, 9));
    cluster_settle(&c);
    cr_assert_null(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3));
    cluster_tick(&c, 10);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 80, 9, 9));
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cluster_deinit(&c);
}

/* 1 leads the ghosts 2 and 3 in term 2. */
static void lead_ghosts(void)
{
    struct raft_options o = with_leases();

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_tick(&c, 12);
    cluster_campaign(&c, 1);
    for (uint64_t id = 2; id <= 3; id++) {
        cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, id, 1, 2));
        cluster_settle(&c);
        cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, id, 1, 2));
        cluster_settle(&c);
    }
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
}

/* Ghost 2 answers the heartbeat that left then. */
static void answer_heartbeat_of(uint64_t then)
{
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT_RESP, 2, 1, 2);

    m.hint_high = then;
    cluster_inject(&c, m);
}

/* A heartbeat's answer that claims to be of the future renews nothing. */
Test(raft_lease, answers_of_the_future_do_not_count)
{
    lead_ghosts();
    answer_heartbeat_of(c.now + 100);
    cr_assert(!cluster_status(&c, 1).lease_held);
    answer_heartbeat_of(c.now);
    cr_assert(cluster_status(&c, 1).lease_held);
    cluster_deinit(&c);
}

/* The promise counts from when the heartbeat left: E = 10, less a drift of 10 % and two ticks, is seven. */
Test(raft_lease, counts_from_the_sending_not_from_the_answer)
{
    lead_ghosts();
    answer_heartbeat_of(c.now - 7);
    cr_assert(!cluster_status(&c, 1).lease_held);
    answer_heartbeat_of(c.now - 6);
    cr_assert(cluster_status(&c, 1).lease_held);
    cluster_deinit(&c);
}

/* Statement 69: who was promised a lease may still not know what is committed. */
Test(raft_lease, answers_nothing_before_the_first_commit_of_the_term)
{
    struct nh_message m;

    lead_ghosts();
    answer_heartbeat_of(c.now);
    cr_assert(cluster_status(&c, 1).lease_held);
    cluster_read(&c, 1);
    cr_assert_eq(answered(1), 0);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);
    m.log_index = cluster_status(&c, 1).last_index;
    cluster_inject(&c, m);
    cluster_read(&c, 1);
    cr_assert_eq(answered(1), 1, "the second one, by the lease");
    cluster_deinit(&c);
}

/* Nor does it stand itself, if it is asked to: 1 reads under a lease that 2 helped to renew, and 3, which heard of no leader for
 * long, would vote for 2. */
Test(raft_lease, a_restarted_replica_does_not_stand)
{
    three();
    cluster_isolate(&c, 3, true);
    cluster_tick(&c, 12);
    cluster_isolate(&c, 3, false);
    c.cut[1][3] = c.cut[3][1] = true;
    cluster_crash(&c, 2);
    c.cut[1][2] = c.cut[2][1] = true;
    cluster_restart(&c, 2);
    cluster_campaign(&c, 2);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_FOLLOWER);
    cr_assert(cluster_status(&c, 1).lease_held);
    cluster_tick(&c, 10);
    cr_assert(!cluster_status(&c, 1).lease_held);
    cluster_campaign(&c, 2);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_LEADER);
    cluster_deinit(&c);
}

/* The drift and the two ticks leave nothing of three: such a leader asks each time. */
Test(raft_lease, of_a_short_timeout_is_none)
{
    struct raft_options o = with_leases();

    for (o.election_ticks = 3; o.election_ticks <= 4; o.election_ticks++) {
        cluster_init(&c, 3, &o);
        cluster_tick(&c, 5);
        if (!cluster_leader(&c))
            cluster_elect(&c, 1);
        cluster_tick(&c, 2);
        cr_assert_neq(cluster_leader(&c), 0);
        cr_assert_eq(cluster_status(&c, cluster_leader(&c)).lease_held, o.election_ticks == 4);
        cluster_read(&c, cluster_leader(&c));
        cluster_settle(&c);
        cr_assert_eq(answered(cluster_leader(&c)), 1);
        cluster_deinit(&c);
    }
}

/* Witnesses promise, too, and may elect with a minority of the voters: who is asked are all who vote. */
Test(raft_lease, a_majority_of_those_with_data_gives_none)
{
    struct raft_options o = with_leases();

    cluster_init(&c, 5, &o);
    for (uint64_t id = 1; id <= 5; id++) {
        cluster_crash(&c, id);
        cluster_set_members(&c, id, "vvvww");
        cluster_restart(&c, id);
    }
    cluster_tick(&c, 12);
    cluster_elect(&c, 1);
    cluster_tick(&c, 2);
    cr_assert(cluster_status(&c, 1).lease_held);
    for (uint64_t id = 3; id <= 5; id++)
        cluster_isolate(&c, id, true);
    cluster_tick(&c, 7);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert(!cluster_status(&c, 1).lease_held);
    cluster_deinit(&c);
}
