/* How images leave and arrive: the sender and the receiver of an engine, and what the step worker has to do with them. */
#include "engine/snapshots.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_private.h"
#include "engine/peers.h"
#include "engine/snapshot_stream.h"
#include "engine/trace.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"

#define LOG_COMPONENT "snapshot"

struct snapshots {
    struct snapshot_pool *pool;
    struct snapshot_sender *sender;
    struct snapshot_receiver *receiver;
    bool stopped;
};

struct snapshot_pool *snapshots_pool(struct engine *e)
{
    return e->snapshots->pool;
}

void snapshots_tell(struct replica *r, enum engine_snapshot_event what, uint64_t from, uint64_t index)
{
    const struct engine_events *events = &r->engine->config.events;
    struct nh_snapshot_info info = {r->shard_id, r->replica_id, from, index};

    events->snapshot_event(events->ctx, what, &info);
}

/* ---- what the sender calls ---- */

static void on_started(void *ctx, const struct stream_id *id)
{
    struct engine *e = ctx;
    struct nh_snapshot_info info = {id->shard_id, id->to, id->from, id->index};

    e->config.events.snapshot_event(e->config.events.ctx, ENGINE_SNAPSHOT_SEND_STARTED, &info);
}

static void on_ended(void *ctx, const struct stream_id *id, bool failed, const char *reason)
{
    struct engine *e = ctx;
    struct nh_snapshot_info info = {id->shard_id, id->to, id->from, id->index};
    struct replica *r = engine_find(e, id->shard_id);

    if (failed)
        LOG_WARN("shard %" PRIu64 ": the snapshot at index %" PRIu64 " did not reach replica %" PRIu64 ": %s", id->shard_id,
                 id->index, id->to, reason);
    e->config.events.snapshot_event(e->config.events.ctx, failed ? ENGINE_SNAPSHOT_SEND_ABORTED : ENGINE_SNAPSHOT_SEND_COMPLETED,
                                    &info);
    if (r && r->replica_id == id->from && strcmp(reason, STREAM_REPLACED) != 0) /* the core began another one meanwhile */
        replica_post_note(r, &(struct snapshot_note){.type = NOTE_STATUS,
                                                     .peer = id->to,
                                                     .failed = failed,
                                                     .pruned = strcmp(reason, STREAM_PRUNED) == 0});
    replica_unref(r);
}

/* ---- what the receiver calls ---- */

static int admit(void *ctx, uint64_t shard_id, uint64_t replica_id, const struct nh_snapshot *record, struct snapshot_dir *ret)
{
    struct replica *r = engine_find(ctx, shard_id);
    int rc = NH_ENOTFOUND;

    if (r && r->replica_id == replica_id && r->has_place) {
        pthread_mutex_lock(&r->lock);
        if (!r->has_snapshots) /* its machine could not take it over */
            rc = NH_EUNSUPPORTED;
        else if (r->refusal == NH_OK)
            rc = r->status.applied_index < record->index ? NH_OK : NH_EEXIST;
        pthread_mutex_unlock(&r->lock);
    }
    if (rc == NH_OK)
        replica_snapshot_dir(r, ret);
    replica_unref(r);
    return rc;
}

static void answer(void *ctx, const char *address, const struct nh_message *m)
{
    struct engine *e = ctx;
    struct nh_message copy = *m;
    struct nh_message_batch batch = {.source_address = e->address, .n_messages = 1, .messages = &copy};
    struct nh_connection *c = NULL;

    if (e->transport_ops->get_connection(e->transport, address, &c, NULL) != NH_OK)
        return; /* the sender asks again */
    e->transport_ops->send_batch(c, &batch, NULL);
    e->transport_ops->close_connection(c);
}

static void received(void *ctx, struct nh_message *install)
{
    struct engine *e = ctx;
    struct replica *r = engine_find(e, install->shard_id);
    struct snapshot_note note = {.type = NOTE_INSTALL, .install = *install};

    if (!r || r->replica_id != install->to) {
        nh_message_deinit(install);
    } else {
        snapshots_tell(r, ENGINE_SNAPSHOT_RECEIVED, install->from, install->snapshot->index);
        replica_post_note(r, &note);
    }
    replica_unref(r);
}

/* ---- owner ---- */

