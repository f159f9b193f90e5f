/* Snapshots of a host: on request, by themselves, exported; and what of a replica is deleted. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/nodehost/one_host.h"

static char told[4096]; /* what the listener heard: a letter per event */
static uint64_t log_compacted_to;

static void note(const char *what)
{
    strncat(told, what, sizeof told - strlen(told) - 1);
}

static void on_created(void *ctx, const struct nh_snapshot_info *info)
{
    (void)ctx;
    (void)info;
    note("S");
}

static void on_recovered(void *ctx, const struct nh_snapshot_info *info)
{
    (void)ctx;
    (void)info;
    note("R");
}

static void on_compacted(void *ctx, const struct nh_snapshot_info *info)
{
    (void)ctx;
    (void)info;
    note("O");
}

static void on_log_compacted(void *ctx, const struct nh_entry_info *info)
{
    (void)ctx;
    __atomic_store_n(&log_compacted_to, info->index, __ATOMIC_RELEASE);
    note("L");
}

static void on_deleted(void *ctx, const struct nh_replica_info *info)
{
    (void)ctx;
    note(info->shard_id == 1 && info->replica_id == 1 ? "D" : "?");
}

static const struct nh_system_event_listener listener = {.struct_size = sizeof listener,
                                                         .replica_deleted = on_deleted,
                                                         .snapshot_recovered = on_recovered,
                                                         .snapshot_created = on_created,
                                                         .snapshot_compacted = on_compacted,
                                                         .log_compacted = on_log_compacted};

static void open_listening(void)
{
    struct nh_host_config c = one_host_config();

    c.system_listener = &listener;
    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), 0, "%s", one_err.text);
}

static void setup(void)
{
    one_setup();
    open_listening();
}

TestSuite(host_snapshots, .init = setup, .fini = one_teardown);

static void request(uint64_t overhead, int code)
{
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_request_snapshot_sync(one_host, 1, overhead, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, code);
}

static void write_some(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        one_propose("1");
}

Test(host_snapshots, one_is_made_on_request_and_the_log_behind_it_goes)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);
    uint64_t index;

    one_start(&c);
    write_some(20);
    request(5, NH_REQUEST_COMPLETED);
    index = one_reply.outcome.index;
    cr_assert_eq(one_info().snapshot_index, index);
    ONE_AWAIT(one_info().first_index == index - 5 + 1);
    ONE_AWAIT(__atomic_load_n(&log_compacted_to, __ATOMIC_ACQUIRE) == index - 5);
    request(5, NH_REQUEST_REJECTED);
    cr_assert(memmem(one_reply.outcome.data, one_reply.outcome.size_bytes, "nothing was applied since", 25));
    write_some(1);
    request(NH_NEVER, NH_REQUEST_COMPLETED);
    cr_assert_eq(nh_request_snapshot_sync(one_host, 2, 0, &one_reply, &one_err), NH_ENOTFOUND);
    one_close();
    cr_assert_str_eq(told, "SLOSO", "the overhead of 5,000 keeps the rest of the log: %s", told);
}

Test(host_snapshots, a_restart_begins_with_the_snapshot)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);
    uint32_t applied;

    one_start(&c);
    write_some(20);
    request(1, NH_REQUEST_COMPLETED);
    write_some(3);
    one_close();
    open_listening();
    applied = __atomic_load_n(&sum_entries, __ATOMIC_RELAXED);
    one_start(&c);
    cr_assert_eq(one_sum(), 23);
    cr_assert_eq(__atomic_load_n(&sum_entries, __ATOMIC_RELAXED) - applied, 3, "the rest is in the image");
    one_close();
    cr_assert_str_eq(told, "SLOR");
}

static char extra_path[256]; /* of the machine's own file; then where it was put for the machine */
static char extra_text[16];

static int save_extra(struct nh_machine *m, void *ctx, struct nh_file_sink *files, struct nh_error *err)
{
    FILE *f;

    (void)m;
    (void)ctx;
    (void)err;
    snprintf(extra_path, sizeof extra_path, "%s/extra", one_dir);
    f = fopen(extra_path, "w");
    fputs("beside", f);
    fclose(f);
    return files->add(files->ctx, 7, extra_path, "meta", 4);
}

