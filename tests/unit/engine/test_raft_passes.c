/* Several events in one pass, before anything is collected: what they ask for stays apart where it must. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>
#include <signal.h>

#include "engine/raft/raft_internal.h"

static struct cluster c;
static struct raft_update out;

/* Replica 1 has entry 1 of term 1; ghosts 2 and 3. */
static void follower(void)
{
    struct raft_options o = cluster_options();

    o.pre_vote = o.check_quorum = false;
    cluster_init_ghosts(&c, 1, 3, &o);
}

static void step(struct raft_event ev)
{
    ev.now = c.now;
    raft_step(c.nodes[1].core, &ev, &out);
}

static void take(struct nh_message m)
{
    step((struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m});
    nh_message_deinit(&m);
}

static struct nh_message replicate(uint64_t from, uint64_t term, uint64_t anchor, uint64_t anchor_term, const uint64_t *terms,
                                   uint32_t n)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE, from, 1, term);

    m.log_index = anchor;
    m.log_term = anchor_term;
    cluster_add_entries(&m, terms, n);
    return m;
}

static void collect(size_t n_messages)
{
    const char *clause = "";

    raft_collect(c.nodes[1].core, &out);
    cr_assert(raft_check(c.nodes[1].core, &clause), "%s", clause);
    cr_assert_eq(out.send_after_save.n, n_messages, "%zu messages", out.send_after_save.n);
}

static void expect(size_t i, enum nh_message_type type, uint64_t to, uint64_t log_index, bool reject)
{
    const struct nh_message *m = &out.send_after_save.items[i];

    cr_assert_eq(m->type, type);
    cr_assert_eq(m->to, to);
    cr_assert_eq(m->log_index, log_index);
    cr_assert_eq(m->reject, reject);
}

static void end(void)
{
    raft_update_deinit(&out);
    cluster_deinit(&c);
}

Test(raft_passes, a_vote_and_an_acceptance_are_two_messages)
{
    follower();
    take(cluster_candidacy(NH_MSG_REQUEST_VOTE, 2, 5, 1, 1));
    take(replicate(2, 5, 1, 1, (const uint64_t[]){5}, 1));
    collect(2);
    expect(0, NH_MSG_REQUEST_VOTE_RESP, 2, 0, false);
    expect(1, NH_MSG_REPLICATE_RESP, 2, 2, false);
    end();
}

Test(raft_passes, a_refusal_and_an_acceptance_are_two_messages)
{
    follower();
    take(replicate(2, 5, 4, 4, NULL, 0));
    take(replicate(2, 5, 1, 1, (const uint64_t[]){5}, 1));
    collect(2);
    expect(0, NH_MSG_REPLICATE_RESP, 2, 4, true);
    expect(1, NH_MSG_REPLICATE_RESP, 2, 2, false);
    end();
}

/* That there are two in one term is a lie of one of them; but who lies is not to hear what the other one is told. */
Test(raft_passes, acceptances_for_two_leaders_are_two_messages)
{
    follower();
    take(replicate(2, 5, 1, 1, (const uint64_t[]){5, 5}, 2));
    step((struct raft_event){.type = RAFT_EV_FORGET_LEADER});
    take(replicate(3, 5, 1, 1, NULL, 0));
    collect(2);
    expect(0, NH_MSG_REPLICATE_RESP, 2, 3, false);
    expect(1, NH_MSG_REPLICATE_RESP, 3, 1, false);
    end();
}

/* What a leader sent is replaced in part by its successor before any of it was saved: one save, of all that is there now. */
Test(raft_passes, entries_may_be_cut_before_a_save_has_taken_them)
{
    follower();
    take(replicate(2, 5, 1, 1, (const uint64_t[]){5, 5}, 2));
    take(replicate(3, 6, 2, 5, (const uint64_t[]){6}, 1));
    collect(2);
    expect(1, NH_MSG_REPLICATE_RESP, 3, 3, false);
    cr_assert_eq(out.runs.n, 2);
    for (uint64_t i = 0; i < 2; i++) {
        cr_assert_eq(nh_run_first(&out.runs.runs[i]), 2 + i);
        cr_assert_eq(nh_run_last(&out.runs.runs[i]), 2 + i);
        cr_assert_eq(nh_run_term(&out.runs.runs[i]), 5 + i);
    }
    cr_assert_eq(cluster_status(&c, 1).truncated_suffixes, 1);
    end();
}

/* ---- work that is left between an event and its collection ---- */

/* The step before has left something to do, and the collection takes it. */
static void expect_work(const char *what)
{
    cr_assert(raft_has_work(c.nodes[1].core), "%s", what);
    raft_collect(c.nodes[1].core, &out);
    cr_assert(!raft_has_work(c.nodes[1].core), "%s: still", what);
    raft_update_release(&out);
}

Test(raft_passes, a_follower_says_what_it_has_to_do)
{
    struct nh_message m = cluster_message(NH_MSG_REMOVED, 2, 1, 5);

    follower();
    cr_assert(!raft_has_work(c.nodes[1].core));
    take(cluster_message(NH_MSG_HEARTBEAT, 2, 1, 5));
    expect_work("a new term to save");
    step((struct raft_event){.type = RAFT_EV_SAVED, .saved = 1});
    cr_assert(!raft_has_work(c.nodes[1].core));
    step((struct raft_event){.type = RAFT_EV_FORGET_LEADER});
    expect_work("a leader that is none any more");
    m.hint = 1;
    take(m);
    expect_work("its removal");
    end();
}

Test(raft_passes, a_leader_says_what_it_has_to_do)
{
    struct nh_message m = cluster_message(NH_MSG_REPLICATE_RESP, 2, 1, 2);

    follower();
    cluster_campaign(&c, 1);
    cluster_inject(&c, cluster_message(NH_MSG_REQUEST_VOTE_RESP, 2, 1, 2));
    cluster_settle(&c);
    cr_assert(!raft_has_work(c.nodes[1].core));
    c.now++;
    step((struct raft_event){.type = RAFT_EV_TICK});
    expect_work("a heartbeat to send");
    m.log_index = 2;
    take(m);
    cr_assert_eq(cluster_status(&c, 1).commit_index, 2);
    expect_work("an entry to apply, a commit index to tell");
    step((struct raft_event){.type = RAFT_EV_UNREACHABLE, .peer = 2});
    cr_assert(!raft_has_work(c.nodes[1].core));
    take(cluster_message(NH_MSG_HEARTBEAT_RESP, 2, 1, 2));
    expect_work("a peer to probe");
    end();
}

/* The last word before anything leaves: an update that rests on a broken invariant is not handed out. */
Test(raft_passes, a_broken_invariant_ends_the_process_before_the_update_leaves, .signal = SIGABRT)
{
    follower();
    raft_collect(c.nodes[1].core, &out);
    raft_update_release(&out);
    c.nodes[1].core->log.commit = c.nodes[1].core->log.last + 1;
    raft_collect(c.nodes[1].core, &out);
}
