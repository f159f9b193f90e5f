/* The matrix of fault 65: every chunk of an image meets every fault, for every kind of machine, and all come to the same state.
 *
 * Three hosts, one shard. The third one is down while the others go on until the entries that it needs are gone. It comes back,
 * an image is sent to it, and when chunk k leaves, the fault strikes, once. Then nothing goes wrong any more.
 */
#include <inttypes.h>
#include <stdio.h>

#include "engine/snapshot_stream.h"
#include "tests/sim/sim.h"

#define CHUNKS     5u /* chunk 0 and four of data */
#define HOSTS      3u
#define LATE       2u /* the host that was away */
#define SHARD      1u
#define STRIKE_MS  30000u  /* by then the fault has struck */
#define PATIENT_MS 150000u /* by then all are equal; a receiver that waits for a dead sender keeps its place for 30 s */

enum fault {
    LOST, /* with its connection */
    TWICE,
    CORRUPTED, /* on the way */
    DAMAGED,   /* before it was sent */
    SENDER_CRASHES,
    RECEIVER_CRASHES,
    RECEIVER_RESTARTS, /* the replica, in order */
    LEADER_CHANGES,
    DISK_FULL,
    WRITE_FAILS,
    READ_FAILS,
    FAULTS,
};

static const char *const names[FAULTS] = {"lost",           "doubled",          "corrupted",         "damaged",
                                          "sender crashes", "receiver crashes", "receiver restarts", "leader changes",
                                          "disk full",      "write fails",      "read fails"};

static struct {
    bool armed, struck;
    enum fault fault;
    uint64_t chunk_id;
    uint32_t from;    /* the host that sent it */
    uint64_t then_ns; /* what a fault does a little later; 0: nothing */
} plan;

/* ---- the fault ---- */

enum chunk_fate chunks_look(const struct nh_chunk *chunk)
{
    if (!plan.armed || chunk->chunk_id != plan.chunk_id || sim_host_of(chunk->replica_id) != LATE)
        return CHUNK_SENT;
    plan.armed = false;
    plan.struck = true;
    plan.from = sim_host_of(chunk->from);
    switch (plan.fault) {
    case TWICE: return CHUNK_TWICE;
    case DAMAGED: return CHUNK_DAMAGED;
    case CORRUPTED: network_corrupt_next(); break;
    case DISK_FULL: memory_files_set_limit(sim.hosts[LATE]->files, memory_files_used(sim.hosts[LATE]->files)); break;
    case WRITE_FAILS: memory_files_fail_at(sim.hosts[LATE]->files, 1, NH_EIO); break;
    case READ_FAILS: memory_files_fail_at(sim.hosts[plan.from]->files, 1, NH_EIO); break;
    case LOST:
    case SENDER_CRASHES:
    case RECEIVER_CRASHES:
    case RECEIVER_RESTARTS:
    case LEADER_CHANGES:
    case FAULTS: break;
    }
    plan.then_ns = sim.now_ns + (plan.fault == DISK_FULL ? 5000 : plan.fault == RECEIVER_CRASHES ? 3 : 0) * SIM_MS;
    return CHUNK_SENT;
}

void chunks_sent(const struct nh_chunk *chunk)
{
    if (plan.struck && plan.fault == LOST && chunk->chunk_id == plan.chunk_id && plan.then_ns) {
        network_break_streams();
        plan.then_ns = 0;
    }
}

static void crash_and_start(uint32_t host)
{
    host_crash(sim.hosts[host]);
    plan_run_until(sim.now_ns + 300 * SIM_MS);
    host_start(sim.hosts[host]);
}

/* The other one that has everything leads next. */
static void change_leader(void)
{
    engine_campaign(sim.hosts[1 - plan.from]->engine, SHARD, NULL);
}

static void go_on(void)
{
    if (plan.then_ns == 0 || sim.now_ns < plan.then_ns)
        return;
    plan.then_ns = 0;
    switch (plan.fault) {
    case SENDER_CRASHES: crash_and_start(plan.from); break;
    case RECEIVER_CRASHES: crash_and_start(LATE); break;
    case RECEIVER_RESTARTS: host_restart_replica(sim.hosts[LATE], SHARD); break;
    case LEADER_CHANGES: change_leader(); break;
    case DISK_FULL: memory_files_set_limit(sim.hosts[LATE]->files, INT64_MAX); break;
    case LOST:
    case TWICE:
    case CORRUPTED:
    case DAMAGED:
    case WRITE_FAILS:
    case READ_FAILS:
    case FAULTS: break;
    }
}

