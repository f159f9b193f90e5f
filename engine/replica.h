/* engine/replica.h - one shard member of this host: its inbox, its core, its machine.
 *
 * Life of a replica, as its step worker sees it (`state`):
 *
 *     STARTING -- its first save is durable --> RUNNING -- stop --> STOPPING -- no save in flight --> (apply worker closes it)
 *        |                                        |
 *        +------- failure of its own -------------+-----> QUARANTINED -- stop --> STOPPING
 *        +------- the log store failed -----------+-----> FENCED ------- stop --> STOPPING
 *
 * Threads. The struct has three parts: what never changes; the inbox and what others may see, guarded by `lock`; what
 * belongs to the step worker. The machine (`rsm`) belongs to the apply worker, as engine/rsm/rsm.h says. `lock` is a leaf:
 * nothing is called while it is held but the functions of requests.h and block.h.
 *
 * The apply worker lends the machine to the snapshot pool while it is saved or recovered (engine/snapshots.h).
 *
 * References are held by the routes, the step worker, the apply worker (for its close), jobs of the snapshot pool and by each
 * call of an API function; the last one frees.
 */
#ifndef NH_ENGINE_REPLICA_H
#define NH_ENGINE_REPLICA_H

#include <pthread.h>

#include "engine/engine.h"
#include "engine/requests.h"
#include "engine/rsm/rsm.h"
#include "engine/saves.h"
#include "engine/snapshot_dir.h"
#include "engine/timer_wheel.h"
#include "raftio/support/memory.h"

struct step_worker;
struct apply_worker;

enum replica_state {
    REPLICA_STARTING = 0,
    REPLICA_RUNNING,
    REPLICA_QUARANTINED,
    REPLICA_FENCED,
    REPLICA_STOPPING,
};

/* Keys, and contexts of reads, of one start of a host differ in so many bits: incarnation << 40 | counter (raftio/entry.h). */
#define REPLICA_KEY_SHIFT 40u

/* What a step worker finds in its mailbox. */
enum step_item_type {
    STEP_NOTIFY,      /* a replica's inbox has something: embedded in the replica */
    STEP_START,       /* struct replica_item */
    STEP_STOP,        /* struct replica_item */
    STEP_INBOUND,     /* struct inbound */
    STEP_UNREACHABLE, /* struct unreachable_item */
};
struct step_item {
    struct queue_node node;
    enum step_item_type type;
};
struct replica_item {
    struct step_item item;
    struct replica *replica;
};
struct unreachable_item {
    struct step_item item;
    struct nh_replica_info to;
};

/* A configuration change that the apply worker decided. */
struct membership_change {
    struct queue_node node;
    uint64_t index;
    bool accepted;
    struct nh_membership membership;
};

/* News of snapshots and of the machine for the core. */
enum snapshot_note_type {
    NOTE_MADE,    /* `record` is durable; the log store holds nothing up to `compacted` (0: as before) */
    NOTE_FAILED,  /* none was made */
    NOTE_STATUS,  /* one reached `peer`, or did not (`failed`; `pruned`: as it was not there any more) */
    NOTE_INSTALL, /* one was received: `install` */
    NOTE_OPENED,  /* a machine on disk holds everything up to `opened_at` */
};
struct snapshot_note {
    struct queue_node node;
    enum snapshot_note_type type;
    struct nh_snapshot record;
    uint64_t compacted;
    uint64_t opened_at;
    uint64_t peer;
    bool failed, pruned;
    struct nh_message install;
};

/* What the apply worker must leave alone. */
enum machine_lent {
    LENT_NOT = 0,
    LENT_BESIDE,  /* saved beside updates: no closing, no recovery */
    LENT_READING, /* saved: no updates either */
    LENT_ALONE,   /* recovered, or its streams are being ended: nothing */
};

/* A member and where its messages go. */
struct replica_peer {
    uint64_t replica_id;
    struct outbox_peer *peer;
};

/* What a new replica saves before anything else. */
struct first_save {
    struct nh_state state;
    struct run_list runs; /* the first entry */
};

/* Acceptances that the core need not hear of at once: of so many peers, up to what each has accepted. */
#define KEPT_ANSWERS_MAX 4u
struct kept_answers {
    size_t n;
    struct {
        uint64_t from, index, commit;
    } items[KEPT_ANSWERS_MAX];
};

