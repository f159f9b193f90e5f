/* Giving the leadership away (thesis 3.10).
 *
 * The leader stops taking proposals, brings its target up to the last entry, and tells it to stand at once (TIMEOUT_NOW). The
 * target's vote requests are marked, so that leader stickiness does not stop them (statement 18). After E ticks the leader gives
 * up and takes proposals again (statement 58). A TIMEOUT_NOW may still be on its way then: so leases are over for the rest of
 * the term (statement 23).
 *
 * Whoever was asked for the transfer, leader or not, tells how it ended: it sees the target lead, or another replica, or a
 * refusal, or nothing for 2E.
 */
#include "engine/raft/raft_internal.h"

/* ---- where it was asked for ---- */

static void end_asked(struct raft *r, enum raft_transfer_code code, enum raft_transfer_reason reason)
{
    *RAFT_PUSH(&r->out->transfers) = (struct raft_transfer_end){.key = r->asked.key, .code = code, .reason = reason};
    r->asked.key = 0;
}

void raft_transfer_watch(struct raft *r)
{
    if (r->leader_id == r->asked.target)
        end_asked(r, RAFT_TRANSFER_DONE, RAFT_TRANSFER_OK);
    else if (r->leader_id != NH_NO_LEADER && r->leader_id != r->asked.leader_id)
        end_asked(r, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_LOST_TARGET);
    else if (raft_is_leader(r) && !raft_can_take_over(r, r->asked.target)) /* it was removed or demoted meanwhile */
        end_asked(r, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_LOST_TARGET);
    else if (r->now >= r->asked.deadline)
        end_asked(r, RAFT_TRANSFER_TIMED_OUT, RAFT_TRANSFER_OK);
}

static void end_if_refused(struct raft *r, enum raft_transfer_reason reason)
{
    if (reason != RAFT_TRANSFER_OK)
        end_asked(r, RAFT_TRANSFER_REFUSED, reason);
}

/* ---- the leader's side ---- */

bool raft_can_take_over(const struct raft *r, uint64_t id)
{
    const struct raft_member *m = raft_member(r, id);

    return m && m->kind == NH_MEMBER_VOTER && id != r->options.replica_id;
}

static void hand_over_if_ready(struct raft *r, const struct raft_peer *p)
{
    if (p->match != r->log.last) /* match, not next: it has acknowledged all (statement 59) */
        return;
    r->lead->lease_given_up = true;
    raft_send_now(r, NH_MSG_TIMEOUT_NOW, p->id);
}

/* A second wish for another target takes the place of the first; for the same one it does not give it more time. */
static enum raft_transfer_reason admit(struct raft *r, uint64_t target)
{
    struct raft_lead *lead = r->lead;

    if (lead->removed_at || !raft_can_take_over(r, target))
        return RAFT_TRANSFER_NO_VOTER;
    r->active_at = r->now;
    if (lead->transferee == target)
        return RAFT_TRANSFER_OK;
    lead->transferee = target;
    lead->transfer_deadline = r->now + r->options.election_ticks;
    hand_over_if_ready(r, raft_peer(r, target));
    return RAFT_TRANSFER_OK;
}

void raft_transfer_go_on(struct raft *r, const struct raft_peer *p)
{
    if (r->lead->transferee == p->id)
        hand_over_if_ready(r, p);
}

void raft_transfer_tick(struct raft *r)
{
    if (r->lead->transferee && r->now >= r->lead->transfer_deadline)
        r->lead->transferee = 0;
}

void raft_transfer(struct raft *r, uint64_t target, uint64_t key)
{
    struct nh_message *m;

    if (r->asked.key)
        end_asked(r, RAFT_TRANSFER_REFUSED, RAFT_TRANSFER_REPLACED);
    r->asked.target = target;
    r->asked.key = key;
    r->asked.leader_id = r->leader_id;
    r->asked.deadline = r->now + 2 * (uint64_t)r->options.election_ticks;
    if (r->leader_id == target)
        return; /* done: raft_transfer_watch says so */
    if (raft_is_leader(r)) {
        end_if_refused(r, admit(r, target));
    } else if (r->leader_id == NH_NO_LEADER) {
        end_if_refused(r, RAFT_TRANSFER_NO_LEADER);
    } else {
        m = raft_send_now(r, NH_MSG_LEADER_TRANSFER, r->leader_id);
        m->hint = target;
        m->hint_high = key;
    }
}

/* A wish of a follower, or the leader's word that it will not be. Of any term: somebody waits for the answer. */
void raft_on_leader_transfer(struct raft *r, const struct nh_message *m)
{
    enum raft_transfer_reason reason;
    struct nh_message *answer;

    if (m->reject) {
        if (r->asked.key && m->hint_high == r->asked.key && m->hint <= RAFT_TRANSFER_LOST_TARGET)
            end_if_refused(r, (enum raft_transfer_reason)m->hint);
        return;
    }
    reason = raft_is_leader(r) ? admit(r, m->hint) : RAFT_TRANSFER_NOT_LEADER;
    if (reason == RAFT_TRANSFER_OK || (raft_is_leader(r) && m->hint == r->options.replica_id))
        return;
    answer = raft_send_reply(r, NH_MSG_LEADER_TRANSFER, m->from);
    answer->reject = true;
    answer->hint = reason;
    answer->hint_high = m->hint_high;
}

/* ---- the target's side ---- */

/* From the leader of the own term. What is not saved here would be missing after a crash in the election (statement 59). */
void raft_on_timeout_now(struct raft *r)
{
    if (raft_state_saved(r) && r->log.saved == r->log.last)
        raft_stand_now(r);
}
