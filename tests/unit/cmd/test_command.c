/* What commands answer without a shard: refusals teach, and nothing is on its way to a shard then. */
#include "cmd/nodehostd/command.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t shards[] = {1};
static struct shard_queue queues[] = {{.shard_id = 1}};
static struct config config;
static struct server server = {.config = &config, .kv_shards = shards, .n_kv = 1, .kv_queues = queues};
static struct client client = {.server = &server, .resp = 2};

/* The reply to an inline command, to be freed; empty if it is on its way to a shard, that is, in its queue. */
static char *run(const char *line)
{
    char *words = strdup(line), *rest = words, *reply;
    struct kv_slice args[16];
    struct call call = {.server = &server, .client = &client, .args = args, .resp = 2};

    for (char *word; (word = strtok_r(rest, " ", &rest)); call.n_args++)
        args[call.n_args] = (struct kv_slice){(const uint8_t *)word, (uint32_t)strlen(word)};
    call.command = command_find(args[0]);
    cr_assert(call.command, "%s", line);
    call.command->run(&call);
    cr_assert_eq(queues[0].n, call.n_parts, "%s", line);
    cr_assert_neq(call.n_parts > 0, call.reply.size > 0, "%s", line);
    for (uint32_t i = 0; i < call.n_parts; i++)
        buffer_deinit(&call.parts[i].cmd);
    free(call.parts);
    free(queues[0].items);
    queues[0] = (struct shard_queue){.shard_id = 1};
    reply = strndup(call.reply.data ? call.reply.data : "", call.reply.size);
    buffer_deinit(&call.reply);
    free(words);
    return reply;
}

static void expect(const char *line, const char *text)
{
    char *reply = run(line);

    cr_assert(*text ? strstr(reply, text) != NULL : *reply == 0, "%s: %s", line, reply);
    free(reply);
}

Test(command, what_set_does_not_know_is_not_replicated)
{
    expect("SET k v", "");
    expect("SET k v NX GET", "");
    expect("set k v xx", "");
    expect("SET k v EX 60", "keys do not expire here");
    expect("SET k v NX px 60", "keys do not expire here");
    expect("SET k v EXAT 60", "keys do not expire here");
    expect("SET k v PXAT 60", "keys do not expire here");
    expect("SET k v KEEPTTL", "keys do not expire here");
    expect("SET k v IFEQ x", "ERR syntax error: SET key value [NX|XX] [GET]");
    expect("SET k v NX XX", "ERR syntax error: SET key value [NX|XX] [GET]");
    expect("NH.ONCE token SET k v EX 60", "keys do not expire here");
}

/* It would stay in the records of the shard, and the id of who was added by it would be lost with it. */
Test(command, a_member_is_not_added_by_an_address_that_nobody_can_reach)
{
    char raft[] = "10.0.0.4:7101";
    struct config_peer peers[] = {{.id = 4, .raft = raft}};

    config.peers = peers, config.peers_count = 1;
    expect("NH.SHARD ADD 1 9 0.0.0.0:7101",
           "-ERR member 9 is at \"0.0.0.0:7101\", where nobody can reach it: write the address that "
           "is raft.listen in the configuration of its host\r\n");
    expect("NH.SHARD ADD 1 9 [::]:7101 NONVOTING",
           "-ERR member 9 is at \"[::]:7101\", where nobody can reach it: write the address that "
           "is raft.listen in the configuration of its host\r\n");
    expect("NH.SHARD ADD 1 9 10.0.0.9",
           "-ERR member 9 is at \"10.0.0.9\": write \"host:port\" with a port of 1 to 65535, IPv6 in "
           "brackets\r\n");
    expect("NH.SHARD ADD 1 4 10.0.0.4:7102 WITNESS IF 3",
           "-ERR member 4 is at \"10.0.0.4:7102\", but peers call this host 10.0.0.4:7101: make them equal\r\n");
    config.peers = NULL, config.peers_count = 0;
}

Test(command, an_export_names_the_directory_that_is_missing)
{
    char dir[] = "/proc/none/exports";

    config.snapshots.export_dir = dir;
    expect(
        "NH.SNAPSHOT 1 EXPORT monday",
        "-ERR make directory /proc/none/exports: its parent /proc/none is not there, and is not made, as it may belong on a disk "
        "that is not mounted: mount that, or make the parent\r\n");
    config.snapshots.export_dir = NULL;
}

static long long number_of(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    cr_assert(at, "%s in %s", name, text);
    return atoll(at + strlen(name));
}

Test(command, info_says_what_memory_is_in_use_and_what_was)
{
    size_t size = 256u << 20;
    void *much = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *with, *without;

    cr_assert_neq(much, MAP_FAILED);
    memset(much, 1, size);
    with = run("INFO memory");
    munmap(much, size);
    without = run("INFO memory");
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "used_memory_rss:" : "used_memory:";

        cr_assert_geq(number_of(with, name), (long long)size);
        cr_assert_leq(number_of(without, name), number_of(with, name) - (long long)size / 2, "%s", without);
        cr_assert_geq(number_of(without, "used_memory_peak:"), number_of(with, name) - (long long)size / 2);
    }
    free(with);
    free(without);
}

Test(command, a_wrong_subcommand_gets_the_list_of_them)
{
    expect("CLUSTER KEYSLOT", "'KEYSLOT': CLUSTER INFO | KEYSLOT key |");
    expect("CLUSTER HELP", "CLUSTER INFO | KEYSLOT key |");
    expect("CLIENT KILL x", "CLIENT GETNAME | ID | INFO |");
    expect("COMMAND STATS", "COMMAND [INFO [name...] | COUNT |");
    expect("CLUSTER KEYSLOT k", ":");
}
