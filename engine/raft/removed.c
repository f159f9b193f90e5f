/* A replica that was taken out: how it learns it, and why it stays a while.
 *
 * It may have applied its own removal, or it was cut off and is told by the members that it asks for votes (REMOVED, message.c).
 * But it may be needed still: those who stay may not know yet that the change is committed, count by the old configuration,
 * and want its vote, or at least to hear from it what is committed (statement 55). So it is gone only when a majority of the
 * others has said REMOVED: they have applied the change, and elect by the new configuration. Until then it calls every election
 * timeout (raft_call): a refusal that nobody asked for, with what it knows to be committed. Who does not know yet learns it from
 * that; who knows answers REMOVED.
 *
 * Of a configuration that has been replaced altogether nobody may be left to form that majority. Then one word is enough after
 * a time.
 */
#include "engine/raft/raft_internal.h"

#define PATIENCE_TIMEOUTS 20u

bool raft_is_leaving(const struct raft *r)
{
    return !raft_is_leader(r) && !r->is_removed && raft_was_removed(r, r->options.replica_id);
}

static bool majority_has_told(const struct raft *r)
{
    size_t n = 0, told = 0;

    for (uint32_t i = 0; i < r->n_members; i++) {
        if (r->members[i].id == r->options.replica_id || !raft_is_voter(r, r->members[i].id))
            continue;
        n++;
        told += r->members[i].told_removed;
    }
    return told >= raft_quorum(n);
}

/* From a member, of any term: ids never return, so it stays true. */
void raft_on_removed(struct raft *r, const struct nh_message *m)
{
    raft_member(r, m->from)->told_removed = true;
    if (!r->told_removed_first) {
        r->told_removed_first = true;
        r->told_removed_at = r->now;
    }
    if (r->is_removed || !majority_has_told(r))
        return;
    r->is_removed = true;
    if (raft_is_leader(r)) /* of a term that is over: the others have another leader */
        raft_become_follower(r, r->term, NH_NO_LEADER);
}

uint64_t raft_removal_deadline(const struct raft *r)
{
    if (!r->told_removed_first || r->is_removed || raft_is_leader(r))
        return RAFT_NEVER;
    return r->told_removed_at + PATIENCE_TIMEOUTS * (uint64_t)r->options.election_ticks;
}

void raft_removed_tick(struct raft *r)
{
    if (r->now >= raft_removal_deadline(r))
        r->is_removed = true;
}
