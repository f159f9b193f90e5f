#include "engine/step_worker.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/apply_worker.h"
#include "engine/drive.h"
#include "engine/drive_events.h"
#include "engine/engine_private.h"
#include "engine/inbound.h"
#include "engine/peers.h"
#include "engine/step_saves.h"
#include "raftio/support/counter.h"
#include "raftio/support/memory.h"

#define NS_PER_MS 1000000u

/* ---- life ---- */

struct step_worker *step_worker_new(struct engine *e, uint32_t worker_id)
{
    struct step_worker *w = xcalloc(1, sizeof *w);

    w->engine = e;
    w->worker_id = worker_id;
    mailbox_init(&w->mailbox);
    mailbox_init(&w->saved);
    list_init(&w->active);
    list_init(&w->again);
    wheel_init(&w->wheel, engine_now_ns(e) / NS_PER_MS);
    outbox_init(&w->outbox, &e->liveness, e->config.deployment_id, e->address);
    w->open = save_batch_new();
    w->spare = save_batch_new();
    w->to_apply = xcalloc(e->config.n_apply_workers, sizeof *w->to_apply);
    w->log = e->config.inline_saves ? NULL : log_worker_new(w);
    return w;
}

void step_worker_free(struct step_worker *w)
{
    if (!w)
        return;
    assert(w->replicas.n == 0 && !w->in_flight);
    w->engine->config.runtime->ops->task_free(w->task);
    log_worker_free(w->log);
    save_batch_free(w->open);
    save_batch_free(w->spare);
    raft_update_deinit(&w->update);
    map_deinit(&w->replicas);
    mailbox_deinit(&w->mailbox);
    mailbox_deinit(&w->saved);
    free(w->to_apply);
    free(w);
}

void step_worker_start(struct step_worker *w)
{
    struct runtime *rt = w->engine->config.runtime;

    w->outbox.ops = w->engine->transport_ops;
    w->outbox.transport = w->engine->transport;
    w->task = rt->ops->task_start(rt, "nh-step", step_worker_poll, w);
    if (w->log)
        log_worker_start(w->log);
}

void step_worker_stop(struct step_worker *w)
{
    w->engine->config.runtime->ops->task_stop(w->task);
    if (w->log)
        log_worker_stop(w->log);
}

/* ---- posting ---- */

void step_worker_wake(struct step_worker *w)
{
    w->engine->config.runtime->ops->task_wake(w->task);
}

void step_worker_post(struct step_worker *w, struct step_item *item)
{
    if (mailbox_post(&w->mailbox, &item->node) == MAILBOX_WAKE)
        step_worker_wake(w);
}

bool step_worker_make_room(struct step_worker *w, size_t size_bytes)
{
    size_t before = __atomic_fetch_add(&w->inbound_bytes, size_bytes, __ATOMIC_RELAXED);

    if (before == 0 || before + size_bytes <= INBOUND_BYTES_MAX)
        return true;
    __atomic_sub_fetch(&w->inbound_bytes, size_bytes, __ATOMIC_RELAXED);
    return false;
}

void step_worker_post_quietly(struct step_worker *w, struct step_item *item, uint64_t cost)
{
    /* If it is not the first item, who posted that one has woken the worker, unless that was quietly. */
    bool nobody_woke = mailbox_post(&w->mailbox, &item->node) == MAILBOX_WAKE || __atomic_load_n(&w->quiet, __ATOMIC_RELAXED);

    if (nobody_woke && cost > STEP_IN_COST_MAX)
        step_worker_wake(w); /* it begins while the transport goes on */
    else if (nobody_woke)
        __atomic_add_fetch(&w->quiet, cost, __ATOMIC_RELEASE);
}

uint64_t step_worker_take_quiet(struct step_worker *w)
{
    return __atomic_load_n(&w->quiet, __ATOMIC_RELAXED) ? __atomic_exchange_n(&w->quiet, 0, __ATOMIC_ACQUIRE) : 0;
}

void step_worker_step_in(struct step_worker *w, uint64_t cost)
{
    struct runtime *rt = w->engine->config.runtime;
    uint64_t until_ns = __atomic_load_n(&w->no_step_in_until_ns, __ATOMIC_RELAXED);
    bool may = rt->ops->task_step_in && cost <= STEP_IN_COST_MAX && (until_ns == 0 || rt->ops->coarse_ns(rt) >= until_ns);

    if (!may || !rt->ops->task_step_in(w->task))
        step_worker_wake(w);
}

