/* The counter of docs/MACHINES.md, loaded as the daemon loads it. */
#include <criterion/criterion.h>
#include <string.h>

#include "nodehost/nodehost.h"

static const struct nh_machine_ops *ops;
static struct nh_machine *m;
static struct nh_entry entry;
static const bool stop = false;
static uint8_t image[64];
static size_t image_size, image_at;

static struct nh_machine *open_machine(void)
{
    struct nh_machine_args args = {.struct_size = sizeof args};
    struct nh_machine *ret;
    uint64_t applied = 1;

    cr_assert_eq(ops->open(&args, &ret, &applied, NULL), 0);
    cr_assert_eq(applied, 0);
    return ret;
}

static void setup(void)
{
    struct nh_error err;

    cr_assert_eq(nh_machine_load(COUNTER_SO, &ops, &err), 0, "%s", err.text);
    m = open_machine();
}

static void teardown(void)
{
    ops->close(m);
}

TestSuite(counter, .init = setup, .fini = teardown);

static uint64_t apply(const char *text)
{
    entry = (struct nh_entry){.index = entry.index + 1, .cmd = text, .size_bytes = strlen(text)};
    cr_assert_eq(ops->update(m, &entry, 1, NULL), 0);
    return entry.result.value;
}

static uint64_t look(struct nh_machine *at)
{
    uint64_t value = 0;

    cr_assert_eq(ops->lookup(at, "", 0, NULL, &value, NULL), 0);
    return value;
}

static int collect(void *ctx, const void *data, size_t size_bytes)
{
    (void)ctx;
    cr_assert_leq(image_size + size_bytes, sizeof image);
    memcpy(image + image_size, data, size_bytes);
    image_size += size_bytes;
    return 0;
}

static int64_t give(void *ctx, void *data, size_t cap_bytes)
{
    (void)ctx;
    if (image_at == image_size || cap_bytes == 0)
        return 0;
    memcpy(data, image + image_at++, 1);
    return 1;
}

static int recover(struct nh_machine *to)
{
    struct nh_reader in = {give, NULL};

    image_at = 0;
    return ops->recover(to, &in, &stop, NULL);
}

Test(counter, adds)
{
    cr_assert_eq(apply("add 5"), 5);
    cr_assert_eq(apply("add 0"), 5);
    cr_assert_eq(apply("add 37"), 42);
    cr_assert_eq(look(m), 42);
    cr_assert_eq(apply("add 18446744073709551615"), 41, "wraps around");
}

Test(counter, what_is_no_command_is_answered_and_changes_nothing)
{
    static const char *const wrong[] = {"", "add", "add ", "add x", "add -1", "add 1 ", "sub 1", "add 1.5"};

    apply("add 7");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        apply(wrong[i]);
        cr_assert_eq(entry.result.size_bytes, strlen("usage: add N"), "%s", wrong[i]);
        cr_assert_eq(look(m), 7);
    }
}

Test(counter, a_snapshot_is_of_the_prepared_moment)
{
    struct nh_writer out = {collect, NULL};
    struct nh_machine *other = open_machine();
    void *at_five, *at_six;

    apply("add 5");
    cr_assert_eq(ops->prepare_snapshot(m, &at_five, NULL), 0);
    apply("add 1");
    cr_assert_eq(ops->prepare_snapshot(m, &at_six, NULL), 0);
    apply("add 100");
    cr_assert_eq(ops->save_snapshot(m, at_five, &out, &stop, NULL), 0);
    ops->release_snapshot(m, at_five);
    ops->release_snapshot(m, at_six);
    cr_assert_eq(image_size, 8);
    cr_assert_eq(recover(other), 0);
    cr_assert_eq(look(other), 5);
    cr_assert_eq(ops->hash(other), 5);
    ops->close(other);
}

Test(counter, an_image_of_another_size_is_refused)
{
    for (image_size = 0; image_size < 20; image_size++)
        cr_assert_eq(recover(m), image_size == 8 ? 0 : NH_ECORRUPT, "%zu bytes", image_size);
}
