/* Saving and iterating entries: block edges, the max_bytes rule, errors. */
#include "tests/conformance/logdb/fixture.h"

#include <stdlib.h>

TestSuite(entries, .init = fixture_init, .fini = fixture_deinit);

Test(entries, binary_format_is_a_constant)
{
    uint32_t format = f.ops->binary_format(f.db);

    cr_assert_gt(format, 0);
    fixture_reopen();
    cr_assert_eq(f.ops->binary_format(f.db), format);
}

Test(entries, nothing_saved_is_not_found)
{
    struct nh_raft_state s = {.last_index = 99};
    struct collected c;

    cr_assert_eq(f.ops->read_raft_state(f.db, SHARD, REPLICA, &s, &f.err), NH_ENOTFOUND);
    cr_assert_eq(s.last_index, 99, "outputs are set on success only");
    cr_assert_eq(collect(SHARD, REPLICA, 1, 2, SIZE_MAX, &c), NH_ENOTFOUND);
    cr_assert_eq(c.n, 0);
    cr_assert_eq(f.ops->read_raft_state(f.db, SHARD, REPLICA, &s, NULL), NH_ENOTFOUND, "err may be NULL");
}

Test(entries, one_entry)
{
    must_save_entries(SHARD, REPLICA, 1, 1, 5);
    expect_entries(SHARD, REPLICA, 1, 1, 5);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 1, 1, 5);
}

/* Blocks [1, 10], [11, 20], [21, 30]: every range of one to three blocks, from and to every edge and its neighbours. */
Test(entries, any_range_over_block_edges)
{
    static const uint64_t at[] = {1, 2, 9, 10, 11, 12, 19, 20, 21, 22, 29, 30};
    const size_t n = sizeof at / sizeof *at;

    for (uint64_t first = 1; first < 30; first += 10)
        must_save_entries(SHARD, REPLICA, first, 10, 1);
    for (int again = 0; again < 2; again++, fixture_reopen()) {
        for (size_t i = 0; i < n; i++)
            for (size_t k = i; k < n; k++) {
                struct collected c;

                expect_ok(collect(SHARD, REPLICA, at[i], at[k] + 1, SIZE_MAX, &c));
                cr_assert_eq(c.first, at[i]);
                cr_assert_eq(c.last, at[k]);
                collected_deinit(&c);
            }
        expect_entries(SHARD, REPLICA, 1, 30, 1);
    }
}

Test(entries, a_range_that_ends_beyond_the_last_entry_ends_there)
{
    struct collected c;

    must_save_entries(SHARD, REPLICA, 1, 10, 1);
    expect_ok(collect(SHARD, REPLICA, 8, 1000, SIZE_MAX, &c));
    cr_assert_eq(c.first, 8);
    cr_assert_eq(c.last, 10);
    collected_deinit(&c);
}

Test(entries, an_empty_range_gives_nothing)
{
    struct collected c;

    must_save_entries(SHARD, REPLICA, 1, 10, 1);
    expect_ok(collect(SHARD, REPLICA, 5, 5, SIZE_MAX, &c));
    cr_assert_eq(c.n_calls, 0);
}

Test(entries, above_the_last_is_not_found)
{
    struct collected c;

    must_save_entries(SHARD, REPLICA, 1, 10, 1);
    cr_assert_eq(collect(SHARD, REPLICA, 11, 12, SIZE_MAX, &c), NH_ENOTFOUND);
    cr_assert_eq(collect(SHARD, REPLICA, 1000, 1001, SIZE_MAX, &c), NH_ENOTFOUND);
    cr_assert_eq(c.n, 0);
}

/* "until at least one record and more than max_bytes were given (the record that crosses is included)" */
Test(entries, max_bytes_includes_the_record_that_crosses)
{
    for (uint64_t first = 1; first <= 20; first += 5)
        must_save_entries(SHARD, REPLICA, first, 5, 1);
    for (uint64_t low = 1; low <= 20; low++) {
        size_t total = 0;

        for (uint64_t last = low; last <= 20; last++) {
            struct collected c;

            /* From exactly the bytes before `last` on, `last` is the one that crosses. */
            expect_ok(collect(SHARD, REPLICA, low, 21, total, &c));
            cr_assert_eq(c.last, last, "max_bytes %zu from %lu: ends at %lu, not %lu", total, low, c.last, last);
            collected_deinit(&c);
            total += record_bytes(last, 1);
            expect_ok(collect(SHARD, REPLICA, low, 21, total - 1, &c));
            cr_assert_eq(c.last, last, "one byte less than %zu from %lu", total, low);
            collected_deinit(&c);
        }
    }
}

