/* Messages that no correct replica sends, and every message twice, late or in another order: they are ignored, the malformed
 * ones are counted, and none reaches an assertion (statements 77, 80). */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

#include "raftio/support/memory.h"

static struct cluster c;

static void follower(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, (const uint64_t[]){1, 1, 2, 2}, 4, (struct nh_state){.term = 2, .commit = 2}, 2);
    cluster_settle(&c);
}

static void leader(void)
{
    follower();
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 3));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_forget_sent(&c);
}

static struct nh_message replicate(uint64_t term, uint64_t anchor, uint64_t anchor_term)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, term);

    m.log_index = anchor;
    m.log_term = anchor_term;
    return m;
}

/* It is counted, and neither log, commit index nor term moves. */
static void expect_ignored(struct nh_message m, const char *what)
{
    struct raft_status before = cluster_status(&c, 1), after;

    cluster_inject(&c, m);
    after = cluster_status(&c, 1);
    cr_assert_eq(after.ignored_messages, before.ignored_messages + 1, "%s: not counted", what);
    cr_assert_eq(after.term, before.term, "%s: moves the term", what);
    cr_assert_eq(after.commit_index, before.commit_index, "%s: moves the commit index", what);
    cr_assert_eq(after.last_index, before.last_index, "%s: moves the log", what);
    cr_assert_eq(after.role, before.role, "%s: moves the role", what);
    cr_assert_eq(c.network.n, 0, "%s: is answered", what);
}

Test(raft_hostile, wrong_addresses_and_terms)
{
    struct nh_message m;

    follower();
    m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3);
    m.shard_id = 8;
    expect_ignored(m, "another shard");
    m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3);
    m.from = 1;
    expect_ignored(m, "from itself");
    m.from = 0;
    expect_ignored(m, "from nobody");
    expect_ignored(cluster_message(NH_MSG_HEARTBEAT, 2, 1, 0), "term 0");
    expect_ignored(cluster_message(NH_MSG_REQUEST_VOTE, 2, 1, UINT64_MAX), "the last term");
    m = cluster_message(NH_MSG_REQUEST_VOTE, 2, 1, 3);
    m.log_index = UINT64_MAX;
    expect_ignored(m, "the last index");
    cluster_deinit(&c);
}

Test(raft_hostile, a_message_to_another_replica)
{
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT, 2, 3, 3);
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};

    follower();
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 1);
    cr_assert_eq(cluster_status(&c, 1).leader_id, 0);
    cluster_deinit(&c);
}

/* Kinds that this core does not speak, local ones, and numbers without a kind. */
Test(raft_hostile, unspoken_kinds)
{
    static const uint32_t kinds[] = {NH_MSG_LOCAL_TICK,
                                     NH_MSG_ELECTION,
                                     NH_MSG_LEADER_HEARTBEAT,
                                     NH_MSG_PING,
                                     NH_MSG_PONG,
                                     NH_MSG_SNAPSHOT_STATUS,
                                     NH_MSG_UNREACHABLE,
                                     NH_MSG_CHECK_QUORUM,
                                     NH_MSG_SNAPSHOT_RECEIVED,
                                     NH_MSG_LOG_QUERY,
                                     NH_MSG_TYPE_COUNT,
                                     NH_MSG_TYPE_COUNT + 1,
                                     64,
                                     UINT32_MAX};

    follower();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct nh_message m = cluster_message(NH_MSG_NOOP, 2, 1, 9);

        m.type = kinds[i];
        expect_ignored(m, "an unspoken kind");
    }
    cluster_deinit(&c);
}

