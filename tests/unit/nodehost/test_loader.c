/* What may be loaded, and what is refused with which reason. PLUGIN_SO exports what its compile definition says. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodehost/loader.h"

static struct nh_error err;
static char dir[] = "/tmp/nodehost-load.XXXXXX", file[64];

static void setup(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/m.so", dir);
}

static void teardown(void)
{
    char command[96];

    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(loader, .init = setup, .fini = teardown);

static void copy(const char *from)
{
    char command[512];

    snprintf(command, sizeof command, "cp %s %s && chmod 755 %s", from, file, file);
    cr_assert_eq(system(command), 0);
}

static void expect(const char *path, int code, const char *text)
{
    const struct nh_machine_ops *ops;

    cr_assert_eq(nh_machine_load(path, &ops, &err), code, "%s: %s", path, err.text);
    cr_assert(strstr(err.text, text), "%s", err.text);
}

Test(loader, a_good_machine_is_loaded_once)
{
    const struct nh_machine_ops *a, *b;

    copy(GOOD_SO);
    cr_assert_eq(nh_machine_load(file, &a, &err), 0, "%s", err.text);
    cr_assert_str_eq(a->name, "sample");
    cr_assert_eq(nh_machine_load(file, &b, &err), 0);
    cr_assert_eq(a, b);
}

Test(loader, two_objects_stay_two)
{
    const struct nh_machine_ops *a, *b;

    cr_assert_eq(nh_machine_load(GOOD_SO, &a, &err), 0, "%s", err.text);
    cr_assert_eq(nh_machine_load(KV_SO, &b, &err), 0, "%s", err.text);
    cr_assert_str_eq(a->name, "sample");
    cr_assert_str_eq(b->name, "kv");
}

Test(loader, a_table_of_an_older_header_is_filled_up_with_nothing)
{
    const struct nh_machine_ops *ops;

    cr_assert_eq(nh_machine_load(SHORT_SO, &ops, &err), 0, "%s", err.text);
    cr_assert(ops->close && !ops->hash && !ops->sync);
}

Test(loader, paths_that_are_refused)
{
    char link[64];

    expect("m.so", NH_EINVAL, "must be absolute");
    expect("/nonexistent/m.so", NH_EIO, "No such file");
    expect(dir, NH_EINVAL, "not a regular file");
    copy(GOOD_SO);
    snprintf(link, sizeof link, "%s/link.so", dir);
    cr_assert_eq(symlink(file, link), 0);
    expect(link, NH_EINVAL, "is a symbolic link");
    cr_assert_eq(chmod(file, 0775), 0);
    expect(file, NH_EINVAL, "may be written by others");
    cr_assert_eq(chmod(file, 0757), 0);
    expect(file, NH_EINVAL, "chmod go-w");
}

Test(loader, files_that_are_no_plugins)
{
    FILE *f = fopen(file, "w");

    cr_assert(f && fputs("not an object", f) >= 0 && fclose(f) == 0);
    cr_assert_eq(chmod(file, 0644), 0);
    expect(file, NH_EABI, "load ");
    expect(NULL_SO, NH_EABI, "returns NULL");
    expect(ABI_SO, NH_EABI, "ABI version 99, this host takes 1");
    expect(LACKS_SO, NH_EABI, "regular machine \"sample\" lacks lookup");
    expect(CONCURRENT_SO, NH_EABI, "concurrent machine \"sample\" lacks save_snapshot");
    expect(KIND_SO, NH_EABI, "unknown kind 3");
    {
        const struct nh_logdb_ops *ops;

        cr_assert_eq(nh_logdb_load(GOOD_SO, &ops, &err), NH_EABI);
        cr_assert(strstr(err.text, "exports no nh_logdb_plugin"), "%s", err.text);
    }
}

Test(loader, a_store_of_an_earlier_version_lacks_later_members)
{
    const struct nh_logdb_ops *ops;

    cr_assert_eq(nh_logdb_load(OLD_LOGDB_SO, &ops, &err), 0, "%s", err.text);
    cr_assert_str_eq(ops->name, "old");
    cr_assert(NH_HAS(ops, get_metrics));
    cr_assert_not(NH_HAS(ops, begin_save));
    cr_assert_null(ops->end_save, "it was not even copied");
}

/* ---- what a machine of a kind requires ---- */

#define MEMBERS 10u

/* In the order of their flags below. */
static const struct {
    const char *name;
    size_t at;
} members[MEMBERS] = {
#define MEMBER(m)                              \
    {                                          \
#m, offsetof(struct nh_machine_ops, m) \
    }
    MEMBER(open),    MEMBER(update),           MEMBER(lookup),           MEMBER(close), MEMBER(save_snapshot),
    MEMBER(recover), MEMBER(prepare_snapshot), MEMBER(release_snapshot), MEMBER(sync),  MEMBER(recover_files),
};

