/* Plugins that break their contracts: tables that are not whole, functions that return what is no status. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/nodehost/one_host.h"

static const struct nh_logdb_ops *memory;
static struct nh_logdb_ops store;
static struct nh_machine_ops machine;
static int broken_calls; /* so many calls of the broken function, then it is whole */
static uint32_t closes;

static void setup(void)
{
    one_setup();
    memory = nh_logdb_builtin("memory");
    store = *memory;
    machine = sum_machine;
    broken_calls = 1;
    closes = 0;
}

TestSuite(host_plugins, .init = setup, .fini = one_teardown);

static void open_with_store(void)
{
    struct nh_host_config c = one_host_config();

    c.logdb = &store;
    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), 0, "%s", one_err.text);
}

static void start_machine(void)
{
    struct nh_replica_config c = one_replica_config(&machine);

    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), 0, "%s", one_err.text);
}

/* ---- tables ---- */

static void refused(const struct nh_host_config *c, const char *text)
{
    struct nh_host *host = NULL;
    int r = nh_host_open(c, &host, &one_err);

    nh_host_close(host);
    cr_assert_eq(r, NH_EABI, "%d %s", r, one_err.text);
    cr_assert(strstr(one_err.text, text), "%s", one_err.text);
}

Test(host_plugins, a_store_of_the_program_is_checked_like_a_loaded_one)
{
    static char longest[65];
    struct nh_host_config c = one_host_config();

    c.logdb = &store;
    store.abi_version = NH_LOGDB_ABI + 1;
    refused(&c, "ABI version 2, this host takes 1");
    store = *memory;
    store.struct_size = offsetof(struct nh_logdb_ops, get_metrics);
    refused(&c, "lacks a required function");
    store = *memory;
    store.save_raft_state = NULL;
    refused(&c, "lacks a required function");
    store = *memory;
    store.name = NULL;
    refused(&c, "has no name");
    store.name = "two words"; /* it is a word of the HOST file */
    refused(&c, "printable");
    memset(longest, 'x', 64);
    store.name = longest;
    refused(&c, "63");
    longest[63] = 0;
    open_with_store();
    one_close();
    open_with_store(); /* and read back */
}

Test(host_plugins, a_transport_and_a_registry_too)
{
    struct nh_host_config c = one_host_config();
    struct nh_transport_ops transport = *nh_transport_builtin("loopback");
    struct nh_registry_ops registry = *nh_registry_static();

    c.transport = &transport;
    transport.struct_size = 8;
    refused(&c, "has no name");
    transport = *nh_transport_builtin("loopback");
    transport.send_batch = NULL;
    refused(&c, "lacks a required function");
    c.transport = nh_transport_builtin("loopback");
    c.registry = &registry;
    registry.abi_version = 9;
    refused(&c, "ABI version 9");
    registry = *nh_registry_static();
    registry.resolve = NULL;
    refused(&c, "lacks a required function");
}

Test(host_plugins, an_import_checks_its_store_too)
{
    struct nh_member self = {.replica_id = 1, .address = "host:1"};
    struct nh_import i = NH_IMPORT_INIT;

    i.host_id = i.shard_id = i.replica_id = 1;
    i.data_dir = one_data;
    i.source = one_dir;
    i.address = self.address;
    i.members = &self;
    i.n_members = 1;
    i.logdb = &store;
    store.import_snapshot = NULL;
    cr_assert_eq(nh_import_snapshot(&i, &one_err), NH_EABI, "%s", one_err.text);
}

/* A table that ends before `begin_save`, with what is behind its end set: it is not to be looked at. */
Test(host_plugins, what_is_behind_the_end_of_a_table_is_not_used)
{
    store.struct_size = offsetof(struct nh_logdb_ops, begin_save);
    memset(&store.begin_save, 0x5a, sizeof store.begin_save);
    memset(&store.end_save, 0x5a, sizeof store.end_save);
    open_with_store();
    start_machine();
    one_propose("1");
}

/* ---- positive numbers: an errno, mostly ---- */

static int broken_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args;
    (void)ret;
    (void)ret_applied;
    (void)err;
    return ENOENT;
}

static bool is_quarantined(void)
{
    return one_info().quarantined;
}

Test(host_plugins, a_machine_that_opens_with_an_errno_has_failed)
{
    machine.open = broken_open;
    one_open();
    start_machine();
    ONE_AWAIT(is_quarantined());
}

/* As authors do it: what was made is freed again, but the pointer was given out. */
static int failing_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    cr_assert_eq(sum_machine.open(args, ret, ret_applied, err), 0);
    sum_machine.close(*ret);
    return nh_error_set(err, NH_EIO, "no disk");
}

static void counting_close(struct nh_machine *m)
{
    closes++;
    sum_machine.close(m);
}

Test(host_plugins, a_machine_that_did_not_open_is_not_closed)
{
    machine.open = failing_open;
    machine.close = counting_close;
    one_open();
    start_machine();
    ONE_AWAIT(is_quarantined());
    one_close();
    cr_assert_eq(closes, 0);
}

static int broken_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)m;
    (void)entries;
    (void)n;
    (void)err;
    return EIO;
}

Test(host_plugins, an_update_that_returns_an_errno_has_failed)
{
    machine.update = broken_update;
    one_open();
    start_machine();
    cr_assert_eq(nh_propose_sync(one_host, 1, "1", 1, ONE_MS, &one_reply, &one_err), 0);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_TERMINATED);
    ONE_AWAIT(is_quarantined());
}

static int broken_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                         struct nh_error *err)
{
    (void)m;
    (void)query;
    (void)size_bytes;
    (void)out;
    (void)ret_value;
    (void)err;
    return ENOENT;
}

