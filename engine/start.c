/* How a replica comes to be: what is checked, what it starts from, what it is made of. */
#include "engine/engine.h"

#include <inttypes.h>
#include <stdlib.h>

#include "engine/bootstrap.h"
#include "engine/engine_private.h"
#include "engine/replica.h"
#include "engine/rsm/sessions.h"
#include "engine/step_worker.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define DEFAULT_SNAPSHOT_ENTRIES    100000u
#define DEFAULT_SNAPSHOT_BYTES      (256u << 20)
#define DEFAULT_COMPACTION_OVERHEAD 5000u

/* Keeps others from starting the same shard meanwhile. */
static int reserve(struct engine *e, uint64_t shard_id, struct nh_error *err)
{
    bool taken;

    pthread_rwlock_wrlock(&e->routes_lock);
    taken = map_get(&e->routes, shard_id) || map_get(&e->starting, shard_id);
    if (!taken)
        map_put(&e->starting, shard_id, e);
    pthread_rwlock_unlock(&e->routes_lock);
    return taken ? nh_error_set(err, NH_EEXIST, "it has a replica on this host that runs, starts or stops") : NH_OK;
}

/* `r` NULL: it did not start. Its START is posted under the lock: before any request can find it, and it cannot stop by itself
 * (a removed replica does) and be forgotten before it is known. */
static void unreserve(struct engine *e, uint64_t shard_id, struct replica *r)
{
    pthread_rwlock_wrlock(&e->routes_lock);
    map_remove(&e->starting, shard_id);
    if (r) {
        step_worker_post_replica(r->step, STEP_START, r);
        map_put(&e->routes, shard_id, r);
    }
    pthread_rwlock_unlock(&e->routes_lock);
}

static void set_keys(struct engine *e, struct replica *r)
{
    const struct used_keys *used;
    uint64_t first = e->config.incarnation << REPLICA_KEY_SHIFT | 1;

    pthread_rwlock_rdlock(&e->routes_lock);
    used = map_get(&e->used_keys, r->shard_id);
    r->ring.base = r->ring.next = used ? used->next_proposal : first;
    r->next_read = used ? used->next_read : first;
    pthread_rwlock_unlock(&e->routes_lock);
}

static uint64_t or_default(uint64_t value, uint64_t otherwise)
{
    return value ? value : otherwise;
}

/* The machine, and where it starts from. */
static void set_snapshots(struct replica *r, const struct engine_replica_config *c, struct bootstrap_result *boot,
                          const struct snapshot_dir *dir)
{
    struct rsm_config rsm = {c->shard_id, c->replica_id, c->machine, c->machine_dir, boot->boot.last_index, dir->files};

    r->rsm = rsm_new(&rsm);
    r->has_place = dir->files != NULL;
    r->has_snapshots = r->has_place && rsm_can_snapshot(r->rsm, NULL) == NH_OK;
    r->snapshot_entries = or_default(c->snapshot_entries, DEFAULT_SNAPSHOT_ENTRIES);
    r->snapshot_bytes = or_default(c->snapshot_bytes, DEFAULT_SNAPSHOT_BYTES);
    r->compaction_overhead = or_default(c->compaction_overhead, DEFAULT_COMPACTION_OVERHEAD);
    r->snapshots_kept = (uint32_t)or_default(c->snapshots_kept, 1);
    r->compression = c->compress_snapshots ? IMAGE_ZSTD : IMAGE_STORED;
    if (boot->snapshot.index > 0) {
        r->boot_snapshot = xcalloc(1, sizeof *r->boot_snapshot);
        nh_snapshot_copy(r->boot_snapshot, &boot->snapshot);
    }
    r->compacted = boot->boot.first_index - 1;
    r->handed = r->told_applied = r->applied = boot->snapshot.index;
}

/* NULL: it was saved in an earlier life, or others are to send it. */
static struct first_save *take_first_save(struct bootstrap_result *boot)
{
    struct first_save *first;

    if (!boot->save_first)
        return NULL;
    first = xcalloc(1, sizeof *first);
    *first = (struct first_save){boot->boot.state, boot->first};
    boot->first = (struct run_list){0};
    return first;
}

static struct replica *replica_new(struct engine *e, const struct engine_replica_config *c, struct bootstrap_result *boot,
                                   const struct snapshot_dir *dir, struct raft *raft)
{
    struct replica *r = xcalloc(1, sizeof *r);

    r->engine = e;
    r->step = e->step_workers[hash_u64(c->shard_id) % e->config.n_step_workers];
    r->apply = e->apply_workers[hash_u64(c->shard_id) / e->config.n_step_workers % e->config.n_apply_workers];
    r->shard_id = c->shard_id;
    r->replica_id = c->replica_id;
    set_snapshots(r, c, boot, dir);
    r->election_ticks = c->election_rtt;
    r->uses_leases = c->lease_reads;
    r->sessions_max = (uint32_t)or_default(c->sessions_max, SESSIONS_DEFAULT);
    r->boot_commit = boot->boot.state.commit;
    r->refs = 2; /* the routes and the apply worker; the START item brings the step worker's */
    pthread_mutex_init(&r->lock, NULL);
    r->notify.type = STEP_NOTIFY;
    r->earliest_ns = r->reads_earliest_ns = REQUESTS_NO_DEADLINE;
    r->status = (struct engine_replica_status){
        .shard_id = c->shard_id,
        .replica_id = c->replica_id,
        .term = boot->boot.state.term,
        .first_index = boot->boot.first_index,
        .last_index = boot->boot.last_index,
        .commit_index = boot->boot.state.commit,
        .applied_index = boot->snapshot.index,
        .snapshot_index = boot->snapshot.index,
    };
    set_keys(e, r);
    r->raft = raft;
    list_init(&r->active);
    timer_init(&r->timer);
    list_init(&r->reads_waiting);
    list_init(&r->reads_handed);
    list_init(&r->reads_confirmed);
    r->first_save = take_first_save(boot);
    return r;
}

