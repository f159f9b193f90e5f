#include "engine/timer_wheel.h"

#define SLOT_BITS 6u
#define SLOT_MASK (WHEEL_SLOTS - 1u)
#define SPAN_MS   ((uint64_t)1 << (SLOT_BITS * WHEEL_LEVELS)) /* of the whole wheel: 4.6 hours */

void wheel_init(struct timer_wheel *w, uint64_t now_ms)
{
    w->now_ms = now_ms;
    for (uint32_t l = 0; l < WHEEL_LEVELS; l++) {
        w->used[l] = 0;
        for (uint32_t s = 0; s < WHEEL_SLOTS; s++)
            list_init(&w->slots[l][s]);
    }
}

/* The coarsest level needed for the distance. Beyond the wheel's span the timer waits in the farthest slot and is placed
 * again when that comes up. */
static void place(struct timer_wheel *w, struct timer *t)
{
    uint64_t at = t->at_ms > w->now_ms ? t->at_ms : w->now_ms + 1, distance = at - w->now_ms;
    uint32_t level = 0;

    if (distance >= SPAN_MS) {
        distance = SPAN_MS - 1;
        at = w->now_ms + distance;
    }
    while (distance >> (SLOT_BITS * (level + 1)))
        level++;
    t->level = (uint8_t)level;
    t->slot = (uint8_t)(at >> (SLOT_BITS * level) & SLOT_MASK);
    list_push_back(&w->slots[level][t->slot], &t->node);
    w->used[level] |= (uint64_t)1 << t->slot;
}

void wheel_cancel(struct timer_wheel *w, struct timer *t)
{
    if (!timer_is_set(t))
        return;
    list_remove(&t->node);
    if (list_empty(&w->slots[t->level][t->slot]))
        w->used[t->level] &= ~((uint64_t)1 << t->slot);
}

void wheel_set(struct timer_wheel *w, struct timer *t, uint64_t at_ms)
{
    wheel_cancel(w, t);
    t->at_ms = at_ms;
    place(w, t);
}

/* When the next used slot of a level begins. The current slot is empty, or a whole turn ahead. */
static uint64_t next_of_level(const struct timer_wheel *w, uint32_t level)
{
    uint64_t unit = w->now_ms >> (SLOT_BITS * level), used = w->used[level];
    uint32_t from = (uint32_t)(unit + 1) & SLOT_MASK;
    uint64_t turned;

    if (!used)
        return WHEEL_NEVER;
    turned = from ? used >> from | used << (WHEEL_SLOTS - from) : used;
    return (unit + 1 + (uint64_t)__builtin_ctzll(turned)) << (SLOT_BITS * level);
}

uint64_t wheel_next(const struct timer_wheel *w)
{
    uint64_t next = WHEEL_NEVER;

    for (uint32_t l = 0; l < WHEEL_LEVELS; l++) {
        uint64_t at = next_of_level(w, l);

        next = at < next ? at : next;
    }
    return next;
}

static void take_slot(struct timer_wheel *w, uint32_t level, struct list *ret)
{
    uint32_t slot = (uint32_t)(w->now_ms >> (SLOT_BITS * level)) & SLOT_MASK;

    list_splice(ret, &w->slots[level][slot]);
    w->used[level] &= ~((uint64_t)1 << slot);
}

/* The wheel stands at the beginning of a used slot: coarse ones are spread over finer ones, the finest has come. */
static void turn(struct timer_wheel *w, struct list *ret)
{
    struct list coarse, *node;

    list_init(&coarse);
    for (uint32_t l = WHEEL_LEVELS - 1; l > 0; l--)
        if ((w->now_ms & (((uint64_t)1 << (SLOT_BITS * l)) - 1)) == 0)
            take_slot(w, l, &coarse);
    take_slot(w, 0, ret);
    while ((node = list_pop_front(&coarse))) {
        struct timer *t = container_of(node, struct timer, node);

        if (t->at_ms <= w->now_ms)
            list_push_back(ret, node);
        else
            place(w, t);
    }
}

void wheel_advance(struct timer_wheel *w, uint64_t now_ms, struct list *ret)
{
    for (uint64_t next = wheel_next(w); next <= now_ms; next = wheel_next(w)) {
        w->now_ms = next;
        turn(w, ret);
    }
    if (now_ms > w->now_ms)
        w->now_ms = now_ms;
}
