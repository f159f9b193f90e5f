/* Nodes that are driven as a suite would drive them. */
#include "tests/conformance/raft-core/smoke.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct api api;

_Noreturn void smoke_fail(const char *file, int line, const char *condition)
{
    (void)fprintf(stderr, "%s:%d: %s\n", file, line, condition);
    exit(1);
}

/* ---- loading ---- */

static void load(void *library, const char *name, void *slot)
{
    void *symbol = dlsym(library, name);

    EXPECT(symbol);
    memcpy(slot, &symbol, sizeof symbol);
}

#define LOAD(name) load(library, "rct_" #name, &api.name)

void smoke_load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        (void)fprintf(stderr, "%s\n", dlerror());
    EXPECT(library);
    LOAD(abi_version), LOAD(features), LOAD(new), LOAD(restart), LOAD(free), LOAD(set_election_timeout), LOAD(tick);
    LOAD(campaign), LOAD(propose), LOAD(propose_conf), LOAD(step), LOAD(transfer), LOAD(forget_leader), LOAD(read_index);
    LOAD(report_unreachable), LOAD(report_snapshot), LOAD(has_ready), LOAD(ready), LOAD(advance), LOAD(apply_conf);
    LOAD(conf_text), LOAD(store), LOAD(set_snapshot), LOAD(compact), LOAD(status), LOAD(progress), LOAD(log);
    LOAD(quorum_commit), LOAD(quorum_vote), LOAD(conf_change);
    EXPECT(api.abi_version() == RCT_ABI_VERSION);
    EXPECT(api.features() == 4095);
}

/* ---- copies of messages ---- */

static void *copy(const void *data, size_t bytes)
{
    void *to = calloc(1, bytes + 1);

    EXPECT(to);
    if (bytes > 0)
        memcpy(to, data, bytes);
    return to;
}

static const rct_entry *copy_entries(const rct_entry *ents, uint64_t n)
{
    rct_entry *to = copy(ents, n * sizeof *ents);

    for (uint64_t i = 0; i < n; i++)
        to[i].data = copy(ents[i].data, ents[i].len);
    return to;
}

static const uint64_t *copy_ids(const uint64_t *ids, uint32_t n)
{
    return copy(ids, n * sizeof *ids);
}

static rct_snap *copy_snapshot(const rct_snap *s)
{
    rct_snap *to = copy(s, sizeof *s);

    to->conf.voters = copy_ids(s->conf.voters, s->conf.n_voters);
    to->conf.voters_out = copy_ids(s->conf.voters_out, s->conf.n_voters_out);
    to->conf.learners = copy_ids(s->conf.learners, s->conf.n_learners);
    to->conf.learners_next = copy_ids(s->conf.learners_next, s->conf.n_learners_next);
    to->data = copy(s->data, s->len);
    return to;
}

static void copy_into(rct_msg *to, const rct_msg *m)
{
    *to = *m;
    to->ents = copy_entries(m->ents, m->n_ents);
    to->snap = m->snap ? copy_snapshot(m->snap) : NULL;
    to->ctx = copy(m->ctx, m->ctx_len);
    if (m->n_resps > 0) {
        rct_msg *resps = calloc(m->n_resps, sizeof *resps);

        EXPECT(resps);
        for (uint64_t i = 0; i < m->n_resps; i++)
            copy_into(&resps[i], &m->resps[i]);
        to->resps = resps;
    }
}

static void release(rct_msg *m)
{
    for (uint64_t i = 0; i < m->n_ents; i++)
        free((void *)(uintptr_t)m->ents[i].data);
    free((void *)(uintptr_t)m->ents);
    free((void *)(uintptr_t)m->ctx);
    if (m->snap) {
        free((void *)(uintptr_t)m->snap->conf.voters);
        free((void *)(uintptr_t)m->snap->conf.voters_out);
        free((void *)(uintptr_t)m->snap->conf.learners);
        free((void *)(uintptr_t)m->snap->conf.learners_next);
        free((void *)(uintptr_t)m->snap->data);
        free((void *)(uintptr_t)m->snap);
    }
    for (uint64_t i = 0; i < m->n_resps; i++)
        release((rct_msg *)(uintptr_t)&m->resps[i]);
    if (m->n_resps > 0)
        free((void *)(uintptr_t)m->resps);
}

