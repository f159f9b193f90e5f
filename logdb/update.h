/* logdb/update.h - what both stores must agree on: which saves are valid and how they move the bounds of a log.
 *
 * The log of a replica is the records [first, last], without holes; it is empty when first == last + 1. A new replica
 * has {1, 0}. A snapshot that the log does not contain replaces the log: {index + 1, index}.
 */
#ifndef NH_LOGDB_UPDATE_H
#define NH_LOGDB_UPDATE_H

#include "raftio/types.h"

struct log_bounds {
    uint64_t first;
    uint64_t last;
};

static inline bool update_has_entries(const struct nh_update *u)
{
    return u->n_runs > 0;
}
static inline uint64_t update_first(const struct nh_update *u)
{
    return nh_run_first(&u->runs[0]);
}
static inline uint64_t update_last(const struct nh_update *u)
{
    return nh_run_last(&u->runs[u->n_runs - 1]);
}

/* Checks what can be checked without the store: ids, runs that are not empty and follow one another. Errors: EINVAL. */
int updates_check(const struct nh_update *updates, size_t n, struct nh_error *err);

/* Looks for entry `index` in those updates before number `i` that are of the same replica, newest first.
 * Returns true when one of them decides: *ret_term is the entry's term, or 0 if it was truncated. */
bool updates_find_term(const struct nh_update *updates, size_t i, uint64_t index, uint64_t *ret_term);

/* True if a snapshot's record replaces the log instead of only standing beside it. `term` is the log's at the snapshot's
 * index, 0 if there is no such entry in the log. */
bool bounds_replaced_by(const struct log_bounds *b, uint64_t index, uint64_t index_term, uint64_t term);

/* The bounds after the update's entries. A save that would leave a hole, or begin below `first`, is refused.
 * Errors: EINVAL; *b is then unchanged. */
int bounds_save(struct log_bounds *b, const struct nh_update *u, struct nh_error *err);

/* The bounds after the removal of (0, index]. Removal never invents entries: it ends at `last`. True if they changed. */
bool bounds_remove_to(struct log_bounds *b, uint64_t index);

#endif
