/* engine/apply_inline.h - what is so little that a step worker applies it itself, in place of the apply worker.
 *
 * A client that has one request under way waits for every thread that has to be woken for it. So at the end of its pass a step
 * worker does what the apply worker would do, if it is little and nothing is before it (apply_worker_do_all). Its other shards
 * wait meanwhile, and lose their leaders if that takes long. So it never waits, for a lock, a file or somebody else, and does
 * nothing of which only somebody else knows how long it takes:
 *
 * Entries of a regular machine whose author promises that updates are quick (NH_MACHINE_QUICK): in memory, few and small, of the
 * application and without a session; the machine is not lent, nobody asks it anything just now, no snapshot falls due and the
 * replica was announced as ready before. What is left of foreign code then is one update and the completions. Reads are left: who
 * waited for one may ask the machine in its completion.
 *
 * If a promise was broken nevertheless, the apply worker has everything to itself for a while (HELP_NS_MAX in apply_worker.c).
 */
#ifndef NH_ENGINE_APPLY_INLINE_H
#define NH_ENGINE_APPLY_INLINE_H

#include "engine/apply_worker.h"

/* In one pass of a step worker, for one apply worker: entries, and the bytes of their records. */
#define APPLY_INLINE_MAX       16u
#define APPLY_INLINE_BYTES_MAX (16u * 1024u)

/* What was begun in this pass. Zeroed at its beginning. */
struct apply_inline {
    uint64_t n;
    size_t bytes;
};

/* Whether this item, the first of those that are left, may be done here and now. If so it is counted, and has to be done: the
 * lock of its machine may have been taken (rsm_try_enter). Thread: who is in the apply worker's place. */
bool apply_inline_begin(struct apply_inline *all, const struct apply_item *item);

#endif
