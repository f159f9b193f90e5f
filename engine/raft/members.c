/* Who belongs to the shard, and what its majorities say.
 *
 * In a joint configuration (thesis 4.3) every decision needs a majority of each half: commit, election, reads, check-quorum. A
 * member counts in the incoming half by its kind, in the outgoing one by its flag, in neither if it is only being fed.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>
#include <stdlib.h>

enum half { INCOMING = 0, OUTGOING = 1 };

/* Payload of NH_CONFIG_LEAVE_JOINT: field 2 (type) of raftpb ConfigChange. Written out so that the core needs no codec. */
static const uint8_t leave_joint_payload[] = {2 << 3, NH_CONFIG_LEAVE_JOINT};

static bool counts(uint8_t kind, bool outgoing, enum half half)
{
    return half == OUTGOING ? outgoing : kind == NH_MEMBER_VOTER || kind == NH_MEMBER_WITNESS;
}

/* ---- members ---- */

struct raft_member *raft_member(const struct raft *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->n_members; i++)
        if (r->members[i].id == id)
            return &r->members[i];
    return NULL;
}

bool raft_is_voter(const struct raft *r, uint64_t id)
{
    const struct raft_member *m = raft_member(r, id);

    if (!m || (!counts(m->kind, m->outgoing, INCOMING) && !counts(m->kind, m->outgoing, OUTGOING)))
        return false;
    /* A witness votes, but it is never asked to campaign or lead. */
    return !nh_kind_is_witness(m->kind) || id != r->options.replica_id;
}

bool raft_is_witness(const struct raft *r, uint64_t id)
{
    const struct raft_member *m = raft_member(r, id);

    return m && nh_kind_is_witness(m->kind);
}

struct raft_peer *raft_peer(const struct raft *r, uint64_t id)
{
    if (!raft_is_leader(r))
        return NULL;
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (r->lead->peers[i].id == id)
            return &r->lead->peers[i];
    return NULL;
}

struct raft_peer *raft_alloc_peers(const struct raft *r)
{
    uint32_t n_self = raft_member(r, r->options.replica_id) != NULL; /* a leader that was removed is none */

    return xmalloc((r->n_members - n_self) * sizeof(struct raft_peer));
}

bool raft_was_removed(const struct raft *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->n_removed; i++)
        if (r->removed[i] == id)
            return true;
    return false;
}

void raft_set_members(struct raft *r, const struct nh_membership *m, uint64_t index)
{
    free(r->members);
    free(r->removed);
    r->members = NULL;
    r->removed = NULL;
    r->n_members = r->n_removed = 0;
    r->joint = r->auto_leave = r->is_voter = false;
    r->members_index = index;
    if (!m)
        return;
    r->joint = m->joint;
    r->auto_leave = m->auto_leave;
    if (m->n_removed > 0)
        r->removed = xmemdup(m->removed, m->n_removed * sizeof *m->removed);
    r->n_removed = m->n_removed;
    if (m->n_members > 0)
        r->members = xcalloc(m->n_members, sizeof *r->members);
    for (uint32_t i = 0; i < m->n_members; i++)
        r->members[i] = (struct raft_member){.id = m->members[i].replica_id,
                                             .kind = (uint8_t)m->members[i].kind,
                                             .outgoing = m->members[i].outgoing};
    r->n_members = m->n_members;
    r->is_voter = raft_is_voter(r, r->options.replica_id);
}

/* ---- a change was applied ---- */

/* The leader's peers become those of the new membership; who stays keeps its progress. */
static void rebuild_peers(struct raft *r)
{
    struct raft_lead *lead = r->lead;
    struct raft_peer *old = lead->peers;
    uint32_t n_old = lead->n_peers, at = 0;

    lead->peers = raft_alloc_peers(r);
    lead->n_peers = 0;
    for (uint32_t i = 0; i < r->n_members; i++) {
        const struct raft_member *m = &r->members[i];
        struct raft_peer *p = &lead->peers[lead->n_peers];

        if (m->id == r->options.replica_id)
            continue;
        while (at < n_old && old[at].id < m->id)
            raft_peer_deinit(&old[at++]);
        if (at < n_old && old[at].id == m->id)
            *p = old[at++];
        else
            raft_peer_init(p, r, m);
        p->kind = m->kind;
        p->outgoing = m->outgoing;
        p->lease_from = 0; /* the next lease is one of the new majority */
        lead->n_peers++;
    }
    while (at < n_old)
        raft_peer_deinit(&old[at++]);
    free(old);
}

static void lead_new_members(struct raft *r, uint64_t index)
{
    rebuild_peers(r);
    if (raft_is_voter(r, r->options.replica_id))
        r->lead->removed_at = 0;
    else if (!r->lead->removed_at)
        r->lead->removed_at = index;
    if (r->lead->transferee && !raft_can_take_over(r, r->lead->transferee))
        r->lead->transferee = 0;
    raft_advance_commit(r);
    raft_confirm_reads(r);
    raft_leave_if_removed(r);
}

