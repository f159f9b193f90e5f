#include "engine/apply_reads.h"

#include <stdlib.h>
#include <string.h>

#include "engine/reads.h"
#include "engine/rsm/rsm.h"
#include "raftio/support/counter.h"
#include "raftio/support/memory.h"

struct answer {
    uint8_t *data;
    size_t size, cap;
};

static int write_answer(void *ctx, const void *data, size_t size_bytes)
{
    struct answer *a = ctx;

    if (size_bytes > NH_ENTRY_PAYLOAD_MAX || a->size > NH_ENTRY_PAYLOAD_MAX - size_bytes)
        return NH_ETOOBIG;
    array_reserve((void **)&a->data, &a->cap, a->size + size_bytes, 1);
    if (size_bytes)
        memcpy(a->data + a->size, data, size_bytes);
    a->size += size_bytes;
    return NH_OK;
}

/* False: it has ended, perhaps while the machine was being asked. */
static bool answer_read(const struct read_batch *b, struct read_item *item, struct rsm *rsm)
{
    struct nh_outcome outcome = {.code = NH_REQUEST_COMPLETED, .index = b->index};
    struct answer answer = {0};
    struct nh_writer out = {.write = write_answer, .ctx = &answer};
    struct nh_error err = {0};
    struct request request;
    bool taken;

    if (!read_item_is_pending(item))
        return false;
    if (item->has_query) {
        outcome.status = rsm_lookup(rsm, b->queries + item->query_at, item->query_bytes, &out, &outcome.value, &err);
        outcome.data = outcome.status < 0 ? (const void *)err.text : answer.data;
        outcome.size_bytes = outcome.status < 0 ? strlen(err.text) : answer.size;
    }
    taken = read_item_take(item, &request);
    if (taken)
        request.fn(request.ctx, &outcome);
    free(answer.data);
    return taken;
}

bool apply_reads_must_wait(struct replica *r, struct read_batch *b)
{
    if (b->index <= rsm_applied(r->rsm) || b->index > __atomic_load_n(&r->installing, __ATOMIC_ACQUIRE))
        return false;
    queue_push(&r->reads_stranded, &b->node);
    return true;
}

/* Another thread has written an item, and to take it needs its cache line alone: it is asked for so many reads before. */
#define PREFETCH_READS 8u

void apply_reads_answer(struct apply_worker *w, struct replica *r, struct read_batch *b)
{
    uint32_t n = 0;

    if (read_batch_claim(b))
        for (size_t i = 0; i < b->n; i++) {
            prefetch(&b->items[i + PREFETCH_READS], sizeof *b->items);
            n += answer_read(b, &b->items[i], r->rsm);
        }
    reads_end_answers(r, b, n);
    counter_add(&w->reads_answered, n);
}

void apply_reads_answer_waiting(struct apply_worker *w, struct replica *r)
{
    struct queue_node *node;

    while ((node = queue_pop(&r->reads_stranded)))
        apply_reads_answer(w, r, container_of(node, struct read_batch, node));
}

void apply_reads_free_waiting(struct replica *r)
{
    struct queue_node *node;

    while ((node = queue_pop(&r->reads_stranded)))
        reads_end_answers(r, container_of(node, struct read_batch, node), 0);
}
