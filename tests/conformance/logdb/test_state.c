/* Hard states, must_sync, several updates of one replica in a call, very many replicas in a call. */
#include "tests/conformance/logdb/fixture.h"

#include <stdlib.h>

#include "raftio/support/memory.h"

TestSuite(state, .init = fixture_init, .fini = fixture_deinit);

Test(state, a_state_without_entries)
{
    struct nh_update u = make_state(SHARD, REPLICA, 3, 2, 0);

    must_save(&u, 1);
    for (int again = 0; again < 2; again++, fixture_reopen()) {
        expect_state(SHARD, REPLICA, 3, 2, 0);
        expect_bounds(SHARD, REPLICA, 1, 0);
    }
}

Test(state, entries_without_a_state_leave_it_as_it_was)
{
    struct nh_update u = make_state(SHARD, REPLICA, 3, 2, 1);

    must_save_entries(SHARD, REPLICA, 1, 4, 1);
    expect_state(SHARD, REPLICA, 0, 0, 0);
    must_save(&u, 1);
    must_save_entries(SHARD, REPLICA, 5, 4, 3);
    for (int again = 0; again < 2; again++, fixture_reopen())
        expect_state(SHARD, REPLICA, 3, 2, 1);
}

/* In any order of states with and without entries, and over reopening, the newest counts; also when it is lower. */
Test(state, the_newest_counts)
{
    uint64_t seed = 7, last = 0;

    for (int i = 0; i < 200; i++) {
        uint64_t term = below(&seed, 50), vote = below(&seed, 4), commit = below(&seed, 100);
        struct nh_update u;

        if (below(&seed, 2)) {
            u = make_update(SHARD, REPLICA, last + 1, 2, 1);
            last += 2;
        } else {
            u = (struct nh_update){.shard_id = SHARD, .replica_id = REPLICA};
        }
        u.has_state = true;
        u.state = (struct nh_state){.term = term, .vote = vote, .commit = commit};
        u.must_sync = below(&seed, 2);
        must_save(&u, 1);
        update_deinit(&u);
        if (below(&seed, 10) == 0)
            fixture_reopen();
        expect_state(SHARD, REPLICA, term, vote, commit);
        expect_bounds(SHARD, REPLICA, 1, last);
    }
}

Test(state, later_updates_of_a_call_win)
{
    struct nh_update u[4] = {make_state(SHARD, REPLICA, 1, 1, 0), make_update(SHARD, REPLICA, 1, 3, 1),
                             make_state(SHARD, REPLICA, 2, 0, 1), make_update(SHARD, REPLICA, 4, 3, 1)};

    must_save(u, 4);
    for (int again = 0; again < 2; again++, fixture_reopen()) {
        expect_state(SHARD, REPLICA, 2, 0, 1);
        expect_entries(SHARD, REPLICA, 1, 6, 1);
    }
    for (size_t i = 0; i < 4; i++)
        update_deinit(&u[i]);
}

/* Not synced, but read back at once, and there after an orderly close. */
Test(state, saves_without_sync_are_visible_and_survive_a_close)
{
    struct nh_update u = make_update(SHARD, REPLICA, 1, 5, 1);

    u.must_sync = false;
    must_save(&u, 1);
    update_deinit(&u);
    expect_entries(SHARD, REPLICA, 1, 5, 1);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 1, 5, 1);
}

static struct nh_update *make_many(size_t n, uint64_t first, uint64_t term)
{
    struct nh_update *u = xmalloc(n * sizeof *u);

    for (size_t i = 0; i < n; i++) {
        u[i] = make_update(i + 1, REPLICA, first, (uint32_t)(1 + i % 3), term);
        u[i].has_state = true;
        u[i].state = (struct nh_state){.term = term, .commit = first};
    }
    return u;
}

static void free_many(struct nh_update *u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        update_deinit(&u[i]);
    free(u);
}

Test(state, thousands_of_replicas_in_one_call)
{
    const size_t n = 5000;
    struct nh_update *u = make_many(n, 1, 1);

    must_save(u, n);
    free_many(u, n);
    u = make_many(n, 2, 2);
    must_save(u, n);
    free_many(u, n);
    fixture_reopen();
    for (size_t i = 0; i < n; i += 7) {
        uint64_t terms[] = {1, 2, 2, 2};

        expect_log(i + 1, REPLICA, 1, terms, 2 + i % 3);
        expect_state(i + 1, REPLICA, 2, 0, 2);
    }
}

Test(state, metrics_are_cheap_and_calm)
{
    struct nh_logdb_metrics m = {.busy = true};

    for (int i = 0; i < 10000; i++)
        f.ops->get_metrics(f.db, &m);
    cr_assert(!m.busy);
}

/* Records of a replica lie side by side: a state that was saved alone, a start, neither, both. */
Test(state, the_first_index_is_found_beside_a_state_and_without)
{
    for (uint64_t shard_id = SHARD; shard_id < SHARD + 4; shard_id++) {
        struct nh_update state = make_state(shard_id, REPLICA, 2, 1, 7);

        must_save_entries(shard_id, REPLICA, 1, 10, 1);
        if (shard_id & 1)
            expect_ok(save(&state, 1, 1));
        if (shard_id & 2)
            expect_ok(f.ops->remove_entries_to(f.db, shard_id, REPLICA, 4, &f.err));
    }
    for (int round = 0; round < 2; round++) {
        for (uint64_t shard_id = SHARD; shard_id < SHARD + 4; shard_id++) {
            struct nh_raft_state s;

            expect_ok(f.ops->read_raft_state(f.db, shard_id, REPLICA, &s, &f.err));
            cr_assert_eq(s.first_index, shard_id & 2 ? 5 : 1);
            cr_assert_eq(s.last_index, 10);
            if (shard_id & 1)
                cr_assert_eq(s.state.commit, 7);
        }
        fixture_reopen();
    }
}
