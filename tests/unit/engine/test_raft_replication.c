/* Log replication and the commit index. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static struct raft_options plain_options(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    return o;
}

/* Replica 1 with this log, ghosts 2 .. n. */
static void follower_with(const uint64_t *terms, uint32_t n_terms, uint64_t commit)
{
    struct raft_options o = plain_options();

    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, terms, n_terms, (struct nh_state){.term = n_terms ? terms[n_terms - 1] : 0, .commit = commit},
                      commit);
    cluster_settle(&c);
}

/* Replica 1 leads with ghost 2's vote; its log is `terms` and the empty entry of the new term. */
static void leader_with(const uint64_t *terms, uint32_t n_terms, uint64_t commit, const struct raft_options *options)
{
    struct raft_options o = options ? *options : plain_options();

    o.pre_vote = false;
    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, terms, n_terms, (struct nh_state){.term = terms[n_terms - 1], .commit = commit}, commit);
    cluster_settle(&c);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, terms[n_terms - 1] + 1));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
}

static void answer(uint64_t from, uint64_t index)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, from, 1, cluster_status(&c, 1).term);

    m.log_index = index;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static void refuse(uint64_t from, uint64_t anchor, uint64_t hint, uint64_t hint_term)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, from, 1, cluster_status(&c, 1).term);

    m.reject = true;
    m.log_index = anchor;
    m.hint = hint;
    m.log_term = hint_term;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static void heartbeat_answer(uint64_t from)
{
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT_RESP, from, 1, cluster_status(&c, 1).term));
    cluster_settle(&c);
}

static struct nh_message replicate(uint64_t term, uint64_t anchor, uint64_t anchor_term, uint64_t commit)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, term);

    m.log_index = anchor;
    m.log_term = anchor_term;
    m.commit = commit;
    return m;
}

Test(raft_replication, a_proposal_is_applied_everywhere_once)
{
    uint64_t key;

    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    key = cluster_propose(&c, 1, 10, 100);
    cluster_settle(&c);
    cr_assert(cluster_agrees(&c));
    for (uint64_t id = 1; id <= 3; id++)
        for (uint64_t k = key; k < key + 10; k++)
            cr_assert_eq(cluster_applied_times(&c, id, k), 1);
    cluster_deinit(&c);
}

/* Paper, figure 7: a new leader of term 8 brings each of these followers to its own log. */
static void figure_7(const uint64_t *terms, uint32_t n)
{
    static const uint64_t leader[] = {1, 1, 1, 4, 4, 5, 5, 6, 6, 6};
    struct raft_options o = plain_options();

    cluster_init_ghosts(&c, 0, 3, &o);
    cluster_boot_with(&c, 1, leader, 10, (struct nh_state){.term = 7, .commit = 3}, 3);
    cluster_boot_with(&c, 2, terms, n, (struct nh_state){.term = 7, .commit = 3}, 3);
    /* A third that is the leader's equal, so that it is elected. */
    cluster_boot_with(&c, 3, leader, 10, (struct nh_state){.term = 7, .commit = 3}, 3);
    cluster_settle(&c);
    cluster_elect(&c, 1);
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c));
    cr_assert_eq(cluster_status(&c, 2).commit_index, 11);
    cr_assert_eq(raft_term_at(c.nodes[2].core, 11), 8);
    cluster_deinit(&c);
}

