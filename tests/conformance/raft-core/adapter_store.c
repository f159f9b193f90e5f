/* Memory, logs and snapshots of a node, and the functions that change its stable store. */
#include "tests/conformance/raft-core/adapter.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

struct arena_chunk {
    struct arena_chunk *next;
    max_align_t data[];
};

void *rct_arena_get(struct rct_arena *a, size_t bytes)
{
    struct arena_chunk *c = xcalloc(1, sizeof *c + bytes + 1);

    c->next = a->chunks;
    a->chunks = c;
    return c->data;
}

const uint8_t *rct_arena_copy(struct rct_arena *a, const void *data, size_t bytes)
{
    uint8_t *to = rct_arena_get(a, bytes);

    if (bytes > 0)
        memcpy(to, data, bytes);
    return to;
}

void rct_arena_deinit(struct rct_arena *a)
{
    while (a->chunks) {
        struct arena_chunk *next = a->chunks->next;

        free(a->chunks);
        a->chunks = next;
    }
}

/* ---- logs ---- */

uint64_t entry_log_last(const struct entry_log *log)
{
    return log->first + log->entries.n - 1;
}

const rct_entry *entry_log_at(const struct entry_log *log, uint64_t index)
{
    return index >= log->first && index - log->first < log->entries.n ? &log->entries.items[index - log->first] : NULL;
}

static void free_entries(rct_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free((void *)(size_t)entries[i].data);
}

void entry_log_cut(struct entry_log *log, uint64_t from)
{
    uint64_t keep = from > log->first ? from - log->first : 0;

    if (keep >= log->entries.n)
        return;
    free_entries(log->entries.items + keep, log->entries.n - keep);
    log->entries.n = keep;
}

void entry_log_drop(struct entry_log *log, uint64_t index)
{
    uint64_t n;

    if (index < log->first)
        return;
    n = index - log->first + 1;
    if (n >= log->entries.n) {
        entry_log_reset(log, index + 1);
        return;
    }
    free_entries(log->entries.items, n);
    memmove(log->entries.items, log->entries.items + n, (log->entries.n - n) * sizeof *log->entries.items);
    log->entries.n -= n;
    log->first = index + 1;
}

void entry_log_reset(struct entry_log *log, uint64_t first)
{
    free_entries(log->entries.items, log->entries.n);
    free(log->entries.items);
    *log = (struct entry_log){.first = first};
}

void entry_log_put(struct entry_log *log, const rct_entry *e)
{
    rct_entry copy = *e;

    copy.data = e->len > 0 ? xmemdup(e->data, e->len) : NULL;
    entry_log_cut(log, e->index);
    *RAFT_PUSH(&log->entries) = copy;
}

/* ---- snapshots ---- */

bool kept_snapshot_set(struct kept_snapshot *s, const rct_snap *from)
{
    struct kept_snapshot next = {.index = from->index, .term = from->term, .len = from->len};

    if (!conf_to_membership(&from->conf, &next.membership))
        return false;
    next.membership.config_change_id = from->index;
    if (from->len > 0)
        next.data = xmemdup(from->data, from->len);
    kept_snapshot_deinit(s);
    *s = next;
    return true;
}

void kept_snapshot_deinit(struct kept_snapshot *s)
{
    nh_membership_deinit(&s->membership);
    free(s->data);
    *s = (struct kept_snapshot){0};
}

struct nh_snapshot *kept_snapshot_record(const struct kept_snapshot *s)
{
    struct nh_snapshot *record = xcalloc(1, sizeof *record);

    record->shard_id = RCT_SHARD;
    record->index = s->index;
    record->term = s->term;
    record->file_size_bytes = s->len;
    nh_membership_copy(&record->membership, &s->membership);
    return record;
}

/* ---- the stable store ---- */

static int store_snapshot(rct_node *n, const rct_snap *snap)
{
    if (!snap || snap->index <= n->snapshot.index)
        return RCT_OK;
    if (!kept_snapshot_set(&n->snapshot, snap))
        return RCT_E_ARG;
    entry_log_reset(&n->stable, snap->index + 1);
    n->anchor_term = snap->term;
    return RCT_OK;
}

/* Entries that a compaction or snapshot covers are left out; a hole is refused. */
static int store_entries(rct_node *n, const rct_entry *ents, uint64_t n_ents)
{
    for (uint64_t i = 0; i < n_ents; i++) {
        if (ents[i].index < n->stable.first)
            continue;
        if (ents[i].index > entry_log_last(&n->stable) + 1)
            return RCT_E_ARG;
        entry_log_put(&n->stable, &ents[i]);
    }
    return RCT_OK;
}

int rct_store(rct_node *n, const rct_hard *hard, const rct_entry *ents, uint64_t n_ents, const rct_snap *snap)
{
    int code;

    if (hard && (hard->term || hard->vote || hard->commit))
        n->hard = *hard;
    code = store_snapshot(n, snap);
    return code == RCT_OK ? store_entries(n, ents, n_ents) : code;
}

int rct_set_snapshot(rct_node *n, const rct_snap *snap)
{
    struct raft_event ev = {.type = RAFT_EV_SNAPSHOT_MADE};
    struct nh_snapshot *record;

    if (!n->core || snap->index > n->core->log.commit)
        return RCT_E_ARG;
    if (snap->index < n->snapshot.index)
        return RCT_OK;
    if (!kept_snapshot_set(&n->snapshot, snap))
        return RCT_E_ARG;
    if (snap->index == 0 || n->snapshot.membership.n_members == 0)
        return RCT_OK;
    record = kept_snapshot_record(&n->snapshot);
    ev.snapshot = record;
    node_event(n, &ev);
    nh_snapshot_deinit(record);
    free(record);
    return RCT_OK;
}

int rct_compact(rct_node *n, uint64_t new_first)
{
    struct raft_event ev = {.type = RAFT_EV_COMPACTED, .compacted = new_first};
    const rct_entry *anchor = entry_log_at(&n->stable, new_first);

    if (new_first < n->stable.first)
        return RCT_E_COMPACTED;
    if (!n->core || !anchor || new_first > n->core->log.applied)
        return RCT_E_ARG;
    n->anchor_term = anchor->term;
    entry_log_drop(&n->stable, new_first);
    node_event(n, &ev);
    entry_log_drop(&n->log, n->core->log.first - 1);
    return RCT_OK;
}
