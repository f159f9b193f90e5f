#include "engine/reads.h"

#include <stdlib.h>

#include "engine/apply_worker.h"
#include "engine/peers.h"
#include "raftio/support/memory.h"

static void note_earliest(struct replica *r, uint64_t earliest_ns)
{
    if (earliest_ns < r->reads_earliest_ns)
        r->reads_earliest_ns = earliest_ns;
}

void reads_take(struct replica *r, struct read_batch *b)
{
    if (!b)
        return;
    list_push_back(&r->reads_waiting, &b->link);
    note_earliest(r, b->earliest_ns);
}

void reads_send(struct step_worker *w, struct replica *r)
{
    if (!peers_leader_is_reachable(w, r))
        return;
    for (struct list *at = r->reads_waiting.next; at != &r->reads_waiting; at = at->next) {
        struct read_batch *b = container_of(at, struct read_batch, link);

        if (b->retry_tick > w->now_tick)
            continue;
        b->sent = true;
        b->retry_tick = w->now_tick + r->election_ticks;
        raft_step(r->raft, &(struct raft_event){.type = RAFT_EV_READ, .now = w->now_tick, .read = {b->low, r->replica_id}},
                  &w->update);
    }
}

static struct read_batch *find_reads(const struct replica *r, uint64_t low)
{
    for (struct list *at = r->reads_waiting.next; at != &r->reads_waiting; at = at->next) {
        struct read_batch *b = container_of(at, struct read_batch, link);

        if (b->low == low)
            return b;
    }
    return NULL;
}

void reads_confirm(struct replica *r, const struct raft_read *read)
{
    struct read_batch *b = read->high == r->replica_id ? find_reads(r, read->low) : NULL;

    if (!b) /* answered already, or expired */
        return;
    b->index = read->index;
    list_remove(&b->link);
    list_push_back(&r->reads_confirmed, &b->link);
}

void reads_hand_over(struct step_worker *w, struct replica *r)
{
    for (struct list *at = r->reads_confirmed.next, *next; at != &r->reads_confirmed; at = next) {
        struct read_batch *b = container_of(at, struct read_batch, link);
        struct apply_item *item;

        next = at->next;
        if (b->index > r->handed)
            continue;
        list_remove(&b->link);
        reads_note_handed(r, b);
        item = apply_item_new(APPLY_READS, r);
        item->reads = b;
        step_worker_apply(w, r, item);
    }
}

static void expire_list(struct replica *r, struct list *reads, uint64_t now_ns)
{
    for (struct list *at = reads->next, *next; at != reads; at = next) {
        struct read_batch *b = container_of(at, struct read_batch, link);

        next = at->next;
        if (b->earliest_ns <= now_ns) {
            if (b->sent)
                replica_end_reads(r, b, now_ns, NH_REQUEST_TIMEOUT, NH_DROP_NONE);
            else
                replica_end_reads(r, b, now_ns, NH_REQUEST_DROPPED, NH_DROP_NO_LEADER);
            read_batch_update_earliest(b);
        }
        if (b->n_pending == 0) {
            list_remove(&b->link);
            replica_free_reads(r, b);
            continue;
        }
        note_earliest(r, b->earliest_ns);
    }
}

static void terminate_list(struct replica *r, struct list *reads)
{
    struct list *node;

    while ((node = list_pop_front(reads))) {
        struct read_batch *b = container_of(node, struct read_batch, link);

        replica_end_reads(r, b, UINT64_MAX, NH_REQUEST_TERMINATED, NH_DROP_NONE);
        replica_free_reads(r, b);
    }
}

/* ---- handed over ---- */

void reads_note_handed(struct replica *r, struct read_batch *b)
{
    pthread_mutex_lock(&r->lock);
    list_push_back(&r->reads_handed, &b->link);
    r->n_handed++;
    pthread_mutex_unlock(&r->lock);
}

