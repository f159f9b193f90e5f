/* Membership, leadership, and what a leader knows of the others. */
#include "nodehost/host_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"

/* ---- configuration changes ---- */

static int check_member(uint32_t type, const struct nh_member *m, struct nh_error *err)
{
    bool needs_address = type != NH_CONFIG_REMOVE_MEMBER;

    if (type != NH_CONFIG_ADD_MEMBER && type != NH_CONFIG_REMOVE_MEMBER && type != NH_CONFIG_UPDATE_ADDRESS)
        return nh_error_set(err, NH_EINVAL, "a change of type %" PRIu32 " is not about a member", type);
    if (m->replica_id == NH_NO_REPLICA)
        return nh_error_set(err, NH_EINVAL, "the member has no replica id");
    if (type == NH_CONFIG_ADD_MEMBER && m->kind > NH_MEMBER_WITNESS)
        return nh_error_set(err, NH_EINVAL, "replica %" PRIu64 ": unknown kind %" PRIu32, m->replica_id, m->kind);
    if (!memchr(m->address, 0, sizeof m->address) || (needs_address && m->address[0] == 0))
        return nh_error_set(err, NH_EINVAL, "replica %" PRIu64 ": no address, or one that is too long", m->replica_id);
    return needs_address ? host_check_address(m->address, err) : NH_OK;
}

static int check_change(const struct nh_config_change *c, struct nh_error *err)
{
    int r = NH_OK;

    if (!c)
        return nh_error_set(err, NH_EINVAL, "the change is NULL");
    if (c->type == NH_CONFIG_LEAVE_JOINT)
        return NH_OK;
    if (c->type != NH_CONFIG_CHANGE_MANY)
        return check_member(c->type, &c->member, err);
    if (c->n_changes == 0 || c->n_changes > NH_MEMBERS_MAX || !c->changes)
        return nh_error_set(err, NH_EINVAL, "%" PRIu32 " changes at once, 1 to %u can be", c->n_changes, NH_MEMBERS_MAX);
    if (c->transition > NH_TRANSITION_EXPLICIT)
        return nh_error_set(err, NH_EINVAL, "unknown transition %" PRIu32, c->transition);
    for (uint32_t i = 0; i < c->n_changes && r == NH_OK; i++)
        r = check_member(c->changes[i].type, &c->changes[i].member, err);
    return r;
}

/* Entries that no replica can decode would stop all of them: what is proposed is read back first. */
static int encode_change(const struct nh_config_change *change, uint8_t **ret, size_t *ret_bytes, struct nh_error *err)
{
    struct nh_config_change again = {0};
    int r;

    *ret_bytes = config_change_encode(change, NULL, 0);
    *ret = xmalloc(*ret_bytes);
    config_change_encode(change, *ret, *ret_bytes);
    r = config_change_decode(*ret, *ret_bytes, &again, err);
    nh_config_change_deinit(&again);
    if (r < 0) {
        free(*ret);
        return nh_error_wrap(err, NH_EINVAL, "this cannot be proposed");
    }
    return NH_OK;
}

int nh_change_membership(struct nh_host *host, uint64_t shard_id, const struct nh_config_change *change, uint32_t timeout_ms,
                         nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    const struct engine_proposal_kind kind = {.type = NH_ENTRY_CONFIG_CHANGE};
    struct nh_proposal p = {.fn = fn, .ctx = ctx};
    uint64_t deadline_ns = 0;
    uint8_t *payload;
    int r = host_deadline(host, timeout_ms, &deadline_ns, err);

    if (r == NH_OK)
        r = host_check_request(fn, NULL, 0, err);
    if (r == NH_OK)
        r = check_change(change, err);
    if (r < 0)
        return r;
    r = encode_change(change, &payload, &p.size_bytes, err);
    if (r < 0)
        return r;
    p.cmd = payload;
    r = engine_propose_as(host->engine, shard_id, kind, &p, deadline_ns, err);
    free(payload);
    return r;
}

/* ---- leadership ---- */

int nh_transfer_leader(struct nh_host *host, uint64_t shard_id, uint64_t target_replica_id, nh_completion_fn fn, void *ctx,
                       struct nh_error *err)
{
    int r = host_check_request(fn, NULL, 0, err);

    return r < 0 ? r : engine_transfer(host->engine, shard_id, target_replica_id, fn, ctx, err);
}

int nh_campaign(struct nh_host *host, uint64_t shard_id, struct nh_error *err)
{
    return engine_campaign(host->engine, shard_id, err);
}

int nh_forget_leader(struct nh_host *host, uint64_t shard_id, struct nh_error *err)
{
    return engine_forget_leader(host->engine, shard_id, err);
}

