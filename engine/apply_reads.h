/* engine/apply_reads.h - linearizable reads at the machine: the end of their way (engine/reads.h).
 *
 * Thread: whoever has taken the apply worker's place (engine/apply_worker.h).
 */
#ifndef NH_ENGINE_APPLY_READS_H
#define NH_ENGINE_APPLY_READS_H

#include "engine/apply_worker.h"

/* Asks the machine, answers those that have not ended meanwhile, and gives the batch back. */
void apply_reads_answer(struct apply_worker *w, struct replica *r, struct read_batch *b);
/* True: the batch was put aside. Entries before it were not applied: a received snapshot holds them, whose recovery comes. */
bool apply_reads_must_wait(struct replica *r, struct read_batch *b);
/* Those that were put aside: a recovery has ended, if only with a failure, which is the answer then. */
void apply_reads_answer_waiting(struct apply_worker *w, struct replica *r);
/* Gives them back: their reads have ended when the step worker took the replica out. */
void apply_reads_free_waiting(struct replica *r);

#endif
