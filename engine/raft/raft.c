/* The entry points: construction, one event in (raft_step), one update out (raft_collect). */
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

/* ---- members ---- */

struct raft_member *raft_member(const struct raft *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->n_members; i++)
        if (r->members[i].id == id)
            return &r->members[i];
    return NULL;
}

bool raft_is_voter(const struct raft *r, uint64_t id)
{
    const struct raft_member *m = raft_member(r, id);

    /* A witness votes, but it is never asked to campaign or lead. */
    return m && (m->kind == NH_MEMBER_VOTER || (m->kind == NH_MEMBER_WITNESS && id != r->options.replica_id));
}

struct raft_peer *raft_peer(const struct raft *r, uint64_t id)
{
    if (!raft_is_leader(r))
        return NULL;
    for (uint32_t i = 0; i < r->lead->n_peers; i++)
        if (r->lead->peers[i].id == id)
            return &r->lead->peers[i];
    return NULL;
}

void raft_set_members(struct raft *r, const struct nh_membership *m)
{
    free(r->members);
    r->members = NULL;
    r->n_members = r->n_voters = 0;
    if (!m || m->n_members == 0)
        return;
    r->members = xcalloc(m->n_members, sizeof *r->members);
    for (uint32_t i = 0; i < m->n_members; i++) {
        r->members[i].id = m->members[i].replica_id;
        r->members[i].kind = (uint8_t)m->members[i].kind;
        r->n_voters += m->members[i].kind != NH_MEMBER_NON_VOTING;
    }
    r->n_members = m->n_members;
}

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
    for (uint32_t i = 0; i < m->n_members; i++)
        if (m->members[i].replica_id <= (i > 0 ? m->members[i - 1].replica_id : 0) || m->members[i].kind > NH_MEMBER_WITNESS)
            return nh_error_set(err, NH_ECORRUPT, "member %" PRIu32 " (id %" PRIu64 ") does not fit", i,
                                m->members[i].replica_id);
    return NH_OK;
}

static int check_boot(const struct raft_boot *b, struct nh_error *err)
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
}

int raft_new(const struct raft_options *options, const struct raft_boot *boot, struct raft **ret, struct nh_error *err)
{
    struct raft *r;
    int code = check_options(options, err);

    if (code == NH_OK)
        code = check_boot(boot, err);
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
    raft_set_members(r, boot->membership);
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
    free(r);
}

/* ---- events ---- */

static void on_tick(struct raft *r)
{
    if (r->quiesced)
        return;
    if (raft_is_leader(r))
        raft_on_leader_tick(r);
    else if (r->now >= r->election_deadline)
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
    r->log.apply_bytes -= raft_log_bytes(&r->log, r->log.applied + 1, index + 1);
    r->log.applied = index;
}

/* The leader's peers become those of the new membership; who stays keeps its progress. */
static void rebuild_peers(struct raft *r, uint64_t index)
{
    struct raft_lead *lead = r->lead;
    struct raft_peer *old = lead->peers;
    uint32_t n_old = lead->n_peers, at = 0;

    lead->peers = xmalloc(r->n_members * sizeof *lead->peers);
    lead->n_peers = 0;
    for (uint32_t i = 0; i < r->n_members; i++) {
        const struct raft_member *m = &r->members[i];
        struct raft_peer *p = &lead->peers[lead->n_peers];

        if (m->id == r->options.replica_id)
            continue;
        while (at < n_old && old[at].id < m->id)
            raft_peer_deinit(&old[at++]);
        if (at < n_old && old[at].id == m->id)
            *p = old[at++];
        else
            raft_peer_init(p, r, m->id, m->kind);
        p->kind = m->kind;
        lead->n_peers++;
    }
    while (at < n_old)
        raft_peer_deinit(&old[at++]);
    free(old);
    if (!raft_is_voter(r, r->options.replica_id))
        lead->removed_at = index;
}

