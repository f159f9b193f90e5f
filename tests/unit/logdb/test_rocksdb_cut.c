/* Random operations on a store that ends anywhere in any of them, while it is opened or recovers too, by a kill or a power cut
 * (cut_disk.h). The next life must find what was acknowledged, and of the operation at hand all or nothing. */
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "logdb/rocksdb/store.h"
#include "raftio/support/memory.h"
#include "tests/unit/logdb/cut_disk.h"
#include "tests/unit/logdb/lives.h"

#define N_LOGS             4u
#define INDEX_MAX          1000u
#define SAVE_MAX           32u /* entries */
#define N_LIVES            40u
#define LIVES_MAX          400u /* if not all that is to be seen was seen before */
#define N_LIVES_FOR_TABLES 150u

/* Segments of 64 KiB and small tables: all of it happens in a short life. */
#define SHORT "max_total_wal_size=1048576;write_buffer_size=131072"

struct log {
    bool exists, has_bootstrap;
    uint64_t first, last, snapshot;
    struct nh_state state;
    uint64_t terms[INDEX_MAX]; /* of entry i */
};

static struct model {
    uint64_t seed, term;
    struct log logs[N_LOGS];  /* acknowledged */
    struct log after[N_LOGS]; /* by the operation at hand */
    bool is_at_hand;
    uint64_t n_checks, n_found; /* lives that found one at hand, and it was there */
} * model;                      /* shared with the children */

static uint64_t pick(uint64_t n)
{
    return below(&model->seed, n);
}

/* Some wait in tails, some lie in tables, some in the journal, one or the other in a segment of its own. */
static uint32_t payload_bytes_of(uint64_t term)
{
    static const uint32_t sizes[] = {16, 16, 16, 100, 300, 1000, 4000, 20000};
    uint64_t seed = term;
    uint64_t i = below(&seed, 300);

    return i == 0 ? 300000 : sizes[i % 8];
}

/* ---- what the store has ---- */

static int add_records(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    uint64_t *terms = ctx;

    (void)err;
    for (size_t at = 0; at < size_bytes; at += nh_record_bytes(records + at)) {
        uint64_t index = nh_record_index(records + at), term = nh_record_term(records + at);
        struct nh_block *b = make_block_sized(index, 1, term, payload_bytes_of(term));

        MUST(memcmp(records + at, b->data, b->offsets[1]) == 0, "entry %" PRIu64 " of term %" PRIu64, index, term);
        terms[index] = term;
        nh_block_unref(b);
    }
    return NH_OK;
}

static void must_know(int r, const char *what, uint64_t shard_id)
{
    MUST(r == NH_OK || r == NH_ENOTFOUND, "%s of shard %" PRIu64 ": %s", what, shard_id, f.err.text);
}

static void read_log(uint64_t shard_id, struct log *ret)
{
    struct nh_entry_sink sink = {.add = add_records, .ctx = ret->terms};
    struct nh_bootstrap b = {0};
    struct nh_snapshot s = {0};
    struct nh_raft_state rs = {.first_index = 1};
    int r = f.ops->read_raft_state(f.db, shard_id, REPLICA, &rs, &f.err);

    must_know(r, "state", shard_id);
    *ret = (struct log){.exists = r == NH_OK, .first = rs.first_index, .last = rs.last_index, .state = rs.state};
    r = f.ops->get_bootstrap(f.db, shard_id, REPLICA, &b, &f.err);
    must_know(r, "bootstrap", shard_id);
    ret->has_bootstrap = r == NH_OK;
    must_know(f.ops->get_snapshot(f.db, shard_id, REPLICA, &s, &f.err), "snapshot", shard_id);
    ret->snapshot = s.index;
    if (ret->first <= ret->last)
        r = f.ops->iterate_entries(f.db, shard_id, REPLICA, ret->first, ret->last + 1, SIZE_MAX, &sink, &f.err);
    must_know(r, "entries", shard_id);
    nh_bootstrap_deinit(&b);
    nh_snapshot_deinit(&s);
}

