#include "engine/rsm/membership.h"

#include <string.h>

#include "raftio/support/memory.h"

static uint32_t count_voters(const struct nh_membership *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n_members; i++)
        n += m->members[i].kind == NH_MEMBER_VOTER;
    return n;
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

static const char *refuse_add(const struct nh_membership *m, const struct nh_member *member)
{
    const struct nh_member *known = nh_membership_find(m, member->replica_id);

    if (is_removed(m, member->replica_id))
        return "this replica id was removed and may not return";
    if (address_is_taken(m, member))
        return "another member has this address";
    if (!known)
        return m->n_members >= NH_MEMBERS_MAX ? "the shard has as many members as it may" : NULL;
    if (strcmp(known->address, member->address) != 0)
        return "this replica is a member with another address";
    if (known->kind == member->kind)
        return "this replica is a member already";
    return known->kind == NH_MEMBER_NON_VOTING && member->kind == NH_MEMBER_VOTER ? NULL
                                                                                  : "only a non-voting member changes its kind";
}

static void add(struct nh_membership *m, const struct nh_member *member)
{
    uint32_t at = 0;

    while (at < m->n_members && m->members[at].replica_id < member->replica_id)
        at++;
    if (at == m->n_members || m->members[at].replica_id != member->replica_id) {
        m->members = xrealloc(m->members, (m->n_members + 1) * sizeof *m->members);
        memmove(m->members + at + 1, m->members + at, (m->n_members - at) * sizeof *m->members);
        m->n_members++;
    }
    m->members[at] = *member;
}

static const char *refuse_remove(const struct nh_membership *m, uint64_t replica_id)
{
    const struct nh_member *known = nh_membership_find(m, replica_id);

    if (!known)
        return "no such member";
    return known->kind == NH_MEMBER_VOTER && count_voters(m) == 1 ? "the last voter cannot be removed" : NULL;
}

static void remove_member(struct nh_membership *m, uint64_t replica_id)
{
    uint32_t at = (uint32_t)(nh_membership_find(m, replica_id) - m->members);

    memmove(m->members + at, m->members + at + 1, (m->n_members - at - 1) * sizeof *m->members);
    m->n_members--;
    m->removed = xrealloc(m->removed, (m->n_removed + 1) * sizeof *m->removed);
    m->removed[m->n_removed++] = replica_id;
}

static const char *change_membership(struct nh_membership *m, const struct nh_config_change *change)
{
    const char *reason;

    switch (change->type) {
    case NH_CONFIG_INITIALIZE:
        if (m->n_members > 0 || m->n_removed > 0)
            return "the shard has members already";
        nh_membership_deinit(m);
        nh_membership_copy(m, &change->initial);
        return NULL;
    case NH_CONFIG_ADD_MEMBER:
        reason = refuse_add(m, &change->member);
        if (!reason)
            add(m, &change->member);
        return reason;
    case NH_CONFIG_REMOVE_MEMBER:
        reason = refuse_remove(m, change->member.replica_id);
        if (!reason)
            remove_member(m, change->member.replica_id);
        return reason;
    default: return "unknown type of change";
    }
}

bool membership_apply(struct nh_membership *m, const struct nh_config_change *change, uint64_t index, const char **ret_reason)
{
    if (change->config_change_id != 0 && change->config_change_id != m->config_change_id)
        *ret_reason = "the membership has changed since this change was made";
    else
        *ret_reason = change_membership(m, change);
    if (*ret_reason)
        return false;
    m->config_change_id = index;
    return true;
}
