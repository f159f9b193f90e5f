#include "engine/rsm/rsm.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rsm/membership.h"
#include "engine/rsm/rsm_private.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

/* ---- the lock that is held across calls of a machine ---- */

static _Thread_local bool in_machine;

void rsm_enter_machine(void)
{
    in_machine = true;
}

void rsm_leave_machine(void)
{
    in_machine = false;
}

static int check_outside(struct nh_error *err)
{
    return in_machine ? nh_error_set(err, NH_EDEADLOCK, "a machine must not ask its host from its own functions") : NH_OK;
}

/* Only a regular machine wants no lookups beside its updates. */
static void enter_update(struct rsm *s)
{
    if (s->entered)
        s->entered = false;
    else if (rsm_is_regular(s))
        pthread_rwlock_wrlock(&s->lock);
    else
        pthread_rwlock_rdlock(&s->lock);
    rsm_enter_machine();
}

bool rsm_try_enter(struct rsm *s)
{
    assert(!s->entered && rsm_is_regular(s));
    s->entered = pthread_rwlock_trywrlock(&s->lock) == 0;
    return s->entered;
}

bool rsm_is_quick(const struct rsm *s)
{
    return (s->config.machine->flags & NH_MACHINE_QUICK) && rsm_is_regular(s);
}

/* There was nothing to update. */
static void leave_unused(struct rsm *s)
{
    if (s->entered)
        pthread_rwlock_unlock(&s->lock);
    s->entered = false;
}

static void enter_lookup(struct rsm *s)
{
    pthread_rwlock_rdlock(&s->lock);
    rsm_enter_machine();
}

static void enter_alone(struct rsm *s)
{
    pthread_rwlock_wrlock(&s->lock);
    rsm_enter_machine();
}

static void leave_machine(struct rsm *s)
{
    rsm_leave_machine();
    pthread_rwlock_unlock(&s->lock);
}

/* ---- life ---- */

static void clear(struct rsm_batch *b)
{
    b->n = b->n_results = b->n_series = 0;
}

struct rsm_batch *rsm_batch_new(void)
{
    struct rsm_batch *b = xmalloc(sizeof *b);

    clear(b);
    return b;
}

void rsm_batch_free(struct rsm_batch *b)
{
    free(b);
}

/* An older machine's table: a copy in which the members that it does not know are NULL. */
static struct nh_machine_ops *padded(const struct nh_machine_ops *machine)
{
    struct nh_machine_ops *ops = xcalloc(1, sizeof *ops);

    memcpy(ops, machine, machine->struct_size);
    return ops;
}

/* An update that waits for lookups goes before later ones: clients that keep asking would hold it up for ever. No thread takes
 * the lock twice (check_outside). */
static void init_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

struct rsm *rsm_new(const struct rsm_config *config)
{
    struct rsm *s = xcalloc(1, sizeof *s);

    s->config = *config;
    if (config->machine->struct_size < sizeof *s->padded_ops) /* else thousands of replicas share it */
        s->config.machine = s->padded_ops = padded(config->machine);
    s->config.machine_dir = s->machine_dir = xstrdup(config->machine_dir);
    s->sessions = sessions_new();
    init_lock(&s->lock);
    pthread_mutex_init(&s->membership_lock, NULL);
    return s;
}

void rsm_free(struct rsm *s)
{
    if (!s)
        return;
    rsm_close(s);
    pthread_rwlock_destroy(&s->lock);
    pthread_mutex_destroy(&s->membership_lock);
    free(s->membership);
    sessions_free(s->sessions);
    free(s->machine_dir);
    free(s->padded_ops);
    free(s);
}

/* What a machine that keeps its own state says of itself must fit into the log. */
static int check_opened(const struct rsm *s, uint64_t applied, struct nh_error *err)
{
    if (!rsm_is_on_disk(s) || applied <= s->config.last_index)
        return NH_OK;
    return nh_error_set(
        err, NH_EMISMATCH,
        "it holds entry %" PRIu64 ", the log ends at %" PRIu64
        ": the log was lost or the machine's files were swapped; remove the data of this replica and let it join anew",
        applied, s->config.last_index);
}

