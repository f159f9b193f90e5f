/* The receiving side of one stream: engine/snapshot_stream.h says what comes, this file what is done with it.
 *
 *     chunk 0 --> OPENING -- admitted, space --> WRITING -- the last chunk, all durable --> VERIFYING
 *                    |                            | |                                        |
 *                    |                            | +- chunk 0 of another image: OPENING     |
 *                    | not wanted, busy, full     |    disk full, I/O error, senseless       | committed and handed over,
 *                    v                            v    chunk, nothing heard for long         v or corrupt, or disk full
 *                   OVER <-------------------------------------------------------------------+
 *
 * OVER: what is unfinished is removed from the disk, and the stream forgotten, unless a chunk 0 waits: who asks again begins
 * again.
 */
#include "engine/snapshot_receiver_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"

#define LOG_COMPONENT "snapshot"
#define MS_NS         1000000ull
/* Verified in one step; a section counts as much as this many bytes. */
#define VERIFY_STEP_BYTES    (4u * STREAM_CHUNK_BYTES)
#define VERIFY_SECTION_BYTES 4096u

/* ---- chunks as they come ---- */

static uint64_t count_of(uint64_t size_bytes)
{
    return 1 + size_bytes / STREAM_CHUNK_BYTES + (size_bytes % STREAM_CHUNK_BYTES != 0);
}

static int check_fields(const struct nh_chunk *c, struct nh_error *err)
{
    if (c->shard_id == NH_NO_SHARD || c->replica_id == NH_NO_REPLICA || c->from == NH_NO_REPLICA || c->from == c->replica_id)
        return nh_error_set(err, NH_ECORRUPT, "no stream has these ids");
    if (c->index == 0 || c->term == 0)
        return nh_error_set(err, NH_ECORRUPT, "no index or term");
    if (c->size_bytes == 0 || c->size_bytes > (c->chunk_id == 0 ? STREAM_HEAD_BYTES_MAX : STREAM_CHUNK_BYTES))
        return nh_error_set(err, NH_ECORRUPT, "%zu bytes in chunk %" PRIu64, c->size_bytes, c->chunk_id);
    if (c->chunk_count != 0 && c->chunk_id >= c->chunk_count)
        return nh_error_set(err, NH_ECORRUPT, "chunk %" PRIu64 " of %" PRIu64, c->chunk_id, c->chunk_count);
    if (c->chunk_count != 0 && c->file_size_bytes != 0 && c->chunk_count != count_of(c->file_size_bytes))
        return nh_error_set(err, NH_ECORRUPT, "%" PRIu64 " chunks of %" PRIu64 " bytes", c->chunk_count, c->file_size_bytes);
    return NH_OK;
}

/* An image without data helps nobody but who made it, and a witness has none. */
static int check_record(const struct nh_chunk *c, const struct nh_snapshot *s, struct nh_error *err)
{
    if (s->shard_id != c->shard_id || s->index != c->index || s->term != c->term || s->file_size_bytes != c->file_size_bytes)
        return nh_error_set(err, NH_ECORRUPT, "the record is of another image than the chunk");
    if (s->dummy || s->witness)
        return nh_error_set(err, NH_ECORRUPT, "a record without an image");
    if (!nh_membership_find(&s->membership, c->replica_id))
        return nh_error_set(err, NH_ECORRUPT, "the record does not list its receiver");
    return NH_OK;
}

static int check_head(const struct nh_chunk *c, const struct nh_message_batch *b, struct nh_error *err)
{
    const struct nh_message *m = b->messages;

    if (b->n_messages != 1 || m->type != NH_MSG_INSTALL_SNAPSHOT || !m->snapshot)
        return nh_error_set(err, NH_ECORRUPT, "chunk 0 is not the one message that belongs there");
    if (b->deployment_id != c->deployment_id || !b->source_address[0])
        return nh_error_set(err, NH_ECORRUPT, "of another deployment, or from nowhere");
    if (m->shard_id != c->shard_id || m->to != c->replica_id || m->from != c->from)
        return nh_error_set(err, NH_ECORRUPT, "the message is of other replicas than the chunk");
    return check_record(c, m->snapshot, err);
}

static int decode_head(struct received_chunk *p, const struct nh_chunk *c, struct nh_error *err)
{
    int r = batch_decode(c->data, c->size_bytes, &p->batch, err);

    if (r < 0)
        p->batch = NULL;
    return r < 0 ? r : check_head(c, p->batch, err);
}

