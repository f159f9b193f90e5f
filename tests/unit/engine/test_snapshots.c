/* Snapshots of one host: made, recovered, what is left of the log; sessions across them. */
#include "tests/unit/engine/engine_host.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "engine/apply_worker.h"
#include "engine/engine_private.h"
#include "engine/reads.h"
#include "engine/replica.h"
#include "engine/rsm/sessions.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"
#include "tests/sim/memory_files.h"

static struct memory_files *disk;

static void begin(void)
{
    disk = memory_files_new();
    host_files = memory_files_base(disk);
    cr_assert_eq(host_files->ops->make_dir(host_files, "snapshots", &host.err), 0);
    cr_assert_eq(host_files->ops->make_dir(host_files, "exports", &host.err), 0);
    host_start(false, 1);
    cr_assert_eq(host_start_replica(1, 1), 0, "%s", host.err.text);
    host_await_leader(1);
}

static void restart(uint64_t incarnation)
{
    host_stop();
    host_start(false, incarnation);
    host.n_quarantined = 0;
    cr_assert_eq(host_restart_replica(1), 0, "%s", host.err.text);
}

static void end(void)
{
    host_stop();
    host_forget_disk();
    memory_files_free(disk);
    host_files = NULL;
    memset(&host_replica_config, 0, sizeof host_replica_config);
    memset(&host_disk_durable, 0, sizeof host_disk_durable);
}

/* Adds `n` ones. */
static void add(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct ended e = {0};

        cr_assert_eq(host_propose(1, 1, 1000, &e), 0, "%s", host.err.text);
        host_run(2);
        cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    }
}

static uint64_t sum(void)
{
    struct ended e = {0};

    cr_assert_eq(host_read(1, 1000, &e), 0, "%s", host.err.text);
    host_run(50);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    return e.last.value;
}

static int nothing(void *ctx, const char *name)
{
    (void)ctx, (void)name;
    return NH_OK;
}

static struct ended snapshot(uint64_t overhead)
{
    struct ended e = {0};

    cr_assert_eq(host_snapshot(1, NULL, overhead, &e), 0, "%s", host.err.text);
    host_run(5);
    cr_assert_eq(e.n, 1);
    return e;
}

static bool exists(const char *path)
{
    struct file *f = NULL;
    bool there = host_files->ops->open(host_files, path, &f, NULL, NULL) == NH_OK;

    if (f)
        host_files->ops->close(f, NULL);
    return there;
}

#define IMAGE_DIR "snapshots/00000000000000000001-00000000000000000001"

Test(snapshots, one_that_is_asked_for_shortens_log_and_restart)
{
    struct ended e;
    uint64_t index;

    begin();
    add(10);
    e = snapshot(3);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED, "%s", e.text);
    index = e.last.index;
    cr_assert_eq(host_status(1).snapshot_index, index);
    cr_assert_eq(host_status(1).first_index, index - 3 + 1);
    add(5);
    restart(2);
    host_await_leader(1);
    cr_assert_eq(sum(), 15);
    cr_assert_eq(host_status(1).snapshot_index, index);
    cr_assert_eq(host_status(1).first_index, index - 3 + 1);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 1);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_RECOVERED], 1);
    cr_assert_eq(host.n_snapshot_events[ENGINE_LOG_COMPACTED], 1);
    cr_assert_eq(host.n_snapshot_events[ENGINE_LOGDB_COMPACTED], 1);
    end();
}

/* A start of thousands of replicas is not to wait for as many directories. */
Test(snapshots, without_one_there_is_no_directory)
{
    begin();
    cr_assert_eq(host_files->ops->list(host_files, IMAGE_DIR, nothing, NULL, NULL), NH_ENOTFOUND);
    restart(2);
    host_await_leader(1);
    cr_assert_eq(host_files->ops->list(host_files, IMAGE_DIR, nothing, NULL, NULL), NH_ENOTFOUND);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(host_files->ops->list(host_files, IMAGE_DIR, nothing, NULL, NULL), NH_OK);
    end();
}

Test(snapshots, nothing_new_is_refused)
{
    struct ended e;

    begin();
    add(3);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED);
    e = snapshot(0);
    cr_assert_eq(e.last.code, NH_REQUEST_REJECTED);
    cr_assert(strstr(e.text, "nothing was applied"), "%s", e.text);
    end();
}

Test(snapshots, are_made_by_themselves_and_only_the_newest_stays)
{
    host_replica_config.snapshot_entries = 20;
    host_replica_config.compaction_overhead = 5;
    begin();
    add(200);
    cr_assert_geq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 6);
    cr_assert_leq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 14);
    cr_assert_geq(host_status(1).first_index, 150);
    restart(2);
    host_await_leader(1);
    cr_assert_eq(sum(), 200);
    end();
}

/* A first one is due and waits for the pool; the entries behind it, which wait for the machine, make a second one due: there are
 * at most 25 between two. */
static struct ended *make_two_due(void)
{
    static struct ended e[60];

    memset(e, 0, sizeof e);
    host_replica_config.snapshot_entries = 20;
    begin();
    host.hold_snapshots = true;
    for (uint32_t i = 0; i < 60; i++) {
        cr_assert_eq(host_propose(1, 1, 10000, &e[i]), 0, "%s", host.err.text);
        host_run(1);
    }
    cr_assert_eq(e[59].n, 0);
    return &e[59];
}

Test(snapshots, one_that_falls_due_during_another_begins_when_that_has_ended)
{
    struct ended *last = make_two_due();

    host.hold_snapshots = false;
    host_run(5);
    cr_assert_eq(last->last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 2);
    cr_assert_eq(host_status(1).snapshot_index, last->last.index);
    end();
}

static void count_given_up(void *ctx, enum nh_log_level level, const char *component, const char *text)
{
    uint32_t *n = ctx;

    (void)level, (void)component;
    *n += strstr(text, "was not made") != NULL;
}

Test(snapshots, none_begins_in_a_host_that_stops)
{
    uint32_t n_given_up = 0;

    make_two_due();
    log_set_sink(count_given_up, &n_given_up);
    end();
    cr_assert_eq(n_given_up, 1);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 0);
}

/* A save that is under way, and entries that wait for it. */
static struct replica *begin_with_parked_entries(void)
{
    static struct ended e;

    begin();
    add(3);
    host.hold_snapshots = true;
    cr_assert_eq(host_snapshot(1, NULL, 0, &e), 0);
    cr_assert_eq(host_propose(1, 1, 1000, &e), 0);
    host_run(1);
    cr_assert_eq(e.n, 0);
    return engine_find(host.engine, 1);
}

Test(snapshots, a_close_behind_entries_makes_a_save_end_early)
{
    struct replica *r = begin_with_parked_entries();

    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    cr_assert(r->snapshot_stop);
    replica_unref(r);
    host.hold_snapshots = false;
    host_run(5);
    cr_assert_eq(host.n_unloaded, 1);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 0);
    end();
}

static void post_recovery(struct replica *r, uint64_t index)
{
    struct apply_item *item = apply_item_new(APPLY_RECOVER, r);

    item->snapshot->record = xcalloc(1, sizeof(struct nh_snapshot));
    *item->snapshot->record = (struct nh_snapshot){.shard_id = 1, .index = index, .term = 1}; /* without an image */
    apply_worker_post(r->apply, item);
}

Test(snapshots, a_recovery_behind_entries_makes_a_save_end_early)
{
    struct replica *r = begin_with_parked_entries();

    post_recovery(r, rsm_applied(r->rsm) + 5);
    host_run(1);
    cr_assert(r->snapshot_stop);
    replica_unref(r);
    end();
}

/* A replica recovers; for that wait, in this order: a snapshot that was asked for (or none), entries, a close, and the news that
 * it has recovered. */
