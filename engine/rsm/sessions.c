#include "engine/rsm/sessions.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/list.h"
#include "raftio/support/map.h"
#include "raftio/support/memory.h"

/* Why a session looks like this. The table has to be the same on all replicas, but batches are not: one replica asks about an
 * entry when the one before it was kept, another asks about a thousand and keeps then. So everything that decides a later verdict
 * changes in sessions_check alone: an entry takes its place among the results when it is to be applied, and the place may be
 * given away before its result is known. sessions_keep only fills in what is still there. */

enum result_state {
    RESULT_NONE = 0, /* applied, but nobody knows with what result; encoded with this number */
    RESULT_KEPT = 1, /* encoded with this number */
    RESULT_PENDING,  /* between APPLY and keep */
};

struct result {
    uint64_t series_id;
    uint64_t value;
    uint8_t *data; /* owned; NULL: no bytes */
    uint32_t size_bytes;
    uint32_t room_bytes; /* what it may be to be kept; of use until it is */
    uint32_t state;      /* enum result_state */
};

struct session {
    struct list lru;
    uint64_t client_id;
    uint64_t acked_to; /* everything up to it was applied, or is answered as the client says */
    uint64_t lost_to;  /* 0, or above acked_to + 1: results up to it gave way, and some below it may never have been applied */
    struct result *results; /* by series id, all above acked_to and lost_to */
    size_t n_results, cap;
};

struct sessions {
    struct map by_client; /* struct session */
    struct list lru;      /* the least recently used first */
    size_t n_results;     /* of all sessions */
};

/* ---- results of a session ---- */

static void forget_first(struct sessions *s, struct session *c, size_t n)
{
    if (n == 0)
        return;
    for (size_t i = 0; i < n; i++)
        free(c->results[i].data);
    s->n_results -= n;
    c->n_results -= n;
    memmove(c->results, c->results + n, c->n_results * sizeof *c->results);
}

