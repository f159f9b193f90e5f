#include <criterion/criterion.h>
#include <stdlib.h>

#include "logdb/replica_map.h"

static int n_freed;

static void on_free(struct replica_node *n)
{
    n_freed++;
    free(n);
}

static struct replica_node *make(uint64_t shard_id, uint64_t replica_id)
{
    struct replica_node *n = calloc(1, sizeof *n);

    *n = (struct replica_node){.shard_id = shard_id, .replica_id = replica_id};
    return n;
}

Test(replica_map, an_empty_map_has_nothing)
{
    struct replica_map m = {0};
    size_t i = 0;

    cr_assert_null(replica_map_find(&m, 1, 1));
    cr_assert_null(replica_map_next(&m, &i, NULL));
    replica_map_clear(&m, on_free);
}

Test(replica_map, finds_what_was_added_and_not_what_was_removed)
{
    struct replica_map m = {0};

    for (uint64_t s = 1; s <= 100; s++)
        for (uint64_t r = 1; r <= 5; r++)
            replica_map_add(&m, make(s, r));
    for (uint64_t s = 1; s <= 100; s += 2) {
        struct replica_node *n = replica_map_find(&m, s, 3);

        replica_map_remove(&m, n);
        free(n);
    }
    for (uint64_t s = 1; s <= 100; s++)
        for (uint64_t r = 1; r <= 5; r++) {
            const struct replica_node *n = replica_map_find(&m, s, r);

            cr_assert_eq(n == NULL, r == 3 && s % 2 == 1);
            cr_assert(!n || (n->shard_id == s && n->replica_id == r));
        }
    replica_map_clear(&m, on_free);
    cr_assert_eq(n_freed, 450);
    cr_assert_null(replica_map_find(&m, 2, 2));
}

/* Ids with the same hash share a slot: (s, r) and (s ^ hash(r) ^ hash(r'), r') for any s, r, r'. */
Test(replica_map, ids_with_the_same_hash_are_told_apart)
{
    struct replica_map m = {0};
    struct replica_node *n[3];
    struct replica_node *node = NULL;
    size_t seen = 0;

    for (uint64_t r = 0; r < 3; r++) {
        n[r] = make(77 ^ hash_u64(1) ^ hash_u64(r + 1), r + 1);
        replica_map_add(&m, n[r]);
    }
    for (size_t i = 0; (node = replica_map_next(&m, &i, node));)
        seen++;
    cr_assert_eq(seen, 3);
    for (uint64_t r = 0; r < 3; r++)
        cr_assert_eq(replica_map_find(&m, n[r]->shard_id, r + 1), n[r]);
    cr_assert_null(replica_map_find(&m, 77, 2));
    replica_map_remove(&m, n[1]); /* in the middle */
    replica_map_remove(&m, n[2]); /* at the head */
    cr_assert_eq(replica_map_find(&m, 77, 1), n[0]);
    cr_assert_null(replica_map_find(&m, n[1]->shard_id, 2));
    replica_map_remove(&m, n[0]);
    cr_assert_null(replica_map_find(&m, 77, 1));
    for (size_t i = 0; i < 3; i++)
        free(n[i]);
    replica_map_clear(&m, on_free);
}

Test(replica_map, a_walk_meets_everybody_once)
{
    struct replica_map m = {0};
    struct replica_node *n = NULL;
    uint64_t sum = 0;

    for (uint64_t s = 1; s <= 1000; s++)
        replica_map_add(&m, make(s, 1));
    for (size_t i = 0; (n = replica_map_next(&m, &i, n));)
        sum += n->shard_id;
    cr_assert_eq(sum, 500500);
    replica_map_clear(&m, on_free);
}
