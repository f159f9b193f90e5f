/* Snapshots and compaction (statements 34, 40, 42, 43, 54, 62 to 68). */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

#include "engine/raft/raft_internal.h"
#include "raftio/support/memory.h"

static struct cluster c;

/* 1 leads, 3 has missed everything up to the compaction. */
static void behind(void)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 20, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, 15);
}

static void catch_up(void)
{
    cluster_heal(&c);
    cluster_tick(&c, 12);
}

Test(raft_snapshot, a_peer_below_the_log_gets_one_and_goes_on)
{
    behind();
    catch_up();
    cr_assert_eq(c.delivered[NH_MSG_INSTALL_SNAPSHOT], 1);
    cr_assert_eq(c.nodes[3].base, 22);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_REPLICATE);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cr_assert(cluster_agrees(&c));
    cluster_crash(&c, 3);
    cluster_restart(&c, 3);
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c), "its log begins with the snapshot after a restart too");
    cluster_deinit(&c);
}

/* Statement 65. */
Test(raft_snapshot, is_not_sent_to_the_silent)
{
    behind();
    c.cut[3][1] = c.cut[3][2] = true;
    c.cut[1][3] = false;
    cluster_tick(&c, 25);
    cr_assert_eq(c.delivered[NH_MSG_INSTALL_SNAPSHOT], 0);
    cluster_deinit(&c);
}

/* What a snapshot commits is known when a restart would know it: a leader that was taken out counts on that (statement 55). */
Test(raft_snapshot, what_it_commits_is_known_when_it_is_saved)
{
    behind();
    cluster_heal(&c);
    c.nodes[3].hold_saves = true;
    cluster_tick(&c, 12);
    cr_assert_geq(cluster_status(&c, 3).commit_index, 22);
    cr_assert_leq(raft_peer(c.nodes[1].core, 3)->known_commit, 2);
    c.nodes[3].hold_saves = false;
    cluster_tick(&c, 3);
    cr_assert_geq(raft_peer(c.nodes[1].core, 3)->known_commit, 22);
    cluster_deinit(&c);
}

static void expect_pending(uint64_t index)
{
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_SNAPSHOT);
    cr_assert_eq(cluster_peer(&c, 1, 3).pending_snapshot, index);
    cr_assert(cluster_peer(&c, 1, 3).paused);
}

static bool lose_snapshots(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->type == NH_MSG_INSTALL_SNAPSHOT;
}

static bool lose_answers(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->type == NH_MSG_REPLICATE_RESP && m->from == 3 && !m->reject;
}

static void report(bool failed)
{
    struct raft_event ev = {.type = RAFT_EV_SNAPSHOT_STATUS, .status = {.peer = 3, .failed = failed}};

    cluster_step(&c, 1, &ev);
    cluster_settle(&c);
}

/* Statement 67: reported failed: probed again, after a sign of life, and so sent another one. */
Test(raft_snapshot, a_failed_one_is_sent_again)
{
    behind();
    cluster_heal(&c);
    c.lose = lose_snapshots;
    cluster_tick(&c, 12);
    expect_pending(22);
    report(true);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, cluster_peer(&c, 1, 3).match + 1);
    cr_assert(cluster_peer(&c, 1, 3).paused);
    c.lose = NULL;
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

static uint32_t ticks_until_sent(void)
{
    uint32_t ticks = 0;

    for (; cluster_peer(&c, 1, 3).state != RAFT_SNAPSHOT; ticks++) {
        cr_assert_lt(ticks, 1000);
        cluster_tick(&c, 1);
    }
    return ticks;
}

/* A damaged image was sent again with each heartbeat, for ever. */
Test(raft_snapshot, what_fails_again_waits_longer_each_time)
{
    static const uint32_t waits[] = {0, 10, 20, 40, 80, 160, 320, 640, 640};

    behind();
    cluster_heal(&c);
    c.lose = lose_snapshots;
    cluster_tick(&c, 12);
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        uint32_t ticks;

        expect_pending(22);
        report(true);
        ticks = ticks_until_sent();
        cr_assert(ticks >= waits[i] && ticks <= waits[i] + 2, "failure %zu: %u", i + 1, ticks);
    }
    report(false); /* it arrived, and what fails later is a first failure again */
    c.lose = NULL;
    cluster_tick(&c, 3);
    cr_assert_eq(raft_peer(c.nodes[1].core, 3)->n_failed, 0);
    cluster_deinit(&c);
}

