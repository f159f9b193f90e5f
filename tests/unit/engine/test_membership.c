#include "engine/rsm/membership.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "engine/rsm/image.h"

static struct nh_membership m;
static const char *reason;

static struct nh_member member(uint64_t id, uint32_t kind, const char *address)
{
    struct nh_member x = {.replica_id = id, .kind = kind};

    strcpy(x.address, address);
    return x;
}

static bool add(uint64_t id, uint32_t kind, const char *address, uint64_t index)
{
    struct nh_config_change c = {.type = NH_CONFIG_ADD_MEMBER, .member = member(id, kind, address)};

    return membership_apply(&m, &c, index, &reason);
}

static bool del(uint64_t id, uint64_t index)
{
    struct nh_config_change c = {.type = NH_CONFIG_REMOVE_MEMBER, .member = {.replica_id = id}};

    return membership_apply(&m, &c, index, &reason);
}

static bool initialize(void)
{
    struct nh_member list[] = {member(1, NH_MEMBER_VOTER, "a:1"), member(3, NH_MEMBER_VOTER, "c:1")};
    struct nh_config_change c = {.type = NH_CONFIG_INITIALIZE, .initial = {.n_members = 2, .members = list}};

    return membership_apply(&m, &c, 1, &reason);
}

static void setup(void)
{
    m = (struct nh_membership){0};
    cr_assert(initialize());
}

static void teardown(void)
{
    nh_membership_deinit(&m);
}

static int forget(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    (void)ctx, (void)data, (void)size_bytes, (void)err;
    return NH_OK;
}

TestSuite(membership, .init = setup, .fini = teardown);

Test(membership, is_initialized_once)
{
    cr_assert_eq(m.n_members, 2);
    cr_assert_eq(m.config_change_id, 1);
    cr_assert_not(initialize());
    cr_assert_str_eq(reason, "the shard has members already");
}

Test(membership, an_added_member_keeps_the_order)
{
    cr_assert(add(2, NH_MEMBER_VOTER, "b:1", 10));
    cr_assert(add(9, NH_MEMBER_NON_VOTING, "d:1", 11));
    cr_assert_eq(m.n_members, 4);
    for (uint32_t i = 1; i < m.n_members; i++)
        cr_assert_lt(m.members[i - 1].replica_id, m.members[i].replica_id);
    cr_assert_eq(m.config_change_id, 11);
}

Test(membership, a_rejected_change_changes_nothing)
{
    struct nh_membership before;

    nh_membership_copy(&before, &m);
    cr_assert_not(add(1, NH_MEMBER_VOTER, "a:1", 5));
    cr_assert_not(add(1, NH_MEMBER_VOTER, "x:1", 5));
    cr_assert_not(add(1, NH_MEMBER_WITNESS, "a:1", 5));
    cr_assert_not(add(7, NH_MEMBER_VOTER, "c:1", 5));
    cr_assert_str_eq(reason, "another member has this address");
    cr_assert_not(del(7, 5));
    cr_assert(nh_membership_equal(&before, &m));
    nh_membership_deinit(&before);
}

Test(membership, only_a_non_voting_member_is_promoted)
{
    cr_assert(add(4, NH_MEMBER_NON_VOTING, "d:1", 5));
    cr_assert(add(5, NH_MEMBER_WITNESS, "e:1", 6));
    cr_assert(add(4, NH_MEMBER_VOTER, "d:1", 7));
    cr_assert_eq(nh_membership_find(&m, 4)->kind, NH_MEMBER_VOTER);
    cr_assert_not(add(5, NH_MEMBER_VOTER, "e:1", 8));
}

Test(membership, a_removed_id_never_returns)
{
    cr_assert(del(3, 5));
    cr_assert_eq(m.n_members, 1);
    cr_assert_eq(m.n_removed, 1);
    cr_assert_not(add(3, NH_MEMBER_VOTER, "c:1", 6));
    cr_assert_str_eq(reason, "this replica id was removed and may not return");
}

/* ---- joint configurations ---- */

static bool many(uint32_t transition, uint32_t n, struct nh_member_change *changes, uint64_t index)
{
    struct nh_config_change c = {.type = NH_CONFIG_CHANGE_MANY, .transition = transition, .n_changes = n, .changes = changes};

    return membership_apply(&m, &c, index, &reason);
}

