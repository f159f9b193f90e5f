/* Messages and reports that come late, twice, out of turn, or of somebody unknown: each does nothing, or gets the one answer that
 * it is worth. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static struct raft_options plain_options(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    return o;
}

/* Replica 1 follows ghost 2 in term 5. */
static void follow(void)
{
    struct raft_options o = plain_options();

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_settle(&c);
    cluster_forget_sent(&c);
}

/* Replica 1 leads ghosts 2 and 3 in term 2; its opening entry is 2. */
static void lead(const struct raft_options *options)
{
    struct raft_options o = options ? *options : plain_options();

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_forget_sent(&c);
}

static void answer(uint64_t from, uint64_t index)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, from, 1, 2);

    m.log_index = index;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static void refuse(uint64_t from, uint64_t anchor, uint64_t hint, uint64_t hint_term)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, from, 1, 2);

    m.reject = true;
    m.log_index = anchor;
    m.hint = hint;
    m.log_term = hint_term;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static void unreachable(uint64_t peer)
{
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE, .peer = peer};

    cluster_step(&c, 1, &ev);
    cluster_settle(&c);
}

/* It is neither answered nor counted as malformed, and moves nothing. */
static void expect_silence(struct nh_message m, const char *what)
{
    struct raft_status before = cluster_status(&c, 1), after;

    cluster_inject(&c, m);
    after = cluster_status(&c, 1);
    cr_assert_eq(c.network.n, 0, "%s: is answered", what);
    cr_assert_eq(after.ignored_messages, before.ignored_messages, "%s: is called malformed", what);
    cr_assert_eq(after.term, before.term, "%s: moves the term", what);
    cr_assert_eq(after.role, before.role, "%s: moves the role", what);
    cr_assert_eq(after.leader_id, before.leader_id, "%s: moves the leader", what);
    cr_assert_eq(after.commit_index, before.commit_index, "%s: moves the commit index", what);
    cr_assert_eq(after.last_index, before.last_index, "%s: moves the log", what);
}

/* ---- answers ---- */

/* To a leader that has given way meanwhile, or never was one. */
Test(raft_odd_messages, answers_to_who_does_not_lead_do_nothing)
{
    struct nh_message m = cluster_message(NH_MSG_RATE_LIMIT, 3, 1, 5);

    follow();
    expect_silence(cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 5), "an acceptance");
    expect_silence(cluster_message(NH_MSG_HEARTBEAT_RESP, 3, 1, 5), "an answer to a heartbeat");
    m.hint = 1;
    expect_silence(m, "a word about load");
    cluster_deinit(&c);
}

Test(raft_odd_messages, answers_of_an_older_term_do_nothing)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 1);

    lead(NULL);
    m.log_index = 2;
    expect_silence(m, "an acceptance");
    cr_assert_eq(cluster_peer(&c, 1, 3).match, 0);
    m = cluster_message(NH_MSG_RATE_LIMIT, 3, 1, 1);
    m.hint = 1;
    expect_silence(m, "a word about load");
    cr_assert(!cluster_peer(&c, 1, 3).overloaded);
    expect_silence(cluster_message(NH_MSG_REQUEST_VOTE_RESP, 3, 1, 1), "a vote");
    cluster_deinit(&c);
}

/* Statement 31. An anchor above what was sent is no answer to anything. */
Test(raft_odd_messages, a_refusal_of_what_was_not_sent_does_nothing)
{
    struct raft_options o = plain_options();

    o.max_inflight_messages = 1;
    lead(&o);
    answer(2, 2);
    for (int i = 0; i < 2; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_settle(&c);
    }
    cr_assert_eq(cluster_peer(&c, 1, 2).next, 4, "the window is full");
    refuse(2, 4, 2, 2);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_REPLICATE);
    cr_assert_eq(cluster_peer(&c, 1, 2).inflight_messages, 1);
    refuse(2, 3, 2, 2);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_PROBE, "that one was sent");
    cluster_deinit(&c);
}

/* Statement 31, while probing: the anchor of the probe is what it has acknowledged. */
Test(raft_odd_messages, a_refusal_of_what_was_accepted_moves_no_probe)
{
    lead(NULL);
    answer(2, 2);
    unreachable(2);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_PROBE);
    cluster_forget_sent(&c);
    refuse(2, 2, 0, 0);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 0);
    cr_assert(cluster_peer(&c, 1, 2).paused);
    cr_assert_eq(cluster_peer(&c, 1, 2).next, 3);
    cluster_deinit(&c);
}

/* Statement 16, of one member: what it said first holds in this election. */
Test(raft_odd_messages, a_second_answer_to_a_pre_vote_changes_nothing)
{
    struct nh_message m = cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 1);

    cluster_init_ghosts(&c, 1, 5, NULL);
    cluster_campaign(&c, 1);
    m.reject = true;
    cluster_inject(&c, m);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 2));
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 3, 1, 2));
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 3, 1, 2));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_PRE_CANDIDATE, "itself and 3 are no majority of five");
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 4, 1, 2));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_deinit(&c);
}

/* ---- while a snapshot is on its way ---- */

