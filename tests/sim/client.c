/* What must hold of requests:
 *
 *   each ends once; never inside the call that submits it; never after its host has stopped
 *   TIMEOUT does not come before the deadline, and nothing but the end of its replica comes long after it
 *   COMPLETED writes are applied, at the index that is named, with the machine's answer; DROPPED ones are not, ever
 *   the writes of one replica are applied in the order in which they were submitted, if they are (engine/raft/propose.c: a batch
 *   that was overtaken is met with silence)
 *   what reads see is linearizable
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "tests/sim/sim.h"

/* Requests that have expired are looked for every 10 ms; then come the delays of the scheduler and of slow clocks. */
#define LATE_MS_MAX 30u
/* A read that waits for a machine which is being saved or recovered is not looked at meanwhile; and disks may hang. */
#define LENT_MS_MAX 7000u
#define BATCH_MAX   8u

enum op_kind {
    OP_WRITE,
    OP_QUERY, /* answered by the machine's lookup */
    OP_INDEX, /* then a local lookup, in its completion */
};

struct op {
    enum op_kind kind;
    uint32_t host;
    uint64_t incarnation; /* of the host */
    uint64_t shard;
    uint32_t key;
    uint64_t id;         /* of a write */
    uint64_t begin, end; /* in steps of this file: every begin and every end is one */
    uint64_t deadline_ns;
    uint32_t n_ended;
    bool has_value; /* of a read */
    bool must_succeed;
    uint64_t image; /* that its replica had got last when it began */
    struct nh_outcome outcome;
};

static struct op *ops;
static size_t n_ops, cap_ops;
static uint64_t step, last_id;
static bool submitting;
static enum client_mode mode;

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
    submitting = false;
    mode = CLIENT_FREE;
}

void client_set_mode(enum client_mode m)
{
    mode = m;
    sessions_set_strict(m == CLIENT_STRICT);
}

/* ---- a request ends ---- */

static int copy_value(void *ctx, const void *data, size_t size_bytes)
{
    if (size_bytes == sizeof(uint64_t))
        memcpy(ctx, data, size_bytes);
    return NH_OK;
}

/* A lookup of its own, as the completion promises that it is linearizable now. */
static void look_up(struct sim_host *h, struct op *op)
{
    uint64_t value = 0, bytes = 0;
    struct nh_writer out = {.write = copy_value, .ctx = &bytes};

    if (engine_lookup(h->engine, op->shard, &op->key, sizeof op->key, &out, &value, NULL) < 0)
        return; /* it is being stopped */
    op->outcome.value = value;
    op->has_value = true;
    sim.coverage.index_reads++;
}

static void check_write_answer(const struct op *op, size_t number, const struct nh_outcome *o)
{
    uint64_t nth = 0;

    if (o->value != op->id)
        sim_fail("request %zu: write %" PRIu64 " gets the answer to %" PRIu64, number, op->id, o->value);
    if (o->size_bytes == sizeof nth)
        memcpy(&nth, o->data, sizeof nth);
    if (nth != oracle_number_of(op->id))
        sim_fail("request %zu: write %" PRIu64 " is told to be number %" PRIu64 ", and is number %" PRIu64, number, op->id, nth,
                 oracle_number_of(op->id));
}

/* Its machine is being closed, or could not be recovered, or could not be given all entries. */
static bool may_fail(const struct sim_host *h, int status)
{
    return (status == NH_EQUARANTINED || status == NH_ECLOSED) &&
           (!h->up || memory_files_failed(h->files) > 0 || h->n_damaged > 0);
}

static void check_answer(const struct sim_host *h, const struct op *op, size_t number, const struct nh_outcome *o)
{
    uint64_t value = 0;

    if (o->status < 0 && may_fail(h, o->status))
        return;
    if (o->status < 0)
        sim_fail("request %zu: the lookup failed: %d", number, o->status);
    if (op->kind == OP_WRITE)
        check_write_answer(op, number, o);
    if (op->kind != OP_QUERY)
        return;
    if (o->size_bytes == sizeof value)
        memcpy(&value, o->data, sizeof value);
    if (o->size_bytes != sizeof value || value != o->value)
        sim_fail("request %zu: the bytes of the answer are not the machine's", number);
}

