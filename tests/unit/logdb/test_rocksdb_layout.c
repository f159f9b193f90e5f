/* The bytes on disk: a change here is a new format and needs NH_LOGDB_BIN_VERSION and docs/FORMATS.md. */
#include "tests/conformance/logdb/fixture.h"

#include "logdb/rocksdb/layout.h"
#include "raftio/support/crc32c.h"

Test(layout, keys_are_these_bytes)
{
    static const char prefix[] = "\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\x09";
    struct layout_key key;

    layout_key(&key, 0x0102030405060708, 9, LAYOUT_STATE);
    cr_assert_eq(key.size_bytes, 17);
    cr_assert_eq(memcmp(key.bytes, prefix, 16), 0);
    cr_assert_eq(key.bytes[16], 3);
    layout_block_key(&key, 0x0102030405060708, 9, 0x1122);
    cr_assert_eq(key.size_bytes, 25);
    cr_assert_eq(memcmp(key.bytes, prefix, 16), 0);
    cr_assert_eq(memcmp(key.bytes + 16, "\x01\0\0\0\0\0\0\x11\x22", 9), 0);
    layout_range_begin(&key, 0x0102030405060708, 9);
    cr_assert_eq(key.size_bytes, 16);
}

Test(layout, keys_are_taken_apart)
{
    struct nh_replica_info info;
    enum layout_kind kind;
    struct layout_key key;
    uint64_t index;

    layout_block_key(&key, 7, 8, 9);
    cr_assert(layout_key_parse(key.bytes, key.size_bytes, &info, &kind, &index));
    cr_assert(info.shard_id == 7 && info.replica_id == 8 && kind == LAYOUT_BLOCK && index == 9);
    cr_assert(layout_key_is(key.bytes, key.size_bytes, 7, 8, LAYOUT_BLOCK));
    cr_assert(!layout_key_is(key.bytes, key.size_bytes, 7, 9, LAYOUT_BLOCK));
    cr_assert(!layout_key_parse(key.bytes, 24, &info, &kind, &index), "cut off");
    cr_assert(!layout_key_parse(key.bytes, 17, &info, &kind, &index), "a block without an index");
    layout_key(&key, 7, 8, LAYOUT_END);
    cr_assert(!layout_key_parse(key.bytes, key.size_bytes, &info, &kind, &index), "no such kind");
    layout_key(&key, 7, 8, (enum layout_kind)0);
    cr_assert(!layout_key_parse(key.bytes, key.size_bytes, &info, &kind, &index), "no such kind");
}

