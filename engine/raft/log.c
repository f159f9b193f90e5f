/* The log in memory: which terms it has, its newest entries, and which saves are in flight.
 *
 * Terms are kept for the whole log, as spans (one per term, so a handful). Entries are kept from `cached_first` on.
 *
 * Saves in flight and cut suffixes (statement 39). A save vouches for the log up to its last entry *as it was*. When
 * the log is cut at i, every save in flight is lowered to i - 1: what it wrote from i on is no longer this log's. So when
 * a save of an overwritten suffix is reported durable it frees nothing, even if a third save in flight has put the very
 * same indexes back. Saves become durable in order, hence a later one covers what the log holds since.
 */
#include "engine/raft/raft_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void raft_log_init(struct raft_log *log, const struct raft_boot *boot)
{
    uint64_t last = boot->last_index;

    *log = (struct raft_log){
        .first = boot->first_index,
        .last = last,
        .anchor_term = boot->anchor_term,
        .commit = boot->state.commit,
        .saved_commit = boot->state.commit,
        .taken = last,
        .saved = last,
        .handed = boot->applied,
        .applied = boot->applied,
        .cached_first = last + 1,
        .config_bound = boot->config_bound < last ? boot->config_bound : last,
        .unsure_from = boot->config_bound > boot->state.commit ? boot->state.commit + 1 : 0,
    };
    /* The stored commit index may lag behind what was applied. */
    if (log->commit < boot->applied)
        log->commit = boot->applied;
    if (boot->snapshot && log->commit < boot->snapshot->index)
        log->commit = boot->snapshot->index;
    for (uint32_t i = 0; i < boot->n_spans; i++)
        *RAFT_PUSH_TIGHT(&log->spans) = boot->spans[i];
}

/* ---- the cache ---- */

static void cache_clear(struct raft_cache *c)
{
    while (c->head < c->n)
        nh_block_unref(c->runs[c->head++].block);
    c->head = c->n = 0;
    c->bytes = 0;
}

/* The run that holds `index`, which must be in memory. Mostly that is the last one: the blocks of the others are not touched
 * then. */
static size_t cache_find(const struct raft_cache *c, uint64_t index)
{
    size_t low = c->head, high = c->n;

    assert(low < high);
    if (nh_run_first(&c->runs[high - 1]) <= index)
        low = high - 1;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;

        if (nh_run_first(&c->runs[mid]) <= index)
            low = mid;
        else
            high = mid;
    }
    assert(nh_run_first(&c->runs[low]) <= index && index <= nh_run_last(&c->runs[low]));
    return low;
}

/* Makes room for one more at the end; moves the live ones down when half of the array is dead. */
static void cache_reserve(struct raft_cache *c)
{
    if (c->n == c->cap && c->head >= c->cap / 2 && c->head > 0) {
        memmove(c->runs, c->runs + c->head, (c->n - c->head) * sizeof *c->runs);
        c->n -= c->head;
        c->head = 0;
    }
    c->runs = raft_vec_grow(c->runs, &c->cap, c->n + 1, sizeof *c->runs);
}

static void cache_append(struct raft_cache *c, struct nh_block *block, uint32_t from, uint32_t to)
{
    struct nh_run *last = c->head < c->n ? &c->runs[c->n - 1] : NULL;

    c->bytes += block->offsets[to] - block->offsets[from];
    if (last && last->block == block) {
        assert(last->to == from);
        last->to = to;
        return;
    }
    cache_reserve(c);
    c->runs[c->n++] = (struct nh_run){nh_block_ref(block), from, to};
}

static uint32_t run_bytes(const struct nh_run *run, uint32_t from, uint32_t to)
{
    return run->block->offsets[to] - run->block->offsets[from];
}

/* Drops everything above `last`. */
static void cache_cut(struct raft_cache *c, uint64_t last)
{
    while (c->n > c->head) {
        struct nh_run *run = &c->runs[c->n - 1];
        uint32_t to;

        if (nh_run_last(run) <= last)
            return;
        if (nh_run_first(run) > last) {
            c->bytes -= nh_run_size(run);
            nh_block_unref(run->block);
            c->n--;
            continue;
        }
        to = (uint32_t)(last + 1 - run->block->first_index);
        c->bytes -= run_bytes(run, to, run->to);
        run->to = to;
        return;
    }
}

