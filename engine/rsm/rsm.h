/* engine/rsm/rsm.h - what surrounds a machine: applying entries in order, sessions, membership, lookups, snapshots.
 *
 * One rsm per replica. It hands application entries to the machine in batches, answers those of sessions that were applied
 * before, decides configuration changes, skips the no-ops of new leaders, and gives every result to a sink. It does not know who
 * waits for a result. It captures a moment of all of this for a snapshot, writes it as an image, and takes it over from one.
 *
 * Threads. rsm_open, rsm_try_enter, rsm_apply, rsm_capture and rsm_close belong to the replica's apply worker. rsm_save, rsm_sync
 * and rsm_recover run on a snapshot worker to which the apply worker has lent the machine: it keeps the order that
 * raftio/machine.h promises (what may run beside what) by not calling rsm_apply (where that is needed), rsm_recover and rsm_close
 * meanwhile. rsm_lookup, rsm_get_hash and rsm_get_membership may be called from any thread, until rsm_free.
 *
 * A read-write lock keeps lookups and updates of a regular machine apart: it is the one lock of the engine that is held across a
 * call of a plugin, because that is the promise to a machine. What would take it again from inside a machine's function is
 * refused with NH_EDEADLOCK. Lookups and a recovery of any machine are kept apart by a mark under that lock, as a recovery may
 * take minutes: who finds it is told so.
 *
 * Errors: a negative return of rsm_open, rsm_apply, rsm_sync or rsm_recover means that this replica cannot go on (quarantine).
 * Later calls then answer NH_EQUARANTINED.
 */
#ifndef NH_ENGINE_RSM_RSM_H
#define NH_ENGINE_RSM_RSM_H

#include "engine/files.h"
#include "engine/rsm/image.h"
#include "raftio/machine.h"
#include "raftio/support/block.h"

struct rsm;

struct rsm_config {
    uint64_t shard_id, replica_id;
    const struct nh_machine_ops *machine; /* static storage */
    const char *machine_dir;              /* copied; may be NULL */
    uint64_t last_index;                  /* of the log at start: an on-disk machine that is ahead of it is refused */
    struct files *files;                  /* borrowed: for extra files of images; NULL: none */
};

/* Most entries in one call of a machine's update. */
#define RSM_UPDATE_ENTRIES_MAX 1024u

/* What became of one entry. */
struct rsm_result {
    uint64_t index;
    uint64_t key;
    bool rejected; /* a configuration change that does not fit, or a session that does not: see status */
    int status;    /* rejected: NH_ESESSION, NH_EACKED, NH_EINVAL of a session; else 0 */
    struct nh_result value;
};

/* A record for the machine alone: of the application, of no session, and no leader's no-op. What rsm_apply gathers into one
 * update; at most others it ends what it has gathered. */
static inline bool rsm_is_plain(const uint8_t *record)
{
    struct nh_entry_view e;

    nh_record_view(record, &e);
    return e.type == NH_ENTRY_APPLICATION && !(e.flags & NH_RECORD_SESSION) && (e.payload_bytes > 0 || e.key > 0);
}

/* Room for the entries of one update, for whoever applies: one for all the machines of an apply worker, empty between calls. */
struct rsm_batch;
struct rsm_batch *rsm_batch_new(void);
void rsm_batch_free(struct rsm_batch *b); /* takes NULL */

struct rsm_sink {
    void *ctx;
    struct rsm_batch *batch; /* used while rsm_apply runs */
    /* Results in the order of the entries; the machine's bytes are valid for the call. Only of those that somebody may wait for
     * here: with a key, and proposed at this replica. */
    void (*on_results)(void *ctx, const struct rsm_result *results, size_t n);
    /* The configuration change at `index` was applied (a membership, borrowed) or rejected (NULL). */
    void (*on_membership)(void *ctx, uint64_t index, const struct nh_membership *membership);
};

struct rsm *rsm_new(const struct rsm_config *config);
void rsm_free(struct rsm *s); /* takes NULL; closes the machine */
/* Asks for it to be brought into the processor's cache, and (when that has come) for what it points to. */
void rsm_prefetch(const struct rsm *s);
void rsm_prefetch_machine(const struct rsm *s);