int rsm_open(struct rsm *s, struct nh_error *err)
{
    struct nh_machine_args args = {
        .struct_size = sizeof args,
        .shard_id = s->config.shard_id,
        .replica_id = s->config.replica_id,
        .data_dir = rsm_is_on_disk(s) ? s->machine_dir : NULL,
        .services = nh_plugin_services(),
    };
    struct nh_machine *machine = NULL;
    uint64_t applied = 0;
    int r;

    rsm_enter_machine();
    r = plugin_status(s->config.machine->open(&args, &machine, &applied, err), "open", err);
    rsm_leave_machine();
    if (r < 0)
        machine = NULL; /* it has freed what it had */
    else
        r = check_opened(s, applied, err);
    pthread_rwlock_wrlock(&s->lock);
    s->machine = machine;
    s->state = r < 0 ? RSM_FAILED : RSM_OPEN;
    pthread_rwlock_unlock(&s->lock);
    s->machine_applied = rsm_is_on_disk(s) ? applied : 0;
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

uint64_t rsm_machine_index(const struct rsm *s)
{
    return s->machine_applied;
}

/* ---- membership ---- */

void rsm_copy_membership(struct rsm *s, struct nh_membership *ret)
{
    int r;

    pthread_mutex_lock(&s->membership_lock);
    r = membership_decode(s->membership, s->membership_bytes, ret, NULL);
    pthread_mutex_unlock(&s->membership_lock);
    assert(r == NH_OK); /* it is as rsm_set_membership encoded it */
    (void)r;
}

void rsm_set_membership(struct rsm *s, const struct nh_membership *m, bool witness)
{
    const struct nh_member *self = nh_membership_find(m, s->config.replica_id);
    size_t bytes = membership_encode(m, NULL, 0);
    uint8_t *encoded = bytes > 0 ? xmalloc(bytes) : NULL, *old = s->membership;

    membership_encode(m, encoded, bytes);
    pthread_mutex_lock(&s->membership_lock);
    s->membership = encoded;
    s->membership_bytes = bytes;
    pthread_mutex_unlock(&s->membership_lock);
    free(old);
    s->is_witness = self ? nh_kind_is_witness(self->kind) : witness;
}

/* ---- applying ---- */

void rsm_set_applied(struct rsm *s, uint64_t index, uint64_t term)
{
    s->applied_term = term;
    __atomic_store_n(&s->applied, index, __ATOMIC_RELEASE);
}

void rsm_fail(struct rsm *s)
{
    pthread_rwlock_wrlock(&s->lock);
    s->state = RSM_FAILED;
    pthread_rwlock_unlock(&s->lock);
}

static const struct nh_result *result_of(const struct rsm_batch *b, uint64_t index)
{
    return &b->entries[index - b->first].result;
}

/* What sessions are to remember of the batch up to `last`. Goes on at *at, and moves it. */
static void keep_results(struct rsm *s, size_t *at, uint64_t last)
{
    const struct rsm_batch *b = s->batch;

    for (; *at < b->n_series && b->series[*at].index <= last; ++*at) {
        const struct rsm_series *series = &b->series[*at];

        sessions_keep(s->sessions, series->client_id, series->series_id, result_of(b, series->index));
    }
}

/* The same for who waits. */
static void give_results(struct rsm_batch *b, size_t *at, uint64_t last, const struct rsm_sink *sink)
{
    size_t from = *at;

    for (; *at < b->n_results && b->results[*at].index <= last; ++*at)
        b->results[*at].value = *result_of(b, b->results[*at].index);
    if (*at > from)
        sink->on_results(sink->ctx, b->results + from, *at - from);
}

/* A number of entries is no failure of a machine that may take them in parts. */
static int check_update(const struct rsm *s, int r, size_t n, struct nh_error *err)
{
    if (r <= 0 || !(s->config.machine->flags & NH_MACHINE_IN_PARTS))
        return plugin_status(r, "update", err);
    return (size_t)r <= n ? r : nh_error_set(err, NH_EABI, "update says that it has applied %d of %zu entries", r, n);
}

/* Gives the machine what is left of the batch. *ret_taken: as many of them as it has applied. */
static int update(struct rsm *s, size_t from, size_t to, size_t *ret_taken, struct nh_error *err)
{
    struct rsm_batch *b = s->batch;
    size_t n = to - from;
    int r;

    enter_update(s);
    r = check_update(s, s->config.machine->update(s->machine, b->entries + from, n, err), n, err);
    *ret_taken = r > 0 ? (size_t)r : n;
    if (r >= 0)
        rsm_set_applied(s, b->first + from + *ret_taken - 1, b->term);
    else if (rsm_is_regular(s))
        s->state = RSM_FAILED; /* the lock is ours: nobody has to be waited for */
    leave_machine(s);
    if (rsm_is_on_disk(s))
        s->machine_applied = b->first + from + *ret_taken - 1;
    if (r >= 0)
        return NH_OK;
    if (s->state != RSM_FAILED)
        rsm_fail(s);
    return nh_error_wrap(err, r, "machine %s: update at index %" PRIu64, s->config.machine->name, b->first + from);
}

/* Gives the batch to the machine and its results to the sink, part by part if the machine wants that. */
static int flush(struct rsm *s, const struct rsm_sink *sink, struct nh_error *err)
{
    struct rsm_batch *b = s->batch;
    size_t series_at = 0, results_at = 0, taken;
    int r = NH_OK;

    assert(b->n == 0 || b->entries[b->n - 1].index == b->first + b->n - 1);
    for (size_t from = 0; from < b->n && r == NH_OK; from += taken) {
        r = update(s, from, b->n, &taken, err);
        if (r == NH_OK) {
            keep_results(s, &series_at, s->applied);
            give_results(b, &results_at, s->applied, sink);
        }
    }
    clear(b);
    return r;
}

/* Proposed at this replica, in this life or an earlier one. */
static bool is_waited_for(const struct rsm *s, const struct nh_entry_view *e)
{
    return e->key && e->origin == (uint32_t)s->config.replica_id;
}

/* Full: given to the machine at once, so there is always room for one more. */
static inline int add_entry(struct rsm *s, const struct nh_entry_view *e, const struct rsm_sink *sink, struct nh_error *err)
{
    struct rsm_batch *b = s->batch;

    if (b->n == 0)
        b->first = e->index;
    b->entries[b->n] = (struct nh_entry){.index = e->index, .cmd = e->payload, .size_bytes = e->payload_bytes};
    if (is_waited_for(s, e))
        b->results[b->n_results++] = (struct rsm_result){.index = e->index, .key = e->key};
    b->term = e->term;
    return ++b->n == RSM_UPDATE_ENTRIES_MAX ? flush(s, sink, err) : NH_OK;
}

/* ---- sessions ---- */

static int add_of_session(struct rsm *s, const struct nh_entry_view *e, const struct rsm_sink *sink, struct nh_error *err)
{
    struct rsm_batch *b = s->batch;

    b->series[b->n_series++] = (struct rsm_series){e->index, e->client_id, e->series_id};
    return add_entry(s, e, sink, err);
}

/* An entry that does not reach the machine: its result is known or it is refused. */
static int answer_session(struct rsm *s, const struct nh_entry_view *e, int status, const struct nh_result *value,
                          const struct rsm_sink *sink)
{
    struct rsm_result result = {.index = e->index, .key = e->key, .rejected = status < 0, .status = status};

    rsm_set_applied(s, e->index, e->term);
    if (status < 0) {
        result.value.data = nh_status_text(status);
        result.value.size_bytes = strlen(result.value.data);
    } else {
        result.value = *value;
    }
    if (is_waited_for(s, e))
        sink->on_results(sink->ctx, &result, 1);
    return NH_OK;
}

/* An on-disk machine holds it already: only the table learns of it. */
static void keep_unknown(struct rsm *s, const struct nh_entry_view *e)
{
    sessions_keep(s->sessions, e->client_id, e->series_id, NULL);
    rsm_set_applied(s, e->index, e->term);
}

static int apply_session_entry(struct rsm *s, const struct nh_entry_view *e, const struct rsm_sink *sink, struct nh_error *err)
{
    bool is_proposal = e->series_id != SESSION_OPEN && e->series_id != SESSION_CLOSE;
    struct nh_result value = {0};
    enum session_verdict verdict;
    int r = is_proposal ? NH_OK : flush(s, sink, err);

    if (r < 0)
        return r;
    verdict = sessions_check(s->sessions, e, &value);
    if (verdict == SESSION_APPLY && e->index > s->machine_applied)
        return add_of_session(s, e, sink, err);
    if (s->batch->n > 0) { /* what came before comes first; what is kept then may be the answer */
        r = flush(s, sink, err);
        if (r < 0)
            return r;
        verdict = sessions_check(s->sessions, e, &value);
    }
    switch (verdict) {
    case SESSION_OPENED:
    case SESSION_CLOSED:
    case SESSION_REPEATED: return answer_session(s, e, NH_OK, &value, sink);
    case SESSION_ACKED: return answer_session(s, e, NH_EACKED, NULL, sink);
    case SESSION_UNKNOWN: return answer_session(s, e, NH_ESESSION, NULL, sink);
    case SESSION_INVALID: return answer_session(s, e, NH_EINVAL, NULL, sink);
    case SESSION_APPLY: keep_unknown(s, e); return NH_OK;
    case SESSION_IN_BATCH: break;
    }
    return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " of a session is being applied twice", e->index);
}

