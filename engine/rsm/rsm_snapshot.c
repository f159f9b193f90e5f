/* The snapshot side of an rsm: capturing a moment, writing it as an image, taking it over from one. */
#include "engine/rsm/rsm_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define COPY_BYTES (64u * 1024u)

bool rsm_is_of_kind(const struct rsm *s, enum nh_machine_kind kind)
{
    return s->config.machine->kind == kind;
}

int rsm_can_snapshot(const struct rsm *s, struct nh_error *err)
{
    const struct nh_machine_ops *m = s->config.machine;
    const char *lacks = NULL;

    if (!m->save_snapshot)
        lacks = "save_snapshot";
    else if (!m->recover)
        lacks = "recover";
    else if (!rsm_is_regular(s) && !m->prepare_snapshot)
        lacks = "prepare_snapshot";
    else if (m->prepare_snapshot && !m->release_snapshot)
        lacks = "release_snapshot";
    else if (rsm_is_on_disk(s) && !m->sync)
        lacks = "sync";
    else if (m->save_files && !m->recover_files)
        lacks = "recover_files";
    return lacks ? nh_error_set(err, NH_EUNSUPPORTED, "machine %s has no %s", m->name, lacks) : NH_OK;
}

bool rsm_save_excludes_updates(const struct rsm *s, bool with_data)
{
    /* An on-disk machine without data is synced, which must not be beside an update. */
    return rsm_is_regular(s) || (rsm_is_on_disk(s) && !with_data);
}

/* ---- capture ---- */

static int prepare(struct rsm *s, struct rsm_moment *m, struct nh_error *err)
{
    int r;

    if (!s->config.machine->prepare_snapshot)
        return NH_OK;
    rsm_enter_machine();
    r = plugin_status(s->config.machine->prepare_snapshot(s->machine, &m->machine_ctx, err), "prepare_snapshot", err);
    rsm_leave_machine();
    m->has_ctx = r == NH_OK;
    return r < 0 ? nh_error_wrap(err, r, "machine %s: prepare snapshot", s->config.machine->name) : NH_OK;
}

int rsm_capture(struct rsm *s, bool with_data, struct rsm_moment *ret, struct nh_error *err)
{
    int r = NH_OK;

    *ret = (struct rsm_moment){0};
    if (s->state != RSM_OPEN) /* only this thread changes it while the machine is not lent */
        return nh_error_set(err, NH_EQUARANTINED, "the machine is not open");
    if (s->applied == 0)
        return nh_error_set(err, NH_ENOTREADY, "nothing is applied yet");
    if (with_data && s->machine_applied > s->applied) /* what it writes would be of a later state than record and sessions */
        return nh_error_set(err, NH_ENOTREADY, "the machine is ahead of what is applied");
    ret->record.witness = s->is_witness; /* only this thread changes it */
    if (with_data && !ret->record.witness)
        r = prepare(s, ret, err);
    if (r < 0)
        return r;
    ret->record.shard_id = s->config.shard_id;
    ret->record.index = s->applied;
    ret->record.term = s->applied_term;
    ret->record.dummy = !with_data || ret->record.witness;
    ret->record.on_disk_index = s->machine_applied; /* it never sees what else is in the log, and cannot tell its index */
    rsm_copy_membership(s, &ret->record.membership);
    ret->sessions = sessions_encode(s->sessions, &ret->sessions_bytes);
    return NH_OK;
}

void rsm_release(struct rsm *s, struct rsm_moment *m)
{
    if (m->has_ctx)
        s->config.machine->release_snapshot(s->machine, m->machine_ctx);
    nh_snapshot_deinit(&m->record);
    free(m->sessions);
    *m = (struct rsm_moment){0};
}

static int sync_machine(struct rsm *s, struct nh_error *err)
{
    int r;

    assert(rsm_is_on_disk(s));
    rsm_enter_machine();
    r = plugin_status(s->config.machine->sync(s->machine, err), "sync", err);
    rsm_leave_machine();
    return r < 0 ? nh_error_wrap(err, r, "machine %s: sync", s->config.machine->name) : NH_OK;
}

