#include "raftio/support/histogram.h"

#define SUB_COUNT (1u << HISTOGRAM_SUB_BITS)

/* One writer, many readers: plain relaxed loads and stores, no read-modify-write. */
static uint64_t load(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

/* Values below SUB_COUNT have a bucket each; then every power of two is divided into SUB_COUNT buckets. */
static unsigned bucket_of(uint64_t value)
{
    unsigned shift;

    if (value < SUB_COUNT)
        return (unsigned)value;
    shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (shift << HISTOGRAM_SUB_BITS) + (unsigned)(value >> shift);
}

static uint64_t upper_bound(unsigned bucket)
{
    unsigned shift;

    if (bucket < SUB_COUNT)
        return bucket;
    shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    return (((uint64_t)SUB_COUNT + bucket % SUB_COUNT + 1) << shift) - 1;
}

void histogram_add(struct histogram *h, uint64_t value)
{
    uint64_t *bucket = &h->buckets[bucket_of(value)];

    store(bucket, load(bucket) + 1);
    store(&h->sum, load(&h->sum) + value);
    store(&h->count, load(&h->count) + 1);
    if (value > load(&h->max))
        store(&h->max, value);
}

void histogram_merge(struct histogram *to, const struct histogram *from)
{
    uint64_t max = load(&from->max);

    to->count += load(&from->count);
    to->sum += load(&from->sum);
    if (max > to->max)
        to->max = max;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += load(&from->buckets[i]);
}

uint64_t histogram_per_mille(const struct histogram *h, unsigned per_mille)
{
    uint64_t total = 0, seen = 0, rank;
    unsigned last = 0;

    /* Counted here, because `count` may be a few values off beside a running writer. */
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        total += load(&h->buckets[i]);
    if (total == 0)
        return 0;
    rank = total / 1000 * per_mille + (total % 1000 * per_mille + 999) / 1000;
    if (rank == 0)
        rank = 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && seen < rank; i++) {
        uint64_t n = load(&h->buckets[i]);

        if (n)
            last = i;
        seen += n;
    }
    return upper_bound(last);
}