/* A smaller quorum may commit and confirm at once (statements 52, 70). An election counts the members it began with. */
static void on_membership(struct raft *r, uint64_t index, const struct nh_membership *m)
{
    if (!m)
        return;
    raft_set_members(r, m);
    if (r->role == RAFT_PRE_CANDIDATE || r->role == RAFT_CANDIDATE)
        raft_become_follower(r, r->term, NH_NO_LEADER);
    if (!raft_is_leader(r))
        return;
    rebuild_peers(r, index);
    raft_advance_commit(r);
    raft_confirm_reads(r);
    raft_leave_if_removed(r);
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
    case RAFT_EV_MEMBERSHIP: on_membership(r, ev->membership.index, ev->membership.membership); break;
    case RAFT_EV_FETCHED: raft_on_fetched(r, ev->fetched.peer, ev->fetched.runs, ev->fetched.n_runs); break;
    case RAFT_EV_UNREACHABLE: raft_on_unreachable(r, ev->peer); break;
    case RAFT_EV_CAMPAIGN: raft_campaign(r); break;
    case RAFT_EV_WAKE: break;
    }
}

/* Which events wake a quiet replica; a message decides for itself (engine/raft/quiesce.c says why). */
static bool is_waking(enum raft_event_type type)
{
    return type == RAFT_EV_PROPOSE || type == RAFT_EV_READ || type == RAFT_EV_MEMBERSHIP || type == RAFT_EV_CAMPAIGN ||
           type == RAFT_EV_WAKE;
}

void raft_step(struct raft *r, const struct raft_event *ev, struct raft_update *out)
{
    assert(!r->out);
    raft_enforce(r);
    r->out = out;
    if (ev->now > r->now)
        r->now = ev->now;
    if (is_waking(ev->type))
        raft_wake(r);
    dispatch(r, ev);
    r->out = NULL;
    raft_enforce(r);
}

/* ---- the update ---- */

static bool state_changed(const struct raft *r)
{
    return r->term != r->taken_term || r->vote != r->taken_vote;
}

/* The commit index alone is not worth a write: it can be recomputed (statement 76). */
static bool save_is_due(const struct raft *r)
{
    return r->log.taken < r->log.last || state_changed(r);
}

static void collect_save(struct raft *r)
{
    struct raft_update *out = r->out;

    if (!save_is_due(r))
        return;
    out->save_id = ++r->save_id;
    out->must_sync = true;
    out->has_state = state_changed(r) || r->log.commit != r->taken_commit;
    out->state = (struct nh_state){.term = r->term, .vote = r->vote, .commit = r->log.commit};
    raft_log_take(&r->log, &out->runs);
    r->taken_term = r->term;
    r->taken_vote = r->vote;
    r->taken_commit = r->log.commit;
    raft_log_save_begun(&r->log, r->save_id, r->term, r->vote);
}

static uint64_t apply_limit(const struct raft_log *log)
{
    return log->commit < log->saved ? log->commit : log->saved;
}

/* The last index of the next range to apply; `handed` if nothing may be handed out now. Sets apply_runs if `list`. */
static uint64_t next_apply(const struct raft *r, struct run_list *list)
{
    const struct raft_log *log = &r->log;
    uint64_t low = log->handed + 1, last = apply_limit(log), outstanding = log->handed - log->applied, room;

    if (low > last)
        return log->handed;
    if (low < log->cached_first) { /* after a restart: sizes are not known, the caller reads the range itself */
        room = outstanding < RAFT_APPLY_UNCACHED_MAX ? RAFT_APPLY_UNCACHED_MAX - outstanding : 0;
        if (last >= log->cached_first)
            last = log->cached_first - 1;
        return last - log->handed < room ? last : log->handed + room;
    }
    room = log->apply_bytes < r->options.max_apply_bytes ? r->options.max_apply_bytes - log->apply_bytes : 0;
    if (list)
        return raft_log_slice(log, low, last + 1, room, outstanding == 0, list) - 1;
    return outstanding == 0 || raft_log_bytes(log, low, low + 1) <= room ? low : log->handed;
}

