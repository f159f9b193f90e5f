/* What runs on the snapshot pool: making an image and all that follows from it, recovering a machine. */
#include "engine/snapshots.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine_private.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define LOG_COMPONENT "snapshot"
/* Left free on the disk, whatever a snapshot needs. */
#define SPARE_BYTES (16u << 20)

static struct snapshot_job *job_of(struct pool_job *base)
{
    return container_of(base, struct snapshot_job, base);
}

static void job_free(struct snapshot_job *job)
{
    replica_unref(job->replica);
    nh_snapshot_deinit(&job->record);
    free(job->export_dir);
    free(job);
}

static void post_machine(struct replica *r, bool recovered, const char *failure)
{
    struct apply_item *item = apply_item_new(APPLY_RETURNED, replica_ref(r));

    item->snapshot->machine_back = true;
    item->snapshot->recovered = recovered;
    item->snapshot->failure = xstrdup(failure);
    apply_worker_post(r->apply, item);
}

/* The request ends there, when the next one may begin. */
static void post_save_ended(struct snapshot_job *job, int code, const char *text)
{
    struct apply_item *item = apply_item_new(APPLY_RETURNED, replica_ref(job->replica));

    item->snapshot->save_ended = true;
    item->snapshot->request = job->request;
    item->snapshot->code = code;
    item->last = code == NH_REQUEST_COMPLETED ? job->record.index : 0;
    item->snapshot->text = xstrdup(text);
    apply_worker_post(job->replica->apply, item);
}

/* ---- making an image ---- */

static int write_image(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    return snapshot_temp_write(ctx, data, size_bytes, err);
}

static int check_space(const struct snapshot_job *job, const struct snapshot_dir *dir, struct nh_error *err)
{
    const struct files_ops *ops = dir->files->ops;
    uint64_t space = 0, needed = job->replica->image_bytes + job->replica->image_bytes / 8 + SPARE_BYTES;
    int r = ops->space(dir->files, dir->path, &space, NULL, err);

    if (r == NH_OK && space < needed)
        return nh_error_set(err, NH_ENOSPC, "%s: %" PRIu64 " bytes are free there, the last image and a reserve need %" PRIu64,
                            dir->path, space, needed);
    return r;
}

/* Until the machine is not needed any more. *ret_fatal: the machine itself failed. */
static int save_machine(struct snapshot_job *job, struct snapshot_temp *temp, uint64_t *ret_size, bool *ret_fatal,
                        struct nh_error *err)
{
    struct replica *r = job->replica;
    struct image_sink sink = {.write = write_image, .ctx = temp};
    int rc = NH_OK;

    if (job->moment.record.dummy && rsm_is_of_kind(r->rsm, NH_MACHINE_ON_DISK)) {
        rc = rsm_sync(r->rsm, err);
        *ret_fatal = rc < 0;
    }
    if (rc == NH_OK)
        rc = rsm_save(r->rsm, &job->moment, r->compression, &sink, &r->snapshot_stop, ret_size, err);
    return rc;
}

/* Once in each life is enough. An export's directory is its owner's to make. */
static int make_dir(struct snapshot_job *job, struct snapshot_dir *dir, struct nh_error *err)
{
    int rc;

    if (job->is_export || job->replica->has_dir)
        return NH_OK;
    rc = snapshot_dir_make(dir, err);
    job->replica->has_dir = rc == NH_OK;
    return rc;
}

static int make_image(struct snapshot_job *job, struct snapshot_dir *dir, struct snapshot_temp *temp, bool *ret_fatal,
                      struct nh_error *err)
{
    uint64_t size = 0;
    int rc = make_dir(job, dir, err);

    if (rc == NH_OK)
        rc = check_space(job, dir, err);
    if (rc == NH_OK)
        rc = snapshot_temp_begin(temp, dir, job->moment.record.index, 0, err);
    if (rc == NH_OK)
        rc = save_machine(job, temp, &size, ret_fatal, err);
    job->moment.record.file_size_bytes = size;
    return rc;
}

/* ---- what follows ---- */

/* A write of the log store that failed ends the host; what it cannot read of one replica ends that one. */
static void store_failed(struct replica *r, int code, const char *reason)
{
    if (code == NH_ECORRUPT)
        replica_post_failure(r, reason);
    else
        engine_fence(r->engine, reason);
}

