#include "engine/rsm/rsm.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rsm/membership.h"
#include "raftio/support/memory.h"

enum rsm_state {
    RSM_NEW = 0, /* -- rsm_open --> OPEN */
    RSM_OPEN,    /* -- rsm_apply fails --> FAILED; -- rsm_close --> CLOSED */
    RSM_FAILED,  /* -- rsm_close --> CLOSED */
    RSM_CLOSED,
};

struct rsm {
    struct rsm_config config;
    char *machine_dir;
    pthread_rwlock_t lock;           /* update: exclusive, lookups: shared */
    enum rsm_state state;            /* guarded by lock */
    struct nh_machine *machine;      /* guarded by lock; NULL unless opened */
    struct nh_membership membership; /* guarded by lock */
    uint64_t applied;                /* atomic; written by the apply worker */

    struct nh_entry *entries; /* apply worker: the batch under construction */
    struct rsm_result *results;
    size_t n_entries, cap_entries, cap_results;
};

/* ---- the lock that is held across calls of a machine ---- */

/* This thread is inside a machine's update, lookup or hash. Another rsm lock taken there waits for itself, or crosswise. */
static _Thread_local bool in_machine;

static int check_outside(struct nh_error *err)
{
    return in_machine ? nh_error_set(err, NH_EDEADLOCK, "a machine must not ask its host from its own functions") : NH_OK;
}

static void enter_update(struct rsm *s)
{
    pthread_rwlock_wrlock(&s->lock);
    in_machine = true;
}

static void enter_lookup(struct rsm *s)
{
    pthread_rwlock_rdlock(&s->lock);
    in_machine = true;
}

static void leave_machine(struct rsm *s)
{
    in_machine = false;
    pthread_rwlock_unlock(&s->lock);
}

/* ---- life ---- */

struct rsm *rsm_new(const struct rsm_config *config)
{
    struct rsm *s = xcalloc(1, sizeof *s);

    s->config = *config;
    s->machine_dir = xstrdup(config->machine_dir);
    s->config.machine_dir = s->machine_dir;
    pthread_rwlock_init(&s->lock, NULL);
    return s;
}

void rsm_free(struct rsm *s)
{
    if (!s)
        return;
    rsm_close(s);
    pthread_rwlock_destroy(&s->lock);
    nh_membership_deinit(&s->membership);
    free(s->entries);
    free(s->results);
    free(s->machine_dir);
    free(s);
}

int rsm_open(struct rsm *s, struct nh_error *err)
{
    struct nh_machine_args args = {
        .struct_size = sizeof args,
        .shard_id = s->config.shard_id,
        .replica_id = s->config.replica_id,
        .data_dir = s->machine_dir,
        .services = nh_plugin_services(),
    };
    struct nh_machine *machine = NULL;
    uint64_t applied = 0;
    int r = s->config.machine->open(&args, &machine, &applied, err);

    pthread_rwlock_wrlock(&s->lock);
    s->machine = r < 0 ? NULL : machine;
    s->state = r < 0 ? RSM_FAILED : RSM_OPEN;
    pthread_rwlock_unlock(&s->lock);
    return r < 0 ? nh_error_wrap(err, r, "open machine %s", s->config.machine->name) : NH_OK;
}

void rsm_close(struct rsm *s)
{
    struct nh_machine *machine;

    pthread_rwlock_wrlock(&s->lock);
    machine = s->machine;
    s->machine = NULL;
    s->state = RSM_CLOSED;
    pthread_rwlock_unlock(&s->lock);
    if (machine)
        s->config.machine->close(machine);
}

uint64_t rsm_applied(const struct rsm *s)
{
    return __atomic_load_n(&s->applied, __ATOMIC_ACQUIRE);
}

/* ---- applying ---- */

static void set_applied(struct rsm *s, uint64_t index)
{
    __atomic_store_n(&s->applied, index, __ATOMIC_RELEASE);
}

/* Gives the batch to the machine and its results to the sink. */
static int flush(struct rsm *s, const struct rsm_sink *sink, struct nh_error *err)
{
    size_t n = s->n_entries, n_results = 0;
    int r;

    if (n == 0)
        return NH_OK;
    s->n_entries = 0;
    enter_update(s);
    r = s->config.machine->update(s->machine, s->entries, n, err);
    if (r < 0)
        s->state = RSM_FAILED;
    else
        set_applied(s, s->entries[n - 1].index);
    leave_machine(s);
    if (r < 0)
        return nh_error_wrap(err, r, "machine %s: update at index %" PRIu64, s->config.machine->name, s->entries[0].index);
    for (size_t i = 0; i < n; i++) {
        s->results[i].value = s->entries[i].result;
        if (s->results[i].key)
            s->results[n_results++] = s->results[i];
    }
    if (n_results > 0)
        sink->on_results(sink->ctx, s->results, n_results);
    return NH_OK;
}

static void add_entry(struct rsm *s, const struct nh_entry_view *e)
{
    array_reserve((void **)&s->entries, &s->cap_entries, s->n_entries + 1, sizeof *s->entries);
    array_reserve((void **)&s->results, &s->cap_results, s->n_entries + 1, sizeof *s->results);
    s->entries[s->n_entries] = (struct nh_entry){.index = e->index, .cmd = e->payload, .size_bytes = e->payload_bytes};
    s->results[s->n_entries] = (struct rsm_result){.index = e->index, .key = e->key, .origin = e->origin};
    s->n_entries++;
}