/* The place of a series id among the results: where it is, or where it would go. */
static size_t place_of(const struct session *c, uint64_t series_id)
{
    size_t from = 0, to = c->n_results;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (c->results[middle].series_id < series_id)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static struct result *find_result(const struct session *c, uint64_t series_id)
{
    size_t at = place_of(c, series_id);

    return at < c->n_results && c->results[at].series_id == series_id ? &c->results[at] : NULL;
}

/* What was lost right above what is acknowledged was applied: only what gave way is called lost. */
static void join_marks(struct session *c)
{
    if (c->lost_to > c->acked_to + 1)
        return;
    if (c->lost_to > c->acked_to)
        c->acked_to = c->lost_to;
    c->lost_to = 0;
}

static void acknowledge(struct sessions *s, struct session *c, uint64_t responded_to)
{
    if (responded_to <= c->acked_to)
        return;
    c->acked_to = responded_to;
    join_marks(c);
    forget_first(s, c, place_of(c, c->acked_to + 1));
}

/* The oldest result gives way. If series ids below it were never seen, nobody will be able to tell whether they were. */
static void give_way(struct sessions *s, struct session *c)
{
    c->lost_to = c->results[0].series_id;
    join_marks(c);
    forget_first(s, c, 1);
}

/* Decided by the number of results, which checks alone change: sizes are known later, and not everywhere at the same time. */
static uint32_t room_now(const struct sessions *s)
{
    size_t share = SESSIONS_ROOM_BYTES / s->n_results;

    return share < SESSION_RESULT_BYTES_MAX ? (uint32_t)share : SESSION_RESULT_BYTES_MAX;
}

static struct result *insert_result(struct sessions *s, struct session *c, uint64_t series_id)
{
    size_t at = place_of(c, series_id);

    array_reserve((void **)&c->results, &c->cap, c->n_results + 1, sizeof *c->results);
    memmove(c->results + at + 1, c->results + at, (c->n_results - at) * sizeof *c->results);
    s->n_results++;
    c->n_results++;
    c->results[at] = (struct result){.series_id = series_id, .room_bytes = room_now(s), .state = RESULT_PENDING};
    return &c->results[at];
}

/* ---- sessions of a table ---- */

static struct session *add_session(struct sessions *s, uint64_t client_id)
{
    struct session *c = xcalloc(1, sizeof *c);

    c->client_id = client_id;
    list_push_back(&s->lru, &c->lru);
    map_put(&s->by_client, client_id, c);
    return c;
}

static void drop_session(struct sessions *s, struct session *c)
{
    map_remove(&s->by_client, c->client_id);
    list_remove(&c->lru);
    forget_first(s, c, c->n_results);
    free(c->results);
    free(c);
}

static struct session *oldest_session(const struct sessions *s)
{
    return list_empty(&s->lru) ? NULL : container_of(s->lru.next, struct session, lru);
}

static struct session *use_session(struct sessions *s, uint64_t client_id)
{
    struct session *c = map_get(&s->by_client, client_id);

    if (c) {
        list_remove(&c->lru);
        list_push_back(&s->lru, &c->lru);
    }
    return c;
}

struct sessions *sessions_new(void)
{
    struct sessions *s = xcalloc(1, sizeof *s);

    list_init(&s->lru);
    return s;
}

static void clear(struct sessions *s)
{
    struct session *c;

    while ((c = oldest_session(s)))
        drop_session(s, c);
}

void sessions_free(struct sessions *s)
{
    if (!s)
        return;
    clear(s);
    map_deinit(&s->by_client);
    free(s);
}

size_t sessions_count(const struct sessions *s)
{
    return s->by_client.n;
}

/* ---- entries ---- */

static enum session_verdict check_open(struct sessions *s, const struct nh_entry_view *e, struct nh_result *ret)
{
    uint32_t limit = e->payload_bytes == sizeof limit ? nh_load_u32(e->payload) : 0;

    if (limit == 0 || limit > SESSIONS_MAX)
        return SESSION_INVALID;
    if (!use_session(s, e->client_id))
        add_session(s, e->client_id);
    while (sessions_count(s) > limit)
        drop_session(s, oldest_session(s));
    *ret = (struct nh_result){.value = e->client_id};
    return SESSION_OPENED;
}

static enum session_verdict check_close(struct sessions *s, const struct nh_entry_view *e, struct nh_result *ret)
{
    struct session *c = map_get(&s->by_client, e->client_id);

    if (!c)
        return SESSION_UNKNOWN;
    drop_session(s, c);
    *ret = (struct nh_result){.value = e->client_id};
    return SESSION_CLOSED;
}

static enum session_verdict check_seen(const struct result *r, struct nh_result *ret)
{
    if (r->state == RESULT_PENDING)
        return SESSION_IN_BATCH;
    if (r->state == RESULT_NONE)
        return SESSION_ACKED;
    *ret = (struct nh_result){.value = r->value, .data = r->data, .size_bytes = r->size_bytes};
    return SESSION_REPEATED;
}

static enum session_verdict check_proposal(struct sessions *s, struct session *c, uint64_t series_id, struct nh_result *ret)
{
    const struct result *seen = find_result(c, series_id);

    if (seen)
        return check_seen(seen, ret);
    if (series_id <= c->acked_to)
        return SESSION_ACKED;
    if (series_id <= c->lost_to)
        return SESSION_UNKNOWN;
    insert_result(s, c, series_id);
    if (c->n_results > SESSION_RESULTS_MAX)
        give_way(s, c);
    return SESSION_APPLY;
}

enum session_verdict sessions_check(struct sessions *s, const struct nh_entry_view *e, struct nh_result *ret)
{
    struct session *c;

    if (e->client_id == 0 || e->series_id == 0)
        return SESSION_INVALID;
    if (e->series_id == SESSION_OPEN)
        return check_open(s, e, ret);
    if (e->series_id == SESSION_CLOSE)
        return check_close(s, e, ret);
    if (e->responded_to >= e->series_id)
        return SESSION_INVALID;
    c = use_session(s, e->client_id);
    if (!c)
        return SESSION_UNKNOWN;
    acknowledge(s, c, e->responded_to);
    return check_proposal(s, c, e->series_id, ret);
}

static void set_result(struct result *r, const struct nh_result *result)
{
    bool kept = result != NULL;

    free(r->data);
    r->data = kept && result->size_bytes ? xmemdup(result->data, result->size_bytes) : NULL;
    r->size_bytes = kept ? (uint32_t)result->size_bytes : 0;
    r->value = kept ? result->value : 0;
    r->state = kept ? RESULT_KEPT : RESULT_NONE;
}

/* Not only what is pending: when a session was evicted and opened again within one batch, two entries of it may have the same
 * series id, and the later one's result is the one that stays. */
void sessions_keep(struct sessions *s, uint64_t client_id, uint64_t series_id, const struct nh_result *result)
{
    const struct session *c = map_get(&s->by_client, client_id);
    struct result *r = c ? find_result(c, series_id) : NULL;

    if (r)
        set_result(r, result && result->size_bytes <= r->room_bytes ? result : NULL);
}

/* ---- encoding (docs/FORMATS.md) ---- */

#define TABLE_VERSION      1u
#define TABLE_HEAD_BYTES   8u
#define SESSION_HEAD_BYTES 32u
#define RESULT_HEAD_BYTES  24u

static uint8_t *put_u32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof v);
    return at + sizeof v;
}

