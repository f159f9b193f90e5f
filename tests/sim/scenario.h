/* tests/sim/scenario.h - cores of engine/raft driven by a script, one event at a time, with a trace of what they do.
 *
 * Files: scenario.c (reads scripts, compares or rewrites their golden output), scenario_commands.c (the table of commands),
 * scenario_setup.c (those that make nodes), scenario_members.c (those about members, snapshots and leadership), scenario_args.c
 * (their words), scenario_cluster.c (cores), scenario_store.c (stores and machines), scenario_bag.c (messages), scenario_check.c
 * (what Raft promises). The language is described in tests/sim/scenarios/README.md.
 *
 * Each node has a core, a store in memory that survives a crash, a machine that does not (it begins with the node's snapshot, or
 * with its first members), and a clock of its own. Saves and
 * applications are done at once unless they are held; a message lies in the bag until the script delivers it.
 */
#ifndef NH_TESTS_SIM_SCENARIO_H
#define NH_TESTS_SIM_SCENARIO_H

#include "engine/raft/raft.h"

#define SCENARIO_NODES 16u /* ids 1 .. SCENARIO_NODES - 1 */
#define SCENARIO_SHARD 1u

struct scenario_entry {
    struct nh_block *block; /* referenced */
    uint32_t at;
};

struct scenario_save {
    uint64_t id; /* 0: only messages that wait for the saves before them */
    bool has_state;
    struct nh_state state;
    struct nh_snapshot snapshot; /* index 0: none */
    struct run_list runs;
    RAFT_VEC(struct nh_message) messages;
};

struct scenario_applied {
    uint64_t first, last; /* first 0: the snapshot up to `last` */
};

struct scenario_node {
    uint64_t id; /* 0: there is no such node */
    struct raft_options options;
    struct raft *core; /* NULL: crashed */
    uint64_t now;
    bool hold_saves, hold_applies;

    /* The store. */
    struct nh_state state;
    uint64_t base, base_term;            /* entries up to here are compacted */
    RAFT_VEC(struct scenario_entry) log; /* index i at [i - base - 1] */
    struct nh_snapshot snapshot;         /* index 0: none */

    /* The machine. */
    uint64_t machine;                /* it holds everything up to this index */
    struct nh_membership initial;    /* before entry 1 */
    struct nh_membership membership; /* as of `machine` */
    bool applying;

    RAFT_VEC(struct scenario_save) saves;      /* in flight */
    RAFT_VEC(struct scenario_applied) applies; /* handed out */
    enum raft_role told_role;                  /* in the trace */
    uint64_t told_term;
};

struct scenario {
    struct scenario_node nodes[SCENARIO_NODES]; /* by id */
    RAFT_VEC(struct nh_message) bag;            /* oldest first */
    RAFT_VEC(struct nh_message) delayed;
    bool cut[SCENARIO_NODES][SCENARIO_NODES];
    bool trace;
    uint64_t next_key, next_read, next_transfer;
    struct raft_options options; /* of the cluster: who joins gets them too */
    struct nh_membership first_members;

    /* What Raft promised so far. */
    RAFT_VEC(struct scenario_entry) committed; /* index i at [i - 1] */
    RAFT_VEC(struct raft_read) asked;          /* reads; index: what was committed when they were asked for */
    RAFT_VEC(struct raft_read) leaders;        /* low: term, high: its leader */

    /* Output of the commands of one block, and why they failed ("" if they did not). */
    char *out;
    size_t out_n, out_cap;
    char error[512];
};

/* Which messages a command means: 0 (type: NH_MSG_TYPE_COUNT) matches any. */
struct scenario_filter {
    uint64_t from, to;
    uint32_t type;
    uint64_t n;     /* at most so many */
    uint32_t nodes; /* bit set of ids that both ends must be in */
};

/* ---- scenario_cluster.c ---- */

void scenario_print(struct scenario *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Only the first error counts. */
void scenario_fail(struct scenario *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Forgets all nodes, messages and history; keeps the output. The output's buffer is the caller's to free. */
void scenario_reset(struct scenario *s);

/* Starts the core of a node from its store; the trace shows what it does then. */
void scenario_start(struct scenario *s, struct scenario_node *node);
void scenario_crash(struct scenario_node *node); /* what is not saved is lost */
/* One event, and everything that follows from it in this node. */
void scenario_step(struct scenario *s, struct scenario_node *node, struct raft_event *ev);
void scenario_tick(struct scenario *s, struct scenario_node *node);
/* The oldest n saves become durable. */
void scenario_release_saves(struct scenario *s, struct scenario_node *node, uint64_t n);

/* ---- scenario_store.c ---- */

uint64_t scenario_log_last(const struct scenario_node *node);
/* NULL: the store has no such entry. */
const struct scenario_entry *scenario_stored(const struct scenario_node *node, uint64_t index);
struct nh_member scenario_member(uint64_t id, uint32_t kind); /* with an address of its own */
void scenario_clear_store(struct scenario_node *node);        /* all but its state */
void scenario_append_log(struct scenario_node *node, uint64_t term);
/* A block of one entry without payload: what index and term name is the same wherever it is made. */
struct nh_block *scenario_block(uint64_t term, uint64_t index);
void scenario_store(struct scenario *s, struct scenario_node *node, const struct scenario_save *save);
void scenario_fetch(struct scenario *s, struct scenario_node *node, const struct raft_fetch *f);
/* The oldest n ranges are applied. */
void scenario_apply(struct scenario *s, struct scenario_node *node, uint64_t n);
/* A snapshot of what is applied, and nothing up to `index` in the store any more. */
void scenario_compact(struct scenario *s, struct scenario_node *node, uint64_t index);

/* ---- scenario_bag.c ---- */

/* Each does it to those messages of the bag that are in it now, and returns how many. */
uint64_t scenario_deliver(struct scenario *s, const struct scenario_filter *f);
uint64_t scenario_drop(struct scenario *s, const struct scenario_filter *f);
uint64_t scenario_duplicate(struct scenario *s, const struct scenario_filter *f);
uint64_t scenario_delay(struct scenario *s, const struct scenario_filter *f);
void scenario_resume(struct scenario *s);
void scenario_print_message(struct scenario *s, const char *label, const struct nh_message *m);

/* ---- scenario_check.c ---- */

uint64_t scenario_first(const struct scenario_node *node); /* the first index of its log, which may be empty */
/* The entry of a running or crashed node at an index; false if it has none. The view is valid until the next event. */
bool scenario_entry(const struct scenario_node *node, uint64_t index, struct scenario_entry *ret);
void scenario_check(struct scenario *s);
void scenario_check_read(struct scenario *s, const struct raft_read *read);

/* ---- scenario_commands.c ---- */

/* One line of a script. Errors by scenario_fail. */
void scenario_command(struct scenario *s, const char *line);

#endif