static bool leave(uint64_t index)
{
    struct nh_config_change c = {.type = NH_CONFIG_LEAVE_JOINT};

    return membership_apply(&m, &c, index, &reason);
}

/* Statements 47, 48, 50: a voter that goes votes in the outgoing half until it is left, a demoted one too. */
Test(membership, several_changes_are_joint_until_left)
{
    struct nh_member_change changes[] = {
        {NH_CONFIG_REMOVE_MEMBER, {.replica_id = 1}},
        {NH_CONFIG_ADD_MEMBER, member(3, NH_MEMBER_NON_VOTING, "c:1")},
        {NH_CONFIG_ADD_MEMBER, member(5, NH_MEMBER_VOTER, "e:1")},
        {NH_CONFIG_ADD_MEMBER, member(6, NH_MEMBER_NON_VOTING, "f:1")},
    };

    cr_assert(many(NH_TRANSITION_AUTO, 4, changes, 9), "%s", reason);
    cr_assert(m.joint && m.auto_leave && m.config_change_id == 9 && m.n_members == 4);
    cr_assert(nh_membership_find(&m, 1)->kind == NH_MEMBER_LEAVING && nh_membership_find(&m, 1)->outgoing);
    cr_assert(nh_membership_find(&m, 3)->kind == NH_MEMBER_NON_VOTING && nh_membership_find(&m, 3)->outgoing);
    cr_assert(nh_membership_find(&m, 5)->kind == NH_MEMBER_VOTER && !nh_membership_find(&m, 5)->outgoing);
    cr_assert_not(add(7, NH_MEMBER_VOTER, "g:1", 10));
    cr_assert_str_eq(reason, "the configuration is joint: leave it first");
    cr_assert(leave(11));
    cr_assert(!m.joint && !m.auto_leave && m.n_members == 3 && m.n_removed == 1 && m.removed[0] == 1);
    cr_assert(!nh_membership_find(&m, 3)->outgoing && !nh_membership_find(&m, 5)->outgoing);
    cr_assert_not(leave(12));
    cr_assert_str_eq(reason, "the configuration is not joint");
}

Test(membership, transitions)
{
    struct nh_member_change one[] = {{NH_CONFIG_ADD_MEMBER, member(5, NH_MEMBER_VOTER, "e:1")}};
    struct nh_member_change two[] = {{NH_CONFIG_ADD_MEMBER, member(6, NH_MEMBER_VOTER, "f:1")}};
    struct nh_member_change three[] = {{NH_CONFIG_ADD_MEMBER, member(7, NH_MEMBER_VOTER, "g:1")}};

    cr_assert(many(NH_TRANSITION_AUTO, 1, one, 2) && !m.joint);
    cr_assert(many(NH_TRANSITION_IMPLICIT, 1, two, 3) && m.joint && m.auto_leave && leave(4));
    cr_assert(many(NH_TRANSITION_EXPLICIT, 1, three, 5) && m.joint && !m.auto_leave && leave(6));
    cr_assert_not(many(NH_TRANSITION_EXPLICIT, 0, NULL, 7));
    cr_assert_str_eq(reason, "a change of nobody");
}

Test(membership, of_several_changes_all_or_none_are_made)
{
    struct nh_member_change changes[] = {{NH_CONFIG_ADD_MEMBER, member(5, NH_MEMBER_VOTER, "e:1")},
                                         {NH_CONFIG_REMOVE_MEMBER, {.replica_id = 99}}};
    struct nh_member_change all[] = {{NH_CONFIG_REMOVE_MEMBER, {.replica_id = 1}}, {NH_CONFIG_REMOVE_MEMBER, {.replica_id = 3}}};
    struct nh_membership before;

    nh_membership_copy(&before, &m);
    cr_assert_not(many(NH_TRANSITION_AUTO, 2, changes, 2));
    cr_assert(nh_membership_equal(&before, &m));
    cr_assert_not(many(NH_TRANSITION_AUTO, 2, all, 3));
    cr_assert_str_eq(reason, "at least one voter must stay");
    cr_assert(nh_membership_equal(&before, &m));
    nh_membership_deinit(&before);
}