/* ---- one case ---- */

static void set_options(uint32_t kind)
{
    sim.options = (struct sim_options){
        .n_hosts = HOSTS,
        .n_shards = 1,
        .step_workers = 1,
        .apply_workers = 1,
        .pre_vote = true,
        .snapshots = true,
        .kind = kind,
        .kept = 1,
        .streams = 1,
        .padding = (CHUNKS - 2) * STREAM_CHUNK_BYTES + 1000,
        .snapshot_entries = 15,
        .overhead = 1,
        .send_bytes_per_s = 4u << 20, /* so that answers come between chunks */
        .n_members = HOSTS,
    };
}

static void write_some(uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        uint32_t op = client_write(sim.hosts[i % 2], SHARD);
        uint64_t end_ns = sim.now_ns + 6000 * SIM_MS;

        while (op != UINT32_MAX && client_outcome(op) == 0 && sim.now_ns < end_ns)
            plan_run_until(sim.now_ns + SIM_MS);
        i += op != UINT32_MAX && client_outcome(op) == NH_REQUEST_COMPLETED;
        plan_run_until(sim.now_ns + SIM_MS);
    }
}

static void run_while(bool (*wanted)(void), uint64_t ms, const char *what)
{
    for (uint64_t end_ns = sim.now_ns + ms * SIM_MS; wanted();) {
        if (sim.now_ns > end_ns)
            sim_fail("chunk %" PRIu64 ", %s, kind %u: %s", plan.chunk_id, names[plan.fault], sim.options.kind, what);
        plan_run_until(sim.now_ns + SIM_MS / 10);
        go_on();
        plan_start_missing();
    }
}

static bool has_not_struck(void)
{
    return !plan.struck;
}

static bool is_not_equal(void)
{
    return plan.then_ns != 0 || !plan_is_equal(SHARD);
}

static void run_case(void (*begin)(uint64_t seed), enum fault fault, uint64_t chunk_id, uint32_t kind)
{
    begin(1 + fault * 1000 + chunk_id * 10 + kind);
    plan.armed = plan.struck = false;
    plan.fault = fault;
    plan.chunk_id = chunk_id;
    plan.then_ns = 0;
    set_options(kind);
    plan_begin();
    sim.calm = true;
    write_some(3);
    host_crash(sim.hosts[LATE]);
    write_some(40);
    plan_run_until(sim.now_ns + 1000 * SIM_MS);
    plan.armed = true;
    host_start(sim.hosts[LATE]);
    run_while(has_not_struck, STRIKE_MS, "no such chunk is sent");
    run_while(is_not_equal, PATIENT_MS, "the late host does not get what it needs");
    if (sim.coverage.recovered_running + sim.coverage.recovered_at_start == 0)
        sim_fail("chunk %" PRIu64 ", %s: nothing was recovered", chunk_id, names[fault]);
    write_some(3);
    run_while(is_not_equal, PATIENT_MS, "the hosts do not go on");
    plan_end();
}

/* Nothing of chunk 0 but the message is there to be damaged, which is not the image's to notice. */
static bool makes_sense(enum fault fault, uint64_t chunk_id, uint32_t kind)
{
    if (fault == DAMAGED && chunk_id == 0)
        return false;
    return fault != READ_FAILS || kind != NH_MACHINE_ON_DISK; /* its image is made on the fly */
}

void chunks_run(void (*begin)(uint64_t seed))
{
    uint32_t n = 0;

    for (uint32_t kind = NH_MACHINE_REGULAR; kind <= NH_MACHINE_ON_DISK; kind++) {
        for (int fault = 0; fault < FAULTS; fault++) {
            for (uint64_t chunk_id = 0; chunk_id < CHUNKS; chunk_id++) {
                if (!makes_sense((enum fault)fault, chunk_id, kind))
                    continue;
                run_case(begin, (enum fault)fault, chunk_id, kind);
                n++;
            }
        }
    }
    printf("%u cases: every chunk met every fault\n", n);
}
