/* Snapshots: what a peer gets that needs entries which are no longer in the log, and what it does with it.
 *
 * The core handles records (index, term, membership); images travel and lie elsewhere. A received snapshot replaces the whole
 * log unless the log holds its last entry (statements 62, 63). It is acknowledged when its record is durable (68); until then
 * nothing is handed out for applying (42) and this replica does not stand (10).
 */
#include "engine/raft/raft_internal.h"

#include <stdlib.h>

/* More make the pause before the next try no longer: 64 election timeouts. */
#define FAILURES_COUNTED 6u

static void keep(struct raft *r, const struct nh_snapshot *snapshot)
{
    if (r->snapshot)
        nh_snapshot_deinit(r->snapshot);
    else
        r->snapshot = xcalloc(1, sizeof *r->snapshot);
    nh_snapshot_copy(r->snapshot, snapshot);
}

/* ---- leader ---- */

static bool is_member_of(const struct nh_snapshot *s, uint64_t id)
{
    return nh_membership_find(&s->membership, id) != NULL;
}

/* One that does not list the peer, because it was made before the peer was added, would be ignored there (statement 64). */
static bool fits(const struct raft *r, const struct raft_peer *p)
{
    return r->snapshot && !r->log.unsaved_snapshot && r->snapshot->index + 1 >= r->log.first && is_member_of(r->snapshot, p->id);
}

/* Not to a peer that was silent for E ticks: it would only lie in a queue (statement 65). */
bool raft_snapshot_is_due(const struct raft *r, const struct raft_peer *p)
{
    return p->state != RAFT_SNAPSHOT && p->active && !(p->state == RAFT_PROBE && p->probing) && r->now >= p->snapshot_after &&
           fits(r, p);
}

bool raft_snapshot_is_wanted(const struct raft *r)
{
    if (!raft_is_leader(r) || r->log.first == 1)
        return false;
    for (uint32_t i = 0; i < r->lead->n_peers; i++) {
        const struct raft_peer *p = &r->lead->peers[i];

        if (p->active && p->state != RAFT_SNAPSHOT && !raft_has_anchor(r, p) && !fits(r, p))
            return true;
    }
    return false;
}

void raft_send_snapshot(struct raft *r, struct raft_peer *p)
{
    struct nh_message *m = raft_send_now(r, NH_MSG_INSTALL_SNAPSHOT, p->id);

    m->snapshot = xcalloc(1, sizeof *m->snapshot);
    nh_snapshot_copy(m->snapshot, r->snapshot);
    m->snapshot->witness = nh_kind_is_witness(p->kind);
    m->commit = r->log.commit;
    raft_peer_to_snapshot(p, r->snapshot->index);
}

/* Its way is over: from now on the peer is probed, after a sign of life (statement 67). */
static void end_snapshot(struct raft_peer *p, bool arrived)
{
    uint64_t pending = p->pending_snapshot;

    raft_peer_to_probe(p);
    if (arrived && p->next <= pending)
        p->next = pending + 1;
    p->probing = true;
}

/* The first failure may have been the network's, and the next try waits for a sign of life only. What fails again (an image that
 * is damaged, a disk there that is full) waits for an election timeout, and twice as long each time: each try may be gigabytes.
 */
static void put_off(const struct raft *r, struct raft_peer *p)
{
    if (p->n_failed > 0)
        p->snapshot_after = r->now + ((uint64_t)r->options.election_ticks << (p->n_failed - 1));
    if (p->n_failed <= FAILURES_COUNTED)
        p->n_failed++;
}

/* One that has given way to a newer one, while it waited to be sent, cost nothing and says nothing about the next try. */
void raft_on_snapshot_status(struct raft *r, uint64_t peer, bool failed, bool pruned)
{
    struct raft_peer *p = raft_peer(r, peer);
    bool gave_way;

    if (!p || p->state != RAFT_SNAPSHOT)
        return;
    gave_way = pruned && r->snapshot && r->snapshot->index > p->pending_snapshot;
    end_snapshot(p, !failed);
    if (!failed)
        p->n_failed = 0;
    else if (!gave_way)
        put_off(r, p);
}

/* The answer to it may be lost, and the report too: what the peer says to have committed tells that it arrived. Nobody reports on
 * what a witness gets, which is a record in an ordinary message: it is sent again with each sign of life until it has arrived. */
void raft_snapshot_heard(struct raft *r, struct raft_peer *p)
{
    bool arrived = p->known_commit >= p->pending_snapshot;

    (void)r;
    if (p->state != RAFT_SNAPSHOT || !(arrived || nh_kind_is_witness(p->kind)))
        return;
    end_snapshot(p, arrived);
    p->probing = false;
}

/* ---- follower ---- */

/* It lists this replica (statement 64), as what it was made for. A witness's snapshot has no image, and a voter that took it
 * would go on with an empty machine. That is told by the members in it, not by those here, which may be old; and a replica is a
 * witness for all its life or never. */
static bool is_for(const struct nh_snapshot *s, uint64_t id)
{
    const struct nh_member *m = nh_membership_find(&s->membership, id);

    return m && nh_kind_is_witness(m->kind) == s->witness;
}

static void restore(struct raft *r, const struct nh_snapshot *s)
{
    raft_log_restore(&r->log, s->index, s->term);
    keep(r, s);
    raft_set_members(r, &s->membership, s->index);
}

void raft_on_install_snapshot(struct raft *r, const struct nh_message *m)
{
    const struct nh_snapshot *s = m->snapshot;

    if (s->index <= r->log.commit) {
        raft_accept(r, m->from, r->log.commit);
        return;
    }
    if (raft_log_term(&r->log, s->index) == s->term) {
        raft_commit_to(r, s->index);
        raft_accept(r, m->from, s->index);
        return;
    }
    if (!is_for(s, r->options.replica_id)) {
        raft_ignore(r);
        return;
    }
    restore(r, s);
    raft_accept(r, m->from, s->index);
}

/* ---- the own ones ---- */

/* Of what is applied here: so one that was received and is not saved yet is newer, and stays. */
void raft_on_snapshot_made(struct raft *r, const struct nh_snapshot *snapshot)
{
    if (!r->snapshot || snapshot->index > r->snapshot->index)
        keep(r, snapshot);
}

void raft_on_compacted(struct raft *r, uint64_t index)
{
    if (index >= r->log.first && index <= r->log.applied)
        raft_log_compact(&r->log, index);
}
