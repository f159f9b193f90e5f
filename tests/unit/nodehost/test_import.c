/* Offline imports: what is refused, what a dry run leaves alone, and a shard that lives on with other members. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/nodehost/one_host.h"

#define N_NEW 2

static char export_path[256], lines[4096], new_data[N_NEW][128];
static struct nh_host *new_hosts[N_NEW];
static struct nh_member new_members[N_NEW + 1] = {{.replica_id = 12, .address = "new:2"}, {.replica_id = 11, .address = "new:1"}};

static void export_shard(const struct nh_machine_ops *machine)
{
    struct nh_replica_config c = one_replica_config(machine);
    struct nh_session_step step = {77, 1, 0};

    one_open();
    one_start(&c);
    for (int i = 0; i < 10; i++)
        one_propose("3");
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_open_session_sync(one_host, 1, 77, ONE_MS, &one_reply, &one_err), 0);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_propose_in_session_sync(one_host, 1, &step, "4", 1, ONE_MS, &one_reply, &one_err), 0);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_export_snapshot_sync(one_host, 1, one_dir, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED);
    snprintf(export_path, sizeof export_path, "%.*s", (int)one_reply.outcome.size_bytes, (const char *)one_reply.outcome.data);
}

static void setup(void)
{
    one_setup();
    export_shard(&sum_machine);
    one_close();
    for (int i = 0; i < N_NEW; i++)
        snprintf(new_data[i], sizeof new_data[i], "%s/new-%d", one_dir, i + 1);
}

static void teardown(void)
{
    for (int i = 0; i < N_NEW; i++)
        nh_host_close(new_hosts[i]);
    one_teardown();
}

TestSuite(import, .init = setup, .fini = teardown);

static void say(void *ctx, const char *line)
{
    (void)ctx;
    strncat(lines, line, sizeof lines - strlen(lines) - 1);
    strncat(lines, "\n", sizeof lines - strlen(lines) - 1);
}

/* For new host 1 or 2, which gets replica 11 or 12. */
static struct nh_import good(int host)
{
    struct nh_import i = NH_IMPORT_INIT;

    i.host_id = 10 + (uint64_t)host;
    i.data_dir = new_data[host - 1];
    i.address = host == 1 ? "new:1" : "new:2";
    i.logdb = nh_logdb_builtin("memory");
    i.source = export_path;
    i.shard_id = 1;
    i.replica_id = 10 + (uint64_t)host;
    i.members = new_members;
    i.n_members = N_NEW;
    i.say = say;
    lines[0] = 0;
    return i;
}

/* For the host that the export was made on. */
static struct nh_import good_old(void)
{
    struct nh_import i = good(1);

    i.host_id = i.replica_id = 1;
    i.data_dir = one_data;
    i.address = "host:1";
    new_members[1] = (struct nh_member){.replica_id = 1, .address = "host:1"};
    return i;
}

static void refused(const struct nh_import *i, int code, const char *text)
{
    cr_assert_eq(nh_import_snapshot(i, &one_err), code, "%s", one_err.text);
    cr_assert(strstr(one_err.text, text), "%s", one_err.text);
    cr_assert_neq(access(new_data[0], F_OK), 0, "nothing was made");
}

static void done(const struct nh_import *i)
{
    cr_assert_eq(nh_import_snapshot(i, &one_err), 0, "%s", one_err.text);
}

static void start_new(int host, const struct nh_machine_ops *machine)
{
    struct nh_host_config hc = one_host_config();
    struct nh_replica_config c = one_replica_config(machine);

    hc.host_id = 10 + (uint64_t)host;
    hc.data_dir = new_data[host - 1];
    hc.address = host == 1 ? "new:1" : "new:2";
    cr_assert_eq(nh_host_open(&hc, &new_hosts[host - 1], &one_err), 0, "%s", one_err.text);
    c.replica_id = 10 + (uint64_t)host;
    c.members = NULL;
    c.n_members = 0;
    c.join = true;
    cr_assert_eq(nh_host_start_replica(new_hosts[host - 1], &c, &one_err), 0, "%s", one_err.text);
}

Test(import, the_new_members_form_the_shard)
{
    struct nh_membership m = {0};
    struct nh_session_step step = {77, 1, 0};

    for (int h = 1; h <= N_NEW; h++) {
        struct nh_import i = good(h);

        done(&i);
    }
    for (int h = 1; h <= N_NEW; h++)
        start_new(h, &sum_machine);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_query_sync(new_hosts[0], 1, "", 0, ONE_MS, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(one_reply.outcome.value, 34);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_propose_sync(new_hosts[1], 1, "1", 1, ONE_MS, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.value, 35);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_propose_in_session_sync(new_hosts[1], 1, &step, "4", 1, ONE_MS, &one_reply, &one_err), 0);
    cr_assert_eq(one_reply.outcome.value, 34, "sessions are imported, too");
    cr_assert_eq(nh_get_membership(new_hosts[0], 1, &m, &one_err), 0);
    cr_assert_eq(m.n_members, 2);
    cr_assert_eq(m.members[0].replica_id, 11);
    cr_assert_eq(m.config_change_id, 1, "the order of changes goes on");
    cr_assert_eq(m.n_removed, 1);
    cr_assert_eq(m.removed[0], 1);
    nh_membership_deinit(&m);
}

