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

/* ---- slots ---- */

static struct kv_item **slot(const struct kv_table *t, size_t i)
{
    return &t->segments[i / KV_SEGMENT_SLOTS][i % KV_SEGMENT_SLOTS];
}

static size_t slot_of(const struct kv_table *t, uint64_t hash)
{
    size_t i = hash & t->mask;

    return i < t->n_slots ? i : i & (t->mask >> 1);
}

static void init_slots(struct kv_table *t)
{
    t->segments = kv_must(malloc(sizeof *t->segments));
    t->segments[0] = kv_must(calloc(SLOTS_MIN, sizeof(struct kv_item *)));
    t->n_slots = SLOTS_MIN;
    t->mask = SLOTS_MIN - 1;
}

/* Makes room for slot `i`, the next one, empty. The first segment doubles until it has its size. */
static void reserve_slot(struct kv_table *t, size_t i)
{
    if (i % KV_SEGMENT_SLOTS == 0) {
        t->segments = kv_must(realloc(t->segments, (i / KV_SEGMENT_SLOTS + 1) * sizeof *t->segments));
        t->segments[i / KV_SEGMENT_SLOTS] = kv_must(calloc(KV_SEGMENT_SLOTS, sizeof(struct kv_item *)));
    } else if (i < KV_SEGMENT_SLOTS && (i & (i - 1)) == 0) {
        t->segments[0] = kv_must(realloc(t->segments[0], 2 * i * sizeof(struct kv_item *)));
        memset(t->segments[0] + i, 0, i * sizeof(struct kv_item *));
    }
}

/* One more slot, and the items that belong there from now on: all of them are in one other slot. */
static void grow(struct kv_table *t)
{
    size_t i = t->n_slots;
    struct kv_item **from, **to;

    reserve_slot(t, i);
    if (i > t->mask)
        t->mask = 2 * t->mask + 1;
    from = slot(t, i & (t->mask >> 1));
    to = slot(t, i);
    t->n_slots++;
    while (*from) {
        struct kv_item *item = *from;

        if ((item->hash & t->mask) != i) {
            from = &item->next;
            continue;
        }
        *from = item->next;
        item->next = *to;
        *to = item;
    }
}

/* ---- items ---- */

static struct kv_item **find(const struct kv_table *t, struct kv_slice key, uint64_t hash)
{
    struct kv_item **at = slot(t, slot_of(t, hash));

    while (*at && !((*at)->hash == hash && (*at)->key_size == key.size && memcmp((*at)->data, key.data, key.size) == 0))
        at = &(*at)->next;
    return at;
}

struct kv_item *kv_table_find(const struct kv_table *t, struct kv_slice key)
{
    return *find(t, key, hash_of(t, key));
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
    if (!old && ++t->n > t->n_slots)
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
    size_t at = i ? slot_of(t, i->hash) + 1 : 0;

    if (i && i->next)
        return i->next;
    while (at < t->n_slots && !*slot(t, at))
        at++;
    return at < t->n_slots ? *slot(t, at) : NULL;
}

/* ---- life ---- */

void kv_table_init(struct kv_table *t)
{
    *t = (struct kv_table){0};
    init_slots(t);
    if (getrandom(&t->seed, sizeof t->seed, 0) != sizeof t->seed)
        t->seed = (uint64_t)(uintptr_t)t->segments;
}

void kv_table_deinit(struct kv_table *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        struct kv_item **at = slot(t, i);

        while (*at) {
            struct kv_item *item = *at;

            *at = item->next;
            retire(item);
        }
    }
    for (size_t i = 0; i < t->n_slots; i += KV_SEGMENT_SLOTS)
        free(t->segments[i / KV_SEGMENT_SLOTS]);
    free(t->segments);
    *t = (struct kv_table){0};
}

void kv_table_clear(struct kv_table *t)
{
    uint64_t seed = t->seed;

    if (t->n == 0)
        return;
    kv_table_deinit(t);
    init_slots(t);
    t->seed = seed;
}