static int recover_extra(struct nh_machine *m, const struct nh_snapshot_file *files, size_t n, struct nh_error *err)
{
    FILE *f;

    (void)m;
    (void)err;
    cr_assert_eq(n, 1);
    cr_assert_eq(files[0].file_id, 7);
    cr_assert(files[0].meta_bytes == 4 && memcmp(files[0].meta, "meta", 4) == 0);
    snprintf(extra_path, sizeof extra_path, "%s", files[0].path);
    f = fopen(extra_path, "r");
    cr_assert_not_null(f);
    cr_assert_not_null(fgets(extra_text, sizeof extra_text, f));
    fclose(f);
    return NH_OK;
}

Test(host_snapshots, extra_files_come_along)
{
    static struct nh_machine_ops machine; /* in use until the host is closed, after the test */
    struct nh_replica_config c = one_replica_config(&machine);
    struct stat st;

    machine = sum_machine;
    machine.save_files = save_extra;
    machine.recover_files = recover_extra;
    one_start(&c);
    write_some(20);
    request(1, NH_REQUEST_COMPLETED);
    one_close();
    open_listening();
    one_start(&c);
    cr_assert_eq(one_sum(), 20);
    cr_assert_str_eq(extra_text, "beside");
    cr_assert(strstr(extra_path, "/00000000000000000001-00000000000000000001/files/file-0"), "%s", extra_path);
    cr_assert_neq(stat(extra_path, &st), 0, "the machine had its time to take it");
}

Test(host_snapshots, they_are_made_by_themselves_and_the_log_stays_short)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);
    uint32_t n = 0;

    c.snapshot_entries = 40;
    c.compaction_overhead = 10;
    c.compress_snapshots = true;
    one_start(&c);
    for (; n < 100000 && (one_info().snapshot_index < 200 || one_info().first_index < 190); n++)
        write_some(1); /* a save takes longer than many writes, and the next one begins after it */
    cr_assert_geq(one_info().snapshot_index, 200);
    cr_assert_leq(one_info().first_index, one_info().snapshot_index - 9);
    cr_assert_eq(one_sum(), n);
}

Test(host_snapshots, never_means_never)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);

    c.snapshot_entries = c.snapshot_bytes = NH_NEVER;
    one_start(&c);
    write_some(100);
    cr_assert_eq(one_info().snapshot_index, 0);
    cr_assert_eq(one_info().first_index, 1);
}

Test(host_snapshots, an_export_is_a_directory_of_its_own)
{
    struct nh_replica_config c = one_replica_config(&sum_machine);
    char expected[160], path[256], dir[96];
    struct stat st;

    one_start(&c);
    write_some(5);
    snprintf(dir, sizeof dir, "%s/exports", one_dir);
    cr_assert_eq(nh_export_snapshot_sync(one_host, 1, "exports", &one_reply, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "must be absolute"), "%s", one_err.text);
    cr_assert_eq(nh_export_snapshot_sync(one_host, 1, dir, &one_reply, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "No such file"), "%s", one_err.text);
    mkdir(dir, 0700);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_export_snapshot_sync(one_host, 1, dir, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED);
    snprintf(expected, sizeof expected, "%s/snapshot-%016llx", dir, (unsigned long long)one_reply.outcome.index);
    cr_assert_eq(one_reply.outcome.size_bytes, strlen(expected));
    cr_assert_eq(memcmp(one_reply.outcome.data, expected, strlen(expected)), 0);
    snprintf(path, sizeof path, "%s/image", expected);
    cr_assert_eq(stat(path, &st), 0);
    snprintf(path, sizeof path, "%s/record", expected);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(one_info().snapshot_index, 0, "it is not a snapshot of the replica");
}

