/* Packed blocks: the same bytes back, these bytes on disk, and garbage that is refused. */
#include "logdb/rocksdb/pack.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/block.h"
#include "raftio/support/memory.h"

static struct block_builder b;
static struct nh_block *block;
static uint8_t *packed;
static size_t packed_bytes;
static struct unpacked back;
static struct nh_error err;

static void teardown(void)
{
    nh_block_unref(block);
    free(packed);
    free(back.data);
}

TestSuite(pack, .fini = teardown);

static void add_record(const struct block_record *r)
{
    cr_assert_eq(block_builder_add(&b, r), 0);
}

static void add(uint64_t key, uint32_t origin, const void *payload, uint32_t payload_bytes)
{
    add_record(&(struct block_record){.key = key, .origin = origin, .payload = payload, .payload_bytes = payload_bytes});
}

static void pack(uint64_t first)
{
    size_t size;

    block = block_seal(&b, 7, first);
    size = block->offsets[block->n];
    packed = xmalloc(pack_room(size));
    packed_bytes = pack_records(block->data, size, packed);
    cr_assert_leq(packed_bytes, pack_room(size));
}

static void expect_same(uint64_t first)
{
    cr_assert_eq(unpack_records(packed, packed_bytes, first, &back, &err), 0, "%s", err.text);
    cr_assert_eq(back.size_bytes, block->offsets[block->n]);
    cr_assert_eq(memcmp(back.data, block->data, back.size_bytes), 0);
}

Test(pack, proposals_of_one_origin_lose_what_repeats)
{
    for (uint64_t key = 100; key < 1100; key++)
        add(key, 3, "sixteen bytes....", 16);
    pack(50);
    expect_same(50);
    cr_assert_eq(packed_bytes, PACK_GROUP_BYTES + 1000u * (1 + 4 + 16));
}

Test(pack, these_are_the_bytes)
{
    /* A ? is a byte of a checksum. */
    static const uint8_t expected[] = "\2\0\0\x40\7\0\0\0\0\0\0\0\x11\0\0\0\0\0\0\0\0\0\0\0\3\0\0\0"
                                      "\1????A\2????BC"
                                      "\1\0\0\x40\7\0\0\0\0\0\0\0\x11\0\0\0\0\0\0\0\0\0\0\0\3\0\0\0"
                                      "\0????";

    add(0x11, 3, "A", 1);
    add(0x12, 3, "BC", 2);
    add(0x11, 3, "", 0);
    pack(5);
    cr_assert_eq(packed_bytes, sizeof expected - 1);
    for (size_t i = 0; i < packed_bytes; i++)
        cr_assert(expected[i] == '?' || packed[i] == expected[i], "byte %zu", i);
    cr_assert_eq(memcmp(packed + 29, block->data, 4), 0, "a checksum is the record's own");
    expect_same(5);
}

Test(pack, any_mixture_comes_back)
{
    static uint8_t payload[2000];

    srand(1);
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)rand();
    for (unsigned round = 0; round < 300; round++) {
        uint64_t key = 1u << 20;

        for (int n = 1 + rand() % 40; n > 0; n--) {
            struct block_record r = {.origin = (uint32_t)(rand() % 8 ? 1 : 2), .payload = payload + rand() % 8};

            r.type = (uint8_t)(rand() % 20 ? NH_ENTRY_APPLICATION : rand() % 2 ? NH_ENTRY_CONFIG_CHANGE : NH_ENTRY_METADATA);
            r.key = rand() % 6 ? key++ : rand() % 2 ? 0 : (key += 5);
            r.payload_bytes = (uint32_t)(rand() % 3 ? rand() % 40 : rand() % 5 ? 120 + rand() % 180 : rand() % 1900);
            if (rand() % 10 == 0) {
                r.client_id = 77;
                r.series_id = key;
            }
            add_record(&r);
        }
        pack(1000 + round);
        expect_same(1000 + round);
        back.size_bytes = 0;
        nh_block_unref(block);
        free(packed);
        block = NULL;
        packed = NULL;
    }
}

Test(pack, at_the_limit_and_one_past_it)
{
    static const uint8_t payload[PACK_PAYLOAD_MAX + 1] = "x";

    add(1, 1, payload, PACK_PAYLOAD_MAX);
    add(2, 1, payload, PACK_PAYLOAD_MAX + 1);
    pack(1);
    cr_assert_eq(packed_bytes,
                 PACK_GROUP_BYTES + 2 + 4 + PACK_PAYLOAD_MAX + 4 + nh_record_bytes(block->data + block->offsets[1]));
    expect_same(1);
}

/* The checksum of a record covers its term, index and key: what was changed here is noticed there. */
static bool is_what_was_packed(void)
{
    struct run_list l = {0};
    bool same = run_list_decode(&l, back.data, back.size_bytes, 9, NULL) == NH_OK &&
                back.size_bytes == block->offsets[block->n] && memcmp(back.data, block->data, back.size_bytes) == 0;

    run_list_deinit(&l);
    return same;
}

Test(pack, garbage_is_refused_here_or_by_the_checksums)
{
    static const uint8_t big[400] = "big";

    for (uint64_t key = 1; key < 20; key++)
        add(key, 1, "small", 5);
    add(30, 1, big, sizeof big);
    add_record(
        &(struct block_record){.key = 31, .origin = 1, .client_id = 5, .series_id = 6, .payload = "s", .payload_bytes = 1});
    pack(9);
    for (size_t cut = 0; cut < packed_bytes; cut++) {
        uint8_t *copy = xmemdup(packed, cut + 1); /* of its own, so that reading past it is noticed */

        back.size_bytes = 0;
        cr_assert(unpack_records(copy, cut, 9, &back, &err) < 0 || !is_what_was_packed(), "cut at %zu", cut);
        free(copy);
    }
    for (size_t bit = 0; bit < packed_bytes * 8; bit++) {
        packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        back.size_bytes = 0;
        cr_assert(unpack_records(packed, packed_bytes, 9, &back, &err) < 0 || !is_what_was_packed(), "bit %zu", bit);
        packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    back.size_bytes = 0;
    cr_assert_eq(unpack_records((const uint8_t *)"\0\0\0\0", 4, 9, &back, &err), NH_ECORRUPT);
    cr_assert(strstr(err.text, "before entry 9 has a senseless head"), "%s", err.text);
}
