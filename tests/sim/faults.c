#include "engine/raft/raft_internal.h"
#include "tests/sim/sim.h"

/* ---- the network ---- */

/* With stragglers, unless all that follows has to wait for them: that would be a storm, in which no leader stays for long. */
void faults_good_weather(void)
{
    network_heal();
    network_set_weather((struct network_weather){.delay_min_ns = 50000,
                                                 .delay_max_ns = 2 * SIM_MS,
                                                 .late_percent = sim.options.in_order ? 0 : 2,
                                                 .in_order = sim.options.in_order});
}

void faults_calm_weather(void)
{
    network_heal();
    network_forget_copies();
    network_set_weather((struct network_weather){.delay_min_ns = 50000, .delay_max_ns = 2 * SIM_MS, .in_order = true});
}

void faults_drizzle(void)
{
    network_heal();
    network_set_weather(
        (struct network_weather){.loss_percent = 5, .delay_min_ns = 50000, .delay_max_ns = 2 * SIM_MS, .in_order = true});
}

static void bad_weather(void)
{
    uint64_t min = sim_below(3 * SIM_MS);

    network_set_weather((struct network_weather){
        .loss_percent = (uint32_t)sim_below(sim_chance(20) ? 40 : 8),
        .double_percent = (uint32_t)sim_below(10),
        .delay_min_ns = min,
        .delay_max_ns = min + sim_below(sim_chance(20) ? 150 * SIM_MS : 10 * SIM_MS),
        .late_percent = 2,
        .corrupt_percent = sim_chance(50) ? 0 : (uint32_t)sim_below(20),
        .in_order = sim.options.in_order,
    });
}

/* Some pairs, one way or both ways; or one host against the rest. */
static void partition(void)
{
    uint32_t n = sim.options.n_hosts, lonely = (uint32_t)sim_below(n);
    bool one_way = sim_chance(40), whole = sim_chance(50);

    network_heal();
    for (uint32_t i = 0; i < n; i++) {
        if (i == lonely || (!whole && sim_chance(50)))
            continue;
        if (one_way && sim_chance(50)) {
            network_cut(i, lonely);
            continue;
        }
        network_cut(lonely, i);
        if (!one_way)
            network_cut(i, lonely);
    }
    sim_log("partition around host %u%s", lonely + 1, one_way ? ", one way" : "");
    sim.coverage.partitions++;
    sim.coverage.one_way_partitions += one_way;
}

void faults_quiet_spell(void)
{
    if (sim_chance(40))
        partition();
    sim.coverage.quiet_spells++;
}

/* ---- hosts ---- */

/* Leaders suffer more than others. */
static struct sim_host *victim(void)
{
    uint64_t shard = 1 + sim_below(sim.options.n_shards);

    for (uint32_t i = 0; i < sim.options.n_hosts && sim_chance(60); i++) {
        const struct raft *core = host_core(sim.hosts[i], shard);

        if (core && core->role == RAFT_LEADER)
            return sim.hosts[i];
    }
    return sim.hosts[sim_below(sim.options.n_hosts)];
}

static void crash_or_start(struct sim_host *h)
{
    if (h->up) {
        host_crash(h);
        if (sim_chance(60))
            return;
    }
    host_start(h); /* after a crash at once: still in the term in which it voted */
}

static void stop(struct sim_host *h)
{
    host_stop(h);
    if (sim_chance(50))
        host_start(h);
}

static void blackout(void)
{
    bool all = sim_chance(30);

    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        if (sim.hosts[i]->up && (all || sim_chance(30)))
            host_crash(sim.hosts[i]);
    sim.coverage.blackouts += all;
}

void faults_reboot_voter(void)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];

    if (!h->up || !sim_chance(30))
        return;
    host_crash(h);
    host_start(h);
}

/* The process is stopped as a whole, or one of its threads gets no time. */
static void stand_still(struct sim_host *h)
{
    uint64_t until_ns = sim.now_ns + sim_below(sim_chance(30) ? 2000 * SIM_MS : 200 * SIM_MS);

    if (sim_chance(50)) {
        sim_log("host %u pauses", h->id + 1);
        clock_pause(h->runtime, until_ns);
        sim.coverage.pauses++;
    } else {
        clock_stall_one(h->runtime, until_ns);
        sim.coverage.stalls++;
    }
}

static void change_disk(struct sim_host *h)
{
    if (sim_chance(10)) {
        clock_set_disk_ns(h->runtime, 3000 * SIM_MS);
        sim.coverage.hung_disks++;
    } else {
        clock_set_disk_ns(h->runtime, sim_chance(50) ? SIM_MS : 200 * SIM_MS);
        sim.coverage.slow_disks++;
    }
}

