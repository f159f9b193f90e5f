#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "raftio/registry.h"

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
