/* transport/loopback/batch_copy.h - a batch of one's own that shares the blocks of the original by reference. */
#ifndef NH_TRANSPORT_LOOPBACK_BATCH_COPY_H
#define NH_TRANSPORT_LOOPBACK_BATCH_COPY_H

#include "raftio/types.h"

/* Everything but blocks is copied; every run of the copy holds a reference. Thread: any. */
struct nh_message_batch *batch_copy(const struct nh_message_batch *b);
void batch_copy_free(struct nh_message_batch *b); /* takes NULL */

#endif
