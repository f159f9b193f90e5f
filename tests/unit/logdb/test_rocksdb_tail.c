/* Blocks that wait for RocksDB (logdb/rocksdb/tail.h): that they are put together, and that a recovery is right whatever RocksDB
 * kept of them. Here RocksDB makes tables of what it has at any moment, and the host ends at any other. */
#include "tests/conformance/logdb/fixture.h"

#include <inttypes.h>
#include <semaphore.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "logdb/rocksdb/store.h"
#include "raftio/support/memory.h"
#include "tests/unit/logdb/lives.h"

/* Segments of 64 KiB, so that they are moved out of and used again. */
#define SHORT_JOURNAL "max_total_wal_size=262144"

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    setenv("NH_LOGDB_OPTIONS", SHORT_JOURNAL, 1);
    fixture_init_closed();
}

TestSuite(tail, .init = init, .fini = fixture_deinit, .timeout = 120);

/* ---- how many there are ---- */

static size_t count_blocks(uint64_t shard_id)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(f.db->db, f.db->read);
    size_t n = 0;

    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t size;
        const char *key = rocksdb_iter_key(it, &size);

        n += layout_key_is(key, size, shard_id, REPLICA, LAYOUT_BLOCK);
    }
    rocksdb_iter_destroy(it);
    return n;
}

Test(tail, small_saves_are_put_together)
{
    fixture_open();
    for (uint64_t i = 1; i <= 400; i++)
        for (uint64_t s = SHARD; s < SHARD + 3; s++)
            must_save_entries(s, REPLICA, i, 1, 1);
    expect_ok(store_move_horizon(f.db, &f.err));
    for (uint64_t s = SHARD; s < SHARD + 3; s++) {
        expect_entries(s, REPLICA, 1, 400, 1);
        cr_assert_gt(count_blocks(s), 0u);
        cr_assert_leq(count_blocks(s), 400u / 8);
    }
}

Test(tail, what_waits_is_read_and_goes_with_its_replica)
{
    fixture_open();
    must_save_entries(SHARD, REPLICA, 1, 1, 1);
    must_save_entries(SHARD, REPLICA, 2, 1, 1);
    cr_assert_eq(count_blocks(SHARD), 0u);
    expect_entries(SHARD, REPLICA, 1, 2, 1);
    cr_assert_eq(count_blocks(SHARD), 1u);
    must_save_entries(SHARD, REPLICA, 3, 1, 1);
    expect_ok(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err));
    expect_ok(store_move_horizon(f.db, &f.err));
    cr_assert_eq(count_blocks(SHARD), 0u);
    must_save_entries(SHARD, REPLICA, 1, 1, 2);
    expect_entries(SHARD, REPLICA, 1, 1, 2);
}

/* A reader between the two would find a hole. */
Test(tail, a_large_block_comes_behind_what_waits)
{
    fixture_open();
    for (uint64_t i = 1; i <= 3; i++)
        must_save_entries(SHARD, REPLICA, i, 1, 1);
    cr_assert_eq(count_blocks(SHARD), 0u);
    must_save_entries(SHARD, REPLICA, 4, 2000, 1);
    cr_assert_eq(count_blocks(SHARD), 2u);
    must_save_entries(SHARD, REPLICA, 2004, 1, 1);
    expect_entries(SHARD, REPLICA, 1, 2004, 1);
}

/* ---- recoveries, one by one ---- */

static void truncate_what_was_put_together(void)
{
    save_singly(1, 10, 1);
    check_log(SHARD, 1, 10, ones);
    make_tables();
    save_entries(5, 1, 2);
    make_tables();
}

static void go_on_after_truncation(void)
{
    check_log(SHARD, 1, 5, (const uint64_t[]){1, 1, 1, 1, 2});
    save_singly(6, 7, 2);
}

static void check_after_truncation(void)
{
    check_log(SHARD, 1, 7, (const uint64_t[]){1, 1, 1, 1, 2, 2, 2});
}

/* A recovery has a block for each entry, and the truncation deleted one for all. */
Test(tail, a_truncation_is_repeated)
{
    run_and_die(truncate_what_was_put_together);
    run_and_die(go_on_after_truncation);
    run_and_die(check_after_truncation);
}

