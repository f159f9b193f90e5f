#include "logdb/memory/disk.h"

#include <assert.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

static pthread_mutex_t disks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct memory_disk *disks; /* guarded by disks_lock */

struct memory_disk *memory_disk_get(const char *dir)
{
    struct memory_disk *d;

    pthread_mutex_lock(&disks_lock);
    for (d = disks; d && strcmp(d->dir, dir) != 0; d = d->next)
        ;
    if (!d) {
        d = xcalloc(1, sizeof *d);
        d->dir = xstrdup(dir);
        d->fail_after = UINT64_MAX;
        pthread_mutex_init(&d->lock, NULL);
        d->next = disks;
        disks = d;
    }
    pthread_mutex_unlock(&disks_lock);
    return d;
}

static void free_replica(struct replica_node *n)
{
    struct memory_replica *r = memory_replica_of(n);

    image_deinit(&r->live);
    image_deinit(&r->synced);
    free(r->bootstrap);
    free(r);
}

static void free_call(struct unsynced_call *c)
{
    for (size_t i = 0; i < c->n; i++)
        image_change_deinit(&c->updates[i].change);
    free(c);
}

void memory_disk_drop(const char *dir)
{
    struct memory_disk **at, *d;

    pthread_mutex_lock(&disks_lock);
    for (at = &disks; *at && strcmp((*at)->dir, dir) != 0; at = &(*at)->next)
        ;
    d = *at;
    if (d)
        *at = d->next;
    pthread_mutex_unlock(&disks_lock);
    if (!d)
        return;
    assert(!d->open_by);
    replica_map_clear(&d->replicas, free_replica);
    pthread_mutex_destroy(&d->lock);
    free(d->workers);
    free(d->dir);
    free(d);
}

struct memory_replica *disk_find(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id)
{
    struct replica_node *n = replica_map_find(&d->replicas, shard_id, replica_id);

    return n ? memory_replica_of(n) : NULL;
}

struct memory_replica *disk_find_or_add(struct memory_disk *d, uint64_t shard_id, uint64_t replica_id)
{
    struct memory_replica *r = disk_find(d, shard_id, replica_id);

    if (r)
        return r;
    r = xcalloc(1, sizeof *r);
    r->node = (struct replica_node){.shard_id = shard_id, .replica_id = replica_id};
    image_init(&r->live);
    image_init(&r->synced);
    replica_map_add(&d->replicas, &r->node);
    return r;
}

void disk_remove(struct memory_disk *d, struct memory_replica *r)
{
    replica_map_remove(&d->replicas, &r->node);
    free_replica(&r->node);
}

void disk_set_workers(struct memory_disk *d, uint32_t n_workers)
{
    for (uint32_t i = 0; i < d->n_workers; i++)
        assert(d->workers[i].n == 0);
    free(d->workers);
    d->workers = xcalloc(n_workers, sizeof *d->workers);
    d->n_workers = n_workers;
}

/* Takes the oldest call off its queue; its updates reach the synced images if `keep`. */
static void retire_oldest(struct worker_queue *q, bool keep)
{
    struct unsynced_call *c = container_of(queue_pop(&q->calls), struct unsynced_call, node);

    for (size_t i = 0; i < c->n && keep; i++)
        image_apply(&c->updates[i].replica->synced, &c->updates[i].change);
    q->n--;
    free_call(c);
}

void disk_enqueue(struct memory_disk *d, uint32_t worker_id, struct unsynced_call *call)
{
    struct worker_queue *q = &d->workers[worker_id - 1];

    queue_push(&q->calls, &call->node);
    if (++q->n > MEMORY_UNSYNCED_MAX)
        retire_oldest(q, true);
}

void disk_sync_worker(struct memory_disk *d, uint32_t worker_id)
{
    struct worker_queue *q = &d->workers[worker_id - 1];

    while (q->n > 0)
        retire_oldest(q, !container_of(q->calls.first, struct unsynced_call, node)->failed);
}

void disk_sync_all(struct memory_disk *d)
{
    for (uint32_t i = 1; i <= d->n_workers; i++)
        disk_sync_worker(d, i);
}

void memory_disk_crash(struct memory_disk *d, memory_keep_fn keep, void *ctx)
{
    struct replica_node *n = NULL;

    pthread_mutex_lock(&d->lock);
    d->n_crashes++;
    for (uint32_t i = 0; i < d->n_workers; i++) {
        struct worker_queue *q = &d->workers[i];
        uint32_t kept = keep && q->n > 0 ? keep(ctx, i + 1, q->n) : 0;

        for (; q->n > 0; kept -= kept > 0)
            retire_oldest(q, kept > 0);
    }
    for (size_t i = 0; (n = replica_map_next(&d->replicas, &i, n));)
        image_copy(&memory_replica_of(n)->live, &memory_replica_of(n)->synced);
    pthread_mutex_unlock(&d->lock);
}

void memory_disk_fail_after(struct memory_disk *d, uint64_t n_calls)
{
    pthread_mutex_lock(&d->lock);
    d->fail_after = n_calls;
    pthread_mutex_unlock(&d->lock);
}

uint32_t memory_disk_unsynced(struct memory_disk *d, uint32_t worker_id)
{
    uint32_t n = 0;

    pthread_mutex_lock(&d->lock);
    if (worker_id >= 1 && worker_id <= d->n_workers)
        n = d->workers[worker_id - 1].n;
    pthread_mutex_unlock(&d->lock);
    return n;
}
