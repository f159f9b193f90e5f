/* Raft core test ABI, version 1.
 *
 * What an outside test suite needs from a Raft core that is a pure state machine
 * (no I/O, no clock, no threads).  One adapter .c file implements it on top of the
 * core; the suite dlopen()s the resulting .so (rct_abi_version first).
 *
 * A node here = the core + a private in-memory stable store (log, hard state,
 * snapshot).  The store only changes through rct_store() and rct_compact(), so the
 * suite decides what is durable and when (crash = rct_restart()).
 * All pointers handed out stay valid until the next call on the same node
 * (rct_ready: until the next rct_ready/rct_free on that node).
 * Every function returns 0 or one of the RCT_E codes unless it says otherwise.
 */
#ifndef RAFT_CORE_TEST_H
#define RAFT_CORE_TEST_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define RCT_ABI_VERSION   1u
#define RCT_APPEND_THREAD UINT64_MAX        /* pseudo peer: local log writer   */
#define RCT_APPLY_THREAD  (UINT64_MAX - 1u) /* pseudo peer: local apply worker */

enum rct_err {
    RCT_OK = 0,
    RCT_E_DROPPED = -1, /* proposal refused (no leader, transferring, quota, removed) */
    RCT_E_NO_PEER = -2, /* response from a node that is not in the configuration      */
    RCT_E_LOCAL = -3,   /* local-only message type arrived from the network           */
    RCT_E_UNSUPPORTED = -4,
    RCT_E_ARG = -5,
    RCT_E_COMPACTED = -6
};
enum rct_role { RCT_FOLLOWER = 0, RCT_CANDIDATE = 1, RCT_LEADER = 2, RCT_PRE_CANDIDATE = 3 };
enum rct_entry_type { RCT_ENT_NORMAL = 0, RCT_ENT_CONF = 1, RCT_ENT_CONF_V2 = 2 };
enum rct_pr_state { RCT_PR_PROBE = 0, RCT_PR_REPLICATE = 1, RCT_PR_SNAPSHOT = 2 };
enum rct_msg_type {
    RCT_MSG_PROP = 1,
    RCT_MSG_APP,
    RCT_MSG_APP_RESP,
    RCT_MSG_VOTE,
    RCT_MSG_VOTE_RESP,
    RCT_MSG_PREVOTE,
    RCT_MSG_PREVOTE_RESP,
    RCT_MSG_SNAP,
    RCT_MSG_HEARTBEAT,
    RCT_MSG_HEARTBEAT_RESP,
    RCT_MSG_TRANSFER,
    RCT_MSG_TIMEOUT_NOW,
    RCT_MSG_READ_INDEX,
    RCT_MSG_READ_INDEX_RESP,
    RCT_MSG_FORGET_LEADER,
    RCT_MSG_STORAGE_APPEND,
    RCT_MSG_STORAGE_APPEND_RESP,
    RCT_MSG_STORAGE_APPLY,
    RCT_MSG_STORAGE_APPLY_RESP
};
enum rct_transition { RCT_TR_AUTO = 0, RCT_TR_JOINT_IMPLICIT = 1, RCT_TR_JOINT_EXPLICIT = 2 };
enum rct_change { RCT_CC_ADD_VOTER = 0, RCT_CC_REMOVE = 1, RCT_CC_UPDATE = 2, RCT_CC_ADD_LEARNER = 3 };
enum rct_feature { /* bits of rct_features() */
                   RCT_F_PREVOTE = 1,
                   RCT_F_CHECK_QUORUM = 2,
                   RCT_F_LEARNER = 4,
                   RCT_F_JOINT = 8,
                   RCT_F_ASYNC = 16,
                   RCT_F_LEASE_READ = 32,
                   RCT_F_FORGET = 64,
                   RCT_F_TRANSFER = 128,
                   RCT_F_INFLIGHT_BYTES = 256,
                   RCT_F_APPLY_PAGING = 512,
                   RCT_F_STEPDOWN_ON_REMOVAL = 1024,
                   RCT_F_NO_CC_VALIDATION = 2048
};

