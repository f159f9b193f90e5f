/* Proposals: taken by a leader, forwarded by others, with a clear word when one is dropped.
 *
 * "Dropped" promises that no copy of the batch is or will be in any log. A leader can promise that: it decides each batch
 * once. Per origin it keeps the newest key that it decided (`marks`, keys of one origin only grow), and whatever comes
 * at or below that key is a copy, or was overtaken, and is met with silence: its first copy may have been taken.
 *
 * A replica that does not lead (any more) is as careful:
 * - The message's term is `led_term`: the marks of that leadership are still there and tell a copy from a batch that was never
 *   seen; the latter is dropped, and marked so that no copy of it is treated otherwise.
 * - It is an older term, or one from before this process started (`boot_term`): a first copy may have been taken then:
 *   silence.
 * - It is a term that this replica has not led and cannot lead any more (a leader is a candidate of its term first; the answer
 *   waits until the own term is saved, so a restart does not undo this): dropped.
 * - It is a term that this replica may still come to lead: no correct replica sends that. Ignored.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>
#include <stdlib.h>

static bool is_config_change(const struct block_builder *records)
{
    return nh_record_type(records->data + records->offsets[0]) == NH_ENTRY_CONFIG_CHANGE;
}

/* A configuration change waits for its predecessor to be applied, also for one that an earlier leader left in the log; and
 * for an entry of the own term, without which one change at a time is not safe (statements 45, 46). */
static bool config_is_barred(const struct raft *r)
{
    if (r->options.unchecked_config)
        return false;
    return r->log.config_bound > r->log.applied || !raft_own_term_committed(r);
}

static uint64_t heard_at(const struct raft_peer *p)
{
    return p->heard_at;
}

static bool has_witness(const struct raft *r)
{
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (nh_kind_is_witness(r->lead->peers[i].kind))
            return true;
    return false;
}

/* With witnesses a change waits for a majority of those who store payloads (raft_advance_commit), and all that comes behind it
 * waits with it. So none is taken that would wait for somebody who is away: the shard would stand still until he is back. */
bool raft_change_would_wait(const struct raft *r)
{
    if (r->options.unchecked_config || !has_witness(r))
        return false;
    return r->now - raft_data_majority(r, r->now, heard_at) > r->options.election_ticks;
}

/* The first batch may be of any size; without payload it is never refused (statement 74). How far the own machine may be behind
 * is a quota of its own (load.c). */
static bool is_over_quota(const struct raft *r, const struct block_builder *records)
{
    uint64_t used = r->lead->uncommitted_bytes, max = r->options.max_uncommitted_bytes;
    uint64_t more = records->size_bytes - (uint64_t)records->n * NH_RECORD_HEADER_BYTES;

    if (more == 0)
        return false;
    if (r->log.unapplied_bytes > r->options.max_unapplied_bytes)
        return true;
    return used > 0 && (more > max || used > max - more);
}

static int refusal(const struct raft *r, const struct block_builder *records)
{
    if (r->lead->removed_at || records->n > RAFT_INDEX_MAX - r->log.last)
        return NH_DROP_REFUSED;
    if (r->lead->transferee)
        return NH_DROP_TRANSFERRING;
    if (is_config_change(records) && (config_is_barred(r) || r->lead->held))
        return NH_DROP_CONFIG_PENDING;
    if (is_config_change(records) && raft_change_would_wait(r))
        return NH_DROP_VOTERS_AWAY;
    return is_over_quota(r, records) ? NH_DROP_OVERLOADED : NH_DROP_NONE;
}

void raft_append_records(struct raft *r, struct block_builder *records)
{
    struct nh_block *block = block_seal(records, r->term, r->log.last + 1);

    raft_log_append(&r->log, block, 0, block->n);
    r->lead->uncommitted_bytes += block->offsets[block->n] - (uint64_t)block->n * NH_RECORD_HEADER_BYTES;
    nh_block_unref(block);
}

static void answer_dropped(struct raft *r, uint64_t to, int reason, uint64_t first_key, uint64_t n_keys)
{
    struct nh_message *answer = raft_send_reply(r, NH_MSG_PROPOSE_RESP, to);

    answer->reject = true;
    answer->hint = first_key;
    answer->hint_high = n_keys;
    answer->log_index = (uint64_t)reason;
}

/* `from` is who forwarded it, 0: asked here. */
static void drop(struct raft *r, struct block_builder *records, uint64_t from, int reason, uint64_t first_key, uint64_t n_keys)
{
    block_builder_deinit(records);
    if (from)
        answer_dropped(r, from, reason, first_key, n_keys);
    else
        raft_report_dropped(r, false, reason, first_key, n_keys);
}

/* ---- a change that waits to hear from the voters ---- */

/* After a sleep, or an election, nobody has been asked yet; in time for a round trip or two it is known who is there. */
static bool may_hear_yet(const struct raft *r)
{
    return r->now - r->lead->asked_since < r->options.election_ticks;
}

static void hold(struct raft *r, struct block_builder *records, uint64_t from, uint64_t key)
{
    struct raft_held_change *held = xcalloc(1, sizeof *held);
    int code = block_builder_add_encoded(&held->records, records->data, records->size_bytes, NULL);

    assert(code == NH_OK);
    (void)code;
    block_builder_deinit(records);
    held->from = from;
    held->key = key;
    r->lead->held = held;
}

