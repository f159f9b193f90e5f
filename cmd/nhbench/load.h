/* cmd/nhbench/load.h - makes requests to the shards that a host leads, through the library's public face, and times them.
 *
 * Both cores of a small machine are shared by what is measured and by the load, so a request costs the load little: a fixed set
 * of slots, each one request that is under way or has ended; nothing is allocated per request.
 *
 *     completion (a host's thread)     notes time and outcome in its slot, pushes it to the loader's stack, and wakes the loader
 *                                      if the stack was empty: once per burst
 *     loader (a thread of ours)        takes the whole stack, counts it, sorts the slots by shard, and proposes again what it has
 *                                      for a shard by one call
 *
 * Closed loop: a slot makes its next request when the loader finds it ended; slots are dealt to the shards evenly, and wander if
 * there are fewer than shards. Open loop (--rate): requests have fixed times on a grid of LOAD_GRID_US, and a latency counts from
 * there, however late the request was made; if all slots are under way, requests become late.
 *
 * A latency runs from just before the call that proposes (once per call) to the completion; the clock is at most about a
 * microsecond old (cmd/nhbench/clock.h).
 *
 * Threads: functions belong to one owner; load_progress is for any thread.
 */
#ifndef NH_CMD_NHBENCH_LOAD_H
#define NH_CMD_NHBENCH_LOAD_H

#include "nodehost/nodehost.h"

#include "cmd/nhbench/latencies.h"
#include "cmd/nhbench/options.h"

#define LOAD_GRID_US 500u
/* Of a request; what it has not ended by then counts as a timeout. */
#define LOAD_TIMEOUT_MS 20000u

/* What happened in the measured interval. */
struct load_result {
    struct latencies writes, reads;
    uint64_t dropped, timeouts, rejected, terminated, failed; /* ends that were no success; failed: lookups */
    uint64_t busy;                                            /* requests that the host did not take at first */
    uint64_t calls, proposed;                                 /* proposing calls, and proposals in them */
    uint64_t late;                                            /* open loop: requests that had to wait for a slot */
};

void load_result_add(struct load_result *to, const struct load_result *from);

struct load;

/* `shards` are borrowed until load_free; in_flight >= 1. */
struct load *load_new(struct nh_host *host, const struct bench_options *o, const uint64_t *shards, uint32_t n_shards,
                      uint32_t in_flight, uint32_t rate, uint64_t seed);
/* Begins; what ends from begin_ns to end_ns is measured. */
void load_start(struct load *l, uint64_t begin_ns, uint64_t end_ns);
/* Successful requests since the start, and all that failed. */
void load_progress(const struct load *l, uint64_t *ret_done, uint64_t *ret_failed);
/* Makes no more requests, waits for those under way (at most their timeout), and adds the result to *to. */
void load_stop(struct load *l, struct load_result *to);
/* After nh_host_close, as requests may be under way until then. */
void load_free(struct load *l);

#endif
