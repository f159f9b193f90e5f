/* Snapshots of the kv machine, loaded as the daemon loads it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/machines/kv_command.h"
#include "nodehost/nodehost.h"

static const struct nh_machine_ops *ops;
static struct nh_machine *m, *other;
static uint64_t last_index;
static struct nh_error err;

struct bytes {
    uint8_t data[1 << 20];
    size_t size, at, cap; /* cap: what a write may fill; 0: all of it */
    volatile bool *stop;  /* set by the first call, if given */
};
static struct bytes image, again;
static volatile bool stop;

static struct nh_machine *open_machine(void)
{
    struct nh_machine_args args = {.struct_size = sizeof args, .shard_id = 1, .replica_id = 1, .services = nh_plugin_services()};
    struct nh_machine *ret;
    uint64_t applied;

    cr_assert_eq(ops->open(&args, &ret, &applied, &err), 0);
    cr_assert_eq(applied, 0);
    return ret;
}

static void setup(void)
{
    cr_assert_eq(nh_machine_load(KV_SO, &ops, &err), 0, "%s", err.text);
    m = open_machine();
    other = open_machine();
}

static void teardown(void)
{
    ops->close(m);
    ops->close(other);
}

TestSuite(kv_image, .init = setup, .fini = teardown);

static void apply(struct nh_machine *to, const char *text)
{
    struct kv_slice args[16];
    char copy[512], *save = NULL;
    uint8_t cmd[1024];
    struct nh_entry e = {.index = ++last_index, .cmd = cmd};
    uint32_t n = 0;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        args[n++] = (struct kv_slice){(const uint8_t *)word, (uint32_t)strlen(word)};
    kv_command_encode(args, n, cmd);
    e.size_bytes = kv_command_bytes(args, n);
    cr_assert_eq(ops->update(to, &e, 1, &err), 0);
}

static int collect(void *ctx, const void *data, size_t size_bytes)
{
    struct bytes *b = ctx;

    cr_assert_leq(b->size + size_bytes, sizeof b->data);
    if (b->stop)
        *b->stop = true;
    if (b->cap && b->size + size_bytes > b->cap)
        return NH_ENOSPC;
    memcpy(b->data + b->size, data, size_bytes);
    b->size += size_bytes;
    return 0;
}

/* In pieces of odd sizes: a reader may give less than it is asked for. */
static int64_t give(void *ctx, void *data, size_t cap_bytes)
{
    struct bytes *b = ctx;
    size_t n = b->size - b->at, piece = 1 + b->at % 61;

    if (b->stop)
        *b->stop = true;
    n = n < cap_bytes ? n : cap_bytes;
    n = n < piece ? n : piece;
    memcpy(data, b->data + b->at, n);
    b->at += n;
    return (int64_t)n;
}

static int save(struct nh_machine *from, struct bytes *to)
{
    struct nh_writer out = {collect, to};

    to->size = 0;
    return ops->save_snapshot(from, NULL, &out, &stop, &err);
}

static int recover(struct nh_machine *to, struct bytes *from)
{
    struct nh_reader in = {give, from};

    from->at = 0;
    memset(&err, 0, sizeof err);
    return ops->recover(to, &in, &stop, &err);
}

static void expect_equal_images(void)
{
    cr_assert_eq(save(m, &image), 0);
    cr_assert_eq(save(other, &again), 0);
    cr_assert_eq(image.size, again.size);
    cr_assert_eq(memcmp(image.data, again.data, image.size), 0);
}

static void fill_many(struct nh_machine *to, bool backwards)
{
    char text[64];

    for (int i = 0; i < 2000; i++) {
        int k = backwards ? 1999 - i : i;

        snprintf(text, sizeof text, "SET key:%d value:%d", k, k);
        apply(to, text);
    }
}

Test(kv_image, equal_states_have_equal_bytes_whatever_the_history)
{
    expect_equal_images();
    fill_many(m, false);
    apply(m, "DEL key:7");
    apply(other, "SET gone 1");
    fill_many(other, true);
    apply(other, "DEL gone key:7 key:8");
    apply(other, "APPEND key:8 value:");
    apply(other, "APPEND key:8 8");
    expect_equal_images();
    apply(other, "APPEND key:8 8");
    cr_assert_eq(save(other, &again), 0);
    cr_assert_neq(image.size, again.size);
}

/* docs/FORMATS.md, "Key-value image". */
static const uint8_t golden[] = {
    'N', 'H', 'K', 'V', 1, 0, 0, 0,           /* magic, version */
    0,   0,   0,   0,   0, 0, 0, 0,           /* applied */
    3,   0,   0,   0,   0, 0, 0, 0,           /* pairs */
    1,   0,   0,   0,   1, 0, 0, 0, 'a', '1', /* */
    2,   0,   0,   0,   5, 0, 0, 0, 'a', 'b', 'h', 'e', 'l', 'l', 'o', 1, 0, 0, 0, 2, 0, 0, 0, 'b', '2', '2',
};

