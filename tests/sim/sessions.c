/* Clients that have sessions: each has one proposal under way at a time, and sends it again, to any host, for as long as it does
 * not know how it ended; sometimes even then.
 *
 *   a write is applied once (oracle.c: no id at two indexes), however often it was sent
 *   a repeated answer is the first one
 *   EACKED: it was applied. ESESSION: the session was evicted; the client begins another one, and never knows
 *
 * An opening is not sent again with the same number: one that comes late would revive an evicted session without its results.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rsm/sessions.h"
#include "raftio/support/memory.h"
#include "tests/sim/sim.h"

#define CLIENTS 6u

enum doing { DOING_NOTHING, DOING_OPEN, DOING_WRITE, DOING_REPEAT, DOING_CLOSE };

struct client {
    uint64_t shard, client_id;
    uint64_t series, responded_to;
    enum doing doing;
    bool is_open, in_flight;
    uint32_t host;
    uint64_t incarnation;
    uint64_t image; /* that its replica had got last when the proposal began */
    size_t write;   /* the newest, from 1 */
};

struct write {
    uint64_t id, shard;
    uint32_t key, size_bytes;
    uint64_t begin, end; /* end: UINT64_MAX while unknown */
    bool is_acked;       /* no answer will be had any more */
};

static struct client clients[CLIENTS];
static struct write *writes;
static size_t n_writes, cap_writes;
static bool strict;

void sessions_begin(void)
{
    sessions_end();
    for (uint32_t i = 0; i < CLIENTS; i++)
        clients[i].shard = 1 + sim_below(sim.options.n_shards);
}

void sessions_end(void)
{
    free(writes);
    writes = NULL;
    n_writes = cap_writes = 0;
    strict = false;
    memset(clients, 0, sizeof clients);
}

void sessions_set_strict(bool is_strict)
{
    strict = is_strict;
}

static struct write *write_of(const struct client *c)
{
    return &writes[c->write - 1];
}

/* ---- answers ---- */

static void check_write(struct write *w, const struct nh_outcome *o)
{
    uint64_t nth = 0;

    if (o->size_bytes == sizeof nth)
        memcpy(&nth, o->data, sizeof nth);
    if (o->value != w->id || nth != oracle_number_of(w->id))
        sim_fail("session: write %" PRIu64 " gets the answer %" PRIu64 " %" PRIu64 ", it was number %" PRIu64, w->id, o->value,
                 nth, oracle_number_of(w->id));
    if (oracle_index_of(w->id) == 0 || o->index < oracle_index_of(w->id))
        sim_fail("session: write %" PRIu64 " completed at index %" PRIu64 ", but was applied at %" PRIu64, w->id, o->index,
                 oracle_index_of(w->id));
    if (w->is_acked)
        sim_fail("session: write %" PRIu64 " has an answer again", w->id);
    sim.coverage.session_writes++;
    sim.coverage.session_repeated += o->index != oracle_index_of(w->id);
}

static void wrote(struct write *w)
{
    if (w->end == UINT64_MAX)
        w->end = client_step();
}

static void on_completed(struct client *c, const struct nh_outcome *o)
{
    switch (c->doing) {
    case DOING_OPEN:
        if (o->value != c->client_id)
            sim_fail("session %" PRIu64 " is opened as %" PRIu64, c->client_id, o->value);
        c->is_open = true;
        sim.coverage.sessions_opened++;
        break;
    case DOING_WRITE:
    case DOING_REPEAT:
        check_write(write_of(c), o);
        wrote(write_of(c));
        break;
    case DOING_CLOSE:
        c->is_open = false;
        sim.coverage.sessions_closed++;
        break;
    case DOING_NOTHING: sim_fail("session %" PRIu64 ": an answer to nothing", c->client_id);
    }
    c->doing = DOING_NOTHING;
}

static void on_rejected(struct client *c, const struct nh_outcome *o)
{
    bool is_write = c->doing == DOING_WRITE || c->doing == DOING_REPEAT;

    if (o->status == NH_EACKED && is_write) {
        if (oracle_index_of(write_of(c)->id) == 0)
            sim_fail("session: write %" PRIu64 " is called applied, and is not", write_of(c)->id);
        wrote(write_of(c));
        write_of(c)->is_acked = true;
        sim.coverage.session_acked++;
    } else if (o->status == NH_ESESSION && c->doing != DOING_OPEN) {
        sim.coverage.session_evicted += is_write;
        c->is_open = false;
    } else {
        sim_fail("session %" PRIu64 ": rejected with %d", c->client_id, o->status);
    }
    c->doing = DOING_NOTHING;
}

/* No answer: a write is sent again, an opening is not. */
static void on_nothing(struct client *c, int code)
{
    bool overload = code == NH_REQUEST_DROPPED && (sim.options.small_limits || sim.options.small_windows);

    if (strict && !overload && !host_gets_image(sim.hosts[c->host], c->shard, c->image))
        sim_fail("calm: a proposal of a session at host %u shard %" PRIu64 " ends with code %d", c->host + 1, c->shard, code);
    if (c->doing == DOING_OPEN || c->doing == DOING_CLOSE) {
        c->doing = DOING_NOTHING;
        c->is_open = false;
    }
}

