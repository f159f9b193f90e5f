#include "engine/rsm/sessions.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sessions *s;
static struct nh_result got;
static struct nh_error err;

/* Bytes that come one at a time. */
struct bytes_source {
    const uint8_t *at;
    size_t left_bytes;
};

static int64_t read_bytes(void *ctx, void *data, size_t cap_bytes, struct nh_error *e)
{
    struct bytes_source *b = ctx;

    (void)e;
    if (b->left_bytes == 0 || cap_bytes == 0)
        return 0;
    b->left_bytes--;
    *(uint8_t *)data = *b->at++;
    return 1;
}

static int decode_up_to(struct sessions **t, const uint8_t *data, size_t n, uint64_t kept_bytes_max, struct nh_error *e)
{
    struct bytes_source bytes = {data, n};
    const struct image_source source = {read_bytes, &bytes};
    struct sessions *fresh = NULL;
    int r = sessions_decode(&source, kept_bytes_max, &fresh, e);

    if (r < 0) {
        cr_assert_null(fresh);
        return r;
    }
    sessions_free(*t);
    *t = fresh;
    return r;
}

/* Replaces *t. */
static int decode(struct sessions **t, const uint8_t *data, size_t n, struct nh_error *e)
{
    return decode_up_to(t, data, n, SESSIONS_KEPT_BYTES_MAX, e);
}

static void setup(void)
{
    s = sessions_new();
}

static void teardown(void)
{
    sessions_free(s);
}

TestSuite(sessions, .init = setup, .fini = teardown);

static enum session_verdict open_with(struct sessions *t, uint64_t client_id, uint32_t limit)
{
    struct nh_entry_view e = {.client_id = client_id,
                              .series_id = SESSION_OPEN,
                              .payload = (const uint8_t *)&limit,
                              .payload_bytes = sizeof limit};

    return sessions_check(t, &e, &got);
}

static enum session_verdict open_(uint64_t client_id)
{
    return open_with(s, client_id, SESSIONS_DEFAULT);
}

static enum session_verdict close_(uint64_t client_id)
{
    struct nh_entry_view e = {.client_id = client_id, .series_id = SESSION_CLOSE};

    return sessions_check(s, &e, &got);
}

static enum session_verdict check(uint64_t client_id, uint64_t series_id, uint64_t responded_to)
{
    struct nh_entry_view e = {.client_id = client_id, .series_id = series_id, .responded_to = responded_to};

    return sessions_check(s, &e, &got);
}

static void keep(uint64_t client_id, uint64_t series_id, const char *text)
{
    struct nh_result r = {.value = series_id * 10, .data = text, .size_bytes = strlen(text)};

    sessions_keep(s, client_id, series_id, &r);
}

static void apply(uint64_t client_id, uint64_t series_id, uint64_t responded_to)
{
    cr_assert_eq(check(client_id, series_id, responded_to), SESSION_APPLY, "series %lu", series_id);
    keep(client_id, series_id, "result");
}

static bool is_open(uint64_t client_id)
{
    return check(client_id, 1, 0) != SESSION_UNKNOWN;
}

/* ---- one session ---- */

Test(sessions, opening_and_closing_answer_with_the_client_id)
{
    cr_assert_eq(open_(7), SESSION_OPENED);
    cr_assert_eq(got.value, 7);
    cr_assert_eq(got.size_bytes, 0);
    cr_assert_eq(sessions_count(s), 1);
    got = (struct nh_result){0};
    cr_assert_eq(close_(7), SESSION_CLOSED);
    cr_assert_eq(got.value, 7);
    cr_assert_eq(sessions_count(s), 0);
    cr_assert_eq(close_(7), SESSION_UNKNOWN);
}

Test(sessions, an_entry_is_applied_once_and_its_result_repeated)
{
    open_(7);
    cr_assert_eq(check(7, 1, 0), SESSION_APPLY);
    keep(7, 1, "one");
    for (int i = 0; i < 3; i++) {
        got = (struct nh_result){0};
        cr_assert_eq(check(7, 1, 0), SESSION_REPEATED);
        cr_assert_eq(got.value, 10);
        cr_assert_eq(got.size_bytes, 3);
        cr_assert_eq(memcmp(got.data, "one", 3), 0);
    }
}

