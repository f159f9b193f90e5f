#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

struct fixture host;
uint32_t host_max_pending;
bool host_inline_applies;
bool host_steps_in, host_two_steps, host_moves_images;
uint64_t host_max_inbox, host_max_uncommitted;

/* ---- runtime ---- */

struct task {
    struct task *next;
    char name[16];
    task_poll_fn poll;
    void *arg;
    bool woken, stopped;
    uint64_t at_ns;
};
static struct task *tasks;

static uint64_t now_ns(struct runtime *rt)
{
    (void)rt;
    return host.now_ns;
}

static struct task *task_start(struct runtime *rt, const char *name, task_poll_fn poll, void *arg)
{
    struct task *t = xcalloc(1, sizeof *t), **at = &tasks;

    (void)rt;
    strncpy(t->name, name, sizeof t->name - 1);
    t->poll = poll;
    t->arg = arg;
    t->woken = true;
    while (*at)
        at = &(*at)->next;
    *at = t;
    return t;
}

static void task_wake(struct task *t)
{
    t->woken = true;
}

static bool task_step_in(struct task *t)
{
    if (!host_steps_in || t->stopped || t->woken || t->at_ns <= host.now_ns)
        return false;
    host.n_stepped_in++;
    do {
        t->woken = false;
        t->at_ns = t->poll(t->arg);
    } while (t->woken || t->at_ns == TASK_POLL_NOW);
    return true;
}

static void task_stop(struct task *t)
{
    if (t)
        t->stopped = true;
}

static void task_free(struct task *t)
{
    struct task **at = &tasks;

    while (*at && *at != t)
        at = &(*at)->next;
    if (t)
        *at = t->next;
    free(t);
}

static bool sleep_ns(struct runtime *rt, uint64_t ns)
{
    (void)rt;
    (void)ns;
    return false; /* one thread */
}

static const struct runtime_ops runtime_ops = {now_ns,       now_ns,    task_start, task_wake,
                                               task_step_in, task_stop, task_free,  sleep_ns};
static struct runtime runtime = {&runtime_ops};

static bool is_held(const struct task *t)
{
    return (host.hold_log && strcmp(t->name, "nh-log") == 0) || (host.hold_snapshots && strcmp(t->name, "nh-snapshot") == 0) ||
           (host.hold_apply && strcmp(t->name, "nh-apply") == 0) ||
           (host.hold_streams && (strcmp(t->name, "nh-send") == 0 || strcmp(t->name, "nh-receive") == 0));
}

static bool poll_all(void)
{
    bool polled = false;

    for (struct task *t = tasks; t; t = t->next) {
        if (t->stopped || is_held(t) || !(t->woken || t->at_ns <= host.now_ns))
            continue;
        t->woken = false;
        t->at_ns = t->poll(t->arg);
        polled = true;
    }
    return polled;
}

static void settle(void)
{
    for (uint32_t i = 0; poll_all(); i++)
        cr_assert_lt(i, 10000, "the workers never come to rest");
}

void host_run(uint32_t ms)
{
    settle();
    for (uint32_t i = 0; i < ms; i++) {
        host.now_ns += 1000000;
        settle();
    }
}

/* ---- transport ---- */

static int get_connection(struct nh_transport *t, const char *target, struct nh_connection **ret, struct nh_error *err)
{
    (void)t;
    (void)target;
    (void)err;
    *ret = (struct nh_connection *)&host;
    return NH_OK;
}

static int send_batch(struct nh_connection *c, const struct nh_message_batch *batch, struct nh_error *err)
{
    (void)c;
    (void)err;
    if (host.send_result < 0)
        return host.send_result;
    host.n_sent += batch->n_messages;
    host.n_pings += batch->n_messages == 0;
    return NH_OK;
}

static void close_connection(struct nh_connection *c)
{
    (void)c;
}

static int get_snapshot_connection(struct nh_transport *t, const char *target, struct nh_snapshot_connection **ret,
                                   struct nh_error *err)
{
    (void)t, (void)ret;
    return nh_error_set(err, NH_EIO, "%s is not there", target);
}

