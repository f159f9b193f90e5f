/* Linearizability of one register whose written values are unique (Gibbons and Korach, 1997: verifying atomicity when the write
 * behind each read is known).
 *
 * All operations of one value form a cluster. Its zone lies between the earliest end and the latest beginning of its operations:
 * forward if the former comes first (the value must be in the register during all of that time), backward otherwise (it may
 * be there at a single point). The history is linearizable if and only if
 *   - no read ends before its write begins, and every value read was written,
 *   - no two forward zones overlap,
 *   - no backward zone lies inside a forward zone of another value.
 */
#include "tests/sim/sim.h"

#include <assert.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

struct zone {
    uint64_t value;
    uint64_t min_end, max_begin;
    uint64_t low, high;
    bool forward;
};

static int by_value(const void *a, const void *b)
{
    const struct linear_op *x = a, *y = b;

    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (int)y->is_write - (int)x->is_write; /* the write first */
}

static int by_low(const void *a, const void *b)
{
    const struct zone *x = a, *y = b;

    return (x->low > y->low) - (x->low < y->low);
}

/* The zone of ops[0 .. n), all of one value. */
static const char *make_zone(const struct linear_op *ops, size_t n, struct zone *ret)
{
    *ret = (struct zone){.value = ops[0].value, .min_end = UINT64_MAX};
    if (ops[0].value == 0)
        ret->min_end = 0; /* the initial value was written before everything */
    else if (!ops[0].is_write)
        return "a value was read that nobody wrote";
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && ops[i].is_write)
            return "a value was written twice";
        if (!ops[i].is_write && ops[0].is_write && ops[i].end < ops[0].begin)
            return "a value was read before it was written";
        if (ops[i].end < ret->min_end)
            ret->min_end = ops[i].end;
        if (ops[i].begin > ret->max_begin)
            ret->max_begin = ops[i].begin;
    }
    ret->forward = ret->min_end < ret->max_begin;
    ret->low = ret->forward ? ret->min_end : ret->max_begin;
    ret->high = ret->forward ? ret->max_begin : ret->min_end;
    return NULL;
}

static const char *check_zones(struct zone *zones, size_t n)
{
    const struct zone *widest = NULL; /* the forward zone so far that ends last */

    qsort(zones, n, sizeof *zones, by_low);
    for (size_t i = 0; i < n; i++) {
        const struct zone *z = &zones[i];

        if (z->forward && widest && z->low < widest->high)
            return "a stale value was read: two values were current at once";
        if (z->forward && (!widest || z->high > widest->high))
            widest = z;
        for (size_t k = 0; k < n && !z->forward; k++)
            if (zones[k].forward && zones[k].low < z->low && z->high < zones[k].high)
                return "a value came in between while another was current";
    }
    return NULL;
}

const char *linear_check(struct linear_op *ops, size_t n)
{
    struct zone *zones = xcalloc(n + 1, sizeof *zones);
    const char *text = NULL;
    size_t n_zones = 0;

    qsort(ops, n, sizeof *ops, by_value);
    for (size_t from = 0, to; from < n && !text; from = to) {
        for (to = from; to < n && ops[to].value == ops[from].value;)
            to++;
        if (to == from + 1 && ops[from].is_write && ops[from].end == UINT64_MAX)
            continue; /* unknown and never seen: it may have come last, or never */
        text = make_zone(ops + from, to - from, &zones[n_zones]);
        n_zones++;
    }
    if (!text)
        text = check_zones(zones, n_zones);
    free(zones);
    return text;
}

#define W(from, to, v)    \
    {                     \
        from, to, v, true \
    }
#define R(from, to, v)     \
    {                      \
        from, to, v, false \
    }
#define CHECK(good, ...)                                                                          \
    do {                                                                                          \
        struct linear_op ops[] = {__VA_ARGS__};                                                   \
        const char *text = linear_check(ops, sizeof ops / sizeof *ops);                           \
                                                                                                  \
        if ((text == NULL) != (good))                                                             \
            sim_fail("self-test, line %d: the checker says: %s", __LINE__, text ? text : "good"); \
    } while (0)

/* The checker can say both. */
void linear_self_test(void)
{
    CHECK(true, W(1, 2, 1), R(3, 4, 1), W(5, 6, 2), R(7, 8, 2));
    CHECK(true, R(1, 2, 0), W(3, 4, 1));
    CHECK(true, W(1, 10, 1), R(2, 3, 1), R(4, 5, 1));
    CHECK(true, W(1, 10, 1), R(2, 3, 0), R(4, 5, 1));
    CHECK(true, W(1, 2, 1), W(3, UINT64_MAX, 2), R(4, 5, 1), R(6, 7, 2));
    CHECK(true, W(1, 2, 1), W(3, UINT64_MAX, 2), R(4, 5, 1));
    CHECK(true, W(1, 8, 1), W(2, 9, 2), R(10, 11, 1));
    CHECK(false, W(1, 2, 1), W(3, 4, 2), R(5, 6, 1));                      /* stale */
    CHECK(false, W(1, 2, 1), R(3, 4, 0));                                  /* lost */
    CHECK(false, W(1, 10, 1), R(2, 3, 1), R(4, 5, 0));                     /* back in time */
    CHECK(false, R(1, 2, 7));                                              /* out of nothing */
    CHECK(false, R(1, 2, 1), W(3, 4, 1));                                  /* before it was written */
    CHECK(false, W(1, 2, 1), W(3, UINT64_MAX, 2), R(4, 5, 2), R(6, 7, 1)); /* unknown, seen, gone */
    CHECK(false, W(1, 2, 1), R(10, 11, 1), W(4, 5, 2));                    /* in between */
}
