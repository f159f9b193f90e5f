/* What keeps a replica of an idle group awake: whatever is not done yet, at a leader and at a follower. */
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

/* ---- a leader ---- */

static void answer_heartbeat(uint64_t from, uint64_t round, uint64_t commit)
{
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT_RESP, from, 1, 2);

    m.hint = round;
    m.commit = commit;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

/* The ghost holds the whole log. */
static void accept_all(uint64_t from)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, from, 1, 2);

    m.log_index = cluster_status(&c, 1).last_index;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

/* Both ghosts answer all heartbeats, and know what is committed; a quiet leader sends none. */
static void pass_time(uint32_t ticks)
{
    for (uint32_t i = 0; i < ticks; i++) {
        cluster_tick(&c, 1);
        for (uint64_t id = 2; id <= 3 && !cluster_status(&c, 1).quiesced; id++)
            answer_heartbeat(id, 0, cluster_status(&c, 1).commit_index);
    }
}

static bool leader_is_quiet(void)
{
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    return cluster_status(&c, 1).quiesced;
}

/* Replica 1 leads the ghosts 2 and 3 in term 2, since tick 0: its quorum windows end at 10, 20, ... */
static void lead_ghosts(const struct raft_options *options)
{
    struct raft_options o = options ? *options : quiet_options();

    o.pre_vote = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    accept_all(2);
    accept_all(3);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 2);
    cr_assert(!leader_is_quiet());
}

Test(raft_awake, a_read_that_nobody_confirms)
{
    lead_ghosts(NULL);
    cluster_read(&c, 1);
    pass_time(100);
    cr_assert(!leader_is_quiet());
    answer_heartbeat(2, 1, 2);
    cr_assert_eq(c.nodes[1].reads.n, 1);
    pass_time(60);
    cr_assert(leader_is_quiet());
    cluster_deinit(&c);
}

/* Who stays may need it, as long as it leads. */
Test(raft_awake, its_own_removal)
{
    struct raft_options o = quiet_options();

    o.lead_when_removed = true;
    lead_ghosts(&o);
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    accept_all(2);
    accept_all(3);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 3);
    pass_time(100);
    cr_assert(!leader_is_quiet());
    cluster_deinit(&c);
}

/* A wish of ghost 2, which does not stand although it is told to. */
Test(raft_awake, a_transfer_under_way)
{
    struct nh_message m = cluster_message(NH_MSG_LEADER_TRANSFER, 2, 1, 2);
    struct raft_options o = quiet_options();

    o.quiesce_ticks = 3;
    lead_ghosts(&o);
    pass_time(5);
    m.hint = 2;
    m.hint_high = 9;
    cluster_inject(&c, m);
    cr_assert_eq(cluster_status(&c, 1).transferee, 2);
    pass_time(6);
    cr_assert(!leader_is_quiet());
    cr_assert_eq(cluster_status(&c, 1).transferee, 2);
    pass_time(10);
    cr_assert(leader_is_quiet(), "it came to nothing");
    cluster_deinit(&c);
}

/* Who waits for the end of a transfer is told it, also when the leader has given up long ago. */
Test(raft_awake, a_transfer_that_somebody_waits_for)
{
    struct raft_options o = quiet_options();

    o.quiesce_ticks = 3;
    lead_ghosts(&o);
    pass_time(5);
    cluster_transfer(&c, 1, 2);
    pass_time(16);
    cr_assert_eq(cluster_status(&c, 1).transferee, 0);
    cr_assert(!leader_is_quiet());
    pass_time(4);
    cr_assert_eq(c.nodes[1].transfers.n, 1);
    cr_assert_eq(c.nodes[1].transfers.items[0].code, RAFT_TRANSFER_TIMED_OUT);
    pass_time(6);
    cr_assert(leader_is_quiet());
    cluster_deinit(&c);
}

