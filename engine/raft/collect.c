/* The update: what is to be saved, sent and applied now. */
#include "engine/raft/raft_internal.h"

#include <assert.h>
#include <stdlib.h>

static bool state_changed(const struct raft *r)
{
    return r->term != r->taken_term || r->vote != r->taken_vote;
}

/* The commit index alone is not worth a write: it can be recomputed (statement 76); unless a configuration change is below it. */
static bool save_is_due(const struct raft *r)
{
    return r->log.taken < r->log.last || state_changed(r) || raft_log_commit_is_due(&r->log, r->taken_commit) ||
           raft_log_snapshot_is_due(&r->log);
}

static void collect_save(struct raft *r)
{
    struct raft_update *out = r->out;

    if (!save_is_due(r))
        return;
    out->save_id = ++r->save_id;
    out->must_sync = true;
    out->has_state = state_changed(r) || r->log.commit != r->taken_commit;
    if (raft_log_snapshot_is_due(&r->log))
        out->snapshot = r->snapshot;
    out->state = (struct nh_state){.term = r->term, .vote = r->vote, .commit = r->log.commit};
    raft_log_take(&r->log, &out->runs);
    r->taken_term = r->term;
    r->taken_vote = r->vote;
    r->taken_commit = r->log.commit;
    raft_log_save_begun(&r->log, r->save_id, r->term, r->vote, r->log.commit);
}

static uint64_t apply_limit(const struct raft_log *log)
{
    return log->commit < log->saved ? log->commit : log->saved;
}

bool raft_apply_is_held(const struct raft *r)
{
    return r->log.handed < apply_limit(&r->log);
}

/* The last index of the next range to apply; `handed` if nothing may be handed out now. Sets apply_runs if `list`. */
static uint64_t next_apply(const struct raft *r, struct run_list *list)
{
    const struct raft_log *log = &r->log;
    uint64_t low = log->handed + 1, last = apply_limit(log), outstanding = log->handed - log->applied, room;

    if (low > last || log->unsaved_snapshot)
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
    r->log.apply_bytes += run_list_bytes(&out->apply_runs);
    r->log.handed = last;
    out->more = raft_apply_is_held(r) && next_apply(r, NULL) != last;
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

static bool leader_changed(const struct raft *r)
{
    return r->leader_id != r->told_leader || r->term != r->told_term || r->role != r->told_role;
}

/* Once. */
static bool removal_is_due(const struct raft *r)
{
    return r->is_removed && !r->reported_removed;
}

void raft_collect(struct raft *r, struct raft_update *out)
{
    assert(!r->out && out->save_id == 0 && out->apply_first == 0);
    r->out = out;
    if (raft_is_leader(r) && r->lead->held)
        raft_settle_held(r);
    if (raft_leave_joint_is_due(r))
        raft_leave_joint(r);
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
    out->role = r->role;
    out->leader_changed = leader_changed(r);
    r->told_leader = r->leader_id;
    r->told_term = r->term;
    r->told_role = r->role;
    out->removed = removal_is_due(r);
    r->reported_removed |= out->removed;
    out->snapshot_wanted = raft_snapshot_is_wanted(r);
    r->out = NULL;
    raft_enforce(r);
}

bool raft_has_work(const struct raft *r)
{
    if (save_is_due(r) || next_apply(r, NULL) != r->log.handed || removal_is_due(r) || raft_leave_joint_is_due(r))
        return true;
    if (leader_changed(r))
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
    out->send.n = out->send_after_save.n = out->reads.n = out->dropped.n = out->fetches.n = out->transfers.n = 0;
    out->save_id = out->apply_first = out->apply_last = out->leader_id = out->term = 0;
    out->has_state = out->must_sync = out->leader_changed = out->more = out->removed = out->snapshot_wanted = false;
    out->role = RAFT_FOLLOWER;
    out->snapshot = NULL;
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
    free(out->transfers.items);
    run_list_deinit(&out->runs);
    run_list_deinit(&out->apply_runs);
    *out = (struct raft_update){0};
}
