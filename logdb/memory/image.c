#include "logdb/memory/image.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

/* One allocation: struct, offsets, records. */
struct segment *segment_new(const struct nh_update *u)
{
    struct segment *s;
    size_t size = 0, at = 0, n = 0;

    for (uint32_t i = 0; i < u->n_runs; i++) {
        size += nh_run_size(&u->runs[i]);
        n += nh_run_count(&u->runs[i]);
    }
    s = xmalloc(sizeof *s + (n + 1) * sizeof *s->offsets + size);
    *s = (struct segment){.refs = 1, .n = (uint32_t)n, .first = update_first(u), .offsets = (size_t *)(s + 1)};
    s->data = (uint8_t *)(s->offsets + n + 1);
    n = 0;
    for (uint32_t i = 0; i < u->n_runs; i++) {
        const struct nh_run *r = &u->runs[i];

        memcpy(s->data + at, nh_run_data(r), nh_run_size(r));
        for (uint32_t k = r->from; k < r->to; k++)
            s->offsets[n++] = at + (r->block->offsets[k] - r->block->offsets[r->from]);
        at += nh_run_size(r);
    }
    s->offsets[n] = at;
    return s;
}

struct segment *segment_ref(struct segment *s)
{
    __atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void segment_unref(struct segment *s)
{
    if (s && __atomic_fetch_sub(&s->refs, 1, __ATOMIC_ACQ_REL) == 1)
        free(s);
}

struct blob *blob_ref(struct blob *b)
{
    __atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED);
    return b;
}

void blob_unref(struct blob *b)
{
    if (b && __atomic_fetch_sub(&b->refs, 1, __ATOMIC_ACQ_REL) == 1)
        free(b);
}

void image_init(struct image *m)
{
    *m = (struct image){.bounds = {.first = 1, .last = 0}};
}

/* Drops pieces[from ..]. */
static void drop_pieces(struct image *m, size_t from)
{
    while (m->n > from)
        segment_unref(m->pieces[--m->n].segment);
}

void image_deinit(struct image *m)
{
    drop_pieces(m, 0);
    free(m->pieces);
    blob_unref(m->snapshot);
    image_init(m);
}

void image_copy(struct image *to, const struct image *from)
{
    struct piece *pieces = to->pieces;
    size_t cap = to->cap;

    drop_pieces(to, 0);
    blob_unref(to->snapshot);
    array_reserve((void **)&pieces, &cap, from->n, sizeof *pieces);
    *to = *from;
    to->pieces = pieces;
    to->cap = cap;
    for (size_t i = 0; i < from->n; i++)
        pieces[i] = (struct piece){segment_ref(from->pieces[i].segment), from->pieces[i].from, from->pieces[i].to};
    if (to->snapshot)
        blob_ref(to->snapshot);
}

/* The number of the piece that holds `index`; m->n if none does. */
static size_t find_piece(const struct image *m, uint64_t index)
{
    size_t low = 0, high = m->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (piece_last(&m->pieces[mid]) < index)
            low = mid + 1;
        else
            high = mid;
    }
    return low < m->n && piece_first(&m->pieces[low]) <= index ? low : m->n;
}

static void truncate_from(struct image *m, uint64_t index)
{
    size_t i = find_piece(m, index);

    if (i == m->n)
        return;
    if (piece_first(&m->pieces[i]) < index) {
        m->pieces[i].to = (uint32_t)(index - m->pieces[i].segment->first);
        i++;
    }
    drop_pieces(m, i);
}

static void append(struct image *m, struct segment *s)
{
    truncate_from(m, s->first);
    array_reserve((void **)&m->pieces, &m->cap, m->n + 1, sizeof *m->pieces);
    m->pieces[m->n++] = (struct piece){.segment = segment_ref(s), .from = 0, .to = s->n};
    m->bounds.last = s->first + s->n - 1;
}

