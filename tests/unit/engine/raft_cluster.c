#include "tests/unit/engine/raft_cluster.h"

#include "engine/raft/raft_internal.h"
#include "engine/rsm/membership.h"
#include "tests/unit/engine/raft_cluster_private.h"

uint64_t cluster_random(struct cluster *c, uint64_t below)
{
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    return c->random % below;
}

struct raft_options cluster_options(void)
{
    return (struct raft_options){
        .shard_id = SHARD, .election_ticks = 10, .heartbeat_ticks = 1, .pre_vote = true, .check_quorum = true};
}

/* ---- entries ---- */

struct nh_block *make_block(uint64_t first_index, uint64_t term, uint8_t type, uint64_t key)
{
    struct block_builder b = {0};
    struct block_record rec = {.type = type, .origin = 1, .key = key, .payload = "x", .payload_bytes = key ? 1 : 0};

    block_builder_add(&b, &rec);
    return block_seal(&b, term, first_index);
}

static void disk_cut(struct cluster_node *node, uint64_t last)
{
    while (disk_last(node) > last && node->disk.n > 0)
        nh_block_unref(node->disk.items[--node->disk.n].block);
}

static void disk_append(struct cluster_node *node, struct nh_block *block, uint32_t at)
{
    *PUSH(&node->disk) = (struct stored_entry){nh_block_ref(block), at};
}

/* ---- life ---- */

/* As the engine finds it (engine/bootstrap.c). */
static uint64_t config_bound(const struct cluster_node *node)
{
    uint64_t last = disk_last(node), commit = node->disk_state.commit;

    for (size_t i = node->disk.n; i > 0 && node->base + i > commit; i--) {
        const struct stored_entry *e = &node->disk.items[i - 1];

        if (nh_record_type(e->block->data + e->block->offsets[e->at]) == NH_ENTRY_CONFIG_CHANGE)
            return node->base + i;
    }
    return commit < last ? commit : last;
}

/* Clocks differ in speed. */
uint64_t cluster_now(const struct cluster *c, uint64_t id)
{
    return c->now + c->now * c->nodes[id].fast_percent / 100;
}

static void boot(struct cluster *c, struct cluster_node *node)
{
    struct raft_term_span spans[512];
    struct raft_boot b = {.state = node->disk_state,
                          .first_index = node->base + 1,
                          .last_index = disk_last(node),
                          .anchor_term = node->base == node->snapshot.index ? node->snapshot.term : 0,
                          .spans = spans,
                          .applied = node->applied,
                          .membership = &node->membership,
                          .config_bound = config_bound(node),
                          .snapshot = node->snapshot.index ? &node->snapshot : NULL,
                          .now = cluster_now(c, node->id)};
    struct nh_error err = {0};

    for (size_t i = 0; i < node->disk.n; i++)
        if (i == 0 || term_of(&node->disk.items[i]) != spans[b.n_spans - 1].term) {
            REQUIRE(b.n_spans < 512, "too many terms");
            spans[b.n_spans++] = (struct raft_term_span){node->base + i + 1, term_of(&node->disk.items[i])};
        }
    node->options.seed = cluster_random(c, UINT64_MAX);
    node->machine = node->applied;
    REQUIRE(raft_new(&node->options, &b, &node->core, &err) == 0, "%s", err.text);
}

struct nh_member make_member(uint64_t id, uint32_t kind)
{
    struct nh_member m = {.replica_id = id, .kind = kind};

    snprintf(m.address, sizeof m.address, "n%" PRIu64 ":1", id);
    return m;
}

void cluster_set_members(struct cluster *c, uint64_t id, const char *kinds)
{
    struct nh_membership *m = &c->nodes[id].membership;

    REQUIRE(!c->nodes[id].core, "it runs");
    nh_membership_deinit(m);
    m->members = xcalloc(CLUSTER_MAX, sizeof *m->members);
    for (uint64_t i = 1; kinds[i - 1]; i++)
        if (kinds[i - 1] != '-')
            m->members[m->n_members++] = make_member(i, kinds[i - 1] == 'v'   ? NH_MEMBER_VOTER
                                                        : kinds[i - 1] == 'n' ? NH_MEMBER_NON_VOTING
                                                                              : NH_MEMBER_WITNESS);
}

