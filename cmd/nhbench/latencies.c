#include "cmd/nhbench/latencies.h"

#define SUB_COUNT (1u << LATENCY_SUB_BITS)

/* Values below SUB_COUNT have a bucket each; then every power of two is divided into SUB_COUNT buckets. */
static uint32_t bucket_of(uint64_t ns)
{
    uint32_t shift;

    if (ns < SUB_COUNT)
        return (uint32_t)ns;
    if (ns >> LATENCY_BITS)
        return LATENCY_BUCKETS - 1;
    shift = 63u - (uint32_t)__builtin_clzll(ns) - LATENCY_SUB_BITS;
    return (shift << LATENCY_SUB_BITS) + (uint32_t)(ns >> shift);
}

static uint64_t upper_end(uint32_t bucket)
{
    uint32_t shift;

    if (bucket < SUB_COUNT)
        return bucket;
    shift = (bucket >> LATENCY_SUB_BITS) - 1;
    return (((uint64_t)SUB_COUNT + bucket % SUB_COUNT + 1) << shift) - 1;
}

void latencies_add(struct latencies *l, uint64_t ns)
{
    l->count++;
    l->sum += ns;
    if (ns > l->max)
        l->max = ns;
    l->buckets[bucket_of(ns)]++;
}

void latencies_merge(struct latencies *to, const struct latencies *from)
{
    to->count += from->count;
    to->sum += from->sum;
    if (from->max > to->max)
        to->max = from->max;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

uint64_t latencies_at(const struct latencies *l, uint32_t parts)
{
    uint64_t rank = l->count / 1000000 * parts + (l->count % 1000000 * parts + 999999) / 1000000, seen = 0;
    uint32_t i = 0;

    if (l->count == 0)
        return 0;
    if (rank == 0)
        rank = 1;
    for (; i < LATENCY_BUCKETS - 1; i++) {
        seen += l->buckets[i];
        if (seen >= rank)
            break;
    }
    return upper_end(i) < l->max && i < LATENCY_BUCKETS - 1 ? upper_end(i) : l->max;
}

uint64_t latencies_mean(const struct latencies *l)
{
    return l->count ? l->sum / l->count : 0;
}
