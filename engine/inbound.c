#include "engine/inbound.h"

#include <stdlib.h>
#include <string.h>

#include "engine/engine_private.h"
#include "engine/step_worker.h"
#include "raftio/codec.h"
#include "raftio/support/memory.h"

/* A block is asked for so many before its turn. */
#define LOOK_AHEAD 16u

/* What one worker gets of a batch. */
struct share {
    uint32_t n_messages, n_runs;
    uint64_t entry_bytes; /* of the first messages: so many that more would be too much anyway */
    struct inbound *inbound;
};

static bool is_readable_change(const uint8_t *record)
{
    struct nh_config_change change = {0};
    struct nh_entry_view e;

    nh_record_view(record, &e);
    if (e.type != NH_ENTRY_CONFIG_CHANGE)
        return true;
    if (config_change_decode(e.payload, e.payload_bytes, &change, NULL) < 0)
        return false;
    nh_config_change_deinit(&change);
    return true;
}

/* Forwarded by a host that is not as careful as ours: once committed, a change that cannot be understood would put all replicas
 * into quarantine. */
static bool are_readable_changes(const struct nh_message *m)
{
    for (uint32_t i = 0; i < m->n_runs; i++)
        for (uint32_t k = m->runs[i].from; k < m->runs[i].to; k++)
            if (!is_readable_change(m->runs[i].block->data + m->runs[i].block->offsets[k]))
                return false;
    return true;
}

/* The types that only a host may give to its own replicas never come from outside, and a snapshot with data not without it. */
static bool is_acceptable(const struct nh_message *m)
{
    if (m->type == NH_MSG_INSTALL_SNAPSHOT)
        return m->snapshot && m->snapshot->witness;
    if (m->type == NH_MSG_PROPOSE)
        return are_readable_changes(m);
    return !nh_message_type_is_local(m->type);
}

static uint32_t worker_index(struct engine *e, uint64_t shard_id)
{
    return (uint32_t)(hash_u64(shard_id) % e->config.n_step_workers);
}

static struct inbound *inbound_new(const struct share *share, const char *source)
{
    size_t messages = share->n_messages * sizeof(struct inbound_message);
    size_t size_bytes = sizeof(struct inbound) + messages + share->n_runs * sizeof(struct nh_run);
    struct inbound *in = xmalloc(size_bytes);

    memset(in, 0, sizeof *in);
    in->item.type = STEP_INBOUND;
    in->size_bytes = size_bytes;
    if (source)
        strncpy(in->source, source, sizeof in->source - 1);
    in->messages = (struct inbound_message *)(in + 1);
    in->runs = (struct nh_run *)(void *)((char *)(in + 1) + messages);
    return in;
}

static void add(struct inbound *in, const struct nh_message *m)
{
    struct inbound_message *to = &in->messages[in->n++];
    struct nh_run *runs = in->runs + in->n_runs;

    to->inbound = in;
    to->message = *m;
    if (m->snapshot) {
        to->message.snapshot = xcalloc(1, sizeof *m->snapshot);
        nh_snapshot_copy(to->message.snapshot, m->snapshot);
    }
    to->message.runs = runs;
    in->n_runs += m->n_runs;
    for (uint32_t i = 0; i < m->n_runs; i++) {
        runs[i] = m->runs[i];
        nh_block_ref(runs[i].block);
        in->size_bytes += nh_run_size(&runs[i]);
    }
}

static void post_share(struct engine *e, struct step_worker *w, const struct share *s)
{
    if (!step_worker_make_room(w, s->inbound->size_bytes)) {
        __atomic_add_fetch(&e->ignored, s->inbound->n, __ATOMIC_RELAXED);
        inbound_free(s->inbound);
    } else if (NH_HAS(e->transport_ops, calls_on_drained)) {
        step_worker_post_quietly(w, &s->inbound->item, s->n_messages * (uint64_t)STEP_IN_MESSAGE_COST + s->entry_bytes);
    } else {
        step_worker_post(w, &s->inbound->item);
    }
}

static void count(struct share *s, const struct nh_message *m)
{
    s->n_messages++;
    s->n_runs += m->n_runs;
    if (s->n_messages <= STEP_IN_COST_MAX / STEP_IN_MESSAGE_COST)
        s->entry_bytes += runs_bytes(m->runs, m->n_runs);
}

void inbound_post(struct engine *e, const struct nh_message_batch *batch)
{
    struct share shares[ENGINE_WORKERS_MAX] = {0};
    uint64_t ignored = 0;

    for (uint32_t i = 0; i < batch->n_messages; i++) /* room for those that will be ignored does no harm */
        count(&shares[worker_index(e, batch->messages[i].shard_id)], &batch->messages[i]);
    for (uint32_t i = 0; i < batch->n_messages; i++) {
        struct share *s = &shares[worker_index(e, batch->messages[i].shard_id)];

        if (!is_acceptable(&batch->messages[i])) {
            ignored++;
            continue;
        }
        if (!s->inbound)
            s->inbound = inbound_new(s, batch->source_address);
        add(s->inbound, &batch->messages[i]);
    }
    for (uint32_t i = 0; i < e->config.n_step_workers; i++)
        if (shares[i].inbound)
            post_share(e, e->step_workers[i], &shares[i]);
    if (ignored)
        __atomic_add_fetch(&e->ignored, ignored, __ATOMIC_RELAXED);
}

void inbound_drained(struct engine *e)
{
    struct step_worker *last = NULL;
    uint64_t cost_of_last = 0;

    for (uint32_t i = 0; i < e->config.n_step_workers; i++) {
        uint64_t cost = step_worker_take_quiet(e->step_workers[i]);

        if (cost == 0)
            continue;
        if (last)
            step_worker_wake(last);
        last = e->step_workers[i];
        cost_of_last = cost;
    }
    if (last)
        step_worker_step_in(last, cost_of_last);
}

void inbound_free(struct inbound *in)
{
    for (uint32_t i = 0; i < in->n_runs; i++) {
        if (i + LOOK_AHEAD < in->n_runs) /* thousands were touched since */
            prefetch(in->runs[i + LOOK_AHEAD].block, 1);
        nh_block_unref(in->runs[i].block);
    }
    for (uint32_t i = 0; i < in->n; i++) {
        if (in->messages[i].message.snapshot)
            nh_snapshot_deinit(in->messages[i].message.snapshot);
        free(in->messages[i].message.snapshot);
    }
    free(in);
}
