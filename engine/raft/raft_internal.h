/* engine/raft/raft_internal.h - what the files of engine/raft share. Nobody else includes it, except their tests.
 *
 *                     timer                     quorum (pre-vote)
 *     FOLLOWER -------------------> PRE_CANDIDATE -------------> CANDIDATE ----------> LEADER
 *         ^   \__ timer, no pre-vote _____________________________^    quorum of votes    |
 *         |                                                                               |
 *         +---- higher term, leader of this term, quorum of refusals, no quorum for E ----+
 *
 * Ownership: struct raft owns all of it. Runs in the cache hold one reference each.
 */
#ifndef NH_ENGINE_RAFT_INTERNAL_H
#define NH_ENGINE_RAFT_INTERNAL_H

#include "engine/raft/raft.h"
#include "raftio/request.h"
#include "raftio/support/memory.h"

/* The last numbers are no terms and no indexes, so that "+ 1" never overflows. */
#define RAFT_TERM_MAX  (UINT64_MAX - 1)
#define RAFT_INDEX_MAX (UINT64_MAX - 1)
/* Contexts that wait for confirmation at a leader; one more is dropped as OVERLOADED. */
#define RAFT_PENDING_READS_MAX 4096u
/* Who stands early does so for as many election timeouts: whoever is alone then need not ask that often. */
#define RAFT_EARLY_TIMEOUTS 8u
/* Entries handed out for applying that are not in memory (after a restart), where only their number is known. */
#define RAFT_APPLY_UNCACHED_MAX 4096u
/* Most entries of one block that a forwarded proposal may bring. */
#define RAFT_FORWARD_RUNS_MAX 1024u

/* In a check: leaves with the words of the clause if it does not hold. */
#define RAFT_CLAUSE(condition, words) \
    do {                              \
        if (!(condition)) {           \
            *ret_clause = words;      \
            return false;             \
        }                             \
    } while (0)

/* Appends an element to a RAFT_VEC and yields its address; the element is not initialised. */
#define RAFT_PUSH(v) ((v)->items = raft_vec_grow((v)->items, &(v)->cap, (v)->n + 1, sizeof *(v)->items), &(v)->items[(v)->n++])

/* The same with no room to spare: for a few elements that each of thousands of replicas keeps for long, or has at once when all
 * of them elect their leaders. */
#define RAFT_PUSH_TIGHT(v) \
    ((v)->items = raft_vec_grow_tight((v)->items, &(v)->cap, (v)->n + 1, sizeof *(v)->items), &(v)->items[(v)->n++])

static inline void *raft_vec_grow(void *items, size_t *cap, size_t n, size_t elem_bytes)
{
    array_reserve(&items, cap, n, elem_bytes);
    return items;
}
static inline void *raft_vec_grow_tight(void *items, size_t *cap, size_t n, size_t elem_bytes)
{
    array_reserve_tight(&items, cap, n, elem_bytes);
    return items;
}

/* ---- log.c: the log in memory ----
 *
 *      first ...... applied <= handed <= min(commit, saved) ...... saved <= taken <= last
 *                        cached_first <= saved + 1
 *
 * `taken` is the last entry that a save was given; `saved` the last one known durable. */

/* A save in flight: what will be durable when it ends. */
struct raft_save {
    uint64_t id;
    uint64_t last_index; /* of the log as it is now: lowered when the log is cut */
    uint64_t term, vote, commit;
    uint64_t snapshot; /* index of a received snapshot that it contains; 0: none */
    bool clipped;      /* it was lowered */
};

/* Consecutive runs: live ones are runs[head .. n). */
struct raft_cache {
    struct nh_run *runs;
    size_t head, n, cap;
    uint64_t bytes;
};