void raft_log_drop(struct raft_log *log, uint64_t index)
{
    struct raft_cache *c = &log->cache;

    assert(index <= log->applied);
    if (index < log->cached_first)
        return;
    while (c->head < c->n) {
        struct nh_run *run = &c->runs[c->head];
        uint32_t from;

        if (nh_run_first(run) > index)
            break;
        if (nh_run_last(run) > index) {
            from = (uint32_t)(index + 1 - run->block->first_index);
            c->bytes -= run_bytes(run, run->from, from);
            run->from = from;
            break;
        }
        c->bytes -= nh_run_size(run);
        nh_block_unref(run->block);
        c->head++;
    }
    log->cached_first = index + 1;
    if (c->head == c->n)
        c->head = c->n = 0;
}

void raft_log_shrink(struct raft_log *log)
{
    if (log->cache.n == 0 && log->cache.cap > 0) {
        free(log->cache.runs);
        log->cache = (struct raft_cache){0};
    }
    if (log->saves.n == 0 && log->saves.cap > 0) {
        free(log->saves.items);
        log->saves.items = NULL;
        log->saves.cap = 0;
    }
}

void raft_log_deinit(struct raft_log *log)
{
    cache_clear(&log->cache);
    free(log->cache.runs);
    free(log->spans.items);
    free(log->saves.items);
    *log = (struct raft_log){0};
}

/* ---- terms ---- */

/* The position of the span that holds `index`, which must be in the log. */
static size_t span_of(const struct raft_log *log, uint64_t index)
{
    size_t i = log->spans.n - 1; /* nearly always this one */

    assert(log->spans.n > 0 && index >= log->spans.items[0].first_index);
    while (log->spans.items[i].first_index > index)
        i--;
    return i;
}

static uint64_t span_last(const struct raft_log *log, size_t i)
{
    return i + 1 < log->spans.n ? log->spans.items[i + 1].first_index - 1 : log->last;
}

uint64_t raft_log_term(const struct raft_log *log, uint64_t index)
{
    if (index + 1 == log->first)
        return log->anchor_term;
    if (index < log->first || index > log->last)
        return 0;
    return log->spans.items[span_of(log, index)].term;
}

uint64_t raft_log_last_term(const struct raft_log *log)
{
    return log->spans.n ? log->spans.items[log->spans.n - 1].term : log->anchor_term;
}

bool raft_log_is_behind_or_equal(const struct raft_log *log, uint64_t term, uint64_t index)
{
    uint64_t own = raft_log_last_term(log);

    return term > own || (term == own && index >= log->last);
}

uint64_t raft_log_last_at_term(const struct raft_log *log, uint64_t index, uint64_t term, uint64_t *ret_term)
{
    size_t i;

    *ret_term = 0;
    if (index > log->last)
        index = log->last;
    if (index < log->first)
        return log->first - 1; /* term 0: the leader must not take it for an entry that it holds (statement 30) */
    for (i = span_of(log, index) + 1; i > 0; i--) {
        const struct raft_term_span *s = &log->spans.items[i - 1];

        if (s->term <= term) {
            *ret_term = s->term;
            return index < span_last(log, i - 1) ? index : span_last(log, i - 1);
        }
    }
    return log->first - 1;
}

/* The first index of one run (of one term) that the log does not hold; last + 1 if it holds all. */
static uint64_t run_conflict(const struct raft_log *log, const struct nh_run *run)
{
    uint64_t index = nh_run_first(run), last = nh_run_last(run);

    while (index <= last) {
        size_t s;

        if (index < log->first || index > log->last)
            return index;
        s = span_of(log, index);
        if (log->spans.items[s].term != nh_run_term(run))
            return index;
        index = span_last(log, s) + 1;
    }
    return last + 1;
}

uint64_t raft_log_conflict(const struct raft_log *log, const struct nh_run *runs, uint32_t n_runs)
{
    assert(n_runs > 0);
    for (uint32_t i = 0; i < n_runs; i++) {
        uint64_t at = run_conflict(log, &runs[i]);

        if (at <= nh_run_last(&runs[i]))
            return at;
    }
    return nh_run_last(&runs[n_runs - 1]) + 1;
}

/* ---- growing and cutting ---- */

