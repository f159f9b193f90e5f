/* The adapter, loaded and driven: one walk through each thing that it offers. */
#include "tests/conformance/raft-core/smoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- elections and entries ---- */

static void test_replication(void)
{
    struct smoke s;

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    EXPECT(smoke_status(&s, 1).term == 1);
    smoke_put(&s, 1, 5);
    smoke_put(&s, 2, 1); /* forwarded */
    for (uint64_t id = 1; id <= 3; id++) {
        EXPECT(s.nodes[id].n_normal == 6);
        EXPECT(smoke_status(&s, id).lead == 1);
        EXPECT(smoke_same_logs(&s, 1, id));
    }
    EXPECT(smoke_status(&s, 1).applied == 7);
    smoke_deinit(&s);
}

static void test_timeout_can_be_fixed(void)
{
    struct smoke s;

    smoke_init(&s, 3, 3, NULL);
    EXPECT(api.set_election_timeout(s.nodes[2].node, 10) == RCT_OK);
    EXPECT(api.set_election_timeout(s.nodes[2].node, 20) == RCT_E_ARG);
    EXPECT(api.set_election_timeout(s.nodes[1].node, 19) == RCT_OK);
    EXPECT(api.set_election_timeout(s.nodes[3].node, 19) == RCT_OK);
    smoke_tick(&s, 9);
    EXPECT(smoke_status(&s, 2).role == RCT_FOLLOWER);
    smoke_tick(&s, 1);
    EXPECT(smoke_status(&s, 2).role == RCT_LEADER);
    smoke_deinit(&s);
}

static void test_single_voter(void)
{
    struct smoke s;

    smoke_init(&s, 1, 1, NULL);
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 1);
    EXPECT(s.nodes[1].n_normal == 1);
    smoke_deinit(&s);
}

static void test_proposals_are_refused(void)
{
    rct_config c = smoke_config();
    struct smoke s;

    smoke_init(&s, 2, 2, NULL);
    EXPECT(api.propose(s.nodes[1].node, (const uint8_t *)"x", 1) == RCT_E_DROPPED);
    EXPECT(api.read_index(s.nodes[1].node, (const uint8_t *)"x", 1) == RCT_E_DROPPED);
    smoke_deinit(&s);

    c.no_forwarding = 1;
    c.max_uncommitted_size = 10;
    smoke_init(&s, 2, 2, &c);
    smoke_elect(&s, 1);
    EXPECT(api.propose(s.nodes[2].node, (const uint8_t *)"x", 1) == RCT_E_DROPPED);
    EXPECT(api.propose(s.nodes[1].node, (const uint8_t *)"a long one, longer than ten", 27) == RCT_OK);
    EXPECT(api.propose(s.nodes[1].node, (const uint8_t *)"x", 1) == RCT_E_DROPPED);
    smoke_settle(&s);
    EXPECT(s.nodes[2].n_normal == 1);
    smoke_deinit(&s);
}

static void test_only_entries_and_votes_are_urgent(void)
{
    rct_entry e = {.term = 1, .index = 1, .len = 1, .data = (const uint8_t *)"x"};
    rct_msg app = {.type = RCT_MSG_APP, .from = 2, .to = 1, .term = 1, .ents = &e, .n_ents = 1};
    struct smoke s;
    rct_ready_t r;

    smoke_init(&s, 1, 3, NULL);
    EXPECT(api.step(s.nodes[1].node, &app) == RCT_OK);
    EXPECT(api.ready(s.nodes[1].node, &r) == RCT_OK && r.must_sync && r.has_hard && r.n_ents == 1 && r.n_committed == 0);
    EXPECT(api.store(s.nodes[1].node, &r.hard, r.ents, r.n_ents, NULL) == RCT_OK && api.advance(s.nodes[1].node) == RCT_OK);
    app.n_ents = 0;
    app.index = app.log_term = app.commit = 1;
    EXPECT(api.step(s.nodes[1].node, &app) == RCT_OK);
    EXPECT(api.ready(s.nodes[1].node, &r) == RCT_OK && !r.must_sync && r.has_hard && r.hard.commit == 1 && r.n_committed == 1);
    smoke_deinit(&s);
}

