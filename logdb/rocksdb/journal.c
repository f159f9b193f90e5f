#include "logdb/rocksdb/journal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "raftio/support/memory.h"

#define SEGMENTS_PER_BUDGET 16u
#define SEGMENT_BYTES_MIN   ((uint64_t)64 * 1024)
/* A record that grew beyond this gives its memory back. */
#define RECORD_BYTES_KEPT ((size_t)16 * 1024 * 1024)
/* The end of a write of more is not polled for. */
#define POLL_BYTES_MAX ((size_t)16 * 1024)
/* After so many segments' bytes the horizon should move: about so much is read again after a crash. */
#define SEGMENTS_PER_HORIZON 4u

/* ---- the set of segments ---- */

static int by_id(const void *a, const void *b)
{
    uint64_t x = (*(struct segment *const *)a)->id, y = (*(struct segment *const *)b)->id;

    return x < y ? -1 : x > y;
}

/* With j->lock held, or alone. */
static void add_segment(struct journal *j, struct segment *s)
{
    array_reserve((void **)&j->segments, &j->cap_segments, j->n_segments + 1, sizeof(struct segment *));
    j->segments[j->n_segments++] = s;
    if (j->n_segments > 1 && j->segments[j->n_segments - 2]->id > s->id)
        qsort(j->segments, j->n_segments, sizeof(struct segment *), by_id);
}