static int apply_config_change(struct rsm *s, const struct nh_entry_view *e, const struct rsm_sink *sink, struct nh_error *err)
{
    struct rsm_result result = {.index = e->index, .key = e->key};
    struct nh_config_change change = {0};
    struct nh_membership membership;
    const char *reason = NULL;
    int r = config_change_decode(e->payload, e->payload_bytes, &change, err);

    if (r < 0)
        return nh_error_wrap(err, NH_ECORRUPT, "configuration change at index %" PRIu64, e->index);
    assert(!s->entered);
    rsm_copy_membership(s, &membership); /* only this thread changes it */
    result.rejected = !membership_apply(&membership, &change, e->index, &reason);
    pthread_rwlock_wrlock(&s->lock);
    rsm_set_membership(s, &membership, s->is_witness);
    rsm_set_applied(s, e->index, e->term);
    pthread_rwlock_unlock(&s->lock);
    nh_config_change_deinit(&change);
    sink->on_membership(sink->ctx, e->index, result.rejected ? NULL : &membership);
    nh_membership_deinit(&membership);
    if (!is_waited_for(s, e))
        return NH_OK;
    if (result.rejected) {
        result.value.data = reason;
        result.value.size_bytes = strlen(reason);
    }
    sink->on_results(sink->ctx, &result, 1);
    return NH_OK;
}

