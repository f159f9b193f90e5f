/* The life of a node, and the events that the suite causes. */
#include "tests/conformance/raft-core/adapter.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Walking the whole log after each event is for the small ones. */
#define DEEP_CHECK_RUNS_MAX 64u

uint32_t rct_abi_version(void)
{
    return RCT_ABI_VERSION;
}

uint64_t rct_features(void)
{
    return RCT_F_PREVOTE | RCT_F_CHECK_QUORUM | RCT_F_LEARNER | RCT_F_JOINT | RCT_F_ASYNC | RCT_F_LEASE_READ | RCT_F_FORGET |
           RCT_F_TRANSFER | RCT_F_INFLIGHT_BYTES | RCT_F_APPLY_PAGING | RCT_F_STEPDOWN_ON_REMOVAL | RCT_F_NO_CC_VALIDATION;
}

/* ---- life ---- */

static uint64_t next_seed(uint64_t id)
{
    static atomic_ullong counter;

    return (atomic_fetch_add(&counter, 1) + 1) * 0x9e3779b97f4a7c15u ^ id;
}

static struct raft_options options_of(const rct_config *c)
{
    return (struct raft_options){
        .shard_id = RCT_SHARD,
        .replica_id = c->id,
        .election_ticks = c->election_tick,
        .heartbeat_ticks = c->heartbeat_tick,
        .pre_vote = c->prevote,
        .check_quorum = c->check_quorum,
        .max_inflight_messages = c->max_inflight_msgs,
        .max_inflight_bytes = c->max_inflight_bytes,
        .max_message_bytes = c->max_size_per_msg,
        .max_uncommitted_bytes = c->max_uncommitted_size,
        .max_apply_bytes = c->max_committed_size,
        .max_cached_bytes = UINT64_MAX,
        .max_unapplied_bytes = UINT64_MAX, /* no RATE_LIMIT: the suite has no such message */
        .seed = next_seed(c->id),
        .lease_reads = c->lease_read,
        .lead_when_removed = !c->stepdown_on_removal,
        .unchecked_config = c->no_cc_validation,
        .start_below_snapshot_term = true,
    };
}

/* The terms of the stable log (to be freed), and where its last two configuration changes are. */
static struct raft_term_span *look_through(const rct_node *n, struct raft_boot *b, uint64_t *ret_change_before)
{
    struct raft_term_span *spans = xcalloc(n->stable.entries.n + 1, sizeof *spans);

    for (size_t i = 0; i < n->stable.entries.n; i++) {
        const rct_entry *e = &n->stable.entries.items[i];

        if (b->n_spans == 0 || spans[b->n_spans - 1].term != e->term)
            spans[b->n_spans++] = (struct raft_term_span){e->index, e->term};
        if (e->type == RCT_ENT_NORMAL)
            continue;
        *ret_change_before = b->config_bound;
        b->config_bound = e->index;
    }
    b->spans = spans;
    return spans;
}

/* A snapshot that was stored is committed; so is a change that another one follows, unless several may be pending. A suite may
 * store a commit index that is older than the entries. What is above the log is an error of the store: the core says so. */
static uint64_t boot_commit(const rct_node *n, uint64_t change_before)
{
    uint64_t commit = n->hard.commit + 1 < n->stable.first ? n->stable.first - 1 : n->hard.commit;

    return commit < change_before && !n->config.no_cc_validation ? change_before : commit;
}

static bool start_core(rct_node *n, uint64_t boot_now)
{
    struct raft_options options = options_of(&n->config);
    uint64_t last = entry_log_last(&n->stable), applied = n->config.applied, change_before = 0;
    struct raft_boot b = {.first_index = n->stable.first, .last_index = last, .anchor_term = n->anchor_term, .now = boot_now};
    struct raft_term_span *spans = look_through(n, &b, &change_before);
    struct nh_snapshot *record = NULL;
    int code;

    b.state = (struct nh_state){.term = n->hard.term, .vote = n->hard.vote, .commit = boot_commit(n, change_before)};
    if (b.n_spans == 0 && n->anchor_term > n->hard.term + 1) /* its first term may be the snapshot's, not an older one */
        b.state = (struct nh_state){.term = n->anchor_term - 1, .commit = b.state.commit};
    b.applied = applied + 1 > n->stable.first ? applied : n->stable.first - 1;
    n->snapshot.membership.config_change_id = b.applied;
    b.membership = &n->snapshot.membership;
    if (n->snapshot.index > 0 && n->snapshot.index <= last && n->snapshot.membership.n_members > 0)
        b.snapshot = record = kept_snapshot_record(&n->snapshot);
    code = raft_new(&options, &b, &n->core, NULL);
    free(spans);
    if (record)
        nh_snapshot_deinit(record);
    free(record);
    return code == NH_OK;
}

static void begin_life(rct_node *n)
{
    entry_log_reset(&n->log, n->stable.first);
    for (size_t i = 0; i < n->stable.entries.n; i++)
        entry_log_put(&n->log, &n->stable.entries.items[i]);
    n->told_hard = (rct_hard){n->core->term, n->core->vote, n->core->log.commit};
    n->told_role = RCT_FOLLOWER;
    n->told_lead = 0;
    node_settle(n);
}

