/* Snapshots on request, exports, and the deletion of what is stored of a replica. */
#include "nodehost/host_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "nodehost/places.h"

int nh_request_snapshot(struct nh_host *host, uint64_t shard_id, uint64_t compaction_overhead, nh_completion_fn fn, void *ctx,
                        struct nh_error *err)
{
    int r = host_check_request(fn, NULL, 0, err);

    return r < 0 ? r : engine_snapshot(host->engine, shard_id, NULL, compaction_overhead, fn, ctx, err);
}

static int check_directory(const char *path, struct nh_error *err)
{
    struct stat st;

    if (!path || path[0] != '/')
        return nh_error_set(err, NH_EINVAL, "export directory '%s': the path must be absolute", path ? path : "");
    if (strlen(path) >= PLACE_PATH_BYTES)
        return nh_error_set(err, NH_EINVAL, "the path of the export directory is too long");
    if (stat(path, &st) < 0)
        return nh_error_sys(err, NH_EINVAL, errno, "export directory %s", path);
    return S_ISDIR(st.st_mode) ? NH_OK : nh_error_set(err, NH_EINVAL, "%s is not a directory", path);
}

int nh_export_snapshot(struct nh_host *host, uint64_t shard_id, const char *directory, nh_completion_fn fn, void *ctx,
                       struct nh_error *err)
{
    int r = check_directory(directory, err);

    if (r == NH_OK)
        r = host_check_request(fn, NULL, 0, err);
    return r < 0 ? r : engine_snapshot(host->engine, shard_id, directory, NH_NEVER, fn, ctx, err);
}

int nh_request_snapshot_sync(struct nh_host *host, uint64_t shard_id, uint64_t compaction_overhead, struct nh_reply *ret,
                             struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_request_snapshot(host, shard_id, compaction_overhead, waiter_end, &w, err));
}

int nh_export_snapshot_sync(struct nh_host *host, uint64_t shard_id, const char *directory, struct nh_reply *ret,
                            struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_export_snapshot(host, shard_id, directory, waiter_end, &w, err));
}

/* ---- deletion ---- */

int nh_host_remove_data(struct nh_host *host, uint64_t shard_id, uint64_t replica_id, struct nh_error *err)
{
    char machine_dir[PLACE_PATH_BYTES];
    bool was_there = false;
    int r = host_check_may_block(err);

    if (r == NH_OK)
        r = place_of_machine(&host->data_dir, shard_id, replica_id, machine_dir, err);
    if (r == NH_OK)
        r = engine_remove_data(host->engine, shard_id, replica_id, machine_dir, &was_there, err);
    if (r == NH_OK && !was_there)
        r = nh_error_set(err, NH_ENOTFOUND, "nothing is stored of it here");
    if (r < 0)
        return nh_error_wrap(err, r, "remove the data of replica %" PRIu64 " of shard %" PRIu64, replica_id, shard_id);
    events_post(host->events, EVENT_REPLICA_DELETED, (struct nh_replica_info){shard_id, replica_id}, NULL);
    return NH_OK;
}
