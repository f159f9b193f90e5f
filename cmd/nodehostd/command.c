#include "cmd/nodehostd/command.h"

#include <string.h>
#include <strings.h>

#define W  (FLAG_WRITE | FLAG_DENYOOM)
#define WF (FLAG_WRITE | FLAG_DENYOOM | FLAG_FAST)
#define RF (FLAG_READONLY | FLAG_FAST)
#define CF (FLAG_FAST | FLAG_LOADING)
#define MF (CF | FLAG_UNQUEUED)

const struct command commands[] = {
    {"append", 3, WF, 1, 1, 1, COMMAND_WRITE, cmd_kv_write, "Appends to the value of a key"},
    {"asking", 1, CF, 0, 0, 0, COMMAND_NOW, cmd_readonly, "Does nothing here: no slot is being moved"},
    {"client", -2, FLAG_LOADING, 0, 0, 0, COMMAND_NOW, cmd_client, "About this connection"},
    {"cluster", -2, FLAG_LOADING, 0, 0, 0, COMMAND_NOW, cmd_cluster, "About hosts, shards and slots"},
    {"command", -1, FLAG_LOADING, 0, 0, 0, COMMAND_NOW, cmd_command, "About commands"},
    {"config", -2, FLAG_ADMIN | FLAG_LOADING, 0, 0, 0, COMMAND_NOW, cmd_config, "Reads settings"},
    {"dbsize", 1, RF, 0, 0, 0, COMMAND_NOW, cmd_dbsize, "Number of keys, as far as applied on this host"},
    {"decr", 2, WF, 1, 1, 1, COMMAND_WRITE, cmd_kv_write, "Subtracts one"},
    {"decrby", 3, WF, 1, 1, 1, COMMAND_WRITE, cmd_kv_write, "Subtracts a number"},
    {"del", -2, FLAG_WRITE, 1, -1, 1, COMMAND_WRITE, cmd_del, "Removes keys; not atomic across shards"},
    {"discard", 1, MF, 0, 0, 0, COMMAND_NOW, cmd_discard, "Ends what MULTI began; nothing was applied"},
    {"echo", 2, CF, 0, 0, 0, COMMAND_NOW, cmd_echo, "Answers its argument"},
    {"exec", 1, MF, 0, 0, 0, COMMAND_NOW, cmd_exec, "Refuses what came since MULTI: there are no transactions"},
    {"exists", -2, RF, 1, -1, 1, COMMAND_READ, cmd_exists, "Counts which keys exist"},
    {"get", 2, RF, 1, 1, 1, COMMAND_READ, cmd_kv_read, "The value of a key, linearizable"},
    {"getset", 3, WF, 1, 1, 1, COMMAND_WRITE, cmd_kv_write, "Sets a key and answers its former value"},
    {"hello", -1, CF, 0, 0, 0, COMMAND_NOW, cmd_hello, "Chooses the version of the protocol"},
    {"incr", 2, WF, 1, 1, 1, COMMAND_WRITE, cmd_kv_write, "Adds one"},
    {"incrby", 3, WF, 1, 1, 1, COMMAND_WRITE, cmd_kv_write, "Adds a number"},
    {"info", -1, FLAG_LOADING, 0, 0, 0, COMMAND_NOW, cmd_info, "About this host"},
    {"mget", -2, RF, 1, -1, 1, COMMAND_READ, cmd_mget, "The values of keys; not atomic across shards"},
    {"mset", -3, W, 1, -1, 2, COMMAND_WRITE, cmd_mset, "Sets keys; not atomic across shards"},
    {"multi", 1, MF, 0, 0, 0, COMMAND_NOW, cmd_multi, "Nothing of what follows is applied until EXEC or DISCARD"},
    {"nh.once", -3, W, 0, 0, 0, COMMAND_WRITE, cmd_nh_once,
     "A write that is applied once, however often it is sent with its token"},
    {"nh.propose", -3, W, 0, 0, 0, COMMAND_WRITE, cmd_nh_propose, "Proposes bytes to the machine of a shard; SESSION"},
    {"nh.query", -3, FLAG_READONLY, 0, 0, 0, COMMAND_READ, cmd_nh_query, "Queries the machine of a shard"},
    {"nh.session", -3, W, 0, 0, 0, COMMAND_WRITE, cmd_nh_session, "Sessions for proposals that are applied once: OPEN CLOSE"},
    {"nh.shard", -3, FLAG_ADMIN, 0, 0, 0, COMMAND_WRITE, cmd_nh_shard,
     "Members and leader of a shard: INFO ADD REMOVE PROMOTE TRANSFER"},
    {"nh.snapshot", -2, FLAG_ADMIN, 0, 0, 0, COMMAND_READ, cmd_nh_snapshot, "Makes a snapshot of a shard; EXPORT"},
    {"ping", -1, CF, 0, 0, 0, COMMAND_NOW, cmd_ping, "Answers PONG"},
    {"quit", -1, MF, 0, 0, 0, COMMAND_NOW, cmd_quit, "Closes the connection"},
    {"readonly", 1, CF, 0, 0, 0, COMMAND_NOW, cmd_readonly, "Does nothing here: reads are linearizable"},
    {"readwrite", 1, CF, 0, 0, 0, COMMAND_NOW, cmd_readonly, "Does nothing here"},
    {"reset", 1, MF, 0, 0, 0, COMMAND_NOW, cmd_reset, "Resets the connection"},
    {"select", 2, CF, 0, 0, 0, COMMAND_NOW, cmd_select, "Selects database 0, the only one"},
    {"set", -3, W, 1, 1, 1, COMMAND_WRITE, cmd_set, "Sets a key; NX, XX, GET"},
    {"setnx", 3, WF, 1, 1, 1, COMMAND_WRITE, cmd_kv_write, "Sets a key that does not exist"},
    {"strlen", 2, RF, 1, 1, 1, COMMAND_READ, cmd_kv_read, "Length of a value"},
    {"time", 1, CF, 0, 0, 0, COMMAND_NOW, cmd_time, "The clock of this host"},
    {"unwatch", 1, CF, 0, 0, 0, COMMAND_NOW, cmd_unwatch, "Does nothing here"},
    {"watch", -2, MF, 1, -1, 1, COMMAND_NOW, cmd_watch, "Is refused: there are no transactions"},
};
const size_t n_commands = sizeof commands / sizeof *commands;

