/* engine/apply_worker.h - hands committed entries to machines, answers reads, ends requests.
 *
 * What a replica's step worker posts is done in order: open the machine, apply, answer reads, close. So a batch of reads
 * that is posted behind the entries up to its index finds them applied. While the machine is lent to the snapshot pool, what has
 * to wait for it is parked with its replica, and done in order when it is back (engine/snapshots.h).
 *
 * A step worker with little to be applied does it itself if nothing is before it (engine/apply_inline.h): what a client waits for
 * is over before another thread would have woken up.
 *
 * Threads: apply_worker_do_all and apply_worker_post_all from step workers, apply_worker_post from any; the poll function by the
 * runtime. A replica belongs to one apply worker, and that is the thread which has taken its place (`taken`); nobody waits for
 * it, who finds it taken leaves what is to be done in the mailbox.
 */
#ifndef NH_ENGINE_APPLY_WORKER_H
#define NH_ENGINE_APPLY_WORKER_H

#include "engine/replica.h"
#include "raftio/support/mailbox.h"

enum apply_item_type {
    APPLY_OPEN,    /* open the machine */
    APPLY_ENTRIES, /* apply [first, last]; without runs: read them from the log store */
    APPLY_READS,   /* answer them */
    APPLY_SAVE,    /* make a snapshot */
    APPLY_RECOVER, /* take over the snapshot `record` */
    APPLY_STREAM,  /* begin to send an image that is made on the fly */
    /* News, never parked: */
    APPLY_RETURNED,     /* the machine is back from the snapshot pool, or a save has ended. Has a reference on the replica. */
    APPLY_STREAM_ENDED, /* an image on the fly needs the machine no more. The same. */
    APPLY_CLOSE,        /* close the machine, end what is pending, drop the worker's reference */
};

/* What is about snapshots has besides. */
struct apply_snapshot {
    struct request request;                   /* SAVE; RETURNED: of the save that has ended; fn NULL: nobody waits */
    uint64_t overhead;                        /* SAVE */
    char *export_dir;                         /* SAVE; owned; NULL: none */
    struct nh_snapshot *record;               /* RECOVER; owned */
    struct nh_message *install;               /* STREAM; owned */
    char address[NH_ADDRESS_BYTES];           /* STREAM */
    bool machine_back, save_ended, recovered; /* RETURNED */
    char *failure;                            /* RETURNED: of the machine; owned; NULL: none */
    int code;                                 /* RETURNED: how the request ends; its index is the item's `last` */
    char *text;                               /* and what it says; owned */
};

/* One per shard and pass, so it is small and one allocation. */
struct apply_item {
    struct queue_node node;
    enum apply_item_type type;
    uint32_t n_runs;
    struct replica *replica;
    uint64_t first, last;
    struct read_batch *reads;
    struct apply_snapshot *snapshot; /* of SAVE, RECOVER, STREAM, RETURNED; owned */
    struct nh_run runs[];            /* owned references */
};

/* An item without runs, zeroed, with `snapshot` if it is of a type that has it. */
struct apply_item *apply_item_new(enum apply_item_type type, struct replica *r);
/* Entries [first, last]. Takes the runs out of the list, which keeps its array. Thread: the replica's step worker. */
struct apply_item *apply_entries_new(struct replica *r, uint64_t first, uint64_t last, struct run_list *runs);

/* Items of entries with no more runs are used again: a step worker takes back what the apply worker is done with. About as
 * many stay as were under way at once. */
#define APPLY_SPARE_RUNS 4u
/* What one step worker has taken back, for itself. A cache line, as others write theirs. */
struct apply_spares {
    struct queue items;
    uint8_t unused[64 - sizeof(struct queue)];
};

struct apply_worker {
    struct engine *engine;
    struct task *task;
    struct mailbox mailbox;
    struct mailbox used;         /* struct apply_item: to be taken back */
    struct apply_spares *spares; /* per step worker */
    bool taken;                  /* atomic: a thread is in its place, and owns what follows */
    uint64_t no_help_until_ns;   /* a machine or a completion was slow */
    struct rsm_batch *batch;
    struct queue done;                                     /* struct apply_item: for `used` */
    uint64_t entries_applied, apply_calls, reads_answered; /* atomic */
};

struct apply_worker *apply_worker_new(struct engine *e);
void apply_worker_free(struct apply_worker *w); /* takes NULL; its mailbox must be empty */
void apply_worker_start(struct apply_worker *w);
void apply_worker_stop(struct apply_worker *w); /* stops polling; the mailbox keeps what is in it */
/* Does what is in the mailbox. `arg` is the worker. */
uint64_t apply_worker_poll(void *arg);
/* After the stop: until nothing is left, as machines come back and closes go on. */
void apply_worker_drain(struct apply_worker *w);
/* Posts items (struct apply_item, transferred) and wakes the worker. */
void apply_worker_post_all(struct apply_worker *w, struct queue *items);
/* The same, but does what apply_inline.h allows here and now. At the end of a step worker's pass, with no lock held: machines and
 * completions are called. */
void apply_worker_do_all(struct apply_worker *w, struct queue *items);
void apply_worker_post(struct apply_worker *w, struct apply_item *item);

/* ---- for engine/snapshots.c ---- */

/* The machine or its entries cannot be trusted any more: the step worker takes the replica out. */
void apply_worker_fail(struct replica *r, const char *reason);
/* Tells, once, that the log is replayed up to where it was known to be committed at start. */
void apply_worker_announce(struct replica *r);

#endif
