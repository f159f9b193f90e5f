#include "engine/rsm/membership.h"

#include <string.h>

#include "raftio/support/memory.h"

/* ---- what is asked of a membership ---- */

static uint32_t count(const struct nh_membership *m, enum nh_member_kind kind)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n_members; i++)
        n += m->members[i].kind == (uint32_t)kind;
    return n;
}

const char *membership_refuse(const struct nh_membership *m)
{
    uint32_t n_voters = count(m, NH_MEMBER_VOTER);

    if (n_voters == 0)
        return "at least one voter must stay";
    return count(m, NH_MEMBER_WITNESS) > n_voters ? "more witnesses than voters: a majority might hold no payloads" : NULL;
}

static bool is_removed(const struct nh_membership *m, uint64_t replica_id)
{
    for (uint32_t i = 0; i < m->n_removed; i++)
        if (m->removed[i] == replica_id)
            return true;
    return false;
}

static bool address_is_taken(const struct nh_membership *m, const struct nh_member *by)
{
    for (uint32_t i = 0; i < m->n_members; i++)
        if (m->members[i].replica_id != by->replica_id && strcmp(m->members[i].address, by->address) == 0)
            return true;
    return false;
}

/* The low 32 bits name the origin of an entry, also of one that a removed replica left in the log. */
static bool origin_is_taken(const struct nh_membership *m, uint64_t replica_id)
{
    for (uint32_t i = 0; i < m->n_members; i++)
        if ((uint32_t)m->members[i].replica_id == (uint32_t)replica_id)
            return true;
    for (uint32_t i = 0; i < m->n_removed; i++)
        if ((uint32_t)m->removed[i] == (uint32_t)replica_id)
            return true;
    return false;
}

static struct nh_member *find(const struct nh_membership *m, uint64_t replica_id)
{
    return (struct nh_member *)(size_t)nh_membership_find(m, replica_id);
}

/* ---- adding, and changing the kind ---- */

static const char *refuse_new(const struct nh_membership *m, const struct nh_member *member)
{
    if (is_removed(m, member->replica_id))
        return "this replica id was removed and may not return";
    if (origin_is_taken(m, member->replica_id))
        return "another replica of this shard has or had the same low 32 bits in its id";
    if (address_is_taken(m, member))
        return "another member has this address";
    if (m->n_removed >= MEMBERSHIP_REMOVED_MAX)
        return "4096 members were removed from this shard, and each is remembered: go on with a new shard";
    return m->n_members >= NH_MEMBERS_MAX ? "the shard has as many members as it may" : NULL;
}

static const char *refuse_kind(const struct nh_member *known, const struct nh_member *member)
{
    if (strcmp(known->address, member->address) != 0)
        return "this replica is a member with another address";
    if (known->kind == member->kind)
        return "this replica is a member already";
    if (nh_kind_is_leaving(known->kind))
        return "this replica is being removed";
    if (known->kind == NH_MEMBER_WITNESS || member->kind == NH_MEMBER_WITNESS)
        return "a witness has no log of payloads: it cannot become another kind, nor another kind a witness";
    return NULL;
}

static void insert(struct nh_membership *m, const struct nh_member *member)
{
    uint32_t at = 0;

    while (at < m->n_members && m->members[at].replica_id < member->replica_id)
        at++;
    m->members = xrealloc(m->members, (m->n_members + 1) * sizeof *m->members);
    memmove(m->members + at + 1, m->members + at, (m->n_members - at) * sizeof *m->members);
    m->members[at] = *member;
    m->members[at].outgoing = false;
    m->n_members++;
}

static const char *add(struct nh_membership *m, const struct nh_member *member)
{
    struct nh_member *known = find(m, member->replica_id);
    const char *reason = known ? refuse_kind(known, member) : refuse_new(m, member);

    if (reason)
        return reason;
    if (known)
        known->kind = member->kind;
    else
        insert(m, member);
    return NULL;
}

/* ---- removing ---- */

static void drop(struct nh_membership *m, struct nh_member *member)
{
    uint32_t at = (uint32_t)(member - m->members);

    m->removed = xrealloc(m->removed, (m->n_removed + 1) * sizeof *m->removed);
    m->removed[m->n_removed++] = member->replica_id;
    memmove(m->members + at, m->members + at + 1, (m->n_members - at - 1) * sizeof *m->members);
    m->n_members--;
}