Test(sessions, an_empty_result_is_a_result)
{
    open_(7);
    check(7, 1, 0);
    sessions_keep(s, 7, 1, &(struct nh_result){.value = 5});
    cr_assert_eq(check(7, 1, 0), SESSION_REPEATED);
    cr_assert_eq(got.value, 5);
    cr_assert_eq(got.size_bytes, 0);
}

Test(sessions, proposals_may_come_in_any_order)
{
    open_(7);
    apply(7, 5, 0);
    apply(7, 2, 0);
    apply(7, 9, 1);
    cr_assert_eq(check(7, 2, 0), SESSION_REPEATED);
    cr_assert_eq(got.value, 20);
    cr_assert_eq(check(7, 5, 0), SESSION_REPEATED);
    cr_assert_eq(check(7, 9, 0), SESSION_REPEATED);
    apply(7, 3, 0);
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
}

Test(sessions, what_the_client_has_seen_is_forgotten)
{
    open_(7);
    apply(7, 1, 0);
    apply(7, 2, 0);
    apply(7, 3, 2);
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
    cr_assert_eq(check(7, 2, 0), SESSION_ACKED);
    cr_assert_eq(check(7, 3, 0), SESSION_REPEATED);
}

Test(sessions, a_repetition_acknowledges_too)
{
    open_(7);
    apply(7, 1, 0);
    apply(7, 2, 0);
    cr_assert_eq(check(7, 2, 1), SESSION_REPEATED);
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
}

Test(sessions, an_unknown_result_is_answered_as_acknowledged)
{
    open_(7);
    check(7, 1, 0);
    sessions_keep(s, 7, 1, NULL);
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
}

Test(sessions, nothing_is_known_without_a_session)
{
    cr_assert_eq(check(7, 1, 0), SESSION_UNKNOWN);
    sessions_keep(s, 7, 1, NULL);
    open_(7);
    apply(7, 1, 0);
    close_(7);
    cr_assert_eq(check(7, 1, 0), SESSION_UNKNOWN);
    open_(7);
    apply(7, 1, 0); /* a new session knows nothing of the old one */
}

Test(sessions, what_makes_no_sense_changes_nothing)
{
    uint8_t payload[5] = {0};
    struct nh_entry_view e = {.client_id = 7, .series_id = SESSION_OPEN, .payload = payload};

    cr_assert_eq(open_(0), SESSION_INVALID);
    cr_assert_eq(check(0, 1, 0), SESSION_INVALID);
    cr_assert_eq(close_(0), SESSION_INVALID);
    for (uint32_t n = 0; n <= 5; n++) {
        payload[0] = n == 4 ? 0 : 9;
        e.payload_bytes = n;
        cr_assert_eq(sessions_check(s, &e, &got), SESSION_INVALID, "payload of %u bytes", n);
    }
    cr_assert_eq(open_with(s, 7, SESSIONS_MAX + 1), SESSION_INVALID);
    cr_assert_eq(sessions_count(s), 0);
    cr_assert_eq(open_with(s, 7, SESSIONS_MAX), SESSION_OPENED);
    apply(7, 1, 0);
    cr_assert_eq(check(7, 0, 0), SESSION_INVALID);
    cr_assert_eq(check(7, 2, 2), SESSION_INVALID);
    cr_assert_eq(check(7, 2, 3), SESSION_INVALID);
    cr_assert_eq(check(7, 1, 0), SESSION_REPEATED);
    apply(7, SESSION_OPEN - 1, SESSION_OPEN - 2);
}

/* ---- the limit of results ---- */

