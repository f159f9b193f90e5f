/* engine/raft/raft.h - the protocol core: one replica of one Raft group, as a pure state machine.
 *
 * Events go in (raft_step), what they cause comes out (struct raft_update). No I/O, no clock, no threads, no
 * randomness but a seed in the state: the same events give the same updates, always. Nothing is called back.
 *
 * How a caller drives it, once per pass and replica:
 *
 *     raft_step(r, &event, &out);         any number of times
 *     raft_collect(r, &out);              closes the update: what is to be saved, sent and applied now
 *     ... obey `out` in the order below ...
 *     raft_update_release(&out);          drops the references that the caller has not taken; keeps the arrays
 *
 * The order of durability (numbered as in docs/ARCHITECTURE.md; enforced in engine/step_worker.c):
 *   1  take the update
 *   2  send out.send, answer out.reads, report out.dropped
 *   3  save out.state (if has_state) and out.runs in one durable write; it is named by out.save_id
 *   4  when that save is durable: raft_step(SAVED, save_id), and only then send out.send_after_save
 *   5  hand out.apply to the machine; it only ever names entries that are already saved here
 *   6  when applied: raft_step(APPLIED)
 * SAVED and APPLIED may come together with a later event, before it, if nothing waits for them (raft_awaits_saved,
 * raft_awaits_applied): half of what a replica is driven for would be these two. So may the answers of those peers who were not
 * needed for the majority (raft_get_patience).
 * Several saves may be in flight; their SAVED events come in the order of their ids. A caller that cannot save stops
 * driving the replica: nothing that depends on a lost save has left it.
 *
 * Time is a tick counter that the caller passes with every event (`now`, never falling). Only TICK makes timers fire;
 * raft_next_deadline says when the next one is due, so an idle replica need not be touched in between.
 *
 * The log is split: entries from `cached first` on are in memory as runs of sealed blocks; older ones are only in the
 * log store. For those the core keeps their terms (a short list of spans) and asks by `fetches` when a lagging peer needs them;
 * the caller answers with RAFT_EV_FETCHED.
 *
 * Configuration takes effect when applied (RAFT_EV_MEMBERSHIP): one change at a time, or several through a joint
 * configuration (thesis 4.3), which the leader leaves by itself if it is so marked.
 *
 * Snapshots: the caller makes them and says so (RAFT_EV_SNAPSHOT_MADE, RAFT_EV_COMPACTED). A peer that needs what is no longer
 * in the log gets an INSTALL_SNAPSHOT, which carries the record; its image travels with it by the caller's means. Its
 * receiver finds the record in the update: it is saved before the entries, and applied (recovered) instead of entries.
 *
 * Files: raft.c (construction, events, inspection), collect.c (the update), await.c (which events may come later), message.c
 * (checks and terms of what comes in), role.c (the only one that changes the role), members.c (configurations), log.c (log in
 * memory, spans, in-flight saves), progress.c (a leader's view of a peer), quorum.c, send.c, election.c, replicate.c (answers and
 * commit), stream.c (what a peer is sent), snapshot.c, removed.c, heartbeat.c, read.c, propose.c, transfer.c, load.c, quiesce.c
 * (one per message flow), check.c (every invariant; the cheap ones are asserted before an update leaves and stay on in
 * release), describe.c and describe_config.c (all of it as text).
 *
 * Threads: a replica's core belongs to its step worker. Errors: none. A malformed or hostile message is ignored and
 * counted (raft_status.ignored_messages); it never reaches an assert.
 */
#ifndef NH_ENGINE_RAFT_RAFT_H
#define NH_ENGINE_RAFT_RAFT_H

#include "raftio/support/block.h"
#include "raftio/types.h"

struct raft; /* private to engine/raft (raft_internal.h) */

enum raft_role {
    RAFT_FOLLOWER = 0,
    RAFT_PRE_CANDIDATE = 1,
    RAFT_CANDIDATE = 2,
    RAFT_LEADER = 3,
};

