/* A crash or a failure at any operation of a snapshot leaves the old one or the new one, whole, and nothing else. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/engine/snapshot_fixture.h"

#define SEEDS 40u

TestSuite(snapshot_crash, .init = snapshot_setup_memory, .fini = snapshot_teardown);

/* A new disk with snapshots of 5, 8 and 10, of which `keep` are left. */
static void begin(uint32_t keep)
{
    snapshot_teardown();
    snapshot_setup_memory();
    OK(snapshot_take(5, 0, keep));
    OK(snapshot_take(8, 7, keep));
    OK(snapshot_take(10, 0, keep));
}

/* What the recorded index and `keep` demand. */
static void check(uint32_t keep)
{
    static const uint64_t all[] = {5, 8, 10, 20, 30};
    uint64_t want[4] = {0};
    size_t n = 0, at = 0;

    while (all[at] != x.recorded)
        at++;
    while (n < keep && n <= at) {
        want[n] = all[at - n];
        n++;
    }
    snapshot_check_images(want);
}

/* The host comes back, cleans up and goes on. */
static void come_back(uint64_t seed, uint32_t keep)
{
    snapshot_crash(seed);
    OK(snapshot_dir_clean(&x.dir, x.recorded, keep, &x.err));
    check(keep);
}

/* Crashes at the n-th operation of taking 20. False: there are not as many. */
static bool crash_at(uint64_t n, uint64_t seed, uint32_t keep, uint64_t from)
{
    bool crashed;
    int r;

    begin(keep);
    memory_files_crash_at(x.memory, n);
    r = snapshot_take(20, from, keep);
    crashed = memory_files_is_crashed(x.memory);
    cr_assert_eq(r, crashed ? NH_EIO : NH_OK);
    come_back(seed, keep);
    if (x.recorded == 10)
        OK(snapshot_take(20, from, keep));
    OK(snapshot_take(30, 0, keep));
    come_back(seed + 1, keep);
    return crashed;
}

static void crash_everywhere(uint32_t keep, uint64_t from)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        uint64_t n = 1;

        while (crash_at(n, seed * 1000 + n, keep, from))
            n++;
        cr_assert_gt(n, 15); /* operations of a snapshot */
    }
}

Test(snapshot_crash, anywhere_in_a_snapshot_of_our_own)
{
    crash_everywhere(1, 0);
}

Test(snapshot_crash, anywhere_in_one_that_is_received)
{
    crash_everywhere(1, 9);
}

Test(snapshot_crash, anywhere_with_older_ones_kept)
{
    crash_everywhere(2, 0);
    crash_everywhere(3, 9);
}

/* The clean-up after a crash crashes too. */
static bool crash_twice(uint64_t n, uint64_t k, uint64_t seed, bool *ret_second)
{
    bool first;

    begin(2);
    memory_files_crash_at(x.memory, n);
    snapshot_take(20, 0, 2);
    first = memory_files_is_crashed(x.memory);
    snapshot_crash(seed);
    memory_files_crash_at(x.memory, k);
    snapshot_dir_clean(&x.dir, x.recorded, 2, &x.err);
    *ret_second = memory_files_is_crashed(x.memory);
    come_back(seed + 1, 2);
    return first;
}

Test(snapshot_crash, anywhere_while_cleaning_up)
{
    for (uint64_t seed = 0; seed < 5; seed++) {
        bool first = true, second;

        for (uint64_t n = 1; first; n++) {
            second = true;
            for (uint64_t k = 1; second; k++)
                first = crash_twice(n, k, seed * 10000 + n * 100 + k, &second);
        }
    }
}

/* One operation fails; the host lives on, tries again, and crashes later. False: there are not as many. */
static bool fail_at(uint64_t n, int code, uint64_t seed, uint32_t keep)
{
    int r;

    begin(keep);
    memory_files_fail_at(x.memory, n, code);
    r = snapshot_take(20, 0, keep);
    cr_assert(r == NH_OK || r == code);
    memory_files_fail_at(x.memory, 0, 0);
    snapshot_check(x.recorded);
    if (seed % 2 == 0) /* else it comes back without another try */
        OK(snapshot_take(20, 0, keep));
    if (seed % 2 == 0)
        check(keep);
    come_back(seed, keep);
    return r != NH_OK;
}

static void fail_everywhere(int code, uint32_t keep)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        uint64_t n = 1;

        while (fail_at(n, code, seed, keep))
            n++;
        cr_assert_gt(n, 15);
    }
}

Test(snapshot_crash, io_errors_anywhere)
{
    fail_everywhere(NH_EIO, 1);
    fail_everywhere(NH_EIO, 2);
}

Test(snapshot_crash, no_space_anywhere)
{
    fail_everywhere(NH_ENOSPC, 1);
    fail_everywhere(NH_ENOSPC, 3);
}

Test(snapshot_crash, a_full_disk_is_as_before_afterwards)
{
    uint64_t used;

    begin(1);
    used = memory_files_used(x.memory);
    for (uint64_t spare = 0; spare < IMAGE_BYTES + 8; spare += 50) {
        memory_files_set_limit(x.memory, used + spare);
        cr_assert_eq(snapshot_take(20, 0, 1), NH_ENOSPC);
        cr_assert_eq(memory_files_used(x.memory), used);
        check(1);
    }
    memory_files_set_limit(x.memory, used * 2);
    OK(snapshot_take(20, 0, 1));
    check(1);
}

/* The first one of a replica brings its directory with it. */
Test(snapshot_crash, a_directory_is_as_durable_as_its_first_image)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(1);
        OK(snapshot_dir_remove(&x.dir, &x.err));
        OK(snapshot_dir_make(&x.dir, &x.err));
        OK(snapshot_take(20, 0, 1));
        come_back(seed, 1);
    }
}

Test(snapshot_crash, a_removed_replica_stays_removed)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(2);
        OK(snapshot_dir_remove(&x.dir, &x.err));
        snapshot_crash(seed); /* makes it anew, empty */
        snapshot_check_names(0, NULL);
    }
}

/* ---- kill -9 at named points, on real files ---- */

#ifdef NH_FAILPOINTS

TestSuite(snapshot_killed, .init = snapshot_setup_posix, .fini = snapshot_teardown);

/* A child takes 10, then 20, where it is killed; returns how far it came, as the log store would know. */
static uint64_t killed_at(const char *name)
{
    char point[64];
    pid_t child;
    int status;

    snprintf(point, sizeof point, "%s:2", name);
    child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        setenv("NODEHOST_FAILPOINT", point, 1);
        if (snapshot_take(10, 0, 1) == NH_OK)
            snapshot_take(20, 0, 1);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s", name);
    return strcmp(name, "snapshot_pruned") == 0 ? 20 : 10;
}

Test(snapshot_killed, at_every_point)
{
    static const char *points[] = {"snapshot_image_synced",  "snapshot_record_written",
                                   "snapshot_record_synced", "snapshot_directory_synced",
                                   "snapshot_renamed",       "snapshot_committed",
                                   "snapshot_pruned"};

    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        const uint64_t recorded = killed_at(points[i]);

        OK(snapshot_dir_init(&x.dir, x.fs, x.root, SHARD, REPLICA, &x.err));
        OK(snapshot_dir_clean(&x.dir, recorded, 1, &x.err));
        snapshot_check_images((const uint64_t[]){recorded, 0});
        OK(snapshot_dir_clean(&x.dir, 0, 1, &x.err));
        snapshot_check_names(0, NULL);
    }
}

#endif