Test(membership, voters_may_be_demoted_but_witnesses_stay_what_they_are)
{
    cr_assert(add(3, NH_MEMBER_NON_VOTING, "c:1", 2));
    cr_assert_not(add(1, NH_MEMBER_NON_VOTING, "a:1", 3));
    cr_assert(add(3, NH_MEMBER_VOTER, "c:1", 4));
    cr_assert_not(add(3, NH_MEMBER_WITNESS, "c:1", 5));
    cr_assert(strstr(reason, "a witness has no log"), "%s", reason);
    cr_assert(add(7, NH_MEMBER_WITNESS, "g:1", 6) && add(8, NH_MEMBER_WITNESS, "h:1", 7));
    /* With more witnesses than voters a majority might hold no payloads. */
    cr_assert_not(add(9, NH_MEMBER_WITNESS, "i:1", 8));
    cr_assert_not(del(3, 9));
    cr_assert(strstr(reason, "more witnesses than voters"), "%s", reason);
}

Test(membership, addresses_are_updated)
{
    struct nh_config_change c = {.type = NH_CONFIG_UPDATE_ADDRESS, .member = member(3, NH_MEMBER_VOTER, "new:1")};

    cr_assert(membership_apply(&m, &c, 2, &reason));
    cr_assert_str_eq(nh_membership_find(&m, 3)->address, "new:1");
    c.member = member(3, NH_MEMBER_VOTER, "a:1");
    cr_assert_not(membership_apply(&m, &c, 3, &reason));
    c.member = member(4, NH_MEMBER_VOTER, "d:1");
    cr_assert_not(membership_apply(&m, &c, 3, &reason));
}

Test(membership, the_low_half_of_an_id_is_never_used_twice)
{
    cr_assert_not(add(((uint64_t)1 << 32) + 3, NH_MEMBER_VOTER, "x:1", 2));
    cr_assert(strstr(reason, "low 32 bits"), "%s", reason);
    cr_assert(del(3, 3));
    cr_assert_not(add(((uint64_t)1 << 32) + 3, NH_MEMBER_VOTER, "x:1", 4));
}

Test(membership, the_last_voter_stays)
{
    cr_assert(del(3, 5));
    cr_assert(add(4, NH_MEMBER_NON_VOTING, "d:1", 6));
    cr_assert_not(del(1, 7));
    cr_assert(del(4, 8));
}

Test(membership, a_change_made_against_an_older_membership_is_rejected)
{
    struct nh_config_change c = {.config_change_id = 1, .type = NH_CONFIG_REMOVE_MEMBER, .member = {.replica_id = 3}};

    cr_assert(add(2, NH_MEMBER_VOTER, "b:1", 10));
    cr_assert_not(membership_apply(&m, &c, 11, &reason));
    c.config_change_id = 10;
    cr_assert(membership_apply(&m, &c, 12, &reason));
}

Test(membership, holds_as_many_members_as_it_may_and_not_one_more)
{
    char address[32];
    uint64_t id = 10;

    for (; m.n_members < NH_MEMBERS_MAX; id++) {
        snprintf(address, sizeof address, "m:%u", (unsigned)id);
        cr_assert(add(id, NH_MEMBER_VOTER, address, id));
    }
    cr_assert_not(add(id, NH_MEMBER_VOTER, "one:more", id));
}

/* Beyond some thousands no image of the shard could be made any more. */
Test(membership, so_many_may_have_been_members_and_no_more)
{
    struct nh_snapshot record = {.shard_id = 1, .index = UINT64_MAX - 2, .term = UINT64_MAX - 2};
    struct image_head head = {.machine_name = "kv"};
    struct image_sink sink = {.write = forget};
    struct image_writer *w = NULL;
    uint64_t id = UINT64_MAX - UINT32_MAX + 100; /* as long as they get */

    for (uint32_t i = 0; i < MEMBERSHIP_REMOVED_MAX; i++) {
        cr_assert(add(++id, NH_MEMBER_NON_VOTING, "d:1", 2 * i + 2), "%s", reason);
        cr_assert(del(id, 2 * i + 3));
    }
    id++;
    cr_assert_not(add(id, NH_MEMBER_NON_VOTING, "d:1", id));
    cr_assert(strstr(reason, "new shard"), "%s", reason);
    cr_assert(del(3, id), "who is a member can be removed");
    record.membership = m;
    head.record = record;
    cr_assert_eq(image_writer_new(&sink, &head, &w, NULL), 0, "and an image has room for them");
    image_writer_free(w);
}

Test(membership, an_unknown_type_is_rejected)
{
    struct nh_config_change c = {.type = 99};

    cr_assert_not(membership_apply(&m, &c, 9, &reason));
}
