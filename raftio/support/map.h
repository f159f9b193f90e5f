/* raftio/support/map.h - open-addressing hash map from u64 keys to pointers. Key 0 is not allowed. Not thread-safe. */
#ifndef NH_RAFTIO_SUPPORT_MAP_H
#define NH_RAFTIO_SUPPORT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot {
    uint64_t key; /* 0: free */
    void *value;
};
struct map {
    struct map_slot *slots;
    size_t n, cap; /* cap is 0 or a power of two */
};

void map_deinit(struct map *m);
void *map_get(const struct map *m, uint64_t key);       /* NULL: absent */
void map_put(struct map *m, uint64_t key, void *value); /* replaces; value must not be NULL */
void *map_remove(struct map *m, uint64_t key);          /* the removed value or NULL */
void map_prefetch(const struct map *m, uint64_t key);   /* asks for the slot that a map_get will look at */
/* Iteration: for (size_t i = 0; (v = map_next(m, &i, &key)); ) ... ; the map must not change meanwhile. */
void *map_next(const struct map *m, size_t *i, uint64_t *ret_key);
/* A mix of the bits of x, for placing ids on workers. */
static inline uint64_t hash_u64(uint64_t x)
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    return x;
}

#endif
