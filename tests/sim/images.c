/* What must hold of images and of the records that name them:
 *
 *   the newest snapshot's index never falls
 *   a log begins right behind it, or before (I13)
 *   before its record is durable, its image is: all of it would be there after any crash
 *   an image is whole, and the state in it is the one that the history says at the index of its record
 *   when a sender is told that an image has arrived, it has
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/rsm/image.h"
#include "tests/sim/sim.h"

#define PADDING_READ 5000u

static uint64_t newest[SIM_HOSTS_MAX][SIM_SHARDS_MAX + 1];

void images_init(void)
{
    memset(newest, 0, sizeof newest);
}

void images_forget(const struct sim_host *h, uint64_t shard)
{
    newest[h->id][shard] = 0;
}

/* ---- one image ---- */

struct bytes {
    const uint8_t *data;
    size_t n;
};

static int64_t read_bytes(void *ctx, void *data, size_t cap_bytes, struct nh_error *err)
{
    struct bytes *b = ctx;
    size_t n = b->n < cap_bytes ? b->n : cap_bytes;

    (void)err;
    if (n > 0)
        memcpy(data, b->data, n);
    b->data += n;
    b->n -= n;
    return (int64_t)n;
}

/* The beginning of the machine's data. Returns how much there is of it, at most `cap`, or a negative code. */
static int64_t read_start(struct image_reader *r, uint8_t *ret, size_t cap, struct nh_error *err)
{
    size_t at = 0;
    int64_t n;

    while (at < cap && (n = image_reader_read(r, ret + at, cap - at, err)) != 0) {
        if (n < 0)
            return n;
        at += (size_t)n;
    }
    return (int64_t)at;
}

/* Of a whole image. False: it has no data. */
static bool read_state(struct bytes bytes, struct image_head *ret_head, struct registers *ret, const char *where)
{
    struct image_source source = {read_bytes, &bytes};
    struct image_reader *reader;
    struct nh_error err = {0};
    bool found = false;
    int section, r = image_reader_new(&source, ret_head, &reader, &err);

    if (r < 0)
        sim_fail("%s: %s", where, err.text);
    while ((section = image_reader_next(reader, &err)) > 0 && section != IMAGE_END) {
        if (section != IMAGE_DATA)
            continue;
        found = true;
        if (read_start(reader, (uint8_t *)ret, sizeof *ret, &err) != sizeof *ret)
            sim_fail("%s: the data is too short", where);
    }
    if (section < 0)
        sim_fail("%s: %s", where, err.text);
    image_reader_free(reader);
    return found;
}

static void check_content(const struct sim_host *h, uint64_t shard, const char *path, uint64_t index)
{
    struct bytes bytes = {0};
    struct image_head head;
    struct registers state;

    bytes.data = memory_files_peek(h->files, path, &bytes.n);
    if (read_state(bytes, &head, &state, path))
        oracle_check_image(h, shard, &state, index);
    if (head.record.index != index)
        sim_fail("%s: the image is of index %" PRIu64 ", its record says %" PRIu64, path, head.record.index, index);
    image_head_deinit(&head);
}

static void name_part(char *ret, size_t cap, uint64_t shard, uint64_t replica_id, uint64_t index, const char *part)
{
    snprintf(ret, cap, SIM_IMAGES "/%020" PRIu64 "-%020" PRIu64 "/snapshot-%016" PRIx64 "/%s", shard, replica_id, index, part);
}

static bool is_safe(const struct sim_host *h, uint64_t shard, uint64_t replica_id, uint64_t index, const char *part)
{
    char path[256];

    name_part(path, sizeof path, shard, replica_id, index, part);
    return memory_files_is_durable(h->files, path);
}

static void check_image(const struct sim_host *h, uint64_t shard, uint64_t index)
{
    static const char *const parts[] = {"image", "record"};
    char path[256];

    for (int i = 0; i < 2; i++)
        if (!is_safe(h, shard, h->replica[shard], index, parts[i]))
            sim_fail("shard %" PRIu64 ": host %u has a snapshot of index %" PRIu64 ", but its %s is not safe on the disk", shard,
                     h->id + 1, index, parts[i]);
    name_part(path, sizeof path, shard, h->replica[shard], index, "image");
    if (sim.options.padding < PADDING_READ || sim_below(8) == 0) /* large ones take long */
        check_content(h, shard, path, index);
}

/* ---- the newest one ---- */

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
    uint64_t shard = 0;
    size_t size_bytes;
    char name[256];

    sscanf(path, SIM_EXPORTS "/%" SCNu64, &shard);
    snprintf(name, sizeof name, "%s/record", path);
    if (!memory_files_peek(h->files, name, &size_bytes))
        sim_fail("host %u: %s is missing", h->id + 1, name);
    snprintf(name, sizeof name, "%s/image", path);
    if (!memory_files_peek(h->files, name, &size_bytes))
        sim_fail("host %u: %s is missing", h->id + 1, name);
    check_content(h, shard, name, index);
}

/* ---- arrivals ---- */

void images_check_arrival(uint64_t shard, uint64_t replica_id, uint64_t index)
{
    const struct sim_host *h = sim.hosts[sim_host_of(replica_id)];
    struct engine_replica_status status = {0};
    struct nh_snapshot newest_there = {0};
    bool arrived;

    if (!h->up || !h->running[shard] || h->replica[shard] != replica_id)
        return;
    if (h->received_before[shard] == index) /* it had, and crashed before its record was saved: to be cleaned, and sent again */
        return;
    memory_disk_read_snapshot(h->disk, shard, replica_id, &newest_there, NULL);
    engine_get_status(h->engine, shard, &status, NULL);
    arrived = newest_there.index >= index || status.applied_index >= index || is_safe(h, shard, replica_id, index, "image");
    nh_snapshot_deinit(&newest_there);
    if (!arrived)
        sim_fail("shard %" PRIu64 ": the sender hears that snapshot %" PRIu64 " has arrived at replica %" PRIu64
                 ", and it has not",
                 shard, index, replica_id);
}
