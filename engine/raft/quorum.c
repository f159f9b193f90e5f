/* Majorities. Nothing here knows of replicas. */
#include "engine/raft/raft_internal.h"

#include <assert.h>

/* Insertion sort: there are at most NH_MEMBERS_MAX values, mostly three or five, often sorted already. */
static void sort(uint64_t *values, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint64_t v = values[i];
        size_t at = i;

        for (; at > 0 && values[at - 1] > v; at--)
            values[at] = values[at - 1];
        values[at] = v;
    }
}

uint64_t raft_quorum_reached(uint64_t *values, size_t n)
{
    assert(n > 0 && n <= NH_MEMBERS_MAX);
    sort(values, n);
    return values[n - raft_quorum(n)];
}
