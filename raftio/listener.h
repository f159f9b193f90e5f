/* raftio/listener.h - events that a host tells its user about.
 *
 * Two tables of callbacks, as in dragonboat: raft events (leader changes) and system events. Any callback may be NULL;
 * struct_size is sizeof the struct, and a host refuses a table without it.
 *
 * Threads. All callbacks of a host are called one after another from one event thread, in the order in which the things
 * happened per shard. A slow listener delays later events, never a worker: events wait in a bounded queue, and when it is
 * full the newest are dropped and counted (`nh_host_info.events_dropped`). A callback may call any asynchronous function
 * of the host, but no blocking one (NH_EDEADLOCK). Pointers are borrowed for the call. None is called after nh_host_close
 * has returned.
 */
#ifndef NH_RAFTIO_LISTENER_H
#define NH_RAFTIO_LISTENER_H

#include "raftio/types.h"

NH_BEGIN_DECLS

struct nh_leader_info {
    uint64_t shard_id;
    uint64_t replica_id; /* our replica */
    uint64_t term;
    uint64_t leader_id; /* NH_NO_LEADER: none known */
    uint32_t role;      /* of our replica: 0 follower, 1 pre-candidate, 2 candidate, 3 leader */
};

struct nh_connection_info {
    const char *address;
    bool snapshot_connection;
};

struct nh_snapshot_info {
    uint64_t shard_id;
    uint64_t replica_id;
    uint64_t from;
    uint64_t index;
};

struct nh_entry_info {
    uint64_t shard_id;
    uint64_t replica_id;
    uint64_t index;
};

struct nh_quarantine_info {
    uint64_t shard_id;
    uint64_t replica_id;
    const char *reason; /* and what helps */
};

struct nh_raft_event_listener {
    uint32_t struct_size;
    void *ctx;
    /* The leader, the term or our role in a shard changed, as seen by our replica. Only on a change. */
    void (*leader_updated)(void *ctx, const struct nh_leader_info *info);
};

struct nh_system_event_listener {
    uint32_t struct_size;
    void *ctx;
    void (*host_shutting_down)(void *ctx);
    void (*replica_ready)(void *ctx, const struct nh_replica_info *info);    /* started and its log replayed */
    void (*replica_unloaded)(void *ctx, const struct nh_replica_info *info); /* stopped, all its memory released */
    void (*replica_deleted)(void *ctx, const struct nh_replica_info *info);
    void (*replica_quarantined)(void *ctx, const struct nh_quarantine_info *info);
    void (*membership_changed)(void *ctx, const struct nh_replica_info *info);
    void (*connection_established)(void *ctx, const struct nh_connection_info *info);
    void (*connection_failed)(void *ctx, const struct nh_connection_info *info);
    void (*send_snapshot_started)(void *ctx, const struct nh_snapshot_info *info);
    void (*send_snapshot_completed)(void *ctx, const struct nh_snapshot_info *info);
    void (*send_snapshot_aborted)(void *ctx, const struct nh_snapshot_info *info);
    void (*snapshot_received)(void *ctx, const struct nh_snapshot_info *info);
    void (*snapshot_recovered)(void *ctx, const struct nh_snapshot_info *info);
    void (*snapshot_created)(void *ctx, const struct nh_snapshot_info *info);
    void (*snapshot_compacted)(void *ctx, const struct nh_snapshot_info *info);
    void (*log_compacted)(void *ctx, const struct nh_entry_info *info);
    void (*logdb_compacted)(void *ctx, const struct nh_entry_info *info);
    void (*logdb_fenced)(void *ctx, const char *reason); /* an I/O failure stopped every write of this host */
    /* Our replica was removed from its shard, and stops. Its data stays until somebody deletes it. */
    void (*replica_removed)(void *ctx, const struct nh_replica_info *info);
    /* Our replica applies too slowly (max_unapplied_bytes); or it has caught up. */
    void (*replica_overloaded)(void *ctx, const struct nh_replica_info *info);
    void (*replica_relieved)(void *ctx, const struct nh_replica_info *info);
};

NH_END_DECLS
#endif
