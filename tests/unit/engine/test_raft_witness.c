/* Witnesses: they vote and store no payload, and never have more than the voters (statement 73). */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>
#include <string.h>

static struct cluster c;

/* As many members as kinds, 1 leads. */
static void start(const char *kinds)
{
    uint32_t n = (uint32_t)strlen(kinds);

    cluster_init(&c, n, NULL);
    for (uint64_t id = 1; id <= n; id++) {
        cluster_crash(&c, id);
        cluster_set_members(&c, id, kinds);
        cluster_restart(&c, id);
    }
    cluster_elect(&c, 1);
}

Test(raft_witness, a_witness_acknowledges_what_it_does_not_store)
{
    start("vvw");
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cluster_join(&c, 4);
    cluster_tick(&c, 2);
    cluster_crash(&c, 2);
    cluster_propose(&c, 1, 3, 1000);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[3].machine, cluster_status(&c, 1).commit_index, "voter and witness are a majority");
    for (size_t i = 1; i < c.nodes[3].disk.n; i++) {
        const struct stored_entry *e = &c.nodes[3].disk.items[i];
        const uint8_t *record = e->block->data + e->block->offsets[e->at];
        struct nh_entry_view view;

        nh_record_view(record, &view);
        cr_assert(view.type == NH_ENTRY_CONFIG_CHANGE || (view.type == NH_ENTRY_METADATA && view.payload_bytes == 0));
    }
    cr_assert_eq(c.nodes[3].membership.n_members, 4, "but configuration changes whole");
    cluster_deinit(&c);
}

/* It took all of its log above the stored commit index for a change, to which the other voter would have to agree, and the shard
 * stood still until that one was back. */
Test(raft_witness, a_restarted_voter_and_a_witness_go_on)
{
    start("vvw");
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cluster_tick(&c, 5);
    for (uint64_t id = 1; id <= 3; id++) {
        cluster_crash(&c, id);
        c.nodes[id].applied = 1; /* its machine is in memory, and the stored commit index lags */
    }
    cluster_restart(&c, 1);
    cluster_restart(&c, 3);
    cr_assert_lt(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cluster_tick(&c, 5);
    cr_assert_eq(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index);
    cr_assert_eq(cluster_status(&c, 1).last_index, 5, "the first, two that opened terms, two proposals");
    cluster_deinit(&c);
}

/* Found by the simulator (seed 2048): the only voter crashed with entries that the witness had saved and it had not, and could
 * not get the vote of the witness ever again. A witness gets what is durable at its leader. */
Test(raft_witness, a_witness_never_has_more_than_its_leader_has_saved)
{
    start("vw");
    c.nodes[1].hold_saves = true;
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 2).last_index, 2);
    cluster_crash(&c, 1);
    c.nodes[1].hold_saves = false;
    cluster_restart(&c, 1);
    cluster_tick(&c, 40);
    cr_assert_eq(cluster_leader(&c), 1);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 2).last_index, cluster_status(&c, 1).last_index);
    cluster_deinit(&c);
}

/* Fetched entries are stripped as well. */
Test(raft_witness, a_witness_that_lags_gets_stripped_entries_from_the_store)
{
    start("vvw");
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 3, 2 << 20);
    cluster_settle(&c);
    cluster_tick(&c, 12);
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 5);
    cr_assert_eq(c.nodes[3].disk.n, c.nodes[1].disk.n);
    cr_assert_gt(c.nodes[1].n_fetches, 0);
    cr_assert_eq(nh_record_type(c.nodes[3].disk.items[3].block->data), NH_ENTRY_METADATA);
    cluster_deinit(&c);
}

/* A snapshot for a witness is one without an image. */
Test(raft_witness, a_witness_gets_a_snapshot_of_metadata)
{
    start("vvw");
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, c.nodes[1].machine);
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 12);
    cr_assert_eq(c.nodes[3].base, c.nodes[1].base);
    cr_assert(c.nodes[3].snapshot.witness);
    cr_assert(!c.nodes[1].snapshot.witness);
    cluster_deinit(&c);
}

static bool lose_first_snapshot(const struct nh_message *m, void *ctx)
{
    uint32_t *n = ctx;

    return m->type == NH_MSG_INSTALL_SNAPSHOT && (*n)++ == 0;
}

/* Simulator seed 47529: an ordinary message brings it, so nobody tells the leader that it was lost. */
Test(raft_witness, a_lost_snapshot_is_sent_again)
{
    uint32_t n = 0;

    start("vvw");
    cluster_isolate(&c, 3, true);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_compact(&c, 1, c.nodes[1].machine);
    c.lose = lose_first_snapshot;
    c.lose_ctx = &n;
    cluster_isolate(&c, 3, false);
    cluster_tick(&c, 20);
    cr_assert_geq(n, 2);
    cr_assert_eq(c.nodes[3].base, c.nodes[1].base);
    cluster_deinit(&c);
}

