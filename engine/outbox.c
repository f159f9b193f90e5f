#include "engine/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "raftio/support/block.h"
#include "raftio/support/counter.h"
#include "raftio/support/memory.h"

/* When a pass ends, what the first of thousands of messages point to has left the processor's cache. So it is asked for while
 * those before them are gone through, one pointer further each time. */
#define PREFETCH_RUNS_AT    12u
#define PREFETCH_BLOCK_AT   8u
#define PREFETCH_OFFSETS_AT 4u

static const struct nh_run *first_run(const struct messages *m, size_t at)
{
    return at < m->n && m->items[at].n_runs ? m->items[at].runs : NULL;
}

static void prefetch_entries(const struct messages *m, size_t at)
{
    const struct nh_run *far = first_run(m, at + PREFETCH_RUNS_AT), *run = first_run(m, at + PREFETCH_BLOCK_AT);
    const struct nh_run *near = first_run(m, at + PREFETCH_OFFSETS_AT);

    prefetch(far, 1);
    if (run)
        run_prefetch_block(run);
    if (near)
        run_prefetch_offsets(near);
}

/* For who only lets them go. */
static void prefetch_blocks(const struct messages *m, size_t at)
{
    const struct nh_run *far = first_run(m, at + PREFETCH_BLOCK_AT), *near = first_run(m, at + PREFETCH_OFFSETS_AT);

    prefetch(far, 1);
    if (near)
        prefetch(near->block, 1);
}

void messages_push(struct messages *m, const struct nh_message *message)
{
    array_reserve((void **)&m->items, &m->cap, m->n + 1, sizeof *m->items);
    m->items[m->n++] = *message;
}

void messages_clear(struct messages *m)
{
    for (size_t i = 0; i < m->n; i++) {
        prefetch_blocks(m, i);
        nh_message_deinit(&m->items[i]);
    }
    m->n = 0;
}

void messages_deinit(struct messages *m)
{
    messages_clear(m);
    free(m->items);
    *m = (struct messages){0};
}

void outbox_init(struct outbox *o, struct liveness *liveness, uint64_t deployment_id, const char *source_address)
{
    *o = (struct outbox){.liveness = liveness, .head = {.deployment_id = deployment_id, .source_address = source_address}};
    list_init(&o->pending);
}

void outbox_deinit(struct outbox *o)
{
    for (size_t i = 0; i < o->n_peers; i++) {
        o->ops->close_connection(o->peers[i]->connection);
        messages_deinit(&o->peers[i]->messages);
        free(o->peers[i]);
    }
    free(o->peers);
    o->peers = NULL;
    o->n_peers = o->cap_peers = 0;
}

static struct outbox_peer *connect_peer(struct outbox *o, const char *address, uint64_t now_ns)
{
    struct nh_connection *connection = NULL;
    struct outbox_peer *p;

    if (o->n_peers >= OUTBOX_PEERS_MAX || o->ops->get_connection(o->transport, address, &connection, NULL) != NH_OK)
        return NULL;
    p = xcalloc(1, sizeof *p);
    p->host = liveness_add(o->liveness, address, now_ns);
    p->connection = connection;
    list_init(&p->pending);
    array_reserve((void **)&o->peers, &o->cap_peers, o->n_peers + 1, sizeof *o->peers);
    o->peers[o->n_peers++] = p;
    return p;
}

struct outbox_peer *outbox_peer(struct outbox *o, const char *address, uint64_t now_ns)
{
    for (size_t i = 0; i < o->n_peers; i++)
        if (strcmp(o->peers[i]->host->address, address) == 0)
            return o->peers[i];
    return connect_peer(o, address, now_ns);
}

void outbox_add(struct outbox *o, struct outbox_peer *peer, const struct nh_message *message)
{
    messages_push(&peer->messages, message);
    if (!list_linked(&peer->pending))
        list_push_back(&o->pending, &peer->pending);
}

static size_t message_bytes(const struct nh_message *m)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < m->n_runs; i++)
        bytes += nh_run_size(&m->runs[i]);
    return bytes;
}

/* How many messages from `at` on travel together. */
static size_t batch_length(const struct messages *m, size_t at)
{
    size_t n = 0, bytes = 0;

    for (; at + n < m->n && n < OUTBOX_BATCH_MESSAGES; n++) {
        prefetch_entries(m, at + n);
        bytes += message_bytes(&m->items[at + n]);
        if (n > 0 && bytes > OUTBOX_BATCH_BYTES)
            break;
    }
    return n;
}

static void send_peer(struct outbox *o, struct outbox_peer *p, outbox_failed_fn failed, void *ctx)
{
    struct nh_message_batch batch = o->head;

    for (size_t at = 0; at < p->messages.n; at += batch.n_messages) {
        batch.messages = p->messages.items + at;
        batch.n_messages = (uint32_t)batch_length(&p->messages, at);
        if (o->ops->send_batch(p->connection, &batch, NULL) == NH_OK) {
            counter_add(&o->batches_sent, 1);
            counter_add(&o->messages_sent, batch.n_messages);
            continue;
        }
        for (uint32_t i = 0; i < batch.n_messages; i++)
            failed(ctx, &batch.messages[i]);
    }
    messages_clear(&p->messages);
    p->sent = true;
}

void outbox_flush(struct outbox *o, outbox_failed_fn failed, void *ctx)
{
    struct list *node;

    while ((node = list_pop_front(&o->pending)))
        send_peer(o, container_of(node, struct outbox_peer, pending), failed, ctx);
}

void outbox_ping(struct outbox *o)
{
    for (size_t i = 0; i < o->n_peers; i++) {
        struct outbox_peer *p = o->peers[i];

        if (!p->sent && o->ops->send_batch(p->connection, &o->head, NULL) == NH_OK)
            counter_add(&o->batches_sent, 1);
        p->sent = false;
    }
}
