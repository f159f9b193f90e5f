/* Configurations and their changes, and the pure functions.
 *
 * A change is made by membership_apply, after what the suite's rules allow and ours do not is taken out: several changes of one
 * member are its last one, what changes nothing is left out, ids may return.
 */
#include "tests/conformance/raft-core/adapter.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- configurations ---- */

static void set_address(struct nh_member *m)
{
    (void)snprintf(m->address, sizeof m->address, "n%" PRIu64 ":1", m->replica_id);
}

static bool contains(const uint64_t *ids, uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static void put_member(struct nh_membership *m, uint64_t id, const rct_conf *c)
{
    struct nh_member member = {.replica_id = id, .outgoing = contains(c->voters_out, c->n_voters_out, id)};
    uint32_t at = 0;

    if (contains(c->voters, c->n_voters, id))
        member.kind = NH_MEMBER_VOTER;
    else if (contains(c->learners, c->n_learners, id) || contains(c->learners_next, c->n_learners_next, id))
        member.kind = NH_MEMBER_NON_VOTING;
    else
        member.kind = NH_MEMBER_LEAVING;
    set_address(&member);
    while (at < m->n_members && m->members[at].replica_id < id)
        at++;
    memmove(m->members + at + 1, m->members + at, (m->n_members - at) * sizeof *m->members);
    m->members[at] = member;
    m->n_members++;
}

bool conf_to_membership(const rct_conf *c, struct nh_membership *ret)
{
    const uint64_t *lists[] = {c->voters, c->voters_out, c->learners, c->learners_next};
    const uint32_t counts[] = {c->n_voters, c->n_voters_out, c->n_learners, c->n_learners_next};
    struct nh_membership m = {.joint = c->n_voters_out > 0, .auto_leave = c->auto_leave && c->n_voters_out > 0};

    m.members = xcalloc(NH_MEMBERS_MAX + 1, sizeof *m.members);
    for (size_t k = 0; k < 4; k++)
        for (uint32_t i = 0; i < counts[k]; i++) {
            if (nh_membership_find(&m, lists[k][i]))
                continue;
            if (lists[k][i] == 0 || m.n_members >= NH_MEMBERS_MAX) {
                nh_membership_deinit(&m);
                return false;
            }
            put_member(&m, lists[k][i], c);
        }
    *ret = m;
    return true;
}

void conf_of_membership(const struct nh_membership *m, struct conf_ids *ids, rct_conf *ret)
{
    *ret = (rct_conf){.voters = ids->ids[0], .voters_out = ids->ids[1], .learners = ids->ids[2], .learners_next = ids->ids[3]};
    ret->auto_leave = m->auto_leave;
    for (uint32_t i = 0; i < m->n_members && i < NH_MEMBERS_MAX; i++) {
        const struct nh_member *one = &m->members[i];

        if (one->kind == NH_MEMBER_VOTER)
            ids->ids[0][ret->n_voters++] = one->replica_id;
        if (one->outgoing)
            ids->ids[1][ret->n_voters_out++] = one->replica_id;
        if (one->kind == NH_MEMBER_NON_VOTING && !one->outgoing)
            ids->ids[2][ret->n_learners++] = one->replica_id;
        if (one->kind == NH_MEMBER_NON_VOTING && one->outgoing)
            ids->ids[3][ret->n_learners_next++] = one->replica_id;
    }
}

static void membership_of_core(const struct raft *r, struct nh_membership *ret)
{
    *ret = (struct nh_membership){.config_change_id = r->members_index,
                                  .joint = r->joint,
                                  .auto_leave = r->auto_leave,
                                  .n_members = r->n_members};
    ret->members = xcalloc(r->n_members + 1, sizeof *ret->members);
    for (uint32_t i = 0; i < r->n_members; i++) {
        const struct raft_member *m = &r->members[i];

        ret->members[i] = (struct nh_member){.replica_id = m->id, .kind = m->kind, .outgoing = m->outgoing};
        set_address(&ret->members[i]);
    }
}

void conf_of_core(const struct raft *r, struct conf_ids *ids, rct_conf *ret)
{
    struct nh_membership m;

    membership_of_core(r, &m);
    conf_of_membership(&m, ids, ret);
    nh_membership_deinit(&m);
}

/* ---- changes as payloads ---- */

static bool set_change(struct nh_member_change *to, const rct_cc1 *from)
{
    *to = (struct nh_member_change){.type = NH_CONFIG_ADD_MEMBER, .member = {.replica_id = from->node}};
    switch (from->type) {
    case RCT_CC_ADD_VOTER: break;
    case RCT_CC_ADD_LEARNER: to->member.kind = NH_MEMBER_NON_VOTING; break;
    case RCT_CC_REMOVE: to->type = NH_CONFIG_REMOVE_MEMBER; break;
    case RCT_CC_UPDATE: to->type = NH_CONFIG_UPDATE_ADDRESS; break;
    default: return false;
    }
    set_address(&to->member);
    return true;
}

/* Node 0 stands for a change that was refused: an empty payload, which changes nothing. */
uint8_t *conf_change_payload(const rct_cc *cc, uint32_t *ret_len)
{
    struct nh_member_change changes[NH_MEMBERS_MAX];
    struct nh_config_change c = {.type = NH_CONFIG_CHANGE_MANY, .transition = cc->transition, .changes = changes};
    uint8_t *payload;

    *ret_len = 0;
    if (cc->n > NH_MEMBERS_MAX || cc->transition > RCT_TR_JOINT_EXPLICIT)
        return NULL;
    for (uint32_t i = 0; i < cc->n; i++) {
        if (!set_change(&changes[c.n_changes], &cc->changes[i]))
            return NULL;
        c.n_changes += cc->changes[i].node != 0;
    }
    if (cc->n > 0 && c.n_changes == 0)
        return cc->v1 ? xcalloc(1, 1) : NULL;
    if (cc->n == 0) {
        c.type = NH_CONFIG_LEAVE_JOINT;
    } else if (cc->v1) {
        c.type = changes[0].type;
        c.member = changes[0].member;
    }
    *ret_len = (uint32_t)config_change_encode(&c, NULL, 0);
    payload = xmalloc(*ret_len + 1u);
    (void)config_change_encode(&c, payload, *ret_len);
    return payload;
}

static rct_cc1 change_of(uint32_t type, const struct nh_member *m)
{
    rct_cc1 c = {.type = RCT_CC_UPDATE, .node = m->replica_id};

    if (type == NH_CONFIG_REMOVE_MEMBER)
        c.type = RCT_CC_REMOVE;
    else if (type == NH_CONFIG_ADD_MEMBER)
        c.type = m->kind == NH_MEMBER_NON_VOTING ? RCT_CC_ADD_LEARNER : RCT_CC_ADD_VOTER;
    return c;
}

static bool is_single(uint32_t type)
{
    return type == NH_CONFIG_ADD_MEMBER || type == NH_CONFIG_REMOVE_MEMBER || type == NH_CONFIG_UPDATE_ADDRESS;
}

bool conf_change_of_entry(const rct_entry *e, struct conf_change *ret)
{
    struct nh_config_change c = {0};
    bool known;

    ret->cc = (rct_cc){.changes = ret->changes, .v1 = e->type == RCT_ENT_CONF};
    if (e->type == RCT_ENT_NORMAL)
        return false;
    if (e->len == 0) {
        ret->changes[0] = (rct_cc1){RCT_CC_ADD_VOTER, 0};
        ret->cc.n = ret->cc.v1;
        return true;
    }
    if (config_change_decode(e->data, e->len, &c, NULL) < 0)
        return false;
    known = c.type == NH_CONFIG_LEAVE_JOINT || c.type == NH_CONFIG_CHANGE_MANY || is_single(c.type);
    ret->cc.v1 = is_single(c.type);
    if (ret->cc.v1)
        ret->changes[ret->cc.n++] = change_of(c.type, &c.member);
    for (uint32_t i = 0; c.type == NH_CONFIG_CHANGE_MANY && i < c.n_changes; i++)
        ret->changes[ret->cc.n++] = change_of(c.changes[i].type, &c.changes[i].member);
    ret->cc.transition = c.transition;
    nh_config_change_deinit(&c);
    return known;
}

uint32_t conf_change_type(const uint8_t *payload, uint32_t len)
{
    rct_entry e = {.type = RCT_ENT_CONF, .len = len, .data = payload};
    struct conf_change c;

    return conf_change_of_entry(&e, &c) && !c.cc.v1 ? RCT_ENT_CONF_V2 : RCT_ENT_CONF;
}

int rct_conf_text(const rct_entry *e, char *buf, uint32_t cap)
{
    static const char letters[] = {
        [RCT_CC_ADD_VOTER] = 'v', [RCT_CC_REMOVE] = 'r', [RCT_CC_UPDATE] = 'u', [RCT_CC_ADD_LEARNER] = 'l'};
    struct conf_change c;
    int len = 0;

    if (!conf_change_of_entry(e, &c))
        return RCT_E_ARG;
    if (cap > 0)
        buf[0] = '\0';
    for (uint32_t i = 0; i < c.cc.n; i++) {
        size_t used = (size_t)len < cap ? (size_t)len : cap;

        len += snprintf(buf + used, cap - used, "%s%c%" PRIu64, i > 0 ? " " : "", letters[c.changes[i].type], c.changes[i].node);
    }
    return len;
}

/* ---- making a change ---- */

enum conf_op { CONF_SIMPLE = 0, CONF_ENTER = 1, CONF_ENTER_AUTO = 2, CONF_LEAVE = 3 };

/* Does it change the member that it names? */
static bool has_effect(const struct nh_membership *m, const rct_cc1 *c)
{
    const struct nh_member *known = nh_membership_find(m, c->node);

    switch (c->type) {
    case RCT_CC_ADD_VOTER: return !known || known->kind != NH_MEMBER_VOTER;
    case RCT_CC_ADD_LEARNER: return !known || known->kind != NH_MEMBER_NON_VOTING;
    case RCT_CC_REMOVE: return known != NULL;
    default: return false;
    }
}

static bool is_last_of_its_member(const rct_cc *cc, uint32_t at)
{
    for (uint32_t i = at + 1; i < cc->n; i++)
        if (cc->changes[i].node == cc->changes[at].node && cc->changes[i].type != RCT_CC_UPDATE)
            return false;
    return true;
}

/* Voters first: at no point there is none. */
static uint32_t normalise(const struct nh_membership *m, const rct_cc *cc, struct nh_member_change *ret)
{
    static const uint32_t order[] = {RCT_CC_ADD_VOTER, RCT_CC_ADD_LEARNER, RCT_CC_REMOVE};
    uint32_t n = 0;

    for (size_t k = 0; k < 3; k++)
        for (uint32_t i = 0; i < cc->n; i++) {
            const rct_cc1 *c = &cc->changes[i];

            if (c->type == order[k] && c->node != 0 && is_last_of_its_member(cc, i) && has_effect(m, c))
                (void)set_change(&ret[n++], c);
        }
    return n;
}

static bool is_voter_change(const struct nh_membership *m, const struct nh_member_change *c)
{
    const struct nh_member *known = nh_membership_find(m, c->member.replica_id);
    bool votes = known && known->kind == NH_MEMBER_VOTER;

    return votes != (c->type == NH_CONFIG_ADD_MEMBER && c->member.kind == NH_MEMBER_VOTER);
}

static bool apply_one(struct nh_membership *m, const struct nh_config_change *change, uint64_t index)
{
    const char *reason = NULL;
    bool applied = membership_apply(m, change, index, &reason);

    free(m->removed); /* ids may return */
    m->removed = NULL;
    m->n_removed = 0;
    return applied;
}

static bool apply_simple(struct nh_membership *m, const struct nh_member_change *changes, uint32_t n, uint64_t index)
{
    uint32_t n_voters = 0;

    for (uint32_t i = 0; i < n; i++)
        n_voters += is_voter_change(m, &changes[i]);
    if (m->joint || n_voters > 1)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        struct nh_config_change one = {.type = changes[i].type, .member = changes[i].member};

        if (!apply_one(m, &one, index))
            return false;
    }
    return m->n_members > 0 && !membership_refuse(m);
}

