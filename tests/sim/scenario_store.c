/* What lies under a core: its store (entries from a base on, a snapshot), its machine, of which only the membership matters. */
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/raft/describe.h"
#include "engine/raft/raft_internal.h"
#include "engine/rsm/membership.h"
#include "raftio/support/memory.h"

#define REMOVE(v, i) (memmove(&(v)->items[i], &(v)->items[(i) + 1], ((v)->n - (i)-1) * sizeof *(v)->items), (v)->n--)

/* ---- entries ---- */

uint64_t scenario_log_last(const struct scenario_node *node)
{
    return node->base + node->log.n;
}

const struct scenario_entry *scenario_stored(const struct scenario_node *node, uint64_t index)
{
    return index > node->base && index <= scenario_log_last(node) ? &node->log.items[index - node->base - 1] : NULL;
}

static void cut_log(struct scenario_node *node, uint64_t last)
{
    while (node->log.n > 0 && scenario_log_last(node) > last)
        nh_block_unref(node->log.items[--node->log.n].block);
}

static void store_entry(struct scenario_node *node, struct nh_block *block, uint32_t at)
{
    *RAFT_PUSH(&node->log) = (struct scenario_entry){nh_block_ref(block), at};
}

void scenario_clear_store(struct scenario_node *node)
{
    cut_log(node, 0);
    node->base = node->base_term = 0;
    nh_snapshot_deinit(&node->snapshot);
}

struct nh_block *scenario_block(uint64_t term, uint64_t index)
{
    struct block_builder b = {0};
    struct block_record rec = {0};

    block_builder_add(&b, &rec);
    return block_seal(&b, term, index);
}

void scenario_append_log(struct scenario_node *node, uint64_t term)
{
    struct nh_block *block = scenario_block(term, scenario_log_last(node) + 1);

    store_entry(node, block, 0);
    nh_block_unref(block);
}

/* ---- saves ---- */

/* The record takes the place of the log; the machine gets the image in its turn. */
static void store_snapshot(struct scenario_node *node, const struct nh_snapshot *snapshot)
{
    scenario_clear_store(node);
    nh_snapshot_copy(&node->snapshot, snapshot);
    node->base = snapshot->index;
    node->base_term = snapshot->term;
    node->applies.n = 0; /* it contains them */
    *RAFT_PUSH(&node->applies) = (struct scenario_applied){0, snapshot->index};
}

void scenario_store(struct scenario *s, struct scenario_node *node, const struct scenario_save *save)
{
    if (save->has_state)
        node->state = save->state;
    if (save->snapshot.index)
        store_snapshot(node, &save->snapshot);
    if (save->runs.n > 0)
        cut_log(node, nh_run_first(&save->runs.runs[0]) - 1);
    for (uint32_t i = 0; i < save->runs.n; i++) {
        const struct nh_run *run = &save->runs.runs[i];

        if (nh_run_first(run) != scenario_log_last(node) + 1)
            scenario_fail(s, "node %" PRIu64 " saves entries that leave a hole before %" PRIu64, node->id, nh_run_first(run));
        for (uint32_t at = run->from; at < run->to; at++)
            store_entry(node, run->block, at);
    }
}

void scenario_fetch(struct scenario *s, struct scenario_node *node, const struct raft_fetch *f)
{
    struct raft_event ev = {.type = RAFT_EV_FETCHED, .fetched.peer = f->peer};
    struct run_list runs = {0};
    const struct scenario_entry *e;

    for (uint64_t i = f->low; i < f->high && (e = scenario_stored(node, i)); i++)
        if (i == f->low || run_list_bytes(&runs) < f->max_bytes)
            run_list_add(&runs, e->block, e->at, e->at + 1);
    ev.fetched.runs = runs.runs;
    ev.fetched.n_runs = runs.n;
    scenario_step(s, node, &ev);
    run_list_deinit(&runs);
}

/* ---- the machine ---- */

struct nh_member scenario_member(uint64_t id, uint32_t kind)
{
    struct nh_member m = {.replica_id = id, .kind = kind};

    snprintf(m.address, sizeof m.address, "n%" PRIu64 ":1", id);
    return m;
}

static void print_members(struct scenario *s, const struct scenario_node *node)
{
    char text[512];

    if (!s->trace)
        return;
    raft_describe_membership(&node->membership, text, sizeof text);
    scenario_print(s, "  %" PRIu64 ": members %s\n", node->id, text);
}