rct_msg *smoke_copy(const rct_msg *m)
{
    rct_msg *to = calloc(1, sizeof *to);

    EXPECT(to);
    copy_into(to, m);
    return to;
}

void smoke_drop(rct_msg *m)
{
    release(m);
    free(m);
}

/* ---- life ---- */

rct_config smoke_config(void)
{
    return (rct_config){.election_tick = 10,
                        .heartbeat_tick = 1,
                        .max_size_per_msg = UINT64_MAX,
                        .max_committed_size = UINT64_MAX,
                        .max_uncommitted_size = UINT64_MAX,
                        .max_inflight_bytes = UINT64_MAX,
                        .max_inflight_msgs = 256,
                        .stepdown_on_removal = 1};
}

void smoke_init(struct smoke *s, uint32_t n, uint32_t n_voters, const rct_config *config)
{
    static const uint64_t ids[] = {1, 2, 3, 4, 5};
    const rct_snap boot = {.conf = {.voters = ids, .n_voters = n_voters}};

    memset(s, 0, sizeof *s);
    s->config = config ? *config : smoke_config();
    for (uint32_t id = 1; id <= n; id++) {
        struct smoke_node *node = &s->nodes[id];

        node->config = s->config;
        node->config.id = id;
        node->node = api.new(&node->config, &boot);
        EXPECT(node->node);
    }
}

void smoke_deinit(struct smoke *s)
{
    for (uint32_t id = 1; id < SMOKE_NODES; id++)
        api.free(s->nodes[id].node);
    for (; s->n > 0; s->n--)
        release(&s->queue[s->head++ % SMOKE_QUEUE]);
}

rct_status_t smoke_status(struct smoke *s, uint64_t id)
{
    rct_status_t status;

    EXPECT(api.status(s->nodes[id].node, &status) == RCT_OK);
    return status;
}

/* ---- moving things ---- */

static void post(struct smoke *s, const rct_msg *m)
{
    EXPECT(s->n < SMOKE_QUEUE);
    EXPECT(m->from != m->to && m->type != 0);
    copy_into(&s->queue[(s->head + s->n++) % SMOKE_QUEUE], m);
}

static void apply(struct smoke_node *node, const rct_entry *e)
{
    rct_conf conf;

    EXPECT(e->index == node->applied + 1);
    node->applied = e->index;
    if (e->type == RCT_ENT_NORMAL) {
        node->n_normal += e->len > 0;
        return;
    }
    EXPECT(api.apply_conf(node->node, e, &conf) == RCT_OK);
    smoke_conf_text(&conf, node->conf, sizeof node->conf);
    node->n_changes++;
}

static void take_snapshot(struct smoke_node *node, const rct_snap *snap)
{
    EXPECT(snap->index > node->applied);
    node->applied = node->snapshot_index = snap->index;
    smoke_conf_text(&snap->conf, node->conf, sizeof node->conf);
}

static void take_reads(struct smoke_node *node, const rct_ready_t *ready)
{
    for (uint64_t i = 0; i < ready->n_reads; i++) {
        node->read_index = ready->reads[i].index;
        EXPECT(ready->reads[i].len < sizeof node->read_context);
        memset(node->read_context, 0, sizeof node->read_context);
        if (ready->reads[i].len > 0)
            memcpy(node->read_context, ready->reads[i].ctx, ready->reads[i].len);
        node->n_reads++;
    }
}

void smoke_pump(struct smoke *s, uint64_t id)
{
    struct smoke_node *node = &s->nodes[id];
    rct_ready_t ready;

    while (node->node && api.has_ready(node->node)) {
        EXPECT(api.ready(node->node, &ready) == RCT_OK);
        EXPECT(api.store(node->node, ready.has_hard ? &ready.hard : NULL, ready.ents, ready.n_ents, ready.snap) == RCT_OK);
        if (ready.snap)
            take_snapshot(node, ready.snap);
        for (uint64_t i = 0; i < ready.n_msgs; i++)
            post(s, &ready.msgs[i]);
        for (uint64_t i = 0; i < ready.n_committed; i++)
            apply(node, &ready.committed[i]);
        take_reads(node, &ready);
        EXPECT(api.advance(node->node) == RCT_OK);
    }
}