/* An empty node is fed a snapshot by a leader that has just compacted, as soon as it belongs to the configuration. */
static void test_a_node_out_of_thin_air(void)
{
    struct smoke s;

    smoke_init(&s, 1, 1, NULL);
    s.nodes[2].config = s.config;
    s.nodes[2].config.id = 2;
    s.nodes[2].node = api.new(&s.nodes[2].config, NULL);
    EXPECT(s.nodes[2].node);
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 3);
    EXPECT(api.propose_conf(s.nodes[1].node, &(rct_cc){.n = 1, .changes = &(rct_cc1){RCT_CC_ADD_VOTER, 2}}) == RCT_OK);
    smoke_pump(&s, 1);
    smoke_snapshot(&s, 1);
    smoke_tick(&s, 3);
    EXPECT(s.nodes[2].snapshot_index == 5 && smoke_status(&s, 2).applied == 5 && strcmp(s.nodes[2].conf, "1 2") == 0);
    smoke_put(&s, 1, 1);
    EXPECT(smoke_status(&s, 2).applied == 6 && smoke_status(&s, 1).commit == 6);
    smoke_deinit(&s);
}

/* ---- configurations ---- */

static void test_changes(void)
{
    struct smoke s;

    smoke_init(&s, 5, 3, NULL);
    smoke_elect(&s, 1);
    EXPECT(smoke_change(&s, 1, true, 0, "l4") == RCT_OK);
    EXPECT(strcmp(s.nodes[1].conf, "1 2 3 | 4") == 0);
    smoke_tick(&s, 2);
    EXPECT(strcmp(s.nodes[4].conf, "1 2 3 | 4") == 0); /* a new node has the log from its start */
    EXPECT(smoke_status(&s, 4).is_learner);
    EXPECT(smoke_change(&s, 1, true, 0, "v4") == RCT_OK);
    EXPECT(strcmp(s.nodes[4].conf, "1 2 3 4") == 0);
    /* joint, left by itself */
    EXPECT(smoke_change(&s, 1, false, RCT_TR_AUTO, "r2 v5 l3") == RCT_OK);
    smoke_tick(&s, 2);
    EXPECT(strcmp(s.nodes[1].conf, "1 4 5 | 3") == 0);
    EXPECT(strcmp(s.nodes[5].conf, "1 4 5 | 3") == 0);
    /* joint, left when told */
    EXPECT(smoke_change(&s, 4, false, RCT_TR_JOINT_EXPLICIT, "v3") == RCT_OK);
    EXPECT(strcmp(s.nodes[1].conf, "1 3 4 5 & 1 4 5") == 0);
    smoke_put(&s, 1, 1);
    EXPECT(smoke_change(&s, 1, false, 0, "r3") == RCT_OK); /* an empty entry */
    EXPECT(strcmp(s.nodes[1].conf, "1 3 4 5 & 1 4 5") == 0);
    EXPECT(smoke_change(&s, 1, false, 0, "") == RCT_OK);
    EXPECT(strcmp(s.nodes[3].conf, "1 3 4 5") == 0);
    /* an id returns */
    EXPECT(smoke_change(&s, 1, true, 0, "v2") == RCT_OK);
    smoke_tick(&s, 2);
    EXPECT(strcmp(s.nodes[2].conf, "1 2 3 4 5") == 0);
    smoke_deinit(&s);
}

