/* engine/rsm/membership.h - what a committed configuration change does to a membership.
 *
 * A pure function of the membership and the change, so that all replicas decide alike. A change that does not fit is
 * rejected and changes nothing:
 *
 *   any             its config_change_id is not 0 and not that of the membership: it was made against an older one
 *   INITIALIZE      the membership has members already (it is entry 1 of a shard's log)
 *   ADD             the id was removed earlier (ids never return); its low 32 bits are another's; it has that kind already, or
 *                   another address; the address belongs to another member; NH_MEMBERS_MAX is reached; from or to a witness;
 *                   MEMBERSHIP_REMOVED_MAX are removed already
 *   REMOVE          no such member
 *   UPDATE_ADDRESS  no such member; the address belongs to another one
 *   CHANGE_MANY     one of its changes is rejected; it is empty
 *   LEAVE_JOINT     the configuration is not joint
 *   any but LEAVE   the configuration is joint
 *
 * After a change there must be a voter, and no more witnesses than voters: every majority then contains a voter, so what is
 * committed is durable somewhere with its payload. A voter may be demoted to non-voting.
 *
 * Several changes are made one after another to the incoming half of a joint configuration; the outgoing half is what voted
 * before. Sources: Raft thesis 4.1, 4.2.1, 4.3.
 * Threads: pure. Errors: none but "rejected", with a static text.
 */
#ifndef NH_ENGINE_RSM_MEMBERSHIP_H
#define NH_ENGINE_RSM_MEMBERSHIP_H

#include "raftio/codec.h"

/* Removed ids are kept for ever, also in the head of every image, which must hold them (IMAGE_HEAD_BYTES_MAX); those who are
 * members can still be removed then. */
#define MEMBERSHIP_REMOVED_MAX 4096u

/* True: applied, *m belongs to log index `index` now. False: rejected, *ret_reason says why. */
bool membership_apply(struct nh_membership *m, const struct nh_config_change *change, uint64_t index, const char **ret_reason);

/* Why this cannot be a membership (too few voters); NULL: it can. */
const char *membership_refuse(const struct nh_membership *m);

#endif
