#include "logdb/update.h"

#include <inttypes.h>

static int check(const struct nh_update *u, struct nh_error *err)
{
    if (!u->shard_id || !u->replica_id)
        return nh_error_set(err, NH_EINVAL, "shard or replica id is 0");
    for (uint32_t i = 0; i < u->n_runs; i++) {
        const struct nh_run *r = &u->runs[i];

        if (!r->block || r->from >= r->to || r->to > r->block->n || nh_run_first(r) == 0)
            return nh_error_set(err, NH_EINVAL, "shard %" PRIu64 ": run %u is empty or outside its block", u->shard_id, i);
        if (i > 0 && nh_run_first(r) != nh_run_last(r - 1) + 1)
            return nh_error_set(err, NH_EINVAL, "shard %" PRIu64 ": run %u does not follow the one before", u->shard_id, i);
    }
    return NH_OK;
}

int updates_check(const struct nh_update *updates, size_t n, struct nh_error *err)
{
    int r = NH_OK;

    for (size_t i = 0; i < n && r == NH_OK; i++)
        r = check(&updates[i], err);
    return r;
}

static uint64_t term_of(const struct nh_update *u, uint64_t index)
{
    for (uint32_t i = 0; i < u->n_runs; i++)
        if (index <= nh_run_last(&u->runs[i]))
            return nh_run_term(&u->runs[i]);
    return 0;
}

bool updates_find_term(const struct nh_update *updates, size_t i, uint64_t index, uint64_t *ret_term)
{
    const struct nh_update *self = &updates[i];

    while (i-- > 0) {
        const struct nh_update *u = &updates[i];

        if (u->shard_id != self->shard_id || u->replica_id != self->replica_id)
            continue;
        if (update_has_entries(u) && update_first(u) <= index) {
            *ret_term = term_of(u, index);
            return true;
        }
    }
    return false;
}

bool bounds_replaced_by(const struct log_bounds *b, uint64_t index, uint64_t index_term, uint64_t term)
{
    if (index < b->first)
        return false; /* older than the log, or just where it begins */
    return index > b->last || index_term != term;
}

int bounds_save(struct log_bounds *b, const struct nh_update *u, struct nh_error *err)
{
    uint64_t first = update_first(u);

    if (first > b->last + 1)
        return nh_error_set(err, NH_EINVAL, "shard %" PRIu64 ": entries from %" PRIu64 " would leave a hole after %" PRIu64,
                            u->shard_id, first, b->last);
    if (first < b->first)
        return nh_error_set(err, NH_EINVAL, "shard %" PRIu64 ": entries from %" PRIu64 " begin below %" PRIu64 ", the first one",
                            u->shard_id, first, b->first);
    b->last = update_last(u);
    return NH_OK;
}

bool bounds_remove_to(struct log_bounds *b, uint64_t index)
{
    if (index > b->last)
        index = b->last;
    if (index < b->first)
        return false;
    b->first = index + 1;
    return true;
}
