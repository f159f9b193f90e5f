/* The threaded runtime: when tasks are polled, and by whom. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include "engine/runtime.h"

#define MS 1000000u

static struct runtime *rt;

/* What its poll does is set by the test, while nobody polls or under the semaphore. */
struct worker {
    struct task *task;
    sem_t polled;      /* once per poll */
    sem_t go_on;       /* waited for, if `holds` */
    bool holds;        /* atomic */
    uint32_t n_polls;  /* atomic */
    uint32_t slow_ms;  /* atomic: a poll takes so long */
    uint32_t n_now;    /* atomic: so many polls want the next at once */
    uint64_t wanted;   /* atomic: when the next poll is wanted otherwise */
    pthread_t poller;  /* of the last poll */
    bool is_on_worker; /* runtime_on_worker_thread() in the last poll */
};
static struct worker w;
static bool is_stopped;

static uint64_t poll(void *arg)
{
    struct worker *me = arg;
    uint64_t next = __atomic_load_n(&me->wanted, __ATOMIC_ACQUIRE);

    me->poller = pthread_self();
    me->is_on_worker = runtime_on_worker_thread();
    if (__atomic_load_n(&me->n_now, __ATOMIC_ACQUIRE) > 0) {
        __atomic_fetch_sub(&me->n_now, 1, __ATOMIC_ACQ_REL);
        next = TASK_POLL_NOW;
    }
    rt->ops->sleep_ns(rt, __atomic_load_n(&me->slow_ms, __ATOMIC_ACQUIRE) * (uint64_t)MS);
    __atomic_fetch_add(&me->n_polls, 1, __ATOMIC_ACQ_REL);
    sem_post(&me->polled);
    if (__atomic_load_n(&me->holds, __ATOMIC_ACQUIRE))
        sem_wait(&me->go_on);
    return next;
}

static void await_poll(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    cr_assert_eq(sem_timedwait(&w.polled, &until), 0, "nobody polls");
}

/* The first poll is over; what is left of it takes no longer than this. */
static void rest(void)
{
    rt->ops->sleep_ns(rt, 50 * MS);
}

static void begin(void)
{
    rt = runtime_threads_new();
    w = (struct worker){.wanted = TASK_POLL_NEVER};
    sem_init(&w.polled, 0, 0);
    sem_init(&w.go_on, 0, 0);
    w.task = rt->ops->task_start(rt, "worker", poll, &w);
    await_poll();
    rest();
}

static void end(void)
{
    __atomic_store_n(&w.holds, false, __ATOMIC_RELEASE);
    sem_post(&w.go_on);
    if (!is_stopped)
        rt->ops->task_stop(w.task);
    rt->ops->task_free(w.task);
    runtime_threads_free(rt);
}

TestSuite(runtime_threads, .init = begin, .fini = end, .timeout = 60);

Test(runtime_threads, a_sleeper_is_polled_by_who_steps_in)
{
    cr_assert_not(pthread_equal(w.poller, pthread_self()));
    cr_assert(rt->ops->task_step_in(w.task));
    cr_assert_eq(w.n_polls, 2);
    cr_assert(pthread_equal(w.poller, pthread_self()));
    cr_assert(w.is_on_worker, "blocking calls are refused there, too");
    cr_assert_not(runtime_on_worker_thread());
}

Test(runtime_threads, nobody_steps_in_while_it_is_polled)
{
    __atomic_store_n(&w.holds, true, __ATOMIC_RELEASE);
    rt->ops->task_wake(w.task);
    await_poll();
    cr_assert_not(rt->ops->task_step_in(w.task));
    cr_assert_eq(w.n_polls, 2);
}

/* Unless it took too long, which a busy machine may cause: then the worker's thread goes on. */
Test(runtime_threads, who_steps_in_goes_on_while_it_is_due)
{
    uint64_t took_ns = UINT64_MAX;

    for (uint32_t tries = 1; took_ns >= RUNTIME_STEP_IN_NS; tries++) {
        uint64_t begin_ns = rt->ops->now_ns(rt);

        cr_assert_lt(tries, 100);
        w.n_now = 2;
        cr_assert(rt->ops->task_step_in(w.task));
        took_ns = rt->ops->now_ns(rt) - begin_ns;
        rest();
        cr_assert_eq(w.n_polls, 1 + 3 * tries);
    }
    cr_assert(pthread_equal(w.poller, pthread_self()));
}

