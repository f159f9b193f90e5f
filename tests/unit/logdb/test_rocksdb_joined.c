/* Joined blocks (logdb/rocksdb/tail.h): one key for what several saves have put into the journal. That every entry is found
 * whatever happened to its part: a truncation, the end of the host, a segment that went. */
#include "tests/conformance/logdb/fixture.h"

#include <inttypes.h>
#include <semaphore.h>
#include <unistd.h>

#include "logdb/rocksdb/store.h"
#include "raftio/support/block.h"
#include "raftio/support/memory.h"
#include "tests/unit/logdb/lives.h"

/* Segments of 64 KiB, so that they are moved out of and used again. */
#define SHORT_JOURNAL "max_total_wal_size=262144"
/* A part: more than may wait with its records. */
#define PART_ENTRIES 4u
#define PART_PAYLOAD 1000u
#define N_PARTS      5u
#define LAST         (N_PARTS * PART_ENTRIES)

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    setenv("NH_LOGDB_OPTIONS", SHORT_JOURNAL, 1);
    fixture_init_closed();
}

TestSuite(joined, .init = init, .fini = fixture_deinit, .timeout = 120);

static void save_part(uint64_t first)
{
    save_sized(first, PART_ENTRIES, 1, PART_PAYLOAD);
}

static void save_parts(void)
{
    for (uint64_t i = 1; i <= LAST; i += PART_ENTRIES)
        save_part(i);
}

/* Blocks of SHARD in RocksDB. */
struct counts {
    size_t n, n_joined, n_located;
};

static struct counts count_blocks(void)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(f.db->db, f.db->read);
    struct counts c = {0};
    struct layout_header h;
    struct layout_key key;
    uint64_t first;

    layout_block_key(&key, SHARD, REPLICA, 0);
    rocksdb_iter_seek(it, key.bytes, key.size_bytes);
    while (block_at(f.db, it, SHARD, REPLICA, &first, &h, &f.err) > 0) {
        c.n++;
        c.n_joined += h.joined;
        c.n_located += h.located;
        rocksdb_iter_next(it);
    }
    rocksdb_iter_destroy(it);
    return c;
}

static void expect_blocks(size_t n, size_t n_joined)
{
    struct counts c = count_blocks();

    MUST(c.n == n && c.n_joined == n_joined, "%zu blocks, %zu of them joined", c.n, c.n_joined);
}

/* The entries are read one by one, all at once and from anywhere to the end, and are of these terms. */
static void check_each(uint64_t first, uint64_t last, const uint64_t *terms)
{
    for (uint64_t i = first; i <= last; i++) {
        struct collected c;

        MUST(collect(SHARD, REPLICA, i, i + 1, SIZE_MAX, &c) == NH_OK, "%s", f.err.text);
        MUST(c.n == 1 && nh_record_index(c.bytes) == i, "entry %" PRIu64, i);
        MUST(nh_record_term(c.bytes) == terms[i - first], "entry %" PRIu64, i);
        collected_deinit(&c);
        MUST(collect(SHARD, REPLICA, i, last + 1, SIZE_MAX, &c) == NH_OK && c.n == last + 1 - i, "from %" PRIu64, i);
        collected_deinit(&c);
    }
    check_log(SHARD, first, last, terms);
}

/* ---- what is put together ---- */

static void join_and_read(void)
{
    save_parts();
    expect_blocks(0, 0);
    check_each(1, LAST, ones);
    expect_blocks(1, 1);
}

Test(joined, one_key_for_several_saves)
{
    run_and_die(join_and_read);
}

/* Packed, not packed, with their records: a reader could not tell them apart in one block. */
static void save_of_each_form(void)
{
    static const struct {
        uint32_t n, payload_bytes;
    } saves[] = {{40, 30}, {40, 30}, {4, 1000}, {4, 1000}, {1, 16}, {1, 16}, {3, 30000}, {4, 1000}};
    uint64_t first = 1;

    for (size_t i = 0; i < sizeof saves / sizeof *saves; i++) {
        save_sized(first, saves[i].n, 1, saves[i].payload_bytes);
        first += saves[i].n;
    }
    check_each(1, first - 1, ones);
    expect_blocks(5, 2);
}

