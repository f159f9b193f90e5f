#include "cmd/nhbench/load.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include "cmd/machines/kv_command.h"
#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/command.h"
#include "cmd/nhbench/must.h"

/* After a refusal or a drop the request is made again, so much later. */
#define RETRY_MS 2u

enum slot_kind { SLOT_WRITE, SLOT_READ, SLOT_OPEN };

struct slot {
    struct slot *next;
    struct load *load;
    uint64_t begun_ns, done_ns;
    uint32_t shard; /* index in load->shards */
    uint8_t kind, code, failed;
    bool refused; /* chained: the next one, and nothing has ended */
};

struct slot_session {
    struct nh_session_step step;
    bool is_open;
};

struct load {
    struct nh_host *host;
    const struct bench_options *options;
    const uint64_t *shards;
    uint32_t n_shards, n_slots, rate;
    bool wanders, is_kv;
    struct slot *slots;
    struct slot_session *sessions; /* NULL: none */
    struct commands commands;
    struct nh_proposal proposals[COMMANDS_MAX];
    struct slot *chunk[COMMANDS_MAX]; /* the slot of each proposal */

    /* of the loader */
    struct slot **gathered; /* per shard: to be proposed now */
    uint32_t *touched;      /* shards that have gathered something */
    uint32_t n_touched;
    struct slot *idle;  /* open loop: free slots */
    struct slot *later; /* refused; made again at later_ns */
    uint64_t later_ns;
    uint32_t n_pending;
    uint32_t cursor; /* open loop: next shard */
    uint64_t started_ns, begin_ns, end_ns, grid, issued, random, read_limit;
    struct burst_clock clock;
    struct load_result result;

    /* of both sides */
    _Atomic(struct slot *) done;
    sem_t wake;
    _Atomic bool stopping;
    _Atomic uint64_t n_done, n_failed;
    pthread_t thread;
    bool is_running;
};

/* ---- what has ended ---- */

static void push(struct slot *s)
{
    struct load *l = s->load;
    struct slot *head = atomic_load_explicit(&l->done, memory_order_relaxed);

    do
        s->next = head;
    while (!atomic_compare_exchange_weak_explicit(&l->done, &head, s, memory_order_release, memory_order_relaxed));
    if (!head)
        sem_post(&l->wake);
}

static void count_failure(struct load *l, const struct slot *s, bool measured)
{
    struct load_result *r = &l->result;

    atomic_fetch_add_explicit(&l->n_failed, 1, memory_order_relaxed);
    if (!measured)
        return;
    switch (s->code) {
    case NH_REQUEST_DROPPED: r->dropped++; break;
    case NH_REQUEST_TIMEOUT: r->timeouts++; break;
    case NH_REQUEST_REJECTED: r->rejected++; break;
    case NH_REQUEST_COMPLETED: r->failed++; break;
    default: r->terminated++;
    }
}

static void advance_session(struct load *l, const struct slot *s)
{
    struct slot_session *session = &l->sessions[s - l->slots];

    if (s->code == NH_REQUEST_REJECTED)
        session->is_open = false;
    if (s->code != NH_REQUEST_COMPLETED)
        return;
    if (s->kind == SLOT_OPEN) {
        session->is_open = true;
        session->step.series_id = 1;
        session->step.responded_to = 0;
    } else {
        session->step.responded_to = session->step.series_id++;
    }
}

/* True if it succeeded. */
static bool count_end(struct load *l, const struct slot *s)
{
    bool measured = s->done_ns >= l->begin_ns && s->done_ns < l->end_ns;
    uint64_t ns = s->done_ns > s->begun_ns ? s->done_ns - s->begun_ns : 0;

    if (l->sessions)
        advance_session(l, s);
    if (s->code != NH_REQUEST_COMPLETED || s->failed) {
        count_failure(l, s, measured);
        return false;
    }
    if (measured && s->kind != SLOT_OPEN)
        latencies_add(s->kind == SLOT_READ ? &l->result.reads : &l->result.writes, ns);
    return true;
}

/* ---- proposing ---- */

static void on_done(void *ctx, const struct nh_outcome *outcome);

static void add_later(struct load *l, struct slot *s)
{
    if (!l->later)
        l->later_ns = clock_ns() + RETRY_MS * NS_PER_MS;
    s->next = l->later;
    l->later = s;
}

static void refused(struct load *l, struct slot *const *slots, uint32_t n)
{
    l->result.busy += n;
    for (uint32_t i = 0; i < n; i++)
        add_later(l, slots[i]);
}

static void begin(const struct load *l, struct slot *s, uint64_t now_ns)
{
    if (!l->rate)
        s->begun_ns = now_ns;
}