struct raft_log {
    uint64_t first, last; /* of the whole log; first == last + 1: empty */
    uint64_t anchor_term; /* of first - 1; 0: there is none, or it is not known */
    uint64_t commit, taken, saved, handed, applied;
    uint64_t saved_commit; /* durable: what a restart would begin with */
    uint64_t cached_first;
    uint64_t apply_bytes;      /* of the entries (applied, handed] that are in memory */
    uint64_t unapplied_bytes;  /* the same of (applied, commit] */
    uint64_t config_bound;     /* no configuration change lies above it */
    uint64_t unsure_from;      /* none lies in (saved_commit, unsure_from); 0: none above saved_commit at all */
    uint64_t unsaved_snapshot; /* index of a received snapshot that is not durable yet; 0: none */
    uint32_t truncations;      /* modulo 2^32, as is the next */
    uint32_t stale_saves;
    struct raft_cache cache;
    RAFT_VEC(struct raft_term_span) spans;
    RAFT_VEC(struct raft_save) saves; /* ascending ids */
};

void raft_log_init(struct raft_log *log, const struct raft_boot *boot);
void raft_log_deinit(struct raft_log *log);
uint64_t raft_log_term(const struct raft_log *log, uint64_t index); /* 0: not known: neither in the log nor its anchor */
uint64_t raft_log_last_term(const struct raft_log *log);
/* Election restriction (5.4.1): is a log that ends in (term, index) at least as complete as this one? */
bool raft_log_is_behind_or_equal(const struct raft_log *log, uint64_t term, uint64_t index);
/* The last index <= `index` whose term is <= `term`, and that term (0 below the first entry). */
uint64_t raft_log_last_at_term(const struct raft_log *log, uint64_t index, uint64_t term, uint64_t *ret_term);
/* The first index of the runs that this log does not hold with the same term; last of the runs + 1 if it holds them all. */
uint64_t raft_log_conflict(const struct raft_log *log, const struct nh_run *runs, uint32_t n_runs);
/* Appends a slice that starts at last + 1; takes a reference. */
void raft_log_append(struct raft_log *log, struct nh_block *block, uint32_t from, uint32_t to);
/* Cuts everything above `last`, which is >= commit. Saves in flight then vouch for what is left only. */
void raft_log_truncate(struct raft_log *log, uint64_t last);
/* Adds [low, high) to `list` until max_bytes would be exceeded; the first entry always goes if `force`. All must be
 * in memory. Returns the index after the last one that was added. */
uint64_t raft_log_slice(const struct raft_log *log, uint64_t low, uint64_t high, uint64_t max_bytes, bool force,
                        struct run_list *list);
/* Encoded bytes of those entries of [low, high) that are in memory. */
uint64_t raft_log_bytes(const struct raft_log *log, uint64_t low, uint64_t high);
/* commit < index <= last. Returns the encoded bytes of those that are in memory. */
uint64_t raft_log_commit_to(struct raft_log *log, uint64_t index);
void raft_log_applied_to(struct raft_log *log, uint64_t index); /* applied < index <= handed */
/* Entries (taken, last] go into `list` and count as taken. */
void raft_log_take(struct raft_log *log, struct run_list *list);
/* There is a received snapshot, and no save was given it. */
bool raft_log_snapshot_is_due(const struct raft_log *log);
/* Notes a save in flight that contains everything taken so far. */
void raft_log_save_begun(struct raft_log *log, uint64_t id, uint64_t term, uint64_t vote, uint64_t commit);
/* The save `id` and all before it are durable; returns false if there were none. */
bool raft_log_save_done(struct raft_log *log, uint64_t id, uint64_t *ret_term, uint64_t *ret_vote);
/* Forgets the entries up to `index`, which is <= applied. They stay in the log store. */
void raft_log_drop(struct raft_log *log, uint64_t index);
/* The log store dropped everything up to `index`, which is <= applied; its term stays known, as the anchor's. */
void raft_log_compact(struct raft_log *log, uint64_t index);
/* A snapshot takes the place of the whole log. Saves in flight vouch for nothing then. */
void raft_log_restore(struct raft_log *log, uint64_t index, uint64_t term);
/* What this replica may say to have committed. That a configuration change is committed counts only when a restart would know
 * it too: a leader that was taken out leaves when enough others know (statement 55). */
uint64_t raft_log_known_commit(const struct raft_log *log);
/* A configuration change is committed, and no save says so yet. */
bool raft_log_commit_is_due(const struct raft_log *log, uint64_t taken_commit);
/* Frees what an idle log does not need. */
void raft_log_shrink(struct raft_log *log);
bool raft_log_check(const struct raft_log *log, const char **ret_clause);      /* cheap */
bool raft_log_check_deep(const struct raft_log *log, const char **ret_clause); /* walks everything */

