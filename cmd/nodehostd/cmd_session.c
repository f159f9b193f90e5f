/* NH.SESSION and NH.ONCE: writes that are applied once, however often they are sent.
 *
 * NH.SESSION is for clients that count their proposals (NH.PROPOSE ... SESSION id SEQ n). NH.ONCE is for all others: the client
 * gives a command a token, and sends both again until it has an answer. A token is a session of its own, in the shard of the
 * command's keys: its id is the XXH3 (64 bits) of the token's bytes, or 1 if that is 0; the command is its proposal number 1. It
 * is opened, which does no harm if it is open, by the entry right before the command's. So a shard remembers a token, and what
 * was answered, until sessions_max other tokens or sessions were used after it; through whichever host, and across restarts.
 */
#include "cmd/nodehostd/command.h"

#include <inttypes.h>
#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define TOKEN_BYTES_MAX 512u

bool session_reply_refusal(struct call *call, const struct part *p)
{
    if (p->submit_code < 0 || p->code != NH_REQUEST_REJECTED)
        return false;
    switch (p->status) {
    case NH_ESESSION:
        reply_errorf(&call->reply,
                     "NOSESSION shard %" PRIu64
                     " does not know this session, or not its numbers so far back: never opened, closed, or "
                     "evicted. It was not applied now; whether it was before, only a read can tell",
                     p->shard_id);
        return true;
    case NH_EACKED:
        reply_errorf(&call->reply, "ACKED shard %" PRIu64 " applied it before, and its answer is not kept any more", p->shard_id);
        return true;
    case NH_EINVAL: reply_error(&call->reply, "ERR SEQ must be above 0 and above ACKED; nothing was applied"); return true;
    default: return false;
    }
}

/* ---- NH.SESSION ---- */

/* Text: many clients round numbers of this size. */
static void finish_open(struct call *call)
{
    const struct part *p = &call->parts[0];
    char id[24];
    int n;

    if (session_reply_refusal(call, p) || call_reply_failure(call))
        return;
    n = snprintf(id, sizeof id, "%" PRIu64, p->value);
    reply_bulk(&call->reply, id, (size_t)n);
}

static void finish_close(struct call *call)
{
    if (!session_reply_refusal(call, &call->parts[0]) && !call_reply_failure(call))
        reply_simple(&call->reply, "OK");
}

static struct part *make_part(struct call *call, uint64_t shard_id, void (*finish)(struct call *call))
{
    call_make_parts(call, 1);
    call->parts[0].shard_id = shard_id;
    call->finish = finish;
    return &call->parts[0];
}

void cmd_nh_session(struct call *call)
{
    uint64_t shard_id, id = 0;

    if (!take_shard(call, call->args[2], &shard_id))
        return;
    if (call->n_args == 4 && (!arg_number(call->args[3], &id) || id == 0))
        reply_error(&call->reply, "ERR the session must be a number above 0");
    else if (call->n_args <= 4 && arg_is(call->args[1], "open"))
        part_open_session(make_part(call, shard_id, finish_open), id ? id : nh_session_new_id(call->server->host));
    else if (call->n_args == 4 && arg_is(call->args[1], "close"))
        part_close_session(make_part(call, shard_id, finish_close), id);
    else
        reply_error(&call->reply, "ERR syntax error: NH.SESSION OPEN shard [id] | CLOSE shard id");
}

/* ---- NH.ONCE ---- */

/* The first part opened the session; how that ended shows in the second one. */
static bool reply_once_failure(struct call *call, const struct part *p)
{
    if (p->submit_code == NH_OK && p->code == NH_REQUEST_REJECTED && p->status == NH_ESESSION) {
        reply_errorf(&call->reply,
                     "TRYAGAIN shard %" PRIu64 " could not note the token; it was not applied now: send it again with the "
                     "same token",
                     p->shard_id);
        return true;
    }
    return session_reply_refusal(call, p) || part_reply_failure(call, p);
}

static void finish_kv(struct call *call)
{
    const struct part *p = &call->parts[1];

    if (!reply_once_failure(call, p))
        kv_reply_part(call, p);
}

static void finish_propose(struct call *call)
{
    const struct part *p = &call->parts[1];

    if (!reply_once_failure(call, p))
        propose_reply_part(call, p);
}

uint64_t session_of_token(struct kv_slice token)
{
    uint64_t id = XXH3_64bits(token.data, token.size);

    return id ? id : 1;
}

/* What is proposed and where; false: an error reply is written. */
static bool take_command(struct call *call, struct part *p)
{
    const struct kv_slice *args = call->args + 2;
    uint32_t n = call->n_args - 2;

    if (!arg_is(args[0], "nh.propose")) {
        call->finish = finish_kv;
        return kv_fill_part(call, args, n, p);
    }
    call->finish = finish_propose;
    if (n != 3) {
        reply_error(&call->reply, "ERR syntax error: NH.ONCE token NH.PROPOSE shard payload");
        return false;
    }
    if (!take_shard(call, args[1], &p->shard_id))
        return false;
    buffer_add(&p->cmd, args[2].data, args[2].size);
    return true;
}

void cmd_nh_once(struct call *call)
{
    struct kv_slice token = call->args[1];
    struct nh_session_step step = {.client_id = session_of_token(token), .series_id = 1};
    struct part asked = {0};

    if (token.size == 0 || token.size > TOKEN_BYTES_MAX) {
        reply_errorf(&call->reply, "ERR the token must have 1 to %u bytes", TOKEN_BYTES_MAX);
        return;
    }
    if (!take_command(call, &asked))
        return;
    call_make_parts(call, 2);
    call->parts[0].shard_id = call->parts[1].shard_id = asked.shard_id;
    call->parts[1].cmd = asked.cmd;
    call->parts[1].n_keys = asked.n_keys;
    call->parts[1].slot = asked.slot;
    part_open_session(&call->parts[0], step.client_id);
    part_propose_in_session(&call->parts[1], &step);
}
