/* Files in memory: what a crash may leave is found, and nothing else is. */
#include "tests/sim/memory_files.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct memory_files *m;
static struct files *fs;
static struct nh_error err;
static uint64_t seed;

#define OK(call) cr_assert_eq(call, NH_OK, "%s", err.text)
#define SEEDS    200u

static void setup(void)
{
    m = memory_files_new();
    fs = memory_files_base(m);
}

static void teardown(void)
{
    memory_files_free(m);
}

TestSuite(memory_files, .init = setup, .fini = teardown);

/* splitmix64 */
static uint64_t next_random(void *ctx)
{
    uint64_t z = (*(uint64_t *)ctx += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void crash(uint64_t s)
{
    seed = s;
    memory_files_crash(m, next_random, &seed);
}

static struct file *create(const char *path, const char *text)
{
    struct file *f;

    OK(fs->ops->create(fs, path, &f, &err));
    OK(fs->ops->write(f, text, strlen(text), &err));
    return f;
}

static void put(const char *path, const char *text)
{
    struct file *f = create(path, text);

    OK(fs->ops->sync(f, &err));
    OK(fs->ops->close(f, &err));
}

/* The file's size, or -1. */
static int64_t size_of(const char *path)
{
    struct file *f;
    uint64_t size;

    if (fs->ops->open(fs, path, &f, &size, &err) < 0)
        return -1;
    OK(fs->ops->close(f, &err));
    return (int64_t)size;
}

/* A disk of its own for each seed: what `prepare` leaves and a crash makes of it, as a number from `look`, is in the returned
 * set. */
static unsigned outcomes(void (*prepare)(void), unsigned (*look)(void))
{
    unsigned set = 0;

    for (uint64_t s = 0; s < SEEDS; s++) {
        teardown();
        setup();
        prepare();
        crash(s);
        set |= 1u << look();
    }
    return set;
}

static void prepare_synced(void)
{
    put("a", "hello");
    OK(fs->ops->sync_dir(fs, "", &err));
}

static unsigned size_or_7(void)
{
    int64_t n = size_of("a");

    return n < 0 ? 7 : (unsigned)n;
}

Test(memory_files, what_is_synced_survives)
{
    cr_assert_eq(outcomes(prepare_synced, size_or_7), 1u << 5);
}

static void prepare_unsynced_bytes(void)
{
    struct file *f;

    f = create("a", "he");
    OK(fs->ops->sync(f, &err));
    OK(fs->ops->sync_dir(fs, "", &err));
    OK(fs->ops->write(f, "llo", 3, &err));
    OK(fs->ops->close(f, &err));
}

Test(memory_files, unsynced_bytes_may_be_lost_from_the_end)
{
    cr_assert_eq(outcomes(prepare_unsynced_bytes, size_or_7), 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5);
}

static unsigned count_zeros(void)
{
    struct file *f;
    char text[6] = "";
    unsigned n = 0;

    OK(fs->ops->open(fs, "a", &f, NULL, &err));
    cr_assert_geq(fs->ops->read_at(f, 0, text, 5, &err), 2);
    OK(fs->ops->close(f, &err));
    cr_assert_eq(memcmp(text, "he", 2), 0);
    for (const char *c = text + 2; c < text + 5; c++)
        n += *c == 0;
    cr_assert(n == 3 || text[2] == 'l');
    return n;
}

Test(memory_files, unsynced_bytes_may_become_zeros)
{
    cr_assert_eq(outcomes(prepare_unsynced_bytes, count_zeros), 1u << 0 | 1u << 1 | 1u << 2 | 1u << 3);
}

static void prepare_failed_sync(void)
{
    struct file *f = create("a", "hello");

    OK(fs->ops->sync_dir(fs, "", &err));
    memory_files_fail_at(m, 1, NH_EIO);
    cr_assert_eq(fs->ops->sync(f, &err), NH_EIO);
    OK(fs->ops->sync(f, &err)); /* does not bring back what the first one lost */
    OK(fs->ops->close(f, &err));
}

Test(memory_files, a_failed_sync_is_not_mended_by_another)
{
    cr_assert_eq(outcomes(prepare_failed_sync, size_or_7), 0x3f);
}

static void prepare_unsynced_name(void)
{
    put("a", "hello");
}

Test(memory_files, a_synced_file_without_a_name_is_lost)
{
    cr_assert_eq(outcomes(prepare_unsynced_name, size_or_7), 1u << 5 | 1u << 7);
}

static void prepare_removal(void)
{
    prepare_synced();
    OK(fs->ops->remove(fs, "a", &err));
}

Test(memory_files, a_removed_name_may_come_back)
{
    cr_assert_eq(outcomes(prepare_removal, size_or_7), 1u << 5 | 1u << 7);
}

static void prepare_synced_removal(void)
{
    prepare_removal();
    OK(fs->ops->sync_dir(fs, "", &err));
}

Test(memory_files, a_synced_removal_is_for_ever)
{
    cr_assert_eq(outcomes(prepare_synced_removal, size_or_7), 1u << 7);
}

static void prepare_rename(void)
{
    put("a", "hello");
    put("b", "x");
    OK(fs->ops->sync_dir(fs, "", &err));
    OK(fs->ops->rename(fs, "a", "b", &err));
}

/* 0: before, 1: after */
static unsigned renamed(void)
{
    bool before = size_of("a") == 5 && size_of("b") == 1, after = size_of("a") == -1 && size_of("b") == 5;

    cr_assert(before || after, "a rename is one change");
    return after;
}

Test(memory_files, a_rename_happened_or_did_not)
{
    cr_assert_eq(outcomes(prepare_rename, renamed), 3);
}

static void prepare_chain(void)
{
    put("a", "hello");
    OK(fs->ops->rename(fs, "a", "b", &err));
    OK(fs->ops->rename(fs, "b", "c", &err));
}

static unsigned under_which_name(void)
{
    const char *paths[] = {"a", "b", "c"};
    unsigned n = 0, found = 3;

    for (unsigned i = 0; i < 3; i++)
        if (size_of(paths[i]) == 5)
            n++, found = i;
    cr_assert_leq(n, 1, "one file, one name");
    return found;
}

Test(memory_files, nothing_is_found_under_two_names)
{
    cr_assert_eq(outcomes(prepare_chain, under_which_name), 0xf);
}

static void prepare_unsynced_dir(void)
{
    OK(fs->ops->make_dir(fs, "d", &err));
    put("d/1", "");
    put("d/2", "");
    OK(fs->ops->sync_dir(fs, "", &err)); /* the directory, not what is in it */
}

static unsigned which_files(void)
{
    return (size_of("d/1") == 0) + 2u * (size_of("d/2") == 0);
}

Test(memory_files, names_are_kept_or_lost_each_by_itself)
{
    cr_assert_eq(outcomes(prepare_unsynced_dir, which_files), 0xf);
}

static void prepare_removed_dir(void)
{
    prepare_unsynced_dir();
    OK(fs->ops->sync_dir(fs, "d", &err));
    OK(fs->ops->remove(fs, "d", &err));
}

static unsigned what_is_left(void)
{
    return fs->ops->sync_dir(fs, "d", &err) == NH_OK ? which_files() : 4;
}

Test(memory_files, a_removed_directory_may_come_back_in_part)
{
    cr_assert_eq(outcomes(prepare_removed_dir, what_is_left), 0x1f);
}

Test(memory_files, after_a_crash_all_that_is_found_is_durable)
{
    for (uint64_t s = 0; s < SEEDS; s++) {
        unsigned first;

        teardown();
        setup();
        prepare_unsynced_bytes();
        put("b", "x");
        crash(s);
        first = size_or_7() * 2 + (size_of("b") == 1);
        crash(s + 1000);
        cr_assert_eq(size_or_7() * 2 + (size_of("b") == 1), first);
    }
}

Test(memory_files, the_same_seed_gives_the_same_disk)
{
    unsigned first[SEEDS];

    for (int round = 0; round < 2; round++)
        for (uint64_t s = 0; s < SEEDS; s++) {
            teardown();
            setup();
            prepare_removed_dir();
            crash(s);
            if (round == 0)
                first[s] = what_is_left();
            else
                cr_assert_eq(first[s], what_is_left());
        }
}

Test(memory_files, open_files_are_dead_after_a_crash)
{
    struct file *f = create("a", "hello"), *g;
    char c;

    OK(fs->ops->sync(f, &err));
    OK(fs->ops->sync_dir(fs, "", &err));
    OK(fs->ops->open(fs, "a", &g, NULL, &err));
    crash(1);
    cr_assert_eq(fs->ops->write(f, "x", 1, &err), NH_EIO);
    cr_assert_eq(fs->ops->sync(f, &err), NH_EIO);
    cr_assert_eq(fs->ops->read_at(g, 0, &c, 1, &err), NH_EIO);
    OK(fs->ops->close(f, &err));
    OK(fs->ops->close(g, &err));
    cr_assert_eq(size_of("a"), 5);
    cr_assert_eq(memory_files_used(m), 5);
}

Test(memory_files, one_operation_fails_with_the_code_that_was_asked_for)
{
    memory_files_fail_at(m, 2, NH_ENOSPC);
    OK(fs->ops->make_dir(fs, "1", &err));
    cr_assert_eq(fs->ops->make_dir(fs, "2", &err), NH_ENOSPC);
    OK(fs->ops->make_dir(fs, "3", &err));
    cr_assert_eq(fs->ops->sync_dir(fs, "2", &err), NH_ENOTFOUND, "it had no effect");
    cr_assert_eq(memory_files_operations(m), 4);
}

Test(memory_files, a_dead_host_does_nothing_more)
{
    struct file *f;

    memory_files_crash_at(m, 2);
    OK(fs->ops->create(fs, "a", &f, &err));
    cr_assert(!memory_files_is_crashed(m));
    cr_assert_eq(fs->ops->write(f, "x", 1, &err), NH_EIO);
    cr_assert(memory_files_is_crashed(m));
    cr_assert_eq(fs->ops->sync_dir(fs, "", &err), NH_EIO);
    cr_assert_eq(size_of("a"), -1);
    cr_assert_eq(fs->ops->close(f, &err), NH_EIO);
    cr_assert_eq(memory_files_used(m), 0);
    crash(1);
    OK(fs->ops->make_dir(fs, "b", &err));
}

Test(memory_files, every_removed_name_is_an_operation)
{
    prepare_unsynced_dir();
    memory_files_fail_at(m, 3, NH_EIO); /* looked up, one removed */
    cr_assert_eq(fs->ops->remove(fs, "d", &err), NH_EIO);
    cr_assert_eq((size_of("d/1") == 0) + (size_of("d/2") == 0), 1);
    OK(fs->ops->remove(fs, "d", &err));
    cr_assert_eq(fs->ops->sync_dir(fs, "d", &err), NH_ENOTFOUND);
}

Test(memory_files, a_full_disk_takes_what_fits)
{
    struct file *f = create("a", "hello");
    uint64_t space, whole;

    memory_files_set_limit(m, 8);
    OK(fs->ops->space(fs, "", &space, &whole, &err));
    cr_assert_eq(space, 3);
    cr_assert_eq(whole, 8);
    OK(fs->ops->write(f, "123", 3, &err));
    cr_assert_eq(fs->ops->write(f, "4", 1, &err), NH_ENOSPC);
    memory_files_set_limit(m, 10);
    cr_assert_eq(fs->ops->write(f, "45678", 5, &err), NH_ENOSPC);
    cr_assert_eq(size_of("a"), 10);
    memory_files_set_limit(m, 4);
    OK(fs->ops->space(fs, "", &space, NULL, &err));
    cr_assert_eq(space, 0);
    OK(fs->ops->remove(fs, "a", &err));
    cr_assert_eq(memory_files_used(m), 10, "it is open");
    OK(fs->ops->close(f, &err));
    cr_assert_eq(memory_files_used(m), 0);
}

Test(memory_files, a_replaced_file_takes_no_space)
{
    put("a", "hello");
    put("b", "x");
    OK(fs->ops->rename(fs, "b", "a", &err));
    cr_assert_eq(memory_files_used(m), 1);
    crash(3);
    cr_assert_eq(memory_files_used(m), (uint64_t)((size_of("a") > 0 ? size_of("a") : 0) + (size_of("b") > 0 ? size_of("b") : 0)));
}