Test(raft_replication, figure_7_a_one_entry_short)
{
    figure_7((const uint64_t[]){1, 1, 1, 4, 4, 5, 5, 6, 6}, 9);
}
Test(raft_replication, figure_7_b_many_entries_short)
{
    figure_7((const uint64_t[]){1, 1, 1, 4}, 4);
}
Test(raft_replication, figure_7_c_one_entry_too_many)
{
    figure_7((const uint64_t[]){1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6}, 11);
}
Test(raft_replication, figure_7_d_entries_of_a_newer_term_too_many)
{
    figure_7((const uint64_t[]){1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, 12);
}
Test(raft_replication, figure_7_e_other_entries_and_short)
{
    figure_7((const uint64_t[]){1, 1, 1, 4, 4, 4, 4}, 7);
}
Test(raft_replication, figure_7_f_a_long_tail_of_other_terms)
{
    figure_7((const uint64_t[]){1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}, 11);
}

/* Statement 24, figure 8: an entry of an older term that a majority holds is not committed until one of the own term is. */
Test(raft_replication, old_entries_commit_only_with_one_of_the_own_term)
{
    leader_with((const uint64_t[]){1, 2}, 2, 1, NULL);
    cr_assert_eq(cluster_status(&c, 1).term, 3);
    answer(2, 2); /* a majority holds the entry of term 2 */
    cr_assert_eq(cluster_status(&c, 1).commit_index, 1);
    answer(2, 3); /* and now the empty entry of term 3 */
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cluster_deinit(&c);
}

static bool brings_term_4(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->n_runs > 0 && nh_run_term(&m->runs[m->n_runs - 1]) == 4;
}

/* Figure 8 as a story: entry 2 of term 2 gets onto a majority in term 4, is not committed, and is overwritten in term 5. */
Test(raft_replication, figure_8_an_entry_on_a_majority_is_overwritten)
{
    struct raft_options o = plain_options();
    struct nh_message m;

    cluster_init_ghosts(&c, 0, 5, &o);
    for (uint64_t id = 1; id <= 5; id++)
        cluster_boot_with(&c, id, id == 5 ? (const uint64_t[]){1, 3} : (const uint64_t[]){1, 2}, id == 3 || id == 4 ? 1 : 2,
                          (struct nh_state){.term = 3, .commit = 1}, 1);
    cluster_settle(&c);
    c.lose = brings_term_4; /* the empty entry of term 4 reaches nobody */
    cluster_isolate(&c, 5, true);
    cluster_elect(&c, 1);
    for (uint64_t id = 2; id <= 3; id++) {
        m = cluster_message(NH_MSG_REPLICATE, 1, id, 4);
        m.log_index = m.log_term = 1;
        cluster_add_entries(&m, (const uint64_t[]){2}, 1);
        cluster_inject(&c, m);
    }
    cluster_settle(&c);
    cr_assert_eq(cluster_peer(&c, 1, 2).match, 2);
    cr_assert_eq(cluster_peer(&c, 1, 3).match, 2);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 1);
    cluster_crash(&c, 1);
    cluster_heal(&c);
    cluster_inject(&c, cluster_message(NH_MSG_NOOP, 4, 5, 4)); /* 5 hears of term 4 */
    cluster_elect(&c, 5);
    cr_assert_eq(raft_term_at(c.nodes[3].core, 2), 3);
    cr_assert_eq(cluster_status(&c, 3).truncated_suffixes, 1);
    cluster_restart(&c, 1);
    cluster_tick(&c, 5);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* Statement 25: commit = min(commit, last index vouched for), not the own stale tail. */
Test(raft_replication, a_commit_index_never_covers_a_tail_that_was_not_vouched_for)
{
    follower_with((const uint64_t[]){1, 1, 2, 2}, 4, 1);
    cluster_inject(&c, replicate(5, 2, 1, 4));
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cr_assert_eq(cluster_status(&c, 1).last_index, 4);
    cluster_deinit(&c);
}

/* Statement 26: heartbeats carry no more than the follower is known to hold. */
Test(raft_replication, a_heartbeat_commits_no_more_than_the_peer_holds)
{
    leader_with((const uint64_t[]){1, 1, 1}, 3, 3, NULL);
    answer(2, 4);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 4);
    cluster_forget_sent(&c);
    cluster_tick(&c, 1);
    cr_assert_eq(cluster_sent(&c, NH_MSG_HEARTBEAT, 2)->commit, 4);
    cr_assert_eq(cluster_sent(&c, NH_MSG_HEARTBEAT, 3)->commit, 0);
    cluster_deinit(&c);
}

/* Statement 27: an append anchored below the commit index is answered with it, and changes nothing. */
Test(raft_replication, an_anchor_below_commit_is_answered_with_the_commit_index)
{
    struct nh_message m;

    follower_with((const uint64_t[]){1, 1, 1, 1}, 4, 3);
    m = replicate(1, 1, 1, 4);
    cluster_add_entries(&m, (const uint64_t[]){1}, 1);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 3);
    cr_assert(!cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->reject);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cluster_deinit(&c);
}