static void check_time(const struct sim_host *h, const struct op *op, size_t number, int code)
{
    uint64_t now = runtime_now_ns(h->runtime), late_ms = LATE_MS_MAX;

    if (code == NH_REQUEST_TIMEOUT && now < op->deadline_ns)
        sim_fail("request %zu times out %" PRIu64 " us before its deadline", number, (op->deadline_ns - now) / 1000);
    if (op->kind != OP_WRITE && sim.options.snapshots && !op->must_succeed)
        late_ms = LENT_MS_MAX;
    if (code != NH_REQUEST_TERMINATED && now > op->deadline_ns + late_ms * SIM_MS &&
        !clock_was_held(h->runtime, LATE_MS_MAX * SIM_MS))
        sim_fail("request %zu ends %" PRIu64 " ms after its deadline, with code %d", number,
                 (uint64_t)((now - op->deadline_ns) / SIM_MS), code);
}

/* Small limits are reached: the engine says so before anything is lost. */
static bool is_overload(const struct op *op, const struct nh_outcome *o)
{
    return op->kind == OP_WRITE && o->code == NH_REQUEST_DROPPED && (sim.options.small_limits || sim.options.small_windows);
}

static void on_end(void *ctx, const struct nh_outcome *outcome)
{
    size_t number = (uintptr_t)ctx;
    struct op *op = &ops[number];
    struct sim_host *h = sim.hosts[op->host];

    if (submitting)
        sim_fail("request %zu ends inside the call that submits it", number);
    if (op->n_ended++ > 0)
        sim_fail("request %zu ends twice: %d, then %d", number, op->outcome.code, outcome->code);
    if (op->incarnation != h->incarnation || h->n_requests == 0)
        sim_fail("request %zu ends after its host has stopped", number);
    h->n_requests--;
    op->end = ++step;
    op->outcome = *outcome;
    op->outcome.data = NULL;
    check_time(h, op, number, outcome->code);
    if (outcome->code == NH_REQUEST_COMPLETED) {
        check_answer(h, op, number, outcome);
        op->has_value = op->kind == OP_QUERY && outcome->status >= 0;
        if (op->kind == OP_INDEX)
            look_up(h, op);
        sim_log("host %u shard %" PRIu64 " key %u: %s %" PRIu64 " from %" PRIu64 " to %" PRIu64, h->id + 1, op->shard, op->key,
                op->kind == OP_WRITE ? "wrote" : "read", op->outcome.value, op->begin, op->end);
    } else if (op->must_succeed && !is_overload(op, outcome) && !host_gets_image(h, op->shard, op->image)) {
        sim_fail("calm: request %zu of host %u shard %" PRIu64 " ends with code %d", number, h->id + 1, op->shard, outcome->code);
    }
    sim_note(number * 7 + (uint64_t)outcome->code);
}

void client_host_stopped(const struct sim_host *h)
{
    if (h->n_requests > 0)
        sim_fail("host %u has stopped, and %u of its requests have not ended", h->id + 1, h->n_requests);
}

/* ---- requests ---- */

static uint32_t add_op(struct sim_host *h, enum op_kind kind, uint64_t shard, uint64_t timeout_ms)
{
    array_reserve((void **)&ops, &cap_ops, n_ops + 1, sizeof *ops);
    ops[n_ops] = (struct op){
        .kind = kind,
        .host = h->id,
        .incarnation = h->incarnation,
        .shard = shard,
        .key = (uint32_t)sim_below(SIM_KEYS),
        .id = kind == OP_WRITE ? ++last_id : 0,
        .begin = ++step,
        .deadline_ns = runtime_now_ns(h->runtime) + timeout_ms * SIM_MS,
        .must_succeed = mode != CLIENT_FREE,
        .image = h->received[shard],
    };
    h->n_requests++;
    return (uint32_t)n_ops++;
}

uint64_t client_next_id(void)
{
    return ++last_id;
}

uint64_t client_step(void)
{
    return ++step;
}