static bool lose_snapshots(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->type == NH_MSG_INSTALL_SNAPSHOT;
}

static void expect_pending(void)
{
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_SNAPSHOT);
    cr_assert_eq(cluster_peer(&c, 1, 3).pending_snapshot, 22);
}

/* 1 leads; 3 has acknowledged entry 2, and needs a snapshot up to 22. */
static void snapshot_on_its_way(void)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 20, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, 15);
    cluster_heal(&c);
    c.lose = lose_snapshots;
    cluster_tick(&c, 12);
    expect_pending();
}

/* What is refused was sent before it: no probe is under way. */
Test(raft_odd_messages, a_refusal_does_not_end_the_way_of_a_snapshot)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);

    snapshot_on_its_way();
    cluster_crash(&c, 3);
    m.reject = true;
    m.log_index = 22;
    cluster_inject(&c, m);
    expect_pending();
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 23);
    cluster_deinit(&c);
}

/* It has lost what it had acknowledged, or lies: below that it is not probed. */
Test(raft_odd_messages, a_refusal_after_a_snapshot_goes_back_to_what_was_acknowledged)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};
    struct raft_event arrived = {.type = RAFT_EV_SNAPSHOT_STATUS, .status = {.peer = 3}};
    struct raft_update out = {0};

    snapshot_on_its_way();
    cluster_step(&c, 1, &arrived);
    cr_assert_eq(cluster_peer(&c, 1, 3).match, 2);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 23);
    m.reject = true;
    m.log_index = 22;
    ev.now = c.now;
    raft_step(c.nodes[1].core, &ev, &out);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 3);
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

/* The peer has more than the snapshot held already, and less than the log begins with now. */
Test(raft_odd_messages, the_end_of_a_snapshot_takes_back_nothing)
{
    struct raft_event arrived = {.type = RAFT_EV_SNAPSHOT_STATUS, .status = {.peer = 3}};
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);

    snapshot_on_its_way();
    cluster_propose(&c, 1, 10, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, 30);
    cluster_crash(&c, 3);
    m.log_index = 25;
    cluster_inject(&c, m);
    expect_pending();
    cluster_step(&c, 1, &arrived);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 26);
    cluster_deinit(&c);
}

/* ---- entries ---- */

/* Its entries are in the log store's past: whether they agree is not known any more, but they were committed. */
Test(raft_odd_messages, entries_below_the_log_are_answered_with_the_commit_index)
{
    struct raft_event compacted = {.type = RAFT_EV_COMPACTED, .compacted = 4};
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, 2);
    struct raft_options o = plain_options();

    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, (const uint64_t[]){1, 1, 2, 2, 2}, 5, (struct nh_state){.term = 2, .commit = 5}, 5);
    cluster_step(&c, 1, &compacted);
    cr_assert_eq(cluster_status(&c, 1).first_index, 5);
    m.log_index = m.log_term = 1;
    m.commit = 5;
    cluster_add_entries(&m, (const uint64_t[]){1, 2, 2, 2}, 4);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 0);
    cr_assert_eq(cluster_status(&c, 1).last_index, 5);
    cr_assert(!cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->reject);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 5);
    cluster_deinit(&c);
}

/* ---- reports of the caller ---- */

/* Of a peer that was removed meanwhile, or of one that nothing was sent to. */
Test(raft_odd_messages, reports_of_an_unknown_peer_do_nothing)
{
    struct raft_event fetched = {.type = RAFT_EV_FETCHED, .fetched = {.peer = 6}};
    struct raft_event status = {.type = RAFT_EV_SNAPSHOT_STATUS, .status = {.peer = 6}};

    lead(NULL);
    answer(2, 2);
    answer(3, 2);
    cluster_forget_sent(&c);
    unreachable(6);
    cluster_step(&c, 1, &fetched);
    cluster_step(&c, 1, &status);
    cluster_settle(&c);
    cr_assert_eq(c.ghosts.n, 0);
    for (uint64_t id = 2; id <= 3; id++) {
        cr_assert_eq(cluster_peer(&c, 1, id).state, RAFT_REPLICATE);
        cr_assert_eq(cluster_peer(&c, 1, id).next, 3);
        cr_assert(!cluster_peer(&c, 1, id).paused);
    }
    cluster_deinit(&c);
}

/* The end of a snapshot's way is reported when nobody waits for it any more. */
Test(raft_odd_messages, a_report_of_a_snapshot_that_is_not_on_its_way_does_nothing)
{
    struct raft_event status = {.type = RAFT_EV_SNAPSHOT_STATUS, .status = {.peer = 2}};

    lead(NULL);
    answer(2, 2);
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cluster_step(&c, 1, &status);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_REPLICATE);
    cr_assert_eq(cluster_peer(&c, 1, 2).inflight_messages, 1);
    cluster_deinit(&c);
}

/* Its probe is lost or is not: the next sign of life brings another one, from where this one was. */
Test(raft_odd_messages, a_probed_peer_that_cannot_be_reached_is_probed_from_the_same_entry)
{
    lead(NULL);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 2);
    unreachable(3);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 2);
    cr_assert(cluster_peer(&c, 1, 3).paused);
    cluster_deinit(&c);
}
