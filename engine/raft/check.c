/* Every invariant of a replica, in one place.
 *
 * The cheap ones (a few dozen comparisons and one pass over members) are asserted before anything leaves the core, once per
 * update and in release builds too: an event that broke one has had no effect outside then. raft_check adds those that walk the
 * whole log in memory; tests and the simulator call it after each event.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>

static bool check_state(const struct raft *r, const char **ret_clause)
{
    RAFT_CLAUSE(r->term <= RAFT_TERM_MAX, "the term is in range");
    RAFT_CLAUSE(r->term >= raft_log_last_term(&r->log) ||
                    (r->options.start_below_snapshot_term && r->log.spans.n == 0 && r->term + 1 == r->log.anchor_term),
                "the term is not below the last entry's");
    RAFT_CLAUSE(r->saved_term <= r->taken_term && r->taken_term <= r->term, "terms are saved in order");
    RAFT_CLAUSE(r->taken_term < r->term || r->taken_vote == NH_NO_REPLICA || r->taken_vote == r->vote,
                "a vote of a term is never changed");
    RAFT_CLAUSE(r->taken_commit <= r->log.taken, "no save holds a commit index without its entries");
    RAFT_CLAUSE(r->log.saves.n > 0 || (r->saved_term == r->taken_term && r->saved_vote == r->taken_vote),
                "without a save in flight all that was taken is saved");
    RAFT_CLAUSE(r->election_since <= r->now && r->election_timeout < 2 * (uint64_t)r->options.election_ticks,
                "an election timeout is below 2E");
    RAFT_CLAUSE(!r->log.unsaved_snapshot || (r->snapshot && r->snapshot->index == r->log.unsaved_snapshot),
                "a snapshot that is to be saved is kept");
    RAFT_CLAUSE(!r->snapshot || r->snapshot->index <= r->log.commit, "a snapshot is of what is committed");
    return true;
}

static bool check_role(const struct raft *r, const char **ret_clause)
{
    uint64_t self = r->options.replica_id;

    RAFT_CLAUSE((r->role == RAFT_LEADER) == (r->leader_id == self), "a leader follows itself, others do not");
    RAFT_CLAUSE((r->role == RAFT_LEADER) == (r->lead != NULL), "only a leader has a leader's state");
    RAFT_CLAUSE(!r->quiesced || r->role == RAFT_LEADER || r->role == RAFT_FOLLOWER, "no candidate is quiet");
    if (r->role == RAFT_PRE_CANDIDATE || r->role == RAFT_CANDIDATE) {
        RAFT_CLAUSE(r->leader_id == NH_NO_LEADER, "a candidate has no leader");
        RAFT_CLAUSE(raft_is_voter(r, self), "a candidate is a voter");
    }
    if (r->role == RAFT_CANDIDATE || r->role == RAFT_LEADER)
        RAFT_CLAUSE(r->vote == self, "a candidate or leader voted for itself");
    RAFT_CLAUSE(r->led_term <= r->term, "no future term was led");
    return true;
}

static bool check_peer(const struct raft *r, const struct raft_peer *p, const char **ret_clause)
{
    RAFT_CLAUSE(p->match < p->next, "match < next");
    RAFT_CLAUSE(p->next <= r->log.last + 1, "nothing is sent that the log does not hold");
    RAFT_CLAUSE(p->state == RAFT_REPLICATE || p->window_n == 0, "only who streams has a window");
    RAFT_CLAUSE((p->state == RAFT_SNAPSHOT) == (p->pending_snapshot != 0), "a snapshot is on its way in that state alone");
    RAFT_CLAUSE(p->window_n <= r->options.max_inflight_messages, "the window's messages are limited");
    RAFT_CLAUSE(p->window_n > 0 || p->window_bytes == 0, "an empty window has no bytes");
    RAFT_CLAUSE(p->acked_round <= r->lead->round, "only rounds that began are confirmed");
    RAFT_CLAUSE(p->told_commit <= r->log.commit, "no peer was told more than is committed");
    return true;
}

static bool check_lead(const struct raft *r, const char **ret_clause)
{
    const struct raft_lead *lead = r->lead;
    uint64_t last_id = 0;

    if (!lead)
        return true;
    RAFT_CLAUSE(raft_state_saved(r), "a leader's term and vote are durable");
    RAFT_CLAUSE(r->led_term == r->term, "the term that is led is noted");
    RAFT_CLAUSE(lead->start_index <= r->log.last &&
                    (lead->start_index < r->log.first || raft_log_term(&r->log, lead->start_index) == r->term),
                "a leader's term starts with an entry of its own, which may be compacted since");
    RAFT_CLAUSE(r->log.commit >= lead->start_index || lead->reads.n == 0 || lead->reads.items[0].index == 0,
                "reads have no index before an entry of the own term is committed");
    RAFT_CLAUSE(lead->n_peers + (raft_member(r, r->options.replica_id) != NULL) == r->n_members, "every other member is a peer");
    RAFT_CLAUSE(r->is_voter || lead->removed_at, "a leader that is no voter is about to leave");
    RAFT_CLAUSE(!r->log.unsaved_snapshot, "a leader has no snapshot to be saved");
    RAFT_CLAUSE(!lead->transferee || raft_can_take_over(r, lead->transferee), "only a voter is given the leadership");
    for (uint32_t i = 0; i < lead->n_peers; i++) {
        RAFT_CLAUSE(lead->peers[i].id > last_id, "peers are in order");
        last_id = lead->peers[i].id;
        if (!check_peer(r, &lead->peers[i], ret_clause))
            return false;
    }
    return true;
}

static bool check_cheap(const struct raft *r, const char **ret_clause)
{
    return raft_log_check(&r->log, ret_clause) && check_state(r, ret_clause) && check_role(r, ret_clause) &&
           check_lead(r, ret_clause);
}

void raft_enforce(const struct raft *r)
{
    const char *failed_clause = NULL;

    if (!check_cheap(r, &failed_clause))
        __assert_fail(failed_clause, __FILE__, __LINE__, __func__); /* as assert does, with the words of the clause */
}

