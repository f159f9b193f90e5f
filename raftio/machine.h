/* raftio/machine.h - the state machine contract. Authors include it as nodehost/statemachine.h.
 *
 * A machine is a table of functions that a host applies committed entries to. It is compiled to a shared object that
 * exports `nh_machine_plugin` (raftio/plugin.h), or given to nh_host_start_replica by an embedding program. All replicas
 * of a shard apply the same entries in the same order; `update` must therefore be a function of the machine's state and
 * the entries alone: no clock, no randomness, no addresses, no iteration order that depends on them.
 *
 * Three kinds, as in dragonboat. This version runs NH_MACHINE_REGULAR; the members for the others are part of the table
 * so that it need not change, and a table of another kind is refused with NH_EUNSUPPORTED.
 *
 * Threads, per instance (one instance serves one replica):
 *   regular:    update, recover and close are exclusive; lookups may run beside each other, never beside an update.
 *   concurrent: lookup and save_snapshot run beside update.
 *   on-disk:    as concurrent; open tells the last applied index; sync makes everything durable.
 *
 * Errors. A negative return of update, open or recover puts this replica in quarantine: it stops voting and applying, the
 * host reports why, all other replicas live on. An error that belongs to a command ("wrong type") is a *result*, not a
 * failure. A machine must not call back into its host from its functions (NH_EDEADLOCK).
 */
#ifndef NH_RAFTIO_MACHINE_H
#define NH_RAFTIO_MACHINE_H

#include "raftio/plugin.h"
#include "raftio/status.h"

NH_BEGIN_DECLS

#define NH_MACHINE_ABI 1u

enum nh_machine_kind {
    NH_MACHINE_REGULAR = 0,
    NH_MACHINE_CONCURRENT = 1,
    NH_MACHINE_ON_DISK = 2,
};

/* The answer to one entry: a number and bytes. `data` belongs to the machine and stays valid until its next update or
 * close; the host copies what it needs before that. */
struct nh_result {
    uint64_t value;
    const void *data;
    size_t size_bytes;
};

/* One committed entry, in index order, each index at most once per instance. `cmd` is borrowed for the call. */
struct nh_entry {
    uint64_t index;
    const void *cmd;
    size_t size_bytes;
    struct nh_result result; /* out; zeroed before the call */
};

/* Where lookup and save_snapshot put bytes. Returns 0 or a negative code, on which the caller stops and which it returns. */
struct nh_writer {
    int (*write)(void *ctx, const void *data, size_t size_bytes);
    void *ctx;
};
/* Where recover takes them from: returns the bytes read, 0 at the end, or a negative code. */
struct nh_reader {
    int64_t (*read)(void *ctx, void *data, size_t cap_bytes);
    void *ctx;
};

struct nh_machine_args {
    uint32_t struct_size;
    uint64_t shard_id;
    uint64_t replica_id;
    const char *data_dir; /* for on-disk machines; NULL for others */
    const struct nh_plugin_services *services;
};

struct nh_machine; /* an instance; defined by the plugin */

struct nh_machine_ops {
    uint32_t abi_version; /* NH_MACHINE_ABI */
    uint32_t struct_size;
    const char *name;    /* "kv": written to the bootstrap record, replicas that disagree refuse to start */
    const char *version; /* free text for people */
    uint32_t kind;       /* enum nh_machine_kind */
    uint32_t reserved;   /* 0 */

    /* thread: an apply worker, first call. *ret_applied (on-disk only): last applied index, else 0. Required. */
    int (*open)(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err);
    /* thread: the replica's apply worker. Applies `n` >= 1 entries in order and fills their results. Required. */
    int (*update)(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err);
    /* thread: any (see above). Answers a read-only query into `out`; *ret_value is the number of the answer. The code of a
     * failure and its text reach the client. Required. */
    int (*lookup)(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err);
    /* thread: last call; no other is running. Required. */
    void (*close)(struct nh_machine *m);
    /* A hash of the whole state: equal on all replicas at equal applied index. Optional, for tests and tools. */
    uint64_t (*hash)(struct nh_machine *m);

    /* Snapshots; required of machines once snapshots run. The image must be a function of the state alone. */
    int (*prepare_snapshot)(struct nh_machine *m, void **ret_ctx, struct nh_error *err);
    int (*save_snapshot)(struct nh_machine *m, void *snapshot_ctx, struct nh_writer *out, const volatile bool *stop,
                         struct nh_error *err);
    int (*recover)(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err);
    /* On-disk machines: everything applied so far is durable on return. */
    int (*sync)(struct nh_machine *m, struct nh_error *err);
    /* since 1.0 ends here; append below */
};

typedef const struct nh_machine_ops *(*nh_machine_plugin_fn)(void);

NH_END_DECLS
#endif
