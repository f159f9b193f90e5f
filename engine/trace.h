/* engine/trace.h - what a core takes and gives, as lines of the log at level debug: the lines of the golden traces.
 *
 *     level=debug component=raft msg="shard 7: 1->2 REPLICATE term 2 after 3/1 commit 3 entries [4/2 \"abc\"]"
 *
 * Costs one comparison while the log's level is above debug. Threads: the replica's step worker.
 */
#ifndef NH_ENGINE_TRACE_H
#define NH_ENGINE_TRACE_H

#include "engine/raft/raft.h"
#include "raftio/support/log.h"

void trace_message(uint64_t shard_id, const struct nh_message *m);
/* All but its messages. */
void trace_update(uint64_t shard_id, uint64_t replica_id, const struct raft_update *out);

static inline bool trace_is_on(void)
{
    return log_enabled(NH_LOG_DEBUG);
}

#endif