static void set_member(struct nh_machine_ops *ops, size_t i, bool there)
{
    void (*value)(void) = there ? setup : NULL; /* nobody calls it */

    memcpy((char *)ops + members[i].at, &value, sizeof value);
}

/* A table of this kind with everything but member `i` is refused if that is required, and says so. */
static void expect_required(enum nh_machine_kind kind, const char *kind_name, bool files, const char *required)
{
    struct nh_machine_ops ops = {.abi_version = NH_MACHINE_ABI, .struct_size = sizeof ops, .name = "m", .version = "1"};
    char lacks[64];

    ops.kind = kind;
    if (files)
        memcpy(&ops.save_files, &(void (*)(void)){setup}, sizeof ops.save_files);
    for (size_t i = 0; i < MEMBERS; i++)
        set_member(&ops, i, true);
    cr_assert_eq(loader_check_machine(&ops, &err), 0, "%s", err.text);
    for (size_t i = 0; i < MEMBERS; i++) {
        set_member(&ops, i, false);
        snprintf(lacks, sizeof lacks, "%s machine \"m\" lacks %s", kind_name, members[i].name);
        if (required[i] == '+') {
            cr_assert_eq(loader_check_machine(&ops, &err), NH_EABI, "%s", lacks);
            cr_assert(strstr(err.text, lacks), "%s: %s", lacks, err.text);
        } else {
            cr_assert_eq(loader_check_machine(&ops, &err), 0, "%s: %s", lacks, err.text);
        }
        set_member(&ops, i, true);
    }
}

Test(loader, a_machine_must_have_what_its_kind_requires)
{
    expect_required(NH_MACHINE_REGULAR, "regular", false, "++++++-+--");
    expect_required(NH_MACHINE_REGULAR, "regular", true, "++++++-+-+");
    expect_required(NH_MACHINE_CONCURRENT, "concurrent", false, "++++++++--");
    expect_required(NH_MACHINE_CONCURRENT, "concurrent", true, "++++++++-+");
    expect_required(NH_MACHINE_ON_DISK, "on-disk", false, "+++++++++-");
}

Test(loader, an_on_disk_machine_cannot_promise_to_be_quick)
{
    struct nh_machine_ops ops = {.abi_version = NH_MACHINE_ABI, .struct_size = sizeof ops, .name = "m", .version = "1"};

    for (size_t i = 0; i < MEMBERS; i++)
        set_member(&ops, i, true);
    ops.flags = NH_MACHINE_QUICK | 1u << 31; /* what it does not know it ignores */
    for (ops.kind = NH_MACHINE_REGULAR; ops.kind < NH_MACHINE_ON_DISK; ops.kind++)
        cr_assert_eq(loader_check_machine(&ops, &err), 0, "%s", err.text);
    cr_assert_eq(loader_check_machine(&ops, &err), NH_EABI);
    cr_assert(strstr(err.text, "promises quick updates"), "%s", err.text);
}

Test(loader, a_regular_machine_may_do_without_snapshots)
{
    struct nh_machine_ops ops = {.abi_version = NH_MACHINE_ABI, .struct_size = sizeof ops, .name = "m", .version = "1"};

    for (size_t i = 0; i < 4; i++)
        set_member(&ops, i, true);
    cr_assert_eq(loader_check_machine(&ops, &err), 0, "%s", err.text);
}

Test(builtin, stores_and_transports_are_known_by_name)
{
    cr_assert_str_eq(nh_logdb_builtin("rocksdb")->name, "rocksdb");
    cr_assert_str_eq(nh_logdb_builtin("memory")->name, "memory");
    cr_assert_null(nh_logdb_builtin("leveldb"));
    cr_assert_str_eq(nh_transport_builtin("tcp")->name, "tcp");
    cr_assert_str_eq(nh_transport_builtin("loopback")->name, "loopback");
    cr_assert_null(nh_transport_builtin("rdma"));
    cr_assert_gt(strlen(nh_version()), 0);
}

Test(loader, a_machine_has_a_hash_of_its_object)
{
    const struct nh_machine_ops *a, *b;
    struct nh_machine_ops copy;

    cr_assert_eq(nh_machine_load(GOOD_SO, &a, &err), 0, "%s", err.text);
    cr_assert_eq(nh_machine_load(KV_SO, &b, &err), 0, "%s", err.text);
    copy = *a;
    cr_assert_neq(loader_machine_hash(a), 0);
    cr_assert_neq(loader_machine_hash(a), loader_machine_hash(b));
    cr_assert_eq(loader_machine_hash(&copy), 0, "a table that was not loaded has none");
}
