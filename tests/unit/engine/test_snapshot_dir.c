/* A replica's snapshot directory, on real files and on those in memory; crashes: test_snapshot_crash.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raftio/codec.h"
#include "raftio/support/crc32c.h"
#include "tests/unit/engine/snapshot_fixture.h"

TestSuite(snapshot_dir_posix, .init = snapshot_setup_posix, .fini = snapshot_teardown);
TestSuite(snapshot_dir_memory, .init = snapshot_setup_memory, .fini = snapshot_teardown);

/* A test on both. */
#define CONTRACT(name)              \
    static void name(void);         \
    Test(snapshot_dir_posix, name)  \
    {                               \
        name();                     \
    }                               \
    Test(snapshot_dir_memory, name) \
    {                               \
        name();                     \
    }                               \
    static void name(void)

#define NAMES(...)                                              \
    do {                                                        \
        const char *const list[] = {__VA_ARGS__};               \
        snapshot_check_names(sizeof list / sizeof *list, list); \
    } while (0)
#define IMAGES(...) snapshot_check_images((const uint64_t[]){__VA_ARGS__, 0})

static int open_image(uint64_t index)
{
    struct file *f = NULL;
    int r = snapshot_dir_open(&x.dir, index, &f, NULL, &x.err);

    x.fs->ops->close(f, NULL);
    return r;
}

CONTRACT(an_image_is_there_when_it_is_committed)
{
    struct snapshot_temp t;

    OK(snapshot_temp_begin(&t, &x.dir, 0x1234, 0, &x.err));
    OK(snapshot_temp_write(&t, "image", 5, &x.err));
    NAMES("saving-0000000000001234");
    cr_assert_eq(open_image(0x1234), NH_ENOTFOUND);
    snapshot_temp_abort(&t);
    NAMES();
    OK(snapshot_make(0x1234, 0));
    NAMES("snapshot-0000000000001234");
    snapshot_check(0x1234);
}

CONTRACT(a_received_one_has_its_sender_in_its_name)
{
    struct snapshot_temp own, other;

    OK(snapshot_temp_begin(&own, &x.dir, 20, 0, &x.err));
    OK(snapshot_temp_begin(&other, &x.dir, 20, UINT64_MAX, &x.err));
    NAMES("saving-0000000000000014", "receiving-18446744073709551615-0000000000000014");
    snapshot_temp_abort(&own);
    snapshot_temp_abort(&other);
}

CONTRACT(what_a_former_attempt_left_is_removed)
{
    OK(x.fs->ops->make_dir(x.fs, snapshot_path("saving-0000000000000014"), &x.err));
    snapshot_put(snapshot_path("saving-0000000000000014/image"), "long ago", 8);
    snapshot_put(snapshot_path("saving-0000000000000014/record"), "long ago", 8);
    OK(snapshot_make(20, 0));
    IMAGES(20);
}

CONTRACT(abort_takes_anything)
{
    struct snapshot_temp t = {0};

    snapshot_temp_abort(&t);
    cr_assert_eq(snapshot_temp_begin(&t, &x.dir, 0, 0, &x.err), NH_EINVAL);
    snapshot_temp_abort(&t);
    OK(snapshot_temp_begin(&t, &x.dir, 20, 0, &x.err));
    snapshot_temp_abort(&t);
    snapshot_temp_abort(&t);
    NAMES();
}

CONTRACT(a_record_of_something_else_is_refused)
{
    struct nh_snapshot record = snapshot_record_of(20);
    struct snapshot_temp t;

    OK(snapshot_temp_begin(&t, &x.dir, 20, 0, &x.err));
    record.index = 21;
    cr_assert_eq(snapshot_temp_commit(&t, &record, &x.err), NH_EMISMATCH);
    record.index = 20;
    record.shard_id = SHARD + 1;
    cr_assert_eq(snapshot_temp_commit(&t, &record, &x.err), NH_EMISMATCH);
    snapshot_temp_abort(&t);
    NAMES();
}

