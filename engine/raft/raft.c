/* The entry points: construction, one event in (raft_step), inspection. The update out is in collect.c. */
#include "engine/raft/raft.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/raft/raft_internal.h"

#define DEFAULT_QUIESCE_TIMEOUTS  20u
#define DEFAULT_INFLIGHT_MESSAGES 256u
#define DEFAULT_INFLIGHT_BYTES    (16u << 20)
#define DEFAULT_MESSAGE_BYTES     (1u << 20)
#define DEFAULT_UNCOMMITTED_BYTES (64u << 20)
#define DEFAULT_APPLY_BYTES       (16u << 20)
#define DEFAULT_CACHED_BYTES      (1u << 20)
#define DEFAULT_UNAPPLIED_BYTES   (64u << 20)
#define DEFAULT_DRIFT_PERCENT     10u

void raft_ignore(struct raft *r)
{
    r->ignored_messages++;
}

/* ---- construction ---- */

static int check_options(const struct raft_options *o, struct nh_error *err)
{
    if (o->shard_id == NH_NO_SHARD || o->replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "shard or replica id is 0");
    if (o->heartbeat_ticks == 0 || o->election_ticks / 2 < o->heartbeat_ticks ||
        o->election_ticks - o->heartbeat_ticks <= o->heartbeat_ticks)
        return nh_error_set(err, NH_EINVAL, "election_ticks %" PRIu32 " must be more than twice heartbeat_ticks %" PRIu32,
                            o->election_ticks, o->heartbeat_ticks);
    if (o->lease_reads && !o->check_quorum)
        return nh_error_set(err, NH_EINVAL, "lease_reads needs check_quorum: without it nobody is bound by a lease");
    if (o->lease_drift_percent > 50)
        return nh_error_set(err, NH_EINVAL, "lease_drift_percent %" PRIu32 " is more than 50", o->lease_drift_percent);
    return NH_OK;
}

static int check_spans(const struct raft_boot *b, struct nh_error *err)
{
    if ((b->n_spans == 0) != (b->last_index < b->first_index))
        return nh_error_set(err, NH_ECORRUPT, "%" PRIu32 " term spans for the log [%" PRIu64 ", %" PRIu64 "]", b->n_spans,
                            b->first_index, b->last_index);
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const struct raft_term_span *s = &b->spans[i];

        if (i == 0 ? s->first_index != b->first_index || s->term == 0
                   : s->first_index <= s[-1].first_index || s->term <= s[-1].term)
            return nh_error_set(err, NH_ECORRUPT, "term span %" PRIu32 " (index %" PRIu64 ", term %" PRIu64 ") does not fit", i,
                                s->first_index, s->term);
        if (s->first_index > b->last_index || s->term > b->state.term)
            return nh_error_set(err, NH_ECORRUPT,
                                "term %" PRIu64 " at index %" PRIu64 " is above the log (%" PRIu64 ") or its term (%" PRIu64 ")",
                                s->term, s->first_index, b->last_index, b->state.term);
    }
    return NH_OK;
}