/* The joint configuration is applied in the same pass in which the leader would find itself idle: it is left first. */
Test(raft_awake, a_joint_configuration_that_is_to_be_left)
{
    struct nh_member_change demote[] = {cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 3)};
    struct nh_config_change many = {.type = NH_CONFIG_CHANGE_MANY,
                                    .transition = NH_TRANSITION_AUTO,
                                    .n_changes = 1,
                                    .changes = demote};
    struct nh_member members[] = {{.replica_id = 1, .outgoing = true},
                                  {.replica_id = 2, .outgoing = true},
                                  {.replica_id = 3, .kind = NH_MEMBER_NON_VOTING, .outgoing = true}};
    struct nh_membership joint = {.joint = true, .auto_leave = true, .n_members = 3, .members = members};
    struct raft_event events[] = {{.type = RAFT_EV_MEMBERSHIP, .membership = {.index = 3, .membership = &joint}},
                                  {.type = RAFT_EV_APPLIED, .applied = 3},
                                  {.type = RAFT_EV_TICK}};
    struct raft_options o = quiet_options();
    struct raft_update out = {0};

    o.quiesce_ticks = 3;
    lead_ghosts(&o);
    c.nodes[1].hold_applies = true;
    cluster_propose_config(&c, 1, &many);
    cluster_settle(&c);
    accept_all(2);
    accept_all(3);
    pass_time(9);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    c.now++;
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        events[i].now = c.now;
        raft_step(c.nodes[1].core, &events[i], &out);
    }
    raft_collect(c.nodes[1].core, &out);
    cr_assert(!leader_is_quiet());
    cr_assert_eq(cluster_status(&c, 1).last_index, 4, "the entry that leaves it");
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

Test(raft_awake, what_is_not_applied)
{
    lead_ghosts(NULL);
    c.nodes[1].hold_applies = true;
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    accept_all(2);
    accept_all(3);
    pass_time(100);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cr_assert(!leader_is_quiet());
    c.nodes[1].hold_applies = false;
    pass_time(60);
    cr_assert(leader_is_quiet());
    cluster_deinit(&c);
}

/* What was on its way to it may be lost, although it says that it has committed all. */
Test(raft_awake, a_peer_that_is_probed)
{
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE, .peer = 3};

    lead_ghosts(NULL);
    cluster_step(&c, 1, &ev);
    pass_time(100);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert(!leader_is_quiet());
    accept_all(3);
    pass_time(60);
    cr_assert(leader_is_quiet());
    cluster_deinit(&c);
}

/* It says that it has committed all, but its acceptance was lost: the leader does not know that it holds all. */
Test(raft_awake, a_peer_whose_acceptance_is_lost)
{
    lead_ghosts(NULL);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    accept_all(2);
    pass_time(100);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_REPLICATE);
    cr_assert_eq(cluster_peer(&c, 1, 3).match, 2);
    cr_assert(!leader_is_quiet());
    accept_all(3);
    pass_time(60);
    cr_assert(leader_is_quiet());
    cluster_deinit(&c);
}

/* It holds the log; that the end of it is committed it would never hear. */
Test(raft_awake, a_peer_that_does_not_know_the_commit_index)
{
    lead_ghosts(NULL);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    accept_all(2);
    accept_all(3);
    for (int i = 0; i < 100; i++) {
        cluster_tick(&c, 1);
        cr_assert(!leader_is_quiet(), "tick %d", i);
        answer_heartbeat(2, 0, 3);
        answer_heartbeat(3, 0, 2);
    }
    pass_time(20);
    cr_assert(leader_is_quiet());
    cluster_deinit(&c);
}

/* ---- a follower ---- */

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

/* It waits for the end of a transfer, which its own timer must tell it if nobody else does. */
Test(raft_awake, the_end_of_a_transfer_that_a_follower_asked_for)
{
    follow_ghost((const uint64_t[]){1, 2}, 2);
    cluster_transfer(&c, 1, 3);
    cluster_settle(&c);
    for (int i = 0; i < 20; i++) {
        cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 3));
        cluster_inject(&c, quiesce(2, 2, 2));
        cr_assert(!cluster_status(&c, 1).quiesced, "tick %d", i);
        cluster_tick(&c, 1);
    }
    cr_assert_eq(c.nodes[1].transfers.n, 1);
    cr_assert_eq(c.nodes[1].transfers.items[0].code, RAFT_TRANSFER_TIMED_OUT);
    cluster_inject(&c, quiesce(2, 2, 2));
    cr_assert(cluster_status(&c, 1).quiesced);
    cluster_deinit(&c);
}

/* A crash would take it back to a term in which it may vote, and nobody would be awake to notice. */
Test(raft_awake, an_unsaved_term)
{
    struct nh_message m = quiesce(2, 2, 2);

    follow_ghost((const uint64_t[]){1, 2}, 2);
    c.nodes[1].hold_saves = true;
    cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 2, 1, 4));
    c.now += 10;
    m.term = 4;
    cluster_inject(&c, m);
    cr_assert(!cluster_status(&c, 1).quiesced);
    c.nodes[1].hold_saves = false;
    cluster_settle(&c);
    cluster_inject(&c, m);
    cr_assert(cluster_status(&c, 1).quiesced);
    cluster_deinit(&c);
}