int rsm_sync(struct rsm *s, struct nh_error *err)
{
    int r = sync_machine(s, err);

    if (r < 0)
        rsm_fail(s);
    return r;
}

/* ---- saving ---- */

struct saving {
    struct rsm *rsm;
    struct image_writer *writer;
    const volatile bool *stop;
    struct nh_error *err; /* of a failure that the machine only passes on */
    int code;             /* that failure; NH_OK: none */
};

static int note(struct saving *v, int code)
{
    if (code < 0 && v->code == NH_OK)
        v->code = code;
    return code;
}

static int write_data(void *ctx, const void *data, size_t size_bytes)
{
    struct saving *v = ctx;

    if (__atomic_load_n(v->stop, __ATOMIC_RELAXED))
        return note(v, nh_error_set(v->err, NH_ECLOSED, "the snapshot was given up"));
    return note(v, image_write_data(v->writer, data, size_bytes, v->err));
}

static int copy_file(struct saving *v, struct file *f, uint64_t size_bytes)
{
    const struct files_ops *ops = v->rsm->config.files->ops;
    uint8_t *buffer = xmalloc(COPY_BYTES);
    int r = NH_OK;

    for (uint64_t at = 0; at < size_bytes && r == NH_OK;) {
        uint64_t want = size_bytes - at < COPY_BYTES ? size_bytes - at : COPY_BYTES;
        int64_t n = ops->read_at(f, at, buffer, want, v->err);

        if (n == 0)
            r = nh_error_set(v->err, NH_EIO, "a file became shorter while it was copied");
        else
            r = n < 0 ? (int)n : image_write_file_data(v->writer, buffer, (size_t)n, v->err);
        at += n > 0 ? (uint64_t)n : 0;
    }
    free(buffer);
    return r;
}

static int add_file(void *ctx, uint64_t file_id, const char *path, const void *meta, size_t meta_bytes)
{
    struct saving *v = ctx;
    const struct files_ops *ops = v->rsm->config.files->ops;
    struct file *f = NULL;
    uint64_t size_bytes = 0;
    int r = ops->open(v->rsm->config.files, path, &f, &size_bytes, v->err);

    if (r == NH_OK)
        r = image_write_file(v->writer, file_id, meta, meta_bytes, size_bytes, v->err);
    if (r == NH_OK)
        r = copy_file(v, f, size_bytes);
    ops->close(f, NULL);
    return note(v, r);
}

static int save_machine(struct saving *v, const struct rsm_moment *m, struct nh_error *err)
{
    struct rsm *s = v->rsm;
    struct nh_writer out = {.write = write_data, .ctx = v};
    struct nh_file_sink files = {.add = add_file, .ctx = v};
    int r = image_write_data(v->writer, NULL, 0, err); /* the section is there even if the machine writes nothing */

    if (r < 0)
        return r;
    rsm_enter_machine();
    r = plugin_status(s->config.machine->save_snapshot(s->machine, m->machine_ctx, &out, v->stop, err), "save_snapshot", err);
    if (r == NH_OK && v->code == NH_OK && s->config.machine->save_files)
        r = plugin_status(s->config.machine->save_files(s->machine, m->machine_ctx, &files, err), "save_files", err);
    rsm_leave_machine();
    if (v->code < 0) { /* also if the machine swallowed it */
        if (err)
            *err = *v->err;
        return v->code;
    }
    return r < 0 ? nh_error_wrap(err, r, "machine %s: save snapshot", s->config.machine->name) : NH_OK;
}

static void fill_head(const struct rsm *s, const struct rsm_moment *m, uint32_t compression, struct image_head *head)
{
    *head = (struct image_head){.record = m->record, .compression = compression}; /* borrows the record's parts */
    strncpy(head->machine_name, s->config.machine->name, sizeof head->machine_name - 1);
    strncpy(head->machine_version, s->config.machine->version ? s->config.machine->version : "",
            sizeof head->machine_version - 1);
}