static bool is_same(const struct log *a, const struct log *b)
{
    if (a->exists != b->exists || a->has_bootstrap != b->has_bootstrap || a->snapshot != b->snapshot)
        return false;
    if (a->first != b->first || a->last != b->last || memcmp(&a->state, &b->state, sizeof a->state) != 0)
        return false;
    return a->last < a->first ||
           memcmp(a->terms + a->first, b->terms + b->first, (a->last + 1 - a->first) * sizeof *a->terms) == 0;
}

static void print_log(const char *what, uint64_t shard_id, const struct log *l)
{
    fprintf(stderr,
            "%s, shard %" PRIu64 ": %s%s, entries %" PRIu64 " to %" PRIu64 ", snapshot %" PRIu64 ", term %" PRIu64
            ", commit %" PRIu64 "\n",
            what, shard_id, l->exists ? "there" : "not there", l->has_bootstrap ? ", started" : "", l->first, l->last,
            l->snapshot, l->state.term, l->state.commit);
}

static bool all_same(const struct log *a, const struct log *b)
{
    for (size_t i = 0; i < N_LOGS; i++)
        if (!is_same(&a[i], &b[i]))
            return false;
    return true;
}

/* What was acknowledged, or also what was at hand. */
static void check_all(void)
{
    struct log *found = xcalloc(N_LOGS, sizeof *found);
    bool is_after;

    for (size_t i = 0; i < N_LOGS; i++)
        read_log(SHARD + i, &found[i]);
    is_after = model->is_at_hand && all_same(found, model->after);
    for (size_t i = 0; i < N_LOGS && !is_after; i++) {
        if (is_same(&found[i], &model->logs[i]))
            continue;
        print_log("found", SHARD + i, &found[i]);
        print_log("acknowledged", SHARD + i, &model->logs[i]);
        print_log(model->is_at_hand ? "at hand" : "not at hand", SHARD + i, &model->after[i]);
        abort();
    }
    cut_disk_hold();
    model->n_checks += model->is_at_hand;
    model->n_found += is_after;
    if (is_after)
        memcpy(model->logs, model->after, sizeof model->logs);
    model->is_at_hand = false;
    cut_disk_release();
    free(found);
}

/* ---- operations: first what they do to the model, then they ---- */

static void begin(void)
{
    memcpy(model->after, model->logs, sizeof model->after);
}

static void attempt(void)
{
    __atomic_store_n(&model->is_at_hand, true, __ATOMIC_RELEASE);
}

static void end(int r)
{
    MUST(r == NH_OK, "%s", f.err.text);
    cut_disk_hold();
    memcpy(model->logs, model->after, sizeof model->logs);
    model->is_at_hand = false;
    cut_disk_release();
}

static void add_entries(struct log *l, struct nh_update *u, uint64_t from)
{
    struct nh_run *run = xcalloc(1, sizeof *run);
    uint32_t n = (uint32_t)(1 + pick(pick(8) ? 3 : SAVE_MAX));
    uint64_t term = ++model->term;

    *run = (struct nh_run){.block = make_block_sized(from, n, term, payload_bytes_of(term)), .to = n};
    u->runs = run;
    u->n_runs = 1;
    l->exists = true;
    l->last = from + n - 1;
    for (uint64_t k = from; k <= l->last; k++)
        l->terms[k] = term;
}

/* Beside the log, instead of it as it is too short, or as it is another. */
static struct nh_snapshot add_snapshot(struct log *l, uint64_t shard_id)
{
    uint64_t index = l->first + pick(l->last + 4 - l->first);
    bool has_entry = index <= l->last && pick(2);
    uint64_t term = has_entry ? l->terms[index] : ++model->term;

    if (index >= l->snapshot) {
        l->snapshot = index;
        if (!has_entry) {
            l->exists = true;
            l->first = index + 1;
            l->last = index;
        }
    }
    return make_snapshot(shard_id, index, term);
}

static void add_state(struct log *l, struct nh_update *u)
{
    u->has_state = true;
    u->state = (struct nh_state){.term = ++model->term, .vote = pick(3), .commit = l->last};
    l->state = u->state;
    l->exists = true;
}