/* ---- quorum.c: majorities ---- */

/* The largest number that a majority of the n >= 1 values reaches. Reorders them. */
uint64_t raft_quorum_reached(uint64_t *values, size_t n);
static inline size_t raft_quorum(size_t n_voters)
{
    return n_voters / 2 + 1;
}

/* ---- progress.c: a leader's view of a peer ---- */

/* A Replicate on its way: its last entry, its bytes. */
struct raft_inflight {
    uint64_t last;
    uint64_t bytes;
};

struct raft_peer {
    uint64_t id;
    uint8_t kind;  /* enum nh_member_kind */
    uint8_t state; /* enum raft_peer_state */
    bool outgoing; /* votes in the outgoing half */
    bool active;   /* heard from since the last quorum check */
    bool probing;  /* PROBE: an answer is awaited */
    bool probed;   /* PROBE: entries from `next` on were sent; asking again does without them */
    bool nudge;    /* it answered a heartbeat: find out whether something was lost */
    bool fetching; /* [fetch_low, ...) was asked for */
    uint64_t match, next;
    uint64_t told_commit;  /* highest commit index that a message took along */
    uint64_t awaited;      /* it is to be told at once when this is committed: somebody waits for it there */
    uint64_t known_commit; /* what it says to have committed */
    uint64_t acked_round;  /* newest round of reads that it confirmed */
    uint64_t lease_from;   /* when the newest heartbeat was sent that it answered */
    uint64_t heard_at;     /* when it last answered anything; 0: never yet */
    uint64_t fetch_low;
    uint64_t pending_snapshot; /* SNAPSHOT: index of the one on its way */
    uint64_t snapshot_after;   /* the next one is not begun before */
    uint32_t n_failed;         /* snapshots that did not arrive, one after the other */
    uint64_t overloaded_until; /* it asked for no entries; lapses, should its "go on" be lost */
    /* Window: a ring of what is in flight. */
    struct raft_inflight *window;
    uint32_t window_head, window_n, window_cap;
    uint64_t window_bytes;
};

struct raft_member;
void raft_peer_init(struct raft_peer *p, const struct raft *r, const struct raft_member *m);
void raft_peer_deinit(struct raft_peer *p);
void raft_peer_shrink(struct raft_peer *p); /* frees an empty window */
void raft_peer_to_probe(struct raft_peer *p);
void raft_peer_to_replicate(struct raft_peer *p);
void raft_peer_to_snapshot(struct raft_peer *p, uint64_t index); /* a snapshot up to `index` is on its way */
void raft_peer_awaits(struct raft_peer *p, uint64_t index);      /* the commit of `index` */
bool raft_peer_is_full(const struct raft_peer *p, const struct raft_options *o);
void raft_peer_sent(struct raft_peer *p, uint64_t last, uint64_t bytes); /* entries up to `last` are on their way */
bool raft_peer_accepted(struct raft_peer *p, uint64_t index);            /* false: an old answer */
/* The anchor `index` was refused; the peer's log may go on from `next`. False: an old answer. */
bool raft_peer_refused(struct raft_peer *p, uint64_t index, uint64_t next);

/* ---- the replica ---- */

enum raft_ballot { RAFT_BALLOT_NONE = 0, RAFT_BALLOT_GRANTED = 1, RAFT_BALLOT_REFUSED = 2 };

struct raft_member {
    uint64_t id;
    uint8_t kind;      /* enum nh_member_kind */
    bool outgoing;     /* votes in the outgoing half of a joint configuration */
    bool told_removed; /* it said that this replica was removed */
    uint8_t ballot;    /* enum raft_ballot: in the election that this replica runs */
};

/* A read that a leader has not confirmed yet. */
struct raft_pending_read {
    uint64_t low, high;
    uint64_t from;  /* who forwarded it, 0: asked here */
    uint64_t index; /* 0: deferred until an entry of the own term is committed */
    uint64_t round; /* heartbeats carry it; counts up from 1 in each leadership */
};

/* A configuration change that waits until it is known which voters are there (propose.c). */
struct raft_held_change {
    struct block_builder records;
    uint64_t from; /* who forwarded it, 0: asked here */
    uint64_t key;
};

