/* Heartbeats: they keep followers from standing, carry the commit index and the newest round of reads, and their answers
 * show the leader that it still has a quorum.
 */
#include "engine/raft/raft_internal.h"

static uint64_t is_active(const struct raft_peer *p)
{
    return p->active;
}

/* Every E ticks, however far time has jumped: without an active quorum a leader steps down in its own term
 * (statement 21); with one it may go quiet. */
static void end_quorum_window(struct raft *r)
{
    bool has_quorum = raft_majority(r, 1, is_active) == 1;

    r->lead->quorum_deadline = r->now + r->options.election_ticks;
    if (!has_quorum && r->options.check_quorum) {
        raft_become_follower(r, r->term, NH_NO_LEADER);
        return;
    }
    if (has_quorum)
        raft_go_quiet_if_idle(r);
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        r->lead->peers[i].active = false;
}

void raft_on_leader_tick(struct raft *r)
{
    if (r->now >= r->lead->quorum_deadline) {
        end_quorum_window(r);
        if (!raft_is_leader(r) || r->quiesced)
            return;
    }
    raft_transfer_tick(r);
    if (r->now >= r->lead->heartbeat_deadline)
        r->lead->heartbeat_wanted = true;
}

/* The commit index goes only as far as the peer's log is known to agree (statement 26). */
void raft_send_heartbeat(struct raft *r, const struct raft_peer *p)
{
    struct nh_message *m = raft_send_now(r, NH_MSG_HEARTBEAT, p->id);

    m->commit = p->match < r->log.commit ? p->match : r->log.commit;
    m->hint = raft_is_voter(r, p->id) ? raft_read_round(r) : 0;
    m->hint_high = r->options.lease_reads ? r->now : 0;
}

void raft_send_heartbeats(struct raft *r)
{
    struct raft_lead *lead = r->lead;

    lead->heartbeat_wanted = false;
    lead->heartbeat_deadline = r->now + r->options.heartbeat_ticks;
    for (uint32_t i = 0; i < lead->n_peers; i++)
        raft_send_heartbeat(r, &lead->peers[i]);
    raft_log_shrink(&r->log);
}

/* A peer that was just written to needs no heartbeat, nor does the leader: the answer will do. If either is lost, the next
 * heartbeat is a sign of life in time. But an answer waits for a disk, and a heartbeat's does not: nothing is put off as long as
 * the quorum of this window is still to come. The tick that has begun does not count: what is written to once per interval gets
 * none. A round of reads that may have to be repeated is carried by heartbeats alone. */
void raft_put_heartbeat_off(struct raft *r)
{
    struct raft_lead *lead = r->lead;
    uint64_t deadline = r->now + 2 * (uint64_t)r->options.heartbeat_ticks + 1;

    if (lead->heartbeat_deadline == deadline)
        return; /* by entries of this tick */
    if (r->options.lazy_heartbeat && !r->options.lease_reads && !lead->heartbeat_wanted && lead->reads.n == 0 &&
        raft_majority(r, 1, is_active) == 1)
        lead->heartbeat_deadline = deadline;
}

/* A commit index above the last entry means that this replica has lost what it once acknowledged. Which of the entries
 * that are left the leader means is unknown then, so nothing is committed by it. */
void raft_on_heartbeat(struct raft *r, const struct nh_message *m)
{
    struct nh_message *answer;

    if (m->commit <= r->log.last)
        raft_commit_to(r, m->commit);
    else
        raft_ignore(r);
    answer = raft_send_reply(r, NH_MSG_HEARTBEAT_RESP, m->from);
    answer->commit = raft_log_known_commit(&r->log);
    answer->hint = m->hint;
    answer->hint_high = r->options.lease_reads ? m->hint_high : 0; /* a promise (is_bound_by_lease), by who keeps it */
    raft_repeat_load(r);
    raft_log_shrink(&r->log);
}

void raft_on_heartbeat_resp(struct raft *r, const struct nh_message *m)
{
    struct raft_peer *p = raft_peer(r, m->from);

    if (!p)
        return;
    p->active = true;
    p->heard_at = r->now;
    p->probing = false;
    p->nudge = true;
    if (m->commit > p->known_commit)
        p->known_commit = m->commit;
    if (m->hint_high > p->lease_from && m->hint_high <= r->now)
        p->lease_from = m->hint_high;
    raft_snapshot_heard(r, p);
    raft_transfer_go_on(r, p);
    if (m->hint > p->acked_round && m->hint <= r->lead->round) {
        p->acked_round = m->hint;
        raft_confirm_reads(r);
    }
    raft_leave_if_removed(r);
}
