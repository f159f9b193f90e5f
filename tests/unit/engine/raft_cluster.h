/* tests/unit/engine/raft_cluster.h - cores of engine/raft on one thread, with a simulated disk, machine and network.
 *
 * Nothing happens by itself: a message, a save, an application moves when the test says so or when cluster_settle moves
 * everything that is not held back. A crash loses what is not saved. Every event is followed by raft_check and by checks of
 * what Raft promises (cluster_check), so each test is a safety test too.
 *
 * Ids that are members but have no core are *ghosts*: what is sent to them is kept in `ghosts`, and the test speaks for them
 * by cluster_inject.
 */
#ifndef NH_TESTS_RAFT_CLUSTER_H
#define NH_TESTS_RAFT_CLUSTER_H

#include "engine/raft/raft.h"
#include "raftio/request.h"

#define CLUSTER_MAX 8u /* ids 1 .. CLUSTER_MAX - 1 */

/* One entry on a disk or in a machine; the block is referenced. */
struct stored_entry {
    struct nh_block *block;
    uint32_t at;
};

struct pending_save {
    uint64_t id; /* 0: only messages that wait for the saves before them */
    bool has_state;
    struct nh_state state;
    struct nh_snapshot snapshot; /* index 0: none */
    struct run_list runs;
    RAFT_VEC(struct nh_message) messages;
};

struct applied_range {
    uint64_t first, last; /* first == 0: the snapshot up to `last` */
};

struct cluster_node {
    uint64_t id;
    struct raft *core; /* NULL: down, or a ghost */
    struct raft_options options;

    struct nh_state disk_state;
    uint64_t base;                      /* entries up to here are compacted */
    RAFT_VEC(struct stored_entry) disk; /* index i at [i - base - 1] */
    struct nh_snapshot snapshot;        /* durable; index 0: none */
    RAFT_VEC(struct pending_save) saves;
    RAFT_VEC(struct applied_range) applies; /* handed out, not reported applied */
    RAFT_VEC(struct raft_fetch) fetches;    /* held back */
    uint64_t applied;                       /* reported; survives a crash */
    uint64_t machine;                       /* entries seen by the machine */
    struct nh_membership membership;        /* as of `machine`; survives a crash */
    bool removed;                           /* the core said so */
    bool snapshot_wanted;                   /* said its last update */
    uint32_t fast_percent;                  /* so much faster than the others' its clock is */

    bool hold_saves, hold_applies, hold_fetches, fail_fetches;
    uint64_t untold_saved, untold_applied; /* of a lazy cluster: told before the next event; 0: none */
    RAFT_VEC(struct nh_message) untold;    /* answers, the same */

    /* What came out since the test looked last. */
    RAFT_VEC(struct raft_read) reads;
    RAFT_VEC(struct raft_dropped) dropped;
    RAFT_VEC(struct raft_transfer_end) transfers;
    uint32_t n_saves, n_synced_states, n_fetches;
};

/* What Raft promises, as seen so far. */
struct cluster_history {
    RAFT_VEC(struct stored_entry) committed; /* the one log; index i at [i - 1] */
    uint64_t leader_of_term[4096];
    RAFT_VEC(uint64_t) dropped_keys;
    RAFT_VEC(struct raft_read) asked; /* index: what was committed when the read was asked for */
};

struct cluster {
    struct cluster_node nodes[CLUSTER_MAX]; /* by id */
    uint32_t n;                             /* members 1 .. n at the start */
    uint64_t now;
    uint64_t random;
    uint64_t next_key;
    RAFT_VEC(struct nh_message) network; /* oldest first */
    RAFT_VEC(struct nh_message) ghosts;
    bool cut[CLUSTER_MAX][CLUSTER_MAX]; /* from, to: lost, and reported unreachable if `report_lost` */
    bool report_lost;
    bool lazy;       /* SAVED and APPLIED come with the next event unless the core awaits them; else that is checked: they change
                        nothing */
    bool ids_return; /* a removed id may be added again, which a real shard refuses */
    bool (*lose)(const struct nh_message *m, void *ctx); /* NULL: nothing is lost */
    void *lose_ctx;
    struct cluster_history history;
    uint64_t delivered[NH_MSG_TYPE_COUNT];
};

/* E 10, heartbeat 1, pre-vote and check-quorum on. */
struct raft_options cluster_options(void);
/* n members, each with a core that has booted and applied the bootstrap entry. `options` NULL: cluster_options(). */
void cluster_init(struct cluster *c, uint32_t n, const struct raft_options *options);
/* The same, and replica 1 leads. Options: cluster_options(). */
void cluster_start(struct cluster *c, uint32_t n);
/* As cluster_init, but only the ids up to n_cores have a core. */
void cluster_init_ghosts(struct cluster *c, uint32_t n_cores, uint32_t n, const struct raft_options *options);
void cluster_deinit(struct cluster *c);
uint64_t cluster_random(struct cluster *c, uint64_t below);