void step_worker_post_replica(struct step_worker *w, enum step_item_type type, struct replica *r)
{
    struct replica_item *item = xcalloc(1, sizeof *item);

    item->item.type = type;
    item->replica = replica_ref(r);
    step_worker_post(w, &item->item);
}

void step_worker_post_unreachable(struct step_worker *w, struct nh_replica_info to)
{
    struct unreachable_item *item = xcalloc(1, sizeof *item);

    item->item.type = STEP_UNREACHABLE;
    item->to = to;
    step_worker_post(w, &item->item);
}

void step_worker_saved(struct step_worker *w, struct save_batch *batch)
{
    if (mailbox_post(&w->saved, &batch->node) == MAILBOX_WAKE)
        step_worker_wake(w);
}

void step_worker_activate(struct step_worker *w, struct replica *r)
{
    if (!list_linked(&r->active))
        list_push_back(&w->active, &r->active);
}

void step_worker_again(struct step_worker *w, struct replica *r)
{
    if (!list_linked(&r->active))
        list_push_back(&w->again, &r->active);
}

void step_worker_apply(struct step_worker *w, struct replica *r, struct apply_item *item)
{
    const struct engine *e = w->engine;

    for (uint32_t i = 0; i < e->config.n_apply_workers; i++)
        if (e->apply_workers[i] == r->apply)
            queue_push(&w->to_apply[i], &item->node);
}

/* ---- what comes in ---- */

/* How many messages' replicas are looked up before the first of them is touched. */
#define LOOK_AHEAD 16u

