/* Starting and stopping replicas. */
#include "nodehost/host_private.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rsm/sessions.h"
#include "nodehost/loader.h"
#include "nodehost/places.h"
#include "raftio/support/memory.h"

#define DEFAULT_ELECTION_RTT  10u
#define DEFAULT_HEARTBEAT_RTT 1u
#define ELECTION_RTT_MAX      100000u
#define SNAPSHOTS_KEPT_MAX    64u

int host_check_may_block(struct nh_error *err)
{
    if (runtime_on_worker_thread() || events_on_thread())
        return nh_error_set(err, NH_EDEADLOCK,
                            "a blocking call from a completion, a listener or a machine: use the asynchronous form");
    return NH_OK;
}

static int take_config(const struct nh_replica_config *given, struct nh_replica_config *c, struct nh_error *err)
{
    if (!given || given->struct_size < offsetof(struct nh_replica_config, members))
        return nh_error_set(err, NH_EINVAL, "the configuration is NULL or has no struct_size: begin with NH_REPLICA_CONFIG_INIT");
    *c = (struct nh_replica_config)NH_REPLICA_CONFIG_INIT;
    memcpy(c, given, given->struct_size < sizeof *c ? given->struct_size : sizeof *c);
    c->election_rtt = c->election_rtt ? c->election_rtt : DEFAULT_ELECTION_RTT;
    c->heartbeat_rtt = c->heartbeat_rtt ? c->heartbeat_rtt : DEFAULT_HEARTBEAT_RTT;
    return NH_OK;
}

static bool machine_is_whole(const struct nh_machine_ops *m)
{
    return m && m->abi_version == NH_MACHINE_ABI && m->struct_size >= offsetof(struct nh_machine_ops, hash) && m->name &&
           m->name[0] && m->open && m->update && m->lookup && m->close;
}

static int check_config(const struct nh_replica_config *c, struct nh_error *err)
{
    int r = NH_OK;

    if (!machine_is_whole(c->machine))
        return nh_error_set(err, NH_EINVAL, "the machine is NULL, of another ABI, or lacks a required function");
    if (c->n_members > 0 && !c->members)
        return nh_error_set(err, NH_EINVAL, "%" PRIu32 " members, but the list is NULL", c->n_members);
    if (c->n_members > NH_MEMBERS_MAX)
        return nh_error_set(err, NH_EINVAL, "%" PRIu32 " members, the limit is %u", c->n_members, NH_MEMBERS_MAX);
    if (c->election_rtt > ELECTION_RTT_MAX || c->election_rtt / 2 < c->heartbeat_rtt)
        return nh_error_set(err, NH_EINVAL,
                            "election_rtt %" PRIu32 " must be more than twice heartbeat_rtt %" PRIu32 " and at most %u",
                            c->election_rtt, c->heartbeat_rtt, ELECTION_RTT_MAX);
    if (c->snapshots_kept > SNAPSHOTS_KEPT_MAX)
        return nh_error_set(err, NH_EINVAL, "snapshots_kept is %" PRIu32 ", the limit is %u", c->snapshots_kept,
                            SNAPSHOTS_KEPT_MAX);
    if (c->sessions_max > SESSIONS_MAX)
        return nh_error_set(err, NH_EINVAL, "sessions_max is %" PRIu32 ", the limit is %u", c->sessions_max, SESSIONS_MAX);
    for (uint32_t i = 0; i < c->n_members; i++)
        if (c->members[i].kind > NH_MEMBER_WITNESS)
            return nh_error_set(err, NH_EINVAL, "member %" PRIu64 " is of unknown kind %" PRIu32, c->members[i].replica_id,
                                c->members[i].kind);
    for (uint32_t i = 0; i < c->n_members && r == NH_OK; i++) {
        if (!memchr(c->members[i].address, 0, NH_ADDRESS_BYTES))
            return nh_error_set(err, NH_EINVAL, "the address of member %" PRIu64 " is too long", c->members[i].replica_id);
        r = host_check_address(c->members[i].address, err);
    }
    return r;
}

