#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_private.h"
#include "engine/raft/raft_internal.h"
#include "engine/replica.h"
#include "raftio/support/memory.h"

/* ---- events ---- */

static void on_leader(void *ctx, const struct nh_leader_info *info)
{
    (void)ctx;
    oracle_leader(info->shard_id, info->term, info->leader_id);
}

static void on_replica(void *ctx, struct nh_replica_info info)
{
    (void)ctx;
    (void)info;
}

static void on_unloaded(void *ctx, struct nh_replica_info info)
{
    struct sim_host *h = ctx;

    h->running[info.shard_id] = false;
}

/* A machine that could not read its image, as the disk failed just then, or a log that could not be read: it must be tried again.
 */
static void on_quarantined(void *ctx, struct nh_replica_info info, const char *reason)
{
    struct sim_host *h = ctx;
    bool is_excused = store_excuses(h, info.shard_id);

    if (is_excused || memory_files_failed(h->files) > h->n_excused) {
        sim_log("host %u: shard %" PRIu64 " is in quarantine: %s", h->id + 1, info.shard_id, reason);
        if (!is_excused)
            h->n_excused = memory_files_failed(h->files);
        h->hurt[info.shard_id] = true;
        sim.coverage.quarantines++;
        return;
    }
    sim_fail("shard %" PRIu64 " replica %" PRIu64 " is in quarantine: %s", info.shard_id, info.replica_id, reason);
}

static void on_recovered(struct sim_host *h, const struct nh_snapshot_info *info)
{
    bool running = h->received[info->shard_id] == info->index;

    sim.coverage.recovered_running += running;
    sim.coverage.recovered_at_start += !running;
}

static void on_snapshot(void *ctx, enum engine_snapshot_event what, const struct nh_snapshot_info *info)
{
    static const char *const names[] = {"send started", "send completed", "send aborted",  "received",       "recovered",
                                        "created",      "compacted",      "log compacted", "logdb compacted"};
    struct sim_host *h = ctx;

    sim_log("host %u: shard %" PRIu64 " replica %" PRIu64 ": snapshot %" PRIu64 " %s", h->id + 1, info->shard_id,
            info->replica_id, info->index, names[what]);
    sim_note(info->index * 11 + (uint64_t)what);
    switch (what) {
    case ENGINE_SNAPSHOT_SEND_STARTED: sim.coverage.streams_begun++; break;
    case ENGINE_SNAPSHOT_SEND_COMPLETED:
        images_check_arrival(info->shard_id, info->replica_id, info->index);
        sim.coverage.streams_done++;
        break;
    case ENGINE_SNAPSHOT_SEND_ABORTED: sim.coverage.streams_failed++; break;
    case ENGINE_SNAPSHOT_RECEIVED:
        h->received[info->shard_id] = info->index;
        sim.coverage.received++;
        break;
    case ENGINE_SNAPSHOT_RECOVERED: on_recovered(h, info); break;
    case ENGINE_SNAPSHOT_CREATED: sim.coverage.snapshots_made++; break;
    case ENGINE_SNAPSHOT_COMPACTED: sim.coverage.images_pruned++; break;
    case ENGINE_LOG_COMPACTED: sim.coverage.logs_compacted++; break;
    case ENGINE_LOGDB_COMPACTED: sim.coverage.spaces_given_back++; break;
    }
}

static void on_overload(void *ctx, struct nh_replica_info info, bool overloaded)
{
    (void)ctx;
    (void)info;
    sim.coverage.overloads += overloaded;
}

static void on_removed(void *ctx, struct nh_replica_info info)
{
    struct sim_host *h = ctx;

    sim_log("host %u: replica %" PRIu64 " of shard %" PRIu64 " is removed", h->id + 1, info.replica_id, info.shard_id);
    h->wanted[info.shard_id] = false;
    sim.coverage.removals++;
}

static void on_fenced(void *ctx, const char *reason)
{
    struct sim_host *h = ctx;

    h->fenced = true;
    sim.coverage.fences++;
    sim_log("host %u is fenced: %s", h->id + 1, reason);
}

/* ---- life ---- */

static void make_files(struct sim_host *h)
{
    struct files *fs;

    h->files = memory_files_new();
    fs = memory_files_base(h->files);
    if (fs->ops->make_dir(fs, SIM_IMAGES, NULL) < 0 || fs->ops->make_dir(fs, SIM_EXPORTS, NULL) < 0 ||
        fs->ops->sync_dir(fs, "/", NULL) < 0)
        sim_fail("no directories");
}

void host_init(uint32_t id)
{
    struct sim_host *h = xcalloc(1, sizeof *h);

    h->id = id;
    snprintf(h->address, sizeof h->address, "host:%u", id + 1);
    snprintf(h->disk_name, sizeof h->disk_name, "disk-%u", id + 1);
    h->disk = memory_disk_get(h->disk_name);
    make_files(h);
    for (uint32_t shard = 1; shard <= SIM_SHARDS_MAX; shard++) {
        h->replica[shard] = id + 1;
        h->wanted[shard] = id < sim.options.n_members;
    }
    sim.hosts[id] = h;
}

static void open_logdb(struct sim_host *h)
{
    struct nh_logdb_config c = {.struct_size = sizeof c, .dir = h->disk_name, .n_workers = 2, .services = nh_plugin_services()};
    struct nh_error err;

    if (nh_logdb_memory()->open(&c, &h->logdb, &err) < 0)
        sim_fail("open log store: %s", err.text);
}

static void make_engine(struct sim_host *h)
{
    struct engine_config c = {
        .runtime = h->runtime,
        .rtt_ms = SIM_RTT_MS,
        .n_step_workers = sim.options.step_workers,
        .n_apply_workers = sim.options.apply_workers,
        .inline_saves = sim.options.inline_saves,
        .inline_applies = sim.options.inline_applies,
        .deployment_id = 1,
        .address = h->address,
        .incarnation = ++h->incarnation,
        .seed = sim_random(),
        .logdb_ops = store_ops(),
        .logdb = h->logdb,
        .registry_ops = nh_registry_static(),
        .registry = h->registry,
        .max_pending_per_replica = sim.options.small_limits ? 12 : 0,
        .max_inbox_bytes = sim.options.small_limits ? 8192 : 0,
        .files = sim.options.snapshots ? memory_files_base(h->files) : NULL,
        .snapshot_root = SIM_IMAGES,
        .n_snapshot_workers = 1 + (uint32_t)sim_below(2),
        .snapshot_send_bytes_per_s = sim.options.send_bytes_per_s,
        .snapshot_streams_max = sim.options.streams,
        .events = {h, on_leader, on_replica, on_unloaded, on_quarantined, on_replica, on_fenced, on_removed, on_overload,
                   on_snapshot},
    };
    struct nh_error err;

    if (engine_new(&c, &h->engine, &err) < 0)
        sim_fail("engine: %s", err.text);
}

static void open_transport(struct sim_host *h)
{
    struct nh_transport_config c = {.struct_size = sizeof c,
                                    .deployment_id = 1,
                                    .address = h->address,
                                    .send_queue_bytes = sim.options.small_limits ? 4096 : 0,
                                    .services = nh_plugin_services()};
    struct nh_transport_handlers handlers;
    struct nh_error err;

    engine_transport_handlers(h->engine, &handlers);
    if (loopback_open(sim.hub, &c, &handlers, &h->transport, &err) < 0 || nh_transport_loopback()->start(h->transport, &err) < 0)
        sim_fail("transport: %s", err.text);
    engine_set_transport(h->engine, wire_ops(), h->transport);
}

/* The engine leaves the limits of its cores at their defaults, which a run would never reach. */
static void shrink_windows(struct sim_host *h, uint64_t shard)
{
    struct replica *r = engine_find(h->engine, shard);
    struct raft_options *o = &r->raft->options;

    o->max_message_bytes = 1 + sim_below(2000);
    o->max_inflight_messages = 1 + (uint32_t)sim_below(4);
    o->max_inflight_bytes = 1 + sim_below(4000);
    o->max_uncommitted_bytes = 4000 + sim_below(20000);
    o->max_apply_bytes = 1 + sim_below(2000);
    o->max_cached_bytes = 1 + sim_below(3000);
    o->max_unapplied_bytes = 2000 + sim_below(10000);
    replica_unref(r);
}

static void start_replica(struct sim_host *h, uint64_t shard)
{
    struct nh_member list[SIM_HOSTS_MAX] = {0};
    struct nh_membership members = {.n_members = sim.options.n_members, .members = list};
    bool is_first = h->id < sim.options.n_members && h->replica[shard] == h->id + 1;
    struct engine_replica_config c = {
        .shard_id = shard,
        .replica_id = h->replica[shard],
        .join = !h->has_shard[shard] && !is_first,
        .machine = machines_ops(),
        .election_rtt = 10,
        .heartbeat_rtt = 2,
        .pre_vote = sim.options.pre_vote,
        .check_quorum = sim.options.check_quorum,
        .quiesce = sim.options.quiesce,
        .lease_reads = sim.options.leases,
        .lease_drift_percent = SIM_DRIFT_PERCENT,
        .priority = sim.options.priorities ? h->id : 0,
        .snapshot_entries = sim.options.snapshot_entries,
        .snapshot_bytes = sim.options.snapshot_bytes,
        .compaction_overhead = sim.options.overhead,
        .snapshots_kept = sim.options.kept,
        .compress_snapshots = sim.options.compress,
    };
    uint64_t n_failed = memory_files_failed(h->files);
    struct nh_error err;
    int r;

    for (uint32_t i = 0; i < sim.options.n_members; i++) {
        list[i].replica_id = i + 1;
        strcpy(list[i].address, sim.hosts[i]->address);
    }
    if (!h->has_shard[shard] && is_first)
        c.initial = &members;
    r = engine_start_replica(h->engine, &c, &err);
    if (r < 0 && (memory_files_failed(h->files) > n_failed || store_excuses(h, shard))) /* it cannot be read just now */
        return;
    if (r == NH_EFENCED || r == NH_EIO) { /* the disk fails just now, and the log store takes nothing before a restart */
        h->fenced = true;
        return;
    }
    if (r < 0)
        sim_fail("start: %s", err.text);
    h->has_shard[shard] = h->running[shard] = true;
    h->hurt[shard] = false;
    if (sim.options.small_windows)
        shrink_windows(h, shard);
}

void host_start_missing(struct sim_host *h)
{
    for (uint64_t shard = 1; shard <= sim.options.n_shards && h->up && !h->fenced; shard++) {
        if (h->hurt[shard])
            host_restart_replica(h, shard);
        else if (h->wanted[shard] && !h->running[shard])
            start_replica(h, shard);
    }
}

bool host_join(struct sim_host *h, uint64_t shard)
{
    if (h->wanted[shard] || h->running[shard])
        return false;
    if (h->has_shard[shard])
        h->replica[shard] += SIM_REPLICA_STEP;
    h->has_shard[shard] = false;
    h->wanted[shard] = true;
    disks_forget(h, shard);
    sim_log("host %u: replica %" PRIu64 " of shard %" PRIu64 " joins", h->id + 1, h->replica[shard], shard);
    sim.coverage.joins++;
    host_start_missing(h);
    return true;
}

void host_start(struct sim_host *h)
{
    sim_log("host %u starts", h->id + 1);
    h->fenced = false;
    memory_disk_fail_after(h->disk, UINT64_MAX);
    open_logdb(h);
    if (nh_registry_static()->open(&h->registry, NULL) < 0)
        sim_fail("registry");
    h->runtime = clock_new(h->id);
    make_engine(h);
    open_transport(h);
    if (!sim.calm && sim.options.fail_files && sim_chance(15)) /* while it reads its images */
        memory_files_fail_at(h->files, 1 + sim_below(30), NH_EIO);
    store_forget_damage(h);
    h->n_damaged = 0;
    if (!sim.calm && sim.options.damage_blocks && sim_chance(25)) /* while it reads its logs */
        store_damage(h);
    if (engine_start(h->engine, NULL) < 0)
        sim_fail("the engine does not start");
    h->up = true;
    host_start_missing(h);
    sim.coverage.starts++;
}

static uint64_t any_number(void *ctx)
{
    (void)ctx;
    return sim_random();
}

static uint32_t keep_some(void *ctx, uint32_t worker_id, uint32_t n_unsynced)
{
    (void)ctx;
    (void)worker_id;
    return (uint32_t)sim_below(n_unsynced + 1);
}

/* What was not synced is lost, in part; what was sent is lost; then the pieces are put away. */
static void take_down(struct sim_host *h, bool power_cut)
{
    if (power_cut) {
        memory_disk_crash(h->disk, keep_some, NULL);
        memory_files_crash_at(h->files, 1); /* nothing is written any more */
        network_forget(h->id);
    }
    h->up = false;
    engine_stop(h->engine);
    client_host_stopped(h);
    nh_transport_loopback()->close(h->transport);
    engine_free(h->engine);
    nh_logdb_memory()->close(h->logdb);
    h->logdb = NULL; /* another host's may get its address */
    nh_registry_static()->close(h->registry);
    clock_free(h->runtime);
    memset(h->running, 0, sizeof h->running);
    memcpy(h->received_before, h->received, sizeof h->received_before);
    memset(h->received, 0, sizeof h->received);
    memset(h->hurt, 0, sizeof h->hurt);
    if (!power_cut)
        return;
    memory_files_crash(h->files, any_number, NULL);
    h->n_excused = 0;
    machines_crash(h->id);
}

/* Some others notice that their connections broke. */
static void tell_others(const struct sim_host *h)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct nh_transport_handlers handlers;

        if (!sim.hosts[i]->up || sim_chance(30))
            continue;
        engine_transport_handlers(sim.hosts[i]->engine, &handlers);
        handlers.on_failed(handlers.ctx, h->address, false, "reset");
    }
}

void host_crash(struct sim_host *h)
{
    sim_log("host %u crashes", h->id + 1);
    take_down(h, true);
    tell_others(h);
    sim.coverage.crashes++;
}

void host_bury_dead(void)
{
    for (uint32_t i = 0; i < sim.options.n_hosts && sim.options.fail_files; i++) {
        if (!sim.hosts[i]->up || !memory_files_is_crashed(sim.hosts[i]->files))
            continue;
        host_crash(sim.hosts[i]);
        sim.coverage.file_crashes++;
    }
}

void host_stop(struct sim_host *h)
{
    sim_log("host %u stops", h->id + 1);
    take_down(h, false);
    tell_others(h);
    sim.coverage.clean_stops++;
}

bool host_is_paused(const struct sim_host *h)
{
    return clock_paused_until(h->runtime) > sim.now_ns;
}

bool host_gets_image(const struct sim_host *h, uint64_t shard, uint64_t since)
{
    struct engine_replica_status mine, other;

    if (h->received[shard] > since)
        return true;
    if (engine_get_status(h->engine, shard, &mine, NULL) < 0)
        return false;
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        if (sim.hosts[i]->up && engine_get_status(sim.hosts[i]->engine, shard, &other, NULL) == NH_OK &&
            other.role == RAFT_LEADER && other.first_index > mine.applied_index + 1)
            return true;
    return false;
}

const struct raft *host_core(const struct sim_host *h, uint64_t shard)
{
    struct replica *r = h->up ? engine_find(h->engine, shard) : NULL;
    const struct raft *core = r ? r->raft : NULL;

    if (r)
        replica_unref(r); /* the routes hold it; no worker runs meanwhile */
    return core;
}

void host_close(struct sim_host *h)
{
    if (h->up)
        take_down(h, false);
}

void host_deinit(uint32_t id)
{
    struct sim_host *h = sim.hosts[id];

    memory_disk_drop(h->disk_name);
    memory_files_free(h->files);
    free(h);
    sim.hosts[id] = NULL;
}

void host_restart_replica(struct sim_host *h, uint64_t shard)
{
    h->hurt[shard] = false;
    if (!h->running[shard] || engine_stop_replica(h->engine, shard, NULL) < 0)
        return;
    sim_log("host %u: shard %" PRIu64 " stops", h->id + 1, shard);
    sim.coverage.replica_restarts++;
}