/* A leader takes the batch, holds it, or drops it. */
static void take(struct raft *r, struct block_builder *records, uint64_t from, uint64_t first_key, uint64_t n_keys)
{
    int reason = refusal(r, records);

    if (reason == NH_DROP_VOTERS_AWAY && may_hear_yet(r)) {
        hold(r, records, from, first_key);
    } else if (reason != NH_DROP_NONE) {
        drop(r, records, from, reason, first_key, n_keys);
    } else {
        raft_append_records(r, records);
        if (raft_peer(r, from))
            raft_peer_awaits(raft_peer(r, from), r->log.last);
    }
}

void raft_settle_held(struct raft *r)
{
    struct raft_held_change *held = r->lead->held;

    r->lead->held = NULL;
    take(r, &held->records, held->from, held->key, 1);
    free(held);
}

/* It is in no log. */
void raft_drop_held(struct raft *r)
{
    struct raft_held_change *held = r->lead->held;

    r->lead->held = NULL;
    if (held)
        drop(r, &held->records, held->from, NH_DROP_REFUSED, held->key, 1);
    free(held);
}

/* ---- asked here ---- */

static void forward(struct raft *r, struct block_builder *records, uint64_t first_key, uint64_t n_keys)
{
    struct nh_message *m = raft_send_now(r, NH_MSG_PROPOSE, r->leader_id);

    m->hint = first_key;
    m->hint_high = n_keys;
    m->runs = xmalloc(sizeof *m->runs);
    m->runs[0] = (struct nh_run){block_unsealed(records), 0, (uint32_t)n_keys};
    m->n_runs = 1;
}

void raft_propose(struct raft *r, struct block_builder *records, uint64_t first_key, uint64_t n_keys)
{
    assert(records->n > 0 && records->n == n_keys);
    r->active_at = r->now;
    if (raft_is_leader(r)) {
        take(r, records, 0, first_key, n_keys);
    } else if (raft_is_witness(r, r->options.replica_id)) {
        drop(r, records, 0, NH_DROP_WITNESS, first_key, n_keys);
    } else if (r->leader_id == NH_NO_LEADER) {
        drop(r, records, 0, NH_DROP_NO_LEADER, first_key, n_keys);
    } else {
        forward(r, records, first_key, n_keys);
    }
}

/* ---- forwarded ---- */

/* Copies the records of a forwarded batch and checks that they are what the message says: n records of this origin with
 * consecutive keys; a configuration change comes alone. */
static bool read_forwarded(const struct nh_message *m, struct block_builder *records)
{
    if (m->hint == 0 || m->hint_high == 0 || m->hint > UINT64_MAX - m->hint_high || m->n_runs > RAFT_FORWARD_RUNS_MAX)
        return false;
    for (uint32_t i = 0; i < m->n_runs; i++) {
        const struct nh_run *run = &m->runs[i];

        if (run->from >= run->to || run->to > run->block->n)
            return false;
        if (block_builder_add_encoded(records, nh_run_data(run), nh_run_size(run), NULL) < 0)
            return false;
    }
    if (records->n != m->hint_high)
        return false;
    for (uint32_t i = 0; i < records->n; i++) {
        const uint8_t *p = records->data + records->offsets[i];

        if (nh_record_key(p) != m->hint + i || nh_load_u32(p + 36) != (uint32_t)m->from)
            return false;
        if (nh_record_type(p) == NH_ENTRY_CONFIG_CHANGE && records->n > 1)
            return false;
    }
    return true;
}

static struct raft_forward_mark *mark_of(struct raft *r, uint64_t origin)
{
    for (size_t i = 0; i < r->marks.n; i++)
        if (r->marks.items[i].id == origin)
            return &r->marks.items[i];
    *RAFT_PUSH(&r->marks) = (struct raft_forward_mark){.id = origin};
    return &r->marks.items[r->marks.n - 1];
}

/* True if the batch was never decided in `led_term`; it counts as decided from now on. */
static bool claim(struct raft *r, const struct nh_message *m)
{
    struct raft_forward_mark *mark = mark_of(r, m->from);

    if (m->hint <= mark->key)
        return false;
    mark->key = m->hint + m->hint_high - 1;
    return true;
}

/* The batch is of `led_term`: if this replica leads, it is of the current term. */
static void decide(struct raft *r, const struct nh_message *m, struct block_builder *records)
{
    if (!claim(r, m))
        return;
    if (!raft_is_leader(r)) {
        answer_dropped(r, m->from, NH_DROP_REFUSED, m->hint, m->hint_high);
        return;
    }
    r->active_at = r->now;
    take(r, records, m->from, m->hint, m->hint_high);
}

/* The sender is a member (raft_on_message). */
void raft_on_propose(struct raft *r, const struct nh_message *m)
{
    struct block_builder records = {0};
    uint64_t maybe_led = r->led_term > r->boot_term ? r->led_term : r->boot_term;
    bool may_still_lead = m->term > r->term || (m->term == r->term && r->role == RAFT_CANDIDATE);

    if (!read_forwarded(m, &records) || (m->term > maybe_led && may_still_lead))
        raft_ignore(r);
    else if (m->term == r->led_term)
        decide(r, m, &records);
    else if (m->term > maybe_led)
        answer_dropped(r, m->from, NH_DROP_REFUSED, m->hint, m->hint_high);
    block_builder_deinit(&records);
}

void raft_on_propose_resp(struct raft *r, const struct nh_message *m)
{
    int reason;

    if (!m->reject || m->hint == 0 || m->hint_high == 0 || m->hint > UINT64_MAX - m->hint_high) {
        raft_ignore(r);
        return;
    }
    reason = m->log_index > NH_DROP_NONE && m->log_index <= NH_DROP_REASON_MAX ? (int)m->log_index : NH_DROP_REFUSED;
    raft_report_dropped(r, false, reason, m->hint, m->hint_high);
}
