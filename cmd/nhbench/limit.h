/* cmd/nhbench/limit.h - what this machine could do at best, with the batches of a run: a loop of one thread without Raft, machine
 * or clients around it. A run's figures mean little without them.
 *
 *     file      the bytes of a save's entries written over a preallocated, zeroed file, and fdatasync
 *     rocksdb   the same entries as blocks, one per update of a save, in a synced write of RocksDB's C interface
 *     store     the same blocks through the log store of the run: what the store adds to RocksDB
 *     loopback  frames of a run's size over a TCP connection of this machine, one thread on each end
 *
 * Threads: one.
 */
#ifndef NH_CMD_NHBENCH_LIMIT_H
#define NH_CMD_NHBENCH_LIMIT_H

#include <stdbool.h>

#include "cmd/nhbench/options.h"

/* The batches of a run. */
struct limit_shape {
    uint32_t entries_per_save, updates_per_save; /* updates: at most entries */
    uint32_t entry_bytes;                        /* of an encoded record */
    uint32_t entries_per_frame;
};

enum limit_kind { LIMIT_FILE, LIMIT_ROCKSDB, LIMIT_STORE, LIMIT_LOOPBACK, LIMIT_KINDS };

struct limit {
    double entries_per_second, cpu_ns_per_entry, batches_per_second; /* 0: could not be measured, a message is on stderr */
};

/* Each for at most `seconds`; files go to `dir` and are removed. */
void limits_measure(const struct bench_options *o, const char *dir, const struct limit_shape *shape, double seconds,
                    struct limit ret[LIMIT_KINDS]);
extern const char *const limit_names[LIMIT_KINDS];

/* The log store alone (cmd/nhbench/limit_store.c). */
bool limit_store(const struct bench_options *o, const char *dir, const struct limit_shape *shape, double seconds,
                 struct limit *ret);

/* For the loops: time and CPU since the start. */
struct limit_watch {
    uint64_t begin_ns, end_ns, cpu_us, batches;
};
void limit_watch_start(struct limit_watch *w, double seconds);
/* Counts a batch; false: the time is over. */
bool limit_watch_count(struct limit_watch *w);
void limit_watch_end(const struct limit_watch *w, uint32_t entries_per_batch, struct limit *ret);

#endif
