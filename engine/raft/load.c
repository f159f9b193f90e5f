/* A replica that cannot keep up with applying says so (RATE_LIMIT), and its leader sends it no more entries until it can.
 *
 * Only the slow one is spared: proposals go on as long as a majority keeps up, and stop by the leader's limit of uncommitted
 * bytes if none does. Heartbeats and commit indexes go on too. The word is repeated with the answers to heartbeats; the leader
 * forgets it after E ticks, so a lost "go on" costs little.
 *
 * A leader that is too slow itself takes no more proposals as long as there is too much (propose.c): what its own machine has not
 * applied is not answered either, and if that stands still the others would go on to fill its memory.
 */
#include "engine/raft/raft_internal.h"

static void tell(struct raft *r)
{
    if (r->role == RAFT_FOLLOWER && r->leader_id != NH_NO_LEADER)
        raft_send_reply(r, NH_MSG_RATE_LIMIT, r->leader_id)->hint = r->overloaded;
}

/* What is not committed does not count: it may wait for this very replica to take more. */
void raft_report_load(struct raft *r)
{
    uint64_t bytes = r->log.unapplied_bytes;
    bool was = r->overloaded;

    if (bytes > r->options.max_unapplied_bytes)
        r->overloaded = true;
    else if (bytes <= r->options.max_unapplied_bytes / 2)
        r->overloaded = false;
    if (r->overloaded != was)
        tell(r);
}

void raft_repeat_load(struct raft *r)
{
    if (r->overloaded)
        tell(r);
}

/* Of the own term, from a member. */
void raft_on_rate_limit(struct raft *r, const struct nh_message *m)
{
    struct raft_peer *p = raft_peer(r, m->from);

    if (p)
        p->overloaded_until = m->hint ? r->now + r->options.election_ticks : 0;
}

bool raft_peer_takes_entries(const struct raft *r, const struct raft_peer *p)
{
    return r->now >= p->overloaded_until;
}
