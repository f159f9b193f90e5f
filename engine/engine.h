/* engine/engine.h - runs the replicas of one host.
 *
 * An engine owns pools of workers, each a poll() function over engine/runtime.h:
 *
 *     step workers    drive the cores of their replicas: messages, proposals, timers; one log store save per pass
 *     log workers     one per step worker: perform the saves, so that they are in flight while the step worker goes on
 *     apply workers   hand committed entries to the machines, answer reads, complete requests
 *
 *     snapshot pool   saves and recovers machines; a sender and a receiver task move images (engine/snapshots.h)
 *
 * A replica is pinned to one worker of each pool by a hash of its shard id. What crosses threads goes through mailboxes in
 * batches. Where the order of durability is enforced: engine/step_worker.c.
 *
 * Threads: functions marked `any` may be called from any thread between engine_start and engine_stop; the rest belong to
 * the owner. Callbacks (`struct engine_events`, completions) run on workers and must not block.
 */
#ifndef NH_ENGINE_ENGINE_H
#define NH_ENGINE_ENGINE_H

#include "engine/files.h"
#include "engine/raft/raft.h"
#include "engine/runtime.h"
#include "raftio/listener.h"
#include "raftio/logdb.h"
#include "raftio/machine.h"
#include "raftio/registry.h"
#include "raftio/request.h"
#include "raftio/transport.h"

struct engine;

/* What became of snapshots and logs, as raftio/listener.h tells it. */
enum engine_snapshot_event {
    ENGINE_SNAPSHOT_SEND_STARTED,
    ENGINE_SNAPSHOT_SEND_COMPLETED,
    ENGINE_SNAPSHOT_SEND_ABORTED,
    ENGINE_SNAPSHOT_RECEIVED,
    ENGINE_SNAPSHOT_RECOVERED,
    ENGINE_SNAPSHOT_CREATED,
    ENGINE_SNAPSHOT_COMPACTED, /* older images were removed */
    ENGINE_LOG_COMPACTED,      /* entries up to `index` are gone for readers */
    ENGINE_LOGDB_COMPACTED,    /* and their space was given back. May still come until the log store is closed. */
};

/* Called on workers, in order per shard. Members may not be NULL. */
struct engine_events {
    void *ctx;
    void (*leader_updated)(void *ctx, const struct nh_leader_info *info);
    void (*replica_ready)(void *ctx, struct nh_replica_info info);
    void (*replica_unloaded)(void *ctx, struct nh_replica_info info);
    void (*replica_quarantined)(void *ctx, struct nh_replica_info info, const char *reason);
    void (*membership_changed)(void *ctx, struct nh_replica_info info);
    void (*logdb_fenced)(void *ctx, const char *reason);
    /* It was removed from its shard, and stops (replica_unloaded follows). */
    void (*replica_removed)(void *ctx, struct nh_replica_info info);
    void (*overload_changed)(void *ctx, struct nh_replica_info info, bool overloaded);
    void (*snapshot_event)(void *ctx, enum engine_snapshot_event what, const struct nh_snapshot_info *info);
};

#define ENGINE_WORKERS_MAX 64u

struct engine_config {
    struct runtime *runtime;  /* borrowed, outlives the engine */
    uint32_t rtt_ms;          /* length of a tick */
    uint32_t n_step_workers;  /* 1 .. ENGINE_WORKERS_MAX */
    uint32_t n_apply_workers; /* 1 .. ENGINE_WORKERS_MAX */
    bool inline_saves;        /* step workers save themselves; no log workers */
    bool inline_applies;      /* step workers apply themselves what is little (engine/apply_inline.h) */
    uint64_t deployment_id;
    const char *address;  /* of this host, as members name it; copied */
    uint64_t incarnation; /* grows with every start of this host (raftio/entry.h), < 2^24 */
    uint64_t seed;        /* for election timeouts */
    const struct nh_logdb_ops *logdb_ops;
    struct nh_logdb *logdb; /* opened with n_workers >= n_step_workers; borrowed */
    const struct nh_registry_ops *registry_ops;
    struct nh_registry *registry; /* borrowed */
    struct engine_events events;
    uint32_t max_pending_per_replica;   /* requests; 0: 65,536. One more is answered NH_EBUSY. */
    uint64_t max_inbox_bytes;           /* proposals of one replica that its worker has not taken; 0: 64 MiB */
    uint64_t max_uncommitted_bytes;     /* payload that all leaders of this host have not committed; 0: 1 GiB. Above: NH_EBUSY. */
    struct files *files;                /* borrowed; NULL: no snapshots on this host */
    const char *snapshot_root;          /* directory for images, exists; copied */
    uint32_t n_snapshot_workers;        /* 0: 2 */
    uint64_t snapshot_send_bytes_per_s; /* of all streams together; 0: no limit */
    uint32_t snapshot_streams_max;      /* sent at once, and received at once; 0: 8 */
};

