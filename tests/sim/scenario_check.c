/* What Raft promises (paper, figure 3), looked at after every event. Membership is fixed. */
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <string.h>

#include "engine/raft/raft_internal.h"

static const uint8_t *record_of(const struct scenario_entry *e)
{
    return e->block->data + e->block->offsets[e->at];
}

static bool same_entry(const struct scenario_entry *a, const struct scenario_entry *b)
{
    size_t bytes = nh_record_bytes(record_of(a));

    return bytes == nh_record_bytes(record_of(b)) && memcmp(record_of(a), record_of(b), bytes) == 0;
}

bool scenario_entry(const struct scenario_node *node, uint64_t index, struct scenario_entry *ret)
{
    struct run_list runs = {0};

    if (node->core && raft_cached_runs(node->core, index, index + 1, &runs)) {
        *ret = (struct scenario_entry){runs.runs[0].block, runs.runs[0].from}; /* the core keeps a reference */
        run_list_deinit(&runs);
        return true;
    }
    if (index == 0 || index > node->log.n || (node->core && raft_term_at(node->core, index) == 0))
        return false;
    *ret = node->log.items[index - 1];
    return true;
}

/* Election safety and leader completeness. */
static void check_leader(struct scenario *s, const struct scenario_node *node, const struct raft_status *st)
{
    for (size_t i = 0; i < s->leaders.n; i++) {
        if (s->leaders.items[i].low != st->term)
            continue;
        if (s->leaders.items[i].high != node->id)
            scenario_fail(s, "two leaders in term %" PRIu64 ": %" PRIu64 " and %" PRIu64, st->term, s->leaders.items[i].high,
                          node->id);
        return;
    }
    *RAFT_PUSH(&s->leaders) = (struct raft_read){.low = st->term, .high = node->id};
    for (uint64_t i = 1; i <= s->committed.n; i++)
        if (raft_term_at(node->core, i) != s->committed.items[i - 1].block->term)
            scenario_fail(s, "leader %" PRIu64 " of term %" PRIu64 " lacks committed entry %" PRIu64, node->id, st->term, i);
}

/* Is the entry in the stores of a majority of the voters? */
static bool is_on_quorum(const struct scenario *s, uint64_t index, const struct scenario_entry *e)
{
    size_t holders = 0, voters = 0;

    for (uint64_t id = 1; id < SCENARIO_NODES; id++) {
        const struct scenario_node *node = &s->nodes[id];

        if (node->id == 0 || node->kind == NH_MEMBER_NON_VOTING)
            continue;
        voters++;
        holders += node->log.n >= index && same_entry(&node->log.items[index - 1], e);
    }
    return holders >= raft_quorum(voters);
}

/* State machine safety: all commit the same, and only what is durable on a quorum. */
static void check_commit(struct scenario *s, const struct scenario_node *node, const struct raft_status *st)
{
    for (uint64_t i = 1; i <= st->commit_index; i++) {
        struct scenario_entry e;

        if (!scenario_entry(node, i, &e)) {
            scenario_fail(s, "node %" PRIu64 " commits %" PRIu64 ", which it does not hold", node->id, i);
            return;
        }
        if (i > s->committed.n) {
            if (!is_on_quorum(s, i, &e))
                scenario_fail(s, "node %" PRIu64 " commits %" PRIu64 ", which no quorum has stored", node->id, i);
            *RAFT_PUSH(&s->committed) = (struct scenario_entry){nh_block_ref(e.block), e.at};
        } else if (!same_entry(&e, &s->committed.items[i - 1])) {
            scenario_fail(s, "node %" PRIu64 " commits another entry %" PRIu64, node->id, i);
        }
    }
}

/* Log matching: below an index where two logs have the same term they are the same. */
static void check_matching(struct scenario *s, const struct scenario_node *a, const struct scenario_node *b)
{
    struct scenario_entry in_a, in_b;
    uint64_t last = 0;

    for (uint64_t i = 1; scenario_entry(a, i, &in_a) && scenario_entry(b, i, &in_b); i++)
        if (in_a.block->term == in_b.block->term)
            last = i;
    for (uint64_t i = 1; i <= last; i++) {
        scenario_entry(a, i, &in_a);
        scenario_entry(b, i, &in_b);
        if (!same_entry(&in_a, &in_b))
            scenario_fail(s,
                          "log matching: %" PRIu64 " and %" PRIu64 " agree in the term of %" PRIu64 ", but not in entry %" PRIu64,
                          a->id, b->id, last, i);
    }
}

void scenario_check(struct scenario *s)
{
    for (uint64_t id = 1; id < SCENARIO_NODES; id++) {
        struct scenario_node *node = &s->nodes[id];
        const char *clause = "";
        struct raft_status st;

        if (node->core) {
            if (!raft_check(node->core, &clause))
                scenario_fail(s, "node %" PRIu64 " breaks: %s", id, clause);
            raft_get_status(node->core, &st);
            if (st.role == RAFT_LEADER)
                check_leader(s, node, &st);
            check_commit(s, node, &st);
        }
        for (uint64_t other = 1; other < id && node->id; other++)
            if (s->nodes[other].id)
                check_matching(s, node, &s->nodes[other]);
    }
}

/* Linearizable: not below what was committed anywhere when it was asked for. */
void scenario_check_read(struct scenario *s, const struct raft_read *read)
{
    for (size_t i = 0; i < s->asked.n; i++) {
        const struct raft_read *asked = &s->asked.items[i];

        if (asked->low == read->low && asked->high == read->high && read->index < asked->index)
            scenario_fail(s, "read %" PRIu64 " is answered with %" PRIu64 ", but %" PRIu64 " was committed", read->low,
                          read->index, asked->index);
    }
}