struct received_chunk *received_chunk_new(const struct nh_chunk *chunk, struct nh_error *err)
{
    struct received_chunk *p;

    if (check_fields(chunk, err) < 0)
        return NULL;
    p = xmalloc(sizeof *p + (chunk->chunk_id ? chunk->size_bytes : 0));
    *p = (struct received_chunk){.chunk = *chunk};
    p->chunk.data = p->data;
    if (chunk->chunk_id) {
        memcpy(p->data, chunk->data, chunk->size_bytes);
    } else if (decode_head(p, chunk, err) < 0) {
        received_chunk_free(p);
        return NULL;
    }
    return p;
}

void received_chunk_free(struct received_chunk *p)
{
    if (p)
        batch_free(p->batch);
    free(p);
}

/* ---- answers ---- */

static void answer(struct snapshot_receiver *r, const struct receiving *st, enum snapshot_answer what, bool go_back)
{
    const struct nh_message m = {
        .type = NH_MSG_SNAPSHOT_RECEIVED,
        .reject = go_back,
        .shard_id = st->shard_id,
        .to = st->from,
        .from = st->replica_id,
        .log_index = st->index,
        .hint = what == SNAPSHOT_WANT ? st->durable : 0,
        .hint_high = what,
    };

    r->config.answer(r->config.ctx, st->address, &m);
}

static void want(struct snapshot_receiver *r, const struct receiving *st)
{
    answer(r, st, SNAPSHOT_WANT, false);
}

static void report(const struct receiving *st, const char *what, const struct nh_error *err)
{
    LOG_WARN("shard %" PRIu64 ": image of index %" PRIu64 " from replica %" PRIu64 " %s: %s", st->shard_id, st->index, st->from,
             what, err->text);
}

/* The end without an image: full is another matter than broken. */
static void give_up(struct snapshot_receiver *r, struct receiving *st, int code, const struct nh_error *err)
{
    report(st, code == NH_ENOSPC ? "put off" : "refused", err);
    receiving_drop(r, st);
    answer(r, st, code == NH_ENOSPC ? SNAPSHOT_FULL : SNAPSHOT_REFUSED, false);
    st->state = RECEIVING_OVER;
}

/* ---- space ---- */

static bool fits(uint64_t extra, uint64_t used, uint64_t most)
{
    return extra <= most && used <= most - extra;
}

/* Of this much free space on a disk of this size; the rest is the log store's. */
static uint64_t space_for_images(uint64_t free_bytes, uint64_t whole_bytes)
{
    uint64_t share = whole_bytes / STREAM_SPARE_SHARE, spare = share < STREAM_SPARE_BYTES ? share : STREAM_SPARE_BYTES;

    return free_bytes > spare ? free_bytes - spare : 0;
}

/* Sets aside what is missing to `total` bytes for this stream. Errors: ENOSPC, those of files->space. */
static int reserve(struct snapshot_receiver *r, struct receiving *st, uint64_t total, struct nh_error *err)
{
    uint64_t extra = total - st->reserved_bytes, space = 0, whole = 0;
    struct files *files = r->config.files;
    int code;

    if (r->config.disk_budget_bytes != 0 && !fits(extra, r->reserved_bytes, r->config.disk_budget_bytes))
        return nh_error_set(err, NH_ENOSPC, "%" PRIu64 " bytes are more than the budget allows", total);
    code = files->ops->space(files, st->dir.path, &space, &whole, err);
    if (code < 0)
        return code;
    if (!fits(extra, r->pending_bytes, space_for_images(space, whole)))
        return nh_error_set(err, NH_ENOSPC, "no space for %" PRIu64 " bytes", total);
    st->reserved_bytes = total;
    r->reserved_bytes += extra;
    r->pending_bytes += extra;
    return NH_OK;
}

static void unreserve(struct snapshot_receiver *r, struct receiving *st)
{
    r->reserved_bytes -= st->reserved_bytes;
    r->pending_bytes -= st->reserved_bytes - st->written_bytes;
    st->reserved_bytes = st->written_bytes = 0;
}

/* ---- the end ---- */

static void close_reader(struct snapshot_receiver *r, struct receiving *st)
{
    image_reader_free(st->reader);
    st->reader = NULL;
    if (st->file)
        r->config.files->ops->close(st->file, NULL);
    st->file = NULL;
}