static int make_raft(struct engine *e, const struct engine_replica_config *c, struct bootstrap_result *boot, struct raft **ret,
                     struct nh_error *err)
{
    struct raft_options options = {
        .shard_id = c->shard_id,
        .replica_id = c->replica_id,
        .election_ticks = c->election_rtt,
        .heartbeat_ticks = c->heartbeat_rtt,
        .pre_vote = c->pre_vote,
        .check_quorum = c->check_quorum,
        .quiesce = c->quiesce,
        .lease_reads = c->lease_reads,
        .lease_drift_percent = c->lease_drift_percent,
        .priority = c->priority,
        .lazy_commit = true,
        .lazy_heartbeat = c->election_rtt >= 4 * (uint64_t)c->heartbeat_rtt + 2,
        .max_uncommitted_bytes = c->max_uncommitted_bytes,
        .max_unapplied_bytes = c->max_unapplied_bytes,
        .seed = hash_u64(e->config.seed ^ hash_u64(c->shard_id) ^ c->replica_id),
    };

    boot->boot.now = engine_now_ns(e) / 1000000u / e->config.rtt_ms;
    return raft_new(&options, &boot->boot, ret, err);
}

static int register_members(struct engine *e, uint64_t shard_id, const struct nh_membership *m, struct nh_error *err)
{
    int r = NH_OK;

    for (uint32_t i = 0; i < m->n_members && r == NH_OK; i++)
        r = e->config.registry_ops->add(e->config.registry, shard_id, m->members[i].replica_id, m->members[i].address, err);
    return plugin_status(r, "the registry's add", err);
}

/* Removes what an earlier life left behind. */
static int open_snapshot_dir(struct engine *e, const struct engine_replica_config *c, const struct bootstrap_result *boot,
                             struct snapshot_dir *ret, struct nh_error *err)
{
    int r;

    if (!e->config.files)
        return NH_OK;
    r = snapshot_dir_name(ret, e->config.files, e->snapshot_root, c->shard_id, c->replica_id, err);
    return r < 0 ? r : snapshot_dir_clean(ret, boot->snapshot.index, (uint32_t)or_default(c->snapshots_kept, 1), err);
}

static int start_reserved(struct engine *e, const struct engine_replica_config *c, struct nh_error *err)
{
    struct bootstrap_result boot = {0};
    struct snapshot_dir dir = {0};
    struct raft *raft = NULL;
    struct replica *r = NULL;
    int rc = bootstrap_replica(&e->config, c, &boot, err);

    if (rc == NH_OK)
        rc = register_members(e, c->shard_id, &boot.members, err);
    if (rc == NH_OK)
        rc = open_snapshot_dir(e, c, &boot, &dir, err);
    if (rc == NH_OK)
        rc = make_raft(e, c, &boot, &raft, err);
    if (rc == NH_OK)
        r = replica_new(e, c, &boot, &dir, raft);
    unreserve(e, c->shard_id, r);
    bootstrap_result_deinit(&boot);
    return rc;
}

static int check_machine(struct engine *e, const struct engine_replica_config *c, struct nh_error *err)
{
    struct rsm_config rc = {.shard_id = c->shard_id, .machine = c->machine};
    struct rsm *s;
    int r = NH_OK;

    if (c->machine->kind > NH_MACHINE_ON_DISK)
        return nh_error_set(err, NH_EUNSUPPORTED, "machine \"%s\" is of the unknown kind %" PRIu32, c->machine->name,
                            c->machine->kind);
    if (c->machine->kind == NH_MACHINE_REGULAR)
        return NH_OK; /* it may do without snapshots */
    if (!e->config.files)
        return nh_error_set(err, NH_EUNSUPPORTED, "this host has no place for snapshots");
    s = rsm_new(&rc);
    r = rsm_can_snapshot(s, err);
    rsm_free(s);
    return r;
}

static int check_replica_config(struct engine *e, const struct engine_replica_config *c, struct nh_error *err)
{
    if (!engine_is_running(e))
        return nh_error_set(err, NH_ECLOSED, "the host is being closed");
    if (engine_is_fenced(e))
        return nh_error_set(err, NH_EFENCED, "%s", nh_status_text(NH_EFENCED));
    if (c->shard_id == NH_NO_SHARD || c->replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "shard or replica id is 0");
    return check_machine(e, c, err);
}

int engine_start_replica(struct engine *e, const struct engine_replica_config *config, struct nh_error *err)
{
    int r = check_replica_config(e, config, err);

    if (r == NH_OK)
        r = reserve(e, config->shard_id, err);
    if (r == NH_OK)
        r = start_reserved(e, config, err);
    return r < 0 ? nh_error_wrap(err, r, "start replica %" PRIu64 " of shard %" PRIu64, config->replica_id, config->shard_id)
                 : NH_OK;
}
