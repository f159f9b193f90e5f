/* remove_entries_to and compact_entries_to. */
#include "tests/conformance/logdb/fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

TestSuite(removal, .init = fixture_init, .fini = fixture_deinit);

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n;
};

static void on_done(void *ctx)
{
    struct waiter *w = ctx;

    pthread_mutex_lock(&w->lock);
    w->n++;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void wait_for(struct waiter *w, int n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&w->lock);
    while (w->n < n)
        cr_assert_eq(pthread_cond_timedwait(&w->changed, &w->lock, &until), 0, "done was not called");
    cr_assert_eq(w->n, n);
    pthread_mutex_unlock(&w->lock);
}

static void remove_to(uint64_t shard_id, uint64_t index)
{
    expect_ok(f.ops->remove_entries_to(f.db, shard_id, REPLICA, index, &f.err));
}

static void compact_to(uint64_t shard_id, uint64_t index)
{
    struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

    expect_ok(f.ops->compact_entries_to(f.db, shard_id, REPLICA, index, on_done, &w, &f.err));
    wait_for(&w, 1);
}

static void expect_compacted(uint64_t shard_id, uint64_t low)
{
    struct collected c;

    cr_assert_eq(collect(shard_id, REPLICA, low, low + 1, SIZE_MAX, &c), NH_ECOMPACTED, "entry %lu", low);
    cr_assert_eq(c.n, 0);
}

/* Removal to every index of [1, 30] in three blocks, with and without compaction. */
Test(removal, to_every_index)
{
    for (uint64_t index = 1; index <= 30; index++) {
        for (uint64_t first = 1; first < 30; first += 10)
            must_save_entries(index, REPLICA, first, 10, 1);
        remove_to(index, index);
        expect_entries(index, REPLICA, index + 1, 30, 1);
        if (index % 2)
            compact_to(index, index);
    }
    for (int again = 0; again < 2; again++, fixture_reopen())
        for (uint64_t index = 1; index <= 30; index++) {
            expect_entries(index, REPLICA, index + 1, 30, 1);
            expect_compacted(index, index);
            expect_compacted(index, 1);
        }
}

Test(removal, an_emptied_log_goes_on_where_it_ended)
{
    struct nh_update u = make_state(SHARD, REPLICA, 3, 1, 10);

    must_save_entries(SHARD, REPLICA, 1, 10, 1);
    must_save(&u, 1);
    remove_to(SHARD, 10);
    compact_to(SHARD, 10);
    for (int again = 0; again < 2; again++, fixture_reopen()) {
        expect_bounds(SHARD, REPLICA, 11, 10);
        expect_state(SHARD, REPLICA, 3, 1, 10);
    }
    must_save_entries(SHARD, REPLICA, 11, 4, 3);
    compact_to(SHARD, 10);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 11, 14, 3);
    expect_state(SHARD, REPLICA, 3, 1, 10);
}

/* The state came with entries; those are gone, it is not. */
Test(removal, the_hard_state_outlives_the_entries_it_came_with)
{
    struct nh_update u = make_update(SHARD, REPLICA, 1, 10, 1);

    u.has_state = true;
    u.state = (struct nh_state){.term = 1, .vote = 2, .commit = 10};
    must_save(&u, 1);
    update_deinit(&u);
    remove_to(SHARD, 10);
    compact_to(SHARD, 10);
    for (int again = 0; again < 2; again++, fixture_reopen())
        expect_state(SHARD, REPLICA, 1, 2, 10);
}

Test(removal, never_goes_back_and_never_invents_entries)
{
    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    remove_to(SHARD, 10);
    remove_to(SHARD, 5);
    expect_entries(SHARD, REPLICA, 11, 20, 1);
    remove_to(SHARD, 1000);
    expect_bounds(SHARD, REPLICA, 21, 20);
    remove_to(SHARD + 1, 5); /* nothing there */
    cr_assert_eq(f.ops->read_raft_state(f.db, SHARD + 1, REPLICA, &(struct nh_raft_state){0}, NULL), NH_ENOTFOUND);
}

Test(removal, compaction_takes_only_what_was_removed)
{
    for (uint64_t first = 1; first < 100; first += 10)
        must_save_entries(SHARD, REPLICA, first, 10, 1);
    compact_to(SHARD, 50);
    expect_entries(SHARD, REPLICA, 1, 100, 1);
    remove_to(SHARD, 50);
    compact_to(SHARD, 1000);
    for (int again = 0; again < 2; again++, fixture_reopen())
        expect_entries(SHARD, REPLICA, 51, 100, 1);
}

Test(removal, saves_below_the_first_entry_are_refused)
{
    struct nh_update u = make_update(SHARD, REPLICA, 10, 5, 2);

    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    remove_to(SHARD, 10);
    cr_assert_eq(save(&u, 1, 1), NH_EINVAL);
    expect_entries(SHARD, REPLICA, 11, 20, 1);
    update_deinit(&u);
    must_save_entries(SHARD, REPLICA, 11, 1, 2);
    expect_entries(SHARD, REPLICA, 11, 11, 2);
}

/* `done` is called once for each call, also when the store is closed right away. */
Test(removal, done_is_called_once_even_at_close)
{
    struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    remove_to(SHARD, 10);
    for (int i = 0; i < 100; i++)
        expect_ok(f.ops->compact_entries_to(f.db, SHARD, REPLICA, 10, on_done, &w, &f.err));
    fixture_close();
    cr_assert_eq(w.n, 100);
    fixture_open();
    expect_entries(SHARD, REPLICA, 11, 20, 1);
}
