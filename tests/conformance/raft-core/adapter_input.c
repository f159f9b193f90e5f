/* Proposals and messages on their way into the core.
 *
 * What is local in the suite's protocol (a proposal, a read, a transfer, forgetting the leader) is treated as if it had been
 * asked for here, unless it carries what a peer's core put into it: its request number in `hint`.
 *
 * Of a configuration change that may not be made now the core drops the whole proposal. The protocol of the suite wants an empty
 * entry in its place, so the adapter asks first, and puts that one.
 */
#include "tests/conformance/raft-core/adapter.h"

#include <stdlib.h>
#include <string.h>

/* ---- entries ---- */

bool entry_to_record(const rct_entry *e, uint64_t key, uint64_t origin, struct block_builder *b)
{
    static const uint8_t leave_joint[] = {2 << 3, NH_CONFIG_LEAVE_JOINT};
    struct block_record record = {.type = e->type == RCT_ENT_NORMAL ? NH_ENTRY_APPLICATION : NH_ENTRY_CONFIG_CHANGE,
                                  .origin = (uint32_t)origin,
                                  .key = key,
                                  .payload = e->data,
                                  .payload_bytes = e->len};

    if (e->type > RCT_ENT_CONF_V2 || (e->len > 0 && !e->data))
        return false;
    if (e->type == RCT_ENT_CONF_V2 && e->len == 0) {
        record.payload = leave_joint;
        record.payload_bytes = sizeof leave_joint;
    }
    return block_builder_add(b, &record) == NH_OK;
}

/* As many entries as have one term and consecutive indexes become one run. */
static uint64_t put_run(struct run_list *runs, const rct_entry *ents, uint64_t n)
{
    struct block_builder b = {0};
    struct nh_block *block;
    uint64_t i = 0;

    for (; i < n && ents[i].term == ents[0].term && ents[i].index == ents[0].index + i; i++)
        if (!entry_to_record(&ents[i], 0, 0, &b))
            break;
    if (i == 0 || ents[0].term == 0 || ents[0].index == 0 || b.n != i) {
        block_builder_deinit(&b);
        return 0;
    }
    block = block_seal(&b, ents[0].term, ents[0].index);
    run_list_add(runs, block, 0, block->n);
    nh_block_unref(block);
    return i;
}

static bool put_runs(struct nh_message *to, const rct_msg *m)
{
    struct run_list runs = {0};
    uint64_t done = 0;

    if (m->n_ents > UINT32_MAX || (m->n_ents > 0 && !m->ents))
        return false;
    while (done < m->n_ents) {
        uint64_t taken = put_run(&runs, m->ents + done, m->n_ents - done);

        if (taken == 0) {
            run_list_deinit(&runs);
            return false;
        }
        done += taken;
    }
    to->runs = runs.runs;
    to->n_runs = runs.n;
    return true;
}

/* ---- proposals ---- */

static bool is_leader(const rct_node *n)
{
    return raft_is_leader(n->core);
}

/* May this change be proposed now? Only asked where a proposal would be taken otherwise. */
static bool change_is_barred(const rct_node *n, const rct_entry *e)
{
    const struct raft *r = n->core;
    struct conf_change c;

    if (n->config.no_cc_validation || !is_leader(n) || r->lead->removed_at || r->lead->transferee || !conf_change_of_entry(e, &c))
        return false;
    return r->log.config_bound > r->log.applied || !raft_own_term_committed(r) || r->joint != (c.cc.n == 0 && !c.cc.v1) ||
           (c.cc.n == 0 && c.cc.transition != RCT_TR_AUTO);
}

static rct_entry replaced(const rct_node *n, const rct_entry *e)
{
    return e->type != RCT_ENT_NORMAL && change_is_barred(n, e) ? (rct_entry){.type = RCT_ENT_NORMAL} : *e;
}

