/* logdb/replica_map.h - finds what a store keeps in memory about a replica, by (shard_id, replica_id).
 *
 * Intrusive: the user's struct begins where it likes with a `struct replica_node`. Not thread-safe. The order of a walk
 * depends on the ids and on the order of additions only, so that a simulated run repeats.
 */
#ifndef NH_LOGDB_REPLICA_MAP_H
#define NH_LOGDB_REPLICA_MAP_H

#include "raftio/support/map.h"

struct replica_node {
    uint64_t shard_id;
    uint64_t replica_id;
    struct replica_node *next; /* another replica whose ids have the same hash */
};

/* Zeroed = empty. */
struct replica_map {
    struct map heads;
};

struct replica_node *replica_map_find(const struct replica_map *m, uint64_t shard_id, uint64_t replica_id); /* or NULL */
/* For a caller that looks up many: asks for the slot; yields (when that has come) what is to be looked at first, or NULL; finds
 * the replica from there on, as long as nothing was added or removed. */
void replica_map_prefetch(const struct replica_map *m, uint64_t shard_id, uint64_t replica_id);
struct replica_node *replica_map_head(const struct replica_map *m, uint64_t shard_id, uint64_t replica_id);
struct replica_node *replica_map_find_from(struct replica_node *head, uint64_t shard_id, uint64_t replica_id);
void replica_map_add(struct replica_map *m, struct replica_node *node); /* must not be there yet */
void replica_map_remove(struct replica_map *m, struct replica_node *node);
/* Calls `each` for every node and empties the map; `each` may free the node. */
void replica_map_clear(struct replica_map *m, void (*each)(struct replica_node *node));
/* The first node of the walk (prev NULL) or the one after `prev`, NULL at the end. `i` starts as 0. */
struct replica_node *replica_map_next(const struct replica_map *m, size_t *i, struct replica_node *prev);

#endif