static void test_pending_change_makes_an_empty_entry(void)
{
    rct_cc1 one = {RCT_CC_ADD_LEARNER, 4};
    rct_cc cc = {.v1 = 1, .n = 1, .changes = &one};
    struct smoke s;
    rct_entry log[8];
    char text[16];
    int n;

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    EXPECT(api.propose_conf(s.nodes[1].node, &cc) == RCT_OK);
    one.node = 5;
    EXPECT(api.propose_conf(s.nodes[1].node, &cc) == RCT_OK);
    n = api.log(s.nodes[1].node, 0, log, 8);
    EXPECT(n == 3 && log[1].type == RCT_ENT_CONF && log[2].type == RCT_ENT_NORMAL && log[2].len == 0);
    EXPECT(api.conf_text(&log[1], text, sizeof text) == 2 && strcmp(text, "l4") == 0);
    smoke_settle(&s);
    EXPECT(strcmp(s.nodes[2].conf, "1 2 3 | 4") == 0);
    smoke_deinit(&s);
}

static void test_removed_leader_leaves(void)
{
    rct_config c = smoke_config();
    struct smoke s;

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    EXPECT(smoke_change(&s, 1, true, 0, "r1") == RCT_OK);
    smoke_tick(&s, 2);
    EXPECT(smoke_status(&s, 1).role == RCT_FOLLOWER);
    smoke_elect(&s, 2);
    smoke_deinit(&s);

    c.stepdown_on_removal = 0;
    smoke_init(&s, 3, 3, &c);
    smoke_elect(&s, 1);
    EXPECT(smoke_change(&s, 1, true, 0, "r1") == RCT_OK);
    smoke_tick(&s, 2);
    EXPECT(smoke_status(&s, 1).role == RCT_LEADER);
    EXPECT(api.propose(s.nodes[1].node, (const uint8_t *)"x", 1) == RCT_E_DROPPED);
    smoke_deinit(&s);
}

/* ---- snapshots, restarts ---- */

static void test_snapshot(void)
{
    struct smoke s;
    rct_pr pr[3];

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 3);
    s.nodes[3].cut = true;
    smoke_put(&s, 1, 10);
    smoke_snapshot(&s, 1);
    EXPECT(smoke_status(&s, 1).first == smoke_status(&s, 1).applied + 1);
    EXPECT(api.compact(s.nodes[1].node, 2) == RCT_E_COMPACTED);
    s.nodes[3].cut = false;
    smoke_put(&s, 1, 2);
    smoke_tick(&s, 3);
    EXPECT(s.nodes[3].snapshot_index == 14);
    EXPECT(smoke_status(&s, 3).applied == smoke_status(&s, 1).applied);
    EXPECT(smoke_same_logs(&s, 3, 1));
    EXPECT(api.progress(s.nodes[1].node, pr, 3) == 3);
    EXPECT(pr[2].id == 3 && pr[2].state == RCT_PR_REPLICATE && pr[2].match == smoke_status(&s, 1).last);
    smoke_restart(&s, 3);
    smoke_put(&s, 1, 1);
    EXPECT(smoke_status(&s, 3).applied == smoke_status(&s, 1).applied);
    smoke_deinit(&s);
}

/* The vote is stored, the rest of the node is lost. */
static void test_restart_keeps_the_vote(void)
{
    rct_msg vote = {.type = RCT_MSG_VOTE, .from = 2, .to = 1, .term = 5};
    struct smoke s;

    smoke_init(&s, 1, 3, NULL);
    EXPECT(api.step(s.nodes[1].node, &vote) == RCT_OK);
    smoke_pump(&s, 1);
    EXPECT(smoke_status(&s, 1).vote == 2);
    s.nodes[1].node = api.restart(s.nodes[1].node, &s.nodes[1].config);
    EXPECT(s.nodes[1].node && smoke_status(&s, 1).vote == 2 && smoke_status(&s, 1).term == 5);
    vote.from = 3;
    EXPECT(api.step(s.nodes[1].node, &vote) == RCT_OK);
    smoke_pump(&s, 1);
    EXPECT(smoke_status(&s, 1).vote == 2);
    EXPECT(s.n == 2 && s.queue[0].reject == 0 && s.queue[1].reject == 1 && s.queue[1].type == RCT_MSG_VOTE_RESP);
    smoke_deinit(&s);
}

