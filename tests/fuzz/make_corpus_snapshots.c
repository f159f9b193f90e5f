/* The seed corpora of what snapshots are made of. */
#include "tests/fuzz/make_corpus.h"

#include <stdlib.h>
#include <string.h>

#include "engine/rsm/sessions.h"

static void open_session(struct sessions *s, uint64_t client_id)
{
    uint32_t limit = SESSIONS_DEFAULT;
    struct nh_entry_view e = {.client_id = client_id,
                              .series_id = SESSION_OPEN,
                              .payload = (uint8_t *)&limit,
                              .payload_bytes = sizeof limit};
    struct nh_result r;

    sessions_check(s, &e, &r);
}

static void apply(struct sessions *s, uint64_t client_id, uint64_t series_id, uint64_t responded_to, const char *text)
{
    struct nh_entry_view e = {.client_id = client_id, .series_id = series_id, .responded_to = responded_to};
    struct nh_result r = {.value = series_id, .data = text, .size_bytes = text ? strlen(text) : 0}, old;

    sessions_check(s, &e, &old);
    sessions_keep(s, client_id, series_id, text ? &r : NULL);
}

static void save_sessions(const char *name, const struct sessions *s)
{
    size_t n;
    uint8_t *data = sessions_encode(s, &n);

    save(name, data, n);
    free(data);
}

static void make_sessions(void)
{
    struct sessions *s = sessions_new();

    save_sessions("sessions/empty", s);
    open_session(s, 7);
    open_session(s, 9);
    apply(s, 7, 1, 0, "one");
    apply(s, 7, 2, 0, "");
    apply(s, 7, 4, 1, NULL);
    apply(s, 9, UINT64_MAX - 2, 0, "last");
    save_sessions("sessions/two", s);
    for (uint64_t i = 2; i <= SESSION_RESULTS_MAX + 3; i++)
        apply(s, 9, i, 0, NULL);
    save_sessions("sessions/lost", s);
    sessions_free(s);
}

/* Entries in the form that fuzz_sessions reads: the two halves are the same, so that everything comes again. */
static void make_entries(void)
{
    uint8_t data[256];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 128 * 37 + i % 128 / 7);
    save("sessions/entries", data, sizeof data);
}

void make_snapshots(void)
{
    make_sessions();
    make_entries();
}