Test(sessions, the_oldest_result_gives_way_at_the_limit)
{
    open_(7);
    for (uint64_t i = 1; i <= SESSION_RESULTS_MAX; i++)
        apply(7, i, 0);
    cr_assert_eq(check(7, 1, 0), SESSION_REPEATED);
    apply(7, SESSION_RESULTS_MAX + 1, 0);
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
    cr_assert_eq(check(7, 2, 0), SESSION_REPEATED);
    cr_assert_eq(check(7, SESSION_RESULTS_MAX + 1, 0), SESSION_REPEATED);
}

Test(sessions, a_gap_that_is_forgotten_is_neither_applied_nor_called_applied)
{
    open_(7);
    for (uint64_t i = 2; i <= SESSION_RESULTS_MAX + 1; i++)
        apply(7, i, 0);
    cr_assert_eq(check(7, 2, 0), SESSION_REPEATED);
    apply(7, SESSION_RESULTS_MAX + 2, 0); /* 2 gives way, and 1 was never seen */
    cr_assert_eq(check(7, 1, 0), SESSION_UNKNOWN);
    cr_assert_eq(check(7, 3, 0), SESSION_REPEATED);
    apply(7, SESSION_RESULTS_MAX + 3, 1); /* the client knows about 1: everything is known again */
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
    cr_assert_eq(check(7, 3, 0), SESSION_ACKED);
}

Test(sessions, a_late_entry_of_a_gap_may_give_way_at_once)
{
    open_(7);
    for (uint64_t i = 2; i <= SESSION_RESULTS_MAX + 1; i++)
        apply(7, i, 0);
    apply(7, 1, 0);
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
    cr_assert_eq(check(7, 2, 0), SESSION_REPEATED);
}

/* ---- the limit of sessions ---- */

Test(sessions, the_least_recently_used_is_evicted)
{
    for (uint64_t id = 1; id <= 3; id++)
        cr_assert_eq(open_with(s, id, 3), SESSION_OPENED);
    apply(1, 1, 0);
    cr_assert_eq(open_with(s, 4, 3), SESSION_OPENED);
    cr_assert_eq(sessions_count(s), 3);
    cr_assert_not(is_open(2));
    cr_assert(is_open(3)); /* used: 1 is now the oldest */
    cr_assert_eq(open_with(s, 5, 3), SESSION_OPENED);
    cr_assert_not(is_open(1));
    cr_assert(is_open(4));
}

Test(sessions, opening_again_is_harmless)
{
    open_with(s, 1, 2);
    apply(1, 1, 0);
    open_with(s, 2, 2);
    cr_assert_eq(open_with(s, 1, 2), SESSION_OPENED);
    cr_assert_eq(got.value, 1);
    cr_assert_eq(sessions_count(s), 2);
    cr_assert_eq(check(1, 1, 0), SESSION_REPEATED);
    open_with(s, 2, 2);
    open_with(s, 1, 2); /* counts as a use */
    open_with(s, 3, 2);
    cr_assert_not(is_open(2));
    cr_assert(is_open(1));
}

Test(sessions, a_smaller_limit_evicts_down_to_it)
{
    for (uint64_t id = 1; id <= 10; id++)
        open_with(s, id, 10);
    cr_assert_eq(open_with(s, 11, 4), SESSION_OPENED);
    cr_assert_eq(sessions_count(s), 4);
    for (uint64_t id = 1; id <= 7; id++)
        cr_assert_not(is_open(id));
    cr_assert_eq(open_with(s, 8, 1), SESSION_OPENED); /* also when it is open already; it stays itself */
    cr_assert_eq(sessions_count(s), 1);
    cr_assert(is_open(8));
    for (uint64_t id = 20; id <= 30; id++)
        open_with(s, id, 3);
    cr_assert_eq(sessions_count(s), 3);
}

/* ---- batches ---- */

Test(sessions, a_repetition_within_a_batch_waits_for_the_result)
{
    open_(7);
    cr_assert_eq(check(7, 1, 0), SESSION_APPLY);
    cr_assert_eq(check(7, 2, 0), SESSION_APPLY);
    cr_assert_eq(check(7, 1, 0), SESSION_IN_BATCH);
    keep(7, 1, "one");
    keep(7, 2, "two");
    cr_assert_eq(check(7, 1, 0), SESSION_REPEATED);
    cr_assert_eq(memcmp(got.data, "one", 3), 0);
}