static void process(struct cluster *c, struct cluster_node *node, struct raft_update *out);

static void collect(struct cluster_node *node, struct raft_update *out)
{
    raft_collect(node->core, out);
    REQUIRE(out->more == raft_has_work(node->core), "replica %" PRIu64, node->id);
}

/* Work that is there without an event: what is committed on disk but not applied. */
static void poke(struct cluster *c, struct cluster_node *node)
{
    struct raft_update out = {0};

    collect(node, &out);
    process(c, node, &out);
    raft_update_deinit(&out);
}

static void init_node(struct cluster *c, uint64_t id, const struct raft_options *options)
{
    struct cluster_node *node = &c->nodes[id];

    node->id = id;
    node->options = *options;
    node->options.replica_id = id;
    cluster_set_members(c, id, "vvvvvvv" + CLUSTER_MAX - 1 - c->n);
}

static void bootstrap(struct cluster *c, uint64_t id)
{
    struct cluster_node *node = &c->nodes[id];
    struct nh_config_change first = {.type = NH_CONFIG_INITIALIZE, .initial = node->membership};
    struct block_builder b = {0};
    uint8_t payload[512];
    struct block_record rec = {.type = NH_ENTRY_CONFIG_CHANGE, .payload = payload};
    struct nh_block *block;

    rec.payload_bytes = (uint32_t)config_change_encode(&first, payload, sizeof payload);
    block_builder_add(&b, &rec);
    block = block_seal(&b, 1, 1);
    disk_append(node, block, 0);
    nh_block_unref(block);
    node->disk_state = (struct nh_state){.term = 1, .commit = 1};
    boot(c, node);
    poke(c, node);
}

void cluster_init_ghosts(struct cluster *c, uint32_t n_cores, uint32_t n, const struct raft_options *options)
{
    struct raft_options defaults = cluster_options();

    memset(c, 0, sizeof *c);
    REQUIRE(n < CLUSTER_MAX, "too many");
    c->n = n;
    c->random = 0x2545f4914f6cdd1d;
    c->next_key = 1;
    for (uint64_t id = 1; id < CLUSTER_MAX; id++)
        init_node(c, id, options ? options : &defaults);
    for (uint64_t id = 1; id <= n_cores; id++)
        bootstrap(c, id);
    cluster_settle(c);
}

void cluster_init(struct cluster *c, uint32_t n, const struct raft_options *options)
{
    cluster_init_ghosts(c, n, n, options);
}

void cluster_start(struct cluster *c, uint32_t n)
{
    cluster_init(c, n, NULL);
    cluster_elect(c, 1);
}

void drop_messages(struct nh_message *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        nh_message_deinit(&items[i]);
}

static void free_save(struct pending_save *s)
{
    run_list_deinit(&s->runs);
    nh_snapshot_deinit(&s->snapshot);
    drop_messages(s->messages.items, s->messages.n);
    CLEAR(&s->messages);
}

void cluster_crash(struct cluster *c, uint64_t id)
{
    struct cluster_node *node = &c->nodes[id];

    raft_free(node->core);
    node->core = NULL;
    node->untold_saved = node->untold_applied = 0;
    CLEAR(&node->untold);
    for (size_t i = 0; i < node->saves.n; i++)
        free_save(&node->saves.items[i]);
    CLEAR(&node->saves);
    CLEAR(&node->applies);
    CLEAR(&node->fetches);
}

void cluster_forget_machine(struct cluster *c, uint64_t id)
{
    struct cluster_node *node = &c->nodes[id];

    REQUIRE(!node->core, "it runs");
    node->applied = node->snapshot.index;
    if (node->snapshot.index) {
        nh_membership_deinit(&node->membership);
        nh_membership_copy(&node->membership, &node->snapshot.membership);
    } else {
        cluster_set_members(c, id, id <= c->n ? "vvvvvvv" + CLUSTER_MAX - 1 - c->n : "");
    }
}

