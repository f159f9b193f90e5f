/* Members at the edges: halves without voters, peers between peers, a change that meets a candidate or a leader that was taken
 * out, and who may tell a replica that it was removed. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

#include "raftio/codec.h"

static struct cluster c;

static struct raft_options plain_options(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    return o;
}

/* Replica 1 leads in term 2 by the votes of the ghosts 2 .. n; its opening entry is 2, and committed. */
static void lead(uint32_t n, const struct raft_options *options)
{
    struct raft_options o = options ? *options : plain_options();

    cluster_init_ghosts(&c, 1, n, &o);
    cluster_campaign(&c, 1);
    for (uint64_t id = 2; id <= n; id++)
        cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, id, 1, 2));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    for (uint64_t id = 2; id <= n; id++) {
        struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, id, 1, 2);

        m.log_index = 2;
        cluster_inject(&c, m);
    }
    cluster_settle(&c);
    cluster_forget_sent(&c);
}

static void answer(uint64_t from, uint64_t index, uint64_t commit)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, from, 1, cluster_status(&c, 1).term);

    m.log_index = index;
    m.commit = commit;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

static void heartbeat_answer(uint64_t from, uint64_t commit)
{
    struct nh_message m = cluster_message(NH_MSG_HEARTBEAT_RESP, from, 1, cluster_status(&c, 1).term);

    m.commit = commit;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

/* The change at `index` is applied here, whatever its entry says. */
static void now_members_are(const struct nh_member *members, uint32_t n, uint64_t index)
{
    struct nh_membership m = {.n_members = n, .members = (struct nh_member *)(size_t)members};
    struct raft_event ev = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = index, .membership = &m}};

    cluster_step(&c, 1, &ev);
    cluster_settle(&c);
}

/* ---- majorities ---- */

/* The last voter was demoted: nothing is decided any more, neither commits nor that the leader may go. */
Test(raft_members, without_a_voter_nothing_is_decided)
{
    static const struct nh_member members[] = {{.replica_id = 1, .kind = NH_MEMBER_NON_VOTING},
                                               {.replica_id = 2, .kind = NH_MEMBER_NON_VOTING}};

    lead(2, NULL);
    cluster_propose(&c, 1, 1, 1);
    cluster_settle(&c);
    now_members_are(members, 2, 2);
    answer(2, 3, 3);
    cr_assert_eq(cluster_peer(&c, 1, 2).match, 3);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_deinit(&c);
}

/* A joint configuration whose outgoing half is empty: the incoming one decides alone. */
Test(raft_members, a_half_without_voters_has_no_say)
{
    struct raft_options o = plain_options();

    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_crash(&c, 1);
    c.nodes[1].membership.joint = true;
    cluster_restart(&c, 1);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 1, "not without the incoming half either");
    answer(3, 2, 1);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    cluster_deinit(&c);
}

/* Statement 47: what one half refuses is lost, although the other one might still grant it. */
Test(raft_members, an_election_is_lost_by_either_half)
{
    for (int half = 0; half < 2; half++) {
        struct raft_options o = plain_options();
        struct nh_membership *m = &c.nodes[1].membership;

        cluster_init_ghosts(&c, 1, 5, &o);
        cluster_crash(&c, 1);
        m->joint = true; /* {1,2,3} or, of the outgoing half, {1,4,5} */
        for (uint32_t i = 0; i < m->n_members; i++) {
            m->members[i].outgoing = i == 0 || i >= 3;
            m->members[i].kind = i < 3 ? NH_MEMBER_VOTER : NH_MEMBER_LEAVING;
        }
        cluster_restart(&c, 1);
        cluster_campaign(&c, 1);
        for (uint64_t id = half ? 4 : 2; id <= (half ? 5 : 3); id++) {
            struct nh_message refusal = cluster_message(NH_MSG_REQUEST_VOTE_RESP, id, 1, 2);

            cr_assert_eq(cluster_status(&c, 1).role, RAFT_CANDIDATE);
            refusal.reject = true;
            cluster_inject(&c, refusal);
        }
        cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER, "half %d", half);
        cluster_deinit(&c);
    }
}

/* ---- a change is applied ---- */

/* Its id is below that of a peer that stays. */
Test(raft_members, a_new_peer_between_others_begins_anew_and_they_do_not)
{
    static const struct nh_member before[] = {{.replica_id = 1}, {.replica_id = 2}, {.replica_id = 4}};
    static const struct nh_member after[] = {{.replica_id = 1}, {.replica_id = 2}, {.replica_id = 3}, {.replica_id = 4}};

    lead(4, NULL);
    now_members_are(before, 3, 2);
    cr_assert_eq(raft_get_peers(c.nodes[1].core, NULL, 0), 2);
    now_members_are(after, 4, 2);
    cr_assert_eq(cluster_peer(&c, 1, 2).match, 2);
    cr_assert_eq(cluster_peer(&c, 1, 3).match, 0);
    cr_assert_eq(cluster_peer(&c, 1, 3).state, RAFT_PROBE);
    cr_assert_eq(cluster_peer(&c, 1, 4).match, 2);
    cr_assert_eq(cluster_peer(&c, 1, 4).state, RAFT_REPLICATE);
    cluster_deinit(&c);
}

