/* Log replication: what a follower does with a Replicate, what a leader does with the answer, and the commit index.
 *
 * A Replicate may leave before its entries are saved here: it promises nothing about this replica's disk, and the leader
 * counts its own copy only when it is saved. An acceptance leaves after the save that holds what it acknowledges.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>

/* ---- follower ---- */

/* Raft never changes a committed entry; whoever says otherwise is not to be believed in anything. */
static bool contradicts_committed(const struct raft_log *log, const struct nh_message *m)
{
    uint64_t conflict;

    if (m->log_index >= log->first && m->log_index <= log->commit && raft_log_term(log, m->log_index) != m->log_term)
        return true;
    if (m->n_runs == 0)
        return false;
    conflict = raft_log_conflict(log, m->runs, m->n_runs);
    return conflict >= log->first && conflict <= log->commit && conflict <= nh_run_last(&m->runs[m->n_runs - 1]);
}

static bool anchor_matches(const struct raft_log *log, const struct nh_message *m)
{
    if (m->log_index == 0)
        return true;
    if (m->log_index + 1 == log->first)
        return m->log_index <= log->commit; /* its term is forgotten, but it is committed */
    return raft_log_term(log, m->log_index) == m->log_term;
}

/* Answers of one pass are one: the highest index says all. */
static void accept(struct raft *r, uint64_t leader, uint64_t index)
{
    struct raft_update *out = r->out;
    struct nh_message *m = out->send_after_save.n ? &out->send_after_save.items[out->send_after_save.n - 1] : NULL;

    if (!m || m->type != NH_MSG_REPLICATE_RESP || m->reject || m->to != leader || m->term != r->term)
        m = raft_send_after_save(r, NH_MSG_REPLICATE_RESP, leader);
    if (m->log_index < index)
        m->log_index = index;
    m->commit = r->log.commit;
}

/* The hint lets the leader skip a whole term at a time, from both sides (statement 30). */
static void refuse(struct raft *r, const struct nh_message *m)
{
    struct nh_message *answer = raft_send_reply(r, NH_MSG_REPLICATE_RESP, m->from);

    answer->reject = true;
    answer->log_index = m->log_index;
    answer->hint = raft_log_last_at_term(&r->log, m->log_index, m->log_term, &answer->log_term);
    answer->commit = r->log.commit;
}

/* Takes over what is new, from `conflict` on; a longer log that agrees stays as it is (statement 28). */
static void take_entries(struct raft *r, const struct nh_message *m, uint64_t conflict)
{
    if (conflict <= r->log.last)
        raft_log_truncate(&r->log, conflict - 1);
    for (uint32_t i = 0; i < m->n_runs; i++) {
        const struct nh_run *run = &m->runs[i];
        uint32_t from = run->from;

        if (nh_run_last(run) < conflict)
            continue;
        if (nh_run_first(run) < conflict)
            from = (uint32_t)(conflict - run->block->first_index);
        raft_log_append(&r->log, run->block, from, run->to);
    }
}

void raft_on_replicate(struct raft *r, const struct nh_message *m)
{
    uint64_t vouched = m->n_runs ? nh_run_last(&m->runs[m->n_runs - 1]) : m->log_index;
    uint64_t conflict;

    if (contradicts_committed(&r->log, m)) {
        raft_ignore(r);
        return;
    }
    if (m->log_index < r->log.commit) {
        accept(r, m->from, r->log.commit);
        return;
    }
    if (!anchor_matches(&r->log, m)) {
        refuse(r, m);
        return;
    }
    conflict = m->n_runs ? raft_log_conflict(&r->log, m->runs, m->n_runs) : vouched + 1;
    if (conflict <= vouched)
        take_entries(r, m, conflict);
    /* Above `vouched` there may be entries of older leaders (statement 25). */
    raft_commit_to(r, m->commit < vouched ? m->commit : vouched);
    accept(r, m->from, vouched);
}

void raft_commit_to(struct raft *r, uint64_t index)
{
    assert(index <= r->log.last);
    if (index > r->log.commit)
        r->log.commit = index;
}

/* ---- leader: answers ---- */

/* Where to go on after a refusal: the follower holds nothing of a term <= `log_term` above its hint; entries that the
 * leader has of higher terms cannot agree either. */
static uint64_t next_after_refusal(const struct raft *r, const struct nh_message *m)
{
    uint64_t hint = m->hint < m->log_index ? m->hint : m->log_index, term;

    if (m->log_term > 0)
        hint = raft_log_last_at_term(&r->log, hint, m->log_term, &term);
    return hint + 1;
}

/* A leader that was taken out leads on, without counting itself, until a quorum of those who stay knows that the change
 * is committed: otherwise a survivor might need the vote of the one that has gone (statement 55). */
