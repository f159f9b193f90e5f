/* Log replication: what a follower does with a Replicate, what a leader does with the answer, and the commit index. What a
 * leader sends is in stream.c.
 *
 * A Replicate may leave before its entries are saved here: it promises nothing about this replica's disk, and the leader
 * counts its own copy only when it is saved. An acceptance leaves after the save that holds what it acknowledges.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>

/* ---- follower ---- */

/* Raft never changes a committed entry; whoever says otherwise is not to be believed in anything. */
static bool contradicts_committed(const struct raft_log *log, const struct nh_message *m, uint64_t vouched, uint64_t conflict)
{
    if (m->log_index >= log->first && m->log_index <= log->commit && raft_log_term(log, m->log_index) != m->log_term)
        return true;
    return conflict >= log->first && conflict <= log->commit && conflict <= vouched;
}

static bool anchor_matches(const struct raft_log *log, const struct nh_message *m)
{
    if (m->log_index == 0)
        return true;
    if (m->log_index + 1 == log->first && log->anchor_term == 0)
        return true; /* its term is forgotten, but it is committed */
    return raft_log_term(log, m->log_index) == m->log_term;
}

/* Answers of one pass are one: the highest index says all. */
void raft_accept(struct raft *r, uint64_t leader, uint64_t index)
{
    struct raft_update *out = r->out;
    struct nh_message *m = out->send_after_save.n ? &out->send_after_save.items[out->send_after_save.n - 1] : NULL;

    if (!m || m->type != NH_MSG_REPLICATE_RESP || m->reject || m->to != leader || m->term != r->term)
        m = raft_send_after_save(r, NH_MSG_REPLICATE_RESP, leader);
    if (m->log_index < index)
        m->log_index = index;
    m->commit = raft_log_known_commit(&r->log);
}

/* The hint lets the leader skip a whole term at a time, from both sides (statement 30). */
static void refuse(struct raft *r, const struct nh_message *m)
{
    struct nh_message *answer = raft_send_reply(r, NH_MSG_REPLICATE_RESP, m->from);

    answer->reject = true;
    answer->log_index = m->log_index;
    answer->hint = raft_log_last_at_term(&r->log, m->log_index, m->log_term, &answer->log_term);
    answer->commit = raft_log_known_commit(&r->log);
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
    uint64_t conflict = m->n_runs ? raft_log_conflict(&r->log, m->runs, m->n_runs) : vouched + 1;

    if (contradicts_committed(&r->log, m, vouched, conflict)) {
        raft_ignore(r);
        return;
    }
    if (m->log_index < r->log.commit) {
        raft_accept(r, m->from, r->log.commit);
        return;
    }
    if (!anchor_matches(&r->log, m)) {
        refuse(r, m);
        return;
    }
    if (conflict <= vouched)
        take_entries(r, m, conflict);
    /* Above `vouched` there may be entries of older leaders (statement 25). */
    raft_commit_to(r, m->commit < vouched ? m->commit : vouched);
    raft_accept(r, m->from, vouched);
}

void raft_commit_to(struct raft *r, uint64_t index)
{
    if (index <= r->log.commit)
        return;
    raft_log_commit_to(&r->log, index);
    raft_report_load(r);
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

uint64_t raft_known_commit_of(const struct raft_peer *p)
{
    return p->known_commit;
}

uint64_t raft_match_of(const struct raft_peer *p)
{
    return p->match;
}

/* A leader that was taken out leads on, without counting itself, until a quorum of those who stay knows that the change
 * is committed: otherwise a survivor might need the vote of the one that has gone (statement 55). */
void raft_leave_if_removed(struct raft *r)
{
    if (!r->lead->removed_at || r->options.lead_when_removed)
        return;
    if (r->lead->n_peers > 0 && raft_majority(r, 0, raft_known_commit_of) < r->lead->removed_at)
        return;
    raft_become_follower(r, r->term, NH_NO_LEADER);
    r->is_removed = raft_was_removed(r, r->options.replica_id); /* not if it was demoted */
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
    p->heard_at = r->now;
    if (m->commit > p->known_commit)
        p->known_commit = m->commit;
    if (m->reject) {
        raft_peer_refused(p, m->log_index, next_after_refusal(r, m));
    } else if (raft_peer_accepted(p, m->log_index)) {
        r->active_at = r->now;
        if (p->match > r->log.commit) /* what is committed already makes no majority for more */
            raft_advance_commit(r);
    }
    if (p->state == RAFT_SNAPSHOT && p->match + 1 >= r->log.first)
        raft_peer_to_replicate(p); /* also below the index that was sent (statement 66) */
    raft_transfer_go_on(r, p);
    raft_leave_if_removed(r);
}

/* What a quorum holds, counting the own log as far as it is saved; entries of older terms only together with one of the
 * own term (figure 8).
 *
 * A majority may consist of one voter and witnesses. If it committed the removal of that voter, nobody who stays would have the
 * payloads, nor be able to win the votes of the witnesses. So while a change is not committed a majority of those who store
 * payloads must hold it as well: at least one of them stays. */
void raft_advance_commit(struct raft *r)
{
    struct raft_log *log = &r->log;
    uint64_t start = r->lead->start_index, index = raft_majority(r, log->saved, raft_match_of);

    if (log->config_bound > log->commit) { /* with witnesses a change needs more */
        uint64_t with_data = raft_data_majority(r, log->saved, raft_match_of);

        index = with_data < index ? with_data : index;
    }
    if (index <= log->commit || index < start)
        return;
    if (log->commit < start - 1)
        raft_log_commit_to(log, start - 1); /* what older leaders proposed is in no quota of this one */
    r->lead->uncommitted_bytes += (index - log->commit) * NH_RECORD_HEADER_BYTES; /* only payloads count */
    r->lead->uncommitted_bytes -= raft_log_commit_to(log, index);
    raft_report_load(r);
    raft_release_deferred_reads(r);
}

bool raft_own_term_committed(const struct raft *r)
{
    return r->log.commit >= r->lead->start_index;
}