static int apply_config_change(struct rsm *s, const struct nh_entry_view *e, const struct rsm_sink *sink, struct nh_error *err)
{
    struct rsm_result result = {.index = e->index, .key = e->key, .origin = e->origin};
    struct nh_config_change change = {0};
    const char *reason = NULL;
    int r = config_change_decode(e->payload, e->payload_bytes, &change, err);

    if (r < 0)
        return nh_error_wrap(err, NH_ECORRUPT, "configuration change at index %" PRIu64, e->index);
    pthread_rwlock_wrlock(&s->lock);
    result.rejected = !membership_apply(&s->membership, &change, e->index, &reason);
    set_applied(s, e->index);
    pthread_rwlock_unlock(&s->lock);
    nh_config_change_deinit(&change);
    sink->on_membership(sink->ctx, e->index, result.rejected ? NULL : &s->membership);
    if (!result.key)
        return NH_OK;
    if (result.rejected) {
        result.value.data = reason;
        result.value.size_bytes = strlen(reason);
    }
    sink->on_results(sink->ctx, &result, 1);
    return NH_OK;
}

static int apply_entry(struct rsm *s, const struct nh_entry_view *e, const struct rsm_sink *sink, struct nh_error *err)
{
    bool no_op = e->type == NH_ENTRY_APPLICATION && e->payload_bytes == 0 && e->key == 0;
    struct rsm_result result = {.index = e->index, .key = e->key, .origin = e->origin};
    int r;

    if (e->type == NH_ENTRY_APPLICATION && !no_op) {
        add_entry(s, e);
        return s->n_entries >= RSM_UPDATE_ENTRIES_MAX ? flush(s, sink, err) : NH_OK;
    }
    r = flush(s, sink, err); /* what came before comes first */
    if (r < 0)
        return r;
    if (e->type == NH_ENTRY_CONFIG_CHANGE)
        return apply_config_change(s, e, sink, err);
    if (!no_op && e->type != NH_ENTRY_METADATA)
        return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " has the unknown type %u", e->index, (unsigned)e->type);
    set_applied(s, e->index);
    if (e->key)
        sink->on_results(sink->ctx, &result, 1); /* a barrier: all before it is applied */
    return NH_OK;
}

static int apply_run(struct rsm *s, const struct nh_run *run, uint64_t *next, const struct rsm_sink *sink, struct nh_error *err)
{
    const uint8_t *p = nh_run_data(run), *end = p + nh_run_size(run);

    for (; p < end; p += nh_record_bytes(p)) {
        struct nh_entry_view e;
        int r;

        nh_record_view(p, &e);
        if (e.index < *next)
            continue;
        if (e.index > *next)
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " follows entry %" PRIu64, e.index, *next - 1);
        *next = e.index + 1;
        r = apply_entry(s, &e, sink, err);
        if (r < 0)
            return r;
    }
    return NH_OK;
}

int rsm_apply(struct rsm *s, const struct nh_run *runs, uint32_t n_runs, const struct rsm_sink *sink, struct nh_error *err)
{
    uint64_t next = s->applied + 1;
    int r = NH_OK;

    if (s->state != RSM_OPEN) /* only this thread changes it */
        return nh_error_set(err, NH_EQUARANTINED, "the machine is not open");
    for (uint32_t i = 0; i < n_runs && r == NH_OK; i++)
        r = apply_run(s, &runs[i], &next, sink, err);
    if (r == NH_OK)
        r = flush(s, sink, err);
    if (r < 0) {
        s->n_entries = 0;
        pthread_rwlock_wrlock(&s->lock);
        s->state = RSM_FAILED;
        pthread_rwlock_unlock(&s->lock);
    }
    return r;
}

/* ---- questions from any thread ---- */

/* With the lock held. */
static bool is_witness(const struct rsm *s)
{
    const struct nh_member *self = nh_membership_find(&s->membership, s->config.replica_id);

    return self && nh_kind_is_witness(self->kind);
}

static int check_open(const struct rsm *s, struct nh_error *err)
{
    switch (s->state) {
    case RSM_OPEN:
        return is_witness(s) ? nh_error_set(err, NH_EUNSUPPORTED, "this replica is a witness: it holds no data") : NH_OK;
    case RSM_NEW: return nh_error_set(err, NH_ENOTREADY, "the machine is not open yet");
    case RSM_FAILED: return nh_error_set(err, NH_EQUARANTINED, "the machine has failed");
    case RSM_CLOSED: return nh_error_set(err, NH_ECLOSED, "the machine is closed");
    }
    return nh_error_set(err, NH_EINVAL, "state %d", (int)s->state);
}

int rsm_lookup(struct rsm *s, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
               struct nh_error *err)
{
    int r = check_outside(err);

    if (r < 0)
        return r;
    enter_lookup(s);
    r = check_open(s, err);
    if (r == NH_OK)
        r = s->config.machine->lookup(s->machine, query, size_bytes, out, ret_value, err);
    leave_machine(s);
    return r;
}

int rsm_get_hash(struct rsm *s, uint64_t *ret_hash, uint64_t *ret_applied, struct nh_error *err)
{
    int r = check_outside(err);

    if (r == NH_OK && !s->config.machine->hash)
        r = nh_error_set(err, NH_EUNSUPPORTED, "machine %s has no hash", s->config.machine->name);
    if (r < 0)
        return r;
    enter_lookup(s);
    r = check_open(s, err);
    if (r == NH_OK) {
        *ret_hash = s->config.machine->hash(s->machine);
        *ret_applied = s->applied;
    }
    leave_machine(s);
    return r;
}

int rsm_get_membership(struct rsm *s, struct nh_membership *ret, struct nh_error *err)
{
    int r = check_outside(err);

    if (r < 0)
        return r;
    pthread_rwlock_rdlock(&s->lock);
    nh_membership_copy(ret, &s->membership);
    pthread_rwlock_unlock(&s->lock);
    return NH_OK;
}
