/* The crash model of the memory store. The contract itself: tests/conformance/logdb. */
#include "tests/conformance/logdb/fixture.h"

#include <stdlib.h>

#include "logdb/memory/memory_logdb.h"
#include "raftio/plugin.h"

static struct memory_disk *disk;

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "memory", 1);
    fixture_init();
    disk = memory_disk_get(f.dir);
}

TestSuite(memory_disk, .init = init, .fini = fixture_deinit);

/* One entry with term = index for every shard, in the queue of a worker. */
static void save_one(uint32_t worker_id, uint64_t shard_id, uint64_t index, bool must_sync)
{
    struct nh_update u = make_update(shard_id, REPLICA, index, 1, index);

    u.must_sync = must_sync;
    u.has_state = true;
    u.state = (struct nh_state){.term = index};
    expect_ok(save(&u, 1, worker_id));
    update_deinit(&u);
}

static uint64_t synced_last(uint64_t shard_id)
{
    struct nh_raft_state s = {0};
    int r = memory_disk_read_state(disk, shard_id, REPLICA, &s, &f.err);

    cr_assert(r == NH_OK || r == NH_ENOTFOUND);
    cr_assert_eq(s.state.term, s.last_index, "state and entries of a call come together");
    return s.last_index;
}

static uint32_t keep_n(void *ctx, uint32_t worker_id, uint32_t n_unsynced)
{
    (void)n_unsynced;
    return ((const uint32_t *)ctx)[worker_id];
}

static void crash(memory_keep_fn keep, void *ctx)
{
    memory_disk_crash(disk, keep, ctx);
    fixture_reopen();
}

Test(memory_disk, a_crash_drops_what_is_not_synced)
{
    save_one(1, 1, 1, true);
    save_one(1, 1, 2, false);
    save_one(1, 1, 3, false);
    cr_assert_eq(memory_disk_unsynced(disk, 1), 2);
    cr_assert_eq(synced_last(1), 1);
    expect_bounds(1, REPLICA, 1, 3);
    crash(NULL, NULL);
    expect_bounds(1, REPLICA, 1, 1);
    cr_assert_eq(memory_disk_unsynced(disk, 1), 0);
}

/* For every number of kept calls: a prefix of each worker's queue. */
Test(memory_disk, a_crash_keeps_the_first_calls_of_every_queue)
{
    for (uint32_t kept = 0; kept <= 6; kept++) {
        uint32_t keep[N_WORKERS + 1] = {0, kept, 5 - (kept > 5 ? 5 : kept), 0, 0};

        for (uint64_t i = 1; i <= 5; i++) {
            save_one(1, 10 + kept, i, false);
            save_one(2, 20 + kept, i, false);
        }
        crash(keep_n, keep);
        cr_assert_eq(synced_last(10 + kept), kept > 5 ? 5 : kept);
        cr_assert_eq(synced_last(20 + kept), keep[2]);
        if (kept > 0)
            expect_bounds(10 + kept, REPLICA, 1, kept > 5 ? 5 : kept);
    }
}

Test(memory_disk, a_synced_save_syncs_its_workers_queue_only)
{
    save_one(1, 1, 1, false);
    save_one(2, 2, 1, false);
    save_one(1, 3, 1, true);
    cr_assert_eq(memory_disk_unsynced(disk, 1), 0);
    cr_assert_eq(memory_disk_unsynced(disk, 2), 1);
    crash(NULL, NULL);
    cr_assert_eq(synced_last(1), 1);
    cr_assert_eq(synced_last(2), 0);
    cr_assert_eq(synced_last(3), 1);
}

