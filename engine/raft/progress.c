/* A leader's view of one peer: how far its log agrees, and what is on its way.
 *
 *     PROBE      one Replicate at a time, to find where the logs agree; `probing` while its answer is out
 *     REPLICATE  they agree up to `match`; entries are streamed, `next` moves when they are sent, within the window
 *
 *     SNAPSHOT   it needs entries that are gone; a snapshot is on its way and nothing else is sent
 *
 *     PROBE -- accepted --> REPLICATE          REPLICATE -- refused, unreachable, fetch failed --> PROBE
 *     PROBE, REPLICATE -- the entry before `next` is gone --> SNAPSHOT
 *     SNAPSHOT -- accepted up to the first entry --> REPLICATE, -- reported, or seen to be over --> PROBE
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>
#include <stdlib.h>

void raft_peer_init(struct raft_peer *p, const struct raft *r, const struct raft_member *m)
{
    *p = (struct raft_peer){
        .id = m->id,
        .kind = m->kind,
        .outgoing = m->outgoing,
        .awaited = r->log.last + 1, /* clients there may wait for what another leader took; + 1: the entry that opens the term */
        .state = RAFT_PROBE,
        .active = true, /* a new peer gets a whole window to answer */
        .next = r->log.last + 1,
    };
}

void raft_peer_deinit(struct raft_peer *p)
{
    free(p->window);
    *p = (struct raft_peer){0};
}

void raft_peer_shrink(struct raft_peer *p)
{
    if (p->window_n > 0)
        return;
    free(p->window);
    p->window = NULL;
    p->window_head = p->window_cap = 0;
}

static void clear_window(struct raft_peer *p)
{
    p->window_head = p->window_n = 0;
    p->window_bytes = 0;
}

void raft_peer_to_probe(struct raft_peer *p)
{
    clear_window(p);
    p->state = RAFT_PROBE;
    p->probing = p->probed = false;
    p->pending_snapshot = 0;
    p->next = p->match + 1;
}

void raft_peer_to_replicate(struct raft_peer *p)
{
    clear_window(p);
    p->state = RAFT_REPLICATE;
    p->probing = false;
    p->pending_snapshot = 0;
    p->n_failed = 0;
    p->next = p->match + 1;
}

void raft_peer_to_snapshot(struct raft_peer *p, uint64_t index)
{
    assert(index >= p->match);
    clear_window(p);
    p->state = RAFT_SNAPSHOT;
    p->probing = p->fetching = false;
    p->pending_snapshot = index;
    p->next = index + 1;
}

void raft_peer_awaits(struct raft_peer *p, uint64_t index)
{
    if (index > p->awaited)
        p->awaited = index;
}

/* The bytes may be exceeded by the one message that crosses the limit. */
bool raft_peer_is_full(const struct raft_peer *p, const struct raft_options *o)
{
    return p->window_n >= o->max_inflight_messages || p->window_bytes >= o->max_inflight_bytes;
}

/* Doubles the ring and straightens it. */
static void grow_window(struct raft_peer *p)
{
    uint32_t cap = p->window_cap ? p->window_cap * 2 : 8;
    struct raft_inflight *to = xmalloc(cap * sizeof *to);

    for (uint32_t i = 0; i < p->window_n; i++)
        to[i] = p->window[(p->window_head + i) % p->window_cap];
    free(p->window);
    p->window = to;
    p->window_cap = cap;
    p->window_head = 0;
}

void raft_peer_sent(struct raft_peer *p, uint64_t last, uint64_t bytes)
{
    assert(p->state == RAFT_REPLICATE && last >= p->next);
    if (p->window_n == p->window_cap)
        grow_window(p);
    p->window[(p->window_head + p->window_n) % p->window_cap] = (struct raft_inflight){last, bytes};
    p->window_n++;
    p->window_bytes += bytes;
    p->next = last + 1;
}

static void free_window_to(struct raft_peer *p, uint64_t index)
{
    while (p->window_n > 0 && p->window[p->window_head].last <= index) {
        p->window_bytes -= p->window[p->window_head].bytes;
        p->window_head = (p->window_head + 1) % p->window_cap;
        p->window_n--;
    }
}

bool raft_peer_accepted(struct raft_peer *p, uint64_t index)
{
    bool moved = index > p->match;

    if (index < p->match)
        return false;
    p->match = index;
    if (p->next <= index)
        p->next = index + 1;
    if (p->state == RAFT_PROBE) {
        raft_peer_to_replicate(p);
        return true;
    }
    if (p->state == RAFT_SNAPSHOT)
        return moved;
    free_window_to(p, index);
    return moved;
}

/* Late, doubled and reordered answers must do nothing (statement 31): while streaming, an anchor at or below `match` was
 * accepted since; while probing, only the answer to the last probe counts. */
bool raft_peer_refused(struct raft_peer *p, uint64_t index, uint64_t next)
{
    if (p->state == RAFT_REPLICATE) {
        if (index <= p->match || index >= p->next)
            return false;
        raft_peer_to_probe(p);
        return true;
    }
    if (p->state == RAFT_SNAPSHOT)
        return false;
    if (index != p->next - 1 || index <= p->match)
        return false;
    if (next > index)
        next = index; /* always back by one at least */
    p->next = next > p->match ? next : p->match + 1;
    p->probing = p->probed = false;
    return true;
}