void cluster_restart(struct cluster *c, uint64_t id)
{
    REQUIRE(!c->nodes[id].core, "it runs");
    if (c->nodes[id].applied < c->nodes[id].snapshot.index)
        cluster_forget_machine(c, id);
    boot(c, &c->nodes[id]);
    poke(c, &c->nodes[id]);
}

void cluster_boot_with(struct cluster *c, uint64_t id, const uint64_t *terms, uint32_t n, struct nh_state state, uint64_t applied)
{
    struct cluster_node *node = &c->nodes[id];

    disk_cut(node, 0);
    REQUIRE(node->base == 0, "it has a snapshot");
    for (uint32_t i = 0; i < n; i++) {
        struct nh_block *block = make_block(i + 1, terms[i], NH_ENTRY_APPLICATION, terms[i] * 1000 + i + 1);

        disk_append(node, block, 0);
        nh_block_unref(block);
    }
    node->disk_state = state;
    node->applied = applied;
    cluster_restart(c, id);
}

void cluster_join(struct cluster *c, uint64_t id)
{
    cluster_set_members(c, id, "");
    cluster_boot_with(c, id, NULL, 0, (struct nh_state){0}, 0);
}

void cluster_deinit(struct cluster *c)
{
    for (uint64_t id = 1; id < CLUSTER_MAX; id++) {
        struct cluster_node *node = &c->nodes[id];

        cluster_crash(c, id);
        disk_cut(node, 0);
        CLEAR(&node->disk);
        nh_membership_deinit(&node->membership);
        nh_snapshot_deinit(&node->snapshot);
        CLEAR(&node->transfers);
        CLEAR(&node->reads);
        CLEAR(&node->dropped);
    }
    for (size_t i = 0; i < c->history.committed.n; i++)
        nh_block_unref(c->history.committed.items[i].block);
    CLEAR(&c->history.committed);
    CLEAR(&c->history.dropped_keys);
    CLEAR(&c->history.asked);
    drop_messages(c->network.items, c->network.n);
    CLEAR(&c->network);
    drop_messages(c->ghosts.items, c->ghosts.n);
    CLEAR(&c->ghosts);
}

/* ---- what an update asks for ---- */

static void post(struct cluster *c, struct nh_message *m)
{
    REQUIRE(m->to > 0 && m->to < CLUSTER_MAX && m->from != m->to && m->shard_id == SHARD && m->term > 0, "type %u", m->type);
    *PUSH(&c->network) = *m;
    *m = (struct nh_message){0};
}

/* A save that holds nothing may still hold messages back. */
static void queue_save(struct cluster *c, struct cluster_node *node, struct raft_update *out)
{
    struct pending_save *s;

    if (out->save_id == 0 && node->saves.n == 0) {
        for (size_t i = 0; i < out->send_after_save.n; i++)
            post(c, &out->send_after_save.items[i]);
        return;
    }
    if (out->save_id == 0 && out->send_after_save.n == 0)
        return;
    s = PUSH(&node->saves);
    *s = (struct pending_save){.id = out->save_id, .has_state = out->has_state, .state = out->state, .runs = out->runs};
    out->runs = (struct run_list){0};
    if (out->snapshot)
        nh_snapshot_copy(&s->snapshot, out->snapshot);
    for (size_t i = 0; i < out->send_after_save.n; i++) {
        *PUSH(&s->messages) = out->send_after_save.items[i];
        out->send_after_save.items[i] = (struct nh_message){0};
    }
    node->n_saves += s->id != 0;
    REQUIRE(s->id == 0 || out->must_sync, "a save without need");
}

static void note_dropped(struct cluster *c, struct cluster_node *node, const struct raft_dropped *d)
{
    *PUSH(&node->dropped) = *d;
    for (uint64_t k = 0; !d->is_read && k < d->n_keys; k++) {
        *PUSH(&c->history.dropped_keys) = d->first_key + k;
        cluster_check_dropped(c, d->first_key + k, 0);
    }
}

