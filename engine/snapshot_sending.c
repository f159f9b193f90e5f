/* The sending side of streams: engine/snapshot_stream.h says what is sent, this file when.
 *
 *                     turn, not before its time                 WANT k
 *     send --> WAITING -----------------------> ASKING ----------------------> SENDING
 *               ^  ^  connection failed,          |  ^   no answer for long      |
 *               |  +- no answer ------------------+  +---------------------------+
 *               |     FULL, BUSY                  |                              |
 *               +---------------------------------)------------------------------+  connection failed, FULL, BUSY
 *                                                 |
 *         any: DONE, REFUSED, out of tries or patience, replaced, cancelled, the image cannot be read
 *                                                 v
 *                                              ENDING -- no production runs any more --> released, `ended` called
 *                                                (a production that has stalled may run for ever: then `ended` is called before)
 *
 * A step sends at most one chunk. Answers are only stored when they come; the next step looks at them. A stream that has sent
 * goes to the end of the list, so that whatever runs out first, tokens or turns, is shared fairly. No production goes on for one
 * that is WAITING.
 */
#include "engine/snapshot_sender_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define MS_NS 1000000ull

static const char chunks_lost[] = "chunks are lost again and again";

static uint64_t now_of(const struct snapshot_sender *s)
{
    return runtime_now_ns(s->config.runtime);
}

/* ---- the life of a stream ---- */

struct stream *sending_new(const struct stream_request *request)
{
    struct stream *st = xcalloc(1, sizeof *st);

    assert(request->install->type == NH_MSG_INSTALL_SNAPSHOT && request->install->snapshot && request->install->n_runs == 0);
    list_init(&st->link);
    st->id = request->id;
    memcpy(st->address, request->address, sizeof st->address);
    st->install = *request->install;
    st->install.snapshot = xcalloc(1, sizeof *st->install.snapshot);
    nh_snapshot_copy(st->install.snapshot, request->install->snapshot);
    free(st->install.snapshot->file_path); /* it means nothing elsewhere */
    st->install.snapshot->file_path = NULL;
    st->dir = request->dir;
    st->has_producer = request->producer != NULL;
    if (request->producer)
        st->producer = *request->producer;
    st->durable = st->best = st->next = 1;
    return st;
}

/* No production is left. */
void sending_free(struct stream *st)
{
    list_remove(&st->link);
    if (st->has_producer)
        st->producer.release(st->producer.ctx);
    nh_message_deinit(&st->install);
    free(st->produced);
    free(st);
}

static bool is_active(enum stream_state state)
{
    return state == STREAM_ASKING || state == STREAM_SENDING;
}

static void set_state(struct snapshot_sender *s, struct stream *st, enum stream_state state)
{
    s->n_active -= is_active(st->state);
    s->n_active += is_active(state);
    st->state = state;
}

static void disconnect(struct snapshot_sender *s, struct stream *st)
{
    if (st->connection)
        s->config.transport_ops->close_snapshot_connection(st->connection);
    st->connection = NULL;
}

static void close_image(struct snapshot_sender *s, struct stream *st)
{
    if (st->file)
        s->config.files->ops->close(st->file, NULL);
    st->file = NULL;
}

static void stop_production(struct stream *st)
{
    if (st->production && !st->production_is_stale)
        production_stop(st->production);
    st->production_is_stale = true;
    free(st->produced);
    st->produced = NULL;
}

/* Frees a stale production that is over. True: there is none any more. */
static bool production_is_gone(struct stream *st)
{
    struct nh_error err;
    uint64_t count;
    int code;

    if (!st->production)
        return true;
    if (!st->production_is_stale || !production_over(st->production, &code, &count, &err))
        return false;
    production_free(st->production);
    st->production = NULL;
    return true;
}

void sending_end(struct snapshot_sender *s, struct stream *st, bool failed, const char *reason)
{
    if (st->state == STREAM_ENDING)
        return;
    disconnect(s, st);
    close_image(s, st);
    stop_production(st);
    set_state(s, st, STREAM_ENDING);
    st->failed = failed;
    strncpy(st->reason, reason, sizeof st->reason - 1);
}