Test(host_snapshots, a_machine_that_cannot_says_so)
{
    static struct nh_machine_ops plain; /* in use until the host is closed, after the test */
    struct nh_replica_config c = one_replica_config(&plain);

    plain = sum_machine;
    plain.save_snapshot = NULL;
    one_start(&c);
    write_some(3);
    request(0, NH_REQUEST_REJECTED);
    cr_assert(memmem(one_reply.outcome.data, one_reply.outcome.size_bytes, "no save_snapshot", 16));
}

Test(host_snapshots, a_table_of_an_older_header_is_not_read_beyond_its_end)
{
    uint32_t size = offsetof(struct nh_machine_ops, prepare_snapshot);
    uint8_t *old = malloc(size); /* the sanitizer watches its end */
    struct nh_replica_config c;

    memcpy(old, &sum_machine, size);
    memcpy(old + offsetof(struct nh_machine_ops, struct_size), &size, sizeof size);
    c = one_replica_config((const void *)old);
    one_start(&c);
    write_some(3);
    request(0, NH_REQUEST_REJECTED);
    one_close();
    free(old);
}

/* ---- on disk ---- */

Test(host_snapshots, an_on_disk_machine_has_a_directory_of_its_own)
{
    struct nh_replica_config c = one_replica_config(&disk_sum_machine);
    char path[256];
    struct stat st;

    one_start(&c);
    write_some(20);
    request(1, NH_REQUEST_COMPLETED);
    write_some(2);
    snprintf(path, sizeof path, "%s/machines/00000000000000000001-00000000000000000001", one_data);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0700);
    one_close();
    open_listening();
    one_start(&c);
    cr_assert_eq(one_sum(), 22);
    write_some(1);
    cr_assert_eq(one_sum(), 23);
}

/* ---- deletion ---- */

static bool is_there(const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s/00000000000000000001-00000000000000000001", one_data, name);
    return access(path, F_OK) == 0;
}

Test(host_snapshots, what_is_stored_of_a_stopped_replica_is_deleted)
{
    struct nh_replica_config c = one_replica_config(&disk_sum_machine);

    one_start(&c);
    write_some(20);
    request(1, NH_REQUEST_COMPLETED);
    cr_assert_eq(nh_host_remove_data(one_host, 1, 1, &one_err), NH_EBUSY);
    cr_assert(strstr(one_err.text, "remove the data of replica 1 of shard 1: it runs"), "%s", one_err.text);
    cr_assert_eq(nh_host_remove_data(one_host, 1, 2, &one_err), NH_ENOTFOUND, "another replica of a running shard");
    cr_assert_eq(nh_host_remove_data(one_host, 0, 2, &one_err), NH_EINVAL);
    cr_assert_eq(nh_host_stop_replica(one_host, 1, &one_err), 0);
    cr_assert(is_there("snapshots") && is_there("machines"));
    cr_assert_eq(nh_host_remove_data(one_host, 1, 1, &one_err), 0, "%s", one_err.text);
    cr_assert(!is_there("snapshots") && !is_there("machines"));
    cr_assert_eq(nh_host_remove_data(one_host, 1, 1, &one_err), NH_ENOTFOUND);
    c.members = NULL, c.n_members = 0;
    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), NH_EINVAL, "nothing is known of it");
    one_close();
    cr_assert_str_eq(told, "SLOD");
}

/* ---- directories ---- */

Test(host_snapshots, a_directory_of_images_belongs_to_one_host)
{
    struct nh_host_config c = one_host_config();
    char dir[96], other[96];

    one_close();
    snprintf(dir, sizeof dir, "%s/images", one_dir);
    c.snapshot_dir = dir;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(nh_host_open(&c, &one_host, &one_err), 0, "%s", one_err.text);
        one_close();
    }
    snprintf(other, sizeof other, "%s/other", one_dir);
    c.data_dir = other;
    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), NH_EMISMATCH);
    cr_assert(strstr(one_err.text, "give each host one of its own"), "%s", one_err.text);
    c.snapshot_dir = "";
    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), NH_EINVAL);
    chmod(dir, 0755);
    c.snapshot_dir = dir;
    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "chmod 700"), "%s", one_err.text);
}