static void close_after_a_recovery(struct ended *asked_for)
{
    struct ended e = {0};

    begin();
    add(3);
    snapshot(0);
    memset(host.n_snapshot_events, 0, sizeof host.n_snapshot_events);
    host.hold_snapshots = true;
    restart(2);
    host_await_leader(1);
    if (asked_for)
        cr_assert_eq(host_snapshot(1, NULL, 0, asked_for), 0);
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(host_propose(1, 1, 1000, &e), 0);
        host_run(1);
    }
    host.hold_apply = true;
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    host.hold_snapshots = false;
    host_run(1);
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_RECOVERED], 1);
    host.hold_apply = false;
    host_run(5);
    cr_assert_eq(host.n_unloaded, 2, "with the restart");
    cr_assert_eq(host.n_snapshot_events[ENGINE_SNAPSHOT_CREATED], 0);
}

/* The first of the entries make one due, and the others would wait for it, and the close behind them. */
Test(snapshots, none_falls_due_before_a_close)
{
    host_replica_config.snapshot_entries = 4;
    close_after_a_recovery(NULL);
    end();
}

Test(snapshots, none_that_was_asked_for_is_made_before_a_close)
{
    struct ended e = {0};

    close_after_a_recovery(&e);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(e.last.code, NH_REQUEST_REJECTED);
    end();
}

Test(snapshots, without_its_image_a_replica_does_not_start)
{
    begin();
    add(5);
    snapshot(0);
    host_stop();
    cr_assert_eq(host_files->ops->remove(host_files, IMAGE_DIR, &host.err), 0);
    host_start(false, 2);
    host.n_quarantined = 0;
    cr_assert_eq(host_restart_replica(1), 0);
    host_run(100);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert(strstr(host.reason, "recover the snapshot at index"), "%s", host.reason);
    cr_assert_eq(host_status(1).role, RAFT_FOLLOWER);
    end();
}

Test(snapshots, an_export_changes_nothing_here)
{
    struct ended e = {0};
    char image[256];

    begin();
    add(4);
    cr_assert_eq(host_snapshot(1, "exports", ENGINE_NEVER, &e), 0);
    host_run(5);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED, "%s", e.text);
    snprintf(image, sizeof image, "%s/image", e.text);
    cr_assert(exists(image), "%s", image);
    cr_assert_eq(host_status(1).snapshot_index, 0);
    cr_assert_eq(host_status(1).first_index, 1);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED); /* an export does not count */
    end();
}

Test(snapshots, a_full_disk_fails_the_snapshot_alone)
{
    struct ended e;

    begin();
    add(4);
    memory_files_set_limit(disk, 10);
    e = snapshot(0);
    cr_assert_eq(e.last.code, NH_REQUEST_REJECTED);
    cr_assert_eq(host.n_quarantined + host.n_fenced, 0);
    memory_files_set_limit(disk, 1u << 30);
    add(1);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(sum(), 5);
    end();
}

Test(snapshots, every_file_operation_may_fail)
{
    begin();
    for (uint64_t n = 1; n < 40; n++) {
        add(1);
        memory_files_fail_at(disk, n, NH_EIO);
        snapshot(0);
        memory_files_fail_at(disk, 0, 0);
        cr_assert_eq(host.n_quarantined + host.n_fenced, 0);
        restart(n + 1);
        host_await_leader(1);
        cr_assert_eq(sum(), n);
    }
    end();
}

/* An item for the apply worker: entries [first, first + 1], in memory. */
static void post_entries(struct replica *r, uint64_t first)
{
    struct block_builder b = {0};
    struct run_list runs = {0};
    struct nh_block *block;

    for (uint64_t one = 1; b.n < 2;)
        cr_assert_eq(block_builder_add(&b, &(struct block_record){.payload = &one, .payload_bytes = sizeof one}), 0);
    block = block_seal(&b, 1, first);
    run_list_add(&runs, block, 0, 2);
    nh_block_unref(block);
    apply_worker_post(r->apply, apply_entries_new(r, first, first + 1, &runs));
    run_list_deinit(&runs);
}

static void hold_the_pool(void *ctx, enum nh_log_level level, const char *component, const char *text)
{
    (void)ctx, (void)level, (void)component;
    host.hold_snapshots = strstr(text, "was not made") != NULL;
}

