/* Deleting what is stored of a replica that does not run. */
#include "engine/engine_private.h"

#include <inttypes.h>
#include <string.h>

#include "engine/replica.h"
#include "raftio/support/plugin_status.h"

/* Nobody may start it meanwhile. Another replica of the same shard may run here: a host that joined anew. */
static int begin(struct engine *e, uint64_t shard_id, uint64_t replica_id, struct nh_error *err)
{
    const struct replica *running;
    bool busy;

    pthread_rwlock_wrlock(&e->routes_lock);
    running = map_get(&e->routes, shard_id);
    busy = map_get(&e->starting, shard_id) || (running && running->replica_id == replica_id);
    if (!busy)
        map_put(&e->starting, shard_id, e);
    pthread_rwlock_unlock(&e->routes_lock);
    return busy ? nh_error_set(err, NH_EBUSY, "it runs, starts or stops here: stop it first") : NH_OK;
}

static void end(struct engine *e, uint64_t shard_id)
{
    pthread_rwlock_wrlock(&e->routes_lock);
    map_remove(&e->starting, shard_id);
    pthread_rwlock_unlock(&e->routes_lock);
}

static int remove_log(struct engine *e, uint64_t shard_id, uint64_t replica_id, bool *ret_was_there, struct nh_error *err)
{
    const struct nh_logdb_ops *ops = e->config.logdb_ops;
    struct nh_bootstrap b = {0};
    int r = ops->get_bootstrap(e->config.logdb, shard_id, replica_id, &b, NULL);

    nh_bootstrap_deinit(&b);
    *ret_was_there |= r != NH_ENOTFOUND;
    r = ops->remove_replica_data(e->config.logdb, shard_id, replica_id, err); /* a damaged record too */
    return plugin_status(r, "remove_replica_data", err);
}

static int nothing(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    return 0;
}

static int remove_directory(struct files *fs, const char *path, bool *ret_was_there, struct nh_error *err)
{
    const char *slash = strrchr(path, '/');
    char parent[FILES_PATH_BYTES];
    int r = fs->ops->list(fs, path, nothing, NULL, NULL);

    if (r == NH_ENOTFOUND)
        return NH_OK;
    *ret_was_there = true;
    r = fs->ops->remove(fs, path, err);
    if (r == NH_OK && slash)
        r = files_path(parent, err, "%.*s", (int)(slash - path), path);
    return r < 0 || !slash ? r : fs->ops->sync_dir(fs, parent, err);
}

/* The log first: a replica without record never starts again from half of what it had. */
static int remove_all(struct engine *e, uint64_t shard_id, uint64_t replica_id, const char *machine_dir, bool *ret_was_there,
                      struct nh_error *err)
{
    struct files *fs = e->config.files;
    struct snapshot_dir dir;
    int r = remove_log(e, shard_id, replica_id, ret_was_there, err);

    if (r < 0 || !fs)
        return r;
    r = snapshot_dir_name(&dir, fs, e->config.snapshot_root, shard_id, replica_id, err);
    if (r == NH_OK)
        r = remove_directory(fs, dir.path, ret_was_there, err);
    return r < 0 || !machine_dir ? r : remove_directory(fs, machine_dir, ret_was_there, err);
}

int engine_remove_data(struct engine *e, uint64_t shard_id, uint64_t replica_id, const char *machine_dir, bool *ret_was_there,
                       struct nh_error *err)
{
    int r;

    *ret_was_there = false;
    if (!__atomic_load_n(&e->running, __ATOMIC_ACQUIRE))
        return nh_error_set(err, NH_ECLOSED, "the host is being closed");
    if (shard_id == NH_NO_SHARD || replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "shard or replica id is 0");
    r = begin(e, shard_id, replica_id, err);
    if (r < 0)
        return r;
    r = remove_all(e, shard_id, replica_id, machine_dir, ret_was_there, err);
    end(e, shard_id);
    return r;
}