static void end_life(rct_node *n)
{
    raft_free(n->core);
    n->core = NULL;
    raft_update_deinit(&n->out);
    batch_deinit(&n->batches[0]);
    batch_deinit(&n->batches[1]);
    entry_log_reset(&n->log, 1);
    kept_snapshot_deinit(&n->received);
    while (n->contexts.n > 0)
        context_drop(n, &n->contexts.items[n->contexts.n - 1]);
    n->due_save = n->due_apply = n->snapshot_save = n->fixed_timeout = 0;
}

/* A new node has promised nothing to anybody: its clock stands where no lease of an earlier life can bind it. */
rct_node *rct_new(const rct_config *config, const rct_snap *boot)
{
    rct_node *n = xcalloc(1, sizeof *n);

    n->config = *config;
    n->pending = &n->batches[0];
    n->taken = &n->batches[1];
    n->next_key = 1;
    n->stable.first = 1;
    if (boot && !kept_snapshot_set(&n->snapshot, boot)) {
        rct_free(n);
        return NULL;
    }
    if (boot) {
        n->stable.first = boot->index + 1;
        n->anchor_term = boot->term;
    }
    if (!start_core(n, 0)) {
        rct_free(n);
        return NULL;
    }
    n->now = 2 * (uint64_t)config->election_tick;
    n->core->now = n->core->active_at = n->core->election_since = n->now;
    begin_life(n);
    return n;
}

/* NULL: it does not start from what is stored; the node may still be freed then, and nothing else. */
rct_node *rct_restart(rct_node *n, const rct_config *config)
{
    end_life(n);
    n->config = *config;
    n->life++;
    if (!start_core(n, n->now))
        return NULL;
    begin_life(n);
    return n;
}

void rct_free(rct_node *n)
{
    if (!n)
        return;
    end_life(n);
    entry_log_reset(&n->stable, 1);
    kept_snapshot_deinit(&n->snapshot);
    free(n->log.entries.items);
    free(n->contexts.items);
    free(n);
}

/* ---- events ---- */

static void check(const rct_node *n)
{
    const char *clause = NULL;

    if (n->core->log.cache.n - n->core->log.cache.head <= DEEP_CHECK_RUNS_MAX)
        (void)raft_check(n->core, &clause);
    assert(!clause);
    assert(entry_log_last(&n->log) == n->core->log.last);
}

/* The core draws a new timeout whenever it hears from a leader; a fixed one stays until the role changes. */
static void keep_timeout(rct_node *n, enum raft_role before)
{
    if (n->core->role != before)
        n->fixed_timeout = 0;
    if (n->fixed_timeout)
        n->core->election_timeout = n->fixed_timeout;
}

void node_event(rct_node *n, struct raft_event *ev)
{
    enum raft_role before = n->core->role;

    n->refused = false;
    ev->now = n->now;
    raft_step(n->core, ev, &n->out);
    node_settle(n);
    keep_timeout(n, before);
    check(n);
}

int rct_set_election_timeout(rct_node *n, uint32_t ticks)
{
    if (!n->core || ticks == 0 || ticks >= 2 * (uint64_t)n->config.election_tick)
        return RCT_E_ARG;
    n->core->election_timeout = n->fixed_timeout = ticks;
    return RCT_OK;
}

int rct_tick(rct_node *n)
{
    struct raft_event ev = {.type = RAFT_EV_TICK};

    if (!n->core)
        return RCT_E_ARG;
    n->now++;
    node_event(n, &ev);
    return RCT_OK;
}

static int simple_event(rct_node *n, struct raft_event ev)
{
    if (!n->core)
        return RCT_E_ARG;
    node_event(n, &ev);
    return RCT_OK;
}

int rct_campaign(rct_node *n)
{
    return simple_event(n, (struct raft_event){.type = RAFT_EV_CAMPAIGN});
}

int rct_transfer(rct_node *n, uint64_t to)
{
    return simple_event(n, (struct raft_event){.type = RAFT_EV_TRANSFER, .transfer = {.target = to, .key = n->next_key++}});
}

int rct_forget_leader(rct_node *n)
{
    return simple_event(n, (struct raft_event){.type = RAFT_EV_FORGET_LEADER});
}

int rct_report_unreachable(rct_node *n, uint64_t peer)
{
    return simple_event(n, (struct raft_event){.type = RAFT_EV_UNREACHABLE, .peer = peer});
}

int rct_report_snapshot(rct_node *n, uint64_t peer, uint32_t failed)
{
    return simple_event(n, (struct raft_event){.type = RAFT_EV_SNAPSHOT_STATUS, .status = {.peer = peer, .failed = failed != 0}});
}

int rct_read_index(rct_node *n, const uint8_t *ctx, uint64_t len)
{
    struct raft_event ev = {.type = RAFT_EV_READ, .read = {.low = n->next_key++, .high = n->config.id}};

    if (!n->core)
        return RCT_E_ARG;
    context_put(n, ev.read.low, ev.read.high, ctx, len);
    node_event(n, &ev);
    return n->refused ? RCT_E_DROPPED : RCT_OK;
}
