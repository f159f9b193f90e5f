/* NH.SHARD: what a shard looks like from here, who belongs to it, who leads it. */
#include "cmd/nodehostd/command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "ERR syntax error: NH.SHARD INFO shard | ADD shard replica address [VOTER|NONVOTING|WITNESS] [IF id] | "
    "REMOVE shard replica [IF id] | PROMOTE shard replica [IF id] | TRANSFER shard replica";

static const char *kind_name(uint32_t kind)
{
    switch (kind) {
    case NH_MEMBER_VOTER: return "voter";
    case NH_MEMBER_NON_VOTING: return "nonvoting";
    case NH_MEMBER_WITNESS: return "witness";
    case NH_MEMBER_LEAVING_WITNESS: return "leaving witness";
    default: return "leaving";
    }
}

/* ---- INFO ---- */

static void reply_pair_integer(struct buffer *b, const char *name, uint64_t n)
{
    reply_text(b, name);
    reply_integer(b, (int64_t)n);
}

static void reply_pair_text(struct buffer *b, const char *name, const char *text)
{
    reply_text(b, name);
    reply_text(b, text);
}

static const char *role_name(uint32_t role)
{
    static const char *const names[] = {"follower", "pre-candidate", "candidate", "leader"};

    return role < sizeof names / sizeof *names ? names[role] : "?";
}

static void reply_members(struct call *call, const struct nh_membership *m)
{
    struct buffer *b = &call->reply;

    reply_text(b, "members");
    reply_array(b, m->n_members);
    for (uint32_t i = 0; i < m->n_members; i++) {
        reply_map(b, call->resp, 4);
        reply_pair_integer(b, "id", m->members[i].replica_id);
        reply_pair_text(b, "kind", kind_name(m->members[i].kind));
        reply_pair_text(b, "address", m->members[i].address);
        reply_pair_integer(b, "outgoing", m->members[i].outgoing);
    }
}

static void reply_peers(struct call *call, const struct nh_peer_info *peers, size_t n)
{
    static const char *const states[] = {"probe", "replicate", "snapshot"};
    struct buffer *b = &call->reply;

    reply_text(b, "peers");
    reply_array(b, n);
    for (size_t i = 0; i < n; i++) {
        reply_map(b, call->resp, 7);
        reply_pair_integer(b, "id", peers[i].replica_id);
        reply_pair_text(b, "state", states[peers[i].state]);
        reply_pair_integer(b, "match", peers[i].match_index);
        reply_pair_integer(b, "next", peers[i].next_index);
        reply_pair_integer(b, "inflight", peers[i].inflight_messages);
        reply_pair_integer(b, "active", peers[i].active);
        reply_pair_integer(b, "overloaded", peers[i].overloaded);
    }
}

static void reply_info(struct call *call, const struct nh_shard_info *info, const struct nh_membership *m, const struct part *p)
{
    struct buffer *b = &call->reply;

    reply_map(b, call->resp, 16);
    reply_pair_integer(b, "shard", info->shard_id);
    reply_pair_integer(b, "replica", info->replica_id);
    reply_pair_text(b, "role", role_name(info->role));
    reply_pair_integer(b, "leader", info->leader_id);
    reply_pair_integer(b, "term", info->term);
    reply_pair_integer(b, "first", info->first_index);
    reply_pair_integer(b, "last", info->last_index);
    reply_pair_integer(b, "commit", info->commit_index);
    reply_pair_integer(b, "applied", info->applied_index);
    reply_pair_integer(b, "snapshot", info->snapshot_index);
    reply_pair_integer(b, "config-change-id", m->config_change_id);
    reply_pair_integer(b, "joint", m->joint);
    reply_pair_integer(b, "quiesced", info->quiesced);
    reply_pair_integer(b, "transferee", info->transferee);
    reply_members(call, m);
    reply_peers(call, (const struct nh_peer_info *)(const void *)p->data, p->size / sizeof(struct nh_peer_info));
}

static void finish_info(struct call *call)
{
    const struct part *p = &call->parts[0];
    struct nh_membership m = {0};
    struct nh_shard_info info;
    struct nh_error err = {0};

    if (call_reply_failure(call))
        return;
    if (nh_get_shard_info(call->server->host, p->shard_id, &info, &err) < 0 ||
        nh_get_membership(call->server->host, p->shard_id, &m, &err) < 0)
        reply_errorf(&call->reply, "ERR %s", err.text);
    else
        reply_info(call, &info, &m, p);
    nh_membership_deinit(&m);
}

/* ---- ADD, REMOVE, PROMOTE, TRANSFER ---- */

static bool reply_rejection(struct call *call)
{
    const struct part *p = &call->parts[0];

    if (part_reply_refusal(call, p))
        return true;
    if (p->submit_code == NH_OK && p->code == NH_REQUEST_DROPPED && p->drop_reason == NH_DROP_CONFIG_PENDING) {
        reply_errorf(&call->reply, "TRYAGAIN shard %" PRIu64 ": the change before it is not applied yet; nothing was changed",
                     p->shard_id);
        return true;
    }
    return false;
}