Test(sessions, a_result_that_comes_too_late_is_dropped)
{
    open_(7);
    check(7, 1, 0);
    close_(7);
    keep(7, 1, "one");
    open_(7);
    keep(7, 1, "one");
    cr_assert_eq(check(7, 1, 0), SESSION_APPLY);
    cr_assert_eq(check(7, 2, 1), SESSION_APPLY); /* acknowledged while it was being applied */
    keep(7, 1, "one");
    keep(7, 2, "two");
    cr_assert_eq(check(7, 1, 0), SESSION_ACKED);
}

Test(sessions, a_session_reopened_in_a_batch_keeps_the_later_result)
{
    open_(7);
    check(7, 1, 0);
    close_(7);
    open_(7);
    cr_assert_eq(check(7, 1, 0), SESSION_APPLY);
    keep(7, 1, "of the first session");
    keep(7, 1, "second");
    cr_assert_eq(check(7, 1, 0), SESSION_REPEATED);
    cr_assert_eq(memcmp(got.data, "second", 6), 0);
}

static void add_random_entry(struct nh_entry_view *e, uint32_t *limit)
{
    *limit = (uint32_t)(1 + rand() % 3);
    *e = (struct nh_entry_view){.client_id = (uint64_t)(1 + rand() % 4), .series_id = (uint64_t)(1 + rand() % 600)};
    if (rand() % 400 == 0)
        e->series_id = rand() % 4 ? SESSION_OPEN : SESSION_CLOSE;
    else if (rand() % 50 == 0)
        e->responded_to = (uint64_t)rand() % e->series_id;
    if (e->series_id == SESSION_OPEN) {
        e->payload = (const uint8_t *)limit;
        e->payload_bytes = sizeof *limit;
    }
}

/* What a batch keeps back until it ends. */
struct pending {
    uint64_t client_id, series_id, index;
};

static void keep_all(struct sessions *t, struct pending *p, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        sessions_keep(t, p[i].client_id, p[i].series_id, &(struct nh_result){p[i].index, &p[i].index, sizeof p[i].index});
    *n = 0;
}

static void expect_equal(const struct sessions *a, const struct sessions *b)
{
    size_t n_a, n_b;
    uint8_t *x = sessions_encode(a, &n_a), *y = sessions_encode(b, &n_b);

    cr_assert_eq(n_a, n_b);
    cr_assert_eq(memcmp(x, y, n_a), 0);
    free(x);
    free(y);
}

Test(sessions, the_table_does_not_depend_on_the_sizes_of_batches)
{
    struct sessions *batched = sessions_new();
    static struct pending pending[2000];
    unsigned seen[SESSION_INVALID + 1] = {0};
    size_t n = 0;

    srand(5);
    for (uint64_t index = 1; index <= 40000; index++) {
        struct nh_entry_view e;
        uint32_t limit;
        enum session_verdict a, b;

        add_random_entry(&e, &limit);
        a = sessions_check(s, &e, &got);
        if (a == SESSION_APPLY)
            sessions_keep(s, e.client_id, e.series_id, &(struct nh_result){index, &index, sizeof index});
        b = sessions_check(batched, &e, &got);
        if (b == SESSION_IN_BATCH) {
            keep_all(batched, pending, &n);
            b = sessions_check(batched, &e, &got);
        }
        cr_assert_eq(a, b, "entry %lu", index);
        seen[a]++;
        if (b == SESSION_APPLY)
            pending[n++] = (struct pending){e.client_id, e.series_id, index};
        if (n == 2000 || rand() % 300 == 0) {
            keep_all(batched, pending, &n);
            expect_equal(s, batched);
        }
    }
    for (int v = 0; v < SESSION_INVALID; v++)
        cr_assert(seen[v] > 0 || v == SESSION_IN_BATCH, "verdict %d was never seen", v);
    sessions_free(batched);
}

/* ---- encoding ---- */

