/* What is durable and when: saves in flight, their acknowledgement, applying, and restarts. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static struct raft_options plain_options(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    return o;
}

static void ghosts(void)
{
    struct raft_options o = plain_options();

    cluster_init_ghosts(&c, 1, 3, &o);
}

/* Ghost `from`, leader of `term`, sends entries of these terms after `anchor`. */
static void append(uint64_t from, uint64_t term, uint64_t anchor, uint64_t anchor_term, const uint64_t *terms, uint32_t n)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, from, 1, term);

    m.log_index = anchor;
    m.log_term = anchor_term;
    cluster_add_entries(&m, terms, n);
    cluster_inject(&c, m);
    cluster_settle(&c);
}

/* Term 5 is durable here, the vote for 2 is not yet: what is answered now could contradict it after a crash. */
Test(raft_saves, an_answer_waits_for_a_vote_in_the_same_term)
{
    ghosts();
    cluster_inject(&c, cluster_message(NH_MSG_NOOP, 3, 1, 5));
    cluster_settle(&c);
    c.nodes[1].hold_saves = true;
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
    cr_assert_eq(cluster_status(&c, 1).vote, 2);
    cluster_inject(&c, cluster_candidacy(NH_MSG_REQUEST_VOTE, 3, 5, 1, 1));
    cluster_settle(&c);
    cr_assert_eq(c.ghosts.n, 0);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cr_assert(!cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 2)->reject);
    cr_assert(cluster_sent(&c, NH_MSG_REQUEST_VOTE_RESP, 3)->reject);
    cluster_deinit(&c);
}

/* Statement 3 for entries: the acceptance leaves after the save that holds them. */
Test(raft_saves, an_acceptance_waits_for_its_save)
{
    ghosts();
    c.nodes[1].hold_saves = true;
    append(2, 2, 1, 1, (const uint64_t[]){2, 2}, 2);
    cr_assert_null(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2));
    cr_assert_eq(cluster_status(&c, 1).saved_index, 1);
    cluster_save(&c, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 3);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 3);
    cluster_deinit(&c);
}

Test(raft_saves, an_answer_that_needs_no_new_save_waits_for_those_in_flight)
{
    ghosts();
    c.nodes[1].hold_saves = true;
    append(2, 2, 1, 1, (const uint64_t[]){2}, 1);
    append(2, 2, 1, 1, (const uint64_t[]){2}, 1); /* doubled: nothing to save, but what it acknowledges is not durable */
    cr_assert_null(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2));
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE_RESP, 2), 2);
    cluster_deinit(&c);
}

/* The answer to a heartbeat promises nothing but its term: it waits only while that is not durable. */
Test(raft_saves, a_heartbeat_answer_waits_for_its_term_only)
{
    ghosts();
    c.nodes[1].hold_saves = true;
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_null(cluster_sent(&c, NH_MSG_HEARTBEAT_RESP, 2));
    cluster_save(&c, 1);
    append(2, 2, 1, 1, (const uint64_t[]){2}, 1);
    cluster_forget_sent(&c);
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_not_null(cluster_sent(&c, NH_MSG_HEARTBEAT_RESP, 2));
    cluster_deinit(&c);
}

/* Statement 39: given saves in flight W1 (term 1's entries), W2 (of term 2, over them), W3 (the same entries as W1, in
 * term 3), when W1 is acknowledged, then it frees nothing; when W3 is, the whole tail is saved. */
Test(raft_saves, an_acknowledged_save_of_an_overwritten_suffix_frees_nothing)
{
    ghosts();
    c.nodes[1].hold_saves = true;
    append(2, 2, 1, 1, (const uint64_t[]){2, 2, 2}, 3);
    append(3, 3, 1, 1, (const uint64_t[]){3, 3, 3}, 3);
    append(2, 4, 1, 1, (const uint64_t[]){2, 2, 2}, 3);
    cr_assert_eq(c.nodes[1].saves.n, 3);
    cr_assert_eq(cluster_status(&c, 1).truncated_suffixes, 2);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 1);
    cr_assert_eq(cluster_status(&c, 1).stale_saves, 1);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 1);
    cr_assert_eq(cluster_status(&c, 1).stale_saves, 2);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 4);
    cr_assert_eq(c.nodes[1].disk.n, 4);
    cluster_deinit(&c);
}

Test(raft_saves, a_partly_overwritten_save_vouches_for_the_rest)
{
    ghosts();
    c.nodes[1].hold_saves = true;
    append(2, 2, 1, 1, (const uint64_t[]){2, 2, 2}, 3);
    append(3, 3, 2, 2, (const uint64_t[]){3}, 1);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 2);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 3);
    cluster_deinit(&c);
}