/* Statement 28: a delayed append that agrees does not cut a longer log; a conflict cuts from there, on disk too. */
Test(raft_replication, an_old_append_does_not_cut_and_a_conflict_does)
{
    struct nh_message m;

    follower_with((const uint64_t[]){1, 1, 1, 1}, 4, 1);
    m = replicate(1, 1, 1, 1);
    cluster_add_entries(&m, (const uint64_t[]){1}, 1);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).last_index, 4);
    m = replicate(2, 1, 1, 1);
    cluster_add_entries(&m, (const uint64_t[]){1, 2}, 2);
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).last_index, 3);
    cr_assert_eq(cluster_status(&c, 1).truncated_suffixes, 1);
    cr_assert_eq(c.nodes[1].disk.n, 3);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 2), 1);
    cr_assert_eq(raft_term_at(c.nodes[1].core, 3), 2);
    cluster_deinit(&c);
}

/* Statement 30: the follower hints its last index whose term is not above the anchor's. */
Test(raft_replication, a_refusal_hints_by_term)
{
    follower_with((const uint64_t[]){1, 2, 2, 2, 4, 4}, 6, 1);
    cluster_inject(&c, replicate(6, 6, 3, 1));
    cluster_settle(&c);
    cr_assert(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->reject);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_index, 6);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->hint, 4);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE_RESP, 2)->log_term, 2);
    cluster_deinit(&c);
}

/* ... and the leader skips what it has of higher terms: one probe a term. */
Test(raft_replication, a_leader_skips_entries_of_terms_above_the_hinted_one)
{
    leader_with((const uint64_t[]){1, 2, 4, 4, 4, 4}, 6, 1, NULL); /* the empty entry of term 5 is 7 */
    refuse(3, 6, 6, 3);                                            /* 3's log: terms up to 3 at index 6 */
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->log_index, 2);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->log_term, 2);
    cluster_deinit(&c);
}

Test(raft_replication, a_hint_below_the_first_index_is_no_term)
{
    leader_with((const uint64_t[]){1, 1, 1}, 3, 1, NULL);
    refuse(3, 3, 0, 0);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->log_index, 0);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->log_term, 0);
    cluster_deinit(&c);
}

Test(raft_replication, a_divergent_tail_of_many_entries_takes_few_probes)
{
    static uint64_t good[400], bad[400];
    struct raft_options o = plain_options();

    for (int i = 0; i < 400; i++) {
        good[i] = i < 10 ? 1 : 3;
        bad[i] = i < 10 ? 1 : 2;
    }
    cluster_init_ghosts(&c, 0, 3, &o);
    for (uint64_t id = 1; id <= 3; id++)
        cluster_boot_with(&c, id, id == 2 ? bad : good, 400, (struct nh_state){.term = 3, .commit = 10}, 10);
    cluster_settle(&c);
    cluster_elect(&c, 1);
    cr_assert(cluster_agrees(&c));
    cr_assert_leq(c.delivered[NH_MSG_REPLICATE], 12);
    cluster_deinit(&c);
}

/* Whoever accepts it, and however much is still under way. */
Test(raft_replication, what_a_majority_holds_is_committed_with_each_acceptance)
{
    leader_with((const uint64_t[]){1, 1, 1}, 3, 1, NULL);
    answer(2, 4);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    answer(2, 5);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 5);
    answer(3, 5); /* that is committed */
    cr_assert_eq(cluster_status(&c, 1).commit_index, 5);
    answer(3, 6);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 6);
    answer(2, 7);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 7);
    cluster_deinit(&c);
}

/* Statement 31: late, doubled and reordered answers never move `match` back, and only the answer to the last probe counts. */
Test(raft_replication, stale_answers_do_nothing)
{
    leader_with((const uint64_t[]){1, 1, 1}, 3, 1, NULL);
    answer(2, 4);
    answer(2, 2);
    cr_assert_eq(cluster_peer(&c, 1, 2).match, 4);
    refuse(2, 3, 1, 1); /* accepted since */
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_REPLICATE);
    cr_assert_eq(cluster_peer(&c, 1, 2).next, 5);
    refuse(3, 3, 2, 1); /* probes 2 now */
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 3);
    refuse(3, 3, 0, 0); /* the same again */
    cr_assert_eq(cluster_peer(&c, 1, 3).next, 3);
    cluster_deinit(&c);
}

Test(raft_replication, a_refusal_while_streaming_goes_back_to_what_is_known)
{
    leader_with((const uint64_t[]){1, 1, 1}, 3, 1, NULL);
    answer(2, 4);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_peer(&c, 1, 2).inflight_messages, 1);
    refuse(2, 7, 4, 2);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 2).next, 5);
    cr_assert_eq(cluster_peer(&c, 1, 2).inflight_bytes, 0);
    answer(2, 7);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_REPLICATE);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 7);
    cluster_deinit(&c);
}

