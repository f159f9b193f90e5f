/* nodehost/config.h - what a host and a replica can be told.
 *
 * Start from NH_HOST_CONFIG_INIT / NH_REPLICA_CONFIG_INIT, which set struct_size and the defaults named below; 0 or NULL
 * means the default everywhere. Everything is checked together by nh_host_open and nh_host_start_replica; a refusal names
 * the member and the remedy. All pointers are borrowed for the call unless it says otherwise.
 */
#ifndef NH_NODEHOST_CONFIG_H
#define NH_NODEHOST_CONFIG_H

#include "raftio/listener.h"
#include "raftio/logdb.h"
#include "raftio/machine.h"
#include "raftio/registry.h"
#include "raftio/transport.h"

NH_BEGIN_DECLS

struct nh_host_config {
    uint32_t struct_size;
    uint64_t host_id;                 /* chosen by the user, not 0; written to the data directory and checked at every start */
    uint64_t deployment_id;           /* hosts of other deployments are refused; 0: 1 */
    const char *data_dir;             /* made with mode 0700 if absent, its parents are not; locked against a second process */
    const char *wal_dir;              /* for the log store's write-ahead log, made and checked like data_dir; NULL: inside it */
    const char *address;              /* "host:port": what the other hosts call us; our identity in memberships */
    const char *listen_address;       /* NULL: address */
    uint32_t rtt_ms;                  /* length of a tick; the same on all hosts; 0: 100 */
    uint32_t step_workers;            /* 0: number of cores, at most 16 */
    uint32_t apply_workers;           /* 0: as step_workers */
    const struct nh_logdb_ops *logdb; /* NULL: RocksDB. Static storage. Its name: at most 63 printable characters, no spaces. */
    const char *logdb_options;        /* plugin-specific text */
    const struct nh_transport_ops *transport;               /* NULL: TCP. Static storage. */
    uint64_t send_queue_bytes;                              /* per peer host; 0: the transport's default */
    const struct nh_registry_ops *registry;                 /* NULL: nh_registry_static(). Static storage. */
    const struct nh_raft_event_listener *raft_listener;     /* copied */
    const struct nh_system_event_listener *system_listener; /* copied */
    uint32_t max_pending_per_replica;                       /* 0: 65,536 */
    uint32_t event_queue_max;                               /* events waiting for a slow listener; 0: 65,536 */
    const char *snapshot_dir;           /* for images, ours alone, made with mode 0700; NULL: <data_dir>/snapshots */
    uint32_t snapshot_workers;          /* threads that save and recover machines, 1 .. 16; 0: 2 */
    uint64_t snapshot_send_bytes_per_s; /* of all images together that are sent; 0: no limit */
    /* Images sent at once, and received at once, 1 .. 1,024; 0: 8. Sent are no more than the transport has connections for (TCP:
     * 64); the others wait for their turn. */
    uint32_t snapshot_streams_max;
    /* A thread more per step worker, for saves. Without, a step worker waits for its own saves: fewer hand-overs, so shorter
     * latencies. With, heartbeats go on while the disk stalls, so its leaders stay. */
    bool log_workers;
    /* A number of what else the program needs to be the same on all hosts, say of how it spreads keys over shards; hosts with
     * different ones refuse each other's connections. 0: nothing, which goes with any. */
    uint64_t data_layout;
    /* Threads sleep at once when they wait. Without, a transport's thread that waits for the next small message, and who waits
     * for a small save of one replica, look for it again and again for up to 0.3 ms, if it usually came within that: latencies of
     * few clients are a third to nearly a half shorter, a write of theirs takes about twice the processor time, and each such
     * thread may keep a core busy that nobody else wants. Set it where processor time is paid for or limited. */
    bool no_polling;
};
#define NH_HOST_CONFIG_INIT                          \
    {                                                \
        .struct_size = sizeof(struct nh_host_config) \
    }

struct nh_replica_config {
    uint32_t struct_size;
    uint64_t shard_id;
    uint64_t replica_id;
    const struct nh_machine_ops *machine; /* static storage; from nh_machine_load or the embedding program */
    const struct nh_member *members;      /* a new shard: all initial members, the same list on each; else NULL */
    uint32_t n_members;
    bool join;              /* a new replica of an existing shard: `members` empty */
    uint32_t election_rtt;  /* ticks; > 2 * heartbeat_rtt; 0: 10 */
    uint32_t heartbeat_rtt; /* ticks; 0: 1 */
    bool check_quorum;
    bool pre_vote;
    bool quiesce;
    /* Reads by lease: a leader answers without asking the others, as long as their clocks do not differ in speed by more than
     * lease_drift_percent (0: 10). Needs check_quorum, and the same election_rtt and rtt_ms on all members that have it on.
     * It is turned on member by member; a member that turns it off stays stopped for an election timeout. Not for hosts that may
     * be suspended and resumed: their clocks stand still meanwhile, and others may lead by then. Off: ReadIndex, no clocks. */
    bool lease_reads;
    uint32_t lease_drift_percent;
    uint32_t priority;              /* of candidates with equal logs the lower one yields; 0: lowest */
    uint64_t max_uncommitted_bytes; /* payload that a leader has not committed; more is DROPPED (OVERLOADED); 0: 64 MiB */
    /* Entries in memory that are committed and not applied. Above, a follower asks its leader to wait until half of it is
     * applied, and a leader drops proposals (OVERLOADED). 0: 64 MiB. */
    uint64_t max_unapplied_bytes;
    /* A snapshot is made, and the log behind it removed, after so many entries or so many bytes of entries since the last one,
     * whichever comes first; up to a quarter earlier or later, so that shards do not all come at once. NH_NEVER: not by itself.
     */
    uint64_t snapshot_entries;    /* 0: 100,000 */
    uint64_t snapshot_bytes;      /* 0: 256 MiB */
    uint64_t compaction_overhead; /* entries that stay in the log behind a snapshot, for followers that lag; 0: 5,000 */
    uint32_t snapshots_kept;      /* images, the newest among them, 1 .. 64; 0: 1 */
    bool compress_snapshots;      /* zstd */
    bool pin_machine;             /* refuse another shared object than the one that ran here last, even of the same version */
    /* Sessions that the shard may hold: the number of the replica through which one is opened counts, so give all the same. The
     * least recently used ones above it are evicted. 1 .. 65,536; 0: 4,096. */
    uint32_t sessions_max;
};
#define NH_NEVER UINT64_MAX
#define NH_REPLICA_CONFIG_INIT                                                                                         \
    {                                                                                                                  \
        .struct_size = sizeof(struct nh_replica_config), .election_rtt = 10, .heartbeat_rtt = 1, .check_quorum = true, \
        .pre_vote = true                                                                                               \
    }

NH_END_DECLS
#endif