static int send_chunk(struct nh_snapshot_connection *c, const struct nh_chunk *chunk, struct nh_error *err)
{
    (void)c, (void)chunk;
    return nh_error_set(err, NH_EIO, "no connection");
}

static void close_snapshot_connection(struct nh_snapshot_connection *c)
{
    (void)c;
}

static const struct nh_transport_ops *transport_ops(void)
{
    static struct nh_transport_ops ops;

    ops = (struct nh_transport_ops){.struct_size = sizeof ops,
                                    .name = "none",
                                    .get_connection = get_connection,
                                    .send_batch = send_batch,
                                    .close_connection = close_connection,
                                    .calls_on_drained = host_steps_in};
    if (host_moves_images) {
        ops.get_snapshot_connection = get_snapshot_connection;
        ops.send_chunk = send_chunk;
        ops.close_snapshot_connection = close_snapshot_connection;
    }
    return &ops;
}

/* ---- log store ---- */

/* So a save that names the shard writes nothing. */
static int check_readable(const struct nh_update *updates, size_t n, struct nh_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (updates[i].shard_id == host.unreadable)
            return nh_error_set(err, NH_ECORRUPT, "shard %" PRIu64 ": a block is damaged", host.unreadable);
    return NH_OK;
}

static int save_raft_state(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id,
                           struct nh_error *err)
{
    int rc = check_readable(updates, n, err);

    host.now_ns += host.save_ns;
    if (rc < 0 && n == 1)
        host.unreadable = 0;
    if (rc < 0)
        return rc;
    return nh_logdb_memory()->save_raft_state(db, updates, n, worker_id, err);
}

static const struct nh_update *begun;
static size_t n_begun;

static int begin_save(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id, struct nh_error *err)
{
    (void)db;
    (void)worker_id;
    (void)err;
    cr_assert_null(begun, "one at a time");
    if (host.begin_result < 0)
        return nh_error_set(err, host.begin_result, "begin_save");
    if (check_readable(updates, n, err) < 0)
        return NH_ECORRUPT;
    begun = updates;
    n_begun = n;
    return NH_OK;
}

static int end_save(struct nh_logdb *db, uint32_t worker_id, struct nh_error *err)
{
    const struct nh_update *updates = begun;

    cr_assert_not_null(begun);
    begun = NULL;
    host.n_two_steps++;
    host.n_sent_before = host.n_sent;
    return save_raft_state(db, updates, n_begun, worker_id, err);
}

static int save_snapshots(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct nh_error *err)
{
    int rc = check_readable(updates, n, err);

    return rc < 0 ? rc : nh_logdb_memory()->save_snapshots(db, updates, n, err);
}

static const struct nh_logdb_ops *logdb_ops(void)
{
    static struct nh_logdb_ops ops;

    ops = *nh_logdb_memory();
    ops.save_raft_state = save_raft_state;
    ops.save_snapshots = save_snapshots;
    if (host_two_steps) {
        ops.begin_save = begin_save;
        ops.end_save = end_save;
    }
    return &ops;
}

/* ---- machine ---- */

struct nh_machine {
    uint64_t sum;
    uint64_t applied;
};

struct host_disk_state host_disk_durable;

static int machine_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args;
    (void)err;
    *ret = xcalloc(1, sizeof **ret);
    *ret_applied = 0;
    return NH_OK;
}

static int machine_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    host.now_ns += host.update_ns;
    for (size_t i = 0; i < n; i++) {
        uint64_t v = 0;

        memcpy(&v, entries[i].cmd, entries[i].size_bytes < sizeof v ? entries[i].size_bytes : sizeof v);
        if (host.fail_value && v == host.fail_value)
            return nh_error_set(err, NH_EMACHINE, "cannot add %u", (unsigned)v);
        m->sum += v;
        m->applied = entries[i].index;
        entries[i].result = (struct nh_result){m->sum, "added", 5};
    }
    return NH_OK;
}

