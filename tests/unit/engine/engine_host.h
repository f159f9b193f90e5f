/* One host without threads, clock or network: the harness of the engine's tests.
 *
 * Time moves only in host_run; tasks are polled there, in the order in which they were started. The log store is in memory; what
 * is sent is counted and lost, unless a test puts a message in by hand. The machine adds numbers.
 */
#ifndef NH_TESTS_UNIT_ENGINE_HOST_H
#define NH_TESTS_UNIT_ENGINE_HOST_H

#include "engine/engine.h"
#include "logdb/memory/memory_logdb.h"

#define HOST_DIR     "disk"
#define HOST_ADDRESS "self:1"

struct ended {
    uint32_t n;
    struct nh_outcome last;
    char text[128]; /* of last.data */
};

struct fixture {
    struct engine *engine;
    struct nh_logdb *logdb;
    struct nh_registry *registry;
    uint64_t now_ns;
    struct nh_transport_handlers handlers;
    uint32_t n_sent;         /* messages */
    uint32_t n_pings;        /* empty batches */
    int send_result;         /* of send_batch */
    bool hold_log;           /* the log worker is not polled: saves stay in flight */
    bool hold_snapshots;     /* the snapshot pool is not polled: what it was given waits */
    bool hold_apply;         /* the apply worker is not polled */
    bool hold_streams;       /* the sender and the receiver of images are not polled */
    uint64_t update_ns;      /* an update of the machine takes so long */
    uint64_t fail_value;     /* the machine fails when it is told this */
    void (*on_lookup)(void); /* called while the machine is being asked */
    uint64_t save_ns;        /* a save takes so long */
    int begin_result;        /* of begin_save */
    uint64_t unreadable;     /* the log store cannot read what it has of this shard, until it was saved alone */
    uint32_t n_two_steps;    /* saves in two steps */
    uint32_t n_sent_before;  /* n_sent when the last of them was ended */
    uint32_t n_stepped_in;   /* polls on the transport's thread, in place of the worker's */
    uint32_t n_ready, n_unloaded, n_quarantined, n_fenced, n_overloaded;
    uint32_t n_snapshot_events[ENGINE_LOGDB_COMPACTED + 1];
    char reason[NH_ERROR_TEXT_BYTES];
    uint64_t leader_id, term;
    struct nh_error err;
};
extern struct fixture host;

/* Opens log store and engine and starts it. A restart keeps the disk. */
void host_start(bool inline_saves, uint64_t incarnation);
/* Set before the start. NULL: no snapshots. The root is the directory "snapshots", which exists. */
extern struct files *host_files;
/* Of replicas that are started; what a test sets is a change of the defaults. */
extern struct engine_replica_config host_replica_config;
/* Limits are set before the start; 0: defaults. */
extern uint32_t host_max_pending;
extern bool host_inline_applies; /* set before the start */
extern bool host_two_steps;      /* the same: the store saves in two steps */
extern bool host_moves_images;   /* the same: the transport has connections for them, of which none is ever made */
extern bool host_steps_in;       /* the same: the transport says when it has no more, and its thread may step in */
extern uint64_t host_max_inbox, host_max_uncommitted;
void host_stop(void);
void host_forget_disk(void);
/* Polls until nobody has anything to do, then lets `ms` pass, in steps of a millisecond. */
void host_run(uint32_t ms);

/* Members 1 .. n; 1 is here. */
int host_start_replica(uint64_t shard_id, uint32_t n_members);
int host_restart_replica(uint64_t shard_id);
/* Proposes a number; *e counts how often it ended. */
int host_propose(uint64_t shard_id, uint64_t value, uint32_t timeout_ms, struct ended *e);
int host_open_session(uint64_t shard_id, uint64_t client_id, struct ended *e);
int host_propose_in_session(uint64_t shard_id, struct engine_session session, const void *cmd, size_t size_bytes,
                            struct ended *e);
int host_snapshot(uint64_t shard_id, const char *export_dir, uint64_t overhead, struct ended *e);
int host_propose_bytes(uint64_t shard_id, const void *cmd, size_t size_bytes, uint32_t timeout_ms, struct ended *e);
int host_read(uint64_t shard_id, uint32_t timeout_ms, struct ended *e);
int host_read_bytes(uint64_t shard_id, const void *query, size_t size_bytes, uint32_t timeout_ms, struct ended *e);
int host_read_index(uint64_t shard_id, uint32_t timeout_ms, struct ended *e);
int host_lookup(uint64_t shard_id, uint64_t *ret);
struct engine_replica_status host_status(uint64_t shard_id);
/* Replica 1 leads by itself: it is the only member. */
void host_await_leader(uint64_t shard_id);
/* Replica 1 of three, in shard 1, wins by the hand-made vote of 2; it leads for an election timeout, as nobody answers it. */
void host_win_election(void);
void host_receive(const struct nh_message *messages, uint32_t n, const char *source);

/* Adds numbers, in memory; one that promises to be quick; and one that keeps the sum on a "disk", up to the last sync. */
extern const struct nh_machine_ops host_machine, host_quick_machine, host_disk_machine;
struct host_disk_state {
    uint64_t sum, applied;
};
/* What of host_disk_machine is durable; its instances begin with it. */
extern struct host_disk_state host_disk_durable;

#endif