Test(kv_image, golden)
{
    apply(m, "MSET b 22 ab hello a 1");
    cr_assert_eq(save(m, &image), 0);
    cr_assert_eq(image.size, sizeof golden);
    cr_assert_eq(memcmp(image.data, golden, sizeof golden), 0);
    memcpy(again.data, golden, again.size = sizeof golden);
    cr_assert_eq(recover(other, &again), 0, "%s", err.text);
    cr_assert_eq(ops->hash(m), ops->hash(other));
}

Test(kv_image, recover_replaces_what_was_there)
{
    fill_many(m, false);
    apply(other, "MSET mine 1 key:1 2");
    cr_assert_eq(save(m, &image), 0);
    cr_assert_eq(recover(other, &image), 0, "%s", err.text);
    expect_equal_images();
    cr_assert_eq(ops->hash(m), ops->hash(other));
    apply(m, "INCR n");
    apply(other, "INCR n");
    expect_equal_images();
}

Test(kv_image, a_large_value_and_empty_strings_survive)
{
    uint8_t *cmd = malloc(600 * 1024), *value = calloc(1, 500 * 1024);
    struct kv_slice args[] = {
        {(const uint8_t *)"MSET", 4}, {value, 0}, {value, 500 * 1024}, {(const uint8_t *)"z", 1}, {value, 0}};
    struct nh_entry e = {.index = ++last_index, .cmd = cmd};

    kv_command_encode(args, 5, cmd);
    e.size_bytes = kv_command_bytes(args, 5);
    cr_assert_eq(ops->update(m, &e, 1, &err), 0);
    cr_assert_eq(save(m, &image), 0);
    cr_assert_eq(recover(other, &image), 0, "%s", err.text);
    expect_equal_images();
    free(cmd);
    free(value);
}

Test(kv_image, a_cut_image_is_refused_at_every_byte)
{
    uint64_t before = ops->hash(other);

    for (size_t cut = 0; cut < sizeof golden; cut++) {
        memcpy(image.data, golden, image.size = cut);
        cr_assert_eq(recover(other, &image), NH_ECORRUPT, "cut at %zu", cut);
        cr_assert_eq(err.code, NH_ECORRUPT);
    }
    memcpy(image.data, golden, sizeof golden);
    image.size = sizeof golden + 1;
    cr_assert_eq(recover(other, &image), NH_ECORRUPT);
    cr_assert_eq(ops->hash(other), before, "a refused image changes nothing");
}

/* A map has one image and an image one map: what is taken is written back as it was, but for the applied index, which kv ignores.
 */
Test(kv_image, a_flipped_image_is_refused_or_is_another_map)
{
    for (size_t bit = 0; bit < 8 * sizeof golden; bit++) {
        memcpy(image.data, golden, image.size = sizeof golden);
        image.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (recover(other, &image) == 0 && (bit / 8 < 8 || bit / 8 >= 16)) {
            cr_assert_eq(save(other, &again), 0);
            cr_assert_eq(memcmp(again.data, image.data, sizeof golden), 0, "bit %zu", bit);
        }
    }
}

Test(kv_image, what_an_image_says_about_sizes_is_not_believed)
{
    static const struct {
        size_t at;
        uint32_t is;
        int code;
    } lies[] = {
        {0, 0x31323334, NH_ECORRUPT},               /* magic */
        {4, 2, NH_EUNSUPPORTED},                    /* version */
        {16, 0xffffffff, NH_ECORRUPT},              /* pairs */
        {24, 0xfffffff0, NH_ECORRUPT},              /* size of a key: 4 GiB, and nothing follows */
        {28, KV_VALUE_BYTES_MAX, NH_ECORRUPT},      /* of a value, allowed */
        {28, KV_VALUE_BYTES_MAX + 1u, NH_ECORRUPT}, /* and not */
    };

    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(image.data, golden, image.size = sizeof golden);
        kv_store_u32(image.data + lies[i].at, lies[i].is);
        cr_assert_eq(recover(other, &image), lies[i].code, "lie %zu", i);
    }
    memcpy(image.data, golden, image.size = sizeof golden);
    image.data[32] = 'c'; /* c, ab, b: not sorted */
    cr_assert_eq(recover(other, &image), NH_ECORRUPT);
    cr_assert(strstr(err.text, "do not rise"), "%s", err.text);
}

Test(kv_image, stop_and_failures_of_the_other_end_are_passed_on)
{
    fill_many(m, false);
    cr_assert_eq(save(m, &image), 0);
    stop = true;
    cr_assert_eq(save(m, &again), NH_ECLOSED);
    cr_assert_eq(recover(other, &image), NH_ECLOSED);
    stop = false;
    image.stop = &stop;
    cr_assert_eq(recover(other, &image), NH_ECLOSED, "set while it reads");
    image.stop = NULL;
    stop = false;
    again.cap = 100;
    cr_assert_eq(save(m, &again), NH_ENOSPC);
}