/* An end that was decided; called again until no production runs. */
static uint64_t step_ending(struct snapshot_sender *s, struct stream *st, uint64_t now)
{
    struct stream_id id = st->id;
    struct nh_error reason;
    bool failed = st->failed, gone = production_is_gone(st), tell = !st->is_told && (gone || st->is_stalled);

    (void)now;
    memcpy(reason.text, st->reason, sizeof reason.text);
    st->is_told |= tell;
    if (gone)
        sending_free(st);
    if (tell)
        s->config.ended(s->config.ctx, &id, failed, reason.text);
    return gone ? TASK_POLL_NOW : TASK_POLL_NEVER; /* a turn is free; or its end wakes */
}

/* ---- failures that are borne for a while ---- */

static uint64_t back_off_ns(uint32_t n_failed)
{
    uint64_t ms = STREAM_RETRY_MS;

    for (uint32_t i = 1; i < n_failed && ms < STREAM_RETRY_MAX_MS; i++)
        ms *= 2;
    return (ms < STREAM_RETRY_MAX_MS ? ms : STREAM_RETRY_MAX_MS) * MS_NS;
}

/* Without a turn. Its production, whose chunks nobody would take, ends and begins anew later: it would keep its task from those
 * that have a turn, and they their turns from this one. */
static void wait_until(struct snapshot_sender *s, struct stream *st, uint64_t not_before_ns)
{
    disconnect(s, st);
    stop_production(st);
    set_state(s, st, STREAM_WAITING);
    st->not_before_ns = not_before_ns;
    st->stalled_ns = 0;
    list_remove(&st->link);
    list_push_back(&s->streams, &st->link);
}

/* The connection broke, or nobody answers. The image stays open: it must not be pruned before the stream can go on. */
static uint64_t try_failed(struct snapshot_sender *s, struct stream *st, uint64_t rest_ns, const char *reason)
{
    if (++st->tries >= STREAM_TRIES)
        sending_end(s, st, true, reason);
    else
        wait_until(s, st, now_of(s) + rest_ns);
    return TASK_POLL_NOW;
}

static bool waits_for_host(const struct stream *st, const char *address)
{
    return st->state == STREAM_WAITING && strcmp(st->address, address) == 0;
}

void sending_share_rest(struct snapshot_sender *s, struct stream *st)
{
    for (struct list *at = s->streams.next; at != &s->streams; at = at->next) {
        const struct stream *other = container_of(at, struct stream, link);

        if (other->tries > 0 && other->not_before_ns > st->not_before_ns && waits_for_host(other, st->address))
            st->not_before_ns = other->not_before_ns;
    }
}

/* Its host cannot be reached. A connection of any other stream to that host would block this task for as long, so those that
 * wait share the try and the rest. They keep their places: who comes first then makes the next try. */
static uint64_t host_failed(struct snapshot_sender *s, struct stream *st, const char *reason)
{
    uint64_t rest_ns = back_off_ns(st->tries + 1), until_ns = now_of(s) + rest_ns;

    for (struct list *at = s->streams.next; at != &s->streams; at = at->next) {
        struct stream *other = container_of(at, struct stream, link);

        if (other == st || other->not_before_ns > until_ns || !waits_for_host(other, st->address))
            continue;
        other->not_before_ns = until_ns;
        if (++other->tries >= STREAM_TRIES)
            sending_end(s, other, true, reason);
    }
    return try_failed(s, st, rest_ns, reason);
}

/* The image is closed, as many streams may wait for long: one that is pruned by then will not be missed, as there is a newer one.
 */
static uint64_t put_off(struct snapshot_sender *s, struct stream *st, uint64_t now, const char *reason)
{
    close_image(s, st);
    if (st->n_put_off++ == 0)
        st->put_off_ns = now;
    if (now - st->put_off_ns >= STREAM_PATIENCE_MS * MS_NS)
        sending_end(s, st, true, reason);
    else
        wait_until(s, st, now + back_off_ns(st->n_put_off));
    return TASK_POLL_NOW;
}

static void note_progress(struct stream *st)
{
    if (st->durable <= st->best)
        return;
    st->best = st->durable;
    st->tries = 0;
    st->n_put_off = 0;
}

/* ---- asking ---- */