static void change_speed(struct sim_host *h)
{
    clock_set_speed(h->runtime, sim.options.leases ? 900 + (uint32_t)sim_below(225) : 700 + (uint32_t)sim_below(600));
    sim.coverage.clock_changes++;
}

static void fail_disk(struct sim_host *h)
{
    if (sim.options.damage_blocks && sim_chance(50))
        store_damage(h);
    else if (sim.options.fail_disks)
        memory_disk_fail_after(h->disk, sim_below(20));
}

/* One operation fails, or is the last one. */
static void fail_files(struct sim_host *h, bool dies)
{
    uint64_t n = 1 + sim_below(sim_chance(50) ? 8 : 60);

    if (!sim.options.fail_files)
        return;
    if (dies)
        memory_files_crash_at(h->files, n);
    else
        memory_files_fail_at(h->files, n, sim_chance(50) ? NH_EIO : NH_ENOSPC);
    sim.coverage.file_failures += !dies;
}

static void fill_disk(struct sim_host *h)
{
    if (!sim.options.fail_files)
        return;
    memory_files_set_limit(h->files, memory_files_used(h->files) + sim_below(2000));
    sim.coverage.full_disks++;
}

void faults_hit_stream(void)
{
    uint32_t from, to;

    if (!(sim.options.faults >> 17 & 1) || !sim_chance(20) || !network_stream(&from, &to))
        return;
    sim.coverage.streams_hit++;
    switch (sim_below(8)) {
    case 0: crash_or_start(sim.hosts[from]); break;
    case 1: crash_or_start(sim.hosts[to]); break;
    case 2: fill_disk(sim.hosts[to]); break;
    case 3: host_restart_replica(sim.hosts[sim_chance(50) ? from : to], 1 + sim_below(sim.options.n_shards)); break;
    case 4:
        if (sim.hosts[to]->up)
            engine_campaign(sim.hosts[to]->engine, 1 + sim_below(sim.options.n_shards), NULL);
        break;
    default: network_break_streams(); break; /* it goes on, on another connection */
    }
}

static void fault_of_host(struct sim_host *h, uint64_t kind)
{
    switch (kind) {
    case 14: fail_files(h, false); break;
    case 15: fail_files(h, true); break;
    case 16: fill_disk(h); break;
    case 8: change_disk(h); break;
    case 9: change_speed(h); break;
    case 10: fail_disk(h); break;
    case 11: host_restart_replica(h, 1 + sim_below(sim.options.n_shards)); break;
    case 12: stand_still(h); break;
    default: stop(h); break;
    }
}

/* Kinds 0 .. 16, without images 0 .. 13. The weather always gets better again. */
void faults_one(void)
{
    struct sim_host *h = victim();
    uint64_t kind = sim_below(sim.options.snapshots ? 17 : 14);

    if (!(sim.options.faults >> kind & 1) && kind != 6)
        return;
    switch (kind) {
    case 0:
    case 1:
    case 2: crash_or_start(h); break;
    case 3: blackout(); break;
    case 4:
    case 5: partition(); break;
    case 6: faults_good_weather(); break;
    case 7: bad_weather(); break;
    default:
        if (h->up)
            fault_of_host(h, kind);
        break;
    }
}

/* ---- mending ---- */

void faults_mend_some(void)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct sim_host *h = sim.hosts[i];

        if (h->up && h->fenced && sim_chance(30))
            host_crash(h);
        if (!h->up && sim_chance(30))
            host_start(h);
        if (sim_chance(30))
            memory_files_set_limit(h->files, INT64_MAX);
        host_start_missing(h);
    }
}

void faults_end(void)
{
    faults_good_weather();
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct sim_host *h = sim.hosts[i];

        memory_disk_fail_after(h->disk, UINT64_MAX);
        store_repair(h);
        memory_files_set_limit(h->files, INT64_MAX);
        memory_files_fail_at(h->files, 0, NH_OK);
        memory_files_crash_at(h->files, 0);
        if (!h->up)
            host_start(h);
        if (h->fenced || memory_files_is_crashed(h->files)) { /* perhaps while it was being stopped */
            host_crash(h);
            host_start(h);
        }
        clock_resume(h->runtime);
        clock_set_disk_ns(h->runtime, SIM_MS);
        clock_set_speed(h->runtime, 1000);
    }
}
