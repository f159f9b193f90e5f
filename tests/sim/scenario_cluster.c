/* Cores, their stores and the bag of messages. */
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

/* ---- store ---- */

static void cut_log(struct scenario_node *node, uint64_t last)
{
    while (node->log.n > last)
        nh_block_unref(node->log.items[--node->log.n].block);
}

static void store_entry(struct scenario_node *node, struct nh_block *block, uint32_t at)
{
    *RAFT_PUSH(&node->log) = (struct scenario_entry){nh_block_ref(block), at};
}

void scenario_clear_log(struct scenario_node *node)
{
    cut_log(node, 0);
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
    struct nh_block *block = scenario_block(term, node->log.n + 1);

    store_entry(node, block, 0);
    nh_block_unref(block);
}

static void free_save(struct scenario_save *save)
{
    run_list_deinit(&save->runs);
    for (size_t i = 0; i < save->messages.n; i++)
        nh_message_deinit(&save->messages.items[i]);
    CLEAR(&save->messages);
}

void scenario_crash(struct scenario_node *node)
{
    raft_free(node->core);
    node->core = NULL;
    for (size_t i = 0; i < node->saves.n; i++)
        free_save(&node->saves.items[i]);
    CLEAR(&node->saves);
}

/* ---- what an update asks for ---- */

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
    for (size_t i = 0; i < out->send_after_save.n; i++) {
        if (node->hold_saves)
            scenario_print_message(s, "  held ", &out->send_after_save.items[i]);
        *RAFT_PUSH(&save->messages) = out->send_after_save.items[i];
        out->send_after_save.items[i] = (struct nh_message){0};
    }
}

/* What is handed out for applying must be in the store, the same entries. */
static void check_apply(struct scenario *s, const struct scenario_node *node, const struct raft_update *out)
{
    uint64_t index = out->apply_first;

    if (out->apply_last > node->log.n)
        scenario_fail(s, "node %" PRIu64 " applies %" PRIu64 ", which is not saved", node->id, out->apply_last);
    for (uint32_t i = 0; i < out->apply_runs.n && !s->error[0]; i++) {
        const struct nh_run *run = &out->apply_runs.runs[i];

        for (uint32_t at = run->from; at < run->to; at++, index++)
            if (node->log.items[index - 1].block->term != run->block->term || run->block->first_index + at != index)
                scenario_fail(s, "node %" PRIu64 " applies another entry %" PRIu64 " than it saved", node->id, index);
    }
}

static void fetch(struct scenario *s, struct scenario_node *node, const struct raft_fetch *f)
{
    struct raft_event ev = {.type = RAFT_EV_FETCHED, .fetched.peer = f->peer};
    struct run_list runs = {0};

    for (uint64_t i = f->low; i < f->high && i <= node->log.n && (i == f->low || run_list_bytes(&runs) < f->max_bytes); i++)
        run_list_add(&runs, node->log.items[i - 1].block, node->log.items[i - 1].at, node->log.items[i - 1].at + 1);
    ev.fetched.runs = runs.runs;
    ev.fetched.n_runs = runs.n;
    scenario_step(s, node, &ev);
    run_list_deinit(&runs);
}

