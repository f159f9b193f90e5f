/* A replica that was taken out: how it learns it, and why it stays a while.
 *
 * It may have applied its own removal, or it was cut off and is told by the members that it asks for votes (REMOVED, message.c).
 * But it may be needed still: those who stay may not know yet that the change is committed, count by the old configuration,
 * and want its vote, or hear from it what is committed (statement 55); or it holds the only payloads beside a witness. So it is
 * gone only when those who stay can do without it:
 *
 *     a majority of the others has said REMOVED: they know, also after a restart, and so they hold all up to it; or
 *     a leader said so that has this from a majority of the new configuration
 *
 * Until then it calls every election timeout (raft_call): a refusal that nobody asked for, with what it knows to be committed.
 * Who does not know yet learns it from that; who knows answers REMOVED. One that nobody answers, because all whom it knows are
 * gone too, stays until its user stops it.
 */
#include "engine/raft/raft_internal.h"

bool raft_is_leaving(const struct raft *r)
{
    return !raft_is_leader(r) && !r->is_removed && raft_was_removed(r, r->options.replica_id);
}

bool raft_can_do_without_removed(const struct raft *r)
{
    return raft_is_leader(r) && raft_majority(r, raft_log_known_commit(&r->log), raft_known_commit_of) >= r->members_index;
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
    if (r->is_removed || (m->hint == 0 && !majority_has_told(r)))
        return;
    r->is_removed = true;
    if (raft_is_leader(r)) /* of a term that is over: the others have another leader */
        raft_become_follower(r, r->term, NH_NO_LEADER);
}