#define RAFT_NEVER UINT64_MAX

struct raft_options {
    uint64_t shard_id;
    uint64_t replica_id;
    uint32_t election_ticks; /* E: timeouts are drawn from [E, 2E); E > 2 * heartbeat_ticks */
    uint32_t heartbeat_ticks;
    uint32_t quiesce_ticks;         /* idle ticks before a leader proposes to go quiet; 0: 20 * E */
    uint32_t max_inflight_messages; /* per follower; 0: 256 */
    uint64_t max_inflight_bytes;    /* per follower; 0: 16 MiB */
    uint64_t max_message_bytes;     /* of entries in one Replicate (at least one entry goes); 0: 1 MiB */
    uint64_t max_uncommitted_bytes; /* leader's uncommitted payload; above: proposals dropped; 0: 64 MiB */
    uint64_t max_apply_bytes;       /* handed out and not yet reported applied; 0: 16 MiB */
    uint64_t max_cached_bytes;      /* applied entries kept in memory for followers that lag; 0: 1 MiB */
    uint64_t max_unapplied_bytes; /* committed and not applied here; above: the leader is asked to wait, as a leader proposals are
                                     dropped; 0: 64 MiB */
    uint64_t seed;                /* for timeouts */
    /* A voter refuses a candidate of lower priority whose log is not longer than its own, and stands itself (raft-rs). */
    uint32_t priority;
    uint32_t lease_drift_percent; /* by how much the clocks of two hosts may differ in speed; 0: 10 */
    bool pre_vote;                /* thesis 9.6 */
    bool check_quorum; /* thesis 6.2: a leader that hears no quorum for E ticks steps down; enables leader stickiness */
    bool quiesce;
    /* A leader answers reads without asking, for as long as E ticks (less the drift, less two ticks) after a quorum's answer was
     * asked for. Needs check_quorum, and the same setting at every member: those who answered do not vote, nor stand, for E
     * ticks, also after a restart. Given up for the rest of the term when a transfer begins (thesis 6.4.1). */
    bool lease_reads;
    /* A peer is told a commit index with the next entries or heartbeat, and by a message of its own only if something there waits
     * for it (stream.c). Else each commit costs a message per peer, and a pass of it. */
    bool lazy_commit;
    /* Entries for all peers stand for a heartbeat: they keep followers from standing, and their answers show a quorum. The next
     * heartbeat comes 2 * heartbeat_ticks + 1 after them, so election_ticks should be at least twice that. Leases are counted
     * from heartbeats alone: no effect with lease_reads. */
    bool lazy_heartbeat;
    /* A leader that was taken out leads on, dropping all proposals, instead of stepping down. For tests of other cores' ways. */
    bool lead_when_removed;
    /* Configuration changes are not held back by one that is pending: the caller orders them. */
    bool unchecked_config;
    /* The stored term may be one below that of the snapshot that an empty log begins with: nobody has led in the latter. For
     * tests that begin with such a snapshot, as other cores' do. */
    bool start_below_snapshot_term;
};

struct raft_term_span {
    uint64_t first_index;
    uint64_t term;
};

