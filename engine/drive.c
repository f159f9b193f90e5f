#include "engine/drive.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/apply_worker.h"
#include "engine/controls.h"
#include "engine/drive_events.h"
#include "engine/engine_private.h"
#include "engine/peers.h"
#include "engine/reads.h"
#include "engine/snapshots.h"
#include "engine/trace.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define LOG_COMPONENT "engine"
#define NS_PER_MS     1000000u
/* Updates of one replica in one pass; then others have their turn. */
#define ROUNDS_MAX 8u

static struct nh_replica_info info_of(const struct replica *r)
{
    return (struct nh_replica_info){r->shard_id, r->replica_id};
}

/* ---- deadlines ---- */

/* No pending proposal expires before earliest_ns; returns what that is afterwards. */
static uint64_t expire(struct step_worker *w, struct replica *r, uint64_t earliest_ns)
{
    uint64_t first_ns = earliest_ns < r->reads_earliest_ns ? earliest_ns : r->reads_earliest_ns;

    if (first_ns > w->now_ns || w->now_ns < r->next_scan_ns)
        return earliest_ns;
    r->next_scan_ns = w->now_ns + (uint64_t)EXPIRY_SCAN_MS * NS_PER_MS;
    replica_expire(r, w->now_ns);
    reads_expire(r, w->now_ns);
    return replica_earliest(r);
}

/* ---- the update out ---- */

static void obey_dropped(struct step_worker *w, struct replica *r, const struct raft_update *out)
{
    for (size_t i = 0; i < out->dropped.n; i++) {
        const struct raft_dropped *d = &out->dropped.items[i];
        if (!d->is_read)
            replica_end_proposals(r, d->first_key, d->n_keys, NH_REQUEST_DROPPED, d->reason);
        else if (d->reason == NH_DROP_WITNESS)
            reads_drop(r, d->first_key, d->reason);
        else
            reads_retry(r, d->first_key, w->now_tick + 1);
    }
}

static void obey_save(struct step_worker *w, struct replica *r, struct raft_update *out)
{
    struct nh_update update = {
        .shard_id = r->shard_id,
        .replica_id = r->replica_id,
        .has_state = out->has_state,
        .must_sync = out->must_sync,
        .state = out->state,
        .snapshot = out->snapshot,
    };

    if (out->snapshot) {
        __atomic_store_n(&r->installing, out->snapshot->index, __ATOMIC_RELEASE);
        peers_register(w, r, &out->snapshot->membership);
    }
    r->last_save = save_batch_add(w->open, r, &update, out->save_id, &out->runs);
    r->last_batch = w->open;
    r->n_saves++;
}

/* Votes and acknowledgements wait for the newest save that they may depend on. */
static void obey_send_after_save(struct step_worker *w, struct replica *r, struct raft_update *out)
{
    for (size_t i = 0; i < out->send_after_save.n; i++) {
        if (r->last_batch)
            save_batch_add_after(r->last_batch, r->last_save, &out->send_after_save.items[i]);
        else
            peers_send(w, r, &out->send_after_save.items[i]);
    }
    out->send_after_save.n = 0; /* they have moved */
}

static void obey_apply(struct step_worker *w, struct replica *r, struct raft_update *out)
{
    assert(out->apply_first == r->handed + 1);
    r->handed = out->apply_last;
    step_worker_apply(w, r, apply_entries_new(r, out->apply_first, out->apply_last, &out->apply_runs));
}

static void obey_leader(struct step_worker *w, struct replica *r, const struct raft_update *out)
{
    const struct engine_events *events = &w->engine->config.events;
    struct nh_leader_info info = {r->shard_id, r->replica_id, out->term, out->leader_id, (uint32_t)out->role};

    r->leader_id = out->leader_id;
    events->leader_updated(events->ctx, &info);
    if (out->leader_id == NH_NO_LEADER)
        return;
    reads_retry_all(r);
    step_worker_again(w, r); /* what waited for a leader goes on */
}

static void obey_send(struct step_worker *w, struct replica *r, struct raft_update *out)
{
    for (size_t i = 0; i < out->send.n; i++) {
        struct nh_message *m = &out->send.items[i];

        if (m->type == NH_MSG_INSTALL_SNAPSHOT && snapshots_send(w, r, m))
            nh_message_deinit(m);
        else
            peers_send(w, r, m);
    }
    out->send.n = 0; /* they have moved */
}