CONTRACT(of_two_of_an_index_the_first_one_stays)
{
    struct nh_snapshot record = snapshot_record_of(20);
    struct snapshot_temp t;

    OK(snapshot_make(20, 0));
    OK(snapshot_temp_begin(&t, &x.dir, 20, 9, &x.err));
    OK(snapshot_temp_write(&t, "other bytes", 11, &x.err));
    record.file_size_bytes = 11;
    OK(snapshot_temp_commit(&t, &record, &x.err));
    IMAGES(20);
}

CONTRACT(remains_of_an_image_give_way)
{
    static const char *parts[] = {"image", "record", "neither"};

    for (int i = 0; i < 3; i++) {
        OK(snapshot_make(20, 0));
        OK(x.fs->ops->remove(x.fs, snapshot_path("snapshot-0000000000000014/%s", parts[i]), &x.err));
        OK(snapshot_make(20, 0));
        IMAGES(20);
    }
    OK(x.fs->ops->remove(x.fs, snapshot_path("snapshot-0000000000000014"), &x.err));
    OK(x.fs->ops->make_dir(x.fs, snapshot_path("snapshot-0000000000000014"), &x.err));
    OK(snapshot_make(20, 0));
    IMAGES(20);
}

CONTRACT(prune_keeps_the_newest_and_all_above)
{
    struct snapshot_temp t;

    for (uint64_t i = 1; i <= 6; i++)
        OK(snapshot_make(i, 0));
    OK(snapshot_temp_begin(&t, &x.dir, 7, 9, &x.err));
    OK(snapshot_dir_prune(&x.dir, 5, 3, &x.err));
    NAMES("snapshot-0000000000000003", "snapshot-0000000000000004", "snapshot-0000000000000005", "snapshot-0000000000000006",
          "receiving-00000000000000000009-0000000000000007");
    snapshot_temp_abort(&t);
    OK(snapshot_dir_prune(&x.dir, 5, 2, &x.err));
    IMAGES(4, 5, 6);
    OK(snapshot_dir_prune(&x.dir, 5, 0, &x.err));
    IMAGES(5, 6);
    OK(snapshot_dir_prune(&x.dir, 0, 1, &x.err));
    IMAGES(5, 6);
}

CONTRACT(clean_leaves_what_is_recorded_and_the_newest_before)
{
    struct snapshot_temp t, received;

    for (uint64_t i = 1; i <= 6; i++)
        OK(snapshot_make(i, 0));
    OK(snapshot_temp_begin(&t, &x.dir, 5, 0, &x.err));
    OK(snapshot_temp_begin(&received, &x.dir, 4, 9, &x.err));
    OK(snapshot_dir_clean(&x.dir, 5, UINT32_MAX, &x.err));
    IMAGES(1, 2, 3, 4, 5);
    snapshot_temp_abort(&t);
    snapshot_temp_abort(&received);
    OK(snapshot_dir_clean(&x.dir, 4, 2, &x.err));
    IMAGES(3, 4);
    OK(snapshot_dir_clean(&x.dir, 4, 0, &x.err));
    IMAGES(4);
    OK(snapshot_dir_clean(&x.dir, 0, 9, &x.err));
    NAMES();
}

CONTRACT(names_that_are_not_ours_are_left_alone)
{
    static const char *const names[] = {"snapshot-5",
                                        "snapshot-00000000000000AB",
                                        "snapshot-0000000000000005.bak",
                                        "snapshot-00000000000000005",
                                        "snapshot-+000000000000005",
                                        "snapshot- 000000000000005",
                                        "snapshot-0x00000000000005",
                                        "saving-",
                                        "saving-000000000000005",
                                        "receiving-9-0000000000000005",
                                        "receiving-99999999999999999999-0000000000000005",
                                        "receiving-00000000000000000009",
                                        "lost+found"};
    size_t n = sizeof names / sizeof *names;

    for (size_t i = 0; i < n; i++)
        OK(x.fs->ops->make_dir(x.fs, snapshot_path("%s", names[i]), &x.err));
    OK(snapshot_make(5, 0));
    OK(snapshot_dir_prune(&x.dir, 100, 1, &x.err));
    OK(snapshot_dir_clean(&x.dir, 0, 1, &x.err));
    snapshot_check_names(n, names);
}