/* Configuration changes are proposed alone, the others as they come. */
static uint64_t batch_of(const rct_entry *ents, uint64_t n)
{
    uint64_t i = 1;

    while (ents[0].type == RCT_ENT_NORMAL && i < n && ents[i].type == RCT_ENT_NORMAL)
        i++;
    return i;
}

static bool put_proposals(const rct_node *n, const rct_entry *ents, uint64_t count, uint64_t key, uint64_t origin,
                          struct block_builder *b)
{
    for (uint64_t i = 0; i < count; i++) {
        rct_entry e = replaced(n, &ents[i]);

        if (!entry_to_record(&e, key + i, origin, b)) {
            block_builder_deinit(b);
            return false;
        }
    }
    return true;
}

static int propose(rct_node *n, const rct_entry *ents, uint64_t count)
{
    struct block_builder b = {0};
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {&b, n->next_key, count}};

    n->next_key += count;
    if (n->config.no_forwarding && !is_leader(n))
        return RCT_E_DROPPED;
    if (!put_proposals(n, ents, count, ev.propose.first_key, n->config.id, &b))
        return RCT_E_ARG;
    node_event(n, &ev);
    block_builder_deinit(&b);
    return n->refused ? RCT_E_DROPPED : RCT_OK;
}

static int propose_all(rct_node *n, const rct_entry *ents, uint64_t count)
{
    int code = count > 0 && ents ? RCT_OK : RCT_E_ARG;

    while (count > 0 && code == RCT_OK) {
        uint64_t some = batch_of(ents, count);

        code = propose(n, ents, some);
        ents += some;
        count -= some;
    }
    return code;
}

int rct_propose(rct_node *n, const uint8_t *data, uint64_t len)
{
    rct_entry e = {.type = RCT_ENT_NORMAL, .len = (uint32_t)len, .data = data};

    return n->core && len <= NH_ENTRY_PAYLOAD_MAX ? propose_all(n, &e, 1) : RCT_E_ARG;
}

int rct_propose_conf(rct_node *n, const rct_cc *cc)
{
    rct_entry e = {.type = cc->v1 ? RCT_ENT_CONF : RCT_ENT_CONF_V2};
    uint8_t *payload;
    int code;

    if (!n->core || (cc->v1 && cc->n != 1))
        return RCT_E_ARG;
    if (cc->n == 0 && cc->transition != RCT_TR_AUTO && !n->config.no_cc_validation) {
        e.type = RCT_ENT_NORMAL; /* of nobody, but joint: barred whatever the configuration */
        return propose_all(n, &e, 1);
    }
    payload = conf_change_payload(cc, &e.len);
    if (!payload)
        return RCT_E_ARG;
    e.data = payload;
    code = propose_all(n, &e, 1);
    free(payload);
    return code;
}

/* ---- messages ---- */

static uint32_t type_in(const rct_node *n, const rct_msg *m)
{
    static const uint8_t types[] = {
        [RCT_MSG_PROP] = NH_MSG_PROPOSE,
        [RCT_MSG_APP] = NH_MSG_REPLICATE,
        [RCT_MSG_APP_RESP] = NH_MSG_REPLICATE_RESP,
        [RCT_MSG_VOTE] = NH_MSG_REQUEST_VOTE,
        [RCT_MSG_VOTE_RESP] = NH_MSG_REQUEST_VOTE_RESP,
        [RCT_MSG_PREVOTE] = NH_MSG_REQUEST_PRE_VOTE,
        [RCT_MSG_PREVOTE_RESP] = NH_MSG_REQUEST_PRE_VOTE_RESP,
        [RCT_MSG_SNAP] = NH_MSG_INSTALL_SNAPSHOT,
        [RCT_MSG_HEARTBEAT] = NH_MSG_HEARTBEAT,
        [RCT_MSG_HEARTBEAT_RESP] = NH_MSG_HEARTBEAT_RESP,
        [RCT_MSG_TRANSFER] = NH_MSG_LEADER_TRANSFER,
        [RCT_MSG_TIMEOUT_NOW] = NH_MSG_TIMEOUT_NOW,
        [RCT_MSG_READ_INDEX] = NH_MSG_READ_INDEX,
        [RCT_MSG_READ_INDEX_RESP] = NH_MSG_READ_INDEX_RESP,
    };
    bool says_nothing = m->index == 0 && m->hint == 0 && m->commit == 0 && !m->reject;

    if (m->type == RCT_MSG_APP_RESP && m->term > n->core->term && says_nothing)
        return NH_MSG_NOOP;
    return types[m->type];
}