/* What only a leader has: two cache lines. */
struct raft_lead {
    struct raft_peer *peers; /* members but itself, ascending */
    uint32_t n_peers;
    bool heartbeat_wanted;
    bool lease_given_up;  /* a transfer began in this term: its target may stand at any time */
    uint64_t start_index; /* of the empty entry that opened the term */
    uint64_t uncommitted_bytes;
    uint64_t heartbeat_deadline, quorum_deadline;
    uint64_t look_deadline;                 /* while quiet: when to look after those who are behind; RAFT_NEVER: nobody is */
    uint64_t transferee, transfer_deadline; /* who is to lead next; 0: nobody */
    uint64_t removed_at;                    /* index of the change that took this replica out; 0: still a member */
    uint64_t asked_since;                   /* since when peers show by answers that they are there: a quiet leader asks nobody */
    struct raft_held_change *held;          /* NULL: none */
    uint64_t round;                         /* of the newest read */
    RAFT_VEC(struct raft_pending_read) reads; /* ascending rounds */
};

/* The newest key of an origin's forwarded proposals that was decided (taken or dropped) in the leadership `led_term`. */
struct raft_forward_mark {
    uint64_t id;
    uint64_t key;
};

struct raft {
    struct raft_options options;
    struct raft_log log;
    uint64_t now;
    uint64_t random;

    uint64_t term, vote;
    uint64_t taken_term, taken_vote, taken_commit; /* as of the newest save */
    uint64_t saved_term, saved_vote;               /* durable */
    uint64_t save_id;                              /* of the newest save */

    enum raft_role role, told_role; /* told: in the last update */
    uint64_t leader_id;
    uint64_t heard_at, heard_from; /* when a leader was last heard from, and which one */
    uint64_t election_since, election_timeout;
    uint64_t early_until; /* its timeouts are short; 0: a leader was heard from, or a term entered */

    uint64_t boot_term; /* terms up to here may have been led in an earlier life */
    uint64_t led_term;  /* newest term led in this life */
    RAFT_VEC(struct raft_forward_mark) marks;

    bool quiesced;
    bool overloaded;        /* too much is not applied (load.c) */
    bool is_removed;        /* it is needed no more */
    bool reported_removed;  /* in an update */
    bool joint, auto_leave; /* of the members below */
    bool is_voter;          /* this replica, as raft_is_voter says of them */
    uint64_t quiet_since;
    uint64_t active_at; /* last event that keeps awake */

    uint64_t told_leader, told_term; /* in the last update */
    uint64_t ignored_messages;

    struct raft_member *members; /* ascending */
    uint64_t *removed;           /* ids that were members once */
    uint32_t n_members, n_removed;
    uint64_t members_index; /* of the change that made this configuration */

    struct nh_snapshot *snapshot; /* newest that can be sent, or is to be saved; NULL: none */
    struct {                      /* a transfer that was asked for here */
        uint64_t target, key;     /* key 0: none */
        uint64_t leader_id;       /* who was asked */
        uint64_t deadline;
    } asked;

    struct raft_lead *lead; /* NULL unless leader */

    struct raft_update *out; /* of the call that runs; NULL between calls */
};
_Static_assert(sizeof(struct raft) <= 640, "a step of the allocator: with a byte more each idle replica takes 128");

/* members.c: who belongs to the shard, and what its majorities say */
struct raft_member *raft_member(const struct raft *r, uint64_t id); /* NULL: not a member */
bool raft_is_voter(const struct raft *r, uint64_t id);              /* in either half; this replica: and may lead */
bool raft_is_witness(const struct raft *r, uint64_t id);
struct raft_peer *raft_peer(const struct raft *r, uint64_t id); /* NULL: none, or not the leader */
struct raft_peer *raft_alloc_peers(const struct raft *r);       /* as many as a leader has; not initialised */
void raft_set_members(struct raft *r, const struct nh_membership *m, uint64_t index); /* NULL: none */
bool raft_was_removed(const struct raft *r, uint64_t id);
void raft_on_membership(struct raft *r, uint64_t index, const struct nh_membership *m);
/* What a majority of each half reaches, of a number that this replica has (`own`) and its peers have. Leader only. */
uint64_t raft_majority(const struct raft *r, uint64_t own, uint64_t (*of)(const struct raft_peer *p));
/* The same of those voters who store payloads: without the witnesses. */
uint64_t raft_data_majority(const struct raft *r, uint64_t own, uint64_t (*of)(const struct raft_peer *p));
enum raft_verdict { RAFT_VERDICT_OPEN = 0, RAFT_VERDICT_WON, RAFT_VERDICT_LOST };
enum raft_verdict raft_verdict(const struct raft *r); /* by the ballots of an election */
bool raft_leave_joint_is_due(const struct raft *r);
void raft_leave_joint(struct raft *r);