Test(runtime_threads, but_not_for_ever)
{
    w.n_now = 100;
    cr_assert(rt->ops->task_step_in(w.task));
    for (unsigned i = 0; i < 101; i++)
        await_poll();
    rest();
    cr_assert_eq(w.n_polls, 102);
    cr_assert_not(pthread_equal(w.poller, pthread_self()), "its thread goes on");
}

Test(runtime_threads, nor_for_long)
{
    w.n_now = 2;
    w.slow_ms = 2 * RUNTIME_STEP_IN_NS / MS;
    cr_assert(rt->ops->task_step_in(w.task));
    await_poll();
    await_poll();
    await_poll();
    rest();
    cr_assert_eq(w.n_polls, 4);
    cr_assert_not(pthread_equal(w.poller, pthread_self()), "its thread goes on after the first");
}

static void *step_in(void *arg)
{
    (void)arg;
    return (void *)(uintptr_t)rt->ops->task_step_in(w.task);
}

/* Begins a poll on another thread that lasts until go_on. */
static pthread_t step_in_elsewhere(void)
{
    pthread_t thread;

    __atomic_store_n(&w.holds, true, __ATOMIC_RELEASE);
    cr_assert_eq(pthread_create(&thread, NULL, step_in, NULL), 0);
    await_poll();
    return thread;
}

static void go_on(pthread_t thread)
{
    __atomic_store_n(&w.holds, false, __ATOMIC_RELEASE);
    sem_post(&w.go_on);
    pthread_join(thread, NULL);
}

Test(runtime_threads, a_wake_up_during_it_counts)
{
    pthread_t thread = step_in_elsewhere();

    rt->ops->task_wake(w.task);
    rest();
    cr_assert_eq(w.n_polls, 2, "nobody polls beside it");
    go_on(thread);
    await_poll();
    rest();
    cr_assert_eq(w.n_polls, 3);
}

/* The thread sleeps until a time that the poll of another moves. */
Test(runtime_threads, an_earlier_time_is_kept)
{
    __atomic_store_n(&w.wanted, rt->ops->now_ns(rt) + 100 * MS, __ATOMIC_RELEASE);
    cr_assert(rt->ops->task_step_in(w.task));
    await_poll();
    __atomic_store_n(&w.wanted, TASK_POLL_NEVER, __ATOMIC_RELEASE);
    await_poll();
    cr_assert_not(pthread_equal(w.poller, pthread_self()));
    cr_assert_geq(w.n_polls, 3);
}

/* It comes while another polls; the poll after that is wanted later. */
Test(runtime_threads, a_time_that_comes_during_it_does_not_stop_the_clock)
{
    pthread_t thread;

    __atomic_store_n(&w.wanted, rt->ops->now_ns(rt) + 100 * MS, __ATOMIC_RELEASE);
    rt->ops->task_wake(w.task);
    await_poll();
    rt->ops->sleep_ns(rt, 20 * MS);
    __atomic_store_n(&w.wanted, rt->ops->now_ns(rt) + 400 * MS, __ATOMIC_RELEASE);
    thread = step_in_elsewhere();
    __atomic_store_n(&w.wanted, TASK_POLL_NEVER, __ATOMIC_RELEASE);
    rt->ops->sleep_ns(rt, 200 * MS);
    cr_assert_eq(w.n_polls, 3);
    go_on(thread);
    await_poll(); /* at the time that was wanted last */
    rest();
    cr_assert_eq(w.n_polls, 4);
}

static void *stop(void *arg)
{
    (void)arg;
    rt->ops->task_stop(w.task);
    return NULL;
}

Test(runtime_threads, a_stop_waits_for_who_steps_in)
{
    pthread_t thread = step_in_elsewhere(), stopper;

    cr_assert_eq(pthread_create(&stopper, NULL, stop, NULL), 0);
    rest();
    cr_assert_eq(pthread_tryjoin_np(stopper, NULL), EBUSY);
    go_on(thread);
    pthread_join(stopper, NULL);
    cr_assert_eq(w.n_polls, 2);
    cr_assert_not(rt->ops->task_step_in(w.task), "nor does anybody afterwards");
    cr_assert_eq(w.n_polls, 2);
    is_stopped = true;
}