Test(joined, blocks_of_one_form_are_joined)
{
    run_and_die(save_of_each_form);
}

static void reopen_and_read(void)
{
    check_each(1, LAST, ones);
    expect_blocks(N_PARTS, 0);
}

static void reopen_tables_and_read(void)
{
    check_each(1, LAST, ones);
    expect_blocks(1, 1);
}

static void join_and_make_tables(void)
{
    join_and_read();
    move_horizon();
}

Test(joined, a_recovery_has_them_one_by_one)
{
    run_and_die(join_and_read);
    run_and_die(reopen_and_read);
}

Test(joined, tables_have_them_joined)
{
    run_and_die(join_and_make_tables);
    run_and_die(reopen_tables_and_read);
}

/* ---- damage ---- */

static void put_value(const char *value, size_t size_bytes)
{
    struct layout_key key;

    layout_block_key(&key, SHARD, REPLICA, 1);
    MUST(store_put(f.db, &key, (const uint8_t *)value, size_bytes, &f.err) == NH_OK, "%s", f.err.text);
}

static char *get_value(size_t *ret_bytes)
{
    char *message = NULL, *value;
    struct layout_key key;

    layout_block_key(&key, SHARD, REPLICA, 1);
    value = rocksdb_get(f.db->db, f.db->read, key.bytes, key.size_bytes, ret_bytes, &message);
    MUST(value && !message, "%s", message);
    return value;
}

/* Any bytes behind the header, which has a checksum; then any size. */
static size_t damage(char *value, size_t size_bytes, uint64_t *seed)
{
    size_t places_bytes = size_bytes - LAYOUT_HEADER_BYTES;

    for (uint64_t n = 1 + below(seed, 3); n > 0; n--)
        value[LAYOUT_HEADER_BYTES + below(seed, places_bytes)] = (char)(below(seed, 2) ? below(seed, 16) : below(seed, 256));
    return below(seed, 8) ? size_bytes : LAYOUT_HEADER_BYTES + below(seed, places_bytes + 1);
}

/* An error, or what was saved: whoever decodes it would notice the rest. */
static void read_damaged(uint64_t from, const struct collected *sound)
{
    struct run_list runs = {0};
    struct collected c;
    int r = collect(SHARD, REPLICA, from, LAST + 1, SIZE_MAX, &c);

    MUST(r == NH_OK || r == NH_ECORRUPT || r == NH_EIO, "%d: %s", r, f.err.text);
    if (r == NH_OK && run_list_decode(&runs, c.bytes, c.size_bytes, from, &f.err) == NH_OK)
        MUST(c.size_bytes <= sound->size_bytes &&
                 memcmp(c.bytes, sound->bytes + sound->size_bytes - c.size_bytes, c.size_bytes) == 0,
             "from %" PRIu64, from);
    run_list_deinit(&runs);
    collected_deinit(&c);
}

/* The truncation has no effect. */
static void truncate_damaged(uint64_t from)
{
    struct nh_update u = make_update(SHARD, REPLICA, from, 1, 2);

    MUST(save(&u, 1, 1) < 0, "it is in the damaged part");
    update_deinit(&u);
}

static void damage_and_read(void)
{
    uint64_t seed = 1;
    struct collected sound;
    size_t size;
    char *value;

    join_and_read();
    MUST(collect(SHARD, REPLICA, 1, LAST + 1, SIZE_MAX, &sound) == NH_OK, "%s", f.err.text);
    value = get_value(&size);
    for (int i = 0; i < 3000; i++) {
        char damaged[1024];

        memcpy(damaged, value, size);
        put_value(damaged, damage(damaged, size, &seed));
        read_damaged(1 + below(&seed, LAST), &sound);
    }
    put_value(value, size - 1);
    truncate_damaged(LAST);
    put_value(value, size);
    check_each(1, LAST, ones);
    free(value);
    collected_deinit(&sound);
}