Test(entries, runs_of_several_terms_and_blocks_in_one_update)
{
    struct nh_block *a = make_block(1, 10, 1), *b = make_block(5, 20, 2), *c = make_block(20, 5, 9);
    const struct nh_run runs[] = {{a, 0, 4}, {b, 0, 15}, {c, 0, 5}};
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .runs = runs, .n_runs = 3};
    uint64_t terms[24];

    for (uint64_t i = 1; i <= 24; i++)
        terms[i - 1] = i < 5 ? 1 : i < 20 ? 2 : 9;
    must_save(&u, 1);
    expect_log(SHARD, REPLICA, 1, terms, 24);
    fixture_reopen();
    expect_log(SHARD, REPLICA, 1, terms, 24);
    nh_block_unref(a);
    nh_block_unref(b);
    nh_block_unref(c);
}

Test(entries, a_slice_from_the_middle_of_a_block)
{
    struct nh_block *b = make_block(1, 100, 3);
    struct nh_run run = {b, 0, 41};
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};

    must_save(&u, 1);
    run = (struct nh_run){b, 41, 100};
    must_save(&u, 1);
    expect_entries(SHARD, REPLICA, 1, 100, 3);
    nh_block_unref(b);
}

Test(entries, a_very_large_entry_and_many_in_one_update)
{
    const uint32_t big_bytes = 3u << 20;
    struct nh_block *small = make_block(1, 20000, 1), *big = make_block_sized(20001, 3, 1, big_bytes);
    const struct nh_run runs[] = {{small, 0, 20000}, {big, 0, 3}};
    struct nh_update u = {.shard_id = SHARD, .replica_id = REPLICA, .must_sync = true, .runs = runs, .n_runs = 2};
    struct collected c;

    must_save(&u, 1);
    fixture_reopen();
    expect_bounds(SHARD, REPLICA, 1, 20003);
    expect_ok(collect(SHARD, REPLICA, 1, 20004, SIZE_MAX, &c));
    cr_assert_eq(c.n, 20003);
    cr_assert_eq(c.size_bytes, nh_run_size(&runs[0]) + nh_run_size(&runs[1]));
    cr_assert_eq(memcmp(c.bytes, small->data, nh_run_size(&runs[0])), 0);
    cr_assert_eq(memcmp(c.bytes + nh_run_size(&runs[0]), big->data, nh_run_size(&runs[1])), 0);
    collected_deinit(&c);
    expect_ok(collect(SHARD, REPLICA, 20002, 20004, 1, &c));
    cr_assert_eq(c.n, 1);
    collected_deinit(&c);
    nh_block_unref(small);
    nh_block_unref(big);
}

static int refuse(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    (void)records, (void)size_bytes;
    ++*(int *)ctx;
    return nh_error_set(err, NH_EMACHINE, "enough");
}

Test(entries, the_code_of_the_sink_stops_the_iteration_and_is_returned)
{
    int n = 0;
    struct nh_entry_sink sink = {.add = refuse, .ctx = &n};

    for (uint64_t first = 1; first < 100; first += 10)
        must_save_entries(SHARD, REPLICA, first, 10, 1);
    cr_assert_eq(f.ops->iterate_entries(f.db, SHARD, REPLICA, 1, 101, SIZE_MAX, &sink, &f.err), NH_EMACHINE);
    cr_assert_eq(n, 1);
}

Test(entries, replicas_are_apart)
{
    static const uint64_t ids[] = {1, 2, 255, 256, UINT64_MAX - 1, UINT64_MAX};
    const size_t n = sizeof ids / sizeof *ids;

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++)
            must_save_entries(ids[i], ids[k], 1, (uint32_t)(i * n + k + 1), i + 1);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++)
            expect_entries(ids[i], ids[k], 1, i * n + k + 1, i + 1);
}

Test(entries, bad_updates_are_refused_and_nothing_is_written)
{
    struct nh_update u[2] = {make_update(SHARD, REPLICA, 1, 5, 1), make_update(SHARD, REPLICA, 7, 2, 1)};

    cr_assert_eq(save(u, 2, 1), NH_EINVAL, "a hole at 6");
    cr_assert_eq(f.ops->read_raft_state(f.db, SHARD, REPLICA, &(struct nh_raft_state){0}, NULL), NH_ENOTFOUND);
    cr_assert_eq(save(u, 1, 0), NH_EINVAL, "no worker 0");
    cr_assert_eq(save(u, 1, N_WORKERS + 1), NH_EINVAL, "one worker too many");
    u[0].shard_id = 0;
    cr_assert_eq(save(u, 1, 1), NH_EINVAL);
    u[0].shard_id = SHARD;
    expect_ok(save(u, 1, N_WORKERS));
    expect_entries(SHARD, REPLICA, 1, 5, 1);
    update_deinit(&u[0]);
    update_deinit(&u[1]);
}

Test(entries, an_empty_call_is_fine)
{
    must_save(NULL, 0);
}
