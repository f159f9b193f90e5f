/* engine/step_saves.h - what a step worker saves: steps 3 and 4 of the order of durability (engine/step_worker.h).
 *
 * Drivers fill w->open (engine/saves.h). It becomes w->in_flight when its write begins, and what depended on it leaves, or is
 * given up, when the write has ended. One batch is in flight at a time.
 *
 * Thread: whoever polls the worker.
 */
#ifndef NH_ENGINE_STEP_SAVES_H
#define NH_ENGINE_STEP_SAVES_H

#include "engine/step_worker.h"

/* Gets the open batch under way, or hands it to the log worker. Does nothing while one is in flight. */
void step_saves_begin(struct step_worker *w);
/* Without a log worker: waits until the one in flight is written. */
void step_saves_end(struct step_worker *w);
/* What ended: releases what was to leave after it. A failure of single replicas puts them into quarantine; one of the batch
 * fences the engine. */
void step_saves_take_done(struct step_worker *w);
/* What was not handed over yet is given up with its replicas. */
void step_saves_drop_open(struct step_worker *w);

#endif