struct replica {
    struct engine *engine;
    struct step_worker *step;
    struct apply_worker *apply;
    struct rsm *rsm;
    uint64_t shard_id, replica_id;
    uint32_t election_ticks;
    bool uses_leases;
    bool has_place;                                                 /* the host has one for snapshots */
    bool has_snapshots;                                             /* and the machine can make them */
    uint64_t boot_commit;                                           /* ready once this is applied */
    uint64_t snapshot_entries, snapshot_bytes, compaction_overhead; /* as configured, defaults filled in */
    uint32_t snapshots_kept, compression;
    uint32_t sessions_max;       /* as configured, or the default; in openings of sessions */
    uint64_t installing;         /* atomic: a received snapshot up to here takes the place of the log, or has taken it */
    volatile bool snapshot_stop; /* what runs on the snapshot pool is to end early */
    uint32_t refs;               /* atomic */

    /* ---- guarded by lock ---- */
    pthread_mutex_t lock;
    struct step_item notify;
    bool notified;                  /* atomic: `notify` is in the step worker's mailbox, or out of it and the inbox not taken */
    bool has_expired;               /* some of `proposals` have ended */
    bool has_special;               /* some of `proposals` go to the core alone: configuration changes */
    bool awaits_applied;            /* the core is to hear of `applied` at once; else with its next event */
    int refusal;                    /* NH_OK, or the code that new requests get */
    struct block_builder proposals; /* the newest keys of `ring`: not yet given to the core */
    struct request_ring ring;       /* pending proposals */
    struct read_batch *reads;       /* not yet taken by the step worker; NULL: none */
    uint64_t next_read;             /* context of the next batch of reads */
    uint64_t earliest_ns;           /* no pending proposal expires before */
    uint64_t applied;               /* atomic: as told by the apply worker */
    struct queue changes;           /* struct membership_change */
    struct queue notes;             /* struct snapshot_note */
    struct queue wishes;            /* struct control, not yet taken */
    uint32_t n_wishes;
    uint32_t n_reads;         /* pending, of all batches */
    size_t queries_bytes;     /* of all batches, until they are freed or cleared */
    struct list reads_handed; /* struct read_batch: the apply worker has them, and some of their reads are pending */
    uint32_t n_handed;        /* batches that the apply worker has, pending or not */
    char *failure;            /* of the machine or of stored entries; NULL: none. Owned. */
    struct engine_replica_status status;

    /* ---- apply worker ---- */
    struct nh_snapshot *boot_snapshot; /* to be recovered before anything is applied; NULL: none, or it is under way. Owned. */
    enum machine_lent lent;
    struct queue parked;         /* struct apply_item: wait for the machine */
    struct queue reads_stranded; /* struct read_batch: wait for a recovery that is on its way */
    uint32_t n_streams;          /* images that are made on the fly for others */
    bool streams_ended;          /* all, for its close, once the machine is back */
    bool saving;                 /* a save is under way, perhaps with the machine given back */
    bool announced;              /* `status.ready` is set and was told */
    uint64_t snapshot_due;       /* at this index by itself */
    uint64_t bytes_applied;      /* since the last snapshot */

    /* ---- snapshot pool, one job at a time ---- */
    uint64_t image_bytes; /* of the newest image */
    uint64_t compacted;   /* the log is removed up to here */
    bool has_dir;         /* its directory for images is there, durably */

    /* ---- step worker ---- */
    enum replica_state state;
    bool is_hosted;    /* it is in the worker's map */
    bool is_notified;  /* `notify` is out of the mailbox, and the inbox not taken since */
    bool has_waiting;  /* what the inbox held was not all taken */
    bool awaits_saved; /* the core is to hear of `saved_id` at once; else with its next event */
    bool wake;         /* leave quiesce: the leader's host is silent */
    bool is_removed;   /* the core says so: to be stopped */
    bool told_overloaded;
    uint8_t n_without_proposals; /* so many turns brought none */
    struct raft *raft;
    struct list active; /* on the worker's list while it has something to do */
    struct timer timer;
    struct queue inbound;                 /* struct inbound_message */
    struct raft_patience patience;        /* of the core after its last turn */
    struct kept_answers *kept;            /* since then; NULL: none ever. Owned. */
    struct block_builder spare_proposals; /* empty: arrays for the inbox's next ones */
    uint64_t *unreachable;
    size_t cap_unreachable;
    struct replica_peer *peers;
    size_t n_peers, cap_peers;
    struct save_batch *last_batch; /* that holds its newest save still in flight; NULL: none */
    size_t last_save;              /* its place there */
    uint32_t n_saves;              /* in batches */
    uint32_t n_unreachable;
    uint64_t saved_id, told_saved_id;
    uint64_t told_applied;
    uint64_t handed;             /* last index given to the apply worker */
    struct list reads_waiting;   /* struct read_batch: without an index yet */
    struct list reads_confirmed; /* have an index that is not handed out yet */
    uint64_t reads_earliest_ns;  /* no read of these lists, or of reads_handed, expires before */
    uint64_t leader_id;
    uint64_t next_scan_ns;         /* expired requests are looked for at most this often */
    struct first_save *first_save; /* STARTING: to be begun; NULL: there is none, or it was. Owned. */
    struct queue controls;         /* struct control: taken, not yet given to the core */
    struct queue transfers;        /* struct control: begun */
    uint64_t next_transfer;        /* key of the last one */
    uint64_t told_uncommitted;     /* its part of the engine's uncommitted_bytes */
    uint64_t next_snapshot_tick;   /* a snapshot that a peer needs is asked for at most this often */
};