Test(raft_hostile, answers_of_strangers)
{
    leader();
    expect_ignored(cluster_message(NH_MSG_REPLICATE_RESP, 6, 1, 9), "an answer to Replicate");
    expect_ignored(cluster_message(NH_MSG_HEARTBEAT_RESP, 6, 1, 9), "an answer to a heartbeat");
    expect_ignored(cluster_message(NH_MSG_REQUEST_VOTE_RESP, 6, 1, 9), "a vote");
    expect_ignored(cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 6, 1, 9), "a pre-vote");
    expect_ignored(cluster_message(NH_MSG_NOOP, 6, 1, 9), "a noop");
    expect_ignored(cluster_message(NH_MSG_RATE_LIMIT, 6, 1, 9), "a word about load");
    expect_ignored(cluster_message(NH_MSG_LEADER_TRANSFER, 6, 1, 9), "a wish for a transfer");
    expect_ignored(cluster_message(NH_MSG_REMOVED, 6, 1, 9), "news of a removal");
    cluster_deinit(&c);
}

static struct nh_message snapshot(uint64_t term, uint64_t index, uint64_t log_term, uint32_t n_members)
{
    struct nh_member members[] = {{.replica_id = 1}, {.replica_id = 2}, {.replica_id = 3}};
    struct nh_snapshot s = {.index = index, .term = log_term, .membership = {.n_members = n_members, .members = members}};
    struct nh_message m = cluster_message(NH_MSG_INSTALL_SNAPSHOT, 2, 1, term);

    m.snapshot = xcalloc(1, sizeof *m.snapshot);
    nh_snapshot_copy(m.snapshot, &s);
    return m;
}

/* A snapshot without record, or of nothing, of a term to come, of none, of nobody, with entries. */
Test(raft_hostile, unsound_snapshots)
{
    struct nh_message m = snapshot(3, 100, 3, 3);

    follower();
    expect_ignored(cluster_message(NH_MSG_INSTALL_SNAPSHOT, 2, 1, 3), "a snapshot without record");
    expect_ignored(snapshot(3, 0, 3, 3), "a snapshot of nothing");
    expect_ignored(snapshot(3, UINT64_MAX, 3, 3), "a snapshot up to the last number");
    expect_ignored(snapshot(3, 100, 4, 3), "a snapshot of a term to come");
    expect_ignored(snapshot(3, 100, 0, 3), "a snapshot of no term");
    expect_ignored(snapshot(3, 100, 3, 0), "a snapshot of nobody");
    cluster_add_entries(&m, (const uint64_t[]){2}, 1);
    expect_ignored(m, "a snapshot with entries");
    cluster_deinit(&c);
}

Test(raft_hostile, two_leaders_in_one_term)
{
    leader();
    expect_ignored(replicate(3, 4, 2), "Replicate to a leader");
    expect_ignored(cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3), "a heartbeat to a leader");
    cluster_deinit(&c);
    follower();
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 3, 1, 5));
    cluster_settle(&c);
    expect_ignored(cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5), "a second leader");
    expect_ignored(cluster_message(NH_MSG_TIMEOUT_NOW, 2, 1, 5), "a call to stand by a second leader");
    expect_ignored(snapshot(5, 100, 5, 3), "a snapshot of a second leader");
    cr_assert_eq(cluster_status(&c, 1).leader_id, 3);
    cluster_deinit(&c);
}

Test(raft_hostile, malformed_entries)
{
    struct nh_message m;

    follower();
    m = replicate(2, 4, 2);
    cluster_add_entries(&m, (const uint64_t[]){2, 2}, 2);
    m.log_index = 3; /* a gap after the anchor */
    expect_ignored(m, "a gap");
    m = replicate(2, 4, 2);
    cluster_add_entries(&m, (const uint64_t[]){3}, 1);
    expect_ignored(m, "an entry above the leader's term");
    m = replicate(2, 4, 2);
    cluster_add_entries(&m, (const uint64_t[]){1}, 1);
    expect_ignored(m, "terms that fall after the anchor");
    m = replicate(2, 4, 2);
    cluster_add_entries(&m, (const uint64_t[]){2, 2}, 2);
    m.runs[1].from = m.runs[1].to; /* empty */
    expect_ignored(m, "an empty run");
    m = replicate(2, 4, 2);
    cluster_add_entries(&m, (const uint64_t[]){2}, 1);
    m.runs[0].to = 9;
    expect_ignored(m, "a run beyond its block");
    m = replicate(2, UINT64_MAX - 1, 2);
    cluster_add_entries(&m, (const uint64_t[]){2}, 1);
    expect_ignored(m, "indexes that overflow");
    expect_ignored(replicate(2, 3, 0), "an anchor without term");
    expect_ignored(replicate(2, 0, 2), "a term without anchor");
    expect_ignored(replicate(2, 4, 3), "an anchor above the leader's term");
    m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 2);
    cluster_add_entries(&m, (const uint64_t[]){2}, 1);
    expect_ignored(m, "a heartbeat with entries");
    cluster_deinit(&c);
}

