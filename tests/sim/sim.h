/* tests/sim/sim.h - N whole hosts on one thread, from one seed.
 *
 * A run simulates hosts (engine, core, memory log store, loopback transport), a network between them, disks that crash, clocks
 * that differ, and clients. Everything that happens is an event that the scheduler chooses with the seed's random numbers, in
 * virtual time; the same seed gives the same run, event by event.
 *
 *     clock.c     virtual time; tasks of all hosts, polled in random order; clocks and disks of different speed
 *     network.c   parcels in flight: loss, doubling, reordering, delay, partitions
 *     host.c      hosts and their machines; start, crash, restart
 *     client.c    requests and how they ended
 *     oracle.c    what must hold: see its head
 *     linear.c    linearizability of what clients saw
 *     main.c      the plan of a run, and the command line
 *
 * A violated rule ends the process with the seed and how to replay it.
 */
#ifndef NH_TESTS_SIM_SIM_H
#define NH_TESTS_SIM_SIM_H

#include "engine/engine.h"
#include "logdb/memory/memory_logdb.h"
#include "raftio/support/list.h"
#include "transport/loopback/loopback.h"

#define SIM_HOSTS_MAX  5u
#define SIM_SHARDS_MAX 3u
#define SIM_KEYS       4u /* registers of one machine */
#define SIM_MS         1000000ull
#define SIM_RTT_MS     10u

/* What a run is made of; drawn from the seed. */
struct sim_options {
    uint32_t n_hosts, n_shards;
    uint32_t step_workers, apply_workers;
    bool inline_saves, pre_vote, check_quorum, quiesce;
    bool share_blocks;  /* the network hands blocks over instead of encoding */
    bool fail_disks;    /* writes fail now and then */
    uint64_t faults_ms; /* how long faults go on */
};

/* Rare paths that a run took. */
struct sim_coverage {
    uint64_t events, crashes, restarts, replica_restarts, partitions, lost, doubled, delayed, slow_disks, fences;
    uint64_t leaders, quiesced, completed, dropped, timed_out, terminated, reads, applied, replayed;
};

struct sim_host;

struct sim {
    uint64_t seed, random, now_ns;
    uint64_t digest; /* of all events so far */
    bool verbose;
    struct sim_options options;
    struct sim_coverage coverage;
    struct sim_host *hosts[SIM_HOSTS_MAX];
    struct loopback_hub *hub;
};

extern struct sim sim; /* the run */

/* ---- main.c ---- */

/* Ends the process: a rule is violated. */
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void sim_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
uint64_t sim_random(void);
/* [0, n) */
uint64_t sim_below(uint64_t n);
bool sim_chance(uint32_t percent);
/* Folds something that happened into the digest. */
void sim_note(uint64_t what);

/* ---- clock.c ---- */

/* The runtime of a host; its clock begins at a random time and runs at its own speed. */
struct runtime *clock_new(uint32_t host);
void clock_free(struct runtime *rt);
/* How long a save takes from now on, at most. */
void clock_set_disk_ns(struct runtime *rt, uint64_t max_ns);
/* The clock of this host runs faster or slower from now on. */
void clock_set_speed(struct runtime *rt, uint32_t permille);
/* Polls one task that may be polled now; false: there is none. */
bool clock_run_one(void);
/* When a task wants to be polled next, in virtual time; UINT64_MAX: never. */
uint64_t clock_next_ns(void);

/* ---- network.c ---- */

struct network_weather {
    uint32_t loss_percent, double_percent;
    uint64_t delay_min_ns, delay_max_ns;
};
void network_init(void);
void network_deinit(void); /* drops what is in flight */
void network_set_weather(struct network_weather weather);
/* Nothing goes from a to b any more (b to a may). */
void network_cut(uint32_t a, uint32_t b);
void network_heal(void);
/* Loses what is in flight from and to this host. */
void network_forget(uint32_t host);
bool network_run_one(void); /* delivers a parcel that is due; false: none is */
uint64_t network_next_ns(void);

/* ---- host.c ---- */

struct sim_host {
    uint32_t id; /* 0 ..; replica ids are id + 1 */
    bool up, fenced;
    uint64_t incarnation;
    char address[32], disk_name[64];
    struct memory_disk *disk;
    struct runtime *runtime;
    struct engine *engine;
    struct nh_logdb *logdb;
    struct nh_registry *registry;
    struct nh_transport *transport;
    bool has_shard[SIM_SHARDS_MAX + 1]; /* was started here once */
    bool running[SIM_SHARDS_MAX + 1];
};

void host_init(uint32_t id);
void host_deinit(uint32_t id);
void host_start(struct sim_host *h);
void host_crash(struct sim_host *h); /* a power cut */
/* Stops one replica in order; it is started again when its machine is closed. */
void host_restart_replica(struct sim_host *h, uint64_t shard);
void host_start_missing(struct sim_host *h);

/* ---- client.c ---- */

void client_init(void);
void client_deinit(void);
/* One random request. */
void client_act(void);
/* A write or a read at this host that the end of a run waits for; its number for client_outcome. */
uint32_t client_write(struct sim_host *h, uint64_t shard);
uint32_t client_read(struct sim_host *h, uint64_t shard);
int client_outcome(uint32_t op); /* 0: not ended */
/* Every request has ended once, and what it says is true. Checks linearizability. */
void client_check(void);

/* ---- oracle.c ---- */

/* An entry as a command of a client: which write it is. */
struct sim_command {
    uint64_t id; /* unique, from 1 */
    uint64_t shard;
    uint32_t key;
};

void oracle_init(void);
void oracle_deinit(void);
void oracle_applied(const struct sim_host *h, uint64_t shard, uint64_t index, const struct sim_command *command);
void oracle_leader(const struct sim_host *h, const struct nh_leader_info *info);
void oracle_check_leaders(void); /* those that were elected since the last call */
void oracle_check_logs(void);    /* log matching, over all disks */
/* 0: never applied. */
uint64_t oracle_index_of(uint64_t shard, uint64_t id);
void oracle_self_test(void);

/* ---- linear.c ---- */

/* One operation on a register. A write whose outcome is unknown has no end. */
struct linear_op {
    uint64_t begin, end; /* end: UINT64_MAX if unknown */
    uint64_t value;      /* written or read; 0: the initial value */
    bool is_write;
};
/* Sorts `ops`. NULL: linearizable; else a static text. */
const char *linear_check(struct linear_op *ops, size_t n);
void linear_self_test(void);

#endif
