#include "transport/loopback/batch_copy.h"

#include <stdlib.h>

#include "raftio/support/memory.h"

static struct nh_snapshot *snapshot_copy(const struct nh_snapshot *s)
{
    struct nh_snapshot *c = xmemdup(s, sizeof *s);

    c->file_path = xstrdup(s->file_path);
    c->membership = (struct nh_membership){0};
    nh_membership_copy(&c->membership, &s->membership);
    return c;
}

static void message_copy(struct nh_message *to, const struct nh_message *from)
{
    *to = *from;
    to->runs = from->n_runs ? xmemdup(from->runs, from->n_runs * sizeof *from->runs) : NULL;
    for (uint32_t i = 0; i < from->n_runs; i++)
        nh_block_ref(to->runs[i].block);
    to->snapshot = from->snapshot ? snapshot_copy(from->snapshot) : NULL;
}

struct nh_message_batch *batch_copy(const struct nh_message_batch *b)
{
    struct nh_message_batch *c = xmemdup(b, sizeof *b);

    c->source_address = xstrdup(b->source_address);
    c->messages = xcalloc(b->n_messages, sizeof *c->messages);
    for (uint32_t i = 0; i < b->n_messages; i++)
        message_copy(&c->messages[i], &b->messages[i]);
    return c;
}

void batch_copy_free(struct nh_message_batch *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < b->n_messages; i++)
        nh_message_deinit(&b->messages[i]);
    free(b->messages);
    free((char *)b->source_address);
    free(b);
}
