/* Elections: pre-votes, votes and their counting.
 *
 * What leaves when: a pre-vote promises nothing and leaves at once, both ways. A vote request leaves after the save that
 * holds the new term and the own vote; a granted vote after the save that holds it (statement 3). The own vote counts
 * when that save is durable. Elections may use the log in memory: all that leaves has waited for it to be saved
 * (statement 11).
 *
 * An answer says what the voter knows to be committed, by index and term. A candidate that holds that very entry commits it
 * too. It may be the only way: when a leader was removed and went before the survivor heard that its removal is committed,
 * the survivor needs a vote that the longer log of the removed one forbids, until it learns this (statement 55).
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>

/* A committed but unapplied configuration change bars an election: two replicas on either side of it could count two
 * disjoint quorums (statement 10). `config_bound` says up to where there may be one; above `commit` there is none that
 * matters yet. A snapshot may hold one too, and counts as one until it is applied. */
static bool config_is_pending(const struct raft *r)
{
    return r->log.config_bound > r->log.applied && r->log.commit > r->log.applied;
}

bool raft_may_campaign(const struct raft *r)
{
    return r->role != RAFT_LEADER && raft_is_voter(r, r->options.replica_id) && !config_is_pending(r) &&
           r->term < RAFT_TERM_MAX && r->log.last < RAFT_INDEX_MAX;
}

/* A leader may be reading under a lease that this replica helped to renew: it must not help another one to lead, itself
 * (NH_NO_REPLICA) included, whatever became of the term since. After a restart it is not known which leader that is. */
static bool is_bound_by_lease(const struct raft *r, uint64_t candidate)
{
    return r->options.lease_reads && r->now - r->heard_at < r->options.election_ticks &&
           (candidate == NH_NO_REPLICA || r->heard_from != candidate);
}

enum election { ELECTION_PRE, ELECTION_REAL, ELECTION_TRANSFER };

static void request(struct raft *r, enum election kind)
{
    bool pre = kind == ELECTION_PRE;

    for (uint32_t i = 0; i < r->n_members; i++) {
        const struct raft_member *to = &r->members[i];
        struct nh_message *m;

        if (to->id == r->options.replica_id || !raft_is_voter(r, to->id))
            continue;
        m = pre ? raft_send_now(r, NH_MSG_REQUEST_PRE_VOTE, to->id) : raft_send_after_save(r, NH_MSG_REQUEST_VOTE, to->id);
        m->term = pre ? r->term + 1 : r->term;
        m->log_index = r->log.last;
        m->log_term = raft_log_last_term(&r->log);
        m->hint = kind == ELECTION_TRANSFER;
        m->hint_high = r->options.priority;
    }
}

static void stand_for_term(struct raft *r, enum election kind)
{
    raft_become_candidate(r);
    request(r, kind);
}

/* Looks whether the election that this replica runs is decided. */
static void tally(struct raft *r)
{
    enum raft_verdict verdict = raft_verdict(r);

    if (verdict == RAFT_VERDICT_LOST)
        raft_become_follower(r, r->term, NH_NO_LEADER);
    if (verdict != RAFT_VERDICT_WON)
        return;
    if (r->role == RAFT_PRE_CANDIDATE)
        stand_for_term(r, ELECTION_REAL);
    else if (raft_state_saved(r)) /* a forged vote may come before a request has left */
        raft_become_leader(r);
}

bool raft_calls(const struct raft *r)
{
    bool is_member = raft_member(r, r->options.replica_id) != NULL;

    return r->role == RAFT_FOLLOWER && (is_member ? !raft_is_voter(r, r->options.replica_id) : raft_is_leaving(r));
}

/* Who may not stand cannot wake a quiet group by standing when it hears nothing; it calls instead, by a refusal that nobody asked
 * for. A quiet leader wakes by it and sends a heartbeat; who leads no more hears of the term; who has the last entry that is
 * committed here learns that it is. */
void raft_call(struct raft *r)
{
    raft_reset_election_timer(r);
    for (uint32_t i = 0; i < r->n_members; i++)
        if (r->members[i].id != r->options.replica_id)
            raft_refuse_vote(r, NH_MSG_REQUEST_PRE_VOTE_RESP, r->members[i].id);
}

/* Timer or caller. While barred the timer starts anew, and so it is tried again. */
void raft_campaign(struct raft *r)
{
    if (r->role == RAFT_LEADER)
        return;
    raft_reset_election_timer(r);
    if (!raft_may_campaign(r) || is_bound_by_lease(r, NH_NO_REPLICA))
        return;
    if (!r->options.pre_vote) {
        stand_for_term(r, ELECTION_REAL);
        return;
    }
    raft_become_pre_candidate(r);
    request(r, ELECTION_PRE);
    tally(r);
}

void raft_stand_now(struct raft *r)
{
    if (raft_may_campaign(r))
        stand_for_term(r, ELECTION_TRANSFER);
}

/* The leader is known to be gone, says the caller: others may be voted for at once. */
void raft_forget_leader(struct raft *r)
{
    if (r->role == RAFT_FOLLOWER && !r->options.lease_reads)
        raft_become_follower(r, r->term, NH_NO_LEADER);
}

