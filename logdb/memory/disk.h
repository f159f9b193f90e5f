/* logdb/memory/disk.h - the disks of this process: replicas, queues of unsynced calls, crashes and failures. */
#ifndef NH_LOGDB_MEMORY_DISK_H
#define NH_LOGDB_MEMORY_DISK_H

#include <pthread.h>

#include "logdb/memory/image.h"
#include "logdb/memory/memory_logdb.h"
#include "logdb/replica_map.h"
#include "raftio/support/list.h"

struct memory_replica {
    struct replica_node node;
    struct image live, synced;
    uint8_t *bootstrap; /* encoded, NULL: none; written durably, so the images share it */
    size_t bootstrap_bytes;
    uint64_t check_call;     /* scratch of a save: the call that `check` belongs to */
    struct log_bounds check; /* bounds after the updates checked so far */
};

/* A save that is not synced yet. */
struct unsynced_call {
    struct queue_node node;
    bool failed; /* injected failure: not in `live`, may survive a crash */
    size_t n;
    struct {
        struct memory_replica *replica;
        struct image_change change;
    } updates[];
};

struct worker_queue {
    struct queue calls;
    uint32_t n;
};

/* Everything is guarded by `lock`. */
struct memory_disk {
    char *dir;
    struct memory_disk *next;
    pthread_mutex_t lock;
    struct nh_logdb *open_by; /* NULL: closed */
    uint64_t n_crashes;
    uint64_t fail_after;
    uint64_t n_calls;
    uint32_t n_workers;
    struct worker_queue *workers;
    struct replica_map replicas;
};

struct memory_replica *disk_find(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id); /* or NULL */
struct memory_replica *disk_find_or_add(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id);
/* Removes the replica; no unsynced call may name it. */
void disk_remove(struct memory_disk *d, struct memory_replica *r);
/* Queues of an older opening must be empty. */
void disk_set_workers(struct memory_disk *d, uint32_t n_workers);
void disk_enqueue(struct memory_disk *d, uint32_t worker_id, struct unsynced_call *call);
/* Makes the queue synced; failed calls are dropped. */
void disk_sync_worker(struct memory_disk *d, uint32_t worker_id);
void disk_sync_all(struct memory_disk *d);

static inline struct memory_replica *memory_replica_of(struct replica_node *n)
{
    return container_of(n, struct memory_replica, node);
}

#endif
