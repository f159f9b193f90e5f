/* raftio/support/histogram.h - log-linear histogram of u64 values (latencies in ns, sizes), about 3 % wide buckets.
 *
 * A histogram has one writer; a reader may merge it at any time and gets counts that are at most a few values behind.
 */
#ifndef NH_RAFTIO_SUPPORT_HISTOGRAM_H
#define NH_RAFTIO_SUPPORT_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_BUCKETS  ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *to, const struct histogram *from);
/* Upper bound of the bucket in which the given per mille of all values lies (500: median); 0 when empty. */
uint64_t histogram_per_mille(const struct histogram *h, unsigned per_mille);

#endif