Test(joined, damaged_places_are_noticed)
{
    run_and_die(damage_and_read);
}

/* ---- truncations ---- */

static uint64_t truncated_at;
static uint64_t terms[LAST + 1];

static void set_terms(void)
{
    for (uint64_t i = 1; i <= truncated_at; i++)
        terms[i - 1] = i < truncated_at ? 1 : 2;
}

static void truncate_in_tables(void)
{
    join_and_make_tables();
    save_entries(truncated_at, 1, 2);
    check_each(1, truncated_at, terms);
    make_tables();
}

static void truncate_in_memory(void)
{
    save_parts();
    save_entries(truncated_at, 1, 2);
    check_each(1, truncated_at, terms);
}

/* Further saves must not meet what the log had there before. */
static void go_on(void)
{
    check_each(1, truncated_at, terms);
    for (uint64_t i = truncated_at + 1; i <= LAST + 1; i++) {
        save_entries(i, 1, 2);
        terms[i - 1] = 2;
    }
    check_each(1, LAST + 1, terms);
}

static void go_on_again(void)
{
    for (uint64_t i = truncated_at; i <= LAST + 1; i++)
        terms[i - 1] = 2;
    check_each(1, LAST + 1, terms);
}

/* `before` may be NULL. */
static void expect_truncations(void (*before)(void), void (*truncate)(void))
{
    for (truncated_at = 1; truncated_at <= LAST; truncated_at++) {
        set_terms();
        fixture_deinit();
        init();
        if (before)
            run_and_die(before);
        run_and_die(truncate);
        run_and_die(go_on);
        run_and_die(go_on_again);
    }
}

Test(joined, truncated_anywhere_after_it_was_made_durable)
{
    expect_truncations(NULL, truncate_in_tables);
}

Test(joined, truncated_anywhere_and_repeated)
{
    expect_truncations(NULL, truncate_in_memory);
}

/* ---- segments that go ---- */

static void save_other(uint64_t shard_id, uint64_t first, uint32_t n)
{
    struct nh_run run = {.block = make_block_sized(first, n, 1, 4000), .to = n};
    struct nh_update u = {.shard_id = shard_id, .replica_id = REPLICA, .must_sync = true, .runs = &run, .n_runs = 1};

    save_in_child(&u, 1);
    nh_block_unref(run.block);
}

/* Another shard fills a segment between every two parts, and lets go of it. */
static void spread_parts(void)
{
    for (uint64_t k = 0; k < 3; k++) {
        save_part(1 + k * PART_ENTRIES);
        save_other(SHARD + 1, 1 + k * 14, 14);
    }
    MUST(f.ops->remove_entries_to(f.db, SHARD + 1, REPLICA, 42, &f.err) == NH_OK, "%s", f.err.text);
    move_horizon();
    expect_blocks(1, 1);
}

static void write_and_remove(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i += 4) {
        save_other(SHARD + 2, i, 4);
        MUST(f.ops->remove_entries_to(f.db, SHARD + 2, REPLICA, i + 3, &f.err) == NH_OK, "%s", f.err.text);
    }
}

/* A journal that is far over its budget is moved out of, the oldest segment first. */
static void write_until_in_tables(uint64_t first, bool all)
{
    for (uint64_t i = first; i < first + 2000; i += 4) {
        struct counts c = count_blocks();

        if (all ? c.n_located == 0 : c.n_located < c.n)
            return;
        save_other(SHARD + 2, i, 4);
        usleep(1000);
    }
    MUST(false, "nothing is moved");
}

static void move_out_of_the_first(void)
{
    spread_parts();
    write_until_in_tables(1, false);
    check_each(1, 3 * PART_ENTRIES, ones);
}

