/* A part of the journal is damaged and the operator accepts the loss (wal_recovery_mode): what is left of each log is what it was
 * at one moment, whatever RocksDB had made tables of. */
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "logdb/rocksdb/store.h"
#include "raftio/support/memory.h"
#include "tests/unit/logdb/lives.h"

#define OPTIONS "disable_auto_compactions=true"

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    setenv("NH_LOGDB_OPTIONS", OPTIONS, 1);
    fixture_init_closed();
}

TestSuite(loss, .init = init, .fini = fixture_deinit, .timeout = 120);

/* Where call n lies if each of those before is a page; the first page of a segment is its header. */
#define AT(n) ((uint64_t)(n)*SEGMENT_PAGE)

/* The call there is damaged, and the loss of it and of what follows is accepted once. */
static void lose_from(uint64_t at, void (*after)(void))
{
    damage_record(at);
    f.options = OPTIONS ";wal_recovery_mode=kPointInTimeRecovery";
    run_and_die(after);
    f.options = OPTIONS;
}

static void put_together_a_hundred(void)
{
    save_singly(1, 64, 1);
    check_log(SHARD, 1, 64, ones);
    save_singly(65, 99, 1);
    check_log(SHARD, 1, 99, ones);
    make_tables();
}

static void check_99(void)
{
    check_log(SHARD, 1, 99, ones);
    save_singly(100, 100, 1);
}

static void check_100(void)
{
    check_log(SHARD, 1, 100, ones);
}

/* Found by a review: the calls that were left took the place of the block that held the others, and tables had a hole. */
Test(loss, what_tables_have_stays)
{
    run_and_die(put_together_a_hundred);
    lose_from(AT(21), check_99);
    run_and_die(check_100);
}

static const uint64_t one_then_two[60] = {[0 ... 28] = 1, [29 ... 59] = 2};

static void check_truncated(void)
{
    check_log(SHARD, 1, 60, one_then_two);
}

static void truncate_behind_the_damage(void)
{
    save_singly(1, 51, 1);
    save_entries(30, 1, 2);
    save_singly(31, 60, 2);
    check_truncated();
    make_tables();
}

/* Found by a review: entries that were truncated came back, with the newer ones behind them. */
Test(loss, what_was_truncated_stays_so)
{
    run_and_die(truncate_behind_the_damage);
    lose_from(AT(51), check_truncated);
    run_and_die(check_truncated);
}

static void save_states_behind_entries(void)
{
    struct nh_update u = make_state(SHARD, REPLICA, 1, 1, 0);

    save_singly(1, 10, 1);
    save_in_child(&u, 1);
    save_in_child(&u, 1);
    make_tables();
}

static void check_10(void)
{
    check_log(SHARD, 1, 10, ones);
}

/* RocksDB has the state before the entries, which wait for it. */
Test(loss, entries_before_a_newer_state_stay)
{
    run_and_die(save_states_behind_entries);
    lose_from(AT(11), check_10);
    run_and_die(check_10);
}

static void import_over_an_old_log(void)
{
    struct nh_snapshot s = make_snapshot(SHARD, 100, 1);

    save_singly(1, 20, 1);
    check_log(SHARD, 1, 20, ones);
    move_horizon();
    MUST(f.ops->remove_replica_data(f.db, SHARD, REPLICA, &f.err) == NH_OK, "%s", f.err.text);
    MUST(f.ops->import_snapshot(f.db, &s, REPLICA, &f.err) == NH_OK, "%s", f.err.text);
    save_singly(101, 104, 1);
}

static void check_import(void)
{
    check_log(SHARD, 101, 102, ones);
}

/* Its saves are counted from 1 again, and so seem to be older than what tables have. They are in segment 1, the import is not. */
Test(loss, an_import_stays)
{
    run_and_die(import_over_an_old_log);
    lose_from(AT(23), check_import);
    run_and_die(check_import);
}

/* ---- wherever the damage is ---- */

#define N_LOGS    3u
#define N_CALLS   120u
#define INDEX_MAX 600u
#define N_ROUNDS  20

struct log {
    uint64_t last;
    uint64_t terms[INDEX_MAX]; /* of entry i + 1 */
};

static struct model {
    uint64_t seed, term;
    uint64_t n_calls;
    uint64_t at[N_CALLS + 1];                /* of each call in the journal */
    struct log moments[N_CALLS + 1][N_LOGS]; /* after each call */
    uint64_t damaged;                        /* call */
} * model;                                   /* shared with the children */

