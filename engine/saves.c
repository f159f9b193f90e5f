#include "engine/saves.h"

#include <stdlib.h>

#include "raftio/support/memory.h"

struct save_batch *save_batch_new(void)
{
    return xcalloc(1, sizeof(struct save_batch));
}

void save_batch_clear(struct save_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        run_list_deinit(&b->saves[i].runs);
        if (b->saves[i].snapshot)
            nh_snapshot_deinit(b->saves[i].snapshot);
        free(b->saves[i].snapshot);
    }
    b->n = 0;
    messages_clear(&b->after);
    b->must_sync = false;
}

void save_batch_free(struct save_batch *b)
{
    if (!b)
        return;
    save_batch_clear(b);
    messages_deinit(&b->after);
    free(b->after_saves);
    free(b->saves);
    free(b->updates);
    free(b);
}

size_t save_batch_add(struct save_batch *b, struct replica *r, const struct nh_update *update, uint64_t save_id,
                      struct run_list *runs)
{
    struct save *s;

    array_reserve((void **)&b->saves, &b->cap_saves, b->n + 1, sizeof *b->saves);
    array_reserve((void **)&b->updates, &b->cap_updates, b->n + 1, sizeof *b->updates);
    s = &b->saves[b->n];
    *s = (struct save){.replica = r, .save_id = save_id, .runs = *runs};
    *runs = (struct run_list){0};
    if (update->snapshot) {
        s->snapshot = xcalloc(1, sizeof *s->snapshot);
        nh_snapshot_copy(s->snapshot, update->snapshot);
    }
    b->updates[b->n] = *update;
    b->updates[b->n].snapshot = s->snapshot;
    b->updates[b->n].runs = s->runs.runs;
    b->updates[b->n].n_runs = s->runs.n;
    b->must_sync |= update->must_sync;
    return b->n++;
}

void save_batch_add_after(struct save_batch *b, size_t at, struct nh_message *message)
{
    array_reserve((void **)&b->after_saves, &b->cap_after_saves, b->after.n + 1, sizeof *b->after_saves);
    b->after_saves[b->after.n] = at;
    messages_push(&b->after, message);
}

void save_batch_write(struct save_batch *b, const struct nh_logdb_ops *ops, struct nh_logdb *db, uint32_t worker_id)
{
    b->result = ops->save_raft_state(db, b->updates, b->n, worker_id, &b->err);
}
