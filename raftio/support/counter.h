/* raftio/support/counter.h - counters of one writer, read by any thread: an addition needs no locked instruction. */
#ifndef NH_RAFTIO_SUPPORT_COUNTER_H
#define NH_RAFTIO_SUPPORT_COUNTER_H

#include <stdint.h>

static inline void counter_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif
