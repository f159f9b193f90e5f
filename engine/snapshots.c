/* What the apply worker does about snapshots: lending the machine, and when. */
#include "engine/snapshots.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_private.h"
#include "engine/snapshot_stream.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"

#define LOG_COMPONENT "snapshot"

void snapshot_request_end(const struct request *request, int code, uint64_t index, const char *text)
{
    struct nh_outcome outcome = {.code = code, .index = index, .data = text, .size_bytes = text ? strlen(text) : 0};

    if (request->fn)
        request->fn(request->ctx, &outcome);
}

/* ---- lending ---- */

static struct snapshot_job *job_new(struct replica *r, enum pool_priority priority)
{
    struct snapshot_job *job = xcalloc(1, sizeof *job);

    job->base.priority = priority;
    job->base.stop = &r->snapshot_stop;
    job->replica = replica_ref(r);
    return job;
}

static bool is_parked(const struct replica *r, enum apply_item_type type)
{
    for (struct queue_node *node = r->parked.first; node; node = node->next)
        if (container_of(node, struct apply_item, node)->type == type)
            return true;
    return false;
}

static void lend(struct replica *r, enum machine_lent how, struct snapshot_job *job)
{
    assert(r->lent == LENT_NOT);
    r->lent = how;
    __atomic_store_n(&r->snapshot_stop, is_parked(r, APPLY_CLOSE), __ATOMIC_RELAXED);
    snapshot_job_post(job);
}

static bool may_go_on(const struct replica *r, enum apply_item_type type)
{
    switch (type) {
    case APPLY_READS: return r->lent != LENT_ALONE;
    case APPLY_ENTRIES:
    case APPLY_STREAM: return r->lent == LENT_NOT || r->lent == LENT_BESIDE;
    case APPLY_SAVE: return r->lent == LENT_NOT || r->lent == LENT_BESIDE || r->saving; /* then it is refused at once */
    case APPLY_RECOVER: return r->lent == LENT_NOT && !r->saving && r->n_streams == 0;
    case APPLY_CLOSE: return r->lent == LENT_NOT && !r->saving && r->n_streams == 0 && r->streams_ended;
    case APPLY_OPEN:
    case APPLY_RETURNED:
    case APPLY_STREAM_ENDED: return true;
    }
    return true;
}

/* Who ends them may have to wait for the network: meanwhile the machine is as if lent, and the apply worker goes on. */
static void end_streams(struct replica *r, bool closing)
{
    r->lent = LENT_ALONE;
    r->streams_ended = closing;
    snapshots_end_streams(r, closing);
}

void snapshots_hurry(struct replica *r, const struct apply_item *item)
{
    if (item->type == APPLY_CLOSE || (item->type == APPLY_RECOVER && r->lent != LENT_ALONE))
        __atomic_store_n(&r->snapshot_stop, true, __ATOMIC_RELAXED);
}

bool snapshots_hold(struct replica *r, const struct apply_item *item)
{
    if (may_go_on(r, item->type))
        return false;
    snapshots_hurry(r, item);
    if (r->lent == LENT_NOT && !r->saving) /* only streams are in the way */
        end_streams(r, item->type == APPLY_CLOSE);
    return true;
}

/* ---- making one ---- */

/* Shards that were started together are not to save together. */
static uint64_t due_after(const struct replica *r, uint64_t index)
{
    uint64_t spread = r->snapshot_entries / 2;

    if (r->snapshot_entries == ENGINE_NEVER)
        return ENGINE_NEVER;
    return index + r->snapshot_entries - spread / 2 + hash_u64(r->shard_id ^ hash_u64(index)) % (spread + 1);
}

/* A save would hold them up. */
static bool is_awaited(const struct replica *r)
{
    return is_parked(r, APPLY_RECOVER) || is_parked(r, APPLY_CLOSE);
}

static int refuse(struct replica *r, bool is_export, struct nh_error *err)
{
    uint64_t newest = replica_snapshot_index(r);

    if (!r->has_place)
        return nh_error_set(err, NH_EUNSUPPORTED, "this host has no place for snapshots");
    if (rsm_can_snapshot(r->rsm, err) < 0)
        return NH_EUNSUPPORTED;
    if (r->saving)
        return nh_error_set(err, NH_EBUSY, "a snapshot of this shard is being made");
    if (is_awaited(r))
        return nh_error_set(err, NH_EBUSY, "the replica is about to take over a snapshot or to stop");
    if (!is_export && rsm_applied(r->rsm) <= newest)
        return nh_error_set(err, NH_EEXIST, "nothing was applied since the snapshot at index %" PRIu64, newest);
    return NH_OK;
}

static int begin(struct replica *r, struct snapshot_job *job, struct nh_error *err)
{
    bool on_disk = rsm_is_of_kind(r->rsm, NH_MACHINE_ON_DISK), with_data = !on_disk || job->is_export;
    int rc = refuse(r, job->is_export, err);

    if (rc == NH_OK)
        rc = rsm_capture(r->rsm, with_data, &job->moment, err);
    if (rc == NH_OK && job->is_export && job->moment.record.witness) {
        rsm_release(r->rsm, &job->moment);
        rc = nh_error_set(err, NH_EUNSUPPORTED, "a witness has no data to export");
    }
    if (rc < 0)
        return rc;
    r->saving = true;
    r->bytes_applied = 0;
    r->snapshot_due = due_after(r, job->moment.record.index);
    lend(r, rsm_save_excludes_updates(r->rsm, with_data) ? LENT_READING : LENT_BESIDE, job);
    return NH_OK;
}

