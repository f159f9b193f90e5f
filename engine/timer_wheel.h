/* engine/timer_wheel.h - the deadlines of one worker's replicas.
 *
 * A hierarchical wheel: level l has 64 slots of 64^l milliseconds each, and a bit per slot that says whether it is empty, so
 * setting, cancelling and finding the next deadline take constant time whatever the number of timers. A timer far away
 * sits in a coarse slot and is moved to finer ones as its time comes near. Time that holds no timer is skipped, not walked.
 *
 * Times are milliseconds of the runtime's clock. A timer fires at the first wheel_advance at or after its time, never
 * before; one that is set for now or the past fires at now + 1.
 *
 * Threads: owner worker. Errors: none.
 */
#ifndef NH_ENGINE_TIMER_WHEEL_H
#define NH_ENGINE_TIMER_WHEEL_H

#include <stdint.h>

#include "raftio/support/list.h"

#define WHEEL_LEVELS 4u
#define WHEEL_SLOTS  64u
#define WHEEL_NEVER  UINT64_MAX

/* Embedded in what it belongs to; timer_init first. */
struct timer {
    struct list node;
    uint64_t at_ms; /* meaningful while set */
    uint8_t level, slot;
};

struct timer_wheel {
    uint64_t now_ms;
    uint64_t used[WHEEL_LEVELS]; /* bit s: slot s holds a timer */
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

static inline void timer_init(struct timer *t)
{
    list_init(&t->node);
}
static inline bool timer_is_set(const struct timer *t)
{
    return list_linked(&t->node);
}

void wheel_init(struct timer_wheel *w, uint64_t now_ms);
/* Sets or moves a timer. */
void wheel_set(struct timer_wheel *w, struct timer *t, uint64_t at_ms);
void wheel_cancel(struct timer_wheel *w, struct timer *t);
/* Moves time on and appends the timers that are due to *ret (linked by `node`; they count as set until removed from it). */
void wheel_advance(struct timer_wheel *w, uint64_t now_ms, struct list *ret);
/* When wheel_advance is needed next: not after the first deadline, at times before it. WHEEL_NEVER: no timer is set. */
uint64_t wheel_next(const struct timer_wheel *w);

#endif
