/* Batches: what the core's updates add to them, how they are handed out, and what comes back when local work is done.
 *
 * With a synchronous store a batch is one save: rct_advance reports it durable and its committed entries applied. Otherwise the
 * work travels as messages to two pseudo peers, and what the append thread sends back names the save by `hint`.
 */
#include "tests/conformance/raft-core/adapter.h"

#include <assert.h>
#include <stdlib.h>

#define SETTLE_ROUNDS_MAX 100000u
/* A save's name on its way through the suite: the life of the node above, the id in it below. */
#define LIFE_SHIFT 40u

void batch_deinit(struct batch *b)
{
    rct_arena_deinit(&b->arena);
    free(b->send.items);
    free(b->after.items);
    free(b->ents.items);
    free(b->committed.items);
    free(b->reads.items);
    *b = (struct batch){0};
}

/* ---- entries ---- */

void entry_of_record(struct rct_arena *a, const uint8_t *record, rct_entry *ret)
{
    struct nh_entry_view e;

    nh_record_view(record, &e);
    *ret = (rct_entry){.term = e.term, .index = e.index, .len = e.payload_bytes};
    if (e.type == NH_ENTRY_CONFIG_CHANGE)
        ret->type = conf_change_type(e.payload, e.payload_bytes);
    if (e.payload_bytes > 0)
        ret->data = rct_arena_copy(a, e.payload, e.payload_bytes);
}

static void put_unsaved(rct_node *n, const struct run_list *runs)
{
    struct batch *b = n->pending;
    rct_entry e;

    for (uint32_t i = 0; i < runs->n; i++) {
        const uint8_t *p = nh_run_data(&runs->runs[i]), *end = p + nh_run_size(&runs->runs[i]);

        for (; p < end; p += nh_record_bytes(p)) {
            entry_of_record(&b->arena, p, &e);
            while (b->ents.n > 0 && b->ents.items[b->ents.n - 1].index >= e.index)
                b->ents.n--;
            *RAFT_PUSH(&b->ents) = e;
            entry_log_put(&n->log, &e);
        }
    }
}

static void put_committed(rct_node *n)
{
    struct batch *b = n->pending;

    for (uint64_t i = n->out.apply_first; i && i <= n->out.apply_last; i++) {
        const rct_entry *e = entry_log_at(&n->log, i);
        rct_entry copy = *e;

        if (e->len > 0)
            copy.data = rct_arena_copy(&b->arena, e->data, e->len);
        *RAFT_PUSH(&b->committed) = copy;
    }
}

/* It takes the place of all entries. */
static void put_snapshot(rct_node *n)
{
    struct batch *b = n->pending;

    if (!n->out.snapshot)
        return;
    entry_log_reset(&n->log, n->out.snapshot->index + 1);
    b->ents.n = b->committed.n = 0;
    b->snap = snapshot_out(&b->arena, n->out.snapshot, &n->received);
    n->snapshot_save = n->out.save_id;
    n->snapshot_index = n->out.snapshot->index;
}

static void put_messages(rct_node *n)
{
    rct_msg m;

    for (size_t i = 0; i < n->out.send.n; i++)
        if (message_out(n, &n->out.send.items[i], &m))
            *RAFT_PUSH(&n->pending->send) = m;
    for (size_t i = 0; i < n->out.send_after_save.n; i++)
        if (message_out(n, &n->out.send_after_save.items[i], &m))
            *RAFT_PUSH(&n->pending->after) = m;
}

static void put_reads(rct_node *n)
{
    struct batch *b = n->pending;

    for (size_t i = 0; i < n->out.reads.n; i++) {
        const struct raft_read *r = &n->out.reads.items[i];
        struct read_context *c = context_find(n, r->low, r->high);

        if (!c)
            continue;
        *RAFT_PUSH(&b->reads) = (rct_read){r->index, rct_arena_copy(&b->arena, c->data, c->len), c->len};
        context_drop(n, c);
    }
}

static void put_dropped(rct_node *n)
{
    for (size_t i = 0; i < n->out.dropped.n; i++) {
        const struct raft_dropped *d = &n->out.dropped.items[i];
        struct read_context *c = d->is_read ? context_find(n, d->first_key, n->config.id) : NULL;

        n->refused = true;
        if (c)
            context_drop(n, c);
    }
}

static void take_update(rct_node *n)
{
    put_snapshot(n);
    put_unsaved(n, &n->out.runs);
    put_committed(n);
    put_messages(n);
    put_reads(n);
    put_dropped(n);
    if (n->out.save_id)
        n->pending->save_id = n->out.save_id;
    n->pending->must_sync |= n->out.must_sync;
}

