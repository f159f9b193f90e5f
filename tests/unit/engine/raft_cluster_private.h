/* tests/unit/engine/raft_cluster_private.h - what the files of the harness share. */
#ifndef NH_TESTS_RAFT_CLUSTER_PRIVATE_H
#define NH_TESTS_RAFT_CLUSTER_PRIVATE_H

#include "tests/unit/engine/raft_cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

/* Unlike assert it also says which replica broke which clause. */
#define REQUIRE(condition, ...)                                             \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                   \
            fputc('\n', stderr);                                            \
            abort();                                                        \
        }                                                                   \
    } while (0)

#define SHARD 7u

static void *grow(void *items, size_t *cap, size_t n, size_t elem_bytes)
{
    array_reserve(&items, cap, n, elem_bytes);
    return items;
}
#define PUSH(v)      ((v)->items = grow((v)->items, &(v)->cap, (v)->n + 1, sizeof *(v)->items), &(v)->items[(v)->n++])
#define REMOVE(v, i) (memmove(&(v)->items[i], &(v)->items[(i) + 1], ((v)->n - (i)-1) * sizeof *(v)->items), (v)->n--)
#define CLEAR(v)     (free((v)->items), memset((v), 0, sizeof *(v)))

static inline const uint8_t *record_of(const struct stored_entry *e)
{
    return e->block->data + e->block->offsets[e->at];
}

static inline uint64_t term_of(const struct stored_entry *e)
{
    return e->block->term;
}

/* A witness holds the same entry without its payload. */
static inline bool same_entry(const struct stored_entry *a, const struct stored_entry *b)
{
    if (nh_record_type(record_of(a)) == NH_ENTRY_METADATA || nh_record_type(record_of(b)) == NH_ENTRY_METADATA)
        return nh_record_index(record_of(a)) == nh_record_index(record_of(b)) && term_of(a) == term_of(b);
    return nh_record_bytes(record_of(a)) == nh_record_bytes(record_of(b)) &&
           memcmp(record_of(a), record_of(b), nh_record_bytes(record_of(a))) == 0;
}

static inline uint64_t disk_last(const struct cluster_node *node)
{
    return node->base + node->disk.n;
}

static inline const struct stored_entry *disk_at(const struct cluster_node *node, uint64_t index)
{
    REQUIRE(index > node->base && index <= disk_last(node), "replica %" PRIu64 " has no entry %" PRIu64, node->id, index);
    return &node->disk.items[index - node->base - 1];
}

/* A sealed block of one small entry. */
struct nh_block *make_block(uint64_t first_index, uint64_t term, uint8_t type, uint64_t key);
struct nh_member make_member(uint64_t id, uint32_t kind);
/* Index 0: against all that is committed. */
void cluster_check_dropped(const struct cluster *c, uint64_t key, uint64_t index);
void drop_messages(struct nh_message *items, size_t n);

#endif
