/* raftio/machine.h - the state machine contract. Authors include it as nodehost/statemachine.h.
 *
 * A machine is a table of functions that a host applies committed entries to. It is compiled to a shared object that
 * exports `nh_machine_plugin` (raftio/plugin.h), or given to nh_host_start_replica by an embedding program. All replicas
 * of a shard apply the same entries in the same order; `update` must therefore be a function of the machine's state and
 * the entries alone: no clock, no randomness, no addresses, no iteration order that depends on them.
 *
 * One instance serves one replica. Three kinds:
 *
 *                         regular              concurrent               on-disk
 *   state lives           in memory            in memory                in its own files, made durable by sync
 *   after a restart       empty: recover, then all entries since        as of the index that open tells; entries since
 *   lookup                beside lookups and   beside everything        beside everything
 *                         save_snapshot        but recover and close    but recover and close
 *   update                alone                beside lookup and        beside lookup and save_snapshot
 *                                              save_snapshot
 *   save_snapshot         no update meanwhile  beside update, of the    as concurrent; only to feed another replica: its own
 *                                              prepared context         snapshots are metadata after a sync
 *
 * Order of calls. `open` first, `close` last, neither beside another call. update, prepare_snapshot, sync and recover are never
 * beside each other, whatever the kind; a regular machine's save_snapshot is not beside any of them. recover_files is a part of
 * recover: no lookup runs from its beginning to the end of recover. One save_snapshot per prepared context at a time; contexts of
 * several snapshots may live at once. A regular machine that has no prepare_snapshot gets a NULL context.
 *
 * Snapshots. What save_snapshot writes must be a function of the state at the prepared moment alone: all replicas write the same
 * bytes at the same index, and the same context written twice gives the same bytes (a broken transfer begins anew). `recover`
 * replaces the whole state by what such bytes say; the instance may be new or in use. An image that recover cannot
 * understand is a failure (below), never a guess.
 *
 * Crashes (on-disk). `open` tells the index I of the last entry in the durable state: everything up to I is in it, nothing above.
 * A machine sees application entries only: its images must contain I, as recover is not told. What was applied and not synced may
 * be lost, but only a suffix; the host replays it. A crash inside recover leaves either the old state, or the new one, or an
 * empty one (I = 0). A machine that opens behind its shard's compacted log, or ahead of the log, has lost data or has been
 * swapped: this replica does not start, with an explanation.
 *
 * `stop` is set when the host wants save_snapshot or recover to end early: return NH_ECLOSED soon; look at it now and then
 * (another thread writes it).
 *
 * Errors. A negative return of update, open, sync or recover puts this replica in quarantine: it stops voting and applying, the
 * host reports why, all other replicas live on. A failed prepare_snapshot or save_snapshot fails that snapshot alone. An error
 * that belongs to a command ("wrong type") is a *result*, not a failure. A machine must not call back into its host from its
 * functions (NH_EDEADLOCK).
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

/* What an author promises besides; a bit that this version does not know is ignored. */
enum nh_machine_flag {
    /* update waits for nothing, no file and no other thread, and takes microseconds per entry, milliseconds at worst. The host
     * may then call it on a thread that drives the consensus of many shards, for a few small entries: their clients are answered
     * one hand-over of threads sooner. A machine that breaks the promise holds those shards up; their leaders may be lost. For
     * regular machines; of no effect for concurrent ones. */
    NH_MACHINE_QUICK = 1,
    /* No promise: update may apply only the first of its entries and return how many, at least 1, if the results of all would
     * take too much memory. The host takes these results and calls again with the other entries. */
    NH_MACHINE_IN_PARTS = 2,
};

/* The answer to one entry: a number and bytes. `data` belongs to the machine and stays valid until its next update or
 * close; the host copies what it needs before that. */
struct nh_result {
    uint64_t value;
    const void *data;
    size_t size_bytes;
};

