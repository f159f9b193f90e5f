/* engine/log_worker.h - performs the saves of one step worker, so that it can go on while the disk syncs.
 *
 * Threads: posted to by its step worker; the poll function by the runtime. One batch is in flight at a time. Errors: the result
 * of a write is in the batch; what it means is the step worker's business.
 */
#ifndef NH_ENGINE_LOG_WORKER_H
#define NH_ENGINE_LOG_WORKER_H

#include "engine/saves.h"
#include "raftio/support/mailbox.h"

struct step_worker;

struct log_worker {
    struct step_worker *step;
    struct task *task;
    struct mailbox mailbox; /* struct save_batch */
};

struct log_worker *log_worker_new(struct step_worker *step);
void log_worker_free(struct log_worker *w); /* takes NULL */
void log_worker_start(struct log_worker *w);
void log_worker_stop(struct log_worker *w);                           /* writes what was posted, then stops */
void log_worker_post(struct log_worker *w, struct save_batch *batch); /* lent until step_worker_saved */

#endif