int rsm_save(struct rsm *s, const struct rsm_moment *m, uint32_t compression, const struct image_sink *sink,
             const volatile bool *stop, uint64_t *ret_size, struct nh_error *err)
{
    struct nh_error cause = {0};
    struct saving v = {.rsm = s, .stop = stop, .err = &cause};
    struct image_head head;
    int r;

    fill_head(s, m, compression, &head);
    r = image_writer_new(sink, &head, &v.writer, err);
    if (r == NH_OK)
        r = image_write_sessions(v.writer, m->sessions, m->sessions_bytes, err);
    if (r == NH_OK && !m->record.dummy)
        r = save_machine(&v, m, err);
    if (r == NH_OK)
        r = image_writer_finish(v.writer, ret_size, err);
    image_writer_free(v.writer);
    return r;
}

/* ---- recovering: nobody else enters from the first byte to the new applied index, so that nobody is answered from anything
 * between the old state and the new one. The lock is not held so long: who asks may have others to serve, and is told ---- */

struct recovering {
    struct rsm *rsm;
    const char *scratch_dir;
    struct image_reader *reader;
    const volatile bool *stop;
    bool wants_data;
    struct sessions *sessions; /* NULL: not seen yet */
    bool has_data;
    struct nh_snapshot_file files[NH_SNAPSHOT_FILES_MAX];
    size_t n_files;
    struct nh_error cause; /* of a read that failed inside the machine */
    int code;
};

static int64_t read_section(void *ctx, void *data, size_t cap_bytes, struct nh_error *err)
{
    return image_reader_read(ctx, data, cap_bytes, err);
}

static int read_sessions(struct recovering *v, struct nh_error *err)
{
    const struct image_source source = {read_section, v->reader};

    return sessions_decode(&source, SESSIONS_KEPT_BYTES_MAX, &v->sessions, err);
}

static void replace_sessions(struct recovering *v)
{
    sessions_free(v->rsm->sessions);
    __atomic_store_n(&v->rsm->sessions, v->sessions, __ATOMIC_RELAXED); /* rsm_prefetch_machine looks at it */
    v->sessions = NULL;
}

static int64_t read_data(void *ctx, void *data, size_t cap_bytes)
{
    struct recovering *v = ctx;
    int64_t n;

    if (v->code < 0)
        return v->code;
    n = __atomic_load_n(v->stop, __ATOMIC_RELAXED) ? nh_error_set(&v->cause, NH_ECLOSED, "the recovery was given up")
                                                   : image_reader_read(v->reader, data, cap_bytes, &v->cause);
    if (n < 0)
        v->code = (int)n;
    return n;
}

static int recover_data(struct recovering *v, struct nh_error *err)
{
    struct rsm *s = v->rsm;
    struct nh_reader in = {.read = read_data, .ctx = v};
    int r;

    if (!s->config.machine->recover)
        return nh_error_set(err, NH_EUNSUPPORTED,
                            "machine %s has no recover: the image was made by a build of it that has; use one again",
                            s->config.machine->name);
    rsm_enter_machine();
    r = plugin_status(s->config.machine->recover(s->machine, &in, v->stop, err), "recover", err);
    rsm_leave_machine();
    if (v->code < 0) {
        if (err)
            *err = v->cause;
        return v->code;
    }
    return r < 0 ? nh_error_wrap(err, r, "machine %s: recover", s->config.machine->name) : NH_OK;
}

/* ---- extra files: put into the scratch directory for the machine ---- */

static int put_file(struct recovering *v, const char *path, struct nh_error *err)
{
    const struct files_ops *ops = v->rsm->config.files->ops;
    uint8_t *buffer = xmalloc(COPY_BYTES);
    struct file *f = NULL;
    int64_t n = 1;
    int r = ops->create(v->rsm->config.files, path, &f, err), closed;

    while (r == NH_OK && (n = image_reader_read(v->reader, buffer, COPY_BYTES, err)) > 0)
        r = ops->write(f, buffer, (size_t)n, err);
    if (r == NH_OK && n < 0)
        r = (int)n;
    closed = ops->close(f, r == NH_OK ? err : NULL);
    free(buffer);
    return r == NH_OK ? closed : r;
}