static void obey(struct step_worker *w, struct replica *r, struct raft_update *out)
{
    obey_send(w, r, out);
    for (size_t i = 0; i < out->reads.n; i++)
        reads_confirm(r, &out->reads.items[i]);
    obey_dropped(w, r, out);
    if (out->save_id)
        obey_save(w, r, out);
    obey_send_after_save(w, r, out);
    if (out->apply_first)
        obey_apply(w, r, out);
    if (!list_empty(&r->reads_confirmed))
        reads_hand_over(w, r);
    if (out->transfers.n > 0)
        controls_obey(r, out);
    if (out->leader_changed)
        obey_leader(w, r, out);
    r->is_removed |= out->removed;
    if (out->snapshot_wanted)
        snapshots_want(w, r);
}

/* ---- entries that are only in the log store ---- */

struct fetching {
    struct run_list runs;
    uint64_t next;
};

static int add_fetched(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct fetching *f = ctx;

    return run_list_decode(&f->runs, records, size_bytes, f->next, err);
}

/* Read here, on the step worker: it is rare (a follower that lags far behind) and bounded by max_bytes. */
static int answer_fetch(struct step_worker *w, struct replica *r, const struct raft_fetch *fetch, struct nh_error *err)
{
    const struct engine_config *c = &w->engine->config;
    struct fetching f = {.next = fetch->low};
    struct nh_entry_sink sink = {.add = add_fetched, .ctx = &f};
    int rc = c->logdb_ops->iterate_entries(c->logdb, r->shard_id, r->replica_id, fetch->low, fetch->high, fetch->max_bytes, &sink,
                                           err);

    rc = plugin_status(rc, "iterate_entries", err);
    if (rc == NH_ECORRUPT || rc == NH_EIO || rc == NH_EABI) {
        run_list_deinit(&f.runs);
        return rc;
    }
    raft_step(r->raft,
              &(struct raft_event){.type = RAFT_EV_FETCHED,
                                   .now = w->now_tick,
                                   .fetched = {fetch->peer, f.runs.runs, rc < 0 ? 0 : f.runs.n}},
              &w->update);
    run_list_deinit(&f.runs);
    return NH_OK;
}

/* Releases the update, whose place the next one takes; false: an entry cannot be read, the replica is in quarantine. */
static bool answer_fetches(struct step_worker *w, struct replica *r)
{
    struct raft_update *out = &w->update;
    struct raft_fetch fetches[NH_MEMBERS_MAX];
    struct nh_error err;
    size_t n = out->fetches.n < NH_MEMBERS_MAX ? out->fetches.n : NH_MEMBERS_MAX;

    memcpy(fetches, out->fetches.items, n * sizeof *fetches);
    raft_update_release(out);
    for (size_t i = 0; i < n; i++) {
        if (answer_fetch(w, r, &fetches[i], &err) < 0) {
            raft_update_release(out);
            drive_quarantine(w, r, err.text);
            return false;
        }
    }
    return true;
}

/* Collects, obeys, answers fetches; false: the replica is in quarantine. What was fetched leaves in this turn, as the update is
 * the worker's, and the next replica's begins empty; a peer's window bounds how much that is. */
static bool settle(struct step_worker *w, struct replica *r)
{
    struct raft_update *out = &w->update;

    for (uint32_t round = 1;; round++) {
        bool more;

        raft_collect(r->raft, out);
        if (trace_is_on())
            trace_update(r->shard_id, r->replica_id, out);
        obey(w, r, out);
        if (out->fetches.n > 0) {
            if (!answer_fetches(w, r))
                return false;
            continue;
        }
        more = out->more;
        raft_update_release(out);
        if (!more)
            return true;
        if (round >= ROUNDS_MAX)
            break;
    }
    step_worker_again(w, r);
    return true;
}

/* ---- one pass ---- */

static uint64_t next_deadline_ms(struct step_worker *w, struct replica *r, uint64_t earliest_ns)
{
    uint64_t tick = raft_next_deadline(r->raft), retry = list_empty(&r->reads_waiting) ? RAFT_NEVER : reads_next_tick(w, r);
    uint64_t ms, expiry_ms;

    if (retry < tick)
        tick = retry;
    ms = tick == RAFT_NEVER ? WHEEL_NEVER : tick * w->engine->config.rtt_ms;
    if (r->reads_earliest_ns < earliest_ns)
        earliest_ns = r->reads_earliest_ns;
    if (earliest_ns == REQUESTS_NO_DEADLINE)
        return ms;
    if (earliest_ns < r->next_scan_ns)
        earliest_ns = r->next_scan_ns;
    expiry_ms = earliest_ns / NS_PER_MS + 1;
    return expiry_ms < ms ? expiry_ms : ms;
}

/* A timer that is early is cheaper than one that is moved with every heartbeat: it fires once, finds nothing due, and is set
 * anew. */
static void arm_timer(struct step_worker *w, struct replica *r, uint64_t earliest_ns)
{
    uint64_t at_ms = next_deadline_ms(w, r, earliest_ns);

    if (at_ms != WHEEL_NEVER && (!timer_is_set(&r->timer) || at_ms < r->timer.at_ms))
        wheel_set(&w->wheel, &r->timer, at_ms);
}