Test(raft_replication, the_window_limits_messages)
{
    struct raft_options o = plain_options();

    o.max_inflight_messages = 3;
    leader_with((const uint64_t[]){1}, 1, 1, &o);
    answer(2, 2);
    cluster_forget_sent(&c);
    for (int i = 0; i < 5; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_settle(&c);
    }
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 3);
    cr_assert_eq(cluster_peer(&c, 1, 2).inflight_messages, 3);
    cr_assert(cluster_peer(&c, 1, 2).paused);
    answer(2, 3); /* frees one: the rest goes in one message */
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 4);
    cr_assert_eq(cluster_peer(&c, 1, 2).next, 8);
    cluster_deinit(&c);
}

Test(raft_replication, the_window_limits_bytes)
{
    struct raft_options o = plain_options();

    o.max_inflight_bytes = 2 * 48;
    leader_with((const uint64_t[]){1}, 1, 1, &o);
    answer(2, 2);
    for (int i = 0; i < 4; i++) {
        cluster_propose(&c, 1, 1, 8); /* 48 bytes encoded */
        cluster_settle(&c);
    }
    cr_assert_eq(cluster_peer(&c, 1, 2).inflight_bytes, 2 * 48);
    cr_assert(cluster_peer(&c, 1, 2).paused);
    answer(2, 4);
    cr_assert_eq(cluster_peer(&c, 1, 2).inflight_messages, 1);
    cr_assert_eq(cluster_peer(&c, 1, 2).next, 7);
    cluster_deinit(&c);
}

/* Statement 75: a message limit below one entry still moves one entry a message. */
Test(raft_replication, messages_are_split_and_hold_one_entry_at_least)
{
    struct raft_options o = plain_options();

    o.max_message_bytes = 1;
    leader_with((const uint64_t[]){1}, 1, 1, &o);
    answer(2, 2);
    cluster_forget_sent(&c);
    cluster_propose(&c, 1, 4, 8);
    cluster_settle(&c);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 4);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 2)->log_index, 5);
    cluster_deinit(&c);

    o.max_message_bytes = 2 * 48;
    leader_with((const uint64_t[]){1}, 1, 1, &o);
    answer(2, 2);
    cluster_forget_sent(&c);
    cluster_propose(&c, 1, 5, 8);
    cluster_settle(&c);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 3);
    cluster_deinit(&c);
}

Test(raft_replication, one_pass_is_one_message)
{
    leader_with((const uint64_t[]){1}, 1, 1, NULL);
    answer(2, 2);
    cluster_forget_sent(&c);
    cluster_propose(&c, 1, 100, 100);
    cluster_settle(&c);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 1);
    cluster_deinit(&c);
}

/* Statement 32: a full window of which all is lost is noticed by the answer to a heartbeat. */
Test(raft_replication, a_lost_window_is_noticed_by_a_heartbeat_answer)
{
    struct raft_options o = plain_options();

    o.max_inflight_messages = 2;
    leader_with((const uint64_t[]){1}, 1, 1, &o);
    answer(2, 2);
    for (int i = 0; i < 3; i++) {
        cluster_propose(&c, 1, 1, 10);
        cluster_settle(&c);
    }
    cluster_forget_sent(&c);
    heartbeat_answer(2);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 1);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 2)->n_runs, 0);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 2)->log_index, 4);
    refuse(2, 4, 2, 2);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 2)->log_index, 2, "and all of it goes again");
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 2)->n_runs, 3);
    cluster_deinit(&c);
}

/* Statement 33: a caught-up follower in probe streams again after it answered a heartbeat. */
Test(raft_replication, a_heartbeat_answer_brings_a_probed_peer_back)
{
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE, .peer = 2};

    leader_with((const uint64_t[]){1}, 1, 1, NULL);
    answer(2, 2);
    cluster_step(&c, 1, &ev);
    cluster_settle(&c);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_PROBE);
    cr_assert(cluster_peer(&c, 1, 2).paused);
    cluster_forget_sent(&c);
    heartbeat_answer(2);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 2)->log_index, 2);
    answer(2, 2);
    cr_assert_eq(cluster_peer(&c, 1, 2).state, RAFT_REPLICATE);
    cluster_deinit(&c);
}

