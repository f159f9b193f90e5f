/* What a leader sends to each peer: probes, the stream of entries, empty Replicates for the commit index, fetched entries.
 *
 * raft_collect calls raft_replicate_all once per update, so all that a step made ready leaves together, and the commit index
 * travels with the next entries rather than alone.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>

/* What may be sent to it. Nobody could win the vote of a witness that has more than every voter who stores payloads. So it gets
 * only what is durable here; and if this replica may soon not be a voter any more, or is none, what a majority of those others
 * has. */
static uint64_t last_for(const struct raft *r, const struct raft_peer *p)
{
    if (!nh_kind_is_witness(p->kind))
        return r->log.last;
    if (r->log.config_bound > r->log.applied || !raft_is_voter(r, r->options.replica_id))
        return raft_data_majority(r, r->log.saved, raft_match_of);
    return r->log.saved;
}

static struct nh_message *new_replicate(struct raft *r, struct raft_peer *p, uint64_t vouched)
{
    struct nh_message *m = raft_send_now(r, NH_MSG_REPLICATE, p->id);
    uint64_t told = r->log.commit < vouched ? r->log.commit : vouched;

    m->log_index = p->next - 1;
    m->log_term = raft_log_term(&r->log, m->log_index);
    m->commit = r->log.commit;
    if (told > p->told_commit)
        p->told_commit = told;
    return m;
}

/* Gives the list's array and references to the message. */
static void set_runs(struct nh_message *m, struct run_list *list)
{
    m->runs = list->runs;
    m->n_runs = list->n;
}

static void send_empty(struct raft *r, struct raft_peer *p)
{
    new_replicate(r, p, p->next - 1);
}

/* A record of a witness's log: index and term, and whole configuration changes. */
static void add_stripped(struct block_builder *b, const uint8_t *p)
{
    struct block_record record = {.type = NH_ENTRY_METADATA};
    struct nh_entry_view e;
    int code;

    nh_record_view(p, &e);
    if (e.type == NH_ENTRY_CONFIG_CHANGE)
        record = (struct block_record){
            .type = e.type, .origin = e.origin, .key = e.key, .payload = e.payload, .payload_bytes = e.payload_bytes};
    code = block_builder_add(b, &record);
    assert(code == NH_OK);
    (void)code;
}

/* Gives the list the same entries without what only machines need. */
static void strip_payloads(struct run_list *list)
{
    for (uint32_t i = 0; i < list->n; i++) {
        struct nh_run *run = &list->runs[i];
        const uint8_t *p = nh_run_data(run), *end = p + nh_run_size(run);
        struct block_builder b = {0};
        struct nh_block *block;

        for (; p < end; p += nh_record_bytes(p))
            add_stripped(&b, p);
        block = block_seal(&b, nh_run_term(run), nh_run_first(run));
        nh_block_unref(run->block);
        *run = (struct nh_run){block, 0, block->n};
    }
}

static void send_entries(struct raft *r, struct raft_peer *p)
{
    struct run_list list = {0};
    uint64_t end = raft_log_slice(&r->log, p->next, last_for(r, p) + 1, r->options.max_message_bytes, true, &list);
    uint64_t bytes = run_list_bytes(&list);

    if (nh_kind_is_witness(p->kind))
        strip_payloads(&list);
    set_runs(new_replicate(r, p, end - 1), &list);
    if (p->state == RAFT_REPLICATE)
        raft_peer_sent(p, end - 1, bytes);
}

static bool is_cached(const struct raft *r, const struct raft_peer *p)
{
    return p->next >= r->log.cached_first;
}

/* An empty probe when the entries are not in memory: first find out which ones are needed. And when they were sent already: its
 * answer may only be slow, and a slow peer is not helped by another megabyte with every heartbeat. */
static void probe(struct raft *r, struct raft_peer *p)
{
    if (!p->probed && p->next <= last_for(r, p) && is_cached(r, p) && raft_peer_takes_entries(r, p)) {
        send_entries(r, p);
        p->probed = true;
    } else {
        send_empty(r, p);
    }
    p->probing = true;
}

static void fetch(struct raft *r, struct raft_peer *p)
{
    *RAFT_PUSH(&r->out->fetches) = (struct raft_fetch){.peer = p->id,
                                                       .low = p->next,
                                                       .high = r->log.cached_first,
                                                       .max_bytes = r->options.max_message_bytes};
    p->fetching = true;
    p->fetch_low = p->next;
}

static bool may_stream(const struct raft *r, const struct raft_peer *p)
{
    if (p->next > r->log.last)
        return false;
    return p->next <= last_for(r, p) && !raft_peer_is_full(p, &r->options) && raft_peer_takes_entries(r, p);
}