/* How to start one replica. Pointers are borrowed for the call. */
struct engine_replica_config {
    uint64_t shard_id;
    uint64_t replica_id;
    const struct nh_machine_ops *machine; /* already accepted; static storage */
    uint64_t machine_hash;                /* of its shared object; 0: linked into the program */
    bool pin_machine;                     /* refuse another hash than the one that ran here last */
    const char *machine_dir;              /* for on-disk machines; may be NULL */
    const struct nh_membership *initial;  /* members of a new shard; NULL or empty: restart, or join */
    bool join;
    uint32_t election_rtt, heartbeat_rtt;
    bool pre_vote, check_quorum, quiesce, lease_reads;
    uint32_t lease_drift_percent, priority;
    uint64_t max_uncommitted_bytes, max_unapplied_bytes; /* 0: defaults of the core */
    /* A snapshot is made after so many entries, or bytes of entries, since the last one; the first one a little earlier or later,
     * so that shards do not all come at once. ENGINE_NEVER: not by itself; 0: 100,000 and 256 MiB. */
    uint64_t snapshot_entries, snapshot_bytes;
    uint64_t compaction_overhead; /* entries that stay in the log behind a snapshot, for followers that lag; 0: 5,000 */
    uint32_t snapshots_kept;      /* images; 0: 1 */
    bool compress_snapshots;      /* zstd */
    uint32_t sessions_max;        /* that the shard may hold when one is opened here: 1 .. 65,536; 0: 4,096 */
};
#define ENGINE_NEVER UINT64_MAX

struct engine_replica_status {
    uint64_t shard_id, replica_id;
    /* Of its core, in the order of struct raft_view: they are copied after each turn. */
    uint64_t leader_id, term;
    uint64_t first_index, last_index, commit_index; /* of the log */
    uint64_t transferee;                            /* a leader's: who is to lead next; 0: nobody */
    uint64_t uncommitted_bytes;
    enum raft_role role;
    bool quiesced;
    bool joint;          /* configuration in force: joint */
    bool witness;        /* this replica is one */
    bool pending_config; /* a change is in the log that is not applied here */
    bool lease_held;     /* as of its worker's last look */
    bool overloaded;
    /* Of those around it. */
    bool ready; /* its log is replayed up to the commit index known at start */
    bool quarantined;
    uint32_t pending_requests;
    uint64_t applied_index;
    uint64_t snapshot_index; /* newest durable snapshot; 0: none */
};

struct engine_stats { /* sums over workers since the start */
    uint64_t passes, saves, saved_updates, saved_entries, synced_saves;
    uint64_t messages_sent, batches_sent, messages_received, messages_ignored;
    uint64_t entries_applied, apply_calls, reads_answered;
};

/* Errors: EINVAL. */
int engine_new(const struct engine_config *config, struct engine **ret, struct nh_error *err);
/* What the transport is to call; usable until engine_free, harmless before start and after stop. */
void engine_transport_handlers(struct engine *e, struct nh_transport_handlers *ret);
/* Before engine_start; borrowed. */
void engine_set_transport(struct engine *e, const struct nh_transport_ops *ops, struct nh_transport *transport);
/* Errors: those of the snapshot tasks' start. */
int engine_start(struct engine *e, struct nh_error *err);
/* Ends every pending request (TERMINATED), closes every machine, stops the workers. The transport must be closed after
 * it and before engine_free. */
void engine_stop(struct engine *e);
void engine_free(struct engine *e); /* takes NULL */

/* Bootstraps or restarts a replica; returns when it takes part. Replaying its log goes on in the background
 * (events.replica_ready). Thread: any, not a worker.
 * Errors: EEXIST (the shard already has a replica here), EINVAL (members, options), EMISMATCH (the stored bootstrap record
 * says otherwise; the text names both and the remedy), ECORRUPT, EIO, EUNSUPPORTED (machine kind), EFENCED. */
int engine_start_replica(struct engine *e, const struct engine_replica_config *config, struct nh_error *err);
/* Stops it: later requests are refused, pending ones end as TERMINATED; events.replica_unloaded follows when its machine
 * is closed. Thread: any. Errors: ENOTFOUND. */
int engine_stop_replica(struct engine *e, uint64_t shard_id, struct nh_error *err);
/* The shard has a replica here that is being stopped, of which replica_unloaded is still to come. Thread: any. */
bool engine_is_stopping(struct engine *e, uint64_t shard_id);

/* Deletes all that is stored of a replica that does not run: log, images, and `machine_dir` if it is not NULL. What an earlier
 * call left after a crash is deleted too. Thread: any that may block. Errors: EBUSY (it runs, starts or stops), EINVAL, EIO,
 * EFENCED, ECLOSED. */
int engine_remove_data(struct engine *e, uint64_t shard_id, uint64_t replica_id, const char *machine_dir, bool *ret_was_there,
                       struct nh_error *err);

