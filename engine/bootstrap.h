/* engine/bootstrap.h - what a replica starts from: its bootstrap record, its stored log, its first entry.
 *
 * A new replica of a new shard writes its bootstrap record (durable on return), and its worker saves entry 1 before the replica
 * takes part: the same INITIALIZE change, with the same bytes, on every initial member. A crash in between leaves a
 * record without a log; the next start writes the entry again. A joining replica has a record and an empty log.
 *
 * The record also names the machine: name, kind, version of its semantics, and the hash of its shared object. Another name, kind
 * or version is refused; another hash is told in the log and taken over into the record, unless the machine is pinned. What an
 * older record does not say is added to it.
 *
 * A replica with a snapshot starts from its record: membership, and applied up to its index; the image is recovered by the apply
 * worker before anything else. The log must continue it without a gap.
 *
 * Thread: any but workers (it reads and writes the log store). Errors: as engine_start_replica.
 */
#ifndef NH_ENGINE_BOOTSTRAP_H
#define NH_ENGINE_BOOTSTRAP_H

#include "engine/engine.h"

struct bootstrap_result {
    struct nh_membership members; /* as of the snapshot, or the initial ones; empty when joining */
    struct nh_snapshot snapshot;  /* the newest record; index 0: none */
    struct raft_boot boot;        /* spans, membership and snapshot point into this struct */
    struct raft_term_span *spans;
    bool save_first;       /* entry 1 and the state below are not in the log store yet */
    struct run_list first; /* then: entry 1 */
};

/* Most terms that a stored log may hold. */
#define BOOTSTRAP_SPANS_MAX 1048576u

int bootstrap_replica(const struct engine_config *engine, const struct engine_replica_config *config,
                      struct bootstrap_result *ret, struct nh_error *err);
void bootstrap_result_deinit(struct bootstrap_result *b);

#endif
