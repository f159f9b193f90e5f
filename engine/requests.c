#include "engine/requests.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

#define RING_CAP_MIN   16u
#define RING_CAP_KEEP  1024u /* an empty ring larger than this is given back */
#define PREFETCH_BYTES (4 * sizeof(struct request))

static struct request *slot(const struct request_ring *r, uint64_t key)
{
    return &r->slots[key & (r->cap - 1)];
}

void request_ring_deinit(struct request_ring *r)
{
    assert(r->n_pending == 0);
    free(r->slots);
    r->slots = NULL;
    r->cap = 0;
}

void request_ring_grow(struct request_ring *r)
{
    struct request_ring bigger = *r;

    bigger.cap = r->cap ? r->cap * 2 : RING_CAP_MIN;
    bigger.slots = xcalloc(bigger.cap, sizeof *bigger.slots);
    for (uint64_t key = r->base; key < r->next; key++)
        *slot(&bigger, key) = *slot(r, key);
    free(r->slots);
    *r = bigger;
}

NH_PEEKS void request_ring_prefetch_next(const struct request_ring *r)
{
    if (r->cap)
        prefetch(&r->slots[r->next & (r->cap - 1)], PREFETCH_BYTES);
}

NH_PEEKS void request_ring_prefetch_first(const struct request_ring *r)
{
    if (r->n_pending)
        prefetch(&r->slots[r->base & (r->cap - 1)], PREFETCH_BYTES);
}

bool request_ring_is_pending(const struct request_ring *r, uint64_t key)
{
    return key >= r->base && key < r->next && slot(r, key)->fn;
}

static void shrink_front(struct request_ring *r)
{
    while (r->base < r->next && !slot(r, r->base)->fn)
        r->base++;
    if (r->base == r->next && r->cap > RING_CAP_KEEP)
        request_ring_deinit(r);
}

bool request_ring_take(struct request_ring *r, uint64_t key, struct request *ret)
{
    if (!request_ring_is_pending(r, key))
        return false;
    *ret = *slot(r, key);
    slot(r, key)->fn = NULL;
    r->n_pending--;
    shrink_front(r);
    return true;
}

bool request_ring_take_expired(struct request_ring *r, uint64_t *key, uint64_t now_ns, struct request *ret)
{
    uint64_t at = *key > r->base ? *key : r->base;

    while (at < r->next && !(slot(r, at)->fn && slot(r, at)->deadline_ns <= now_ns))
        at++;
    *key = at + 1;
    return at < r->next && request_ring_take(r, at, ret);
}

uint64_t request_ring_earliest(const struct request_ring *r)
{
    uint64_t earliest = REQUESTS_NO_DEADLINE;

    for (uint64_t key = r->base; key < r->next; key++)
        if (slot(r, key)->fn && slot(r, key)->deadline_ns < earliest)
            earliest = slot(r, key)->deadline_ns;
    return earliest;
}

struct read_batch *read_batch_new(uint64_t low)
{
    struct read_batch *b = xcalloc(1, sizeof *b);

    list_init(&b->link);
    b->low = low;
    b->earliest_ns = REQUESTS_NO_DEADLINE;
    return b;
}

bool read_batch_claim(struct read_batch *b)
{
    return !__atomic_exchange_n(&b->is_claimed, true, __ATOMIC_ACQ_REL);
}

void read_batch_clear(struct read_batch *b)
{
    assert(b->n_pending == 0);
    free(b->items);
    free(b->queries);
    b->items = NULL;
    b->queries = NULL;
    b->n = b->cap = b->queries_bytes = b->queries_cap = 0;
}

void read_batch_free(struct read_batch *b)
{
    if (!b)
        return;
    assert(!list_linked(&b->link));
    read_batch_clear(b);
    free(b);
}

void read_batch_add(struct read_batch *b, const struct request *request, const void *query, size_t query_bytes)
{
    array_reserve((void **)&b->items, &b->cap, b->n + 1, sizeof *b->items);
    array_reserve((void **)&b->queries, &b->queries_cap, b->queries_bytes + query_bytes, 1);
    b->items[b->n++] = (struct read_item){
        .request = *request,
        .query_at = b->queries_bytes,
        .query_bytes = query_bytes,
        .has_query = query != NULL,
    };
    if (query_bytes)
        memcpy(b->queries + b->queries_bytes, query, query_bytes);
    b->queries_bytes += query_bytes;
    b->n_pending++;
    if (request->deadline_ns < b->earliest_ns)
        b->earliest_ns = request->deadline_ns;
}

bool read_item_is_pending(const struct read_item *item)
{
    return __atomic_load_n(&item->request.fn, __ATOMIC_RELAXED);
}

bool read_item_take(struct read_item *item, struct request *ret)
{
    *ret = (struct request){
        .fn = __atomic_exchange_n(&item->request.fn, NULL, __ATOMIC_RELAXED),
        .ctx = item->request.ctx,
        .deadline_ns = item->request.deadline_ns,
    };
    return ret->fn;
}

bool read_batch_take(struct read_batch *b, size_t *at, uint64_t expired_at_ns, struct request *ret)
{
    for (; *at < b->n; (*at)++) {
        struct read_item *item = &b->items[*at];

        if (!read_item_is_pending(item) || item->request.deadline_ns > expired_at_ns || !read_item_take(item, ret))
            continue;
        b->n_pending--;
        (*at)++;
        return true;
    }
    return false;
}

void read_batch_update_earliest(struct read_batch *b)
{
    b->earliest_ns = REQUESTS_NO_DEADLINE;
    for (size_t i = 0; i < b->n; i++)
        if (read_item_is_pending(&b->items[i]) && b->items[i].request.deadline_ns < b->earliest_ns)
            b->earliest_ns = b->items[i].request.deadline_ns;
}

void request_end(const struct request *request, int code, int drop_reason)
{
    struct nh_outcome outcome = {.code = code, .drop_reason = drop_reason};

    request->fn(request->ctx, &outcome);
}