static void move_out_of_all(void)
{
    struct nh_raft_state s;

    check_each(1, 3 * PART_ENTRIES, ones);
    MUST(f.ops->read_raft_state(f.db, SHARD + 2, REPLICA, &s, &f.err) == NH_OK, "%s", f.err.text);
    write_until_in_tables(s.last_index + 1, true);
    check_each(1, 3 * PART_ENTRIES, ones);
}

static void read_what_was_moved(void)
{
    check_each(1, 3 * PART_ENTRIES, ones);
}

Test(joined, parts_are_moved_out_of_their_segments)
{
    run_and_die(move_out_of_the_first);
    run_and_die(move_out_of_all);
    run_and_die(read_what_was_moved);
}

/* ---- what is moved out, and lost by a crash as only RocksDB's memory had it ---- */

static void move_out(void)
{
    const struct nh_replica_info info = {SHARD, REPLICA};

    MUST(store_move_replica(f.db, info, 1, &f.err) == 1, "%s", f.err.text);
    MUST(count_blocks().n_joined == 0, "it is split");
}

static void move_out_and_truncate(void)
{
    move_out();
    save_entries(truncated_at, 1, 2);
    check_each(1, truncated_at, terms);
}

Test(joined, truncated_anywhere_after_it_was_split)
{
    expect_truncations(join_and_make_tables, move_out_and_truncate);
}

/* RocksDB makes a table of it before the horizon moves, and the truncation is repeated over that. */
static void truncate_and_move_out(void)
{
    save_entries(truncated_at, 1, 2);
    move_out();
    make_tables();
}

Test(joined, split_after_it_was_truncated_anywhere)
{
    expect_truncations(join_and_make_tables, truncate_and_move_out);
}

static void on_compacted(void *ctx)
{
    sem_post(ctx);
}

static uint64_t removed_to;

static void move_out_and_compact(void)
{
    sem_t is_done;

    sem_init(&is_done, 0, 0);
    move_out();
    MUST(f.ops->remove_entries_to(f.db, SHARD, REPLICA, removed_to, &f.err) == NH_OK, "%s", f.err.text);
    MUST(f.ops->compact_entries_to(f.db, SHARD, REPLICA, removed_to, on_compacted, &is_done, &f.err) == NH_OK, "%s", f.err.text);
    sem_wait(&is_done);
    sem_destroy(&is_done);
}

static void read_the_rest(void)
{
    check_each(removed_to + 1, LAST, ones);
}

Test(joined, removed_anywhere_after_it_was_split)
{
    for (removed_to = 1; removed_to <= LAST; removed_to++) {
        fixture_deinit();
        init();
        run_and_die(join_and_make_tables);
        run_and_die(move_out_and_compact);
        run_and_die(read_the_rest);
    }
}

/* ---- */

/* The start lies in the second part, and the segment of the first is gone. */
static void lose_the_first_part(void)
{
    spread_parts();
    MUST(f.ops->remove_entries_to(f.db, SHARD, REPLICA, PART_ENTRIES + 1, &f.err) == NH_OK, "%s", f.err.text);
    for (uint64_t i = 1; i < 200; i += 40)
        write_and_remove(i, i + 40);
    move_horizon();
    check_each(PART_ENTRIES + 2, 3 * PART_ENTRIES, ones);
}

static void truncate_without_the_first(void)
{
    const uint64_t first = PART_ENTRIES + 2, at = 2 * PART_ENTRIES + 2;

    check_each(first, 3 * PART_ENTRIES, ones);
    save_entries(at, 1, 2);
    set_terms();
    check_each(first, at, terms + first - 1);
}

static void read_without_the_first(void)
{
    const uint64_t first = PART_ENTRIES + 2;

    check_each(first, 2 * PART_ENTRIES + 2, terms + first - 1);
}

Test(joined, dead_parts_are_left_alone)
{
    truncated_at = 2 * PART_ENTRIES + 2;
    set_terms();
    run_and_die(lose_the_first_part);
    run_and_die(truncate_without_the_first);
    run_and_die(read_without_the_first);
}