static uint8_t *put_u64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof v);
    return at + sizeof v;
}

static uint8_t *put_result(uint8_t *at, const struct result *r)
{
    assert(r->state != RESULT_PENDING);
    at = put_u64(at, r->series_id);
    at = put_u64(at, r->value);
    at = put_u32(at, r->state);
    at = put_u32(at, r->size_bytes);
    if (r->size_bytes)
        memcpy(at, r->data, r->size_bytes);
    return at + r->size_bytes;
}

static uint8_t *put_session(uint8_t *at, const struct session *c)
{
    at = put_u64(at, c->client_id);
    at = put_u64(at, c->acked_to);
    at = put_u64(at, c->lost_to);
    at = put_u32(at, (uint32_t)c->n_results);
    at = put_u32(at, 0);
    for (size_t i = 0; i < c->n_results; i++)
        at = put_result(at, &c->results[i]);
    return at;
}

static size_t encoded_bytes(const struct sessions *s)
{
    size_t n = TABLE_HEAD_BYTES;

    for (const struct list *l = s->lru.next; l != &s->lru; l = l->next) {
        const struct session *c = container_of(l, struct session, lru);

        n += SESSION_HEAD_BYTES + c->n_results * RESULT_HEAD_BYTES;
        for (size_t i = 0; i < c->n_results; i++)
            n += c->results[i].size_bytes;
    }
    return n;
}

uint8_t *sessions_encode(const struct sessions *s, size_t *ret_size_bytes)
{
    size_t size_bytes = encoded_bytes(s);
    uint8_t *data = xmalloc(size_bytes), *at = data;

    at = put_u32(at, TABLE_VERSION);
    at = put_u32(at, (uint32_t)sessions_count(s));
    for (const struct list *l = s->lru.next; l != &s->lru; l = l->next)
        at = put_session(at, container_of(l, struct session, lru));
    assert(at == data + size_bytes);
    *ret_size_bytes = size_bytes;
    return data;
}

/* ---- decoding ---- */

struct input {
    const struct image_source *source;
    uint8_t *buffer; /* TAKE_BYTES_MAX */
    uint64_t at;     /* bytes taken */
    uint64_t kept_bytes, kept_bytes_max;
    struct nh_error *err;
};

#define TAKE_BYTES_MAX SESSION_RESULT_BYTES_MAX

static int corrupt(const struct input *in, const char *what)
{
    return nh_error_set(in->err, NH_ECORRUPT, "session table, before offset %" PRIu64 ": %s", in->at, what);
}

/* The next n bytes, into the buffer. `what` is the text if there are not as many. */
static int take(struct input *in, size_t n, const char *what)
{
    for (size_t have = 0; have < n;) {
        int64_t r = in->source->read(in->source->ctx, in->buffer + have, n - have, in->err);

        if (r < 0)
            return (int)r;
        if (r == 0)
            return corrupt(in, what);
        have += (size_t)r;
        in->at += (uint64_t)r;
    }
    return NH_OK;
}