void receiving_drop(struct snapshot_receiver *r, struct receiving *st)
{
    if (st->state == RECEIVING_WRITING || st->state == RECEIVING_VERIFYING) {
        close_reader(r, st);
        snapshot_temp_abort(&st->temp);
        memset(&st->temp, 0, sizeof st->temp);
        unreserve(r, st);
        r->n_receiving--;
        st->state = RECEIVING_OPENING;
    }
    nh_message_deinit(&st->install);
}

/* The image is committed: its message goes to the core, with its size. */
static void hand_over(struct snapshot_receiver *r, struct receiving *st, uint64_t size_bytes)
{
    struct nh_message m = st->install;

    st->install = (struct nh_message){0};
    m.snapshot->file_size_bytes = size_bytes;
    r->config.received(r->config.ctx, &m);
}

/* ---- chunk 0 ---- */

static void take_install(struct receiving *st, struct received_chunk *p)
{
    nh_message_deinit(&st->install);
    st->install = p->batch->messages[0];
    p->batch->messages[0] = (struct nh_message){0};
    free(st->install.snapshot->file_path); /* it means nothing here */
    st->install.snapshot->file_path = NULL;
    strncpy(st->address, p->batch->source_address, sizeof st->address - 1);
    st->index = p->chunk.index;
    st->term = p->chunk.term;
}

static bool same_state(const struct nh_snapshot *a, const struct nh_snapshot *b)
{
    return a->shard_id == b->shard_id && a->index == b->index && a->term == b->term &&
           nh_membership_equal(&a->membership, &b->membership);
}

/* NH_OK: an image of this very state is committed here. Errors: ENOTFOUND, EMISMATCH (one of another state is), those of reading.
 */
static int find_image(struct snapshot_receiver *r, struct receiving *st, uint64_t *ret_size, struct nh_error *err)
{
    struct nh_snapshot record;
    struct file *file;
    int code = snapshot_dir_record(&st->dir, st->index, &record, err);

    if (code < 0)
        return code;
    if (!same_state(&record, st->install.snapshot) || record.dummy)
        code = nh_error_set(err, NH_EMISMATCH, "an image of another state is here under its index");
    nh_snapshot_deinit(&record);
    if (code == NH_OK)
        code = snapshot_dir_open(&st->dir, st->index, &file, ret_size, err);
    if (code == NH_OK)
        r->config.files->ops->close(file, NULL);
    return code;
}

/* Its name may not be durable: the last step of its commit failed. */
static int keep_image(struct snapshot_receiver *r, struct receiving *st)
{
    return r->config.files->ops->sync_dir(r->config.files, st->dir.path, NULL);
}

static int begin_writing(struct snapshot_receiver *r, struct receiving *st, uint64_t size_bytes, struct nh_error *err)
{
    int code = snapshot_dir_make(&st->dir, err);

    if (code == NH_OK)
        code = reserve(r, st, size_bytes ? size_bytes : STREAM_UNKNOWN_BYTES, err);
    if (code == NH_OK) {
        code = snapshot_temp_begin(&st->temp, &st->dir, st->index, st->from, err);
        if (code < 0)
            unreserve(r, st);
    }
    if (code < 0)
        return code;
    st->size_bytes = size_bytes;
    st->chunk_count = size_bytes ? count_of(size_bytes) : 0;
    st->wanted = st->durable = 1;
    st->gap_told = false;
    st->state = RECEIVING_WRITING;
    r->n_receiving++;
    return NH_OK;
}

/* OPENING: takes it in, or says why not. */
static void open_stream(struct snapshot_receiver *r, struct receiving *st, uint64_t size_bytes)
{
    int code = r->config.admit(r->config.ctx, st->shard_id, st->replica_id, st->install.snapshot, &st->dir);
    enum snapshot_answer what = SNAPSHOT_WANT;
    struct nh_error err = {0};
    uint64_t size_here;

    if (code == NH_EEXIST) {
        what = SNAPSHOT_DONE;
    } else if (code < 0) {
        what = SNAPSHOT_REFUSED;
        nh_error_set(&err, code, code == NH_EUNSUPPORTED ? "the machine here has no snapshots" : "it is not wanted");
        report(st, "refused", &err);
    } else if (find_image(r, st, &size_here, NULL) == NH_OK && keep_image(r, st) == NH_OK) {
        /* The host stopped before its record was saved, or the message was lost on its way to the core. */
        hand_over(r, st, size_here);
        what = SNAPSHOT_DONE;
    } else if (r->n_receiving >= r->config.receiving_max) {
        what = SNAPSHOT_BUSY;
    } else if ((code = begin_writing(r, st, size_bytes, &err)) < 0) {
        give_up(r, st, code, &err);
        return;
    }
    answer(r, st, what, false);
    if (what != SNAPSHOT_WANT)
        st->state = RECEIVING_OVER;
}

