/* kv-disk beside kv: the same answers, the same state, and back after a restart. Crashes: test_kv_disk_crash.c. */
#include "tests/unit/cmd/kv_replica.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/machines/kv_ops.h"

static struct kv_replica kv, disk;

static void setup(void)
{
    kv_replica_root();
    kv_replica_open(&kv, KV_SO, 1, 1);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
}

static void teardown(void)
{
    kv_replica_close(&kv);
    kv_replica_close(&disk);
    kv_replica_remove_root();
}

TestSuite(kv_disk, .init = setup, .fini = teardown, .timeout = 120);

static void expect_equal_states(void)
{
    cr_assert_eq(kv.ops->hash(kv.m), disk.ops->hash(disk.m));
    cr_assert_eq(kv_replica_save(&kv), 0);
    cr_assert_eq(kv_replica_save(&disk), 0);
    cr_assert_eq(kv.image_size, disk.image_size);
    memset(kv.image + 8, 0, 8); /* the applied index, which only kv-disk keeps */
    memset(disk.image + 8, 0, 8);
    cr_assert_eq(memcmp(kv.image, disk.image, kv.image_size), 0);
}

static void expect_equal_answers(const char *query)
{
    cr_assert_eq(kv_replica_query(&kv, query), kv_replica_query(&disk, query), "%s", query);
    cr_assert_eq(kv.answer_size, disk.answer_size, "%s", query);
    cr_assert_eq(memcmp(kv.answer, disk.answer, kv.answer_size), 0, "%s", query);
}

static void apply_to_both(char texts[][KV_TEXT_BYTES], size_t n)
{
    kv_replica_apply(&kv, texts, n);
    kv_replica_apply(&disk, texts, n);
    for (size_t i = 0; i < n; i++) {
        const struct nh_result *a = &kv.entries[i].result, *b = &disk.entries[i].result;

        cr_assert_eq(a->value, b->value, "%s", texts[i]);
        cr_assert_eq(a->size_bytes, b->size_bytes, "%s", texts[i]);
        cr_assert(a->size_bytes == 0 || memcmp(a->data, b->data, a->size_bytes) == 0, "%s", texts[i]);
    }
}

Test(kv_disk, answers_are_those_of_kv)
{
    char texts[KV_BATCH_MAX][KV_TEXT_BYTES];
    unsigned seed = 7;

    for (int round = 0; round < 300; round++) {
        size_t n = 1 + (size_t)rand_r(&seed) % KV_BATCH_MAX;

        for (size_t i = 0; i < n; i++)
            kv_random_command(texts[i], &seed);
        apply_to_both(texts, n);
        expect_equal_answers("DBSIZE");
        expect_equal_answers("MGET k0 k1 k2 k3 k4 k5 k6 k7 none");
        expect_equal_answers("EXISTS k0 k1 k1 none k9");
        expect_equal_answers("GET k3");
        expect_equal_answers("STRLEN k4");
        expect_equal_answers("SET k4 1");
        if (round % 20 == 0)
            expect_equal_states();
    }
}

Test(kv_disk, a_value_is_read_once_and_shared_by_the_answers_of_a_batch)
{
    char texts[4][KV_TEXT_BYTES] = {"GETSET k 2", "SET k x NX GET", "DEL k", "GETSET k 3"};

    kv_replica_apply_text(&disk, "SET k 1");
    kv_replica_apply(&disk, texts, 4);
    cr_assert_eq(*(const char *)disk.entries[0].result.data, '1');
    cr_assert_eq(*(const char *)disk.entries[1].result.data, '2');
    cr_assert_eq(disk.entries[3].result.value, KV_REPLY_NIL);
    kv_replica_query(&disk, "GET k");
    cr_assert_eq(disk.answer[0], '3');
}

Test(kv_disk, a_restart_brings_everything_back)
{
    uint64_t hash;

    for (int i = 0; i < 100; i++)
        kv_replica_apply_text(&disk, "INCR n");
    kv_replica_apply_text(&disk, "SET other 1");
    hash = disk.ops->hash(disk.m);
    kv_replica_close(&disk);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    cr_assert_eq(disk.applied, 101);
    cr_assert_eq(disk.ops->hash(disk.m), hash);
    kv_replica_query(&disk, "DBSIZE");
    cr_assert_eq(disk.answer[0], 2);
    kv_replica_apply_text(&disk, "INCR n");
    kv_replica_query(&disk, "GET n");
    cr_assert_eq(memcmp(disk.answer, "101", 3), 0);
}

