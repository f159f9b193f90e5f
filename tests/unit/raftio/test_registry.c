#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "raftio/registry.h"
#include "raftio/support/crc32c.h"

static const struct nh_registry_ops *ops;
static struct nh_registry *reg;
static char got[NH_ADDRESS_BYTES];

static void setup(void)
{
    ops = nh_registry_static();
    cr_assert_eq(ops->open(&reg, NULL), NH_OK);
}

static void teardown(void)
{
    ops->close(reg);
}

TestSuite(registry, .init = setup, .fini = teardown);

Test(registry, the_table_is_complete)
{
    cr_assert_eq(ops->abi_version, NH_REGISTRY_ABI);
    cr_assert_eq(ops->struct_size, sizeof *ops);
    cr_assert_str_eq(ops->name, "static");
    ops->close(NULL);
}

Test(registry, add_resolve_replace_remove)
{
    struct nh_error err = {0};

    cr_assert_eq(ops->resolve(reg, 1, 2, got, &err), NH_ENOTFOUND);
    cr_assert_str_eq(err.text, "shard 1 replica 2: address not known");
    cr_assert_eq(ops->add(reg, 1, 2, "a:1", &err), NH_OK);
    cr_assert_eq(ops->resolve(reg, 1, 2, got, &err), NH_OK);
    cr_assert_str_eq(got, "a:1");
    cr_assert_eq(ops->add(reg, 1, 2, "b:22", &err), NH_OK);
    ops->resolve(reg, 1, 2, got, &err);
    cr_assert_str_eq(got, "b:22");
    cr_assert_eq(ops->resolve(reg, 1, 3, got, &err), NH_ENOTFOUND);
    cr_assert_eq(ops->resolve(reg, 2, 2, got, &err), NH_ENOTFOUND);
    ops->remove(reg, 1, 2);
    ops->remove(reg, 1, 2);
    ops->remove(reg, 9, 9);
    cr_assert_eq(ops->resolve(reg, 1, 2, got, &err), NH_ENOTFOUND);
}

Test(registry, removing_a_shard_leaves_the_others)
{
    for (uint64_t shard = 1; shard <= 50; shard++)
        for (uint64_t replica = 1; replica <= 3; replica++)
            cr_assert_eq(ops->add(reg, shard, replica, "h:1", NULL), NH_OK);
    ops->remove_shard(reg, 7);
    ops->remove_shard(reg, 7);
    for (uint64_t shard = 1; shard <= 50; shard++)
        for (uint64_t replica = 1; replica <= 3; replica++)
            cr_assert_eq(ops->resolve(reg, shard, replica, got, NULL), shard == 7 ? NH_ENOTFOUND : NH_OK);
}

static void expect(uint64_t shard, uint64_t replica, const char *address)
{
    int r = ops->resolve(reg, shard, replica, got, NULL);

    cr_assert_eq(r, address ? NH_OK : NH_ENOTFOUND, "shard %d replica %d", (int)shard, (int)replica);
    if (address)
        cr_assert_str_eq(got, address);
}

/* Addresses are shared by those who live there: nobody's change may be another's. Under ASan: nor may one be freed too early. */
Test(registry, shared_addresses_are_each_ones_own)
{
    const char *hosts[] = {"one:1", "two:2", "three:3"};

    for (uint64_t shard = 1; shard <= 1000; shard++)
        for (uint64_t replica = 3; replica >= 1; replica--)
            cr_assert_eq(ops->add(reg, shard, replica, hosts[(shard + replica) % 3], NULL), NH_OK);
    for (uint64_t shard = 1; shard <= 1000; shard += 2)
        cr_assert_eq(ops->add(reg, shard, 2, "moved:4", NULL), NH_OK);
    for (uint64_t shard = 1; shard <= 1000; shard++) {
        expect(shard, 1, hosts[(shard + 1) % 3]);
        expect(shard, 2, shard % 2 ? "moved:4" : hosts[(shard + 2) % 3]);
        expect(shard, 3, hosts[shard % 3]);
        expect(shard, 4, NULL);
    }
    for (uint64_t shard = 1; shard < 1000; shard++)
        ops->remove_shard(reg, shard);
    expect(999, 2, NULL);
    expect(1000, 2, hosts[1002 % 3]);
}

Test(registry, an_address_may_be_added_again_by_its_only_user)
{
    for (int i = 0; i < 3; i++)
        cr_assert_eq(ops->add(reg, 1, 1, "a:1", NULL), NH_OK);
    expect(1, 1, "a:1");
    ops->remove(reg, 1, 1);
    expect(1, 1, NULL);
    cr_assert_eq(ops->add(reg, 1, 1, "a:1", NULL), NH_OK);
    expect(1, 1, "a:1");
}

