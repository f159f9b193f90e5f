#include "logdb/replica_map.h"

#include <assert.h>

static uint64_t key_of(uint64_t shard_id, uint64_t replica_id)
{
    uint64_t key = hash_u64(shard_id ^ hash_u64(replica_id));

    return key ? key : 1;
}

struct replica_node *replica_map_find_from(struct replica_node *head, uint64_t shard_id, uint64_t replica_id)
{
    while (head && (head->shard_id != shard_id || head->replica_id != replica_id))
        head = head->next;
    return head;
}

struct replica_node *replica_map_find(const struct replica_map *m, uint64_t shard_id, uint64_t replica_id)
{
    return replica_map_find_from(replica_map_head(m, shard_id, replica_id), shard_id, replica_id);
}

void replica_map_prefetch(const struct replica_map *m, uint64_t shard_id, uint64_t replica_id)
{
    map_prefetch(&m->heads, key_of(shard_id, replica_id));
}

struct replica_node *replica_map_head(const struct replica_map *m, uint64_t shard_id, uint64_t replica_id)
{
    return map_get(&m->heads, key_of(shard_id, replica_id));
}

void replica_map_add(struct replica_map *m, struct replica_node *node)
{
    uint64_t key = key_of(node->shard_id, node->replica_id);

    assert(!replica_map_find(m, node->shard_id, node->replica_id));
    node->next = map_get(&m->heads, key);
    map_put(&m->heads, key, node);
}

void replica_map_remove(struct replica_map *m, struct replica_node *node)
{
    uint64_t key = key_of(node->shard_id, node->replica_id);
    struct replica_node *head = map_get(&m->heads, key);

    assert(head);
    if (head == node) {
        if (node->next)
            map_put(&m->heads, key, node->next);
        else
            map_remove(&m->heads, key);
        return;
    }
    while (head->next != node)
        head = head->next;
    head->next = node->next;
}

void replica_map_clear(struct replica_map *m, void (*each)(struct replica_node *node))
{
    struct replica_node *node;

    for (size_t i = 0; (node = map_next(&m->heads, &i, NULL));) {
        while (node) {
            struct replica_node *next = node->next;

            each(node);
            node = next;
        }
    }
    map_deinit(&m->heads);
}

struct replica_node *replica_map_next(const struct replica_map *m, size_t *i, struct replica_node *prev)
{
    return prev && prev->next ? prev->next : map_next(&m->heads, i, NULL);
}
