/* The log store alone: the blocks of a run through nh_logdb_ops.save_raft_state. */
#include "cmd/nhbench/limit.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "nodehost/nodehost.h"

#include "cmd/nhbench/cluster.h"
#include "cmd/nhbench/must.h"

/* One update of a save: a block of n records of one shard, whose indexes go on with each save. */
struct block {
    struct nh_block head;
    struct nh_run run;
    uint32_t *offsets;
    uint8_t *data;
    uint32_t record_bytes;
};

static void store_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static void store_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

/* Records as raftio/entry.h has them. Checksums are left out: nobody reads these back, and a leader makes them before. */
static void block_init(struct block *b, uint32_t n, uint32_t record_bytes)
{
    b->record_bytes = record_bytes;
    b->offsets = must(calloc(n + 1u, sizeof *b->offsets));
    b->data = must(calloc(n, record_bytes));
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *record = b->data + (size_t)i * record_bytes;

        store_u32(record + 4, record_bytes - NH_RECORD_HEADER_BYTES);
        store_u64(record + 8, 1);
        b->offsets[i + 1] = (i + 1) * record_bytes;
    }
    b->head = (struct nh_block){
        .refs = 1, .n = n, .first_index = 1, .term = 1, .offsets = b->offsets, .data = b->data, .types = UINT32_MAX};
    b->run = (struct nh_run){&b->head, 0, n};
}

static void block_advance(struct block *b, uint64_t first)
{
    b->head.first_index = first;
    for (uint32_t i = 0; i < b->head.n; i++)
        store_u64(b->data + (size_t)i * b->record_bytes + 16, first + i);
}

static int save_all(const struct nh_logdb_ops *ops, struct nh_logdb *db, struct block *blocks, struct nh_update *updates,
                    uint32_t n, struct limit_watch *w, struct nh_error *err)
{
    int r;

    do {
        r = ops->save_raft_state(db, updates, n, 1, err);
        for (uint32_t i = 0; i < n; i++) {
            block_advance(&blocks[i], blocks[i].head.first_index + blocks[i].head.n);
            updates[i].state.commit = blocks[i].head.first_index - 1;
        }
    } while (r == NH_OK && limit_watch_count(w));
    return r;
}

static int save_blocks(const struct nh_logdb_ops *ops, struct nh_logdb *db, const struct limit_shape *shape, double seconds,
                       struct limit *ret, struct nh_error *err)
{
    uint32_t n = shape->updates_per_save;
    struct nh_update *updates = must(calloc(n, sizeof *updates));
    struct block *blocks = must(calloc(n, sizeof *blocks));
    struct limit_watch w;
    int r;

    for (uint32_t i = 0; i < n; i++) {
        block_init(&blocks[i], shape->entries_per_save / n + (i < shape->entries_per_save % n), shape->entry_bytes);
        block_advance(&blocks[i], 1);
        updates[i] = (struct nh_update){.shard_id = i + 1,
                                        .replica_id = 1,
                                        .has_state = true,
                                        .must_sync = true,
                                        .state = {.term = 1, .vote = 1},
                                        .runs = &blocks[i].run,
                                        .n_runs = 1};
    }
    limit_watch_start(&w, seconds);
    r = save_all(ops, db, blocks, updates, n, &w, err);
    if (r == NH_OK)
        limit_watch_end(&w, shape->entries_per_save, ret);
    for (uint32_t i = 0; i < n; i++) {
        free(blocks[i].offsets);
        free(blocks[i].data);
    }
    free(blocks);
    free(updates);
    return r;
}

bool limit_store(const struct bench_options *o, const char *dir, const struct limit_shape *shape, double seconds,
                 struct limit *ret)
{
    struct nh_logdb_config config = {.struct_size = sizeof config,
                                     .n_workers = 1,
                                     .options = o->log_store_options,
                                     .services = nh_plugin_services(),
                                     .no_polling = o->no_polling};
    char path[PATH_MAX + 64], whole[PATH_MAX];
    const struct nh_logdb_ops *ops = nh_logdb_builtin(o->log_store);
    struct nh_error err = {0};
    struct nh_logdb *db = NULL;
    int r = NH_OK;

    snprintf(path, sizeof path, "%s/limit-store", dir);
    config.dir = path;
    if (!ops)
        r = realpath(o->log_store, whole) ? nh_logdb_load(whole, &ops, &err) : NH_ENOTFOUND;
    if (r == NH_OK && mkdir(path, 0700) == 0)
        r = ops->open(&config, &db, &err);
    if (r == NH_OK && db)
        r = save_blocks(ops, db, shape, seconds, ret, &err);
    if (db)
        ops->close(db);
    remove_tree(path, true);
    if (r < 0)
        fprintf(stderr, "nhbench: --limit: log store: %s\n", err.text);
    return r == NH_OK;
}