/* Statement 29, turned: what contradicts a committed entry is a lie; it is not acted upon, and nobody dies. */
Test(raft_hostile, a_contradiction_of_committed_entries)
{
    struct nh_message m;

    follower();
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    cluster_settle(&c);
    m = replicate(5, 1, 1);
    cluster_add_entries(&m, (const uint64_t[]){3, 3, 3}, 3);
    expect_ignored(m, "another entry 2");
    expect_ignored(replicate(5, 2, 2), "another term at anchor 2");
    cr_assert_eq(raft_term_at(c.nodes[1].core, 2), 1);
    cluster_deinit(&c);
}

/* What this replica once acknowledged is gone: which of its entries the leader means is not known, so none is committed. */
Test(raft_hostile, a_heartbeat_that_commits_above_the_last_entry)
{
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 2);

    follower();
    m.commit = 5;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 1);
    cluster_settle(&c);
    cr_assert_not_null(cluster_sent(&c, NH_MSG_HEARTBEAT_RESP, 2), "the leader is alive all the same");
    cluster_deinit(&c);
}

Test(raft_hostile, a_huge_commit_index_is_bounded)
{
    struct nh_message m;

    follower();
    m = replicate(2, 3, 2);
    m.commit = UINT64_MAX;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cluster_deinit(&c);
}

Test(raft_hostile, acknowledgements_of_what_was_never_sent)
{
    struct nh_message m;

    leader();
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 3);
    m.log_index = 6; /* last is 5 */
    expect_ignored(m, "an acknowledgement above the log");
    m.log_index = UINT64_MAX;
    expect_ignored(m, "an acknowledgement of the last number");
    m.log_index = 5;
    m.commit = UINT64_MAX;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 5);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 3);
    m.reject = true;
    m.log_index = 4;
    m.hint = UINT64_MAX;
    m.log_term = UINT64_MAX;
    cluster_inject(&c, m);
    cr_assert_leq(cluster_peer(&c, 1, 3).next, 5);
    cluster_deinit(&c);
}

Test(raft_hostile, read_rounds_that_never_began)
{
    struct nh_message m;

    leader();
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 3);
    m.log_index = 5;
    cluster_inject(&c, m);
    m = cluster_message(NH_MSG_HEARTBEAT_RESP, 2, 1, 3);
    m.hint = 1000;
    cluster_inject(&c, m);
    cluster_read(&c, 1);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].reads.n, 0);
    cluster_deinit(&c);
}

Test(raft_hostile, a_candidacy_in_the_last_term_is_not_possible)
{
    follower();
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE, 2, 1, UINT64_MAX - 1));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).term, UINT64_MAX - 1);
    cluster_campaign(&c, 1);
    cluster_tick(&c, 50);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_deinit(&c);
}