/* ---- collecting ---- */

static void answer_fetch(rct_node *n, const struct raft_fetch *f)
{
    struct run_list runs = {0};
    struct raft_event ev = {.type = RAFT_EV_FETCHED, .now = n->now, .fetched = {.peer = f->peer}};

    for (uint64_t i = f->low; i < f->high; i++) {
        const rct_entry *e = entry_log_at(&n->log, i);
        struct block_builder b = {0};
        struct nh_block *block;

        if (!e || !entry_to_record(e, 0, 0, &b))
            break;
        if (i > f->low && run_list_bytes(&runs) + b.size_bytes > f->max_bytes) {
            block_builder_deinit(&b);
            break;
        }
        block = block_seal(&b, e->term, i);
        run_list_add(&runs, block, 0, 1);
        nh_block_unref(block);
    }
    ev.fetched.runs = runs.runs;
    ev.fetched.n_runs = runs.n;
    raft_step(n->core, &ev, &n->out);
    run_list_deinit(&runs);
}

void node_settle(rct_node *n)
{
    struct raft_fetch *fetches = NULL;
    size_t n_fetches = 0;

    for (uint32_t rounds = 0; rounds < SETTLE_ROUNDS_MAX; rounds++) {
        raft_collect(n->core, &n->out);
        take_update(n);
        n_fetches = n->out.fetches.n;
        fetches = n_fetches > 0 ? xmemdup(n->out.fetches.items, n_fetches * sizeof *fetches) : NULL;
        raft_update_release(&n->out);
        for (size_t i = 0; i < n_fetches; i++)
            answer_fetch(n, &fetches[i]);
        free(fetches);
        if (n_fetches == 0 && !raft_has_work(n->core))
            return;
    }
    assert(!"the core always has more to do");
}

/* ---- handing out ---- */

static rct_hard hard_of(const struct raft *r)
{
    return (rct_hard){r->term, r->vote, r->log.commit};
}

static bool hard_changed(const rct_node *n)
{
    rct_hard h = hard_of(n->core);

    return h.term != n->told_hard.term || h.vote != n->told_hard.vote || h.commit != n->told_hard.commit;
}

/* What the suite means by it: entries, term or vote. A snapshot that comes alone has its own write. */
static bool must_sync(const rct_node *n, const struct batch *b)
{
    rct_hard h = hard_of(n->core);

    return b->must_sync && (b->ents.n > 0 || h.term != n->told_hard.term || h.vote != n->told_hard.vote);
}

static bool soft_changed(const rct_node *n)
{
    return (uint32_t)n->core->role != n->told_role || n->core->leader_id != n->told_lead;
}

static bool batch_is_empty(const struct batch *b)
{
    return b->send.n + b->after.n + b->ents.n + b->committed.n + b->reads.n == 0 && !b->snap && !b->save_id;
}

int rct_has_ready(rct_node *n)
{
    return n->core && (!batch_is_empty(n->pending) || hard_changed(n) || soft_changed(n));
}

/* All that is to be written, and what is to be sent when it is. */
static rct_msg append_message(rct_node *n, struct batch *b, const rct_ready_t *ready)
{
    rct_msg m = {.type = RCT_MSG_STORAGE_APPEND, .from = n->config.id, .to = RCT_APPEND_THREAD};

    if (ready->has_hard) {
        m.term = ready->hard.term;
        m.vote = ready->hard.vote;
        m.commit = ready->hard.commit;
    }
    m.ents = b->ents.items;
    m.n_ents = b->ents.n;
    m.snap = b->snap;
    if (b->save_id)
        *RAFT_PUSH(&b->after) = (rct_msg){.type = RCT_MSG_STORAGE_APPEND_RESP,
                                          .from = RCT_APPEND_THREAD,
                                          .to = n->config.id,
                                          .term = n->core->term,
                                          .index = n->core->log.last,
                                          .log_term = raft_log_last_term(&n->core->log),
                                          .hint = n->life << LIFE_SHIFT | b->save_id,
                                          .snap = b->snap};
    m.resps = b->after.items;
    m.n_resps = b->after.n;
    return m;
}