static int by_replica_id(const void *a, const void *b)
{
    uint64_t x = ((const struct nh_member *)a)->replica_id, y = ((const struct nh_member *)b)->replica_id;

    return (x > y) - (x < y);
}

static int start(struct nh_host *host, const struct nh_replica_config *c, struct nh_error *err)
{
    struct nh_membership initial = {.n_members = c->n_members};
    char machine_dir[PLACE_PATH_BYTES];
    struct engine_replica_config ec = {
        .shard_id = c->shard_id,
        .replica_id = c->replica_id,
        .machine = c->machine,
        .machine_hash = loader_machine_hash(c->machine),
        .pin_machine = c->pin_machine,
        .initial = &initial,
        .join = c->join,
        .election_rtt = c->election_rtt,
        .heartbeat_rtt = c->heartbeat_rtt,
        .pre_vote = c->pre_vote,
        .check_quorum = c->check_quorum,
        .quiesce = c->quiesce,
        .lease_reads = c->lease_reads,
        .lease_drift_percent = c->lease_drift_percent,
        .priority = c->priority,
        .max_uncommitted_bytes = c->max_uncommitted_bytes,
        .max_unapplied_bytes = c->max_unapplied_bytes,
        .snapshot_entries = c->snapshot_entries,
        .snapshot_bytes = c->snapshot_bytes,
        .compaction_overhead = c->compaction_overhead,
        .snapshots_kept = c->snapshots_kept,
        .compress_snapshots = c->compress_snapshots,
        .sessions_max = c->sessions_max,
    };
    int r = NH_OK;

    if (c->machine->kind == NH_MACHINE_ON_DISK) {
        r = place_make_machine(&host->data_dir, c->shard_id, c->replica_id, machine_dir, err);
        ec.machine_dir = machine_dir;
    }
    if (r < 0)
        return nh_error_wrap(err, r, "start replica %" PRIu64 " of shard %" PRIu64, c->replica_id, c->shard_id);
    if (c->n_members > 0) {
        initial.members = xmemdup(c->members, c->n_members * sizeof *c->members);
        qsort(initial.members, initial.n_members, sizeof *initial.members, by_replica_id);
    }
    r = engine_start_replica(host->engine, &ec, err);
    nh_membership_deinit(&initial);
    return r;
}

int nh_host_start_replica(struct nh_host *host, const struct nh_replica_config *config, struct nh_error *err)
{
    struct nh_replica_config c;
    int r = host_check_may_block(err);

    if (r == NH_OK)
        r = take_config(config, &c, err);
    if (r < 0)
        return r;
    r = check_config(&c, err);
    if (r < 0)
        return nh_error_wrap(err, r, "start replica %" PRIu64 " of shard %" PRIu64, c.replica_id, c.shard_id);
    return start(host, &c, err);
}

/* With host->lock held: has the replica that it waits for been unloaded? It is forgotten before that is told; what was told may
 * be of one before it. */
static bool is_unloaded(struct nh_host *host, struct stop_waiter *w)
{
    w->done = w->done && !engine_is_stopping(host->engine, w->shard_id);
    return w->done;
}

int nh_host_stop_replica(struct nh_host *host, uint64_t shard_id, struct nh_error *err)
{
    struct stop_waiter waiter = {.shard_id = shard_id}, **at;
    int r = host_check_may_block(err);

    if (r < 0)
        return r;
    pthread_mutex_lock(&host->lock);
    waiter.next = host->waiters;
    host->waiters = &waiter;
    pthread_mutex_unlock(&host->lock);
    r = engine_stop_replica(host->engine, shard_id, err);
    pthread_mutex_lock(&host->lock);
    while (r == NH_OK && !is_unloaded(host, &waiter))
        pthread_cond_wait(&host->unloaded, &host->lock);
    for (at = &host->waiters; *at != &waiter;)
        at = &(*at)->next;
    *at = waiter.next;
    pthread_mutex_unlock(&host->lock);
    return r;
}
