/* The commands that make nodes and change what they begin with. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "tests/sim/scenario_commands.h"

/* ---- options ---- */

static void read_flag(struct args *a, const char *name, bool *flag)
{
    *flag |= args_flag(a, name);
}

static void read_u32(struct args *a, const char *name, uint32_t *number)
{
    *number = (uint32_t)args_number(a, name, *number);
}

static void read_u64(struct args *a, const char *name, uint64_t *number)
{
    *number = args_number(a, name, *number);
}

/* What is not named stays as it is. */
static void read_options(struct args *a, struct raft_options *o)
{
    read_u32(a, "election", &o->election_ticks);
    read_u32(a, "heartbeat", &o->heartbeat_ticks);
    read_flag(a, "pre_vote", &o->pre_vote);
    read_flag(a, "check_quorum", &o->check_quorum);
    read_flag(a, "quiesce", &o->quiesce);
    read_u32(a, "quiesce_ticks", &o->quiesce_ticks);
    read_flag(a, "lease_reads", &o->lease_reads);
    read_flag(a, "lazy_commit", &o->lazy_commit);
    read_flag(a, "lazy_heartbeat", &o->lazy_heartbeat);
    read_flag(a, "lead_when_removed", &o->lead_when_removed);
    read_u32(a, "priority", &o->priority);
    read_u32(a, "max_inflight", &o->max_inflight_messages);
    read_u64(a, "max_message_bytes", &o->max_message_bytes);
    read_u64(a, "max_uncommitted_bytes", &o->max_uncommitted_bytes);
    read_u64(a, "max_unapplied_bytes", &o->max_unapplied_bytes);
    read_u64(a, "seed", &o->seed);
}

/* ---- nodes ---- */

static void make_node(struct scenario *s, uint64_t id)
{
    s->nodes[id] = (struct scenario_node){.id = id, .options = s->options};
    s->nodes[id].options.replica_id = id;
    s->nodes[id].options.seed += id;
}

static void make_members(struct args *a, const char *name, uint32_t kind, struct nh_member *members)
{
    const char *list = args_named(a, name);
    uint32_t set = 0;

    if (list)
        args_each_number(a, list, args_add_id, &set);
    for (uint64_t id = 1; id < SCENARIO_NODES; id++) {
        if (!(set >> id & 1u))
            continue;
        if (a->s->nodes[id].id)
            MISUSED(a, "node %" PRIu64 " is named twice", id);
        make_node(a->s, id);
        members[id] = scenario_member(id, kind);
    }
}

/* All know all. */
static void introduce(struct scenario *s, const struct nh_member *members)
{
    struct nh_membership *m = &s->first_members;

    m->members = xcalloc(SCENARIO_NODES, sizeof *m->members);
    for (uint64_t id = 1; id < SCENARIO_NODES; id++)
        if (members[id].replica_id)
            m->members[m->n_members++] = members[id];
    for (uint64_t id = 1; id < SCENARIO_NODES; id++)
        if (s->nodes[id].id)
            nh_membership_copy(&s->nodes[id].initial, m);
}

void command_cluster(struct args *a)
{
    struct nh_member members[SCENARIO_NODES] = {0};

    scenario_reset(a->s);
    a->s->options = (struct raft_options){.shard_id = SCENARIO_SHARD,
                                          .election_ticks = 10,
                                          .heartbeat_ticks = 1,
                                          .max_cached_bytes = UINT64_MAX};
    read_options(a, &a->s->options);
    if (!args_named(a, "voters"))
        MISUSED(a, "voters are missing");
    make_members(a, "voters", NH_MEMBER_VOTER, members);
    make_members(a, "non_voting", NH_MEMBER_NON_VOTING, members);
    make_members(a, "witness", NH_MEMBER_WITNESS, members);
    introduce(a->s, members);
    for (uint64_t id = 1; id < SCENARIO_NODES; id++)
        if (a->s->nodes[id].id && !a->s->error[0])
            scenario_start(a->s, &a->s->nodes[id]);
}

void command_join(struct args *a)
{
    uint64_t id = args_to_number(a, args_need(a, "an id"));

    if (a->s->error[0])
        return;
    if (id == 0 || id >= SCENARIO_NODES || a->s->nodes[id].id) {
        MISUSED(a, "node %" PRIu64 " is there, or cannot be", id);
        return;
    }
    make_node(a->s, id);
    scenario_start(a->s, &a->s->nodes[id]);
}

void command_options(struct args *a)
{
    struct scenario_node *node = args_node(a);

    if (a->s->error[0])
        return;
    read_options(a, &node->options);
    scenario_crash(node);
    scenario_start(a->s, node);
}

static void append_term(struct args *a, uint64_t term, void *ctx)
{
    struct scenario_node *node = ctx;

    if (term == 0 || (node->log.n > 0 && term < node->log.items[node->log.n - 1].block->term))
        MISUSED(a, "terms are above 0 and never fall");
    else
        scenario_append_log(node, term);
    if (term > node->state.term)
        node->state = (struct nh_state){.term = term};
}

void command_log(struct args *a)
{
    struct scenario_node *node = args_node(a);
    const char *terms = args_next(a);

    if (a->s->error[0])
        return;
    scenario_crash(node);
    scenario_clear_store(node);
    node->state.commit = 0;
    if (terms)
        args_each_number(a, terms, append_term, node);
    if (!a->s->error[0])
        scenario_start(a->s, node);
}

/* A vote is of its term: another term without a vote has none. */
void command_state(struct args *a)
{
    struct scenario_node *node = args_node(a);
    uint64_t term;

    if (a->s->error[0])
        return;
    term = args_number(a, "term", node->state.term);
    node->state.vote = args_number(a, "vote", term == node->state.term ? node->state.vote : NH_NO_REPLICA);
    node->state.term = term;
    node->state.commit = args_number(a, "commit", node->state.commit);
    scenario_crash(node);
    scenario_start(a->s, node);
}