/* Any numbers in any field: nothing may fall over. What correct fields could do to safety is the random test's part. */
Test(raft_hostile, random_fields_reach_no_assertion)
{
    static const uint64_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 100, UINT64_MAX - 1, UINT64_MAX};
    const uint64_t n = sizeof numbers / sizeof *numbers;

    for (int round = 0; round < 200; round++) {
        if (round % 2)
            leader();
        else
            follower();
        c.random += (uint64_t)round * 7919;
        for (int i = 0; i < 200; i++) {
            struct nh_message m = {.type = (uint32_t)cluster_random(&c, 33), .shard_id = 7, .to = 1};
            struct raft_update out = {0};
            struct raft_event ev = {.type = RAFT_EV_MESSAGE, .now = c.now += cluster_random(&c, 4), .message = &m};
            const char *clause = "";

            m.from = 1 + cluster_random(&c, 4);
            m.term = cluster_random(&c, 8) ? cluster_status(&c, 1).term + cluster_random(&c, 2) : numbers[cluster_random(&c, n)];
            m.log_index = numbers[cluster_random(&c, n)];
            m.log_term = numbers[cluster_random(&c, n)];
            m.commit = numbers[cluster_random(&c, n)];
            m.hint = numbers[cluster_random(&c, n)];
            m.hint_high = numbers[cluster_random(&c, n)];
            m.reject = cluster_random(&c, 2);
            if (m.log_index <= 100 && cluster_random(&c, 3) == 0)
                cluster_add_entries(&m, (const uint64_t[]){2, 3}, 1 + (uint32_t)cluster_random(&c, 2));
            raft_step(c.nodes[1].core, &ev, &out);
            ev.type = cluster_random(&c, 2) ? RAFT_EV_TICK : RAFT_EV_CAMPAIGN;
            raft_step(c.nodes[1].core, &ev, &out);
            raft_collect(c.nodes[1].core, &out);
            if (out.save_id && cluster_random(&c, 2)) {
                ev.type = RAFT_EV_SAVED;
                ev.saved = out.save_id;
                raft_update_release(&out);
                raft_step(c.nodes[1].core, &ev, &out);
                raft_collect(c.nodes[1].core, &out);
            }
            cr_assert(raft_check(c.nodes[1].core, &clause), "%s", clause);
            raft_update_deinit(&out);
            nh_message_deinit(&m);
        }
        cluster_deinit(&c);
    }
}

/* ---- statement 77: every message twice, or late, or reordered ---- */

Test(raft_hostile, every_message_twice)
{
    cluster_init(&c, 3, NULL);
    for (int i = 0; i < 30000; i++) {
        if (i % 100 == 0) {
            c.now++;
            for (uint64_t id = 1; id <= 3; id++)
                cluster_tick_node(&c, id);
            if (cluster_leader(&c))
                cluster_propose(&c, cluster_leader(&c), 1, 5);
        }
        if (c.network.n > 0) {
            if (i % 2 == 0)
                cluster_double(&c, 0);
            cluster_deliver(&c, 0);
        }
        for (uint64_t id = 1; id <= 3; id++) {
            while (c.nodes[id].saves.n > 0)
                cluster_save(&c, id);
            while (c.nodes[id].applies.n > 0)
                cluster_apply(&c, id);
        }
    }
    cluster_settle(&c);
    cluster_tick(&c, 5);
    cr_assert(cluster_agrees(&c));
    cr_assert_gt(cluster_status(&c, 1).applied_index, 100);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, 0, "ordinary copies are not malformed");
    cluster_deinit(&c);
}

/* ---- forwarded requests ---- */

/* A word about proposals that says nothing, or of no keys, or of keys beyond the last. */
Test(raft_hostile, malformed_words_about_proposals)
{
    static const struct {
        bool reject;
        uint64_t first_key, n_keys;
    } cases[] = {{false, 10, 1}, {true, 0, 1}, {true, 10, 0}, {true, UINT64_MAX, 1}};

    follower();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nh_message m = cluster_message(NH_MSG_PROPOSE_RESP, 2, 1, 2);

        m.reject = cases[i].reject;
        m.hint = cases[i].first_key;
        m.hint_high = cases[i].n_keys;
        expect_ignored(m, "a word about no proposals");
    }
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    cluster_deinit(&c);
}