/* The core's own contexts come back as they went; what else there may be is not for it. */
static void read_words(const rct_msg *m, struct nh_message *to)
{
    uint64_t words[2] = {0};

    if (m->ctx_len == sizeof words)
        memcpy(words, m->ctx, sizeof words);
    to->hint = words[0];
    to->hint_high = words[1];
}

static void read_contexts(rct_node *n, const rct_msg *m, struct nh_message *to)
{
    uint64_t owner = m->type == RCT_MSG_READ_INDEX ? m->from : n->config.id, low = m->hint;

    if (low == 0 && m->type == RCT_MSG_READ_INDEX_RESP)
        low = context_low(n, m->ctx, m->ctx_len);
    if (low == 0)
        low = n->next_key++ | (uint64_t)1 << 63; /* none that the asker's core gave */
    if (!context_find(n, low, owner) && !(m->type == RCT_MSG_READ_INDEX_RESP && m->reject))
        context_put(n, low, owner, m->ctx, m->ctx_len);
    to->hint = low;
    to->hint_high = owner;
}

static bool put_snapshot(rct_node *n, const rct_msg *m, struct nh_message *to)
{
    struct kept_snapshot s = {0};

    if (!m->snap || !kept_snapshot_set(&s, m->snap))
        return false;
    to->snapshot = kept_snapshot_record(&s);
    kept_snapshot_deinit(&n->received);
    n->received = s;
    return true;
}

static bool fill(rct_node *n, const rct_msg *m, struct nh_message *to)
{
    *to = (struct nh_message){.type = type_in(n, m),
                              .reject = m->reject,
                              .shard_id = RCT_SHARD,
                              .to = m->to ? m->to : n->config.id,
                              .from = m->from,
                              .term = m->term ? m->term : n->core->term,
                              .log_term = m->log_term,
                              .log_index = m->index,
                              .commit = m->commit,
                              .hint = m->hint};
    switch (m->type) {
    case RCT_MSG_VOTE:
    case RCT_MSG_PREVOTE:
        to->hint = m->ctx_len == strlen("CampaignTransfer") && memcmp(m->ctx, "CampaignTransfer", m->ctx_len) == 0;
        return true;
    case RCT_MSG_HEARTBEAT:
    case RCT_MSG_HEARTBEAT_RESP: read_words(m, to); return true;
    case RCT_MSG_READ_INDEX:
    case RCT_MSG_READ_INDEX_RESP: read_contexts(n, m, to); return true;
    case RCT_MSG_TRANSFER:
        to->hint = m->hint ? m->hint : m->index;
        to->hint_high = 1;
        to->log_index = 0;
        return true;
    case RCT_MSG_SNAP: return put_snapshot(n, m, to);
    case RCT_MSG_APP: return put_runs(to, m);
    default: return true;
    }
}

static int step_network(rct_node *n, const rct_msg *m)
{
    struct nh_message message;
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &message};

    if (!fill(n, m, &message)) {
        nh_message_deinit(&message);
        raft_ignore(n->core);
        return RCT_OK; /* malformed: ignored, as the core does */
    }
    n->echo = m->type == RCT_MSG_HEARTBEAT && m->ctx_len > 0 ? m->ctx : NULL;
    n->echo_len = m->ctx_len;
    node_event(n, &ev);
    n->echo = NULL;
    nh_message_deinit(&message);
    return RCT_OK;
}

