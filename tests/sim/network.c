#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"
#include "transport/loopback/loopback_private.h"

struct flying {
    struct list link;
    struct loopback_parcel *parcel;
    uint32_t from, to;
    uint64_t due_ns;
    bool is_copy;
    const struct nh_connection *connection; /* of a chunk: those of one keep their order, and are lost together; NULL: of none */
};

static struct list flying;
static struct network_weather weather;
static bool corrupt_next;
static bool cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX];        /* [from][to] */
static uint64_t newest[SIM_HOSTS_MAX][SIM_HOSTS_MAX]; /* when the last parcel is due */

uint32_t network_host(const char *address)
{
    unsigned id = 0;

    sscanf(address, "host:%u", &id);
    return id - 1;
}

static void keep_order(struct flying *f)
{
    if (f->due_ns <= newest[f->from][f->to])
        f->due_ns = newest[f->from][f->to] + 1;
    newest[f->from][f->to] = f->due_ns;
}

static void launch(struct loopback_parcel *parcel, bool is_copy)
{
    struct flying *f = xcalloc(1, sizeof *f);

    f->parcel = parcel;
    f->from = network_host(loopback_parcel_source(parcel));
    f->to = network_host(loopback_parcel_target(parcel));
    f->due_ns = sim.now_ns + weather.delay_min_ns + sim_below(weather.delay_max_ns - weather.delay_min_ns + 1);
    if (sim_chance(weather.late_percent)) { /* a straggler: others overtake it */
        f->due_ns += sim_below(300 * SIM_MS);
        sim.coverage.delayed++;
    }
    f->is_copy = is_copy;
    if (is_copy && sim_chance(20)) { /* from the past: what it is about is long over */
        f->due_ns += sim_below(4000 * SIM_MS);
        sim.coverage.revenants++;
    }
    if (loopback_parcel_is_chunk(parcel))
        f->connection = parcel->connection;
    else if (weather.in_order && !is_copy)
        keep_order(f);
    list_push_back(&flying, &f->link);
}

static void on_send(void *ctx, struct loopback_parcel *parcel)
{
    (void)ctx;
    if (sim_chance(weather.double_percent)) {
        launch(loopback_duplicate(parcel), true);
        sim.coverage.doubled++;
        sim.coverage.chunks_doubled += loopback_parcel_is_chunk(parcel);
    }
    launch(parcel, false);
}

void network_init(void)
{
    struct loopback_policy policy = {.on_send = on_send, .share_blocks = sim.options.share_blocks};

    list_init(&flying);
    memset(newest, 0, sizeof newest);
    corrupt_next = false;
    network_heal();
    sim.hub = loopback_hub_new(&policy);
}

void network_corrupt_next(void)
{
    corrupt_next = true;
}

static struct flying *next_of(const struct nh_connection *c)
{
    for (struct list *at = flying.next; at != &flying; at = at->next)
        if (container_of(at, struct flying, link)->connection == c)
            return container_of(at, struct flying, link);
    return NULL;
}

/* Loses the parcel; its sender hears of it, or not, as with TCP when a connection breaks. */
static void lose(struct flying *f)
{
    list_remove(&f->link);
    sim.coverage.chunks_lost += f->connection != NULL;
    loopback_drop(f->parcel, sim_chance(50));
    sim.coverage.lost++;
    free(f);
}

/* A connection breaks: what is behind a lost chunk on it does not come either. */
static void break_connection(const struct nh_connection *c)
{
    for (struct flying *f; c && (f = next_of(c));)
        lose(f);
}

static void lose_with_connection(struct flying *f)
{
    const struct nh_connection *c = f->connection;

    lose(f);
    break_connection(c);
}

void network_break_streams(void)
{
    struct list *at = flying.next;

    while (at != &flying) {
        struct flying *f = container_of(at, struct flying, link);

        at = at->next;
        if (f->connection)
            lose(f);
    }
}

bool network_stream(uint32_t *ret_from, uint32_t *ret_to)
{
    for (struct list *at = flying.next; at != &flying; at = at->next) {
        const struct flying *f = container_of(at, struct flying, link);

        if (!f->connection)
            continue;
        *ret_from = f->from;
        *ret_to = f->to;
        return true;
    }
    return false;
}

