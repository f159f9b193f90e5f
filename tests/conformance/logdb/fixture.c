#include "tests/conformance/logdb/fixture.h"

#include <dlfcn.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "logdb/memory/memory_logdb.h"
#include "logdb/rocksdb/rocksdb_logdb.h"
#include "raftio/plugin.h"
#include "raftio/support/block.h"
#include "raftio/support/memory.h"

struct fixture f;

static const struct nh_logdb_ops *load(const char *path)
{
    const struct nh_logdb_ops *(*get)(void);
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    cr_assert_not_null(so, "%s", dlerror());
    *(void **)&get = dlsym(so, NH_LOGDB_PLUGIN_SYMBOL);
    cr_assert_not_null(get, "%s", dlerror());
    return get();
}

static const struct nh_logdb_ops *choose(void)
{
    const char *name = getenv("NH_LOGDB_PLUGIN");

    if (!name || strcmp(name, "rocksdb") == 0)
        return nh_logdb_rocksdb();
    return strcmp(name, "memory") == 0 ? nh_logdb_memory() : load(name);
}

void fixture_init_closed(void)
{
    const char *tmp = getenv("TMPDIR");

    f = (struct fixture){.ops = choose(), .options = getenv("NH_LOGDB_OPTIONS")};
    cr_assert_eq(f.ops->abi_version, NH_LOGDB_ABI);
    cr_assert_geq(f.ops->struct_size, sizeof *f.ops);
    snprintf(f.dir, sizeof f.dir, "%s/nh-logdb-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(f.dir));
}

void fixture_init(void)
{
    fixture_init_closed();
    fixture_open();
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void fixture_deinit(void)
{
    fixture_close();
    memory_disk_drop(f.dir);
    nftw(f.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void fixture_open(void)
{
    const struct nh_logdb_config config = {
        .struct_size = sizeof config,
        .dir = f.dir,
        .n_workers = N_WORKERS,
        .options = f.options,
        .services = nh_plugin_services(),
    };

    MUST(f.ops->open(&config, &f.db, &f.err) == NH_OK, "%s", f.err.text); /* also called in child processes */
}

void fixture_close(void)
{
    if (f.db)
        f.ops->close(f.db);
    f.db = NULL;
}

void fixture_reopen(void)
{
    fixture_close();
    fixture_open();
}

bool fixture_is(const char *name)
{
    return strcmp(f.ops->name, name) == 0;
}

bool fixture_skip_in_memory(const char *why)
{
    if (!fixture_is("memory"))
        return false;
    fprintf(stderr, "skipped for the memory store: %s\n", why);
    return true;
}

void expect_ok(int r)
{
    cr_assert_eq(r, NH_OK, "%s: %s", nh_status_name(r), f.err.text);
}

/* ---- entries ---- */

static uint32_t payload_bytes_of(uint64_t index, uint64_t term)
{
    return (uint32_t)((index * 7 + term * 13) % 61);
}

static void add(struct block_builder *b, uint64_t index, uint64_t term, uint32_t payload_bytes)
{
    uint8_t *payload = xmalloc(payload_bytes + 1);
    struct block_record rec = {
        .type = NH_ENTRY_APPLICATION, .origin = 1, .key = index, .payload = payload, .payload_bytes = payload_bytes};

    memset(payload, (int)(index * 31 + term), payload_bytes);
    expect_ok(block_builder_add(b, &rec));
    free(payload);
}

struct nh_block *make_block_sized(uint64_t first, uint32_t n, uint64_t term, uint32_t payload_bytes)
{
    struct block_builder b = {0};

    for (uint32_t i = 0; i < n; i++)
        add(&b, first + i, term, payload_bytes);
    return block_seal(&b, term, first);
}

struct nh_block *make_block(uint64_t first, uint32_t n, uint64_t term)
{
    struct block_builder b = {0};

    for (uint32_t i = 0; i < n; i++)
        add(&b, first + i, term, payload_bytes_of(first + i, term));
    return block_seal(&b, term, first);
}

size_t record_bytes(uint64_t index, uint64_t term)
{
    return nh_record_padded(NH_RECORD_HEADER_BYTES + payload_bytes_of(index, term));
}

struct nh_update make_update(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint32_t n, uint64_t term)
{
    struct nh_run *run = xmalloc(sizeof *run);

    *run = (struct nh_run){.block = make_block(first, n, term), .from = 0, .to = n};
    return (struct nh_update){.shard_id = shard_id, .replica_id = replica_id, .must_sync = true, .runs = run, .n_runs = 1};
}

struct nh_update make_state(uint64_t shard_id, uint64_t replica_id, uint64_t term, uint64_t vote, uint64_t commit)
{
    return (struct nh_update){.shard_id = shard_id,
                              .replica_id = replica_id,
                              .has_state = true,
                              .must_sync = true,
                              .state = {.term = term, .vote = vote, .commit = commit}};
}

void update_deinit(struct nh_update *u)
{
    for (uint32_t i = 0; i < u->n_runs; i++)
        nh_block_unref(u->runs[i].block);
    free((void *)u->runs);
    *u = (struct nh_update){0};
}

/* Every other one in two steps, if the store can do that. */
int save(const struct nh_update *updates, size_t n, uint32_t worker_id)
{
    static uint32_t n_saves; /* atomic */
    int r;

    if (!NH_HAS(f.ops, begin_save) || __atomic_add_fetch(&n_saves, 1, __ATOMIC_RELAXED) % 2 == 0)
        return f.ops->save_raft_state(f.db, updates, n, worker_id, &f.err);
    r = f.ops->begin_save(f.db, updates, n, worker_id, &f.err);
    return r < 0 ? r : f.ops->end_save(f.db, worker_id, &f.err);
}

void must_save(const struct nh_update *updates, size_t n)
{
    expect_ok(save(updates, n, 1));
}

void must_save_entries(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint32_t n, uint64_t term)
{
    struct nh_update u = make_update(shard_id, replica_id, first, n, term);

    must_save(&u, 1);
    update_deinit(&u);
}

/* ---- reading ---- */

static int on_records(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct collected *c = ctx;

    (void)err;
    cr_assert_gt(size_bytes, 0);
    array_reserve((void **)&c->bytes, &c->cap_bytes, c->size_bytes + size_bytes, 1);
    memcpy(c->bytes + c->size_bytes, records, size_bytes);
    c->size_bytes += size_bytes;
    c->n_calls++;
    for (size_t at = 0; at < size_bytes; at += nh_record_bytes(records + at)) {
        uint64_t index = nh_record_index(records + at);

        cr_assert_leq(at + NH_RECORD_HEADER_BYTES, size_bytes);
        cr_assert_leq(at + nh_record_bytes(records + at), size_bytes, "only whole records are given");
        if (c->n == 0)
            c->first = index;
        else
            cr_assert_eq(index, c->last + 1, "entry %lu follows %lu", index, c->last);
        c->last = index;
        c->n++;
    }
    return NH_OK;
}

int collect(uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high, size_t max_bytes, struct collected *ret)
{
    struct nh_entry_sink sink = {.add = on_records, .ctx = ret};

    *ret = (struct collected){0};
    return f.ops->iterate_entries(f.db, shard_id, replica_id, low, high, max_bytes, &sink, &f.err);
}

void collected_deinit(struct collected *c)
{
    free(c->bytes);
    *c = (struct collected){0};
}

void expect_bounds(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint64_t last)
{
    struct nh_raft_state s;

    expect_ok(f.ops->read_raft_state(f.db, shard_id, replica_id, &s, &f.err));
    cr_assert_eq(s.first_index, first, "first is %lu, not %lu", s.first_index, first);
    cr_assert_eq(s.last_index, last, "last is %lu, not %lu", s.last_index, last);
}

void expect_state(uint64_t shard_id, uint64_t replica_id, uint64_t term, uint64_t vote, uint64_t commit)
{
    struct nh_raft_state s;

    expect_ok(f.ops->read_raft_state(f.db, shard_id, replica_id, &s, &f.err));
    cr_assert_eq(s.state.term, term, "term is %lu, not %lu", s.state.term, term);
    cr_assert_eq(s.state.vote, vote, "vote is %lu, not %lu", s.state.vote, vote);
    cr_assert_eq(s.state.commit, commit, "commit is %lu, not %lu", s.state.commit, commit);
}

void expect_log(uint64_t shard_id, uint64_t replica_id, uint64_t first, const uint64_t *terms, size_t n)
{
    struct collected c;
    size_t at = 0;

    expect_bounds(shard_id, replica_id, first, first + n - 1);
    if (n == 0) {
        cr_assert_eq(collect(shard_id, replica_id, first, first + 1, SIZE_MAX, &c), NH_ENOTFOUND);
        return;
    }
    expect_ok(collect(shard_id, replica_id, first, first + n, SIZE_MAX, &c));
    cr_assert_eq(c.first, first);
    cr_assert_eq(c.n, n, "%u entries instead of %zu", c.n, n);
    for (size_t i = 0; i < n; i++) {
        struct nh_block *want = make_block(first + i, 1, terms[i]);

        cr_assert_leq(at + want->offsets[1], c.size_bytes);
        cr_assert_eq(memcmp(c.bytes + at, want->data, want->offsets[1]), 0, "entry %lu is not the one of term %lu", first + i,
                     terms[i]);
        at += want->offsets[1];
        nh_block_unref(want);
    }
    cr_assert_eq(at, c.size_bytes);
    collected_deinit(&c);
}

void expect_entries(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint64_t last, uint64_t term)
{
    size_t n = (size_t)(last + 1 - first);
    uint64_t *terms = xmalloc((n + 1) * sizeof *terms);

    for (size_t i = 0; i < n; i++)
        terms[i] = term;
    expect_log(shard_id, replica_id, first, terms, n);
    free(terms);
}

/* ---- records ---- */

struct nh_snapshot make_snapshot(uint64_t shard_id, uint64_t index, uint64_t term)
{
    static struct nh_member members[2] = {
        {.replica_id = 1, .kind = NH_MEMBER_VOTER, .address = "h1:1"},
        {.replica_id = REPLICA, .kind = NH_MEMBER_WITNESS, .address = "h3:3"},
    };
    static uint64_t removed[1] = {9};
    static char path[] = "/snapshots/one";

    return (struct nh_snapshot){
        .shard_id = shard_id,
        .index = index,
        .term = term,
        .file_size_bytes = 4711,
        .on_disk_index = index - 1,
        .checksum = 0xabcdef01u,
        .witness = true,
        .file_path = path,
        .membership = {.config_change_id = 5, .n_members = 2, .n_removed = 1, .members = members, .removed = removed},
    };
}

void must_save_snapshot(uint64_t replica_id, const struct nh_snapshot *s)
{
    struct nh_update u = {.shard_id = s->shard_id, .replica_id = replica_id, .snapshot = s};

    expect_ok(f.ops->save_snapshots(f.db, &u, 1, &f.err));
}

uint64_t below(uint64_t *state, uint64_t n)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t x = *state;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x ^ x >> 31) % n;
}