/* Opens the machine. Errors: the machine's; EMISMATCH (an on-disk machine is ahead of the log). */
int rsm_open(struct rsm *s, struct nh_error *err);
/* Applies the entries of `runs` that lie above the applied index; they must continue it. What an on-disk machine holds already
 * is not given to it again. Errors: ECORRUPT (an entry that cannot be understood, or a hole), the machine's. What was applied
 * before the error stays applied. */
int rsm_apply(struct rsm *s, const struct nh_run *runs, uint32_t n_runs, const struct rsm_sink *sink, struct nh_error *err);
/* Whether it is regular and its author promises quick updates. Thread: any. */
bool rsm_is_quick(const struct rsm *s);
/* For a caller that must not wait: takes the machine's lock for the first update of the next rsm_apply, which follows. What that
 * is given must be plain entries, at most RSM_UPDATE_ENTRIES_MAX, so that there is no second one. Of a regular machine. False:
 * the machine is being asked something just now. */
bool rsm_try_enter(struct rsm *s);
/* What the machine was to take over or to apply could not be read: from now on it answers nothing. Thread: as rsm_recover, or
 * rsm_apply. */
void rsm_give_up(struct rsm *s);
/* Waits for running lookups, closes the machine; later lookups are refused with NH_ECLOSED. */
void rsm_close(struct rsm *s);

uint64_t rsm_applied(const struct rsm *s); /* thread: any */
/* The last entry that an on-disk machine holds: at its opening it may lie above what is applied. 0: none, or of another kind. */
uint64_t rsm_machine_index(const struct rsm *s);
/* Asks the machine. Errors: ENOTREADY (not open yet, or being recovered), ECLOSED, EQUARANTINED, or the machine's code and text.
 */
int rsm_lookup(struct rsm *s, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
               struct nh_error *err);
/* Errors: EUNSUPPORTED (the machine has no hash), and as above. */
int rsm_get_hash(struct rsm *s, uint64_t *ret_hash, uint64_t *ret_applied, struct nh_error *err);
/* A deep copy; nh_membership_deinit. */
int rsm_get_membership(struct rsm *s, struct nh_membership *ret, struct nh_error *err);

/* ---- snapshots (rsm_snapshot.c) ---- */

bool rsm_is_of_kind(const struct rsm *s, enum nh_machine_kind kind); /* thread: any */
/* May this machine have snapshots? Errors: EUNSUPPORTED, with the function that it lacks. */
int rsm_can_snapshot(const struct rsm *s, struct nh_error *err);
/* What the apply worker may not do while the machine is lent for a save: true: apply. (Recovering and closing never.) */
bool rsm_save_excludes_updates(const struct rsm *s, bool with_data);

/* The state after the entry at record.index, as far as it must be fixed in the moment itself. */
struct rsm_moment {
    struct nh_snapshot record; /* index, term, membership; dummy unless with data */
    uint8_t *sessions;
    size_t sessions_bytes;
    void *machine_ctx;
    bool has_ctx;
};
/* with_data false: metadata only, of an on-disk machine. A witness has no data either way (record.witness). Errors: those of
 * prepare_snapshot; ENOTREADY (nothing is applied). Release it in any case where it succeeded. */
int rsm_capture(struct rsm *s, bool with_data, struct rsm_moment *ret, struct nh_error *err);
/* Any thread, once the machine is not closed yet. */
void rsm_release(struct rsm *s, struct rsm_moment *m);
/* On-disk machines: all that is applied is durable on return. */
int rsm_sync(struct rsm *s, struct nh_error *err);
/* Writes the moment as an image. Errors: the machine's, the sink's, ECLOSED (stopped). */
int rsm_save(struct rsm *s, const struct rsm_moment *m, uint32_t compression, const struct image_sink *sink,
             const volatile bool *stop, uint64_t *ret_size, struct nh_error *err);
/* An image that can be read from its beginning more than once: with extra files it is read twice. */
struct rsm_image {
    void (*rewind)(void *ctx, struct image_source *ret);
    void *ctx;
    const char *scratch_dir; /* borrowed; where extra files are put for the machine; may be made and removed */
};
/* Takes over the state of an image whose record must be this one (index, term). An on-disk machine that is as new keeps its data,
 * and takes the sessions. image NULL: metadata only (a witness). Errors: ECORRUPT, EMISMATCH (an on-disk machine is behind an
 * image without data: it lost some), the machine's, ECLOSED. */
int rsm_recover(struct rsm *s, const struct nh_snapshot *record, const struct rsm_image *image, const volatile bool *stop,
                struct nh_error *err);

#endif
