#include "engine/trace.h"

#include <inttypes.h>

#include "engine/raft/describe.h"

#define LOG_COMPONENT "raft"
#define TEXT_BYTES    1024u

void trace_message(uint64_t shard_id, const struct nh_message *m)
{
    char text[TEXT_BYTES];

    raft_describe_message(m, text, sizeof text);
    LOG_DEBUG("shard %" PRIu64 ": %s", shard_id, text);
}

void trace_update(uint64_t shard_id, uint64_t replica_id, const struct raft_update *out)
{
    struct raft_update rest = *out;
    char text[TEXT_BYTES];

    rest.send.n = rest.send_after_save.n = 0; /* each has a line of its own when it leaves */
    if (raft_describe_update(&rest, text, sizeof text) > 0)
        LOG_DEBUG("shard %" PRIu64 ": %" PRIu64 ": %s", shard_id, replica_id, text);
}