static int check_members(const struct nh_membership *m, struct nh_error *err)
{
    if (!m)
        return NH_OK;
    if (m->n_members > NH_MEMBERS_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%" PRIu32 " members", m->n_members);
    for (uint32_t i = 0; i < m->n_members; i++) {
        const struct nh_member *one = &m->members[i];

        if (one->replica_id <= (i > 0 ? one[-1].replica_id : 0) || one->kind > NH_MEMBER_LEAVING_WITNESS ||
            (!m->joint && (nh_kind_is_leaving(one->kind) || one->outgoing)))
            return nh_error_set(err, NH_ECORRUPT, "member %" PRIu32 " (id %" PRIu64 ") does not fit", i, one->replica_id);
    }
    return NH_OK;
}

/* The snapshot before the first entry, and the one that can be sent. */
static int check_snapshots(const struct raft_options *o, const struct raft_boot *b, struct nh_error *err)
{
    if (b->anchor_term > b->state.term &&
        !(o->start_below_snapshot_term && b->n_spans == 0 && b->state.term + 1 == b->anchor_term))
        return nh_error_set(err, NH_ECORRUPT, "term %" PRIu64 " at index %" PRIu64 " is above the log's term (%" PRIu64 ")",
                            b->anchor_term, b->first_index - 1, b->state.term);
    if (b->snapshot && b->snapshot->index > b->last_index)
        return nh_error_set(err, NH_ECORRUPT, "snapshot at %" PRIu64 " above the last entry %" PRIu64, b->snapshot->index,
                            b->last_index);
    return NH_OK;
}

static int check_boot(const struct raft_options *o, const struct raft_boot *b, struct nh_error *err)
{
    int r;

    if (b->first_index == 0 || b->last_index > RAFT_INDEX_MAX || b->last_index + 1 < b->first_index)
        return nh_error_set(err, NH_ECORRUPT, "log [%" PRIu64 ", %" PRIu64 "]", b->first_index, b->last_index);
    if (b->state.commit > b->last_index)
        return nh_error_set(err, NH_ECORRUPT, "commit index %" PRIu64 " is above the last entry %" PRIu64, b->state.commit,
                            b->last_index);
    if (b->applied > b->last_index || b->applied + 1 < b->first_index)
        return nh_error_set(err, NH_ECORRUPT, "applied index %" PRIu64 " is not in the log [%" PRIu64 ", %" PRIu64 "]",
                            b->applied, b->first_index, b->last_index);
    if (b->state.term > RAFT_TERM_MAX || (b->state.term == 0 && b->state.vote != NH_NO_REPLICA))
        return nh_error_set(err, NH_ECORRUPT, "term %" PRIu64 " with a vote for %" PRIu64, b->state.term, b->state.vote);
    r = check_spans(b, err);
    if (r == NH_OK)
        r = check_snapshots(o, b, err);
    return r < 0 ? r : check_members(b->membership, err);
}

static void set_defaults(struct raft_options *o)
{
    if (o->quiesce_ticks == 0)
        o->quiesce_ticks =
            o->election_ticks < UINT32_MAX / DEFAULT_QUIESCE_TIMEOUTS ? o->election_ticks * DEFAULT_QUIESCE_TIMEOUTS : UINT32_MAX;
    if (o->max_inflight_messages == 0)
        o->max_inflight_messages = DEFAULT_INFLIGHT_MESSAGES;
    if (o->max_inflight_bytes == 0)
        o->max_inflight_bytes = DEFAULT_INFLIGHT_BYTES;
    if (o->max_message_bytes == 0)
        o->max_message_bytes = DEFAULT_MESSAGE_BYTES;
    if (o->max_uncommitted_bytes == 0)
        o->max_uncommitted_bytes = DEFAULT_UNCOMMITTED_BYTES;
    if (o->max_apply_bytes == 0)
        o->max_apply_bytes = DEFAULT_APPLY_BYTES;
    if (o->max_cached_bytes == 0)
        o->max_cached_bytes = DEFAULT_CACHED_BYTES;
    if (o->max_unapplied_bytes == 0)
        o->max_unapplied_bytes = DEFAULT_UNAPPLIED_BYTES;
    if (o->lease_drift_percent == 0)
        o->lease_drift_percent = DEFAULT_DRIFT_PERCENT;
}

int raft_new(const struct raft_options *options, const struct raft_boot *boot, struct raft **ret, struct nh_error *err)
{
    struct raft *r;
    int code = check_options(options, err);

    if (code == NH_OK)
        code = check_boot(options, boot, err);
    if (code < 0)
        return nh_error_wrap(err, code, "start replica %" PRIu64 " of shard %" PRIu64, options->replica_id, options->shard_id);
    r = xcalloc(1, sizeof *r);
    r->options = *options;
    set_defaults(&r->options);
    raft_log_init(&r->log, boot);
    r->now = r->active_at = boot->now;
    r->random = options->seed;
    r->term = r->taken_term = r->saved_term = r->boot_term = boot->state.term;
    r->vote = r->taken_vote = r->saved_vote = boot->state.vote;
    r->taken_commit = boot->state.commit;
    r->told_term = r->term;
    r->heard_at = boot->now; /* with leases: what was promised before the restart holds */
    raft_set_members(r, boot->membership, boot->membership ? boot->membership->config_change_id : 0);
    if (boot->snapshot) {
        r->snapshot = xcalloc(1, sizeof *r->snapshot);
        nh_snapshot_copy(r->snapshot, boot->snapshot);
    }
    if (boot->stand_early && options->pre_vote)
        r->early_until = boot->now + (uint64_t)RAFT_EARLY_TIMEOUTS * options->election_ticks;
    raft_reset_election_timer(r);
    raft_enforce(r);
    *ret = r;
    return NH_OK;
}

void raft_free(struct raft *r)
{
    if (!r)
        return;
    raft_lead_free(r->lead);
    raft_log_deinit(&r->log);
    free(r->marks.items);
    free(r->members);
    free(r->removed);
    if (r->snapshot)
        nh_snapshot_deinit(r->snapshot);
    free(r->snapshot);
    free(r);
}

/* ---- events ---- */

static void on_tick(struct raft *r)
{
    if (r->quiesced) {
        raft_on_quiet_tick(r);
        return;
    }
    if (raft_is_leader(r))
        raft_on_leader_tick(r);
    if (raft_is_leader(r) || r->now < raft_election_deadline(r))
        return;
    if (raft_calls(r))
        raft_call(r);
    else
        raft_campaign(r);
}

static void on_saved(struct raft *r, uint64_t id)
{
    assert(id <= r->save_id);
    if (!raft_log_save_done(&r->log, id, &r->saved_term, &r->saved_vote))
        return;
    raft_count_own_vote(r);
    if (raft_is_leader(r))
        raft_advance_commit(r);
}

static void on_applied(struct raft *r, uint64_t index)
{
    assert(index <= r->log.handed);
    if (index <= r->log.applied)
        return;
    raft_log_applied_to(&r->log, index);
    raft_report_load(r);
}

/* A stored commit index lags, and a machine on disk may hold more: that was committed in an earlier life. To wait until it is
 * committed again may be to wait for ever: the one voter whom this leader has left may need an image, and none can be made while
 * the machine is ahead of what is applied. It is always of an older term than the leader's own. */
static void on_committed(struct raft *r, uint64_t index)
{
    uint64_t last = raft_is_leader(r) ? r->lead->start_index - 1 : r->log.last;

    raft_commit_to(r, index < last ? index : last);
}

static void dispatch(struct raft *r, const struct raft_event *ev)
{
    switch (ev->type) {
    case RAFT_EV_TICK: on_tick(r); break;
    case RAFT_EV_MESSAGE: raft_on_message(r, ev->message); break;
    case RAFT_EV_PROPOSE: raft_propose(r, ev->propose.records, ev->propose.first_key, ev->propose.n_keys); break;
    case RAFT_EV_READ: raft_read(r, ev->read.low, ev->read.high); break;
    case RAFT_EV_SAVED: on_saved(r, ev->saved); break;
    case RAFT_EV_APPLIED: on_applied(r, ev->applied); break;
    case RAFT_EV_MEMBERSHIP: raft_on_membership(r, ev->membership.index, ev->membership.membership); break;
    case RAFT_EV_FETCHED: raft_on_fetched(r, ev->fetched.peer, ev->fetched.runs, ev->fetched.n_runs); break;
    case RAFT_EV_UNREACHABLE: raft_on_unreachable(r, ev->peer); break;
    case RAFT_EV_CAMPAIGN: raft_campaign(r); break;
    case RAFT_EV_WAKE: break;
    case RAFT_EV_TRANSFER: raft_transfer(r, ev->transfer.target, ev->transfer.key); break;
    case RAFT_EV_FORGET_LEADER: raft_forget_leader(r); break;
    case RAFT_EV_SNAPSHOT_MADE: raft_on_snapshot_made(r, ev->snapshot); break;
    case RAFT_EV_COMPACTED: raft_on_compacted(r, ev->compacted); break;
    case RAFT_EV_COMMITTED: on_committed(r, ev->committed); break;
    case RAFT_EV_SNAPSHOT_STATUS: raft_on_snapshot_status(r, ev->status.peer, ev->status.failed, ev->status.pruned); break;
    }
}

/* Which events wake a quiet replica; a message decides for itself (engine/raft/quiesce.c says why). */
static bool is_waking(enum raft_event_type type)
{
    return type == RAFT_EV_PROPOSE || type == RAFT_EV_READ || type == RAFT_EV_MEMBERSHIP || type == RAFT_EV_CAMPAIGN ||
           type == RAFT_EV_WAKE || type == RAFT_EV_TRANSFER || type == RAFT_EV_FORGET_LEADER;
}

void raft_step(struct raft *r, const struct raft_event *ev, struct raft_update *out)
{
    assert(!r->out);
    r->out = out;
    if (ev->now > r->now)
        r->now = ev->now;
    if (is_waking(ev->type))
        raft_wake(r);
    dispatch(r, ev);
    if (r->asked.key)
        raft_transfer_watch(r);
    r->out = NULL;
}

/* ---- inspection ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t raft_next_deadline(const struct raft *r)
{
    uint64_t due = RAFT_NEVER;

    if (r->quiesced)
        return raft_quiet_deadline(r);
    if (raft_is_leader(r)) {
        due = earlier(r->lead->heartbeat_deadline, r->lead->quorum_deadline);
        if (r->lead->transferee)
            due = earlier(due, r->lead->transfer_deadline);
    } else if (r->is_voter || raft_calls(r)) {
        due = raft_election_deadline(r);
    }
    return r->asked.key ? earlier(due, r->asked.deadline) : due;
}

void raft_get_status(const struct raft *r, struct raft_status *ret)
{
    const struct raft_log *log = &r->log;

    *ret = (struct raft_status){
        .term = r->term,
        .vote = r->vote,
        .leader_id = r->leader_id,
        .role = r->role,
        .first_index = log->first,
        .last_index = log->last,
        .saved_index = log->saved,
        .commit_index = log->commit,
        .handed_index = log->handed,
        .applied_index = log->applied,
        .cached_first = log->cached_first,
        .cached_bytes = log->cache.bytes,
        .uncommitted_bytes = r->lead ? r->lead->uncommitted_bytes : 0,
        .quiesced = r->quiesced,
        .lease_held = raft_holds_lease(r),
        .overloaded = r->overloaded,
        .joint = r->joint,
        .witness = raft_is_witness(r, r->options.replica_id),
        .pending_config = log->config_bound > log->applied,
        .transferee = r->lead ? r->lead->transferee : NH_NO_REPLICA,
        .snapshot_index = r->snapshot ? r->snapshot->index : 0,
        .ignored_messages = r->ignored_messages,
        .truncated_suffixes = log->truncations,
        .stale_saves = log->stale_saves,
    };
}

void raft_get_view(const struct raft *r, struct raft_view *ret)
{
    const struct raft_log *log = &r->log;

    *ret = (struct raft_view){
        .leader_id = r->leader_id,
        .term = r->term,
        .first_index = log->first,
        .last_index = log->last,
        .commit_index = log->commit,
        .transferee = r->lead ? r->lead->transferee : NH_NO_REPLICA,
        .uncommitted_bytes = r->lead ? r->lead->uncommitted_bytes : 0,
        .role = r->role,
        .quiesced = r->quiesced,
        .joint = r->joint,
        .pending_config = log->config_bound > log->applied,
        .overloaded = r->overloaded,
    };
    ret->witness = !r->is_voter && raft_is_witness(r, r->options.replica_id);
    ret->lease_held = r->options.lease_reads && raft_holds_lease(r);
}

bool raft_is_quiesced(const struct raft *r)
{
    return r->quiesced;
}

size_t raft_get_peers(const struct raft *r, struct raft_peer_status *ret, size_t cap)
{
    if (!raft_is_leader(r))
        return 0;
    for (uint32_t i = 0; i < r->lead->n_peers && i < cap; i++) {
        const struct raft_peer *p = &r->lead->peers[i];

        ret[i] = (struct raft_peer_status){
            .replica_id = p->id,
            .kind = (enum nh_member_kind)p->kind,
            .state = (enum raft_peer_state)p->state,
            .match = p->match,
            .next = p->next,
            .inflight_messages = p->window_n,
            .inflight_bytes = p->window_bytes,
            .pending_snapshot = p->pending_snapshot,
            .outgoing = p->outgoing,
            .active = p->active,
            .paused = p->state == RAFT_REPLICATE ? raft_peer_is_full(p, &r->options) : p->state == RAFT_SNAPSHOT || p->probing,
            .overloaded = !raft_peer_takes_entries(r, p),
        };
    }
    return r->lead->n_peers;
}

/* So many of the runs in memory, the oldest first: those that are committed and applied next. */
#define PREFETCH_RUNS 4u

static size_t prefetched_runs(const struct raft_cache *c)
{
    return c->n - c->head < PREFETCH_RUNS ? c->n - c->head : PREFETCH_RUNS;
}

static void prefetch_parts(const struct raft *r)
{
    const struct raft_cache *cache = &r->log.cache;

    prefetch(r->members, r->n_members * sizeof *r->members);
    prefetch(r->log.spans.items, 1);
    prefetch(r->log.saves.items, 1);
    prefetch(cache->runs + cache->head, prefetched_runs(cache) * sizeof *cache->runs);
    prefetch(r->lead, sizeof *r->lead);
}

static void prefetch_blocks(const struct raft *r)
{
    const struct raft_cache *cache = &r->log.cache;

    for (size_t i = 0; i < prefetched_runs(cache); i++)
        prefetch(cache->runs[cache->head + i].block, 1);
    if (r->lead)
        prefetch(r->lead->peers, r->lead->n_peers * sizeof *r->lead->peers);
}

static void prefetch_offsets(const struct raft *r)
{
    const struct raft_cache *cache = &r->log.cache;

    for (size_t i = 0; i < prefetched_runs(cache); i++)
        prefetch(cache->runs[cache->head + i].block->offsets, 1);
    for (uint32_t i = 0; r->lead && i < r->lead->n_peers; i++)
        prefetch(r->lead->peers[i].window, 1);
}

void raft_prefetch(const struct raft *r, unsigned depth)
{
    switch (depth) {
    case 0: prefetch(r, sizeof *r); break;
    case 1: prefetch_parts(r); break;
    case 2: prefetch_blocks(r); break;
    default: prefetch_offsets(r); break;
    }
}

uint64_t raft_term_at(const struct raft *r, uint64_t index)
{
    return raft_log_term(&r->log, index);
}

bool raft_cached_runs(const struct raft *r, uint64_t low, uint64_t high, struct run_list *ret)
{
    if (low > high || low < r->log.cached_first || high > r->log.last + 1)
        return false;
    raft_log_slice(&r->log, low, high, UINT64_MAX, true, ret);
    return true;
}