/* A commit index cannot wait for the next entries or heartbeat: a client of the peer waits for its entry or read, or a
 * configuration change is committed, without which the peer may not stand, nor be told of the next one. */
static bool waits_for_commit(const struct raft *r, const struct raft_peer *p)
{
    return !r->options.lazy_commit || p->told_commit < p->awaited || p->told_commit < r->log.config_bound;
}

/* An empty Replicate is due: to tell the commit index, or to learn whether something was lost (statement 32). */
static bool owes_empty(const struct raft *r, const struct raft_peer *p)
{
    uint64_t known = r->log.commit < p->next - 1 ? r->log.commit : p->next - 1;

    return (known > p->told_commit && waits_for_commit(r, p)) || (p->nudge && p->match < r->log.last);
}

/* True: entries have left for it. */
static bool stream(struct raft *r, struct raft_peer *p)
{
    bool sent = false;

    while (may_stream(r, p) && is_cached(r, p)) {
        send_entries(r, p);
        sent = true;
    }
    if (!is_cached(r, p) && !p->fetching && may_stream(r, p))
        fetch(r, p);
    if (!sent && owes_empty(r, p))
        send_empty(r, p);
    return sent;
}

static bool peer_is_due(const struct raft *r, const struct raft_peer *p)
{
    if (p->state == RAFT_SNAPSHOT)
        return false;
    if (!raft_has_anchor(r, p))
        return raft_snapshot_is_due(r, p);
    if (p->state == RAFT_PROBE)
        return !p->probing;
    return owes_empty(r, p) || (may_stream(r, p) && (is_cached(r, p) || !p->fetching));
}

/* What a peer is due. True: entries have left for one that streams. */
static bool replicate(struct raft *r, struct raft_peer *p)
{
    if (!peer_is_due(r, p))
        return false;
    if (raft_has_anchor(r, p) && p->state == RAFT_REPLICATE)
        return stream(r, p);
    if (raft_has_anchor(r, p))
        probe(r, p);
    else
        raft_send_snapshot(r, p);
    return false;
}

void raft_replicate_all(struct raft *r)
{
    uint32_t n_fed = 0;

    for (uint32_t i = 0; i < r->lead->n_peers; i++) {
        n_fed += replicate(r, &r->lead->peers[i]);
        r->lead->peers[i].nudge = false;
    }
    if (n_fed > 0 && n_fed == r->lead->n_peers)
        raft_put_heartbeat_off(r);
}

bool raft_replicate_pending(const struct raft *r)
{
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (peer_is_due(r, &r->lead->peers[i]))
            return true;
    return false;
}

/* ---- leader: entries from the log store, lost messages ---- */

/* What the store read must be what this log has. */
static bool fetched_is_sound(const struct raft *r, uint64_t low, const struct nh_run *runs, uint32_t n_runs)
{
    uint64_t next = low;

    for (uint32_t i = 0; i < n_runs; i++) {
        if (runs[i].from >= runs[i].to || runs[i].to > runs[i].block->n || nh_run_first(&runs[i]) != next)
            return false;
        next = nh_run_last(&runs[i]) + 1;
    }
    return n_runs > 0 && raft_log_conflict(&r->log, runs, n_runs) == next;
}

/* A failed fetch is tried again when the peer has answered a heartbeat and a probe. */
void raft_on_fetched(struct raft *r, uint64_t peer, const struct nh_run *runs, uint32_t n_runs)
{
    struct raft_peer *p = raft_peer(r, peer);
    struct run_list list = {0};
    uint64_t bytes;

    if (!p || !p->fetching)
        return;
    p->fetching = false;
    if (p->state != RAFT_REPLICATE || p->next != p->fetch_low)
        return;
    if (!fetched_is_sound(r, p->fetch_low, runs, n_runs)) {
        raft_on_unreachable(r, peer);
        return;
    }
    for (uint32_t i = 0; i < n_runs; i++)
        run_list_add(&list, runs[i].block, runs[i].from, runs[i].to);
    bytes = run_list_bytes(&list);
    if (nh_kind_is_witness(p->kind))
        strip_payloads(&list);
    set_runs(new_replicate(r, p, nh_run_last(&runs[n_runs - 1])), &list);
    raft_peer_sent(p, nh_run_last(&runs[n_runs - 1]), bytes);
}

/* What was on its way is lost, and the next message would be too: wait for a sign of life, then probe. */
void raft_on_unreachable(struct raft *r, uint64_t peer)
{
    struct raft_peer *p = raft_peer(r, peer);

    if (!p || p->state != RAFT_REPLICATE)
        return;
    raft_peer_to_probe(p);
    p->probing = true;
}
