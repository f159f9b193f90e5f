/* logdb/memory/image.h - one replica's log, hard state and snapshot record at one point in time.
 *
 * Records are copied once, into a segment (the entries of one update); images share segments by reference, so the live and
 * the synced image of a replica cost the bytes once.
 *
 * Threads: an image belongs to whoever holds the disk's lock; segments are immutable and counted atomically.
 */
#ifndef NH_LOGDB_MEMORY_IMAGE_H
#define NH_LOGDB_MEMORY_IMAGE_H

#include "logdb/update.h"

struct segment {
    uint32_t refs; /* atomic */
    uint32_t n;
    uint64_t first;
    size_t *offsets; /* n + 1 */
    uint8_t *data;
};

/* Records [from, to) of a segment. */
struct piece {
    struct segment *segment;
    uint32_t from, to;
};

/* An encoded snapshot record. */
struct blob {
    uint32_t refs; /* atomic */
    uint64_t index, term;
    size_t size_bytes;
    uint8_t data[];
};

/* Zeroed and image_init-ed = nothing was ever saved. */
struct image {
    bool exists; /* anything was saved but a snapshot record */
    struct log_bounds bounds;
    struct nh_state state;
    struct blob *snapshot;
    struct piece *pieces; /* in order, without gaps; they end at bounds.last */
    size_t n, cap;
};

/* One update as an image takes it. Owns its references. */
struct image_change {
    bool has_state;
    struct nh_state state;
    struct segment *segment; /* NULL: no entries */
    struct blob *snapshot;   /* NULL: none */
};

struct segment *segment_new(const struct nh_update *u);
struct segment *segment_ref(struct segment *s);
void segment_unref(struct segment *s);
struct blob *blob_ref(struct blob *b);
void blob_unref(struct blob *b);
static inline uint64_t piece_first(const struct piece *p)
{
    return p->segment->first + p->from;
}
static inline uint64_t piece_last(const struct piece *p)
{
    return p->segment->first + p->to - 1;
}

void image_init(struct image *m);
void image_deinit(struct image *m);
void image_copy(struct image *to, const struct image *from); /* `to` is init-ed */
/* Applies a change that was checked by bounds_save before. */
void image_apply(struct image *m, const struct image_change *c);
void image_change_deinit(struct image_change *c);
void image_remove_to(struct image *m, uint64_t index);
/* The log gives way to a snapshot at `index`. */
void image_replace_log(struct image *m, uint64_t index);
/* Term of entry `index`, or 0. */
uint64_t image_term(const struct image *m, uint64_t index);
/* The pieces that hold [low, high), at most until more than max_bytes are collected, with a reference each: an array to be
 * given to pieces_free. Errors: ECOMPACTED, ENOTFOUND. */
int image_collect(const struct image *m, uint64_t low, uint64_t high, size_t max_bytes, struct piece **ret, size_t *ret_n,
                  struct nh_error *err);
void pieces_free(struct piece *pieces, size_t n);

#endif
