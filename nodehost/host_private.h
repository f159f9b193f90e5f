/* nodehost/host_private.h - the host's own struct. Private to nodehost/. */
#ifndef NH_NODEHOST_HOST_PRIVATE_H
#define NH_NODEHOST_HOST_PRIVATE_H

#include <pthread.h>

#include "engine/engine.h"
#include "nodehost/data_dir.h"
#include "nodehost/events.h"

/* Someone who waits in nh_host_stop_replica. */
struct stop_waiter {
    struct stop_waiter *next;
    uint64_t shard_id;
    bool done; /* one of the shard was unloaded since */
};

struct nh_host {
    uint64_t host_id, deployment_id;
    char address[NH_ADDRESS_BYTES];
    struct data_dir data_dir;
    char snapshot_root[DATA_DIR_PATH_BYTES];
    struct events *events;
    struct runtime *runtime;
    struct nh_logdb_ops logdb_ops;
    struct nh_logdb *logdb;
    struct nh_registry_ops registry_ops;
    struct nh_registry *registry;
    struct nh_transport_ops transport_ops;
    struct nh_transport *transport;
    struct engine *engine;
    struct nh_transport_handlers engine_handlers; /* wrapped by ours, which also tell the listeners */

    pthread_mutex_t lock; /* taken before the engine's, never after */
    pthread_cond_t unloaded;
    struct stop_waiter *waiters; /* guarded by lock */
};

/* The synchronous form of a request: `waiter_end` is its completion, `waiter_finish` waits for it if it was accepted. */
struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool has_ended;
    struct nh_reply *reply;
};
int waiter_begin(struct waiter *w, struct nh_reply *reply, struct nh_error *err); /* errors: EDEADLOCK, EINVAL */
void waiter_end(void *ctx, const struct nh_outcome *outcome);
int waiter_finish(struct waiter *w, int submitted); /* returns `submitted` */

/* What every request needs. Errors: EINVAL. */
int host_check_request(nh_completion_fn fn, const void *bytes, size_t size_bytes, struct nh_error *err);
/* The end of a timeout on the runtime's clock. Errors: EINVAL. */
int host_deadline(struct nh_host *host, uint32_t timeout_ms, uint64_t *ret_ns, struct nh_error *err);
/* What may be in the records of a shard. Errors: EINVAL. */
int host_check_address(const char *address, struct nh_error *err);
/* NH_EDEADLOCK on a thread of the host itself. */
int host_check_may_block(struct nh_error *err);

#endif