typedef struct {
    uint64_t term, index;
    uint32_t type, len;
    const uint8_t *data;
} rct_entry;
typedef struct {
    uint64_t term, vote, commit;
} rct_hard;
typedef struct { /* a configuration; arrays sorted ascending */
    const uint64_t *voters, *voters_out, *learners, *learners_next;
    uint32_t n_voters, n_voters_out, n_learners, n_learners_next;
    uint32_t auto_leave;
} rct_conf;
typedef struct {
    uint64_t index, term;
    rct_conf conf;
    const uint8_t *data;
    uint64_t len;
} rct_snap;
typedef struct {
    uint32_t type;
    uint64_t node;
} rct_cc1;
typedef struct {
    uint32_t v1, transition, n;
    const rct_cc1 *changes;
} rct_cc; /* n==0: leave joint */
typedef struct rct_msg {
    uint32_t type, reject;
    uint64_t from, to, term, log_term, index, commit, vote, hint;
    const rct_entry *ents;
    uint64_t n_ents;
    const rct_snap *snap; /* NULL: none */
    const struct rct_msg *resps;
    uint64_t n_resps; /* to deliver after the local work is done */
    const uint8_t *ctx;
    uint64_t ctx_len;
} rct_msg;
typedef struct {
    uint64_t index;
    const uint8_t *ctx;
    uint64_t len;
} rct_read;
typedef struct {
    uint64_t id;
    uint32_t election_tick, heartbeat_tick;
    uint64_t applied;
    uint64_t max_size_per_msg, max_committed_size, max_uncommitted_size,
        max_inflight_bytes; /* UINT64_MAX: none; 0: as the core's default */
    uint32_t max_inflight_msgs;
    uint32_t async, prevote, check_quorum, lease_read, no_cc_validation, stepdown_on_removal, no_forwarding;
} rct_config;
typedef struct {
    uint32_t has_soft, role;
    uint64_t lead;
    uint32_t has_hard, must_sync;
    rct_hard hard;
    const rct_entry *ents;
    uint64_t n_ents; /* to persist   */
    const rct_entry *committed;
    uint64_t n_committed; /* to apply     */
    const rct_snap *snap; /* to persist   */
    const rct_msg *msgs;
    uint64_t n_msgs; /* sync mode: only after ents/hard/snap are stored */
    const rct_read *reads;
    uint64_t n_reads;
} rct_ready_t;
typedef struct {
    uint64_t id, term, vote, lead, commit, applied, first, last, last_term, stable_last, transferee;
    uint32_t role, is_learner, promotable, pad;
    rct_conf conf;
} rct_status_t;
typedef struct {
    uint64_t id, match, next, pending_snap, inflight;
    uint32_t state, paused, learner, active, full, pad;
} rct_pr;

typedef struct rct_node rct_node;

#ifndef RCT_TYPES_ONLY /* a reference adapter in another language wants only the types */
uint32_t rct_abi_version(void);
uint64_t rct_features(void);

/* life cycle */
rct_node *rct_new(const rct_config *, const rct_snap *boot /* NULL: empty store */);
rct_node *rct_restart(rct_node *, const rct_config *); /* frees the core, keeps the store; the configuration is the one
                                                          of the last rct_set_snapshot, i.e. as of config.applied */
void rct_free(rct_node *);
int rct_set_election_timeout(rct_node *, uint32_t ticks); /* fixes the randomised value until the next role change */
/* inputs */
int rct_tick(rct_node *);
int rct_campaign(rct_node *);
int rct_propose(rct_node *, const uint8_t *data, uint64_t len);
int rct_propose_conf(rct_node *, const rct_cc *);
int rct_step(rct_node *, const rct_msg *);
int rct_transfer(rct_node *, uint64_t to);
int rct_forget_leader(rct_node *);
int rct_read_index(rct_node *, const uint8_t *ctx, uint64_t len);
int rct_report_unreachable(rct_node *, uint64_t peer);
int rct_report_snapshot(rct_node *, uint64_t peer, uint32_t failed);
/* outputs */
int rct_has_ready(rct_node *);               /* 1 or 0 */
int rct_ready(rct_node *, rct_ready_t *out); /* takes the batch */
int rct_advance(rct_node *);                 /* sync mode only  */
int rct_apply_conf(rct_node *, const rct_entry *, rct_conf *out);
int rct_conf_text(const rct_entry *, char *buf, uint32_t cap); /* "v1 l2 r3 u4"; "" = leave joint; length */
/* the stable store; rct_store: hard state, then the snapshot (replaces the log), then the entries (cut whatever they overlap) */
int rct_store(rct_node *, const rct_hard *, const rct_entry *, uint64_t n, const rct_snap *);
int rct_set_snapshot(rct_node *, const rct_snap *); /* what the leader will send from now on */
int rct_compact(rct_node *, uint64_t new_first);    /* etcd's memory store semantics: drops <= new_first */
/* inspection */
int rct_status(rct_node *, rct_status_t *out);
int rct_progress(rct_node *, rct_pr *out, uint32_t cap);                     /* count, ascending id; 0 unless leader */
int rct_log(rct_node *, uint32_t stable_only, rct_entry *out, uint32_t cap); /* count; data not filled if cap==0 */
/* pure functions, for the quorum/ and confchange/ scripts */
uint64_t rct_quorum_commit(const rct_conf *, const uint64_t *ids, const uint64_t *match, uint32_t n);
int rct_quorum_vote(const rct_conf *, const uint64_t *ids, const uint8_t *votes /*0 none 1 no 2 yes*/,
                    uint32_t n); /* 1 pending 2 lost 3 won */
int rct_conf_change(const rct_conf *in, const rct_cc *, uint32_t op /*0 simple 1 enter 2 enter+auto 3 leave*/, rct_conf *out);
#endif
#ifdef __cplusplus
}
#endif
#endif