bool drive_is_due(struct step_worker *w, struct replica *r)
{
    uint64_t at_ms;

    if (r->state != REPLICA_RUNNING)
        return true;
    at_ms = next_deadline_ms(w, r, replica_earliest(r));
    if (at_ms <= w->now_ns / NS_PER_MS)
        return true;
    if (at_ms != WHEEL_NEVER)
        wheel_set(&w->wheel, &r->timer, at_ms);
    return false;
}

/* What this replica has uncommitted; the engine's sum follows with the end of the pass. */
static void account(struct step_worker *w, struct replica *r, uint64_t uncommitted_bytes)
{
    w->uncommitted_change += uncommitted_bytes - r->told_uncommitted;
    r->told_uncommitted = uncommitted_bytes;
}

static void tell_overload(struct replica *r, bool overloaded)
{
    const struct engine_events *events = &r->engine->config.events;

    if (overloaded != r->told_overloaded)
        events->overload_changed(events->ctx, info_of(r), overloaded);
    r->told_overloaded = overloaded;
}

static void publish(struct step_worker *w, struct replica *r, uint64_t *ret_earliest_ns)
{
    bool awaits_applied = raft_awaits_applied(r->raft), applied_since;
    struct raft_view s;

    raft_get_view(r->raft, &s);
    account(w, r, s.uncommitted_bytes);
    tell_overload(r, s.overloaded);
    r->awaits_saved = raft_awaits_saved(r->raft);
    raft_get_patience(r->raft, &r->patience);
    pthread_mutex_lock(&r->lock);
    r->awaits_applied = awaits_applied;
    applied_since = r->applied > r->told_applied;
    r->status.leader_id = s.leader_id;
    r->status.term = s.term;
    r->status.first_index = s.first_index;
    r->status.last_index = s.last_index;
    r->status.commit_index = s.commit_index;
    r->status.transferee = s.transferee;
    r->status.uncommitted_bytes = s.uncommitted_bytes;
    r->status.role = s.role;
    r->status.quiesced = s.quiesced;
    r->status.joint = s.joint;
    r->status.witness = s.witness;
    r->status.pending_config = s.pending_config;
    r->status.lease_held = s.lease_held;
    r->status.overloaded = s.overloaded;
    *ret_earliest_ns = r->earliest_ns;
    pthread_mutex_unlock(&r->lock);
    if (awaits_applied && applied_since)
        step_worker_again(w, r);
}

static void discard_news(struct inbox *in)
{
    struct queue_node *node;

    while ((node = queue_pop(&in->changes))) {
        struct membership_change *c = container_of(node, struct membership_change, node);

        nh_membership_deinit(&c->membership);
        free(c);
    }
    while ((node = queue_pop(&in->notes)))
        snapshot_note_free(container_of(node, struct snapshot_note, node));
}

static void discard_inbox(struct replica *r, struct inbox *in)
{
    discard_news(in);
    block_builder_deinit(&in->proposals);
    controls_end(&in->wishes, NH_REQUEST_TERMINATED);
    if (in->reads)
        replica_end_reads(r, in->reads, UINT64_MAX, NH_REQUEST_TERMINATED, NH_DROP_NONE);
    replica_free_reads(r, in->reads);
}

/* Requests wait, and the leader's host is down: a quiet replica must not sleep on. */
static void wake_if_stranded(struct step_worker *w, struct replica *r)
{
    if (!raft_is_quiesced(r->raft) || r->leader_id == NH_NO_LEADER || peers_leader_is_reachable(w, r))
        return;
    r->wake |= !list_empty(&r->reads_waiting) || replica_earliest(r) != REQUESTS_NO_DEADLINE;
}

/* Also taken by a replica that is not driven: its notification must come again. */
static bool may_go_on(struct step_worker *w, struct replica *r, struct inbox *in)
{
    if (r->state == REPLICA_RUNNING && !in->failed)
        return true;
    discard_inbox(r, in);
    r->inbound = (struct queue){0};
    if (r->state == REPLICA_RUNNING)
        drive_quarantine(w, r, r->failure); /* written once, before `failed` was seen */
    return false;
}

/* Requests wait for the first save, but not longer than they may. A snapshot that was received so early will be announced again.
 */
static void drive_starting(struct step_worker *w, struct replica *r)
{
    struct inbox in;
    uint64_t earliest_ns;

    r->inbound = (struct queue){0};
    replica_take_inbox(r, false, &in);
    discard_news(&in);
    reads_take(r, in.reads);
    earliest_ns = expire(w, r, replica_earliest(r));
    if (r->reads_earliest_ns < earliest_ns)
        earliest_ns = r->reads_earliest_ns;
    if (earliest_ns != REQUESTS_NO_DEADLINE)
        wheel_set(&w->wheel, &r->timer, earliest_ns / NS_PER_MS + 1);
}