static rct_msg apply_message(const rct_node *n, struct batch *b)
{
    rct_msg *answer = rct_arena_get(&b->arena, sizeof *answer);

    *answer = (rct_msg){.type = RCT_MSG_STORAGE_APPLY_RESP,
                        .from = RCT_APPLY_THREAD,
                        .to = n->config.id,
                        .index = b->committed.items[b->committed.n - 1].index,
                        .hint = n->life,
                        .ents = b->committed.items,
                        .n_ents = b->committed.n};
    return (rct_msg){.type = RCT_MSG_STORAGE_APPLY,
                     .from = n->config.id,
                     .to = RCT_APPLY_THREAD,
                     .ents = b->committed.items,
                     .n_ents = b->committed.n,
                     .resps = answer,
                     .n_resps = 1};
}

static void fill_sync(rct_node *n, struct batch *b, rct_ready_t *out)
{
    for (size_t i = 0; i < b->after.n; i++)
        *RAFT_PUSH(&b->send) = b->after.items[i];
    out->ents = b->ents.items;
    out->n_ents = b->ents.n;
    out->committed = b->committed.items;
    out->n_committed = b->committed.n;
    out->snap = b->snap;
    if (b->save_id)
        n->due_save = b->save_id;
    if (b->committed.n > 0)
        n->due_apply = b->committed.items[b->committed.n - 1].index;
}

static void fill_async(rct_node *n, struct batch *b, rct_ready_t *out)
{
    bool appends = b->ents.n > 0 || b->snap || b->after.n > 0 || b->save_id || out->has_hard;
    rct_msg m;

    if (appends) {
        m = append_message(n, b, out);
        *RAFT_PUSH(&b->send) = m;
    }
    if (b->committed.n > 0) {
        m = apply_message(n, b);
        *RAFT_PUSH(&b->send) = m;
    }
}

enum rct_role role_of(enum raft_role role)
{
    switch (role) {
    case RAFT_PRE_CANDIDATE: return RCT_PRE_CANDIDATE;
    case RAFT_CANDIDATE: return RCT_CANDIDATE;
    case RAFT_LEADER: return RCT_LEADER;
    case RAFT_FOLLOWER: break;
    }
    return RCT_FOLLOWER;
}

int rct_ready(rct_node *n, rct_ready_t *out)
{
    struct batch *b = n->pending;

    if (!n->core)
        return RCT_E_ARG;
    batch_deinit(n->taken);
    n->pending = n->taken;
    n->taken = b;
    *out = (rct_ready_t){.has_soft = soft_changed(n),
                         .role = role_of(n->core->role),
                         .lead = n->core->leader_id,
                         .has_hard = hard_changed(n),
                         .must_sync = must_sync(n, b),
                         .hard = hard_of(n->core)};
    n->told_role = n->core->role;
    n->told_lead = n->core->leader_id;
    n->told_hard = out->hard;
    if (n->config.async)
        fill_async(n, b, out);
    else
        fill_sync(n, b, out);
    out->msgs = b->send.items;
    out->n_msgs = b->send.n;
    out->reads = b->reads.items;
    out->n_reads = b->reads.n;
    return RCT_OK;
}

/* ---- local work is done ---- */

void node_applied(rct_node *n, uint64_t index)
{
    struct raft_event ev = {.type = RAFT_EV_APPLIED, .applied = index};

    if (index <= n->core->log.handed)
        node_event(n, &ev);
}

/* A snapshot that is stored is in the machine, too. */
void node_saved(rct_node *n, uint64_t save_id)
{
    struct raft_event ev = {.type = RAFT_EV_SAVED, .saved = save_id};

    if (save_id > n->core->save_id)
        return;
    node_event(n, &ev);
    if (n->snapshot_save && n->snapshot_save <= save_id) {
        n->snapshot_save = 0;
        node_applied(n, n->snapshot_index);
    }
}

int rct_advance(rct_node *n)
{
    uint64_t save_id = n->due_save, applied = n->due_apply;

    if (!n->core || n->config.async)
        return RCT_E_ARG;
    n->due_save = n->due_apply = 0;
    if (save_id)
        node_saved(n, save_id);
    if (applied)
        node_applied(n, applied);
    return RCT_OK;
}

int storage_done(rct_node *n, const rct_msg *m)
{
    bool append = m->type == RCT_MSG_STORAGE_APPEND_RESP;
    uint64_t life = append ? m->hint >> LIFE_SHIFT : m->hint;

    if (m->from != (append ? RCT_APPEND_THREAD : RCT_APPLY_THREAD) || !n->config.async)
        return RCT_E_LOCAL;
    if (life != n->life)
        return RCT_OK; /* of an earlier life */
    if (append)
        node_saved(n, m->hint & (((uint64_t)1 << LIFE_SHIFT) - 1));
    else
        node_applied(n, m->index);
    return RCT_OK;
}
