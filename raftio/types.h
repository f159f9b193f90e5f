/* raftio/types.h - the nouns of the system: replicas, hard state, membership, messages, snapshots, updates.
 *
 * These plain structs are what the core produces, what an ILogDB stores, what an ITransport carries. They own nothing
 * unless a field says so. Entries travel as runs of encoded records (raftio/entry.h); everything else has its
 * protobuf form in raftio/raftpb.proto.
 *
 * The words are those of docs/ARCHITECTURE.md: a *host* is one process, a *shard* is one Raft group, a *replica* is a
 * shard's member on one host.
 */
#ifndef NH_RAFTIO_TYPES_H
#define NH_RAFTIO_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftio/entry.h"
#include "raftio/status.h"

NH_BEGIN_DECLS

/* Ids are chosen by the user, are never 0 and never reused. The low 32 bits of the replica ids of one shard must
 * differ (they tag the origin of an entry, raftio/entry.h). */
#define NH_NO_LEADER  0u
#define NH_NO_REPLICA 0u
#define NH_NO_SHARD   0u

/* Longest "host:port" of a member, with its final NUL. */
#define NH_ADDRESS_BYTES 128u
/* Most members of one shard, all kinds together. */
#define NH_MEMBERS_MAX 64u

/* Names one replica: a member of shard `shard_id`. */
struct nh_replica_info {
    uint64_t shard_id;
    uint64_t replica_id;
};

/* The hard state of paper figure 2 (section 5.2). `commit` is a hint that may lag: it can be recomputed. */
struct nh_state {
    uint64_t term;
    uint64_t vote; /* replica voted for in `term`, or NH_NO_REPLICA */
    uint64_t commit;
};

enum nh_member_kind {
    NH_MEMBER_VOTER = 0,
    NH_MEMBER_NON_VOTING = 1,
    NH_MEMBER_WITNESS = 2, /* votes and acknowledges, stores no payloads, never leads or reads */
    NH_MEMBER_LEAVING = 3, /* joint only: a member of the outgoing half alone, removed when the joint configuration is left */
    NH_MEMBER_LEAVING_WITNESS = 4, /* the same, and a witness until then */
};

struct nh_member {
    uint64_t replica_id;
    uint32_t kind; /* enum nh_member_kind: in the incoming half, if joint */
    char address[NH_ADDRESS_BYTES];
    bool outgoing; /* joint only: votes in the outgoing half */
};

/* Who belongs to a shard. Members are sorted by replica id; `removed` holds ids that may never return.
 *
 * Joint (thesis 4.3): a decision needs a majority of each half. Incoming: voters and witnesses by their kind. Outgoing: those
 * that voted before the change. A demoted voter is NON_VOTING and outgoing until the joint configuration is left. */
struct nh_membership {
    uint64_t config_change_id; /* log index of the last accepted change; 0: only the bootstrap record so far */
    bool joint;
    bool auto_leave; /* joint only: the leader proposes to leave it as soon as it is applied */
    uint32_t n_members;
    uint32_t n_removed;
    struct nh_member *members;
    uint64_t *removed;
};

static inline bool nh_kind_is_witness(uint32_t kind)
{
    return kind == NH_MEMBER_WITNESS || kind == NH_MEMBER_LEAVING_WITNESS;
}
static inline bool nh_kind_is_leaving(uint32_t kind)
{
    return kind == NH_MEMBER_LEAVING || kind == NH_MEMBER_LEAVING_WITNESS;
}
/* Whose vote counts, in one half or both. */
static inline bool nh_member_votes(const struct nh_member *m)
{
    return m->kind == NH_MEMBER_VOTER || m->kind == NH_MEMBER_WITNESS || m->outgoing;
}