static int save_record(struct replica *r, const struct nh_snapshot *record, struct nh_error *err)
{
    const struct engine_config *c = &r->engine->config;
    struct nh_update u = {.shard_id = r->shard_id, .replica_id = r->replica_id, .must_sync = true, .snapshot = record};
    int rc = plugin_status(c->logdb_ops->save_snapshots(c->logdb, &u, 1, err), "save_snapshots", err);

    if (rc < 0) {
        nh_error_wrap(err, rc, "save its record");
        store_failed(r, rc, err->text);
    }
    return rc;
}

struct compaction {
    struct engine_events events;
    struct nh_snapshot_info info;
};

/* Thread: the log store's. The engine may be gone. */
static void on_compacted(void *ctx)
{
    struct compaction *c = ctx;

    c->events.snapshot_event(c->events.ctx, ENGINE_LOGDB_COMPACTED, &c->info);
    free(c);
}

/* Removes the log behind the snapshot, less the overhead. Returns up to where. */
static uint64_t compact(struct snapshot_job *job)
{
    struct replica *r = job->replica;
    const struct engine_config *c = &r->engine->config;
    uint64_t index = job->record.index > job->overhead ? job->record.index - job->overhead : 0;
    struct compaction *done;
    struct nh_error err = {0};
    int rc;

    if (index == 0 || index <= r->compacted)
        return 0;
    rc = c->logdb_ops->remove_entries_to(c->logdb, r->shard_id, r->replica_id, index, &err);
    rc = plugin_status(rc, "remove_entries_to", &err);
    if (rc < 0) {
        store_failed(r, rc, plugin_reason(&err, rc));
        return 0;
    }
    r->compacted = index;
    snapshots_tell(r, ENGINE_LOG_COMPACTED, 0, index);
    done = xcalloc(1, sizeof *done);
    *done = (struct compaction){c->events, {r->shard_id, r->replica_id, 0, index}};
    rc = c->logdb_ops->compact_entries_to(c->logdb, r->shard_id, r->replica_id, index, on_compacted, done, &err);
    rc = plugin_status(rc, "compact_entries_to", &err);
    if (rc < 0) {
        LOG_WARN("shard %" PRIu64 " replica %" PRIu64 ": space of the log is not given back: %s", r->shard_id, r->replica_id,
                 plugin_reason(&err, rc));
        free(done);
    }
    return index;
}

static void prune(struct replica *r, uint64_t index)
{
    struct snapshot_dir dir;
    struct nh_error err;

    replica_snapshot_dir(r, &dir);
    if (snapshot_dir_prune(&dir, index, r->snapshots_kept, &err) < 0)
        LOG_WARN("shard %" PRIu64 " replica %" PRIu64 ": old images stay: %s", r->shard_id, r->replica_id, err.text);
    else
        snapshots_tell(r, ENGINE_SNAPSHOT_COMPACTED, 0, index);
}

static void finish_save(struct snapshot_job *job)
{
    struct replica *r = job->replica;
    struct snapshot_note note = {.type = NOTE_MADE};

    r->image_bytes = job->record.file_size_bytes;
    replica_set_snapshot_index(r, job->record.index);
    snapshots_tell(r, ENGINE_SNAPSHOT_CREATED, 0, job->record.index);
    failpoint("snapshot_recorded");
    note.compacted = compact(job);
    failpoint("log_compacted");
    nh_snapshot_copy(&note.record, &job->record);
    replica_post_note(r, &note);
    prune(r, job->record.index);
    post_save_ended(job, NH_REQUEST_COMPLETED, NULL);
}

static void finish_export(struct snapshot_job *job, const struct snapshot_dir *dir)
{
    char path[FILES_PATH_BYTES];

    if (snapshot_dir_image(dir, job->record.index, path, NULL) < 0)
        path[0] = 0;
    post_save_ended(job, NH_REQUEST_COMPLETED, path);
}

static void give_up(struct snapshot_job *job, const struct nh_error *err)
{
    struct replica *r = job->replica;

    LOG_WARN("shard %" PRIu64 " replica %" PRIu64 ": the snapshot at index %" PRIu64 " was not made: %s", r->shard_id,
             r->replica_id, job->record.index, err->text);
    r->has_dir = false; /* perhaps it is not any more */
    replica_post_note(r, &(struct snapshot_note){.type = NOTE_FAILED});
    post_save_ended(job, NH_REQUEST_REJECTED, err->text);
}

