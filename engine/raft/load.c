/* A replica that cannot keep up with applying says so (RATE_LIMIT), and its leader sends it no more entries until it can.
 *
 * Only the slow one is spared: proposals go on as long as a majority keeps up, and stop by the leader's limit of uncommitted
 * bytes if none does. Heartbeats and commit indexes go on too. The word is repeated with the answers to heartbeats; the leader
 * forgets it after E ticks, so a lost "go on" costs little.
 */
#include "engine/raft/raft_internal.h"

/* Bytes in memory that are committed and not applied. What is not committed may wait for this very replica to take more. */
static uint64_t backlog(const struct raft *r)
{
    if (r->log.cache.bytes <= r->options.max_unapplied_bytes / 2)
        return 0; /* no need to look closer */
    return raft_log_bytes(&r->log, r->log.applied + 1, r->log.commit + 1);
}

static void tell(struct raft *r)
{
    if (r->role == RAFT_FOLLOWER && r->leader_id != NH_NO_LEADER)
        raft_send_reply(r, NH_MSG_RATE_LIMIT, r->leader_id)->hint = r->overloaded;
}

void raft_report_load(struct raft *r)
{
    uint64_t bytes = backlog(r);
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