Test(kv_disk, replicas_share_a_database_and_nothing_in_it)
{
    struct kv_replica second, third;

    kv_replica_open(&second, KV_DISK_SO, 1, 2);
    kv_replica_open(&third, KV_DISK_SO, 2, 1);
    kv_replica_apply_text(&disk, "MSET a 1 b 1");
    kv_replica_apply_text(&third, "SET a 3");
    cr_assert_eq(kv_replica_query(&second, "GET a"), KV_REPLY_NIL);
    cr_assert_eq(kv_replica_save(&disk), 0);
    cr_assert_eq(kv_replica_recover(&second, disk.image, disk.image_size), 0, "%s", second.err.text);
    kv_replica_apply_text(&second, "DEL b");
    kv_replica_query(&disk, "GET b");
    cr_assert_eq(disk.answer[0], '1');
    kv_replica_query(&third, "GET a");
    cr_assert_eq(third.answer[0], '3');
    kv_replica_close(&second);
    kv_replica_close(&third);
}

Test(kv_disk, what_removed_replicas_left_is_deleted)
{
    struct kv_replica second;

    kv_replica_open(&second, KV_DISK_SO, 7, 2);
    kv_replica_apply_text(&second, "MSET a 1 b 1");
    kv_replica_apply_text(&disk, "SET a 1");
    kv_replica_close(&second);
    kv_replica_close(&disk);
    kv_replica_remove_dir(&second);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    cr_assert_eq(disk.applied, 1);
    kv_replica_open(&second, KV_DISK_SO, 7, 2);
    cr_assert_eq(second.applied, 0);
    cr_assert_eq(kv_replica_query(&second, "GET a"), KV_REPLY_NIL);
    kv_replica_close(&second);
    kv_replica_close(&disk);
    cr_assert_eq(kv_replica_count_keys(), 5, "two records and counts, and one key");
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
}

/* The database stays open all the time: another replica of the host uses it. */
Test(kv_disk, a_directory_that_was_made_again_begins_empty)
{
    struct kv_replica second;

    kv_replica_open(&second, KV_DISK_SO, 7, 2);
    kv_replica_apply_text(&second, "MSET a 1 b 1 c 1");
    kv_replica_apply_text(&disk, "SET a 1");
    kv_replica_close(&second);
    kv_replica_remove_dir(&second);
    kv_replica_open(&second, KV_DISK_SO, 7, 2);
    cr_assert_eq(second.applied, 0);
    cr_assert_eq(kv_replica_query(&second, "GET a"), KV_REPLY_NIL);
    kv_replica_query(&second, "DBSIZE");
    cr_assert_eq(second.answer[0], 0);
    kv_replica_apply_text(&second, "SET b 2");
    kv_replica_close(&second);
    kv_replica_open(&second, KV_DISK_SO, 7, 2);
    cr_assert_eq(second.applied, 1, "what came after is there");
    kv_replica_close(&second);
    kv_replica_close(&disk);
    cr_assert_eq(kv_replica_count_keys(), 6, "two records and counts, a key each");
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    cr_assert_eq(disk.applied, 1);
}

/* As nodehostd import does it: no process has the database open then. */
Test(kv_disk, a_directory_that_was_made_again_between_two_starts_begins_empty)
{
    kv_replica_apply_text(&disk, "SET a 1");
    kv_replica_close(&disk);
    kv_replica_remove_dir(&disk);
    cr_assert_eq(mkdir(disk.dir, 0700), 0);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    cr_assert_eq(disk.applied, 0);
    cr_assert_eq(kv_replica_query(&disk, "GET a"), KV_REPLY_NIL);
}

