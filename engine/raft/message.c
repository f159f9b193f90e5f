/* What comes from the network: checks of its form, then the rules of terms, then to the file of its flow.
 *
 * Nothing in here may reach an assert: a message is refused and counted if it cannot have been sent by a correct
 * replica. Late ones are not counted, they are ordinary.
 */
#include "engine/raft/raft_internal.h"

/* PING, PONG and SNAPSHOT_RECEIVED are the host's; the local ones are nobody's. */
static bool is_spoken(uint32_t type)
{
    const uint32_t spoken = 1u << NH_MSG_NOOP | 1u << NH_MSG_PROPOSE | 1u << NH_MSG_PROPOSE_RESP | 1u << NH_MSG_REPLICATE |
                            1u << NH_MSG_REPLICATE_RESP | 1u << NH_MSG_REQUEST_VOTE | 1u << NH_MSG_REQUEST_VOTE_RESP |
                            1u << NH_MSG_HEARTBEAT | 1u << NH_MSG_HEARTBEAT_RESP | 1u << NH_MSG_READ_INDEX |
                            1u << NH_MSG_READ_INDEX_RESP | 1u << NH_MSG_QUIESCE | 1u << NH_MSG_REQUEST_PRE_VOTE |
                            1u << NH_MSG_REQUEST_PRE_VOTE_RESP | 1u << NH_MSG_INSTALL_SNAPSHOT | 1u << NH_MSG_LEADER_TRANSFER |
                            1u << NH_MSG_TIMEOUT_NOW | 1u << NH_MSG_RATE_LIMIT | 1u << NH_MSG_REMOVED;

    return type < NH_MSG_TYPE_COUNT && (spoken >> type & 1u);
}

/* Answers count from members only; a candidate or leader may be a member that this replica has not heard of yet. */
static bool needs_member(uint32_t type)
{
    const uint32_t answers = 1u << NH_MSG_NOOP | 1u << NH_MSG_REPLICATE_RESP | 1u << NH_MSG_HEARTBEAT_RESP |
                             1u << NH_MSG_REQUEST_VOTE_RESP | 1u << NH_MSG_REQUEST_PRE_VOTE_RESP | 1u << NH_MSG_PROPOSE |
                             1u << NH_MSG_RATE_LIMIT | 1u << NH_MSG_LEADER_TRANSFER | 1u << NH_MSG_REMOVED;

    return answers >> type & 1u;
}

/* Consecutive from `first`, terms rising from `term` but not above `max_term`. */
static bool runs_are_sound(const struct nh_message *m)
{
    uint64_t next = m->log_index + 1, term = m->log_term ? m->log_term : 1;

    for (uint32_t i = 0; i < m->n_runs; i++) {
        const struct nh_run *run = &m->runs[i];

        if (run->from >= run->to || run->to > run->block->n)
            return false;
        if (nh_run_first(run) != next || nh_run_term(run) < term || nh_run_term(run) > m->term)
            return false;
        if (nh_run_count(run) > RAFT_INDEX_MAX - (next - 1))
            return false;
        next += nh_run_count(run);
        term = nh_run_term(run);
    }
    return true;
}

static bool snapshot_is_sound(const struct nh_message *m)
{
    const struct nh_snapshot *s = m->snapshot;

    return s && s->index > 0 && s->index <= RAFT_INDEX_MAX && s->term > 0 && s->term <= m->term && s->membership.n_members > 0;
}

static bool is_well_formed(const struct raft *r, const struct nh_message *m)
{
    if (m->shard_id != r->options.shard_id || m->to != r->options.replica_id)
        return false;
    if (m->from == NH_NO_REPLICA || m->from == r->options.replica_id || !is_spoken(m->type))
        return false;
    if (m->term == 0 || m->term > RAFT_TERM_MAX || m->log_index > RAFT_INDEX_MAX)
        return false;
    if (m->type == NH_MSG_REPLICATE)
        return m->log_term <= m->term && (m->log_index == 0) == (m->log_term == 0) && runs_are_sound(m);
    if (m->type == NH_MSG_INSTALL_SNAPSHOT)
        return m->n_runs == 0 && snapshot_is_sound(m);
    return m->n_runs == 0 || m->type == NH_MSG_PROPOSE;
}

static bool is_from_leader(uint32_t type)
{
    return type == NH_MSG_REPLICATE || type == NH_MSG_HEARTBEAT || type == NH_MSG_INSTALL_SNAPSHOT || type == NH_MSG_TIMEOUT_NOW;
}

/* True if the message, of no member, is answered by that. Not before a restart would know it, too: the other one may be needed
 * until then.
 *
 * Who was removed may not have heard of it: nobody sends it entries any more, and nobody would vote for it. Not so a leader
 * that was taken out in this term: it leads on until a majority knows (replicate.c). */
