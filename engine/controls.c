#include "engine/controls.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/apply_worker.h"
#include "engine/engine_private.h"
#include "engine/step_worker.h"
#include "raftio/support/memory.h"

/* ---- wishes ---- */

static int add(struct engine *e, uint64_t shard_id, const struct control *wish, struct nh_error *err)
{
    struct control *c;
    struct replica *r;
    int rc = engine_find_for_request(e, shard_id, &r, err);

    if (rc < 0)
        return rc;
    c = xmemdup(wish, sizeof *wish);
    rc = replica_add_control(r, c, err);
    if (rc < 0)
        free(c);
    replica_unref(r);
    return rc;
}

int engine_transfer(struct engine *e, uint64_t shard_id, uint64_t target, nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    struct control c = {.type = CONTROL_TRANSFER, .target = target, .request = {fn, ctx, REQUESTS_NO_DEADLINE}};

    return add(e, shard_id, &c, err);
}

int engine_campaign(struct engine *e, uint64_t shard_id, struct nh_error *err)
{
    return add(e, shard_id, &(struct control){.type = CONTROL_CAMPAIGN}, err);
}

int engine_forget_leader(struct engine *e, uint64_t shard_id, struct nh_error *err)
{
    return add(e, shard_id, &(struct control){.type = CONTROL_FORGET_LEADER}, err);
}

int engine_look_at_peers(struct engine *e, uint64_t shard_id, nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    struct control c = {.type = CONTROL_LOOK_AT_PEERS, .request = {fn, ctx, REQUESTS_NO_DEADLINE}};

    return add(e, shard_id, &c, err);
}

int engine_snapshot(struct engine *e, uint64_t shard_id, const char *export_dir, uint64_t overhead, nh_completion_fn fn,
                    void *ctx, struct nh_error *err)
{
    struct control c = {.type = CONTROL_SNAPSHOT,
                        .export_dir = xstrdup(export_dir),
                        .overhead = overhead,
                        .request = {fn, ctx, REQUESTS_NO_DEADLINE}};
    int r = add(e, shard_id, &c, err);

    if (r < 0)
        free(c.export_dir);
    return r;
}

/* ---- ends ---- */

static void end(struct control *c, const struct nh_outcome *outcome)
{
    if (c->request.fn)
        c->request.fn(c->request.ctx, outcome);
    free(c->export_dir);
    free(c);
}

static void end_with_code(struct control *c, int code)
{
    struct nh_outcome outcome = {.code = code};

    end(c, &outcome);
}

/* ---- to the core ---- */

static void transfer(struct step_worker *w, struct replica *r, struct control *c)
{
    struct raft_event ev = {.type = RAFT_EV_TRANSFER, .now = w->now_tick, .transfer = {c->target, ++r->next_transfer}};

    c->key = ev.transfer.key;
    queue_push(&r->transfers, &c->node); /* before the step: the core may end it in there */
    raft_step(r->raft, &ev, &w->update);
}

static void simple(struct step_worker *w, struct replica *r, struct control *c, enum raft_event_type type)
{
    struct raft_event ev = {.type = type, .now = w->now_tick};

    raft_step(r->raft, &ev, &w->update);
    end_with_code(c, NH_REQUEST_COMPLETED);
}

static void look_at_peers(struct replica *r, struct control *c)
{
    struct raft_peer_status peers[NH_MEMBERS_MAX];
    struct nh_peer_info infos[NH_MEMBERS_MAX];
    size_t n = raft_get_peers(r->raft, peers, NH_MEMBERS_MAX);
    struct nh_outcome outcome = {.code = NH_REQUEST_COMPLETED, .data = infos, .size_bytes = n * sizeof *infos};

    for (size_t i = 0; i < n; i++)
        infos[i] = (struct nh_peer_info){
            .replica_id = peers[i].replica_id,
            .kind = peers[i].kind,
            .state = (enum nh_peer_state)peers[i].state,
            .outgoing = peers[i].outgoing,
            .active = peers[i].active,
            .paused = peers[i].paused,
            .overloaded = peers[i].overloaded,
            .match_index = peers[i].match,
            .next_index = peers[i].next,
            .inflight_messages = peers[i].inflight_messages,
            .inflight_bytes = peers[i].inflight_bytes,
        };
    end(c, &outcome);
}

