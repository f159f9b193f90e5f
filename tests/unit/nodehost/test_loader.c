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
    expect(LACKS_SO, NH_EABI, "lacks a name or a required function");
    {
        const struct nh_logdb_ops *ops;

        cr_assert_eq(nh_logdb_load(GOOD_SO, &ops, &err), NH_EABI);
        cr_assert(strstr(err.text, "exports no nh_logdb_plugin"), "%s", err.text);
    }
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