static bool tell_if_removed(struct raft *r, const struct nh_message *m)
{
    bool leads_still = is_from_leader(m->type) && m->term >= r->term;

    if (!raft_was_removed(r, m->from) || m->type == NH_MSG_REMOVED || leads_still)
        return false;
    if (raft_log_known_commit(&r->log) < r->members_index)
        return false;
    raft_send_reply(r, NH_MSG_REMOVED, m->from)->hint = raft_can_do_without_removed(r);
    return true;
}

/* Lower-term messages change nothing here. A leader or pre-candidate that is behind is told the newer term: with
 * check-quorum or pre-vote it would never learn it, because this replica does not disturb it by elections
 * (statements 15, 22). */
static void on_lower_term(struct raft *r, const struct nh_message *m)
{
    if (is_from_leader(m->type)) {
        if (r->options.check_quorum || r->options.pre_vote)
            raft_send_reply(r, NH_MSG_NOOP, m->from);
    } else if (m->type == NH_MSG_REQUEST_VOTE) {
        raft_refuse_vote(r, NH_MSG_REQUEST_VOTE_RESP, m->from);
    }
}

/* False: the message is to be dropped, its term too. */
static bool enter_higher_term(struct raft *r, const struct nh_message *m)
{
    bool marked = m->hint == 1; /* a transfer: its leader wants to be replaced (statement 18) */

    if (m->type == NH_MSG_QUIESCE)
        return false; /* no leader that this replica follows */
    if (m->type == NH_MSG_REQUEST_VOTE && !marked && raft_is_sticky(r, m->from))
        return false;
    raft_become_follower(r, m->term, is_from_leader(m->type) ? m->from : NH_NO_LEADER);
    return true;
}

/* A message of the own term from a leader. False: there is another leader in this term, so one of the two lies. */
static bool follow(struct raft *r, const struct nh_message *m)
{
    if (raft_is_leader(r) || (r->leader_id != NH_NO_LEADER && r->leader_id != m->from)) {
        raft_ignore(r);
        return false;
    }
    raft_become_follower(r, r->term, m->from);
    return true;
}

static void on_own_term(struct raft *r, const struct nh_message *m)
{
    switch (m->type) {
    case NH_MSG_REPLICATE:
        if (follow(r, m))
            raft_on_replicate(r, m);
        break;
    case NH_MSG_HEARTBEAT:
        if (follow(r, m))
            raft_on_heartbeat(r, m);
        break;
    case NH_MSG_INSTALL_SNAPSHOT:
        if (follow(r, m))
            raft_on_install_snapshot(r, m);
        break;
    case NH_MSG_TIMEOUT_NOW:
        if (follow(r, m))
            raft_on_timeout_now(r);
        break;
    case NH_MSG_RATE_LIMIT: raft_on_rate_limit(r, m); break;
    case NH_MSG_REPLICATE_RESP: raft_on_replicate_resp(r, m); break;
    case NH_MSG_HEARTBEAT_RESP: raft_on_heartbeat_resp(r, m); break;
    case NH_MSG_REQUEST_VOTE: raft_on_request_vote(r, m); break;
    case NH_MSG_REQUEST_VOTE_RESP: raft_on_request_vote_resp(r, m); break;
    case NH_MSG_QUIESCE: raft_on_quiesce(r, m); break;
    default: break; /* NOOP: its term was all it had to say */
    }
}

/* Pre-votes ask about a term that nobody is in; forwarded requests are answered whatever the term, because somebody waits
 * for the answer. Neither moves a term. */
static bool on_termless(struct raft *r, const struct nh_message *m)
{
    switch (m->type) {
    case NH_MSG_REQUEST_PRE_VOTE: raft_on_request_pre_vote(r, m); return true;
    case NH_MSG_REQUEST_PRE_VOTE_RESP: raft_on_request_pre_vote_resp(r, m); return true;
    case NH_MSG_PROPOSE: raft_on_propose(r, m); return true;
    case NH_MSG_PROPOSE_RESP: raft_on_propose_resp(r, m); return true;
    case NH_MSG_READ_INDEX: raft_on_read_index(r, m); return true;
    case NH_MSG_READ_INDEX_RESP: raft_on_read_index_resp(r, m); return true;
    case NH_MSG_LEADER_TRANSFER: raft_on_leader_transfer(r, m); return true;
    case NH_MSG_REMOVED: raft_on_removed(r, m); return true;
    default: return false;
    }
}

void raft_on_message(struct raft *r, const struct nh_message *m)
{
    bool is_member;

    if (!is_well_formed(r, m)) {
        raft_ignore(r);
        return;
    }
    is_member = raft_member(r, m->from) != NULL;
    if (!is_member && tell_if_removed(r, m))
        return;
    if (!is_member && needs_member(m->type)) {
        raft_ignore(r);
        return;
    }
    raft_wake_for_message(r, m);
    if (on_termless(r, m))
        return;
    if (m->term < r->term)
        on_lower_term(r, m);
    else if (m->term == r->term || enter_higher_term(r, m))
        on_own_term(r, m);
}