CONTRACT(an_image_can_be_read_when_it_is_removed)
{
    struct file_source state;
    struct image_source source;
    struct file *f;
    char data[400];
    size_t n = 0;
    int64_t r;

    OK(snapshot_make(20, 0));
    OK(snapshot_dir_open(&x.dir, 20, &f, NULL, &x.err));
    OK(snapshot_dir_clean(&x.dir, 0, 1, &x.err));
    file_source_init(&state, x.fs, f, &source);
    while ((r = source.read(source.ctx, data, sizeof data, &x.err)) > 0)
        n += (size_t)r;
    cr_assert_eq(r, 0);
    cr_assert_eq(n, IMAGE_BYTES);
    state.offset = IMAGE_BYTES - 3;
    cr_assert_eq(source.read(source.ctx, data, sizeof data, &x.err), 3);
    OK(x.fs->ops->close(f, &x.err));
}

CONTRACT(a_replica_is_removed_alone)
{
    struct snapshot_dir other;

    OK(snapshot_dir_init(&other, x.fs, x.root, SHARD, REPLICA + 1, &x.err));
    OK(snapshot_make(20, 0));
    OK(snapshot_dir_remove(&other, &x.err));
    OK(snapshot_dir_remove(&other, &x.err));
    IMAGES(20);
    OK(snapshot_dir_remove(&x.dir, &x.err));
    cr_assert_eq(open_image(20), NH_ENOTFOUND);
    OK(snapshot_dir_init(&x.dir, x.fs, x.root, SHARD, REPLICA, &x.err));
    NAMES();
}

CONTRACT(an_export_does_not_take_the_place_of_another)
{
    static const char first[] = "snapshot-00000000000000000005-00000000000000000003-0000000000000014",
                      other[] = "snapshot-00000000000000000005-00000000000000000004-0000000000000014";
    struct snapshot_dir replica_dir = x.dir, of_first;
    struct snapshot_temp t;

    OK(snapshot_dir_name_exports(&x.dir, x.fs, replica_dir.path, SHARD, REPLICA, &x.err));
    OK(snapshot_make(20, 0));
    NAMES(first);
    cr_assert_eq(snapshot_make(20, 0), NH_EEXIST);
    cr_assert(strstr(x.err.text, "is there already: choose another directory, or remove it"), "%s", x.err.text);
    NAMES(first);
    OK(x.fs->ops->remove(x.fs, snapshot_path("%s/record", first), &x.err));
    cr_assert_eq(snapshot_make(20, 0), NH_EEXIST, "remains of one are their owner's");
    OK(x.fs->ops->remove(x.fs, snapshot_path(first), &x.err));
    OK(snapshot_make(20, 0));
    of_first = x.dir;
    OK(snapshot_temp_begin(&t, &of_first, 20, 0, &x.err)); /* under way while another replica makes one */
    x.dir.replica_id++;
    OK(snapshot_make(20, 0));
    NAMES(first, other, "saving-00000000000000000005-00000000000000000003-0000000000000014");
    snapshot_temp_abort(&t);
}

CONTRACT(a_replica_without_images_needs_no_directory)
{
    struct snapshot_dir d;

    OK(snapshot_dir_name(&d, x.fs, x.root, SHARD, REPLICA + 1, &x.err));
    OK(snapshot_dir_clean(&d, 0, 1, &x.err));
    OK(snapshot_dir_prune(&d, 20, 1, &x.err)); /* a witness has records of snapshots, and no images */
    cr_assert_eq(snapshot_dir_open(&d, 20, &(struct file *){NULL}, NULL, &x.err), NH_ENOTFOUND);
    OK(snapshot_dir_make(&d, &x.err));
    OK(snapshot_dir_make(&d, &x.err));
    OK(snapshot_dir_clean(&d, 0, 1, &x.err));
}

CONTRACT(a_root_that_is_missing_or_too_long_is_an_error)
{
    static char root[FILES_PATH_BYTES];
    struct snapshot_dir d;

    cr_assert_eq(snapshot_dir_init(&d, x.fs, "/tmp/nodehost-none", 1, 1, &x.err), NH_ENOTFOUND);
    memset(root, 'x', sizeof root - 1);
    cr_assert_eq(snapshot_dir_init(&d, x.fs, root, 1, 1, &x.err), NH_EINVAL);
}

