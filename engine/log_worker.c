#include "engine/log_worker.h"

#include <stdlib.h>

#include "engine/engine_private.h"
#include "engine/step_worker.h"
#include "raftio/support/memory.h"

struct log_worker *log_worker_new(struct step_worker *step)
{
    struct log_worker *w = xcalloc(1, sizeof *w);

    w->step = step;
    mailbox_init(&w->mailbox);
    return w;
}

void log_worker_free(struct log_worker *w)
{
    if (!w)
        return;
    w->step->engine->config.runtime->ops->task_free(w->task);
    mailbox_deinit(&w->mailbox);
    free(w);
}

static uint64_t poll(void *arg)
{
    struct log_worker *w = arg;
    const struct engine_config *c = &w->step->engine->config;
    struct queue batches = {0};
    struct queue_node *node;

    mailbox_take(&w->mailbox, &batches);
    while ((node = queue_pop(&batches))) {
        struct save_batch *b = container_of(node, struct save_batch, node);

        save_batch_write(b, c->logdb_ops, c->logdb, w->step->worker_id);
        step_worker_saved(w->step, b);
    }
    return TASK_POLL_NEVER;
}

void log_worker_start(struct log_worker *w)
{
    struct runtime *rt = w->step->engine->config.runtime;

    w->task = rt->ops->task_start(rt, "nh-log", poll, w);
}

void log_worker_stop(struct log_worker *w)
{
    w->step->engine->config.runtime->ops->task_stop(w->task);
    poll(w);
}

void log_worker_post(struct log_worker *w, struct save_batch *batch)
{
    if (mailbox_post(&w->mailbox, &batch->node) == MAILBOX_WAKE)
        w->step->engine->config.runtime->ops->task_wake(w->task);
}