static int make_scratch_dir(struct recovering *v, struct nh_error *err)
{
    struct files *files = v->rsm->config.files;
    int r = files->ops->remove(files, v->scratch_dir, err);

    return r < 0 ? r : files->ops->make_dir(files, v->scratch_dir, err);
}

static int read_file(struct recovering *v, struct nh_error *err)
{
    struct image_file_info info;
    char path[FILES_PATH_BYTES];
    void *meta;
    int r = NH_OK;

    if (!v->rsm->config.files || v->n_files >= NH_SNAPSHOT_FILES_MAX)
        return nh_error_set(err, NH_EUNSUPPORTED, "the image has extra files that cannot be taken here");
    if (v->n_files == 0)
        r = make_scratch_dir(v, err);
    if (r == NH_OK)
        r = files_path(path, err, "%s/file-%zu", v->scratch_dir, v->n_files);
    if (r < 0)
        return r;
    image_reader_file(v->reader, &info);
    meta = xmemdup(info.meta, info.meta_bytes); /* the reader's own is gone after the first read */
    v->files[v->n_files++] = (struct nh_snapshot_file){info.file_id, xstrdup(path), meta, info.meta_bytes};
    return put_file(v, path, err);
}

static int recover_files(struct recovering *v, struct nh_error *err)
{
    struct rsm *s = v->rsm;
    int r = NH_OK;

    if (v->n_files == 0 || !v->wants_data)
        return NH_OK;
    rsm_enter_machine();
    r = plugin_status(s->config.machine->recover_files(s->machine, v->files, v->n_files, err), "recover_files", err);
    rsm_leave_machine();
    return r < 0 ? nh_error_wrap(err, r, "machine %s: recover files", s->config.machine->name) : NH_OK;
}

static void drop_files(struct recovering *v)
{
    struct files *files = v->rsm->config.files;

    for (size_t i = 0; i < v->n_files; i++) {
        free((void *)(size_t)v->files[i].path);
        free((void *)(size_t)v->files[i].meta);
    }
    if (v->n_files > 0)
        files->ops->remove(files, v->scratch_dir, NULL);
}

/* ---- the whole of it ---- */

/* One pass over the sections. The machine's data may come before files are known: with files the image is read twice. */
static int read_sections(struct recovering *v, bool files_only, struct nh_error *err)
{
    int section;

    while ((section = image_reader_next(v->reader, err)) != IMAGE_END) {
        int r = NH_OK;

        if (section < 0)
            return section;
        if (section == IMAGE_FILE && files_only)
            r = read_file(v, err);
        if (section == IMAGE_FILE && !v->rsm->config.machine->recover_files)
            r = nh_error_set(err, NH_EUNSUPPORTED, "machine %s has no recover_files, and the image has extra files",
                             v->rsm->config.machine->name);
        if (section == IMAGE_SESSIONS && !files_only)
            r = read_sessions(v, err);
        if (section == IMAGE_DATA && !files_only) {
            v->has_data = true;
            r = v->wants_data ? recover_data(v, err) : NH_OK;
        }
        if (r < 0)
            return r;
    }
    return NH_OK;
}

static int check_head(const struct rsm *s, const struct image_head *h, const struct nh_snapshot *record, struct nh_error *err)
{
    const char *version = s->config.machine->version ? s->config.machine->version : "";

    if (h->record.shard_id != s->config.shard_id || h->record.index != record->index || h->record.term != record->term)
        return nh_error_set(err, NH_ECORRUPT,
                            "the image is of shard %" PRIu64 ", index %" PRIu64 ", term %" PRIu64
                            "; its record says index %" PRIu64 ", term %" PRIu64,
                            h->record.shard_id, h->record.index, h->record.term, record->index, record->term);
    if (strcmp(h->machine_name, s->config.machine->name) != 0)
        return nh_error_set(err, NH_EMISMATCH, "the image was made by machine \"%s\" %s, this replica has \"%s\" %s",
                            h->machine_name, h->machine_version, s->config.machine->name, version);
    return NH_OK;
}

