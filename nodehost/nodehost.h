/* nodehost/nodehost.h - the library's face: one host, its replicas, requests to them.
 *
 *     struct nh_host_config hc = NH_HOST_CONFIG_INIT;
 *     hc.host_id = 1; hc.data_dir = "data"; hc.address = "127.0.0.1:7101";
 *     nh_host_open(&hc, &host, &err);
 *     nh_host_start_replica(host, &rc, &err);
 *     nh_propose_sync(host, shard_id, "x=1", 3, 1000, &reply, &err);
 *     nh_host_close(host);
 *
 * Asynchronous functions return at once: 0 means accepted, and then the completion runs exactly once (raftio/request.h);
 * a negative code means that nothing was accepted and the completion will not run. Each has a synchronous form that
 * waits; those answer NH_EDEADLOCK on the host's own threads (completions, listeners, machines).
 *
 * Timeouts are real time in milliseconds, 1 .. NH_TIMEOUT_MS_MAX, never shorter than asked for and some 20 ms longer; a timeout
 * of a proposal means "outcome unknown".
 *
 * Pointers must not be NULL unless it says otherwise; a request without completion or reply, or with bytes at NULL, is EINVAL.
 * `err` may be NULL; it is filled on failure only.
 *
 * Threads: every function may be called from any thread, also concurrently, except where it says otherwise.
 */
#ifndef NH_NODEHOST_NODEHOST_H
#define NH_NODEHOST_NODEHOST_H

#include "nodehost/config.h"
#include "nodehost/statemachine.h"
#include "raftio/request.h"

NH_BEGIN_DECLS

struct nh_host;

#define NH_TIMEOUT_MS_MAX     (24u * 3600u * 1000u)
#define NH_HOST_ID_TEXT_BYTES 48u

/* Version of the library, "0.1.0". */
NH_API const char *nh_version(void);

/* ---- life cycle ---- */

/* Locks and checks the data directory, opens the log store, starts workers and transport. The directory remembers host id,
 * deployment id, address and log store; a mismatch is refused with the remedy in the text.
 * Errors: EINVAL (config), ELOCKED (text names the pid), EMISMATCH, EIO, ECORRUPT, EABI (a table of the config is not whole), or
 * what a plugin's open returns. */
NH_API int nh_host_open(const struct nh_host_config *config, struct nh_host **ret, struct nh_error *err);
/* Stops all replicas, ends pending requests (TERMINATED), stops every thread, unlocks. No completion or listener runs after
 * it has returned. Takes NULL. Call once: when it begins no other thread may be inside a function of this host, but for a
 * synchronous request that waits, nor call one later. To end threads that ask it, stop its replicas first: whoever waits gets
 * TERMINATED, whoever comes later ENOTFOUND. A completion, a listener or a machine cannot close it: the host stays open and logs
 * an error. */
NH_API void nh_host_close(struct nh_host *host);

/* Starts our replica of a shard: new (members given), joining (join) or restarted (neither, or members equal to the
 * record). The stored bootstrap record must agree in members, join flag, and name, kind and version of the machine. Another
 * shared object of the same version is a warning in the log, or a refusal (pin_machine): a library that was built anew must be
 * able to restart a host. Returns when the replica takes part; its snapshot is recovered and its log replayed in the background
 * (replica_ready).
 * Errors: EINVAL, EEXIST (the shard already runs here), EMISMATCH (bootstrap record), EUNSUPPORTED (the machine lacks functions
 * that its kind requires), EIO, ECORRUPT, EFENCED, EDEADLOCK. */
NH_API int nh_host_start_replica(struct nh_host *host, const struct nh_replica_config *config, struct nh_error *err);
/* Stops it; returns when its machine is closed. Errors: ENOTFOUND, EDEADLOCK. */
NH_API int nh_host_stop_replica(struct nh_host *host, uint64_t shard_id, struct nh_error *err);

/* Removes everything that is stored here of a replica that does not run: its log, its images, the directory of its machine. For
 * what was removed from its shard, or was given up; such an id never returns. What a crash left of an earlier call is removed
 * too. replica_deleted follows. Errors: EBUSY (it runs, starts or stops: stop it first), ENOTFOUND (nothing is here), EIO,
 * EFENCED, ECLOSED, EDEADLOCK. */
NH_API int nh_host_remove_data(struct nh_host *host, uint64_t shard_id, uint64_t replica_id, struct nh_error *err);

/* Loads a machine from a shared object by its path: absolute, a regular file owned by root or by us, not writable by group or
 * others. The object stays loaded for ever. Errors: EINVAL, EIO, EABI, with the reason. */