static void report_pruned(void)
{
    struct raft_event ev = {.type = RAFT_EV_SNAPSHOT_STATUS, .status = {.peer = 3, .failed = true, .pruned = true}};

    cluster_step(&c, 1, &ev);
    cluster_settle(&c);
}

/* Where images are made faster than connections, a peer waited up to 64 election timeouts, though nothing was wrong. */
Test(raft_snapshot, one_that_gave_way_to_a_newer_one_has_not_failed)
{
    behind();
    cluster_heal(&c);
    c.lose = lose_snapshots;
    cluster_tick(&c, 12);
    for (uint64_t newer = 27; newer <= 47; newer += 5) {
        cluster_propose(&c, 1, 5, 10);
        cluster_settle(&c);
        cluster_compact(&c, 1, newer - 7);
        report_pruned();
        cr_assert_leq(ticks_until_sent(), 2);
        expect_pending(newer);
    }
    report_pruned(); /* and there is no newer one */
    cr_assert_leq(ticks_until_sent(), 2);
    report_pruned();
    cr_assert_geq(ticks_until_sent(), 10, "what is only missing is no reason to ask for it all the time");
    cluster_deinit(&c);
}

/* Statement 67: finished: probed from the snapshot. And weakness 6 of other cores: the answer is lost, nobody reports; the peer's
 * heartbeat answers tell that it has arrived. */
Test(raft_snapshot, a_lost_answer_does_not_block_the_peer)
{
    behind();
    cluster_heal(&c);
    c.lose = lose_answers;
    cluster_tick(&c, 12);
    cr_assert_eq(c.nodes[3].base, 22);
    cr_assert_neq(cluster_peer(&c, 1, 3).state, RAFT_SNAPSHOT);
    c.lose = NULL;
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_REPLICATE);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

Test(raft_snapshot, a_finished_one_is_probed_from_its_end)
{
    behind();
    cluster_heal(&c);
    c.lose = lose_snapshots;
    cluster_tick(&c, 12);
    report(false);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 23);
    c.lose = NULL;
    cluster_tick(&c, 6); /* the report was wrong: the probe is refused, and another snapshot follows */
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statement 66: an acknowledgement that reaches the leader's first index ends the wait, even below the snapshot's. */
Test(raft_snapshot, a_lower_acknowledgement_resumes_streaming)
{
    struct nh_message m;

    behind();
    cluster_heal(&c);
    c.lose = lose_snapshots;
    cluster_tick(&c, 12);
    expect_pending(22);
    cluster_crash(&c, 3);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);
    m.log_index = 14;
    cluster_inject(&c, m);
    expect_pending(22);
    m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, 2);
    m.log_index = 15;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_REPLICATE);
    cr_assert_eq(cluster_peer(&c, 1, 3).match, 15);
    cluster_deinit(&c);
}

/* ---- the receiver ---- */

static struct nh_message snapshot(uint64_t term, uint64_t index, uint64_t log_term, const char *kinds)
{
    struct nh_message m = cluster_message(NH_MSG_INSTALL_SNAPSHOT, 2, 1, term);
    static struct nh_member members[CLUSTER_MAX];
    struct nh_snapshot s = {.shard_id = 7, .index = index, .term = log_term, .membership = {.members = members}};

    for (uint64_t id = 1; kinds[id - 1]; id++)
        if (kinds[id - 1] != '-')
            members[s.membership.n_members++] =
                (struct nh_member){.replica_id = id, .kind = kinds[id - 1] == 'w' ? NH_MEMBER_WITNESS : NH_MEMBER_VOTER};
    m.snapshot = xcalloc(1, sizeof *m.snapshot);
    nh_snapshot_copy(m.snapshot, &s);
    return m;
}

/* A follower with the log 1 1 2 2 2, commit 3. What a snapshot holds beyond it nobody here has seen: no ghosts' history. */
static void follower(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, (const uint64_t[]){1, 1, 2, 2, 2}, 5, (struct nh_state){.term = 2, .commit = 3}, 3);
    cluster_settle(&c);
}

/* Statement 62: at or below commit: answered with the commit index, nothing changed. */
Test(raft_snapshot, below_commit_it_is_only_answered)
{
    follower();
    cluster_inject(&c, snapshot(2, 3, 2, "vvv"));
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 3);
    cr_assert_eq(cluster_status(&c, 1).last_index, 5);
    cr_assert_eq(c.nodes[1].base, 0);
    cluster_deinit(&c);
}