static void append_change(uint64_t member)
{
    struct nh_config_change change = {.type = NH_CONFIG_ADD_MEMBER,
                                      .member = cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, member).member};
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, 2, 1, 2);
    struct block_builder b = {0};
    struct run_list runs = {0};
    uint8_t payload[512];
    struct nh_block *block;

    m.log_index = m.log_term = m.commit = 1;
    block_builder_add(&b,
                      &(struct block_record){.type = NH_ENTRY_CONFIG_CHANGE,
                                             .origin = 2,
                                             .key = 1,
                                             .payload = payload,
                                             .payload_bytes = (uint32_t)config_change_encode(&change, payload, sizeof payload)});
    block = block_seal(&b, 2, 2);
    run_list_add(&runs, block, 0, 1);
    nh_block_unref(block);
    m.runs = runs.runs;
    m.n_runs = runs.n;
    cluster_inject(&c, m);
    cluster_settle(&c);
}

/* It learns by a refusal that the change is committed, and applies it: the majority that it began to count is none any more. */
Test(raft_members, a_change_ends_a_pre_candidacy)
{
    struct nh_message m = cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 2, 1, 2);

    cluster_init_ghosts(&c, 1, 3, NULL);
    append_change(4);
    c.now += 20;
    cluster_campaign(&c, 1);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_PRE_CANDIDATE);
    m.reject = true;
    m.commit = m.log_term = 2;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 2);
    cr_assert_eq(c.nodes[1].membership.n_members, 4);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_PRE_VOTE_RESP, 3, 1, 3));
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert_eq(cluster_status(&c, 1).term, 2);
    cluster_deinit(&c);
}

/* ---- a leader that was taken out ---- */

/* Changes that are not held back: the first takes the leader out, the second follows it in the log. Both are applied. */
static void take_out_and(const struct nh_config_change *second, const struct raft_options *options)
{
    struct raft_options o = options ? *options : plain_options();

    o.unchecked_config = true;
    lead(3, &o);
    cluster_propose_change(&c, 1, false, 1);
    cluster_propose_config(&c, 1, second);
    cluster_settle(&c);
    answer(2, 4, 2);
    answer(3, 4, 2);
    cr_assert_eq(cluster_status(&c, 1).applied_index, 4);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
}

/* It goes when a majority knows of its own removal; whatever came after that is the survivors' business. */
Test(raft_members, a_later_change_does_not_keep_a_removed_leader)
{
    struct nh_config_change add = {.type = NH_CONFIG_ADD_MEMBER,
                                   .member = cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, 4).member};

    take_out_and(&add, NULL);
    heartbeat_answer(2, 3);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER, "one of three");
    heartbeat_answer(3, 3);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cluster_deinit(&c);
}

/* To leave a joint configuration is for a leader that is in it. */
Test(raft_members, a_removed_leader_does_not_leave_a_joint_configuration)
{
    struct nh_member_change changes[] = {cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, 4),
                                         cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_VOTER, 5)};
    struct nh_config_change many = {.type = NH_CONFIG_CHANGE_MANY,
                                    .transition = NH_TRANSITION_AUTO,
                                    .n_changes = 2,
                                    .changes = changes};

    take_out_and(&many, NULL);
    cr_assert(cluster_status(&c, 1).joint);
    cr_assert_eq(cluster_status(&c, 1).last_index, 4);
    cluster_deinit(&c);
}

Test(raft_members, a_removed_leader_hands_over_to_nobody)
{
    lead(3, NULL);
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    answer(2, 3, 2);
    answer(3, 3, 2);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_LEADER);
    cluster_transfer(&c, 1, 2);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[1].transfers.n, 1);
    cr_assert_eq(c.nodes[1].transfers.items[0].reason, RAFT_TRANSFER_NO_VOTER);
    cr_assert_null(cluster_sent(&c, NH_MSG_TIMEOUT_NOW, 2));
    cr_assert_eq(cluster_status(&c, 1).transferee, 0);
    cluster_deinit(&c);
}

/* Nobody stays who would have to know. */
Test(raft_members, the_last_member_goes_at_once)
{
    struct nh_membership nobody = {.n_removed = 1, .removed = &(uint64_t){1}};
    struct raft_event ev = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = 2, .membership = &nobody}};

    lead(1, NULL);
    cluster_step(&c, 1, &ev);
    cr_assert_eq(cluster_status(&c, 1).role, RAFT_FOLLOWER);
    cr_assert(c.nodes[1].removed);
    cluster_deinit(&c);
}

/* ---- REMOVED ---- */

/* What a majority knows is what a majority of the voters knows. */
Test(raft_members, the_word_of_who_does_not_vote_is_not_enough_to_go)
{
    struct nh_message m = cluster_message(NH_MSG_REMOVED, 4, 1, 2);

    cluster_init_ghosts(&c, 1, 3, NULL);
    cluster_crash(&c, 1);
    cluster_set_members(&c, 1, "vvvn");
    cluster_restart(&c, 1);
    cluster_inject(&c, m);
    m.from = 2;
    cluster_inject(&c, m);
    cr_assert(!c.nodes[1].removed);
    m.from = 3;
    cluster_inject(&c, m);
    cr_assert(c.nodes[1].removed);
    cluster_deinit(&c);
}