/* What the log store knew at start. */
struct raft_boot {
    struct nh_state state;
    uint64_t first_index; /* of the stored log; last_index + 1 if empty */
    uint64_t last_index;
    uint64_t anchor_term;               /* of first_index - 1, which a snapshot holds; 0: first_index is 1, or it is not known */
    const struct raft_term_span *spans; /* terms of [first_index, last_index], ascending; copied */
    uint32_t n_spans;
    uint64_t applied;                       /* entries <= this are in the machine already */
    const struct nh_membership *membership; /* as of `applied`; copied (ids and kinds) */
    /* No configuration change lies above this index (last_index if it is not known). The change before the last one is never
     * above state.commit: it was applied somewhere before the last one was proposed, every Replicate that carries the last one
     * tells so, and a save holds the commit index with its entries. So nobody stands in a configuration that is two changes
     * old, whose majorities need not meet those of today. */
    uint64_t config_bound;
    const struct nh_snapshot *snapshot; /* the newest one that can be sent; copied; NULL: none */
    /* For 8 E timeouts are drawn from [E/4, E/2), until it hears from a leader or enters a new term (the first candidacy's too).
     * For one voter of a new shard: it need not wait for a leader that cannot be; and for who led last: when all hosts were down,
     * the shards have their leaders again without a contest. If there is a leader after all, and not quiet, its followers refuse
     * the pre-vote if they check_quorum, but not to their own leader, back so soon. Nothing happens without pre_vote, nor with
     * lease_reads before E has passed. */
    bool stand_early;
    uint64_t now;
};

enum raft_event_type {
    RAFT_EV_TICK = 0,      /* time passed: `now` */
    RAFT_EV_MESSAGE,       /* `message`: borrowed, runs are retained as needed */
    RAFT_EV_PROPOSE,       /* `propose`: application and config-change records, unsealed; the builder is emptied */
    RAFT_EV_READ,          /* `read`: one context for a batch of linearizable reads */
    RAFT_EV_SAVED,         /* `saved`: the save of that id is durable, and all earlier ones */
    RAFT_EV_APPLIED,       /* `applied`: the machine holds everything up to this index */
    RAFT_EV_MEMBERSHIP,    /* `membership`: the change at `index` was applied; NULL = it was rejected. Before its APPLIED. */
    RAFT_EV_FETCHED,       /* `fetched`: answer to a fetch; n_runs == 0: failed or compacted */
    RAFT_EV_UNREACHABLE,   /* `peer`: a message to it is known to be lost */
    RAFT_EV_CAMPAIGN,      /* start an election now (respecting pre_vote and all bars) */
    RAFT_EV_WAKE,          /* leave quiesce */
    RAFT_EV_TRANSFER,      /* `transfer`: give the leadership to a voter; out.transfers tells the end */
    RAFT_EV_FORGET_LEADER, /* a follower votes for others at once; ignored with lease_reads, and by a leader */
    RAFT_EV_SNAPSHOT_MADE, /* `snapshot`: a snapshot of what is applied here is durable and may be sent; copied */
    RAFT_EV_COMPACTED,     /* `compacted`: the log store holds nothing up to this index (<= applied) any more */
    RAFT_EV_COMMITTED,     /* `committed`: up to this index, whatever was stored. Said of what a machine on disk holds at start */
    RAFT_EV_SNAPSHOT_STATUS, /* `status`: a snapshot reached a peer, or did not */
};

struct raft_event {
    enum raft_event_type type;
    uint64_t now; /* ticks */
    union {
        struct nh_message *message;
        struct {
            struct block_builder *records;
            uint64_t first_key; /* keys are consecutive in a batch */
            uint64_t n_keys;
        } propose;
        struct {
            uint64_t low, high; /* unique for ever: key and replica id of the asking replica */
        } read;
        uint64_t saved;
        uint64_t applied;
        struct {
            uint64_t index;
            const struct nh_membership *membership;
        } membership;
        struct {
            uint64_t peer;
            const struct nh_run *runs; /* from the `low` that was asked for; retained as needed */
            uint32_t n_runs;
        } fetched;
        uint64_t peer;
        struct {
            uint64_t target;
            uint64_t key; /* not 0; names the request in out.transfers */
        } transfer;
        const struct nh_snapshot *snapshot;
        uint64_t compacted;
        uint64_t committed;
        struct {
            uint64_t peer;
            bool failed;
            bool pruned; /* it failed because it was not there any more */
        } status;
    };
};

