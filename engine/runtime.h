/* engine/runtime.h - the only door between the engine and time, threads and sleep.
 *
 * A worker is a `poll` function: it drains what is there and returns the time at which it wants to be polled again even if
 * nobody wakes it. A runtime decides when that happens. There are two: threads (below), and the simulator's single seeded
 * thread with virtual time (tests/sim). Nothing else in engine/ blocks, sleeps, reads a clock or starts a thread.
 */
#ifndef NH_ENGINE_RUNTIME_H
#define NH_ENGINE_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

struct runtime;
struct task;

#define TASK_POLL_NOW   0u
#define TASK_POLL_NEVER UINT64_MAX
/* A tick of kernels that have a hundred in a second. */
#define RUNTIME_COARSE_NS 10000000u
/* Polls of a task on somebody else's thread, one after the other, at most; none begins later than this after the first. */
#define RUNTIME_STEP_IN_TURNS 8u
#define RUNTIME_STEP_IN_NS    2000000u

/* Returns the next wanted poll time on the runtime's clock: TASK_POLL_NOW for at once, TASK_POLL_NEVER for only when woken. */
typedef uint64_t (*task_poll_fn)(void *arg);

struct runtime_ops {
    /* Monotonic time of this host. Thread: any. */
    uint64_t (*now_ns)(struct runtime *rt);
    /* The same for a fifth of the price, for what is done per request: behind by less than RUNTIME_COARSE_NS. Thread: any. */
    uint64_t (*coarse_ns)(struct runtime *rt);
    /* Gives the worker a seat; its first poll follows soon. `name` is copied (15 characters are kept). */
    struct task *(*task_start)(struct runtime *rt, const char *name, task_poll_fn poll, void *arg);
    /* Makes a poll follow soon; wakes between two polls count as one; of a stopped task: does nothing. Thread: any. */
    void (*task_wake)(struct task *t);
    /* If the task sleeps, polls it here instead of waking it, which saves a switch of threads, until it would sleep again (a few
     * times at most: then its own thread goes on). A poll may wait for the disk. False: it does not sleep, wake it. Optional.
     * Thread: any that holds no lock. */
    bool (*task_step_in)(struct task *t);
    /* No poll runs after it has returned. Takes NULL. Never from inside a poll. */
    void (*task_stop)(struct task *t);
    /* After task_stop, when nobody can wake it any more. Takes NULL. */
    void (*task_free)(struct task *t);
    /* Sleeps, for the few who run somebody else's code that must wait (a machine that writes into a stream whose window is full).
     * False: there is nobody else to wait for, as the runtime has one thread (the simulator): go on as if there were room. */
    bool (*sleep_ns)(struct runtime *rt, uint64_t ns);
};

struct runtime {
    const struct runtime_ops *ops;
};

static inline uint64_t runtime_now_ns(struct runtime *rt)
{
    return rt->ops->now_ns(rt);
}

/* The threaded runtime: one thread per task, CLOCK_MONOTONIC. */
struct runtime *runtime_threads_new(void);
void runtime_threads_free(struct runtime *rt);
/* True on a thread that such a runtime started: blocking calls are refused there. */
bool runtime_on_worker_thread(void);

#endif