/* With j->lock held; NULL: it has gone. */
static struct segment *find_segment(const struct journal *j, uint64_t id)
{
    size_t low = 0, high = j->n_segments;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (j->segments[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < j->n_segments && j->segments[low]->id == id ? j->segments[low] : NULL;
}

/* ---- opening ---- */

static bool parse_name(const char *name, const char *suffix, uint64_t *ret_id)
{
    char expected[64];

    if (sscanf(name, "%16" SCNx64, ret_id) != 1)
        return false;
    snprintf(expected, sizeof expected, "%016" PRIx64 ".%s", *ret_id, suffix);
    return strcmp(name, expected) == 0;
}

static int remove_file(const struct journal *j, const char *name, struct nh_error *err)
{
    char path[DIRECTORY_PATH_BYTES + 64];

    snprintf(path, sizeof path, "%s/%s", j->dir, name);
    return unlink(path) < 0 ? nh_error_sys(err, NH_EIO, errno, "remove %s", path) : NH_OK;
}

/* A creation that a crash interrupted left nothing that counts. */
static int open_old(struct journal *j, uint64_t id, const char *name, struct nh_error *err)
{
    struct segment *s;
    struct nh_error why;
    int r = segment_open(j->dir, id, j->crc, &s, err);

    if (r == NH_ECORRUPT) {
        int blank = segment_is_blank(j->dir, id, j->crc, &why);

        return blank == 1 ? remove_file(j, name, err) : blank < 0 ? nh_error_wrap(err, blank, "%s", why.text) : r;
    }
    if (r < 0)
        return r;
    s->sealed = true; /* nothing is added to it */
    add_segment(j, s);
    return NH_OK;
}

static int open_file(struct journal *j, const char *name, struct nh_error *err)
{
    uint64_t id;

    if (parse_name(name, "spare", &id))
        return remove_file(j, name, err);
    if (!parse_name(name, "segment", &id))
        return NH_OK;
    if (id >= j->next_id)
        j->next_id = id + 1;
    return open_old(j, id, name, err);
}

static int open_files(struct journal *j, struct nh_error *err)
{
    DIR *d = opendir(j->dir);
    struct dirent *e;
    int r = NH_OK;

    if (!d)
        return nh_error_sys(err, NH_EIO, errno, "open %s", j->dir);
    while (r == NH_OK && (errno = 0, e = readdir(d)))
        r = open_file(j, e->d_name, err);
    if (r == NH_OK && errno)
        r = nh_error_sys(err, NH_EIO, errno, "read %s", j->dir);
    closedir(d);
    return r;
}

int journal_open(struct journal *j, const char *dir, bool direct, uint32_t n_workers, uint64_t budget_bytes, segment_crc_fn crc,
                 struct nh_error *err)
{
    snprintf(j->dir, sizeof j->dir, "%s", dir);
    j->direct = direct;
    j->async = direct && directory_takes_durable_writes(dir);
    j->crc = crc;
    j->next_id = j->next_lsn = 1;
    j->segment_bytes = budget_bytes / SEGMENTS_PER_BUDGET / SEGMENT_PAGE * SEGMENT_PAGE;
    if (j->segment_bytes > JOURNAL_SEGMENT_BYTES)
        j->segment_bytes = JOURNAL_SEGMENT_BYTES;
    if (j->segment_bytes < SEGMENT_BYTES_MIN)
        j->segment_bytes = SEGMENT_BYTES_MIN;
    j->n_streams = JOURNAL_SHARED_STREAMS + n_workers;
    j->streams = xcalloc(j->n_streams, sizeof *j->streams);
    for (uint32_t i = 0; i < j->n_streams; i++)
        pthread_mutex_init(&j->streams[i].borrowed, NULL);
    list_init(&j->views);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->applied, NULL);
    return open_files(j, err);
}

void journal_deinit(struct journal *j)
{
    if (!j->streams)
        return;
    for (uint32_t i = 0; i < j->n_streams; i++) {
        async_write_deinit(&j->streams[i].async);
        segment_buffer_deinit(&j->streams[i].record);
        pthread_mutex_destroy(&j->streams[i].borrowed);
    }
    free(j->streams);
    for (size_t i = 0; i < j->n_segments; i++)
        segment_free(j->segments[i]);
    free(j->segments);
    for (uint32_t i = 0; i < j->n_spares; i++)
        segment_free(j->spares[i]);
    pthread_cond_destroy(&j->applied);
    pthread_mutex_destroy(&j->lock);
}

/* ---- writing ---- */

struct journal_stream *journal_borrow(struct journal *j)
{
    for (uint32_t i = 0; i < JOURNAL_SHARED_STREAMS; i++)
        if (pthread_mutex_trylock(&j->streams[i].borrowed) == 0)
            return &j->streams[i];
    pthread_mutex_lock(&j->streams[0].borrowed);
    return &j->streams[0];
}

void journal_return(struct journal_stream *s)
{
    pthread_mutex_unlock(&s->borrowed);
}

/* The last record of the stream's segment says that it ends here. What was not synced is, so that the next segment's records are
 * never durable without them. */
static int finish_segment(struct journal *j, struct journal_stream *s, struct nh_error *err)
{
    struct segment *segment = s->segment;
    struct segment_buffer page = {0};
    struct segment_record seal = {.kind = SEGMENT_SEAL, .lsn = segment->last_lsn};
    int r;

    pthread_mutex_lock(&j->lock);
    seal.peak_users = segment->n_users;
    pthread_mutex_unlock(&j->lock);
    segment_buffer_reserve(&page, SEGMENT_PAGE);
    r = segment_append(segment, &page, &seal, s->unsynced, j->crc, err);
    segment_buffer_deinit(&page);
    if (r < 0)
        return r;
    s->unsynced = false;
    s->segment = NULL;
    close(segment->write_fd);
    segment->write_fd = -1;
    pthread_mutex_lock(&j->lock);
    segment->peak_users = seal.peak_users;
    segment->sealed = true; /* from here on it is the reclaimer's */
    pthread_mutex_unlock(&j->lock);
    return NH_OK;
}

static int next_segment(struct journal *j, struct journal_stream *s, struct nh_error *err)
{
    struct segment *spare = NULL, *segment;
    uint64_t id;
    int r;

    pthread_mutex_lock(&j->lock);
    id = s->making = j->next_id++;
    if (j->n_spares > 0)
        spare = j->spares[--j->n_spares];
    pthread_mutex_unlock(&j->lock);
    r = segment_create(j->dir, id, j->direct, j->crc, spare, &segment, err);
    if (r < 0)
        return r;
    segment->planned = j->segment_bytes;
    pthread_mutex_lock(&j->lock);
    add_segment(j, segment);
    s->making = 0;
    pthread_mutex_unlock(&j->lock);
    s->segment = segment;
    return NH_OK;
}

int journal_begin(struct journal *j, struct journal_stream *s, size_t bytes, uint64_t id_min, struct nh_error *err)
{
    int r = NH_OK;

    if (s->segment && (s->segment->id < id_min ||
                       (s->segment->end > SEGMENT_PAGE && s->segment->end + bytes + SEGMENT_PAGE > j->segment_bytes)))
        r = finish_segment(j, s, err);
    if (r == NH_OK && !s->segment)
        r = next_segment(j, s, err);
    if (s->record.cap > RECORD_BYTES_KEPT)
        segment_buffer_deinit(&s->record);
    s->record.size_bytes = SEGMENT_RECORD_BYTES;
    segment_buffer_reserve(&s->record, SEGMENT_RECORD_BYTES + bytes);
    return r;
}

uint8_t *journal_room(struct journal_stream *s, size_t bytes)
{
    segment_buffer_reserve(&s->record, s->record.size_bytes + bytes);
    return s->record.data + s->record.size_bytes;
}

struct layout_location journal_location(const struct journal_stream *s, size_t bytes)
{
    return (struct layout_location){.segment_id = s->segment->id,
                                    .offset = s->segment->end + s->record.size_bytes - bytes,
                                    .size_bytes = (uint32_t)bytes};
}

void journal_commit_begin(struct journal *j, struct journal_stream *s, size_t batch_bytes, bool sync)
{
    struct segment_record r = {.kind = SEGMENT_CALL,
                               .payload_bytes = s->record.size_bytes - SEGMENT_RECORD_BYTES - batch_bytes,
                               .batch_bytes = batch_bytes};
    bool may_be_async;

    sync |= r.payload_bytes > 0; /* tables must not point to what a power cut can take */
    pthread_mutex_lock(&j->lock);
    r.lsn = s->pending = j->next_lsn++;
    s->cut = j->cut;
    j->new_bytes += segment_record_pages(&r);
    pthread_mutex_unlock(&j->lock);
    /* Who borrowed a stream waits at once. */
    may_be_async = j->async && s >= j->streams + JOURNAL_SHARED_STREAMS;
    s->async.polls = j->polls && s->lone && s->record.size_bytes <= POLL_BYTES_MAX;
    segment_append_begin(s->segment, may_be_async ? &s->async : NULL, &s->record, &r, sync, j->crc, &s->write);
}

int journal_commit_end(struct journal_stream *s, struct nh_error *err)
{
    s->unsynced = !s->write.sync;
    return segment_append_end(&s->write, err);
}

bool journal_applied(struct journal *j, struct journal_stream *s)
{
    bool due;

    pthread_mutex_lock(&j->lock);
    s->pending = 0;
    if (j->n_waiting)
        pthread_cond_broadcast(&j->applied);
    due = j->new_bytes >= SEGMENTS_PER_HORIZON * j->segment_bytes;
    pthread_mutex_unlock(&j->lock);
    return due;
}

void journal_stop(struct journal *j)
{
    pthread_mutex_lock(&j->lock);
    j->stopped = true;
    pthread_cond_broadcast(&j->applied);
    pthread_mutex_unlock(&j->lock);
}

int journal_seal(struct journal *j, struct nh_error *err)
{
    int r = NH_OK;

    for (uint32_t i = 0; i < j->n_streams && r == NH_OK; i++)
        if (j->streams[i].segment)
            r = finish_segment(j, &j->streams[i], err);
    return r;
}

/* ---- reading and uses ---- */

void journal_view_begin(struct journal *j, struct journal_view *v)
{
    list_init(&v->link);
    pthread_mutex_lock(&j->lock);
    v->drops = j->n_drops;
    list_push_back(&j->views, &v->link);
    pthread_mutex_unlock(&j->lock);
}

void journal_view_end(struct journal *j, struct journal_view *v)
{
    pthread_mutex_lock(&j->lock);
    list_remove(&v->link);
    pthread_mutex_unlock(&j->lock);
}

int journal_read(struct journal *j, const struct layout_location *at, void *out, struct nh_error *err)
{
    struct segment *s;

    pthread_mutex_lock(&j->lock);
    s = find_segment(j, at->segment_id);
    pthread_mutex_unlock(&j->lock);
    if (!s)
        return nh_error_set(err, NH_ECORRUPT, "segment %016" PRIx64 " of the journal is missing", at->segment_id);
    return segment_read(s, at->offset, out, at->size_bytes, err);
}

bool journal_use(struct journal *j, uint64_t segment_id)
{
    struct segment *s;

    pthread_mutex_lock(&j->lock);
    s = find_segment(j, segment_id);
    if (s)
        s->n_users++;
    pthread_mutex_unlock(&j->lock);
    return s != NULL;
}

void journal_unuse(struct journal *j, uint64_t segment_id)
{
    struct segment *s;

    pthread_mutex_lock(&j->lock);
    s = find_segment(j, segment_id);
    if (s) {
        assert(s->n_users > 0);
        s->n_users--;
    }
    pthread_mutex_unlock(&j->lock);
}

/* ---- reclaiming ---- */

/* With j->lock held. One that is being made will have later calls. */
static uint64_t lowest_from(const struct journal *j, uint64_t horizon)
{
    uint64_t floor = j->next_id;

    for (size_t i = 0; i < j->n_segments; i++)
        if ((!j->segments[i]->sealed || j->segments[i]->last_lsn >= horizon) && j->segments[i]->id < floor)
            floor = j->segments[i]->id;
    for (uint32_t i = 0; i < j->n_streams; i++)
        if (j->streams[i].making && j->streams[i].making < floor)
            floor = j->streams[i].making;
    return floor;
}

/* With j->lock held. */
static bool has_pending(const struct journal *j, uint64_t cut)
{
    for (uint32_t i = 0; i < j->n_streams; i++)
        if (j->streams[i].pending && j->streams[i].pending < cut)
            return true;
    return false;
}

uint64_t journal_make_cut(struct journal *j, uint64_t *ret_floor)
{
    uint64_t cut;

    pthread_mutex_lock(&j->lock);
    cut = j->cut = j->next_lsn;
    *ret_floor = lowest_from(j, cut);
    j->new_bytes = 0;
    j->n_waiting++;
    while (has_pending(j, cut) && !j->stopped)
        pthread_cond_wait(&j->applied, &j->lock);
    j->n_waiting--;
    pthread_mutex_unlock(&j->lock);
    return cut;
}

static uint64_t get(struct journal *j, const uint64_t *number)
{
    uint64_t value;

    pthread_mutex_lock(&j->lock);
    value = *number;
    pthread_mutex_unlock(&j->lock);
    return value;
}

uint64_t journal_next_lsn(struct journal *j)
{
    return get(j, &j->next_lsn);
}

uint64_t journal_horizon(struct journal *j)
{
    return get(j, &j->horizon);
}

uint64_t journal_new_bytes(struct journal *j)
{
    return get(j, &j->new_bytes);
}

void journal_set_horizon(struct journal *j, uint64_t horizon)
{
    pthread_mutex_lock(&j->lock);
    j->horizon = horizon;
    for (size_t i = 0; i < j->n_segments; i++) {
        assert(j->segments[i]->n_users >= j->segments[i]->n_moved);
        j->segments[i]->n_users -= j->segments[i]->n_moved;
        j->segments[i]->n_moved = 0;
    }
    pthread_mutex_unlock(&j->lock);
}

/* With j->lock held: nobody will read it from now on. */
static void mark_dead(struct journal *j)
{
    for (size_t i = 0; i < j->n_segments; i++) {
        struct segment *s = j->segments[i];

        if (!s->dropped && s->sealed && s->n_users == 0 && s->last_lsn < j->horizon)
            s->dropped = ++j->n_drops;
    }
}

/* With j->lock held: all views began after it was dropped. */
static bool is_unseen(const struct journal *j, const struct segment *s)
{
    return s->dropped && (list_empty(&j->views) || container_of(j->views.next, struct journal_view, link)->drops >= s->dropped);
}

/* Takes one out of the set; NULL: there is none. *ret_keep: it may be used again. */
static struct segment *take_dead(struct journal *j, bool *ret_keep)
{
    struct segment *s = NULL;
    size_t i = 0;

