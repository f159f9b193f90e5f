/* Going quiet: a group where nothing happens stops its heartbeats and timers, so that an idle replica costs nothing.
 *
 *     leader: nothing to do for quiesce_ticks, every active peer holds and has committed all, a quorum is active
 *         -- QUIESCE (last index and term, commit) --> quiet
 *     follower: QUIESCE from its leader, and its log ends in that very entry, saved --> quiet
 *     both: anything that is worth an answer --> awake: timers start afresh, a leader heartbeats at once
 *
 * The term of the last entry makes the logs equal (log matching), also at a peer that had been inactive and may hold
 * another entry at that index: a follower commits by a QUIESCE, so the index alone would not be enough.
 *
 * A peer that QUIESCE does not reach, or that refuses it, goes on with its timer and stands for election; its request wakes
 * the leader, whose heartbeat ends that, and the other followers, which stay with their leader for E ticks (with check-quorum).
 * So a lost QUIESCE costs a pre-vote, never a stuck group.
 *
 * Members that are behind, because they were away, do not keep the others awake. The leader looks after them by one heartbeat
 * every quiesce_ticks: an answer wakes it. Most would wake it themselves, by standing or by calling (election.c), but a replica
 * that joins knows nobody yet.
 *
 * What does not wake:
 * - TICK, SAVED, APPLIED, FETCHED: they end what was begun before.
 * - UNREACHABLE. All that a quiet leader has sent is QUIESCE. If the peer lives, its timer will wake the group as above; if
 *   its host is dead, there is nothing to be done, and waking would keep a group with a dead member awake for ever. The peer
 *   is only noted to need a probe after waking. The death of a *leader's* host is the engine's to notice (RAFT_EV_WAKE).
 * - a doubled QUIESCE, and heartbeats or their answers without a read that were on their way when quiet began, for a grace of
 *   2E ticks. A heartbeat later than that comes from a leader that has woken.
 */
#include "engine/raft/raft_internal.h"

#include <stdlib.h>

/* Nothing is in flight: a leader's windows and reads are empty. */
static void shrink_lead(struct raft_lead *lead)
{
    for (uint32_t i = 0; i < lead->n_peers; i++)
        raft_peer_shrink(&lead->peers[i]);
    free(lead->reads.items);
    lead->reads.items = NULL;
    lead->reads.cap = 0;
}

static bool is_behind(const struct raft *r, const struct raft_peer *p)
{
    return p->match < r->log.last;
}

static void look_again_later(struct raft *r)
{
    bool anybody = false;

    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        anybody |= is_behind(r, &r->lead->peers[i]);
    r->lead->look_deadline = anybody ? r->now + r->options.quiesce_ticks : RAFT_NEVER;
}

uint64_t raft_quiet_deadline(const struct raft *r)
{
    return raft_is_leader(r) ? r->lead->look_deadline : RAFT_NEVER;
}

void raft_on_quiet_tick(struct raft *r)
{
    if (r->now < raft_quiet_deadline(r))
        return;
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (is_behind(r, &r->lead->peers[i]))
            raft_send_heartbeat(r, &r->lead->peers[i]);
    look_again_later(r);
}

static void go_quiet(struct raft *r)
{
    r->quiesced = true;
    r->quiet_since = r->now;
    raft_log_shrink(&r->log);
    if (!r->lead)
        return;
    shrink_lead(r->lead);
    look_again_later(r);
}

void raft_wake(struct raft *r)
{
    if (!r->quiesced)
        return;
    r->quiesced = false;
    r->active_at = r->now;
    if (!raft_is_leader(r)) {
        raft_reset_election_timer(r);
        return;
    }
    r->lead->heartbeat_wanted = true;
    r->lead->quorum_deadline = r->now + r->options.election_ticks;
    r->lead->asked_since = r->now;
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        r->lead->peers[i].active = false;
}

static bool is_late_heartbeat(const struct raft *r, const struct nh_message *m)
{
    if (m->hint || r->now - r->quiet_since > 2 * (uint64_t)r->options.election_ticks)
        return false;
    return m->type == NH_MSG_HEARTBEAT_RESP || (m->type == NH_MSG_HEARTBEAT && m->from == r->leader_id);
}

/* A follower that slept has last heard of its leader long ago, and that is no word against it: a candidate's request wakes the
 * leader, too, which has E ticks to show that it lives. */
static void be_loyal(struct raft *r, const struct nh_message *m)
{
    if (r->quiesced && !raft_is_leader(r) && (m->type == NH_MSG_REQUEST_VOTE || m->type == NH_MSG_REQUEST_PRE_VOTE))
        r->heard_at = r->now;
}

void raft_wake_for_message(struct raft *r, const struct nh_message *m)
{
    if (m->term == r->term && (m->type == NH_MSG_QUIESCE || is_late_heartbeat(r, m)))
        return;
    be_loyal(r, m);
    raft_wake(r);
}

/* Inactive peers do not keep the others awake (the caller has seen that a quorum is active). */
static bool is_idle(const struct raft *r)
{
    const struct raft_log *log = &r->log;

    if (r->now - r->active_at < r->options.quiesce_ticks || r->lead->reads.n > 0 || r->lead->removed_at)
        return false;
    if (r->lead->transferee || r->lead->held || r->asked.key || raft_leave_joint_is_due(r))
        return false;
    if (log->applied != log->last) /* what is applied is saved; so are a leader's term and vote */
        return false;
    for (uint32_t i = 0; i < r->lead->n_peers; i++) {
        const struct raft_peer *p = &r->lead->peers[i];

        if (p->active && (p->state != RAFT_REPLICATE || p->match != log->last || p->known_commit < log->last))
            return false;
    }
    return true;
}

void raft_go_quiet_if_idle(struct raft *r)
{
    if (!r->options.quiesce || !is_idle(r))
        return;
    for (uint32_t i = 0; i < r->lead->n_peers; i++) {
        struct nh_message *m = raft_send_now(r, NH_MSG_QUIESCE, r->lead->peers[i].id);

        m->log_index = r->log.last;
        m->log_term = raft_log_last_term(&r->log);
        m->commit = r->log.commit;
    }
    r->lead->heartbeat_wanted = false;
    go_quiet(r);
}

/* A request that was forwarded a moment ago may be lost: then this replica's timer must be running. Who has another leader than
 * itself is a follower. */
static bool may_go_quiet(const struct raft *r, const struct nh_message *m)
{
    const struct raft_log *log = &r->log;

    if (r->asked.key || log->unsaved_snapshot)
        return false;
    return r->leader_id == m->from && raft_state_saved(r) && r->now - r->active_at >= r->options.election_ticks &&
           log->last == m->log_index && log->saved == log->last && raft_log_last_term(log) == m->log_term;
}

void raft_on_quiesce(struct raft *r, const struct nh_message *m)
{
    if (m->commit > m->log_index) {
        raft_ignore(r);
        return;
    }
    if (r->quiesced || !may_go_quiet(r, m))
        return;
    raft_commit_to(r, m->commit);
    r->heard_at = r->now;
    go_quiet(r);
}