static void test_crash_loses_what_is_not_stored(void)
{
    rct_hard above = {.term = 9, .commit = 1000};
    struct smoke s;
    rct_status_t before, after;
    rct_ready_t ready;
    rct_node *again;

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 2);
    before = smoke_status(&s, 1);
    EXPECT(api.propose(s.nodes[1].node, (const uint8_t *)"lost", 4) == RCT_OK);
    EXPECT(api.ready(s.nodes[1].node, &ready) == RCT_OK && ready.n_ents == 1 && ready.must_sync);
    EXPECT(smoke_status(&s, 1).stable_last == before.last);
    smoke_restart(&s, 1);
    after = smoke_status(&s, 1);
    EXPECT(after.last == before.last && after.commit == before.commit && after.role == RCT_FOLLOWER);
    EXPECT(api.store(s.nodes[1].node, &above, NULL, 0, NULL) == RCT_OK);
    again = api.restart(s.nodes[1].node, &s.nodes[1].config);
    EXPECT(!again);
    smoke_deinit(&s);
}

static void boot_from_a_snapshot(uint64_t term)
{
    static const uint64_t ids[] = {1, 2};
    rct_snap boot = {.index = 10, .term = term, .conf = {.voters = ids, .n_voters = 2}};
    struct smoke s;

    memset(&s, 0, sizeof s);
    for (uint32_t id = 1; id <= 2; id++) {
        s.nodes[id].config = smoke_config();
        s.nodes[id].config.id = id;
        s.nodes[id].applied = 10;
        s.nodes[id].node = api.new(&s.nodes[id].config, &boot);
        EXPECT(s.nodes[id].node);
        EXPECT(smoke_status(&s, id).term == term - 1 && smoke_status(&s, id).first == 11 &&
               smoke_status(&s, id).last_term == term);
    }
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 1);
    EXPECT(smoke_status(&s, 2).applied == 12 && smoke_status(&s, 2).term == term);
    smoke_deinit(&s);
}

static void test_boot_from_a_snapshot(void)
{
    boot_from_a_snapshot(1);
    boot_from_a_snapshot(11);
}

/* ---- leaders ---- */

static void test_transfer(void)
{
    struct smoke s;

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    EXPECT(api.transfer(s.nodes[1].node, 2) == RCT_OK);
    EXPECT(smoke_status(&s, 1).transferee == 2);
    EXPECT(api.propose(s.nodes[1].node, (const uint8_t *)"x", 1) == RCT_E_DROPPED);
    smoke_settle(&s);
    EXPECT(smoke_status(&s, 2).role == RCT_LEADER);
    EXPECT(api.transfer(s.nodes[1].node, 3) == RCT_OK); /* by a follower */
    smoke_settle(&s);
    EXPECT(smoke_status(&s, 3).role == RCT_LEADER);
    smoke_deinit(&s);
}

static void test_forget_leader(void)
{
    rct_config c = smoke_config();
    struct smoke s;

    c.check_quorum = c.prevote = 1;
    smoke_init(&s, 3, 3, &c);
    smoke_elect(&s, 1);
    EXPECT(smoke_status(&s, 2).lead == 1);
    EXPECT(api.forget_leader(s.nodes[2].node) == RCT_OK && smoke_status(&s, 2).lead == 0);
    EXPECT(api.forget_leader(s.nodes[1].node) == RCT_OK && smoke_status(&s, 1).lead == 1);
    s.nodes[1].cut = true;
    smoke_elect(&s, 3);
    smoke_deinit(&s);
}