/* A request number that the core of `from` would give next. */
static uint64_t next_key_of(const rct_node *n, uint64_t from)
{
    for (size_t i = 0; i < n->core->marks.n; i++)
        if (n->core->marks.items[i].id == from)
            return n->core->marks.items[i].key + 1;
    return 1;
}

static int step_forwarded(rct_node *n, const rct_msg *m, const rct_entry *ents, uint64_t count, uint64_t key)
{
    struct nh_message message = {.type = NH_MSG_PROPOSE,
                                 .shard_id = RCT_SHARD,
                                 .to = n->config.id,
                                 .from = m->from,
                                 .term = m->term ? m->term : n->core->term,
                                 .hint = key,
                                 .hint_high = count};
    struct raft_event ev = {.type = RAFT_EV_MESSAGE, .message = &message};
    struct block_builder b = {0};

    if (!put_proposals(n, ents, count, key, m->from, &b))
        return RCT_E_ARG;
    message.runs = xmalloc(sizeof *message.runs);
    message.runs[0] = (struct nh_run){block_unsealed(&b), 0, (uint32_t)count};
    message.n_runs = 1;
    node_event(n, &ev);
    nh_message_deinit(&message);
    return n->refused ? RCT_E_DROPPED : RCT_OK;
}

static int step_proposals(rct_node *n, const rct_msg *m)
{
    bool from_core = m->hint != 0;
    int code = RCT_OK;

    if (m->n_ents == 0 || !m->ents || m->n_ents > UINT32_MAX)
        return RCT_E_ARG;
    if (m->from == 0 || m->from == n->config.id || (!from_core && !is_leader(n)))
        return propose_all(n, m->ents, m->n_ents);
    if (!raft_member(n->core, m->from))
        return RCT_E_DROPPED;
    for (uint64_t i = 0; i < m->n_ents && code == RCT_OK;) {
        uint64_t some = batch_of(m->ents + i, m->n_ents - i);

        code = step_forwarded(n, m, m->ents + i, some, from_core ? m->hint + i : next_key_of(n, m->from));
        i += some;
    }
    return code;
}

/* True: a response, which only a member may send. */
static bool is_response(uint32_t type)
{
    return type == RCT_MSG_APP_RESP || type == RCT_MSG_VOTE_RESP || type == RCT_MSG_PREVOTE_RESP ||
           type == RCT_MSG_HEARTBEAT_RESP;
}

int rct_step(rct_node *n, const rct_msg *m)
{
    bool own = m->from == 0 || m->from == n->config.id;

    if (!n->core || m->type < RCT_MSG_PROP || m->type > RCT_MSG_STORAGE_APPLY_RESP)
        return RCT_E_ARG;
    if (m->type == RCT_MSG_STORAGE_APPEND || m->type == RCT_MSG_STORAGE_APPLY)
        return RCT_E_LOCAL;
    if (m->type == RCT_MSG_STORAGE_APPEND_RESP || m->type == RCT_MSG_STORAGE_APPLY_RESP)
        return storage_done(n, m);
    if (m->ctx_len > 0 && !m->ctx)
        return RCT_E_ARG;
    if (is_response(m->type) && !raft_member(n->core, m->from))
        return RCT_E_NO_PEER;
    if (m->type == RCT_MSG_PROP)
        return step_proposals(n, m);
    if (m->type == RCT_MSG_FORGET_LEADER)
        return rct_forget_leader(n);
    if (m->type == RCT_MSG_TRANSFER && m->hint == 0 && m->index == 0)
        return rct_transfer(n, m->from);
    if (m->type == RCT_MSG_TRANSFER && own)
        return rct_transfer(n, m->hint ? m->hint : m->index);
    if (m->type == RCT_MSG_READ_INDEX && own)
        return rct_read_index(n, m->ctx, m->ctx_len);
    return step_network(n, m);
}
