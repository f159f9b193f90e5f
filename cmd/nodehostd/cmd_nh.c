/* NH.PROPOSE and NH.QUERY: bytes to and from any machine. */
#include "cmd/nodehostd/command.h"

#include <stdlib.h>
#include <string.h>

/* [index, value, data]: the log index (of the read: read index), the machine's number and bytes. */
static void finish(struct call *call)
{
    const struct part *p = &call->parts[0];

    if (call_reply_failure(call))
        return;
    if (p->status < 0) {
        reply_errorf(&call->reply, "ERR %.*s", (int)(p->size < 512 ? p->size : 512), p->data ? p->data : "");
        return;
    }
    reply_array(&call->reply, 3);
    reply_integer(&call->reply, (int64_t)p->index);
    reply_integer(&call->reply, (int64_t)p->value);
    reply_bulk(&call->reply, p->data, p->size);
}

static struct part *make_part(struct call *call)
{
    uint64_t shard_id;
    struct part *p;

    if (!arg_number(call->args[1], &shard_id) || shard_id == 0) {
        reply_error(&call->reply, "ERR the shard must be a number above 0");
        return NULL;
    }
    call_make_parts(call, 1);
    p = &call->parts[0];
    p->shard_id = shard_id;
    buffer_add(&p->cmd, call->args[2].data, call->args[2].size);
    call->finish = finish;
    return p;
}

void cmd_nh_propose(struct call *call)
{
    struct part *p = make_part(call);

    if (p)
        part_propose(p);
}

static int collect(void *ctx, const void *data, size_t size_bytes)
{
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

    if (!arg_number(call->args[1], &shard_id) || shard_id == 0) {
        reply_error(&call->reply, "ERR the shard must be a number above 0");
    } else if (nh_lookup(call->server->host, shard_id, call->args[2].data, call->args[2].size, &out, &value, &err) < 0) {
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
