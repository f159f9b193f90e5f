/* raftio/support/short_wait.h - whether to look again and again for what is about to come, before sleeping for it.
 *
 * A thread that sleeps goes on 20 to 100 us after it could: its core sleeps, too, and a virtual one must first be given a real
 * one again. A small save or a message across takes no longer than that. So who expects a short wait polls first, and between two
 * looks gives the core to whoever else can use it (sched_yield): only time that nobody wanted is spent.
 *
 * Expected is what is usual. One long wait is unusual; after it a row of short ones has to come before anything is polled for
 * again (five at least after one of a millisecond, ten after a pause). So what always takes longer costs nothing, and neither
 * does what comes now and then, a few at a time, as the heartbeats of idle shards.
 *
 * Ownership: embedded, zeroed at first. Threads: one at a time.
 */
#ifndef NH_RAFTIO_SUPPORT_SHORT_WAIT_H
#define NH_RAFTIO_SUPPORT_SHORT_WAIT_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define SHORT_WAIT_NS      300000u
#define SHORT_WAIT_LONG_NS (16u * SHORT_WAIT_NS) /* longer ones count as this long */

struct short_wait {
    uint64_t began_ns;
    uint64_t usual_ns; /* the longest of late */
};

static inline uint64_t short_wait_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A wait of this length has ended. */
static inline void short_wait_note(struct short_wait *w, uint64_t took_ns)
{
    uint64_t faded_ns = w->usual_ns - w->usual_ns / 4;

    took_ns = took_ns < SHORT_WAIT_LONG_NS ? took_ns : SHORT_WAIT_LONG_NS;
    w->usual_ns = took_ns > faded_ns ? took_ns : faded_ns;
}

/* The next one is worth polling for. */
static inline bool short_wait_is_usual(const struct short_wait *w)
{
    return w->usual_ns < SHORT_WAIT_NS;
}

static inline void short_wait_begin(struct short_wait *w)
{
    w->began_ns = short_wait_clock();
}

/* After a look that found nothing: whether to look again, now that others had the core. False: sleep. */
static inline bool short_wait_goes_on(const struct short_wait *w)
{
    if (!short_wait_is_usual(w) || short_wait_clock() - w->began_ns >= SHORT_WAIT_NS)
        return false;
    sched_yield();
    return true;
}

static inline void short_wait_end(struct short_wait *w)
{
    short_wait_note(w, short_wait_clock() - w->began_ns);
}

#endif
