/* Random walks: messages are lost, doubled and reordered, nodes crash and lose what is not stored, logs are compacted, the
 * configuration changes. What is applied at an index is the same everywhere, a term has one leader, and in the end all agree. */
#include "tests/conformance/raft-core/smoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS      3000u
#define TERMS      8192u
#define INDEXES    16384u
#define WORK       64u
#define NET_MAX    400u
#define MEMBERS    5u
#define HEAL_TICKS 200u
#define SLACK      5u

struct chaos {
    struct smoke s;
    uint64_t random;
    uint64_t leader_of[TERMS];
    uint64_t history[INDEXES];        /* a digest of what was applied at an index */
    rct_msg *work[SMOKE_NODES][WORK]; /* of the storage threads, oldest first */
    uint32_t n_work[SMOKE_NODES];
    rct_msg *net[NET_MAX];
    uint32_t n_net;
    bool calm;
};

static uint32_t below(struct chaos *c, uint32_t n)
{
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    return (uint32_t)(c->random >> 16) % n;
}

static uint64_t digest(const rct_entry *e)
{
    uint64_t d = e->term * 31 + e->type + 1;

    for (uint32_t i = 0; i < e->len; i++)
        d = d * 1099511628211u + e->data[i];
    return d;
}

/* What becomes of a snapshot is the sender's host's to know. */
static void report(struct chaos *c, const rct_msg *m, bool lost)
{
    if (m->type == RCT_MSG_SNAP)
        (void)api.report_snapshot(c->s.nodes[m->from].node, m->to, lost);
}

static void post(struct chaos *c, const rct_msg *m)
{
    if (c->n_net == NET_MAX) {
        report(c, c->net[0], true);
        smoke_drop(c->net[0]);
        c->net[0] = c->net[--c->n_net];
    }
    c->net[c->n_net++] = smoke_copy(m);
}

static void apply(struct chaos *c, struct smoke_node *node, const rct_entry *ents, uint64_t n)
{
    rct_conf conf;

    for (uint64_t i = 0; i < n; i++) {
        const rct_entry *e = &ents[i];

        EXPECT(e->index == node->applied + 1 && e->index < INDEXES);
        EXPECT(c->history[e->index] == 0 || c->history[e->index] == digest(e));
        c->history[e->index] = digest(e);
        node->applied = e->index;
        if (e->type != RCT_ENT_NORMAL)
            (void)api.apply_conf(node->node, e, &conf);
    }
}

static void check_leader(struct chaos *c, uint64_t id)
{
    rct_status_t st = smoke_status(&c->s, id);

    EXPECT(st.commit <= st.last && st.applied <= st.commit && st.term < TERMS);
    if (st.role != RCT_LEADER)
        return;
    EXPECT(c->leader_of[st.term] == 0 || c->leader_of[st.term] == id);
    c->leader_of[st.term] = id;
}

/* ---- a node's work ---- */

/* False: it crashed before the batch was stored. */
static void pump_sync(struct chaos *c, uint64_t id)
{
    struct smoke_node *node = &c->s.nodes[id];
    rct_ready_t r;

    EXPECT(api.ready(node->node, &r) == RCT_OK);
    EXPECT(api.store(node->node, r.has_hard ? &r.hard : NULL, r.ents, r.n_ents, r.snap) == RCT_OK);
    if (r.snap)
        node->applied = r.snap->index;
    for (uint64_t i = 0; i < r.n_msgs; i++)
        post(c, &r.msgs[i]);
    apply(c, node, r.committed, r.n_committed);
    EXPECT(api.advance(node->node) == RCT_OK);
}

static void pump_async(struct chaos *c, uint64_t id)
{
    rct_ready_t r;

    if (c->n_work[id] + 2 > WORK)
        return;
    EXPECT(api.ready(c->s.nodes[id].node, &r) == RCT_OK);
    for (uint64_t i = 0; i < r.n_msgs; i++)
        if (r.msgs[i].type == RCT_MSG_STORAGE_APPEND || r.msgs[i].type == RCT_MSG_STORAGE_APPLY)
            c->work[id][c->n_work[id]++] = smoke_copy(&r.msgs[i]);
        else
            post(c, &r.msgs[i]);
}

static void pump(struct chaos *c, uint64_t id)
{
    if (!api.has_ready(c->s.nodes[id].node))
        return;
    if (c->s.nodes[id].config.async)
        pump_async(c, id);
    else
        pump_sync(c, id);
    check_leader(c, id);
}

