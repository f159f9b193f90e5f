/* What must hold, whatever happens:
 *
 *   election safety        one leader per shard and term
 *   leader completeness    a new leader's log reaches as far as anything that was applied before
 *   state machine safety   the same command at the same index on every host, in every life
 *   durability             what is applied anywhere for the first time lies, synced, on a majority of disks (looked up there)
 *   exactly once           no command is applied at two indexes
 *   log matching           two logs with the same term at an index are the same up to it (read from the disks)
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "tests/sim/sim.h"

struct shard_truth {
    uint64_t *ids; /* by index: which command was applied there; 0: none yet */
    size_t cap_ids;
    uint64_t max_applied;
    uint64_t *leaders; /* by term */
    size_t cap_leaders;
};
struct election {
    uint32_t host;
    uint64_t shard, term, must_reach;
};

static struct shard_truth truth[SIM_SHARDS_MAX + 1];
static uint64_t *index_of_id; /* ids are counted over all shards */
static size_t cap_index_of_id;
static struct election elections[1024];
static size_t n_elections;

void oracle_init(void)
{
    oracle_deinit();
}

void oracle_deinit(void)
{
    for (uint32_t s = 0; s <= SIM_SHARDS_MAX; s++) {
        free(truth[s].ids);
        free(truth[s].leaders);
    }
    memset(truth, 0, sizeof truth);
    free(index_of_id);
    index_of_id = NULL;
    cap_index_of_id = 0;
    n_elections = 0;
}

/* A zeroed array that grows as needed. */
static uint64_t *at(uint64_t **array, size_t *cap, uint64_t i)
{
    size_t before = *cap;

    array_reserve((void **)array, cap, i + 1, sizeof **array);
    memset(*array + before, 0, (*cap - before) * sizeof **array);
    return *array + i;
}

uint64_t oracle_index_of(uint64_t shard, uint64_t id)
{
    (void)shard;
    return *at(&index_of_id, &cap_index_of_id, id);
}

/* ---- applied ---- */

static int see_command(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct sim_command *c = ctx;
    struct nh_entry_view e;

    (void)err;
    (void)size_bytes;
    nh_record_view(records, &e);
    if (e.payload_bytes >= sizeof *c)
        memcpy(c, e.payload, sizeof *c);
    return NH_OK;
}

static uint32_t count_disks(uint64_t shard, uint64_t index, uint64_t id)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct sim_command c = {0};
        struct nh_entry_sink sink = {see_command, &c};

        if (memory_disk_iterate(sim.hosts[i]->disk, shard, i + 1, index, index + 1, &sink, NULL) == NH_OK && c.id == id)
            n++;
    }
    return n;
}

static void first_applied(uint64_t shard, uint64_t index, uint64_t id)
{
    uint64_t *known = at(&index_of_id, &cap_index_of_id, id);
    uint32_t n = count_disks(shard, index, id);

    if (*known)
        sim_fail("shard %" PRIu64 ": write %" PRIu64 " is applied at index %" PRIu64 " and at %" PRIu64, shard, id, *known,
                 index);
    if (n < sim.options.n_hosts / 2 + 1)
        sim_fail("shard %" PRIu64 ": write %" PRIu64 " at index %" PRIu64 " is applied, but synced on %u disks of %u only", shard,
                 id, index, n, sim.options.n_hosts);
    *known = index;
    if (index > truth[shard].max_applied)
        truth[shard].max_applied = index;
}

void oracle_applied(const struct sim_host *h, uint64_t shard, uint64_t index, const struct sim_command *command)
{
    uint64_t *id = at(&truth[shard].ids, &truth[shard].cap_ids, index);

    if (*id && *id != command->id)
        sim_fail("shard %" PRIu64 " index %" PRIu64 ": host %u applies write %" PRIu64 ", others applied %" PRIu64, shard, index,
                 h->id + 1, command->id, *id);
    if (!*id) {
        first_applied(shard, index, command->id);
        *id = command->id;
        sim.coverage.applied++;
    } else {
        sim.coverage.replayed++;
    }
    sim_note(index * 31 + command->id);
}

/* ---- leaders ---- */