static void test_unreachable(void)
{
    struct smoke s;
    rct_pr pr[3];

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 1);
    EXPECT(api.progress(s.nodes[1].node, pr, 3) == 3 && pr[1].state == RCT_PR_REPLICATE);
    EXPECT(api.report_unreachable(s.nodes[1].node, 2) == RCT_OK);
    EXPECT(api.progress(s.nodes[1].node, pr, 3) == 3 && pr[1].state == RCT_PR_PROBE);
    smoke_tick(&s, 2);
    EXPECT(api.progress(s.nodes[1].node, pr, 3) == 3 && pr[1].state == RCT_PR_REPLICATE);
    EXPECT(api.report_snapshot(s.nodes[1].node, 2, 1) == RCT_OK);
    EXPECT(api.progress(s.nodes[2].node, pr, 3) == 0);
    smoke_deinit(&s);
}

static void test_check_quorum(void)
{
    rct_config c = smoke_config();
    struct smoke s;

    c.check_quorum = 1;
    smoke_init(&s, 3, 3, &c);
    smoke_elect(&s, 1);
    s.nodes[1].cut = true;
    smoke_tick(&s, 21);
    EXPECT(smoke_status(&s, 1).role != RCT_LEADER);
    smoke_deinit(&s);
}

/* ---- reads ---- */

static void test_reads(void)
{
    struct smoke s;

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 2);
    EXPECT(api.read_index(s.nodes[1].node, (const uint8_t *)"here", 4) == RCT_OK);
    smoke_pump(&s, 1);
    EXPECT(s.nodes[1].n_reads == 0);
    smoke_settle(&s);
    EXPECT(s.nodes[1].n_reads == 1 && s.nodes[1].read_index == 3 && strcmp(s.nodes[1].read_context, "here") == 0);
    EXPECT(api.read_index(s.nodes[2].node, (const uint8_t *)"there", 5) == RCT_OK);
    smoke_settle(&s);
    EXPECT(s.nodes[2].n_reads == 1 && s.nodes[2].read_index == 3 && strcmp(s.nodes[2].read_context, "there") == 0);
    smoke_deinit(&s);
}

static void test_lease_reads(void)
{
    rct_config c = smoke_config();
    struct smoke s;

    c.lease_read = 1;
    c.id = 1;
    EXPECT(!api.new(&c, NULL)); /* without check-quorum */
    c.check_quorum = 1;
    smoke_init(&s, 3, 3, &c);
    smoke_elect(&s, 1);
    smoke_tick(&s, 1);
    EXPECT(api.read_index(s.nodes[1].node, (const uint8_t *)"lease", 5) == RCT_OK);
    smoke_pump(&s, 1);
    EXPECT(s.nodes[1].n_reads == 1 && s.n == 0);
    smoke_deinit(&s);
}

/* ---- asynchronous storage ---- */

static rct_msg *take_work(struct smoke_node *node, uint32_t type)
{
    rct_ready_t ready;
    rct_msg *found = NULL;

    EXPECT(api.has_ready(node->node) == 1);
    EXPECT(api.ready(node->node, &ready) == RCT_OK);
    EXPECT(ready.n_ents == 0 && ready.n_committed == 0);
    for (uint64_t i = 0; i < ready.n_msgs; i++)
        if (ready.msgs[i].type == type) {
            EXPECT(!found);
            found = smoke_copy(&ready.msgs[i]);
        }
    EXPECT(found);
    return found;
}

static void finish_work(struct smoke_node *node, rct_msg *m)
{
    rct_hard hard = {m->term, m->vote, m->commit};

    if (m->type == RCT_MSG_STORAGE_APPEND)
        EXPECT(api.store(node->node, &hard, m->ents, m->n_ents, m->snap) == RCT_OK);
    for (uint64_t i = 0; i < m->n_resps; i++)
        if (m->resps[i].to == node->config.id)
            EXPECT(api.step(node->node, &m->resps[i]) == RCT_OK);
    smoke_drop(m);
}