static void do_work(struct chaos *c, uint64_t id)
{
    struct smoke_node *node = &c->s.nodes[id];
    rct_msg *m = c->work[id][0];
    rct_hard hard = {m->term, m->vote, m->commit};

    memmove(c->work[id], c->work[id] + 1, --c->n_work[id] * sizeof c->work[id][0]);
    if (m->type == RCT_MSG_STORAGE_APPEND) {
        EXPECT(api.store(node->node, &hard, m->ents, m->n_ents, m->snap) == RCT_OK);
        if (m->snap && m->snap->index > node->applied)
            node->applied = m->snap->index;
    } else if (m->ents[0].index == node->applied + 1) {
        apply(c, node, m->ents, m->n_ents); /* else a snapshot came in between */
    }
    for (uint64_t i = 0; i < m->n_resps; i++)
        if (m->resps[i].to == id)
            EXPECT(api.step(node->node, &m->resps[i]) == RCT_OK);
        else
            post(c, &m->resps[i]);
    smoke_drop(m);
}

static void crash(struct chaos *c, uint64_t id)
{
    rct_status_t st = smoke_status(&c->s, id);

    if (c->s.nodes[id].applied != st.applied)
        return; /* a configuration that is newer than what is reported applied */
    while (c->n_work[id] > 0)
        smoke_drop(c->work[id][--c->n_work[id]]);
    smoke_restart(&c->s, id);
    c->s.nodes[id].applied = st.applied;
}

static void compact(struct chaos *c, uint64_t id)
{
    rct_status_t st = smoke_status(&c->s, id);
    rct_entry ents[1];

    if (c->s.nodes[id].applied == st.applied && st.applied >= st.first && api.log(c->s.nodes[id].node, 1, ents, 1) < 256 &&
        st.applied <= st.stable_last)
        smoke_snapshot(&c->s, id);
}

static void change(struct chaos *c, uint64_t id)
{
    static const uint32_t types[] = {RCT_CC_ADD_VOTER, RCT_CC_ADD_VOTER, RCT_CC_ADD_LEARNER, RCT_CC_REMOVE};
    rct_cc1 list[3];
    rct_cc cc = {.changes = list, .transition = below(c, 3)};

    cc.n = below(c, 4);
    for (uint32_t i = 0; i < cc.n; i++)
        list[i] = (rct_cc1){types[below(c, 4)], 1 + below(c, MEMBERS)};
    if (cc.n == 0)
        cc.transition = RCT_TR_AUTO;
    (void)api.propose_conf(c->s.nodes[id].node, &cc);
}

static void deliver(struct chaos *c)
{
    uint32_t at = below(c, c->n_net), luck = c->calm ? 50 : below(c, 100);
    rct_msg *m = c->net[at];

    EXPECT(m->to >= 1 && m->to <= MEMBERS);
    if (luck >= 8)
        (void)api.step(c->s.nodes[m->to].node, m);
    if (luck < 95) {
        c->net[at] = c->net[--c->n_net];
        report(c, m, luck < 8);
        smoke_drop(m);
    }
}

static void act(struct chaos *c)
{
    uint64_t id = 1 + below(c, MEMBERS);
    rct_node *node = c->s.nodes[id].node;

    switch (below(c, 40)) {
    case 0: change(c, id); break;
    case 1: crash(c, id); break;
    case 2: compact(c, id); break;
    case 3: (void)api.campaign(node); break;
    case 4: (void)api.transfer(node, 1 + below(c, MEMBERS)); break;
    case 5: (void)api.read_index(node, (const uint8_t *)"r", 1); break;
    case 6: (void)api.forget_leader(node); break;
    case 7: (void)api.report_unreachable(node, 1 + below(c, MEMBERS)); break;
    case 8:
    case 9:
    case 10: (void)api.propose(node, (const uint8_t *)&c->random, 1 + below(c, 8)); break;
    case 11:
    case 12:
    case 13: (void)api.tick(node); break;
    default: break;
    }
}

static void move(struct chaos *c)
{
    uint64_t id = 1 + below(c, MEMBERS);

    pump(c, id);
    if (c->n_work[id] > 0 && below(c, 2))
        do_work(c, id);
    for (uint32_t i = below(c, 4); i > 0 && c->n_net > 0; i--)
        deliver(c);
    EXPECT(smoke_status(&c->s, id).id == id);
}

/* ---- one walk ---- */

static void start(struct chaos *c, uint64_t seed)
{
    static const uint64_t ids[] = {1, 2, 3};
    const rct_snap boot = {.index = 3, .term = 1, .conf = {.voters = ids, .n_voters = 3}};

    c->random = seed * 0x9e3779b97f4a7c15u + 1;
    for (uint32_t id = 1; id <= MEMBERS; id++) {
        struct smoke_node *node = &c->s.nodes[id];

        node->config = smoke_config();
        node->config.id = id;
        node->config.async = (seed + id) % 3 == 0;
        node->config.prevote = node->config.check_quorum = seed % 2;
        node->config.max_inflight_msgs = 1 + seed % 4;
        node->config.max_size_per_msg = 100;
        node->config.max_committed_size = 200;
        node->applied = 3;
        node->node = api.new(&node->config, &boot);
        EXPECT(node->node);
    }
}