/* After a save: the own vote is durable now. */
void raft_count_own_vote(struct raft *r)
{
    if (r->role != RAFT_CANDIDATE || !raft_state_saved(r))
        return;
    raft_member(r, r->options.replica_id)->ballot = RAFT_BALLOT_GRANTED;
    tally(r);
}

/* Leader stickiness (statement 20): who has heard from a leader within E does not help to replace it, unless that very
 * leader asks (statement 19). A leader itself would have stepped down if it had lost its quorum. */
bool raft_is_sticky(const struct raft *r, uint64_t candidate)
{
    if (is_bound_by_lease(r, candidate))
        return true;
    if (!r->options.check_quorum || r->leader_id == NH_NO_LEADER || r->leader_id == candidate)
        return false;
    return raft_is_leader(r) || r->now - r->heard_at < r->options.election_ticks;
}

static void tell_commit(const struct raft *r, struct nh_message *m)
{
    m->commit = r->log.commit;
    m->log_term = raft_log_term(&r->log, r->log.commit);
}

void raft_refuse_vote(struct raft *r, enum nh_message_type type, uint64_t to)
{
    struct nh_message *m = raft_send_reply(r, type, to);

    m->reject = true;
    tell_commit(r, m);
}

static void learn_commit(struct raft *r, const struct nh_message *m)
{
    if (!raft_is_leader(r) && m->log_term > 0 && raft_log_term(&r->log, m->commit) == m->log_term)
        raft_commit_to(r, m->commit);
}

/* A candidate of lower priority yields to a voter that could lead as well, which stands when its own timer fires. */
static bool takes_precedence(const struct raft *r, const struct nh_message *m)
{
    return m->hint == 0 && m->hint_high < r->options.priority && m->log_index == r->log.last &&
           m->log_term == raft_log_last_term(&r->log) && raft_may_campaign(r);
}

/* A vote that was not given yet. A known leader bars it in its term even if none was cast (statement 5). What was promised to
 * the leader of an older term bars it too: this replica may have come to the term by another message than this request. */
static bool is_free_to_vote(const struct raft *r, const struct nh_message *m)
{
    bool marked = m->hint == 1;

    return r->vote == NH_NO_REPLICA && r->leader_id == NH_NO_LEADER && (marked || !is_bound_by_lease(r, m->from));
}

/* The message is of the own term. */
void raft_on_request_vote(struct raft *r, const struct nh_message *m)
{
    bool free_to_vote = r->vote == m->from || is_free_to_vote(r, m);

    if (!free_to_vote || !raft_log_is_behind_or_equal(&r->log, m->log_term, m->log_index) ||
        (r->vote != m->from && takes_precedence(r, m))) {
        raft_refuse_vote(r, NH_MSG_REQUEST_VOTE_RESP, m->from);
        return;
    }
    r->vote = m->from;
    raft_reset_election_timer(r);
    tell_commit(r, raft_send_after_save(r, NH_MSG_REQUEST_VOTE_RESP, m->from));
}

void raft_on_request_vote_resp(struct raft *r, const struct nh_message *m)
{
    struct raft_member *voter = raft_member(r, m->from);

    learn_commit(r, m);
    if (r->role != RAFT_CANDIDATE)
        return;
    if (voter->ballot == RAFT_BALLOT_NONE) /* a second answer changes nothing */
        voter->ballot = m->reject ? RAFT_BALLOT_REFUSED : RAFT_BALLOT_GRANTED;
    tally(r);
}

/* Changes nothing here: no term, no vote, no timer (statement 13). A grant carries the term that was asked for, so that it
 * is not old news to the candidate (statement 14); a refusal carries the own one, so that a candidate of an older term
 * learns of it (statement 15). */
void raft_on_request_pre_vote(struct raft *r, const struct nh_message *m)
{
    struct nh_message *answer;

    if (m->term > r->term && raft_is_sticky(r, m->from))
        return;
    if (m->term <= r->term || !raft_log_is_behind_or_equal(&r->log, m->log_term, m->log_index) || takes_precedence(r, m)) {
        raft_refuse_vote(r, NH_MSG_REQUEST_PRE_VOTE_RESP, m->from);
        return;
    }
    answer = raft_send_reply(r, NH_MSG_REQUEST_PRE_VOTE_RESP, m->from);
    answer->term = m->term;
    tell_commit(r, answer);
}

void raft_on_request_pre_vote_resp(struct raft *r, const struct nh_message *m)
{
    struct raft_member *voter = raft_member(r, m->from);

    learn_commit(r, m);
    if (m->reject && m->term > r->term) {
        raft_become_follower(r, m->term, NH_NO_LEADER);
        return;
    }
    if (r->role != RAFT_PRE_CANDIDATE || m->term != r->term + !m->reject)
        return; /* of an older round, or the election has gone on (statement 16) */
    if (voter->ballot == RAFT_BALLOT_NONE)
        voter->ballot = m->reject ? RAFT_BALLOT_REFUSED : RAFT_BALLOT_GRANTED;
    tally(r);
}