static void propose_chunk(struct load *l, uint64_t shard, uint32_t n)
{
    uint64_t now_ns = clock_ns();
    int rc;

    for (uint32_t i = 0; i < n; i++) {
        l->proposals[i] = (struct nh_proposal){commands_next(&l->commands, i), l->commands.size_bytes, on_done, l->chunk[i]};
        begin(l, l->chunk[i], now_ns);
    }
    if (now_ns >= l->begin_ns && now_ns < l->end_ns) {
        l->result.calls++;
        l->result.proposed += n;
    }
    l->n_pending += n; /* before: completions may come at once */
    rc = nh_propose_batch(l->host, shard, l->proposals, n, LOAD_TIMEOUT_MS, NULL);
    if (rc < 0) {
        l->n_pending -= n;
        refused(l, l->chunk, n);
    }
}

/* nh_propose, one call each: what a program does that has one request at a time. */
static int propose_one(struct load *l, uint64_t shard, struct slot *s)
{
    if (s->kind == SLOT_OPEN)
        return nh_open_session(l->host, shard, l->sessions[s - l->slots].step.client_id, LOAD_TIMEOUT_MS, on_done, s, NULL);
    if (l->sessions)
        return nh_propose_in_session(l->host, shard, &l->sessions[s - l->slots].step, commands_next(&l->commands, 0),
                                     l->commands.size_bytes, LOAD_TIMEOUT_MS, on_done, s, NULL);
    return nh_propose(l->host, shard, commands_next(&l->commands, 0), l->commands.size_bytes, LOAD_TIMEOUT_MS, on_done, s, NULL);
}

/* The only slot belongs to who completes it, as does all that a loader has besides. Returns whether the next request is under
 * way, or was to be. */
static bool chain(struct load *l, struct slot *s)
{
    if (!l->options->chained || s->code != NH_REQUEST_COMPLETED || s->failed || s->done_ns >= l->end_ns)
        return false;
    count_end(l, s);
    atomic_fetch_add_explicit(&l->n_done, 1, memory_order_relaxed);
    s->begun_ns = s->done_ns;
    if (s->done_ns >= l->begin_ns) {
        l->result.calls++;
        l->result.proposed++;
    }
    if (l->wanders)
        s->shard = (s->shard + 1) % l->n_shards;
    s->refused = propose_one(l, l->shards[s->shard], s) < 0;
    if (s->refused)
        push(s);
    return true;
}

/* On one of the host's threads. */
static void on_done(void *ctx, const struct nh_outcome *outcome)
{
    static _Thread_local struct burst_clock clock;
    struct slot *s = ctx;

    s->done_ns = burst_clock_ns(&clock);
    s->code = (uint8_t)outcome->code;
    s->failed = outcome->status < 0 || (s->load->is_kv && outcome->value == KV_REPLY_ERROR);
    if (!chain(s->load, s))
        push(s);
}

static int drop_answer(void *ctx, const void *data, size_t size_bytes)
{
    (void)ctx, (void)data, (void)size_bytes;
    return NH_OK;
}

/* A stale read is answered here and now. */
static int look_up(struct load *l, uint64_t shard, struct slot *s)
{
    struct nh_writer out = {.write = drop_answer};
    uint64_t value = 0;
    int rc = nh_lookup(l->host, shard, commands_query(&l->commands), l->commands.query_bytes, &out, &value, NULL);

    s->done_ns = clock_ns();
    s->code = NH_REQUEST_COMPLETED;
    s->failed = rc < 0 || (l->is_kv && value == KV_REPLY_ERROR);
    push(s);
    return NH_OK;
}

static int read_one(struct load *l, uint64_t shard, struct slot *s)
{
    if (l->options->read_mode == BENCH_READ_STALE)
        return look_up(l, shard, s);
    return nh_query(l->host, shard, commands_query(&l->commands), l->commands.query_bytes, LOAD_TIMEOUT_MS, on_done, s, NULL);
}

static void submit_one(struct load *l, uint64_t shard, struct slot *s)
{
    uint64_t now_ns = burst_clock_ns(&l->clock);
    int rc;

    begin(l, s, now_ns);
    if (s->kind == SLOT_WRITE && now_ns >= l->begin_ns && now_ns < l->end_ns) {
        l->result.calls++;
        l->result.proposed++;
    }
    l->n_pending++;
    rc = s->kind == SLOT_READ ? read_one(l, shard, s) : propose_one(l, shard, s);
    if (rc < 0) {
        l->n_pending--;
        refused(l, &s, 1);
    }
}

