/* Quiet groups: how they fall asleep, what wakes them, and that nobody is left behind. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static struct raft_options quiet_options(void)
{
    struct raft_options o = cluster_options();

    o.quiesce = true;
    o.quiesce_ticks = 40;
    return o;
}

static void quiet_group(void)
{
    struct raft_options o = quiet_options();

    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_propose(&c, 1, 5, 10);
    cluster_settle(&c);
    cluster_tick(&c, 60);
    for (uint64_t id = 1; id <= 3; id++) {
        cr_assert(cluster_status(&c, id).quiesced, "replica %lu", (unsigned long)id);
        cr_assert_eq(raft_next_deadline(c.nodes[id].core), RAFT_NEVER);
    }
}

static uint32_t awake(void)
{
    uint32_t n = 0;

    for (uint64_t id = 1; id <= 3; id++)
        n += c.nodes[id].core && !cluster_status(&c, id).quiesced;
    return n;
}

static uint64_t messages(void)
{
    uint64_t n = 0;

    for (uint32_t t = 0; t < NH_MSG_TYPE_COUNT; t++)
        n += c.delivered[t];
    return n;
}

Test(raft_quiesce, an_idle_group_goes_quiet_and_sends_nothing)
{
    uint64_t before;

    quiet_group();
    before = messages();
    cluster_tick(&c, 1000);
    cr_assert_eq(messages(), before);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert_eq(awake(), 0);
    cluster_deinit(&c);
}

Test(raft_quiesce, it_is_off_unless_asked_for)
{
    cluster_init(&c, 3, NULL);
    cluster_elect(&c, 1);
    cluster_tick(&c, 1000);
    cr_assert_eq(awake(), 3);
    cluster_deinit(&c);
}

Test(raft_quiesce, it_waits_for_the_idle_time)
{
    struct raft_options o = quiet_options();

    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    for (int i = 0; i < 10; i++) {
        cluster_tick(&c, 30);
        cluster_propose(&c, 1, 1, 1);
        cluster_settle(&c);
        cr_assert_eq(awake(), 3);
    }
    cluster_tick(&c, 60);
    cr_assert_eq(awake(), 0);
    cluster_deinit(&c);
}

Test(raft_quiesce, a_proposal_at_the_leader_wakes_the_group)
{
    uint64_t key;

    quiet_group();
    key = cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    cr_assert_eq(awake(), 3);
    cr_assert_eq(cluster_applied_times(&c, 3, key), 1);
    cluster_tick(&c, 60);
    cr_assert_eq(awake(), 0, "and it falls asleep again");
    cluster_deinit(&c);
}

Test(raft_quiesce, a_request_at_a_follower_wakes_the_group)
{
    uint64_t key;

    quiet_group();
    key = cluster_propose(&c, 2, 1, 1);
    cluster_settle(&c);
    cr_assert_eq(awake(), 3);
    cr_assert_eq(cluster_applied_times(&c, 2, key), 1);
    cluster_tick(&c, 60);
    cr_assert_eq(awake(), 0);
    cluster_read(&c, 3);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[3].reads.n, 1);
    cluster_deinit(&c);
}

Test(raft_quiesce, a_request_at_a_follower_of_a_dead_leader_leads_to_an_election)
{
    quiet_group();
    cluster_crash(&c, 1);
    cluster_tick(&c, 200);
    cr_assert_eq(awake(), 0, "nobody notices");
    cluster_propose(&c, 2, 1, 1); /* forwarded to the dead */
    cluster_settle(&c);
    cluster_tick(&c, 40);
    cr_assert_neq(cluster_leader(&c), 0);
    cr_assert_eq(cluster_status(&c, 2).leader_id, cluster_leader(&c));
    cr_assert_eq(cluster_status(&c, 3).leader_id, cluster_leader(&c));
    cluster_deinit(&c);
}

Test(raft_quiesce, the_host_may_wake_a_replica)
{
    struct raft_event ev = {.type = RAFT_EV_WAKE};

    quiet_group();
    cluster_crash(&c, 1);
    cluster_step(&c, 2, &ev);
    cr_assert(!cluster_status(&c, 2).quiesced);
    cr_assert_lt(raft_next_deadline(c.nodes[2].core), c.now + 20);
    cluster_tick(&c, 60);
    cr_assert_neq(cluster_leader(&c), 0);
    cluster_deinit(&c);
}

