/* The machines of the hosts: SIM_KEYS registers, as a regular, a concurrent and an on-disk machine.
 *
 * What an image says must be what the history says (oracle.c), whoever made it, and each kind looks whether the engine keeps its
 * promises to it: contexts are released, an instance is not taken back in time, a prepared moment is not that of a later entry.
 *
 * The on-disk machine has a store of its own, which outlives its instance: what was synced, and the entries since, of which a
 * crash keeps some at the beginning.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "tests/sim/sim.h"

#define PIECE_BYTES 1000u /* of padding at once: images are written and read in pieces */

struct written {
    uint64_t index, id;
    uint32_t key;
};

struct store {
    uint64_t replica_id;
    struct registers synced, former;
    bool in_doubt; /* `synced` was recovered and is not: a crash may leave `former`, or nothing */
    struct written *since;
    size_t n, cap;
};

struct nh_machine {
    struct sim_host *host;
    uint64_t shard;
    struct registers state;
    struct store *store; /* on-disk */
    uint64_t *answers;
    size_t cap_answers;
    uint32_t n_contexts;
    bool is_new; /* neither updated nor recovered */
};

/* What an image begins with. */
struct image_start {
    struct registers state;
    uint64_t padding;
};

static struct store stores[SIM_HOSTS_MAX][SIM_SHARDS_MAX + 1];

/* ---- the store ---- */

static void set(struct registers *state, const struct written *w)
{
    state->values[w->key] = w->id;
    state->n_applied++;
    state->applied = w->index;
}

static void note(struct store *s, const struct written *w)
{
    array_reserve((void **)&s->since, &s->cap, s->n + 1, sizeof *s->since);
    s->since[s->n++] = *w;
}

static void replace(struct store *s, const struct registers *state)
{
    s->synced = *state;
    s->n = 0;
    s->in_doubt = false;
}

static void put_in_doubt(struct store *s, const struct registers *state)
{
    s->former = s->synced;
    s->synced = *state;
    s->n = 0;
    s->in_doubt = true;
}

static void load(const struct store *s, struct registers *ret)
{
    *ret = s->synced;
    for (size_t i = 0; i < s->n; i++)
        set(ret, &s->since[i]);
}

void machines_crash(uint32_t host)
{
    for (uint32_t shard = 0; shard <= SIM_SHARDS_MAX; shard++) {
        struct store *s = &stores[host][shard];

        if (s->n > 0)
            s->n = sim_below(s->n + 1);
        if (s->in_doubt && sim_chance(70))
            replace(s, sim_chance(50) ? &s->former : &(struct registers){0});
        s->in_doubt = false;
    }
}

void machines_deinit(void)
{
    for (uint32_t host = 0; host < SIM_HOSTS_MAX; host++)
        for (uint32_t shard = 0; shard <= SIM_SHARDS_MAX; shard++)
            free(stores[host][shard].since);
    memset(stores, 0, sizeof stores);
}

/* ---- life ---- */

/* A replica with another id finds nothing of the former one. */
static struct store *find_store(uint32_t host, uint64_t shard, uint64_t replica_id)
{
    struct store *s = &stores[host][shard];

    if (s->replica_id != replica_id)
        replace(s, &(struct registers){0});
    s->replica_id = replica_id;
    return s;
}

static int machine_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    struct nh_machine *m = xcalloc(1, sizeof *m);
    uint32_t host = sim_host_of(args->replica_id);

    (void)err;
    m->host = sim.hosts[host];
    m->shard = args->shard_id;
    m->is_new = true;
    if (sim.options.kind == NH_MACHINE_ON_DISK) {
        m->store = find_store(host, args->shard_id, args->replica_id);
        load(m->store, &m->state);
        oracle_check_state(m->host, m->shard, &m->state, "opens");
    }
    *ret_applied = m->state.applied;
    *ret = m;
    return NH_OK;
}

static void machine_close(struct nh_machine *m)
{
    if (m->n_contexts > 0)
        sim_fail("shard %" PRIu64 ": host %u closes its machine with %u prepared snapshots", m->shard, m->host->id + 1,
                 m->n_contexts);
    free(m->answers);
    free(m);
}

/* ---- entries, questions ---- */

static int machine_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)err;
    disks_before_update(m->host, m->shard);
    array_reserve((void **)&m->answers, &m->cap_answers, n, sizeof *m->answers);
    for (size_t i = 0; i < n; i++) {
        struct sim_command c =
            oracle_applied(m->host, m->shard, m->state.applied, entries[i].index, entries[i].cmd, entries[i].size_bytes);
        struct written w = {entries[i].index, c.id, c.key};

        set(&m->state, &w);
        if (m->store)
            note(m->store, &w);
        m->answers[i] = m->state.n_applied;
        entries[i].result = (struct nh_result){c.id, &m->answers[i], sizeof m->answers[i]};
    }
    m->is_new = false;
    return NH_OK;
}

static int machine_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                          struct nh_error *err)
{
    uint32_t key;

    if (size_bytes != sizeof key)
        return nh_error_set(err, NH_EINVAL, "a query of %zu bytes", size_bytes);
    memcpy(&key, query, sizeof key);
    *ret_value = m->state.values[key];
    return out->write(out->ctx, &m->state.values[key], sizeof m->state.values[key]);
}

static uint64_t machine_hash(struct nh_machine *m)
{
    uint64_t hash = m->state.n_applied;

    for (uint32_t k = 0; k < SIM_KEYS; k++)
        hash = hash * 1000003 + m->state.values[k];
    return hash;
}

/* ---- images ---- */

static bool fails(uint32_t percent)
{
    return !sim.calm && sim.options.fail_files && sim_chance(percent);
}