static void take_inbox(struct step_worker *w, struct replica *r, struct inbox *ret)
{
    uint64_t applied;

    if (replica_look_at_inbox(r, &applied))
        replica_take_inbox(r, peers_leader_is_reachable(w, r), ret);
    else
        *ret = (struct inbox){.applied = applied};
}

/* Nobody will write to it any more. Its data stays: deleting is the user's to decide. */
static void leave_shard(struct step_worker *w, struct replica *r)
{
    const struct engine_events *events = &w->engine->config.events;

    LOG_WARN("shard %" PRIu64 " replica %" PRIu64 " was removed from its shard, it stops", r->shard_id, r->replica_id);
    events->replica_removed(events->ctx, info_of(r));
    drive_stop(w, r);
}

void drive(struct step_worker *w, struct replica *r)
{
    struct inbox in;
    uint64_t earliest_ns;

    if (r->state == REPLICA_STARTING) {
        drive_starting(w, r);
        return;
    }
    assert(w->update.send.n == 0 && w->update.send_after_save.n == 0); /* of the replica before */
    take_inbox(w, r, &in);
    if (r->uses_leases) /* a lease must hold at a moment after the reads came, however long this thread has stood still since */
        step_worker_read_clock(w);
    if (!may_go_on(w, r, &in))
        return;
    reads_take(r, in.reads);
    queue_splice(&r->controls, &in.wishes);
    wake_if_stranded(w, r);
    drive_events(w, r, &in);
    if (!settle(w, r))
        return;
    publish(w, r, &earliest_ns);
    arm_timer(w, r, expire(w, r, earliest_ns));
    if (r->is_removed)
        leave_shard(w, r);
}

/* ---- start, stop, failure ---- */

static void begin_first_save(struct step_worker *w, struct replica *r)
{
    struct first_save *first = r->first_save;
    struct nh_update update = {
        .shard_id = r->shard_id, .replica_id = r->replica_id, .has_state = true, .must_sync = true, .state = first->state};

    save_batch_add(w->open, r, &update, 0, &first->runs);
    r->n_saves++;
    r->first_save = NULL;
    first_save_free(first);
}

void drive_start(struct step_worker *w, struct replica *r)
{
    if (w->fenced) {
        drive_fence(w, r);
        return;
    }
    if (r->first_save) {
        begin_first_save(w, r);
        return;
    }
    r->state = REPLICA_RUNNING;
    step_worker_apply(w, r, apply_item_new(APPLY_OPEN, r));
    step_worker_activate(w, r);
}

static void leave(struct step_worker *w, struct replica *r, enum replica_state state, int refusal)
{
    r->state = state;
    wheel_cancel(&w->wheel, &r->timer);
    r->inbound = (struct queue){0};
    r->n_unreachable = 0;
    replica_terminate(r, refusal);
    controls_terminate(r);
    reads_terminate(r);
    account(w, r, 0);
}

void drive_quarantine(struct step_worker *w, struct replica *r, const char *reason)
{
    const struct engine_events *events = &w->engine->config.events;

    LOG_ERROR("shard %" PRIu64 " replica %" PRIu64 " is in quarantine: %s", r->shard_id, r->replica_id, reason);
    leave(w, r, REPLICA_QUARANTINED, NH_EQUARANTINED);
    pthread_mutex_lock(&r->lock);
    r->status.quarantined = true;
    r->status.role = RAFT_FOLLOWER;
    r->status.leader_id = NH_NO_LEADER;
    pthread_mutex_unlock(&r->lock);
    events->replica_quarantined(events->ctx, info_of(r), reason);
}

void drive_fence(struct step_worker *w, struct replica *r)
{
    if (r->state <= REPLICA_RUNNING)
        leave(w, r, REPLICA_FENCED, NH_EFENCED);
}

void drive_stop(struct step_worker *w, struct replica *r)
{
    if (r->state == REPLICA_STOPPING)
        return;
    map_remove(&w->replicas, r->shard_id);
    r->is_hosted = false;
    list_remove(&r->active);
    leave(w, r, REPLICA_STOPPING, NH_ECLOSED);
    drive_finish_stop(w, r);
}

void drive_finish_stop(struct step_worker *w, struct replica *r)
{
    if (r->n_saves > 0)
        return;
    step_worker_apply(w, r, apply_item_new(APPLY_CLOSE, r));
    replica_unref(r); /* the apply worker has its own reference until the item is done */
}