/* A quiet follower that stands (the host woke it) wakes its quiet leader, whose heartbeat ends the candidacy. */
Test(raft_quiesce, a_campaign_of_a_quiet_follower_wakes_the_leader)
{
    uint64_t term;

    quiet_group();
    term = cluster_status(&c, 1).term;
    cluster_campaign(&c, 2);
    cluster_settle(&c);
    cr_assert(!cluster_status(&c, 1).quiesced);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert_eq(cluster_status(&c, 1).term, term);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_FOLLOWER);
    cluster_tick(&c, 30);
    cr_assert_eq(cluster_status(&c, 1).term, term);
    cluster_deinit(&c);
}

static bool is_quiesce_to_3(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->type == NH_MSG_QUIESCE && m->to == 3;
}

Test(raft_quiesce, a_lost_quiesce_costs_a_pre_vote_and_no_more)
{
    struct raft_options o = quiet_options();

    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.lose = is_quiesce_to_3;
    cluster_tick(&c, 51);
    cr_assert(cluster_status(&c, 1).quiesced);
    cr_assert(!cluster_status(&c, 3).quiesced);
    cluster_tick(&c, 30); /* 3 stands, the leader wakes */
    cr_assert(!cluster_status(&c, 1).quiesced);
    c.lose = NULL;
    cluster_tick(&c, 100);
    cr_assert_eq(awake(), 0);
    cr_assert_eq(cluster_status(&c, 1).term, 2);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_deinit(&c);
}

/* A dead member does not keep the others awake; when it returns it wakes them and catches up. */
Test(raft_quiesce, a_dead_member_does_not_keep_the_group_awake)
{
    struct raft_options o = quiet_options();

    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_crash(&c, 3);
    cluster_propose(&c, 1, 5, 10);
    cluster_settle(&c);
    cluster_tick(&c, 80);
    cr_assert_eq(awake(), 0);
    cluster_restart(&c, 3);
    cluster_tick(&c, 40);
    cr_assert(cluster_agrees(&c));
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_deinit(&c);
}

Test(raft_quiesce, without_an_active_quorum_nobody_goes_quiet)
{
    struct raft_options o = quiet_options();

    o.check_quorum = false;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    cluster_crash(&c, 2);
    cluster_crash(&c, 3);
    cluster_tick(&c, 200);
    cr_assert(!cluster_status(&c, 1).quiesced);
    cluster_deinit(&c);
}

Test(raft_quiesce, an_unreachable_peer_does_not_wake_a_quiet_leader)
{
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE, .peer = 2};

    quiet_group();
    cluster_step(&c, 1, &ev);
    cluster_settle(&c);
    cr_assert_eq(awake(), 0);
    cluster_propose(&c, 1, 1, 1);
    cluster_tick(&c, 3);
    cr_assert(cluster_agrees(&c), "after waking it is probed");
    cluster_deinit(&c);
}

static struct nh_message quiesce(uint64_t log_index, uint64_t log_term, uint64_t commit)
{
    struct nh_message m = cluster_message(NH_MSG_QUIESCE, 2, 1, 3);

    m.log_index = log_index;
    m.log_term = log_term;
    m.commit = commit;
    return m;
}

/* Replica 1, a follower of ghost 2 in term 3, with a log of these terms. */
static void follow_ghost(const uint64_t *terms, uint32_t n)
{
    cluster_init_ghosts(&c, 0, 3, NULL);
    cluster_boot_with(&c, 1, terms, n, (struct nh_state){.term = 3, .commit = 1}, 1);
    c.now += 20;
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3));
    cluster_settle(&c);
}

/* The last index alone says nothing: this peer holds another entry there, and must not commit it. */
Test(raft_quiesce, a_log_that_ends_in_another_term_stays_awake)
{
    follow_ghost((const uint64_t[]){1, 2}, 2);
    cluster_inject(&c, quiesce(2, 3, 2));
    cr_assert(!cluster_status(&c, 1).quiesced);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 1);
    cluster_inject(&c, quiesce(3, 3, 3));
    cr_assert(!cluster_status(&c, 1).quiesced);
    cluster_inject(&c, quiesce(2, 2, 2));
    cr_assert(cluster_status(&c, 1).quiesced);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cluster_deinit(&c);
}

