/* Commands about the connection. */
#include "cmd/nodehostd/command.h"

#include <stdio.h>
#include <string.h>

/* As with Redis, a host that cannot write is no healthy one. */
void cmd_ping(struct call *call)
{
    if (call->n_args > 2)
        reply_wrong_arity(call);
    else if (server_log_failed(call->server))
        reply_error(&call->reply, "MISCONF the log store of this host failed, see its log: repair the disk or make room on it, "
                                  "then restart the host");
    else if (call->n_args == 2)
        reply_bulk(&call->reply, call->args[1].data, call->args[1].size);
    else
        reply_simple(&call->reply, "PONG");
}

void cmd_echo(struct call *call)
{
    reply_bulk(&call->reply, call->args[1].data, call->args[1].size);
}

void cmd_quit(struct call *call)
{
    call->client->last_call = true;
    reply_simple(&call->reply, "OK");
}

void cmd_reset(struct call *call)
{
    call->client->resp = 2;
    call->client->name[0] = 0;
    call->client->in_multi = false;
    reply_simple(&call->reply, "RESET");
}

/* ---- transactions: there are none ----
 *
 * Many clients send MULTI, commands and EXEC in one piece, without waiting for an answer. If MULTI were refused, the commands
 * would be applied all the same, and again when EXEC's error makes the program repeat them. So MULTI is taken, what
 * follows is answered and forgotten, and EXEC is refused. */

#define INSTEAD \
    "send commands without MULTI (redis-py: pipeline(transaction=False)), MSET of keys with one {hash tag}, or NH.ONCE"

void cmd_multi(struct call *call)
{
    if (call->client->in_multi)
        reply_error(&call->reply, "ERR MULTI calls can not be nested");
    else
        reply_simple(&call->reply, "OK");
    call->client->in_multi = true;
}

/* False: an error reply is written. */
static bool leave_multi(struct call *call, const char *name)
{
    bool was_in = call->client->in_multi;

    call->client->in_multi = false;
    if (!was_in)
        reply_errorf(&call->reply, "ERR %s without MULTI", name);
    return was_in;
}

void cmd_exec(struct call *call)
{
    if (leave_multi(call, "EXEC"))
        reply_error(&call->reply,
                    "EXECABORT Transaction discarded because there are no transactions here; nothing was applied: " INSTEAD);
}

void cmd_discard(struct call *call)
{
    if (leave_multi(call, "DISCARD"))
        reply_simple(&call->reply, "OK");
}

void cmd_watch(struct call *call)
{
    reply_error(&call->reply, call->client->in_multi ? "ERR WATCH inside MULTI is not allowed"
                                                     : "ERR there are no transactions here, so nothing is watched: " INSTEAD);
}

void cmd_unwatch(struct call *call)
{
    reply_simple(&call->reply, "OK");
}

void cmd_readonly(struct call *call)
{
    reply_simple(&call->reply, "OK");
}

void cmd_select(struct call *call)
{
    uint64_t n;

    if (!arg_number(call->args[1], &n))
        reply_error(&call->reply, "ERR value is not an integer or out of range");
    else if (n != 0)
        reply_error(&call->reply, "ERR DB index is out of range");
    else
        reply_simple(&call->reply, "OK");
}

/* Names appear in listings, so they are plain words. */
static bool set_name(struct client *c, struct kv_slice name)
{
    if (name.size >= sizeof c->name)
        return false;
    for (uint32_t i = 0; i < name.size; i++)
        if (name.data[i] <= ' ' || name.data[i] > '~')
            return false;
    memcpy(c->name, name.data, name.size);
    c->name[name.size] = 0;
    return true;
}

#define NAME_ERROR "ERR Client names cannot contain spaces, newlines or special characters, and must be shorter than 64 bytes."

static void say_hello(struct call *call)
{
    struct buffer *b = &call->reply;
    int resp = call->client->resp;

    reply_map(b, resp, 7);
    reply_text(b, "server");
    reply_text(b, "nodehost");
    reply_text(b, "version");
    reply_text(b, nh_version());
    reply_text(b, "proto");
    reply_integer(b, resp);
    reply_text(b, "id");
    reply_integer(b, (int64_t)call->client->id);
    reply_text(b, "mode");
    reply_text(b, "cluster");
    reply_text(b, "role");
    reply_text(b, "master");
    reply_text(b, "modules");
    reply_array(b, 0);
}

void cmd_hello(struct call *call)
{
    struct client *c = call->client;
    uint64_t version = (uint64_t)c->resp;

    if (call->n_args > 1 && (!arg_number(call->args[1], &version) || version < 2 || version > 3)) {
        reply_error(&call->reply, "NOPROTO unsupported protocol version");
        return;
    }
    for (uint32_t i = 2; i < call->n_args; i++) {
        if (arg_is(call->args[i], "setname") && i + 1 < call->n_args) {
            if (!set_name(c, call->args[++i])) {
                reply_error(&call->reply, NAME_ERROR);
                return;
            }
        } else if (arg_is(call->args[i], "auth") && i + 2 < call->n_args) {
            reply_error(&call->reply, "ERR AUTH: this version has no users and no passwords");
            return;
        } else {
            reply_error(&call->reply, "ERR Syntax error in HELLO");
            return;
        }
    }
    c->resp = (int)version;
    say_hello(call);
}

static void describe_client(const struct client *c, struct buffer *b)
{
    buffer_printf(b, "id=%llu addr=%s name=%s db=0 resp=%d omem=%zu", (unsigned long long)c->id, c->address, c->name, c->resp,
                  c->held_bytes + c->out.size + c->writing.size);
}

static void client_info(struct call *call, bool all)
{
    struct buffer text = {0};

    for (const struct client *c = all ? call->server->clients : call->client; c; c = all ? c->next : NULL) {
        describe_client(c, &text);
        buffer_add_text(&text, "\n");
    }
    reply_verbatim(&call->reply, call->resp, text.data, text.size);
    buffer_deinit(&text);
}

void cmd_client(struct call *call)
{
    struct kv_slice sub = call->args[1];

    if (arg_is(sub, "id") && call->n_args == 2)
        reply_integer(&call->reply, (int64_t)call->client->id);
    else if (arg_is(sub, "getname") && call->n_args == 2 && call->client->name[0])
        reply_text(&call->reply, call->client->name);
    else if (arg_is(sub, "getname") && call->n_args == 2)
        reply_null(&call->reply, call->resp);
    else if (arg_is(sub, "setname") && call->n_args == 3 && set_name(call->client, call->args[2]))
        reply_simple(&call->reply, "OK");
    else if (arg_is(sub, "setname") && call->n_args == 3)
        reply_error(&call->reply, NAME_ERROR);
    else if ((arg_is(sub, "setinfo") && call->n_args == 4) ||
             ((arg_is(sub, "no-evict") || arg_is(sub, "no-touch")) && call->n_args == 3))
        reply_simple(&call->reply, "OK");
    else if ((arg_is(sub, "info") || arg_is(sub, "list")) && call->n_args == 2)
        client_info(call, arg_is(sub, "list"));
    else
        reply_unknown_subcommand(call,
                                 "CLIENT GETNAME | ID | INFO | LIST | NO-EVICT ON|OFF | NO-TOUCH ON|OFF | SETINFO name value | "
                                 "SETNAME name");
}
