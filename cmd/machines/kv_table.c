#include "cmd/machines/kv_table.h"

#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define SLOTS_MIN 64u

int kv_key_compare(struct kv_slice a, struct kv_slice b)
{
    int r = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

    return r ? r : (a.size > b.size) - (a.size < b.size);
}

uint64_t kv_pair_hash(struct kv_slice key, struct kv_slice value)
{
    return XXH3_64bits_withSeed(value.data, value.size, XXH3_64bits(key.data, key.size));
}

static uint64_t hash_of(const struct kv_table *t, struct kv_slice key)
{
    return XXH3_64bits_withSeed(key.data, key.size, t->seed);
}

static struct kv_item **find(const struct kv_table *t, struct kv_slice key, uint64_t hash)
{
    struct kv_item **at = &t->slots[hash & (t->cap - 1)];

    while (*at && !((*at)->hash == hash && (*at)->key_size == key.size && memcmp((*at)->data, key.data, key.size) == 0))
        at = &(*at)->next;
    return at;
}

struct kv_item *kv_table_find(const struct kv_table *t, struct kv_slice key)
{
    return *find(t, key, hash_of(t, key));
}

static void grow(struct kv_table *t)
{
    size_t cap = t->cap * 2;
    struct kv_item **slots = kv_must(calloc(cap, sizeof(struct kv_item *)));

    for (size_t s = 0; s < t->cap; s++) {
        struct kv_item *i = t->slots[s], *next;

        for (; i; i = next) {
            next = i->next;
            i->next = slots[i->hash & (cap - 1)];
            slots[i->hash & (cap - 1)] = i;
        }
    }
    free(t->slots);
    t->slots = slots;
    t->cap = cap;
}

static struct kv_item *make_item(struct kv_slice key, uint64_t hash, struct kv_slice head, struct kv_slice tail)
{
    struct kv_item *i = kv_must(malloc(sizeof *i + key.size + head.size + (size_t)tail.size));

    *i = (struct kv_item){.hash = hash, .key_size = key.size, .value_size = (head.size + tail.size) & ((1u << 26) - 1)};
    if (key.size)
        memcpy(i->data, key.data, key.size);
    if (head.size)
        memcpy(i->data + key.size, head.data, head.size);
    if (tail.size)
        memcpy(i->data + key.size + head.size, tail.data, tail.size);
    return i;
}

/* An item leaves the table, its value may be an answer still. */
static void retire(struct kv_item *i)
{
    if (i && i->answered)
        i->dropped = true;
    else
        free(i);
}

struct kv_item *kv_table_put(struct kv_table *t, struct kv_slice key, struct kv_slice head, struct kv_slice tail)
{
    uint64_t hash = hash_of(t, key);
    struct kv_item **at = find(t, key, hash), *old = *at, *i = make_item(key, hash, head, tail);

    i->next = old ? old->next : NULL;
    *at = i;
    retire(old);
    if (!old && ++t->n > t->cap)
        grow(t);
    return i;
}

bool kv_table_drop(struct kv_table *t, struct kv_slice key)
{
    struct kv_item **at = find(t, key, hash_of(t, key)), *old = *at;

    if (!old)
        return false;
    *at = old->next;
    retire(old);
    t->n--;
    return true;
}

struct kv_item *kv_table_next(const struct kv_table *t, const struct kv_item *i)
{
    size_t slot = i ? (i->hash & (t->cap - 1)) + 1 : 0;

    if (i && i->next)
        return i->next;
    while (slot < t->cap && !t->slots[slot])
        slot++;
    return slot < t->cap ? t->slots[slot] : NULL;
}

void kv_table_init(struct kv_table *t)
{
    *t = (struct kv_table){.cap = SLOTS_MIN, .slots = kv_must(calloc(SLOTS_MIN, sizeof(struct kv_item *)))};
    if (getrandom(&t->seed, sizeof t->seed, 0) != sizeof t->seed)
        t->seed = (uint64_t)(uintptr_t)t->slots;
}

void kv_table_deinit(struct kv_table *t)
{
    for (size_t s = 0; s < t->cap; s++) {
        while (t->slots[s]) {
            struct kv_item *i = t->slots[s];

            t->slots[s] = i->next;
            retire(i);
        }
    }
    free(t->slots);
    *t = (struct kv_table){0};
}

void kv_table_clear(struct kv_table *t)
{
    uint64_t seed = t->seed;

    if (t->n == 0)
        return;
    kv_table_deinit(t);
    *t = (struct kv_table){.cap = SLOTS_MIN, .slots = kv_must(calloc(SLOTS_MIN, sizeof(struct kv_item *))), .seed = seed};
}