void oracle_leader(const struct sim_host *h, const struct nh_leader_info *info)
{
    uint64_t *leader;

    if (info->leader_id == NH_NO_LEADER)
        return;
    leader = at(&truth[info->shard_id].leaders, &truth[info->shard_id].cap_leaders, info->term);
    if (*leader && *leader != info->leader_id)
        sim_fail("shard %" PRIu64 " term %" PRIu64 " has two leaders, replica %" PRIu64 " and replica %" PRIu64, info->shard_id,
                 info->term, *leader, info->leader_id);
    *leader = info->leader_id;
    if (info->leader_id != info->replica_id || n_elections == sizeof elections / sizeof *elections)
        return;
    sim.coverage.leaders++;
    elections[n_elections++] = (struct election){h->id, info->shard_id, info->term, truth[info->shard_id].max_applied};
}

void oracle_check_leaders(void)
{
    for (size_t i = 0; i < n_elections; i++) {
        const struct election *e = &elections[i];
        struct sim_host *h = sim.hosts[e->host];
        struct engine_replica_status s;

        if (!h->up || engine_get_status(h->engine, e->shard, &s, NULL) < 0 || s.term != e->term || s.role != RAFT_LEADER)
            continue;
        if (s.last_index < e->must_reach)
            sim_fail("shard %" PRIu64 ": replica %u leads term %" PRIu64 " with a log up to %" PRIu64 ", but %" PRIu64
                     " was applied before",
                     e->shard, e->host + 1, e->term, s.last_index, e->must_reach);
    }
    n_elections = 0;
}

/* ---- logs on disks ---- */

struct log_entry {
    uint64_t term;
    uint32_t crc;
};
struct log_copy {
    struct log_entry *entries; /* by index - first */
    size_t n, cap;
    uint64_t first;
};

static int copy_records(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct log_copy *l = ctx;

    (void)err;
    for (const uint8_t *p = records; p < records + size_bytes; p += nh_record_bytes(p)) {
        array_reserve((void **)&l->entries, &l->cap, l->n + 1, sizeof *l->entries);
        if (l->n == 0)
            l->first = nh_record_index(p);
        l->entries[l->n++] = (struct log_entry){nh_record_term(p), nh_load_u32(p)};
    }
    return NH_OK;
}

static void copy_log(uint32_t host, uint64_t shard, struct log_copy *ret)
{
    struct nh_entry_sink sink = {copy_records, ret};
    struct nh_raft_state state;

    *ret = (struct log_copy){.first = 1};
    if (memory_disk_read_state(sim.hosts[host]->disk, shard, host + 1, &state, NULL) < 0 || state.last_index < state.first_index)
        return;
    memory_disk_iterate(sim.hosts[host]->disk, shard, host + 1, state.first_index, state.last_index + 1, &sink, NULL);
}

/* 0, or the index at which two logs differ below an index where their terms agree. */
static uint64_t find_mismatch(const struct log_copy *a, const struct log_copy *b)
{
    size_t n = a->n < b->n ? a->n : b->n;

    while (n > 0 && a->entries[n - 1].term != b->entries[n - 1].term)
        n--;
    for (size_t i = 0; i < n; i++)
        if (a->entries[i].term != b->entries[i].term || a->entries[i].crc != b->entries[i].crc)
            return a->first + i;
    return 0;
}

void oracle_check_logs(void)
{
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        struct log_copy logs[SIM_HOSTS_MAX];

        for (uint32_t i = 0; i < sim.options.n_hosts; i++)
            copy_log(i, shard, &logs[i]);
        for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
            for (uint32_t k = 0; k < i; k++) {
                uint64_t index = find_mismatch(&logs[i], &logs[k]);

                if (index)
                    sim_fail("shard %" PRIu64 ": the logs of hosts %u and %u differ at index %" PRIu64 " and agree later", shard,
                             k + 1, i + 1, index);
            }
        }
        for (uint32_t i = 0; i < sim.options.n_hosts; i++)
            free(logs[i].entries);
    }
}

/* The rule that reads logs can see a difference. */
void oracle_self_test(void)
{
    struct log_entry x[] = {{1, 10}, {2, 20}, {2, 30}}, y[] = {{1, 10}, {1, 21}, {2, 30}}, z[] = {{1, 10}, {1, 21}};
    struct log_copy a = {x, 3, 3, 1}, b = {y, 3, 3, 1}, c = {z, 2, 2, 1};

    if (find_mismatch(&a, &b) != 2 || find_mismatch(&a, &c) != 0 || find_mismatch(&a, &a) != 0)
        sim_fail("self-test: log matching");
}
