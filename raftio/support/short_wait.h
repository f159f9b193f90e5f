/* raftio/support/short_wait.h - whether to look again and again for what is about to come, before sleeping for it.
 *
 * A thread that sleeps goes on 20 to 100 us after it could: its core sleeps, too, and a virtual one must first be given a real
 * one again. A small save or a message across takes no longer than that. So who expects a short wait polls first, and between two
 * looks gives the core to whoever else can use it (sched_yield).
 *
 * A wait is expected to be short if none of late was long: a long one ends polling, and fades by a quarter with each that follows
 * (so it takes five after one of a millisecond, ten after a pause). What always takes longer costs nothing, and neither does what
 * comes now and then, a few at a time, as the heartbeats of idle shards. What is there already was not waited for, and says
 * nothing.
 *
 * Who comes and finds a thread that sleeps gets the core for it at once; a thread that gave the core away waits for its turn. So
 * if it comes back late, others have much to do, and nothing is polled for during the next second.
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
#define SHORT_WAIT_NONE_NS 5000u
#define SHORT_WAIT_LONG_NS (16u * SHORT_WAIT_NS) /* longer ones count as this long */

#define SHORT_WAIT_YIELD_NS 1000000u /* who gave the core away and comes back after so long */
#define SHORT_WAIT_PAUSE_NS 1000000000u

struct short_wait {
    uint64_t began_ns;
    uint64_t longest_ns;    /* of late */
    uint64_t not_before_ns; /* nothing is polled for */
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
    uint64_t faded_ns = w->longest_ns - w->longest_ns / 4;

    if (took_ns < SHORT_WAIT_NONE_NS)
        return;
    took_ns = took_ns < SHORT_WAIT_LONG_NS ? took_ns : SHORT_WAIT_LONG_NS;
    w->longest_ns = took_ns > faded_ns ? took_ns : faded_ns;
}

static inline void short_wait_begin(struct short_wait *w)
{
    w->began_ns = short_wait_clock();
}

/* The one that has begun is worth polling for. */
static inline bool short_wait_is_expected(const struct short_wait *w)
{
    return w->longest_ns < SHORT_WAIT_NS && w->began_ns >= w->not_before_ns;
}

/* The core was given away, and is back now. */
static inline void short_wait_note_yield(struct short_wait *w, uint64_t from_ns, uint64_t to_ns)
{
    if (to_ns - from_ns >= SHORT_WAIT_YIELD_NS)
        w->not_before_ns = to_ns + SHORT_WAIT_PAUSE_NS;
}

/* After a look that found nothing: whether to look again, now that others had the core. False: sleep. */
static inline bool short_wait_goes_on(struct short_wait *w)
{
    uint64_t now_ns = short_wait_clock();

    if (!short_wait_is_expected(w) || now_ns - w->began_ns >= SHORT_WAIT_NS)
        return false;
    sched_yield();
    short_wait_note_yield(w, now_ns, short_wait_clock());
    return true;
}

static inline void short_wait_end(struct short_wait *w)
{
    short_wait_note(w, short_wait_clock() - w->began_ns);
}

#endif
