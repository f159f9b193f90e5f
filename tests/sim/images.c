/* What must hold of images and of the records that name them:
 *
 *   the newest snapshot's index never falls
 *   a log begins right behind it, or before (I13)
 *   before its record is durable, its image is: all of it would be there after any crash; and it stays until there is a newer one
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

static uint64_t newest[SIM_HOSTS_MAX][SIM_SHARDS_MAX + 1];

void images_init(void)
{
    memset(newest, 0, sizeof newest);
}

void images_forget(const struct sim_host *h, uint64_t shard)
{
    newest[h->id][shard] = 0;
}

static void check_image(const struct sim_host *h, uint64_t shard, uint64_t index)
{
    static const char *const parts[] = {"image", "record"};
    char path[256];

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, SIM_IMAGES "/%020" PRIu64 "-%020" PRIu64 "/snapshot-%016" PRIx64 "/%s", shard,
                 h->replica[shard], index, parts[i]);
        if (!memory_files_is_durable(h->files, path))
            sim_fail("shard %" PRIu64 ": host %u has a snapshot of index %" PRIu64 ", but its %s is not safe on the disk", shard,
                     h->id + 1, index, parts[i]);
    }
}

void images_check(const struct sim_host *h, uint64_t shard, const struct nh_raft_state *state)
{
    uint64_t before = newest[h->id][shard];
    struct nh_snapshot now;

    if (!sim.options.snapshots || memory_disk_read_snapshot(h->disk, shard, h->replica[shard], &now, NULL) < 0)
        return;
    if (now.index < before)
        sim_fail("shard %" PRIu64 ": the snapshot of host %u goes from index %" PRIu64 " back to %" PRIu64, shard, h->id + 1,
                 before, now.index);
    if (state->first_index > now.index + 1)
        sim_fail("shard %" PRIu64 ": the log of host %u begins at index %" PRIu64 ", its snapshot ends at %" PRIu64, shard,
                 h->id + 1, state->first_index, now.index);
    if (now.index > before && !now.witness)
        check_image(h, shard, now.index);
    newest[h->id][shard] = now.index;
    nh_snapshot_deinit(&now);
}

/* ---- exports ---- */

const char *images_export_dir(struct sim_host *h, uint64_t shard)
{
    struct files *fs = memory_files_base(h->files);
    static char path[64];

    snprintf(path, sizeof path, SIM_EXPORTS "/%" PRIu64, shard);
    fs->ops->make_dir(fs, path, NULL); /* it may fail just now, and so will the export */
    return path;
}

void images_check_export(struct sim_host *h, const char *path, uint64_t index)
{
    static const char *const parts[] = {"image", "record"};
    char name[FILES_PATH_BYTES];

    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%.*s/%s", FILES_PATH_BYTES - 16, path, parts[i]);
        if (memory_files_size(h->files, name) == 0)
            sim_fail("host %u: the export of index %" PRIu64 " to %s has no %s", h->id + 1, index, path, parts[i]);
    }
}
