/* Random operations on a few replicas against a model, with reopening after every few steps. NH_SEED repeats a run. */
#include "tests/conformance/logdb/fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define N_REPLICAS 5u
#define N_STEPS    1500
#define INDEX_MAX  4096u

TestSuite(model, .init = fixture_init, .fini = fixture_deinit, .timeout = 120);

struct model {
    bool exists;
    uint64_t first, last;
    uint64_t terms[INDEX_MAX]; /* of entry i */
    struct nh_state state;
    uint64_t snapshot_index;
};

static struct model models[N_REPLICAS];
static uint64_t seed;

static uint64_t shard_of(size_t r)
{
    return 10 + r / 2;
}

static uint64_t replica_of(size_t r)
{
    return 1 + r % 2;
}

static void reset(struct model *m)
{
    *m = (struct model){.first = 1};
}

static void model_update(struct model *m, const struct nh_update *u)
{
    m->exists = true;
    if (u->has_state)
        m->state = u->state;
    if (u->n_runs == 0)
        return;
    m->last = nh_run_last(&u->runs[0]);
    for (uint64_t i = nh_run_first(&u->runs[0]); i <= m->last; i++)
        m->terms[i] = nh_run_term(&u->runs[0]);
}

/* Entries from a random place: often at the end, sometimes in the log. */
static struct nh_update random_update(size_t r)
{
    struct model *m = &models[r];
    uint64_t from = m->last + 1;
    struct nh_update u;

    if (below(&seed, 4) == 0)
        from = m->first + below(&seed, m->last + 2 - m->first);
    u = below(&seed, 8) == 0
            ? (struct nh_update){.shard_id = shard_of(r), .replica_id = replica_of(r)}
            : make_update(shard_of(r), replica_of(r), from, (uint32_t)(1 + below(&seed, 20)), 1 + below(&seed, 50));
    u.has_state = below(&seed, 2) || u.n_runs == 0;
    u.state = (struct nh_state){.term = below(&seed, 100), .vote = below(&seed, 3), .commit = below(&seed, 100)};
    u.must_sync = below(&seed, 3) > 0;
    return u;
}

static void step_save(void)
{
    struct nh_update u[8];
    size_t n = 1 + below(&seed, 8);

    for (size_t i = 0; i < n; i++) {
        size_t r = below(&seed, N_REPLICAS);

        u[i] = random_update(r);
        model_update(&models[r], &u[i]);
    }
    must_save(u, n);
    for (size_t i = 0; i < n; i++)
        update_deinit(&u[i]);
}

static void on_done(void *ctx)
{
    (void)ctx;
}

static void step_remove(size_t r)
{
    struct model *m = &models[r];
    uint64_t index = m->first + below(&seed, m->last + 2 - m->first);

    expect_ok(f.ops->remove_entries_to(f.db, shard_of(r), replica_of(r), index, &f.err));
    if (index > m->last)
        index = m->last;
    if (index >= m->first)
        m->first = index + 1;
    if (below(&seed, 2))
        expect_ok(f.ops->compact_entries_to(f.db, shard_of(r), replica_of(r), index, on_done, NULL, &f.err));
}

static void step_snapshot(size_t r)
{
    struct model *m = &models[r];
    uint64_t index = 1 + below(&seed, m->last + 20), term = 1 + below(&seed, 50);
    bool contained = index >= m->first && index <= m->last && m->terms[index] == term;
    struct nh_snapshot s = make_snapshot(shard_of(r), index, term);

    if (index >= m->first && index <= m->last && below(&seed, 2)) {
        s.term = m->terms[index];
        contained = true;
    }
    must_save_snapshot(replica_of(r), &s);
    if (index < m->snapshot_index)
        return;
    m->snapshot_index = index;
    if (index < m->first || contained)
        return;
    m->exists = true;
    m->first = index + 1;
    m->last = index;
}

static void step_import(size_t r)
{
    uint64_t index = 1 + below(&seed, models[r].last + 20);
    struct nh_snapshot s = make_snapshot(shard_of(r), index, 3);

    expect_ok(f.ops->import_snapshot(f.db, &s, replica_of(r), &f.err));
    models[r] = (struct model){
        .exists = true, .first = index + 1, .last = index, .state = {.term = 3, .commit = index}, .snapshot_index = index};
}

static void step_remove_all(size_t r)
{
    expect_ok(f.ops->remove_replica_data(f.db, shard_of(r), replica_of(r), &f.err));
    reset(&models[r]);
}

static void check(size_t r)
{
    const struct model *m = &models[r];
    struct nh_snapshot s;
    struct nh_raft_state state;

    expect_ok(f.ops->get_snapshot(f.db, shard_of(r), replica_of(r), &s, &f.err));
    cr_assert_eq(s.index, m->snapshot_index);
    nh_snapshot_deinit(&s);
    if (!m->exists) {
        cr_assert_eq(f.ops->read_raft_state(f.db, shard_of(r), replica_of(r), &state, &f.err), NH_ENOTFOUND);
        return;
    }
    expect_state(shard_of(r), replica_of(r), m->state.term, m->state.vote, m->state.commit);
    expect_log(shard_of(r), replica_of(r), m->first, m->terms + m->first, (size_t)(m->last + 1 - m->first));
}

static void step(void)
{
    size_t r = below(&seed, N_REPLICAS);
    uint64_t what = below(&seed, 100);

    if (models[r].last > INDEX_MAX - 256)
        step_remove_all(r);
    else if (what < 75)
        step_save();
    else if (what < 87)
        step_remove(r);
    else if (what < 95)
        step_snapshot(r);
    else if (what < 97)
        step_import(r);
    else if (what < 98)
        step_remove_all(r);
    else
        fixture_reopen();
}

Test(model, random_operations)
{
    const char *given = getenv("NH_SEED");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec;
    fprintf(stderr, "NH_SEED=%" PRIu64 "\n", seed);
    for (size_t r = 0; r < N_REPLICAS; r++)
        reset(&models[r]);
    for (int i = 0; i < N_STEPS; i++) {
        step();
        check(below(&seed, N_REPLICAS));
        if (i % 100 == 99) {
            fixture_reopen();
            for (size_t r = 0; r < N_REPLICAS; r++)
                check(r);
        }
    }
}

/* The resurfacing hunt: one replica, short logs, reopened after each save. */
Test(model, truncation_with_reopening_after_every_step)
{
    seed = 1;
    reset(&models[0]);
    for (int i = 0; i < 150; i++) {
        struct nh_update u = make_update(shard_of(0), replica_of(0), 1 + below(&seed, models[0].last + 1),
                                         (uint32_t)(1 + below(&seed, 15)), 1 + (uint64_t)i);

        model_update(&models[0], &u);
        must_save(&u, 1);
        update_deinit(&u);
        fixture_reopen();
        check(0);
    }
}
