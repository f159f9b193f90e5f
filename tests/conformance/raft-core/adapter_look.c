/* Inspection, and majorities. The latter are the core's own: they are asked of a replica that is nothing but members. */
#include "tests/conformance/raft-core/adapter.h"

#include <stdlib.h>

/* ---- a node ---- */

static bool is_learner(const struct raft_member *m)
{
    return m && m->kind == NH_MEMBER_NON_VOTING && !m->outgoing;
}

int rct_status(rct_node *n, rct_status_t *out)
{
    struct raft_status s;

    if (!n->core)
        return RCT_E_ARG;
    raft_get_status(n->core, &s);
    *out = (rct_status_t){
        .id = n->config.id,
        .term = s.term,
        .vote = s.vote,
        .lead = s.leader_id,
        .commit = s.commit_index,
        .applied = s.applied_index,
        .first = s.first_index,
        .last = s.last_index,
        .last_term = raft_log_last_term(&n->core->log),
        .stable_last = s.saved_index,
        .transferee = s.transferee,
        .role = role_of(s.role),
        .is_learner = is_learner(raft_member(n->core, n->config.id)),
        .promotable = raft_is_voter(n->core, n->config.id) && !n->core->log.unsaved_snapshot,
    };
    conf_of_core(n->core, &n->conf_ids, &out->conf);
    return RCT_OK;
}

static rct_pr progress_of(const rct_node *n, const struct raft_peer *p)
{
    static const uint8_t states[] = {
        [RAFT_PROBE] = RCT_PR_PROBE, [RAFT_REPLICATE] = RCT_PR_REPLICATE, [RAFT_SNAPSHOT] = RCT_PR_SNAPSHOT};
    bool full = raft_peer_is_full(p, &n->core->options);

    return (rct_pr){.id = p->id,
                    .match = p->match,
                    .next = p->next,
                    .pending_snap = p->pending_snapshot,
                    .inflight = p->window_n,
                    .state = states[p->state],
                    .paused = p->state == RAFT_REPLICATE ? full : p->state == RAFT_SNAPSHOT || p->probing,
                    .learner = p->kind == NH_MEMBER_NON_VOTING && !p->outgoing,
                    .active = p->active,
                    .full = full};
}

/* The leader is among them, as far as its own log is durable. */
static rct_pr own_progress(const rct_node *n, const struct raft_member *self)
{
    return (rct_pr){.id = self->id,
                    .match = n->core->log.saved,
                    .next = n->core->log.last + 1,
                    .state = RCT_PR_REPLICATE,
                    .learner = is_learner(self),
                    .active = 1};
}

int rct_progress(rct_node *n, rct_pr *out, uint32_t cap)
{
    if (!n->core || !raft_is_leader(n->core))
        return 0;
    for (uint32_t i = 0; i < n->core->n_members && i < cap; i++) {
        const struct raft_member *m = &n->core->members[i];
        const struct raft_peer *p = raft_peer(n->core, m->id);

        out[i] = p ? progress_of(n, p) : own_progress(n, m);
    }
    return (int)n->core->n_members;
}

int rct_log(rct_node *n, uint32_t stable_only, rct_entry *out, uint32_t cap)
{
    const struct entry_log *log = stable_only ? &n->stable : &n->log;

    for (uint32_t i = 0; i < cap && i < log->entries.n; i++)
        out[i] = log->entries.items[i];
    return (int)log->entries.n;
}

/* ---- majorities ---- */

static uint64_t match_of(const struct raft_peer *p)
{
    return p->match;
}

static uint64_t quorum_commit(const struct nh_membership *m, const uint64_t *ids, const uint64_t *match, uint32_t n)
{
    struct raft_peer peers[NH_MEMBERS_MAX] = {{0}};
    struct raft_lead lead = {.peers = peers, .n_peers = m->n_members};
    struct raft r = {.role = RAFT_LEADER, .lead = &lead, .joint = m->joint};

    for (uint32_t i = 0; i < m->n_members; i++) {
        peers[i].id = m->members[i].replica_id;
        peers[i].kind = (uint8_t)m->members[i].kind;
        peers[i].outgoing = m->members[i].outgoing;
        for (uint32_t k = 0; k < n; k++)
            if (ids[k] == peers[i].id)
                peers[i].match = match[k];
    }
    return raft_majority(&r, 0, match_of);
}

/* Half a configuration in which nobody votes has committed everything, says the suite; the core has no such leader. */
uint64_t rct_quorum_commit(const rct_conf *conf, const uint64_t *ids, const uint64_t *match, uint32_t n)
{
    rct_conf c = *conf;
    struct nh_membership m;
    uint64_t index;

    if (c.n_voters == 0) {
        c.voters = c.voters_out;
        c.n_voters = c.n_voters_out;
        c.n_voters_out = 0;
    }
    if (c.n_voters == 0)
        return UINT64_MAX;
    if (!conf_to_membership(&c, &m))
        return 0;
    index = quorum_commit(&m, ids, match, n);
    nh_membership_deinit(&m);
    return index;
}

int rct_quorum_vote(const rct_conf *conf, const uint64_t *ids, const uint8_t *votes, uint32_t n)
{
    static const enum raft_ballot ballots[] = {RAFT_BALLOT_NONE, RAFT_BALLOT_REFUSED, RAFT_BALLOT_GRANTED};
    static const int verdicts[] = {[RAFT_VERDICT_OPEN] = 1, [RAFT_VERDICT_LOST] = 2, [RAFT_VERDICT_WON] = 3};
    struct raft_member members[NH_MEMBERS_MAX] = {{0}};
    struct nh_membership m;
    struct raft r = {.members = members};

    if (!conf_to_membership(conf, &m))
        return RCT_E_ARG;
    r.n_members = m.n_members;
    r.joint = m.joint;
    for (uint32_t i = 0; i < m.n_members; i++) {
        members[i] = (struct raft_member){m.members[i].replica_id, (uint8_t)m.members[i].kind, m.members[i].outgoing, 0};
        for (uint32_t k = 0; k < n; k++)
            if (ids[k] == members[i].id && votes[k] <= 2)
                members[i].ballot = (uint8_t)ballots[votes[k]];
    }
    nh_membership_deinit(&m);
    return verdicts[raft_verdict(&r)];
}