static void describe_progress(rct_node *node)
{
    rct_pr pr[MEMBERS];
    int n = api.progress(node, pr, MEMBERS);

    for (int i = 0; i < n; i++)
        (void)printf("     %u: state %u match %u next %u pending %u inflight %u%s%s\n", (unsigned)pr[i].id, pr[i].state,
                     (unsigned)pr[i].match, (unsigned)pr[i].next, (unsigned)pr[i].pending_snap, (unsigned)pr[i].inflight,
                     pr[i].paused ? " paused" : "", pr[i].active ? " active" : "");
}

static void describe(struct chaos *c)
{
    for (uint64_t id = 1; id <= MEMBERS; id++) {
        rct_status_t st = smoke_status(&c->s, id);
        char conf[128];

        smoke_conf_text(&st.conf, conf, sizeof conf);
        (void)printf("  %d: role %u term %u last %u/%u stable %u commit %u applied %u lead %u transferee %u, %s%s%s\n", (int)id,
                     st.role, (unsigned)st.term, (unsigned)st.last, (unsigned)st.last_term, (unsigned)st.stable_last,
                     (unsigned)st.commit, (unsigned)st.applied, (unsigned)st.lead, (unsigned)st.transferee, conf,
                     st.promotable ? " promotable" : "", c->s.nodes[id].config.async ? " async" : "");
        describe_progress(c->s.nodes[id].node);
    }
}

static uint64_t leader_of(struct chaos *c)
{
    uint64_t best = 0, term = 0;

    for (uint64_t id = 1; id <= MEMBERS; id++) {
        rct_status_t st = smoke_status(&c->s, id);

        if (st.role == RCT_LEADER && st.term > term) {
            best = id;
            term = st.term;
        }
    }
    return best;
}

/* A leader has committed nearly all that it has, and its voters nearly as much. */
static bool agrees(struct chaos *c)
{
    uint64_t id = leader_of(c);
    rct_status_t lead;

    if (!id)
        return false;
    lead = smoke_status(&c->s, id);
    for (uint32_t i = 0; i < lead.conf.n_voters; i++)
        if (smoke_status(&c->s, lead.conf.voters[i]).commit + SLACK < lead.commit)
            return false;
    return lead.commit + SLACK > lead.last;
}

/* Everything arrives now, and sooner or later they agree. It need not last: without pre-vote a node that was removed and does not
 * know it goes on to disturb the others. A new member ignores a snapshot that does not know it, so there must be newer ones. */
static bool heal(struct chaos *c)
{
    c->calm = true;
    for (uint32_t t = 0; t < HEAL_TICKS; t++) {
        uint64_t id = leader_of(c);

        for (uint64_t each = 1; each <= MEMBERS; each++)
            EXPECT(api.tick(c->s.nodes[each].node) == RCT_OK);
        for (uint32_t i = 0; i < 60; i++)
            move(c);
        if (id && t % 32 == 0)
            compact(c, id);
        if (t > HEAL_TICKS / 2 && agrees(c))
            return true;
    }
    return false;
}

static void walk(uint64_t seed, uint32_t *ret_healed, uint64_t *ret_applied)
{
    struct chaos *c = calloc(1, sizeof *c);

    EXPECT(c);
    start(c, seed);
    for (uint32_t i = 0; i < STEPS; i++) {
        act(c);
        move(c);
    }
    if (heal(c))
        ++*ret_healed;
    else
        describe(c);
    for (uint64_t id = 1; id <= MEMBERS; id++) {
        *ret_applied += c->s.nodes[id].applied;
        while (c->n_work[id] > 0)
            smoke_drop(c->work[id][--c->n_work[id]]);
    }
    while (c->n_net > 0)
        smoke_drop(c->net[--c->n_net]);
    smoke_deinit(&c->s);
    free(c);
}

void smoke_chaos(uint64_t first, uint64_t n)
{
    uint32_t healed = 0;
    uint64_t applied = 0;

    for (uint64_t seed = first; seed < first + n; seed++) {
        uint32_t before = healed;

        walk(seed, &healed, &applied);
        if (healed == before)
            (void)printf("seed %llu did not heal\n", (unsigned long long)seed);
    }
    (void)printf("%llu walks: %u healed, %llu entries applied\n", (unsigned long long)n, healed, (unsigned long long)applied);
    EXPECT(healed == n);
}