static void collect_apply(struct raft *r)
{
    struct raft_update *out = r->out;
    uint64_t last = next_apply(r, &out->apply_runs);

    if (last == r->log.handed)
        return;
    out->apply_first = r->log.handed + 1;
    out->apply_last = last;
    r->log.apply_bytes += raft_log_bytes(&r->log, out->apply_first, last + 1);
    r->log.handed = last;
}

/* Applied entries stay in memory while an active peer that streams still needs them, and there is room. */
static void trim_cache(struct raft *r)
{
    uint64_t keep_from = r->log.applied;

    if (r->log.cached_first > keep_from)
        return;
    if (raft_is_leader(r) && r->log.cache.bytes <= r->options.max_cached_bytes) {
        for (uint32_t i = 0; i < r->lead->n_peers; i++) {
            const struct raft_peer *p = &r->lead->peers[i];

            if (p->active && p->state == RAFT_REPLICATE && p->match < keep_from)
                keep_from = p->match;
        }
    }
    raft_log_drop(&r->log, keep_from);
}

void raft_collect(struct raft *r, struct raft_update *out)
{
    assert(!r->out && out->save_id == 0 && out->apply_first == 0);
    r->out = out;
    if (raft_is_leader(r) && !r->quiesced) {
        raft_replicate_all(r);
        if (r->lead->heartbeat_wanted)
            raft_send_heartbeats(r);
    }
    collect_save(r);
    collect_apply(r);
    trim_cache(r);
    out->leader_id = r->leader_id;
    out->term = r->term;
    out->leader_changed = r->leader_id != r->told_leader || r->term != r->told_term;
    r->told_leader = r->leader_id;
    r->told_term = r->term;
    r->out = NULL;
    raft_enforce(r);
}

bool raft_has_work(const struct raft *r)
{
    if (save_is_due(r) || next_apply(r, NULL) != r->log.handed)
        return true;
    if (r->leader_id != r->told_leader || r->term != r->told_term)
        return true;
    return raft_is_leader(r) && !r->quiesced && (r->lead->heartbeat_wanted || raft_replicate_pending(r));
}

static void release_messages(struct nh_message *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        nh_message_deinit(&items[i]);
}

static void release_runs(struct run_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        nh_block_unref(l->runs[i].block);
    l->n = 0;
}

void raft_update_release(struct raft_update *out)
{
    release_messages(out->send.items, out->send.n);
    release_messages(out->send_after_save.items, out->send_after_save.n);
    release_runs(&out->runs);
    release_runs(&out->apply_runs);
    out->send.n = out->send_after_save.n = out->reads.n = out->dropped.n = out->fetches.n = 0;
    out->save_id = out->apply_first = out->apply_last = out->leader_id = out->term = 0;
    out->has_state = out->must_sync = out->leader_changed = false;
    out->state = (struct nh_state){0};
}

void raft_update_deinit(struct raft_update *out)
{
    raft_update_release(out);
    free(out->send.items);
    free(out->send_after_save.items);
    free(out->reads.items);
    free(out->dropped.items);
    free(out->fetches.items);
    run_list_deinit(&out->runs);
    run_list_deinit(&out->apply_runs);
    *out = (struct raft_update){0};
}

/* ---- inspection ---- */

uint64_t raft_next_deadline(const struct raft *r)
{
    if (r->quiesced)
        return RAFT_NEVER;
    if (raft_is_leader(r))
        return r->lead->heartbeat_deadline < r->lead->quorum_deadline ? r->lead->heartbeat_deadline : r->lead->quorum_deadline;
    return raft_is_voter(r, r->options.replica_id) ? r->election_deadline : RAFT_NEVER;
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
        .ignored_messages = r->ignored_messages,
        .truncated_suffixes = log->truncations,
        .stale_saves = log->stale_saves,
    };
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
            .active = p->active,
            .paused = p->state == RAFT_PROBE ? p->probing : raft_peer_is_full(p, &r->options),
        };
    }
    return r->lead->n_peers;
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
