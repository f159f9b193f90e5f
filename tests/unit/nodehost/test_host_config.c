/* What nh_host_open and nh_host_start_replica refuse, and that a host that was refused leaves nothing behind. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodehost/nodehost.h"

static char dir[] = "/tmp/nodehost-cfg.XXXXXX", data[64];
static struct nh_error err;
static struct nh_host *host;

static struct nh_host_config good(void)
{
    struct nh_host_config c = NH_HOST_CONFIG_INIT;

    c.host_id = 1;
    c.data_dir = data;
    c.address = "host:1";
    c.logdb = nh_logdb_builtin("memory");
    c.transport = nh_transport_builtin("loopback");
    c.rtt_ms = 5;
    return c;
}

static void setup(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(data, sizeof data, "%s/data", dir);
}

static void teardown(void)
{
    char command[96];

    nh_host_close(host);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(host_config, .init = setup, .fini = teardown);

static void refused(struct nh_host_config c, const char *text)
{
    cr_assert_eq(nh_host_open(&c, &host, &err), NH_EINVAL, "accepted; wanted: %s", text);
    cr_assert(strstr(err.text, text), "%s", err.text);
}

Test(host_config, a_host_says_what_is_wrong)
{
    struct nh_host_config c = good();
    char address[NH_ADDRESS_BYTES + 1];

    c.struct_size = 0;
    refused(c, "NH_HOST_CONFIG_INIT");
    c = good();
    c.host_id = 0;
    refused(c, "host_id is 0");
    c = good();
    c.data_dir = "";
    refused(c, "data_dir is missing");
    c = good();
    c.address = NULL;
    refused(c, "address is missing");
    memset(address, 'x', NH_ADDRESS_BYTES);
    address[NH_ADDRESS_BYTES] = 0;
    c.address = address;
    refused(c, "longer than");
    c.address = "a b:1";
    refused(c, "contains a space");
    c = good();
    c.rtt_ms = 10001;
    refused(c, "the limit is 10000");
    c = good();
    c.step_workers = 65;
    refused(c, "the limit is 64");
    c = good();
    c.snapshot_workers = 17;
    refused(c, "snapshot_workers is 17, the limit is 16");
    c = good();
    c.snapshot_streams_max = 1025;
    refused(c, "snapshot_streams_max is 1025, the limit is 1024");
}

static const struct nh_machine_ops *load(void)
{
    const struct nh_machine_ops *ops;

    cr_assert_eq(nh_machine_load(KV_SO, &ops, &err), 0, "%s", err.text);
    return ops;
}

static void refused_replica(struct nh_replica_config c, int code, const char *text)
{
    cr_assert_eq(nh_host_start_replica(host, &c, &err), code, "%s", err.text);
    cr_assert(strstr(err.text, text), "%s", err.text);
}

Test(host_config, a_replica_too)
{
    struct nh_host_config hc = good();
    struct nh_replica_config c = NH_REPLICA_CONFIG_INIT, good_one;
    struct nh_member members[NH_MEMBERS_MAX + 1] = {{.replica_id = 2, .address = "b:1"}, {.replica_id = 1, .address = "host:1"}};
    struct nh_machine_ops other = *load();

    cr_assert_eq(nh_host_open(&hc, &host, &err), 0, "%s", err.text);
    c.shard_id = c.replica_id = 1;
    c.machine = load();
    c.members = members;
    c.n_members = 2;
    good_one = c;
    c.struct_size = 0;
    refused_replica(c, NH_EINVAL, "NH_REPLICA_CONFIG_INIT");
    c = good_one;
    c.machine = NULL;
    refused_replica(c, NH_EINVAL, "the machine is NULL");
    c.machine = &other;
    other.lookup = NULL;
    refused_replica(c, NH_EINVAL, "lacks a required function");
    other = *load();
    other.kind = NH_MACHINE_CONCURRENT;
    other.prepare_snapshot = NULL;
    refused_replica(c, NH_EUNSUPPORTED, "has no ");
    c = good_one;
    c.n_members = NH_MEMBERS_MAX + 1;
    refused_replica(c, NH_EINVAL, "the limit is 64");
    c = good_one;
    c.members = NULL;
    refused_replica(c, NH_EINVAL, "the list is NULL");
    c = good_one;
    c.election_rtt = 2;
    refused_replica(c, NH_EINVAL, "more than twice");
    c.election_rtt = 4;
    c.heartbeat_rtt = 2;
    refused_replica(c, NH_EINVAL, "more than twice");
    c = good_one;
    c.snapshots_kept = 65;
    refused_replica(c, NH_EINVAL, "snapshots_kept is 65, the limit is 64");
    c = good_one;
    c.sessions_max = 65537;
    refused_replica(c, NH_EINVAL, "sessions_max is 65537, the limit is 65536");
    c = good_one;
    c.shard_id = 0;
    refused_replica(c, NH_EINVAL, "id is 0");
    c = good_one;
    c.join = true;
    refused_replica(c, NH_EINVAL, "no initial members");
    members[0].kind = 9;
    refused_replica(good_one, NH_EINVAL, "unknown kind");
    members[0].kind = NH_MEMBER_VOTER;
    cr_assert_eq(nh_host_start_replica(host, &good_one, &err), 0, "members need not be sorted: %s", err.text);
    cr_assert_eq(nh_host_stop_replica(host, 9, &err), NH_ENOTFOUND);
}