Test(layout, a_header_is_these_bytes_and_every_bit_counts)
{
    const struct layout_header h = {.n = 0x0a0b, .number = 5, .state = {.term = 1, .vote = 2, .commit = 3}};
    struct layout_header back;
    uint8_t out[LAYOUT_HEADER_BYTES];

    layout_header_encode(&h, crc32c, out);
    cr_assert_eq(memcmp(out + 4, "\1\0\0\0\x0b\x0a\0\0\0\0\0\0\5\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0",
                        44),
                 0);
    cr_assert_eq(layout_header_decode((char *)out, sizeof out, crc32c, &back, NULL), NH_OK);
    cr_assert(back.n == h.n && back.number == 5 && back.state.term == 1 && back.state.vote == 2 && back.state.commit == 3);
    cr_assert_eq(layout_header_decode((char *)out, sizeof out - 1, crc32c, &back, NULL), NH_ECORRUPT);
    for (size_t bit = 0; bit < sizeof out * 8; bit++) {
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(layout_header_decode((char *)out, sizeof out, crc32c, &back, NULL), NH_ECORRUPT);
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(layout, an_envelope_of_another_format_is_refused)
{
    uint8_t value[16] = {[8] = 1, 2, 3, 4, 5, 6, 7, 8};
    uint32_t crc;

    layout_envelope_seal(value, 8, crc32c);
    cr_assert_eq(layout_envelope_check((char *)value, 16, crc32c, NULL), NH_OK);
    cr_assert_eq(layout_envelope_check((char *)value, 15, crc32c, NULL), NH_ECORRUPT);
    cr_assert_eq(layout_envelope_check((char *)value, 7, crc32c, NULL), NH_ECORRUPT);
    value[4] = 2;
    crc = crc32c(0, value + 4, 12);
    memcpy(value, &crc, 4);
    cr_assert_eq(layout_envelope_check((char *)value, 16, crc32c, NULL), NH_ECORRUPT);
}

/* Every way in which the records of a block can be wrong. */
Test(layout, damaged_blocks_are_refused)
{
    struct nh_block *b = make_block(5, 4, 1);
    size_t size = LAYOUT_HEADER_BYTES + b->offsets[4], begin, end;
    struct layout_header h = {.n = 4};
    uint8_t value[1024] = {0};
    uint32_t to;

    cr_assert_leq(size, sizeof value);
    memcpy(value + LAYOUT_HEADER_BYTES, b->data, b->offsets[4]);
    cr_assert_eq(layout_block_slice((char *)value, size, 5, &h, 1, 3, SIZE_MAX, &begin, &end, &to, NULL), NH_OK);
    cr_assert_eq(begin, LAYOUT_HEADER_BYTES + b->offsets[1]);
    cr_assert_eq(end, LAYOUT_HEADER_BYTES + b->offsets[3]);
    cr_assert_eq(layout_block_slice((char *)value, size, 5, &h, 0, 4, SIZE_MAX, &begin, &end, &to, NULL), NH_OK);
    for (size_t cut = 8; cut < b->offsets[4]; cut += 8)
        cr_assert_eq(layout_block_slice((char *)value, size - cut, 5, &h, 0, 4, SIZE_MAX, &begin, &end, &to, NULL), NH_ECORRUPT);
    cr_assert_eq(layout_block_slice((char *)value, size + 8, 5, &h, 0, 4, SIZE_MAX, &begin, &end, &to, NULL), NH_ECORRUPT);
    cr_assert_eq(layout_block_slice((char *)value, size, 6, &h, 0, 4, SIZE_MAX, &begin, &end, &to, NULL), NH_ECORRUPT);
    memset(value + LAYOUT_HEADER_BYTES + 4, 0xff, 4); /* the size of the first record */
    cr_assert_eq(layout_block_slice((char *)value, size, 5, &h, 0, 4, SIZE_MAX, &begin, &end, &to, NULL), NH_ECORRUPT);
    nh_block_unref(b);
}

/* ---- places in the journal ---- */

#define N_PARTS 3u

/* A joined block of entries in parts of 2, 3 and 4. */
static size_t make_joined(uint8_t *value, struct layout_header *ret)
{
    *ret = (struct layout_header){.n = 9, .packed = true, .located = true, .joined = true};
    layout_header_encode(ret, crc32c, value);
    for (uint32_t i = 0; i < N_PARTS; i++) {
        const struct layout_location at = {.segment_id = 7 + i, .offset = 4096, .size_bytes = 600, .n = 2 + i};

        layout_location_encode(&at, value + LAYOUT_HEADER_BYTES + i * LAYOUT_LOCATION_BYTES);
    }
    return LAYOUT_HEADER_BYTES + N_PARTS * LAYOUT_LOCATION_BYTES;
}

Test(layout, formats_of_blocks)
{
    for (uint32_t format = 1; format <= 6; format++) {
        const struct layout_header h = {.n = 1, .packed = format % 2 == 0, .located = format >= 3, .joined = format >= 5};
        struct layout_header back;
        uint8_t out[LAYOUT_HEADER_BYTES];

        layout_header_encode(&h, crc32c, out);
        cr_assert_eq(out[4], format);
        cr_assert_eq(layout_header_decode((char *)out, sizeof out, crc32c, &back, NULL), NH_OK);
        cr_assert(back.packed == h.packed && back.located == h.located && back.joined == h.joined);
    }
}

Test(layout, a_location_is_these_bytes)
{
    const struct layout_location at = {.segment_id = 0x0102, .offset = 0x030405, .size_bytes = 0x0607, .n = 0x0809};
    uint8_t out[LAYOUT_LOCATION_BYTES];

    layout_location_encode(&at, out);
    cr_assert_eq(memcmp(out, "\2\1\0\0\0\0\0\0\5\4\3\0\0\0\0\0\7\6\0\0\x09\x08\0\0", sizeof out), 0);
}

/* Older versions did not write how many they are. */
Test(layout, the_header_tells_how_many_lie_in_one_place)
{
    struct layout_header h = {.n = 5, .located = true};
    uint8_t value[LAYOUT_HEADER_BYTES + LAYOUT_LOCATION_BYTES] = {0};
    struct layout_location at = {.segment_id = 7, .offset = 4096, .size_bytes = 600};
    uint32_t before;

    layout_header_encode(&h, crc32c, value);
    layout_location_encode(&at, value + LAYOUT_HEADER_BYTES);
    cr_assert_eq(layout_location_find((char *)value, sizeof value, &h, 4, &at, &before, NULL), NH_OK);
    cr_assert(at.n == 5 && at.segment_id == 7 && before == 0);
    cr_assert_eq(layout_location_find((char *)value, sizeof value - 1, &h, 4, &at, &before, NULL), NH_ECORRUPT);
    cr_assert_eq(layout_location_find((char *)value, LAYOUT_HEADER_BYTES, &h, 4, &at, &before, NULL), NH_ECORRUPT);
    at.size_bytes = LAYOUT_LOCATED_MAX + 1;
    layout_location_encode(&at, value + LAYOUT_HEADER_BYTES);
    cr_assert_eq(layout_location_find((char *)value, sizeof value, &h, 4, &at, &before, NULL), NH_ECORRUPT);
}

Test(layout, parts_are_found)
{
    static const uint32_t part_of[] = {0, 0, 1, 1, 1, 2, 2, 2, 2}, before_part[] = {0, 2, 5};
    uint8_t value[256];
    struct layout_header h;
    size_t size = make_joined(value, &h);
    struct layout_location at;
    uint32_t before;

    for (uint32_t i = 0; i < h.n; i++) {
        cr_assert_eq(layout_location_find((char *)value, size, &h, i, &at, &before, NULL), NH_OK);
        cr_assert(at.segment_id == 7 + part_of[i] && at.n == 2 + part_of[i] && before == before_part[part_of[i]], "entry %u", i);
    }
}

Test(layout, damaged_parts_are_refused)
{
    uint8_t value[256];
    struct layout_header h;
    size_t size = make_joined(value, &h);
    struct layout_location at;
    uint32_t before;

    cr_assert_eq(layout_location_find((char *)value, size - LAYOUT_LOCATION_BYTES, &h, 8, &at, &before, NULL), NH_ECORRUPT);
    cr_assert_eq(layout_location_find((char *)value, size - 1, &h, 0, &at, &before, NULL), NH_ECORRUPT);
    cr_assert_eq(layout_location_find((char *)value, size - 2 * LAYOUT_LOCATION_BYTES, &h, 0, &at, &before, NULL), NH_ECORRUPT,
                 "one part is not joined");
    h.n = 8;
    cr_assert_eq(layout_location_find((char *)value, size, &h, 5, &at, &before, NULL), NH_ECORRUPT, "more than there are");
    h.n = 9;
    memset(value + LAYOUT_HEADER_BYTES + 20, 0xff, 4);
    cr_assert_eq(layout_location_find((char *)value, size, &h, 0, &at, &before, NULL), NH_ECORRUPT);
    memset(value + LAYOUT_HEADER_BYTES + 20, 0, 4);
    cr_assert_eq(layout_location_find((char *)value, size, &h, 0, &at, &before, NULL), NH_OK, "an empty part is passed over");
    cr_assert_eq(before, 0u);
    cr_assert_eq(at.segment_id, 8u);
    cr_assert_eq(layout_location_find((char *)value, size, &h, 8, &at, &before, NULL), NH_ECORRUPT, "seven are left");
}
