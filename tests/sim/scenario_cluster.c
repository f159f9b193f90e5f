/* Cores: their life, their events, and what their updates ask for. */
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/raft/describe.h"
#include "engine/raft/raft_internal.h"
#include "raftio/support/memory.h"

#define REMOVE(v, i) (memmove(&(v)->items[i], &(v)->items[(i) + 1], ((v)->n - (i)-1) * sizeof *(v)->items), (v)->n--)
#define CLEAR(v)     (free((v)->items), memset((v), 0, sizeof *(v)))

/* ---- output ---- */

void scenario_print(struct scenario *s, const char *format, ...)
{
    char line[8192];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n >= (int)sizeof line)
        n = (int)sizeof line - 1;
    array_reserve((void **)&s->out, &s->out_cap, s->out_n + (size_t)n + 1, 1);
    memcpy(s->out + s->out_n, line, (size_t)n + 1);
    s->out_n += (size_t)n;
}

void scenario_fail(struct scenario *s, const char *format, ...)
{
    va_list args;

    if (s->error[0])
        return;
    va_start(args, format);
    vsnprintf(s->error, sizeof s->error, format, args);
    va_end(args);
}

void scenario_print_message(struct scenario *s, const char *label, const struct nh_message *m)
{
    char text[2048];

    if (!s->trace)
        return;
    raft_describe_message(m, text, sizeof text);
    scenario_print(s, "%s%s\n", label, text);
}

/* Messages get a line each. */
static void print_update(struct scenario *s, const struct scenario_node *node, const struct raft_update *out)
{
    struct raft_update rest = *out;
    char text[2048];

    rest.send.n = rest.send_after_save.n = 0;
    if (!s->trace)
        return;
    if (raft_describe_update(&rest, text, sizeof text) > 0)
        scenario_print(s, "  %" PRIu64 ": %s\n", node->id, text);
}

/* Shown without a trace, too. */
static void print_role(struct scenario *s, struct scenario_node *node)
{
    struct raft_status st;

    raft_get_status(node->core, &st);
    if (st.role == node->told_role && (st.term == node->told_term || st.role == RAFT_FOLLOWER)) {
        node->told_term = st.term;
        return;
    }
    node->told_role = st.role;
    node->told_term = st.term;
    scenario_print(s, "  %" PRIu64 ": %s of term %" PRIu64 "\n", node->id, raft_role_name(st.role), st.term);
}

/* ---- what an update asks for ---- */

static void free_save(struct scenario_save *save)
{
    run_list_deinit(&save->runs);
    nh_snapshot_deinit(&save->snapshot);
    for (size_t i = 0; i < save->messages.n; i++)
        nh_message_deinit(&save->messages.items[i]);
    CLEAR(&save->messages);
}

static void post(struct scenario *s, struct nh_message *m)
{
    bool lost = s->cut[m->from][m->to];

    scenario_print_message(s, lost ? "  lost " : "  send ", m);
    if (lost)
        nh_message_deinit(m);
    else
        *RAFT_PUSH(&s->bag) = *m;
    *m = (struct nh_message){0};
}

/* A save that holds nothing may still hold messages back. */
static void queue_save(struct scenario *s, struct scenario_node *node, struct raft_update *out)
{
    struct scenario_save *save;

    if (out->save_id == 0 && node->saves.n == 0) {
        for (size_t i = 0; i < out->send_after_save.n; i++)
            post(s, &out->send_after_save.items[i]);
        return;
    }
    if (out->save_id == 0 && out->send_after_save.n == 0)
        return;
    save = RAFT_PUSH(&node->saves);
    *save = (struct scenario_save){.id = out->save_id, .has_state = out->has_state, .state = out->state, .runs = out->runs};
    out->runs = (struct run_list){0};
    if (out->snapshot)
        nh_snapshot_copy(&save->snapshot, out->snapshot);
    for (size_t i = 0; i < out->send_after_save.n; i++) {
        if (node->hold_saves)
            scenario_print_message(s, "  held ", &out->send_after_save.items[i]);
        *RAFT_PUSH(&save->messages) = out->send_after_save.items[i];
        out->send_after_save.items[i] = (struct nh_message){0};
    }
}

/* What is handed out for applying must be in the store, the same entries. */
static void queue_apply(struct scenario *s, struct scenario_node *node, const struct raft_update *out)
{
    uint64_t index = out->apply_first;

    if (!out->apply_first)
        return;
    if (out->apply_last > scenario_log_last(node))
        scenario_fail(s, "node %" PRIu64 " applies %" PRIu64 ", which is not saved", node->id, out->apply_last);
    for (uint32_t i = 0; i < out->apply_runs.n && !s->error[0]; i++) {
        const struct nh_run *run = &out->apply_runs.runs[i];

        for (uint32_t at = run->from; at < run->to; at++, index++)
            if (scenario_stored(node, index)->block->term != run->block->term || run->block->first_index + at != index)
                scenario_fail(s, "node %" PRIu64 " applies another entry %" PRIu64 " than it saved", node->id, index);
    }
    *RAFT_PUSH(&node->applies) = (struct scenario_applied){out->apply_first, out->apply_last};
}

