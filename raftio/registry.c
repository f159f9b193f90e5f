#include "raftio/registry.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "raftio/support/map.h"
#include "raftio/support/memory.h"

struct nh_registry {
    pthread_mutex_t lock;
    struct map shards; /* guarded by lock: shard id -> struct shard */
};

struct shard {
    struct map addresses; /* replica id -> char * */
};

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

/* Takes NULL. */
static void shard_free(struct shard *s)
{
    char *address;

    if (!s)
        return;
    for (size_t i = 0; (address = map_next(&s->addresses, &i, NULL));)
        free(address);
    map_deinit(&s->addresses);
    free(s);
}

static void registry_close(struct nh_registry *r)
{
    struct shard *s;

    if (!r)
        return;
    for (size_t i = 0; (s = map_next(&r->shards, &i, NULL));)
        shard_free(s);
    map_deinit(&r->shards);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* With the lock held. */
static void put_address(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id, char *address)
{
    struct shard *s = map_get(&r->shards, shard_id);

    if (!s) {
        s = xcalloc(1, sizeof *s);
        map_put(&r->shards, shard_id, s);
    }
    free(map_get(&s->addresses, replica_id));
    map_put(&s->addresses, replica_id, address);
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
    put_address(r, shard_id, replica_id, xstrdup(address));
    pthread_mutex_unlock(&r->lock);
    return NH_OK;
}

static void registry_remove(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id)
{
    struct shard *s;

    pthread_mutex_lock(&r->lock);
    s = map_get(&r->shards, shard_id);
    if (s) {
        free(map_remove(&s->addresses, replica_id));
        if (s->addresses.n == 0)
            shard_free(map_remove(&r->shards, shard_id));
    }
    pthread_mutex_unlock(&r->lock);
}

static void registry_remove_shard(struct nh_registry *r, uint64_t shard_id)
{
    pthread_mutex_lock(&r->lock);
    shard_free(map_remove(&r->shards, shard_id));
    pthread_mutex_unlock(&r->lock);
}

static int registry_resolve(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id, char *ret, struct nh_error *err)
{
    const struct shard *s;
    const char *address;

    pthread_mutex_lock(&r->lock);
    s = map_get(&r->shards, shard_id);
    address = s ? map_get(&s->addresses, replica_id) : NULL;
    if (address)
        memcpy(ret, address, strlen(address) + 1);
    pthread_mutex_unlock(&r->lock);
    if (!address)
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