static void test_async(void)
{
    rct_config c = smoke_config();
    struct smoke_node *node;
    struct smoke s;
    rct_msg *first, *second;

    c.async = 1;
    smoke_init(&s, 1, 1, &c);
    node = &s.nodes[1];
    EXPECT(api.campaign(node->node) == RCT_OK);
    finish_work(node, take_work(node, RCT_MSG_STORAGE_APPEND)); /* its vote */
    EXPECT(smoke_status(&s, 1).role == RCT_LEADER);
    first = take_work(node, RCT_MSG_STORAGE_APPEND);
    EXPECT(first->n_ents == 1 && first->to == RCT_APPEND_THREAD);
    EXPECT(api.propose(node->node, (const uint8_t *)"x", 1) == RCT_OK);
    second = take_work(node, RCT_MSG_STORAGE_APPEND);
    EXPECT(second->n_ents == 1 && second->ents[0].index == 2 && smoke_status(&s, 1).commit == 0);
    finish_work(node, first);
    EXPECT(smoke_status(&s, 1).commit == 1 && smoke_status(&s, 1).stable_last == 1);
    finish_work(node, second);
    EXPECT(smoke_status(&s, 1).commit == 2 && smoke_status(&s, 1).applied == 0);
    first = take_work(node, RCT_MSG_STORAGE_APPLY);
    EXPECT(first->n_ents == 2);
    finish_work(node, first);
    EXPECT(smoke_status(&s, 1).applied == 2);
    smoke_deinit(&s);
}

/* A follower answers only when its write is done. */
static void test_async_follower(void)
{
    rct_config c = smoke_config();
    rct_entry e = {.term = 1, .index = 1, .len = 1, .data = (const uint8_t *)"x"};
    rct_msg app = {.type = RCT_MSG_APP, .from = 2, .to = 1, .term = 1, .ents = &e, .n_ents = 1, .commit = 1};
    struct smoke s;
    rct_msg *work;

    c.async = 1;
    smoke_init(&s, 1, 3, &c);
    EXPECT(api.step(s.nodes[1].node, &app) == RCT_OK);
    work = take_work(&s.nodes[1], RCT_MSG_STORAGE_APPEND);
    EXPECT(work->n_resps == 2 && work->resps[0].type == RCT_MSG_APP_RESP && work->resps[0].index == 1);
    EXPECT(work->resps[1].type == RCT_MSG_STORAGE_APPEND_RESP && work->resps[1].from == RCT_APPEND_THREAD);
    finish_work(&s.nodes[1], work);
    finish_work(&s.nodes[1], take_work(&s.nodes[1], RCT_MSG_STORAGE_APPLY));
    EXPECT(smoke_status(&s, 1).applied == 1);
    smoke_deinit(&s);
}

/* ---- what nobody should send ---- */

static void test_hostile(void)
{
    static const uint64_t numbers[] = {0, 1, 2, 5, UINT64_MAX - 1, UINT64_MAX};
    struct smoke s;
    rct_status_t before;
    rct_entry e[2] = {{.term = 1, .index = 2, .len = 1, .data = (const uint8_t *)"x"}};
    rct_snap snap = {.index = UINT64_MAX, .term = 1};
    rct_msg m;

    smoke_init(&s, 3, 3, NULL);
    smoke_elect(&s, 1);
    smoke_put(&s, 1, 3);
    m = (rct_msg){.type = RCT_MSG_APP_RESP, .from = 9, .to = 1, .term = 1};
    EXPECT(api.step(s.nodes[1].node, &m) == RCT_E_NO_PEER);
    m.type = RCT_MSG_STORAGE_APPEND;
    EXPECT(api.step(s.nodes[1].node, &m) == RCT_E_LOCAL);
    m.type = RCT_MSG_STORAGE_APPLY_RESP;
    EXPECT(api.step(s.nodes[1].node, &m) == RCT_E_LOCAL);
    m.type = 77;
    EXPECT(api.step(s.nodes[1].node, &m) == RCT_E_ARG);
    before = smoke_status(&s, 2);
    for (uint32_t type = RCT_MSG_APP; type <= RCT_MSG_FORGET_LEADER; type++)
        for (uint32_t k = 0; k < 6 * 6 * 6 * 4; k++) {
            m = (rct_msg){.type = type, .from = k % 3 + 1, .to = 2, .term = 1, .index = numbers[k % 6]};
            m.log_term = numbers[k / 6 % 6];
            m.commit = numbers[k / 36 % 6] == 2 ? 0 : numbers[k / 36 % 6];
            m.hint = numbers[(k + 1) % 6];
            e[0].index = e[1].index = numbers[(k + 2) % 6];
            e[1].term = k / 216 * 7;
            m.ents = k / 216 % 2 ? e : NULL;
            m.n_ents = m.ents ? 2 : 0;
            m.snap = type == RCT_MSG_SNAP && k % 2 ? &snap : NULL;
            m.reject = k / 216 > 1;
            (void)api.step(s.nodes[2].node, &m);
        }
    EXPECT(smoke_status(&s, 2).commit >= before.commit);
    smoke_deinit(&s);
}

