/* engine/drive_events.h - the first half of driving a replica: what came for it, as events of its core, in their order. For
 * drive.c.
 *
 * What is already durable or applied is told before what was asked for since, so that it need not wait for another pass; messages
 * come before proposals, as they may tell who leads.
 *
 * Threads: the replica's step worker. Errors: none.
 */
#ifndef NH_ENGINE_DRIVE_EVENTS_H
#define NH_ENGINE_DRIVE_EVENTS_H

#include "engine/step_worker.h"

/* Gives the core what is in `in` and what waits at the replica; what it yields gathers in w->update. Takes what it uses out of
 * `in`. */
void drive_events(struct step_worker *w, struct replica *r, struct inbox *in);
/* Keeps an answer that nothing waits for until the next turn; false: the message is to be taken by a turn of its own. */
bool drive_keep_answer(struct replica *r, const struct nh_message *m);

#endif
