/* engine/reads.h - linearizable reads of one replica between its inbox and its apply worker.
 *
 *     inbox -- taken --> waiting -- given to the core, confirmed at an index --> confirmed -- entries up to it handed out -->
 * apply worker
 *
 * From the hand-over on a batch has two holders, under the replica's lock. The apply worker answers its reads and then frees it.
 * Meanwhile, be it that the machine hangs, is slow, or is being recovered, the step worker ends those whose time is over, or all
 * when the replica leaves. Each read belongs to who takes it first (read_item_take), the apply worker when it has its answer.
 *
 * A batch waits for a leader; one whose answer does not come (a message was lost, the leader moved) is asked for again with the
 * same context, which is harmless: the answer is an index that was committed after the read was asked for.
 *
 * Threads: the replica's step worker, unless it says otherwise. Errors: none; a batch whose reads have all expired is freed.
 */
#ifndef NH_ENGINE_READS_H
#define NH_ENGINE_READS_H

#include "engine/step_worker.h"

/* A batch from the inbox; takes NULL. */
void reads_take(struct replica *r, struct read_batch *b);
/* Gives the core what waits and is due, if a leader is known. */
void reads_send(struct step_worker *w, struct replica *r);
/* The core's answer. */
void reads_confirm(struct replica *r, const struct raft_read *read);
/* Posts what is confirmed behind the entries that it must see. */
void reads_hand_over(struct step_worker *w, struct replica *r);
/* The batch was refused: it is asked for again at this tick. */
void reads_retry(struct replica *r, uint64_t low, uint64_t tick);
void reads_retry_all(struct replica *r);
/* The batch was refused for good. */
void reads_drop(struct replica *r, uint64_t low, int drop_reason);
/* When reads_send is needed next; RAFT_NEVER without a reachable leader or reads. */
uint64_t reads_next_tick(struct step_worker *w, struct replica *r);
/* Ends what has expired: TIMEOUT, or DROPPED if the core never saw it. Sets r->reads_earliest_ns. */
void reads_expire(struct replica *r, uint64_t now_ns);
void reads_terminate(struct replica *r);

/* ---- handed over ---- */

/* The apply worker is to have it. */
void reads_note_handed(struct replica *r, struct read_batch *b);
/* The apply worker has claimed it, taken n reads, and the others have ended without it. Frees the batch. Thread: apply worker. */
void reads_end_answers(struct replica *r, struct read_batch *b, uint32_t n);

#endif