/* raft.c */
static inline bool raft_is_leader(const struct raft *r)
{
    return r->role == RAFT_LEADER;
}
static inline uint64_t raft_election_deadline(const struct raft *r)
{
    return r->election_since + r->election_timeout;
}
/* True if the current term and vote are durable. */
static inline bool raft_state_saved(const struct raft *r)
{
    return r->saved_term == r->term && r->saved_vote == r->vote;
}
void raft_ignore(struct raft *r); /* counts a message that is malformed or out of place */

/* send.c: a new message in the update, with the addresses and the own term filled in. */
struct nh_message *raft_send_now(struct raft *r, enum nh_message_type type, uint64_t to);
struct nh_message *raft_send_after_save(struct raft *r, enum nh_message_type type, uint64_t to);
struct nh_message *raft_send_reply(struct raft *r, enum nh_message_type type, uint64_t to);
void raft_report_dropped(struct raft *r, bool is_read, int reason, uint64_t first_key, uint64_t n_keys);

/* message.c */
void raft_on_message(struct raft *r, const struct nh_message *m);

/* role.c */
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader_id);
void raft_become_pre_candidate(struct raft *r);
void raft_become_candidate(struct raft *r);
void raft_become_leader(struct raft *r);
void raft_reset_election_timer(struct raft *r);
void raft_lead_free(struct raft_lead *lead); /* takes NULL */

/* election.c */
void raft_campaign(struct raft *r);
bool raft_may_campaign(const struct raft *r);
bool raft_calls(const struct raft *r); /* non-voting, a witness, or removed: its timer makes it call, not stand */
void raft_call(struct raft *r);
void raft_stand_now(struct raft *r); /* at the wish of the leader: no pre-vote, and leases do not stop it */
void raft_forget_leader(struct raft *r);
bool raft_is_sticky(const struct raft *r, uint64_t candidate);
void raft_refuse_vote(struct raft *r, enum nh_message_type type, uint64_t to);
void raft_on_request_vote(struct raft *r, const struct nh_message *m);
void raft_on_request_vote_resp(struct raft *r, const struct nh_message *m);
void raft_on_request_pre_vote(struct raft *r, const struct nh_message *m);
void raft_on_request_pre_vote_resp(struct raft *r, const struct nh_message *m);
void raft_count_own_vote(struct raft *r);

/* replicate.c */
void raft_on_replicate(struct raft *r, const struct nh_message *m);
void raft_on_replicate_resp(struct raft *r, const struct nh_message *m);
void raft_accept(struct raft *r, uint64_t leader, uint64_t index); /* acknowledges, after the save */
void raft_advance_commit(struct raft *r);                          /* leader: by what a quorum holds */
void raft_commit_to(struct raft *r, uint64_t index);               /* as somebody says who knows: its leader, its machine */
void raft_leave_if_removed(struct raft *r);
bool raft_own_term_committed(const struct raft *r); /* leader only */
uint64_t raft_known_commit_of(const struct raft_peer *p);
uint64_t raft_match_of(const struct raft_peer *p);

/* stream.c */
/* False: the entry before `next` is no longer known here. Only a snapshot helps such a peer. */
static inline bool raft_has_anchor(const struct raft *r, const struct raft_peer *p)
{
    if (p->next > r->log.first)
        return true; /* it is in the log: next <= last + 1 */
    return p->next == 1 ? r->log.first == 1 : raft_log_term(&r->log, p->next - 1) != 0;
}
void raft_replicate_all(struct raft *r);
bool raft_replicate_pending(const struct raft *r);
void raft_on_fetched(struct raft *r, uint64_t peer, const struct nh_run *runs, uint32_t n_runs);
void raft_on_unreachable(struct raft *r, uint64_t peer);

