/* A host with ten thousand shards knows a handful of addresses: each is kept once, and a shard's members are a small array. */
#include "raftio/registry.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/crc32c.h"
#include "raftio/support/map.h"
#include "raftio/support/memory.h"

struct nh_registry {
    pthread_mutex_t lock;
    struct map shards;    /* guarded by lock: shard id -> struct shard */
    struct map addresses; /* guarded by lock: address_key -> struct address */
};

struct address {
    struct address *next; /* another one with the same key */
    size_t n_members;     /* that live there; freed with the last one */
    char text[];
};

struct member {
    uint64_t replica_id;
    struct address *address;
};

struct shard {
    size_t n_members;
    struct member members[]; /* ascending, at least one; exactly as many as there are */
};

/* ---- addresses: with the lock held ---- */

static uint64_t address_key(const char *text)
{
    return (uint64_t)crc32c(0, text, strlen(text)) + 1; /* 0 is no key */
}

static struct address *address_new(const char *text, struct address *next)
{
    size_t size_bytes = strlen(text) + 1;
    struct address *a = xmalloc(sizeof *a + size_bytes);

    a->next = next;
    a->n_members = 0;
    memcpy(a->text, text, size_bytes);
    return a;
}

/* One more member lives there. */
static struct address *address_ref(struct nh_registry *r, const char *text)
{
    uint64_t key = address_key(text);
    struct address *first = map_get(&r->addresses, key), *a = first;

    while (a && strcmp(a->text, text) != 0)
        a = a->next;
    if (!a) {
        a = address_new(text, first);
        map_put(&r->addresses, key, a);
    }
    a->n_members++;
    return a;
}

static void address_unref(struct nh_registry *r, struct address *gone)
{
    uint64_t key = address_key(gone->text);
    struct address *first = map_get(&r->addresses, key), **at = &first;

    if (--gone->n_members > 0)
        return;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    if (first)
        map_put(&r->addresses, key, first);
    else
        map_remove(&r->addresses, key);
    free(gone);
}

/* ---- members of a shard: with the lock held ---- */

/* Where a replica is among the members, or would be. */
static size_t place_of(const struct shard *s, uint64_t replica_id)
{
    size_t at = 0;

    while (at < s->n_members && s->members[at].replica_id < replica_id)
        at++;
    return at;
}

/* NULL: not known; so is `s`. */
static struct member *find(struct shard *s, uint64_t replica_id)
{
    size_t at = s ? place_of(s, replica_id) : 0;

    return s && at < s->n_members && s->members[at].replica_id == replica_id ? &s->members[at] : NULL;
}

static struct shard *resized(struct shard *s, size_t n_members)
{
    return xrealloc(s, sizeof *s + n_members * sizeof *s->members);
}

/* `s` NULL: the first member of a new shard. */
static void insert(struct nh_registry *r, struct shard *s, uint64_t shard_id, struct member member)
{
    size_t n = s ? s->n_members : 0, at = s ? place_of(s, member.replica_id) : 0;

    s = resized(s, n + 1);
    memmove(s->members + at + 1, s->members + at, (n - at) * sizeof *s->members);
    s->members[at] = member;
    s->n_members = n + 1;
    map_put(&r->shards, shard_id, s);
}

static void put_address(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id, const char *text)
{
    struct shard *s = map_get(&r->shards, shard_id);
    struct member *known = find(s, replica_id);
    struct address *address = address_ref(r, text); /* before the old one is let go: it may be the same */

    if (!known) {
        insert(r, s, shard_id, (struct member){replica_id, address});
        return;
    }
    address_unref(r, known->address);
    known->address = address;
}

/* Takes NULL. */
static void shard_free(struct nh_registry *r, struct shard *s)
{
    for (size_t i = 0; s && i < s->n_members; i++)
        address_unref(r, s->members[i].address);
    free(s);
}

static void remove_member(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id)
{
    struct shard *s = map_get(&r->shards, shard_id);
    struct member *gone = find(s, replica_id);

    if (!gone)
        return;
    if (s->n_members == 1) {
        shard_free(r, map_remove(&r->shards, shard_id));
        return;
    }
    address_unref(r, gone->address);
    s->n_members--;
    memmove(gone, gone + 1, (size_t)(s->members + s->n_members - gone) * sizeof *gone);
    map_put(&r->shards, shard_id, resized(s, s->n_members));
}

/* ---- the table of functions ---- */

static int registry_open(struct nh_registry **ret, struct nh_error *err)
{
    struct nh_registry *r = xcalloc(1, sizeof *r);
    int sys = pthread_mutex_init(&r->lock, NULL);

    if (sys) {
        free(r);
        return nh_error_sys(err, NH_ENOMEM, sys, "registry lock");
    }
    *ret = r;
    return NH_OK;
}

static void registry_close(struct nh_registry *r)
{
    struct shard *s;

    if (!r)
        return;
    for (size_t i = 0; (s = map_next(&r->shards, &i, NULL));)
        shard_free(r, s);
    assert(r->addresses.n == 0);
    map_deinit(&r->shards);
    map_deinit(&r->addresses);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static int registry_add(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id, const char *address, struct nh_error *err)
{
    if (shard_id == NH_NO_SHARD || replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "shard and replica ids are never 0");
    if (!address || !address[0])
        return nh_error_set(err, NH_EINVAL, "shard %" PRIu64 " replica %" PRIu64 ": no address", shard_id, replica_id);
    if (strnlen(address, NH_ADDRESS_BYTES) == NH_ADDRESS_BYTES)
        return nh_error_set(err, NH_EINVAL, "shard %" PRIu64 " replica %" PRIu64 ": address is longer than %u bytes", shard_id,
                            replica_id, NH_ADDRESS_BYTES - 1);
    pthread_mutex_lock(&r->lock);
    put_address(r, shard_id, replica_id, address);
    pthread_mutex_unlock(&r->lock);
    return NH_OK;
}

static void registry_remove(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id)
{
    pthread_mutex_lock(&r->lock);
    remove_member(r, shard_id, replica_id);
    pthread_mutex_unlock(&r->lock);
}

static void registry_remove_shard(struct nh_registry *r, uint64_t shard_id)
{
    pthread_mutex_lock(&r->lock);
    shard_free(r, map_remove(&r->shards, shard_id));
    pthread_mutex_unlock(&r->lock);
}

static int registry_resolve(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id, char *ret, struct nh_error *err)
{
    const struct member *m;

    pthread_mutex_lock(&r->lock);
    m = find(map_get(&r->shards, shard_id), replica_id);
    if (m)
        memcpy(ret, m->address->text, strlen(m->address->text) + 1);
    pthread_mutex_unlock(&r->lock);
    if (!m)
        return nh_error_set(err, NH_ENOTFOUND, "shard %" PRIu64 " replica %" PRIu64 ": address not known", shard_id, replica_id);
    return NH_OK;
}

const struct nh_registry_ops *nh_registry_static(void)
{
    static const struct nh_registry_ops ops = {
        .abi_version = NH_REGISTRY_ABI,
        .struct_size = sizeof ops,
        .name = "static",
        .open = registry_open,
        .close = registry_close,
        .add = registry_add,
        .remove = registry_remove,
        .remove_shard = registry_remove_shard,
        .resolve = registry_resolve,
    };

    return &ops;
}