/* A save ends early for a recovery, which begins then; the close is behind further entries. */
Test(snapshots, a_recovery_knows_of_the_close_behind_it)
{
    struct replica *r = begin_with_parked_entries();
    uint64_t applied = rsm_applied(r->rsm);

    post_recovery(r, applied + 5);
    post_entries(r, applied + 6);
    cr_assert_eq(engine_stop_replica(host.engine, 1, &host.err), 0);
    host_run(1);
    log_set_sink(hold_the_pool, NULL);
    host.hold_snapshots = false;
    host_run(1);
    log_set_sink(NULL, NULL);
    cr_assert_eq(r->lent, LENT_ALONE);
    cr_assert(r->snapshot_stop);
    replica_unref(r);
    host.hold_snapshots = false;
    host_run(1);
    cr_assert_eq(host.n_unloaded, 1);
    end();
}

/* Simulator seed 9610: entries from memory stood behind others that were to be read back, when a received snapshot replaced the
 * log. */
Test(snapshots, entries_behind_a_hole_give_way_to_a_received_one)
{
    struct replica *r;
    uint64_t applied;

    begin();
    add(3);
    applied = host_status(1).applied_index;
    r = engine_find(host.engine, 1);
    r->installing = applied + 4;
    post_entries(r, applied + 3);
    host_run(1);
    cr_assert_eq(host.n_quarantined, 0, "%s", host.reason);
    cr_assert_eq(rsm_applied(r->rsm), applied);
    r->installing = 0;
    post_entries(r, applied + 3); /* without a snapshot a hole is a hole */
    host_run(1);
    cr_assert_eq(host.n_quarantined, 1);
    replica_unref(r);
    end();
}

static void on_read(void *ctx, const struct nh_outcome *outcome)
{
    struct nh_outcome *ret = ctx;

    *ret = *outcome;
}

static void post_read(struct replica *r, struct nh_outcome *ret)
{
    struct apply_item *item = apply_item_new(APPLY_READS, r);

    item->reads = read_batch_new(1);
    read_batch_add(item->reads, &(struct request){on_read, ret, REQUESTS_NO_DEADLINE}, "?", 1);
    r->n_reads++;
    r->queries_bytes++;
    reads_note_handed(r, item->reads);
    apply_worker_post(r->apply, item);
}

/* The state before it is not an answer any more. */
Test(snapshots, a_read_behind_a_recovery_that_fails_is_not_answered_from_before)
{
    struct nh_outcome outcome = {0};
    struct replica *r;

    begin();
    add(3);
    r = engine_find(host.engine, 1);
    post_recovery(r, rsm_applied(r->rsm) + 5);
    post_read(r, &outcome);
    host_run(5);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_eq(outcome.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(outcome.status, NH_EQUARANTINED);
    replica_unref(r);
    end();
}

Test(snapshots, one_whose_log_cannot_be_read_ends_its_replica_alone)
{
    begin();
    add(3);
    host.unreadable = 1;
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_REJECTED);
    cr_assert_eq(host.n_fenced, 0);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert(strstr(host.reason, "a block is damaged"), "%s", host.reason);
    end();
}

