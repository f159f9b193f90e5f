/* engine/step_worker.h - drives the cores of its replicas. The heart of the engine.
 *
 * One pass of its poll function:
 *
 *     take the mailbox, the saves that are done and the timers that are due; that makes replicas active
 *     drive each active replica once (engine/drive.c): events into its core, its update out
 *     begin to save, in one batch, if none is being written; or hand that to the log worker
 *     send what the updates brought, one batch per peer host
 *     post what is to be applied
 *     end the save
 *
 * The order of durability (engine/raft/raft.h, docs/ARCHITECTURE.md) is enforced here and nowhere else:
 *
 *   1 take the update        drive.c: raft_collect
 *   2 send, answer, report   drive.c: obey; the messages leave in flush before the save ends
 *   3 save                   step_saves.c: begin, end: all replicas of the pass, one durable write
 *   4 then votes, acks       step_saves.c: finish_batch: only a save that succeeded releases `after`, and becomes a SAVED event
 *   5 apply                  drive.c: obey; the core names only entries that are saved here
 *   6 applied                drive.c: the apply worker's news become an APPLIED event
 *
 * A replica is not driven for news of a save or of its machine that nobody waits for (raft_awaits_saved, raft_awaits_applied),
 * nor for the answer of a peer who was not needed for a majority (raft_get_patience): they become events together with the next.
 *
 * A failed save ends the worker's driving for good (FENCED): what depends on it never leaves.
 *
 * Threads: step_worker_post and step_worker_saved from any thread; everything else belongs to whoever polls: the worker's own
 * thread, or a transport's that steps in for it (runtime.h: task_step_in).
 */
#ifndef NH_ENGINE_STEP_WORKER_H
#define NH_ENGINE_STEP_WORKER_H

#include "engine/log_worker.h"
#include "engine/replica.h"
#include "raftio/support/map.h"
#include "raftio/support/mailbox.h"

/* A peer that nothing was sent to for this long gets a ping. */
#define HOST_PING_TICKS 2u
/* A host that was not heard of for this long wakes the quiet replicas that follow a leader there. */
#define HOST_SILENT_TICKS 10u
/* Requests that may have expired are looked for at most this often per replica. */
#define EXPIRY_SCAN_MS 10u
/* The transport's thread does the work of a sleeping worker if it brings no more than this: bytes of entries, and for each
 * message some more. Unless a pass of the worker took longer than this: then not for so many times as long, or this long. */
#define STEP_IN_COST_MAX     16384u
#define STEP_IN_MESSAGE_COST 512u
#define STEP_IN_PASS_NS_MAX  5000000u
#define STEP_IN_PAUSE_FACTOR 10u
#define STEP_IN_PAUSE_NS_MAX 10000000000u

struct apply_item;

struct step_worker {
    struct engine *engine;
    uint32_t worker_id; /* for the log store: 1 .. n */
    struct task *task;
    struct log_worker *log; /* NULL: saves itself */
    struct mailbox mailbox; /* struct step_item */
    struct mailbox saved;   /* struct save_batch */

    struct map replicas;   /* shard id -> struct replica, one reference each */
    struct list active;    /* to be driven in this pass */
    struct list again;     /* to be driven in the next one, at once */
    struct queue inbounds; /* whose messages are in replicas' queues */
    struct timer_wheel wheel;
    struct raft_update update; /* scratch */
    struct outbox outbox;
    struct save_batch *open;      /* being filled */
    struct save_batch *in_flight; /* being written; NULL: none */
    struct save_batch *spare;
    struct queue *to_apply;    /* per apply worker: struct apply_item */
    uint64_t now_ns, now_tick; /* of this pass */
    uint64_t next_host_tick;
    uint64_t uncommitted_change; /* of this pass, modulo 2^64: for the engine's sum */
    bool fenced;
    size_t inbound_bytes;         /* atomic: of messages that were posted and are not done with */
    uint64_t quiet;               /* atomic: cost of messages posted without a wake-up */
    uint64_t no_step_in_until_ns; /* atomic: passes are slow */
    uint64_t passes, saves, saved_updates, saved_entries, synced_saves, messages_received, ignored; /* atomic */
};

struct step_worker *step_worker_new(struct engine *e, uint32_t worker_id);
void step_worker_free(struct step_worker *w); /* takes NULL */
void step_worker_start(struct step_worker *w);
/* Stops polling and the log worker. */
void step_worker_stop(struct step_worker *w);
/* After all workers have stopped, on the stopping thread: ends every replica and gives the peers' connections back. */
void step_worker_drain(struct step_worker *w);
/* Forgets what the transport has posted since. */
void step_worker_discard(struct step_worker *w);
uint64_t step_worker_poll(void *arg);

/* Posts an item (transferred; a notification is embedded in its replica) and wakes the worker. */
void step_worker_post(struct step_worker *w, struct step_item *item);
/* Counts messages of this size in, which are to be posted. False: too much waits (INBOUND_BYTES_MAX). Thread: any. */
bool step_worker_make_room(struct step_worker *w, size_t size_bytes);
/* Posts messages that cost so much (STEP_IN_COST_MAX), and wakes the worker only if that is too much to step in for;
 * step_worker_take_quiet follows. */
void step_worker_post_quietly(struct step_worker *w, struct step_item *item, uint64_t cost);
/* The cost of what was posted so since it was last asked; if any, the caller wakes the worker or steps in. */
uint64_t step_worker_take_quiet(struct step_worker *w);
/* Does the worker's passes on the caller's thread, which holds no lock, if it sleeps, this costs little and its passes are quick;
 * else wakes it. */
void step_worker_step_in(struct step_worker *w, uint64_t cost);
/* Posts what the transport or the owner of a replica has to say. Allocates the item. */
void step_worker_post_replica(struct step_worker *w, enum step_item_type type, struct replica *r);
void step_worker_post_unreachable(struct step_worker *w, struct nh_replica_info to);
/* The log worker gives a batch back. */
void step_worker_saved(struct step_worker *w, struct save_batch *batch);
void step_worker_wake(struct step_worker *w);

/* ---- for drive.c ---- */

/* Makes sure that the replica is driven in this pass, or (from within its own driving) the next. */
void step_worker_activate(struct step_worker *w, struct replica *r);
/* The time of the pass is that of now. */
void step_worker_read_clock(struct step_worker *w);
void step_worker_again(struct step_worker *w, struct replica *r);
void step_worker_apply(struct step_worker *w, struct replica *r, struct apply_item *item); /* transferred */

#endif