/* Statement 63: the last entry is here with that term: only the commit index moves, the tail stays. */
Test(raft_snapshot, whose_end_is_in_the_log_moves_the_commit_index_alone)
{
    follower();
    cluster_inject(&c, snapshot(2, 4, 2, "vvv"));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 4);
    cr_assert_eq(cluster_status(&c, 1).last_index, 5);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 4);
    cluster_deinit(&c);
}

/* Statement 64. */
Test(raft_snapshot, of_others_is_ignored)
{
    uint64_t ignored;

    follower();
    ignored = cluster_status(&c, 1).ignored_messages;
    cluster_inject(&c, snapshot(3, 9, 3, "-vv"));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, ignored + 1);
    cr_assert_eq(cluster_status(&c, 1).last_index, 5);
    cluster_deinit(&c);
}

static void expect_ignored(const char *kinds, bool witness)
{
    struct nh_message m = snapshot(3, 9, 3, kinds);
    uint64_t ignored = cluster_status(&c, 1).ignored_messages;

    m.snapshot->witness = witness;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).ignored_messages, ignored + 1, "%s", kinds);
    cr_assert_eq(cluster_status(&c, 1).last_index, 5, "%s", kinds);
}

/* A voter would end with an empty machine. Nobody becomes a witness or was one, so the members in the snapshot tell what fits. */
Test(raft_snapshot, of_another_kind_of_replica_is_ignored)
{
    follower();
    expect_ignored("vvv", true);
    expect_ignored("wvv", false);
    cluster_deinit(&c);
}

/* Of an old term: answered with the newer one. */
Test(raft_snapshot, of_an_old_leader_is_refused)
{
    struct raft_options o = cluster_options();

    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, (const uint64_t[]){1, 1, 2}, 3, (struct nh_state){.term = 5, .commit = 1}, 1);
    cluster_inject(&c, snapshot(4, 9, 4, "vvv"));
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_NOOP, 2)->term, 5);
    cr_assert_eq(cluster_status(&c, 1).last_index, 3);
    cluster_deinit(&c);
}

/* Statements 10, 42, 43, 68: until it is durable nothing is acknowledged, handed out or stood for; saves in flight from before
 * vouch for nothing of the new log, and entries that follow it are saved with or after it. */
Test(raft_snapshot, nothing_rests_on_it_before_it_is_durable)
{
    struct nh_message m;

    behind();
    c.nodes[3].hold_saves = true;
    c.nodes[3].hold_applies = true;
    catch_up();
    cr_assert_eq(cluster_status(&c, 3).commit_index, 22);
    cr_assert_leq(cluster_status(&c, 3).applied_index, 2);
    cr_assert_eq(c.nodes[3].applies.n, 0);
    expect_pending(22);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_FOLLOWER);
    m = cluster_message(NH_MSG_REPLICATE, 1, 3, 2);
    m.log_index = 22;
    m.log_term = 2;
    m.commit = 22;
    cluster_inject(&c, m);
    c.nodes[3].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_peer(&c, 1, 3).match, 22);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_FOLLOWER, "it is not applied yet: a change may be in it");
    c.nodes[3].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 3).applied_index, 22);
    cluster_deinit(&c);
}

/* A crash between the arrival and the save leaves the old log. */
Test(raft_snapshot, a_crash_before_the_save_loses_it_whole)
{
    behind();
    c.nodes[3].hold_saves = true;
    catch_up();
    cluster_crash(&c, 3);
    c.nodes[3].hold_saves = false;
    cluster_restart(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).last_index, 2);
    cluster_tick(&c, 12);
    report(true); /* the host sees the connection break */
    cluster_tick(&c, 6);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statement 54: the configuration comes with it, joint or not. */
