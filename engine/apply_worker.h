/* engine/apply_worker.h - hands committed entries to machines, answers reads, ends requests.
 *
 * What a replica's step worker posts is done in order: open the machine, apply, answer reads, close. So a batch of reads
 * that is posted behind the entries up to its index finds them applied.
 *
 * Threads: apply_worker_post from step workers; the poll function by the runtime. A replica belongs to one apply worker.
 */
#ifndef NH_ENGINE_APPLY_WORKER_H
#define NH_ENGINE_APPLY_WORKER_H

#include "engine/replica.h"
#include "raftio/support/mailbox.h"

enum apply_item_type {
    APPLY_OPEN,    /* open the machine */
    APPLY_ENTRIES, /* apply [first, last]; without runs: read them from the log store */
    APPLY_READS,   /* answer them */
    APPLY_CLOSE,   /* close the machine, end what is pending, drop the worker's reference */
};

struct apply_item {
    struct queue_node node;
    enum apply_item_type type;
    struct replica *replica;
    uint64_t first, last;
    struct run_list runs;
    struct read_batch *reads;
};

struct apply_worker {
    struct engine *engine;
    struct task *task;
    struct mailbox mailbox;
    uint64_t entries_applied, apply_calls, reads_answered; /* atomic */
};

struct apply_worker *apply_worker_new(struct engine *e);
void apply_worker_free(struct apply_worker *w); /* takes NULL; its mailbox must be empty */
void apply_worker_start(struct apply_worker *w);
void apply_worker_stop(struct apply_worker *w); /* stops polling; the mailbox keeps what is in it */
/* Does what is in the mailbox. `arg` is the worker. */
uint64_t apply_worker_poll(void *arg);
/* Posts items (struct apply_item, transferred) and wakes the worker. */
void apply_worker_post_all(struct apply_worker *w, struct queue *items);

#endif