static void submit_shard(struct load *l, uint32_t shard)
{
    bool singly = l->options->one_by_one || l->sessions;
    struct slot *s = l->gathered[shard], *next;
    uint32_t n = 0;

    l->gathered[shard] = NULL;
    for (; s; s = next) {
        next = s->next;
        if (s->kind != SLOT_WRITE || singly) {
            submit_one(l, l->shards[shard], s);
            continue;
        }
        l->chunk[n++] = s;
        if (n == l->commands.n) {
            propose_chunk(l, l->shards[shard], n);
            n = 0;
        }
    }
    if (n > 0)
        propose_chunk(l, l->shards[shard], n);
}

static void submit_gathered(struct load *l)
{
    for (uint32_t i = 0; i < l->n_touched; i++)
        submit_shard(l, l->touched[i]);
    l->n_touched = 0;
}

/* ---- the loader ---- */

static void choose_kind(struct load *l, struct slot *s)
{
    if (l->sessions && !l->sessions[s - l->slots].is_open)
        s->kind = SLOT_OPEN;
    else
        s->kind = l->read_limit && commands_random(&l->random) >> 32 < l->read_limit ? SLOT_READ : SLOT_WRITE;
}

static void gather(struct load *l, struct slot *s)
{
    if (!l->gathered[s->shard])
        l->touched[l->n_touched++] = s->shard;
    s->next = l->gathered[s->shard];
    l->gathered[s->shard] = s;
}

static void make_next(struct load *l, struct slot *s)
{
    if (l->wanders)
        s->shard = (s->shard + l->n_slots) % l->n_shards;
    choose_kind(l, s);
    gather(l, s);
}

static void collect(struct load *l)
{
    struct slot *s = atomic_exchange_explicit(&l->done, NULL, memory_order_acquire), *next;
    uint64_t done = 0;

    for (; s; s = next) {
        next = s->next;
        l->n_pending--;
        if (s->refused) {
            s->refused = false;
            refused(l, &s, 1);
            continue;
        }
        if (!count_end(l, s)) {
            add_later(l, s);
            continue;
        }
        done++;
        if (l->rate) {
            s->next = l->idle;
            l->idle = s;
        } else {
            make_next(l, s);
        }
    }
    if (done)
        atomic_fetch_add_explicit(&l->n_done, done, memory_order_relaxed);
}

static void retry_later(struct load *l, uint64_t now_ns)
{
    struct slot *s = l->later, *next;

    if (!s || now_ns < l->later_ns)
        return;
    l->later = NULL;
    for (; s; s = next) {
        next = s->next;
        choose_kind(l, s);
        gather(l, s);
    }
}

/* Open loop: everything that is due by now, as far as slots reach. */
static void issue_due(struct load *l, uint64_t now_ns)
{
    uint64_t grid_ns = LOAD_GRID_US * NS_PER_US, tick = (now_ns - l->started_ns) / grid_ns;
    uint64_t due = (uint64_t)((double)tick * (double)grid_ns * l->rate / (double)NS_PER_S);

    for (; l->issued < due && l->idle; l->issued++) {
        struct slot *s = l->idle;
        uint64_t at = (uint64_t)((double)l->issued * (double)NS_PER_S / l->rate / (double)grid_ns) + 1;

        l->idle = s->next;
        s->begun_ns = l->started_ns + at * grid_ns;
        l->result.late += at < tick && now_ns >= l->begin_ns && now_ns < l->end_ns;
        s->shard = l->cursor;
        l->cursor = l->cursor + 1 == l->n_shards ? 0 : l->cursor + 1;
        choose_kind(l, s);
        gather(l, s);
    }
}

/* Sleeps until something has ended, or until the grid or a retry calls. */
static void wait_for_work(struct load *l)
{
    uint64_t now_ns = clock_ns(), grid_ns = LOAD_GRID_US * NS_PER_US, until = now_ns + 100 * NS_PER_MS;
    struct timespec ts;

    if (l->later && l->later_ns < until)
        until = l->later_ns;
    if (l->rate)
        until = l->started_ns + ((now_ns - l->started_ns) / grid_ns + 1) * grid_ns;
    if (l->rate && l->idle) { /* ends are taken on the grid, too: no wake-up for them */
        while (sem_trywait(&l->wake) == 0) {
        }
        sleep_until_ns(until);
        return;
    }
    ts = (struct timespec){.tv_sec = (time_t)(until / NS_PER_S), .tv_nsec = (long)(until % NS_PER_S)};
    if (sem_clockwait(&l->wake, CLOCK_MONOTONIC, &ts) == 0 && l->options->gather_us)
        sleep_until_ns(clock_ns() + l->options->gather_us * NS_PER_US);
}