NH_API int nh_machine_load(const char *path, const struct nh_machine_ops **ret, struct nh_error *err);
/* The same for log stores and transports. */
NH_API int nh_logdb_load(const char *path, const struct nh_logdb_ops **ret, struct nh_error *err);
NH_API int nh_transport_load(const char *path, const struct nh_transport_ops **ret, struct nh_error *err);
/* What ships inside: "rocksdb", "memory"; "tcp", "loopback". NULL for another name. */
NH_API const struct nh_logdb_ops *nh_logdb_builtin(const char *name);
NH_API const struct nh_transport_ops *nh_transport_builtin(const char *name);
/* Directory in which this build installs machines. */
NH_API const char *nh_machine_dir(void);

/* ---- requests, asynchronous ---- */

/* Proposes `cmd` (copied) to a shard that has a replica here; a follower forwards it to the leader.
 * Errors: ENOTFOUND (no replica of this shard here), EINVAL (timeout), ETOOBIG, EBUSY (a limit: retry later),
 * EQUARANTINED, EFENCED, ECLOSED. */
NH_API int nh_propose(struct nh_host *host, uint64_t shard_id, const void *cmd, size_t size_bytes, uint32_t timeout_ms,
                      nh_completion_fn fn, void *ctx, struct nh_error *err);
/* The same for many proposals to one shard at once: all or none are accepted. Cheaper per proposal. ETOOBIG also of so many that
 * they could never be taken together: more than max_pending_per_replica, or 64 MiB with 48 bytes more for each. */
NH_API int nh_propose_batch(struct nh_host *host, uint64_t shard_id, const struct nh_proposal *proposals, size_t n,
                            uint32_t timeout_ms, struct nh_error *err);
/* Linearizable query (ReadIndex, thesis 6.4): the machine's lookup runs once the state is fresh; outcome.data are its bytes,
 * outcome.status its code. Errors as for nh_propose. */
NH_API int nh_query(struct nh_host *host, uint64_t shard_id, const void *query, size_t size_bytes, uint32_t timeout_ms,
                    nh_completion_fn fn, void *ctx, struct nh_error *err);
/* Completes when a following nh_lookup on this host is linearizable. */
NH_API int nh_read_index(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, nh_completion_fn fn, void *ctx,
                         struct nh_error *err);
/* Asks the local machine, now, on the calling thread. After nh_read_index: linearizable. Alone: a stale read, the state as
 * far as it is applied here. Errors: ENOTFOUND, ENOTREADY, EQUARANTINED, ECLOSED, EUNSUPPORTED (a witness), EDEADLOCK (from
 * inside a machine), or the machine's code and text. */
NH_API int nh_lookup(struct nh_host *host, uint64_t shard_id, const void *query, size_t size_bytes, struct nh_writer *out,
                     uint64_t *ret_value, struct nh_error *err);

/* ---- requests, synchronous ---- */

/* How a request ended, with its own copy of the bytes. Zero it first; release with nh_reply_deinit. */
struct nh_reply {
    struct nh_outcome outcome; /* outcome.data points to owned memory */
};
NH_API void nh_reply_deinit(struct nh_reply *r);
/* 0: ended, see ret->outcome.code. Negative: not accepted, or NH_EDEADLOCK. */
NH_API int nh_propose_sync(struct nh_host *host, uint64_t shard_id, const void *cmd, size_t size_bytes, uint32_t timeout_ms,
                           struct nh_reply *ret, struct nh_error *err);
NH_API int nh_query_sync(struct nh_host *host, uint64_t shard_id, const void *query, size_t size_bytes, uint32_t timeout_ms,
                         struct nh_reply *ret, struct nh_error *err);
NH_API int nh_read_index_sync(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, struct nh_reply *ret,
                              struct nh_error *err);

/* ---- sessions: proposals that are applied exactly once ----
 *
 * A proposal that ended as TIMEOUT or TERMINATED may have been applied; proposed again it may be applied twice. In a session it
 * is not: each proposal has a number (series_id), and all replicas remember what they answered to which number.
 *
 *     uint64_t client = nh_session_new_id(host);
 *     nh_open_session_sync(host, shard, client, timeout_ms, &reply, &err);        again until COMPLETED: it does no harm
 *     nh_propose_in_session_sync(host, shard, &(struct nh_session_step){client, 1, 0}, ...);   the same step again until it is
 *     nh_propose_in_session_sync(host, shard, &(struct nh_session_step){client, 2, 1}, ...);   COMPLETED or REJECTED
 *     nh_close_session_sync(host, shard, client, ...);
 *
 * It does not matter through which host, and whether the process that opened the session still lives: the ids may be stored.
 * A session belongs to one shard. One that is not closed is evicted when sessions_max others were used after it.
 *
 * REJECTED has a status here (raftio/request.h): NH_ESESSION, NH_EACKED or NH_EINVAL. */

