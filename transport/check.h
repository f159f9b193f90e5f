/* transport/check.h - what a transport must refuse, whatever it is made of.
 *
 * The same rules hold on both ends: a sender answers EINVAL, a receiver cuts the connection. Threads: any.
 */
#ifndef NH_TRANSPORT_CHECK_H
#define NH_TRANSPORT_CHECK_H

#include "raftio/types.h"

/* Of two hosts. */
static inline bool transport_layouts_agree(uint64_t a, uint64_t b)
{
    return a == b || a == 0 || b == 0;
}

/* Refuses local-only types, and messages without shard or receiver. Errors: EINVAL. */
int transport_check_messages(const struct nh_message_batch *b, struct nh_error *err);
/* Also what does not come from `source` of `deployment_id`. Errors: EINVAL. */
int transport_check_received(const struct nh_message_batch *b, uint64_t deployment_id, const char *source, struct nh_error *err);
/* Refuses a chunk without shard or receiver, or of another deployment. Errors: EINVAL. */
int transport_check_chunk(const struct nh_chunk *c, uint64_t deployment_id, struct nh_error *err);

#endif