/* A joint configuration of which nothing changes is asked for by an address that stays. */
static bool apply_enter(struct nh_membership *m, struct nh_member_change *changes, uint32_t n, bool auto_leave, uint64_t index)
{
    struct nh_config_change many = {.type = NH_CONFIG_CHANGE_MANY,
                                    .transition = auto_leave ? NH_TRANSITION_IMPLICIT : NH_TRANSITION_EXPLICIT,
                                    .changes = changes,
                                    .n_changes = n};

    if (m->n_members == 0 || membership_refuse(m))
        return false;
    if (n == 0) {
        changes[0] = (struct nh_member_change){.type = NH_CONFIG_UPDATE_ADDRESS, .member = m->members[0]};
        many.n_changes = 1;
    }
    return apply_one(m, &many, index);
}

/* False: refused, and *m may be anything. */
static bool make_change(struct nh_membership *m, const rct_cc *cc, enum conf_op op, uint64_t index)
{
    struct nh_config_change leave = {.type = NH_CONFIG_LEAVE_JOINT};
    struct nh_member_change changes[NH_MEMBERS_MAX + 1];
    uint32_t n;

    if (op == CONF_LEAVE)
        return apply_one(m, &leave, index);
    if (cc->n > NH_MEMBERS_MAX || m->joint)
        return false;
    n = normalise(m, cc, changes);
    if (op == CONF_SIMPLE)
        return apply_simple(m, changes, n, index);
    return apply_enter(m, changes, n, op == CONF_ENTER_AUTO, index);
}

