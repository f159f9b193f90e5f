/* engine/rsm/membership.h - what a committed configuration change does to a membership.
 *
 * A pure function of the membership and the change, so that all replicas decide alike. A change that does not fit is
 * rejected and changes nothing:
 *
 *   any         its config_change_id is not 0 and not that of the membership: it was made against an older one
 *   INITIALIZE  the membership has members already (it is entry 1 of a shard's log)
 *   ADD         the id was removed earlier (ids never return), has that kind already, another address, or would be
 *               demoted; the address belongs to another member; NH_MEMBERS_MAX is reached
 *   REMOVE      no such member; the last voter
 *
 * Only a non-voting member may change its kind, and only to voter. Sources: Raft thesis 4.1, 4.2.1.
 * Threads: pure. Errors: none but "rejected", with a static text.
 */
#ifndef NH_ENGINE_RSM_MEMBERSHIP_H
#define NH_ENGINE_RSM_MEMBERSHIP_H

#include "raftio/codec.h"

/* True: applied, *m belongs to log index `index` now. False: rejected, *ret_reason says why. */
bool membership_apply(struct nh_membership *m, const struct nh_config_change *change, uint64_t index, const char **ret_reason);

#endif