/* An acceptance of entries that were cut while it waited still tells the old leader the truth of its term. */
Test(raft_saves, acceptances_keep_the_term_they_were_made_in)
{
    ghosts();
    c.nodes[1].hold_saves = true;
    append(2, 2, 1, 1, (const uint64_t[]){2, 2}, 2);
    append(3, 3, 1, 1, (const uint64_t[]){3}, 1);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->term, 2);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 3);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 3)->term, 3);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 3)->log_index, 2);
    cluster_deinit(&c);
}

Test(raft_saves, one_acknowledgement_covers_all_earlier_saves)
{
    struct raft_event ev = {.type = RAFT_EV_SAVED, .saved = 2};

    ghosts();
    c.nodes[1].hold_saves = true;
    append(2, 2, 1, 1, (const uint64_t[]){2}, 1);
    append(2, 2, 2, 2, (const uint64_t[]){2}, 1);
    cr_assert_eq(c.nodes[1].saves.n, 2);
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 3);
    cluster_step(&c, 1, &ev); /* twice does no harm */
    cr_assert_eq(cluster_status(&c, 1).saved_index, 3);
    cluster_deinit(&c);
}

/* Statement 35: a single voter hands an entry out only after the save that stores it. */
Test(raft_saves, a_single_voter_applies_only_what_is_saved)
{
    struct raft_options o = plain_options();

    cluster_init(&c, 1, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_saves = true;
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cr_assert_eq(cluster_status(&c, 1).handed_index, 2);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 5);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 5);
    cluster_deinit(&c);
}

/* Statement 36: followers alone may commit before the leader's own disk is done; here it is not applied until then. */
Test(raft_saves, followers_may_commit_before_the_leaders_own_save)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    c.nodes[1].hold_saves = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cr_assert_eq(cluster_status(&c, 1).saved_index, 2);
    cr_assert_eq(cluster_status(&c, 1).handed_index, 2);
    cluster_save(&c, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 3);
    cluster_deinit(&c);
}

Test(raft_saves, the_leaders_own_copy_counts_when_it_is_saved)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_isolate(&c, 3, true);
    c.nodes[1].hold_saves = true;
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_peer(&c, 1, 2).match, 3);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cluster_deinit(&c);
}

/* Statement 76: only entries, term or vote ask for a write; a moved commit index rides along or not at all. */
Test(raft_saves, a_moved_commit_index_alone_is_not_saved)
{
    struct nh_message m;

    ghosts();
    append(2, 2, 1, 1, (const uint64_t[]){2}, 1);
    cr_assert_eq(c.nodes[1].n_saves, 1);
    m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 2);
    m.commit = 2;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cr_assert_eq(c.nodes[1].n_saves, 1);
    cr_assert_eq(c.nodes[1].disk_state.commit, 1);
    append(2, 2, 2, 2, (const uint64_t[]){2}, 1);
    cr_assert_eq(c.nodes[1].disk_state.commit, 2, "with the next entries");
    cluster_deinit(&c);
}

Test(raft_saves, an_unchanged_state_is_not_saved_again)
{
    struct raft_update out = {0};
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, 2);
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &m};

    ghosts();
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 2));
    cluster_settle(&c);
    m.log_index = m.log_term = 1;
    cluster_add_entries(&m, (const uint64_t[]){2}, 1);
    raft_step(c.nodes[1].core, &ev, &out);
    raft_collect(c.nodes[1].core, &out);
    cr_assert_neq(out.save_id, 0);
    cr_assert(out.must_sync);
    cr_assert(!out.has_state);
    cr_assert_eq(out.runs.n, 1);
    raft_update_deinit(&out);
    nh_message_deinit(&m);
    cluster_deinit(&c);
}

Test(raft_saves, nothing_is_collected_twice)
{
    struct raft_update out = {0};

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 1, 1);
    cr_assert(!raft_has_work(c.nodes[1].core));
    raft_collect(c.nodes[1].core, &out);
    cr_assert_eq(out.save_id, 0);
    cr_assert_eq(out.send.n + out.send_after_save.n + out.reads.n + out.dropped.n + out.fetches.n, 0);
    cr_assert_eq(out.apply_first, 0);
    cr_assert(!out.leader_changed);
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

/* ---- applying ---- */

/* Statement 41: the limit spans updates, the next range waits for what is outstanding. */
Test(raft_saves, applying_is_limited_by_outstanding_bytes)
{
    struct raft_options o = plain_options();

    o.max_apply_bytes = 3 * 48;
    cluster_init(&c, 1, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose(&c, 1, 10, 8); /* 48 bytes each, encoded */
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 12);
    cr_assert_eq(cluster_status(&c, 1).handed_index, 5);
    cr_assert(!raft_has_work(c.nodes[1].core));
    cluster_apply(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).handed_index, 8);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 12);
    cluster_deinit(&c);
}

