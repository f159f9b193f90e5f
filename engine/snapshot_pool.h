/* engine/snapshot_pool.h - a few threads for the long work of snapshots: recovering, saving.
 *
 * Jobs wait in one queue per kind and are taken in the order of the kinds, then of their arrival: who must recover holds up a
 * replica, a save only delays compaction. A job runs to its end on one worker.
 *
 * Stopping: jobs that run are told by their stop flag; those that wait are run with the flag set, so that each job ends by its
 * own code, once. What is posted after the stop runs inside snapshot_pool_post, with the flag set.
 *
 * Threads: snapshot_pool_post any; the rest the owner. Errors: none.
 */
#ifndef NH_ENGINE_SNAPSHOT_POOL_H
#define NH_ENGINE_SNAPSHOT_POOL_H

#include "engine/runtime.h"
#include "raftio/support/list.h"

#define SNAPSHOT_WORKERS_DEFAULT 2u
#define SNAPSHOT_WORKERS_MAX     16u

struct snapshot_pool;

enum pool_priority { POOL_RECOVER = 0, POOL_SAVE };
#define POOL_PRIORITIES 2u

/* Embedded in a job. */
struct pool_job {
    struct queue_node node;
    struct list running;
    enum pool_priority priority;
    void (*run)(
        struct pool_job *job); /* calls snapshot_pool_leave when it has no more use for its stop flag; may free the job then */
    volatile bool *stop;
};

struct snapshot_pool *snapshot_pool_new(struct runtime *runtime, uint32_t n_workers);
void snapshot_pool_start(struct snapshot_pool *p);
void snapshot_pool_stop(struct snapshot_pool *p);
void snapshot_pool_free(struct snapshot_pool *p); /* takes NULL */
void snapshot_pool_post(struct snapshot_pool *p, struct pool_job *job);
/* From inside a run, once. */
void snapshot_pool_leave(struct snapshot_pool *p, struct pool_job *job);

#endif