/* Linearizability of a read: its index is not below what was committed anywhere when it was asked for. */
static void note_read(struct cluster *c, struct cluster_node *node, const struct raft_read *read)
{
    *PUSH(&node->reads) = *read;
    for (size_t i = 0; i < c->history.asked.n; i++) {
        const struct raft_read *asked = &c->history.asked.items[i];

        if (asked->low == read->low && asked->high == read->high)
            REQUIRE(read->index >= asked->index, "read %" PRIu64 " answered with %" PRIu64 ", but %" PRIu64 " was committed",
                    read->low, read->index, asked->index);
    }
}

/* What is handed out must be on the disk already, the same entry. */
static void note_apply(struct cluster_node *node, const struct raft_update *out)
{
    uint64_t index = out->apply_first;

    if (!out->apply_first)
        return;
    REQUIRE(out->apply_last <= disk_last(node), "replica %" PRIu64 " applies %" PRIu64 " unsaved", node->id, out->apply_last);
    for (uint32_t i = 0; i < out->apply_runs.n; i++) {
        const struct nh_run *run = &out->apply_runs.runs[i];

        for (uint32_t at = run->from; at < run->to; at++, index++) {
            struct stored_entry e = {run->block, at};

            REQUIRE(nh_record_index(record_of(&e)) == index, "index");
            REQUIRE(same_entry(&e, disk_at(node, index)), "replica %" PRIu64 ": entry %" PRIu64 " differs from disk", node->id,
                    index);
        }
    }
    REQUIRE(out->apply_runs.n == 0 || index == out->apply_last + 1, "runs do not cover the range");
    *PUSH(&node->applies) = (struct applied_range){out->apply_first, out->apply_last};
}

/* The view is the status in short. */
static void check_view(const struct cluster_node *node)
{
    struct raft_status s;
    struct raft_view v;

    raft_get_status(node->core, &s);
    raft_get_view(node->core, &v);
    REQUIRE(v.leader_id == s.leader_id && v.term == s.term && v.role == s.role, "who leads");
    REQUIRE(v.first_index == s.first_index && v.last_index == s.last_index && v.commit_index == s.commit_index, "the log");
    REQUIRE(v.transferee == s.transferee && v.uncommitted_bytes == s.uncommitted_bytes, "what only a leader has");
    REQUIRE(v.quiesced == s.quiesced && v.joint == s.joint && v.witness == s.witness && v.pending_config == s.pending_config &&
                v.lease_held == s.lease_held && v.overloaded == s.overloaded,
            "what it is");
    REQUIRE(raft_is_quiesced(node->core) == s.quiesced, "quiet");
}

static void process(struct cluster *c, struct cluster_node *node, struct raft_update *out)
{
    const char *clause = "";

    REQUIRE(raft_check(node->core, &clause), "replica %" PRIu64 ": %s", node->id, clause);
    check_view(node);
    for (size_t i = 0; i < out->send.n; i++)
        post(c, &out->send.items[i]);
    for (size_t i = 0; i < out->reads.n; i++)
        note_read(c, node, &out->reads.items[i]);
    for (size_t i = 0; i < out->dropped.n; i++)
        note_dropped(c, node, &out->dropped.items[i]);
    for (size_t i = 0; i < out->fetches.n; i++, node->n_fetches++) {
        const struct raft_fetch *f = &out->fetches.items[i];

        *PUSH(&node->fetches) = *f;
        REQUIRE(f->low < f->high && f->high - 1 <= disk_last(node), "fetch [%" PRIu64 ", %" PRIu64 ")", f->low, f->high);
    }
    for (size_t i = 0; i < out->transfers.n; i++)
        *PUSH(&node->transfers) = out->transfers.items[i];
    node->removed |= out->removed;
    node->snapshot_wanted = out->snapshot_wanted;
    note_apply(node, out);
    queue_save(c, node, out);
    cluster_check(c);
}

static void tell_untold(const struct cluster *c, struct cluster_node *node, struct raft_update *out)
{
    struct raft_event saved = {.type = RAFT_EV_SAVED, .now = cluster_now(c, node->id), .saved = node->untold_saved};
    struct raft_event applied = {.type = RAFT_EV_APPLIED, .now = cluster_now(c, node->id), .applied = node->untold_applied};

    if (node->untold_saved)
        raft_step(node->core, &saved, out);
    if (node->untold_applied)
        raft_step(node->core, &applied, out);
    for (size_t i = 0; i < node->untold.n; i++) {
        struct raft_event answer = {.type = RAFT_EV_MESSAGE, .now = applied.now, .message = &node->untold.items[i]};

        raft_step(node->core, &answer, out);
    }
    node->untold_saved = node->untold_applied = 0;
    CLEAR(&node->untold);
}