/* One committed entry, in index order, each index at most once per instance. `cmd` is borrowed for the call: a machine that
 * keeps it must copy it. */
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

/* Extra files of a snapshot (regular and concurrent machines). */
#define NH_SNAPSHOT_FILES_MAX     64u
#define NH_SNAPSHOT_FILE_META_MAX 4096u
struct nh_file_sink {
    /* Copies the file at `path`, as it is now, into the image, with `meta`. Ids are the machine's, each once. */
    int (*add)(void *ctx, uint64_t file_id, const char *path, const void *meta, size_t meta_bytes);
    void *ctx;
};
struct nh_snapshot_file {
    uint64_t file_id;
    const char *path; /* a copy of its own, which the machine may rename away; removed after the call */
    const void *meta;
    size_t meta_bytes;
};

struct nh_machine_args {
    uint32_t struct_size;
    uint64_t shard_id;
    uint64_t replica_id;
    const char *data_dir; /* for on-disk machines: theirs alone, exists; NULL for others */
    const struct nh_plugin_services *services;
};

struct nh_machine; /* an instance; defined by the plugin */

struct nh_machine_ops {
    uint32_t abi_version; /* NH_MACHINE_ABI */
    uint32_t struct_size;
    const char *name;    /* "kv": written to the bootstrap record, replicas that disagree refuse to start */
    const char *version; /* of the semantics of its entries: written there too. Change it when equal entries would no longer give
                            an equal state. */
    uint32_t kind;       /* enum nh_machine_kind */
    uint32_t flags;      /* enum nh_machine_flag, or-ed; or 0 */

    /* First call. *ret_applied (on-disk only): last applied index, else 0. After a failure no other call follows, not even close.
     * Required. */
    int (*open)(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err);
    /* Applies `n` >= 1 entries in order and fills their results. Required. Part of them: NH_MACHINE_IN_PARTS. */
    int (*update)(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err);
    /* thread: any (see above). Answers a read-only query into `out`; *ret_value is the number of the answer. The code of a
     * failure and its text reach the client. Required. */
    int (*lookup)(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err);
    /* Last call; no other is running. Required. */
    void (*close)(struct nh_machine *m);
    /* A hash of the whole state: equal on all replicas at equal applied index. Thread: any; beside save_snapshot, but
     * not beside update or lookup, whatever the kind. Optional, for tests and tools. */
    uint64_t (*hash)(struct nh_machine *m);

    /* Snapshots. Regular: save_snapshot and recover, both or neither; without them its shard has no snapshots, and its log is
     * never compacted. Concurrent and on-disk: required, with prepare_snapshot and release_snapshot. */

    /* Fixes the present state for save_snapshot; quick. Optional for regular machines. */
    int (*prepare_snapshot)(struct nh_machine *m, void **ret_ctx, struct nh_error *err);
    /* thread: a snapshot worker. */
    int (*save_snapshot)(struct nh_machine *m, void *snapshot_ctx, struct nh_writer *out, const volatile bool *stop,
                         struct nh_error *err);
    /* thread: a snapshot worker. */
    int (*recover)(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err);
    /* On-disk machines, required: everything applied so far is durable on return. */
    int (*sync)(struct nh_machine *m, struct nh_error *err);
    /* Ends a prepared context, saved or not. May come from another thread than prepare_snapshot. Required with it. */
    void (*release_snapshot)(struct nh_machine *m, void *snapshot_ctx);
    /* Optional, not for on-disk machines: after save_snapshot, with the same context and under the same rules. */
    int (*save_files)(struct nh_machine *m, void *snapshot_ctx, struct nh_file_sink *files, struct nh_error *err);
    /* Before recover of an image that has files; required if save_files is there. */
    int (*recover_files)(struct nh_machine *m, const struct nh_snapshot_file *files, size_t n, struct nh_error *err);
    /* since 1.0 ends here; append below */
};

typedef const struct nh_machine_ops *(*nh_machine_plugin_fn)(void);

NH_END_DECLS
#endif
