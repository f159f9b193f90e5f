#include "engine/snapshot_pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

struct worker {
    struct snapshot_pool *pool;
    struct task *task;
};

struct snapshot_pool {
    struct runtime *runtime;
    uint32_t n_workers;
    struct worker workers[SNAPSHOT_WORKERS_MAX];
    pthread_mutex_t lock;                  /* a leaf */
    struct queue waiting[POOL_PRIORITIES]; /* guarded by lock, as all below */
    struct list running;
    bool stopped;
};

struct snapshot_pool *snapshot_pool_new(struct runtime *runtime, uint32_t n_workers)
{
    struct snapshot_pool *p = xcalloc(1, sizeof *p);

    assert(n_workers <= SNAPSHOT_WORKERS_MAX);
    p->runtime = runtime;
    p->n_workers = n_workers ? n_workers : SNAPSHOT_WORKERS_DEFAULT;
    pthread_mutex_init(&p->lock, NULL);
    list_init(&p->running);
    return p;
}

void snapshot_pool_free(struct snapshot_pool *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->n_workers; i++)
        p->runtime->ops->task_free(p->workers[i].task);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* With the lock held: the next job, as one that runs. */
static struct pool_job *take(struct snapshot_pool *p)
{
    struct queue_node *node = NULL;
    struct pool_job *job;

    for (uint32_t i = 0; i < POOL_PRIORITIES && !node; i++)
        node = queue_pop(&p->waiting[i]);
    if (!node)
        return NULL;
    job = container_of(node, struct pool_job, node);
    list_push_back(&p->running, &job->running);
    if (p->stopped)
        __atomic_store_n(job->stop, true, __ATOMIC_RELAXED);
    return job;
}

static bool run_one(struct snapshot_pool *p)
{
    struct pool_job *job;

    pthread_mutex_lock(&p->lock);
    job = take(p);
    pthread_mutex_unlock(&p->lock);
    if (!job)
        return false;
    job->run(job);
    return true;
}

static uint64_t poll(void *arg)
{
    struct worker *w = arg;

    return run_one(w->pool) ? TASK_POLL_NOW : TASK_POLL_NEVER;
}

void snapshot_pool_start(struct snapshot_pool *p)
{
    for (uint32_t i = 0; i < p->n_workers; i++) {
        p->workers[i].pool = p;
        p->workers[i].task = p->runtime->ops->task_start(p->runtime, "nh-snapshot", poll, &p->workers[i]);
    }
}

void snapshot_pool_stop(struct snapshot_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->stopped = true;
    for (struct list *node = p->running.next; node != &p->running; node = node->next)
        __atomic_store_n(container_of(node, struct pool_job, running)->stop, true, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->n_workers; i++)
        p->runtime->ops->task_stop(p->workers[i].task);
    while (run_one(p)) {
    }
}

void snapshot_pool_post(struct snapshot_pool *p, struct pool_job *job)
{
    bool stopped;

    list_init(&job->running);
    pthread_mutex_lock(&p->lock);
    queue_push(&p->waiting[job->priority], &job->node);
    stopped = p->stopped;
    pthread_mutex_unlock(&p->lock);
    if (stopped)
        run_one(p);
    for (uint32_t i = 0; i < p->n_workers && !stopped; i++)
        p->runtime->ops->task_wake(p->workers[i].task); /* jobs are rare: whoever is free takes it */
}

void snapshot_pool_leave(struct snapshot_pool *p, struct pool_job *job)
{
    pthread_mutex_lock(&p->lock);
    list_remove(&job->running);
    pthread_mutex_unlock(&p->lock);
}