static const char *remove_member(struct nh_membership *m, uint64_t replica_id)
{
    struct nh_member *known = find(m, replica_id);

    if (!known || nh_kind_is_leaving(known->kind))
        return "no such member";
    if (known->outgoing)
        known->kind = known->kind == NH_MEMBER_WITNESS ? NH_MEMBER_LEAVING_WITNESS : NH_MEMBER_LEAVING;
    else
        drop(m, known);
    return NULL;
}

static const char *update_address(struct nh_membership *m, const struct nh_member *member)
{
    struct nh_member *known = find(m, member->replica_id);

    if (!known)
        return "no such member";
    if (address_is_taken(m, member))
        return "another member has this address";
    memcpy(known->address, member->address, sizeof known->address);
    return NULL;
}

/* ---- one change, or several at once ---- */

static const char *change_member(struct nh_membership *m, uint32_t type, const struct nh_member *member)
{
    switch (type) {
    case NH_CONFIG_ADD_MEMBER: return add(m, member);
    case NH_CONFIG_REMOVE_MEMBER: return remove_member(m, member->replica_id);
    case NH_CONFIG_UPDATE_ADDRESS: return update_address(m, member);
    default: return "unknown type of change";
    }
}

static void enter_joint(struct nh_membership *m, bool auto_leave)
{
    for (uint32_t i = 0; i < m->n_members; i++)
        m->members[i].outgoing = nh_member_votes(&m->members[i]);
    m->joint = true;
    m->auto_leave = auto_leave;
}

static const char *leave_joint(struct nh_membership *m)
{
    if (!m->joint)
        return "the configuration is not joint";
    for (uint32_t i = m->n_members; i > 0; i--) {
        m->members[i - 1].outgoing = false;
        if (nh_kind_is_leaving(m->members[i - 1].kind))
            drop(m, &m->members[i - 1]);
    }
    m->joint = m->auto_leave = false;
    return NULL;
}

static const char *change_many(struct nh_membership *m, const struct nh_config_change *change)
{
    const char *reason = NULL;

    if (change->n_changes == 0)
        return "a change of nobody";
    if (change->n_changes > 1 || change->transition != NH_TRANSITION_AUTO)
        enter_joint(m, change->transition != NH_TRANSITION_EXPLICIT);
    for (uint32_t i = 0; i < change->n_changes && !reason; i++)
        reason = change_member(m, change->changes[i].type, &change->changes[i].member);
    return reason;
}

static const char *initialize(struct nh_membership *m, const struct nh_membership *initial)
{
    if (m->n_members > 0 || m->n_removed > 0)
        return "the shard has members already";
    nh_membership_deinit(m);
    nh_membership_copy(m, initial);
    return NULL;
}

static const char *change_membership(struct nh_membership *m, const struct nh_config_change *change)
{
    if (change->type == NH_CONFIG_INITIALIZE)
        return initialize(m, &change->initial);
    if (change->type == NH_CONFIG_LEAVE_JOINT)
        return leave_joint(m);
    if (m->joint)
        return "the configuration is joint: leave it first";
    if (change->type == NH_CONFIG_CHANGE_MANY)
        return change_many(m, change);
    return change_member(m, change->type, &change->member);
}

bool membership_apply(struct nh_membership *m, const struct nh_config_change *change, uint64_t index, const char **ret_reason)
{
    struct nh_membership next;

    if (change->config_change_id != 0 && change->config_change_id != m->config_change_id) {
        *ret_reason = "the membership has changed since this change was made";
        return false;
    }
    nh_membership_copy(&next, m); /* of several changes all or none are made */
    *ret_reason = change_membership(&next, change);
    if (!*ret_reason && change->type != NH_CONFIG_INITIALIZE)
        *ret_reason = membership_refuse(&next);
    if (*ret_reason) {
        nh_membership_deinit(&next);
        return false;
    }
    nh_membership_deinit(m);
    *m = next;
    m->config_change_id = index;
    return true;
}