/* Collects until nothing is left to do; `out` holds what a step gave. */
static void collect(struct scenario *s, struct scenario_node *node, struct raft_update *out)
{
    raft_collect(node->core, out);
    print_update(s, node, out);
    print_role(s, node);
    for (size_t i = 0; i < out->send.n; i++)
        post(s, &out->send.items[i]);
    for (size_t i = 0; i < out->reads.n; i++)
        scenario_check_read(s, &out->reads.items[i]);
    queue_apply(s, node, out);
    queue_save(s, node, out);
    scenario_check(s);
    if (!node->hold_applies)
        scenario_apply(s, node, UINT64_MAX);
    for (size_t i = 0; i < out->fetches.n && !s->error[0]; i++)
        scenario_fetch(s, node, &out->fetches.items[i]);
    raft_update_release(out);
    if (!node->hold_saves && !s->error[0])
        scenario_release_saves(s, node, UINT64_MAX);
}

void scenario_step(struct scenario *s, struct scenario_node *node, struct raft_event *ev)
{
    struct raft_update out = {0};

    ev->now = node->now;
    raft_step(node->core, ev, &out);
    collect(s, node, &out);
    raft_update_deinit(&out);
    while (!s->error[0] && raft_has_work(node->core)) {
        out = (struct raft_update){0};
        collect(s, node, &out);
        raft_update_deinit(&out);
    }
}

/* The caller may be in the middle of the same for an earlier save: what is in flight is taken from the front. */
void scenario_release_saves(struct scenario *s, struct scenario_node *node, uint64_t n)
{
    for (; n > 0 && node->saves.n > 0 && !s->error[0]; n--) {
        struct scenario_save save = node->saves.items[0];
        struct raft_event ev = {.type = RAFT_EV_SAVED, .saved = save.id};

        REMOVE(&node->saves, 0);
        if (s->trace && node->hold_saves && save.id)
            scenario_print(s, "  %" PRIu64 ": saved %" PRIu64 "\n", node->id, save.id);
        scenario_store(s, node, &save);
        if (save.id && !s->error[0])
            scenario_step(s, node, &ev);
        for (size_t i = 0; i < save.messages.n; i++)
            post(s, &save.messages.items[i]);
        free_save(&save);
    }
}

/* ---- life ---- */

void scenario_crash(struct scenario_node *node)
{
    raft_free(node->core);
    node->core = NULL;
    for (size_t i = 0; i < node->saves.n; i++)
        free_save(&node->saves.items[i]);
    CLEAR(&node->saves);
    CLEAR(&node->applies);
}

/* The terms of a stored log. */
static uint32_t find_spans(const struct scenario_node *node, struct raft_term_span *spans)
{
    uint32_t n = 0;

    for (size_t i = 0; i < node->log.n; i++) {
        uint64_t term = node->log.items[i].block->term;

        if (i == 0 || term != spans[n - 1].term)
            spans[n++] = (struct raft_term_span){node->base + i + 1, term};
    }
    return n;
}

static uint64_t last_change(const struct scenario_node *node)
{
    for (size_t i = node->log.n; i > 0; i--) {
        const struct scenario_entry *e = &node->log.items[i - 1];

        if (nh_record_type(e->block->data + e->block->offsets[e->at]) == NH_ENTRY_CONFIG_CHANGE)
            return node->base + i;
    }
    return 0;
}

/* The machine begins with its snapshot. */
void scenario_start(struct scenario *s, struct scenario_node *node)
{
    struct raft_term_span *spans = xcalloc(node->log.n + 1, sizeof *spans);
    struct raft_boot b = {.state = node->state,
                          .first_index = node->base + 1,
                          .last_index = scenario_log_last(node),
                          .anchor_term = node->base_term,
                          .spans = spans,
                          .n_spans = find_spans(node, spans),
                          .applied = node->snapshot.index,
                          .membership = &node->membership,
                          .config_bound = last_change(node),
                          .snapshot = node->snapshot.index ? &node->snapshot : NULL,
                          .now = node->now};
    struct nh_error err = {0};

    nh_membership_deinit(&node->membership);
    nh_membership_copy(&node->membership, node->snapshot.index ? &node->snapshot.membership : &node->initial);
    node->machine = node->snapshot.index;
    node->options.seed += 1000; /* not the timeouts of the life before */
    node->told_role = RAFT_FOLLOWER;
    node->told_term = node->state.term;
    if (raft_new(&node->options, &b, &node->core, &err) < 0)
        scenario_fail(s, "%s", err.text);
    free(spans);
    if (node->core && raft_has_work(node->core)) {
        struct raft_update out = {0};

        collect(s, node, &out);
        raft_update_deinit(&out);
    }
}

void scenario_tick(struct scenario *s, struct scenario_node *node)
{
    struct raft_event ev = {.type = RAFT_EV_TICK};

    node->now++;
    if (node->core)
        scenario_step(s, node, &ev);
}

static void clear_messages(struct nh_message *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        nh_message_deinit(&items[i]);
    free(items);
}

void scenario_reset(struct scenario *s)
{
    struct scenario fresh = {.trace = s->trace,
                             .next_key = 1,
                             .next_read = 1,
                             .next_transfer = 1,
                             .out = s->out,
                             .out_n = s->out_n,
                             .out_cap = s->out_cap};

    for (uint64_t id = 0; id < SCENARIO_NODES; id++) {
        scenario_crash(&s->nodes[id]);
        scenario_clear_store(&s->nodes[id]);
        free(s->nodes[id].log.items);
        nh_membership_deinit(&s->nodes[id].membership);
        nh_membership_deinit(&s->nodes[id].initial);
    }
    nh_membership_deinit(&s->first_members);
    clear_messages(s->bag.items, s->bag.n);
    clear_messages(s->delayed.items, s->delayed.n);
    for (size_t i = 0; i < s->committed.n; i++)
        nh_block_unref(s->committed.items[i].block);
    free(s->committed.items);
    free(s->asked.items);
    free(s->leaders.items);
    *s = fresh;
}
