/* tests/sim/sim.h - N whole hosts on one thread, from one seed.
 *
 * A run simulates hosts (engine, core, memory log store, loopback transport), a network between them, disks that crash, clocks
 * that differ, and clients. Everything that happens is an event that the scheduler chooses with the seed's random numbers, in
 * virtual time; the same seed gives the same run, event by event.
 *
 *     clock.c      virtual time; tasks of all hosts, polled in random order; clocks and disks of different speed; stalls
 *     wire.c       what hosts send is looked at
 *     network.c    parcels in flight: loss, doubling, reordering, delay, partitions
 *     host.c       hosts; start, stop, crash, restart
 *     store.c      their log stores, and blocks that cannot be read
 *     machines.c   their machines, one of each kind
 *     faults.c     what goes wrong, and how it is mended
 *     client.c     requests and how they ended
 *     sessions.c   clients that repeat what they do not know the end of
 *     admin.c      members come and go, leaderships move
 *     oracle.c     what must hold of what is applied and who leads: see its head
 *     disks.c      what must hold of disks and cores: see its head
 *     images.c     what must hold of images
 *     linear.c     linearizability of what clients saw
 *     self_test.c  the rules can be broken, and that is noticed
 *     plan.c       the plan of a run
 *     chunks.c     another plan: each chunk of an image meets each fault
 *     main.c       the command line
 *
 * A run has three parts: faults; recovery, in which every shard must come to work again; and a calm, in which nothing may go
 * wrong at all. A violated rule ends the process with the seed and how to replay it.
 */
#ifndef NH_TESTS_SIM_SIM_H
#define NH_TESTS_SIM_SIM_H

#include "engine/engine.h"
#include "logdb/memory/memory_logdb.h"
#include "raftio/support/list.h"
#include "tests/sim/memory_files.h"
#include "transport/loopback/loopback.h"

#define SIM_HOSTS_MAX  5u
#define SIM_SHARDS_MAX 4u
#define SIM_KEYS       4u /* registers of one machine */
#define SIM_MS         1000000ull
#define SIM_RTT_MS     10u
/* Directories of a host. */
#define SIM_IMAGES  "images"
#define SIM_EXPORTS "exports"
/* With leases: the slowest clock runs at this much less than the speed of the fastest. */
#define SIM_DRIFT_PERCENT 20u

/* What a run is made of; drawn from the seed. */
struct sim_options {
    uint32_t n_hosts, n_shards;
    uint32_t step_workers, apply_workers;
    bool inline_saves, inline_applies, step_in, pre_vote, check_quorum, quiesce;
    bool share_blocks;  /* the network hands blocks over instead of encoding */
    bool fail_disks;    /* writes fail now and then */
    bool damage_blocks; /* what is stored of a replica cannot be read now and then */
    bool small_limits;  /* few pending requests, short send queues */
    bool small_windows; /* small messages, windows and caches in the cores */
    bool in_order;      /* parcels do not overtake each other, as on connections that live */
    bool churn;         /* members come and go: voters, non-voting ones, witnesses, one at a time or joint */
    bool moves;         /* leaderships are given away, forgotten, stood for */
    bool leases;        /* reads by lease, clocks differ by no more than is allowed */
    bool priorities;    /* hosts differ in priority */
    bool snapshots;     /* hosts have a place for images; the options below are without meaning otherwise */
    bool compress;      /* images */
    bool sessions;      /* some clients have one */
    bool fail_files;    /* operations on files fail now and then, or are the last ones */
    uint32_t kind;      /* of the machines */
    uint32_t kept;      /* images */
    uint32_t streams;   /* that a host sends, and takes, at once */
    uint32_t padding;   /* of an image, in bytes */
    uint64_t snapshot_entries, snapshot_bytes, overhead;
    uint64_t send_bytes_per_s;
    uint32_t n_members; /* of each shard at first: hosts 0 .. n_members - 1 */
    uint32_t faults;    /* which kinds, by bit: a swarm, as too many together hide each other */
    uint64_t faults_ms; /* how long faults go on */
};