/* The id of the new configuration, for IF. */
static void finish_change(struct call *call)
{
    if (!reply_rejection(call) && !call_reply_failure(call))
        reply_integer(&call->reply, (int64_t)call->parts[0].index);
}

static void finish_transfer(struct call *call)
{
    const struct part *p = &call->parts[0];

    if (reply_rejection(call))
        return;
    if (p->submit_code == NH_OK && p->code == NH_REQUEST_TIMEOUT)
        reply_errorf(&call->reply, "TIMEOUT shard %" PRIu64 ": the target did not take over; it may still", p->shard_id);
    else if (p->submit_code == NH_OK && p->code == NH_REQUEST_DROPPED)
        reply_errorf(&call->reply, "TRYAGAIN shard %" PRIu64 ": %.*s; nothing was changed", p->shard_id, (int)p->size,
                     p->data ? p->data : "");
    else if (!call_reply_failure(call))
        reply_simple(&call->reply, "OK");
}

/* "IF id" at the end of the arguments. False: something else stands there. */
static bool take_condition(const struct call *call, uint32_t at, struct nh_config_change *change)
{
    if (at == call->n_args)
        return true;
    return at + 2 == call->n_args && arg_is(call->args[at], "if") && arg_number(call->args[at + 1], &change->config_change_id) &&
           change->config_change_id > 0;
}

static bool take_kind(struct kv_slice arg, uint32_t *ret)
{
    if (arg_is(arg, "voter"))
        *ret = NH_MEMBER_VOTER;
    else if (arg_is(arg, "nonvoting"))
        *ret = NH_MEMBER_NON_VOTING;
    else if (arg_is(arg, "witness"))
        *ret = NH_MEMBER_WITNESS;
    else
        return false;
    return true;
}

static bool take_add(const struct call *call, struct nh_config_change *change)
{
    uint32_t at = 5;

    if (call->n_args < 5 || call->args[4].size >= sizeof change->member.address)
        return false;
    memcpy(change->member.address, call->args[4].data, call->args[4].size);
    if (at < call->n_args && take_kind(call->args[at], &change->member.kind))
        at++;
    return take_condition(call, at, change);
}

/* A promotion names the address that the member has; it is looked up, so that nobody changes it by the way. */
static bool find_address(struct call *call, uint64_t shard_id, struct nh_member *member)
{
    struct nh_membership m = {0};
    const struct nh_member *known;
    struct nh_error err = {0};
    int r = nh_get_membership(call->server->host, shard_id, &m, &err);

    known = r == NH_OK ? nh_membership_find(&m, member->replica_id) : NULL;
    if (known)
        memcpy(member->address, known->address, sizeof member->address);
    else
        reply_errorf(&call->reply, "ERR %s", r < 0 ? err.text : "no such member is known here");
    nh_membership_deinit(&m);
    return known != NULL;
}

static struct part *make_part(struct call *call, uint64_t shard_id, void (*finish)(struct call *call))
{
    call_make_parts(call, 1);
    call->parts[0].shard_id = shard_id;
    call->finish = finish;
    return &call->parts[0];
}

static void change(struct call *call, uint64_t shard_id, uint64_t replica_id)
{
    struct nh_config_change change = {.type = NH_CONFIG_ADD_MEMBER, .member = {.replica_id = replica_id}};
    struct nh_error err = {0};
    bool understood;

    if (arg_is(call->args[1], "add")) {
        understood = take_add(call, &change);
        if (understood && config_check_member(call->server->config, replica_id, change.member.address, &err) < 0) {
            reply_errorf(&call->reply, "ERR %s", err.text);
            return;
        }
    } else if (arg_is(call->args[1], "promote")) {
        understood = take_condition(call, 4, &change);
        if (understood && !find_address(call, shard_id, &change.member))
            return;
    } else {
        change.type = NH_CONFIG_REMOVE_MEMBER;
        understood = take_condition(call, 4, &change);
    }
    if (understood)
        part_change_membership(make_part(call, shard_id, finish_change), &change);
    else
        reply_error(&call->reply, usage);
}

static bool is_change(const struct call *call)
{
    return arg_is(call->args[1], "add") || arg_is(call->args[1], "promote") || arg_is(call->args[1], "remove");
}

void cmd_nh_shard(struct call *call)
{
    uint64_t shard_id = 0, replica_id = 0;

    if (!arg_number(call->args[2], &shard_id) || shard_id == 0)
        reply_error(&call->reply, "ERR the shard must be a number above 0");
    else if (call->n_args > 3 && (!arg_number(call->args[3], &replica_id) || replica_id == 0))
        reply_error(&call->reply, "ERR the replica must be a number above 0");
    else if (call->n_args == 3 && arg_is(call->args[1], "info"))
        part_look_at_peers(make_part(call, shard_id, finish_info));
    else if (call->n_args == 4 && arg_is(call->args[1], "transfer"))
        part_transfer(make_part(call, shard_id, finish_transfer), replica_id);
    else if (call->n_args >= 4 && is_change(call))
        change(call, shard_id, replica_id);
    else
        reply_error(&call->reply, usage);
}