static void deliver(struct smoke *s)
{
    rct_msg m = s->queue[s->head++ % SMOKE_QUEUE];

    s->n--;
    if (s->seen)
        s->seen(&m);
    if (m.to < SMOKE_NODES && s->nodes[m.to].node && !s->nodes[m.to].cut && !s->nodes[m.from].cut)
        (void)api.step(s->nodes[m.to].node, &m);
    release(&m);
}

void smoke_settle(struct smoke *s)
{
    bool moved = true;

    for (uint32_t rounds = 0; moved; rounds++) {
        EXPECT(rounds < 100000);
        for (uint64_t id = 1; id < SMOKE_NODES; id++)
            smoke_pump(s, id);
        moved = s->n > 0;
        if (moved)
            deliver(s);
    }
}

void smoke_tick(struct smoke *s, uint32_t ticks)
{
    for (uint32_t i = 0; i < ticks; i++) {
        for (uint64_t id = 1; id < SMOKE_NODES; id++)
            if (s->nodes[id].node)
                EXPECT(api.tick(s->nodes[id].node) == RCT_OK);
        smoke_settle(s);
    }
}

/* ---- requests ---- */

void smoke_elect(struct smoke *s, uint64_t id)
{
    EXPECT(api.campaign(s->nodes[id].node) == RCT_OK);
    smoke_settle(s);
    EXPECT(smoke_status(s, id).role == RCT_LEADER);
}

void smoke_put(struct smoke *s, uint64_t id, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        EXPECT(api.propose(s->nodes[id].node, (const uint8_t *)"data", 4) == RCT_OK);
    smoke_settle(s);
}

int smoke_change(struct smoke *s, uint64_t id, bool v1, uint32_t transition, const char *text)
{
    rct_cc1 changes[8];
    rct_cc cc = {.v1 = v1, .transition = transition, .changes = changes};
    int code;

    cc.n = smoke_changes(text, changes);
    code = api.propose_conf(s->nodes[id].node, &cc);
    smoke_settle(s);
    return code;
}

static rct_snap snapshot_of(struct smoke *s, uint64_t id)
{
    rct_status_t status = smoke_status(s, id);
    rct_entry entries[256];
    int n = api.log(s->nodes[id].node, 1, entries, 256);
    rct_snap snap = {.index = status.applied, .conf = status.conf, .data = (const uint8_t *)"image", .len = 5};

    for (int i = 0; i < n; i++)
        if (entries[i].index == snap.index)
            snap.term = entries[i].term;
    EXPECT(snap.term > 0);
    return snap;
}

void smoke_snapshot(struct smoke *s, uint64_t id)
{
    rct_snap snap = snapshot_of(s, id);

    EXPECT(api.set_snapshot(s->nodes[id].node, &snap) == RCT_OK);
    EXPECT(api.compact(s->nodes[id].node, snap.index) == RCT_OK);
}

void smoke_restart(struct smoke *s, uint64_t id)
{
    struct smoke_node *node = &s->nodes[id];
    rct_status_t status = smoke_status(s, id);

    if (status.applied >= status.first) {
        rct_snap snap = snapshot_of(s, id);

        EXPECT(api.set_snapshot(node->node, &snap) == RCT_OK);
    }
    node->config.applied = status.applied;
    node->node = api.restart(node->node, &node->config);
    EXPECT(node->node);
}

bool smoke_same_logs(struct smoke *s, uint64_t a, uint64_t b)
{
    static rct_entry x[512], y[512];
    int nx = api.log(s->nodes[a].node, 1, x, 512), ny = api.log(s->nodes[b].node, 1, y, 512);
    int at = 0;

    EXPECT(nx <= 512 && ny <= 512);
    for (int i = 0; i < nx; i++) {
        while (at < ny && y[at].index < x[i].index)
            at++;
        if (at == ny)
            return false;
        if (y[at].index == x[i].index && (y[at].term != x[i].term || y[at].len != x[i].len || y[at].type != x[i].type ||
                                          (x[i].len > 0 && memcmp(x[i].data, y[at].data, x[i].len) != 0)))
            return false;
    }
    return true;
}