/* Rare paths that a run took: over many seeds none may stay at 0. */
#define SIM_COVERAGE(X)   \
    X(events)             \
    X(single_hosts)       \
    X(inline_saves)       \
    X(inline_applies)     \
    X(step_ins)           \
    X(starts)             \
    X(crashes)            \
    X(blackouts)          \
    X(clean_stops)        \
    X(replica_restarts)   \
    X(pauses)             \
    X(stalls)             \
    X(slow_disks)         \
    X(hung_disks)         \
    X(fences)             \
    X(damaged_blocks)     \
    X(quarantines)        \
    X(clock_changes)      \
    X(partitions)         \
    X(one_way_partitions) \
    X(lost)               \
    X(doubled)            \
    X(delayed)            \
    X(revenants)          \
    X(leaders)            \
    X(truncations)        \
    X(promises)           \
    X(quiet_spells)       \
    X(quiet)              \
    X(woken)              \
    X(commits)            \
    X(applied)            \
    X(applied_again)      \
    X(writes)             \
    X(dropped)            \
    X(timed_out)          \
    X(terminated)         \
    X(refused_busy)       \
    X(joins)              \
    X(removals)           \
    X(config_changes)     \
    X(config_rejected)    \
    X(config_dropped)     \
    X(joint_entered)      \
    X(joint_left)         \
    X(witnesses)          \
    X(transfers_done)     \
    X(transfers_refused)  \
    X(transfers_late)     \
    X(campaigns)          \
    X(forgotten_leaders)  \
    X(leases)             \
    X(overloads)          \
    X(queries)            \
    X(index_reads)        \
    X(snapshots_made)     \
    X(snapshots_asked)    \
    X(snapshots_refused)  \
    X(exports)            \
    X(saved_beside)       \
    X(saved_metadata)     \
    X(recovered_at_start) \
    X(recovered_running)  \
    X(joined_by_image)    \
    X(streams_begun)      \
    X(streams_done)       \
    X(streams_failed)     \
    X(streams_resumed)    \
    X(streams_hit)        \
    X(chunks_lost)        \
    X(chunks_doubled)     \
    X(chunks_corrupted)   \
    X(images_corrupted)   \
    X(file_failures)      \
    X(file_crashes)       \
    X(full_disks)         \
    X(received)           \
    X(images_pruned)      \
    X(logs_compacted)     \
    X(spaces_given_back)  \
    X(sessions_opened)    \
    X(sessions_closed)    \
    X(session_writes)     \
    X(session_repeated)   \
    X(session_acked)      \
    X(session_evicted)
struct sim_coverage {
#define X(name) uint64_t name;
    SIM_COVERAGE(X)
#undef X
};

struct sim_host;

