/* engine/drive.h - drives one replica for one pass: events into its core, obey the update. Part of the step worker.
 *
 * Threads: the replica's step worker. Errors: none; a replica that cannot go on is put in quarantine.
 */
#ifndef NH_ENGINE_DRIVE_H
#define NH_ENGINE_DRIVE_H

#include "engine/step_worker.h"

/* Its timer has fired: is anything due? If not the timer is set anew: it was early (arm_timer). */
bool drive_is_due(struct step_worker *w, struct replica *r);
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

#endif
