/* engine/drive.h - drives one replica for one pass: events into its core, obey the update. Part of the step worker.
 *
 * Threads: the replica's step worker. Errors: none; a replica that cannot go on is put in quarantine.
 */
#ifndef NH_ENGINE_DRIVE_H
#define NH_ENGINE_DRIVE_H

#include "engine/step_worker.h"

/* Events in, updates out, timer armed, status published. */
void drive(struct step_worker *w, struct replica *r);
/* Starts a replica that was posted: its first save, or its machine at once. */
void drive_start(struct step_worker *w, struct replica *r);
/* Stops it: nothing is driven any more; it goes to the apply worker once no save of it is in flight. */
void drive_stop(struct step_worker *w, struct replica *r);
/* To STOPPING's end, if it may go. */
void drive_finish_stop(struct step_worker *w, struct replica *r);
/* This replica is not driven any more; pending requests end as TERMINATED. */
void drive_quarantine(struct step_worker *w, struct replica *r, const char *reason);
void drive_fence(struct step_worker *w, struct replica *r);
/* A leader is known, and a request to it would not be lost at once. */
bool drive_leader_is_reachable(struct step_worker *w, struct replica *r);
/* The leader's host is back: what waited goes on. */
void drive_peer_back(struct step_worker *w, struct replica *r, const struct outbox_peer *peer);
/* The leader's host is silent: wakes the replica if it is quiet and its leader lives at `peer`. */
void drive_peer_silent(struct step_worker *w, struct replica *r, const struct outbox_peer *peer);
/* The transport did not take this message of the replica. A forwarded proposal among them is surely not applied: dropped. */
void drive_lost(struct step_worker *w, struct replica *r, const struct nh_message *message);
/* Sends a message of this replica to its receiver (moved), by way of the outbox. */
void drive_send(struct step_worker *w, struct replica *r, struct nh_message *message);
void drive_unreachable(struct step_worker *w, struct replica *r, uint64_t peer_id);

#endif
