#include "engine/drive_events.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/controls.h"
#include "engine/engine_private.h"
#include "engine/inbound.h"
#include "engine/peers.h"
#include "engine/reads.h"
#include "engine/snapshots.h"
#include "engine/trace.h"
#include "raftio/support/memory.h"

/* Payload of one forwarded Propose message, unless a single proposal is larger. */
#define FORWARD_BYTES_MAX (1u << 20)

static void step(struct step_worker *w, struct replica *r, struct raft_event *ev)
{
    ev->now = w->now_tick;
    raft_step(r->raft, ev, &w->update);
}

static void step_changes(struct step_worker *w, struct replica *r, struct queue *changes)
{
    struct queue_node *node;

    while ((node = queue_pop(changes))) {
        struct membership_change *c = container_of(node, struct membership_change, node);

        if (c->accepted)
            peers_register(w, r, &c->membership);
        step(w, r,
             &(struct raft_event){.type = RAFT_EV_MEMBERSHIP, .membership = {c->index, c->accepted ? &c->membership : NULL}});
        nh_membership_deinit(&c->membership);
        free(c);
    }
}

/* A later answer of the same peer says all that the one before did. */
bool drive_keep_answer(struct replica *r, const struct nh_message *m)
{
    struct kept_answers *k;
    size_t at = 0;

    if (!raft_may_wait(&r->patience, m))
        return false;
    if (!r->kept)
        r->kept = xcalloc(1, sizeof *r->kept);
    k = r->kept;
    while (at < k->n && k->items[at].from != m->from)
        at++;
    if (at == KEPT_ANSWERS_MAX)
        return false;
    if (at == k->n) {
        k->items[k->n++].from = m->from;
        k->items[at].index = k->items[at].commit = 0;
    }
    if (m->log_index > k->items[at].index)
        k->items[at].index = m->log_index;
    if (m->commit > k->items[at].commit)
        k->items[at].commit = m->commit;
    return true;
}

/* They are of the term of the last turn, and came before all that this one is for. */
static void step_kept(struct step_worker *w, struct replica *r)
{
    struct kept_answers *k = r->kept;

    for (size_t i = 0; i < k->n; i++) {
        struct nh_message m = {.type = NH_MSG_REPLICATE_RESP,
                               .shard_id = r->shard_id,
                               .to = r->replica_id,
                               .from = k->items[i].from,
                               .term = r->patience.term,
                               .log_index = k->items[i].index,
                               .commit = k->items[i].commit};

        if (trace_is_on())
            trace_message(r->shard_id, &m);
        step(w, r, &(struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m});
    }
    k->n = 0;
}

static void step_messages(struct step_worker *w, struct replica *r)
{
    struct queue_node *node;

    while ((node = queue_pop(&r->inbound))) {
        struct inbound_message *m = container_of(node, struct inbound_message, node);

        peers_learn(w, r, m);
        if (trace_is_on())
            trace_message(r->shard_id, &m->message);
        if (m->message.type == NH_MSG_SNAPSHOT_RECEIVED)
            snapshots_answer(w, &m->message);
        else
            step(w, r, &(struct raft_event){.type = RAFT_EV_MESSAGE, .message = &m->message});
    }
}

static void step_unreachable(struct step_worker *w, struct replica *r)
{
    for (size_t i = 0; i < r->n_unreachable; i++)
        step(w, r, &(struct raft_event){.type = RAFT_EV_UNREACHABLE, .peer = r->unreachable[i]});
    r->n_unreachable = 0;
}

static void step_records(struct step_worker *w, struct replica *r, struct block_builder *records, uint64_t first_key)
{
    step(w, r, &(struct raft_event){.type = RAFT_EV_PROPOSE, .propose = {records, first_key, records->n}});
}

static bool is_config_change(const struct block_builder *b, uint32_t i)
{
    return nh_record_type(b->data + b->offsets[i]) == NH_ENTRY_CONFIG_CHANGE;
}

/* The end of a part that begins at `from`: of bounded size, and a configuration change stands alone. */
static uint32_t part_end(const struct block_builder *b, uint32_t from, uint32_t to)
{
    uint32_t end = from + 1;

    if (is_config_change(b, from))
        return end;
    while (end < to && b->offsets[end + 1] - b->offsets[from] <= FORWARD_BYTES_MAX && !is_config_change(b, end))
        end++;
    return end;
}

/* Proposals [from, to) of the inbox in parts. */
static void propose_range(struct step_worker *w, struct replica *r, const struct inbox *in, uint32_t from, uint32_t to)
{
    const struct block_builder *b = &in->proposals;

    while (from < to) {
        struct block_builder part = {0};
        uint32_t end = part_end(b, from, to);
        int rc;

        rc = block_builder_add_encoded(&part, b->data + b->offsets[from], b->offsets[end] - b->offsets[from], NULL);
        assert(rc == NH_OK); /* they are our own records */
        (void)rc;
        step_records(w, r, &part, in->first_key + from);
        block_builder_deinit(&part);
        from = end;
    }
}

static void step_proposals(struct step_worker *w, struct replica *r, struct inbox *in)
{
    uint64_t key = in->first_key, end = in->first_key + in->proposals.n, range_end;
    bool whole = r->leader_id == r->replica_id || in->proposals.size_bytes <= FORWARD_BYTES_MAX;

    if (whole && !in->has_expired && !in->has_special) {
        step_records(w, r, &in->proposals, in->first_key);
    } else if (!in->has_expired) {
        propose_range(w, r, in, 0, in->proposals.n);
    } else {
        for (; (range_end = replica_pending_range(r, &key, end)) != 0; key = range_end)
            propose_range(w, r, in, (uint32_t)(key - in->first_key), (uint32_t)(range_end - in->first_key));
    }
    replica_reuse_proposals(r, in);
}

void drive_events(struct step_worker *w, struct replica *r, struct inbox *in)
{
    if (r->saved_id > r->told_saved_id) {
        r->told_saved_id = r->saved_id;
        step(w, r, &(struct raft_event){.type = RAFT_EV_SAVED, .saved = r->saved_id});
    }
    step_changes(w, r, &in->changes);
    if (in->applied > r->told_applied) {
        r->told_applied = in->applied;
        step(w, r, &(struct raft_event){.type = RAFT_EV_APPLIED, .applied = in->applied});
    }
    if (!queue_empty(&in->notes))
        snapshots_step(w, r, &in->notes);
    if (r->kept && r->kept->n > 0)
        step_kept(w, r);
    step_messages(w, r);
    step_unreachable(w, r);
    if (r->wake) {
        r->wake = false;
        step(w, r, &(struct raft_event){.type = RAFT_EV_WAKE});
    }
    if (!queue_empty(&r->controls))
        controls_step(w, r);
    if (in->proposals.n > 0)
        step_proposals(w, r, in);
    if (!list_empty(&r->reads_waiting))
        reads_send(w, r);
    if (raft_next_deadline(r->raft) <= w->now_tick)
        step(w, r, &(struct raft_event){.type = RAFT_EV_TICK});
}