/* A confirmed batch of reads: may be answered once everything up to `index` is applied here. */
struct raft_read {
    uint64_t low, high;
    uint64_t index;
};
/* Proposals (keys [first_key, first_key + n)) or a read context (first_key = low) that were surely not taken. */
struct raft_dropped {
    bool is_read;
    int reason; /* enum nh_drop_reason */
    uint64_t first_key;
    uint64_t n_keys;
};
enum raft_transfer_code { RAFT_TRANSFER_DONE = 0, RAFT_TRANSFER_TIMED_OUT = 1, RAFT_TRANSFER_REFUSED = 2 };
enum raft_transfer_reason {
    RAFT_TRANSFER_OK = 0,
    RAFT_TRANSFER_NO_LEADER,   /* none is known here */
    RAFT_TRANSFER_NO_VOTER,    /* the target is not a voter of this shard that can lead */
    RAFT_TRANSFER_REPLACED,    /* another transfer took its place */
    RAFT_TRANSFER_NOT_LEADER,  /* whoever was asked does not lead (any more) */
    RAFT_TRANSFER_LOST_TARGET, /* the target was removed meanwhile, or another replica leads now */
};
/* How a transfer that was asked for here ended. */
struct raft_transfer_end {
    uint64_t key;
    enum raft_transfer_code code;
    enum raft_transfer_reason reason;
};
/* Entries [low, high) are needed for `peer` and are only in the log store; at least one, at most max_bytes. */
struct raft_fetch {
    uint64_t peer;
    uint64_t low, high;
    uint64_t max_bytes;
};

#define RAFT_VEC(type) \
    struct {           \
        type *items;   \
        size_t n, cap; \
    }

/* Zeroed = empty. One per worker is enough: it is reused for each replica of a pass. */
struct raft_update {
    uint64_t save_id; /* 0: nothing to save */
    bool has_state;
    bool must_sync;
    struct nh_state state;
    struct run_list runs; /* entries to save, consecutive */

    RAFT_VEC(struct nh_message) send;            /* depends on no save in flight */
    RAFT_VEC(struct nh_message) send_after_save; /* if save_id == 0: after the newest save still in flight, if any */

    /* A received snapshot: its record is saved with this save, before the runs, and its image is to be recovered by the machine
     * before anything is applied. NULL: none. Borrowed until the release. */
    const struct nh_snapshot *snapshot;

    uint64_t apply_first, apply_last; /* entries to apply; first == 0: none */
    struct run_list apply_runs;       /* those entries; empty: read them from the log store */
    bool more;                        /* there are others to apply: collect again */

    RAFT_VEC(struct raft_read) reads;
    RAFT_VEC(struct raft_dropped) dropped;
    RAFT_VEC(struct raft_fetch) fetches;
    RAFT_VEC(struct raft_transfer_end) transfers;

    bool removed;         /* this replica was removed from its shard, and is needed no more: stop it */
    bool snapshot_wanted; /* a peer needs a snapshot, and none that lists it can be sent: make one */
    bool leader_changed;  /* leader, term or role differ from the last update */
    uint64_t leader_id, term;
    enum raft_role role;
};

struct raft_status {
    uint64_t term, vote, leader_id;
    enum raft_role role;
    uint64_t first_index, last_index, saved_index, commit_index, handed_index, applied_index;
    uint64_t cached_first; /* first entry in memory */
    uint64_t cached_bytes;
    uint64_t uncommitted_bytes;
    bool quiesced;
    bool lease_held; /* a leader may answer reads at once */
    bool overloaded; /* too much is not applied; a follower has asked its leader to send no entries */
    bool joint, pending_config;
    bool witness;            /* so is this replica */
    uint64_t transferee;     /* a leader's; 0: none */
    uint64_t snapshot_index; /* newest that can be sent */
    uint64_t ignored_messages;
    uint64_t truncated_suffixes; /* coverage probes: rare paths taken */
    uint64_t stale_saves;
};

/* What of it others are told after each turn. */
struct raft_view {
    uint64_t leader_id, term;
    uint64_t first_index, last_index, commit_index;
    uint64_t transferee, uncommitted_bytes;
    enum raft_role role;
    bool quiesced, joint, witness, pending_config, lease_held, overloaded;
};

