/* What Raft promises (paper, figure 3), looked at after every event. */
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <string.h>

#include "engine/raft/raft_internal.h"

static const uint8_t *record_of(const struct scenario_entry *e)
{
    return e->block->data + e->block->offsets[e->at];
}

static bool is_metadata(const struct scenario_entry *e)
{
    return nh_record_type(record_of(e)) == NH_ENTRY_METADATA;
}

/* A witness has no more of an entry than its index and term. */
static bool same_entry(const struct scenario_entry *a, const struct scenario_entry *b)
{
    size_t bytes = nh_record_bytes(record_of(a));

    if (is_metadata(a) || is_metadata(b))
        return a->block->term == b->block->term && nh_record_index(record_of(a)) == nh_record_index(record_of(b));
    return bytes == nh_record_bytes(record_of(b)) && memcmp(record_of(a), record_of(b), bytes) == 0;
}

uint64_t scenario_first(const struct scenario_node *node)
{
    return node->core ? node->core->log.first : node->base + 1;
}

bool scenario_entry(const struct scenario_node *node, uint64_t index, struct scenario_entry *ret)
{
    const struct scenario_entry *stored = scenario_stored(node, index);
    struct run_list runs = {0};

    if (node->core && raft_cached_runs(node->core, index, index + 1, &runs)) {
        *ret = (struct scenario_entry){runs.runs[0].block, runs.runs[0].from}; /* the core keeps a reference */
        run_list_deinit(&runs);
        return true;
    }
    if (!stored || index < scenario_first(node) || (node->core && raft_term_at(node->core, index) == 0))
        return false;
    *ret = *stored;
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
    for (uint64_t i = st->first_index; i <= s->committed.n; i++)
        if (raft_term_at(node->core, i) != s->committed.items[i - 1].block->term)
            scenario_fail(s, "leader %" PRIu64 " of term %" PRIu64 " lacks committed entry %" PRIu64, node->id, st->term, i);
}

/* Is the entry in the stores of a majority of this half of the node's configuration? */
static bool is_on_half(const struct scenario *s, const struct raft *core, bool outgoing, uint64_t index,
                       const struct scenario_entry *e)
{
    size_t holders = 0, voters = 0;

    for (uint32_t i = 0; i < core->n_members; i++) {
        const struct raft_member *m = &core->members[i];
        const struct scenario_node *node = &s->nodes[m->id];
        const struct scenario_entry *stored = scenario_stored(node, index);

        if (outgoing ? !m->outgoing : m->kind != NH_MEMBER_VOTER && m->kind != NH_MEMBER_WITNESS)
            continue;
        voters++;
        holders += node->base >= index || (stored && same_entry(stored, e));
    }
    return holders >= raft_quorum(voters);
}

static void check_new_commit(struct scenario *s, const struct scenario_node *node, uint64_t index, const struct scenario_entry *e)
{
    if (!is_on_half(s, node->core, false, index, e) || (node->core->joint && !is_on_half(s, node->core, true, index, e)))
        scenario_fail(s, "node %" PRIu64 " commits %" PRIu64 ", which no quorum has stored", node->id, index);
    *RAFT_PUSH(&s->committed) = (struct scenario_entry){nh_block_ref(e->block), e->at};
}

/* What a snapshot holds must have been committed, with that last entry. */
static void check_anchor(struct scenario *s, const struct scenario_node *node, uint64_t index)
{
    if (index > s->committed.n || raft_term_at(node->core, index) != s->committed.items[index - 1].block->term)
        scenario_fail(s, "node %" PRIu64 " begins after %" PRIu64 ", which is not what was committed", node->id, index);
}

/* State machine safety: all commit the same, and only what is durable on a quorum. */
static void check_commit(struct scenario *s, const struct scenario_node *node, const struct raft_status *st)
{
    if (st->first_index > 1)
        check_anchor(s, node, st->first_index - 1);
    for (uint64_t i = st->first_index; i <= st->commit_index && !s->error[0]; i++) {
        struct scenario_entry e;

        if (!scenario_entry(node, i, &e))
            scenario_fail(s, "node %" PRIu64 " commits %" PRIu64 ", which it does not hold", node->id, i);
        else if (i > s->committed.n)
            check_new_commit(s, node, i, &e);
        else if (!same_entry(&e, &s->committed.items[i - 1]))
            scenario_fail(s, "node %" PRIu64 " commits another entry %" PRIu64, node->id, i);
    }
}

/* Log matching: below an index where two logs have the same term they are the same. */
static void check_matching(struct scenario *s, const struct scenario_node *a, const struct scenario_node *b)
{
    uint64_t first = scenario_first(a) > scenario_first(b) ? scenario_first(a) : scenario_first(b), last = 0;
    struct scenario_entry in_a, in_b;

    for (uint64_t i = first; scenario_entry(a, i, &in_a) && scenario_entry(b, i, &in_b); i++)
        if (in_a.block->term == in_b.block->term)
            last = i;
    for (uint64_t i = first; i <= last; i++) {
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