enum nh_config_change_type {
    NH_CONFIG_INITIALIZE = 0,     /* first entry of a shard's log */
    NH_CONFIG_ADD_MEMBER = 1,     /* adds `member`, or gives a member another kind: promotes, demotes */
    NH_CONFIG_REMOVE_MEMBER = 2,  /* for ever: its id never returns */
    NH_CONFIG_UPDATE_ADDRESS = 3, /* of a member */
    NH_CONFIG_CHANGE_MANY = 4,    /* `changes`, all or none; joint unless it is a single one and the transition is AUTO */
    NH_CONFIG_LEAVE_JOINT = 5,
};

enum nh_config_transition {
    NH_TRANSITION_AUTO = 0,     /* joint if there are several changes; the leader leaves it by itself */
    NH_TRANSITION_IMPLICIT = 1, /* always joint; the leader leaves it by itself */
    NH_TRANSITION_EXPLICIT = 2, /* always joint; left by NH_CONFIG_LEAVE_JOINT */
};

struct nh_member_change {
    uint32_t type; /* ADD_MEMBER, REMOVE_MEMBER, UPDATE_ADDRESS */
    struct nh_member member;
};

/* Payload of an NH_ENTRY_CONFIG_CHANGE entry. */
struct nh_config_change {
    uint64_t config_change_id;        /* 0, or that of the membership it was made for: rejected if there is a newer one */
    uint32_t type;                    /* enum nh_config_change_type */
    struct nh_member member;          /* ADD, REMOVE (id only), UPDATE */
    struct nh_membership initial;     /* INITIALIZE */
    uint32_t transition;              /* CHANGE_MANY: enum nh_config_transition */
    uint32_t n_changes;               /* CHANGE_MANY: 1 .. NH_MEMBERS_MAX */
    struct nh_member_change *changes; /* owned by the struct if it was decoded */
};

#define NH_MACHINE_KIND_UNKNOWN UINT32_MAX

/* What a host writes about a replica before anything else; checked at every restart. */
struct nh_bootstrap {
    bool join;                    /* true: started to join an existing shard, `initial` is empty */
    char machine_type[64];        /* name of the machine, "kv"; empty: not known (an imported replica before its first start) */
    uint32_t machine_kind;        /* enum nh_machine_kind, or NH_MACHINE_KIND_UNKNOWN (imported, before its first start) */
    char machine_version[64];     /* of its semantics; empty: not known */
    uint64_t machine_hash;        /* of its shared object; 0: not known, or linked into the program */
    struct nh_membership initial; /* the same on every initial member */
};

/* The record of a snapshot; the image itself is a file (engine/rsm/image.h). */
struct nh_snapshot {
    uint64_t shard_id;
    uint64_t index; /* last log index that the image contains; 0: no snapshot */
    uint64_t term;
    uint64_t file_size_bytes; /* of the image; 0: not known yet (a stream) */
    uint64_t on_disk_index;   /* of an on-disk machine: the last entry that was in it when the image was made */
    uint32_t checksum;        /* reserved, 0: the image carries its own digest */
    bool dummy;               /* without the machine's data: it lives in the machine itself (on-disk) */
    bool witness;             /* metadata only: for a witness, which has no image */
    bool imported;            /* rebuilt from an export with a new membership */
    char *file_path;          /* owned by whoever owns the struct; NULL: none */
    struct nh_membership membership;
};

/* A piece of a snapshot on the wire. */
struct nh_chunk {
    uint64_t shard_id;
    uint64_t replica_id; /* receiver */
    uint64_t from;       /* sender */
    uint64_t chunk_id;   /* 0, 1, 2, ... */
    uint64_t chunk_count;
    uint64_t index;
    uint64_t term;
    uint64_t file_size_bytes;
    uint64_t deployment_id;
    const uint8_t *data;
    size_t size_bytes;
};

/* The message types of dragonboat's set, plus PROPOSE_RESP. Numbers are part of the wire format.
 * L: local only, never accepted from the network. */