static int machine_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                          struct nh_error *err)
{
    if (size_bytes > 0 && *(const char *)query == '!')
        return nh_error_set(err, NH_EMACHINE, "what?");
    if (host.on_lookup)
        host.on_lookup();
    *ret_value = m->sum;
    return out->write(out->ctx, &m->sum, sizeof m->sum);
}

static void machine_close(struct nh_machine *m)
{
    free(m);
}

static uint64_t machine_hash(struct nh_machine *m)
{
    return m->sum;
}

static int machine_save(struct nh_machine *m, void *snapshot_ctx, struct nh_writer *out, const volatile bool *stop,
                        struct nh_error *err)
{
    struct host_disk_state *moment = snapshot_ctx, now = {m->sum, m->applied};

    (void)stop;
    (void)err;
    return out->write(out->ctx, moment ? moment : &now, sizeof now);
}

static int machine_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    struct host_disk_state s;
    int64_t n = in->read(in->ctx, &s, sizeof s);

    (void)stop;
    if (n != (int64_t)sizeof s)
        return n < 0 ? (int)n : nh_error_set(err, NH_ECORRUPT, "%d bytes", (int)n);
    m->sum = s.sum;
    m->applied = s.applied;
    return NH_OK;
}

static int machine_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    struct host_disk_state now = {m->sum, m->applied};

    (void)err;
    *ret_ctx = xmemdup(&now, sizeof now);
    return NH_OK;
}

static void machine_release(struct nh_machine *m, void *snapshot_ctx)
{
    (void)m;
    free(snapshot_ctx);
}

static int disk_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    int r = machine_open(args, ret, ret_applied, err);

    (*ret)->sum = host_disk_durable.sum;
    *ret_applied = (*ret)->applied = host_disk_durable.applied;
    return r;
}

static int disk_sync(struct nh_machine *m, struct nh_error *err)
{
    (void)err;
    host_disk_durable = (struct host_disk_state){m->sum, m->applied};
    return NH_OK;
}

const struct nh_machine_ops host_disk_machine = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "adder-disk",
    .kind = NH_MACHINE_ON_DISK,
    .open = disk_open,
    .update = machine_update,
    .lookup = machine_lookup,
    .close = machine_close,
    .hash = machine_hash,
    .prepare_snapshot = machine_prepare,
    .save_snapshot = machine_save,
    .recover = machine_recover,
    .sync = disk_sync,
    .release_snapshot = machine_release,
};

#define IN_MEMORY                                                                                                                \
    .abi_version = NH_MACHINE_ABI, .struct_size = sizeof(struct nh_machine_ops), .open = machine_open, .update = machine_update, \
    .lookup = machine_lookup, .close = machine_close, .hash = machine_hash, .save_snapshot = machine_save,                       \
    .recover = machine_recover

const struct nh_machine_ops host_machine = {IN_MEMORY, .name = "adder"};
const struct nh_machine_ops host_quick_machine = {IN_MEMORY, .name = "adder-quick", .flags = NH_MACHINE_QUICK};

/* ---- events ---- */

static void on_leader(void *ctx, const struct nh_leader_info *info)
{
    (void)ctx;
    host.leader_id = info->leader_id;
    host.term = info->term;
}
static void on_ready(void *ctx, struct nh_replica_info info)
{
    (void)ctx;
    (void)info;
    host.n_ready++;
}
static void on_unloaded(void *ctx, struct nh_replica_info info)
{
    (void)ctx;
    (void)info;
    host.n_unloaded++;
}
static void on_quarantined(void *ctx, struct nh_replica_info info, const char *reason)
{
    (void)ctx;
    (void)info;
    host.n_quarantined++;
    snprintf(host.reason, sizeof host.reason, "%s", reason);
}
static void on_membership(void *ctx, struct nh_replica_info info)
{
    (void)ctx;
    (void)info;
}
static void on_snapshot(void *ctx, enum engine_snapshot_event what, const struct nh_snapshot_info *info)
{
    (void)ctx;
    (void)info;
    host.n_snapshot_events[what]++;
}

