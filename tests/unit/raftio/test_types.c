#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/block.h"
#include "raftio/support/memory.h"
#include "raftio/types.h"

static struct nh_member members[2] = {{1, NH_MEMBER_VOTER, "a:1"}, {5, NH_MEMBER_WITNESS, "b:2"}};
static uint64_t removed[1] = {9};

static struct nh_membership sample(void)
{
    return (struct nh_membership){.config_change_id = 3, .n_members = 2, .n_removed = 1, .members = members, .removed = removed};
}

Test(types, a_membership_copy_is_deep_and_equal)
{
    struct nh_membership m = sample(), copy;

    nh_membership_copy(&copy, &m);
    cr_assert(nh_membership_equal(&m, &copy));
    cr_assert_neq(copy.members, m.members);
    cr_assert_neq(copy.removed, m.removed);
    nh_membership_deinit(&copy);
    nh_membership_deinit(&copy);
    cr_assert_null(copy.members);
}

Test(types, an_empty_membership_copies_without_arrays)
{
    struct nh_membership m = {0}, copy;

    nh_membership_copy(&copy, &m);
    cr_assert_null(copy.members);
    cr_assert_null(copy.removed);
    cr_assert(nh_membership_equal(&m, &copy));
}

Test(types, find_gives_the_member_or_null)
{
    struct nh_membership m = sample();

    cr_assert_eq(nh_membership_find(&m, 5), &members[1]);
    cr_assert_null(nh_membership_find(&m, 9));
}

Test(types, memberships_differ_in_every_field)
{
    struct nh_membership a = sample(), b;

    for (int field = 0; field < 7; field++) {
        nh_membership_copy(&b, &a);
        switch (field) {
        case 0: b.config_change_id = 4; break;
        case 1: b.members[1].replica_id = 6; break;
        case 2: b.members[1].kind = NH_MEMBER_VOTER; break;
        case 3: strcpy(b.members[0].address, "a:2"); break;
        case 4: b.removed[0] = 8; break;
        case 5: b.n_members = 1; break;
        default: b.n_removed = 0; break;
        }
        cr_assert_not(nh_membership_equal(&a, &b), "field %d", field);
        nh_membership_deinit(&b);
    }
}

Test(types, bytes_behind_the_end_of_an_address_do_not_matter)
{
    struct nh_membership a = sample(), b;

    nh_membership_copy(&b, &a);
    b.members[0].address[100] = 'x';
    cr_assert(nh_membership_equal(&a, &b));
    nh_membership_deinit(&b);
}

Test(types, deinit_takes_zeroed_and_released_structs)
{
    struct nh_bootstrap b = {.join = true};
    struct nh_snapshot s = {.file_path = xstrdup("/x")};
    struct nh_message m = {0};

    nh_bootstrap_deinit(&b);
    nh_bootstrap_deinit(&b);
    cr_assert_not(b.join);
    nh_snapshot_deinit(&s);
    nh_snapshot_deinit(&s);
    nh_message_deinit(&m);
    nh_message_deinit(&m);
}

Test(types, deinit_of_a_message_drops_its_references)
{
    struct block_builder builder = {0};
    struct block_record rec = {.payload = "x", .payload_bytes = 1};
    struct nh_message m = {.type = NH_MSG_REPLICATE, .n_runs = 2};
    struct nh_block *b;

    block_builder_add(&builder, &rec);
    b = block_seal(&builder, 1, 1);
    m.runs = xcalloc(2, sizeof *m.runs);
    m.runs[0] = (struct nh_run){nh_block_ref(b), 0, 1}; /* the second is still empty: half-filled */
    m.snapshot = xcalloc(1, sizeof *m.snapshot);
    m.snapshot->file_path = xstrdup("/x");
    cr_assert_eq(b->refs, 2);
    nh_message_deinit(&m);
    cr_assert_eq(b->refs, 1);
    cr_assert_eq(m.type, 0);
    cr_assert_null(m.runs);
    nh_block_unref(b);
}

Test(types, deinit_takes_a_message_whose_array_was_never_made)
{
    struct nh_message m = {.n_runs = 3};

    nh_message_deinit(&m);
    cr_assert_eq(m.n_runs, 0);
}

Test(types, every_message_type_has_a_name)
{
    for (uint32_t t = 0; t < NH_MSG_TYPE_COUNT; t++) {
        cr_assert_not_null(nh_message_type_name(t), "type %u", t);
        cr_assert_str_neq(nh_message_type_name(t), "UNKNOWN");
    }
    cr_assert_str_eq(nh_message_type_name(NH_MSG_REPLICATE), "REPLICATE");
    cr_assert_str_eq(nh_message_type_name(NH_MSG_TYPE_COUNT), "UNKNOWN");
    cr_assert_str_eq(nh_message_type_name(UINT32_MAX), "UNKNOWN");
}

Test(types, numbers_without_a_type_count_as_local)
{
    cr_assert(nh_message_type_is_local(NH_MSG_LOCAL_TICK));
    cr_assert(nh_message_type_is_local(NH_MSG_LOG_QUERY));
    cr_assert_not(nh_message_type_is_local(NH_MSG_REPLICATE));
    cr_assert_not(nh_message_type_is_local(NH_MSG_PROPOSE_RESP));
    cr_assert(nh_message_type_is_local(NH_MSG_TYPE_COUNT));
    cr_assert(nh_message_type_is_local(UINT32_MAX));
}
