/* begin_save and end_save, of stores that have them. */
#include "tests/conformance/logdb/fixture.h"

#include <pthread.h>

TestSuite(two_steps, .init = fixture_init, .fini = fixture_deinit, .timeout = 60);

static bool skip(void)
{
    if (NH_HAS(f.ops, begin_save))
        return false;
    fprintf(stderr, "skipped: store %s saves in one step\n", f.ops->name);
    return true;
}

Test(two_steps, there_are_both_or_none)
{
    cr_assert_eq(NH_HAS(f.ops, begin_save), NH_HAS(f.ops, end_save));
}

Test(two_steps, what_was_ended_is_there_also_after_an_opening)
{
    struct nh_update first = make_update(SHARD, REPLICA, 1, 5, 1), second = make_update(SHARD, REPLICA, 6, 5, 1);

    if (!skip()) {
        expect_ok(f.ops->begin_save(f.db, &first, 1, 1, &f.err));
        expect_ok(f.ops->end_save(f.db, 1, &f.err));
        expect_ok(f.ops->begin_save(f.db, &second, 1, 1, &f.err));
        expect_ok(f.ops->end_save(f.db, 1, &f.err));
        expect_entries(SHARD, REPLICA, 1, 10, 1);
        if (!fixture_is("memory")) {
            fixture_reopen();
            expect_entries(SHARD, REPLICA, 1, 10, 1);
        }
    }
    update_deinit(&first);
    update_deinit(&second);
}

Test(two_steps, saves_of_workers_overlap)
{
    struct nh_update u[N_WORKERS];

    for (uint32_t i = 0; i < N_WORKERS; i++)
        u[i] = make_update(SHARD + i, REPLICA, 1, 3, 1);
    if (!skip()) {
        for (uint32_t i = 0; i < N_WORKERS; i++)
            expect_ok(f.ops->begin_save(f.db, &u[i], 1, i + 1, &f.err));
        for (uint32_t i = N_WORKERS; i > 0; i--)
            expect_ok(f.ops->end_save(f.db, i, &f.err));
        for (uint32_t i = 0; i < N_WORKERS; i++)
            expect_entries(SHARD + i, REPLICA, 1, 3, 1);
    }
    for (uint32_t i = 0; i < N_WORKERS; i++)
        update_deinit(&u[i]);
}

static void *end_save(void *arg)
{
    struct nh_error err;

    (void)arg;
    MUST(f.ops->end_save(f.db, 1, &err) == NH_OK, "%s", err.text);
    return NULL;
}

Test(two_steps, another_thread_may_end_it)
{
    struct nh_update u = make_update(SHARD, REPLICA, 1, 3, 1);
    pthread_t thread;

    if (!skip()) {
        expect_ok(f.ops->begin_save(f.db, &u, 1, 1, &f.err));
        cr_assert_eq(pthread_create(&thread, NULL, end_save, NULL), 0);
        pthread_join(thread, NULL);
        expect_entries(SHARD, REPLICA, 1, 3, 1);
        must_save_entries(SHARD, REPLICA, 4, 3, 1);
        expect_entries(SHARD, REPLICA, 1, 6, 1);
    }
    update_deinit(&u);
}

Test(two_steps, a_save_that_was_refused_has_no_end)
{
    struct nh_update gap = make_update(SHARD, REPLICA, 9, 3, 1);

    must_save_entries(SHARD, REPLICA, 1, 3, 1);
    if (!skip()) {
        cr_assert_lt(f.ops->begin_save(f.db, &gap, 1, N_WORKERS + 1, &f.err), 0, "there is no such worker");
        must_save_entries(SHARD, REPLICA, 4, 3, 1);
        expect_entries(SHARD, REPLICA, 1, 6, 1);
    }
    update_deinit(&gap);
}

Test(two_steps, an_empty_save_has_an_end)
{
    if (skip())
        return;
    expect_ok(f.ops->begin_save(f.db, NULL, 0, 1, &f.err));
    expect_ok(f.ops->end_save(f.db, 1, &f.err));
}

Test(two_steps, a_second_save_waits_for_the_end_of_the_first)
{
    struct nh_update u = make_update(SHARD, REPLICA, 1, 3, 1), next = make_update(SHARD, REPLICA, 4, 3, 1);

    if (!skip()) {
        expect_ok(f.ops->begin_save(f.db, &u, 1, 1, &f.err));
        cr_assert_lt(f.ops->begin_save(f.db, &next, 1, 1, &f.err), 0);
        expect_ok(f.ops->end_save(f.db, 1, &f.err));
        expect_entries(SHARD, REPLICA, 1, 3, 1);
    }
    update_deinit(&u);
    update_deinit(&next);
}