/* Returns whether the update held anything. */
static bool step_and_collect(struct cluster *c, struct cluster_node *node, struct raft_event *ev)
{
    struct raft_update out = {0};
    bool held;

    REQUIRE(node->core, "replica %" PRIu64 " is down", node->id);
    tell_untold(c, node, &out);
    ev->now = cluster_now(c, node->id);
    raft_step(node->core, ev, &out);
    collect(node, &out);
    held = out.save_id || out.apply_first || out.send.n || out.send_after_save.n || out.reads.n || out.dropped.n ||
           out.fetches.n || out.transfers.n || out.removed || out.leader_changed;
    process(c, node, &out);
    raft_update_deinit(&out);
    return held;
}

void cluster_step(struct cluster *c, uint64_t id, struct raft_event *ev)
{
    step_and_collect(c, &c->nodes[id], ev);
}

/* What only ends something that was begun, SAVED or APPLIED. If the core says that nothing waits for it, nothing comes of it. */
static void step_end(struct cluster *c, struct cluster_node *node, struct raft_event *ev, bool (*awaits)(const struct raft *r))
{
    struct raft_event nothing = {.type = RAFT_EV_UNREACHABLE, .peer = NH_NO_REPLICA};

    if (!awaits(node->core) && !c->lazy)
        cluster_step(c, node->id, &nothing); /* what time has made due is not the event's */
    if (awaits(node->core))
        cluster_step(c, node->id, ev);
    else if (!c->lazy)
        REQUIRE(!step_and_collect(c, node, ev), "replica %" PRIu64 ": event %d was awaited after all", node->id, (int)ev->type);
    else if (ev->type == RAFT_EV_SAVED)
        node->untold_saved = ev->saved;
    else
        node->untold_applied = ev->applied;
}

/* An answer that may wait changes nothing that leaves, unless it is of who must be told that it was removed. */
static void step_message(struct cluster *c, struct cluster_node *node, struct nh_message *m)
{
    struct raft_event nothing = {.type = RAFT_EV_UNREACHABLE, .peer = NH_NO_REPLICA};
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = m};
    struct raft_patience patience;

    raft_get_patience(node->core, &patience);
    if (!raft_may_wait(&patience, m) || raft_was_removed(node->core, m->from)) {
        cluster_step(c, node->id, &ev);
    } else if (c->lazy) {
        *PUSH(&node->untold) = *m;
    } else {
        cluster_step(c, node->id, &nothing);
        REQUIRE(!step_and_collect(c, node, &ev), "replica %" PRIu64 ": an answer was awaited after all", node->id);
    }
}

/* ---- moving things ---- */

void cluster_isolate(struct cluster *c, uint64_t id, bool isolated)
{
    for (uint64_t other = 1; other < CLUSTER_MAX; other++)
        if (other != id)
            c->cut[id][other] = c->cut[other][id] = isolated;
}

void cluster_heal(struct cluster *c)
{
    memset(c->cut, 0, sizeof c->cut);
    c->lose = NULL;
}

static void unref_and_remove(struct cluster *c, size_t i)
{
    nh_message_deinit(&c->network.items[i]);
    REMOVE(&c->network, i);
}

void cluster_lose(struct cluster *c, size_t i)
{
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE, .peer = c->network.items[i].to};
    uint64_t from = c->network.items[i].from;

    unref_and_remove(c, i);
    if (c->report_lost && c->nodes[from].core)
        cluster_step(c, from, &ev);
}

