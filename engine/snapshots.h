/* engine/snapshots.h - the snapshot side of replicas: when one is made, how the machine is lent for it, where images go.
 *
 *     apply worker                     snapshot pool                           step worker
 *     due, asked for, wanted
 *     capture the moment, lend ------> write the image, sync
 *     the machine comes back <-------- (as soon as its data is written)
 *                                      commit the image, save its record,
 *                                      remove the log behind it  -----------> NOTE_MADE: the core may send it
 *     the next one may begin, and <--- prune older images
 *     does if it was due meanwhile
 *
 *                                                                              core: INSTALL_SNAPSHOT for a peer
 *     (on-disk: capture a moment) <---------------------------------------     to the sender (engine/snapshot_stream.h)
 *                                                                              NOTE_STATUS: it arrived, or not
 *
 *     receiver: the image is committed --------------------------------->      NOTE_INSTALL: the core takes its record, saved
 * with lend <-----------------------------------------------------------        the log that gives way to it; durable: recover
 *                     ---------------> recover the machine
 *     applied up to the image <-------
 *
 * While the machine is lent, what it must not be asked is parked and done in order when it is back; `lent` says what that is. A
 * close, and a recovery during a save, make the pool end early, and no save begins before one that is parked. Images made on the
 * fly hold the machine too: before a close or a recovery they are cancelled, before a close all streams.
 *
 * The log store's record is the truth about which image is the newest; a failed image is a warning and tried again later, a
 * failed record fences the store.
 *
 * Threads: as each section says. Errors end in requests, notes or quarantine.
 */
#ifndef NH_ENGINE_SNAPSHOTS_H
#define NH_ENGINE_SNAPSHOTS_H

#include "engine/apply_worker.h"
#include "engine/snapshot_pool.h"
#include "engine/step_worker.h"

/* A snapshot that a peer needs and nobody has made is asked for at most this often. */
#define SNAPSHOT_WANTED_TICKS 50u
/* After a failed attempt, as many more entries are applied before the next one. */
#define SNAPSHOT_RETRY_ENTRIES 1000u

struct snapshots; /* of an engine: pool, sender, receiver */
struct stream_producer;

/* ---- owner ---- */

/* The transport is set by then. An engine without files has only the pool, and no replica with snapshots. */
int snapshots_start(struct engine *e, struct nh_error *err);
/* After the step workers, before the apply workers: no job and no stream runs any more, all machines are on their way back. */
void snapshots_stop(struct engine *e);
void snapshots_free(struct engine *e);
/* From the transport's thread. */
bool snapshots_chunk(struct engine *e, const struct nh_chunk *chunk);

/* ---- apply worker ---- */

/* The machine was opened: a replica that starts from a snapshot recovers it first. */
void snapshots_opened(struct replica *r);
/* Must this item wait for the machine? */
bool snapshots_hold(struct replica *r, const struct apply_item *item);
/* This item will wait, behind others perhaps: if it is one that makes the pool end early, whoever has the machine hears of it. */
void snapshots_hurry(struct replica *r, const struct apply_item *item);
/* Would one be due, with `bytes` more up to `index`? */
bool snapshots_fall_due(const struct replica *r, uint64_t index, size_t bytes);
/* Entries were applied: is a snapshot due? */
void snapshots_applied(struct replica *r, size_t bytes);
void snapshots_save(struct replica *r, struct apply_item *item);
void snapshots_recover(struct replica *r, struct apply_item *item);
void snapshots_stream(struct replica *r, struct apply_item *item);
void snapshots_returned(struct replica *r, struct apply_item *item);

/* ---- step worker ---- */

/* Starts the stream that this INSTALL_SNAPSHOT begins; false: it is an ordinary message (to a witness). */
bool snapshots_send(struct step_worker *w, struct replica *r, const struct nh_message *m);
void snapshots_answer(struct step_worker *w, const struct nh_message *m);
void snapshots_step(struct step_worker *w, struct replica *r, struct queue *notes);
/* The core wants one to send. */
void snapshots_want(struct step_worker *w, struct replica *r);
/* A received snapshot's record is durable: the machine is to recover. */
void snapshots_installed(struct step_worker *w, struct replica *r, const struct nh_snapshot *record);

/* ---- between snapshots.c, snapshot_jobs.c and snapshot_moves.c ---- */

struct snapshot_job {
    struct pool_job base;
    struct replica *replica;   /* a reference */
    struct rsm_moment moment;  /* of a save */
    struct nh_snapshot record; /* of a recovery; of a save: what became of the moment */
    bool received;             /* a recovery, not at start */
    bool is_save, is_export;
    char *export_dir;       /* owned */
    struct request request; /* of a save; fn NULL: nobody waits */
    uint64_t overhead;
};
void snapshot_job_post(struct snapshot_job *job); /* takes it */
/* `producer` NULL: from the image of that index. */
void snapshots_stream_to(struct replica *r, const char *address, const struct nh_message *install,
                         const struct stream_producer *producer);
struct snapshot_pool *snapshots_pool(struct engine *e);
/* Only outgoing ones, or all; when they have ended the machine comes back, as from the pool. */
void snapshots_end_streams(struct replica *r, bool incoming_too);
void snapshots_tell(struct replica *r, enum engine_snapshot_event what, uint64_t from, uint64_t index);
void snapshot_request_end(const struct request *request, int code, uint64_t index, const char *text);

#endif