/* snapshot.c */
bool raft_snapshot_is_due(const struct raft *r, const struct raft_peer *p);
bool raft_snapshot_is_wanted(const struct raft *r); /* a peer needs one, and there is none that fits */
void raft_send_snapshot(struct raft *r, struct raft_peer *p);
void raft_on_install_snapshot(struct raft *r, const struct nh_message *m);
void raft_on_snapshot_made(struct raft *r, const struct nh_snapshot *snapshot);
void raft_on_compacted(struct raft *r, uint64_t index);
void raft_on_snapshot_status(struct raft *r, uint64_t peer, bool failed, bool pruned);
void raft_snapshot_heard(struct raft *r, struct raft_peer *p); /* a peer that is sent a snapshot gave a sign of life */

/* transfer.c */
void raft_transfer(struct raft *r, uint64_t target, uint64_t key);
void raft_on_leader_transfer(struct raft *r, const struct nh_message *m);
void raft_on_timeout_now(struct raft *r);
void raft_transfer_go_on(struct raft *r, const struct raft_peer *p); /* leader: it has heard from this peer */
void raft_transfer_tick(struct raft *r);
void raft_transfer_watch(struct raft *r); /* one was asked for here; after each step: has it ended? */
bool raft_can_take_over(const struct raft *r, uint64_t id);

/* removed.c */
bool raft_is_leaving(const struct raft *r); /* it knows that it was removed, and stays until others know too */
void raft_on_removed(struct raft *r, const struct nh_message *m);
bool raft_can_do_without_removed(const struct raft *r); /* a leader: those who stay hold all that is committed */

/* load.c */
void raft_report_load(struct raft *r);
void raft_repeat_load(struct raft *r);
void raft_on_rate_limit(struct raft *r, const struct nh_message *m);
bool raft_peer_takes_entries(const struct raft *r, const struct raft_peer *p);

/* heartbeat.c */
void raft_on_leader_tick(struct raft *r);
void raft_send_heartbeats(struct raft *r);
void raft_put_heartbeat_off(struct raft *r); /* entries have left for every peer */
void raft_send_heartbeat(struct raft *r, const struct raft_peer *p);
void raft_on_heartbeat(struct raft *r, const struct nh_message *m);
void raft_on_heartbeat_resp(struct raft *r, const struct nh_message *m);

/* read.c */
void raft_read(struct raft *r, uint64_t low, uint64_t high);
void raft_on_read_index(struct raft *r, const struct nh_message *m);
void raft_on_read_index_resp(struct raft *r, const struct nh_message *m);
uint64_t raft_read_round(const struct raft *r); /* what heartbeats carry; 0: nothing waits */
void raft_confirm_reads(struct raft *r);
void raft_release_deferred_reads(struct raft *r);
void raft_drop_reads(struct raft *r);
bool raft_holds_lease(const struct raft *r);

/* propose.c */
void raft_propose(struct raft *r, struct block_builder *records, uint64_t first_key, uint64_t n_keys);
void raft_on_propose(struct raft *r, const struct nh_message *m);
void raft_on_propose_resp(struct raft *r, const struct nh_message *m);
void raft_append_records(struct raft *r, struct block_builder *records);
bool raft_change_would_wait(const struct raft *r); /* a leader's: with witnesses, and voters away */
void raft_settle_held(struct raft *r); /* takes or drops the change that is held, if it is known by now who is there */
void raft_drop_held(struct raft *r);   /* if there is one: its leader gives way */

/* await.c */
bool raft_apply_is_held(const struct raft *r); /* entries that could be handed out wait for room */

/* quiesce.c */
void raft_wake(struct raft *r);
void raft_wake_for_message(struct raft *r, const struct nh_message *m);
void raft_go_quiet_if_idle(struct raft *r);
void raft_on_quiet_tick(struct raft *r);
uint64_t raft_quiet_deadline(const struct raft *r);
void raft_on_quiesce(struct raft *r, const struct nh_message *m);

/* check.c */
void raft_enforce(const struct raft *r); /* the cheap invariants, asserted */

#endif