Test(import, it_may_be_done_again)
{
    struct nh_import i = good(1);
    struct nh_machine_ops other = sum_machine;
    struct nh_replica_config c = one_replica_config(&other);
    struct nh_host_config hc = one_host_config();

    i.members = &new_members[1];
    i.n_members = 1;
    done(&i);
    done(&i);
    cr_assert(strstr(lines, "replica 11 here (log up to index"), "%s", lines);
    hc.host_id = 11, hc.data_dir = new_data[0], hc.address = "new:1";
    cr_assert_eq(nh_host_open(&hc, &new_hosts[0], &one_err), 0, "%s", one_err.text);
    other.version = "2";
    c.replica_id = 11, c.members = NULL, c.n_members = 0, c.join = true;
    cr_assert_eq(nh_host_start_replica(new_hosts[0], &c, &one_err), NH_EMISMATCH, "the machine is that of the export");
    nh_host_close(new_hosts[0]);
    new_hosts[0] = NULL;
    start_new(1, &sum_machine);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_query_sync(new_hosts[0], 1, "", 0, ONE_MS, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.value, 34);
}

/* Exports had other names once, and a copy has the name that its owner chose. */
Test(import, an_export_may_have_any_name)
{
    struct nh_import i = good(1);
    char moved[128];

    snprintf(moved, sizeof moved, "%s/monday", one_dir);
    cr_assert_eq(rename(export_path, moved), 0);
    i.source = moved;
    done(&i);
    cr_assert(strstr(lines, "replica 11 of shard 1 is imported"), "%s", lines);
}

Test(import, a_dry_run_tells_and_changes_nothing)
{
    struct nh_import i = good(1);

    i.dry_run = true;
    done(&i);
    cr_assert_neq(access(new_data[0], F_OK), 0);
    cr_assert(strstr(lines, "machine sum 1; every checksum is right"), "%s", lines);
    cr_assert(strstr(lines, "former members: 1@host:1\n"), "%s", lines);
    cr_assert(strstr(lines, "new members: 11@new:1 12@new:2\n"), "%s", lines);
    cr_assert(strstr(lines, "replica 1 never returns\n"), "%s", lines);
    cr_assert(strstr(lines, "would be made\n"), "%s", lines);
    cr_assert(strstr(lines, "dry run\n"), "%s", lines);
    i = good_old();
    i.dry_run = true;
    done(&i);
    cr_assert(strstr(lines, "would be replaced"), "%s", lines);
    one_open();
    cr_assert_eq(nh_host_start_replica(one_host,
                                       &(struct nh_replica_config){sizeof(struct nh_replica_config), 1, 1, &sum_machine},
                                       &one_err),
                 0, "%s", one_err.text);
    cr_assert_eq(one_sum(), 34, "as it was");
}

Test(import, wrong_members_are_refused)
{
    struct nh_import i = good(1);

    i.n_members = 0;
    refused(&i, NH_EINVAL, "name all who are to form the shard");
    i = good(1);
    new_members[0].replica_id = 11;
    refused(&i, NH_EINVAL, "member 11 is named twice");
    new_members[0].replica_id = ((uint64_t)1 << 32) + 11;
    refused(&i, NH_EINVAL, "have the same low 32 bits");
    new_members[0].replica_id = ((uint64_t)1 << 32) + 1;
    refused(&i, NH_EINVAL, "replica 1, a former member, has the same low 32 bits");
    new_members[0].replica_id = 12;
    strcpy(new_members[0].address, "new:1");
    refused(&i, NH_EINVAL, "members 12 and 11 have one address, new:1");
    strcpy(new_members[0].address, "");
    refused(&i, NH_EINVAL, "member 12 has no address");
    strcpy(new_members[0].address, "new:2");
    new_members[0].kind = NH_MEMBER_WITNESS;
    refused(&i, NH_EINVAL, "add witnesses when the shard runs");
    new_members[0].kind = new_members[1].kind = NH_MEMBER_NON_VOTING;
    refused(&i, NH_EINVAL, "at least one voter");
    new_members[0].kind = new_members[1].kind = NH_MEMBER_VOTER;
    i.replica_id = 12;
    refused(&i, NH_EINVAL, "replica 12 is to be ours, but lives at new:2");
    i.replica_id = 13;
    refused(&i, NH_EINVAL, "new:1 is this host, and gets replica 11, not 13");
    i.address = "elsewhere:1";
    refused(&i, NH_EINVAL, "neither replica 13 nor this host, elsewhere:1");
    i = good(1);
    new_members[0] = (struct nh_member){.replica_id = 1, .address = "moved:1"};
    refused(&i, NH_EINVAL, "replica 1 lived at host:1 and cannot move to moved:1");
}