static void note_config_changes(struct raft_log *log, const struct nh_block *block, uint32_t from, uint32_t to)
{
    if (!(block->types & 1u << NH_ENTRY_CONFIG_CHANGE))
        return;
    for (uint32_t i = from; i < to; i++) {
        if (nh_record_type(block->data + block->offsets[i]) != NH_ENTRY_CONFIG_CHANGE)
            continue;
        log->config_bound = block->first_index + i;
        if (!log->unsure_from)
            log->unsure_from = log->config_bound;
    }
}

void raft_log_append(struct raft_log *log, struct nh_block *block, uint32_t from, uint32_t to)
{
    assert(from < to && to <= block->n);
    assert(block->first_index + from == log->last + 1);
    assert(block->term >= raft_log_last_term(log));
    if (log->spans.n == 0 || block->term > log->spans.items[log->spans.n - 1].term)
        *RAFT_PUSH_TIGHT(&log->spans) = (struct raft_term_span){log->last + 1, block->term};
    cache_append(&log->cache, block, from, to);
    log->last += to - from;
    note_config_changes(log, block, from, to);
}

void raft_log_truncate(struct raft_log *log, uint64_t last)
{
    assert(last >= log->commit && last < log->last);
    cache_cut(&log->cache, last);
    log->last = last;
    while (log->spans.n > 0 && log->spans.items[log->spans.n - 1].first_index > last)
        log->spans.n--;
    if (log->cached_first > last + 1)
        log->cached_first = last + 1;
    if (log->taken > last)
        log->taken = last;
    if (log->saved > last)
        log->saved = last;
    if (log->config_bound > last)
        log->config_bound = last; /* an upper bound: which one came before is not known */
    if (log->unsure_from > last)
        log->unsure_from = 0;
    for (size_t i = 0; i < log->saves.n; i++) {
        struct raft_save *s = &log->saves.items[i];

        if (s->last_index > last) {
            s->last_index = last;
            s->clipped = true;
        }
    }
    log->truncations++;
}

void raft_log_compact(struct raft_log *log, uint64_t index)
{
    size_t gone = 0;

    assert(index >= log->first && index <= log->applied);
    raft_log_drop(log, index);
    log->anchor_term = raft_log_term(log, index);
    while (gone < log->spans.n && span_last(log, gone) <= index)
        gone++;
    log->spans.n -= gone;
    if (gone > 0 && log->spans.n > 0)
        memmove(log->spans.items, log->spans.items + gone, log->spans.n * sizeof *log->spans.items);
    log->first = index + 1;
    if (log->spans.n > 0 && log->spans.items[0].first_index < log->first)
        log->spans.items[0].first_index = log->first;
}

void raft_log_restore(struct raft_log *log, uint64_t index, uint64_t term)
{
    assert(index > log->commit);
    cache_clear(&log->cache);
    log->spans.n = 0;
    log->first = log->cached_first = index + 1;
    log->last = log->commit = log->taken = log->saved = log->handed = index;
    log->config_bound = index;                /* nothing is proposed nor stood for before it is applied */
    log->unsure_from = log->saved_commit + 1; /* a snapshot may hold any number of changes */
    log->anchor_term = term;
    log->apply_bytes = log->unapplied_bytes = 0;
    log->unsaved_snapshot = index;
    for (size_t i = 0; i < log->saves.n; i++) {
        log->saves.items[i].last_index = 0;
        log->saves.items[i].clipped = true;
    }
}

/* ---- slices ---- */

/* How many records of the run, from `from` on, fit into max_bytes. */
static uint32_t fitting(const struct nh_run *run, uint32_t from, uint32_t to, uint64_t max_bytes)
{
    uint32_t low = from, high = to;

    if (run_bytes(run, from, to) <= max_bytes)
        return to - from;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;

        if (run_bytes(run, from, mid) <= max_bytes)
            low = mid;
        else
            high = mid - 1;
    }
    return low - from;
}