struct sim {
    uint64_t seed, random, now_ns;
    uint64_t digest; /* of all events so far */
    bool verbose;
    bool calm; /* no fault may begin any more */
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

/* ---- plan.c ---- */

/* Options from the seed. */
void plan_draw(void);
/* All hosts start, with the options as they are. */
void plan_begin(void);
void plan_run(void);
void plan_end(void);
/* Lets things happen. */
void plan_run_until(uint64_t until_ns);
/* Those that hold the data have come to the same state. One that is wrong ends the run. */
bool plan_is_equal(uint64_t shard);
/* A replica may have been stopping when the faults ended, or have found its log store fenced. */
void plan_start_missing(void);

/* ---- chunks.c ---- */

/* Every chunk of an image meets every fault. */
void chunks_run(void (*begin)(uint64_t seed));
/* A chunk is about to be sent: what is to become of it? */
enum chunk_fate { CHUNK_SENT, CHUNK_TWICE, CHUNK_DAMAGED };
enum chunk_fate chunks_look(const struct nh_chunk *chunk);
/* It is on its way. */
void chunks_sent(const struct nh_chunk *chunk);

/* ---- clock.c ---- */

/* The runtime of a host; its clock begins at a random time and runs at its own speed. */
struct runtime *clock_new(uint32_t host);
void clock_free(struct runtime *rt);
/* How long a save takes from now on, at most. */
void clock_set_disk_ns(struct runtime *rt, uint64_t max_ns);
/* The clock of this host runs faster or slower from now on. */
void clock_set_speed(struct runtime *rt, uint32_t permille);
/* No task of this host is polled until then, as if the process had been stopped. */
void clock_pause(struct runtime *rt, uint64_t until_ns);
/* One of its tasks is not. */
void clock_stall_one(struct runtime *rt, uint64_t until_ns);
void clock_resume(struct runtime *rt); /* ends pause and stalls */
uint64_t clock_paused_until(const struct runtime *rt);
/* Tasks of this host stand still, or stood within the last `ns`. */
bool clock_was_held(const struct runtime *rt, uint64_t ns);
/* Polls one task that may be polled now; false: there is none. */
bool clock_run_one(void);
/* When a task wants to be polled next, in virtual time; UINT64_MAX: never. */
uint64_t clock_next_ns(void);

/* ---- network.c ---- */

struct network_weather {
    uint32_t loss_percent, double_percent;
    uint32_t corrupt_percent; /* of chunks */
    uint64_t delay_min_ns, delay_max_ns;
    uint32_t late_percent; /* stragglers */
    bool in_order;
};
void network_init(void);
void network_deinit(void); /* drops what is in flight */
void network_set_weather(struct network_weather weather);
/* Nothing goes from a to b any more (b to a may). */
void network_cut(uint32_t a, uint32_t b);
void network_heal(void);
/* Loses what is in flight from this host and some of what is in flight to it: the rest, and copies, come after its restart. */
void network_forget(uint32_t host);
/* All connections break on which chunks are under way. */
void network_break_streams(void);
/* The next chunk that arrives is damaged. */
void network_corrupt_next(void);
/* Between which hosts a chunk is under way; false: none is. */
bool network_stream(uint32_t *ret_from, uint32_t *ret_to);
/* No parcel comes a second time any more. */
void network_forget_copies(void);
/* The host that a transport's address names. */
uint32_t network_host(const char *address);
bool network_run_one(void); /* delivers a parcel that is due; false: none is */
uint64_t network_next_ns(void);

/* ---- wire.c ---- */

/* The loopback transport, with a look at every message (disks_check_message). */
const struct nh_transport_ops *wire_ops(void);

/* ---- store.c ---- */

struct sim_host;
const struct nh_logdb_ops *store_ops(void);
/* A block of one of its replicas cannot be read from now on, or from soon on. */
void store_damage(struct sim_host *h);
/* True: that is why this replica of its is in quarantine, or does not start; it is over with that. */
bool store_excuses(struct sim_host *h, uint64_t shard);
void store_repair(struct sim_host *h);        /* unless it was met already */
void store_forget_damage(struct sim_host *h); /* a new life begins */

/* ---- host.c ---- */

/* A host's replica of a shard is id + 1 at first; one that joins anew after a removal gets the next of its own numbers. */
#define SIM_REPLICA_STEP 16u
static inline uint32_t sim_host_of(uint64_t replica_id)
{
    return (uint32_t)((replica_id - 1) % SIM_REPLICA_STEP);
}

struct sim_host {
    uint32_t id; /* 0 .. */
    bool up, fenced;
    uint64_t incarnation;
    char address[32], disk_name[64];
    struct memory_disk *disk;
    struct memory_files *files;
    struct runtime *runtime;
    struct engine *engine;
    struct nh_logdb *logdb;
    struct nh_registry *registry;
    struct nh_transport *transport;
    bool has_shard[SIM_SHARDS_MAX + 1]; /* was started here once */
    bool running[SIM_SHARDS_MAX + 1];
    bool wanted[SIM_SHARDS_MAX + 1];              /* it is to run here */
    uint64_t replica[SIM_SHARDS_MAX + 1];         /* its id */
    uint64_t received[SIM_SHARDS_MAX + 1];        /* index of the last image that arrived in this life */
    uint64_t received_before[SIM_SHARDS_MAX + 1]; /* and in the life before this one */
    bool hurt[SIM_SHARDS_MAX + 1];                /* in quarantine, and there was a reason: to be restarted */
    uint64_t n_excused;                           /* failures of files that were the reason */
    uint64_t unreadable;                          /* a shard, of which a block is damaged; 0: none */
    uint32_t reads_before;                        /* so many calls do not meet it */
    bool could_not_read;                          /* one has met it */
    uint32_t n_damaged;                           /* calls that did, in this life */
    uint32_t n_requests;                          /* accepted and not ended */
};

void host_init(uint32_t id);
void host_close(struct sim_host *h); /* at the end of a run, if it is up */
void host_deinit(uint32_t id);
void host_start(struct sim_host *h);
void host_crash(struct sim_host *h); /* a power cut */
void host_stop(struct sim_host *h);  /* in order */
bool host_is_paused(const struct sim_host *h);
/* Its replica needs an image, or has got a newer one than `since`. That happens in the best of weathers where a leader keeps few
 * entries, and the fate of proposals whose entries lie within the image is then unknown to it: they time out. */
bool host_gets_image(const struct sim_host *h, uint64_t shard, uint64_t since);
/* Hosts whose last operation on a file was to be the last one crash now. */
void host_bury_dead(void);
/* The core of a replica, NULL if there is none. It is looked at between two polls only. */
const struct raft *host_core(const struct sim_host *h, uint64_t shard);
/* Stops one replica in order; it is started again when its machine is closed. */
void host_restart_replica(struct sim_host *h, uint64_t shard);
void host_start_missing(struct sim_host *h);
/* A replica that joins is to run here; false: there is one already. */
bool host_join(struct sim_host *h, uint64_t shard);

/* ---- machines.c ---- */

/* SIM_KEYS registers that remember who wrote last. */
struct registers {
    uint64_t values[SIM_KEYS];
    uint64_t n_applied, applied; /* how many entries, the last index */
};

/* Of the run's kind. */
const struct nh_machine_ops *machines_ops(void);
/* Power is cut: what an on-disk machine has not synced is lost, but a part of it at the beginning. */
void machines_crash(uint32_t host);
void machines_deinit(void);

/* ---- admin.c ---- */

/* One random change of members or leader. */
void admin_act(void);
/* Somebody asks for a snapshot. */
void admin_snapshot(void);
/* The newest membership that any host has applied; false: nobody runs the shard. nh_membership_deinit. */
bool admin_membership(uint64_t shard, struct nh_membership *ret);
/* Is its replica a member of the newest membership that holds data? */
bool admin_is_served(const struct sim_host *h, uint64_t shard);
/* Leaves a joint configuration that would stay for ever. */
void admin_leave_joint(uint64_t shard);

/* ---- faults.c ---- */

void faults_good_weather(void);
/* Nothing is lost, nothing overtakes. */
void faults_calm_weather(void);
void faults_one(void);
/* A time without requests begins, perhaps behind a partition. */
void faults_quiet_spell(void);
/* A few parcels are lost, nothing else goes wrong. */
void faults_drizzle(void);
/* Replicas that were stopped come back, hosts that are down or fenced too, sooner or later. */
void faults_mend_some(void);
/* Somebody who may have voted just now forgets what was not synced; a late request for its vote may still come. */
void faults_reboot_voter(void);
/* An image is under way, perhaps: then something happens to its sender, its receiver or its leader. */
void faults_hit_stream(void);
/* Ends all faults. */
void faults_end(void);

/* ---- client.c ---- */

void client_init(void);
void client_deinit(void);
/* One random request. */
void client_act(void);
/* What is to become of the requests that are accepted from now on. Strict: all must complete, at the first try. Reads: only reads
 * are submitted, and they must. */
enum client_mode { CLIENT_FREE, CLIENT_READS, CLIENT_STRICT };
void client_set_mode(enum client_mode mode);
/* A write or a read at this host that the end of a run waits for; its number for client_outcome. */
uint32_t client_write(struct sim_host *h, uint64_t shard);
uint32_t client_read(struct sim_host *h, uint64_t shard);
int client_outcome(uint32_t op); /* 0: not ended */
/* A number that no write has had yet. */
uint64_t client_next_id(void);
uint64_t client_step(void); /* the next moment of the history */
/* The host's engine has stopped: nothing may be pending there. */
void client_host_stopped(const struct sim_host *h);
/* Every request has ended once, and what it says is true. Checks linearizability. */
void client_check(void);
void client_self_test(void);

/* ---- sessions.c ---- */

struct linear_op;

void sessions_begin(void);
void sessions_end(void);
/* One step of a random client. */
void sessions_act(void);
/* All proposals must complete, at the first try. */
void sessions_set_strict(bool is_strict);
/* Moves on what has not ended; true: all has. */
bool sessions_settle(void);
/* What one register went through, for linear_check. Returns how many, at most sessions_count_writes. */
size_t sessions_collect(uint64_t shard, uint32_t key, struct linear_op *ret);
size_t sessions_count_writes(void);

/* ---- oracle.c ---- */

/* An entry as a command of a client: which write it is. The rest of the entry is a pattern. */
struct sim_command {
    uint64_t id; /* unique, from 1 */
    uint64_t shard;
    uint32_t key;
    uint32_t size_bytes; /* with the pattern */
};
#define SIM_COMMAND_BYTES_MAX (sizeof(struct sim_command) + 3000u)

void oracle_init(void);
void oracle_deinit(void);
/* Fills ret[0 .. c->size_bytes). */
void oracle_encode(const struct sim_command *c, uint8_t *ret);
/* A machine applies an entry; the one before was at `previous` (0: none). Returns the command. */
struct sim_command oracle_applied(const struct sim_host *h, uint64_t shard, uint64_t previous, uint64_t index,
                                  const uint8_t *entry, size_t size_bytes);
/* An image of this index holds this state. */
void oracle_check_image(const struct sim_host *h, uint64_t shard, const struct registers *state, uint64_t index);
void oracle_leader(uint64_t shard, uint64_t term, uint64_t leader_id);
/* 0: never applied. */
uint64_t oracle_index_of(uint64_t id);
/* It was the n-th command of its shard. */
uint64_t oracle_number_of(uint64_t id);
/* A machine has come to be in this state by another way than entry after entry; it must be what the history says. */
void oracle_check_state(const struct sim_host *h, uint64_t shard, const struct registers *state, const char *how);
void oracle_self_test(void);

/* ---- disks.c ---- */

void disks_init(void);
void disks_deinit(void);
/* How many disks hold, synced, a record at `index` that `test` likes. */
uint32_t disks_count(uint64_t shard, uint64_t index, bool (*test)(const uint8_t *record, const void *ctx), const void *ctx);
/* Before a message leaves this host. */
void disks_check_message(const struct sim_host *h, const struct nh_message *m);
/* After a poll of one of its tasks: what can be seen cheaply. */
void disks_after_poll(const struct sim_host *h);
/* Before a machine is given entries: what its core has committed is seen. */
void disks_before_update(const struct sim_host *h, uint64_t shard);
void disks_check_all(void);
/* The highest index that was seen to be committed. */
uint64_t disks_committed(uint64_t shard);
/* Its replica gets another id: nothing is known of it. */
void disks_forget(const struct sim_host *h, uint64_t shard);
void disks_self_test(void);

/* ---- images.c ---- */

void images_init(void);
/* The synced state of the replica on its disk. */
void images_check(const struct sim_host *h, uint64_t shard, const struct nh_raft_state *state);
void images_forget(const struct sim_host *h, uint64_t shard);
/* An empty directory for exports of a shard; valid until the next call. */
const char *images_export_dir(struct sim_host *h, uint64_t shard);
/* An image was exported to `path`. */
void images_check_export(struct sim_host *h, const char *path, uint64_t index);
/* The sender was told so. */
void images_check_arrival(uint64_t shard, uint64_t replica_id, uint64_t index);

/* ---- self_test.c ---- */

/* Breaks a rule in a child process: it must fail with this text. */
void self_test_expect(const char *text, void (*violate)(void));
/* Hosts with nothing but their disks, for rules that look there; and an entry, synced, on a disk. */
void self_test_begin(uint32_t n_hosts);
void self_test_save(uint32_t host, uint64_t index, uint64_t term, uint64_t id, struct nh_state state);
void self_test_end(void);
bool self_test_runs(void);

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