static void fill(void)
{
    for (uint64_t id = 3; id <= 5; id++)
        open_(id);
    apply(4, 1, 0);
    apply(4, 2, 0);
    check(4, 3, 0);
    sessions_keep(s, 4, 3, NULL);
    apply(3, 9, 8);
    for (uint64_t i = 2; i <= SESSION_RESULTS_MAX + 2; i++)
        apply(5, i, 0);
}

Test(sessions, the_format_does_not_change)
{
    static const uint64_t golden[] = {
        0x200000001,                                      /* two sessions, version 1 */
        9,           0,  0,           0,                  /* client id: the least recently used; acked to, lost to, results */
        7,           2,  0,           2,                  /* another client */
        3,           30, 0x800000001, 0x4847464544434241, /* series id, value, 8 bytes and kept, the bytes */
        4,           0,  0,                               /* its result is not known */
    };
    struct sessions *t = sessions_new();
    uint8_t *data;
    size_t n;

    open_(7);
    open_(9);
    check(7, 3, 2);
    keep(7, 3, "ABCDEFGH");
    check(7, 4, 2);
    sessions_keep(s, 7, 4, NULL);
    data = sessions_encode(s, &n);
    cr_assert_eq(n, sizeof golden);
    cr_assert_eq(memcmp(data, golden, n), 0);
    free(data);
    cr_assert_eq(decode(&t, (const uint8_t *)golden, sizeof golden, &err), NH_OK);
    expect_equal(s, t);
    sessions_free(t);
}

Test(sessions, a_decoded_table_goes_on_as_the_first_one)
{
    struct sessions *t = sessions_new(), *kept = s;
    uint8_t *data;
    size_t n;

    open_with(t, 99, 9); /* gives way */
    fill();
    data = sessions_encode(s, &n);
    cr_assert_eq(decode(&t, data, n, &err), NH_OK, "%s", err.text);
    expect_equal(s, t);
    s = t;
    cr_assert_eq(check(99, 1, 0), SESSION_UNKNOWN);
    cr_assert_eq(check(4, 2, 0), SESSION_REPEATED);
    cr_assert_eq(got.value, 20);
    cr_assert_eq(got.size_bytes, 6);
    cr_assert_eq(check(4, 3, 0), SESSION_ACKED);
    cr_assert_eq(check(3, 8, 0), SESSION_ACKED);
    cr_assert_eq(check(5, 1, 0), SESSION_UNKNOWN);
    open_with(t, 6, 3); /* 4, 3 and 5 were used in this order */
    cr_assert_eq(check(4, 2, 0), SESSION_UNKNOWN);
    cr_assert_eq(check(3, 9, 0), SESSION_REPEATED);
    s = kept;
    free(data);
    sessions_free(t);
}

Test(sessions, equal_tables_have_equal_bytes_whatever_their_histories)
{
    struct sessions *t = sessions_new(), *first = s;

    open_(1);
    open_(2);
    apply(1, 1, 0);
    apply(1, 3, 0);
    apply(1, 2, 0);
    apply(2, 7, 6);
    s = t;
    open_(2);
    apply(2, 1, 0);
    open_(5);
    open_(1);
    apply(1, 3, 0);
    apply(1, 1, 0);
    check(1, 2, 0);
    keep(1, 2, "result");
    close_(5);
    apply(2, 7, 6);
    s = first;
    expect_equal(s, t);
    sessions_free(t);
}

Test(sessions, an_empty_table_has_eight_bytes)
{
    struct sessions *t = sessions_new();
    uint8_t *data;
    size_t n;

    data = sessions_encode(s, &n);
    cr_assert_eq(n, 8);
    open_with(t, 1, 1);
    cr_assert_eq(decode(&t, data, n, &err), NH_OK);
    cr_assert_eq(sessions_count(t), 0);
    cr_assert_eq(open_with(t, 1, 1), SESSION_OPENED);
    free(data);
    sessions_free(t);
}