static int name_dir(const struct snapshot_job *job, struct snapshot_dir *ret, struct nh_error *err)
{
    const struct replica *r = job->replica;

    if (job->is_export)
        return snapshot_dir_name_exports(ret, r->engine->config.files, job->export_dir, r->shard_id, r->replica_id, err);
    replica_snapshot_dir(r, ret);
    return NH_OK;
}

static void run_save(struct pool_job *base)
{
    struct snapshot_job *job = job_of(base);
    struct replica *r = job->replica;
    struct snapshot_dir dir;
    struct snapshot_temp temp = {0};
    bool fatal = false, witness = job->moment.record.witness;
    struct nh_error err = {0};
    int rc = name_dir(job, &dir, &err);

    if (rc == NH_OK && !witness)
        rc = make_image(job, &dir, &temp, &fatal, &err);
    nh_snapshot_copy(&job->record, &job->moment.record);
    rsm_release(r->rsm, &job->moment);
    snapshot_pool_leave(snapshots_pool(r->engine), base);
    post_machine(r, false, fatal ? err.text : NULL);
    if (rc == NH_OK && !witness)
        rc = snapshot_temp_commit(&temp, &job->record, &err);
    if (rc < 0)
        snapshot_temp_abort(&temp);
    if (rc == NH_OK && !job->is_export)
        rc = save_record(r, &job->record, &err);
    if (rc < 0)
        give_up(job, &err);
    else if (job->is_export)
        finish_export(job, &dir);
    else
        finish_save(job);
    job_free(job);
}

/* ---- recovering ---- */

struct open_image {
    struct files *files;
    struct file *file;
    struct file_source source;
};

static void rewind_image(void *ctx, struct image_source *ret)
{
    struct open_image *i = ctx;

    file_source_init(&i->source, i->files, i->file, ret);
}

static int recover_image(struct snapshot_job *job, struct nh_error *err)
{
    struct replica *r = job->replica;
    struct open_image open = {.files = r->engine->config.files};
    struct snapshot_dir dir;
    char scratch[FILES_PATH_BYTES + sizeof "/files"];
    struct rsm_image image = {.rewind = rewind_image, .ctx = &open, .scratch_dir = scratch};
    uint64_t size = 0;
    int rc;

    if (job->record.witness)
        return rsm_recover(r->rsm, &job->record, NULL, &r->snapshot_stop, err);
    if (!open.files)
        return nh_error_set(err, NH_EUNSUPPORTED, "this host has no place for snapshots");
    replica_snapshot_dir(r, &dir);
    snprintf(scratch, sizeof scratch, "%s/files", dir.path);
    rc = snapshot_dir_open(&dir, job->record.index, &open.file, &size, err);
    if (rc == NH_OK)
        rc = rsm_recover(r->rsm, &job->record, &image, &r->snapshot_stop, err);
    if (open.file)
        open.files->ops->close(open.file, NULL);
    r->image_bytes = size;
    return rc;
}

static void run_recover(struct pool_job *base)
{
    struct snapshot_job *job = job_of(base);
    struct replica *r = job->replica;
    struct nh_error err = {0};
    int rc = recover_image(job, &err);

    if (rc < 0)
        rsm_give_up(r->rsm); /* reads that wait are not to be answered from the state that was to be replaced */
    snapshot_pool_leave(snapshots_pool(r->engine), base);
    if (rc < 0)
        nh_error_wrap(&err, rc, "recover the snapshot at index %" PRIu64, job->record.index);
    if (rc == NH_OK) {
        failpoint("snapshot_recovered");
        replica_set_snapshot_index(r, job->record.index);
        snapshots_tell(r, ENGINE_SNAPSHOT_RECOVERED, 0, job->record.index);
        if (job->received && r->has_place)
            prune(r, job->record.index);
    }
    post_machine(r, rc == NH_OK, rc < 0 ? err.text : NULL);
    job_free(job);
}

void snapshot_job_post(struct snapshot_job *job)
{
    switch (job->base.priority) {
    case POOL_RECOVER: job->base.run = run_recover; break;
    case POOL_SAVE: job->base.run = run_save; break;
    }
    snapshot_pool_post(snapshots_pool(job->replica->engine), &job->base);
}