Test(registry, members_may_come_and_go_in_any_order)
{
    const uint64_t ids[] = {5, 1, 9, 3, 7, UINT64_MAX};
    char address[16];

    for (size_t i = 0; i < 6; i++) {
        snprintf(address, sizeof address, "h:%zu", i);
        cr_assert_eq(ops->add(reg, 1, ids[i], address, NULL), NH_OK);
    }
    for (size_t gone = 0; gone < 6; gone++) {
        for (size_t i = 0; i < 6; i++) {
            snprintf(address, sizeof address, "h:%zu", i);
            expect(1, ids[i], i < gone ? NULL : address);
        }
        ops->remove(reg, 1, ids[gone]);
    }
    expect(1, UINT64_MAX, NULL);
}

/* They are found by checksum. The halves a and b have the same, so all that is made of two of them has. */
Test(registry, addresses_of_one_checksum_are_told_apart)
{
    const char *halves[] = {"host-1923746832.example:26000", "host-1721289678.example:26000"};
    char addresses[4][64];

    for (uint64_t i = 0; i < 4; i++) {
        snprintf(addresses[i], sizeof addresses[i], "%s%s", halves[i / 2], halves[i % 2]);
        cr_assert_eq(crc32c(0, addresses[i], strlen(addresses[i])), crc32c(0, addresses[0], strlen(addresses[0])));
        cr_assert_eq(ops->add(reg, i + 1, 1, addresses[i], NULL), NH_OK);
        cr_assert_eq(ops->add(reg, i + 1, 2, addresses[i], NULL), NH_OK);
    }
    for (uint64_t gone = 0; gone < 4; gone++) {
        uint64_t shard = (gone + 2) % 4 + 1; /* neither the newest first nor the oldest */

        ops->remove(reg, shard, 1);
        expect(shard, 2, addresses[shard - 1]);
        ops->remove(reg, shard, 2);
        expect(shard, 2, NULL);
        for (uint64_t i = 0; i < 4; i++)
            if ((i + 2) % 4 > gone)
                expect(i + 1, 2, addresses[i]);
    }
}

Test(registry, the_longest_address_fits_and_one_more_does_not)
{
    char address[NH_ADDRESS_BYTES + 1];
    struct nh_error err = {0};

    memset(address, 'a', sizeof address);
    address[NH_ADDRESS_BYTES - 1] = '\0';
    cr_assert_eq(ops->add(reg, 1, 1, address, &err), NH_OK);
    cr_assert_eq(ops->resolve(reg, 1, 1, got, &err), NH_OK);
    cr_assert_str_eq(got, address);
    address[NH_ADDRESS_BYTES - 1] = 'a';
    address[NH_ADDRESS_BYTES] = '\0';
    cr_assert_eq(ops->add(reg, 1, 1, address, &err), NH_EINVAL);
    cr_assert_not_null(strstr(err.text, "longer than 127 bytes"));
}

Test(registry, ids_and_addresses_must_not_be_empty)
{
    cr_assert_eq(ops->add(reg, 0, 1, "a:1", NULL), NH_EINVAL);
    cr_assert_eq(ops->add(reg, 1, 0, "a:1", NULL), NH_EINVAL);
    cr_assert_eq(ops->add(reg, 1, 1, "", NULL), NH_EINVAL);
    cr_assert_eq(ops->add(reg, 1, 1, NULL, NULL), NH_EINVAL);
    cr_assert_eq(ops->resolve(reg, 0, 0, got, NULL), NH_ENOTFOUND);
}

/* Changes and looks up beside others; what resolve gives must be one of the two whole addresses. */
static void *hammer(void *arg)
{
    uint64_t own = (uint64_t)(uintptr_t)arg;
    char address[NH_ADDRESS_BYTES];

    for (int i = 0; i < 3000; i++) {
        ops->add(reg, 1, 1, i % 2 ? "short:1" : "a-much-longer-name:26000", NULL);
        ops->add(reg, 1 + own, own, "own:1", NULL);
        if (ops->resolve(reg, 1, 1, address, NULL) == NH_OK)
            cr_assert(strcmp(address, "short:1") == 0 || strcmp(address, "a-much-longer-name:26000") == 0);
        cr_assert_eq(ops->resolve(reg, 1 + own, own, address, NULL), NH_OK);
        ops->remove(reg, 1, 1);
        ops->remove_shard(reg, 1 + own);
    }
    return NULL;
}

Test(registry, threads_do_not_disturb_each_other)
{
    pthread_t threads[4];

    for (uintptr_t i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}