struct nh_session_step {
    uint64_t client_id; /* of an open session */
    uint64_t series_id; /* number of this proposal, from 1; a repetition has the same one */
    uint64_t
        responded_to; /* up to here the client has its answers and will not ask again: they are forgotten. Below series_id. */
};
#define NH_SERIES_ID_MAX (UINT64_MAX - 2)
/* At most so many numbers may be under way or unacknowledged at once. */
#define NH_SESSION_WINDOW 256u

/* A random id, not 0. */
NH_API uint64_t nh_session_new_id(struct nh_host *host);
/* COMPLETED: it is open, perhaps since before; outcome.value is its id. Errors: as nh_propose. */
NH_API int nh_open_session(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms, nh_completion_fn fn,
                           void *ctx, struct nh_error *err);
NH_API int nh_open_session_sync(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms,
                                struct nh_reply *ret, struct nh_error *err);
/* COMPLETED: it is closed. REJECTED with NH_ESESSION: it was not open (any more). */
NH_API int nh_close_session(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms, nh_completion_fn fn,
                            void *ctx, struct nh_error *err);
NH_API int nh_close_session_sync(struct nh_host *host, uint64_t shard_id, uint64_t client_id, uint32_t timeout_ms,
                                 struct nh_reply *ret, struct nh_error *err);
/* COMPLETED: applied, now or before; the outcome is that of the first time, but for outcome.index. Errors: EINVAL (the step), and
 * as nh_propose. */
NH_API int nh_propose_in_session(struct nh_host *host, uint64_t shard_id, const struct nh_session_step *step, const void *cmd,
                                 size_t size_bytes, uint32_t timeout_ms, nh_completion_fn fn, void *ctx, struct nh_error *err);
NH_API int nh_propose_in_session_sync(struct nh_host *host, uint64_t shard_id, const struct nh_session_step *step,
                                      const void *cmd, size_t size_bytes, uint32_t timeout_ms, struct nh_reply *ret,
                                      struct nh_error *err);

/* ---- snapshots ---- */

/* Makes a snapshot of our replica now, and removes the log behind it but for compaction_overhead entries (NH_NEVER: as
 * configured). COMPLETED: it is durable, outcome.index is its index. REJECTED: none was made, outcome.data says why (nothing new,
 * one is being made, the machine cannot, no space). Errors: ENOTFOUND, EBUSY, EQUARANTINED, EFENCED, ECLOSED. */
NH_API int nh_request_snapshot(struct nh_host *host, uint64_t shard_id, uint64_t compaction_overhead, nh_completion_fn fn,
                               void *ctx, struct nh_error *err);
NH_API int nh_request_snapshot_sync(struct nh_host *host, uint64_t shard_id, uint64_t compaction_overhead, struct nh_reply *ret,
                                    struct nh_error *err);
/* Writes a whole, verifiable copy of our replica's state into a new directory in `directory`, which exists; outcome.data is the
 * path of the new one, outcome.index its index. On-disk machines write their data too. Nothing else changes. It is what
 * nh_import_snapshot takes. Its name has shard, replica and index: a directory may hold exports of many shards; what has the name
 * already stays, and the export is REJECTED. Errors: EINVAL (no such directory, or not an absolute path), and as above. */
NH_API int nh_export_snapshot(struct nh_host *host, uint64_t shard_id, const char *directory, nh_completion_fn fn, void *ctx,
                              struct nh_error *err);
NH_API int nh_export_snapshot_sync(struct nh_host *host, uint64_t shard_id, const char *directory, struct nh_reply *ret,
                                   struct nh_error *err);

/* ---- disaster: a shard without majority ---- */

/* Rebuilds our replica of a shard from an export, with other members. For a shard that has lost the majority of its voters for
 * good; whatever was committed and is not in the export is lost. Offline: no host may run on the data directory. How it is done:
 *
 *     1  stop all hosts that had replicas of the shard; nothing of the old shard may come back
 *     2  import one and the same export on the host of every new member, with the same list of members
 *     3  start them with `join`, and without members
 *
 * Members that are kept have their ids and addresses; all other former ones never return. A new member has a new id. The record
 * of the configuration keeps its config_change_id. */