/* The same as store_move_horizon, with a save in the middle. */
static void save_while_the_horizon_moves(void)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    uint64_t floor, cut;

    save_singly(1, 10, 1);
    cut = journal_make_cut(&f.db->journal, &floor);
    save_singly(11, 12, 1);
    check_log(SHARD, 1, 12, ones);
    save_singly(13, 13, 1);
    MUST(tail_write_all(f.db, cut, &f.err) == NH_OK, "%s", f.err.text);
    record_put_horizon(f.db, batch, cut, floor);
    MUST(store_write_unlogged(f.db, batch, &f.err) == NH_OK, "%s", f.err.text);
    rocksdb_writebatch_destroy(batch);
    make_tables();
}

static void check_13(void)
{
    check_log(SHARD, 1, 13, ones);
}

/* What a recovery repeats is not in one block with what it does not. */
Test(tail, nothing_is_put_together_over_a_cut)
{
    run_and_die(save_while_the_horizon_moves);
    run_and_die(check_13);
}

/* ---- a removal that does not become durable ---- */

static bool something_waits(void)
{
    pthread_mutex_t *lock = tail_lock_of(f.db, SHARD);
    struct replica_node *n;
    bool waits;

    pthread_mutex_lock(lock);
    pthread_mutex_lock(&f.db->lock);
    n = replica_map_find(&f.db->replicas, SHARD, REPLICA);
    waits = n && container_of(n, struct replica, node)->tail.size_bytes > 0;
    pthread_mutex_unlock(&f.db->lock);
    pthread_mutex_unlock(lock);
    return waits;
}

static void *remove_all(void *arg)
{
    struct nh_error err;

    (void)arg;
    f.ops->remove_replica_data(f.db, SHARD, REPLICA, &err);
    MUST(false, "there is no stream for it");
    return NULL;
}

static void *import_over(void *arg)
{
    struct nh_snapshot s = make_snapshot(SHARD, 100, 3);
    struct nh_error err;

    (void)arg;
    f.ops->import_snapshot(f.db, &s, REPLICA, &err);
    MUST(false, "there is no stream for it");
    return NULL;
}

/* The host ends while `replace` waits for a stream to write its record, and what it has done before is in tables. */
static void end_before_the_record(void *(*replace)(void *arg))
{
    const struct nh_bootstrap bootstrap = {.join = true};
    pthread_t thread;

    MUST(f.ops->save_bootstrap(f.db, SHARD, REPLICA, &bootstrap, &f.err) == NH_OK, "%s", f.err.text);
    save_singly(1, 10, 1);
    for (uint32_t i = 0; i < JOURNAL_SHARED_STREAMS; i++)
        journal_borrow(&f.db->journal);
    MUST(something_waits(), "or there is nothing to lose");
    MUST(pthread_create(&thread, NULL, replace, NULL) == 0, "no thread");
    while (something_waits())
        usleep(1000);
    move_horizon();
}

static void end_before_removal(void)
{
    end_before_the_record(remove_all);
}

static void end_before_import(void)
{
    end_before_the_record(import_over);
}

static void check_nothing_is_lost(void)
{
    struct nh_bootstrap bootstrap;

    MUST(f.ops->get_bootstrap(f.db, SHARD, REPLICA, &bootstrap, &f.err) == NH_OK, "%s", f.err.text);
    nh_bootstrap_deinit(&bootstrap);
    check_log(SHARD, 1, 10, ones);
}

/* Found by a review: the tail was dropped before, and a horizon went past its saves. */
Test(tail, a_removal_that_a_crash_prevents_loses_nothing)
{
    run_and_die(end_before_removal);
    run_and_die(check_nothing_is_lost);
}

Test(tail, an_import_that_a_crash_prevents_loses_nothing)
{
    run_and_die(end_before_import);
    run_and_die(check_nothing_is_lost);
}

/* ---- whatever happens ---- */

#define N_LOGS    4u
#define INDEX_MAX 6000u
#define N_LIVES   50

struct log {
    bool exists;
    uint64_t first, last;
    uint64_t terms[INDEX_MAX]; /* of entry i */
};

static struct model {
    uint64_t seed, term;
    struct log logs[N_LOGS];
} * model; /* shared with the children */

/* The reclaimer has nothing to do, and the test moves blocks out of segments itself. */
static bool moves_out;
static uint64_t first_segment_id; /* of this life */

