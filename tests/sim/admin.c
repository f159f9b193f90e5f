/* Members come and go, leaderships move: at random, by whoever is asked, with an old or a new view of who is there. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"

#define CHANGES_MAX 3u

/* ---- requests ---- */

static void ended(struct sim_host *h)
{
    if (h->n_requests == 0)
        sim_fail("a wish ends after its host %u has stopped", h->id + 1);
    h->n_requests--;
}

static void on_change_end(void *ctx, const struct nh_outcome *outcome)
{
    ended(ctx);
    sim.coverage.config_changes += outcome->code == NH_REQUEST_COMPLETED;
    sim.coverage.config_rejected += outcome->code == NH_REQUEST_REJECTED;
    sim.coverage.config_dropped += outcome->code == NH_REQUEST_DROPPED;
    if (outcome->code == NH_REQUEST_COMPLETED && outcome->index == 0)
        sim_fail("a configuration change completes without an index");
    sim_note((uint64_t)outcome->code);
}

static void on_transfer_end(void *ctx, const struct nh_outcome *outcome)
{
    ended(ctx);
    sim.coverage.transfers_done += outcome->code == NH_REQUEST_COMPLETED;
    sim.coverage.transfers_refused += outcome->code == NH_REQUEST_REJECTED || outcome->code == NH_REQUEST_DROPPED;
    sim.coverage.transfers_late += outcome->code == NH_REQUEST_TIMEOUT;
    sim_note((uint64_t)outcome->code);
}

static void on_other_end(void *ctx, const struct nh_outcome *outcome)
{
    (void)outcome;
    ended(ctx);
}

static void propose(struct sim_host *h, uint64_t shard, const struct nh_config_change *change)
{
    uint8_t payload[2048];
    struct engine_proposal_kind kind = {.type = NH_ENTRY_CONFIG_CHANGE};
    struct nh_proposal p = {.cmd = payload, .fn = on_change_end, .ctx = h};

    p.size_bytes = config_change_encode(change, payload, sizeof payload);
    h->n_requests++;
    if (engine_propose_as(h->engine, shard, kind, &p, runtime_now_ns(h->runtime) + (100 + sim_below(2000)) * SIM_MS, NULL) < 0)
        h->n_requests--;
}

/* ---- leaderships ---- */

static uint64_t any_member(const struct nh_membership *m)
{
    return m->n_members && sim_chance(95) ? m->members[sim_below(m->n_members)].replica_id : 1 + sim_below(40);
}

static void move_leader(struct sim_host *h, uint64_t shard, const struct nh_membership *m)
{
    int r;

    h->n_requests++;
    switch (sim_below(8)) {
    case 0:
        r = engine_campaign(h->engine, shard, NULL);
        h->n_requests--;
        sim.coverage.campaigns += r == NH_OK;
        break;
    case 1:
        r = engine_forget_leader(h->engine, shard, NULL);
        h->n_requests--;
        sim.coverage.forgotten_leaders += r == NH_OK;
        break;
    case 2:
        if (engine_look_at_peers(h->engine, shard, on_other_end, h, NULL) < 0)
            h->n_requests--;
        break;
    default:
        if (engine_transfer(h->engine, shard, any_member(m), on_transfer_end, h, NULL) < 0)
            h->n_requests--;
        break;
    }
}

/* ---- members ---- */

static uint32_t any_kind(void)
{
    uint64_t n = sim_below(100);

    if (n >= 90)
        sim.coverage.witnesses++;
    return n < 55 ? NH_MEMBER_VOTER : n < 90 ? NH_MEMBER_NON_VOTING : NH_MEMBER_WITNESS;
}

static struct nh_member_change add_host(uint64_t shard)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];
    struct nh_member_change c = {.type = NH_CONFIG_ADD_MEMBER, .member = {.kind = any_kind()}};

    host_join(h, shard);
    c.member.replica_id = h->replica[shard];
    strcpy(c.member.address, h->address);
    return c;
}

static struct nh_member_change change_member(const struct nh_membership *m)
{
    struct nh_member_change c = {.type = NH_CONFIG_REMOVE_MEMBER};

    if (m->n_members == 0 || sim_chance(5)) {
        c.member.replica_id = 1 + sim_below(40);
        return c;
    }
    c.member = m->members[sim_below(m->n_members)];
    c.member.outgoing = false;
    if (sim_chance(50))
        return c;
    c.type = NH_CONFIG_ADD_MEMBER; /* promote, or demote */
    c.member.kind = c.member.kind == NH_MEMBER_VOTER ? NH_MEMBER_NON_VOTING : NH_MEMBER_VOTER;
    return c;
}