static int make_sender(struct engine *e, struct snapshots *s, struct nh_error *err)
{
    struct snapshot_sender_config c = {
        .runtime = e->config.runtime,
        .files = e->config.files,
        .transport_ops = e->transport_ops,
        .transport = e->transport,
        .deployment_id = e->config.deployment_id,
        .address = e->address,
        .bytes_per_s = e->config.snapshot_send_bytes_per_s,
        .sending_max = e->config.snapshot_streams_max,
        .ctx = e,
        .started = on_started,
        .ended = on_ended,
    };

    return snapshot_sender_new(&c, &s->sender, err);
}

static int make_receiver(struct engine *e, struct snapshots *s, struct nh_error *err)
{
    struct snapshot_receiver_config c = {
        .runtime = e->config.runtime,
        .files = e->config.files,
        .receiving_max = e->config.snapshot_streams_max,
        .ctx = e,
        .admit = admit,
        .answer = answer,
        .received = received,
    };

    return snapshot_receiver_new(&c, &s->receiver, err);
}

/* Transports that move no chunks: images are made and recovered here, not sent. */
static bool can_move(const struct engine *e)
{
    return e->config.files && e->transport_ops->get_snapshot_connection && e->transport_ops->send_chunk &&
           e->transport_ops->close_snapshot_connection;
}

int snapshots_start(struct engine *e, struct nh_error *err)
{
    struct snapshots *s = xcalloc(1, sizeof *s);
    int r = NH_OK;

    s->pool = snapshot_pool_new(e->config.runtime, e->config.n_snapshot_workers);
    e->snapshots = s;
    if (can_move(e)) {
        r = make_sender(e, s, err);
        if (r == NH_OK)
            r = make_receiver(e, s, err);
    }
    if (r < 0)
        return r;
    snapshot_pool_start(s->pool);
    if (s->sender)
        snapshot_sender_start(s->sender);
    if (s->receiver)
        snapshot_receiver_start(s->receiver);
    return NH_OK;
}

void snapshots_stop(struct engine *e)
{
    struct snapshots *s = e->snapshots;

    if (s->receiver)
        snapshot_receiver_stop(s->receiver);
    if (s->sender)
        snapshot_sender_stop(s->sender);
    snapshot_pool_stop(s->pool);
}

void snapshots_free(struct engine *e)
{
    if (!e->snapshots)
        return;
    snapshot_sender_free(e->snapshots->sender);
    snapshot_receiver_free(e->snapshots->receiver);
    snapshot_pool_free(e->snapshots->pool);
    free(e->snapshots);
    e->snapshots = NULL;
}

bool snapshots_chunk(struct engine *e, const struct nh_chunk *chunk)
{
    return e->snapshots && e->snapshots->receiver && snapshot_receiver_chunk(e->snapshots->receiver, chunk);
}

/* ---- ending streams ---- */

static void on_all_ended(void *ctx)
{
    struct replica *r = ctx;
    struct apply_item *item = apply_item_new(APPLY_RETURNED, r); /* with our reference */

    item->snapshot->machine_back = true;
    apply_worker_post(r->apply, item);
}

static void end_outgoing(void *ctx)
{
    struct replica *r = ctx;
    struct snapshot_sender *sender = r->engine->snapshots->sender;

    if (sender)
        snapshot_sender_cancel(sender, r->shard_id, on_all_ended, r);
    else
        on_all_ended(r);
}

void snapshots_end_streams(struct replica *r, bool incoming_too)
{
    struct snapshot_receiver *receiver = r->engine->snapshots->receiver;

    replica_ref(r);
    if (incoming_too && receiver)
        snapshot_receiver_cancel(receiver, r->shard_id, end_outgoing, r);
    else
        end_outgoing(r);
}

/* ---- sending ---- */

void snapshots_stream_to(struct replica *r, const char *address, const struct nh_message *install,
                         const struct stream_producer *producer)
{
    struct stream_request request = {
        .id = {r->shard_id, r->replica_id, install->to, install->snapshot->index},
        .install = install,
        .producer = producer,
    };

    replica_snapshot_dir(r, &request.dir);
    strcpy(request.address, address);
    snapshot_sender_send(r->engine->snapshots->sender, &request);
}