void reads_end_answers(struct replica *r, struct read_batch *b, uint32_t n)
{
    pthread_mutex_lock(&r->lock);
    list_remove(&b->link);
    r->n_handed--;
    b->n_pending -= n;
    r->n_reads -= n;
    replica_forget_queries(r, b);
    pthread_mutex_unlock(&r->lock);
    read_batch_free(b);
}

/* Requests that were taken under the lock, to be ended outside of it. */
struct taken {
    struct request *requests;
    size_t n, cap;
};

/* With r->lock held. */
static void take_from(struct read_batch *b, uint64_t expired_at_ns, struct taken *t)
{
    struct request request;

    for (size_t at = 0; read_batch_take(b, &at, expired_at_ns, &request);) {
        array_reserve((void **)&t->requests, &t->cap, t->n + 1, sizeof *t->requests);
        t->requests[t->n++] = request;
    }
    read_batch_update_earliest(b);
}

/* With r->lock held. Of a batch that has ended only the shell stays, for the apply worker. */
static void take_handed(struct replica *r, uint64_t expired_at_ns, struct taken *t)
{
    for (struct list *at = r->reads_handed.next, *next; at != &r->reads_handed; at = next) {
        struct read_batch *b = container_of(at, struct read_batch, link);

        next = at->next;
        if (b->earliest_ns <= expired_at_ns)
            take_from(b, expired_at_ns, t);
        note_earliest(r, b->earliest_ns);
        if (b->n_pending > 0)
            continue;
        list_remove(&b->link);
        if (read_batch_claim(b)) {
            replica_forget_queries(r, b);
            read_batch_clear(b);
        }
    }
}

static void end_handed(struct replica *r, uint64_t expired_at_ns, int code)
{
    struct taken t = {0};

    pthread_mutex_lock(&r->lock);
    take_handed(r, expired_at_ns, &t);
    r->n_reads -= (uint32_t)t.n;
    pthread_mutex_unlock(&r->lock);
    for (size_t i = 0; i < t.n; i++)
        request_end(&t.requests[i], code, NH_DROP_NONE);
    free(t.requests);
}

/* ---- ends ---- */

void reads_expire(struct replica *r, uint64_t now_ns)
{
    r->reads_earliest_ns = REQUESTS_NO_DEADLINE;
    expire_list(r, &r->reads_waiting, now_ns);
    expire_list(r, &r->reads_confirmed, now_ns);
    end_handed(r, now_ns, NH_REQUEST_TIMEOUT);
}

void reads_terminate(struct replica *r)
{
    terminate_list(r, &r->reads_waiting);
    terminate_list(r, &r->reads_confirmed);
    end_handed(r, UINT64_MAX, NH_REQUEST_TERMINATED);
}

void reads_retry(struct replica *r, uint64_t low, uint64_t tick)
{
    struct read_batch *b = find_reads(r, low);

    if (b)
        b->retry_tick = tick;
}

void reads_drop(struct replica *r, uint64_t low, int drop_reason)
{
    struct read_batch *b = find_reads(r, low);

    if (!b)
        return;
    list_remove(&b->link);
    replica_end_reads(r, b, UINT64_MAX, NH_REQUEST_DROPPED, drop_reason);
    replica_free_reads(r, b);
}

void reads_retry_all(struct replica *r)
{
    for (struct list *at = r->reads_waiting.next; at != &r->reads_waiting; at = at->next)
        container_of(at, struct read_batch, link)->retry_tick = 0;
}

uint64_t reads_next_tick(struct step_worker *w, struct replica *r)
{
    uint64_t tick = RAFT_NEVER;

    if (!peers_leader_is_reachable(w, r))
        return RAFT_NEVER;
    for (struct list *at = r->reads_waiting.next; at != &r->reads_waiting; at = at->next) {
        const struct read_batch *b = container_of(at, struct read_batch, link);

        tick = b->retry_tick < tick ? b->retry_tick : tick;
    }
    return tick;
}