static struct nh_member_change any_change(uint64_t shard, const struct nh_membership *m)
{
    return sim_chance(m->n_members < 4 ? 70 : 35) ? add_host(shard) : change_member(m);
}

static void change_members(struct sim_host *h, uint64_t shard, const struct nh_membership *m)
{
    struct nh_member_change changes[CHANGES_MAX];
    struct nh_config_change c = {.config_change_id = sim_chance(30) ? m->config_change_id : 0};

    if (sim_chance(m->joint ? 60 : 3)) {
        c.type = NH_CONFIG_LEAVE_JOINT;
        propose(h, shard, &c);
        return;
    }
    changes[0] = any_change(shard, m);
    c.type = changes[0].type;
    c.member = changes[0].member;
    if (sim_chance(35)) {
        c.type = NH_CONFIG_CHANGE_MANY;
        c.transition = (uint32_t)sim_below(3);
        c.n_changes = 1 + (uint32_t)sim_below(CHANGES_MAX);
        c.changes = changes;
        for (uint32_t i = 1; i < c.n_changes; i++)
            changes[i] = any_change(shard, m);
    }
    propose(h, shard, &c);
}

void admin_act(void)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];
    uint64_t shard = 1 + sim_below(sim.options.n_shards);
    struct nh_membership m = {0};

    if (!h->up || host_is_paused(h) || engine_get_membership(h->engine, shard, &m, NULL) < 0)
        return;
    if (sim.options.moves && (!sim.options.churn || sim_chance(40)))
        move_leader(h, shard, &m);
    else if (sim.options.churn)
        change_members(h, shard, &m);
    nh_membership_deinit(&m);
}

/* ---- snapshots ---- */

static void on_snapshot_end(void *ctx, const struct nh_outcome *outcome)
{
    ended(ctx);
    sim.coverage.snapshots_asked += outcome->code == NH_REQUEST_COMPLETED && !outcome->data;
    sim.coverage.exports += outcome->code == NH_REQUEST_COMPLETED && outcome->data;
    sim.coverage.snapshots_refused += outcome->code == NH_REQUEST_REJECTED;
    if (outcome->code == NH_REQUEST_COMPLETED && outcome->index == 0)
        sim_fail("a snapshot is made without an index");
    if (outcome->code == NH_REQUEST_REJECTED && outcome->size_bytes == 0)
        sim_fail("a snapshot is refused without a reason");
    if (outcome->code == NH_REQUEST_COMPLETED && outcome->data)
        images_check_export(ctx, outcome->data, outcome->index);
    sim_note((uint64_t)outcome->code);
}

void admin_snapshot(void)
{
    struct sim_host *h = sim.hosts[sim_below(sim.options.n_hosts)];
    uint64_t shard = 1 + sim_below(sim.options.n_shards), overhead = sim_chance(50) ? ENGINE_NEVER : sim_below(10);
    bool is_export = sim_chance(20);

    if (!sim.options.snapshots || !h->up || host_is_paused(h))
        return;
    h->n_requests++;
    if (engine_snapshot(h->engine, shard, is_export ? images_export_dir(h, shard) : NULL, overhead, on_snapshot_end, h, NULL) < 0)
        h->n_requests--;
}

/* ---- what is true now ---- */

bool admin_membership(uint64_t shard, struct nh_membership *ret)
{
    bool found = false;

    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct nh_membership m = {0};

        if (!sim.hosts[i]->up || engine_get_membership(sim.hosts[i]->engine, shard, &m, NULL) < 0)
            continue;
        if (found && m.config_change_id <= ret->config_change_id) {
            nh_membership_deinit(&m);
            continue;
        }
        if (found)
            nh_membership_deinit(ret);
        *ret = m;
        found = true;
    }
    return found;
}

bool admin_is_served(const struct sim_host *h, uint64_t shard)
{
    struct nh_membership m = {0};
    const struct nh_member *self;
    bool served;

    if (!sim.options.churn)
        return true;
    if (!admin_membership(shard, &m))
        return false;
    self = nh_membership_find(&m, h->replica[shard]);
    served = self && (self->kind == NH_MEMBER_VOTER || self->kind == NH_MEMBER_NON_VOTING);
    nh_membership_deinit(&m);
    return served;
}

void admin_leave_joint(uint64_t shard)
{
    struct nh_config_change c = {.type = NH_CONFIG_LEAVE_JOINT};

    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        if (!admin_is_served(sim.hosts[i], shard) || !sim.hosts[i]->up)
            continue;
        propose(sim.hosts[i], shard, &c);
        return;
    }
}