/* The last n were not accepted: they are forgotten. */
static void take_back(struct sim_host *h, uint32_t n, int code)
{
    uint64_t shard = ops[n_ops - 1].shard;
    bool too_much = sim.options.small_limits && (code == NH_EBUSY || (code == NH_ETOOBIG && n > 1)); /* for an inbox */

    for (uint32_t i = 0; i < n; i++)
        last_id -= ops[--n_ops].kind == OP_WRITE;
    h->n_requests -= n;
    sim.coverage.refused_busy += code == NH_EBUSY;
    if (!too_much && code != NH_EBUSY && code != NH_ENOTFOUND && code != NH_EFENCED && code != NH_ECLOSED &&
        !(code == NH_EQUARANTINED && h->hurt[shard]))
        sim_fail("a request is refused with %d", code);
    if (mode != CLIENT_FREE && !too_much)
        sim_fail("calm: a request is refused with %d", code);
}

/* Submits n writes as one batch; returns the last one's number. */
static uint32_t write_batch(struct sim_host *h, uint64_t shard, uint32_t n, uint64_t timeout_ms)
{
    struct nh_proposal proposals[BATCH_MAX] = {0};
    static uint8_t bytes[BATCH_MAX][SIM_COMMAND_BYTES_MAX];
    uint32_t number = 0;
    int r;

    for (uint32_t i = 0; i < n; i++) {
        struct sim_command c = {.shard = shard};

        number = add_op(h, OP_WRITE, shard, timeout_ms);
        c.id = ops[number].id;
        c.key = ops[number].key;
        c.size_bytes = (uint32_t)(sizeof c + sim_below(sim_chance(5) ? SIM_COMMAND_BYTES_MAX - sizeof c + 1 : 40));
        oracle_encode(&c, bytes[i]);
        proposals[i] =
            (struct nh_proposal){.cmd = bytes[i], .size_bytes = c.size_bytes, .fn = on_end, .ctx = (void *)(uintptr_t)number};
    }
    submitting = true;
    r = engine_propose(h->engine, shard, proposals, n, ops[number].deadline_ns, NULL);
    submitting = false;
    if (r == NH_OK)
        return number;
    take_back(h, n, r);
    return UINT32_MAX;
}

static uint32_t read_one(struct sim_host *h, uint64_t shard, uint64_t timeout_ms)
{
    uint32_t number = add_op(h, sim_chance(30) ? OP_INDEX : OP_QUERY, shard, timeout_ms);
    uint32_t key = ops[number].key;
    bool query = ops[number].kind == OP_QUERY;
    int r;

    submitting = true;
    r = engine_read(h->engine, shard, query ? &key : NULL, query ? sizeof key : 0, ops[number].deadline_ns, on_end,
                    (void *)(uintptr_t)number, NULL);
    submitting = false;
    if (r == NH_OK)
        return number;
    take_back(h, 1, r);
    return UINT32_MAX;
}

void client_act(void)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];
    uint64_t shard = 1 + sim_below(sim.options.n_shards),
             timeout_ms = sim_chance(30) ? 1 + sim_below(100) : 200 + sim_below(2000);

    if (!h->up || host_is_paused(h))
        return;
    if (mode != CLIENT_FREE && !admin_is_served(h, shard))
        return;
    if (mode != CLIENT_READS && sim_chance(30))
        sessions_act();
    if (mode != CLIENT_FREE)
        timeout_ms = mode == CLIENT_READS ? 3000 : 1000;
    if (mode == CLIENT_READS || sim_chance(40))
        read_one(h, shard, timeout_ms);
    else
        write_batch(h, shard, sim_chance(70) ? 1 : 1 + (uint32_t)sim_below(BATCH_MAX), timeout_ms);
}

uint32_t client_write(struct sim_host *h, uint64_t shard)
{
    return write_batch(h, shard, 1, 5000);
}

uint32_t client_read(struct sim_host *h, uint64_t shard)
{
    return read_one(h, shard, 5000);
}

int client_outcome(uint32_t op)
{
    return op != UINT32_MAX && ops[op].n_ended ? ops[op].outcome.code : 0;
}

/* ---- at the end of a run ---- */

static void check_write(size_t i)
{
    const struct op *op = &ops[i];
    uint64_t index = oracle_index_of(op->id);

    switch (op->outcome.code) {
    case NH_REQUEST_COMPLETED:
        sim.coverage.writes++;
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
        if (op->kind == OP_WRITE)
            ret[n++] = (struct linear_op){op->begin, completed ? op->end : UINT64_MAX, op->id, true};
        else if (op->has_value)
            ret[n++] = (struct linear_op){op->begin, op->end, op->outcome.value, false};
    }
    return n;
}