/* A decode of n bytes in a block of their own is refused and leaves the table as it was. */
static void expect_refused(const uint8_t *data, size_t n, const char *what)
{
    struct sessions *before = sessions_new();
    uint8_t *copy = malloc(n ? n : 1), *bytes;
    size_t n_bytes;

    memcpy(copy, data, n);
    bytes = sessions_encode(s, &n_bytes);
    cr_assert_eq(decode(&before, bytes, n_bytes, NULL), NH_OK);
    err = (struct nh_error){0};
    cr_assert_eq(decode(&s, copy, n, &err), NH_ECORRUPT, "%s", what);
    cr_assert_eq(err.code, NH_ECORRUPT);
    cr_assert_neq(err.text[0], 0);
    expect_equal(s, before);
    free(copy);
    free(bytes);
    sessions_free(before);
}

Test(sessions, every_truncation_is_refused)
{
    uint8_t *data;
    size_t n;

    open_(1);
    open_(2);
    apply(1, 1, 0);
    apply(1, 5, 3);
    data = sessions_encode(s, &n);
    for (size_t cut = 0; cut < n; cut++)
        expect_refused(data, cut, "truncated");
    data = realloc(data, n + 1);
    data[n] = 0;
    expect_refused(data, n + 1, "longer");
    free(data);
}

static void refuse_changed(size_t offset, uint64_t value, size_t width, const char *what)
{
    uint8_t *data;
    size_t n;

    data = sessions_encode(s, &n);
    cr_assert_leq(offset + width, n);
    memcpy(data + offset, &value, width);
    expect_refused(data, n, what);
    free(data);
}

Test(sessions, what_cannot_be_is_refused)
{
    /* Offsets: 8 first session, 40 its first result (6 bytes of data), 70 the second (6), 100 second session. */
    open_(1);
    open_(2);
    apply(1, 5, 3);
    apply(1, 7, 3);
    open_(2);
    refuse_changed(0, 2, 4, "version");
    refuse_changed(4, 1, 4, "fewer sessions");
    refuse_changed(4, 3, 4, "more sessions");
    refuse_changed(4, UINT32_MAX, 4, "very many sessions");
    refuse_changed(8, 0, 8, "client id 0");
    refuse_changed(8, 2, 8, "a client twice");
    refuse_changed(16, 5, 8, "a result that is acknowledged");
    refuse_changed(16, SESSION_OPEN, 8, "acked too high");
    refuse_changed(24, 5, 8, "a result that is lost");
    refuse_changed(24, 2, 8, "lost below acked");
    refuse_changed(24, 4, 8, "lost right above acked");
    refuse_changed(24, SESSION_CLOSE, 8, "lost too high");
    refuse_changed(32, SESSION_RESULTS_MAX + 1, 4, "too many results");
    refuse_changed(36, 1, 4, "not zero");
    refuse_changed(40, 7, 8, "a result twice");
    refuse_changed(40, 8, 8, "out of order");
    refuse_changed(70, SESSION_OPEN, 8, "no series id");
    refuse_changed(56, 2, 4, "unknown state");
    refuse_changed(56, 0, 4, "bytes of an unknown result");
    refuse_changed(60, UINT32_MAX, 4, "longer than the table");
    refuse_changed(60, 7, 4, "one byte longer");
    refuse_changed(60, SESSION_RESULT_BYTES_MAX + 1, 4, "longer than any");
}

Test(sessions, as_many_as_can_be_are_decoded_and_no_more)
{
    uint8_t *data = calloc(8 + 32, SESSIONS_MAX + 1);
    uint32_t version = 1, n = SESSIONS_MAX;

    memcpy(data, &version, 4);
    memcpy(data + 4, &n, 4);
    for (uint64_t id = 1; id <= SESSIONS_MAX + 1; id++)
        memcpy(data + 8 + 32 * (id - 1), &id, 8);
    cr_assert_eq(decode(&s, data, 8 + 32u * n, &err), NH_OK);
    cr_assert_eq(sessions_count(s), SESSIONS_MAX);
    cr_assert_eq(open_with(s, 1u << 20, SESSIONS_MAX), SESSION_OPENED);
    cr_assert_eq(sessions_count(s), SESSIONS_MAX);
    n++;
    memcpy(data + 4, &n, 4);
    cr_assert_eq(decode(&s, data, 8 + 32u * n, &err), NH_ECORRUPT);
    free(data);
}

