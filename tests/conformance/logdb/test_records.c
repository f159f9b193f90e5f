/* Bootstrap and snapshot records, removal of a replica, import. */
#include "tests/conformance/logdb/fixture.h"

#include <stdlib.h>

TestSuite(records, .init = fixture_init, .fini = fixture_deinit);

static struct nh_member members[3] = {
    {.replica_id = 1, .kind = NH_MEMBER_VOTER, .address = "host-1:4000"},
    {.replica_id = 2, .kind = NH_MEMBER_NON_VOTING, .address = "host-2:4000"},
    {.replica_id = 3, .kind = NH_MEMBER_WITNESS, .address = "host-3:4000"},
};

static void save_bootstrap(uint64_t shard_id, uint64_t replica_id)
{
    const struct nh_bootstrap b = {.machine_type = "kv", .initial = {.n_members = 3, .members = members}};

    expect_ok(f.ops->save_bootstrap(f.db, shard_id, replica_id, &b, &f.err));
}

static void expect_bootstrap(uint64_t shard_id, uint64_t replica_id)
{
    const struct nh_membership want = {.n_members = 3, .members = members};
    struct nh_bootstrap b;

    expect_ok(f.ops->get_bootstrap(f.db, shard_id, replica_id, &b, &f.err));
    cr_assert(!b.join);
    cr_assert_str_eq(b.machine_type, "kv");
    cr_assert(nh_membership_equal(&b.initial, &want));
    nh_bootstrap_deinit(&b);
}

static void expect_no_bootstrap(uint64_t shard_id, uint64_t replica_id)
{
    struct nh_bootstrap b;

    cr_assert_eq(f.ops->get_bootstrap(f.db, shard_id, replica_id, &b, &f.err), NH_ENOTFOUND);
}

Test(records, a_bootstrap_record_is_kept)
{
    expect_no_bootstrap(SHARD, REPLICA);
    save_bootstrap(SHARD, REPLICA);
    expect_bootstrap(SHARD, REPLICA);
    expect_no_bootstrap(SHARD, REPLICA + 1);
    expect_no_bootstrap(SHARD + 1, REPLICA);
    fixture_reopen();
    expect_bootstrap(SHARD, REPLICA);
    cr_assert_eq(f.ops->read_raft_state(f.db, SHARD, REPLICA, &(struct nh_raft_state){0}, NULL), NH_ENOTFOUND);
}

Test(records, a_bootstrap_record_is_replaced)
{
    const struct nh_bootstrap join = {.join = true, .machine_type = "other"};
    struct nh_bootstrap b;

    save_bootstrap(SHARD, REPLICA);
    expect_ok(f.ops->save_bootstrap(f.db, SHARD, REPLICA, &join, &f.err));
    expect_ok(f.ops->get_bootstrap(f.db, SHARD, REPLICA, &b, &f.err));
    cr_assert(b.join);
    cr_assert_str_eq(b.machine_type, "other");
    cr_assert_eq(b.initial.n_members, 0);
    nh_bootstrap_deinit(&b);
}

struct listed {
    struct nh_replica_info infos[64];
    size_t n;
    size_t stop_at;
};

static int on_replica(void *ctx, struct nh_replica_info info)
{
    struct listed *l = ctx;

    cr_assert_lt(l->n, 64);
    l->infos[l->n++] = info;
    return l->n == l->stop_at ? -77 : 0;
}

static bool is_listed(const struct listed *l, uint64_t shard_id, uint64_t replica_id)
{
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++)
        n += l->infos[i].shard_id == shard_id && l->infos[i].replica_id == replica_id;
    cr_assert_leq(n, 1, "listed once");
    return n == 1;
}

/* Those with a bootstrap record, whatever else is stored before, between and after them. */
Test(records, replicas_with_a_bootstrap_record_are_listed)
{
    struct listed l = {.n = 0};

    expect_ok(f.ops->list_replicas(f.db, on_replica, &l, &f.err));
    cr_assert_eq(l.n, 0);
    for (uint64_t shard_id = 1; shard_id <= 40; shard_id++) {
        if (shard_id % 3 == 0)
            save_bootstrap(shard_id, shard_id % 5 + 1);
        if (shard_id % 2 == 0)
            must_save_entries(shard_id, shard_id % 5 + 1, 1, 3, 1);
    }
    save_bootstrap(UINT64_MAX, UINT64_MAX);
    fixture_reopen();
    expect_ok(f.ops->list_replicas(f.db, on_replica, &l, &f.err));
    cr_assert_eq(l.n, 14);
    for (uint64_t shard_id = 3; shard_id <= 40; shard_id += 3)
        cr_assert(is_listed(&l, shard_id, shard_id % 5 + 1));
    cr_assert(is_listed(&l, UINT64_MAX, UINT64_MAX));
    l = (struct listed){.stop_at = 2};
    cr_assert_eq(f.ops->list_replicas(f.db, on_replica, &l, &f.err), -77, "the callback's code is returned");
    cr_assert_eq(l.n, 2);
}