struct replica *replica_ref(struct replica *r);
void replica_unref(struct replica *r);      /* takes NULL */
void first_save_free(struct first_save *s); /* takes NULL */

/* Asks for what a step worker touches to put something into its queues. */
static inline void replica_prefetch_queue(const struct replica *r)
{
    prefetch(&r->engine, 64);
    prefetch(&r->state, offsetof(struct replica, reads_waiting) - offsetof(struct replica, state));
}

/* The same before an apply worker does something for it. */
static inline void replica_prefetch_apply(const struct replica *r)
{
    prefetch(r, offsetof(struct replica, image_bytes));
}

/* ---- any thread: requests in ---- */

/* As engine_propose and engine_read. */
int replica_propose(struct replica *r, const struct engine_proposal_kind *kind, const struct nh_proposal *proposals, size_t n,
                    uint64_t deadline_ns, struct nh_error *err);
int replica_read(struct replica *r, const void *query, size_t size_bytes, const struct request *request, struct nh_error *err);
void replica_get_status(struct replica *r, struct engine_replica_status *ret);
struct control;
/* Takes the control if it returns 0 (engine/controls.h). */
int replica_add_control(struct replica *r, struct control *c, struct nh_error *err);

/* ---- workers: requests out ---- */

/* What the inbox held. */
struct inbox {
    uint64_t applied;
    struct queue changes;
    struct queue notes;
    struct block_builder proposals;
    uint64_t first_key;
    bool has_expired, has_special;
    struct read_batch *reads;
    struct queue wishes;
    bool failed;
};
/* Once per turn: what the machine holds, and whether the inbox is to be taken: something came, or stayed there. Thread: step
 * worker. */
bool replica_look_at_inbox(struct replica *r, uint64_t *ret_applied);
/* Takes the inbox; proposals only on demand: without a leader they wait there. What comes from now on is notified again. Thread:
 * step worker. */
void replica_take_inbox(struct replica *r, bool with_proposals, struct inbox *ret);
/* Takes the arrays of its proposals, which are done with, for later ones. Thread: step worker. */
void replica_reuse_proposals(struct replica *r, struct inbox *in);
/* The first range of pending keys in [*key, end): sets *key and returns its end; 0 if there is none. */
uint64_t replica_pending_range(struct replica *r, uint64_t *key, uint64_t end);
/* Ends the pending proposals of [first_key, first_key + n). Thread: any worker. */
void replica_end_proposals(struct replica *r, uint64_t first_key, uint64_t n, int code, int drop_reason);
/* Ends what of a batch is pending and its deadline not after expired_at_ns (UINT64_MAX: all). */
void replica_end_reads(struct replica *r, struct read_batch *b, uint64_t expired_at_ns, int code, int drop_reason);
/* Its queries take no room any more. With r->lock held. */
void replica_forget_queries(struct replica *r, const struct read_batch *b);
/* The same, and frees it; takes NULL. */
void replica_free_reads(struct replica *r, struct read_batch *b);
/* Ends what has expired of the inbox (DROPPED) and of the proposals that were given to the core (TIMEOUT). Thread: step worker.
 */
void replica_expire(struct replica *r, uint64_t now_ns);
/* No pending proposal expires before. Thread: any. */
uint64_t replica_earliest(struct replica *r);
/* Refuses later requests with `code` and ends the pending ones of inbox and ring as TERMINATED. Thread: a worker. */
void replica_terminate(struct replica *r, int code);
void replica_post_failure(struct replica *r, const char *failure);           /* the same, of a failure alone; thread: any */
void replica_post_note(struct replica *r, const struct snapshot_note *note); /* takes its contents; thread: any */
void snapshot_note_free(struct snapshot_note *note);
/* Where its images are; only with has_place. Thread: any. */
void replica_snapshot_dir(const struct replica *r, struct snapshot_dir *ret);
/* Index of the newest durable snapshot. Thread: any. */
uint64_t replica_snapshot_index(struct replica *r);
void replica_set_snapshot_index(struct replica *r, uint64_t index);
/* The apply worker's news: applied up to, a change, a failure (copied; the first one counts). The step worker is woken only if
 * somebody waits for them. */
void replica_post_applied(struct replica *r, uint64_t applied, struct queue *changes, const char *failure);

#endif