Test(raft_saves, one_entry_above_the_limit_is_applied_alone)
{
    struct raft_options o = plain_options();

    o.max_apply_bytes = 50;
    cluster_init(&c, 1, &o);
    cluster_elect(&c, 1);
    c.nodes[1].hold_applies = true;
    cluster_propose(&c, 1, 2, 1000);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).handed_index, 3);
    cluster_apply(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).handed_index, 4);
    cluster_deinit(&c);
}

/* ---- restart ---- */

Test(raft_saves, a_restart_applies_the_stored_log_from_the_store)
{
    static uint64_t terms[5000];

    for (int i = 0; i < 5000; i++)
        terms[i] = 1;
    cluster_init_ghosts(&c, 0, 3, NULL);
    c.nodes[1].hold_applies = true;
    cluster_boot_with(&c, 1, terms, 5000, (struct nh_state){.term = 1, .commit = 5000}, 10);
    cr_assert_eq(c.nodes[1].applies.n, 1);
    cr_assert_eq(c.nodes[1].applies.items[0].first, 11);
    cr_assert_eq(c.nodes[1].applies.items[0].last, 10 + 4096, "limited by number, because sizes are not known");
    cr_assert(!raft_has_work(c.nodes[1].core));
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 5000);
    cluster_deinit(&c);
}

Test(raft_saves, a_range_to_apply_never_mixes_stored_and_cached_entries)
{
    static uint64_t terms[] = {1, 1, 1, 1};

    cluster_init_ghosts(&c, 0, 3, NULL);
    c.nodes[1].hold_applies = true;
    cluster_boot_with(&c, 1, terms, 4, (struct nh_state){.term = 1, .commit = 1}, 1);
    append(2, 2, 4, 1, (const uint64_t[]){2, 2}, 2);
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 2);
    m.commit = 6;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].applies.items[0].first, 2);
    cr_assert_eq(c.nodes[1].applies.items[0].last, 4);
    cr_assert_eq(c.nodes[1].applies.items[1].first, 5);
    cr_assert_eq(c.nodes[1].applies.items[1].last, 6);
    cluster_deinit(&c);
}

Test(raft_saves, a_crash_loses_what_was_not_saved_and_the_group_mends_it)
{
    uint64_t key;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = true;
    key = cluster_propose(&c, 1, 5, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cluster_crash(&c, 2);
    cluster_crash(&c, 3);
    c.nodes[2].hold_saves = c.nodes[3].hold_saves = false;
    cluster_restart(&c, 2);
    cluster_restart(&c, 3);
    cr_assert_eq(cluster_status(&c, 2).last_index, 2);
    cluster_tick(&c, 5);
    cr_assert(cluster_agrees(&c));
    cr_assert_eq(cluster_applied_times(&c, 3, key + 4), 1);
    cluster_deinit(&c);
}

/* Weakness 1 of the reference: a single voter whose stored commit index lags must not answer a read with it. */
Test(raft_saves, a_restarted_single_voter_recomputes_its_commit_index_before_it_answers)
{
    uint64_t ctx;

    cluster_init_ghosts(&c, 0, 1, NULL);
    cluster_boot_with(&c, 1, (const uint64_t[]){1, 1, 1, 1}, 4, (struct nh_state){.term = 1, .commit = 1}, 1);
    c.nodes[1].hold_saves = true;
    cluster_campaign(&c, 1);
    cluster_save(&c, 1); /* the vote: it leads, its first entry is not saved yet */
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    ctx = cluster_read(&c, 1);
    cr_assert_eq(c.nodes[1].reads.n, 0);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].reads.n, 1);
    cr_assert_eq(c.nodes[1].reads.items[0].low, ctx);
    cr_assert_eq(c.nodes[1].reads.items[0].index, 5);
    cluster_deinit(&c);
}

/* A save vouches for the term and vote that it holds, not for newer ones: who has not saved its vote yet does not lead. */
Test(raft_saves, an_older_save_does_not_vouch_for_a_newer_term)
{
    ghosts();
    c.nodes[1].hold_saves = true;
    append(2, 2, 1, 1, (const uint64_t[]){2}, 1);
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).term, 3);
    cluster_save(&c, 1); /* the entry, in term 2 */
    cluster_settle(&c);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 3));
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 3, 1, 3));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
    cluster_save(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_deinit(&c);
}
