/* engine/engine_private.h - the engine's own struct: configuration, routes, pools. Private to engine/. */
#ifndef NH_ENGINE_ENGINE_PRIVATE_H
#define NH_ENGINE_ENGINE_PRIVATE_H

#include <pthread.h>

#include "engine/engine.h"
#include "engine/liveness.h"
#include "raftio/support/map.h"

struct step_worker;
struct log_worker;
struct apply_worker;
struct snapshots;
struct replica;

/* The keys that a replica has used, for the next start of one in its place: keys of one origin only grow. */
struct used_keys {
    uint64_t next_proposal, next_read;
};

struct engine {
    struct engine_config config; /* defaults filled in */
    char address[NH_ADDRESS_BYTES];
    char *snapshot_root;
    struct snapshots *snapshots; /* from start to free */
    const struct nh_transport_ops *transport_ops;
    struct nh_transport *transport;
    struct liveness liveness;
    struct step_worker *step_workers[ENGINE_WORKERS_MAX];
    struct apply_worker *apply_workers[ENGINE_WORKERS_MAX];
    bool fenced;                /* atomic */
    bool logdb_busy;            /* atomic */
    bool running;               /* atomic: between start and stop */
    uint64_t uncommitted_bytes; /* atomic: of all leaders */
    uint64_t ignored;           /* atomic: messages that found no replica */

    pthread_rwlock_t routes_lock; /* taken before the lock of a replica, never after */
    struct map routes;            /* guarded by routes_lock: shard id -> struct replica, one reference each */
    struct map starting;          /* guarded by routes_lock: shards that a thread is starting */
    struct map used_keys;         /* guarded by routes_lock: shard id -> struct used_keys */
};

static inline uint64_t engine_now_ns(struct engine *e)
{
    return runtime_now_ns(e->config.runtime);
}

/* The replica of a shard with a reference, or NULL. Thread: any. */
struct replica *engine_find(struct engine *e, uint64_t shard_id);
/* The same for a request, with an error that says why not: ENOTFOUND, or ECLOSED before the start and after the stop. */
int engine_find_for_request(struct engine *e, uint64_t shard_id, struct replica **ret, struct nh_error *err);
/* A replica's machine is closed: its shard may be started again, with keys behind those that it used. Drops the routes'
 * reference. Thread: its apply worker. */
void engine_forget(struct engine *e, struct replica *r);
/* A write failed: nothing is saved any more. Tells every worker and, once, the owner. Thread: any worker. */
void engine_fence(struct engine *e, const char *reason);
bool engine_is_fenced(struct engine *e);
bool engine_is_running(struct engine *e); /* between start and stop. Thread: any. */

#endif
