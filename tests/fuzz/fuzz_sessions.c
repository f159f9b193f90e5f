/* sessions_decode over any bytes: what decodes encodes to the same bytes. And the bytes as entries: a table that keeps every
 * result at once and one that keeps them late give the same verdicts and have the same bytes. */
#include <string.h>

#include "engine/rsm/sessions.h"
#include "tests/fuzz/fuzz.h"

#define PENDING_MAX 64u

static void check_equal(const struct sessions *s, const uint8_t *data, size_t size_bytes)
{
    size_t n;
    uint8_t *again = sessions_encode(s, &n);

    FUZZ_CHECK(n == size_bytes && memcmp(again, data, n) == 0);
    free(again);
}

struct bytes_source {
    const uint8_t *at;
    size_t left_bytes;
};

/* In pieces of up to 7 bytes. */
static int64_t read_bytes(void *ctx, void *data, size_t cap_bytes, struct nh_error *err)
{
    struct bytes_source *b = ctx;
    size_t n = cap_bytes < 7 ? cap_bytes : 7;

    (void)err;
    n = n < b->left_bytes ? n : b->left_bytes;
    memcpy(data, b->at, n);
    b->at += n;
    b->left_bytes -= n;
    return (int64_t)n;
}

static void try_decode(const uint8_t *data, size_t size_bytes)
{
    struct bytes_source bytes = {data, size_bytes};
    const struct image_source source = {read_bytes, &bytes};
    struct sessions *s = NULL;
    struct nh_error err = {0};

    if (sessions_decode(&source, SESSIONS_KEPT_BYTES_MAX, &s, &err) == NH_OK)
        check_equal(s, data, size_bytes);
    else
        FUZZ_CHECK(!s && err.code == NH_ECORRUPT && err.text[0]);
    sessions_free(s);
}

struct pending {
    uint64_t client_id, series_id;
};

struct pair {
    struct sessions *prompt, *late;
    struct pending pending[PENDING_MAX];
    unsigned n_pending;
};

static void keep(struct sessions *s, uint64_t client_id, uint64_t series_id)
{
    struct nh_result r = {.value = series_id, .data = "result", .size_bytes = series_id % 7};

    sessions_keep(s, client_id, series_id, series_id % 5 ? &r : NULL);
}

static void keep_late(struct pair *p)
{
    for (unsigned i = 0; i < p->n_pending; i++)
        keep(p->late, p->pending[i].client_id, p->pending[i].series_id);
    p->n_pending = 0;
}

static void try_entry(struct pair *p, const struct nh_entry_view *e)
{
    struct nh_result a = {0}, b = {0};
    enum session_verdict prompt = sessions_check(p->prompt, e, &a), late = sessions_check(p->late, e, &b);

    if (late == SESSION_IN_BATCH) {
        keep_late(p);
        late = sessions_check(p->late, e, &b);
    }
    FUZZ_CHECK(prompt == late && a.value == b.value && a.size_bytes == b.size_bytes);
    if (late != SESSION_APPLY)
        return;
    keep(p->prompt, e->client_id, e->series_id);
    p->pending[p->n_pending++] = (struct pending){e->client_id, e->series_id};
    if (p->n_pending == PENDING_MAX)
        keep_late(p);
}

/* Two bytes an entry. The second is the series id, in steps that leave the results' limit in reach. */
static void try_entries(const uint8_t *data, size_t size_bytes)
{
    struct pair p = {.prompt = sessions_new(), .late = sessions_new()};
    uint8_t *bytes;
    size_t n;

    for (size_t i = 0; i + 1 < size_bytes; i += 2) {
        uint32_t limit = data[i + 1] % 4;
        struct nh_entry_view e = {.client_id = data[i] % 4, .payload = (uint8_t *)&limit, .payload_bytes = sizeof limit};
        unsigned what = data[i] / 4 % 8;

        e.series_id = what == 0 ? SESSION_OPEN : what == 1 ? SESSION_CLOSE : data[i + 1] + 64u * (what - 2);
        e.responded_to = what < 6 ? 0 : (uint64_t)data[i] / 32 * 64;
        try_entry(&p, &e);
    }
    keep_late(&p);
    bytes = sessions_encode(p.prompt, &n);
    check_equal(p.late, bytes, n);
    try_decode(bytes, n);
    free(bytes);
    sessions_free(p.prompt);
    sessions_free(p.late);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    try_decode(data, size_bytes);
    try_entries(data, size_bytes);
    return 0;
}
