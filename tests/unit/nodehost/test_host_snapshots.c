/* Snapshots of a host: on request, by themselves, exported; and what of a replica is deleted. */
#include <criterion/criterion.h>
#include <semaphore.h>
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

/* ---- exports ---- */

static char exports_dir[96];
/* Of one shard each; paths of what was exported. */
static char first_export[256], second_export[256];

static void make_exports_dir(void)
{
    snprintf(exports_dir, sizeof exports_dir, "%s/exports", one_dir);
    cr_assert_eq(mkdir(exports_dir, 0700), 0);
}

/* With five entries, so that an export of any such shard has the same index. */
static void start_shard(uint64_t shard_id, const struct nh_machine_ops *machine)
{
    struct nh_replica_config c = one_replica_config(machine);
    struct nh_reply reply = {0};

    c.shard_id = shard_id;
    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), 0, "%s", one_err.text);
    for (int i = 0; i < 5;) {
        cr_assert_eq(nh_propose_sync(one_host, shard_id, "1", 1, ONE_MS, &reply, &one_err), 0, "%s", one_err.text);
        i += reply.outcome.code == NH_REQUEST_COMPLETED; /* else it has no leader yet */
        nh_reply_deinit(&reply);
    }
}

/* Exports the shard; its index. */
static uint64_t export_shard(uint64_t shard_id, char *ret_path)
{
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_export_snapshot_sync(one_host, shard_id, exports_dir, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED, "%.*s", (int)one_reply.outcome.size_bytes,
                 (const char *)one_reply.outcome.data);
    snprintf(ret_path, 256, "%.*s", (int)one_reply.outcome.size_bytes, (const char *)one_reply.outcome.data);
    return one_reply.outcome.index;
}

/* It is whole, and of this shard: an import would take it. */
static void check_export(const char *path, uint64_t shard_id)
{
    const struct nh_member member = {.replica_id = 1, .address = "host:1"};
    struct nh_import i = NH_IMPORT_INIT;
    char data_dir[96];

    snprintf(data_dir, sizeof data_dir, "%s/nothing", one_dir);
    i.host_id = i.replica_id = i.n_members = 1;
    i.data_dir = data_dir;
    i.address = member.address;
    i.logdb = nh_logdb_builtin("memory");
    i.source = path;
    i.shard_id = shard_id;
    i.members = &member;
    i.dry_run = true;
    cr_assert_eq(nh_import_snapshot(&i, &one_err), 0, "%s", one_err.text);
}

static ino_t image_inode(const char *export)
{
    char path[300];
    struct stat st;

    snprintf(path, sizeof path, "%s/image", export);
    cr_assert_eq(stat(path, &st), 0);
    return st.st_ino;
}

Test(host_snapshots, an_export_is_a_directory_of_its_own)
{
    char expected[256], path[300];
    struct stat st;
    uint64_t index;

    start_shard(1, &sum_machine);
    cr_assert_eq(nh_export_snapshot_sync(one_host, 1, "exports", &one_reply, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "must be absolute"), "%s", one_err.text);
    snprintf(path, sizeof path, "%s/exports", one_dir);
    cr_assert_eq(nh_export_snapshot_sync(one_host, 1, path, &one_reply, &one_err), NH_EINVAL);
    cr_assert(strstr(one_err.text, "No such file"), "%s", one_err.text);
    make_exports_dir();
    index = export_shard(1, first_export);
    snprintf(expected, sizeof expected, "%s/snapshot-00000000000000000001-00000000000000000001-%016llx", exports_dir,
             (unsigned long long)index);
    cr_assert_str_eq(first_export, expected);
    snprintf(path, sizeof path, "%s/image", expected);
    cr_assert_eq(stat(path, &st), 0);
    snprintf(path, sizeof path, "%s/record", expected);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(one_info().snapshot_index, 0, "it is not a snapshot of the replica");
}

/* The second one used to take the place of the first. */
Test(host_snapshots, exports_of_two_shards_at_one_index_lie_side_by_side)
{
    make_exports_dir();
    start_shard(1, &sum_machine);
    start_shard(2, &sum_machine);
    cr_assert_eq(export_shard(1, first_export), export_shard(2, second_export));
    check_export(first_export, 1);
    check_export(second_export, 2);
}

static sem_t saving, may_save, exported;

static int save_later(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    sem_post(&saving);
    while (sem_wait(&may_save) < 0) /* interrupted */
        ;
    return sum_machine.save_snapshot(m, ctx, out, stop, err);
}

static void on_exported(void *ctx, const struct nh_outcome *outcome)
{
    uint64_t *ret_index = ctx;

    *ret_index = outcome->code == NH_REQUEST_COMPLETED ? outcome->index : 0;
    snprintf(first_export, sizeof first_export, "%.*s", (int)outcome->size_bytes, (const char *)outcome->data);
    sem_post(&exported);
}

/* They used to write to one temporary directory. */
Test(host_snapshots, exports_of_two_shards_may_be_under_way_together)
{
    static struct nh_machine_ops slow; /* in use until the host is closed, after the test */
    uint64_t first = 0, second;

    cr_assert(sem_init(&saving, 0, 0) == 0 && sem_init(&may_save, 0, 0) == 0 && sem_init(&exported, 0, 0) == 0);
    slow = sum_machine;
    slow.save_snapshot = save_later;
    make_exports_dir();
    start_shard(1, &slow);
    start_shard(2, &sum_machine);
    cr_assert_eq(nh_export_snapshot(one_host, 1, exports_dir, on_exported, &first, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(sem_wait(&saving), 0);
    second = export_shard(2, second_export);
    sem_post(&may_save);
    cr_assert_eq(sem_wait(&exported), 0);
    cr_assert_eq(first, second, "%s", first_export);
    check_export(first_export, 1);
    check_export(second_export, 2);
}

/* It may be of another history: of a shard that was formed anew from an older export. */
Test(host_snapshots, an_export_does_not_pass_for_one_that_is_there)
{
    ino_t inode;

    make_exports_dir();
    start_shard(1, &sum_machine);
    export_shard(1, first_export);
    inode = image_inode(first_export);
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_export_snapshot_sync(one_host, 1, exports_dir, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_REJECTED);
    cr_assert(memmem(one_reply.outcome.data, one_reply.outcome.size_bytes, "choose another directory", 24), "%.*s",
              (int)one_reply.outcome.size_bytes, (const char *)one_reply.outcome.data);
    cr_assert_eq(image_inode(first_export), inode, "the first one stays");
    check_export(first_export, 1);
    write_some(1);
    export_shard(1, second_export);
    check_export(second_export, 1);
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