void network_deinit(void)
{
    while (!list_empty(&flying))
        lose(container_of(flying.next, struct flying, link));
    loopback_hub_free(sim.hub);
    sim.hub = NULL;
}

void network_set_weather(struct network_weather w)
{
    weather = w;
}

void network_cut(uint32_t a, uint32_t b)
{
    cut[a][b] = true;
}

void network_heal(void)
{
    for (uint32_t a = 0; a < SIM_HOSTS_MAX; a++)
        for (uint32_t b = 0; b < SIM_HOSTS_MAX; b++)
            cut[a][b] = false;
}

void network_forget_copies(void)
{
    struct list *next;

    for (struct list *at = flying.next; at != &flying; at = next) {
        struct flying *f = container_of(at, struct flying, link);

        next = at->next;
        if (f->is_copy)
            lose(f);
    }
}

void network_forget(uint32_t host)
{
    struct list *next;

    for (struct list *at = flying.next; at != &flying; at = next) {
        struct flying *f = container_of(at, struct flying, link);

        next = at->next;
        if ((f->from == host && !f->is_copy) || ((f->to == host || f->from == host) && sim_chance(50)))
            lose(f);
    }
}

/*
 * A chunk arrives damaged. A transport has a checksum against that (transport/tcp/frame.h) and the loopback has none: the first
 * chunk, which says what the stream is, can then simply not be decoded; of a later one, the checksums of the image have to
 * notice.
 */
static void corrupt(struct flying *f)
{
    struct nh_chunk c;

    if (!loopback_parcel_is_chunk(f->parcel) || !(corrupt_next || sim_chance(weather.corrupt_percent)))
        return;
    corrupt_next = false;
    if (chunk_decode(f->parcel->encoded, f->parcel->size_bytes, &c, NULL) == NH_OK && c.chunk_id > 0)
        f->parcel->encoded[f->parcel->size_bytes - 1 - sim_below(c.size_bytes)] ^= (uint8_t)(1 + sim_below(255));
    else
        memset(f->parcel->encoded, 0xff, f->parcel->size_bytes);
    sim.coverage.chunks_corrupted++;
}

/* A receiver that refuses a chunk cuts the connection. */
static void deliver(struct flying *f)
{
    const struct nh_connection *c = f->connection;

    list_remove(&f->link);
    corrupt(f);
    loopback_deliver(f->parcel);
    free(f);
    if (c && next_of(c) && c->failed) /* it lives as long as a parcel is on it */
        break_connection(c);
}

/* A process that is stopped takes nothing from its sockets. */
static void wait_for_receiver(struct flying *f)
{
    const struct sim_host *h = sim.hosts[f->to];
    uint64_t until = h->up ? clock_paused_until(h->runtime) : 0;

    if (until > f->due_ns)
        f->due_ns = until + (weather.in_order ? 0 : sim_below(3 * SIM_MS));
}

bool network_run_one(void)
{
    struct flying *chosen = NULL;
    uint64_t n = 0;

    for (struct list *at = flying.next; at != &flying; at = at->next) {
        struct flying *f = container_of(at, struct flying, link);

        if (f->due_ns > sim.now_ns)
            continue;
        wait_for_receiver(f);
        if (f->due_ns > sim.now_ns || (f->connection && next_of(f->connection) != f))
            continue;
        if (weather.in_order ? !chosen || f->due_ns < chosen->due_ns : sim_below(++n) == 0)
            chosen = f;
    }
    if (!chosen)
        return false;
    sim_note(1000 + chosen->from * SIM_HOSTS_MAX + chosen->to);
    if (cut[chosen->from][chosen->to] || sim_chance(weather.loss_percent)) {
        lose_with_connection(chosen);
        return true;
    }
    deliver(chosen);
    return true;
}

uint64_t network_next_ns(void)
{
    uint64_t next = UINT64_MAX;

    for (struct list *at = flying.next; at != &flying; at = at->next) {
        const struct flying *f = container_of(at, struct flying, link);

        if (f->due_ns < next && (!f->connection || next_of(f->connection) == f))
            next = f->due_ns;
    }
    return next;
}
