/* What a host knows about its shards and itself. */
#include "nodehost/host_private.h"

#include <assert.h>
#include <string.h>

static_assert((int)NH_ROLE_FOLLOWER == (int)RAFT_FOLLOWER && (int)NH_ROLE_PRE_CANDIDATE == (int)RAFT_PRE_CANDIDATE &&
                  (int)NH_ROLE_CANDIDATE == (int)RAFT_CANDIDATE && (int)NH_ROLE_LEADER == (int)RAFT_LEADER,
              "roles have the same numbers inside and outside");

static void convert(const struct engine_replica_status *s, struct nh_shard_info *ret)
{
    *ret = (struct nh_shard_info){
        .shard_id = s->shard_id,
        .replica_id = s->replica_id,
        .leader_id = s->leader_id,
        .term = s->term,
        .role = (uint32_t)s->role,
        .last_index = s->last_index,
        .commit_index = s->commit_index,
        .applied_index = s->applied_index,
        .quiesced = s->quiesced,
        .ready = s->ready,
        .quarantined = s->quarantined,
        .joint = s->joint,
        .pending_config = s->pending_config,
        .lease_held = s->lease_held,
        .overloaded = s->overloaded,
        .transferee = s->transferee,
        .uncommitted_bytes = s->uncommitted_bytes,
        .pending_requests = s->pending_requests,
        .first_index = s->first_index,
        .snapshot_index = s->snapshot_index,
        .witness = s->witness,
    };
}

int nh_get_shard_info(struct nh_host *host, uint64_t shard_id, struct nh_shard_info *ret, struct nh_error *err)
{
    struct engine_replica_status s;
    int r = engine_get_status(host->engine, shard_id, &s, err);

    if (r == NH_OK)
        convert(&s, ret);
    return r;
}

int nh_get_leader(struct nh_host *host, uint64_t shard_id, uint64_t *ret_leader_id, uint64_t *ret_term, struct nh_error *err)
{
    struct engine_replica_status s;
    int r = engine_get_status(host->engine, shard_id, &s, err);

    if (r < 0)
        return r;
    *ret_leader_id = s.leader_id;
    *ret_term = s.term;
    return NH_OK;
}

int nh_get_membership(struct nh_host *host, uint64_t shard_id, struct nh_membership *ret, struct nh_error *err)
{
    return engine_get_membership(host->engine, shard_id, ret, err);
}

int nh_get_machine_hash(struct nh_host *host, uint64_t shard_id, uint64_t *ret_hash, uint64_t *ret_applied, struct nh_error *err)
{
    return engine_get_hash(host->engine, shard_id, ret_hash, ret_applied, err);
}

struct each_shard {
    void (*each)(void *ctx, const struct nh_shard_info *info);
    void *ctx;
};

static void tell(void *ctx, const struct engine_replica_status *s)
{
    struct each_shard *e = ctx;
    struct nh_shard_info info;

    convert(s, &info);
    e->each(e->ctx, &info);
}

void nh_each_shard(struct nh_host *host, void (*each)(void *ctx, const struct nh_shard_info *info), void *ctx)
{
    struct each_shard e = {each, ctx};

    engine_each_replica(host->engine, tell, &e);
}

static void count(void *ctx, const struct engine_replica_status *s)
{
    struct nh_host_info *info = ctx;

    info->n_shards++;
    info->n_leaders += s->role == RAFT_LEADER;
    info->n_leaderless += s->leader_id == NH_NO_LEADER;
    info->n_quarantined += s->quarantined;
}

void nh_get_host_info(struct nh_host *host, struct nh_host_info *ret)
{
    struct engine_stats stats;

    *ret = (struct nh_host_info){
        .host_id = host->host_id,
        .deployment_id = host->deployment_id,
        .incarnation = host->data_dir.incarnation,
        .logdb_name = host->logdb_ops.name,
        .transport_name = host->transport_ops.name,
        .events_dropped = events_dropped(host->events),
    };
    strcpy(ret->unique_id, host->data_dir.unique_id);
    strcpy(ret->address, host->address);
    engine_each_replica(host->engine, count, ret);
    engine_get_stats(host->engine, &stats);
    ret->proposals_applied = stats.entries_applied;
    ret->reads_answered = stats.reads_answered;
    ret->saves = stats.saves;
    ret->synced_saves = stats.synced_saves;
    ret->saved_entries = stats.saved_entries;
    ret->messages_sent = stats.messages_sent;
    ret->messages_received = stats.messages_received;
    ret->passes = stats.passes;
    ret->saved_updates = stats.saved_updates;
    ret->batches_sent = stats.batches_sent;
    ret->apply_calls = stats.apply_calls;
}