int nh_get_peers(struct nh_host *host, uint64_t shard_id, nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    int r = host_check_request(fn, NULL, 0, err);

    return r < 0 ? r : engine_look_at_peers(host->engine, shard_id, fn, ctx, err);
}

int nh_barrier(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, nh_completion_fn fn, void *ctx, struct nh_error *err)
{
    const struct engine_proposal_kind kind = {.type = NH_ENTRY_METADATA};
    const struct nh_proposal p = {.cmd = "", .fn = fn, .ctx = ctx};
    uint64_t deadline_ns = 0;
    int r = host_deadline(host, timeout_ms, &deadline_ns, err);

    if (r == NH_OK)
        r = host_check_request(fn, NULL, 0, err);
    return r < 0 ? r : engine_propose_as(host->engine, shard_id, kind, &p, deadline_ns, err);
}

/* ---- verify leader: a confirmed read, and the same leadership before and after ---- */

struct verification {
    struct nh_host *host;
    uint64_t shard_id, term;
    nh_completion_fn fn;
    void *ctx;
};

/* The term that our replica leads; 0: it does not. */
static uint64_t led_term(struct nh_host *host, uint64_t shard_id)
{
    struct engine_replica_status s;

    if (engine_get_status(host->engine, shard_id, &s, NULL) < 0 || s.role != RAFT_LEADER)
        return 0;
    return s.term;
}

/* A leader of the same term before and after led all the time between: the read was confirmed by its own majority. */
static void on_confirmed(void *ctx, const struct nh_outcome *outcome)
{
    static const char reason[] = "our replica does not lead any more";
    struct verification *v = ctx;
    struct nh_outcome result = *outcome;

    if (result.code == NH_REQUEST_COMPLETED && led_term(v->host, v->shard_id) != v->term)
        result = (struct nh_outcome){.code = NH_REQUEST_REJECTED, .data = reason, .size_bytes = sizeof reason - 1};
    v->fn(v->ctx, &result);
    free(v);
}

static void reject_follower(struct verification *v)
{
    static const char reason[] = "our replica does not lead";
    struct nh_outcome result = {.code = NH_REQUEST_REJECTED, .data = reason, .size_bytes = sizeof reason - 1};

    v->fn(v->ctx, &result);
    free(v);
}

/* Who does not lead is told by a completion too, so that there is one way to learn it; through the peers' look, as no completion
 * runs inside of the submitting call. */
static void on_looked(void *ctx, const struct nh_outcome *outcome)
{
    struct verification *v = ctx;

    if (outcome->code == NH_REQUEST_COMPLETED) {
        reject_follower(v);
    } else {
        v->fn(v->ctx, outcome);
        free(v);
    }
}

int nh_verify_leader(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, nh_completion_fn fn, void *ctx,
                     struct nh_error *err)
{
    struct verification *v;
    uint64_t deadline_ns = 0;
    int r = host_deadline(host, timeout_ms, &deadline_ns, err);

    if (r == NH_OK)
        r = host_check_request(fn, NULL, 0, err);
    if (r < 0)
        return r;
    v = xcalloc(1, sizeof *v);
    *v = (struct verification){host, shard_id, led_term(host, shard_id), fn, ctx};
    if (v->term)
        r = engine_read(host->engine, shard_id, NULL, 0, deadline_ns, on_confirmed, v, err);
    else
        r = engine_look_at_peers(host->engine, shard_id, on_looked, v, err);
    if (r < 0)
        free(v);
    return r;
}

/* ---- waiting ---- */

int nh_change_membership_sync(struct nh_host *host, uint64_t shard_id, const struct nh_config_change *change, uint32_t timeout_ms,
                              struct nh_reply *ret, struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_change_membership(host, shard_id, change, timeout_ms, waiter_end, &w, err));
}

int nh_transfer_leader_sync(struct nh_host *host, uint64_t shard_id, uint64_t target_replica_id, struct nh_reply *ret,
                            struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_transfer_leader(host, shard_id, target_replica_id, waiter_end, &w, err));
}

int nh_barrier_sync(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, struct nh_reply *ret, struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_barrier(host, shard_id, timeout_ms, waiter_end, &w, err));
}

int nh_verify_leader_sync(struct nh_host *host, uint64_t shard_id, uint32_t timeout_ms, struct nh_reply *ret,
                          struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_verify_leader(host, shard_id, timeout_ms, waiter_end, &w, err));
}

int nh_get_peers_sync(struct nh_host *host, uint64_t shard_id, struct nh_reply *ret, struct nh_error *err)
{
    struct waiter w;
    int r = waiter_begin(&w, ret, err);

    return r < 0 ? r : waiter_finish(&w, nh_get_peers(host, shard_id, waiter_end, &w, err));
}