static enum conf_op op_of(const rct_cc *cc)
{
    if (cc->n == 0)
        return CONF_LEAVE;
    if (cc->v1 || (cc->n == 1 && cc->transition == RCT_TR_AUTO))
        return CONF_SIMPLE;
    return cc->transition == RCT_TR_JOINT_EXPLICIT ? CONF_ENTER : CONF_ENTER_AUTO;
}

/* What is refused is told the core, too: the change is decided. A change of nobody changes nothing. */
int rct_apply_conf(rct_node *n, const rct_entry *e, rct_conf *out)
{
    struct raft_event ev = {.type = RAFT_EV_MEMBERSHIP, .membership = {.index = e->index}};
    struct nh_membership m;
    struct conf_change c;
    bool made;

    if (!n->core)
        return RCT_E_ARG;
    membership_of_core(n->core, &m);
    made = conf_change_of_entry(e, &c);
    if (made && !(c.cc.n == 1 && c.changes[0].node == 0))
        made = make_change(&m, &c.cc, op_of(&c.cc), e->index);
    m.config_change_id = e->index;
    if (made)
        ev.membership.membership = &m;
    node_event(n, &ev);
    nh_membership_deinit(&m);
    conf_of_core(n->core, &n->conf_ids, out);
    return made ? RCT_OK : RCT_E_ARG;
}

int rct_conf_change(const rct_conf *in, const rct_cc *cc, uint32_t op, rct_conf *out)
{
    static _Thread_local struct conf_ids ids;
    struct nh_membership m;
    bool made;

    if (op > CONF_LEAVE || !conf_to_membership(in, &m))
        return RCT_E_ARG;
    made = make_change(&m, cc, (enum conf_op)op, 1);
    if (made)
        conf_of_membership(&m, &ids, out);
    nh_membership_deinit(&m);
    return made ? RCT_OK : RCT_E_ARG;
}