/* Nor is it after entries that the log store was to give back, and could not. */
Test(snapshots, a_read_behind_entries_that_cannot_be_read_is_not_answered_from_before)
{
    struct nh_outcome outcome = {0};
    struct run_list none = {0};
    struct replica *r;
    uint64_t applied;

    begin();
    add(3);
    r = engine_find(host.engine, 1);
    applied = rsm_applied(r->rsm);
    apply_worker_post(r->apply, apply_entries_new(r, applied + 1, applied + 2, &none)); /* the store has no such entries */
    post_read(r, &outcome);
    host_run(5);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert_eq(outcome.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(outcome.status, NH_EQUARANTINED);
    replica_unref(r);
    end();
}

/* The host used to crash, at every start again. */
Test(snapshots, a_machine_that_lost_its_snapshots_is_not_started_from_one)
{
    struct nh_machine_ops plain;

    begin();
    add(3);
    snapshot(0);
    plain = host_machine;
    plain.save_snapshot = NULL;
    plain.recover = NULL;
    host_replica_config.machine = &plain;
    restart(2);
    host_run(50);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert(strstr(host.reason, "has no recover"), "%s", host.reason);
    end();
}

Test(snapshots, a_session_outlives_them)
{
    struct engine_session opening = {.client_id = 7, .series_id = SESSION_OPEN}, first = {.client_id = 7, .series_id = 1};
    uint32_t limit = 10;
    uint64_t five = 5;
    struct ended e = {0};

    begin();
    cr_assert_eq(host_propose_in_session(1, opening, &limit, sizeof limit, &e), 0);
    host_run(5);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(e.last.value, 7);
    host_propose_in_session(1, first, &five, sizeof five, &e);
    host_run(5);
    cr_assert_eq(e.last.value, 5);
    snapshot(0);
    restart(2);
    host_await_leader(1);
    host_propose_in_session(1, first, &five, sizeof five, &e);
    host_run(5);
    cr_assert_eq(e.last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(e.last.value, 5);
    cr_assert_str_eq(e.text, "added");
    cr_assert_eq(sum(), 5);
    first.client_id = 8;
    host_propose_in_session(1, first, &five, sizeof five, &e);
    host_run(5);
    cr_assert_eq(e.last.code, NH_REQUEST_REJECTED);
    cr_assert_eq(e.last.status, NH_ESESSION);
    end();
}

Test(snapshots, a_machine_on_disk_keeps_its_data)
{
    host_replica_config.machine = &host_disk_machine;
    begin();
    add(6);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED);
    cr_assert_eq(host_disk_durable.sum, 6);
    add(3);
    restart(2); /* what was not synced is replayed */
    host_await_leader(1);
    cr_assert_eq(sum(), 9);
    host_disk_durable = (struct host_disk_state){8, 10}; /* ahead of the snapshot: what it holds is not applied again */
    restart(3);
    host_await_leader(1);
    cr_assert_eq(sum(), 9);
    end();
}

/* Nobody else is there to say so: the stored commit index lags, and what the machine was given was committed. */
Test(snapshots, what_a_machine_on_disk_holds_is_committed)
{
    uint64_t last;

    host_replica_config.machine = &host_disk_machine;
    disk = memory_files_new();
    host_files = memory_files_base(disk);
    cr_assert_eq(host_files->ops->make_dir(host_files, "snapshots", &host.err), 0);
    host_start(false, 1);
    cr_assert_eq(host_start_replica(1, 3), 0, "%s", host.err.text);
    host_win_election();
    host_run(5);
    last = host_status(1).last_index;
    cr_assert_lt(host_status(1).commit_index, last);
    host_disk_durable = (struct host_disk_state){4, last};
    restart(2);
    host_run(5);
    cr_assert_eq(host_status(1).commit_index, last);
    cr_assert_eq(host_status(1).applied_index, last);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED, "and an image can be made");
    end();
}

/* A leader's no-op and barriers are applied too, and no machine hears of them. */
Test(snapshots, a_machine_on_disk_may_end_before_the_snapshot)
{
    host_replica_config.machine = &host_disk_machine;
    begin();
    add(3);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED);
    restart(2);
    host_await_leader(1);
    host_run(20);
    cr_assert_eq(snapshot(0).last.code, NH_REQUEST_COMPLETED); /* of the no-op alone */
    cr_assert_lt(host_disk_durable.applied, host_status(1).snapshot_index);
    restart(3);
    host_await_leader(1);
    cr_assert_eq(sum(), 3);
    cr_assert_eq(host.n_quarantined, 0);
    end();
}

Test(snapshots, a_machine_on_disk_that_lost_data_does_not_start)
{
    host_replica_config.machine = &host_disk_machine;
    begin();
    add(6);
    snapshot(0);
    host_disk_durable = (struct host_disk_state){2, 4};
    restart(2);
    host_run(100);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert(strstr(host.reason, "lost data"), "%s", host.reason);
    host_disk_durable = (struct host_disk_state){600, 1000};
    restart(3);
    host_run(100);
    cr_assert_eq(host.n_quarantined, 1);
    cr_assert(strstr(host.reason, "the log ends at"), "%s", host.reason);
    end();
}
