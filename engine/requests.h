/* engine/requests.h - pending requests of one replica: who waits for what, until when.
 *
 * Two shapes. Proposals have consecutive keys, so they sit in a ring indexed by key: finding one is an array access.
 * Reads travel in batches that share one read context; a batch is an object of its own that wanders from the inbox to the
 * core and on to the apply worker.
 *
 * "Exactly once" rests on extraction: a request leaves the ring (or its item is marked done) before its completion is
 * called, and whoever extracted it calls it. Completions are called outside every lock.
 *
 * Threads: no locks in here; the ring is guarded by its replica's lock, a read batch belongs to whoever holds it. At the apply
 * worker it has two holders (engine/reads.h), so items are taken atomically.
 */
#ifndef NH_ENGINE_REQUESTS_H
#define NH_ENGINE_REQUESTS_H

#include <assert.h>
#include <stdint.h>

#include "raftio/request.h"
#include "raftio/support/list.h"

#define REQUESTS_NO_DEADLINE UINT64_MAX
/* Keys from the oldest to the newest pending proposal, as a multiple of the most that may be pending. */
#define REQUESTS_WINDOW_FACTOR 8u

struct request {
    nh_completion_fn fn; /* NULL: ended */
    void *ctx;
    uint64_t deadline_ns;
};

/* Requests with keys [base, next). Zeroed and given a base: empty. */
struct request_ring {
    struct request *slots; /* key & (cap - 1) */
    uint64_t base, next;
    uint32_t cap; /* 0 or a power of two */
    uint32_t n_pending;
};

void request_ring_deinit(struct request_ring *r); /* must hold no pending request */
void request_ring_grow(struct request_ring *r);   /* for request_ring_add */
/* Appends a request with key `next`. The caller has checked the limits. */
static inline void request_ring_add(struct request_ring *r, const struct request *request)
{
    assert(request->fn);
    if (r->next - r->base >= r->cap)
        request_ring_grow(r);
    r->slots[r->next++ & (r->cap - 1)] = *request;
    r->n_pending++;
}
/* Ask for the slots of the next few, or of the oldest. Thread: any, without the lock. */
void request_ring_prefetch_next(const struct request_ring *r);
void request_ring_prefetch_first(const struct request_ring *r);
/* Moves the request out; false if it has ended or the key is not of the window. */
bool request_ring_take(struct request_ring *r, uint64_t key, struct request *ret);
/* Takes one request of [base, next) whose deadline is not after `now_ns`, from *key on; moves *key behind it. */
bool request_ring_take_expired(struct request_ring *r, uint64_t *key, uint64_t now_ns, struct request *ret);
/* The earliest deadline; REQUESTS_NO_DEADLINE if nothing is pending. Walks the window. */
uint64_t request_ring_earliest(const struct request_ring *r);
bool request_ring_is_pending(const struct request_ring *r, uint64_t key);

/* One read of a batch. */
struct read_item {
    struct request request; /* fn atomic; NULL: ended */
    size_t query_at, query_bytes;
    bool has_query;
};

struct read_batch {
    struct queue_node node; /* in its replica's queue of stranded ones */
    struct list link;       /* in a list of its replica */
    uint64_t low;           /* read context: unique for ever */
    uint64_t index;         /* once confirmed */
    bool sent;              /* given to the core at least once */
    bool is_claimed;        /* atomic */
    uint64_t retry_tick;    /* when it is to be given to the core (again): an answer may get lost */
    uint64_t earliest_ns;   /* no deadline before */
    struct read_item *items;
    size_t n, cap, n_pending;
    uint8_t *queries; /* the items' queries, one after another */
    size_t queries_bytes, queries_cap;
};

struct read_batch *read_batch_new(uint64_t low);
void read_batch_free(struct read_batch *b); /* must hold no pending request; takes NULL */
/* Copies the query (may be NULL). */
void read_batch_add(struct read_batch *b, const struct request *request, const void *query, size_t query_bytes);
/* Takes it if it is pending. The batch does not notice. */
bool read_item_take(struct read_item *item, struct request *ret);
bool read_item_is_pending(const struct read_item *item);
/* Takes one pending item from *at on, if `expired_at_ns` is not before its deadline (UINT64_MAX: any); moves *at behind it. */
bool read_batch_take(struct read_batch *b, size_t *at, uint64_t expired_at_ns, struct request *ret);
/* Sets earliest_ns from what is still pending. */
void read_batch_update_earliest(struct read_batch *b);
/* Who claims it looks at its items and queries, or frees them as all have ended. False: somebody else does. */
bool read_batch_claim(struct read_batch *b);
/* Frees the items and queries of one that holds no pending request. */
void read_batch_clear(struct read_batch *b);

/* Ends a request that was taken. */
void request_end(const struct request *request, int code, int drop_reason);

#endif