Test(memory_disk, a_call_is_kept_or_dropped_as_a_whole)
{
    for (uint32_t kept = 0; kept <= 1; kept++) {
        uint32_t keep[N_WORKERS + 1] = {0, kept};
        struct nh_update u[3] = {make_update(1 + kept, 1, 1, 5, 1), make_update(1 + kept, 2, 1, 5, 1),
                                 make_update(1 + kept, 3, 1, 5, 1)};

        for (size_t i = 0; i < 3; i++)
            u[i].must_sync = false;
        must_save(u, 3);
        crash(keep_n, keep);
        for (size_t i = 0; i < 3; i++) {
            struct nh_raft_state s;

            cr_assert_eq(f.ops->read_raft_state(f.db, 1 + kept, i + 1, &s, NULL), kept ? NH_OK : NH_ENOTFOUND);
            update_deinit(&u[i]);
        }
    }
}

Test(memory_disk, a_truncation_that_is_lost_brings_the_old_entries_back)
{
    struct nh_update u = make_update(1, REPLICA, 3, 1, 2);

    must_save_entries(1, REPLICA, 1, 10, 1);
    u.must_sync = false;
    must_save(&u, 1);
    update_deinit(&u);
    expect_bounds(1, REPLICA, 1, 3);
    crash(NULL, NULL);
    expect_entries(1, REPLICA, 1, 10, 1);
}

Test(memory_disk, other_writes_sync_everything_first)
{
    struct nh_snapshot s = make_snapshot(1, 2, 2);
    const struct nh_bootstrap b = {.join = true};

    save_one(1, 1, 1, false);
    save_one(1, 1, 2, false);
    save_one(2, 2, 1, false);
    must_save_snapshot(REPLICA, &s);
    cr_assert_eq(synced_last(1), 2);
    cr_assert_eq(synced_last(2), 1);
    save_one(1, 1, 3, false);
    expect_ok(f.ops->save_bootstrap(f.db, 9, REPLICA, &b, &f.err));
    save_one(1, 1, 4, false);
    expect_ok(f.ops->remove_entries_to(f.db, 1, REPLICA, 2, &f.err));
    cr_assert_eq(synced_last(1), 4);
    save_one(2, 2, 2, false);
    expect_ok(f.ops->remove_replica_data(f.db, 2, REPLICA, &f.err));
    crash(NULL, NULL);
    expect_bounds(1, REPLICA, 3, 4);
    cr_assert_eq(synced_last(2), 0);
}

Test(memory_disk, a_store_that_crashed_is_dead)
{
    struct nh_update u = make_update(1, REPLICA, 1, 1, 1);

    memory_disk_crash(disk, NULL, NULL);
    cr_assert_eq(save(&u, 1, 1), NH_EFENCED);
    cr_assert_eq(f.ops->remove_replica_data(f.db, 1, REPLICA, &f.err), NH_EFENCED);
    fixture_reopen();
    must_save(&u, 1);
    update_deinit(&u);
}

/* The n-th write fails; later ones are fenced; a crash may or may not keep the one that failed. */
Test(memory_disk, an_injected_failure_fences_the_store)
{
    for (uint32_t kept = 0; kept <= 2; kept++) {
        uint32_t keep[N_WORKERS + 1] = {0, kept};
        uint64_t shard_id = 1 + kept;
        struct nh_update u = make_update(shard_id, REPLICA, 3, 1, 3);

        u.has_state = true;
        u.state = (struct nh_state){.term = 3};
        memory_disk_fail_after(disk, 2);
        save_one(1, shard_id, 1, true);
        save_one(1, shard_id, 2, false);
        cr_assert_eq(save(&u, 1, 1), NH_EIO, "%s", f.err.text);
        cr_assert_eq(save(&u, 1, 1), NH_EFENCED);
        cr_assert_eq(save(&u, 1, 2), NH_EFENCED);
        expect_bounds(shard_id, REPLICA, 1, 2);
        crash(keep_n, keep);
        cr_assert_eq(synced_last(shard_id), 1 + kept);
        update_deinit(&u);
    }
}