static int machine_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    if (fails(3))
        return nh_error_set(err, NH_EMACHINE, "it does not want to");
    *ret_ctx = xmemdup(&m->state, sizeof m->state);
    m->n_contexts++;
    return NH_OK;
}

static void machine_release(struct nh_machine *m, void *ctx)
{
    if (m->n_contexts == 0)
        sim_fail("shard %" PRIu64 ": host %u releases a snapshot that was not prepared", m->shard, m->host->id + 1);
    m->n_contexts--;
    free(ctx);
}

static void fill(uint8_t *piece, size_t n, uint64_t applied, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        piece[i] = (uint8_t)((applied + at + i) * 37 >> 3);
}

static int write_padding(const struct image_start *start, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    uint8_t piece[PIECE_BYTES];
    int r = NH_OK;

    for (uint64_t at = 0; at < start->padding && r == NH_OK; at += PIECE_BYTES) {
        size_t n = start->padding - at < PIECE_BYTES ? start->padding - at : PIECE_BYTES;

        if (*stop)
            return nh_error_set(err, NH_ECLOSED, "stopped");
        fill(piece, n, start->state.applied, at);
        r = out->write(out->ctx, piece, n);
    }
    return r;
}

static int machine_save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    struct image_start start = {ctx ? *(struct registers *)ctx : m->state, sim.options.padding};
    int r;

    oracle_check_state(m->host, m->shard, &start.state, "saves");
    sim.coverage.saved_beside += m->state.applied > start.state.applied;
    if (*stop)
        return nh_error_set(err, NH_ECLOSED, "stopped");
    if (fails(3))
        return nh_error_set(err, NH_EMACHINE, "it can not");
    r = out->write(out->ctx, &start, sizeof start);
    return r < 0 ? r : write_padding(&start, out, stop, err);
}

/* All of it, or an error. */
static int read_exactly(struct nh_reader *in, void *data, size_t n, struct nh_error *err)
{
    for (size_t at = 0; at < n;) {
        int64_t got = in->read(in->ctx, (uint8_t *)data + at, n - at);

        if (got < 0)
            return nh_error_set(err, (int)got, "the image cannot be read");
        if (got == 0)
            return nh_error_set(err, NH_ECORRUPT, "the image ends early");
        at += (size_t)got;
    }
    return NH_OK;
}

static int read_padding(const struct image_start *start, struct nh_reader *in, struct nh_error *err)
{
    uint8_t piece[PIECE_BYTES], expected[PIECE_BYTES];
    int r = NH_OK;

    for (uint64_t at = 0; at < start->padding && r == NH_OK; at += PIECE_BYTES) {
        size_t n = start->padding - at < PIECE_BYTES ? start->padding - at : PIECE_BYTES;

        fill(expected, n, start->state.applied, at);
        r = read_exactly(in, piece, n, err);
        if (r == NH_OK && memcmp(piece, expected, n) != 0)
            r = nh_error_set(err, NH_ECORRUPT, "the padding is another");
    }
    return r;
}

static int read_image(struct nh_reader *in, struct registers *ret, struct nh_error *err)
{
    struct image_start start;
    uint8_t more;
    int r = read_exactly(in, &start, sizeof start, err);

    if (r == NH_OK)
        r = read_padding(&start, in, err);
    if (r == NH_OK && in->read(in->ctx, &more, 1) != 0)
        r = nh_error_set(err, NH_ECORRUPT, "the image is too long");
    *ret = start.state;
    return r;
}

/* One that fails may have begun: the former state is there, or nothing. */
static int machine_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    struct registers state;
    int r = *stop ? nh_error_set(err, NH_ECLOSED, "stopped") : read_image(in, &state, err);

    if (r < 0) {
        if (m->store && sim_chance(50))
            replace(m->store, &(struct registers){0});
        return r;
    }
    if (state.applied < m->state.applied)
        sim_fail("shard %" PRIu64 ": host %u recovers the state at index %" PRIu64 " after it applied index %" PRIu64, m->shard,
                 m->host->id + 1, state.applied, m->state.applied);
    oracle_check_state(m->host, m->shard, &state, "recovers");
    sim.coverage.joined_by_image += m->is_new && m->state.applied == 0 && m->host->received[m->shard] > 0;
    m->state = state;
    m->is_new = false;
    if (m->store)
        put_in_doubt(m->store, &state);
    sim_note(state.applied * 17 + state.n_applied);
    return NH_OK;
}

static int machine_sync(struct nh_machine *m, struct nh_error *err)
{
    (void)err;
    replace(m->store, &m->state);
    sim.coverage.saved_metadata++;
    return NH_OK;
}

/* ---- the tables ---- */

const struct nh_machine_ops *machines_ops(void)
{
    static struct nh_machine_ops ops;

    ops = (struct nh_machine_ops){
        .abi_version = NH_MACHINE_ABI,
        .struct_size = sizeof ops,
        .name = "registers",
        .version = "1",
        .kind = sim.options.kind,
        .flags = sim.options.kind == NH_MACHINE_ON_DISK ? 0 : NH_MACHINE_QUICK,
        .open = machine_open,
        .update = machine_update,
        .lookup = machine_lookup,
        .close = machine_close,
        .hash = machine_hash,
        .save_snapshot = machine_save,
        .recover = machine_recover,
    };
    if (sim.options.kind != NH_MACHINE_REGULAR) {
        ops.prepare_snapshot = machine_prepare;
        ops.release_snapshot = machine_release;
    }
    if (sim.options.kind == NH_MACHINE_ON_DISK)
        ops.sync = machine_sync;
    return &ops;
}