Test(raft_snapshot, brings_its_configuration)
{
    struct nh_member_change changes[] = {cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, 4),
                                         cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 5)};
    struct nh_member first = {.replica_id = 1};
    struct nh_membership before = {.members = &first, .n_members = 1};
    struct raft_event old = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = 1, .membership = &before}};

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_join(&c, 4);
    cluster_isolate(&c, 4, true);
    cluster_propose_changes(&c, 1, NH_TRANSITION_EXPLICIT, changes, 2);
    cluster_settle(&c);
    cluster_propose(&c, 1, 2, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_isolate(&c, 4, false);
    cluster_tick(&c, 12);
    cr_assert(cluster_status(&c, 4).joint);
    cluster_step(&c, 4, &old);
    cr_assert(cluster_status(&c, 4).joint, "a change from before it is old news");
    cr_assert_eq(c.nodes[4].membership.n_members, 5);
    /* Statement 57: the id is that of the last change, not the snapshot's index. */
    cr_assert_eq(c.nodes[4].membership.config_change_id, c.nodes[1].membership.config_change_id);
    cr_assert_lt(c.nodes[4].membership.config_change_id, c.nodes[4].snapshot.index);
    cluster_crash(&c, 4);
    cluster_restart(&c, 4);
    cr_assert(cluster_status(&c, 4).joint);
    cluster_deinit(&c);
}

/* Statement 34: a follower whose next entries were compacted while it was streaming gets a snapshot when it refuses. */
Test(raft_snapshot, compaction_behind_a_streaming_peer)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_crash(&c, 3);
    cluster_propose(&c, 1, 20, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, 20);
    cluster_compact(&c, 2, 20);
    cluster_restart(&c, 3);
    cluster_tick(&c, 12);
    cr_assert(cluster_agrees(&c));
    cr_assert_gt(c.delivered[NH_MSG_INSTALL_SNAPSHOT], 0);
    cluster_deinit(&c);
}

/* A compacted leader still knows the term at its anchor, so a peer that is just there needs no snapshot. */
Test(raft_snapshot, is_not_needed_at_the_anchor)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_propose(&c, 1, 2, 10);
    cluster_settle(&c);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    cluster_tick(&c, 60);
    cluster_propose(&c, cluster_leader(&c), 2, 10);
    cluster_settle(&c);
    cr_assert(cluster_agrees(&c));
    cr_assert_eq(c.delivered[NH_MSG_INSTALL_SNAPSHOT], 0);
    cluster_deinit(&c);
}

/* A snapshot of one's own that is older than the last, or compaction above what is applied, changes nothing. */
Test(raft_snapshot, old_ones_and_wrong_compactions_change_nothing)
{
    struct raft_event compacted = {.type = RAFT_EV_COMPACTED, .compacted = 1000};
    struct nh_snapshot old = {.index = 1, .term = 1};
    struct raft_event made = {.type = RAFT_EV_SNAPSHOT_MADE, .snapshot = &old};

    behind();
    cluster_step(&c, 1, &compacted);
    compacted.compacted = 3;
    cluster_step(&c, 1, &compacted);
    cr_assert_eq(cluster_status(&c, 1).first_index, 16);
    cluster_step(&c, 1, &made);
    cr_assert_eq(cluster_status(&c, 1).snapshot_index, 22);
    cluster_deinit(&c);
}

/* Made before the peer was added, it would be ignored there (statement 64): it is not sent, and another one is asked for. */
Test(raft_snapshot, that_does_not_list_the_peer_is_not_sent)
{
    struct raft_update out = {0};

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 5, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_join(&c, 4);
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cluster_tick(&c, 5);
    cr_assert_eq(c.delivered[NH_MSG_INSTALL_SNAPSHOT], 0);
    raft_collect(c.nodes[1].core, &out);
    cr_assert(out.snapshot_wanted);
    raft_update_deinit(&out);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_tick(&c, 5);
    cr_assert_eq(c.delivered[NH_MSG_INSTALL_SNAPSHOT], 1);
    cr_assert(cluster_agrees(&c));
    raft_collect(c.nodes[1].core, &out);
    cr_assert(!out.snapshot_wanted);
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

/* Statement 65, also when its entries are compacted while its window is full. */
Test(raft_snapshot, is_not_sent_to_one_that_fell_silent_while_streaming)
{
    struct raft_options o = cluster_options();

    o.max_inflight_messages = 1;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 3, true);
    for (int i = 0; i < 5; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_settle(&c);
    }
    cluster_tick(&c, 25);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_tick(&c, 3);
    cr_assert_neq(cluster_peer(&c, 1, 3).state, RAFT_SNAPSHOT);
    cluster_heal(&c);
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c));
    cr_assert_eq(c.delivered[NH_MSG_INSTALL_SNAPSHOT], 1);
    cluster_deinit(&c);
}