/* Returns how many are for nobody here. */
static uint32_t take_some_messages(struct step_worker *w, struct inbound_message *messages, uint32_t n)
{
    struct replica *to[LOOK_AHEAD];
    uint32_t ignored = 0;

    for (uint32_t i = 0; i < n; i++)
        map_prefetch(&w->replicas, messages[i].message.shard_id);
    for (uint32_t i = 0; i < n; i++) {
        to[i] = map_get(&w->replicas, messages[i].message.shard_id);
        if (to[i])
            replica_prefetch_queue(to[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!to[i] || to[i]->replica_id != messages[i].message.to || to[i]->state > REPLICA_RUNNING) {
            ignored++;
            continue;
        }
        if (!list_linked(&to[i]->active) && drive_keep_answer(to[i], &messages[i].message))
            continue;
        queue_push(&to[i]->inbound, &messages[i].node);
        step_worker_activate(w, to[i]);
    }
    return ignored;
}

static void take_messages(struct step_worker *w, struct inbound *in)
{
    uint64_t ignored = 0;

    for (uint32_t i = 0; i < in->n; i += LOOK_AHEAD)
        ignored += take_some_messages(w, in->messages + i, in->n - i < LOOK_AHEAD ? in->n - i : LOOK_AHEAD);
    counter_add(&w->messages_received, in->n);
    counter_add(&w->ignored, ignored);
    queue_push(&w->inbounds, &in->done);
}

/* A lost message to (shard, replica): the sender is our replica of that shard. */
static void take_unreachable(struct step_worker *w, struct unreachable_item *item)
{
    struct replica *r = map_get(&w->replicas, item->to.shard_id);

    if (r)
        peers_unreachable(w, r, item->to.replica_id);
    free(item);
}

static void take_replica(struct step_worker *w, struct replica_item *item)
{
    if (item->item.type == STEP_START) {
        map_put(&w->replicas, item->replica->shard_id, item->replica); /* keeps the item's reference */
        item->replica->is_hosted = true;
        drive_start(w, item->replica);
    } else {
        drive_stop(w, item->replica);
        replica_unref(item->replica);
    }
    free(item);
}

static void take_item(struct step_worker *w, struct step_item *item)
{
    struct replica *r;

    switch (item->type) {
    case STEP_NOTIFY:
        r = container_of(item, struct replica, notify);
        r->is_notified = true;
        if (r->is_hosted)
            step_worker_activate(w, r);
        replica_unref(r);
        break;
    case STEP_START:
    case STEP_STOP: take_replica(w, container_of(item, struct replica_item, item)); break;
    case STEP_INBOUND: take_messages(w, container_of(item, struct inbound, item)); break;
    case STEP_UNREACHABLE: take_unreachable(w, container_of(item, struct unreachable_item, item)); break;
    }
}

static void take_mailbox(struct step_worker *w)
{
    struct queue items = {0};
    struct queue_node *node;

    mailbox_take(&w->mailbox, &items);
    while ((node = queue_pop(&items))) {
        if (items.first)
            prefetch(items.first, 1); /* mostly notifications, each in a replica of its own */
        take_item(w, container_of(node, struct step_item, node));
    }
}

static void take_timers(struct step_worker *w)
{
    struct list due, *node;

    list_init(&due);
    wheel_advance(&w->wheel, w->now_ns / NS_PER_MS, &due);
    while ((node = list_pop_front(&due))) {
        struct replica *r = container_of(container_of(node, struct timer, node), struct replica, timer);

        if (drive_is_due(w, r))
            step_worker_activate(w, r);
    }
}

static void fence(struct step_worker *w)
{
    struct replica *r;

    w->fenced = true;
    for (size_t i = 0; (r = map_next(&w->replicas, &i, NULL));)
        drive_fence(w, r);
    step_saves_drop_open(w);
}

/* ---- hosts ---- */

static void wake_followers_of(struct step_worker *w, const struct outbox_peer *peer)
{
    struct replica *r;

    for (size_t i = 0; (r = map_next(&w->replicas, &i, NULL));)
        peers_silent(w, r, peer);
}

static void resume_followers_of(struct step_worker *w, const struct outbox_peer *peer)
{
    struct replica *r;

    for (size_t i = 0; (r = map_next(&w->replicas, &i, NULL));)
        peers_back(w, r, peer);
}

static void tick_hosts(struct step_worker *w)
{
    uint64_t silent_ns = (uint64_t)HOST_SILENT_TICKS * w->engine->config.rtt_ms * NS_PER_MS;

    if (w->now_tick < w->next_host_tick)
        return;
    w->next_host_tick = w->now_tick + HOST_PING_TICKS;
    outbox_ping(&w->outbox);
    for (size_t i = 0; i < w->outbox.n_peers; i++) {
        struct outbox_peer *p = w->outbox.peers[i];
        uint64_t heard = live_host_heard_ns(p->host);
        bool silent = w->now_ns > heard && w->now_ns - heard > silent_ns;

        if (silent && !p->silent)
            wake_followers_of(w, p);
        p->silent = silent;
        if (p->down && !live_host_is_down(p->host))
            resume_followers_of(w, p);
        p->down = live_host_is_down(p->host);
    }
}

/* ---- the pass ---- */

static void on_send_failed(void *ctx, const struct nh_message *m)
{
    struct step_worker *w = ctx;
    struct replica *r = map_get(&w->replicas, m->shard_id);

    if (r)
        peers_lost(w, r, m);
}

/* With thousands of shards each replica has left the processor's cache since its last turn, and to wait for its parts one after
 * the other would take longer than to drive it. So they are asked for while those before it are driven: first itself, and with
 * each turn what lies behind one more pointer. */
#define PREFETCH_TURNS (RAFT_PREFETCH_DEPTHS + 1)

/* `depth` as for raft_prefetch. */
static void prefetch_message(const struct queue_node *node, unsigned depth)
{
    const struct inbound_message *m = container_of(node, struct inbound_message, node);
    const struct nh_run *run;

    if (depth == 0) {
        prefetch(m, sizeof *m);
        return;
    }
    if (m->message.n_runs == 0)
        return;
    run = m->message.runs;
    switch (depth) {
    case 1: prefetch(run, sizeof *run); break;
    case 2: run_prefetch_block(run); break;
    default: run_prefetch_offsets(run); break;
    }
}

static NH_PEEKS void prefetch_parts(const struct replica *r)
{
    prefetch(r->peers, 1);
    prefetch(r->kept, 1);
    prefetch(r->proposals.data, RUN_PREFETCH_RECORDS_BYTES);
    prefetch(r->proposals.offsets, 1);
}

static void prefetch_next(const struct list *active)
{
    const struct list *at = active->next;

    for (unsigned turns = 1; turns <= PREFETCH_TURNS && at != active; turns++, at = at->next) {
        const struct replica *r = container_of(at, struct replica, active);

        if (turns == PREFETCH_TURNS) {
            prefetch(r, sizeof *r);
            return; /* it is not there yet, so who comes after it is not known */
        }
        raft_prefetch(r->raft, RAFT_PREFETCH_DEPTHS - turns);
        if (r->inbound.first)
            prefetch_message(r->inbound.first, RAFT_PREFETCH_DEPTHS - turns);
        if (turns == RAFT_PREFETCH_DEPTHS)
            prefetch_parts(r);
    }
}

static void drive_active(struct step_worker *w)
{
    struct list *node;

    list_splice(&w->active, &w->again);
    while ((node = list_pop_front(&w->active))) {
        prefetch_next(&w->active);
        drive(w, container_of(node, struct replica, active));
    }
}

static void tell_uncommitted(struct step_worker *w)
{
    if (w->uncommitted_change)
        __atomic_add_fetch(&w->engine->uncommitted_bytes, w->uncommitted_change, __ATOMIC_RELAXED);
    w->uncommitted_change = 0;
}

static void free_inbounds(struct step_worker *w)
{
    struct queue_node *node;

    while ((node = queue_pop(&w->inbounds))) {
        struct inbound *in = container_of(node, struct inbound, done);

        __atomic_sub_fetch(&w->inbound_bytes, in->size_bytes, __ATOMIC_RELAXED);
        inbound_free(in);
    }
}

static void post_to_apply(struct step_worker *w)
{
    for (uint32_t i = 0; i < w->engine->config.n_apply_workers; i++)
        if (!queue_empty(&w->to_apply[i]))
            apply_worker_do_all(w->engine->apply_workers[i], &w->to_apply[i]);
}

static uint64_t next_poll(struct step_worker *w)
{
    uint64_t next_ms = wheel_next(&w->wheel), hosts_ms = w->next_host_tick * w->engine->config.rtt_ms;

    if (!list_empty(&w->again) || !list_empty(&w->active) || !mailbox_empty(&w->saved))
        return TASK_POLL_NOW;
    if (hosts_ms < next_ms)
        next_ms = hosts_ms;
    return next_ms == WHEEL_NEVER ? TASK_POLL_NEVER : next_ms * NS_PER_MS;
}

void step_worker_read_clock(struct step_worker *w)
{
    w->now_ns = engine_now_ns(w->engine);
    w->now_tick = w->now_ns / NS_PER_MS / w->engine->config.rtt_ms;
}

/* Who steps in has work of his own, and is left to it for a while when a pass took long. */
static void note_time(struct step_worker *w, uint64_t begin_ns)
{
    uint64_t now_ns = engine_now_ns(w->engine), took_ns = now_ns - begin_ns;
    uint64_t pause_ns =
        took_ns < STEP_IN_PAUSE_NS_MAX / STEP_IN_PAUSE_FACTOR ? STEP_IN_PAUSE_FACTOR * took_ns : STEP_IN_PAUSE_NS_MAX;

    if (took_ns > STEP_IN_PASS_NS_MAX)
        __atomic_store_n(&w->no_step_in_until_ns, now_ns + pause_ns, __ATOMIC_RELAXED);
}

uint64_t step_worker_poll(void *arg)
{
    struct step_worker *w = arg;
    struct engine *e = w->engine;
    struct nh_logdb_metrics metrics = {0};
    uint64_t begin_ns;

    step_worker_read_clock(w);
    begin_ns = w->now_ns;
    counter_add(&w->passes, 1);
    step_saves_take_done(w);
    take_mailbox(w);
    take_timers(w);
    if (engine_is_fenced(e) && !w->fenced)
        fence(w);
    drive_active(w);
    tell_uncommitted(w);
    free_inbounds(w);
    tick_hosts(w);
    /* Messages leave, and machines apply, while the disk writes; but they do not wait until a large save is put together. */
    if (save_batch_is_small(w->open))
        step_saves_begin(w);
    outbox_flush(&w->outbox, on_send_failed, w);
    post_to_apply(w);
    step_saves_begin(w);
    step_saves_end(w);
    e->config.logdb_ops->get_metrics(e->config.logdb, &metrics);
    __atomic_store_n(&e->logdb_busy, metrics.busy, __ATOMIC_RELAXED);
    note_time(w, begin_ns);
    return next_poll(w);
}

static void stop_all(struct step_worker *w)
{
    struct replica **all = xcalloc(w->replicas.n, sizeof(struct replica *)), *r;
    size_t n = 0;

    for (size_t i = 0; (r = map_next(&w->replicas, &i, NULL));)
        all[n++] = r;
    for (size_t i = 0; i < n; i++)
        drive_stop(w, all[i]);
    free(all);
}

void step_worker_drain(struct step_worker *w)
{
    take_mailbox(w);
    step_saves_take_done(w);
    step_saves_drop_open(w);
    free_inbounds(w);
    stop_all(w);
    post_to_apply(w);
    outbox_deinit(&w->outbox);
}

void step_worker_discard(struct step_worker *w)
{
    take_mailbox(w);
    free_inbounds(w);
}