/* ---- records ---- */

#define RECORD_PATH "snapshot-0000000000000014/record"

/* The record of snapshot 20, which is made for it. */
static size_t read_record(uint8_t *data, size_t cap)
{
    struct file *f;
    uint64_t size;

    OK(snapshot_make(20, 0));
    OK(x.fs->ops->open(x.fs, snapshot_path(RECORD_PATH), &f, &size, &x.err));
    cr_assert_leq(size, cap);
    cr_assert_eq(x.fs->ops->read_at(f, 0, data, cap, &x.err), (int64_t)size);
    OK(x.fs->ops->close(f, &x.err));
    return size;
}

/* What opening says when these are the record's bytes. */
static int open_with(const uint8_t *data, size_t size_bytes)
{
    OK(x.fs->ops->remove(x.fs, snapshot_path(RECORD_PATH), &x.err));
    snapshot_put(snapshot_path(RECORD_PATH), data, size_bytes);
    return open_image(20);
}

/* The same with the checksum made right. */
static int open_sealed(uint8_t *data, size_t size_bytes)
{
    uint32_t crc = crc32c(0, data + 4, size_bytes - 4);

    memcpy(data, &crc, 4);
    return open_with(data, size_bytes);
}

CONTRACT(a_mangled_record_is_refused)
{
    uint8_t data[512];
    size_t n = read_record(data, sizeof data - 1);

    for (size_t i = 0; i < n; i++) {
        data[i] ^= 0x10;
        cr_assert_eq(open_with(data, n), NH_ECORRUPT, "byte %zu", i);
        data[i] ^= 0x10;
    }
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(open_with(data, i), NH_ECORRUPT, "cut at %zu", i);
    data[n] = 0;
    cr_assert_eq(open_with(data, n + 1), NH_ECORRUPT);
    OK(open_with(data, n));
}

CONTRACT(a_record_that_makes_no_sense_is_refused)
{
    uint8_t data[512];
    size_t n = read_record(data, sizeof data);

    memset(data + 8, 0xff, n - 8);
    cr_assert_eq(open_sealed(data, n), NH_ECORRUPT);
    cr_assert_eq(open_sealed(data, 8), NH_ECORRUPT, "shard and index 0");
    data[4] = 2;
    cr_assert_eq(open_sealed(data, n), NH_EUNSUPPORTED);
}

/* Opens an image with a record that was changed and sealed. */
static int open_changed(void (*edit)(struct nh_snapshot *record))
{
    struct nh_snapshot record = snapshot_record_of(20);
    uint8_t data[512] = {0, 0, 0, 0, 1};

    edit(&record);
    return open_sealed(data, 8 + snapshot_encode(&record, data + 8, sizeof data - 8));
}

static void other_shard(struct nh_snapshot *record)
{
    record->shard_id++;
}

static void other_index(struct nh_snapshot *record)
{
    record->index++;
}

static void other_size(struct nh_snapshot *record)
{
    record->file_size_bytes++;
}

static void unknown_size(struct nh_snapshot *record)
{
    record->file_size_bytes = 0;
}

CONTRACT(a_record_of_another_image_is_refused)
{
    OK(snapshot_make(20, 0));
    cr_assert_eq(open_changed(other_shard), NH_ECORRUPT);
    cr_assert_eq(open_changed(other_index), NH_ECORRUPT);
    cr_assert_eq(open_changed(other_size), NH_ECORRUPT);
    OK(open_changed(unknown_size));
}

CONTRACT(an_image_that_lacks_a_part_is_corrupt)
{
    OK(snapshot_make(20, 0));
    OK(x.fs->ops->remove(x.fs, snapshot_path("snapshot-0000000000000014/image"), &x.err));
    cr_assert_eq(open_image(20), NH_ECORRUPT);
    OK(snapshot_make(20, 0));
    OK(x.fs->ops->remove(x.fs, snapshot_path(RECORD_PATH), &x.err));
    cr_assert_eq(open_image(20), NH_ECORRUPT);
    OK(x.fs->ops->remove(x.fs, snapshot_path("snapshot-0000000000000014"), &x.err));
    cr_assert_eq(open_image(20), NH_ENOTFOUND);
}

