/* NH.PROPOSE and NH.QUERY: bytes to and from any machine. */
#include "cmd/nodehostd/command.h"

#include <stdlib.h>
#include <string.h>

#include "raftio/entry.h"

static void reply_outcome(struct call *call, const struct part *p)
{
    reply_array(&call->reply, 3);
    reply_integer(&call->reply, (int64_t)p->index);
    reply_integer(&call->reply, (int64_t)p->value);
    reply_bulk(&call->reply, p->data, p->size);
}

/* [index, value, data]: the log index (of the read: read index), the machine's number and bytes. */
static void finish(struct call *call)
{
    const struct part *p = &call->parts[0];

    if (session_reply_refusal(call, p) || call_reply_failure(call))
        return;
    if (p->status < 0)
        reply_errorf(&call->reply, "ERR %.*s", (int)(p->size < 512 ? p->size : 512), p->data ? p->data : "");
    else
        reply_outcome(call, p);
}

void propose_reply_part(struct call *call, const struct part *p)
{
    reply_outcome(call, p);
}

bool take_shard(struct call *call, struct kv_slice arg, uint64_t *ret)
{
    if (arg_number(arg, ret) && *ret > 0)
        return true;
    reply_error(&call->reply, "ERR the shard must be a number above 0");
    return false;
}

static struct part *make_part(struct call *call)
{
    uint64_t shard_id;
    struct part *p;

    if (!take_shard(call, call->args[1], &shard_id))
        return NULL;
    call_make_parts(call, 1);
    p = &call->parts[0];
    p->shard_id = shard_id;
    buffer_add(&p->cmd, call->args[2].data, call->args[2].size);
    call->finish = finish;
    return p;
}

/* SESSION id SEQ n [ACKED m] */
static bool take_step(const struct call *call, struct nh_session_step *ret)
{
    const struct kv_slice *a = call->args;

    *ret = (struct nh_session_step){0};
    if (call->n_args != 7 && call->n_args != 9)
        return false;
    if (!arg_is(a[3], "session") || !arg_number(a[4], &ret->client_id) || !arg_is(a[5], "seq") ||
        !arg_number(a[6], &ret->series_id))
        return false;
    return call->n_args == 7 || (arg_is(a[7], "acked") && arg_number(a[8], &ret->responded_to));
}

void cmd_nh_propose(struct call *call)
{
    struct nh_session_step step;
    struct part *p;

    if (call->n_args != 3 && !take_step(call, &step)) {
        reply_error(&call->reply, "ERR syntax error: NH.PROPOSE shard payload [SESSION id SEQ n [ACKED m]]");
        return;
    }
    if (call->n_args != 3 && (step.client_id == 0 || step.series_id <= step.responded_to)) {
        reply_error(&call->reply, "ERR SESSION must be above 0, SEQ must be above 0 and above ACKED; nothing was applied");
        return;
    }
    p = make_part(call);
    if (p && call->n_args == 3)
        part_propose(p);
    else if (p)
        part_propose_in_session(p, &step);
}

static int collect(void *ctx, const void *data, size_t size_bytes)
{
    const struct buffer *b = ctx;

    if (size_bytes > NH_ENTRY_PAYLOAD_MAX || b->size > NH_ENTRY_PAYLOAD_MAX - size_bytes)
        return NH_ETOOBIG; /* as of a query that is not stale */
    buffer_add(ctx, data, size_bytes);
    return 0;
}

/* The local machine, as far as it has applied. */
static void query_stale(struct call *call)
{
    struct buffer data = {0};
    struct nh_writer out = {collect, &data};
    struct nh_error err = {0};
    uint64_t shard_id, value = 0;

    if (!take_shard(call, call->args[1], &shard_id)) {
        buffer_deinit(&data);
        return;
    }
    if (nh_lookup(call->server->host, shard_id, call->args[2].data, call->args[2].size, &out, &value, &err) < 0) {
        reply_errorf(&call->reply, "ERR %s", err.text);
    } else {
        reply_array(&call->reply, 3);
        reply_integer(&call->reply, 0);
        reply_integer(&call->reply, (int64_t)value);
        reply_bulk(&call->reply, data.data, data.size);
    }
    buffer_deinit(&data);
}

void cmd_nh_query(struct call *call)
{
    struct part *p;

    if (call->n_args == 4 && arg_is(call->args[3], "stale")) {
        query_stale(call);
        return;
    }
    if (call->n_args != 3) {
        reply_error(&call->reply, "ERR syntax error: NH.QUERY shard payload [STALE]");
        return;
    }
    p = make_part(call);
    if (p)
        part_query(p);
}