void raft_leave_if_removed(struct raft *r)
{
    uint64_t known[NH_MEMBERS_MAX];
    size_t n = 0;

    if (!r->lead->removed_at)
        return;
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (r->lead->peers[i].kind != NH_MEMBER_NON_VOTING)
            known[n++] = r->lead->peers[i].known_commit;
    if (n == 0 || raft_quorum_reached(known, n) >= r->lead->removed_at)
        raft_become_follower(r, r->term, NH_NO_LEADER);
}

void raft_on_replicate_resp(struct raft *r, const struct nh_message *m)
{
    struct raft_peer *p = raft_peer(r, m->from);

    if (!p)
        return;
    if (m->log_index > r->log.last) {
        raft_ignore(r);
        return;
    }
    p->active = true;
    if (m->commit > p->known_commit)
        p->known_commit = m->commit;
    if (m->reject) {
        raft_peer_refused(p, m->log_index, next_after_refusal(r, m));
    } else if (raft_peer_accepted(p, m->log_index)) {
        r->active_at = r->now;
        raft_advance_commit(r);
    }
    raft_leave_if_removed(r);
}

/* What a quorum holds, counting the own log as far as it is saved; entries of older terms only together with one of the
 * own term (figure 8). */
void raft_advance_commit(struct raft *r)
{
    struct raft_log *log = &r->log;
    uint64_t held[NH_MEMBERS_MAX], index, start = r->lead->start_index;
    size_t n = 0;

    if (r->n_voters == 0)
        return;
    if (raft_is_voter(r, r->options.replica_id))
        held[n++] = log->saved;
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (r->lead->peers[i].kind != NH_MEMBER_NON_VOTING)
            held[n++] = r->lead->peers[i].match;
    index = raft_quorum_reached(held, n);
    if (index <= log->commit || index < start)
        return;
    r->lead->uncommitted_bytes -= raft_payload_bytes(log, log->commit + 1 > start ? log->commit + 1 : start, index + 1);
    log->commit = index;
    raft_release_deferred_reads(r);
}

bool raft_own_term_committed(const struct raft *r)
{
    return raft_is_leader(r) && r->log.commit >= r->lead->start_index;
}

/* ---- leader: sending ---- */

/* False: the entry before `next` is no longer in the log store. Only a snapshot helps such a peer. */
static bool has_anchor(const struct raft *r, const struct raft_peer *p)
{
    return p->next == 1 || raft_log_term(&r->log, p->next - 1) != 0;
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

static void send_entries(struct raft *r, struct raft_peer *p)
{
    struct run_list list = {0};
    uint64_t end = raft_log_slice(&r->log, p->next, r->log.last + 1, r->options.max_message_bytes, true, &list);
    uint64_t bytes = run_list_bytes(&list);

    set_runs(new_replicate(r, p, end - 1), &list);
    if (p->state == RAFT_REPLICATE)
        raft_peer_sent(p, end - 1, bytes);
}

static bool is_cached(const struct raft *r, const struct raft_peer *p)
{
    return p->next >= r->log.cached_first;
}

/* An empty probe when the entries are not in memory: first find out which ones are needed. */
static void probe(struct raft *r, struct raft_peer *p)
{
    if (p->next <= r->log.last && is_cached(r, p))
        send_entries(r, p);
    else
        send_empty(r, p);
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
    return p->next <= r->log.last && !raft_peer_is_full(p, &r->options);
}

/* An empty Replicate is due: to tell the commit index, or to learn whether something was lost (statement 32). */
static bool owes_empty(const struct raft *r, const struct raft_peer *p)
{
    uint64_t known = r->log.commit < p->next - 1 ? r->log.commit : p->next - 1;

    return known > p->told_commit || (p->nudge && p->match < r->log.last);
}

static void stream(struct raft *r, struct raft_peer *p)
{
    bool sent = false;

    while (may_stream(r, p) && is_cached(r, p)) {
        send_entries(r, p);
        sent = true;
    }
    if (may_stream(r, p) && !p->fetching)
        fetch(r, p);
    if (!sent && owes_empty(r, p))
        send_empty(r, p);
}

static bool peer_is_due(const struct raft *r, const struct raft_peer *p)
{
    if (!has_anchor(r, p))
        return false;
    if (p->state == RAFT_PROBE)
        return !p->probing;
    return owes_empty(r, p) || (may_stream(r, p) && (is_cached(r, p) || !p->fetching));
}

void raft_replicate_all(struct raft *r)
{
    for (uint32_t i = 0; i < r->lead->n_peers; i++) {
        struct raft_peer *p = &r->lead->peers[i];

        if (peer_is_due(r, p)) {
            if (p->state == RAFT_PROBE)
                probe(r, p);
            else
                stream(r, p);
        }
        p->nudge = false;
    }
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
    set_runs(new_replicate(r, p, nh_run_last(&runs[n_runs - 1])), &list);
    raft_peer_sent(p, nh_run_last(&runs[n_runs - 1]), run_list_bytes(&list));
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
