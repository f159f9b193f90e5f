#include "engine/apply_worker.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "engine/apply_inline.h"
#include "engine/apply_reads.h"
#include "engine/engine_private.h"
#include "engine/snapshots.h"
#include "engine/step_worker.h"
#include "raftio/support/counter.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

/* Read from the log store at once when a log is replayed. */
#define REPLAY_BYTES (4u << 20)
/* If a step worker took longer than this to do its part, it does not for a hundred times as long, at most this long. */
#define HELP_NS_MAX    500000u
#define HELP_NS_PAUSED 10000000000u

/* ---- items ---- */

static bool is_about_snapshots(enum apply_item_type type)
{
    return type == APPLY_SAVE || type == APPLY_RECOVER || type == APPLY_STREAM || type == APPLY_RETURNED;
}

struct apply_item *apply_item_new(enum apply_item_type type, struct replica *r)
{
    struct apply_item *item = xcalloc(1, sizeof *item);

    item->type = type;
    item->replica = r;
    if (is_about_snapshots(type))
        item->snapshot = xcalloc(1, sizeof *item->snapshot);
    return item;
}

static struct apply_item *spare_item(struct apply_worker *w, const struct step_worker *step)
{
    struct queue *spares = &w->spares[step->worker_id - 1].items;

    if (queue_empty(spares))
        mailbox_take(&w->used, spares);
    if (queue_empty(spares))
        return xmalloc(sizeof(struct apply_item) + APPLY_SPARE_RUNS * sizeof(struct nh_run));
    return container_of(queue_pop(spares), struct apply_item, node);
}

struct apply_item *apply_entries_new(struct replica *r, uint64_t first, uint64_t last, struct run_list *runs)
{
    struct apply_item *item =
        runs->n <= APPLY_SPARE_RUNS ? spare_item(r->apply, r->step) : xmalloc(sizeof *item + runs->n * sizeof *runs->runs);

    *item = (struct apply_item){.type = APPLY_ENTRIES, .replica = r, .first = first, .last = last, .n_runs = runs->n};
    for (uint32_t i = 0; i < runs->n; i++)
        item->runs[i] = runs->runs[i];
    runs->n = 0;
    return item;
}

static void apply_snapshot_free(struct apply_snapshot *s)
{
    if (!s)
        return;
    if (s->record)
        nh_snapshot_deinit(s->record);
    free(s->record);
    if (s->install)
        nh_message_deinit(s->install);
    free(s->install);
    free(s->export_dir);
    free(s->failure);
    free(s->text);
    free(s);
}

static void end_item(struct apply_worker *w, struct apply_item *item)
{
    for (uint32_t i = 0; i < item->n_runs; i++)
        nh_block_unref(item->runs[i].block);
    if (item->type == APPLY_ENTRIES && item->n_runs <= APPLY_SPARE_RUNS) {
        queue_push(&w->done, &item->node);
        return;
    }
    apply_snapshot_free(item->snapshot);
    free(item);
}

/* ---- life ---- */

struct apply_worker *apply_worker_new(struct engine *e)
{
    struct apply_worker *w = xcalloc(1, sizeof *w);

    w->engine = e;
    mailbox_init(&w->mailbox);
    mailbox_init(&w->used);
    w->spares = xcalloc(e->config.n_step_workers, sizeof *w->spares);
    w->batch = rsm_batch_new();
    return w;
}

static void free_items(struct queue *items)
{
    struct queue_node *node;

    while ((node = queue_pop(items)))
        free(container_of(node, struct apply_item, node));
}

void apply_worker_free(struct apply_worker *w)
{
    struct queue used = {0};

    if (!w)
        return;
    assert(mailbox_empty(&w->mailbox));
    w->engine->config.runtime->ops->task_free(w->task);
    mailbox_take(&w->used, &used);
    free_items(&used);
    for (uint32_t i = 0; i < w->engine->config.n_step_workers; i++)
        free_items(&w->spares[i].items);
    free(w->spares);
    mailbox_deinit(&w->used);
    mailbox_deinit(&w->mailbox);
    rsm_batch_free(w->batch);
    free(w);
}

void apply_worker_start(struct apply_worker *w)
{
    struct runtime *rt = w->engine->config.runtime;

    w->task = rt->ops->task_start(rt, "nh-apply", apply_worker_poll, w);
}

void apply_worker_stop(struct apply_worker *w)
{
    w->engine->config.runtime->ops->task_stop(w->task);
}