enum raft_peer_state { RAFT_PROBE = 0, RAFT_REPLICATE = 1, RAFT_SNAPSHOT = 2 };
struct raft_peer_status {
    uint64_t replica_id;
    enum nh_member_kind kind;
    enum raft_peer_state state;
    uint64_t match, next;
    uint32_t inflight_messages;
    uint64_t inflight_bytes;
    uint64_t pending_snapshot; /* SNAPSHOT: index of the one on its way */
    bool outgoing;             /* votes in the outgoing half of a joint configuration */
    bool active, paused, overloaded;
};

/* Checks options and boot state. Errors: EINVAL (options; lease_reads without check_quorum), ECORRUPT (the stored state
 * contradicts itself: commit above the last index, spans with holes, term below the last entry's). */
int raft_new(const struct raft_options *options, const struct raft_boot *boot, struct raft **ret, struct nh_error *err);
void raft_free(struct raft *r); /* takes NULL */

/* `out` must be empty (released) at the first step of a pass. */
void raft_step(struct raft *r, const struct raft_event *ev, struct raft_update *out);
void raft_collect(struct raft *r, struct raft_update *out);
/* Releases messages and runs that were not taken (a taker zeroes the items it took, or their number) and empties the vectors. */
void raft_update_release(struct raft_update *out);
/* Also frees the arrays. */
void raft_update_deinit(struct raft_update *out);

/* The tick at which a TICK is needed next; RAFT_NEVER when quiesced, unless a member is behind that a leader looks after. */
uint64_t raft_next_deadline(const struct raft *r);
/* True if raft_collect would yield something although no event came (more to apply, to send). Right after one, `more` of its
 * update says the same. */
bool raft_has_work(const struct raft *r);

/* Whether anything waits for the next SAVED, or APPLIED: it would change what raft_collect yields, or ends something that must
 * not wait. If not, the caller may keep that event until it has another one, and then gives it first. Both hold until the next
 * raft_step. */
bool raft_awaits_saved(const struct raft *r);
bool raft_awaits_applied(const struct raft *r);

/* Which acceptances (REPLICATE_RESP) a leader can wait for: of this term, and of entries below this index. They only say how far
 * their sender is, and may be kept like those above. */
struct raft_patience {
    uint64_t term, below; /* 0: none may wait */
};
void raft_get_patience(const struct raft *r, struct raft_patience *ret);
static inline bool raft_may_wait(const struct raft_patience *p, const struct nh_message *m)
{
    return m->type == NH_MSG_REPLICATE_RESP && !m->reject && m->n_runs == 0 && m->log_index < p->below && m->term == p->term;
}

/* For a caller that drives many replicas one after the other, each long out of the processor's cache: asks for a part of the
 * core. Depth 0 is itself; each next one lies behind pointers of the one before, which should have come meanwhile. */
#define RAFT_PREFETCH_DEPTHS 4u
void raft_prefetch(const struct raft *r, unsigned depth);

void raft_get_status(const struct raft *r, struct raft_status *ret);
void raft_get_view(const struct raft *r, struct raft_view *ret);
bool raft_is_quiesced(const struct raft *r);
/* A leader's peers, ascending; returns how many there are (0 unless leader), fills at most cap. */
size_t raft_get_peers(const struct raft *r, struct raft_peer_status *ret, size_t cap);
/* The term of an index, 0 if the log does not hold it. */
uint64_t raft_term_at(const struct raft *r, uint64_t index);
/* References the runs of [low, high) that are in memory; false if a part is not. For tests and the simulator. */
bool raft_cached_runs(const struct raft *r, uint64_t low, uint64_t high, struct run_list *ret);
/* Every invariant; false and a static text naming the clause that failed. */
bool raft_check(const struct raft *r, const char **ret_clause);

#endif