static void job_discard(struct snapshot_job *job)
{
    replica_unref(job->replica);
    free(job->export_dir);
    free(job);
}

bool snapshots_fall_due(const struct replica *r, uint64_t index, size_t bytes)
{
    return r->has_snapshots && (index >= r->snapshot_due || r->bytes_applied + bytes >= r->snapshot_bytes);
}

static void begin_if_due(struct replica *r)
{
    uint64_t applied = rsm_applied(r->rsm);
    struct snapshot_job *job;
    struct nh_error err;

    if (r->saving || r->lent != LENT_NOT || !snapshots_fall_due(r, applied, 0) || is_awaited(r))
        return;
    job = job_new(r, POOL_SAVE);
    job->is_save = true;
    job->overhead = r->compaction_overhead;
    if (begin(r, job, &err) == NH_OK)
        return;
    LOG_WARN("shard %" PRIu64 " replica %" PRIu64 ": no snapshot at index %" PRIu64 ": %s", r->shard_id, r->replica_id, applied,
             err.text);
    r->snapshot_due = applied + SNAPSHOT_RETRY_ENTRIES;
    r->bytes_applied = 0;
    job_discard(job);
}

void snapshots_applied(struct replica *r, size_t bytes)
{
    r->bytes_applied += bytes;
    begin_if_due(r);
}

void snapshots_save(struct replica *r, struct apply_item *item)
{
    struct snapshot_job *job = job_new(r, POOL_SAVE);
    struct nh_error err;

    job->is_save = true;
    job->is_export = item->snapshot->export_dir != NULL;
    job->export_dir = item->snapshot->export_dir;
    item->snapshot->export_dir = NULL;
    job->request = item->snapshot->request;
    job->overhead = item->snapshot->overhead == ENGINE_NEVER ? r->compaction_overhead : item->snapshot->overhead;
    if (begin(r, job, &err) == NH_OK)
        return;
    snapshot_request_end(&job->request, NH_REQUEST_REJECTED, 0, err.text);
    if (!job->request.fn)
        replica_post_note(r, &(struct snapshot_note){.type = NOTE_FAILED});
    job_discard(job);
}

/* ---- it comes back ---- */

void snapshots_returned(struct replica *r, struct apply_item *item)
{
    struct queue none = {0};

    if (item->snapshot->machine_back)
        r->lent = LENT_NOT;
    if (item->snapshot->save_ended) {
        r->saving = false;
        snapshot_request_end(&item->snapshot->request, item->snapshot->code, item->last, item->snapshot->text);
        if (queue_empty(&r->parked) && engine_is_running(r->engine)) /* what waits still is a close or a recovery */
            begin_if_due(r);
    }
    if (item->snapshot->failure) {
        apply_worker_fail(r, item->snapshot->failure);
        return;
    }
    if (!item->snapshot->recovered)
        return;
    r->bytes_applied = 0;
    replica_post_applied(r, rsm_applied(r->rsm), &none, NULL);
    apply_worker_announce(r);
}

/* ---- taking one over ---- */

/* Takes the record, not the struct. */
static void recover(struct replica *r, struct nh_snapshot *record, bool received)
{
    struct snapshot_job *job = job_new(r, POOL_RECOVER);

    job->record = *record;
    *record = (struct nh_snapshot){0};
    job->received = received;
    lend(r, LENT_ALONE, job);
}

void snapshots_opened(struct replica *r)
{
    struct nh_snapshot *boot = r->boot_snapshot;

    r->boot_snapshot = NULL;
    r->snapshot_due = due_after(r, boot ? boot->index : 0);
    if (boot)
        recover(r, boot, false);
    free(boot);
}

void snapshots_recover(struct replica *r, struct apply_item *item)
{
    recover(r, item->snapshot->record, true);
}

/* ---- images on the fly ---- */

struct stream_ctx {
    struct replica *replica; /* a reference */
    struct rsm_moment moment;
};

/* Thread: a producer's. */
static int produce(void *arg, const struct image_sink *sink, const volatile bool *stop, struct nh_error *err)
{
    struct stream_ctx *ctx = arg;
    uint64_t size = 0;

    return rsm_save(ctx->replica->rsm, &ctx->moment, ctx->replica->compression, sink, stop, &size, err);
}

static void release(void *arg)
{
    struct stream_ctx *ctx = arg;
    struct replica *r = ctx->replica;

    rsm_release(r->rsm, &ctx->moment);
    apply_worker_post(r->apply, apply_item_new(APPLY_STREAM_ENDED, r)); /* with our reference */
    free(ctx);
}

static void fail_stream(struct replica *r, uint64_t to, const struct nh_error *err)
{
    LOG_WARN("shard %" PRIu64 " replica %" PRIu64 ": no image for replica %" PRIu64 ": %s", r->shard_id, r->replica_id, to,
             err->text);
    replica_post_note(r, &(struct snapshot_note){.type = NOTE_STATUS, .peer = to, .failed = true});
}

void snapshots_stream(struct replica *r, struct apply_item *item)
{
    struct stream_ctx *ctx = xcalloc(1, sizeof *ctx);
    struct stream_producer producer = {produce, release, ctx};
    struct nh_error err;

    if (rsm_capture(r->rsm, true, &ctx->moment, &err) < 0) {
        fail_stream(r, item->snapshot->install->to, &err);
        free(ctx);
        return;
    }
    ctx->replica = replica_ref(r);
    r->n_streams++;
    nh_snapshot_deinit(item->snapshot->install->snapshot);
    nh_snapshot_copy(item->snapshot->install->snapshot, &ctx->moment.record);
    snapshots_stream_to(r, item->snapshot->address, item->snapshot->install, &producer);
}