    pthread_mutex_lock(&j->lock);
    mark_dead(j);
    while (i < j->n_segments && !is_unseen(j, j->segments[i]))
        i++;
    if (i < j->n_segments) {
        s = j->segments[i];
        memmove(&j->segments[i], &j->segments[i + 1], (--j->n_segments - i) * sizeof(struct segment *));
        *ret_keep = j->n_spares < JOURNAL_SPARES_MAX && s->prepared >= j->segment_bytes / 2;
    }
    pthread_mutex_unlock(&j->lock);
    return s;
}

static void add_spare(struct journal *j, struct segment *spare)
{
    pthread_mutex_lock(&j->lock);
    j->spares[j->n_spares++] = spare;
    pthread_mutex_unlock(&j->lock);
}

int journal_drop_dead(struct journal *j, struct nh_error *err)
{
    struct segment *s;
    bool keep;
    int r = NH_OK;

    while (r == NH_OK && (s = take_dead(j, &keep))) {
        struct segment *spare = NULL;

        r = segment_retire(j->dir, s, j->direct, keep ? &spare : NULL, err);
        if (spare)
            add_spare(j, spare);
        segment_free(s);
    }
    return r;
}

uint64_t journal_bytes(struct journal *j)
{
    uint64_t bytes = 0;

    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < j->n_segments; i++)
        bytes += j->segments[i]->sealed ? j->segments[i]->prepared : 0;
    pthread_mutex_unlock(&j->lock);
    return bytes;
}

uint64_t journal_choose_victim(struct journal *j, bool any)
{
    uint64_t id = 0;

    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < j->n_segments && id == 0; i++) {
        const struct segment *s = j->segments[i];

        if (s->sealed && !s->stuck && s->last_lsn < j->horizon && s->n_users > 0 && (any || s->n_users <= s->peak_users / 2))
            id = s->id;
    }
    pthread_mutex_unlock(&j->lock);
    return id;
}

void journal_moved(struct journal *j, uint64_t segment_id)
{
    struct segment *s;

    pthread_mutex_lock(&j->lock);
    s = find_segment(j, segment_id);
    assert(s && s->n_users > s->n_moved); /* it is in use until the horizon moves */
    s->n_moved++;
    pthread_mutex_unlock(&j->lock);
}

bool journal_give_up(struct journal *j, uint64_t segment_id)
{
    struct segment *s;
    bool stuck;

    pthread_mutex_lock(&j->lock);
    s = find_segment(j, segment_id);
    stuck = s && s->n_users > 0;
    if (stuck)
        s->stuck = true;
    pthread_mutex_unlock(&j->lock);
    return stuck;
}