/* It votes for who has all, never stands, takes no proposal and gives no read (statement 73). */
Test(raft_witness, a_witness_votes_and_that_is_all)
{
    struct nh_message forwarded;

    start("vvw");
    cluster_crash(&c, 1);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_FOLLOWER);
    cluster_tick(&c, 40);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_propose(&c, 3, 1, 1);
    cluster_read(&c, 3);
    cr_assert_eq(c.nodes[3].dropped.n, 2);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(c.nodes[3].dropped.items[i].reason, NH_DROP_WITNESS, "so that nobody asks it again");
    cluster_transfer(&c, 2, 3);
    cr_assert_eq(c.nodes[2].transfers.items[0].reason, RAFT_TRANSFER_NO_VOTER);
    forwarded = cluster_message(NH_MSG_READ_INDEX, 3, 2, cluster_status(&c, 2).term);
    forwarded.hint = 99;
    cluster_inject(&c, forwarded);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[3].reads.n, 0, "nor if it asks the leader all the same");
    cr_assert_eq(c.nodes[3].dropped.n, 3);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 20282): a witness that a joint change removes is one until the end. It was sent whole entries, and
 * its machine got those after the ones that it had never seen. */
Test(raft_witness, a_leaving_witness_is_a_witness_still)
{
    struct nh_member_change changes[] = {cluster_change(NH_CONFIG_REMOVE_MEMBER, 0, 3),
                                         cluster_change(NH_CONFIG_ADD_MEMBER, NH_MEMBER_NON_VOTING, 4)};
    const struct stored_entry *e;

    start("vvw");
    cluster_propose_changes(&c, 1, NH_TRANSITION_EXPLICIT, changes, 2);
    cluster_settle(&c);
    cluster_propose(&c, 1, 1, 100);
    cluster_settle(&c);
    cr_assert(c.nodes[3].membership.joint);
    cr_assert_eq(cluster_peer(&c, 1, 3).kind, NH_MEMBER_LEAVING_WITNESS);
    e = &c.nodes[3].disk.items[c.nodes[3].disk.n - 1];
    cr_assert_eq(nh_record_type(e->block->data + e->block->offsets[e->at]), NH_ENTRY_METADATA);
    cluster_campaign(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).role, RAFT_FOLLOWER);
    cluster_read(&c, 3);
    cr_assert_eq(c.nodes[3].dropped.n, 1);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 3684): the removal of a leader was committed by itself and a witness. Nobody who stayed had the
 * payloads, and nobody could win the vote of the witness. With witnesses a change needs a majority of those who store payloads.
 */
Test(raft_witness, a_witness_does_not_help_to_commit_a_change)
{
    uint64_t change_index;

    start("vvw");
    cluster_isolate(&c, 2, true);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index, "it helps with everything else");
    cluster_propose_change(&c, 1, false, 1);
    change_index = cluster_status(&c, 1).last_index;
    cluster_settle(&c);
    cluster_tick(&c, 100);
    cr_assert_lt(cluster_status(&c, 1).commit_index, change_index);
    cluster_heal(&c);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_leader(&c), 2);
    cr_assert(c.nodes[1].removed);
    cr_assert_geq(c.nodes[2].machine, change_index);
    cluster_deinit(&c);
}

/* To take the dead one out is what an operator would do first, and it stopped all writes until he was back. */
Test(raft_witness, a_change_that_needs_a_dead_voter_is_dropped_and_writes_go_on)
{
    start("vvw");
    cluster_tick(&c, 3);
    cluster_crash(&c, 2);
    cluster_tick(&c, 12);
    cluster_propose_change(&c, 1, false, 2);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_VOTERS_AWAY);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_tick(&c, 2);
    cr_assert_eq(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index);
    cluster_restart(&c, 2);
    cluster_tick(&c, 5);
    cluster_propose_change(&c, 1, true, 4);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(c.nodes[1].membership.n_members, 4, "when it is back a change is taken");
    cluster_deinit(&c);
}

/* 1 and 2 vote, 3 is a witness, all are quiet. */
static void sleep_with_a_witness(void)
{
    start("vvw");
    for (uint64_t id = 1; id <= 3; id++) {
        cluster_crash(&c, id);
        c.nodes[id].options.quiesce = true;
        c.nodes[id].options.quiesce_ticks = 40;
        cluster_restart(&c, id);
    }
    cluster_elect(&c, 1);
    cluster_tick(&c, 100);
    for (uint64_t id = 1; id <= 3; id++)
        cr_assert(cluster_status(&c, id).quiesced);
}