static void on_overload(void *ctx, struct nh_replica_info info, bool overloaded)
{
    (void)ctx;
    (void)info;
    host.n_overloaded += overloaded;
}

static void on_removed(void *ctx, struct nh_replica_info info)
{
    (void)ctx;
    (void)info;
}

static void on_fenced(void *ctx, const char *reason)
{
    (void)ctx;
    host.n_fenced++;
    snprintf(host.reason, sizeof host.reason, "%s", reason);
}

/* ---- the host ---- */

struct files *host_files;
struct engine_replica_config host_replica_config;

void host_start(bool inline_saves, uint64_t incarnation)
{
    struct nh_logdb_config lc = {.struct_size = sizeof lc, .dir = HOST_DIR, .n_workers = 1, .services = nh_plugin_services()};
    struct engine_config c = {
        .runtime = &runtime,
        .rtt_ms = 10,
        .n_step_workers = 1,
        .n_apply_workers = 1,
        .inline_saves = inline_saves,
        .inline_applies = host_inline_applies,
        .deployment_id = 1,
        .address = HOST_ADDRESS,
        .incarnation = incarnation,
        .seed = 1,
        .logdb_ops = logdb_ops(),
        .registry_ops = nh_registry_static(),
        .events = {NULL, on_leader, on_ready, on_unloaded, on_quarantined, on_membership, on_fenced, on_removed, on_overload,
                   on_snapshot},
        .max_pending_per_replica = host_max_pending,
        .max_inbox_bytes = host_max_inbox,
        .max_uncommitted_bytes = host_max_uncommitted,
        .files = host_files,
        .snapshot_root = "snapshots",
    };

    host.now_ns += 1000000000;
    cr_assert_eq(c.logdb_ops->open(&lc, &host.logdb, &host.err), 0, "%s", host.err.text);
    cr_assert_eq(c.registry_ops->open(&host.registry, &host.err), 0);
    c.logdb = host.logdb;
    c.registry = host.registry;
    cr_assert_eq(engine_new(&c, &host.engine, &host.err), 0, "%s", host.err.text);
    engine_transport_handlers(host.engine, &host.handlers);
    engine_set_transport(host.engine, transport_ops(), (struct nh_transport *)&host);
    cr_assert_eq(engine_start(host.engine, &host.err), 0, "%s", host.err.text);
}

void host_stop(void)
{
    engine_stop(host.engine);
    engine_free(host.engine);
    nh_logdb_memory()->close(host.logdb);
    nh_registry_static()->close(host.registry);
    host.engine = NULL;
}

void host_forget_disk(void)
{
    memory_disk_drop(HOST_DIR);
}

static int start_replica(uint64_t shard_id, const struct nh_membership *initial)
{
    struct engine_replica_config c = host_replica_config;

    c.shard_id = shard_id;
    c.replica_id = 1;
    c.initial = initial;
    c.machine = c.machine ? c.machine : &host_machine;
    c.election_rtt = 10;
    c.heartbeat_rtt = 2;
    c.check_quorum = true;
    return engine_start_replica(host.engine, &c, &host.err);
}

int host_start_replica(uint64_t shard_id, uint32_t n_members)
{
    struct nh_member members[NH_MEMBERS_MAX] = {0};
    struct nh_membership m = {.n_members = n_members, .members = members};

    for (uint32_t i = 0; i < n_members; i++) {
        members[i].replica_id = i + 1;
        snprintf(members[i].address, sizeof members[i].address, i == 0 ? HOST_ADDRESS : "peer:%u", i + 1);
    }
    return start_replica(shard_id, &m);
}

int host_restart_replica(uint64_t shard_id)
{
    return start_replica(shard_id, NULL);
}

static void on_end(void *ctx, const struct nh_outcome *outcome)
{
    struct ended *e = ctx;
    size_t n = outcome->size_bytes < sizeof e->text - 1 ? outcome->size_bytes : sizeof e->text - 1;

    e->n++;
    e->last = *outcome;
    if (n)
        memcpy(e->text, outcome->data, n);
    e->text[n] = 0;
}