void cluster_double(struct cluster *c, size_t i)
{
    struct nh_message m = c->network.items[i];
    struct run_list runs = {0};

    for (uint32_t k = 0; k < m.n_runs; k++)
        run_list_add(&runs, m.runs[k].block, m.runs[k].from, m.runs[k].to);
    m.runs = runs.runs;
    m.n_runs = runs.n;
    if (m.snapshot) {
        m.snapshot = xcalloc(1, sizeof *m.snapshot);
        nh_snapshot_copy(m.snapshot, c->network.items[i].snapshot);
    }
    *PUSH(&c->network) = m;
}

void cluster_deliver(struct cluster *c, size_t i)
{
    struct nh_message m = c->network.items[i];

    if (c->cut[m.from][m.to] || (c->lose && c->lose(&m, c->lose_ctx))) {
        cluster_lose(c, i);
        return;
    }
    REMOVE(&c->network, i);
    c->delivered[m.type]++;
    if (c->nodes[m.to].core) {
        step_message(c, &c->nodes[m.to], &m);
        nh_message_deinit(&m);
    } else {
        *PUSH(&c->ghosts) = m;
    }
}

/* The record takes the place of the log; the machine gets the image in its turn. */
static void store_snapshot(struct cluster_node *node, struct nh_snapshot *s)
{
    disk_cut(node, 0);
    node->base = s->index;
    nh_snapshot_deinit(&node->snapshot);
    node->snapshot = *s;
    *s = (struct nh_snapshot){0};
    *PUSH(&node->applies) = (struct applied_range){0, node->base};
}

void cluster_compact(struct cluster *c, uint64_t id, uint64_t index)
{
    struct cluster_node *node = &c->nodes[id];
    struct raft_event made = {.type = RAFT_EV_SNAPSHOT_MADE}, compacted = {.type = RAFT_EV_COMPACTED, .compacted = index};
    struct nh_snapshot s = {.shard_id = SHARD, .index = node->machine, .term = raft_term_at(node->core, node->machine)};

    REQUIRE(index > node->base && index <= node->machine, "compact to %" PRIu64, index);
    nh_membership_copy(&s.membership, &node->membership);
    nh_snapshot_deinit(&node->snapshot);
    node->snapshot = s;
    made.snapshot = &node->snapshot;
    cluster_step(c, id, &made);
    cluster_step(c, id, &compacted);
    for (; node->base < index; node->base++) {
        nh_block_unref(node->disk.items[0].block);
        REMOVE(&node->disk, 0);
    }
}

void cluster_save(struct cluster *c, uint64_t id)
{
    struct cluster_node *node = &c->nodes[id];
    struct pending_save s = node->saves.items[0];
    struct raft_event ev = {.type = RAFT_EV_SAVED, .saved = s.id};

    REMOVE(&node->saves, 0);
    if (s.has_state)
        node->disk_state = s.state;
    if (s.snapshot.index)
        store_snapshot(node, &s.snapshot);
    if (s.runs.n > 0)
        disk_cut(node, nh_run_first(&s.runs.runs[0]) - 1);
    for (uint32_t i = 0; i < s.runs.n; i++)
        for (uint32_t at = s.runs.runs[i].from; at < s.runs.runs[i].to; at++) {
            REQUIRE(s.runs.runs[i].block->first_index + at == disk_last(node) + 1, "a hole in what is saved");
            disk_append(node, s.runs.runs[i].block, at);
        }
    if (s.id)
        step_end(c, node, &ev, raft_awaits_saved);
    for (size_t i = 0; i < s.messages.n; i++)
        post(c, &s.messages.items[i]);
    free_save(&s);
}

static void apply_change(struct cluster *c, struct cluster_node *node, uint64_t index, const struct nh_entry_view *view)
{
    struct raft_event ev = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = index}};
    struct nh_config_change change = {0};
    struct nh_error err = {0};
    const char *reason;

    REQUIRE(config_change_decode(view->payload, view->payload_bytes, &change, &err) == 0, "%s", err.text);
    if (membership_apply(&node->membership, &change, index, &reason))
        ev.membership.membership = &node->membership;
    if (c->ids_return)
        node->membership.n_removed = 0;
    nh_config_change_deinit(&change);
    cluster_step(c, node->id, &ev);
}