void apply_worker_post_all(struct apply_worker *w, struct queue *items)
{
    if (mailbox_post_all(&w->mailbox, items) == MAILBOX_WAKE)
        w->engine->config.runtime->ops->task_wake(w->task);
}

void apply_worker_post(struct apply_worker *w, struct apply_item *item)
{
    struct queue items = {0};

    queue_push(&items, &item->node);
    apply_worker_post_all(w, &items);
}

static struct nh_replica_info info_of(const struct replica *r)
{
    return (struct nh_replica_info){r->shard_id, r->replica_id};
}

/* ---- results ---- */

#define ENDING_MAX 64u

/* Takes the requests that these results belong to, under one lock, and ends them outside of it. */
static void end_results(struct replica *r, const struct rsm_result *results, size_t n)
{
    struct request requests[ENDING_MAX];
    bool found[ENDING_MAX];

    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < n; i++)
        found[i] = request_ring_take(&r->ring, results[i].key, &requests[i]);
    pthread_mutex_unlock(&r->lock);
    for (size_t i = 0; i < n; i++) {
        const struct rsm_result *result = &results[i];
        struct nh_outcome outcome = {
            .code = result->rejected ? NH_REQUEST_REJECTED : NH_REQUEST_COMPLETED,
            .index = result->index,
            .status = result->status,
            .value = result->value.value,
            .data = result->value.data,
            .size_bytes = result->value.size_bytes,
        };

        if (found[i])
            requests[i].fn(requests[i].ctx, &outcome);
    }
}

struct applying {
    struct replica *replica;
    struct queue changes; /* struct membership_change */
};

static void on_results(void *ctx, const struct rsm_result *results, size_t n)
{
    struct applying *a = ctx;

    for (size_t at = 0; at < n; at += ENDING_MAX)
        end_results(a->replica, results + at, n - at < ENDING_MAX ? n - at : ENDING_MAX);
}

static void on_membership(void *ctx, uint64_t index, const struct nh_membership *membership)
{
    struct applying *a = ctx;
    struct engine *e = a->replica->engine;
    struct membership_change *c = xcalloc(1, sizeof *c);

    c->index = index;
    c->accepted = membership != NULL;
    if (membership) {
        nh_membership_copy(&c->membership, membership);
        e->config.events.membership_changed(e->config.events.ctx, info_of(a->replica));
    }
    queue_push(&a->changes, &c->node);
}

/* ---- applying ---- */

struct replay {
    struct rsm *rsm;
    const struct rsm_sink *sink;
};

static int replay_records(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct replay *replay = ctx;
    struct run_list runs = {0};
    int r = run_list_decode(&runs, records, size_bytes, rsm_applied(replay->rsm) + 1, err);

    if (r == NH_OK)
        r = rsm_apply(replay->rsm, runs.runs, runs.n, replay->sink, err);
    run_list_deinit(&runs);
    return r;
}

/* Applies from the log store up to `last`. */
static int replay(struct replica *r, uint64_t last, const struct rsm_sink *sink, struct nh_error *err)
{
    const struct engine_config *c = &r->engine->config;
    struct replay replay = {r->rsm, sink};
    struct nh_entry_sink entries = {.add = replay_records, .ctx = &replay};

    while (rsm_applied(r->rsm) < last) {
        uint64_t before = rsm_applied(r->rsm);
        int rc = c->logdb_ops->iterate_entries(c->logdb, r->shard_id, r->replica_id, before + 1, last + 1, REPLAY_BYTES, &entries,
                                               err);

        rc = plugin_status(rc, "iterate_entries", err);
        if (rc < 0)
            return nh_error_wrap(err, rc, "read entry %" PRIu64, rsm_applied(r->rsm) + 1);
        if (rsm_applied(r->rsm) == before)
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " is missing in the log store", before + 1);
    }
    return NH_OK;
}

void apply_worker_announce(struct replica *r)
{
    struct engine *e = r->engine;

    if (r->announced || rsm_applied(r->rsm) < r->boot_commit)
        return;
    r->announced = true;
    pthread_mutex_lock(&r->lock);
    r->status.ready = true;
    pthread_mutex_unlock(&r->lock);
    e->config.events.replica_ready(e->config.events.ctx, info_of(r));
}

void apply_worker_fail(struct replica *r, const char *reason)
{
    struct queue none = {0};

    replica_post_applied(r, rsm_applied(r->rsm), &none, reason);
}