Test(import, the_wrong_export_is_refused)
{
    struct nh_import i = good(1);
    char path[300];
    FILE *f;

    i.shard_id = 2;
    refused(&i, NH_EINVAL, "is an export of shard 1, not of shard 2");
    i = good(1);
    i.source = one_dir;
    refused(&i, NH_ENOTFOUND, "export /tmp");
    i = good(1);
    snprintf(path, sizeof path, "%s/image", export_path);
    f = fopen(path, "r+");
    cr_assert(f && fseek(f, -30, SEEK_END) == 0 && fputc('x', f) == 'x' && fclose(f) == 0);
    refused(&i, NH_ECORRUPT, "export /tmp");
    i.struct_size = 0;
    refused(&i, NH_EINVAL, "NH_IMPORT_INIT");
    i = good(1);
    i.source = NULL;
    refused(&i, NH_EINVAL, "source is missing");
    i = good(1);
    i.replica_id = 0;
    refused(&i, NH_EINVAL, "replica_id is 0");
}

Test(import, a_running_host_and_newer_data_are_refused)
{
    struct nh_import i = good_old();

    one_open();
    refused(&i, NH_ELOCKED, "in use by process");
    cr_assert_eq(nh_host_start_replica(one_host,
                                       &(struct nh_replica_config){sizeof(struct nh_replica_config), 1, 1, &sum_machine},
                                       &one_err),
                 0, "%s", one_err.text);
    for (int k = 0; k < 3; k++)
        one_propose("1");
    one_close();
    refused(&i, NH_EINVAL, "export the shard from this host, or import under a new replica id");
    i.host_id = 9;
    refused(&i, NH_EMISMATCH, "belongs to host 1, not to host 9");
}

Test(import, removed_ids_do_not_return)
{
    struct nh_import i = good(1);
    char second[256];

    i.members = &new_members[1];
    i.n_members = 1;
    done(&i); /* replica 1 is gone now */
    start_new(1, &sum_machine);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_query_sync(new_hosts[0], 1, "", 0, ONE_MS, &one_reply, &one_err), 0);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_export_snapshot_sync(new_hosts[0], 1, one_dir, &one_reply, &one_err), 0, "%s", one_err.text);
    snprintf(second, sizeof second, "%.*s", (int)one_reply.outcome.size_bytes, (const char *)one_reply.outcome.data);
    nh_host_close(new_hosts[0]);
    new_hosts[0] = NULL;
    i = good_old();
    i.source = second;
    cr_assert_eq(nh_import_snapshot(&i, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "replica 1 was removed from the shard, and such an id never returns"), "%s", one_err.text);
}

/* Of the host that the export was made on. */
static struct nh_import good_on_disk(void)
{
    struct nh_import i = good_old();

    one_teardown();
    one_setup();
    export_shard(&disk_sum_machine);
    one_close();
    i.source = export_path;
    i.data_dir = one_data;
    i.members = &new_members[1];
    i.n_members = 1;
    return i;
}

Test(import, an_on_disk_machine_takes_its_data_from_the_export)
{
    struct nh_import i = good_on_disk();
    struct nh_replica_config c = one_replica_config(&disk_sum_machine);

    done(&i);
    one_open();
    c.members = NULL, c.n_members = 0, c.join = true;
    one_start(&c);
    cr_assert_eq(one_sum(), 34);
    one_propose("1");
    cr_assert_eq(one_sum(), 35);
}

/* ---- what must be durable before ---- */

static char machines[128], machine_dir[256];
static bool is_gone_for_ever, was_gone_for_ever;

NH_API int fsync(int fd);

int fsync(int fd)
{
    char link[64], path[256] = {0};

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0 && strcmp(path, machines) == 0 && access(machine_dir, F_OK) != 0)
        is_gone_for_ever = true;
    return (int)syscall(SYS_fsync, fd);
}

static int import_and_look(struct nh_logdb *db, const struct nh_snapshot *snapshot, uint64_t replica_id, struct nh_error *err)
{
    was_gone_for_ever = is_gone_for_ever;
    return nh_logdb_builtin("memory")->import_snapshot(db, snapshot, replica_id, err);
}

/* After a power cut it would be back, perhaps ahead of the export and with another history. */
Test(import, the_former_data_of_an_on_disk_machine_is_gone_durably_before_the_replica_is_the_new_one)
{
    struct nh_import i = good_on_disk();
    struct nh_logdb_ops ops = *nh_logdb_builtin("memory");

    ops.import_snapshot = import_and_look;
    i.logdb = &ops;
    snprintf(machines, sizeof machines, "%s/machines", one_data);
    snprintf(machine_dir, sizeof machine_dir, "%s/%020d-%020d", machines, 1, 1);
    cr_assert_eq(access(machine_dir, F_OK), 0);
    done(&i);
    cr_assert(was_gone_for_ever);
}