struct nh_import {
    uint32_t struct_size;
    uint64_t host_id, deployment_id; /* as in nh_host_config, and the next ones */
    const char *data_dir, *wal_dir, *snapshot_dir, *address;
    const struct nh_logdb_ops *logdb;
    const char *logdb_options;
    const char *source; /* the directory that nh_export_snapshot made, or a copy of it */
    uint64_t shard_id;
    uint64_t replica_id;             /* ours: one of the members, at our address */
    const struct nh_member *members; /* all: voters and non-voting ones */
    uint32_t n_members;
    bool dry_run; /* checks everything and changes nothing; the log store is opened, if there is one */
    /* Hears line by line what is found and done, or would be; may be NULL. */
    void (*say)(void *ctx, const char *line);
    void *say_ctx;
};
#define NH_IMPORT_INIT                          \
    {                                           \
        .struct_size = sizeof(struct nh_import) \
    }
/* Errors: EINVAL (a mistake in what is asked: wrong shard, wrong members, an export that is older than what is here; the text
 * says how to mend it), ENOTFOUND and ECORRUPT (the export), ELOCKED (a host runs on the data directory), EMISMATCH (it is
 * another host's), ENOSPC, EIO. After EIO or a crash it may be done again. */
NH_API int nh_import_snapshot(const struct nh_import *import, struct nh_error *err);

/* ---- membership and leadership ---- */

/* Changes the membership of a shard, by any of its replicas (thesis 4). COMPLETED: applied, outcome.index is the new
 * config_change_id. REJECTED: committed, but it does not fit; nothing changed, outcome.data says why. DROPPED with
 * CONFIG_PENDING: the change before it is not applied yet, or the leader is new: retry. One replica at a time is enough for most:
 * add a non-voting member first, promote it when it has caught up (nh_get_peers). Several at once (CHANGE_MANY) go through a
 * joint configuration. A new replica is started on its host with `join`; a removed one stops by itself (replica_removed). Errors:
 * EINVAL (the change itself), and as for nh_propose. */
NH_API int nh_change_membership(struct nh_host *host, uint64_t shard_id, const struct nh_config_change *change,
                                uint32_t timeout_ms, nh_completion_fn fn, void *ctx, struct nh_error *err);
NH_API int nh_change_membership_sync(struct nh_host *host, uint64_t shard_id, const struct nh_config_change *change,
                                     uint32_t timeout_ms, struct nh_reply *ret, struct nh_error *err);
/* Gives the leadership to a voter (thesis 3.10), by any replica. COMPLETED: it leads. REJECTED: refused, outcome.data says why.
 * DROPPED: there is no leader that could be asked, at the moment. TIMEOUT after two election timeouts: it may still come about.
 * Meanwhile proposals are DROPPED (TRANSFERRING). Errors: ENOTFOUND, EBUSY, EQUARANTINED, EFENCED, ECLOSED. */
NH_API int nh_transfer_leader(struct nh_host *host, uint64_t shard_id, uint64_t target_replica_id, nh_completion_fn fn, void *ctx,
                              struct nh_error *err);
NH_API int nh_transfer_leader_sync(struct nh_host *host, uint64_t shard_id, uint64_t target_replica_id, struct nh_reply *ret,
                                   struct nh_error *err);
/* Gives away, all at once, the leadership of the shards that are led here, each to the active voter that is furthest; those that
 * are equally far share them. Before a host is closed, so that shards need not wait for an election timeout. Returns when each
 * transfer has ended, whether it came about or not (two election timeouts at most), or after timeout_ms. How many were led here,
 * and how many are now: shards without an active voter elsewhere. Blocks. Errors: EINVAL, EDEADLOCK. */
NH_API int nh_hand_over_leaders(struct nh_host *host, uint32_t timeout_ms, uint32_t *ret_n_led, uint32_t *ret_n_left,
                                struct nh_error *err);
/* Completes when everything proposed before it, here or on the leader, is applied here. It is an entry of the log. */
NH_API int nh_barrier(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, nh_completion_fn fn, void *ctx,
                      struct nh_error *err);
NH_API int nh_barrier_sync(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, struct nh_reply *ret,
                           struct nh_error *err);
/* COMPLETED: our replica led the shard at some moment after the call (outcome.index: its read index). REJECTED: it does not lead,
 * or not any more. Costs a round of heartbeats, or nothing under a lease. Errors as for nh_query. */
NH_API int nh_verify_leader(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, nh_completion_fn fn, void *ctx,
                            struct nh_error *err);
NH_API int nh_verify_leader_sync(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, struct nh_reply *ret,
                                 struct nh_error *err);