Test(host_plugins, a_lookup_that_returns_an_errno_has_failed)
{
    machine.lookup = broken_lookup;
    one_open();
    start_machine();
    cr_assert_eq(nh_query_sync(one_host, 1, "", 0, ONE_MS, &one_reply, &one_err), 0);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(one_reply.outcome.status, NH_EABI);
}

static int broken_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    return broken_calls-- > 0 ? ENOMEM : sum_machine.prepare_snapshot(m, ret_ctx, err);
}

static int broken_save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    return broken_calls-- > 0 ? EIO : sum_machine.save_snapshot(m, ctx, out, stop, err);
}

static void snapshot_is_made_the_second_time(const char *function)
{
    one_open();
    start_machine();
    one_propose("7");
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_request_snapshot_sync(one_host, 1, 0, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_REJECTED);
    cr_assert(memmem(one_reply.outcome.data, one_reply.outcome.size_bytes, function, strlen(function)));
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_request_snapshot_sync(one_host, 1, 0, &one_reply, &one_err), 0, "%s", one_err.text);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_COMPLETED);
}

Test(host_plugins, a_snapshot_that_is_prepared_with_an_errno_is_none)
{
    machine.prepare_snapshot = broken_prepare;
    snapshot_is_made_the_second_time("prepare_snapshot returned 12");
}

Test(host_plugins, an_image_that_is_written_with_an_errno_is_none)
{
    machine.save_snapshot = broken_save;
    snapshot_is_made_the_second_time("save_snapshot returned 5");
}

static int propose_code(void)
{
    int r = nh_propose_sync(one_host, 1, "1", 1, ONE_MS, &one_reply, &one_err);

    nh_reply_deinit(&one_reply);
    return r;
}

static int broken_save_state(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id,
                             struct nh_error *err)
{
    return broken_calls > 0 ? EIO : memory->save_raft_state(db, updates, n, worker_id, err);
}

Test(host_plugins, what_a_store_saves_with_an_errno_is_not_saved)
{
    broken_calls = 0;
    store.begin_save = NULL;
    store.end_save = NULL;
    store.save_raft_state = broken_save_state;
    open_with_store();
    start_machine();
    one_propose("7");
    broken_calls = 1;
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_propose_sync(one_host, 1, "1", 1, ONE_MS, &one_reply, &one_err), 0);
    cr_assert_eq(one_reply.outcome.code, NH_REQUEST_TERMINATED);
    ONE_AWAIT(propose_code() == NH_EFENCED);
}

static int broken_get_snapshot(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_snapshot *ret,
                               struct nh_error *err)
{
    return broken_calls-- > 0 ? EIO : memory->get_snapshot(db, shard_id, replica_id, ret, err);
}

/* Without its record an image would be removed as one that a crash has left. */
Test(host_plugins, a_record_that_is_read_with_an_errno_is_not_taken_for_none)
{
    struct nh_replica_config c = one_replica_config(&machine);

    open_with_store();
    start_machine();
    one_propose("7");
    nh_reply_deinit(&one_reply);
    cr_assert_eq(nh_request_snapshot_sync(one_host, 1, 0, &one_reply, &one_err), 0, "%s", one_err.text);
    one_close();
    store.get_snapshot = broken_get_snapshot;
    open_with_store();
    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), NH_EABI, "%s", one_err.text);
    start_machine();
    cr_assert_eq(one_sum(), 7);
}

static int broken_open_store(const struct nh_logdb_config *config, struct nh_logdb **ret, struct nh_error *err)
{
    (void)config;
    (void)ret;
    (void)err;
    return EACCES;
}

Test(host_plugins, a_store_that_opens_with_an_errno_is_not_open)
{
    struct nh_host_config c = one_host_config();

    c.logdb = &store;
    store.open = broken_open_store;
    refused(&c, "open returned 13");
}

/* ---- texts ---- */

static int silent_save_bootstrap(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, const struct nh_bootstrap *b,
                                 struct nh_error *err)
{
    (void)db;
    (void)shard_id;
    (void)replica_id;
    (void)b;
    (void)err;
    return NH_ENOSPC;
}

Test(host_plugins, a_failure_without_text_does_not_get_that_of_another_call)
{
    struct nh_replica_config c = one_replica_config(&machine);

    store.save_bootstrap = silent_save_bootstrap;
    open_with_store();
    cr_assert_eq(nh_host_start_replica(one_host, &c, &one_err), NH_ENOSPC);
    cr_assert(strstr(one_err.text, nh_status_text(NH_ENOSPC)), "%s", one_err.text);
}

static char fence_reason[64];

static void on_fenced(void *ctx, const char *reason)
{
    (void)ctx;
    strncpy(fence_reason, reason, sizeof fence_reason - 1);
}

static int silent_save_state(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id,
                             struct nh_error *err)
{
    (void)db;
    (void)updates;
    (void)n;
    (void)worker_id;
    (void)err;
    return NH_ENOSPC;
}

Test(host_plugins, a_fence_has_a_reason_if_the_store_gives_none)
{
    struct nh_system_event_listener listener = {.struct_size = sizeof listener, .logdb_fenced = on_fenced};
    struct nh_host_config c = one_host_config();

    c.logdb = &store;
    c.system_listener = &listener;
    store.begin_save = NULL;
    store.end_save = NULL;
    store.save_raft_state = silent_save_state;
    cr_assert_eq(nh_host_open(&c, &one_host, &one_err), 0, "%s", one_err.text);
    start_machine();
    ONE_AWAIT(propose_code() == NH_EFENCED);
    one_close(); /* delivers what is left */
    cr_assert_str_eq(fence_reason, nh_status_text(NH_ENOSPC));
}
