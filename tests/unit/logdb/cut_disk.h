/* tests/unit/logdb/cut_disk.h - what a crash, at any moment, leaves of the files below a directory.
 *
 * The calls with which this process changes files are replaced, those of RocksDB too. They happen, but what was there before is
 * kept until a sync would make the change durable. At a chosen one of these calls the process ends, and the directory has what
 *
 *     a killed process leaves   everything; what was not synced still is not
 *     a power cut leaves        of each file any of the sectors that were not synced, and any size since then; of changes of
 *                               names none behind some of them
 *
 * What is known of the files outlives the process, so that one directory goes through many. A write that syncs itself
 * (async_write.h) makes durable what it has written. Durable at once: a truncation, and mkdir, which is not replaced.
 */
#ifndef NH_TESTS_UNIT_LOGDB_CUT_DISK_H
#define NH_TESTS_UNIT_LOGDB_CUT_DISK_H

#include <stdbool.h>
#include <stdint.h>

/* From here on, for this process and its children, one at a time. What is there is durable. */
void cut_disk_begin(const char *dir, uint64_t seed);
void cut_disk_end(void);
/* The process ends with 0 in so many calls from here. */
void cut_disk_after(uint64_t n_calls);
/* It ends now. */
void cut_disk_now(void);
/* No cut comes between these two. */
void cut_disk_hold(void);
void cut_disk_release(void);

struct cut_disk_counts {
    uint64_t kills, cuts;
    uint64_t lost_sectors, lost_names;
    uint64_t async_writes;
};
struct cut_disk_counts cut_disk_counts(void);

#endif