enum nh_message_type {
    NH_MSG_LOCAL_TICK = 0,          /* L */
    NH_MSG_ELECTION = 1,            /* L */
    NH_MSG_LEADER_HEARTBEAT = 2,    /* L */
    NH_MSG_CONFIG_CHANGE_EVENT = 3, /* L */
    NH_MSG_NOOP = 4,                /* "your term is old": answers a stale leader so that it gives way */
    NH_MSG_PING = 5,
    NH_MSG_PONG = 6,
    NH_MSG_PROPOSE = 7,             /* follower -> leader: forwarded proposals; hint = first key, hint_high = count */
    NH_MSG_SNAPSHOT_STATUS = 8,     /* L */
    NH_MSG_UNREACHABLE = 9,         /* L */
    NH_MSG_CHECK_QUORUM = 10,       /* L */
    NH_MSG_BATCHED_READ_INDEX = 11, /* L */
    NH_MSG_REPLICATE = 12,          /* log_index, log_term = entry before `entries`; commit */
    NH_MSG_REPLICATE_RESP = 13,     /* log_index = acknowledged, or (reject) the refused anchor; then hint, log_term = hint of the
                                       follower: last index whose term <= the anchor's, and its term;
                                       commit = the follower's */
    NH_MSG_REQUEST_VOTE = 14, /* log_index, log_term = candidate's last entry; hint = 1 for a transfer; hint_high = priority */
    NH_MSG_REQUEST_VOTE_RESP = 15, /* reject: commit, log_term = what the voter knows to be committed */
    NH_MSG_INSTALL_SNAPSHOT = 16,  /* snapshot; commit. Answered by REPLICATE_RESP, or NOOP if the term is old */
    NH_MSG_HEARTBEAT = 17,         /* commit = min(match, commit); hint = number of the newest round of reads, 0: none */
    NH_MSG_HEARTBEAT_RESP = 18,    /* hint echoed, hint_high by who keeps leases; commit = the follower's */
    NH_MSG_READ_INDEX = 19,        /* hint, hint_high = context */
    NH_MSG_READ_INDEX_RESP = 20,   /* log_index = read index; its own context echoed; reject: dropped */
    NH_MSG_QUIESCE = 21,           /* leader -> all: log_index, log_term = last, commit: stop your timers if you are there too */
    NH_MSG_SNAPSHOT_RECEIVED = 22, /* receiver -> sender of a stream: log_index = its index, hint = next chunk wanted, hint_high =
                                      enum snapshot_answer (engine/snapshot_stream.h), reject: go back to it; not for the core */
    NH_MSG_LEADER_TRANSFER =
        23,                  /* to the leader: hint = target, hint_high = key of the request; from it: reject, hint = reason */
    NH_MSG_TIMEOUT_NOW = 24, /* leader -> target of a transfer: stand now */
    NH_MSG_RATE_LIMIT = 25,  /* follower -> leader: hint = 1: send me no entries, too much is unapplied; 0: go on */
    NH_MSG_REQUEST_PRE_VOTE = 26,
    NH_MSG_REQUEST_PRE_VOTE_RESP = 27, /* as above; term = the one asked for, or (reject) the own */
    NH_MSG_LOG_QUERY = 28,             /* L */
    NH_MSG_PROPOSE_RESP = 29,          /* leader -> forwarder: reject = the batch of keys [hint, hint + hint_high) was dropped;
                                          log_index = why */
    NH_MSG_REMOVED = 30,               /* "you were removed": answers a replica that does not know it yet;
                                          hint = 1: and those who stay can do without you */
};
#define NH_MSG_TYPE_COUNT 31u

/* True for a type that only a host may give to its own replicas (or a number that no type has). A transport refuses
 * a batch that contains one. */