/* ---- snapshots ---- */

static void expect_snapshot(uint64_t shard_id, uint64_t replica_id, uint64_t index, uint64_t term)
{
    struct nh_snapshot s, want = make_snapshot(shard_id, index, term);

    expect_ok(f.ops->get_snapshot(f.db, shard_id, replica_id, &s, &f.err));
    cr_assert_eq(s.index, index, "snapshot %lu, not %lu", s.index, index);
    if (index > 0) {
        cr_assert_eq(s.shard_id, shard_id);
        cr_assert_eq(s.term, term);
        cr_assert_eq(s.file_size_bytes, want.file_size_bytes);
        cr_assert_eq(s.on_disk_index, want.on_disk_index);
        cr_assert_eq(s.checksum, want.checksum);
        cr_assert(s.witness && !s.dummy && !s.imported);
        cr_assert_str_eq(s.file_path, want.file_path);
        cr_assert(nh_membership_equal(&s.membership, &want.membership));
    }
    nh_snapshot_deinit(&s);
}

Test(records, no_snapshot_has_index_0)
{
    expect_snapshot(SHARD, REPLICA, 0, 0);
}

Test(records, the_newest_snapshot_wins)
{
    struct nh_snapshot a = make_snapshot(SHARD, 10, 1), b = make_snapshot(SHARD, 20, 2);

    must_save_entries(SHARD, REPLICA, 1, 30, 1);
    must_save_snapshot(REPLICA, &a);
    expect_snapshot(SHARD, REPLICA, 10, 1);
    must_save_snapshot(REPLICA, &b);
    must_save_snapshot(REPLICA, &a);
    for (int again = 0; again < 2; again++, fixture_reopen())
        expect_snapshot(SHARD, REPLICA, 20, 2);
    expect_snapshot(SHARD, REPLICA + 1, 0, 0);
}

Test(records, a_snapshot_that_the_log_contains_leaves_the_log_alone)
{
    struct nh_snapshot s = make_snapshot(SHARD, 10, 1);

    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    must_save_snapshot(REPLICA, &s);
    for (int again = 0; again < 2; again++, fixture_reopen())
        expect_entries(SHARD, REPLICA, 1, 20, 1);
}

/* "Entries at or below its index need not exist": the log then begins behind it. The hard state stays. */
Test(records, a_snapshot_beyond_the_log_replaces_it)
{
    struct nh_snapshot s = make_snapshot(SHARD, 100, 4);
    struct nh_update u = make_update(SHARD, REPLICA, 1, 20, 1);
    struct collected c;

    u.has_state = true;
    u.state = (struct nh_state){.term = 4, .vote = 1, .commit = 9};
    must_save(&u, 1);
    update_deinit(&u);
    must_save_snapshot(REPLICA, &s);
    for (int again = 0; again < 2; again++, fixture_reopen()) {
        expect_bounds(SHARD, REPLICA, 101, 100);
        expect_state(SHARD, REPLICA, 4, 1, 9);
        expect_snapshot(SHARD, REPLICA, 100, 4);
        cr_assert_eq(collect(SHARD, REPLICA, 5, 6, SIZE_MAX, &c), NH_ECOMPACTED);
        cr_assert_eq(collect(SHARD, REPLICA, 101, 102, SIZE_MAX, &c), NH_ENOTFOUND);
    }
    must_save_entries(SHARD, REPLICA, 101, 5, 4);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 101, 105, 4);
    expect_state(SHARD, REPLICA, 4, 1, 9);
}

Test(records, a_snapshot_that_conflicts_with_the_log_replaces_it)
{
    struct nh_snapshot s = make_snapshot(SHARD, 10, 2);

    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    must_save_snapshot(REPLICA, &s);
    for (int again = 0; again < 2; again++, fixture_reopen())
        expect_bounds(SHARD, REPLICA, 11, 10);
    must_save_entries(SHARD, REPLICA, 11, 2, 2);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 11, 12, 2);
}

/* What a replica saves that was sent a snapshot: record, state and the entries behind it, in one update. */
Test(records, an_update_stores_its_snapshot_before_its_entries)
{
    struct nh_snapshot s = make_snapshot(SHARD, 50, 3);
    struct nh_update u = make_update(SHARD, REPLICA, 51, 5, 3);

    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    u.snapshot = &s;
    u.has_state = true;
    u.state = (struct nh_state){.term = 3, .commit = 50};
    must_save(&u, 1);
    update_deinit(&u);
    for (int again = 0; again < 2; again++, fixture_reopen()) {
        expect_entries(SHARD, REPLICA, 51, 55, 3);
        expect_snapshot(SHARD, REPLICA, 50, 3);
        expect_state(SHARD, REPLICA, 3, 0, 50);
    }
}