/* The one log: who applies something first writes it, everybody else must apply the same. */
static void apply_entry(struct cluster *c, struct cluster_node *node, uint64_t index)
{
    const struct stored_entry *e = disk_at(node, index);
    struct nh_entry_view view;

    REQUIRE(index == node->machine + 1, "replica %" PRIu64 " applies %" PRIu64 " after %" PRIu64, node->id, index, node->machine);
    node->machine = index;
    REQUIRE(index <= c->history.committed.n && same_entry(e, &c->history.committed.items[index - 1]),
            "replica %" PRIu64 " applies another entry %" PRIu64, node->id, index);
    nh_record_view(record_of(e), &view);
    if (view.type == NH_ENTRY_CONFIG_CHANGE && view.payload_bytes > 0)
        apply_change(c, node, index, &view);
}

void cluster_apply(struct cluster *c, uint64_t id)
{
    struct cluster_node *node = &c->nodes[id];
    struct applied_range range = node->applies.items[0];
    struct raft_event ev = {.type = RAFT_EV_APPLIED, .applied = range.last};

    REMOVE(&node->applies, 0);
    if (range.first > 0 && range.first <= node->base && range.last > node->machine)
        return; /* a received snapshot has replaced it, and is next */
    if (range.first == 0) {
        node->machine = range.last;
        nh_membership_deinit(&node->membership);
        nh_membership_copy(&node->membership, &node->snapshot.membership);
    }
    for (uint64_t i = range.first; i > 0 && i <= range.last; i++)
        if (i > node->machine) /* a snapshot may have brought it meanwhile */
            apply_entry(c, node, i);
    if (node->applied < range.last)
        node->applied = range.last;
    step_end(c, node, &ev, raft_awaits_applied);
}

void cluster_fetch(struct cluster *c, uint64_t id)
{
    struct cluster_node *node = &c->nodes[id];
    struct raft_fetch f = node->fetches.items[0];
    struct run_list runs = {0};
    struct raft_event ev = {.type = RAFT_EV_FETCHED, .fetched = {.peer = f.peer}};

    REMOVE(&node->fetches, 0);
    /* The tail may be gone by now, if the leader lost its office. */
    for (uint64_t i = f.low; i < f.high && i > node->base && i <= disk_last(node) && !node->fail_fetches; i++) {
        const struct stored_entry *e = disk_at(node, i);

        if (i > f.low && run_list_bytes(&runs) + nh_record_bytes(record_of(e)) > f.max_bytes)
            break;
        run_list_add(&runs, e->block, e->at, e->at + 1);
    }
    ev.fetched.runs = runs.runs;
    ev.fetched.n_runs = runs.n;
    cluster_step(c, id, &ev);
    run_list_deinit(&runs);
}

static bool settle_node(struct cluster *c, struct cluster_node *node)
{
    if (!node->core)
        return false;
    if (node->saves.n > 0 && !node->hold_saves)
        cluster_save(c, node->id);
    else if (node->applies.n > 0 && !node->hold_applies)
        cluster_apply(c, node->id);
    else if (node->fetches.n > 0 && !node->hold_fetches)
        cluster_fetch(c, node->id);
    else if (raft_has_work(node->core))
        poke(c, node);
    else
        return false;
    return true;
}

void cluster_settle(struct cluster *c)
{
    bool moved = true;

    for (uint32_t rounds = 0; moved; rounds++) {
        REQUIRE(rounds < 100000, "it never settles");
        moved = c->network.n > 0;
        if (moved)
            cluster_deliver(c, 0);
        for (uint64_t id = 1; id < CLUSTER_MAX; id++)
            moved |= settle_node(c, &c->nodes[id]);
    }
}

void cluster_tick_node(struct cluster *c, uint64_t id)
{
    struct raft_event ev = {.type = RAFT_EV_TICK};

    if (c->nodes[id].core && raft_next_deadline(c->nodes[id].core) <= cluster_now(c, id))
        cluster_step(c, id, &ev);
}

void cluster_tick(struct cluster *c, uint32_t ticks)
{
    for (uint32_t i = 0; i < ticks; i++) {
        c->now++;
        for (uint64_t id = 1; id < CLUSTER_MAX; id++)
            cluster_tick_node(c, id);
        cluster_settle(c);
    }
}