static void drain(struct load *l)
{
    uint64_t give_up_ns = clock_ns() + (LOAD_TIMEOUT_MS + 2000) * NS_PER_MS;

    while (l->n_pending > 0 && clock_ns() < give_up_ns) {
        struct slot *s = atomic_exchange_explicit(&l->done, NULL, memory_order_acquire);

        for (; s; s = s->next) {
            count_end(l, s);
            l->n_pending--;
        }
        if (l->n_pending > 0)
            sleep_ms(1);
    }
}

static void *run(void *arg)
{
    struct load *l = arg;

    for (uint32_t i = 0; i < l->n_slots; i++) {
        struct slot *s = &l->slots[i];

        if (l->rate) {
            s->next = l->idle;
            l->idle = s;
        } else {
            choose_kind(l, s);
            gather(l, s);
        }
    }
    l->started_ns = clock_ns();
    while (!atomic_load_explicit(&l->stopping, memory_order_relaxed)) {
        uint64_t now_ns;

        submit_gathered(l);
        wait_for_work(l);
        collect(l);
        now_ns = clock_ns();
        retry_later(l, now_ns);
        if (l->rate)
            issue_due(l, now_ns);
    }
    drain(l);
    return NULL;
}

/* ---- for the owner ---- */

void load_result_add(struct load_result *to, const struct load_result *from)
{
    latencies_merge(&to->writes, &from->writes);
    latencies_merge(&to->reads, &from->reads);
    to->dropped += from->dropped;
    to->timeouts += from->timeouts;
    to->rejected += from->rejected;
    to->terminated += from->terminated;
    to->failed += from->failed;
    to->busy += from->busy;
    to->calls += from->calls;
    to->proposed += from->proposed;
    to->late += from->late;
}

static void open_sessions(struct load *l)
{
    l->sessions = must(calloc(l->n_slots, sizeof *l->sessions));
    for (uint32_t i = 0; i < l->n_slots; i++)
        l->sessions[i].step.client_id = nh_session_new_id(l->host);
}

/* Of a slot. Those of a shard lie side by side: they end and begin together, and elsewhere each would be a cache miss. */
static uint32_t first_shard(uint32_t slot, uint32_t n_slots, uint32_t n_shards)
{
    return n_slots < n_shards ? slot : (uint32_t)((uint64_t)slot * n_shards / n_slots);
}

struct load *load_new(struct nh_host *host, const struct bench_options *o, const uint64_t *shards, uint32_t n_shards,
                      uint32_t in_flight, uint32_t rate, uint64_t seed)
{
    struct load *l = must(calloc(1, sizeof *l));

    l->host = host;
    l->options = o;
    l->shards = shards;
    l->n_shards = n_shards;
    l->n_slots = in_flight;
    l->rate = rate;
    l->random = seed * 0x9e3779b97f4a7c15u + 7;
    l->read_limit = (uint64_t)(o->read_share * 4294967296.0);
    l->is_kv = o->machine == BENCH_KV;
    l->wanders = in_flight < n_shards && !o->sessions;
    l->slots = must(calloc(in_flight, sizeof *l->slots));
    l->gathered = must(calloc(n_shards, sizeof *l->gathered));
    l->touched = must(calloc(n_shards, sizeof *l->touched));
    for (uint32_t i = 0; i < in_flight; i++) {
        l->slots[i].load = l;
        l->slots[i].shard = first_shard(i, in_flight, n_shards);
    }
    commands_init(&l->commands, o, seed);
    if (o->sessions)
        open_sessions(l);
    sem_init(&l->wake, 0, 0);
    return l;
}

void load_start(struct load *l, uint64_t begin_ns, uint64_t end_ns)
{
    l->begin_ns = begin_ns;
    l->end_ns = end_ns;
    if (pthread_create(&l->thread, NULL, run, l) != 0) {
        fputs("nhbench: no thread for the load\n", stderr);
        exit(1);
    }
    l->is_running = true;
}

void load_progress(const struct load *l, uint64_t *ret_done, uint64_t *ret_failed)
{
    *ret_done += atomic_load_explicit(&l->n_done, memory_order_relaxed);
    *ret_failed += atomic_load_explicit(&l->n_failed, memory_order_relaxed);
}

void load_stop(struct load *l, struct load_result *to)
{
    atomic_store(&l->stopping, true);
    sem_post(&l->wake);
    pthread_join(l->thread, NULL);
    l->is_running = false;
    load_result_add(to, &l->result);
}

void load_free(struct load *l)
{
    if (!l)
        return;
    commands_deinit(&l->commands);
    sem_destroy(&l->wake);
    free(l->slots);
    free(l->sessions);
    free(l->gathered);
    free(l->touched);
    free(l);
}