static void add_update(struct nh_update *u, struct nh_snapshot *snapshot, size_t i)
{
    struct log *l = &model->after[i];
    uint64_t what = pick(100), inside = l->last + 1 - pick((l->last + 1 - l->first < 40 ? l->last + 1 - l->first : 40) + 1);

    *u = (struct nh_update){.shard_id = SHARD + i, .replica_id = REPLICA, .must_sync = true};
    if (what < 5) {
        *snapshot = add_snapshot(l, SHARD + i);
        u->snapshot = snapshot;
    }
    if (what < 90)
        add_entries(l, u, what >= 5 && what < 20 ? inside : l->last + 1);
    if (what >= 90 || pick(2))
        add_state(l, u);
}

/* Of some logs, one or two updates each; a worker has every other log. */
static void step_save(uint32_t worker)
{
    struct nh_snapshot snapshots[2 * N_LOGS];
    struct nh_update updates[2 * N_LOGS];
    size_t n = 0;

    begin();
    for (size_t i = worker; i < N_LOGS; i += 2)
        for (uint64_t k = pick(8) ? pick(2) : 2; k > 0; k--, n++)
            add_update(&updates[n], &snapshots[n], i);
    attempt();
    end(save(updates, n, worker + 1));
    while (n-- > 0)
        update_deinit(&updates[n]);
}

static void on_compacted(void *ctx)
{
    (void)ctx;
}

static void step_remove(size_t i)
{
    struct log *l = &model->after[i];
    uint64_t index;

    begin();
    index = l->first + pick(l->last + 2 - l->first);
    if (index <= l->last)
        l->first = index + 1;
    else
        index = l->first - 1;
    attempt();
    end(f.ops->remove_entries_to(f.db, SHARD + i, REPLICA, index, &f.err));
    if (pick(2))
        MUST(f.ops->compact_entries_to(f.db, SHARD + i, REPLICA, index, on_compacted, NULL, &f.err) == NH_OK, "%s", f.err.text);
}

static void step_snapshot(size_t i)
{
    struct nh_update u = {.shard_id = SHARD + i, .replica_id = REPLICA};
    struct nh_snapshot s;

    begin();
    s = add_snapshot(&model->after[i], SHARD + i);
    u.snapshot = &s;
    attempt();
    end(f.ops->save_snapshots(f.db, &u, 1, &f.err));
}

static void step_bootstrap(size_t i)
{
    const struct nh_bootstrap b = {.join = true};

    begin();
    model->after[i].has_bootstrap = true;
    attempt();
    end(f.ops->save_bootstrap(f.db, SHARD + i, REPLICA, &b, &f.err));
}

static void step_remove_all(size_t i)
{
    begin();
    model->after[i] = (struct log){.first = 1};
    attempt();
    end(f.ops->remove_replica_data(f.db, SHARD + i, REPLICA, &f.err));
}

static void step_import(size_t i)
{
    struct nh_snapshot s = make_snapshot(SHARD + i, 1 + pick(100), ++model->term);

    begin();
    model->after[i] = (struct log){.exists = true,
                                   .has_bootstrap = true,
                                   .first = s.index + 1,
                                   .last = s.index,
                                   .snapshot = s.index,
                                   .state = {.term = s.term, .commit = s.index}};
    attempt();
    end(f.ops->import_snapshot(f.db, &s, REPLICA, &f.err));
}

/* What is moved out of segments, as the reclaimer does it: RocksDB alone has it until the horizon moves. */
struct movable {
    struct nh_replica_info info;
    uint64_t segment_id, n;
};

static bool is_finished(uint64_t segment_id)
{
    struct journal *j = &f.db->journal;
    bool found = false;

    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < j->n_segments; i++)
        if (j->segments[i]->id == segment_id)
            found = j->segments[i]->sealed && j->segments[i]->last_lsn < j->horizon;
    pthread_mutex_unlock(&j->lock);
    return found;
}