Test(sessions, a_large_result_is_not_kept)
{
    struct nh_entry_view e = {.client_id = 1, .series_id = 1};
    struct nh_result r = {.value = 1, .size_bytes = SESSION_RESULT_BYTES_MAX}, kept;

    r.data = calloc(1, SESSION_RESULT_BYTES_MAX + 1);
    cr_assert_eq(open_with(s, 1, 10), SESSION_OPENED);
    cr_assert_eq(sessions_check(s, &e, &kept), SESSION_APPLY);
    sessions_keep(s, 1, 1, &r);
    cr_assert_eq(sessions_check(s, &e, &kept), SESSION_REPEATED);
    cr_assert_eq(kept.size_bytes, SESSION_RESULT_BYTES_MAX);
    e.series_id = 2;
    r.size_bytes++;
    cr_assert_eq(sessions_check(s, &e, &kept), SESSION_APPLY);
    sessions_keep(s, 1, 2, &r);
    cr_assert_eq(sessions_check(s, &e, &kept), SESSION_ACKED);
    free((void *)(size_t)r.data);
}

/* ---- the room for results ---- */

static char zeros[SESSION_RESULT_BYTES_MAX + 1];

static void keep_bytes(struct sessions *t, uint64_t client_id, uint64_t series_id, size_t size_bytes)
{
    struct nh_result r = {.value = 1, .data = zeros, .size_bytes = size_bytes};

    sessions_keep(t, client_id, series_id, &r);
}

static struct nh_entry_view entry_of(uint64_t client_id, uint64_t series_id)
{
    return (struct nh_entry_view){.client_id = client_id, .series_id = series_id};
}

/* n results of no bytes, in sessions of their own. */
static void add_small(struct sessions *t, uint64_t n)
{
    for (uint64_t id = 1; id <= n; id++) {
        struct nh_entry_view e = entry_of(id, 1);

        open_with(t, id, SESSIONS_MAX);
        cr_assert_eq(sessions_check(t, &e, &got), SESSION_APPLY);
        sessions_keep(t, id, 1, &(struct nh_result){.value = 1});
    }
}

/* What is kept of a result of so many bytes that comes next, in the session of client 1. */
static enum session_verdict keep_next(uint64_t series_id, size_t size_bytes)
{
    struct nh_entry_view e = entry_of(1, series_id);

    cr_assert_eq(sessions_check(s, &e, &got), SESSION_APPLY);
    keep_bytes(s, 1, series_id, size_bytes);
    return sessions_check(s, &e, &got);
}

Test(sessions, among_many_results_only_small_ones_are_kept)
{
    const size_t full = SESSIONS_ROOM_BYTES / SESSION_RESULT_BYTES_MAX;

    add_small(s, full - 1);
    cr_assert_eq(keep_next(2, SESSION_RESULT_BYTES_MAX), SESSION_REPEATED, "the last one that may have all");
    cr_assert_eq(keep_next(3, SESSIONS_ROOM_BYTES / (full + 1) + 1), SESSION_ACKED);
    cr_assert_eq(keep_next(4, SESSIONS_ROOM_BYTES / (full + 2)), SESSION_REPEATED);
    cr_assert_eq(got.size_bytes, SESSIONS_ROOM_BYTES / (full + 2));
    for (uint64_t id = 2; id <= 10; id++)
        close_(id);
    cr_assert_eq(keep_next(5, SESSION_RESULT_BYTES_MAX), SESSION_REPEATED, "there is room again");
}

