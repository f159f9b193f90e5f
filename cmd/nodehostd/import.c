#include "cmd/nodehostd/import.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/config.h"

static const char usage[] =
    "Rebuilds the replica of this host of a shard that has lost the majority of its voters for good.\n"
    "\n"
    "    nodehostd import --config h4.yaml --shard 7 --from PATH \\\n"
    "                     --member 4@10.0.0.4:7101 --member 5@10.0.0.5:7101 [--dry-run]\n"
    "\n"
    "    --config FILE         the configuration of this host, which must not run\n"
    "    --shard N             the shard\n"
    "    --replica N           our replica: the id of this host (the default)\n"
    "    --from PATH           the path that NH.SNAPSHOT shard EXPORT name answered, or of a copy\n"
    "    --member ID@ADDRESS   a voter of the shard from now on; name all, on each host the same\n"
    "    --nonvoting ID@ADDRESS\n"
    "    --dry-run             check everything, say what would be done, change nothing\n"
    "\n"
    "Stop all hosts of the old shard first, import one and the same export on the hosts of all new "
    "members, then start them with\n"
    "`replicas: [ID of the host], join: true` for this shard. Every host goes on listing all kv shards.\n";

struct options {
    const char *config;
    uint64_t replica_id;
    struct nh_member members[NH_MEMBERS_MAX];
    struct nh_import import;
};

static int misuse(const char *text, const char *arg)
{
    fprintf(stderr, "nodehostd import: %s%s\nSee: nodehostd import --help\n", text, arg ? arg : "");
    return 2;
}

static bool take_number(const char *text, const char **ret_end, uint64_t *ret)
{
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    *ret = strtoull(text, &end, 10);
    *ret_end = end;
    return *ret > 0 && *ret < UINT64_MAX;
}

static bool take_id(const char *text, uint64_t *ret)
{
    const char *end;

    return take_number(text, &end, ret) && *end == 0;
}

static bool take_member(const char *text, enum nh_member_kind kind, struct options *o)
{
    struct nh_member *m = &o->members[o->import.n_members];
    char host[NH_ADDRESS_BYTES];
    const char *at;
    uint16_t port;

    if (o->import.n_members == NH_MEMBERS_MAX || !take_number(text, &at, &m->replica_id) || *at != '@' ||
        strlen(at + 1) >= sizeof m->address || !config_split_address(at + 1, host, &port))
        return false;
    strcpy(m->address, at + 1);
    m->kind = kind;
    o->import.n_members++;
    return true;
}

enum { OPT_CONFIG = 1, OPT_SHARD, OPT_REPLICA, OPT_FROM, OPT_MEMBER, OPT_NONVOTING, OPT_DRY_RUN, OPT_HELP };

/* 0: understood. */
static int take_option(struct options *o, int option, const char *arg)
{
    switch (option) {
    case OPT_CONFIG: o->config = arg; return 0;
    case OPT_SHARD: return take_id(arg, &o->import.shard_id) ? 0 : misuse("--shard takes a number above 0, not ", arg);
    case OPT_REPLICA: return take_id(arg, &o->replica_id) ? 0 : misuse("--replica takes a number above 0, not ", arg);
    case OPT_FROM: o->import.source = arg; return 0;
    case OPT_MEMBER:
        return take_member(arg, NH_MEMBER_VOTER, o) ? 0 : misuse("--member takes ID@HOST:PORT, at most 64 times, not ", arg);
    case OPT_NONVOTING:
        return take_member(arg, NH_MEMBER_NON_VOTING, o) ? 0 : misuse("--nonvoting takes ID@HOST:PORT, not ", arg);
    case OPT_DRY_RUN: o->import.dry_run = true; return 0;
    default: return misuse("wrong option", NULL);
    }
}

static void say(void *ctx, const char *line)
{
    (void)ctx;
    printf("%s\n", line);
}

static int run(struct options *o, const struct config *c)
{
    struct nh_import *i = &o->import;
    struct nh_error err = {0};

    for (size_t m = 0; m < i->n_members; m++) {
        if (config_check_member(c, o->members[m].replica_id, o->members[m].address, &err) == NH_OK)
            continue;
        fprintf(stderr, "nodehostd import: %s\n", err.text);
        return 1;
    }
    if (o->replica_id && o->replica_id != c->host.id) {
        fprintf(stderr, "nodehostd import: --replica %" PRIu64 ", but the replicas of this host have its id, %" PRIu64 "\n",
                o->replica_id, c->host.id);
        return 1;
    }
    i->host_id = i->replica_id = c->host.id;
    i->deployment_id = c->host.deployment_id;
    i->data_dir = c->host.data_dir;
    i->wal_dir = c->host.wal_dir;
    i->snapshot_dir = c->snapshots.dir;
    i->address = c->raft.listen;
    i->members = o->members;
    i->say = say;
    if (nh_import_snapshot(i, &err) == NH_OK)
        return 0;
    fprintf(stderr, "nodehostd: %s\n", err.text);
    return 1;
}

int import_main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, OPT_CONFIG},
                                            {"shard", required_argument, NULL, OPT_SHARD},
                                            {"replica", required_argument, NULL, OPT_REPLICA},
                                            {"from", required_argument, NULL, OPT_FROM},
                                            {"member", required_argument, NULL, OPT_MEMBER},
                                            {"nonvoting", required_argument, NULL, OPT_NONVOTING},
                                            {"dry-run", no_argument, NULL, OPT_DRY_RUN},
                                            {"help", no_argument, NULL, OPT_HELP},
                                            {0}};
    struct options o = {.import = NH_IMPORT_INIT};
    struct config *c = NULL;
    struct nh_error err = {0};
    int option, code;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h' || option == OPT_HELP) {
            fputs(usage, stdout);
            return 0;
        }
        code = take_option(&o, option, optarg);
        if (code != 0)
            return code;
    }
    if (optind < argc || !o.config || !o.import.shard_id || !o.import.source || o.import.n_members == 0)
        return misuse("--config, --shard, --from and at least one --member are needed, and nothing else", NULL);
    if (config_load(o.config, &c, &err) < 0) {
        fprintf(stderr, "nodehostd: %s\n", err.text);
        return 1;
    }
    code = run(&o, c);
    config_free(c);
    return code;
}