bool arg_is(struct kv_slice arg, const char *word)
{
    return arg.size == strlen(word) && strncasecmp((const char *)arg.data, word, arg.size) == 0;
}

const struct command *command_find(struct kv_slice name)
{
    size_t low = 0, high = n_commands;
    char lower[32];

    if (name.size >= sizeof lower)
        return NULL;
    for (uint32_t i = 0; i < name.size; i++)
        lower[i] = (char)(name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] | 0x20 : name.data[i]);
    lower[name.size] = 0;
    while (low < high) { /* the table is sorted */
        size_t mid = low + (high - low) / 2;
        int order = strcmp(lower, commands[mid].name);

        if (order == 0)
            return &commands[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

bool arg_number(struct kv_slice arg, uint64_t *ret)
{
    uint64_t n = 0;

    if (arg.size == 0 || arg.size > 20)
        return false;
    for (uint32_t i = 0; i < arg.size; i++) {
        if (arg.data[i] < '0' || arg.data[i] > '9' || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(arg.data[i] - '0'), &n))
            return false;
    }
    *ret = n;
    return true;
}

void reply_unknown_subcommand(struct call *call, const char *usage)
{
    reply_errorf(&call->reply, "ERR unknown subcommand or wrong number of arguments for '%.*s': %s",
                 (int)(call->args[1].size < 128 ? call->args[1].size : 128), (const char *)call->args[1].data, usage);
}

void reply_wrong_arity(struct call *call)
{
    reply_errorf(&call->reply, "ERR wrong number of arguments for '%s' command", call->command->name);
}