/* Statement 62: also when the log has forgotten the term there. */
Test(raft_snapshot, below_the_log_it_is_only_answered)
{
    follower();
    cluster_compact(&c, 1, 3);
    cluster_inject(&c, snapshot(2, 2, 1, "vvv"));
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 3);
    cr_assert_eq(cluster_status(&c, 1).last_index, 5);
    cr_assert_eq(cluster_status(&c, 1).snapshot_index, 3);
    cluster_deinit(&c);
}

/* Statement 42: nor is what follows it handed out, though it is committed. */
Test(raft_snapshot, what_follows_it_waits_for_it)
{
    behind();
    c.nodes[3].hold_saves = c.nodes[3].hold_applies = true;
    catch_up();
    expect_pending(22);
    c.nodes[1].hold_applies = true; /* it has the entries at hand for a probe */
    cluster_propose(&c, 1, 2, 10);
    cluster_settle(&c);
    report(false); /* the leader goes on after the snapshot */
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).commit_index, 24);
    cr_assert_eq(cluster_status(&c, 3).handed_index, 22);
    c.nodes[1].hold_applies = c.nodes[3].hold_saves = c.nodes[3].hold_applies = false;
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statements 39, 40: a save from before a received snapshot says nothing of the log that follows the snapshot. */
Test(raft_snapshot, older_saves_do_not_vouch_for_what_follows)
{
    uint64_t leader, last, term;
    struct nh_message m;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 3);
    cluster_isolate(&c, 3, true);
    c.nodes[3].hold_saves = true;
    cluster_propose(&c, 3, 40, 10);
    cluster_tick(&c, 80); /* another one leads */
    leader = cluster_leader(&c);
    cr_assert_neq(leader, 3);
    cluster_propose(&c, leader, 10, 10);
    cluster_settle(&c);
    cluster_compact(&c, leader, c.nodes[leader].machine);
    last = c.nodes[leader].snapshot.index;
    term = cluster_status(&c, leader).term;
    m = cluster_message(NH_MSG_INSTALL_SNAPSHOT, leader, 3, term);
    m.snapshot = xcalloc(1, sizeof *m.snapshot);
    nh_snapshot_copy(m.snapshot, &c.nodes[leader].snapshot);
    cluster_inject(&c, m);
    m = cluster_message(NH_MSG_REPLICATE, leader, 3, term);
    m.log_index = last;
    m.log_term = term;
    cluster_add_entries(&m, (const uint64_t[]){term, term}, 2);
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 3).last_index, last + 2);
    cluster_save(&c, 3); /* the forty of the term before */
    cr_assert_eq(cluster_status(&c, 3).saved_index, last);
    cluster_deinit(&c);
}

/* Statement 44: a log that is compacted above the stored commit index is not refused at the next start: what is in a snapshot is
 * committed. */
Test(raft_snapshot, a_stored_commit_index_may_lag_behind_the_compaction)
{
    cluster_init(&c, 1, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 20, 10);
    cluster_settle(&c);
    cr_assert_lt(c.nodes[1].disk_state.commit, 20);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_crash(&c, 1);
    cluster_restart(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 22);
    cr_assert_eq(cluster_status(&c, 1).first_index, 23);
    cluster_deinit(&c);
}

/* What this replica had made itself meanwhile is older: the record that is being saved must not be taken away. */
Test(raft_snapshot, an_own_one_does_not_replace_an_unsaved_one)
{
    struct nh_snapshot own = {.index = 2, .term = 2};
    struct raft_event made = {.type = RAFT_EV_SNAPSHOT_MADE, .snapshot = &own};

    behind();
    c.nodes[3].hold_saves = true;
    catch_up();
    cr_assert_eq(cluster_status(&c, 3).snapshot_index, 22);
    cluster_step(&c, 3, &made);
    cr_assert_eq(cluster_status(&c, 3).snapshot_index, 22);
    c.nodes[3].hold_saves = false;
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* A crash would leave the old log, with nobody awake to bring the new one again. */
Test(raft_snapshot, its_receiver_stays_awake_until_it_is_saved)
{
    struct nh_message m = cluster_message(NH_MSG_QUIESCE, 1, 3, 2);

    behind();
    c.nodes[3].hold_saves = true;
    catch_up();
    m.log_index = m.commit = 22;
    m.log_term = 2;
    cluster_inject(&c, m);
    cr_assert(!cluster_status(&c, 3).quiesced);
    c.nodes[3].hold_saves = false;
    cluster_settle(&c);
    cluster_inject(&c, m);
    cr_assert(cluster_status(&c, 3).quiesced);
    cluster_deinit(&c);
}
