#include "engine/saves.h"

#include <stdlib.h>

#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define SMALL_SAVES_MAX 64u
#define SMALL_RUNS_MAX  128u
#define SMALL_BYTES_MAX 16384u
/* What was staged or saved for thousands of replicas has left the processor's cache, and is asked for so many before its turn. */
#define LOOK_AHEAD 16u

struct save_batch *save_batch_new(void)
{
    return xcalloc(1, sizeof(struct save_batch));
}

static void free_rare(struct save_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        if (b->saves[i].snapshot)
            nh_snapshot_deinit(b->saves[i].snapshot);
        free(b->saves[i].snapshot);
        free(b->saves[i].failure);
    }
}

void save_batch_clear(struct save_batch *b)
{
    for (size_t i = 0; i < b->n_runs; i++) {
        if (i + LOOK_AHEAD < b->n_runs)
            prefetch(b->runs[i + LOOK_AHEAD].block, 1);
        nh_block_unref(b->runs[i].block);
    }
    b->n_runs = 0;
    if (b->has_snapshots || b->has_failures)
        free_rare(b);
    b->n = 0;
    messages_clear(&b->after);
    b->must_sync = b->has_snapshots = b->has_failures = false;
    b->begun = false;
}

void save_batch_free(struct save_batch *b)
{
    if (!b)
        return;
    save_batch_clear(b);
    messages_deinit(&b->after);
    free(b->after_saves);
    free(b->saves);
    free(b->runs);
    free(b->updates);
    free(b);
}

size_t save_batch_add(struct save_batch *b, struct replica *r, const struct nh_update *update, uint64_t save_id,
                      struct run_list *runs)
{
    struct save *s;

    array_reserve((void **)&b->saves, &b->cap_saves, b->n + 1, sizeof *b->saves);
    array_reserve((void **)&b->updates, &b->cap_updates, b->n + 1, sizeof *b->updates);
    prefetch(&b->updates[b->n + 2], sizeof *b->updates); /* for the ones after it */
    s = &b->saves[b->n];
    *s = (struct save){.replica = r, .save_id = save_id, .first_run = b->n_runs};
    array_reserve((void **)&b->runs, &b->cap_runs, b->n_runs + runs->n, sizeof *b->runs);
    for (uint32_t i = 0; i < runs->n; i++) /* mostly one */
        b->runs[b->n_runs++] = runs->runs[i];
    if (update->snapshot) {
        b->has_snapshots = true;
        s->snapshot = xcalloc(1, sizeof *s->snapshot);
        nh_snapshot_copy(s->snapshot, update->snapshot);
    }
    b->updates[b->n] = *update;
    b->updates[b->n].snapshot = s->snapshot;
    b->updates[b->n].n_runs = runs->n;
    runs->n = 0;
    b->must_sync |= update->must_sync;
    return b->n++;
}

void save_batch_add_after(struct save_batch *b, size_t at, const struct nh_message *message)
{
    array_reserve((void **)&b->after_saves, &b->cap_after_saves, b->after.n + 1, sizeof *b->after_saves);
    b->after_saves[b->after.n] = at;
    messages_push(&b->after, message);
}

uint64_t save_batch_entries(const struct save_batch *b)
{
    uint64_t n = 0;

    for (size_t i = 0; i < b->n_runs; i++)
        n += nh_run_count(&b->runs[i]);
    return n;
}

bool save_batch_is_small(const struct save_batch *b)
{
    return b->n <= SMALL_SAVES_MAX && b->n_runs <= SMALL_RUNS_MAX && runs_bytes(b->runs, b->n_runs) <= SMALL_BYTES_MAX;
}

static void set_runs(struct save_batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->updates[i].n_runs)
            b->updates[i].runs = &b->runs[b->saves[i].first_run];
}

void save_batch_leave_out(struct save_batch *b, const struct replica *r, const char *reason)
{
    for (size_t i = 0; i < b->n; i++) {
        if (b->saves[i].replica != r || b->saves[i].failure)
            continue;
        b->saves[i].failure = xstrdup(reason);
        b->has_failures = true;
    }
}

/* The store goes on, without the one of which it says that. */
static void write_singly(struct save_batch *b, const struct nh_logdb_ops *ops, struct nh_logdb *db, uint32_t worker_id)
{
    b->result = NH_OK;
    for (size_t i = 0; i < b->n && b->result == NH_OK; i++) {
        if (b->saves[i].failure)
            continue;
        b->result = ops->save_raft_state(db, &b->updates[i], 1, worker_id, &b->err);
        b->result = plugin_status(b->result, "save_raft_state", &b->err);
        if (b->result != NH_ECORRUPT)
            continue;
        save_batch_leave_out(b, b->saves[i].replica, plugin_reason(&b->err, b->result));
        b->result = NH_OK;
    }
}

void save_batch_begin(struct save_batch *b, const struct nh_logdb_ops *ops, struct nh_logdb *db, uint32_t worker_id)
{
    if (!NH_HAS(ops, begin_save) || !NH_HAS(ops, end_save) || b->has_failures)
        return;
    set_runs(b);
    b->result = plugin_status(ops->begin_save(db, b->updates, b->n, worker_id, &b->err), "begin_save", &b->err);
    b->begun = true;
}

void save_batch_write(struct save_batch *b, const struct nh_logdb_ops *ops, struct nh_logdb *db, uint32_t worker_id)
{
    if (!b->begun) {
        set_runs(b);
        b->result = b->has_failures ? NH_ECORRUPT : ops->save_raft_state(db, b->updates, b->n, worker_id, &b->err);
        b->result = plugin_status(b->result, "save_raft_state", &b->err);
    } else if (b->result == NH_OK) {
        b->result = plugin_status(ops->end_save(db, worker_id, &b->err), "end_save", &b->err);
    }
    if (b->result == NH_ECORRUPT)
        write_singly(b, ops, db, worker_id);
}