static void check_order(void)
{
    uint64_t last[SIM_HOSTS_MAX][SIM_SHARDS_MAX + 1] = {0};

    for (size_t i = 0; i < n_ops; i++) {
        const struct op *op = &ops[i];
        uint64_t index = op->kind == OP_WRITE ? oracle_index_of(op->id) : 0;

        if (index == 0)
            continue;
        if (index < last[op->host][op->shard])
            sim_fail("shard %" PRIu64 ": write %" PRIu64 " of host %u, at index %" PRIu64 ", has overtaken an earlier one",
                     op->shard, op->id, op->host + 1, index);
        last[op->host][op->shard] = index;
    }
}

void client_check(void)
{
    struct linear_op *history = xcalloc(n_ops + sessions_count_writes() + 1, sizeof *history);

    for (size_t i = 0; i < n_ops; i++) {
        if (ops[i].n_ended != 1)
            sim_fail("request %zu ended %u times", i, ops[i].n_ended);
        if (ops[i].kind == OP_WRITE)
            check_write(i);
        else
            sim.coverage.queries += ops[i].kind == OP_QUERY && ops[i].has_value;
    }
    check_order();
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        for (uint32_t key = 0; key < SIM_KEYS; key++) {
            size_t n = collect(shard, key, history), n_all = n + sessions_collect(shard, key, history + n);
            const char *text = linear_check(history, n_all);

            for (size_t i = 0; text && i < n_all; i++)
                sim_log("%s %" PRIu64 " from %" PRIu64 " to %" PRIi64 ", at index %" PRIu64,
                        history[i].is_write ? "write" : "read ", history[i].value, history[i].begin, (int64_t)history[i].end,
                        oracle_index_of(history[i].value));
            if (text)
                sim_fail("shard %" PRIu64 " key %u: not linearizable: %s", shard, key, text);
        }
    }
    free(history);
}

/* ---- self-test ---- */

static uint32_t fake_write(void)
{
    return add_op(sim.hosts[0], OP_WRITE, 1, 100);
}

static void end(uint32_t number, int code, uint64_t value)
{
    on_end((void *)(uintptr_t)number, &(struct nh_outcome){.code = code, .index = 5, .value = value});
}

static void end_twice(void)
{
    uint32_t number = fake_write();

    fake_write();
    sim.now_ns += 200 * SIM_MS;
    end(number, NH_REQUEST_TERMINATED, 0);
    end(number, NH_REQUEST_TERMINATED, 0);
}

static void end_inside(void)
{
    submitting = true;
    end(fake_write(), NH_REQUEST_TERMINATED, 0);
}

static void end_in_another_life(void)
{
    uint32_t number = fake_write();

    sim.hosts[0]->incarnation++;
    end(number, NH_REQUEST_TERMINATED, 0);
}

static void end_early(void)
{
    end(fake_write(), NH_REQUEST_TIMEOUT, 0);
}

static void end_late(void)
{
    uint32_t number = fake_write();

    sim.now_ns += 200 * SIM_MS;
    end(number, NH_REQUEST_TIMEOUT, 0);
}

static void end_never(void)
{
    fake_write();
    client_check();
}

static void stop_before_the_end(void)
{
    fake_write();
    client_host_stopped(sim.hosts[0]);
}

static void answer_another(void)
{
    uint32_t number = fake_write();

    end(number, NH_REQUEST_COMPLETED, last_id + 1);
}

static void complete_unapplied(void)
{
    uint32_t number = fake_write();

    end(number, NH_REQUEST_COMPLETED, last_id);
    client_check();
}

void client_self_test(void)
{
    self_test_begin(1);
    sim.hosts[0]->runtime = clock_new(0);
    self_test_expect("ends twice", end_twice);
    self_test_expect("ends inside the call", end_inside);
    self_test_expect("ends after its host has stopped", end_in_another_life);
    self_test_expect("before its deadline", end_early);
    self_test_expect("after its deadline", end_late);
    self_test_expect("ended 0 times", end_never);
    self_test_expect("have not ended", stop_before_the_end);
    self_test_expect("gets the answer to", answer_another);
    self_test_expect("but was applied at 0", complete_unapplied);
    clock_free(sim.hosts[0]->runtime);
    self_test_end();
}