static bool check_windows(const struct raft *r, const char **ret_clause)
{
    const struct raft_lead *lead = r->lead;
    uint64_t from, payload;

    if (!lead)
        return true;
    for (uint32_t i = 0; i < lead->n_peers; i++) {
        const struct raft_peer *p = &lead->peers[i];
        uint64_t bytes = 0, last = p->match;

        for (uint32_t k = 0; k < p->window_n; k++) {
            const struct raft_inflight *f = &p->window[(p->window_head + k) % p->window_cap];

            RAFT_CLAUSE(f->last > last && f->last < p->next, "what is in flight lies between match and next, in order");
            last = f->last;
            bytes += f->bytes;
        }
        RAFT_CLAUSE(bytes == p->window_bytes, "the window's bytes are counted right");
    }
    from = r->log.commit + 1 > lead->start_index ? r->log.commit + 1 : lead->start_index;
    payload = raft_log_bytes(&r->log, from, r->log.last + 1) - (r->log.last + 1 - from) * NH_RECORD_HEADER_BYTES;
    RAFT_CLAUSE(lead->uncommitted_bytes == payload, "the uncommitted bytes are counted right");
    for (size_t i = 1; i < lead->reads.n; i++)
        RAFT_CLAUSE(lead->reads.items[i].round > lead->reads.items[i - 1].round, "rounds of reads rise");
    return true;
}

bool raft_check(const struct raft *r, const char **ret_clause)
{
    RAFT_CLAUSE(r->is_voter == raft_is_voter(r, r->options.replica_id), "who votes is known");
    return check_cheap(r, ret_clause) && raft_log_check_deep(&r->log, ret_clause) && check_windows(r, ret_clause);
}
