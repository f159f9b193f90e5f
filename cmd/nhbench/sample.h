/* cmd/nhbench/sample.h - what a process has used so far: CPU, memory, I/O, switches, and the counters of its host. Threads: any.
 */
#ifndef NH_CMD_NHBENCH_SAMPLE_H
#define NH_CMD_NHBENCH_SAMPLE_H

#include "nodehost/nodehost.h"

struct sample {
    uint64_t at_ns;
    uint64_t user_us, system_us;
    uint64_t voluntary, involuntary; /* context switches */
    uint64_t written_bytes;          /* sent to storage, of /proc/self/io */
    uint64_t rss_bytes, peak_rss_bytes;
    uint64_t passes, saves, synced_saves, saved_updates, saved_entries, messages, batches, applied, apply_calls, reads;
};

/* host may be NULL: its counters are 0. */
void sample_take(struct nh_host *host, struct sample *ret);
/* *ret: what was used from `a` to `b`; memory as of `b`. */
void sample_subtract(const struct sample *a, const struct sample *b, struct sample *ret);
/* Sums, memory too: of several processes. */
void sample_add(struct sample *to, const struct sample *from);

#endif