/* A smaller quorum may commit and confirm at once (statements 52, 70). An election counts the members it began with. A change
 * that a snapshot brought already is old news. */
void raft_on_membership(struct raft *r, uint64_t index, const struct nh_membership *m)
{
    if (!m || index < r->members_index)
        return;
    raft_set_members(r, m, index);
    if (r->role == RAFT_PRE_CANDIDATE || r->role == RAFT_CANDIDATE)
        raft_become_follower(r, r->term, NH_NO_LEADER);
    if (raft_is_leader(r))
        lead_new_members(r, index);
}

/* ---- leaving a joint configuration ---- */

/* Once, when the change that entered it is applied: by whoever leads then, and again after a transfer or a lost leadership stood
 * in its way (statement 49). */
bool raft_leave_joint_is_due(const struct raft *r)
{
    return raft_is_leader(r) && r->joint && r->auto_leave && r->log.config_bound <= r->log.applied &&
           raft_own_term_committed(r) && !r->lead->transferee && !r->lead->removed_at && r->log.last < RAFT_INDEX_MAX &&
           !raft_change_would_wait(r);
}

void raft_leave_joint(struct raft *r)
{
    struct block_record record = {.type = NH_ENTRY_CONFIG_CHANGE,
                                  .origin = (uint32_t)r->options.replica_id,
                                  .payload = leave_joint_payload,
                                  .payload_bytes = sizeof leave_joint_payload};
    struct block_builder b = {0};
    int code = block_builder_add(&b, &record);

    assert(code == NH_OK);
    (void)code;
    r->active_at = r->now;
    raft_append_records(r, &b);
}

/* ---- majorities ---- */

/* Who is asked: all who vote, or those of them who store payloads. */
enum electorate { ALL_VOTERS, DATA_VOTERS };

static bool is_asked(uint8_t kind, bool outgoing, enum half half, enum electorate electorate)
{
    return counts(kind, outgoing, half) && (electorate == ALL_VOTERS || !nh_kind_is_witness(kind));
}

/* False: nobody is asked in this half. */
static bool half_reached(const struct raft *r, enum half half, enum electorate electorate, uint64_t own,
                         uint64_t (*of)(const struct raft_peer *p), uint64_t *ret)
{
    const struct raft_member *self = raft_member(r, r->options.replica_id);
    uint64_t values[NH_MEMBERS_MAX];
    size_t n = 0;

    if (self && is_asked(self->kind, self->outgoing, half, electorate))
        values[n++] = own;
    for (uint32_t i = 0; i < r->lead->n_peers; i++) {
        const struct raft_peer *p = &r->lead->peers[i];

        if (is_asked(p->kind, p->outgoing, half, electorate))
            values[n++] = of(p);
    }
    if (n > 0)
        *ret = raft_quorum_reached(values, n);
    return n > 0;
}

/* A shard without voters decides nothing. */
static uint64_t reached(const struct raft *r, enum electorate electorate, uint64_t own, uint64_t (*of)(const struct raft_peer *p))
{
    uint64_t in = 0, out = 0;

    if (!half_reached(r, INCOMING, electorate, own, of, &in))
        return 0;
    if (!r->joint || !half_reached(r, OUTGOING, electorate, own, of, &out))
        return in;
    return in < out ? in : out;
}

uint64_t raft_majority(const struct raft *r, uint64_t own, uint64_t (*of)(const struct raft_peer *p))
{
    return reached(r, ALL_VOTERS, own, of);
}

uint64_t raft_data_majority(const struct raft *r, uint64_t own, uint64_t (*of)(const struct raft_peer *p))
{
    return reached(r, DATA_VOTERS, own, of);
}

static enum raft_verdict half_verdict(const struct raft *r, enum half half)
{
    size_t n = 0, granted = 0, refused = 0;

    for (uint32_t i = 0; i < r->n_members; i++) {
        const struct raft_member *m = &r->members[i];

        if (!counts(m->kind, m->outgoing, half))
            continue;
        n++;
        granted += m->ballot == RAFT_BALLOT_GRANTED;
        refused += m->ballot == RAFT_BALLOT_REFUSED;
    }
    if (n == 0 || granted >= raft_quorum(n))
        return RAFT_VERDICT_WON;
    return n - refused < raft_quorum(n) ? RAFT_VERDICT_LOST : RAFT_VERDICT_OPEN;
}

enum raft_verdict raft_verdict(const struct raft *r)
{
    enum raft_verdict in = half_verdict(r, INCOMING), out = half_verdict(r, OUTGOING);

    if (in == RAFT_VERDICT_LOST || out == RAFT_VERDICT_LOST)
        return RAFT_VERDICT_LOST;
    return in == RAFT_VERDICT_WON && out == RAFT_VERDICT_WON ? RAFT_VERDICT_WON : RAFT_VERDICT_OPEN;
}
