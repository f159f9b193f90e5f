/* The bag of messages: what a script does with them. */
#include "tests/sim/scenario.h"

#include <string.h>

#include "engine/raft/raft_internal.h"
#include "raftio/support/memory.h"

#define REMOVE(v, i) (memmove(&(v)->items[i], &(v)->items[(i) + 1], ((v)->n - (i)-1) * sizeof *(v)->items), (v)->n--)

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

/* Takes the next message that is meant out of the bag: from `*i` on, not from `end` on. */
static bool take(struct scenario *s, const struct scenario_filter *f, size_t *i, size_t end, struct nh_message *ret)
{
    while (*i < end && !matches(f, &s->bag.items[*i]))
        ++*i;
    if (*i >= end)
        return false;
    *ret = s->bag.items[*i];
    REMOVE(&s->bag, *i);
    return true;
}

/* Not what comes into the bag meanwhile. */
uint64_t scenario_deliver(struct scenario *s, const struct scenario_filter *f)
{
    uint64_t n = 0;
    size_t i = 0, end = s->bag.n;
    struct nh_message m;

    for (; n < f->n && !s->error[0] && take(s, f, &i, end - n, &m); n++)
        deliver(s, &m);
    return n;
}

uint64_t scenario_drop(struct scenario *s, const struct scenario_filter *f)
{
    uint64_t n = 0;
    size_t i = 0;
    struct nh_message m;

    for (; n < f->n && take(s, f, &i, s->bag.n, &m); n++) {
        scenario_print_message(s, "drop ", &m);
        nh_message_deinit(&m);
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
    if (m->snapshot) {
        copy.snapshot = xcalloc(1, sizeof *copy.snapshot);
        nh_snapshot_copy(copy.snapshot, m->snapshot);
    }
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
    size_t i = 0;
    struct nh_message m;

    for (; n < f->n && take(s, f, &i, s->bag.n, &m); n++) {
        scenario_print_message(s, "delay ", &m);
        *RAFT_PUSH(&s->delayed) = m;
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