/* Found by reading: 4,096 sessions of 256 results of 64 KiB each are 64 GiB, on every replica and in every image. */
Test(sessions, the_results_of_a_table_have_a_limit)
{
    size_t n;
    uint8_t *data;

    for (uint64_t id = 1; id <= 20; id++) {
        open_(id);
        for (uint64_t series = 1; series <= SESSION_RESULTS_MAX; series++) {
            struct nh_entry_view e = entry_of(id, series);

            cr_assert_eq(sessions_check(s, &e, &got), SESSION_APPLY);
            keep_bytes(s, id, series, SESSION_RESULT_BYTES_MAX);
        }
    }
    data = sessions_encode(s, &n);
    cr_assert_leq(n, SESSIONS_ROOM_BYTES + 20 * (32 + SESSION_RESULTS_MAX * 24) + 8);
    free(data);
}

/* The second table keeps what the first one has kept only when all are checked, among them those that make room. */
Test(sessions, what_is_kept_does_not_depend_on_when_it_is_kept)
{
    struct sessions *t = sessions_new();
    const size_t full = SESSIONS_ROOM_BYTES / SESSION_RESULT_BYTES_MAX;
    struct nh_entry_view first = entry_of(1, 2), second = entry_of(2, 3);

    add_small(s, full);
    add_small(t, full);
    second.responded_to = 2;
    cr_assert_eq(sessions_check(s, &first, &got), SESSION_APPLY);
    keep_bytes(s, 1, 2, SESSION_RESULT_BYTES_MAX);
    cr_assert_eq(sessions_check(s, &second, &got), SESSION_APPLY);
    keep_bytes(s, 2, 3, SESSIONS_ROOM_BYTES / (full + 1));
    cr_assert_eq(sessions_check(t, &first, &got), SESSION_APPLY);
    cr_assert_eq(sessions_check(t, &second, &got), SESSION_APPLY);
    keep_bytes(t, 1, 2, SESSION_RESULT_BYTES_MAX);
    keep_bytes(t, 2, 3, SESSIONS_ROOM_BYTES / (full + 1));
    expect_equal(s, t);
    cr_assert_eq(sessions_check(s, &first, &got), SESSION_ACKED);
    cr_assert_eq(sessions_check(s, &second, &got), SESSION_REPEATED);
    sessions_free(t);
}

/* After a restart from an image the room is that of the table, not of an empty one. */
Test(sessions, a_decoded_table_has_the_same_room)
{
    uint8_t *data;
    size_t n;

    add_small(s, SESSIONS_ROOM_BYTES / SESSION_RESULT_BYTES_MAX);
    data = sessions_encode(s, &n);
    cr_assert_eq(decode(&s, data, n, &err), NH_OK);
    cr_assert_eq(keep_next(2, SESSION_RESULT_BYTES_MAX), SESSION_ACKED);
    free(data);
}

Test(sessions, a_table_of_a_build_without_the_limit_is_taken_without_the_results_above_it)
{
    struct sessions *t = NULL;
    uint8_t *data;
    size_t n;

    open_(7);
    apply(7, 1, 0);
    apply(7, 2, 0);
    apply(7, 3, 0);
    data = sessions_encode(s, &n);
    cr_assert_eq(decode_up_to(&t, data, n, 3 * strlen("result"), &err), NH_OK);
    expect_equal(s, t);
    cr_assert_eq(decode_up_to(&s, data, n, 3 * strlen("result") - 1, &err), NH_OK);
    cr_assert_eq(check(7, 1, 0), SESSION_REPEATED);
    cr_assert_eq(check(7, 2, 0), SESSION_REPEATED);
    cr_assert_eq(check(7, 3, 0), SESSION_ACKED);
    sessions_free(t);
    free(data);
}

static int64_t read_fails(void *ctx, void *data, size_t cap_bytes, struct nh_error *e)
{
    (void)ctx;
    (void)data;
    (void)cap_bytes;
    return nh_error_set(e, NH_EIO, "the disk");
}

Test(sessions, a_source_that_fails_fails_the_decoding)
{
    const struct image_source source = {read_fails, NULL};
    struct sessions *t = NULL;

    cr_assert_eq(sessions_decode(&source, SESSIONS_KEPT_BYTES_MAX, &t, &err), NH_EIO);
    cr_assert_null(t);
}