static inline bool nh_message_type_is_local(uint32_t type)
{
    const uint32_t local = 1u << NH_MSG_LOCAL_TICK | 1u << NH_MSG_ELECTION | 1u << NH_MSG_LEADER_HEARTBEAT |
                           1u << NH_MSG_CONFIG_CHANGE_EVENT | 1u << NH_MSG_SNAPSHOT_STATUS | 1u << NH_MSG_UNREACHABLE |
                           1u << NH_MSG_CHECK_QUORUM | 1u << NH_MSG_BATCHED_READ_INDEX | 1u << NH_MSG_LOG_QUERY;

    return type >= NH_MSG_TYPE_COUNT || (local >> type & 1u);
}

/* One protocol message. `entries` are consecutive runs; the message holds one reference on each run's block.
 * Fields that a type does not use are 0. */
struct nh_message {
    uint32_t type; /* enum nh_message_type */
    bool reject;
    uint64_t shard_id;
    uint64_t to;
    uint64_t from;
    uint64_t term;
    uint64_t log_term;
    uint64_t log_index;
    uint64_t commit;
    uint64_t hint;
    uint64_t hint_high;
    uint32_t n_runs;
    struct nh_run *runs;          /* array owned by the message */
    struct nh_snapshot *snapshot; /* NULL unless INSTALL_SNAPSHOT */
};

/* All messages of one host to another that are ready together. */
struct nh_message_batch {
    uint64_t deployment_id;
    const char *source_address; /* of the sending host */
    uint32_t n_messages;
    struct nh_message *messages;
};

/* What one replica wants saved: the unit of nh_logdb_ops.save_raft_state. All pointers are borrowed for the call. */
struct nh_update {
    uint64_t shard_id;
    uint64_t replica_id;
    bool has_state; /* `state` differs from what was saved before */
    bool must_sync; /* entries, term or vote changed: durable on return */
    struct nh_state state;
    const struct nh_run *runs; /* consecutive; truncates everything above their last index (and what they overlap) */
    uint32_t n_runs;
    const struct nh_snapshot *snapshot; /* NULL: none. Stored before the entries. */
};

/* What a log store knows of a replica at restart. */
struct nh_raft_state {
    struct nh_state state;
    uint64_t first_index; /* of the log; last + 1 when it is empty */
    uint64_t last_index;  /* 0: nothing was ever saved */
};

/* How a leader sees another member. */
enum nh_peer_state { NH_PEER_PROBE = 0, NH_PEER_REPLICATE = 1, NH_PEER_SNAPSHOT = 2 };
struct nh_peer_info {
    uint64_t replica_id;
    enum nh_member_kind kind;
    enum nh_peer_state state; /* finding where the logs agree; streaming; waiting for a snapshot to arrive */
    bool outgoing;            /* votes in the outgoing half of a joint configuration */
    bool active;              /* heard from lately */
    bool paused;              /* nothing is sent until it answers */
    bool overloaded;          /* it asked for no entries */
    uint64_t match_index;     /* durable there */
    uint64_t next_index;      /* to be sent next */
    uint32_t inflight_messages;
    uint64_t inflight_bytes;
};

/* Deep copies and releases. A released or zeroed struct may be released again. */
NH_API void nh_membership_copy(struct nh_membership *to, const struct nh_membership *from);
NH_API void nh_membership_deinit(struct nh_membership *m);
NH_API const struct nh_member *nh_membership_find(const struct nh_membership *m, uint64_t replica_id);
NH_API void nh_config_change_deinit(struct nh_config_change *c);
NH_API bool nh_membership_equal(const struct nh_membership *a, const struct nh_membership *b);
NH_API void nh_bootstrap_deinit(struct nh_bootstrap *b);
NH_API void nh_snapshot_copy(struct nh_snapshot *to, const struct nh_snapshot *from);
NH_API void nh_snapshot_deinit(struct nh_snapshot *s);
/* Drops the message's references and arrays; the struct itself belongs to the caller and is zeroed. */
NH_API void nh_message_deinit(struct nh_message *m);
NH_API const char *nh_message_type_name(uint32_t type);

NH_END_DECLS
#endif