void image_replace_log(struct image *m, uint64_t index)
{
    drop_pieces(m, 0);
    m->bounds = (struct log_bounds){.first = index + 1, .last = index};
    m->exists = true;
}

static void apply_snapshot(struct image *m, struct blob *b)
{
    if (m->snapshot && b->index < m->snapshot->index)
        return;
    blob_unref(m->snapshot);
    m->snapshot = blob_ref(b);
    if (bounds_replaced_by(&m->bounds, b->index, image_term(m, b->index), b->term))
        image_replace_log(m, b->index);
}

void image_apply(struct image *m, const struct image_change *c)
{
    if (c->snapshot)
        apply_snapshot(m, c->snapshot);
    if (c->has_state) {
        m->state = c->state;
        m->exists = true;
    }
    if (c->segment) {
        assert(c->segment->first >= m->bounds.first && c->segment->first <= m->bounds.last + 1);
        append(m, c->segment);
        m->exists = true;
    }
}

void image_change_deinit(struct image_change *c)
{
    segment_unref(c->segment);
    blob_unref(c->snapshot);
}

void image_remove_to(struct image *m, uint64_t index)
{
    size_t n = 0;

    if (!bounds_remove_to(&m->bounds, index))
        return;
    while (n < m->n && piece_last(&m->pieces[n]) < m->bounds.first)
        segment_unref(m->pieces[n++].segment);
    m->n -= n;
    memmove(m->pieces, m->pieces + n, m->n * sizeof *m->pieces);
}

uint64_t image_term(const struct image *m, uint64_t index)
{
    size_t i = index < m->bounds.first ? m->n : find_piece(m, index);
    const struct segment *s;

    if (i == m->n)
        return 0;
    s = m->pieces[i].segment;
    return nh_record_term(s->data + s->offsets[index - s->first]);
}

/* The part of `p` from `low` on: until `high`, or until more than *left_bytes are in it. */
static struct piece slice(const struct piece *p, uint64_t low, uint64_t high, size_t *left_bytes)
{
    const struct segment *s = p->segment;
    struct piece r = {.segment = p->segment, .from = (uint32_t)(low - s->first), .to = p->to};
    size_t size;

    if (high - s->first < r.to)
        r.to = (uint32_t)(high - s->first);
    for (uint32_t i = r.from; i < r.to; i++)
        if (s->offsets[i + 1] - s->offsets[r.from] > *left_bytes)
            r.to = i + 1;
    size = s->offsets[r.to] - s->offsets[r.from];
    *left_bytes = size > *left_bytes ? SIZE_MAX : *left_bytes - size; /* SIZE_MAX: enough */
    return r;
}

int image_collect(const struct image *m, uint64_t low, uint64_t high, size_t max_bytes, struct piece **ret, size_t *ret_n,
                  struct nh_error *err)
{
    struct piece *pieces = NULL;
    size_t i, n = 0, cap = 0, left = max_bytes == SIZE_MAX ? SIZE_MAX - 1 : max_bytes;

    if (low < m->bounds.first)
        return nh_error_set(err, NH_ECOMPACTED, "entry %" PRIu64 " is removed, the first is %" PRIu64, low, m->bounds.first);
    if (low > m->bounds.last)
        return nh_error_set(err, NH_ENOTFOUND, "entry %" PRIu64 " is above the last one, %" PRIu64, low, m->bounds.last);
    for (i = find_piece(m, low); i < m->n && low < high && left != SIZE_MAX; i++) {
        array_reserve((void **)&pieces, &cap, n + 1, sizeof *pieces);
        pieces[n] = slice(&m->pieces[i], low, high, &left);
        segment_ref(pieces[n].segment);
        low = piece_last(&pieces[n++]) + 1;
    }
    *ret = pieces;
    *ret_n = n;
    return NH_OK;
}

void pieces_free(struct piece *pieces, size_t n)
{
    while (n > 0)
        segment_unref(pieces[--n].segment);
    free(pieces);
}