/* On to the apply worker, which ends it. */
static void snapshot(struct step_worker *w, struct replica *r, struct control *c)
{
    struct apply_item *item = apply_item_new(APPLY_SAVE, r);

    item->snapshot->request = c->request;
    item->snapshot->export_dir = c->export_dir;
    item->snapshot->overhead = c->overhead;
    free(c);
    step_worker_apply(w, r, item);
}

void controls_step(struct step_worker *w, struct replica *r)
{
    struct queue_node *node;

    while ((node = queue_pop(&r->controls))) {
        struct control *c = container_of(node, struct control, node);

        switch (c->type) {
        case CONTROL_TRANSFER: transfer(w, r, c); break;
        case CONTROL_CAMPAIGN: simple(w, r, c, RAFT_EV_CAMPAIGN); break;
        case CONTROL_FORGET_LEADER: simple(w, r, c, RAFT_EV_FORGET_LEADER); break;
        case CONTROL_LOOK_AT_PEERS: look_at_peers(r, c); break;
        case CONTROL_SNAPSHOT: snapshot(w, r, c); break;
        }
    }
}

/* ---- from the core ---- */

static const char *refusal_text(enum raft_transfer_reason reason)
{
    switch (reason) {
    case RAFT_TRANSFER_OK: break;
    case RAFT_TRANSFER_NO_LEADER: return "no leader is known here";
    case RAFT_TRANSFER_NO_VOTER: return "the target is not a voter of this shard that can lead";
    case RAFT_TRANSFER_REPLACED: return "another transfer took its place";
    case RAFT_TRANSFER_NOT_LEADER: return "who was asked for it leads no more";
    case RAFT_TRANSFER_LOST_TARGET: return "another replica leads now";
    }
    return "refused";
}

/* REJECTED says that this wish makes no sense; what passes by itself is DROPPED, to be tried again. */
static void set_refusal(struct nh_outcome *outcome, enum raft_transfer_reason reason)
{
    outcome->code = NH_REQUEST_REJECTED;
    if (reason == RAFT_TRANSFER_NO_LEADER || reason == RAFT_TRANSFER_NOT_LEADER) {
        outcome->code = NH_REQUEST_DROPPED;
        outcome->drop_reason = reason == RAFT_TRANSFER_NO_LEADER ? NH_DROP_NO_LEADER : NH_DROP_REFUSED;
    }
    outcome->data = refusal_text(reason);
    outcome->size_bytes = strlen(outcome->data);
}

static void end_transfer(struct control *c, const struct raft_transfer_end *how)
{
    struct nh_outcome outcome = {.code = NH_REQUEST_COMPLETED};

    if (how->code == RAFT_TRANSFER_TIMED_OUT)
        outcome.code = NH_REQUEST_TIMEOUT;
    if (how->code == RAFT_TRANSFER_REFUSED)
        set_refusal(&outcome, how->reason);
    end(c, &outcome);
}

void controls_obey(struct replica *r, const struct raft_update *out)
{
    for (size_t i = 0; i < out->transfers.n; i++) {
        struct queue kept = {0};
        struct queue_node *node;

        while ((node = queue_pop(&r->transfers))) {
            struct control *c = container_of(node, struct control, node);

            if (c->key == out->transfers.items[i].key)
                end_transfer(c, &out->transfers.items[i]);
            else
                queue_push(&kept, node);
        }
        r->transfers = kept;
    }
}

void controls_end(struct queue *controls, int code)
{
    struct queue_node *node;

    while ((node = queue_pop(controls)))
        end_with_code(container_of(node, struct control, node), code);
}

void controls_terminate(struct replica *r)
{
    controls_end(&r->transfers, NH_REQUEST_TERMINATED);
    controls_end(&r->controls, NH_REQUEST_TERMINATED);
}