static void check_model(size_t i)
{
    const struct log *l = &model->logs[i];

    if (l->exists)
        check_log(SHARD + i, l->first, l->last, l->terms + l->first);
}

static struct nh_update append(size_t i, uint64_t from, uint32_t n, uint32_t payload)
{
    struct log *l = &model->logs[i];
    struct nh_run *run = xcalloc(1, sizeof *run);

    *run = (struct nh_run){.block = make_block_sized(from, n, ++model->term, payload), .to = n};
    l->exists = true;
    l->last = from + n - 1;
    for (uint64_t k = from; k <= l->last; k++)
        l->terms[k] = model->term;
    return (struct nh_update){.shard_id = SHARD + i, .replica_id = REPLICA, .must_sync = true, .runs = run, .n_runs = 1};
}

static uint64_t from_inside(const struct log *l)
{
    uint64_t n = l->last + 1 - l->first;

    return l->last + 1 - below(&model->seed, (n < 60 ? n : 60) + 1);
}

/* Of each log, for some time: small blocks wait with their records, others with their places in the journal. */
static uint32_t payload_now(size_t k)
{
    static const uint32_t sizes[] = {16, 3000, 240};

    return sizes[(model->term / 64 + k) % 3];
}

static void step_save(size_t i)
{
    struct nh_update u[2 * N_LOGS];
    size_t n = 0;

    for (size_t k = 0; k < N_LOGS; k++) {
        uint64_t what = below(&model->seed, 100);
        struct log *l = &model->logs[k];

        if (k != i && below(&model->seed, 2))
            continue;
        if (what < 5) {
            u[n++] = append(k, l->last + 1, 1 + (uint32_t)below(&model->seed, 4), 100000);
        } else if (what < 15) {
            u[n++] = append(k, from_inside(l), 1 + (uint32_t)below(&model->seed, 5), 16);
        } else {
            u[n++] = append(k, l->last + 1, 1 + (uint32_t)below(&model->seed, 3), payload_now(k));
            if (what < 20)
                u[n++] = append(k, from_inside(l), 1, 16);
        }
    }
    save_in_child(u, n);
    while (n-- > 0)
        update_deinit(&u[n]);
}

static void step_state(size_t i)
{
    struct nh_update u = make_state(SHARD + i, REPLICA, model->term, 1, 0);

    if (model->logs[i].exists)
        save_in_child(&u, 1);
}

static void on_compacted(void *ctx)
{
    sem_post(ctx);
}

static void compact(size_t i, uint64_t index)
{
    sem_t is_done;

    sem_init(&is_done, 0, 0);
    MUST(f.ops->compact_entries_to(f.db, SHARD + i, REPLICA, index, on_compacted, &is_done, &f.err) == NH_OK, "%s", f.err.text);
    sem_wait(&is_done);
    sem_destroy(&is_done);
}

static void step_remove(size_t i)
{
    struct log *l = &model->logs[i];
    uint64_t index = l->first + below(&model->seed, l->last + 2 - l->first);

    if (!l->exists)
        return;
    index = index > l->last ? l->last : index;
    MUST(f.ops->remove_entries_to(f.db, SHARD + i, REPLICA, index, &f.err) == NH_OK, "%s", f.err.text);
    l->first = index + 1;
    if (below(&model->seed, 2))
        compact(i, index);
}

static void step_snapshot(size_t i)
{
    struct log *l = &model->logs[i];
    struct nh_snapshot s = make_snapshot(SHARD + i, l->last + 1 + below(&model->seed, 5), ++model->term);
    struct nh_update u = {.shard_id = SHARD + i, .replica_id = REPLICA, .must_sync = true, .snapshot = &s};

    save_in_child(&u, 1);
    l->exists = true;
    l->first = s.index + 1;
    l->last = s.index;
}

static void step_remove_all(size_t i)
{
    MUST(f.ops->remove_replica_data(f.db, SHARD + i, REPLICA, &f.err) == NH_OK, "%s", f.err.text);
    model->logs[i] = (struct log){.first = 1};
}

/* A use of a segment of an earlier life, any of them. */
struct movable {
    struct nh_replica_info info;
    uint64_t segment_id, n;
};