/* Makes durable what is written. False: the stream is over. */
static bool sync_chunks(struct snapshot_receiver *r, struct receiving *st)
{
    struct nh_error err = {0};
    int code = NH_OK;

    if (st->durable < st->wanted)
        code = r->config.files->ops->sync(st->temp.image, &err);
    if (code < 0)
        give_up(r, st, code, &err);
    else
        st->durable = st->wanted;
    return code == NH_OK;
}

static bool is_same_image(const struct receiving *st, const struct received_chunk *p)
{
    return (st->state == RECEIVING_WRITING || st->state == RECEIVING_VERIFYING) && st->size_bytes == p->chunk.file_size_bytes &&
           same_state(st->install.snapshot, p->batch->messages[0].snapshot);
}

static void on_head(struct snapshot_receiver *r, struct receiving *st, struct received_chunk *p)
{
    if (!is_same_image(st, p)) {
        receiving_drop(r, st);
        take_install(st, p);
        open_stream(r, st, p->chunk.file_size_bytes);
        return;
    }
    take_install(st, p);
    st->gap_told = false;
    if (sync_chunks(r, st))
        want(r, st);
}

/* ---- verifying ---- */

static int check_image_head(const struct receiving *st, const struct image_head *head, struct nh_error *err)
{
    if (!same_state(&head->record, st->install.snapshot))
        return nh_error_set(err, NH_ECORRUPT, "the image holds another state than its record tells");
    if (head->record.dummy)
        return nh_error_set(err, NH_ECORRUPT, "the image has no data");
    return NH_OK;
}

static int open_reader(struct snapshot_receiver *r, struct receiving *st, struct nh_error *err)
{
    struct image_head head;
    char path[FILES_PATH_BYTES];
    int code = files_path(path, err, "%s/image", st->temp.path);

    if (code == NH_OK)
        code = r->config.files->ops->open(r->config.files, path, &st->file, NULL, err);
    if (code < 0)
        return code;
    st->file_source = (struct file_source){0};
    file_source_init(&st->file_source, r->config.files, st->file, &st->source);
    code = image_reader_new(&st->source, &head, &st->reader, err);
    if (code < 0) {
        st->reader = NULL;
        return code;
    }
    code = check_image_head(st, &head, err);
    image_head_deinit(&head);
    return code;
}

static void begin_verifying(struct snapshot_receiver *r, struct receiving *st)
{
    struct nh_error err = {0};
    int code = open_reader(r, st, &err);

    st->state = RECEIVING_VERIFYING;
    st->in_section = false;
    if (code < 0)
        give_up(r, st, code, &err);
}

/* Reads on for one step. 1: the image is whole. */
static int verify_some(struct snapshot_receiver *r, struct receiving *st, struct nh_error *err)
{
    for (uint64_t bytes = 0; bytes < VERIFY_STEP_BYTES;) {
        int64_t n = st->in_section ? image_reader_read(st->reader, r->buffer, STREAM_CHUNK_BYTES, err) : 0;
        int section;

        if (n < 0)
            return (int)n;
        bytes += (uint64_t)n + VERIFY_SECTION_BYTES;
        if (n > 0)
            continue;
        section = image_reader_next(st->reader, err);
        if (section < 0 || section == IMAGE_END)
            return section < 0 ? section : 1;
        st->in_section = true;
    }
    return 0;
}

/* Another stream may have brought an image of this index meanwhile, not of the same bytes perhaps: it stays. */
static int commit(struct snapshot_receiver *r, struct receiving *st, uint64_t *ret_size, struct nh_error *err)
{
    int code;

    close_reader(r, st);
    st->install.snapshot->file_size_bytes = st->written_bytes;
    code = snapshot_temp_commit(&st->temp, st->install.snapshot, err);
    return code < 0 ? code : find_image(r, st, ret_size, err);
}

static void verify(struct snapshot_receiver *r, struct receiving *st)
{
    struct nh_error err = {0};
    uint64_t size_bytes = 0;
    int code = verify_some(r, st, &err);

    if (code > 0) {
        code = commit(r, st, &size_bytes, &err);
        if (code == NH_OK) {
            hand_over(r, st, size_bytes);
            answer(r, st, SNAPSHOT_DONE, false);
            receiving_drop(r, st);
            st->state = RECEIVING_OVER;
        }
    }
    if (code < 0)
        give_up(r, st, code, &err);
}