static void fail(struct replica *r, struct queue *changes, const struct nh_error *err)
{
    replica_post_applied(r, rsm_applied(r->rsm), changes, err->text);
}

/* A received snapshot, whose recovery is on its way here, has replaced the log they come from. */
static bool gave_way(const struct replica *r, const struct apply_item *item)
{
    return item->last <= __atomic_load_n(&r->installing, __ATOMIC_ACQUIRE);
}

static int apply_item(struct replica *r, const struct apply_item *item, const struct rsm_sink *sink, struct nh_error *err)
{
    if (item->first > rsm_applied(r->rsm) + 1 && gave_way(r, item))
        return NH_ECOMPACTED; /* they are here, but what lies before them was to be read back and is gone */
    return item->n_runs > 0 ? rsm_apply(r->rsm, item->runs, item->n_runs, sink, err) : replay(r, item->last, sink, err);
}

static void apply_entries(struct apply_worker *w, struct apply_item *item)
{
    struct replica *r = item->replica;
    struct applying applying = {.replica = r};
    struct rsm_sink sink = {&applying, w->batch, on_results, on_membership};
    uint64_t before = rsm_applied(r->rsm);
    struct nh_error err;
    int rc = apply_item(r, item, &sink, &err);

    counter_add(&w->entries_applied, rsm_applied(r->rsm) - before);
    counter_add(&w->apply_calls, 1);
    if (rc == NH_ECOMPACTED && gave_way(r, item)) {
        replica_post_applied(r, rsm_applied(r->rsm), &applying.changes, NULL);
        return;
    }
    if (rc < 0) {
        rsm_give_up(r->rsm); /* reads behind these entries are not to be answered from before them */
        fail(r, &applying.changes, &err);
        return;
    }
    replica_post_applied(r, item->last, &applying.changes, NULL);
    apply_worker_announce(r);
    snapshots_applied(r, runs_bytes(item->runs, item->n_runs));
}

static void open_machine(struct replica *r)
{
    struct snapshot_note note = {.type = NOTE_OPENED};
    struct nh_error err;

    if (rsm_open(r->rsm, &err) < 0) {
        apply_worker_fail(r, err.text);
        return;
    }
    note.opened_at = rsm_machine_index(r->rsm);
    if (note.opened_at > r->boot_commit)
        replica_post_note(r, &note);
    snapshots_opened(r);
    apply_worker_announce(r);
}

static void close_machine(struct replica *r)
{
    struct engine *e = r->engine;

    rsm_close(r->rsm);
    replica_terminate(r, NH_ECLOSED);
    engine_forget(e, r);
    e->config.events.replica_unloaded(e->config.events.ctx, info_of(r));
    replica_unref(r);
}

/* ---- the poll function ---- */

static void perform(struct apply_worker *w, struct apply_item *item)
{
    struct replica *r = item->replica;

    switch (item->type) {
    case APPLY_OPEN: open_machine(r); break;
    case APPLY_ENTRIES: apply_entries(w, item); break;
    case APPLY_READS:
        if (!apply_reads_must_wait(r, item->reads))
            apply_reads_answer(w, r, item->reads);
        break;
    case APPLY_SAVE: snapshots_save(r, item); break;
    case APPLY_RECOVER: snapshots_recover(r, item); break;
    case APPLY_STREAM: snapshots_stream(r, item); break;
    case APPLY_RETURNED:
        snapshots_returned(r, item);
        if (item->snapshot->recovered || item->snapshot->failure)
            apply_reads_answer_waiting(w, r);
        break;
    case APPLY_STREAM_ENDED: r->n_streams--; break;
    case APPLY_CLOSE:
        apply_reads_free_waiting(r);
        close_machine(r);
        break;
    }
    end_item(w, item);
}

/* What waited, as far as it need not wait on. A close is the last. */
static void unpark(struct apply_worker *w, struct replica *r)
{
    while (!queue_empty(&r->parked)) {
        struct apply_item *item = container_of(r->parked.first, struct apply_item, node);
        bool last = item->type == APPLY_CLOSE;

        if (snapshots_hold(r, item))
            return;
        queue_pop(&r->parked);
        perform(w, item);
        if (last)
            return;
    }
}

static bool must_park(struct replica *r, const struct apply_item *item)
{
    if (queue_empty(&r->parked))
        return snapshots_hold(r, item);
    snapshots_hurry(r, item);
    return true;
}

