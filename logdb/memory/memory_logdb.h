/* logdb/memory/memory_logdb.h - a log store in memory, with a disk that can crash: for tests and for the simulator.
 *
 * The contract is raftio/logdb.h's, with "power cut" read as memory_disk_crash. What is stored belongs to a *disk*, named
 * by the `dir` of the configuration (no file is touched); it stays in this process when the store is closed, until
 * memory_disk_drop. A disk is open at most once. `wal_dir` is ignored; options text is refused.
 *
 * Crash model. A disk holds two images of every replica: *live*, what readers see, and *synced*, what survives. A save
 * without must_sync changes live only and waits in its worker's queue; a save with must_sync makes its worker's queue and
 * itself synced; every other write makes all queues synced first, as a log shared by all workers does. A crash keeps, of
 * each worker's queue, the first calls (how many, the caller decides), and drops the rest: never half a call, never a
 * later call without the earlier ones. A queue beyond MEMORY_UNSYNCED_MAX calls is synced from its oldest end, as a page
 * cache writes back.
 *
 * Injected failure. The call that fails returns NH_EIO, and the store is fenced until it is opened again. A failed save
 * is not seen by readers but may still be on the disk: it stays last in its queue, and a crash may keep it; closing the
 * store drops it.
 *
 * Deterministic: the same calls give the same results and the same order. Threads: as raftio/logdb.h; memory_disk_*
 * functions may be called from any thread.
 */
#ifndef NH_LOGDB_MEMORY_MEMORY_LOGDB_H
#define NH_LOGDB_MEMORY_MEMORY_LOGDB_H

#include "raftio/logdb.h"

#define MEMORY_UNSYNCED_MAX 1024u

/* The table of the store; static storage. */
const struct nh_logdb_ops *nh_logdb_memory(void);

struct memory_disk;

/* The disk of that name, made if there is none. Owned by this module. */
struct memory_disk *memory_disk_get(const char *dir);
/* Forgets the disk and all that is on it; not while a store has it open. No such disk: nothing happens. */
void memory_disk_drop(const char *dir);

/* How many of the `n_unsynced` calls in a worker's queue survive: 0 .. n_unsynced (more counts as all). */
typedef uint32_t (*memory_keep_fn)(void *ctx, uint32_t worker_id, uint32_t n_unsynced);
/* Power cut. `keep` NULL: no unsynced call survives. A store that has the disk open is dead from here on: its writes
 * return NH_EFENCED, its readers see what survived; close it, then open it again. */
void memory_disk_crash(struct memory_disk *d, memory_keep_fn keep, void *ctx);

/* The write call after `n_calls` more successful ones fails. UINT64_MAX: none does. Holds across open and close. */
void memory_disk_fail_after(struct memory_disk *d, uint64_t n_calls);

/* Calls in a worker's queue. */
uint32_t memory_disk_unsynced(struct memory_disk *d, uint32_t worker_id);

/* What would survive a power cut with `keep` NULL: as read_raft_state and iterate_entries, but of the synced image.
 * For a checker that looks at all disks from outside; the disk need not be open. */
int memory_disk_read_state(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, struct nh_raft_state *ret,
                           struct nh_error *err);
/* ret->index is 0 if there is none. */
int memory_disk_read_snapshot(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, struct nh_snapshot *ret,
                              struct nh_error *err);
int memory_disk_iterate(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                        const struct nh_entry_sink *sink, struct nh_error *err);

#endif