static int choose_use(void *ctx, struct nh_replica_info info, struct use use)
{
    struct movable *m = ctx;

    if (is_finished(use.segment_id) && pick(++m->n) == 0) {
        m->info = info;
        m->segment_id = use.segment_id;
    }
    return 0;
}

static void step_move_out(void)
{
    struct movable m = {0};

    MUST(store_list_uses(f.db, choose_use, &m, &f.err) == NH_OK, "%s", f.err.text);
    if (m.n)
        MUST(store_move_replica(f.db, m.info, m.segment_id, &f.err) >= 0, "%s", f.err.text);
}

static void remove_what_is_long(uint64_t last)
{
    for (size_t i = 0; i < N_LOGS; i++)
        if (model->logs[i].last > last)
            step_remove_all(i);
}

static void step(void)
{
    uint64_t what = pick(100);
    size_t i = pick(N_LOGS);

    remove_what_is_long(INDEX_MAX - 4 * SAVE_MAX);
    if (what < 70)
        step_save((uint32_t)pick(2));
    else if (what < 78)
        step_remove(i);
    else if (what < 82)
        step_snapshot(i);
    else if (what < 84)
        step_bootstrap(i);
    else if (what < 86)
        step_remove_all(i);
    else if (what < 88)
        step_import(i);
    else if (what < 92)
        check_all();
    else if (what < 94)
        make_tables();
    else if (what < 98)
        step_move_out();
    else
        reclaimer_wake(f.db);
}

/* ---- lives ---- */

static void live(void)
{
    check_all();
    for (int i = 0; i < 400; i++)
        step();
    cut_disk_now();
}

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    setenv("NH_LOGDB_OPTIONS", SHORT, 1);
    fixture_init_closed();
}

TestSuite(cut, .init = init, .fini = fixture_deinit, .timeout = 240);

static bool was_all_seen(void)
{
    struct cut_disk_counts c = cut_disk_counts();

    return model->n_found > 0 && model->n_found < model->n_checks && c.kills > 0 && c.cuts > 0 && c.lost_sectors > 0 &&
           c.lost_names > 0;
}

/* RocksDB writes down each new table, between a few other calls. */
static void live_for_tables(void)
{
    check_all();
    for (;;) {
        remove_what_is_long(2 * SAVE_MAX);
        step_save((uint32_t)pick(2));
        make_tables();
    }
}

/* NH_SEED repeats a run, but for what the threads of RocksDB and of the store do at the same time. */
static void begin_lives(void)
{
    const char *given = getenv("NH_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)getpid();

    fprintf(stderr, "NH_SEED=%" PRIu64 "\n", seed);
    model = mmap(NULL, sizeof *model, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)model, MAP_FAILED);
    model->seed = seed;
    for (size_t i = 0; i < N_LOGS; i++)
        model->logs[i].first = 1;
    cut_disk_begin(f.dir, seed);
}

static void end_lives(void)
{
    cut_disk_end();
    munmap(model, sizeof *model);
}

Test(cut, whatever_a_crash_leaves_is_recovered)
{
    struct cut_disk_counts counts;

    begin_lives();
    for (uint64_t i = 0; i < N_LIVES || (i < LIVES_MAX && !was_all_seen()); i++) {
        cut_disk_after(1 + pick(pick(3) ? 800 : 60));
        run_and_die(live);
    }
    counts = cut_disk_counts();
    fprintf(stderr, "%" PRIu64 " operations at hand, %" PRIu64 " of them found; %" PRIu64 " sectors and %" PRIu64 " names lost\n",
            model->n_checks, model->n_found, counts.lost_sectors, counts.lost_names);
    cr_assert(was_all_seen(), "some were found, and some not; sectors and names were lost");
    end_lives();
}

Test(cut, what_rocksdb_writes_down_of_its_tables_is_never_torn)
{
    begin_lives();
    for (uint64_t i = 0; i < N_LIVES_FOR_TABLES; i++) {
        cut_disk_after(1 + pick(120));
        run_and_die(live_for_tables);
    }
    cr_assert(cut_disk_counts().lost_sectors > 0 && cut_disk_counts().cuts > 0);
    end_lives();
}