static void take(struct apply_worker *w, struct apply_item *item)
{
    bool is_news = item->type == APPLY_RETURNED || item->type == APPLY_STREAM_ENDED;
    struct replica *r = item->replica;

    if (!is_news && must_park(r, item)) {
        queue_push(&r->parked, &item->node);
        return;
    }
    if (!is_news) {
        perform(w, item);
        return;
    }
    perform(w, item);
    unpark(w, r);
    replica_unref(r); /* the item's */
}

/* As in a step worker's pass: with thousands of shards each item, its replica and what these point to have left the processor's
 * cache, and are asked for while the items before it are done. */
#define PREFETCH_ITEMS         4u
#define PREFETCH_RECORDS_BYTES 512u

static void prefetch_item(const struct apply_item *item, unsigned items_ahead)
{
    const struct nh_run *run = &item->runs[0]; /* if there is one */

    switch (items_ahead) {
    case PREFETCH_ITEMS: prefetch(item, sizeof *item + sizeof *run); break;
    case 3:
        replica_prefetch_apply(item->replica);
        if (item->n_runs)
            prefetch(run->block, sizeof *run->block);
        break;
    case 2:
        rsm_prefetch(item->replica->rsm);
        request_ring_prefetch_first(&item->replica->ring);
        if (item->n_runs)
            prefetch(run->block->offsets, 1);
        break;
    default:
        rsm_prefetch_machine(item->replica->rsm);
        if (item->n_runs)
            prefetch(nh_run_data(run), nh_run_size(run) < PREFETCH_RECORDS_BYTES ? nh_run_size(run) : PREFETCH_RECORDS_BYTES);
        break;
    }
}

static void prefetch_next(const struct queue_node *next)
{
    for (unsigned ahead = 1; ahead <= PREFETCH_ITEMS && next; ahead++) {
        prefetch_item(container_of(next, struct apply_item, node), ahead);
        if (ahead < PREFETCH_ITEMS) /* the last one is not there yet */
            next = next->next;
    }
}

static bool take_place(struct apply_worker *w)
{
    return !__atomic_exchange_n(&w->taken, true, __ATOMIC_ACQUIRE);
}

static void leave_place(struct apply_worker *w)
{
    if (!queue_empty(&w->done))
        mailbox_post_all(&w->used, &w->done);
    __atomic_store_n(&w->taken, false, __ATOMIC_RELEASE);
}

uint64_t apply_worker_poll(void *arg)
{
    struct apply_worker *w = arg;
    struct queue items = {0};
    struct queue_node *node;

    if (!take_place(w))
        return TASK_POLL_NEVER; /* it is woken again */
    mailbox_take(&w->mailbox, &items);
    while ((node = queue_pop(&items))) {
        prefetch_next(items.first);
        take(w, container_of(node, struct apply_item, node));
    }
    leave_place(w);
    return TASK_POLL_NEVER;
}

/* ---- in its place ---- */

static bool is_short(const struct queue *items)
{
    uint32_t n = 0;

    for (const struct queue_node *node = items->first; node; node = node->next)
        if (++n > APPLY_INLINE_MAX)
            return false;
    return true;
}

/* From the first on, as far as it is allowed. */
static void help(struct apply_worker *w, struct queue *items)
{
    uint64_t begin_ns = engine_now_ns(w->engine), took_ns;
    struct apply_inline all = {0};

    if (begin_ns < w->no_help_until_ns || !mailbox_empty(&w->mailbox))
        return;
    while (items->first && apply_inline_begin(&all, container_of(items->first, struct apply_item, node)))
        perform(w, container_of(queue_pop(items), struct apply_item, node));
    took_ns = engine_now_ns(w->engine) - begin_ns;
    if (took_ns > HELP_NS_MAX)
        w->no_help_until_ns = begin_ns + took_ns + (took_ns < HELP_NS_PAUSED / 100 ? 100 * took_ns : HELP_NS_PAUSED);
}

void apply_worker_do_all(struct apply_worker *w, struct queue *items)
{
    if (w->engine->config.inline_applies && is_short(items) && take_place(w)) {
        help(w, items);
        leave_place(w);
        if (!mailbox_empty(&w->mailbox)) /* its poll may have found the place taken */
            w->engine->config.runtime->ops->task_wake(w->task);
    }
    if (!queue_empty(items))
        apply_worker_post_all(w, items);
}

void apply_worker_drain(struct apply_worker *w)
{
    while (!mailbox_empty(&w->mailbox))
        apply_worker_poll(w);
}