/* ---- the other chunks ---- */

/* The sizes of the chunk that is wanted. *ret_last: none follows. */
static int check_sizes(struct receiving *st, const struct nh_chunk *c, bool *ret_last, struct nh_error *err)
{
    uint64_t full = STREAM_CHUNK_BYTES, expected = full;

    if (c->file_size_bytes != st->size_bytes)
        return nh_error_set(err, NH_ECORRUPT, "chunk %" PRIu64 " tells another size of the image", c->chunk_id);
    if (c->chunk_count != 0 && st->chunk_count != 0 && c->chunk_count != st->chunk_count)
        return nh_error_set(err, NH_ECORRUPT, "chunk %" PRIu64 " tells another number of chunks", c->chunk_id);
    if (c->chunk_count != 0)
        st->chunk_count = c->chunk_count;
    *ret_last = c->chunk_id + 1 == st->chunk_count;
    if (*ret_last)
        expected = st->size_bytes ? st->size_bytes - (c->chunk_id - 1) * full : c->size_bytes;
    if (c->size_bytes != expected)
        return nh_error_set(err, NH_ECORRUPT, "chunk %" PRIu64 " has %zu bytes", c->chunk_id, c->size_bytes);
    return NH_OK;
}

static int write_chunk(struct snapshot_receiver *r, struct receiving *st, const struct nh_chunk *c, struct nh_error *err)
{
    int code = NH_OK;

    if (st->written_bytes + c->size_bytes > st->reserved_bytes)
        code = reserve(r, st, st->reserved_bytes + STREAM_UNKNOWN_BYTES, err);
    if (code == NH_OK)
        code = snapshot_temp_write(&st->temp, c->data, c->size_bytes, err);
    if (code < 0)
        return code;
    st->written_bytes += c->size_bytes;
    r->pending_bytes -= c->size_bytes;
    st->wanted++;
    st->gap_told = false;
    return NH_OK;
}

static void on_wanted(struct snapshot_receiver *r, struct receiving *st, const struct nh_chunk *c)
{
    struct nh_error err = {0};
    bool last = false;
    int code = check_sizes(st, c, &last, &err);

    if (code == NH_OK)
        code = write_chunk(r, st, c, &err);
    if (code < 0) {
        give_up(r, st, code, &err);
        return;
    }
    if (!last && st->wanted - st->durable < STREAM_WINDOW / 2)
        return;
    if (!sync_chunks(r, st))
        return;
    if (last)
        begin_verifying(r, st);
    else
        want(r, st);
}

/* Told once: what follows the gap was sent before the answer came. */
static void on_gap(struct snapshot_receiver *r, struct receiving *st)
{
    if (st->gap_told || !sync_chunks(r, st))
        return;
    st->gap_told = true;
    answer(r, st, SNAPSHOT_WANT, true);
}

/* One of another image is late: its stream has given way to this one. */
static void on_chunk(struct snapshot_receiver *r, struct receiving *st, const struct nh_chunk *c)
{
    if (st->state != RECEIVING_WRITING || c->index != st->index || c->term != st->term)
        return;
    if (c->chunk_id > st->wanted)
        on_gap(r, st);
    else if (c->chunk_id < st->wanted)
        want(r, st);
    else
        on_wanted(r, st, c);
}

/* ---- steps ---- */

uint64_t receiving_step(struct snapshot_receiver *r, struct receiving *st, struct received_chunk *p)
{
    uint64_t now = runtime_now_ns(r->config.runtime);
    struct nh_error err;

    if (p) {
        st->heard_ns = now;
        if (p->batch)
            on_head(r, st, p);
        else
            on_chunk(r, st, &p->chunk);
        return TASK_POLL_NOW;
    }
    if (st->state == RECEIVING_VERIFYING) {
        verify(r, st);
        return TASK_POLL_NOW;
    }
    if (now - st->heard_ns < STREAM_IDLE_MS * MS_NS)
        return st->heard_ns + STREAM_IDLE_MS * MS_NS;
    nh_error_set(&err, NH_ETIMEOUT, "nothing was heard of it for %u ms", STREAM_IDLE_MS);
    report(st, "dropped", &err);
    receiving_drop(r, st);
    st->state = RECEIVING_OVER;
    return TASK_POLL_NOW;
}
