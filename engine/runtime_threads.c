/* The threaded runtime: one thread per task. */
#include "engine/runtime.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftio/support/memory.h"

#define NAME_BYTES 16 /* what Linux keeps of a thread's name */

struct threads_runtime {
    struct runtime base;
};

struct task {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wakeup;
    bool woken;            /* guarded by lock */
    bool stopped;          /* guarded by lock */
    bool polling;          /* guarded by lock: somebody polls */
    uint64_t next;         /* guarded by lock: when the last poll wants the next one */
    uint64_t sleeps_until; /* guarded by lock: the thread, if nobody signals */
    task_poll_fn poll;
    void *arg;
    char name[NAME_BYTES];
};

static __thread bool is_worker_thread;

bool runtime_on_worker_thread(void)
{
    return is_worker_thread;
}

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t now_ns(struct runtime *rt)
{
    (void)rt;
    return read_clock(CLOCK_MONOTONIC);
}

/* The time of the last tick. */
static uint64_t coarse_ns(struct runtime *rt)
{
    (void)rt;
    return read_clock(CLOCK_MONOTONIC_COARSE);
}

static bool is_due(const struct task *t)
{
    return t->woken || t->stopped || t->next == TASK_POLL_NOW;
}

/* Waits until nobody else polls and it is woken, stopped or due; false when stopped. */
static bool begin_turn(struct task *t)
{
    int rc = 0;
    bool go_on;

    pthread_mutex_lock(&t->lock);
    while (t->polling || (!is_due(t) && rc != ETIMEDOUT)) {
        struct timespec until = {.tv_sec = (time_t)(t->next / 1000000000u), .tv_nsec = (long)(t->next % 1000000000u)};

        t->sleeps_until = t->polling ? TASK_POLL_NEVER : t->next;
        rc = 0;
        if (t->sleeps_until == TASK_POLL_NEVER)
            pthread_cond_wait(&t->wakeup, &t->lock);
        else
            rc = pthread_cond_timedwait(&t->wakeup, &t->lock, &until);
    }
    t->woken = false;
    go_on = !t->stopped;
    t->polling = go_on;
    pthread_mutex_unlock(&t->lock);
    return go_on;
}

static void *run(void *arg)
{
    struct task *t = arg;

    is_worker_thread = true;
    pthread_setname_np(pthread_self(), t->name);
    while (begin_turn(t)) {
        uint64_t next = t->poll(t->arg);

        pthread_mutex_lock(&t->lock);
        t->polling = false;
        t->next = next;
        pthread_mutex_unlock(&t->lock);
    }
    return NULL;
}

/* One turn on a thread that is not the task's, between two holds of the lock. */
static void take_turn_locked(struct task *t)
{
    bool was_worker_thread = is_worker_thread;
    uint64_t next;

    t->woken = false;
    pthread_mutex_unlock(&t->lock);
    is_worker_thread = true;
    next = t->poll(t->arg);
    is_worker_thread = was_worker_thread;
    pthread_mutex_lock(&t->lock);
    t->next = next;
}

static bool task_step_in(struct task *t)
{
    bool sleeps;

    pthread_mutex_lock(&t->lock);
    sleeps = !t->polling && !is_due(t);
    if (sleeps) {
        uint64_t until_ns = now_ns(NULL) + RUNTIME_STEP_IN_NS;

        t->polling = true;
        take_turn_locked(t);
        for (unsigned turns = 1; is_due(t) && !t->stopped && turns < RUNTIME_STEP_IN_TURNS && now_ns(NULL) < until_ns; turns++)
            take_turn_locked(t);
        t->polling = false;
        if (is_due(t) || t->next < t->sleeps_until)
            pthread_cond_signal(&t->wakeup);
    }
    pthread_mutex_unlock(&t->lock);
    return sleeps;
}

static struct task *task_start(struct runtime *rt, const char *name, task_poll_fn poll, void *arg)
{
    struct task *t = xcalloc(1, sizeof *t);
    pthread_condattr_t attr;
    int rc;

    (void)rt;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wakeup, &attr);
    pthread_condattr_destroy(&attr);
    t->poll = poll;
    t->arg = arg;
    strncpy(t->name, name, NAME_BYTES - 1);
    rc = pthread_create(&t->thread, NULL, run, t);
    if (rc != 0)
        abort(); /* as for memory: a small fixed number of threads at start, nothing safer to do without them */
    return t;
}

static void task_wake(struct task *t)
{
    bool sleeps;

    pthread_mutex_lock(&t->lock);
    sleeps = !t->woken && !t->polling; /* who polls looks again */
    t->woken = true;
    pthread_mutex_unlock(&t->lock);
    if (sleeps)
        pthread_cond_signal(&t->wakeup);
}

static void task_stop(struct task *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopped = true;
    pthread_mutex_unlock(&t->lock);
    pthread_cond_signal(&t->wakeup);
    pthread_join(t->thread, NULL);
}

static void task_free(struct task *t)
{
    if (!t)
        return;
    pthread_cond_destroy(&t->wakeup);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static bool sleep_ns(struct runtime *rt, uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};

    (void)rt;
    nanosleep(&ts, NULL);
    return true;
}

static const struct runtime_ops ops = {
    .now_ns = now_ns,
    .coarse_ns = coarse_ns,
    .task_start = task_start,
    .task_wake = task_wake,
    .task_step_in = task_step_in,
    .task_stop = task_stop,
    .task_free = task_free,
    .sleep_ns = sleep_ns,
};

struct runtime *runtime_threads_new(void)
{
    struct threads_runtime *rt = xcalloc(1, sizeof *rt);

    rt->base.ops = &ops;
    return &rt->base;
}

void runtime_threads_free(struct runtime *rt)
{
    free(rt);
}