/* Our replica stands for election now, if it may (voter, nothing pending, no lease in its way). Errors as for a transfer. */
NH_API int nh_campaign(struct nh_host *host, uint64_t shard_id, struct nh_error *err);
/* Our replica votes for others at once: its leader is known to be gone. Ignored by a leader, and with lease reads. */
NH_API int nh_forget_leader(struct nh_host *host, uint64_t shard_id, struct nh_error *err);
/* How our replica, if it leads, sees the others: outcome.data is an array of struct nh_peer_info, empty if it does not lead. */
NH_API int nh_get_peers(struct nh_host *host, uint64_t shard_id, nh_completion_fn fn, void *ctx, struct nh_error *err);
NH_API int nh_get_peers_sync(struct nh_host *host, uint64_t shard_id, struct nh_reply *ret, struct nh_error *err);

/* ---- what is known ---- */

enum nh_role { NH_ROLE_FOLLOWER = 0, NH_ROLE_PRE_CANDIDATE = 1, NH_ROLE_CANDIDATE = 2, NH_ROLE_LEADER = 3 };

struct nh_shard_info {
    uint64_t shard_id;
    uint64_t replica_id; /* ours */
    uint64_t leader_id;  /* NH_NO_LEADER: none known. Local knowledge, may be old. */
    uint64_t term;
    uint32_t role; /* enum nh_role */
    uint64_t last_index, commit_index, applied_index;
    bool quiesced, ready, quarantined;
    uint32_t pending_requests;
    bool joint;          /* its configuration is joint */
    bool pending_config; /* a configuration change is in its log and not applied: another one has to wait */
    bool lease_held;     /* a leader that answers reads without asking, as of a moment ago */
    bool overloaded;     /* it applies too slowly; a follower has asked for no more entries */
    uint64_t transferee; /* a leader's: to whom it is giving the leadership; 0: nobody */
    uint64_t uncommitted_bytes;
    uint64_t first_index;    /* of its log: what is below is compacted */
    uint64_t snapshot_index; /* of its newest durable snapshot; 0: none */
    bool witness;            /* it votes, has no data, and answers no requests (NH_DROP_WITNESS) */
};
/* Errors: ENOTFOUND. */
NH_API int nh_get_shard_info(struct nh_host *host, uint64_t shard_id, struct nh_shard_info *ret, struct nh_error *err);
/* The leader as our replica knows it. Errors: ENOTFOUND. */
NH_API int nh_get_leader(struct nh_host *host, uint64_t shard_id, uint64_t *ret_leader_id, uint64_t *ret_term,
                         struct nh_error *err);
/* Membership as applied here; release with nh_membership_deinit. Linearizable after nh_read_index. Errors: ENOTFOUND,
 * EDEADLOCK (from inside a machine). */
NH_API int nh_get_membership(struct nh_host *host, uint64_t shard_id, struct nh_membership *ret, struct nh_error *err);

struct nh_host_info {
    uint64_t host_id;
    uint64_t deployment_id;
    uint64_t incarnation;                  /* starts of this data directory so far */
    char unique_id[NH_HOST_ID_TEXT_BYTES]; /* "nhid-..." made once per data directory */
    char address[NH_ADDRESS_BYTES];
    const char *logdb_name;
    const char *transport_name;
    uint32_t n_shards, n_leaders, n_leaderless, n_quarantined;
    uint64_t events_dropped;
    uint64_t proposals_applied, reads_answered, saves, synced_saves, saved_entries, messages_sent, messages_received;
    /* How much goes at once: passes of step workers, replicas' updates in saves, batches of messages sent, calls of machines. */
    uint64_t passes, saved_updates, batches_sent, apply_calls;
};
/* Counters are since the start of this process. */
NH_API void nh_get_host_info(struct nh_host *host, struct nh_host_info *ret);
/* Calls `each` for every replica of this host; the list may change meanwhile. */
NH_API void nh_each_shard(struct nh_host *host, void (*each)(void *ctx, const struct nh_shard_info *info), void *ctx);
/* Hash of the machine's state at *ret_applied; for tests and tools. Errors: ENOTFOUND, ENOTREADY, EQUARANTINED, ECLOSED,
 * EUNSUPPORTED (the machine has none, or a witness), EDEADLOCK. */
NH_API int nh_get_machine_hash(struct nh_host *host, uint64_t shard_id, uint64_t *ret_hash, uint64_t *ret_applied,
                               struct nh_error *err);

/* ---- logging ---- */

/* Where the host's log lines go; NULL: stderr as logfmt. Process-wide; before any host is opened. */
NH_API void nh_log_set(enum nh_log_level level,
                       void (*sink)(void *ctx, enum nh_log_level level, const char *component, const char *text), void *ctx);

NH_END_DECLS
#endif