Test(kv_disk, a_mangled_mark_is_refused)
{
    struct nh_machine_args args = {.struct_size = sizeof args, .shard_id = 1, .replica_id = 1, .data_dir = disk.dir};
    struct nh_error err = {0};
    struct nh_machine *m;
    uint64_t applied;
    char path[300];

    kv_replica_close(&disk);
    snprintf(path, sizeof path, "%s/mark", disk.dir);
    for (int size = 0; size <= 17; size++) {
        if (size == 16)
            continue;
        cr_assert_eq(truncate(path, size), 0);
        cr_assert_eq(disk.ops->open(&args, &m, &applied, &err), NH_ECORRUPT, "%d bytes", size);
        cr_assert(strstr(err.text, path), "%s", err.text);
    }
    cr_assert_eq(truncate(path, 0), 0);
    cr_assert_eq(truncate(path, 16), 0);
    cr_assert_eq(disk.ops->open(&args, &m, &applied, &err), NH_ECORRUPT, "zeros");
    cr_assert_eq(unlink(path), 0);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
}

Test(kv_disk, a_snapshot_is_of_the_prepared_moment)
{
    void *early, *late;

    kv_replica_apply_text(&disk, "SET a 1");
    cr_assert_eq(disk.ops->prepare_snapshot(disk.m, &early, NULL), 0);
    kv_replica_apply_text(&disk, "MSET a 2 b 2");
    cr_assert_eq(disk.ops->prepare_snapshot(disk.m, &late, NULL), 0);
    kv_replica_apply_text(&disk, "DEL a b");
    cr_assert_eq(kv_replica_save_ctx(&disk, late), 0);
    cr_assert_eq(kv_replica_recover(&disk, disk.image, disk.image_size), 0, "%s", disk.err.text);
    kv_replica_query(&disk, "GET b");
    cr_assert_eq(disk.answer[0], '2');
    cr_assert_eq(kv_replica_save_ctx(&disk, early), 0, "a context outlives recover");
    cr_assert_eq(kv_replica_recover(&disk, disk.image, disk.image_size), 0, "%s", disk.err.text);
    cr_assert_eq(kv_replica_query(&disk, "GET b"), KV_REPLY_NIL);
    kv_replica_query(&disk, "GET a");
    cr_assert_eq(disk.answer[0], '1');
    disk.ops->release_snapshot(disk.m, early);
    disk.ops->release_snapshot(disk.m, late);
}

Test(kv_disk, recover_brings_the_applied_index_and_survives_a_restart)
{
    struct kv_replica second;

    for (int i = 0; i < 10; i++)
        kv_replica_apply_text(&disk, "APPEND k x");
    cr_assert_eq(kv_replica_save(&disk), 0);
    kv_replica_open(&second, KV_DISK_SO, 3, 9);
    kv_replica_apply_text(&second, "SET mine 1");
    cr_assert_eq(kv_replica_recover(&second, disk.image, disk.image_size), 0, "%s", second.err.text);
    kv_replica_close(&second);
    kv_replica_open(&second, KV_DISK_SO, 3, 9);
    cr_assert_eq(second.applied, 10);
    cr_assert_eq(second.ops->hash(second.m), disk.ops->hash(disk.m));
    kv_replica_close(&second);
    kv_replica_close(&disk);
    cr_assert_eq(kv_replica_count_keys(), 6, "two records and counts, a key each, nothing left over");
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
}

Test(kv_disk, a_mangled_image_changes_nothing)
{
    uint64_t before;

    kv_replica_apply_text(&disk, "MSET a 1 b 22 c 333");
    before = disk.ops->hash(disk.m);
    cr_assert_eq(kv_replica_save(&disk), 0);
    for (size_t cut = 0; cut < disk.image_size; cut += 3)
        cr_assert_eq(kv_replica_recover(&disk, disk.image, cut), NH_ECORRUPT, "cut at %zu", cut);
    disk.stop = true;
    cr_assert_eq(kv_replica_recover(&disk, disk.image, disk.image_size), NH_ECLOSED);
    cr_assert_eq(kv_replica_save(&disk), NH_ECLOSED);
    disk.stop = false;
    cr_assert_eq(disk.ops->hash(disk.m), before);
    kv_replica_close(&disk);
    cr_assert_eq(kv_replica_count_keys(), 5);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
}