int host_propose_bytes(uint64_t shard_id, const void *cmd, size_t size_bytes, uint32_t timeout_ms, struct ended *e)
{
    struct nh_proposal p = {cmd, size_bytes, on_end, e};

    return engine_propose(host.engine, shard_id, &p, 1, host.now_ns + timeout_ms * 1000000ull, &host.err);
}

int host_open_session(uint64_t shard_id, uint64_t client_id, struct ended *e)
{
    return engine_open_session(host.engine, shard_id, client_id, host.now_ns + 1000000000ull, on_end, e, &host.err);
}

int host_propose_in_session(uint64_t shard_id, struct engine_session session, const void *cmd, size_t size_bytes, struct ended *e)
{
    struct engine_proposal_kind kind = {.session = session};
    struct nh_proposal p = {cmd, size_bytes, on_end, e};

    return engine_propose_as(host.engine, shard_id, kind, &p, host.now_ns + 1000000000ull, &host.err);
}

int host_snapshot(uint64_t shard_id, const char *export_dir, uint64_t overhead, struct ended *e)
{
    return engine_snapshot(host.engine, shard_id, export_dir, overhead, on_end, e, &host.err);
}

int host_propose(uint64_t shard_id, uint64_t value, uint32_t timeout_ms, struct ended *e)
{
    return host_propose_bytes(shard_id, &value, sizeof value, timeout_ms, e);
}

int host_read(uint64_t shard_id, uint32_t timeout_ms, struct ended *e)
{
    return host_read_bytes(shard_id, "?", 1, timeout_ms, e);
}

int host_read_bytes(uint64_t shard_id, const void *query, size_t size_bytes, uint32_t timeout_ms, struct ended *e)
{
    return engine_read(host.engine, shard_id, query, size_bytes, host.now_ns + timeout_ms * 1000000ull, on_end, e, &host.err);
}

int host_read_index(uint64_t shard_id, uint32_t timeout_ms, struct ended *e)
{
    return engine_read(host.engine, shard_id, NULL, 0, host.now_ns + timeout_ms * 1000000ull, on_end, e, &host.err);
}

static int write_nothing(void *ctx, const void *data, size_t size_bytes)
{
    (void)ctx;
    (void)data;
    (void)size_bytes;
    return NH_OK;
}

int host_lookup(uint64_t shard_id, uint64_t *ret)
{
    struct nh_writer out = {write_nothing, NULL};

    return engine_lookup(host.engine, shard_id, "?", 1, &out, ret, &host.err);
}

struct engine_replica_status host_status(uint64_t shard_id)
{
    struct engine_replica_status s = {0};

    cr_assert_eq(engine_get_status(host.engine, shard_id, &s, &host.err), 0, "%s", host.err.text);
    return s;
}

void host_await_leader(uint64_t shard_id)
{
    for (uint32_t i = 0; host_status(shard_id).role != RAFT_LEADER; i++) {
        cr_assert_lt(i, 1000, "no leader");
        host_run(1);
    }
}

void host_receive(const struct nh_message *messages, uint32_t n, const char *source)
{
    struct nh_message_batch batch = {.deployment_id = 1,
                                     .source_address = source,
                                     .n_messages = n,
                                     .messages = (struct nh_message *)messages};

    host.handlers.on_batch(host.handlers.ctx, &batch);
}

void host_win_election(void)
{
    struct nh_message vote = {.type = NH_MSG_REQUEST_VOTE_RESP, .shard_id = 1, .to = 1, .from = 2};

    for (uint32_t i = 0; host_status(1).role != RAFT_CANDIDATE; i++) {
        cr_assert_lt(i, 1000);
        host_run(1);
    }
    vote.term = host_status(1).term;
    host_receive(&vote, 1, "peer:2");
    host_run(1);
    cr_assert_eq(host_status(1).role, RAFT_LEADER);
}
