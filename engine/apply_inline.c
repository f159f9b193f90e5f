#include "engine/apply_inline.h"

#include "engine/snapshots.h"

/* One update, for which the lock is held. */
static bool is_plain(const struct nh_run *run)
{
    const uint8_t *p = nh_run_data(run), *end = p + nh_run_size(run);

    for (; p < end; p += nh_record_bytes(p))
        if (!rsm_is_plain(p))
            return false;
    return true;
}

static bool are_plain(const struct apply_item *item)
{
    for (uint32_t i = 0; i < item->n_runs; i++)
        if (!is_plain(&item->runs[i]))
            return false;
    return true;
}

/* The machine is here, and follows on. */
static bool is_next(const struct replica *r, const struct apply_item *item)
{
    uint64_t applied = rsm_applied(r->rsm);

    return queue_empty(&r->parked) && r->lent == LENT_NOT && applied >= r->boot_commit && item->first <= applied + 1;
}

bool apply_inline_begin(struct apply_inline *all, const struct apply_item *item)
{
    struct replica *r = item->replica;
    uint64_t n = item->last - item->first + 1;
    size_t bytes;

    if (item->type != APPLY_ENTRIES || item->n_runs == 0 || n > APPLY_INLINE_MAX - all->n || !rsm_is_quick(r->rsm) ||
        !is_next(r, item))
        return false;
    bytes = runs_bytes(item->runs, item->n_runs);
    if (bytes > APPLY_INLINE_BYTES_MAX - all->bytes || snapshots_fall_due(r, item->last, bytes) || !are_plain(item) ||
        !rsm_try_enter(r->rsm))
        return false;
    all->n += n;
    all->bytes += bytes;
    return true;
}
