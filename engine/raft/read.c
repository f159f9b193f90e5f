/* Linearizable reads without log entries (thesis 6.4, "ReadIndex").
 *
 * A leader notes its commit index when the read arrives, and has a quorum confirm afterwards that it still leads. Each read
 * gets a round number; heartbeats carry the newest one, and an answer to round n confirms every read up to n. Rounds, not
 * the contexts of the callers, go over the wire: a context that is asked for again (its answer was lost) gets a new
 * round, so a late answer to its first one cannot confirm a read that came in between (statement 71). Rounds are
 * unique within a term, and answers of other terms are never looked at.
 *
 * With a lease (thesis 6.4.1) a leader need not ask: as long as a majority has promised not to elect another one. The promise
 * counts from when the heartbeat was sent that they answered, by the leader's clock; it is E ticks long by the clock of each of
 * them, hence the drift is taken off, and two ticks because both clocks are read in whole ticks. A transfer ends the promise, so
 * it ends leases for the rest of the term.
 *
 * Before an entry of the own term is committed the leader does not know what is committed (statement 69): such reads
 * wait, and get their index when that happens.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>
#include <string.h>

static void refuse(struct raft *r, const struct raft_pending_read *read, int reason)
{
    struct nh_message *m;

    if (!read->from) {
        raft_report_dropped(r, true, reason, read->low, 1);
        return;
    }
    m = raft_send_reply(r, NH_MSG_READ_INDEX_RESP, read->from);
    m->reject = true;
    m->hint = read->low;
    m->hint_high = read->high;
}

/* With its own context, always (not that of the read that was confirmed with it). */
static void answer(struct raft *r, const struct raft_pending_read *read)
{
    struct nh_message *m;

    if (!read->from) {
        *RAFT_PUSH(&r->out->reads) = (struct raft_read){read->low, read->high, read->index};
        return;
    }
    if (raft_peer(r, read->from))
        raft_peer_awaits(raft_peer(r, read->from), read->index);
    m = raft_send_now(r, NH_MSG_READ_INDEX_RESP, read->from);
    m->log_index = read->index;
    m->hint = read->low;
    m->hint_high = read->high;
}

static bool is_pending(const struct raft *r, const struct raft_pending_read *read)
{
    for (size_t i = r->lead->reads.n; i > 0; i--) {
        const struct raft_pending_read *p = &r->lead->reads.items[i - 1];

        if (p->low == read->low && p->high == read->high && p->from == read->from)
            return true;
    }
    return false;
}

static uint64_t lease_from_of(const struct raft_peer *p)
{
    return p->lease_from;
}

bool raft_holds_lease(const struct raft *r)
{
    const struct raft_options *o = &r->options;
    uint64_t length = (uint64_t)o->election_ticks * (100 - o->lease_drift_percent) / 100, from;

    if (!o->lease_reads || !raft_is_leader(r) || r->lead->lease_given_up || length <= 2)
        return false;
    from = raft_majority(r, r->now, lease_from_of);
    return from > 0 && r->now < from + length - 2; /* 0: who has not answered gives no lease, however young the clock is */
}

static void admit(struct raft *r, struct raft_pending_read read)
{
    struct raft_lead *lead = r->lead;

    r->active_at = r->now;
    if (lead->removed_at) {
        refuse(r, &read, NH_DROP_REFUSED);
        return;
    }
    if (is_pending(r, &read)) /* a doubled message: the first copy will be answered */
        return;
    if (lead->reads.n >= RAFT_PENDING_READS_MAX) {
        refuse(r, &read, NH_DROP_OVERLOADED);
        return;
    }
    if (raft_own_term_committed(r) && raft_holds_lease(r)) {
        read.index = r->log.commit;
        answer(r, &read);
        return;
    }
    read.round = ++lead->round;
    read.index = raft_own_term_committed(r) ? r->log.commit : 0;
    *RAFT_PUSH(&lead->reads) = read;
    if (read.index) {
        lead->heartbeat_wanted = true;
        raft_confirm_reads(r);
    }
}

void raft_read(struct raft *r, uint64_t low, uint64_t high)
{
    struct raft_pending_read read = {.low = low, .high = high};
    struct nh_message *m;

    if (raft_is_witness(r, r->options.replica_id)) {
        refuse(r, &read, NH_DROP_WITNESS);
    } else if (raft_is_leader(r)) {
        admit(r, read);
    } else if (r->leader_id != NH_NO_LEADER) {
        r->active_at = r->now;
        m = raft_send_now(r, NH_MSG_READ_INDEX, r->leader_id);
        m->hint = low;
        m->hint_high = high;
    } else {
        refuse(r, &read, NH_DROP_NO_LEADER);
    }
}

/* Forwarded by `from`. A removed replica and a witness get no read (statement 73). */
void raft_on_read_index(struct raft *r, const struct nh_message *m)
{
    struct raft_pending_read read = {.low = m->hint, .high = m->hint_high, .from = m->from};

    if (raft_is_leader(r) && raft_member(r, m->from) && !raft_is_witness(r, m->from))
        admit(r, read);
    else
        refuse(r, &read, NH_DROP_REFUSED);
}

void raft_on_read_index_resp(struct raft *r, const struct nh_message *m)
{
    if (m->reject)
        raft_report_dropped(r, true, NH_DROP_REFUSED, m->hint, 1);
    else
        *RAFT_PUSH(&r->out->reads) = (struct raft_read){m->hint, m->hint_high, m->log_index};
}

uint64_t raft_read_round(const struct raft *r)
{
    return r->lead->reads.n > 0 && raft_own_term_committed(r) ? r->lead->round : 0;
}

static uint64_t acked_round_of(const struct raft_peer *p)
{
    return p->acked_round;
}

/* The newest round that a majority of voters has confirmed; this replica confirms any. */
static uint64_t confirmed_round(const struct raft *r)
{
    return raft_majority(r, UINT64_MAX, acked_round_of);
}

void raft_confirm_reads(struct raft *r)
{
    struct raft_lead *lead = r->lead;
    uint64_t confirmed = confirmed_round(r);
    size_t n = 0;

    while (n < lead->reads.n && lead->reads.items[n].round <= confirmed && lead->reads.items[n].index)
        answer(r, &lead->reads.items[n++]);
    lead->reads.n -= n;
    if (n > 0 && lead->reads.n > 0)
        memmove(lead->reads.items, lead->reads.items + n, lead->reads.n * sizeof *lead->reads.items);
}

/* After the commit index moved: the first entry of the own term is committed now. */
void raft_release_deferred_reads(struct raft *r)
{
    struct raft_lead *lead = r->lead;

    assert(raft_own_term_committed(r)); /* nothing below is committed by counting */
    if (lead->reads.n == 0)
        return;
    for (size_t i = 0; i < lead->reads.n; i++) {
        if (lead->reads.items[i].index == 0) {
            lead->reads.items[i].index = r->log.commit;
            lead->heartbeat_wanted = true;
        }
    }
    raft_confirm_reads(r);
}

/* For good, also if this replica leads again (statement 72). */
void raft_drop_reads(struct raft *r)
{
    assert(raft_is_leader(r));
    for (size_t i = 0; i < r->lead->reads.n; i++)
        refuse(r, &r->lead->reads.items[i], NH_DROP_REFUSED);
    r->lead->reads.n = 0;
}