/* Nobody was heard of because nobody was asked: the leader asks, and takes the change when it knows. */
Test(raft_witness, a_sleeping_shard_takes_a_change)
{
    for (uint64_t asked = 1; asked <= 2; asked++) {
        sleep_with_a_witness();
        cluster_propose_change(&c, asked, true, 4);
        cluster_propose_change(&c, 1, true, 5);
        cluster_settle(&c);
        cluster_tick(&c, 1);
        cr_assert_eq(c.nodes[1].membership.n_members, 4, "asked at replica %lu", (unsigned long)asked);
        cr_assert_eq(c.nodes[1].dropped.n + c.nodes[2].dropped.n, 1, "one at a time, also of those that are held");
        cluster_deinit(&c);
    }
}

Test(raft_witness, a_sleeping_shard_drops_a_change_that_needs_a_dead_voter)
{
    sleep_with_a_witness();
    cluster_crash(&c, 2);
    cluster_propose_change(&c, 1, false, 2);
    cluster_settle(&c);
    cluster_tick(&c, 9);
    cr_assert_eq(c.nodes[1].dropped.n, 0, "it may be slow");
    cluster_tick(&c, 2);
    cr_assert_eq(c.nodes[1].dropped.n, 1);
    cr_assert_eq(c.nodes[1].dropped.items[0].reason, NH_DROP_VOTERS_AWAY);
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, cluster_status(&c, 1).last_index, "writes go on");
    cluster_deinit(&c);
}

/* Where it was asked: at the leader, at a voter. */
Test(raft_witness, a_change_that_is_held_ends_with_its_leader)
{
    for (uint64_t asked = 1; asked <= 2; asked++) {
        uint64_t key;

        sleep_with_a_witness();
        key = cluster_propose_change(&c, asked, true, 4);
        if (asked == 2)
            cluster_deliver(&c, 0);
        c.lose = NULL;
        cluster_inject(&c, cluster_message(NH_MSG_HEARTBEAT, 3, 1, 9));
        cluster_settle(&c);
        cr_assert_eq(c.nodes[asked].dropped.n, 1);
        cr_assert_eq(c.nodes[asked].dropped.items[0].first_key, key);
        cr_assert_eq(c.nodes[asked].dropped.items[0].reason, NH_DROP_REFUSED);
        cluster_deinit(&c);
    }
}

/* It is them that show who is there. */
Test(raft_witness, a_change_that_is_held_awaits_all_answers)
{
    struct raft_patience patience;

    sleep_with_a_witness();
    cluster_propose_change(&c, 1, true, 4);
    cr_assert_eq(c.nodes[1].dropped.n, 0);
    raft_get_patience(c.nodes[1].core, &patience);
    cr_assert_eq(patience.below, 0);
    cluster_deinit(&c);
}

/* Whatever fed it: its leader would not have. */
Test(raft_witness, a_witness_that_has_a_change_does_not_help_to_commit_it)
{
    struct raft_options o = cluster_options();
    struct nh_message m;

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
    cluster_crash(&c, 1);
    cluster_set_members(&c, 1, "vvw");
    cluster_restart(&c, 1);
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, cluster_status(&c, 1).term));
    cluster_settle(&c);
    for (uint64_t last = 2; last <= 3; last++) { /* the empty entry, the change */
        cr_assert_eq(cluster_status(&c, 1).last_index, last);
        m = cluster_message(NH_MSG_REPLICATE_RESP, 3, 1, cluster_status(&c, 1).term);
        m.log_index = last;
        cluster_inject(&c, m);
        cluster_settle(&c);
        cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
        if (last == 2)
            cluster_propose_change(&c, 1, true, 4);
        cluster_settle(&c);
    }
    m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, cluster_status(&c, 1).term);
    m.log_index = 3;
    cluster_inject(&c, m);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 3);
    cluster_deinit(&c);
}

/* Found by the simulator (seed 3132): a leader was removed; what it had taken after its removal had reached the witness, but not
 * the other voter, who could not win the vote of the witness any more. */
Test(raft_witness, a_leader_that_is_being_removed_does_not_feed_the_witness_ahead_of_the_voters)
{
    start("vvw");
    c.nodes[1].hold_applies = true;
    cluster_propose_change(&c, 1, false, 1);
    cluster_settle(&c);
    cr_assert(cluster_status(&c, 1).pending_config);
    cluster_isolate(&c, 2, true);
    cluster_propose(&c, 1, 3, 10);
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).last_index, 3);
    c.nodes[1].hold_applies = false;
    cluster_settle(&c);
    cluster_tick(&c, 3);
    cr_assert_eq(cluster_status(&c, 3).last_index, 3);
    cluster_crash(&c, 1);
    cluster_heal(&c);
    cluster_tick(&c, 60);
    cr_assert_eq(cluster_leader(&c), 2);
    cluster_deinit(&c);
}
