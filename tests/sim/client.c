#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "tests/sim/sim.h"

/* Now and then a proposal carries this much more than its command. */
#define LARGE_BYTES 3000u

struct op {
    bool is_write;
    uint64_t shard;
    uint32_t key;
    uint64_t id;         /* of a write */
    uint64_t begin, end; /* in steps of this file: every begin and every end is one */
    uint32_t n_ended;
    struct nh_outcome outcome;
};

static struct op *ops;
static size_t n_ops, cap_ops;
static uint64_t step, last_id;
static bool submitting;

void client_init(void)
{
    client_deinit();
}

void client_deinit(void)
{
    free(ops);
    ops = NULL;
    n_ops = cap_ops = 0;
    step = last_id = 0;
}

static void on_end(void *ctx, const struct nh_outcome *outcome)
{
    struct op *op = &ops[(uintptr_t)ctx];

    if (submitting)
        sim_fail("request %zu ends inside the call that submits it", (size_t)(uintptr_t)ctx);
    if (op->n_ended++ > 0)
        sim_fail("request %zu ends twice: %d, then %d", (size_t)(uintptr_t)ctx, op->outcome.code, outcome->code);
    op->end = ++step;
    op->outcome = *outcome;
    op->outcome.data = NULL;
    if (outcome->code == NH_REQUEST_COMPLETED && outcome->status < 0)
        sim_fail("request %zu: the lookup failed: %d", (size_t)(uintptr_t)ctx, outcome->status);
    sim_note((uintptr_t)ctx * 7 + (uint64_t)outcome->code);
}

static uint32_t add_op(bool is_write, uint64_t shard, uint32_t key)
{
    array_reserve((void **)&ops, &cap_ops, n_ops + 1, sizeof *ops);
    ops[n_ops] = (struct op){.is_write = is_write, .shard = shard, .key = key, .begin = ++step};
    if (is_write)
        ops[n_ops].id = ++last_id;
    return (uint32_t)n_ops++;
}

static uint64_t deadline_ns(struct sim_host *h, uint64_t timeout_ms)
{
    return runtime_now_ns(h->runtime) + timeout_ms * SIM_MS;
}

/* Submits n writes as one batch; what is not accepted is forgotten. Returns the last one's number. */
static uint32_t write_batch(struct sim_host *h, uint64_t shard, uint32_t n, uint64_t timeout_ms)
{
    struct engine_proposal proposals[8];
    static char bytes[8][sizeof(struct sim_command) + LARGE_BYTES];
    size_t before = n_ops;
    uint64_t before_id = last_id;
    int r;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = add_op(true, shard, (uint32_t)sim_below(SIM_KEYS));
        struct sim_command c;

        memset(&c, 0, sizeof c);
        c.id = ops[number].id;
        c.shard = shard;
        c.key = ops[number].key;
        memcpy(bytes[i], &c, sizeof c);
        proposals[i] =
            (struct engine_proposal){bytes[i], sizeof c + (sim_chance(5) ? LARGE_BYTES : 0), on_end, (void *)(uintptr_t)number};
    }
    submitting = true;
    r = engine_propose(h->engine, shard, proposals, n, deadline_ns(h, timeout_ms), NULL);
    submitting = false;
    if (r < 0) {
        n_ops = before;
        last_id = before_id;
        return UINT32_MAX;
    }
    return (uint32_t)n_ops - 1;
}

static uint32_t read_one(struct sim_host *h, uint64_t shard, uint32_t key, uint64_t timeout_ms)
{
    uint32_t number = add_op(false, shard, key);
    int r;

    submitting = true;
    r = engine_read(h->engine, shard, &key, sizeof key, deadline_ns(h, timeout_ms), on_end, (void *)(uintptr_t)number, NULL);
    submitting = false;
    if (r == NH_OK)
        return number;
    n_ops--;
    return UINT32_MAX;
}

void client_act(void)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];
    uint64_t shard = 1 + sim_below(sim.options.n_shards),
             timeout_ms = sim_chance(30) ? 1 + sim_below(100) : 200 + sim_below(2000);

    if (!h->up)
        return;
    if (sim_chance(40))
        read_one(h, shard, (uint32_t)sim_below(SIM_KEYS), timeout_ms);
    else
        write_batch(h, shard, sim_chance(70) ? 1 : 1 + (uint32_t)sim_below(8), timeout_ms);
}

uint32_t client_write(struct sim_host *h, uint64_t shard)
{
    return write_batch(h, shard, 1, 5000);
}

uint32_t client_read(struct sim_host *h, uint64_t shard)
{
    return read_one(h, shard, 0, 5000);
}

int client_outcome(uint32_t op)
{
    return op != UINT32_MAX && ops[op].n_ended ? ops[op].outcome.code : 0;
}

/* ---- at the end of a run ---- */

static void check_write(size_t i)
{
    const struct op *op = &ops[i];
    uint64_t index = oracle_index_of(op->shard, op->id);

    switch (op->outcome.code) {
    case NH_REQUEST_COMPLETED:
        sim.coverage.completed++;
        if (index == 0 || index != op->outcome.index)
            sim_fail("write %" PRIu64 " completed at index %" PRIu64 ", but was applied at %" PRIu64, op->id, op->outcome.index,
                     index);
        break;
    case NH_REQUEST_DROPPED:
        sim.coverage.dropped++;
        if (index)
            sim_fail("write %" PRIu64 " was reported as dropped, but was applied at %" PRIu64, op->id, index);
        break;
    case NH_REQUEST_TIMEOUT: sim.coverage.timed_out++; break;
    case NH_REQUEST_TERMINATED: sim.coverage.terminated++; break;
    default: sim_fail("write %" PRIu64 " ended with code %d", op->id, op->outcome.code);
    }
}

/* What one register went through, for linear_check. Returns how many. */
static size_t collect(uint64_t shard, uint32_t key, struct linear_op *ret)
{
    size_t n = 0;

    for (size_t i = 0; i < n_ops; i++) {
        const struct op *op = &ops[i];
        bool completed = op->outcome.code == NH_REQUEST_COMPLETED;

        if (op->shard != shard || op->key != key || op->outcome.code == NH_REQUEST_DROPPED)
            continue;
        if (op->is_write)
            ret[n++] = (struct linear_op){op->begin, completed ? op->end : UINT64_MAX, op->id, true};
        else if (completed)
            ret[n++] = (struct linear_op){op->begin, op->end, op->outcome.value, false};
    }
    return n;
}

void client_check(void)
{
    struct linear_op *history = xcalloc(n_ops + 1, sizeof *history);

    for (size_t i = 0; i < n_ops; i++) {
        if (ops[i].n_ended != 1)
            sim_fail("request %zu ended %u times", i, ops[i].n_ended);
        if (ops[i].is_write)
            check_write(i);
        else
            sim.coverage.reads += ops[i].outcome.code == NH_REQUEST_COMPLETED;
    }
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        for (uint32_t key = 0; key < SIM_KEYS; key++) {
            const char *text = linear_check(history, collect(shard, key, history));

            if (text)
                sim_fail("shard %" PRIu64 " key %u: not linearizable: %s", shard, key, text);
        }
    }
    free(history);
}