static int choose_use(void *ctx, struct nh_replica_info info, struct use use)
{
    struct movable *m = ctx;

    if (use.segment_id < first_segment_id && below(&model->seed, ++m->n) == 0) {
        m->info = info;
        m->segment_id = use.segment_id;
    }
    return 0;
}

/* As the reclaimer does: RocksDB alone has it until the horizon moves. */
static void step_move_out(void)
{
    struct movable m = {0};

    MUST(store_list_uses(f.db, choose_use, &m, &f.err) == NH_OK, "%s", f.err.text);
    if (m.n > 0)
        MUST(store_move_replica(f.db, m.info, m.segment_id, &f.err) == 1, "%s", f.err.text);
}

static void step(void)
{
    size_t i = below(&model->seed, N_LOGS);
    uint64_t what = below(&model->seed, 100);

    if (model->logs[i].last > INDEX_MAX - 100)
        step_remove_all(i);
    else if (moves_out && below(&model->seed, 4) == 0)
        step_move_out();
    else if (what < 80)
        step_save(i);
    else if (what < 84)
        step_state(i);
    else if (what < 88)
        step_remove(i);
    else if (what < 90)
        step_snapshot(i);
    else if (what < 94)
        check_model(i);
    else if (what < (moves_out ? 95 : 98))
        make_tables();
    else
        move_horizon();
}

static void live(void)
{
    uint64_t n = below(&model->seed, moves_out ? 40 : 200);

    first_segment_id = f.db->journal.next_id;
    for (size_t i = 0; i < N_LOGS; i++)
        check_model(i);
    while (n-- > 0)
        step();
}

/* NH_SEED repeats a run. */
static void live_at_random(void)
{
    const char *given = getenv("NH_SEED");

    model = mmap(NULL, sizeof *model, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)model, MAP_FAILED);
    model->seed = given ? strtoull(given, NULL, 0) : (uint64_t)getpid();
    fprintf(stderr, "NH_SEED=%" PRIu64 "\n", model->seed);
    for (size_t i = 0; i < N_LOGS; i++)
        model->logs[i].first = 1;
    for (int i = 0; i < (moves_out ? 2 : 1) * N_LIVES; i++)
        run_and_die(live);
    cr_assert_gt(model->term, 1000u, "much was saved");
    munmap(model, sizeof *model);
}

Test(tail, random_operations_and_ends)
{
    live_at_random();
}

static void init_long(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    fixture_init_closed();
    moves_out = true;
}

TestSuite(moves, .init = init_long, .fini = fixture_deinit, .timeout = 120);

Test(moves, random_operations_and_ends)
{
    live_at_random();
}

/* ---- the cut waits ---- */

static bool was_made; /* atomic */

static void *make_cut(void *arg)
{
    uint64_t floor;

    (void)arg;
    journal_make_cut(&f.db->journal, &floor);
    __atomic_store_n(&was_made, true, __ATOMIC_RELEASE);
    return NULL;
}

/* A call that is in the journal and nowhere else is below the cut. `end` does what lets the cut go on. */
static void expect_cut_waits(void (*end)(struct journal_stream *s))
{
    struct journal_stream *s;
    pthread_t thread;

    fixture_open();
    s = journal_stream_of(&f.db->journal, 1);
    expect_ok(journal_begin(&f.db->journal, s, 0, 0, &f.err));
    expect_ok(store_commit(f.db, s, 0, true, &f.err));
    cr_assert_eq(pthread_create(&thread, NULL, make_cut, NULL), 0);
    usleep(100 * 1000);
    cr_assert_not(__atomic_load_n(&was_made, __ATOMIC_ACQUIRE), "RocksDB or a tail may not have the call yet");
    end(s);
    pthread_join(thread, NULL);
    cr_assert(was_made);
}

static void end_applied(struct journal_stream *s)
{
    store_applied(f.db, s);
}

static void end_fenced(struct journal_stream *s)
{
    (void)s;
    store_fence(f.db);
    cr_assert_eq(store_move_horizon(f.db, &f.err), NH_EFENCED, "the call is still pending");
}

Test(tail, a_cut_waits_for_pending_calls)
{
    expect_cut_waits(end_applied);
}

Test(tail, a_cut_waits_no_more_when_the_store_is_fenced)
{
    expect_cut_waits(end_fenced);
}