static int apply_plain(struct rsm *s, const uint8_t *record, const struct rsm_sink *sink, struct nh_error *err)
{
    struct nh_entry_view e;

    nh_record_view(record, &e);
    if (e.index > s->machine_applied)
        return add_entry(s, &e, sink, err);
    rsm_set_applied(s, e.index, e.term);
    return NH_OK;
}

/* Only witnesses are given entries without what was in them: also before they are members, and when they are none any more. */
static void note_metadata(struct rsm *s)
{
    if (s->is_witness)
        return;
    pthread_rwlock_wrlock(&s->lock);
    s->is_witness = true;
    pthread_rwlock_unlock(&s->lock);
}

static int apply_special(struct rsm *s, const uint8_t *record, const struct rsm_sink *sink, struct nh_error *err)
{
    struct rsm_result result = {0};
    struct nh_entry_view e;
    int r;

    nh_record_view(record, &e);
    if (e.type == NH_ENTRY_APPLICATION && (e.flags & NH_RECORD_SESSION))
        return apply_session_entry(s, &e, sink, err);
    r = flush(s, sink, err); /* what came before comes first */
    if (r < 0)
        return r;
    if (e.type == NH_ENTRY_CONFIG_CHANGE)
        return apply_config_change(s, &e, sink, err);
    if (e.type != NH_ENTRY_APPLICATION && e.type != NH_ENTRY_METADATA) /* a no-op, a barrier, or of a witness */
        return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " has the unknown type %u", e.index, (unsigned)e.type);
    rsm_set_applied(s, e.index, e.term);
    if (e.type == NH_ENTRY_METADATA && e.key == 0)
        note_metadata(s);
    result.index = e.index;
    result.key = e.key;
    if (is_waited_for(s, &e))
        sink->on_results(sink->ctx, &result, 1); /* a barrier: all before it is applied */
    return NH_OK;
}

