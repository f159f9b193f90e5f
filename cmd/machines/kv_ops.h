/* cmd/machines/kv_ops.h - what the Redis commands of the key-value machines mean, over any store.
 *
 * Applied: SET [NX|XX] [GET], SETNX, GETSET, DEL, INCR, DECR, INCRBY, DECRBY, APPEND, MSET. Answered: GET, MGET, EXISTS, STRLEN,
 * DBSIZE. Bytes that are no such command are answered with an error, and so is a wrong use; neither changes anything, so all
 * replicas stay equal whatever was proposed. Machines that share this file give the same answers.
 *
 * The instance of a machine is its store. A store that can fail remembers that it has failed and answers anything; its update
 * then throws away what was done and returns the failure, so commands need not know.
 */
#ifndef NH_CMD_MACHINES_KV_OPS_H
#define NH_CMD_MACHINES_KV_OPS_H

#include "cmd/machines/kv_table.h"
#include "nodehost/statemachine.h"

/* ---- update: one thread ---- */

struct kv_store {
    /* The item of a key, with its value; NULL: there is none. Valid until the key is put or dropped, longer if `answered`. */
    struct kv_item *(*find)(struct nh_machine *m, struct kv_slice key);
    bool (*has)(struct nh_machine *m, struct kv_slice key); /* the same, and the value is not needed */
    void (*put)(struct nh_machine *m, struct kv_slice key, struct kv_slice head, struct kv_slice tail); /* as kv_table_put */
    bool (*drop)(struct nh_machine *m, struct kv_slice key);                                            /* true: it was there */
    void (*applied)(struct nh_machine *m, uint64_t index); /* an entry has been, as far as this goes; may be NULL */
};

/* Results of one update call, which stay valid until the next: numbers and texts one after another, and items. A value is never
 * copied for an answer: a batch may ask for many that are large. */
struct kv_answers {
    uint8_t *bytes;
    size_t size, cap;
    struct kv_item **items;
    size_t n_items, cap_items;
    size_t held_bytes;          /* of the items */
    const struct kv_item *item; /* the answer to the entry that is being applied; NULL: what it added to `bytes` */
};

/* Values that are answers of one update; then it ends, and the host calls again. One entry may be more. A value that was an
 * answer is kept until all answers are forgotten, so a few bytes of commands would keep as much memory as they like: APPEND and
 * SET ... GET of a large value by turns, or GETSET of many. */
#define KV_HELD_BYTES_MAX ((size_t)64 * 1024 * 1024)

/* Forgets the answers of the call before, applies entries and fills their results. Returns how many: all, or fewer if their
 * answers are large. */
size_t kv_update(struct kv_answers *a, const struct kv_store *store, struct nh_machine *m, struct nh_entry *entries, size_t n);
void kv_answers_deinit(struct kv_answers *a); /* takes a zeroed one; before or after the table of its items */

/* ---- lookup: any thread, so nothing here is marked or kept ---- */

struct kv_view {
    /* 1: the key is there, *ret (if asked for) is its value until the next call; 0: it is not; or a negative code. */
    int (*find)(void *ctx, struct kv_slice key, struct kv_slice *ret);
    uint64_t (*count)(void *ctx);
    void *ctx;
};

int kv_lookup(const struct kv_view *view, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
              struct nh_error *err);

/* Fills *err, which may be NULL, and returns `code`. As nh_error_set: a machine links to nothing of its host. */
int kv_error(struct nh_error *err, int code, const char *fmt, ...) NH_PRINTF(3, 4);

#endif
