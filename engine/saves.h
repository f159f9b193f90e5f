/* engine/saves.h - one durable write for all ready replicas of a worker, and what waits for it.
 *
 * A step worker fills a batch while the one before is being written. With each replica's save go the messages that may only
 * leave when it is durable (step 4 of the order of durability, engine/step_worker.c).
 *
 * If the store cannot read what it has of one of them, that one is left out, with all it saves in this batch and the next, and
 * the others are written one by one: it goes into quarantine, and its host lives on.
 *
 * Threads: a batch belongs to its step worker, and to the log worker from the hand-over until it comes back. No locks.
 */
#ifndef NH_ENGINE_SAVES_H
#define NH_ENGINE_SAVES_H

#include "engine/outbox.h"
#include "raftio/logdb.h"
#include "raftio/support/block.h"

struct replica;

struct save {
    struct replica *replica;      /* borrowed: counted in replica->n_saves */
    uint64_t save_id;             /* of the core; 0: the first save of a new replica */
    size_t first_run;             /* in the batch's runs */
    struct nh_snapshot *snapshot; /* a received one, to be recovered when the save is durable; owned; NULL: none */
    char *failure;                /* of this replica alone: it was not and will not be written; owned; NULL: none */
};

struct save_batch {
    struct queue_node node; /* in the log worker's mailbox, then in the step worker's list of done ones */
    struct save *saves;
    struct nh_update *updates; /* parallel to saves; their runs are known when it is written */
    size_t n, cap_saves, cap_updates;
    /* Runs, and what leaves when the save is durable: of all replicas, as arrays for each of them would be allocated anew each
     * time. */
    struct nh_run *runs;
    size_t n_runs, cap_runs;
    struct messages after;
    size_t *after_saves; /* parallel to them: of which save */
    size_t cap_after_saves;
    bool must_sync;
    bool has_snapshots, has_failures; /* of single replicas */
    bool begun;                       /* the store has it, and result tells whether it took it */
    int result;                       /* of the write */
    struct nh_error err;
};

struct save_batch *save_batch_new(void);
void save_batch_free(struct save_batch *b); /* takes NULL */
/* Empties it, keeps the arrays. */
void save_batch_clear(struct save_batch *b);
/* Adds one save; takes the runs out of the list, which keeps its array, and copies the update's snapshot. Returns its place in
 * b->saves. */
size_t save_batch_add(struct save_batch *b, struct replica *r, const struct nh_update *update, uint64_t save_id,
                      struct run_list *runs);
/* `message` (moved) is to leave when save `at` is durable. */
void save_batch_add_after(struct save_batch *b, size_t at, const struct nh_message *message);
/* Entries in it. */
uint64_t save_batch_entries(const struct save_batch *b);
/* Of so few replicas and bytes of entries that it is put together at once. */
bool save_batch_is_small(const struct save_batch *b);
/* All of this replica's saves in it are not to be written: an earlier one failed for this reason. */
void save_batch_leave_out(struct save_batch *b, const struct replica *r, const char *reason);
/* Gets its write under way, if the store can do that. */
void save_batch_begin(struct save_batch *b, const struct nh_logdb_ops *ops, struct nh_logdb *db, uint32_t worker_id);
/* Writes it, or waits until it is written; sets result and err, and what has failed of single replicas. */
void save_batch_write(struct save_batch *b, const struct nh_logdb_ops *ops, struct nh_logdb *db, uint32_t worker_id);

#endif