static int open_image(struct snapshot_sender *s, struct stream *st, struct nh_error *err)
{
    uint64_t size = 0;
    int r;

    (void)s;
    if (st->has_producer || st->file)
        return NH_OK;
    r = snapshot_dir_open(&st->dir, st->id.index, &st->file, &size, err);
    if (r == NH_OK && (size == 0 || (st->size_bytes != 0 && size != st->size_bytes)))
        r = nh_error_set(err, NH_ECORRUPT, "the image has changed its size");
    st->size_bytes = size;
    st->chunk_count = 1 + (size + STREAM_CHUNK_BYTES - 1) / STREAM_CHUNK_BYTES;
    return r < 0 ? nh_error_wrap(err, r, "open the image") : NH_OK;
}

static int send_one(struct snapshot_sender *s, struct stream *st, uint64_t chunk_id, const void *data, size_t size_bytes,
                    struct nh_error *err)
{
    const struct nh_chunk chunk = {
        .shard_id = st->id.shard_id,
        .replica_id = st->id.to,
        .from = st->id.from,
        .chunk_id = chunk_id,
        .chunk_count = st->chunk_count,
        .index = st->install.snapshot->index,
        .term = st->install.snapshot->term,
        .file_size_bytes = st->size_bytes,
        .deployment_id = s->config.deployment_id,
        .data = data,
        .size_bytes = size_bytes,
    };

    return plugin_status(s->config.transport_ops->send_chunk(st->connection, &chunk, err), "send_chunk", err);
}

static int send_head(struct snapshot_sender *s, struct stream *st, struct nh_error *err)
{
    const struct nh_message_batch batch = {
        .deployment_id = s->config.deployment_id,
        .source_address = s->address,
        .n_messages = 1,
        .messages = &st->install,
    };
    size_t bytes;

    st->install.snapshot->file_size_bytes = st->size_bytes;
    bytes = batch_encode(&batch, s->buffer, STREAM_CHUNK_BYTES); /* the receiver has the limit */
    assert(bytes <= STREAM_CHUNK_BYTES);
    return send_one(s, st, 0, s->buffer, bytes, err);
}

static int connect_to_host(struct snapshot_sender *s, struct stream *st, struct nh_error *err)
{
    int r;

    if (st->connection)
        return NH_OK;
    r = s->config.transport_ops->get_snapshot_connection(s->config.transport, st->address, &st->connection, err);
    return plugin_status(r, "get_snapshot_connection", err);
}

static uint64_t ask(struct snapshot_sender *s, struct stream *st)
{
    bool is_connected = st->connection != NULL;
    struct nh_error err = {0};
    int r = connect_to_host(s, st, &err), opened;

    if (r == NH_EBUSY) { /* others have all connections that the transport allows */
        wait_until(s, st, now_of(s) + STREAM_RETRY_MS * MS_NS);
        return TASK_POLL_NOW;
    }
    if (r == NH_OK && (opened = open_image(s, st, &err)) < 0) {
        sending_end(s, st, true, opened == NH_ENOTFOUND ? STREAM_PRUNED : err.text);
        return TASK_POLL_NOW;
    }
    set_state(s, st, STREAM_ASKING);
    st->answer.present = false;
    if (r == NH_OK)
        r = send_head(s, st, &err);
    if (r == NH_EIO && !is_connected)
        return host_failed(s, st, err.text);
    if (r < 0)
        return try_failed(s, st, back_off_ns(st->tries + 1), err.text);
    st->asked_ns = now_of(s);
    return st->asked_ns + STREAM_ANSWER_MS * MS_NS;
}

static uint64_t step_waiting(struct snapshot_sender *s, struct stream *st, uint64_t now)
{
    if (st->answer.present && st->answer.what == SNAPSHOT_DONE) {
        sending_end(s, st, false, "");
        return TASK_POLL_NOW;
    }
    if (now < st->not_before_ns)
        return st->not_before_ns;
    if (s->n_active >= s->config.sending_max)
        return TASK_POLL_NEVER; /* a turn that ends polls again */
    st->asked_in_silence = false;
    return ask(s, st);
}

/* ---- answers ---- */

/* A later WANT counts instead of an earlier one; an answer of another kind is not lost to it. */
void sending_store_answer(struct stream *st, const struct nh_message *m)
{
    if (st->answer.present && st->answer.what != SNAPSHOT_WANT && m->hint_high == SNAPSHOT_WANT)
        return;
    st->answer = (struct answer){true, m->reject, (enum snapshot_answer)m->hint_high, m->hint};
}