Test(kv_disk, large_keys_and_values)
{
    enum { KEY = 9 * 1024 * 1024, VALUE = 20 * 1024 * 1024 };
    uint8_t *bytes = calloc(1, VALUE), *cmd = malloc(KEY + VALUE + 100);
    struct kv_slice args[] = {{(const uint8_t *)"SET", 3}, {bytes, KEY}, {bytes, VALUE}};

    kv_command_encode(args, 3, cmd);
    kv_replica_apply_bytes(&kv, cmd, kv_command_bytes(args, 3));
    kv_replica_apply_bytes(&disk, cmd, kv_command_bytes(args, 3));
    cr_assert_eq(disk.entries[0].result.value, KV_REPLY_OK);
    cr_assert_eq(kv.ops->hash(kv.m), disk.ops->hash(disk.m));
    free(bytes);
    free(cmd);
}

Test(kv_disk, a_host_that_gives_no_directory_is_told)
{
    struct nh_machine_args args = {.struct_size = sizeof args, .shard_id = 1, .replica_id = 1};
    struct nh_error err = {0};
    struct nh_machine *m;
    uint64_t applied;

    cr_assert_eq(disk.ops->open(&args, &m, &applied, &err), NH_EINVAL);
    cr_assert(strstr(err.text, "directory"), "%s", err.text);
    args.data_dir = "/nowhere/at/all";
    cr_assert_eq(disk.ops->open(&args, &m, &applied, &err), NH_EINVAL);
}

/* ---- answers that are large together ---- */

#define LARGE_BYTES (8u * 1024u * 1024u)

static void set_large(struct kv_replica *r)
{
    uint8_t *value = calloc(1, LARGE_BYTES), *cmd = malloc(LARGE_BYTES + 100);
    struct kv_slice args[] = {{(const uint8_t *)"SET", 3}, {(const uint8_t *)"k", 1}, {value, LARGE_BYTES}};

    kv_command_encode(args, 3, cmd);
    kv_replica_apply_bytes(r, cmd, kv_command_bytes(args, 3));
    free(value);
    free(cmd);
}

/* The eighth value brings the answers above the limit, by what APPEND has added; who asks for it is the last one of its call. */
static void expect_parts(struct kv_replica *r)
{
    const size_t first = 2 * (KV_HELD_BYTES_MAX / LARGE_BYTES) - 1;
    char texts[KV_BATCH_MAX][KV_TEXT_BYTES];
    int64_t size = 0;

    set_large(r);
    for (uint32_t i = 0; i < KV_BATCH_MAX; i++)
        snprintf(texts[i], KV_TEXT_BYTES, "%s", i % 2 ? "APPEND k y" : "SET k x NX GET");
    cr_assert_lt(first, KV_BATCH_MAX);
    cr_assert_eq(kv_replica_update(r, texts, KV_BATCH_MAX), first);
    for (size_t i = 0; i < first; i += 2)
        cr_assert_eq(r->entries[i].result.size_bytes, LARGE_BYTES + i / 2);
    cr_assert_eq(r->entries[first].result.size_bytes, 0, "not applied");
    for (size_t at = first; at < KV_BATCH_MAX;) {
        int taken = r->ops->update(r->m, r->entries + at, KV_BATCH_MAX - at, &r->err);

        cr_assert_geq(taken, 0);
        cr_assert_lt(taken, KV_BATCH_MAX - at);
        at = taken ? at + (size_t)taken : KV_BATCH_MAX;
    }
    cr_assert_eq(kv_replica_query(r, "STRLEN k"), KV_REPLY_INTEGER);
    memcpy(&size, r->answer, sizeof size);
    cr_assert_eq(size, LARGE_BYTES + KV_BATCH_MAX / 2, "each entry once");
}

/* Found by reading: each APPEND made the answer before it a value that nobody has any more, so 1,024 entries kept 16 GiB, on
 * every replica and at every replay. */
Test(kv_disk, answers_that_are_large_together_are_given_in_parts)
{
    expect_parts(&kv);
    expect_parts(&disk);
    cr_assert_eq(kv.ops->hash(kv.m), disk.ops->hash(disk.m));
    kv_replica_close(&disk);
    kv_replica_open(&disk, KV_DISK_SO, 1, 1);
    cr_assert_eq(disk.applied, 1 + KV_BATCH_MAX);
}