static void apply_change(struct scenario *s, struct scenario_node *node, uint64_t index, const struct nh_entry_view *view)
{
    struct raft_event ev = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = index}};
    struct nh_config_change change = {0};
    struct nh_error err = {0};
    const char *reason;

    if (config_change_decode(view->payload, view->payload_bytes, &change, &err) < 0) {
        scenario_fail(s, "%s", err.text);
        return;
    }
    if (membership_apply(&node->membership, &change, index, &reason)) {
        ev.membership.membership = &node->membership;
        print_members(s, node);
    } else if (s->trace) {
        scenario_print(s, "  %" PRIu64 ": change %" PRIu64 " rejected: %s\n", node->id, index, reason);
    }
    nh_config_change_deinit(&change);
    scenario_step(s, node, &ev);
}

/* Entry 1 of a real shard brings its first members: so a replica that joins learns them. */
static void apply_first_members(struct scenario *s, struct scenario_node *node)
{
    struct raft_event ev = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = 1, .membership = &node->membership}};

    nh_membership_deinit(&node->membership);
    nh_membership_copy(&node->membership, &s->first_members);
    print_members(s, node);
    scenario_step(s, node, &ev);
}

static void apply_range(struct scenario *s, struct scenario_node *node, const struct scenario_applied *range)
{
    struct raft_event ev = {.type = RAFT_EV_APPLIED, .applied = range->last};

    if (range->first == 0) {
        node->machine = range->last;
        nh_membership_deinit(&node->membership);
        nh_membership_copy(&node->membership, &node->snapshot.membership);
        print_members(s, node);
    }
    for (uint64_t i = range->first; i > 0 && i <= range->last && !s->error[0]; i++) {
        const struct scenario_entry *e = scenario_stored(node, i);
        struct nh_entry_view view;

        if (!e || i != node->machine + 1) {
            scenario_fail(s, "node %" PRIu64 " applies %" PRIu64 " after %" PRIu64, node->id, i, node->machine);
            return;
        }
        node->machine = i;
        if (i == 1 && node->membership.n_members == 0)
            apply_first_members(s, node);
        nh_record_view(e->block->data + e->block->offsets[e->at], &view);
        if (view.type == NH_ENTRY_CONFIG_CHANGE)
            apply_change(s, node, i, &view);
    }
    if (!s->error[0])
        scenario_step(s, node, &ev);
}

/* Applying may hand out more to apply: that has its turn after what was handed out before. */
void scenario_apply(struct scenario *s, struct scenario_node *node, uint64_t n)
{
    if (node->applying)
        return;
    node->applying = true;
    for (; n > 0 && node->applies.n > 0 && !s->error[0]; n--) {
        struct scenario_applied range = node->applies.items[0];

        REMOVE(&node->applies, 0);
        if (s->trace && node->hold_applies)
            scenario_print(s, "  %" PRIu64 ": applied %" PRIu64 "\n", node->id, range.last);
        apply_range(s, node, &range);
    }
    node->applying = false;
}

/* ---- snapshots ---- */

void scenario_compact(struct scenario *s, struct scenario_node *node, uint64_t index)
{
    struct raft_event made = {.type = RAFT_EV_SNAPSHOT_MADE}, compacted = {.type = RAFT_EV_COMPACTED, .compacted = index};
    struct nh_snapshot snapshot = {.shard_id = SCENARIO_SHARD,
                                   .index = node->machine,
                                   .term = raft_term_at(node->core, node->machine)};

    if (index <= node->base || index > node->machine) {
        scenario_fail(s, "node %" PRIu64 " can compact %" PRIu64 " to %" PRIu64, node->id, node->base + 1, node->machine);
        return;
    }
    nh_membership_copy(&snapshot.membership, &node->membership);
    nh_snapshot_deinit(&node->snapshot);
    node->snapshot = snapshot;
    made.snapshot = &node->snapshot;
    scenario_step(s, node, &made);
    scenario_step(s, node, &compacted);
    node->base_term = scenario_stored(node, index)->block->term;
    for (; node->base < index; node->base++) {
        nh_block_unref(node->log.items[0].block);
        REMOVE(&node->log, 0);
    }
}
