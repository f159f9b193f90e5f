#include "transport/check.h"

#include <inttypes.h>

int transport_check_messages(const struct nh_message_batch *b, struct nh_error *err)
{
    for (uint32_t i = 0; i < b->n_messages; i++) {
        const struct nh_message *m = &b->messages[i];

        if (nh_message_type_is_local(m->type))
            return nh_error_set(err, NH_EINVAL, "message %" PRIu32 ": type %" PRIu32 " is not for the network", i, m->type);
        if (m->shard_id == NH_NO_SHARD || m->to == NH_NO_REPLICA)
            return nh_error_set(err, NH_EINVAL, "message %" PRIu32 ": shard %" PRIu64 ", receiver %" PRIu64, i, m->shard_id,
                                m->to);
    }
    return NH_OK;
}

int transport_check_received(const struct nh_message_batch *b, uint64_t deployment_id, const char *source, struct nh_error *err)
{
    if (b->deployment_id != deployment_id)
        return nh_error_set(err, NH_EINVAL, "batch of deployment %" PRIu64 ", ours is %" PRIu64, b->deployment_id, deployment_id);
    if (!b->source_address || strcmp(b->source_address, source) != 0)
        return nh_error_set(err, NH_EINVAL, "batch of '%s' on a connection of '%s'", b->source_address ? b->source_address : "",
                            source);
    return transport_check_messages(b, err);
}

int transport_check_chunk(const struct nh_chunk *c, uint64_t deployment_id, struct nh_error *err)
{
    if (c->shard_id == NH_NO_SHARD || c->replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "chunk: shard %" PRIu64 ", receiver %" PRIu64, c->shard_id, c->replica_id);
    if (c->deployment_id != deployment_id)
        return nh_error_set(err, NH_EINVAL, "chunk of deployment %" PRIu64 ", ours is %" PRIu64, c->deployment_id, deployment_id);
    return NH_OK;
}