static int apply_run(struct rsm *s, const struct nh_run *run, uint64_t *next, const struct rsm_sink *sink, struct nh_error *err)
{
    const uint8_t *p = nh_run_data(run), *end = p + nh_run_size(run);

    for (; p < end; p += nh_record_bytes(p)) {
        uint64_t index = nh_record_index(p);
        int r;

        if (index < *next)
            continue;
        if (index > *next)
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " follows entry %" PRIu64, index, *next - 1);
        *next = index + 1;
        r = rsm_is_plain(p) ? apply_plain(s, p, sink, err) : apply_special(s, p, sink, err);
        if (r < 0)
            return r;
    }
    return NH_OK;
}

void rsm_prefetch(const struct rsm *s)
{
    prefetch(s, offsetof(struct rsm, is_witness));
}

void rsm_prefetch_machine(const struct rsm *s)
{
    prefetch(s->machine, 1);
    prefetch(__atomic_load_n(&s->sessions, __ATOMIC_RELAXED), 1); /* a recovery may replace it beside us */
}

int rsm_apply(struct rsm *s, const struct nh_run *runs, uint32_t n_runs, const struct rsm_sink *sink, struct nh_error *err)
{
    uint64_t next = s->applied + 1;
    int r = NH_OK;

    if (s->state != RSM_OPEN) { /* only this thread changes it */
        leave_unused(s);
        return nh_error_set(err, NH_EQUARANTINED, "the machine is not open");
    }
    s->batch = sink->batch;
    for (uint32_t i = 0; i < n_runs && r == NH_OK; i++)
        r = apply_run(s, &runs[i], &next, sink, err);
    if (r == NH_OK)
        r = flush(s, sink, err);
    clear(s->batch);
    s->batch = NULL;
    leave_unused(s);
    if (r < 0 && s->state != RSM_FAILED) /* only this thread changes it */
        rsm_fail(s);
    return r;
}

/* ---- questions from any thread ---- */

static int check_open(const struct rsm *s, struct nh_error *err)
{
    if (s->recovering)
        return nh_error_set(err, NH_ENOTREADY, "the machine is being recovered");
    switch (s->state) {
    case RSM_OPEN:
        return s->is_witness ? nh_error_set(err, NH_EUNSUPPORTED, "this replica is a witness: it holds no data") : NH_OK;
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
        r = plugin_status(s->config.machine->lookup(s->machine, query, size_bytes, out, ret_value, err), "lookup", err);
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
    enter_alone(s); /* the hash and the index belong together */
    r = check_open(s, err);
    if (r == NH_OK) {
        *ret_hash = s->config.machine->hash(s->machine);
        *ret_applied = rsm_applied(s); /* an entry without effect moves it beside us */
    }
    leave_machine(s);
    return r;
}

int rsm_get_membership(struct rsm *s, struct nh_membership *ret, struct nh_error *err)
{
    int r = check_outside(err);

    if (r < 0)
        return r;
    rsm_copy_membership(s, ret);
    return NH_OK;
}