static void post_stream(struct step_worker *w, struct replica *r, const struct nh_message *m, const char *address)
{
    struct apply_item *item = apply_item_new(APPLY_STREAM, r);

    item->snapshot->install = xmemdup(m, sizeof *m);
    item->snapshot->install->snapshot = xcalloc(1, sizeof *item->snapshot->install->snapshot);
    nh_snapshot_copy(item->snapshot->install->snapshot, m->snapshot);
    strcpy(item->snapshot->address, address);
    step_worker_apply(w, r, item);
}

bool snapshots_send(struct step_worker *w, struct replica *r, const struct nh_message *m)
{
    const char *address = peers_address(w, r, m->to);

    if (m->snapshot->witness)
        return false;
    if (trace_is_on())
        trace_message(r->shard_id, m);
    if (!address || !w->engine->snapshots->sender || !r->has_snapshots)
        replica_post_note(r, &(struct snapshot_note){.type = NOTE_STATUS, .peer = m->to, .failed = true});
    else if (m->snapshot->dummy)
        post_stream(w, r, m, address);
    else
        snapshots_stream_to(r, address, m, NULL);
    return true;
}

void snapshots_answer(struct step_worker *w, const struct nh_message *m)
{
    if (w->engine->snapshots->sender)
        snapshot_sender_answer(w->engine->snapshots->sender, m);
}

/* ---- the core's part ---- */

static void step(struct step_worker *w, struct replica *r, struct raft_event ev)
{
    ev.now = w->now_tick;
    raft_step(r->raft, &ev, &w->update);
}

/* A slow stream may end long after it was overtaken. A quiet replica is not to be woken by it: nobody would answer its timer. */
static bool is_late(const struct replica *r, const struct nh_message *install)
{
    struct raft_status s;

    raft_get_status(r->raft, &s);
    return install->snapshot->index <= s.commit_index;
}

static void step_note(struct step_worker *w, struct replica *r, struct snapshot_note *note)
{
    switch (note->type) {
    case NOTE_MADE:
        r->next_snapshot_tick = 0;
        step(w, r, (struct raft_event){.type = RAFT_EV_SNAPSHOT_MADE, .snapshot = &note->record});
        if (note->compacted)
            step(w, r, (struct raft_event){.type = RAFT_EV_COMPACTED, .compacted = note->compacted});
        break;
    case NOTE_FAILED: break; /* asked for again when its time has come */
    case NOTE_STATUS:
        step(w, r, (struct raft_event){.type = RAFT_EV_SNAPSHOT_STATUS, .status = {note->peer, note->failed, note->pruned}});
        break;
    case NOTE_INSTALL:
        if (is_late(r, &note->install))
            break;
        if (trace_is_on())
            trace_message(r->shard_id, &note->install);
        step(w, r, (struct raft_event){.type = RAFT_EV_MESSAGE, .message = &note->install});
        break;
    case NOTE_OPENED: step(w, r, (struct raft_event){.type = RAFT_EV_COMMITTED, .committed = note->opened_at}); break;
    }
}

void snapshots_step(struct step_worker *w, struct replica *r, struct queue *notes)
{
    struct queue_node *node;

    while ((node = queue_pop(notes))) {
        struct snapshot_note *note = container_of(node, struct snapshot_note, node);

        step_note(w, r, note);
        snapshot_note_free(note);
    }
}

void snapshots_want(struct step_worker *w, struct replica *r)
{
    struct apply_item *item;

    if (!r->has_snapshots || w->now_tick < r->next_snapshot_tick)
        return;
    r->next_snapshot_tick = w->now_tick + SNAPSHOT_WANTED_TICKS;
    item = apply_item_new(APPLY_SAVE, r);
    item->snapshot->overhead = ENGINE_NEVER;
    step_worker_apply(w, r, item);
}

void snapshots_installed(struct step_worker *w, struct replica *r, const struct nh_snapshot *record)
{
    struct apply_item *item = apply_item_new(APPLY_RECOVER, r);

    failpoint("snapshot_installed");
    r->handed = record->index; /* reads up to it, and what is applied next, come behind this item */
    item->snapshot->record = xcalloc(1, sizeof *item->snapshot->record);
    nh_snapshot_copy(item->snapshot->record, record);
    step_worker_apply(w, r, item);
}