/* Goes on with chunk k, wherever it was before. */
static void go_to(struct stream *st, uint64_t k)
{
    if (st->has_producer && (st->next != k || st->production_is_stale))
        stop_production(st);
    st->next = k;
}

static bool is_possible(const struct stream *st, uint64_t k)
{
    return k >= 1 && (st->chunk_count == 0 || k <= st->chunk_count);
}

/* The answer to chunk 0: what it says holds. That chunks were lost, which nobody noticed before, counts as a try. */
static uint64_t on_want_asked(struct snapshot_sender *s, struct stream *st, uint64_t k, uint64_t now)
{
    if (!is_possible(st, k))
        return try_failed(s, st, STREAM_RETRY_MS * MS_NS, "the receiver gives senseless answers");
    st->durable = k;
    note_progress(st);
    if (st->asked_in_silence && k < st->next && k <= st->best && ++st->tries >= STREAM_TRIES) {
        sending_end(s, st, true, chunks_lost);
        return TASK_POLL_NOW;
    }
    go_to(st, k);
    set_state(s, st, STREAM_SENDING);
    st->heard_ns = now;
    return TASK_POLL_NOW;
}

/* One that moves the window, or says that chunks were lost (that counts as a try). Others are old. */
static uint64_t on_want_sending(struct snapshot_sender *s, struct stream *st, const struct answer *a, uint64_t now)
{
    if (a->want < 1 || a->want > st->next || (a->want < st->durable && !a->go_back))
        return TASK_POLL_NOW;
    st->heard_ns = now;
    st->durable = a->want;
    note_progress(st);
    if (!a->go_back)
        return TASK_POLL_NOW;
    go_to(st, a->want);
    if (++st->tries >= STREAM_TRIES)
        sending_end(s, st, true, chunks_lost);
    return TASK_POLL_NOW;
}

static uint64_t on_answer(struct snapshot_sender *s, struct stream *st, uint64_t now)
{
    struct answer a = st->answer;

    st->answer.present = false;
    switch (a.what) {
    case SNAPSHOT_WANT: return st->state == STREAM_ASKING ? on_want_asked(s, st, a.want, now) : on_want_sending(s, st, &a, now);
    case SNAPSHOT_FULL: return put_off(s, st, now, "the receiver has no space left");
    case SNAPSHOT_BUSY: return put_off(s, st, now, "the receiver is busy with other images");
    case SNAPSHOT_DONE: sending_end(s, st, false, ""); break;
    case SNAPSHOT_REFUSED: sending_end(s, st, true, "the receiver refused the image"); break;
    }
    return TASK_POLL_NOW;
}

static uint64_t step_asking(struct snapshot_sender *s, struct stream *st, uint64_t now)
{
    if (st->answer.present)
        return on_answer(s, st, now);
    if (now - st->asked_ns >= STREAM_ANSWER_MS * MS_NS)
        return try_failed(s, st, 0, "the receiver does not answer");
    return st->asked_ns + STREAM_ANSWER_MS * MS_NS;
}

/* ---- sending ---- */

struct piece {
    const uint8_t *data;
    size_t size_bytes;
};

static int read_piece(struct snapshot_sender *s, struct stream *st, struct piece *ret, struct nh_error *err)
{
    uint64_t offset = (st->next - 1) * STREAM_CHUNK_BYTES, left = st->size_bytes - offset;
    size_t size = left < STREAM_CHUNK_BYTES ? (size_t)left : STREAM_CHUNK_BYTES, at = 0;

    while (at < size) {
        int64_t n = s->config.files->ops->read_at(st->file, offset + at, s->buffer + at, size - at, err);

        if (n <= 0)
            return n < 0 ? (int)n : nh_error_set(err, NH_ECORRUPT, "the image has become shorter");
        at += (size_t)n;
    }
    *ret = (struct piece){s->buffer, size};
    return NH_OK;
}

