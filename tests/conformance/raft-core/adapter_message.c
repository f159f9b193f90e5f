/* Messages of the core as the suite sees them, and the contexts of reads: the core knows a read by two numbers, the suite by
 * bytes. */
#include "tests/conformance/raft-core/adapter.h"

#include <stdlib.h>
#include <string.h>

/* ---- contexts ---- */

void context_put(rct_node *n, uint64_t low, uint64_t high, const uint8_t *data, uint64_t len)
{
    *RAFT_PUSH(&n->contexts) = (struct read_context){low, high, len > 0 ? xmemdup(data, len) : NULL, len};
}

struct read_context *context_find(rct_node *n, uint64_t low, uint64_t high)
{
    for (size_t i = 0; i < n->contexts.n; i++)
        if (n->contexts.items[i].low == low && n->contexts.items[i].high == high)
            return &n->contexts.items[i];
    return NULL;
}

void context_drop(rct_node *n, struct read_context *c)
{
    free(c->data);
    n->contexts.n--;
    memmove(c, c + 1, (size_t)(n->contexts.items + n->contexts.n - c) * sizeof *c);
}

uint64_t context_low(const rct_node *n, const uint8_t *data, uint64_t len)
{
    for (size_t i = 0; i < n->contexts.n; i++) {
        const struct read_context *c = &n->contexts.items[i];

        if (c->high == n->config.id && c->len == len && (len == 0 || memcmp(c->data, data, len) == 0))
            return c->low;
    }
    return 0;
}

/* ---- parts of messages ---- */

static void put_context(struct rct_arena *a, rct_msg *m, const void *data, uint64_t len)
{
    m->ctx = len > 0 ? rct_arena_copy(a, data, len) : NULL;
    m->ctx_len = len;
}

static void put_entries(struct rct_arena *a, const struct nh_message *m, rct_msg *ret)
{
    uint64_t count = 0;
    rct_entry *ents;

    for (uint32_t i = 0; i < m->n_runs; i++)
        count += nh_run_count(&m->runs[i]);
    if (count == 0)
        return;
    ents = rct_arena_get(a, count * sizeof *ents);
    ret->ents = ents;
    ret->n_ents = count;
    for (uint32_t i = 0; i < m->n_runs; i++) {
        const uint8_t *p = nh_run_data(&m->runs[i]), *end = p + nh_run_size(&m->runs[i]);

        for (; p < end; p += nh_record_bytes(p))
            entry_of_record(a, p, ents++);
    }
}

rct_snap *snapshot_out(struct rct_arena *a, const struct nh_snapshot *s, const struct kept_snapshot *image)
{
    rct_snap *ret = rct_arena_get(a, sizeof *ret);
    struct conf_ids *ids = rct_arena_get(a, sizeof *ids);

    ret->index = s->index;
    ret->term = s->term;
    conf_of_membership(&s->membership, ids, &ret->conf);
    if (image && image->index == s->index && image->len > 0) {
        ret->data = rct_arena_copy(a, image->data, image->len);
        ret->len = image->len;
    }
    return ret;
}

static const struct kept_snapshot *image_of(const rct_node *n, uint64_t index)
{
    return n->snapshot.index == index ? &n->snapshot : &n->received;
}

/* ---- types ---- */

/* 0: the suite knows no such message. "Your term is old" is an empty answer of a higher term there. */
static uint32_t type_of(uint32_t type)
{
    static const uint8_t types[NH_MSG_TYPE_COUNT] = {
        [NH_MSG_NOOP] = RCT_MSG_APP_RESP,
        [NH_MSG_PROPOSE] = RCT_MSG_PROP,
        [NH_MSG_REPLICATE] = RCT_MSG_APP,
        [NH_MSG_REPLICATE_RESP] = RCT_MSG_APP_RESP,
        [NH_MSG_REQUEST_VOTE] = RCT_MSG_VOTE,
        [NH_MSG_REQUEST_VOTE_RESP] = RCT_MSG_VOTE_RESP,
        [NH_MSG_REQUEST_PRE_VOTE] = RCT_MSG_PREVOTE,
        [NH_MSG_REQUEST_PRE_VOTE_RESP] = RCT_MSG_PREVOTE_RESP,
        [NH_MSG_INSTALL_SNAPSHOT] = RCT_MSG_SNAP,
        [NH_MSG_HEARTBEAT] = RCT_MSG_HEARTBEAT,
        [NH_MSG_HEARTBEAT_RESP] = RCT_MSG_HEARTBEAT_RESP,
        [NH_MSG_LEADER_TRANSFER] = RCT_MSG_TRANSFER,
        [NH_MSG_TIMEOUT_NOW] = RCT_MSG_TIMEOUT_NOW,
        [NH_MSG_READ_INDEX] = RCT_MSG_READ_INDEX,
        [NH_MSG_READ_INDEX_RESP] = RCT_MSG_READ_INDEX_RESP,
    };

    return type < NH_MSG_TYPE_COUNT ? types[type] : 0;
}

/* ---- one message ---- */

static void put_heartbeat(rct_node *n, const struct nh_message *m, rct_msg *ret)
{
    uint64_t words[2] = {m->hint, m->hint_high};

    ret->hint = 0;
    if (m->type == NH_MSG_HEARTBEAT_RESP && n->echo)
        put_context(&n->pending->arena, ret, n->echo, n->echo_len);
    else if (m->hint || m->hint_high)
        put_context(&n->pending->arena, ret, words, sizeof words);
}

static void put_read(rct_node *n, const struct nh_message *m, rct_msg *ret)
{
    struct read_context *c = context_find(n, m->hint, m->hint_high);

    if (!c)
        return;
    put_context(&n->pending->arena, ret, c->data, c->len);
    if (m->type == NH_MSG_READ_INDEX_RESP)
        context_drop(n, c);
}

bool message_out(rct_node *n, const struct nh_message *m, rct_msg *ret)
{
    struct rct_arena *a = &n->pending->arena;

    *ret = (rct_msg){.type = type_of(m->type),
                     .reject = m->reject,
                     .from = m->from,
                     .to = m->to,
                     .term = m->term,
                     .log_term = m->log_term,
                     .index = m->log_index,
                     .commit = m->commit,
                     .hint = m->hint};
    if (m->type == NH_MSG_PROPOSE_RESP)
        n->refused = true;
    if (ret->type == 0 || (ret->type == RCT_MSG_TRANSFER && m->reject))
        return false;
    put_entries(a, m, ret);
    if (m->type == NH_MSG_REQUEST_VOTE || m->type == NH_MSG_REQUEST_PRE_VOTE) {
        ret->hint = 0;
        if (m->hint == 1)
            put_context(a, ret, "CampaignTransfer", strlen("CampaignTransfer"));
    } else if (m->type == NH_MSG_HEARTBEAT || m->type == NH_MSG_HEARTBEAT_RESP) {
        put_heartbeat(n, m, ret);
    } else if (m->type == NH_MSG_READ_INDEX || m->type == NH_MSG_READ_INDEX_RESP) {
        put_read(n, m, ret);
    } else if (m->type == NH_MSG_INSTALL_SNAPSHOT) {
        ret->snap = snapshot_out(a, m->snapshot, image_of(n, m->snapshot->index));
    } else if (m->type == NH_MSG_LEADER_TRANSFER) {
        ret->index = m->hint;
    }
    return true;
}