/* Old answers of the storage threads do not count after a restart. */
static void test_stale_storage_answers(void)
{
    rct_config c = smoke_config();
    struct smoke s;
    rct_msg *old;

    c.async = 1;
    smoke_init(&s, 1, 1, &c);
    EXPECT(api.campaign(s.nodes[1].node) == RCT_OK);
    old = take_work(&s.nodes[1], RCT_MSG_STORAGE_APPEND);
    s.nodes[1].node = api.restart(s.nodes[1].node, &s.nodes[1].config);
    EXPECT(s.nodes[1].node);
    EXPECT(api.campaign(s.nodes[1].node) == RCT_OK);
    EXPECT(api.step(s.nodes[1].node, &old->resps[0]) == RCT_OK);
    EXPECT(smoke_status(&s, 1).role == RCT_CANDIDATE);
    smoke_drop(old);
    smoke_deinit(&s);
}

static void test_chaos(void)
{
    const char *seed = getenv("NH_SEED"), *n = getenv("NH_SEEDS");

    smoke_chaos(seed ? strtoull(seed, NULL, 10) : 1, n ? strtoull(n, NULL, 10) : 20);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"pure functions", smoke_pure},
    {"replication", test_replication},
    {"a fixed timeout", test_timeout_can_be_fixed},
    {"a single voter", test_single_voter},
    {"refused proposals", test_proposals_are_refused},
    {"urgent writes", test_only_entries_and_votes_are_urgent},
    {"a node out of thin air", test_a_node_out_of_thin_air},
    {"configuration changes", test_changes},
    {"a pending change", test_pending_change_makes_an_empty_entry},
    {"a removed leader", test_removed_leader_leaves},
    {"a snapshot", test_snapshot},
    {"a vote over a restart", test_restart_keeps_the_vote},
    {"a crash", test_crash_loses_what_is_not_stored},
    {"boot from a snapshot", test_boot_from_a_snapshot},
    {"transfer", test_transfer},
    {"forgetting the leader", test_forget_leader},
    {"unreachable", test_unreachable},
    {"check-quorum", test_check_quorum},
    {"reads", test_reads},
    {"lease reads", test_lease_reads},
    {"asynchronous storage", test_async},
    {"an asynchronous follower", test_async_follower},
    {"hostile messages", test_hostile},
    {"stale storage answers", test_stale_storage_answers},
    {"random walks", test_chaos},
};

int main(int argc, char **argv)
{
    EXPECT(argc == 2 || argc == 3);
    smoke_load(argv[1]);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (argc == 3 && strcmp(argv[2], tests[i].name) != 0)
            continue;
        (void)printf("%s\n", tests[i].name);
        (void)fflush(stdout);
        tests[i].run();
    }
    return 0;
}