static void on_end(void *ctx, const struct nh_outcome *o)
{
    struct client *c = ctx;
    struct sim_host *h = sim.hosts[c->host];

    if (!c->in_flight || h->incarnation != c->incarnation || h->n_requests == 0)
        sim_fail("session %" PRIu64 ": an answer after the end", c->client_id);
    h->n_requests--;
    c->in_flight = false;
    sim_note(c->client_id * 5 + (uint64_t)o->code);
    if (o->code == NH_REQUEST_COMPLETED)
        on_completed(c, o);
    else if (o->code == NH_REQUEST_REJECTED)
        on_rejected(c, o);
    else
        on_nothing(c, o->code);
}

/* ---- proposals ---- */

static void new_write(struct client *c)
{
    struct write w = {.id = client_next_id(),
                      .shard = c->shard,
                      .key = (uint32_t)sim_below(SIM_KEYS),
                      .size_bytes = (uint32_t)(sizeof(struct sim_command) + sim_below(40)),
                      .begin = client_step(),
                      .end = UINT64_MAX};

    array_reserve((void **)&writes, &cap_writes, n_writes + 1, sizeof *writes);
    writes[n_writes++] = w;
    c->write = n_writes;
    c->responded_to = c->series++;
    if (c->responded_to > 0 && sim_chance(50)) /* the last one may be asked for once more */
        c->responded_to--;
    c->doing = DOING_WRITE;
}

static bool may_repeat(const struct client *c)
{
    return c->series > 0 && !write_of(c)->is_acked;
}

static void choose(struct client *c)
{
    if (!c->is_open) {
        c->client_id = sim_random() | 1;
        c->series = c->responded_to = 0;
        c->doing = DOING_OPEN;
    } else if (sim_chance(3)) {
        c->doing = DOING_CLOSE;
    } else if (sim_chance(10) && may_repeat(c)) {
        c->doing = DOING_REPEAT;
    } else {
        new_write(c);
    }
}

static size_t encode(const struct client *c, uint8_t *ret, uint64_t *ret_series)
{
    struct sim_command command = {.shard = c->shard};
    uint32_t n_sessions = 2 + (uint32_t)sim_below(4);

    *ret_series = c->series;
    if (c->doing == DOING_CLOSE) {
        *ret_series = SESSION_CLOSE;
        return 0;
    }
    if (c->doing == DOING_OPEN) {
        *ret_series = SESSION_OPEN;
        memcpy(ret, &n_sessions, sizeof n_sessions);
        return sizeof n_sessions;
    }
    command.id = write_of(c)->id;
    command.key = write_of(c)->key;
    command.size_bytes = write_of(c)->size_bytes;
    oracle_encode(&command, ret);
    return command.size_bytes;
}

static void submit(struct client *c, struct sim_host *h, uint64_t timeout_ms)
{
    static uint8_t bytes[SIM_COMMAND_BYTES_MAX];
    struct nh_proposal p = {.cmd = bytes, .fn = on_end, .ctx = c};
    struct engine_proposal_kind kind = {0};

    kind.session.client_id = c->client_id;
    kind.session.responded_to = c->doing == DOING_OPEN || c->doing == DOING_CLOSE ? 0 : c->responded_to;
    p.size_bytes = encode(c, bytes, &kind.session.series_id);
    c->host = h->id;
    c->incarnation = h->incarnation;
    c->image = h->received[c->shard];
    c->in_flight = true;
    h->n_requests++;
    if (engine_propose_as(h->engine, c->shard, kind, &p, runtime_now_ns(h->runtime) + timeout_ms * SIM_MS, NULL) == NH_OK)
        return;
    c->in_flight = false;
    h->n_requests--;
}

static void act(struct client *c, struct sim_host *h)
{
    bool free = !strict;

    if (c->in_flight || !h->up || host_is_paused(h) || (strict && !admin_is_served(h, c->shard)))
        return;
    if (c->doing == DOING_NOTHING)
        choose(c);
    submit(c, h, free && sim_chance(30) ? 1 + sim_below(100) : 1000);
}

void sessions_act(void)
{
    if (sim.options.sessions)
        act(&clients[sim_below(CLIENTS)], sim.hosts[sim_below(sim.options.n_hosts)]);
}

bool sessions_settle(void)
{
    bool settled = true;

    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];

        if (clients[i].doing == DOING_NOTHING)
            continue;
        settled = false;
        if (admin_is_served(h, clients[i].shard))
            act(&clients[i], h);
    }
    return settled;
}

/* ---- the history ---- */

size_t sessions_collect(uint64_t shard, uint32_t key, struct linear_op *ret)
{
    size_t n = 0;

    for (size_t i = 0; i < n_writes; i++) {
        const struct write *w = &writes[i];

        if (w->shard == shard && w->key == key)
            ret[n++] = (struct linear_op){w->begin, w->end, w->id, true};
    }
    return n;
}

size_t sessions_count_writes(void)
{
    return n_writes;
}
