/* tests/conformance/raft-core/adapter.h - what the files of the adapter share: the core of engine/raft behind raft_core_test.h.
 *
 * After every event the core's update is collected at once and added to `pending`; rct_ready hands that batch out. So an event's
 * messages are seen as if they had been sent by it, and all saves of a batch become one.
 *
 * Two logs: `stable` is what the suite has stored, `log` is what the core holds now (it follows every update). Both copy what
 * they are given.
 *
 * Files: adapter.c (life, events in), adapter_input.c (proposals, messages in), adapter_ready.c (batches out, local work),
 * adapter_message.c (messages out, contexts of reads), adapter_store.c (logs, snapshots, memory), adapter_conf.c (configurations
 * and their changes), adapter_look.c (inspection).
 */
#ifndef NH_TESTS_RAFT_CORE_ADAPTER_H
#define NH_TESTS_RAFT_CORE_ADAPTER_H

#include "engine/raft/raft_internal.h"
#include "engine/rsm/membership.h"
#include "raftio/codec.h"

#pragma GCC visibility push(default)
#include "tests/conformance/raft-core/raft_core_test.h"
#pragma GCC visibility pop

#define RCT_SHARD 1u

/* ---- adapter_store.c ---- */

/* Memory that is given back all at once. Zeroed = empty. */
struct arena_chunk;
struct rct_arena {
    struct arena_chunk *chunks;
};
void *rct_arena_get(struct rct_arena *a, size_t bytes); /* zeroed */
const uint8_t *rct_arena_copy(struct rct_arena *a, const void *data, size_t bytes);
void rct_arena_deinit(struct rct_arena *a);

/* Consecutive entries from `first` on, each with its own copy of the data. */
struct entry_log {
    uint64_t first;
    RAFT_VEC(rct_entry) entries;
};
uint64_t entry_log_last(const struct entry_log *log);
const rct_entry *entry_log_at(const struct entry_log *log, uint64_t index); /* NULL: not in it */
void entry_log_cut(struct entry_log *log, uint64_t from);                   /* drops `from` and all above */
void entry_log_drop(struct entry_log *log, uint64_t index);                 /* drops `index` and all below */
void entry_log_reset(struct entry_log *log, uint64_t first);
void entry_log_put(struct entry_log *log, const rct_entry *e); /* cuts what it overlaps; index <= last + 1 */

/* A snapshot with its image. */
struct kept_snapshot {
    uint64_t index, term;
    struct nh_membership membership;
    uint8_t *data;
    uint64_t len;
};
bool kept_snapshot_set(struct kept_snapshot *s, const rct_snap *from); /* false: no membership can be like that */
void kept_snapshot_deinit(struct kept_snapshot *s);
struct nh_snapshot *kept_snapshot_record(const struct kept_snapshot *s);

/* ---- a batch: what one rct_ready hands out ---- */

struct batch {
    struct rct_arena arena;
    RAFT_VEC(rct_msg) send;
    RAFT_VEC(rct_msg) after;
    RAFT_VEC(rct_entry) ents;
    RAFT_VEC(rct_entry) committed;
    RAFT_VEC(rct_read) reads;
    rct_snap *snap;
    uint64_t save_id; /* of its newest save; 0: none */
    bool must_sync;
};
void batch_deinit(struct batch *b);

struct read_context {
    uint64_t low, high;
    uint8_t *data;
    uint64_t len;
};

/* Arrays of an rct_conf. */
struct conf_ids {
    uint64_t ids[4][NH_MEMBERS_MAX];
};

struct rct_node {
    struct raft *core; /* NULL: a restart failed */
    rct_config config;
    uint64_t now;
    uint64_t life;          /* restarts */
    uint64_t next_key;      /* of proposals, reads, transfers */
    uint64_t fixed_timeout; /* 0: the core's own */

    rct_hard hard;
    struct entry_log stable;
    uint64_t anchor_term; /* of stable.first - 1 */
    struct kept_snapshot snapshot;

    struct entry_log log;
    struct kept_snapshot received; /* by the newest message with one */
    struct raft_update out;
    struct batch batches[2];
    struct batch *pending, *taken;
    RAFT_VEC(struct read_context) contexts;

    uint32_t told_role;
    uint64_t told_lead;
    rct_hard told_hard;
    uint64_t due_save, due_apply; /* sync mode: what rct_advance reports */
    uint64_t snapshot_save;       /* the save that holds a received snapshot; 0: none waits */
    uint64_t snapshot_index;      /* that one's */

    bool refused;        /* in this event a proposal or read was dropped */
    const uint8_t *echo; /* context of the heartbeat that is being stepped */
    uint64_t echo_len;

    struct conf_ids conf_ids;
};

/* ---- adapter.c ---- */
void node_event(rct_node *n, struct raft_event *ev); /* steps, collects, keeps the timeout */

/* ---- adapter_input.c ---- */
bool entry_to_record(const rct_entry *e, uint64_t key, uint64_t origin, struct block_builder *b);

/* ---- adapter_ready.c ---- */
void node_settle(rct_node *n); /* collects until the core has nothing to do */
void node_saved(rct_node *n, uint64_t save_id);
void node_applied(rct_node *n, uint64_t index);
int storage_done(rct_node *n, const rct_msg *m); /* what a pseudo peer sends back */
enum rct_role role_of(enum raft_role role);
void entry_of_record(struct rct_arena *a, const uint8_t *record, rct_entry *ret);

/* ---- adapter_message.c ---- */
bool message_out(rct_node *n, const struct nh_message *m, rct_msg *ret); /* false: nothing that the suite knows */
rct_snap *snapshot_out(struct rct_arena *a, const struct nh_snapshot *s, const struct kept_snapshot *image);
void context_put(rct_node *n, uint64_t low, uint64_t high, const uint8_t *data, uint64_t len);
struct read_context *context_find(rct_node *n, uint64_t low, uint64_t high);
void context_drop(rct_node *n, struct read_context *c);
uint64_t context_low(const rct_node *n, const uint8_t *data, uint64_t len); /* of an own read with these bytes; 0: none */

/* ---- adapter_conf.c ---- */
struct conf_change { /* decoded */
    rct_cc cc;
    rct_cc1 changes[NH_MEMBERS_MAX];
};
bool conf_to_membership(const rct_conf *conf, struct nh_membership *ret);
void conf_of_membership(const struct nh_membership *m, struct conf_ids *ids, rct_conf *ret);
void conf_of_core(const struct raft *r, struct conf_ids *ids, rct_conf *ret);
/* The payload; NULL: it cannot be one. To be freed. */
uint8_t *conf_change_payload(const rct_cc *cc, uint32_t *ret_len);
bool conf_change_of_entry(const rct_entry *e, struct conf_change *ret);
uint32_t conf_change_type(const uint8_t *payload, uint32_t len); /* enum rct_entry_type */

#endif
