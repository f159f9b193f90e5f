/* Threads that post to a task: some wake it, some step in. Nothing that was posted is left, no two polls run at a time, a time
 * that a poll wanted is kept, and after the stop nobody polls. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/runtime.h"
#include "raftio/support/mailbox.h"
#include "tests/stress/check.h"

#define N_POSTERS 4u
#define N_ITEMS   30000u
#define TIMER_NS  200000u

static struct runtime *rt;

struct worker {
    struct task *task;
    struct mailbox mailbox;
    uint32_t inside; /* atomic: polls at this moment */
    bool stopped;    /* atomic */
    /* Without a lock: they belong to whoever polls. */
    uint64_t n_taken, n_polls, wanted_ns;
    uint64_t latest_ns; /* that a wanted poll came late */
    uint64_t seen;      /* atomic: n_taken */
    uint64_t n_stepped; /* atomic */
};
static struct worker w;

static uint64_t poll(void *arg)
{
    struct queue items = {0};
    struct queue_node *node;
    uint64_t now_ns = rt->ops->now_ns(rt);

    CHECK(arg == &w);
    CHECK(__atomic_fetch_add(&w.inside, 1, __ATOMIC_ACQ_REL) == 0);
    CHECK(!__atomic_load_n(&w.stopped, __ATOMIC_ACQUIRE));
    if (w.wanted_ns && now_ns > w.wanted_ns && now_ns - w.wanted_ns > w.latest_ns)
        w.latest_ns = now_ns - w.wanted_ns;
    mailbox_take(&w.mailbox, &items);
    while ((node = queue_pop(&items))) {
        w.n_taken++;
        free(node);
    }
    w.n_polls++;
    w.wanted_ns = now_ns + TIMER_NS;
    __atomic_store_n(&w.seen, w.n_taken, __ATOMIC_RELEASE);
    __atomic_fetch_sub(&w.inside, 1, __ATOMIC_ACQ_REL);
    return w.n_polls % 64 == 0 ? TASK_POLL_NOW : w.wanted_ns;
}

static void *post(void *arg)
{
    bool steps_in = (uintptr_t)arg % 2;

    for (uint32_t i = 0; i < N_ITEMS; i++) {
        struct queue_node *node = calloc(1, sizeof *node);

        CHECK(node);
        if (mailbox_post(&w.mailbox, node) == MAILBOX_WAKE) {
            if (steps_in && rt->ops->task_step_in(w.task))
                __atomic_fetch_add(&w.n_stepped, 1, __ATOMIC_RELAXED);
            else
                rt->ops->task_wake(w.task);
        }
        if (i % 256 == 0)
            rt->ops->sleep_ns(rt, TIMER_NS);
        else
            sched_yield();
    }
    return NULL;
}

int main(void)
{
    pthread_t posters[N_POSTERS];

    rt = runtime_threads_new();
    mailbox_init(&w.mailbox);
    w.task = rt->ops->task_start(rt, "worker", poll, &w);
    for (uintptr_t i = 0; i < N_POSTERS; i++)
        CHECK(pthread_create(&posters[i], NULL, post, (void *)i) == 0);
    for (unsigned i = 0; i < N_POSTERS; i++)
        pthread_join(posters[i], NULL);
    for (unsigned i = 0; __atomic_load_n(&w.seen, __ATOMIC_ACQUIRE) < (uint64_t)N_POSTERS * N_ITEMS; i++) {
        CHECK(i < 10000);
        rt->ops->sleep_ns(rt, 1000000);
    }
    rt->ops->task_stop(w.task);
    __atomic_store_n(&w.stopped, true, __ATOMIC_RELEASE);
    CHECK(!rt->ops->task_step_in(w.task));
    rt->ops->task_wake(w.task);
    CHECK(w.n_taken == (uint64_t)N_POSTERS * N_ITEMS);
    CHECK(w.n_stepped > 0);
    rt->ops->task_free(w.task);
    mailbox_deinit(&w.mailbox);
    runtime_threads_free(rt);
    printf("%lu polls, %lu times on a poster's thread; %lu us late at most\n", w.n_polls, w.n_stepped, w.latest_ns / 1000);
    return 0;
}