Test(memory_disk, closing_after_a_failure_drops_the_failed_save)
{
    struct nh_update u = make_update(1, REPLICA, 2, 1, 2);

    save_one(1, 1, 1, false);
    memory_disk_fail_after(disk, 0);
    cr_assert_eq(save(&u, 1, 1), NH_EIO);
    update_deinit(&u);
    fixture_reopen();
    expect_bounds(1, REPLICA, 1, 1);
    save_one(1, 1, 2, true);
}

Test(memory_disk, other_writes_can_fail_too)
{
    const struct nh_bootstrap b = {.join = true};
    struct nh_bootstrap read;

    memory_disk_fail_after(disk, 1);
    expect_ok(f.ops->save_bootstrap(f.db, 1, REPLICA, &b, &f.err));
    cr_assert_eq(f.ops->save_bootstrap(f.db, 2, REPLICA, &b, &f.err), NH_EIO);
    cr_assert_eq(f.ops->save_bootstrap(f.db, 3, REPLICA, &b, &f.err), NH_EFENCED);
    fixture_reopen();
    expect_ok(f.ops->get_bootstrap(f.db, 1, REPLICA, &read, &f.err));
    nh_bootstrap_deinit(&read);
    cr_assert_eq(f.ops->get_bootstrap(f.db, 2, REPLICA, &read, &f.err), NH_ENOTFOUND);
}

static int count(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    (void)err;
    for (size_t at = 0; at < size_bytes; at += nh_record_bytes(records + at))
        ++*(uint64_t *)ctx;
    return NH_OK;
}

/* What a checker sees from outside, also while the store is closed. */
Test(memory_disk, the_synced_image_can_be_read)
{
    uint64_t n = 0;
    const struct nh_entry_sink sink = {.add = count, .ctx = &n};

    for (uint64_t i = 1; i <= 8; i++)
        save_one(1, 1, i, i <= 5);
    expect_ok(memory_disk_iterate(disk, 1, REPLICA, 1, 100, &sink, &f.err));
    cr_assert_eq(n, 5);
    cr_assert_eq(memory_disk_iterate(disk, 1, REPLICA, 6, 100, &sink, &f.err), NH_ENOTFOUND);
    fixture_close();
    n = 0;
    expect_ok(memory_disk_iterate(disk, 1, REPLICA, 1, 100, &sink, &f.err));
    cr_assert_eq(n, 8, "closing syncs");
    cr_assert_eq(memory_disk_unsynced(disk, 77), 0, "no such worker");
}

Test(memory_disk, a_queue_is_bounded)
{
    for (uint64_t i = 1; i <= MEMORY_UNSYNCED_MAX; i++)
        save_one(1, 1, i, false);
    cr_assert_eq(memory_disk_unsynced(disk, 1), MEMORY_UNSYNCED_MAX);
    cr_assert_eq(synced_last(1), 0);
    save_one(1, 1, MEMORY_UNSYNCED_MAX + 1, false);
    cr_assert_eq(memory_disk_unsynced(disk, 1), MEMORY_UNSYNCED_MAX);
    cr_assert_eq(synced_last(1), 1, "the oldest call is written back");
}

Test(memory_disk, disks_are_apart_and_open_once)
{
    const struct nh_logdb_config config = {.struct_size = sizeof config,
                                           .dir = "other",
                                           .n_workers = 1,
                                           .services = nh_plugin_services()};
    struct nh_logdb_config same = config, bad = config;
    struct nh_logdb *other, *second;

    same.dir = f.dir;
    bad.options = "x=1";
    save_one(1, 1, 1, true);
    cr_assert_eq(f.ops->open(&same, &second, &f.err), NH_ELOCKED);
    cr_assert_eq(f.ops->open(&bad, &second, &f.err), NH_EINVAL);
    expect_ok(f.ops->open(&config, &other, &f.err));
    cr_assert_eq(f.ops->read_raft_state(other, 1, REPLICA, &(struct nh_raft_state){0}, NULL), NH_ENOTFOUND);
    f.ops->close(other);
    memory_disk_drop("other");
    memory_disk_drop("never seen");
}