Test(raft_quiesce, only_the_own_leader_of_this_term_can_quiet)
{
    struct nh_message m;

    follow_ghost((const uint64_t[]){1, 2}, 2);
    m = quiesce(2, 2, 2);
    m.from = 3;
    cluster_inject(&c, m);
    cr_assert(!cluster_status(&c, 1).quiesced, "3 does not lead");
    m = quiesce(2, 2, 2);
    m.term = 4;
    cluster_inject(&c, m);
    m = quiesce(2, 2, 3); /* commits above its own log */
    cluster_inject(&c, m);
    cr_assert(!cluster_status(&c, 1).quiesced);
    cr_assert_eq(cluster_status(&c, 1).term, 3);
    cluster_deinit(&c);
}

/* A request was forwarded a moment ago: should it be lost, this timer must run. */
Test(raft_quiesce, a_follower_with_a_fresh_request_stays_awake)
{
    follow_ghost((const uint64_t[]){1, 2}, 2);
    cluster_read(&c, 1);
    cluster_inject(&c, quiesce(2, 2, 2));
    cr_assert(!cluster_status(&c, 1).quiesced);
    c.now += 10;
    cluster_inject(&c, quiesce(2, 2, 2));
    cr_assert(cluster_status(&c, 1).quiesced);
    cluster_deinit(&c);
}

/* The grace of 2E: heartbeats that were on their way do not wake, later ones do; one with a read always does. */
Test(raft_quiesce, late_heartbeats_do_not_wake_within_the_grace)
{
    struct nh_message m;

    follow_ghost((const uint64_t[]){1, 2}, 2);
    cluster_inject(&c, quiesce(2, 2, 2));
    c.now += 20;
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3));
    cluster_inject(&c, quiesce(2, 2, 2));
    cr_assert(cluster_status(&c, 1).quiesced);
    c.now += 1;
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3));
    cr_assert(!cluster_status(&c, 1).quiesced);
    cluster_inject(&c, quiesce(2, 2, 2));
    cr_assert(!cluster_status(&c, 1).quiesced, "it has just woken");
    c.now += 10;
    cluster_inject(&c, quiesce(2, 2, 2));
    cr_assert(cluster_status(&c, 1).quiesced);
    m = cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3);
    m.hint = 1;
    cluster_inject(&c, m);
    cr_assert(!cluster_status(&c, 1).quiesced);
    cluster_deinit(&c);
}

Test(raft_quiesce, a_woken_leader_gives_its_peers_a_whole_window)
{
    uint64_t woken;

    quiet_group();
    cluster_tick(&c, 500);
    cluster_isolate(&c, 1, true);
    cluster_read(&c, 1);
    woken = c.now;
    cluster_settle(&c);
    cluster_tick(&c, 9);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_tick(&c, 1);
    cr_assert_neq(cluster_status(&c, 1).role, RAFT_LEADER, "since %lu", (unsigned long)woken);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cluster_deinit(&c);
}

Test(raft_quiesce, a_single_voter_goes_quiet_and_wakes)
{
    struct raft_options o = quiet_options();

    cluster_init(&c, 1, &o);
    cluster_elect(&c, 1);
    cluster_tick(&c, 60);
    cr_assert(cluster_status(&c, 1).quiesced);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 3);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 1142): a non-voting member missed that the group went quiet, and had no timer to wake it with. A
 * witness neither. They call when they hear nothing. */
Test(raft_quiesce, members_that_cannot_stand_wake_a_quiet_group_too)
{
    struct raft_options o = cluster_options();

    o.quiesce = true;
    cluster_init(&c, 4, &o);
    for (uint64_t id = 1; id <= 4; id++) {
        cluster_crash(&c, id);
        cluster_set_members(&c, id, "vvnw");
        cluster_restart(&c, id);
    }
    cluster_elect(&c, 1);
    for (uint64_t id = 3; id <= 4; id++) {
        cluster_crash(&c, id);
        cluster_tick(&c, 300);
        cr_assert(cluster_status(&c, 1).quiesced, "who is away does not keep the others awake");
        cluster_restart(&c, id);
        cluster_tick(&c, 25);
        cr_assert_eq(cluster_status(&c, id).leader_id, 1, "replica %u", (unsigned)id);
    }
    cluster_deinit(&c);
}

static bool lose_entries(const struct nh_message *m, void *ctx)
{
    (void)ctx;
    return m->type == NH_MSG_REPLICATE && m->to == 3;
}

