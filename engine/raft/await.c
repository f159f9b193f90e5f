/* Which of the events that end what was begun may come later, together with the next one.
 *
 * With one entry per pass a replica would be driven as often for SAVED and APPLIED as for all else, mostly to note a number that
 * the next event could as well have found there: a follower's acceptance leaves with the save, its SAVED changes nothing; the
 * machine holds what was applied, and only limits look at the index. So the core says whether anything waits for them.
 *
 * And a majority is complete before the last peer has answered: what the others accept then changes what is known of them, and
 * comes with the next event, which the leader of busy peers soon has.
 *
 * What is left untold is bounded in time: each replica that is awake is driven by heartbeats or by its election timer. One that
 * has no deadline, as a quiet one, waits for everything. So does one with a configuration change under way: it bars elections,
 * other changes and what may be said to be committed, and there are few of them.
 */
#include "engine/raft/raft_internal.h"

/* A quiet leader may have a deadline, but nothing is left to be told: it has applied all it has. */
static bool is_driven_soon(const struct raft *r)
{
    return raft_next_deadline(r) != RAFT_NEVER;
}

static bool change_is_under_way(const struct raft *r)
{
    return r->log.config_bound > r->log.applied;
}

/* A leader: its own copy would make a majority, or a witness is to be sent what is saved. */
static bool leader_awaits_saved(const struct raft *r)
{
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (nh_kind_is_witness(r->lead->peers[i].kind))
            return true;
    return raft_majority(r, r->log.taken, raft_match_of) > r->log.commit;
}

bool raft_awaits_saved(const struct raft *r)
{
    const struct raft_log *log = &r->log;

    if (log->saves.n == 0)
        return false;
    if (r->role == RAFT_PRE_CANDIDATE || r->role == RAFT_CANDIDATE) /* its own vote */
        return true;
    if (!is_driven_soon(r) || change_is_under_way(r) || log->unsaved_snapshot)
        return true;
    if (log->commit > log->saved && log->taken > log->saved) /* committed entries wait for it */
        return true;
    return raft_is_leader(r) && leader_awaits_saved(r);
}

/* A leader with nothing to do for its peers: each has been sent all there is, so it does not matter that one is further. */
static bool peers_are_served(const struct raft *r)
{
    for (uint32_t i = 0; i < r->lead->n_peers; i++) {
        const struct raft_peer *p = &r->lead->peers[i];

        if (p->state != RAFT_REPLICATE || p->next <= r->log.last)
            return false;
    }
    return true;
}

/* What is committed needs no more acceptances. Transfers, removals and changes look at who is how far. */
void raft_get_patience(const struct raft *r, struct raft_patience *ret)
{
    const struct raft_lead *lead = r->lead;

    *ret = (struct raft_patience){0};
    if (!raft_is_leader(r) || r->quiesced || lead->transferee || lead->removed_at || lead->held || change_is_under_way(r))
        return;
    if (peers_are_served(r))
        *ret = (struct raft_patience){.term = r->term, .below = r->log.commit + 1};
}

bool raft_awaits_applied(const struct raft *r)
{
    if (r->log.applied == r->log.handed)
        return false;
    return !is_driven_soon(r) || change_is_under_way(r) || r->overloaded || raft_apply_is_held(r);
}