/* Which proposal of which session (engine/rsm/sessions.h). Zeroed: none. */
struct engine_session {
    uint64_t client_id, series_id, responded_to;
};

/* What is proposed. Zeroed: bytes for the machine, of no session. A METADATA entry without bytes is a barrier: it completes when
 * all before it is applied. */
struct engine_proposal_kind {
    enum nh_entry_type type;       /* APPLICATION, CONFIG_CHANGE (an encoded nh_config_change) or METADATA */
    struct engine_session session; /* of an APPLICATION entry */
};
/* Submits `n` proposals for the machine of one shard under one lock; all or none are accepted. deadline_ns is on the runtime's
 * clock. Thread: any. Errors (nothing was accepted): ENOTFOUND, EBUSY, ETOOBIG, EQUARANTINED, EFENCED, ECLOSED. */
int engine_propose(struct engine *e, uint64_t shard_id, const struct nh_proposal *proposals, size_t n, uint64_t deadline_ns,
                   struct nh_error *err);
/* The same for one of another kind. */
int engine_propose_as(struct engine *e, uint64_t shard_id, struct engine_proposal_kind kind, const struct nh_proposal *proposal,
                      uint64_t deadline_ns, struct nh_error *err);
/* Proposes the opening of a session, with the limit of the very replica that takes it. Thread: any. Errors: as above. */
int engine_open_session(struct engine *e, uint64_t shard_id, uint64_t client_id, uint64_t deadline_ns, nh_completion_fn fn,
                        void *ctx, struct nh_error *err);
/* A linearizable read. With `query`: answered by the machine's lookup on the apply worker, outcome.data are its bytes.
 * Without (NULL): completes when a local lookup is linearizable. Thread: any. Errors as above. */
int engine_read(struct engine *e, uint64_t shard_id, const void *query, size_t size_bytes, uint64_t deadline_ns,
                nh_completion_fn fn, void *ctx, struct nh_error *err);
/* Asks the local machine at once; may be stale. Thread: any, not from a machine's update. Errors also: ENOTREADY, EMACHINE codes.
 */
int engine_lookup(struct engine *e, uint64_t shard_id, const void *query, size_t size_bytes, struct nh_writer *out,
                  uint64_t *ret_value, struct nh_error *err);

/* Gives the leadership to a voter, by whichever replica leads. Ends as engine/controls.h says. Thread: any. Errors (not
 * accepted): ENOTFOUND, EBUSY, EQUARANTINED, EFENCED, ECLOSED; also for the three below. */
/* A connection to or from this host failed, and nothing was heard of it since. */
bool engine_host_is_down(struct engine *e, const char *address);
int engine_transfer(struct engine *e, uint64_t shard_id, uint64_t target, nh_completion_fn fn, void *ctx, struct nh_error *err);
/* Our replica stands for election now, as far as it may. */
int engine_campaign(struct engine *e, uint64_t shard_id, struct nh_error *err);
/* Our replica, a follower, votes for others at once: its leader is known to be gone. */
int engine_forget_leader(struct engine *e, uint64_t shard_id, struct nh_error *err);
/* Progress of the others if our replica leads: outcome.data is an array of struct nh_peer_info. */
int engine_look_at_peers(struct engine *e, uint64_t shard_id, nh_completion_fn fn, void *ctx, struct nh_error *err);

/* Makes a snapshot now. COMPLETED: outcome.index is its index; with export_dir (a directory; copied) the image is written to a
 * new directory in there instead, of which outcome.data is the path, and nothing else changes. REJECTED: there is nothing new, or
 * it failed (an export: also if its name is taken); outcome.data says why. overhead: entries to keep in the log behind it;
 * ENGINE_NEVER: as configured. Errors as above. */
int engine_snapshot(struct engine *e, uint64_t shard_id, const char *export_dir, uint64_t overhead, nh_completion_fn fn,
                    void *ctx, struct nh_error *err);

/* Thread: any. Errors: ENOTFOUND. */
int engine_get_status(struct engine *e, uint64_t shard_id, struct engine_replica_status *ret, struct nh_error *err);
/* The membership as applied here; release with nh_membership_deinit. */
int engine_get_membership(struct engine *e, uint64_t shard_id, struct nh_membership *ret, struct nh_error *err);
/* Calls `each` for every replica, ascending shard ids not guaranteed. */
void engine_each_replica(struct engine *e, void (*each)(void *ctx, const struct engine_replica_status *status), void *ctx);
/* The machine's hash and the applied index it belongs to; NH_EUNSUPPORTED if the machine has none. For tests and tools. */
int engine_get_hash(struct engine *e, uint64_t shard_id, uint64_t *ret_hash, uint64_t *ret_applied, struct nh_error *err);
void engine_get_stats(struct engine *e, struct engine_stats *ret);

#endif