/* A peer that answers but lags keeps the group awake; else it would sleep on an old log. */
Test(raft_quiesce, a_peer_that_lags_keeps_the_leader_awake)
{
    struct raft_options o = quiet_options();

    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.lose = lose_entries;
    cluster_propose(&c, 1, 5, 10);
    for (int i = 0; i < 100; i++) {
        cluster_tick(&c, 1);
        cr_assert_eq(awake(), 3, "tick %d", i);
    }
    c.lose = NULL;
    cluster_tick(&c, 100);
    cr_assert_eq(awake(), 0);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

/* What is not saved here would be missing after a crash, and nobody would be awake to notice. */
Test(raft_quiesce, a_follower_with_unsaved_entries_stays_awake)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, 3);

    follow_ghost((const uint64_t[]){1, 2}, 2);
    c.nodes[1].hold_saves = true;
    m.log_index = m.log_term = 2;
    cluster_add_entries(&m, (const uint64_t[]){3}, 1);
    cluster_inject(&c, m);
    c.now += 10;
    cluster_inject(&c, quiesce(3, 3, 3));
    cr_assert(!cluster_status(&c, 1).quiesced);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cluster_inject(&c, quiesce(3, 3, 3));
    cr_assert(cluster_status(&c, 1).quiesced);
    cluster_deinit(&c);
}

/* However long the sleep was: who wakes does not stand at once. */
Test(raft_quiesce, a_woken_follower_waits_for_its_leader)
{
    struct raft_event wake = {.type = RAFT_EV_WAKE};

    quiet_group();
    cluster_tick(&c, 1000);
    cluster_step(&c, 2, &wake);
    cr_assert_geq(raft_next_deadline(c.nodes[2].core), c.now + 10);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 72663): a replica that joins knows nobody whom it could call. It was started when its group was
 * quiet, and nobody noticed. A quiet leader looks after members that are behind. */
Test(raft_quiesce, a_quiet_leader_looks_after_members_that_are_behind)
{
    struct nh_config_change add = {.type = NH_CONFIG_ADD_MEMBER};
    struct raft_options o = cluster_options();

    o.quiesce = true;
    o.quiesce_ticks = 100;
    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    add.member = cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 4).member;
    cluster_propose_config(&c, 1, &add);
    cluster_settle(&c);
    cluster_tick(&c, 300);
    cr_assert(cluster_status(&c, 1).quiesced, "it does not keep the others awake");
    c.delivered[NH_MSG_HEARTBEAT] = 0;
    cluster_tick(&c, 500);
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 5, "one heartbeat every quiesce_ticks, to nobody else");
    cluster_join(&c, 4);
    cluster_tick(&c, 130);
    cr_assert_eq(cluster_status(&c, 4).applied_index, cluster_status(&c, 1).applied_index);
    cluster_tick(&c, 300);
    cr_assert(cluster_status(&c, 1).quiesced && cluster_status(&c, 4).quiesced);
    cr_assert_eq(raft_next_deadline(c.nodes[1].core), RAFT_NEVER, "all are there: no timer");
    cluster_deinit(&c);
}

/* The first message to `to` in the network; it must be there. */
static void deliver_first_to(uint64_t to)
{
    for (size_t i = 0; i < c.network.n; i++)
        if (c.network.items[i].to == to) {
            cluster_deliver(&c, i);
            return;
        }
    cr_assert_fail("nothing for replica %lu", (unsigned long)to);
}

/* Who sleeps has last heard of its leader long ago, and that is no word against it: it is asked, too, and wakes. */
Test(raft_quiesce, a_sleeping_follower_does_not_help_to_replace_its_leader)
{
    struct raft_options o = quiet_options();
    struct raft_event campaign = {.type = RAFT_EV_CAMPAIGN};

    cluster_init(&c, 3, &o);
    cluster_elect(&c, 1);
    c.lose = is_quiesce_to_3;
    cluster_tick(&c, 51);
    c.lose = NULL;
    c.now += 12;
    cr_assert(cluster_status(&c, 2).quiesced);
    cluster_step(&c, 3, &campaign);
    deliver_first_to(2);
    cr_assert_eq(c.network.n, 1, "2 does not answer");
    cluster_settle(&c);
    cr_assert_eq(cluster_leader(&c), 1);
    cr_assert_eq(cluster_status(&c, 1).term, 2);
    cluster_crash(&c, 1);
    cluster_tick(&c, 40);
    cr_assert_neq(cluster_leader(&c), 0, "it does if the leader does not wake");
    cluster_deinit(&c);
}
