/* The only file that changes the role (diagram: raft_internal.h), the term and the leader. */
#include "engine/raft/raft_internal.h"

#include <assert.h>
#include <stdlib.h>

/* splitmix64: every seed is good, one word of state. */
static uint64_t next_random(struct raft *r)
{
    uint64_t z = r->random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* A fresh timeout from [E, 2E), or early (raft_boot.stand_early). */
void raft_reset_election_timer(struct raft *r)
{
    uint64_t ticks = r->options.election_ticks;

    if (r->now < r->early_until)
        ticks = (ticks + 3) / 4;
    r->election_since = r->now;
    r->election_timeout = ticks + next_random(r) % ticks;
}

static void enter_term(struct raft *r, uint64_t term)
{
    assert(term > r->term && term <= RAFT_TERM_MAX);
    r->term = term;
    r->vote = NH_NO_REPLICA;
    r->early_until = 0;
}

void raft_lead_free(struct raft_lead *lead)
{
    if (!lead)
        return;
    for (uint32_t i = 0; i < lead->n_peers; i++)
        raft_peer_deinit(&lead->peers[i]);
    free(lead->peers);
    free(lead->reads.items);
    if (lead->held)
        block_builder_deinit(&lead->held->records);
    free(lead->held);
    free(lead);
}

/* A leader that gives way tells whoever waits for a read, or for a change that it has not taken yet. Proposals it has taken stay
 * in the log: their fate is open. */
static void leave_lead(struct raft *r)
{
    raft_drop_reads(r);
    raft_drop_held(r);
    raft_lead_free(r->lead);
    r->lead = NULL;
    r->role = RAFT_FOLLOWER;
}

/* The timer starts anew when a leader is known and when a leader gives way; otherwise it goes on: a candidate that is refused
 * must not keep this replica from standing itself (statement 7). */
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader_id)
{
    bool was_leader = raft_is_leader(r);

    assert(term >= r->term && leader_id != r->options.replica_id);
    if (term > r->term)
        enter_term(r, term);
    if (was_leader)
        leave_lead(r);
    r->role = RAFT_FOLLOWER;
    r->leader_id = leader_id;
    if (leader_id != NH_NO_LEADER) {
        r->heard_at = r->now;
        r->heard_from = leader_id;
        r->early_until = 0;
    }
    if (leader_id != NH_NO_LEADER || was_leader)
        raft_reset_election_timer(r);
}

/* Opens an election of either kind. The old leader is forgotten, so that two such replicas can elect one of them although
 * each had heard from it lately (statement 17). */
static void stand(struct raft *r, enum raft_role role)
{
    assert(r->role != RAFT_LEADER && !r->quiesced);
    r->role = role;
    r->leader_id = NH_NO_LEADER;
    for (uint32_t i = 0; i < r->n_members; i++)
        r->members[i].ballot = RAFT_BALLOT_NONE;
    raft_reset_election_timer(r);
}

void raft_become_pre_candidate(struct raft *r)
{
    stand(r, RAFT_PRE_CANDIDATE);
    /* A pre-vote promises nothing, so the own one counts at once. */
    raft_member(r, r->options.replica_id)->ballot = RAFT_BALLOT_GRANTED;
}

/* The own vote is counted when it is durable (raft_count_own_vote). */
void raft_become_candidate(struct raft *r)
{
    stand(r, RAFT_CANDIDATE);
    enter_term(r, r->term + 1);
    r->vote = r->options.replica_id;
}

static void init_peers(struct raft *r, struct raft_lead *lead)
{
    lead->peers = raft_alloc_peers(r);
    for (uint32_t i = 0; i < r->n_members; i++) {
        const struct raft_member *m = &r->members[i];

        if (m->id != r->options.replica_id)
            raft_peer_init(&lead->peers[lead->n_peers++], r, m);
    }
}

/* An empty entry of the new term: until it is committed nothing older counts as committed (figure 8), and reads wait. */
static void append_opening_entry(struct raft *r)
{
    struct block_record record = {.type = NH_ENTRY_APPLICATION, .origin = (uint32_t)r->options.replica_id};
    struct block_builder b = {0};
    int code = block_builder_add(&b, &record);

    assert(code == NH_OK);
    (void)code;
    raft_append_records(r, &b);
}

void raft_become_leader(struct raft *r)
{
    struct raft_lead *lead = xcalloc(1, sizeof *lead);

    assert(r->role == RAFT_CANDIDATE && raft_state_saved(r));
    r->role = RAFT_LEADER;
    r->leader_id = r->options.replica_id;
    r->led_term = r->term;
    r->marks.n = 0;
    r->active_at = r->now;
    r->lead = lead;
    init_peers(r, lead);
    lead->start_index = r->log.last + 1;
    lead->heartbeat_deadline = r->now + r->options.heartbeat_ticks;
    lead->quorum_deadline = r->now + r->options.election_ticks;
    lead->asked_since = r->now;
    append_opening_entry(r);
}
