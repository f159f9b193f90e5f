/* cmd/nhbench/latencies.h - a log-linear histogram of latencies in nanoseconds; buckets are at most 1/64 wide.
 *
 * A plain struct without pointers: it may be copied, and sent to another process of the same program. Threads: one at a time.
 */
#ifndef NH_CMD_NHBENCH_LATENCIES_H
#define NH_CMD_NHBENCH_LATENCIES_H

#include <stdint.h>

#define LATENCY_SUB_BITS 6u
/* Above it (about 18 minutes) a latency counts as this much; its true value is in `max` alone. */
#define LATENCY_BITS    40u
#define LATENCY_BUCKETS ((LATENCY_BITS - LATENCY_SUB_BITS + 1u) << LATENCY_SUB_BITS)

struct latencies {
    uint64_t count, sum, max;
    uint64_t buckets[LATENCY_BUCKETS];
};

void latencies_add(struct latencies *l, uint64_t ns);
void latencies_merge(struct latencies *to, const struct latencies *from);
/* The latency that `parts` of a million do not exceed (500,000: the median): the upper end of its bucket, but never above max; 0
 * when empty. */
uint64_t latencies_at(const struct latencies *l, uint32_t parts);
uint64_t latencies_mean(const struct latencies *l);

#endif