uint64_t raft_log_slice(const struct raft_log *log, uint64_t low, uint64_t high, uint64_t max_bytes, bool force,
                        struct run_list *list)
{
    assert(low >= log->cached_first && high <= log->last + 1);
    if (low >= high)
        return low;
    for (size_t i = cache_find(&log->cache, low); low < high; i++) {
        const struct nh_run *run = &log->cache.runs[i];
        uint32_t from = (uint32_t)(low - run->block->first_index);
        uint32_t to = high <= nh_run_last(run) ? (uint32_t)(high - run->block->first_index) : run->to;
        uint32_t n = fitting(run, from, to, max_bytes);

        if (n == 0 && force)
            n = 1;
        if (n == 0)
            break;
        run_list_add(list, run->block, from, from + n);
        low += n;
        if (from + n < to || low == high)
            break;
        force = false;
        max_bytes -= run_bytes(run, from, to) < max_bytes ? run_bytes(run, from, to) : max_bytes;
    }
    return low;
}

uint64_t raft_log_bytes(const struct raft_log *log, uint64_t low, uint64_t high)
{
    uint64_t bytes = 0;

    if (low < log->cached_first)
        low = log->cached_first;
    if (low >= high)
        return 0;
    for (size_t i = cache_find(&log->cache, low); low < high; i++) {
        const struct nh_run *run = &log->cache.runs[i];
        uint64_t end = nh_run_last(run) + 1 < high ? nh_run_last(run) + 1 : high;

        bytes += run_bytes(run, (uint32_t)(low - run->block->first_index), (uint32_t)(end - run->block->first_index));
        low = end;
    }
    return bytes;
}

/* ---- committed, applied ---- */

uint64_t raft_log_commit_to(struct raft_log *log, uint64_t index)
{
    uint64_t bytes;

    assert(index > log->commit && index <= log->last);
    bytes = raft_log_bytes(log, log->commit + 1, index + 1);
    log->unapplied_bytes += bytes;
    log->commit = index;
    return bytes;
}

void raft_log_applied_to(struct raft_log *log, uint64_t index)
{
    uint64_t bytes = log->apply_bytes;

    assert(index > log->applied && index <= log->handed);
    if (index < log->handed)
        bytes = raft_log_bytes(log, log->applied + 1, index + 1);
    log->applied = index;
    log->apply_bytes -= bytes;
    log->unapplied_bytes -= bytes;
}

/* ---- saves ---- */

void raft_log_take(struct raft_log *log, struct run_list *list)
{
    raft_log_slice(log, log->taken + 1, log->last + 1, UINT64_MAX, true, list);
    log->taken = log->last;
}

bool raft_log_snapshot_is_due(const struct raft_log *log)
{
    if (!log->unsaved_snapshot)
        return false;
    for (size_t i = 0; i < log->saves.n; i++)
        if (log->saves.items[i].snapshot == log->unsaved_snapshot)
            return false;
    return true;
}

void raft_log_save_begun(struct raft_log *log, uint64_t id, uint64_t term, uint64_t vote, uint64_t commit)
{
    uint64_t snapshot = raft_log_snapshot_is_due(log) ? log->unsaved_snapshot : 0;

    *RAFT_PUSH_TIGHT(&log->saves) = (struct raft_save){
        .id = id, .last_index = log->taken, .term = term, .vote = vote, .commit = commit, .snapshot = snapshot};
}

bool raft_log_save_done(struct raft_log *log, uint64_t id, uint64_t *ret_term, uint64_t *ret_vote)
{
    size_t done = 0;

    while (done < log->saves.n && log->saves.items[done].id <= id) {
        const struct raft_save *s = &log->saves.items[done++];

        if (s->last_index > log->saved)
            log->saved = s->last_index;
        log->stale_saves += s->clipped;
        log->saved_commit = s->commit;
        if (log->unsure_from && log->unsure_from <= s->commit) /* which one is the next is not known, if there is one */
            log->unsure_from = log->config_bound > s->commit ? s->commit + 1 : 0;
        if (s->snapshot && s->snapshot == log->unsaved_snapshot)
            log->unsaved_snapshot = 0; /* whatever its term: what a snapshot holds is committed (statement 40) */
        *ret_term = s->term;
        *ret_vote = s->vote;
    }
    log->saves.n -= done;
    if (done > 0 && log->saves.n > 0)
        memmove(log->saves.items, log->saves.items + done, log->saves.n * sizeof *log->saves.items);
    return done > 0;
}

uint64_t raft_log_known_commit(const struct raft_log *log)
{
    return log->unsure_from && log->commit >= log->unsure_from ? log->unsure_from - 1 : log->commit;
}

bool raft_log_commit_is_due(const struct raft_log *log, uint64_t taken_commit)
{
    return log->config_bound > taken_commit && log->commit >= log->config_bound;
}