/* There is no chunk, and the production has not ended. */
static int check_stalled(struct stream *st, uint64_t now, struct nh_error *err)
{
    bool begun;
    uint64_t progress = production_progress(st->production, &begun);

    if (st->stalled_ns == 0 || progress != st->progress) {
        st->stalled_ns = now;
        st->progress = progress;
    }
    if (now - st->stalled_ns < STREAM_STALL_MS * MS_NS)
        return NH_OK;
    st->is_stalled = true;
    if (!begun)
        return nh_error_set(err, NH_EMACHINE, "no other machine's image has come on for %u s, and its turn has not come",
                            STREAM_STALL_MS / 1000);
    return nh_error_set(err, NH_EMACHINE, "the machine has written nothing of its image for %u s", STREAM_STALL_MS / 1000);
}

/* All chunks that there are were taken. */
static int check_production(struct stream *st, uint64_t now, struct nh_error *err)
{
    struct nh_error cause;
    uint64_t count;
    int code;

    if (!production_over(st->production, &code, &count, &cause))
        return check_stalled(st, now, err);
    if (code < 0) {
        *err = cause;
        return code;
    }
    st->chunk_count = count;
    if (st->next > count)
        return nh_error_set(err, NH_EMACHINE, "the image that was produced again is shorter");
    return NH_OK;
}

/* ret->data is NULL if there is nothing yet. */
static int take_produced(struct snapshot_sender *s, struct stream *st, uint64_t now, struct piece *ret, struct nh_error *err)
{
    *ret = (struct piece){0};
    if (st->production && st->production_is_stale && !production_is_gone(st))
        return check_stalled(st, now, err);
    if (!st->production) {
        st->production = production_new(s->producers, &st->producer, st->next);
        st->production_is_stale = false;
    }
    if (!st->produced)
        st->produced = production_take(st->production);
    if (!st->produced)
        return check_production(st, now, err);
    assert(st->produced->chunk_id == st->next);
    if (st->produced->last)
        st->chunk_count = st->next + 1;
    *ret = (struct piece){st->produced->data, st->produced->size_bytes};
    return NH_OK;
}

static uint64_t send_piece(struct snapshot_sender *s, struct stream *st, const struct piece *piece)
{
    struct nh_error err = {0};
    int r = send_one(s, st, st->next, piece->data, piece->size_bytes, &err);

    free(st->produced);
    st->produced = NULL;
    st->stalled_ns = 0;
    st->next++;
    token_bucket_take(&s->bucket, piece->size_bytes, now_of(s));
    list_remove(&st->link);
    list_push_back(&s->streams, &st->link);
    return r < 0 ? try_failed(s, st, back_off_ns(st->tries + 1), err.text) : TASK_POLL_NOW;
}

/* Sends a chunk if there is room in the window, a token and the chunk. */
static uint64_t send_next(struct snapshot_sender *s, struct stream *st, uint64_t now)
{
    uint64_t wait = token_bucket_wait(&s->bucket, now);
    struct piece piece = {0};
    struct nh_error err = {0};
    int r;

    if (st->next >= st->durable + STREAM_WINDOW || (st->chunk_count != 0 && st->next >= st->chunk_count))
        return TASK_POLL_NEVER;
    if (wait)
        return wait;
    r = st->has_producer ? take_produced(s, st, now, &piece, &err) : read_piece(s, st, &piece, &err);
    if (r < 0) {
        sending_end(s, st, true, err.text);
        return TASK_POLL_NOW;
    }
    return piece.data ? send_piece(s, st, &piece) : TASK_POLL_NEVER;
}

static uint64_t step_sending(struct snapshot_sender *s, struct stream *st, uint64_t now)
{
    uint64_t patient_until = st->heard_ns + STREAM_ANSWER_MS * MS_NS, next;

    if (st->answer.present)
        return on_answer(s, st, now);
    if (now >= patient_until) {
        st->asked_in_silence = true;
        return ask(s, st);
    }
    next = send_next(s, st, now);
    return next < patient_until ? next : patient_until;
}

/* ---- the table ---- */

uint64_t sending_step(struct snapshot_sender *s, struct stream *st)
{
    static uint64_t (*const steps[])(struct snapshot_sender *, struct stream *, uint64_t) = {
        [STREAM_WAITING] = step_waiting,
        [STREAM_ASKING] = step_asking,
        [STREAM_SENDING] = step_sending,
        [STREAM_ENDING] = step_ending,
    };

    return steps[st->state](s, st, now_of(s));
}
