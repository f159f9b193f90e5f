/* cmd/nodehostd/config.h - the daemon's configuration file.
 *
 * YAML, read through libcyaml against a schema: unknown keys and wrong types are errors. What the schema cannot say (ranges,
 * addresses, references between sections) is checked afterwards. Every error names file and line, and what to do.
 * A number is written in decimal digits, without unit, sign, separators or leading zeros; 0 is none but where it is the default.
 *
 *     key                         default   meaning
 *     host.id                               ours; one of peers
 *     host.data_dir                         directory, made if absent; its parent must be there, as for those below
 *     host.wal_dir                inside    for the log store's write-ahead log
 *     host.deployment_id          1         hosts of other deployments are refused
 *     raft.listen                           "host:port"; where other hosts reach us, and our name in the records of shards
 *     raft.bind                   listen    "host:port" to listen at, if it is another one: "0.0.0.0:7101"
 *     raft.rtt_ms                 100       length of a tick, 1 .. 10,000
 *     raft.step_workers           cores     1 .. 64, also apply_workers
 *     raft.log_workers            false     saves on threads of their own: nodehost/config.h
 *     raft.polling                true      false: threads that wait sleep at once: nodehost/config.h, no_polling
 *     redis.listen                          "host:port"; where clients reach us
 *     redis.bind                  listen    as raft.bind
 *     redis.timeout_ms            5000      how long a command may take, 1 .. 3,600,000
 *     redis.max_clients           10000     1 .. 1,000,000
 *     snapshots.dir               inside    absolute; for images
 *     snapshots.export_dir        none      absolute, made if absent; below it NH.SNAPSHOT ... EXPORT may write
 *     snapshots.workers           2         threads that save and recover machines, 1 .. 16
 *     snapshots.send_bytes_per_s  no limit  of all images together that are sent
 *     snapshots.streams_max       8         images sent at once (64 at most), and received at once, 1 .. 1024
 *     peers[].id, .raft, .redis             every host of the deployment, ourselves too
 *     shards[].first, .count                shard ids first .. first + count - 1
 *     shards[].machine                      name of a machine: <plugin-dir>/<name>.so. With the Redis commands: kv
 *                                           (in memory), kv-disk
 *     shards[].replicas                     ids of the hosts that have a replica; the replica's id is the host's
 *     shards[].election_rtt       10        ticks; more than twice heartbeat_rtt
 *     shards[].heartbeat_rtt      1         ticks
 *     shards[].check_quorum, .pre_vote      true
 *     shards[].quiesce            false
 *     shards[].join               false     our replica joins a shard that exists (NH.SHARD ADD); not one of its first members
 *     shards[].lease_reads        false     GET without asking the others; needs check_quorum; with it election_rtt and
 *                                           rtt_ms are the same on all hosts. How to turn it off: README.md
 *     shards[].priority           0         of candidates with equal logs the lower one yields
 *     shards[].automatic_snapshots true     false: only by NH.SNAPSHOT, and when another replica needs one
 *     shards[].snapshot_entries   100000    a snapshot after so many entries since the last one,
 *     shards[].snapshot_bytes     268435456 or after so many bytes of them (256 MiB)
 *     shards[].compaction_overhead 5000     entries that stay in the log behind a snapshot
 *     shards[].snapshots_kept     1         images, 1 .. 64
 *     shards[].compress_snapshots false     zstd
 *     shards[].pin_machine        false     refuse another shared object than the one that ran last, even of the same version
 *     shards[].sessions_max       4096      sessions and tokens (NH.SESSION, NH.ONCE) that are remembered, 1 .. 65536
 *
 * Threads: one. Errors: EINVAL (the text begins with "FILE:LINE: "), EIO (the file cannot be read).
 */
#ifndef NH_CMD_NODEHOSTD_CONFIG_H
#define NH_CMD_NODEHOSTD_CONFIG_H

#include "nodehost/nodehost.h"

#define CONFIG_FILE_BYTES_MAX (1u << 20)
#define CONFIG_PEERS_MAX      64u
#define CONFIG_SHARDS_MAX     1048576u /* all sections together */
#define CONFIG_SECTIONS_MAX   4096u
#define CONFIG_MACHINE_BYTES  32u
#define CONFIG_TIMEOUT_MS_MAX 3600000u
#define CONFIG_CLIENTS_MAX    1000000u

/* A yes or no that may be left out. libcyaml's own booleans take any word for a yes. */
enum config_switch { CONFIG_UNSET = 0, CONFIG_ON, CONFIG_OFF };

struct config_host {
    uint64_t id, deployment_id;
    char *data_dir, *wal_dir;
};
struct config_raft {
    char *listen, *bind;
    uint32_t rtt_ms, step_workers, apply_workers;
    enum config_switch log_workers, polling;
};
struct config_redis {
    char *listen, *bind;
    uint32_t timeout_ms, max_clients;
};
struct config_snapshots {
    char *dir, *export_dir;
    uint32_t workers, streams_max;
    uint64_t send_bytes_per_s;
};
struct config_peer {
    uint64_t id;
    char *raft, *redis;
};

struct config_shards {
    uint64_t first, count;
    char *machine;
    uint64_t *replicas;
    unsigned replicas_count;
    uint32_t election_rtt, heartbeat_rtt;
    enum config_switch check_quorum, pre_vote, quiesce, join, lease_reads, automatic_snapshots, compress_snapshots, pin_machine;
    uint32_t priority;
    uint64_t snapshot_entries, snapshot_bytes, compaction_overhead;
    uint32_t snapshots_kept, sessions_max;
};
struct config {
    struct config_host host;
    struct config_raft raft;
    struct config_redis redis;
    struct config_snapshots snapshots;
    struct config_peer *peers;
    unsigned peers_count;
    struct config_shards *shards;
    unsigned shards_count;
};

/* *ret is released by config_free. */
int config_load(const char *path, struct config **ret, struct nh_error *err);
/* For --check-config: loads it, and looks whether the directories it names are there on this machine, or their parents, in which
 * they would be made. A start does not ask so much: it may do without the one for exports. */
int config_examine(const char *path, struct nh_error *err);
/* config_load from memory; `path` is for error texts. */
int config_parse(const char *path, const char *text, size_t size_bytes, struct config **ret, struct nh_error *err);
void config_free(struct config *c); /* takes NULL */
const struct config_peer *config_find_peer(const struct config *c, uint64_t id);
/* The section that a shard belongs to; NULL: none. */
const struct config_shards *config_find_section(const struct config *c, uint64_t shard_id);
static inline bool config_is_on(enum config_switch s, bool unset)
{
    return s == CONFIG_UNSET ? unset : s == CONFIG_ON;
}
/* Its machine takes the Redis commands on keys. */
bool config_is_kv(const struct config_shards *s);
bool config_has_replica(const struct config_shards *s, uint64_t host_id);
/* Splits "host:port" or "[v6]:port"; false if it is not one. `host` has NH_ADDRESS_BYTES bytes. */
bool config_split_address(const char *address, char *host, uint16_t *ret_port);
/* An address that is to be stored as that of a shard's member. Refused with EINVAL: what is none, what means every interface of
 * whoever reads it, and another one than that of the peer with this id, if there is one. */
int config_check_member(const struct config *c, uint64_t id, const char *address, struct nh_error *err);

#endif