/* Collects until nothing is left to do; `out` holds what a step gave. */
static void collect(struct scenario *s, struct scenario_node *node, struct raft_update *out)
{
    struct raft_event applied = {.type = RAFT_EV_APPLIED, .now = node->now};

    raft_collect(node->core, out);
    print_update(s, node, out);
    print_role(s, node);
    for (size_t i = 0; i < out->send.n; i++)
        post(s, &out->send.items[i]);
    for (size_t i = 0; i < out->reads.n; i++)
        scenario_check_read(s, &out->reads.items[i]);
    check_apply(s, node, out);
    queue_save(s, node, out);
    scenario_check(s);
    applied.applied = out->apply_last;
    if (applied.applied && !s->error[0])
        scenario_step(s, node, &applied);
    for (size_t i = 0; i < out->fetches.n && !s->error[0]; i++)
        fetch(s, node, &out->fetches.items[i]);
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

static void make_durable(struct scenario *s, struct scenario_node *node, const struct scenario_save *save)
{
    if (save->has_state)
        node->state = save->state;
    if (save->runs.n > 0)
        cut_log(node, nh_run_first(&save->runs.runs[0]) - 1);
    for (uint32_t i = 0; i < save->runs.n; i++) {
        const struct nh_run *run = &save->runs.runs[i];

        if (nh_run_first(run) != node->log.n + 1)
            scenario_fail(s, "node %" PRIu64 " saves entries that leave a hole before %" PRIu64, node->id, nh_run_first(run));
        for (uint32_t at = run->from; at < run->to; at++)
            store_entry(node, run->block, at);
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
        make_durable(s, node, &save);
        if (save.id && !s->error[0])
            scenario_step(s, node, &ev);
        for (size_t i = 0; i < save.messages.n; i++)
            post(s, &save.messages.items[i]);
        free_save(&save);
    }
}

/* ---- life ---- */

static void fill_membership(const struct scenario *s, struct nh_member *members, struct nh_membership *ret)
{
    *ret = (struct nh_membership){.members = members};
    for (uint64_t id = 1; id < SCENARIO_NODES; id++)
        if (s->nodes[id].id)
            members[ret->n_members++] = (struct nh_member){.replica_id = id, .kind = s->nodes[id].kind};
}

void scenario_start(struct scenario *s, struct scenario_node *node)
{
    struct nh_member members[SCENARIO_NODES];
    struct nh_membership membership;
    struct raft_term_span *spans = xcalloc(node->log.n + 1, sizeof *spans);
    struct raft_boot b = {.state = node->state,
                          .first_index = 1,
                          .last_index = node->log.n,
                          .spans = spans,
                          .membership = &membership,
                          .now = node->now};
    struct nh_error err = {0};

    for (size_t i = 0; i < node->log.n; i++) {
        uint64_t term = node->log.items[i].block->term;

        if (i == 0 || term != spans[b.n_spans - 1].term)
            spans[b.n_spans++] = (struct raft_term_span){i + 1, term};
    }
    fill_membership(s, members, &membership);
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
    struct scenario fresh = {
        .trace = s->trace, .next_key = 1, .next_read = 1, .out = s->out, .out_n = s->out_n, .out_cap = s->out_cap};

    for (uint64_t id = 0; id < SCENARIO_NODES; id++) {
        scenario_crash(&s->nodes[id]);
        cut_log(&s->nodes[id], 0);
        free(s->nodes[id].log.items);
    }
    clear_messages(s->bag.items, s->bag.n);
    clear_messages(s->delayed.items, s->delayed.n);
    for (size_t i = 0; i < s->committed.n; i++)
        nh_block_unref(s->committed.items[i].block);
    free(s->committed.items);
    free(s->asked.items);
    free(s->leaders.items);
    *s = fresh;
}

/* ---- the bag ---- */

static bool matches(const struct scenario_filter *f, const struct nh_message *m)
{
    return (!f->from || m->from == f->from) && (!f->to || m->to == f->to) &&
           (f->type == NH_MSG_TYPE_COUNT || m->type == f->type) && (f->nodes >> m->from & 1u) && (f->nodes >> m->to & 1u);
}

static void deliver(struct scenario *s, struct nh_message *m)
{
    struct scenario_node *node = &s->nodes[m->to];
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = m};

    scenario_print_message(s, node->core ? "" : "lost ", m);
    if (node->core)
        scenario_step(s, node, &ev);
    nh_message_deinit(m);
}

uint64_t scenario_deliver(struct scenario *s, const struct scenario_filter *f)
{
    uint64_t n = 0;
    size_t end = s->bag.n;

    for (size_t i = 0; i < end && n < f->n && !s->error[0];) {
        struct nh_message m = s->bag.items[i];

        if (!matches(f, &m)) {
            i++;
            continue;
        }
        REMOVE(&s->bag, i);
        end--;
        n++;
        deliver(s, &m);
    }
    return n;
}

uint64_t scenario_drop(struct scenario *s, const struct scenario_filter *f)
{
    uint64_t n = 0;

    for (size_t i = 0; i < s->bag.n && n < f->n;) {
        if (!matches(f, &s->bag.items[i])) {
            i++;
            continue;
        }
        n++;
        scenario_print_message(s, "drop ", &s->bag.items[i]);
        nh_message_deinit(&s->bag.items[i]);
        REMOVE(&s->bag, i);
    }
    return n;
}

static struct nh_message copy_message(const struct nh_message *m)
{
    struct nh_message copy = *m;
    struct run_list runs = {0};

    for (uint32_t i = 0; i < m->n_runs; i++)
        run_list_add(&runs, m->runs[i].block, m->runs[i].from, m->runs[i].to);
    copy.runs = runs.runs;
    copy.n_runs = runs.n;
    return copy;
}

uint64_t scenario_duplicate(struct scenario *s, const struct scenario_filter *f)
{
    size_t end = s->bag.n;
    uint64_t n = 0;

    for (size_t i = 0; i < end && n < f->n; i++) {
        struct nh_message copy;

        if (!matches(f, &s->bag.items[i]))
            continue;
        n++;
        scenario_print_message(s, "duplicate ", &s->bag.items[i]);
        copy = copy_message(&s->bag.items[i]);
        *RAFT_PUSH(&s->bag) = copy;
    }
    return n;
}

uint64_t scenario_delay(struct scenario *s, const struct scenario_filter *f)
{
    uint64_t n = 0;

    for (size_t i = 0; i < s->bag.n && n < f->n;) {
        if (!matches(f, &s->bag.items[i])) {
            i++;
            continue;
        }
        n++;
        scenario_print_message(s, "delay ", &s->bag.items[i]);
        *RAFT_PUSH(&s->delayed) = s->bag.items[i];
        REMOVE(&s->bag, i);
    }
    return n;
}

void scenario_resume(struct scenario *s)
{
    for (size_t i = 0; i < s->delayed.n; i++) {
        scenario_print_message(s, "resume ", &s->delayed.items[i]);
        *RAFT_PUSH(&s->bag) = s->delayed.items[i];
    }
    s->delayed.n = 0;
}
