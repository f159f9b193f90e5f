#include "raftio/types.h"

#include <stdlib.h>

#include "raftio/support/memory.h"

void nh_membership_copy(struct nh_membership *to, const struct nh_membership *from)
{
    *to = *from;
    to->members = from->n_members ? xmemdup(from->members, from->n_members * sizeof *from->members) : NULL;
    to->removed = from->n_removed ? xmemdup(from->removed, from->n_removed * sizeof *from->removed) : NULL;
}

void nh_membership_deinit(struct nh_membership *m)
{
    free(m->members);
    free(m->removed);
    *m = (struct nh_membership){0};
}

const struct nh_member *nh_membership_find(const struct nh_membership *m, uint64_t replica_id)
{
    for (uint32_t i = 0; i < m->n_members; i++)
        if (m->members[i].replica_id == replica_id)
            return &m->members[i];
    return NULL;
}

static bool member_equal(const struct nh_member *a, const struct nh_member *b)
{
    return a->replica_id == b->replica_id && a->kind == b->kind && a->outgoing == b->outgoing &&
           strncmp(a->address, b->address, sizeof a->address) == 0;
}

bool nh_membership_equal(const struct nh_membership *a, const struct nh_membership *b)
{
    if (a->joint != b->joint || a->auto_leave != b->auto_leave)
        return false;
    if (a->config_change_id != b->config_change_id || a->n_members != b->n_members || a->n_removed != b->n_removed)
        return false;
    for (uint32_t i = 0; i < a->n_members; i++)
        if (!member_equal(&a->members[i], &b->members[i]))
            return false;
    for (uint32_t i = 0; i < a->n_removed; i++)
        if (a->removed[i] != b->removed[i])
            return false;
    return true;
}

void nh_config_change_deinit(struct nh_config_change *c)
{
    nh_membership_deinit(&c->initial);
    free(c->changes);
    *c = (struct nh_config_change){0};
}

void nh_bootstrap_deinit(struct nh_bootstrap *b)
{
    nh_membership_deinit(&b->initial);
    *b = (struct nh_bootstrap){0};
}

void nh_snapshot_copy(struct nh_snapshot *to, const struct nh_snapshot *from)
{
    *to = *from;
    to->file_path = xstrdup(from->file_path);
    nh_membership_copy(&to->membership, &from->membership);
}

void nh_snapshot_deinit(struct nh_snapshot *s)
{
    free(s->file_path);
    nh_membership_deinit(&s->membership);
    *s = (struct nh_snapshot){0};
}

void nh_message_deinit(struct nh_message *m)
{
    if (m->runs) {
        for (uint32_t i = 0; i < m->n_runs; i++)
            nh_block_unref(m->runs[i].block);
        free(m->runs);
    }
    if (m->snapshot) {
        nh_snapshot_deinit(m->snapshot);
        free(m->snapshot);
    }
    *m = (struct nh_message){0};
}

const char *nh_message_type_name(uint32_t type)
{
    static const char *const names[NH_MSG_TYPE_COUNT] = {
        [NH_MSG_LOCAL_TICK] = "LOCAL_TICK",
        [NH_MSG_ELECTION] = "ELECTION",
        [NH_MSG_LEADER_HEARTBEAT] = "LEADER_HEARTBEAT",
        [NH_MSG_CONFIG_CHANGE_EVENT] = "CONFIG_CHANGE_EVENT",
        [NH_MSG_NOOP] = "NOOP",
        [NH_MSG_PING] = "PING",
        [NH_MSG_PONG] = "PONG",
        [NH_MSG_PROPOSE] = "PROPOSE",
        [NH_MSG_SNAPSHOT_STATUS] = "SNAPSHOT_STATUS",
        [NH_MSG_UNREACHABLE] = "UNREACHABLE",
        [NH_MSG_CHECK_QUORUM] = "CHECK_QUORUM",
        [NH_MSG_BATCHED_READ_INDEX] = "BATCHED_READ_INDEX",
        [NH_MSG_REPLICATE] = "REPLICATE",
        [NH_MSG_REPLICATE_RESP] = "REPLICATE_RESP",
        [NH_MSG_REQUEST_VOTE] = "REQUEST_VOTE",
        [NH_MSG_REQUEST_VOTE_RESP] = "REQUEST_VOTE_RESP",
        [NH_MSG_INSTALL_SNAPSHOT] = "INSTALL_SNAPSHOT",
        [NH_MSG_HEARTBEAT] = "HEARTBEAT",
        [NH_MSG_HEARTBEAT_RESP] = "HEARTBEAT_RESP",
        [NH_MSG_READ_INDEX] = "READ_INDEX",
        [NH_MSG_READ_INDEX_RESP] = "READ_INDEX_RESP",
        [NH_MSG_QUIESCE] = "QUIESCE",
        [NH_MSG_SNAPSHOT_RECEIVED] = "SNAPSHOT_RECEIVED",
        [NH_MSG_LEADER_TRANSFER] = "LEADER_TRANSFER",
        [NH_MSG_TIMEOUT_NOW] = "TIMEOUT_NOW",
        [NH_MSG_RATE_LIMIT] = "RATE_LIMIT",
        [NH_MSG_REQUEST_PRE_VOTE] = "REQUEST_PRE_VOTE",
        [NH_MSG_REQUEST_PRE_VOTE_RESP] = "REQUEST_PRE_VOTE_RESP",
        [NH_MSG_LOG_QUERY] = "LOG_QUERY",
        [NH_MSG_PROPOSE_RESP] = "PROPOSE_RESP",
        [NH_MSG_REMOVED] = "REMOVED",
    };

    return type < NH_MSG_TYPE_COUNT ? names[type] : "UNKNOWN";
}
