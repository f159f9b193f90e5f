/* Savers, readers, removals and compactions at the same time. */
#include "tests/conformance/logdb/fixture.h"

#include <pthread.h>
#include <stdlib.h>

TestSuite(threads, .init = fixture_init, .fini = fixture_deinit, .timeout = 120);

#define N_ROUNDS  150u
#define N_ENTRIES 10u

static bool stop;         /* atomic */
static int n_done;        /* atomic */
static int n_compactions; /* by the remover */

/* Worker w saves shard w, with a truncation now and then. Term of an entry = round in which it was saved. */
static void *run_saver(void *arg)
{
    uint32_t worker_id = *(const uint32_t *)arg;
    uint64_t last = 0;

    for (uint64_t round = 1; round <= N_ROUNDS; round++) {
        uint64_t first = round % 10 == 0 ? last - 4 : last + 1;
        struct nh_update u = make_update(worker_id, REPLICA, first, N_ENTRIES, round);
        struct nh_error err;

        u.has_state = true;
        u.state = (struct nh_state){.term = round, .commit = last};
        u.must_sync = round % 5 == 0;
        MUST(f.ops->save_raft_state(f.db, &u, 1, worker_id, &err) == NH_OK, "%s", err.text);
        update_deinit(&u);
        last = first + N_ENTRIES - 1;
    }
    return NULL;
}

struct seen {
    uint64_t next;
    uint64_t term;
};

static int on_records(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct seen *s = ctx;

    (void)err;
    for (size_t at = 0; at < size_bytes; at += nh_record_bytes(records + at), s->next++) {
        MUST(nh_record_index(records + at) == s->next, "at %lu", s->next);
        MUST(nh_record_term(records + at) >= s->term, "terms never fall in one view of a log");
        s->term = nh_record_term(records + at);
    }
    return NH_OK;
}

static void *run_reader(void *arg)
{
    uint64_t seed = *(const uint32_t *)arg;

    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        uint64_t shard_id = 1 + below(&seed, N_WORKERS);
        struct nh_raft_state state;
        struct nh_error err;
        int r = f.ops->read_raft_state(f.db, shard_id, REPLICA, &state, &err);

        MUST(r == NH_OK || r == NH_ENOTFOUND, "%s", err.text);
        if (r == NH_OK) {
            struct seen seen = {.next = state.first_index};
            struct nh_entry_sink sink = {.add = on_records, .ctx = &seen};

            r = f.ops->iterate_entries(f.db, shard_id, REPLICA, state.first_index, state.last_index + 1, SIZE_MAX, &sink, &err);
            MUST(r == NH_OK || r == NH_ENOTFOUND || r == NH_ECOMPACTED, "%s", err.text);
        }
    }
    return NULL;
}

static void on_done(void *ctx)
{
    __atomic_fetch_add((int *)ctx, 1, __ATOMIC_ACQ_REL);
}

static void *run_remover(void *arg)
{
    uint64_t seed = 99;

    (void)arg;
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        uint64_t shard_id = 1 + below(&seed, N_WORKERS);
        struct nh_raft_state s;
        struct nh_error err;

        if (f.ops->read_raft_state(f.db, shard_id, REPLICA, &s, &err) != NH_OK || s.last_index < s.first_index + 60)
            continue;
        MUST(f.ops->remove_entries_to(f.db, shard_id, REPLICA, s.last_index - 50, &err) == NH_OK, "%s", err.text);
        MUST(f.ops->compact_entries_to(f.db, shard_id, REPLICA, s.last_index - 50, on_done, &n_done, &err) == NH_OK, "%s",
             err.text);
        n_compactions++;
    }
    return NULL;
}

Test(threads, savers_readers_and_removals_at_once)
{
    uint32_t ids[N_WORKERS + 2];
    pthread_t savers[N_WORKERS], readers[2], remover;

    for (uint32_t i = 0; i < N_WORKERS + 2; i++)
        ids[i] = i + 1;
    for (uint32_t i = 0; i < N_WORKERS; i++)
        cr_assert_eq(pthread_create(&savers[i], NULL, run_saver, &ids[i]), 0);
    for (uint32_t i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&readers[i], NULL, run_reader, &ids[N_WORKERS + i]), 0);
    cr_assert_eq(pthread_create(&remover, NULL, run_remover, NULL), 0);
    for (uint32_t i = 0; i < N_WORKERS; i++)
        pthread_join(savers[i], NULL);
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(readers[i], NULL);
    pthread_join(remover, NULL);
    fixture_close(); /* calls the last `done` */
    cr_assert_eq(n_done, n_compactions);
    fixture_open();
    for (uint32_t i = 1; i <= N_WORKERS; i++) {
        /* Every tenth round takes back five of its ten entries. */
        uint64_t last = N_ROUNDS * N_ENTRIES - N_ROUNDS / 10 * 5;
        struct nh_raft_state s;
        struct collected c;

        expect_ok(f.ops->read_raft_state(f.db, i, REPLICA, &s, &f.err));
        cr_assert_eq(s.last_index, last);
        cr_assert_eq(s.state.term, N_ROUNDS);
        expect_ok(collect(i, REPLICA, s.first_index, last + 1, SIZE_MAX, &c));
        cr_assert_eq(c.last, last);
        collected_deinit(&c);
    }
}
