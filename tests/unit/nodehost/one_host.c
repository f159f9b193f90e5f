#include "tests/unit/nodehost/one_host.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char one_dir[64], one_data[96];
struct nh_host *one_host;
struct nh_error one_err;
struct nh_reply one_reply;

static const struct nh_member self = {.replica_id = 1, .kind = NH_MEMBER_VOTER, .address = "host:1"};

struct nh_host_config one_host_config(void)
{
    struct nh_host_config c = NH_HOST_CONFIG_INIT;

    c.host_id = 1;
    c.data_dir = one_data;
    c.address = self.address;
    c.logdb = nh_logdb_builtin("memory");
    c.transport = nh_transport_builtin("loopback");
    c.rtt_ms = 2;
    c.step_workers = 1;
    return c;
}

struct nh_replica_config one_replica_config(const struct nh_machine_ops *machine)
{
    struct nh_replica_config c = NH_REPLICA_CONFIG_INIT;

    c.shard_id = c.replica_id = 1;
    c.machine = machine;
    c.members = &self;
    c.n_members = 1;
    return c;
}

void one_setup(void)
{
    strcpy(one_dir, "/tmp/nodehost-one.XXXXXX");
    cr_assert(mkdtemp(one_dir));
    snprintf(one_data, sizeof one_data, "%s/data", one_dir);
}

void one_teardown(void)
{
    char command[96];

    one_close();
    nh_reply_deinit(&one_reply);
    snprintf(command, sizeof command, "rm -rf %s", one_dir);
    cr_assert_eq(system(command), 0);
}

void one_open(void)
{
    struct nh_host_config c = one_host_config();

    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), 0, "%s", one_err.text);
}

void one_close(void)
{
    nh_host_close(one_host);
    one_host = NULL;
}

void one_start(const struct nh_replica_config *c)
{
    cr_assert_eq(nh_host_start_replica(one_host, c, &one_err), 0, "%s", one_err.text);
    ONE_AWAIT(one_info().ready && one_info().role == NH_ROLE_LEADER);
}

void one_propose(const char *cmd)
{
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_propose_sync(one_host, 1, cmd, strlen(cmd), ONE_MS, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED);
}

uint64_t one_sum(void)
{
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_query_sync(one_host, 1, "", 0, ONE_MS, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED);
    return one_reply.outcome.value;
}

struct nh_shard_info one_info(void)
{
    struct nh_shard_info info;

    cr_assert_eq(nh_get_shard_info(one_host, 1, &info, &one_err), 0, "%s", one_err.text);
    return info;
}