static int check_data(const struct rsm *s, const struct recovering *v, const struct nh_snapshot *record, struct nh_error *err)
{
    if (!v->sessions)
        return nh_error_set(err, NH_ECORRUPT, "the image has no sessions");
    if (v->has_data || !v->wants_data)
        return NH_OK;
    if (!rsm_is_on_disk(s))
        return nh_error_set(err, NH_ECORRUPT, "the image has no data of machine %s", s->config.machine->name);
    return nh_error_set(err, NH_EMISMATCH,
                        "machine %s holds entry %" PRIu64 ", the snapshot at index %" PRIu64 " needs %" PRIu64
                        ": the machine has lost data; remove the data of this replica and let it join anew",
                        s->config.machine->name, s->machine_applied, record->index, record->on_disk_index);
}

static int recover_image(struct rsm *s, const struct nh_snapshot *record, const struct image_source *source,
                         const volatile bool *stop, struct nh_error *err)
{
    struct recovering v = {.rsm = s,
                           .stop = stop,
                           .wants_data = !(rsm_is_on_disk(s) && s->machine_applied >= record->on_disk_index)};
    struct image_head head = {0};
    int r = image_reader_new(source, &head, &v.reader, err);

    if (r == NH_OK)
        r = check_head(s, &head, record, err);
    if (r == NH_OK)
        r = read_sections(&v, false, err);
    if (r == NH_OK)
        r = check_data(s, &v, record, err);
    if (r == NH_OK)
        replace_sessions(&v);
    if (r == NH_OK && v.wants_data && rsm_is_on_disk(s)) {
        r = sync_machine(s, err);
        s->machine_applied = record->on_disk_index;
    }
    image_reader_free(v.reader);
    image_head_deinit(&head);
    sessions_free(v.sessions);
    return r;
}

/* Extra files lie behind the data, and the machine wants them before it: a pass of their own, only if it takes any. */
static int recover_extra_files(struct rsm *s, const struct rsm_image *image, const volatile bool *stop, struct nh_error *err)
{
    struct recovering v = {.rsm = s, .scratch_dir = image->scratch_dir, .stop = stop, .wants_data = true};
    struct image_source source;
    struct image_head head = {0};
    int r;

    image->rewind(image->ctx, &source);
    r = image_reader_new(&source, &head, &v.reader, err);
    if (r == NH_OK)
        r = read_sections(&v, true, err);
    if (r == NH_OK)
        r = recover_files(&v, err);
    drop_files(&v);
    image_reader_free(v.reader);
    image_head_deinit(&head);
    return r;
}

void rsm_give_up(struct rsm *s)
{
    rsm_fail(s);
}

/* Waits for who is inside, and keeps others out. */
static void begin_recovery(struct rsm *s)
{
    pthread_rwlock_wrlock(&s->lock);
    s->recovering = true;
    pthread_rwlock_unlock(&s->lock);
}

static void end_recovery(struct rsm *s, const struct nh_snapshot *record, bool failed)
{
    pthread_rwlock_wrlock(&s->lock);
    s->recovering = false;
    if (failed) {
        s->state = RSM_FAILED;
    } else {
        rsm_set_membership(s, &record->membership, record->witness);
        rsm_set_applied(s, record->index, record->term);
    }
    pthread_rwlock_unlock(&s->lock);
}

static int recover_alone(struct rsm *s, const struct nh_snapshot *record, const struct rsm_image *image,
                         const volatile bool *stop, struct nh_error *err)
{
    struct image_source source;
    int r = NH_OK;

    if (image && s->config.machine->recover_files)
        r = recover_extra_files(s, image, stop, err);
    if (image && r == NH_OK) {
        image->rewind(image->ctx, &source);
        r = recover_image(s, record, &source, stop, err);
    }
    return r;
}

int rsm_recover(struct rsm *s, const struct nh_snapshot *record, const struct rsm_image *image, const volatile bool *stop,
                struct nh_error *err)
{
    int r;

    if (s->state != RSM_OPEN)
        return nh_error_set(err, NH_EQUARANTINED, "the machine is not open");
    begin_recovery(s);
    r = recover_alone(s, record, image, stop, err);
    end_recovery(s, record, r < 0);
    return r;
}