/* ---- invariants ---- */

static bool check_saves(const struct raft_log *log, const char **ret_clause)
{
    for (size_t i = 0; i < log->saves.n; i++) {
        const struct raft_save *s = &log->saves.items[i];

        RAFT_CLAUSE(s->last_index <= log->taken, "a save in flight vouches for no more than was taken");
        RAFT_CLAUSE(i == 0 || s->id > log->saves.items[i - 1].id, "saves in flight are in order");
    }
    return true;
}

bool raft_log_check(const struct raft_log *log, const char **ret_clause)
{
    RAFT_CLAUSE(log->first > 0 && log->last + 1 >= log->first && log->last <= RAFT_INDEX_MAX, "the log's bounds are in order");
    RAFT_CLAUSE(log->commit <= log->last && log->commit + 1 >= log->first, "commit <= last, and nothing above it is compacted");
    RAFT_CLAUSE(log->saved_commit <= log->commit, "no more is durably committed than is committed");
    RAFT_CLAUSE(log->saved <= log->taken && log->taken <= log->last, "saved <= taken <= last");
    RAFT_CLAUSE(log->applied <= log->handed, "applied <= handed");
    RAFT_CLAUSE(!log->unsaved_snapshot || log->applied < log->unsaved_snapshot, "a snapshot is saved before it is applied");
    RAFT_CLAUSE(log->apply_bytes <= log->unapplied_bytes && log->unapplied_bytes <= log->cache.bytes,
                "the bytes handed out are a part of what is not applied, and that of what is in memory");
    RAFT_CLAUSE(log->handed <= log->commit && log->handed <= log->saved, "handed <= min(commit, saved)");
    RAFT_CLAUSE(log->cached_first <= log->saved + 1, "what is not saved is in memory");
    RAFT_CLAUSE(log->cached_first >= log->first, "nothing below the log is in memory");
    RAFT_CLAUSE(log->config_bound <= log->last, "the bound of configuration changes lies in the log");
    RAFT_CLAUSE(!log->unsure_from || log->unsure_from > log->saved_commit, "what is durably committed is sure");
    RAFT_CLAUSE((log->spans.n == 0) == (log->last < log->first), "an empty log has no terms");
    RAFT_CLAUSE((log->cache.head == log->cache.n) == (log->cached_first == log->last + 1), "the cache ends at the last entry");
    return check_saves(log, ret_clause);
}

static bool check_cache(const struct raft_log *log, const char **ret_clause)
{
    uint64_t next = log->cached_first, bytes = 0;

    for (size_t i = log->cache.head; i < log->cache.n; i++) {
        const struct nh_run *run = &log->cache.runs[i];

        RAFT_CLAUSE(run->from < run->to && run->to <= run->block->n, "a run in memory is a slice of its block");
        RAFT_CLAUSE(nh_run_first(run) == next, "runs in memory follow each other");
        RAFT_CLAUSE(run_conflict(log, run) == nh_run_last(run) + 1, "runs in memory have the terms of the spans");
        next = nh_run_last(run) + 1;
        bytes += nh_run_size(run);
    }
    RAFT_CLAUSE(next == log->last + 1, "runs in memory reach the last entry");
    RAFT_CLAUSE(bytes == log->cache.bytes, "the bytes in memory are counted right");
    RAFT_CLAUSE(log->apply_bytes == raft_log_bytes(log, log->applied + 1, log->handed + 1),
                "the bytes handed out for applying are counted right");
    RAFT_CLAUSE(log->unapplied_bytes == raft_log_bytes(log, log->applied + 1, log->commit + 1),
                "the bytes that are committed and not applied are counted right");
    return true;
}

bool raft_log_check_deep(const struct raft_log *log, const char **ret_clause)
{
    for (size_t i = 0; i < log->spans.n; i++) {
        const struct raft_term_span *s = &log->spans.items[i];

        RAFT_CLAUSE(s->first_index <= log->last, "spans lie in the log");
        RAFT_CLAUSE(i > 0 || s->first_index == log->first, "spans begin with the log");
        RAFT_CLAUSE(i == 0 || (s->first_index > s[-1].first_index && s->term > s[-1].term), "terms rise with the index");
    }
    return check_cache(log, ret_clause);
}
