#include "tests/conformance/logdb/fixture.h"

#include "logdb/update.h"

Test(update, malformed_updates_are_refused)
{
    struct nh_block *a = make_block(1, 10, 1), *b = make_block(11, 10, 2);
    struct nh_run runs[2] = {{a, 0, 10}, {b, 0, 10}};
    struct nh_update u = {.shard_id = 1, .replica_id = 1, .runs = runs, .n_runs = 2};

    cr_assert_eq(updates_check(&u, 1, NULL), NH_OK);
    runs[1].from = 1;
    cr_assert_eq(updates_check(&u, 1, NULL), NH_EINVAL, "a hole between runs");
    runs[1] = (struct nh_run){b, 0, 11};
    cr_assert_eq(updates_check(&u, 1, NULL), NH_EINVAL, "one record more than the block has");
    runs[1] = (struct nh_run){b, 3, 3};
    cr_assert_eq(updates_check(&u, 1, NULL), NH_EINVAL, "an empty run");
    runs[1] = (struct nh_run){NULL, 0, 1};
    cr_assert_eq(updates_check(&u, 1, NULL), NH_EINVAL, "no block");
    u.n_runs = 1;
    u.replica_id = 0;
    cr_assert_eq(updates_check(&u, 1, NULL), NH_EINVAL, "no replica");
    u.replica_id = 1;
    u.shard_id = 0;
    cr_assert_eq(updates_check(&u, 1, NULL), NH_EINVAL, "no shard");
    nh_block_unref(a);
    nh_block_unref(b);
}

Test(update, saves_may_begin_from_the_first_entry_to_one_behind_the_last)
{
    for (uint64_t first = 4; first <= 12; first++) {
        struct log_bounds b = {.first = 5, .last = 10};
        struct nh_update u = make_update(1, 1, first, 3, 1);
        int r = bounds_save(&b, &u, NULL);

        cr_assert_eq(r, first < 5 || first > 11 ? NH_EINVAL : NH_OK, "from %lu", first);
        cr_assert_eq(b.first, 5);
        cr_assert_eq(b.last, r == NH_OK ? first + 2 : 10);
        update_deinit(&u);
    }
}

Test(update, removal_stays_within_the_log)
{
    struct log_bounds b = {.first = 5, .last = 10};

    cr_assert(!bounds_remove_to(&b, 4));
    cr_assert(bounds_remove_to(&b, 5));
    cr_assert_eq(b.first, 6);
    cr_assert(bounds_remove_to(&b, 11));
    cr_assert_eq(b.first, 11);
    cr_assert_eq(b.last, 10);
    cr_assert(!bounds_remove_to(&b, 11));
    b = (struct log_bounds){.first = 1, .last = 0};
    cr_assert(!bounds_remove_to(&b, 7), "nothing to remove");
}

Test(update, a_snapshot_replaces_a_log_that_does_not_contain_it)
{
    struct log_bounds b = {.first = 5, .last = 10};

    cr_assert(!bounds_replaced_by(&b, 3, 0, 1), "older than the log");
    cr_assert(!bounds_replaced_by(&b, 4, 0, 1), "where the log begins");
    cr_assert(!bounds_replaced_by(&b, 5, 1, 1), "contained");
    cr_assert(!bounds_replaced_by(&b, 10, 1, 1), "contained, the last");
    cr_assert(bounds_replaced_by(&b, 10, 1, 2), "another term");
    cr_assert(bounds_replaced_by(&b, 11, 0, 1), "beyond");
}

Test(update, terms_are_found_in_earlier_updates_of_the_same_replica)
{
    struct nh_update u[4] = {make_update(1, 1, 1, 10, 3), make_update(2, 1, 1, 10, 4), make_update(1, 1, 6, 2, 5),
                             make_state(1, 1, 1, 1, 1)};
    uint64_t term = 99;

    cr_assert(updates_find_term(u, 3, 5, &term) && term == 3);
    cr_assert(updates_find_term(u, 3, 7, &term) && term == 5);
    cr_assert(updates_find_term(u, 3, 8, &term) && term == 0, "truncated by the newer update");
    cr_assert(updates_find_term(u, 2, 8, &term) && term == 3);
    cr_assert(!updates_find_term(u, 0, 5, &term), "nothing is before the first");
    cr_assert(!updates_find_term(u, 1, 5, &term), "another shard");
    for (size_t i = 0; i < 4; i++)
        update_deinit(&u[i]);
}
