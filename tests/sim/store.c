/* The memory log store, of which a host sometimes cannot read what is stored of one replica: a damaged block. Then nothing of
 * that call is written, and the store goes on (raftio/logdb.h). The replica ends in quarantine, and when it is started again all
 * can be read. */
#include <inttypes.h>

#include "tests/sim/sim.h"

static struct sim_host *host_of(const struct nh_logdb *db)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++)
        if (sim.hosts[i]->logdb == db)
            return sim.hosts[i];
    return NULL;
}

static int check(const struct nh_logdb *db, uint64_t shard, struct nh_error *err)
{
    struct sim_host *h = host_of(db);

    if (!h || h->unreadable != shard || h->reads_before-- > 0)
        return NH_OK;
    h->reads_before = 0;
    h->could_not_read = true;
    h->n_damaged++;
    sim_log("host %u: a block of shard %" PRIu64 " is damaged", h->id + 1, shard);
    sim.coverage.damaged_blocks++;
    return nh_error_set(err, NH_ECORRUPT, "shard %" PRIu64 ": a damaged block", shard);
}

static int save(struct nh_logdb *db, const struct nh_update *updates, size_t n, uint32_t worker_id, struct nh_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (check(db, updates[i].shard_id, err) < 0)
            return NH_ECORRUPT;
    return nh_logdb_memory()->save_raft_state(db, updates, n, worker_id, err);
}

static int save_snapshots(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct nh_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (check(db, updates[i].shard_id, err) < 0)
            return NH_ECORRUPT;
    return nh_logdb_memory()->save_snapshots(db, updates, n, err);
}

static int iterate(struct nh_logdb *db, uint64_t shard, uint64_t replica, uint64_t low, uint64_t high, size_t max_bytes,
                   const struct nh_entry_sink *sink, struct nh_error *err)
{
    int r = check(db, shard, err);

    return r < 0 ? r : nh_logdb_memory()->iterate_entries(db, shard, replica, low, high, max_bytes, sink, err);
}

static int remove_to(struct nh_logdb *db, uint64_t shard, uint64_t replica, uint64_t index, struct nh_error *err)
{
    int r = check(db, shard, err);

    return r < 0 ? r : nh_logdb_memory()->remove_entries_to(db, shard, replica, index, err);
}

const struct nh_logdb_ops *store_ops(void)
{
    static struct nh_logdb_ops ops;

    ops = *nh_logdb_memory();
    ops.save_raft_state = save;
    ops.save_snapshots = save_snapshots;
    ops.iterate_entries = iterate;
    ops.remove_entries_to = remove_to;
    return &ops;
}

void store_damage(struct sim_host *h)
{
    if (h->could_not_read) /* its quarantine is on its way */
        return;
    h->unreadable = 1 + sim_below(sim.options.n_shards);
    h->reads_before = (uint32_t)sim_below(sim_chance(50) ? 4 : 40);
}

void store_forget_damage(struct sim_host *h)
{
    h->unreadable = 0;
    h->could_not_read = false;
}

bool store_excuses(struct sim_host *h, uint64_t shard)
{
    if (!h->could_not_read || h->unreadable != shard)
        return false;
    store_forget_damage(h);
    return true;
}

void store_repair(struct sim_host *h)
{
    if (!h->could_not_read)
        h->unreadable = 0;
}
