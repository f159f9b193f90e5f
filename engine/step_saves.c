#include "engine/step_saves.h"

#include <assert.h>

#include "engine/drive.h"
#include "engine/engine_private.h"
#include "engine/peers.h"
#include "engine/snapshots.h"
#include "raftio/support/counter.h"
#include "raftio/support/plugin_status.h"

/* What was saved for thousands of replicas has left the processor's cache, and is asked for so many before its turn. */
#define LOOK_AHEAD 16u

static void release_after(struct step_worker *w, struct save_batch *b)
{
    for (size_t i = 0; i < b->after.n; i++) {
        struct replica *r = b->saves[b->after_saves[i]].replica;

        if (i + LOOK_AHEAD < b->after.n)
            replica_prefetch_queue(b->saves[b->after_saves[i + LOOK_AHEAD]].replica);
        if (b->result == NH_OK && r->state <= REPLICA_RUNNING)
            peers_send(w, r, &b->after.items[i]);
        else
            nh_message_deinit(&b->after.items[i]);
    }
    b->after.n = 0; /* they have moved, or are no more */
}

static void finish_save(struct step_worker *w, struct save_batch *b, size_t at)
{
    struct save *s = &b->saves[at];
    struct replica *r = s->replica;

    if (r->last_batch == b && r->last_save == at)
        r->last_batch = NULL;
    r->n_saves--;
    if (b->result == NH_OK && r->state <= REPLICA_RUNNING) {
        if (s->save_id > r->saved_id)
            r->saved_id = s->save_id;
        if (s->snapshot)
            snapshots_installed(w, r, s->snapshot);
        if (r->state == REPLICA_STARTING)
            drive_start(w, r);
        if (r->awaits_saved)
            step_worker_activate(w, r);
    }
    if (r->state == REPLICA_STOPPING)
        drive_finish_stop(w, r);
}

/* What they would save next stands on what was not saved. */
static void quarantine_failed(struct step_worker *w, const struct save_batch *b)
{
    for (size_t i = 0; i < b->n && b->has_failures; i++) {
        struct replica *r = b->saves[i].replica;

        if (!b->saves[i].failure)
            continue;
        save_batch_leave_out(w->open, r, b->saves[i].failure);
        if (r->state <= REPLICA_RUNNING)
            drive_quarantine(w, r, b->saves[i].failure);
    }
}

static void finish_batch(struct step_worker *w, struct save_batch *b)
{
    assert(b == w->in_flight);
    w->in_flight = NULL;
    quarantine_failed(w, b);
    release_after(w, b);
    for (size_t i = 0; i < b->n; i++) {
        if (i + LOOK_AHEAD < b->n)
            replica_prefetch_queue(b->saves[i + LOOK_AHEAD].replica);
        finish_save(w, b, i);
    }
    counter_add(&w->saves, 1);
    counter_add(&w->saved_updates, b->n);
    counter_add(&w->saved_entries, save_batch_entries(b));
    counter_add(&w->synced_saves, b->must_sync);
    if (b->result < 0)
        engine_fence(w->engine, plugin_reason(&b->err, b->result));
    save_batch_clear(b);
    w->spare = b;
}

void step_saves_take_done(struct step_worker *w)
{
    struct queue done = {0};
    struct queue_node *node;

    mailbox_take(&w->saved, &done);
    while ((node = queue_pop(&done)))
        finish_batch(w, container_of(node, struct save_batch, node));
}

void step_saves_begin(struct step_worker *w)
{
    const struct engine_config *c = &w->engine->config;

    if (w->open->n == 0 || w->in_flight || w->fenced)
        return;
    w->in_flight = w->open;
    w->open = w->spare;
    w->spare = NULL;
    if (w->log)
        log_worker_post(w->log, w->in_flight);
    else
        save_batch_begin(w->in_flight, c->logdb_ops, c->logdb, w->worker_id);
}

void step_saves_end(struct step_worker *w)
{
    const struct engine_config *c = &w->engine->config;

    if (!w->in_flight || w->log)
        return;
    save_batch_write(w->in_flight, c->logdb_ops, c->logdb, w->worker_id);
    step_worker_saved(w, w->in_flight);
}

void step_saves_drop_open(struct step_worker *w)
{
    for (size_t i = 0; i < w->open->n; i++) {
        struct replica *r = w->open->saves[i].replica;

        if (r->last_batch == w->open)
            r->last_batch = NULL;
        r->n_saves--;
        if (r->state == REPLICA_STOPPING)
            drive_finish_stop(w, r);
    }
    save_batch_clear(w->open);
}
