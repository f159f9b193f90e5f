#include "raftio/support/map.h"

#include <assert.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

#define MAP_CAP_MIN 8u

void map_deinit(struct map *m)
{
    free(m->slots);
    *m = (struct map){0};
}

/* The slot of `key`, or the free one where it would go. Needs cap > n. */
static size_t slot_of(const struct map *m, uint64_t key)
{
    size_t i = hash_u64(key) & (m->cap - 1);

    while (m->slots[i].key != key && m->slots[i].key != 0)
        i = (i + 1) & (m->cap - 1);
    return i;
}

void *map_get(const struct map *m, uint64_t key)
{
    return m->cap ? m->slots[slot_of(m, key)].value : NULL;
}

void map_prefetch(const struct map *m, uint64_t key)
{
    if (m->cap)
        prefetch(&m->slots[hash_u64(key) & (m->cap - 1)], 1);
}

static void grow(struct map *m)
{
    struct map bigger = {.n = m->n, .cap = m->cap ? m->cap * 2 : MAP_CAP_MIN};

    bigger.slots = xcalloc(bigger.cap, sizeof *bigger.slots);
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].key)
            bigger.slots[slot_of(&bigger, m->slots[i].key)] = m->slots[i];
    free(m->slots);
    *m = bigger;
}

void map_put(struct map *m, uint64_t key, void *value)
{
    size_t i;

    assert(key && value);
    if (m->n + 1 > m->cap / 4 * 3)
        grow(m);
    i = slot_of(m, key);
    m->n += m->slots[i].key == 0;
    m->slots[i] = (struct map_slot){key, value};
}

/* Closes the hole at `hole`: a later slot of the same cluster moves back if its home does not lie after the hole. */
static void close_hole(struct map *m, size_t hole)
{
    size_t mask = m->cap - 1;

    for (size_t i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
        size_t home = hash_u64(m->slots[i].key) & mask;

        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct map_slot){0};
}

void *map_remove(struct map *m, uint64_t key)
{
    size_t i;
    void *value;

    if (!key || !m->cap)
        return NULL;
    i = slot_of(m, key);
    value = m->slots[i].value;
    if (value) {
        m->n--;
        close_hole(m, i);
    }
    return value;
}

void *map_next(const struct map *m, size_t *i, uint64_t *ret_key)
{
    for (; *i < m->cap; ++*i) {
        const struct map_slot *s = &m->slots[*i];

        if (s->key) {
            if (ret_key)
                *ret_key = s->key;
            ++*i;
            return s->value;
        }
    }
    return NULL;
}