/* A snapshot whose record file has this many bytes. */
static int make_with_record_of(size_t size_bytes)
{
    struct nh_snapshot record = snapshot_record_of(20);
    uint64_t *removed = calloc(size_bytes, sizeof *removed);
    struct snapshot_temp t;
    int r;

    for (size_t i = 0; i < size_bytes; i++)
        removed[i] = 1; /* a byte each */
    record.file_size_bytes = 0;
    record.membership.removed = removed;
    record.membership.n_removed = (uint32_t)size_bytes - 256;
    while (8 + snapshot_encode(&record, NULL, 0) < size_bytes)
        record.membership.n_removed++;
    cr_assert_eq(8 + snapshot_encode(&record, NULL, 0), size_bytes);
    OK(snapshot_temp_begin(&t, &x.dir, 20, 0, &x.err));
    r = snapshot_temp_commit(&t, &record, &x.err);
    snapshot_temp_abort(&t);
    free(removed);
    return r;
}

CONTRACT(a_record_has_a_limit)
{
    static uint8_t zeros[SNAPSHOT_RECORD_BYTES_MAX + 1];

    cr_assert_eq(make_with_record_of(SNAPSHOT_RECORD_BYTES_MAX + 1), NH_ETOOBIG);
    NAMES();
    OK(make_with_record_of(SNAPSHOT_RECORD_BYTES_MAX));
    OK(open_image(20));
    cr_assert_eq(open_with(zeros, sizeof zeros), NH_ECORRUPT);
}

/* docs/FORMATS.md, "Snapshot directory". If this fails, older directories cannot be read any more. */
Test(snapshot_dir_memory, a_record_of_format_1_is_read)
{
    static const uint8_t golden[] = {0xa7, 0x4e, 0x54, 0x1e, 0x01, 0x00, 0x00, 0x00, 0x08, 0x05, 0x10, 0x14, 0x18, 0x02,
                                     0x20, 0xdc, 0x0b, 0x5a, 0x16, 0x08, 0x01, 0x12, 0x12, 0x08, 0x03, 0x1a, 0x0e, 0x31,
                                     0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x31, 0x3a, 0x37, 0x31, 0x30, 0x31};
    uint8_t data[sizeof golden];

    cr_assert_eq(read_record(data, sizeof data), sizeof golden);
    cr_assert_eq(memcmp(data, golden, sizeof golden), 0);
    OK(open_with(golden, sizeof golden));
    snapshot_check(20);
}

/* ---- links ---- */

Test(snapshot_dir_posix, links_are_not_followed)
{
    char elsewhere[128];
    struct snapshot_dir d;

    snprintf(elsewhere, sizeof elsewhere, "%s/%020u-%020u", x.root, SHARD, REPLICA + 1);
    cr_assert_eq(symlink(x.dir.path, elsewhere), 0);
    cr_assert_eq(snapshot_dir_init(&d, x.fs, x.root, SHARD, REPLICA + 1, &x.err), NH_EEXIST);

    OK(snapshot_make(20, 0));
    cr_assert_eq(rename(snapshot_path("snapshot-0000000000000014"), snapshot_path("mine")), 0);
    cr_assert_eq(symlink("mine", snapshot_path("snapshot-0000000000000014")), 0);
    cr_assert_eq(open_image(20), NH_EIO);
    cr_assert_lt(snapshot_make(20, 0), 0);
    OK(snapshot_dir_clean(&x.dir, 0, 1, &x.err));
    NAMES("mine");

    cr_assert_eq(access(snapshot_path("mine/image"), F_OK), 0);
    cr_assert_eq(access(snapshot_path("mine/record"), F_OK), 0);
    OK(snapshot_make(20, 0));
    cr_assert_eq(unlink(snapshot_path("snapshot-0000000000000014/image")), 0);
    cr_assert_eq(symlink("../mine/image", snapshot_path("snapshot-0000000000000014/image")), 0);
    cr_assert_eq(open_image(20), NH_EIO);
}
