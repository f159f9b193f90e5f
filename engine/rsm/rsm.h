/* engine/rsm/rsm.h - what surrounds a machine: applying entries in order, membership, lookups beside updates.
 *
 * One rsm per replica. It hands application entries to the machine in batches, decides configuration changes, skips the
 * no-ops of new leaders, and gives every result to a sink. It does not know who waits for a result.
 *
 * Threads: rsm_open, rsm_apply and rsm_close belong to the replica's apply worker; rsm_lookup, rsm_get_hash and
 * rsm_get_membership may be called from any thread, until rsm_free. A read-write lock keeps lookups and updates apart: it is
 * the one lock of the engine that is held across a call of a plugin, because that is the promise to a regular machine
 * (raftio/machine.h). What would take it again from inside a machine's function is refused with NH_EDEADLOCK.
 *
 * Errors: a negative return of rsm_open or rsm_apply means that this replica cannot go on (quarantine). Later calls then
 * answer NH_EQUARANTINED.
 */
#ifndef NH_ENGINE_RSM_RSM_H
#define NH_ENGINE_RSM_RSM_H

#include "raftio/machine.h"
#include "raftio/support/block.h"

struct rsm;

struct rsm_config {
    uint64_t shard_id, replica_id;
    const struct nh_machine_ops *machine; /* static storage */
    const char *machine_dir;              /* copied; may be NULL */
};

/* Most entries in one call of a machine's update. */
#define RSM_UPDATE_ENTRIES_MAX 1024u

/* What became of one entry. */
struct rsm_result {
    uint64_t index;
    uint64_t key;
    uint32_t origin;
    bool rejected; /* a configuration change that does not fit */
    struct nh_result value;
};

struct rsm_sink {
    void *ctx;
    /* Results of consecutive entries; the machine's bytes are valid for the call. Entries without key are left out. */
    void (*on_results)(void *ctx, const struct rsm_result *results, size_t n);
    /* The configuration change at `index` was applied (a membership, borrowed) or rejected (NULL). */
    void (*on_membership)(void *ctx, uint64_t index, const struct nh_membership *membership);
};

struct rsm *rsm_new(const struct rsm_config *config);
void rsm_free(struct rsm *s); /* takes NULL; closes the machine */

/* Opens the machine. Errors: the machine's. */
int rsm_open(struct rsm *s, struct nh_error *err);
/* Applies the entries of `runs` that lie above the applied index; they must continue it. Errors: ECORRUPT (an entry that cannot
 * be understood, or a hole), the machine's. What was applied before the error stays applied. */
int rsm_apply(struct rsm *s, const struct nh_run *runs, uint32_t n_runs, const struct rsm_sink *sink, struct nh_error *err);
/* Waits for running lookups, closes the machine; later lookups are refused with NH_ECLOSED. */
void rsm_close(struct rsm *s);

uint64_t rsm_applied(const struct rsm *s); /* thread: any */
/* Asks the machine. Errors: ENOTREADY (not open yet), ECLOSED, EQUARANTINED, or the machine's code and text. */
int rsm_lookup(struct rsm *s, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
               struct nh_error *err);
/* Errors: EUNSUPPORTED (the machine has no hash), and as above. */
int rsm_get_hash(struct rsm *s, uint64_t *ret_hash, uint64_t *ret_applied, struct nh_error *err);
/* A deep copy; nh_membership_deinit. */
int rsm_get_membership(struct rsm *s, struct nh_membership *ret, struct nh_error *err);

#endif