static struct nh_update append(struct log *l, uint64_t shard_id)
{
    bool truncates = below(&model->seed, 8) == 0;
    uint64_t back = truncates ? below(&model->seed, (l->last < 40 ? l->last : 40) + 1) : 0;
    uint32_t n = 1 + (uint32_t)below(&model->seed, truncates ? 12 : 3);
    struct nh_run *run = xcalloc(1, sizeof *run);

    l->last -= back;
    *run = (struct nh_run){.block = make_block_sized(l->last + 1, n, ++model->term, 60), .to = n};
    for (uint32_t i = 0; i < n; i++)
        l->terms[l->last++] = model->term;
    return (struct nh_update){.shard_id = shard_id, .replica_id = REPLICA, .must_sync = true, .runs = run, .n_runs = 1};
}

/* Where the next call will lie. */
static uint64_t find_place(void)
{
    const struct segment *s = journal_stream_of(&f.db->journal, 1)->segment;

    return s ? s->end : AT(1);
}

/* Of one log or more. */
static void save_some(void)
{
    struct log *logs = model->moments[++model->n_calls];
    struct nh_update u[N_LOGS];
    size_t n = 0, which = below(&model->seed, N_LOGS);

    memcpy(logs, logs - N_LOGS, N_LOGS * sizeof *logs);
    for (size_t i = 0; i < N_LOGS; i++) {
        if (i != which && below(&model->seed, 2))
            continue;
        if (below(&model->seed, 8))
            u[n++] = append(&logs[i], SHARD + i);
        else
            u[n++] = make_state(SHARD + i, REPLICA, model->term + 1, 1, 0);
    }
    model->at[model->n_calls] = find_place();
    save_in_child(u, n);
    while (n-- > 0)
        update_deinit(&u[n]);
}

static void live(void)
{
    while (model->n_calls < N_CALLS) {
        uint64_t what = below(&model->seed, 100);
        struct nh_raft_state s;

        if (what < 90)
            save_some();
        else if (what < 95) /* what waits is written out */
            f.ops->read_raft_state(f.db, SHARD + below(&model->seed, N_LOGS), REPLICA, &s, &f.err);
        else if (what < 99)
            make_tables();
        else
            move_horizon();
    }
}

static struct log read_log(uint64_t shard_id)
{
    struct nh_raft_state s = {0};
    struct collected c = {0};
    struct log l = {0};
    size_t at = 0;
    int r = f.ops->read_raft_state(f.db, shard_id, REPLICA, &s, &f.err);

    MUST(r == NH_OK || r == NH_ENOTFOUND, "%s", f.err.text);
    MUST(s.last_index == 0 || collect(shard_id, REPLICA, 1, s.last_index + 1, SIZE_MAX, &c) == NH_OK, "%s", f.err.text);
    while (l.last < s.last_index) {
        l.terms[l.last++] = nh_record_term(c.bytes + at);
        at += nh_record_bytes(c.bytes + at);
    }
    collected_deinit(&c);
    return l;
}

/* At the call before the damage, or later. */
static void expect_one_moment(size_t i)
{
    struct log l = read_log(SHARD + i);
    uint64_t n = model->damaged - 1;

    while (n <= N_CALLS &&
           (model->moments[n][i].last != l.last || memcmp(model->moments[n][i].terms, l.terms, l.last * sizeof *l.terms) != 0))
        n++;
    MUST(n <= N_CALLS, "log %zu, which ends at %" PRIu64 ", never was, call %" PRIu64 " is damaged", i, l.last, model->damaged);
}

static void check_moments(void)
{
    for (size_t i = 0; i < N_LOGS; i++)
        expect_one_moment(i);
}

/* NH_SEED repeats a run. */
Test(loss, each_log_is_of_one_moment)
{
    const char *given = getenv("NH_SEED");

    model = mmap(NULL, sizeof *model, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)model, MAP_FAILED);
    model->seed = given ? strtoull(given, NULL, 0) : (uint64_t)getpid();
    for (int i = 0; i < N_ROUNDS; i++) {
        fprintf(stderr, "NH_SEED=%" PRIu64 "\n", model->seed);
        model->n_calls = 0;
        run_and_die(live);
        model->damaged = 1 + below(&model->seed, N_CALLS);
        lose_from(model->at[model->damaged], check_moments);
        fixture_deinit();
        init();
    }
    munmap(model, sizeof *model);
}