/* Entries, then a snapshot that they do or do not contain, then more entries: all in one call. */
Test(records, snapshots_within_one_call)
{
    for (uint64_t term = 1; term <= 2; term++) {
        struct nh_snapshot s = make_snapshot(SHARD + term, 5, term);
        struct nh_update u[3] = {make_update(SHARD + term, REPLICA, 1, 10, 1), make_state(SHARD + term, REPLICA, 2, 0, 5),
                                 make_update(SHARD + term, REPLICA, 6, 2, 2)};
        uint64_t terms[] = {1, 1, 1, 1, 1, 2, 2};

        u[1].snapshot = &s;
        must_save(u, 3);
        for (int again = 0; again < 2; again++, fixture_reopen()) {
            if (term == 1)
                expect_log(SHARD + term, REPLICA, 1, terms, 7);
            else
                expect_entries(SHARD + term, REPLICA, 6, 7, 2);
            expect_state(SHARD + term, REPLICA, 2, 0, 5);
        }
        for (size_t i = 0; i < 3; i++)
            update_deinit(&u[i]);
    }
}

Test(records, an_older_snapshot_in_the_same_call_loses)
{
    struct nh_snapshot a = make_snapshot(SHARD, 60, 3), b = make_snapshot(SHARD, 50, 3);
    struct nh_update u[2] = {make_state(SHARD, REPLICA, 3, 0, 60), make_state(SHARD, REPLICA, 3, 0, 60)};

    u[0].snapshot = &a;
    u[1].snapshot = &b;
    must_save(u, 2);
    expect_snapshot(SHARD, REPLICA, 60, 3);
    expect_bounds(SHARD, REPLICA, 61, 60);
}

/* ---- removal and import ---- */

static void save_everything(uint64_t shard_id, uint64_t replica_id)
{
    struct nh_snapshot s = make_snapshot(shard_id, 10, 1);
    struct nh_update u = make_state(shard_id, replica_id, 5, 1, 7);

    save_bootstrap(shard_id, replica_id);
    must_save_entries(shard_id, replica_id, 1, 20, 1);
    must_save_snapshot(replica_id, &s);
    must_save(&u, 1);
    expect_ok(f.ops->remove_entries_to(f.db, shard_id, replica_id, 4, &f.err));
}

Test(records, a_removed_replica_leaves_nothing)
{
    save_everything(SHARD, REPLICA);
    save_everything(SHARD, REPLICA - 1);
    save_everything(SHARD, REPLICA + 1);
    save_everything(SHARD + 1, REPLICA);
    expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
    for (int again = 0; again < 2; again++, fixture_reopen()) {
        struct listed l = {.n = 0};

        expect_no_bootstrap(SHARD, REPLICA);
        expect_snapshot(SHARD, REPLICA, 0, 0);
        cr_assert_eq(f.ops->read_raft_state(f.db, SHARD, REPLICA, &(struct nh_raft_state){0}, NULL), NH_ENOTFOUND);
        expect_ok(f.ops->list_replicas(f.db, on_replica, &l, &f.err));
        cr_assert_eq(l.n, 3);
        expect_entries(SHARD, REPLICA - 1, 5, 20, 1);
        expect_entries(SHARD, REPLICA + 1, 5, 20, 1);
        expect_entries(SHARD + 1, REPLICA, 5, 20, 1);
    }
    must_save_entries(SHARD, REPLICA, 1, 3, 9);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 1, 3, 9);
    expect_state(SHARD, REPLICA, 0, 0, 0);
}

Test(records, removing_what_is_not_there_is_fine)
{
    expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
}

static void expect_imported(uint64_t index, uint64_t term)
{
    struct nh_bootstrap b;

    expect_ok(f.ops->get_bootstrap(f.db, SHARD, REPLICA, &b, &f.err));
    cr_assert(b.join);
    cr_assert_eq(b.initial.n_members, 0);
    nh_bootstrap_deinit(&b);
    expect_state(SHARD, REPLICA, term, NH_NO_REPLICA, index);
    expect_bounds(SHARD, REPLICA, index + 1, index);
    expect_snapshot(SHARD, REPLICA, index, term);
}

/* Both ways: the imported snapshot is beyond all that was there, and below it. */
Test(records, import_replaces_everything)
{
    static const uint64_t index[] = {1000, 8};

    for (size_t i = 0; i < 2; i++) {
        struct nh_snapshot s = make_snapshot(SHARD, index[i], 2);

        expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
        save_everything(SHARD, REPLICA);
        expect_ok(f.ops->import_snapshot(f.db, &s, REPLICA, &f.err));
        for (int again = 0; again < 2; again++, fixture_reopen())
            expect_imported(index[i], 2);
        must_save_entries(SHARD, REPLICA, index[i] + 1, 3, 2);
        fixture_reopen();
        expect_entries(SHARD, REPLICA, index[i] + 1, index[i] + 3, 2);
    }
}

Test(records, import_into_nothing)
{
    struct nh_snapshot s = make_snapshot(SHARD, 12, 3);

    expect_ok(f.ops->import_snapshot(f.db, &s, REPLICA, &f.err));
    expect_imported(12, 3);
}
