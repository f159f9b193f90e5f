/* cmd/machines/kv_table.h - a hash table from strings to strings: the state of kv, and what a batch of kv-disk changes.
 *
 * Chains, and linear hashing: a table grows by one slot at a time, so no put takes long however large it is. Where an item lies
 * depends on a seed of this table, drawn at random so that nobody can choose keys that collide; nothing that leaves a machine may
 * depend on it.
 *
 * An item whose value is the answer to an entry must outlive its place in the table until the answers are forgotten: `answered`
 * and `dropped` are for that (kv_ops.h). Without memory the process ends: a machine that cannot allocate cannot go on alike with
 * its peers. Threads: any number of readers, or one writer.
 */
#ifndef NH_CMD_MACHINES_KV_TABLE_H
#define NH_CMD_MACHINES_KV_TABLE_H

#include <stdlib.h>

#include "cmd/machines/kv_command.h"

struct kv_item {
    struct kv_item *next;
    uint64_t hash;
    uint32_t key_size;
    uint32_t value_size : 26;
    uint32_t answered : 1; /* its value is the answer to an entry of the present batch */
    uint32_t dropped : 1;  /* and it left the table since */
    /* For the owner of a table that holds changes to a larger store; 0 in others. */
    uint32_t absent : 1; /* there is no such key now */
    uint32_t unread : 1; /* there is, and its value was not needed yet */
    uint32_t stored : 1; /* the larger store has the key */
    uint32_t dirty : 1;  /* and must be told */
    uint8_t data[];      /* key, then value */
};
_Static_assert(KV_VALUE_BYTES_MAX < 1u << 26, "value_size holds it");

#define KV_SEGMENT_SLOTS 4096u

struct kv_table {
    struct kv_item ***segments; /* the slots, KV_SEGMENT_SLOTS in each; of a small table the first is smaller */
    size_t n_slots, n;
    size_t mask; /* 2^k - 1 >= n_slots - 1 >= 2^(k-1): slots that are not there yet are part of those 2^(k-1) below */
    uint64_t seed;
};

static inline void *kv_must(void *p)
{
    if (!p)
        abort();
    return p;
}

static inline struct kv_slice kv_key_of(const struct kv_item *i)
{
    return (struct kv_slice){i->data, i->key_size};
}

static inline struct kv_slice kv_value_of(const struct kv_item *i)
{
    return (struct kv_slice){i->data + i->key_size, i->value_size};
}

/* The order of keys in images, and of RocksDB: by bytes, a prefix first. */
int kv_key_compare(struct kv_slice a, struct kv_slice b);

void kv_table_init(struct kv_table *t);
void kv_table_deinit(struct kv_table *t); /* takes a zeroed one */
void kv_table_clear(struct kv_table *t);  /* drops all items and shrinks */
struct kv_item *kv_table_find(const struct kv_table *t, struct kv_slice key);
/* Sets the value to head and tail, of at most KV_VALUE_BYTES_MAX together; the head may be the present value. Owners' flags of
 * the new item are 0. */
struct kv_item *kv_table_put(struct kv_table *t, struct kv_slice key, struct kv_slice head, struct kv_slice tail);
bool kv_table_drop(struct kv_table *t, struct kv_slice key);
/* The item after `i` in an order without meaning; NULL: the first, or there is none. */
struct kv_item *kv_table_next(const struct kv_table *t, const struct kv_item *i);
/* A hash of one pair. The hash of a whole map is the sum over its pairs, and their number: in whatever order. */
uint64_t kv_pair_hash(struct kv_slice key, struct kv_slice value);

#endif
