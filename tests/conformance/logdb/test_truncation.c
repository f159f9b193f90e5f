/* "Entries saved from index i replace everything stored from i on, also above their own last index. A reader never sees
 * a truncated entry again, across crashes too." */
#include "tests/conformance/logdb/fixture.h"

#include <stdlib.h>

TestSuite(truncation, .init = fixture_init, .fini = fixture_deinit);

/* The log that follows from saving blocks [1, 10], [11, 20], [21, 30] of term 1 and then [first, last] of term 2. */
static void expect_after(uint64_t shard_id, uint64_t first, uint64_t last)
{
    uint64_t terms[64];

    for (uint64_t i = 1; i <= last; i++)
        terms[i - 1] = i < first ? 1 : 2;
    expect_log(shard_id, REPLICA, 1, terms, (size_t)last);
}

static void save_three_blocks(uint64_t shard_id)
{
    for (uint64_t first = 1; first < 30; first += 10)
        must_save_entries(shard_id, REPLICA, first, 10, 1);
}

Test(truncation, every_overlap_of_three_blocks)
{
    uint64_t shard_id = 1;

    for (uint64_t first = 1; first <= 31; first++)
        for (uint64_t last = first; last <= first + 11; last += 1 + (last - first) / 3, shard_id++) {
            save_three_blocks(shard_id);
            must_save_entries(shard_id, REPLICA, first, (uint32_t)(last + 1 - first), 2);
            expect_after(shard_id, first, last);
        }
    fixture_reopen();
    shard_id = 1;
    for (uint64_t first = 1; first <= 31; first++)
        for (uint64_t last = first; last <= first + 11; last += 1 + (last - first) / 3, shard_id++)
            expect_after(shard_id, first, last);
}

/* The log shrinks to [1, 7], then grows again over the old block edges 11 and 21 with other blocks. */
Test(truncation, a_stale_block_does_not_come_back_when_the_log_grows_again)
{
    uint64_t terms[40] = {0};

    save_three_blocks(SHARD);
    must_save_entries(SHARD, REPLICA, 5, 3, 2);
    must_save_entries(SHARD, REPLICA, 8, 5, 2);
    must_save_entries(SHARD, REPLICA, 13, 2, 2);
    for (uint64_t i = 1; i <= 14; i++)
        terms[i - 1] = i < 5 ? 1 : 2;
    expect_log(SHARD, REPLICA, 1, terms, 14);
    fixture_reopen();
    expect_log(SHARD, REPLICA, 1, terms, 14);
    must_save_entries(SHARD, REPLICA, 15, 5, 3);
    for (uint64_t i = 15; i <= 19; i++)
        terms[i - 1] = 3;
    expect_log(SHARD, REPLICA, 1, terms, 19);
}

Test(truncation, the_same_edge_is_truncated_again_and_again)
{
    uint64_t terms[21] = {0};

    save_three_blocks(SHARD);
    for (uint64_t term = 2; term < 12; term++) {
        uint64_t first = 16 - term;

        must_save_entries(SHARD, REPLICA, first, 3, term);
        fixture_reopen();
        for (uint64_t i = 1; i <= first + 2; i++)
            terms[i - 1] = i < first ? 1 : term;
        expect_log(SHARD, REPLICA, 1, terms, (size_t)first + 2);
    }
}

Test(truncation, the_whole_log_is_replaced)
{
    save_three_blocks(SHARD);
    must_save_entries(SHARD, REPLICA, 1, 1, 2);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 1, 1, 2);
}

Test(truncation, neighbours_keep_their_logs)
{
    save_three_blocks(SHARD - 1);
    save_three_blocks(SHARD);
    save_three_blocks(SHARD + 1);
    must_save_entries(SHARD, REPLICA, 5, 1, 2);
    expect_after(SHARD, 5, 5);
    expect_entries(SHARD - 1, REPLICA, 1, 30, 1);
    expect_entries(SHARD + 1, REPLICA, 1, 30, 1);
}

Test(truncation, the_hard_state_survives_it)
{
    struct nh_update u = make_update(SHARD, REPLICA, 1, 10, 1);

    u.has_state = true;
    u.state = (struct nh_state){.term = 1, .vote = 2, .commit = 4};
    must_save(&u, 1);
    update_deinit(&u);
    must_save_entries(SHARD, REPLICA, 5, 1, 2); /* no state in this one */
    expect_state(SHARD, REPLICA, 1, 2, 4);
    fixture_reopen();
    expect_state(SHARD, REPLICA, 1, 2, 4);
    expect_bounds(SHARD, REPLICA, 1, 5);
}

/* Applies `u` to the model: terms[i] is the term of entry i + 1. Returns the new last index. */
static uint64_t model_save(uint64_t *terms, const struct nh_update *u)
{
    uint64_t last = nh_run_last(&u->runs[0]);

    for (uint64_t i = nh_run_first(&u->runs[0]); i <= last; i++)
        terms[i - 1] = nh_run_term(&u->runs[0]);
    return last;
}

/* Two to four saves in one call: the same as in calls of their own. */
static void save_several(uint64_t shard_id, bool upon_three_blocks, uint64_t *seed)
{
    struct nh_update u[4];
    uint64_t terms[80] = {0}, last = 0, state_term = 0;
    size_t n = 2 + (size_t)below(seed, 3);

    if (upon_three_blocks) {
        save_three_blocks(shard_id);
        for (last = 0; last < 30; last++)
            terms[last] = 1;
    }
    for (size_t i = 0; i < n; i++) {
        u[i] = make_update(shard_id, REPLICA, 1 + below(seed, last + 1), (uint32_t)(1 + below(seed, 12)), 2 + i);
        last = model_save(terms, &u[i]);
        if (i % 2 == 0) {
            u[i].has_state = true;
            u[i].state = (struct nh_state){.term = 2 + i, .vote = i, .commit = i};
            state_term = 2 + i;
        }
    }
    must_save(u, n);
    for (int again = 0; again < 2; again++) {
        expect_log(shard_id, REPLICA, 1, terms, (size_t)last);
        expect_state(shard_id, REPLICA, state_term, state_term - 2, state_term - 2);
        if (shard_id % 50 != 0)
            break;
        fixture_reopen();
    }
    for (size_t i = 0; i < n; i++)
        update_deinit(&u[i]);
}

Test(truncation, within_one_call)
{
    uint64_t seed = 42;

    for (uint64_t shard_id = 1; shard_id <= 400; shard_id++)
        save_several(shard_id, shard_id % 2, &seed);
}