static int take_end(struct input *in)
{
    int64_t r = in->source->read(in->source->ctx, in->buffer, 1, in->err);

    return r > 0 ? corrupt(in, "something behind its end") : (int)r;
}

static int take_data(struct input *in, struct result *to, struct nh_result *result)
{
    int r = take(in, result->size_bytes, "a result longer than the table");

    if (r < 0)
        return r;
    result->data = in->buffer;
    if (result->size_bytes > in->kept_bytes_max - in->kept_bytes)
        result = NULL;
    else
        in->kept_bytes += result->size_bytes;
    set_result(to, result);
    return NH_OK;
}

static int take_result(struct input *in, struct sessions *s, struct session *c)
{
    uint64_t series_id, above = c->n_results ? c->results[c->n_results - 1].series_id : 0;
    int r = take(in, RESULT_HEAD_BYTES, "it ends inside a result");
    struct nh_result result = {0};
    uint32_t state;

    if (r < 0)
        return r;
    series_id = nh_load_u64(in->buffer);
    result.value = nh_load_u64(in->buffer + 8);
    state = nh_load_u32(in->buffer + 16);
    result.size_bytes = nh_load_u32(in->buffer + 20);
    if (series_id <= above || series_id <= c->acked_to || series_id <= c->lost_to || series_id >= SESSION_OPEN)
        return corrupt(in, "a result out of order");
    if (state > RESULT_KEPT || (state == RESULT_NONE && (result.value || result.size_bytes)) ||
        result.size_bytes > SESSION_RESULT_BYTES_MAX)
        return corrupt(in, "a result that cannot be");
    if (state == RESULT_KEPT)
        return take_data(in, insert_result(s, c, series_id), &result);
    set_result(insert_result(s, c, series_id), NULL);
    return NH_OK;
}

static int take_session(struct input *in, struct sessions *s)
{
    int r = take(in, SESSION_HEAD_BYTES, "it ends inside a session");
    struct session *c;
    uint64_t client_id;
    uint32_t n;

    if (r < 0)
        return r;
    client_id = nh_load_u64(in->buffer);
    n = nh_load_u32(in->buffer + 24);
    if (client_id == 0 || map_get(&s->by_client, client_id))
        return corrupt(in, "a client id that is 0 or there twice");
    c = add_session(s, client_id);
    c->acked_to = nh_load_u64(in->buffer + 8);
    c->lost_to = nh_load_u64(in->buffer + 16);
    if (c->acked_to >= SESSION_OPEN || c->lost_to >= SESSION_OPEN || (c->lost_to && c->lost_to <= c->acked_to + 1))
        return corrupt(in, "marks that cannot be");
    if (n > SESSION_RESULTS_MAX || nh_load_u32(in->buffer + 28) != 0)
        return corrupt(in, "a session with too many results");
    while (r == NH_OK && n-- > 0)
        r = take_result(in, s, c);
    return r;
}

static int take_table(struct input *in, struct sessions *s)
{
    int r = take(in, TABLE_HEAD_BYTES, "no head");
    uint32_t n;

    if (r < 0)
        return r;
    if (nh_load_u32(in->buffer) != TABLE_VERSION)
        return corrupt(in, "another version than 1");
    n = nh_load_u32(in->buffer + 4);
    if (n > SESSIONS_MAX)
        return corrupt(in, "more sessions than can be");
    while (r == NH_OK && n-- > 0)
        r = take_session(in, s);
    return r == NH_OK ? take_end(in) : r;
}

int sessions_decode(const struct image_source *source, uint64_t kept_bytes_max, struct sessions **ret, struct nh_error *err)
{
    struct input in = {.source = source, .buffer = xmalloc(TAKE_BYTES_MAX), .kept_bytes_max = kept_bytes_max, .err = err};
    struct sessions *s = sessions_new();
    int r = take_table(&in, s);

    free(in.buffer);
    if (r == NH_OK)
        *ret = s;
    else
        sessions_free(s);
    return r;
}