/* One event, collected and put on its way. */
void cluster_step(struct cluster *c, uint64_t id, struct raft_event *ev);
void cluster_deliver(struct cluster *c, size_t i); /* network.items[i] */
void cluster_lose(struct cluster *c, size_t i);
void cluster_double(struct cluster *c, size_t i);
void cluster_save(struct cluster *c, uint64_t id);      /* the oldest save becomes durable */
void cluster_apply(struct cluster *c, uint64_t id);     /* the oldest range */
void cluster_fetch(struct cluster *c, uint64_t id);     /* the oldest fetch is answered */
void cluster_settle(struct cluster *c);                 /* until nothing moves that is not held */
void cluster_tick(struct cluster *c, uint32_t ticks);   /* settles after each */
void cluster_tick_node(struct cluster *c, uint64_t id); /* now stays; TICK to one core, not settled */

void cluster_campaign(struct cluster *c, uint64_t id); /* settles */
void cluster_elect(struct cluster *c, uint64_t id);    /* campaigns; fails the test unless it leads then */
uint64_t cluster_propose(struct cluster *c, uint64_t id, uint32_t n, uint32_t payload_bytes); /* first key; not settled */
uint64_t cluster_propose_change(struct cluster *c, uint64_t id, bool add, uint64_t member);   /* a voter */
uint64_t cluster_propose_config(struct cluster *c, uint64_t id, const struct nh_config_change *change);
/* Several at once, made by cluster_change. */
uint64_t cluster_propose_changes(struct cluster *c, uint64_t id, enum nh_config_transition transition,
                                 struct nh_member_change *changes, uint32_t n);
uint64_t cluster_propose_leave(struct cluster *c, uint64_t id); /* the joint configuration */
struct nh_member_change cluster_change(enum nh_config_change_type type, enum nh_member_kind kind, uint64_t member);
/* What this replica knows; it must be down. Kinds by id, from 1 on: 'v' voter, 'n' non-voting, 'w' witness, '-' no member. */
void cluster_set_members(struct cluster *c, uint64_t id, const char *kinds);
/* A snapshot of what is applied here; the log up to `index` is compacted. */
void cluster_compact(struct cluster *c, uint64_t id, uint64_t index);
void cluster_transfer(struct cluster *c, uint64_t id, uint64_t target); /* key: 7; not settled */
uint64_t cluster_read(struct cluster *c, uint64_t id);                  /* low word of the context; not settled */
void cluster_crash(struct cluster *c, uint64_t id);                     /* unsaved work is lost */
void cluster_restart(struct cluster *c, uint64_t id);
/* Its machine is not on disk: it will begin at the newest snapshot. It must be down. */
void cluster_forget_machine(struct cluster *c, uint64_t id);
uint64_t cluster_now(const struct cluster *c, uint64_t id); /* by its clock */
void cluster_isolate(struct cluster *c, uint64_t id, bool isolated);
void cluster_heal(struct cluster *c);

struct raft_status cluster_status(const struct cluster *c, uint64_t id);
struct raft_peer_status cluster_peer(const struct cluster *c, uint64_t leader, uint64_t peer);
uint64_t cluster_leader(const struct cluster *c); /* of the highest term; 0: none */
/* Has the machine of `id` seen this key, how often? */
uint32_t cluster_applied_times(const struct cluster *c, uint64_t id, uint64_t key);
/* Every live core has the same log, all of it applied. */
bool cluster_agrees(const struct cluster *c);
void cluster_check(struct cluster *c);
void cluster_check_logs_match(const struct cluster *c);

/* Speaking for a ghost. */
struct nh_message cluster_message(enum nh_message_type type, uint64_t from, uint64_t to, uint64_t term);
/* REQUEST_VOTE or REQUEST_PRE_VOTE to replica 1, from a candidate whose log ends in (log_term, log_index). */
struct nh_message cluster_candidacy(enum nh_message_type type, uint64_t from, uint64_t term, uint64_t log_term,
                                    uint64_t log_index);
/* Appends entries of the given terms to the message, after its log_index. */
void cluster_add_entries(struct nh_message *m, const uint64_t *terms, uint32_t n);
void cluster_add_proposals(struct nh_message *m, uint64_t first_key, uint32_t n, uint32_t payload_bytes);
void cluster_inject(struct cluster *c, struct nh_message m); /* takes the message; not settled */
/* The newest message of a type that was sent to a ghost (to 0: any); NULL: none. Valid until the next event. */
const struct nh_message *cluster_sent(const struct cluster *c, enum nh_message_type type, uint64_t to);
uint32_t cluster_count_sent(const struct cluster *c, enum nh_message_type type, uint64_t to);
void cluster_forget_sent(struct cluster *c);
/* Writes a log of these terms (index 1 on) and a state to the disk of a node that is down, and starts it. */
void cluster_boot_with(struct cluster *c, uint64_t id, const uint64_t *terms, uint32_t n, struct nh_state state,
                       uint64_t applied);
/* The same, with an empty disk: a core that knows nobody, as a joining replica. */
void cluster_join(struct cluster *c, uint64_t id);

#endif
