/* engine/liveness.h - when each other host was last heard of, and whether its connection broke since.
 *
 * Any batch counts, an empty one too (that is a host's ping). It lets a quiet replica sleep without timers: when the host of
 * its leader has been silent for long, its worker wakes it. And requests are not sent to a leader whose host is down: they would
 * be lost with an unknown outcome, while those that wait for the next leader have none.
 *
 * Hosts are added when a worker first has something to send to them and stay until the engine is freed; what a stranger
 * sends is not remembered.
 *
 * Threads: any. Errors: none.
 */
#ifndef NH_ENGINE_LIVENESS_H
#define NH_ENGINE_LIVENESS_H

#include <pthread.h>
#include <stdint.h>

#include "raftio/types.h"

struct live_host {
    struct live_host *next;
    char address[NH_ADDRESS_BYTES];
    uint64_t heard_ns; /* atomic */
    bool down;         /* atomic: a connection to or from it failed, and nothing was heard since */
};

struct liveness {
    pthread_mutex_t lock;
    struct live_host *hosts; /* guarded by lock; elements live as long as the table */
};

void liveness_init(struct liveness *l);
void liveness_deinit(struct liveness *l);
/* Finds or adds; a host that is added counts as heard of at `now_ns`. */
struct live_host *liveness_add(struct liveness *l, const char *address, uint64_t now_ns);
/* Notes that a batch came from this address; unknown ones are ignored. */
void liveness_heard(struct liveness *l, const char *address, uint64_t now_ns);
/* Notes that a connection failed. */
void liveness_failed(struct liveness *l, const char *address);
/* Not of unknown ones. */
bool liveness_is_down(struct liveness *l, const char *address);

static inline uint64_t live_host_heard_ns(const struct live_host *h)
{
    return __atomic_load_n(&h->heard_ns, __ATOMIC_RELAXED);
}
static inline bool live_host_is_down(const struct live_host *h)
{
    return __atomic_load_n(&h->down, __ATOMIC_RELAXED);
}

#endif