Test(raft_replication, a_probe_is_not_repeated_without_an_answer)
{
    leader_with((const uint64_t[]){1}, 1, 1, NULL);
    cluster_propose(&c, 1, 1, 1);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 3), 1);
    cluster_deinit(&c);
}

/* A slow peer is not helped by the same entries with every heartbeat: asked again, it is asked without them. */
Test(raft_replication, a_probe_carries_its_entries_once)
{
    leader_with((const uint64_t[]){1}, 1, 1, NULL);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->n_runs, 1);
    for (int i = 0; i < 2; i++) {
        cluster_forget_sent(&c);
        heartbeat_answer(3);
        cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 3), 1);
        cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->log_index, 1);
        cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->n_runs, 0);
    }
    cluster_forget_sent(&c);
    answer(3, 1);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->n_runs, 1, "it lives, and lacks them");
    cluster_deinit(&c);
}

Test(raft_replication, a_moved_commit_index_is_told_once)
{
    leader_with((const uint64_t[]){1}, 1, 1, NULL);
    answer(2, 2);
    answer(3, 2);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    cluster_forget_sent(&c);
    answer(2, 3);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 2), 1);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 3), 1);
    cr_assert_eq(cluster_sent(&c, NH_MSG_REPLICATE, 3)->commit, 3);
    answer(3, 3);
    cr_assert_eq(cluster_count_sent(&c, NH_MSG_REPLICATE, 3), 1);
    cluster_deinit(&c);
}

Test(raft_replication, acceptances_of_one_pass_are_one_message)
{
    struct raft_update out = {0};

    follower_with((const uint64_t[]){1}, 1, 1);
    for (uint64_t i = 1; i <= 3; i++) {
        struct nh_message m = replicate(1, i, 1, 1);
        struct raft_event ev = {.type = RAFT_EV_MESSAGE, .now = c.now, .message = &m};

        cluster_add_entries(&m, (const uint64_t[]){1}, 1);
        raft_step(c.nodes[1].core, &ev, &out);
        nh_message_deinit(&m);
    }
    raft_collect(c.nodes[1].core, &out);
    cr_assert_eq(out.send_after_save.n, 1);
    cr_assert_eq(out.send_after_save.items[0].log_index, 4);
    cr_assert_eq(out.runs.n, 3);
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

/* Statement 3: in one pass an acceptance of an older term stays one of that term. */
Test(raft_replication, acceptances_of_two_terms_are_two_messages)
{
    struct raft_update out = {0};

    follower_with((const uint64_t[]){1}, 1, 1);
    for (uint64_t term = 2; term <= 3; term++) {
        struct nh_message m = replicate(term, term - 1, term - 1, 1);
        struct raft_event ev = {.type = RAFT_EV_MESSAGE, .now = c.now, .message = &m};

        cluster_add_entries(&m, &term, 1);
        raft_step(c.nodes[1].core, &ev, &out);
        nh_message_deinit(&m);
    }
    raft_collect(c.nodes[1].core, &out);
    cr_assert_eq(out.send_after_save.n, 2);
    for (uint64_t i = 0; i < 2; i++) {
        cr_assert_eq(out.send_after_save.items[i].term, 2 + i);
        cr_assert_eq(out.send_after_save.items[i].log_index, 2 + i);
    }
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

/* ---- what stays in memory ---- */

Test(raft_replication, applied_entries_stay_in_memory_for_an_active_peer_within_the_limit)
{
    struct raft_options o = plain_options();

    o.max_cached_bytes = 300;
    leader_with((const uint64_t[]){1}, 1, 1, &o);
    answer(2, 2);
    answer(3, 2);
    cluster_propose(&c, 1, 1, 8);
    cluster_settle(&c);
    answer(2, 3);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 3);
    cr_assert_eq(cluster_status(&c, 1).cached_first, 3, "peer 3 has not acknowledged it");
    for (int i = 0; i < 10; i++) {
        cluster_propose(&c, 1, 1, 8);
        cluster_settle(&c);
        answer(2, 4 + (uint64_t)i);
    }
    cr_assert_gt(cluster_status(&c, 1).cached_first, 4, "too much to keep");
    cluster_deinit(&c);
}

Test(raft_replication, a_follower_keeps_nothing_that_is_applied)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 10, 10);
    cluster_settle(&c);
    for (uint64_t id = 1; id <= 3; id++)
        cr_assert_eq(cluster_status(&c, id).cached_bytes, 0);
    cluster_deinit(&c);
}
