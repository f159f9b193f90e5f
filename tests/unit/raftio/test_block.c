#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/block.h"
#include "raftio/support/crc32c.h"

static struct block_builder builder;
static struct run_list list;
static struct nh_error err;

static void teardown(void)
{
    run_list_deinit(&list);
    block_builder_deinit(&builder);
}

TestSuite(block, .fini = teardown);

static void add(const char *payload, uint64_t key, uint64_t client_id)
{
    struct block_record rec = {.type = NH_ENTRY_APPLICATION,
                               .origin = 0xaabbccdd,
                               .key = key,
                               .client_id = client_id,
                               .series_id = 11,
                               .responded_to = 12,
                               .payload = payload,
                               .payload_bytes = (uint32_t)strlen(payload)};

    cr_assert_eq(block_builder_add(&builder, &rec), NH_OK);
}

/* `n` records of growing payloads, so that all paddings occur. */
static struct nh_block *make_block(uint32_t n, uint64_t term, uint64_t first_index)
{
    char payload[64] = "";

    for (uint32_t i = 0; i < n; i++) {
        memset(payload, 'a' + (int)(i % 26), i % 40);
        payload[i % 40] = '\0';
        add(payload, first_index + i, i % 3 == 2 ? 77 : 0);
    }
    return block_seal(&builder, term, first_index);
}

static size_t size_of(const struct nh_block *b)
{
    return b->offsets[b->n];
}

/* The bytes of both blocks, one after the other. */
static uint8_t *concat(const struct nh_block *a, const struct nh_block *b, size_t *ret_bytes)
{
    uint8_t *bytes = malloc(size_of(a) + size_of(b));

    memcpy(bytes, a->data, size_of(a));
    memcpy(bytes + size_of(a), b->data, size_of(b));
    *ret_bytes = size_of(a) + size_of(b);
    return bytes;
}

/* Recomputes the checksum, so that a test reaches what is checked after it. */
static void fix_crc(uint8_t *record)
{
    uint32_t crc = crc32c(0, record + 4, 36 + nh_load_u32(record + 4));

    memcpy(record, &crc, sizeof crc);
}

Test(block, a_record_has_the_documented_layout)
{
    static const uint8_t expected[72] = {
        0x00, 0x00, 0x00, 0x00, 27,   0,    0,    0,                                  /* crc (below), size: session and payload */
        3,    0,    0,    0,    0,    0,    0,    0,    9,   0,   0,   0, 0, 0, 0, 0, /* term, index */
        0x77, 0x66, 0x55, 0x44, 0x33, 0,    0,    0,                                  /* key */
        0,    1,    0,    0,    0xdd, 0xcc, 0xbb, 0xaa,                               /* type, flags, zero, origin */
        5,    0,    0,    0,    0,    0,    0,    0,    11,  0,   0,   0, 0, 0, 0, 0, /* client, series */
        12,   0,    0,    0,    0,    0,    0,    0,    'a', 'b', 'c', 0, 0, 0, 0, 0,
    };
    struct nh_block *b;

    add("abc", 0x3344556677, 5);
    b = block_seal(&builder, 3, 9);
    cr_assert_eq(size_of(b), sizeof expected);
    cr_assert_eq(memcmp(b->data + 4, expected + 4, sizeof expected - 4), 0);
    cr_assert_eq(nh_load_u32(b->data), crc32c_table(0, expected + 4, 36 + 27)); /* without the padding */
    nh_block_unref(b);
}

Test(block, a_sealed_block_gives_back_what_was_added)
{
    struct nh_entry_view v;
    struct nh_block *b;

    add("", 1, 0);
    add("12345678", 2, 0);
    add("123456789", 3, 5);
    b = block_seal(&builder, 3, 100);
    cr_assert(b->n == 3 && b->term == 3 && b->first_index == 100 && b->refs == 1);
    cr_assert_eq((uintptr_t)b->data % NH_RECORD_ALIGN, 0);
    nh_record_view(b->data + b->offsets[1], &v);
    cr_assert(v.index == 101 && v.term == 3 && v.key == 2 && v.client_id == 0 && v.payload_bytes == 8);
    nh_record_view(b->data + b->offsets[2], &v);
    cr_assert(v.index == 102 && v.client_id == 5 && v.series_id == 11 && v.responded_to == 12 && v.origin == 0xaabbccdd);
    cr_assert(v.payload_bytes == 9 && memcmp(v.payload, "123456789", 9) == 0);
    cr_assert(builder.n == 0 && builder.data == NULL);
    nh_block_unref(b);
}

Test(block, what_was_reserved_has_room)
{
    const uint8_t *data;
    const uint32_t *offsets;

    cr_assert_eq(block_builder_reserve(&builder, 100, (size_t)100 * 64), NH_OK);
    data = builder.data;
    offsets = builder.offsets;
    cr_assert(data && offsets && builder.n == 0 && builder.size_bytes == 0);
    for (uint64_t key = 1; key <= 100; key++)
        add("123456789", key, 0);
    cr_assert(builder.n == 100 && builder.size_bytes <= (size_t)100 * 64);
    cr_assert(builder.data == data && builder.offsets == offsets);
    block_builder_deinit(&builder);
}

/* Small blocks are copies, large ones have the arrays themselves. */
Test(block, a_builder_that_is_reused_keeps_its_arrays)
{
    const uint8_t *data;
    struct nh_block *first, *second, *large;

    builder.is_reused = true;
    first = make_block(5, 3, 100);
    data = builder.data;
    cr_assert(builder.n == 0 && builder.size_bytes == 0 && data && builder.is_reused);
    second = make_block(7, 4, 105);
    cr_assert_eq(builder.data, data);
    cr_assert_eq(run_list_decode(&list, first->data, size_of(first), 100, &err), NH_OK, "%s", err.text);
    cr_assert_eq(run_list_decode(&list, second->data, size_of(second), 105, &err), NH_OK, "%s", err.text);
    cr_assert(list.n == 2 && nh_run_last(&list.runs[0]) == 104 && nh_run_last(&list.runs[1]) == 111);
    large = make_block(200, 4, 112);
    cr_assert_null(builder.data);
    cr_assert_eq(run_list_decode(&list, large->data, size_of(large), 112, &err), NH_OK, "%s", err.text);
    nh_block_unref(first);
    nh_block_unref(second);
    nh_block_unref(large);
}

Test(block, an_unsealed_block_has_no_term_and_no_index)
{
    struct nh_block *b;

    add("x", 1, 0);
    b = block_unsealed(&builder);
    cr_assert(b->term == 0 && b->first_index == 0 && nh_load_u32(b->data) == 0 && nh_record_index(b->data) == 0);
    cr_assert_eq(builder.n, 0);
    nh_block_unref(b);
}

static void add_of_type(uint8_t type)
{
    struct block_record rec = {.type = type};

    cr_assert_eq(block_builder_add(&builder, &rec), NH_OK);
}

/* Of a sealed one, of one that is copied as its builder is reused, of a decoded one; nobody has looked at those that travel. */
Test(block, a_block_tells_the_types_of_its_records)
{
    const uint32_t types = 1u << NH_ENTRY_APPLICATION | 1u << NH_ENTRY_CONFIG_CHANGE;
    struct nh_block *b;

    for (int reused = 0; reused <= 1; reused++) {
        builder.is_reused = reused;
        add_of_type(NH_ENTRY_APPLICATION);
        add_of_type(NH_ENTRY_CONFIG_CHANGE);
        b = block_seal(&builder, 3, 5);
        cr_assert_eq(b->types, types);
        cr_assert_eq(run_list_decode(&list, b->data, size_of(b), 0, &err), NH_OK);
        cr_assert_eq(list.runs[0].block->types, types);
        run_list_deinit(&list);
        nh_block_unref(b);
    }
    builder.is_reused = false;
    add_of_type(NH_ENTRY_METADATA);
    b = block_seal(&builder, 3, 5);
    cr_assert_eq(b->types, 1u << NH_ENTRY_METADATA);
    nh_block_unref(b);
    add_of_type(NH_ENTRY_APPLICATION);
    b = block_unsealed(&builder);
    cr_assert_eq(b->types & types, types, "any may be there");
    nh_block_unref(b);
}

Test(block, the_largest_payload_fits_and_one_more_does_not)
{
    struct block_record rec = {.payload_bytes = NH_ENTRY_PAYLOAD_MAX + 1, .client_id = 1};
    uint8_t *payload = calloc(1, NH_ENTRY_PAYLOAD_MAX + 1);
    struct nh_block *b;

    rec.payload = payload;
    cr_assert_eq(block_builder_add(&builder, &rec), NH_ETOOBIG);
    cr_assert_eq(builder.n, 0);
    rec.payload_bytes--;
    cr_assert_eq(block_builder_add(&builder, &rec), NH_OK);
    b = block_seal(&builder, 1, 1);
    cr_assert_eq(run_list_decode(&list, b->data, size_of(b), 1, &err), NH_OK);
    nh_block_unref(b);
    free(payload);
}

Test(block, a_builder_refuses_more_than_four_gibibytes)
{
    struct block_record rec = {.payload = "12345678", .payload_bytes = 8};

    builder.size_bytes = UINT32_MAX / 8 * 8 - 47; /* pretended: one byte less than the record needs */
    cr_assert_eq(block_builder_add(&builder, &rec), NH_ETOOBIG);
    cr_assert_eq(builder.n, 0);
    builder.size_bytes = 0;
}

Test(block, references_are_counted)
{
    struct nh_block *b = make_block(2, 1, 1);

    cr_assert_eq(nh_block_ref(b), b);
    cr_assert_eq(b->refs, 2);
    nh_block_unref(b);
    cr_assert_eq(b->refs, 1);
    nh_block_unref(b);
    nh_block_unref(NULL);
}

Test(block, an_empty_builder_cannot_be_sealed, .signal = SIGABRT)
{
    block_seal(&builder, 1, 1);
}

Test(block, a_list_merges_slices_that_continue)
{
    struct nh_block *b = make_block(10, 2, 5);

    run_list_add(&list, b, 1, 3);
    run_list_add(&list, b, 3, 3); /* nothing */
    run_list_add(&list, b, 3, 6);
    cr_assert_eq(list.n, 1);
    cr_assert_eq(b->refs, 2);
    cr_assert(nh_run_first(&list.runs[0]) == 6 && nh_run_last(&list.runs[0]) == 10 && nh_run_count(&list.runs[0]) == 5);
    run_list_add(&list, b, 8, 9); /* a gap: a run of its own */
    cr_assert_eq(list.n, 2);
    cr_assert_eq(b->refs, 3);
    cr_assert_eq(run_list_bytes(&list), b->offsets[6] - b->offsets[1] + b->offsets[9] - b->offsets[8]);
    run_list_deinit(&list);
    cr_assert_eq(b->refs, 1);
    nh_block_unref(b);
}

Test(block, decoding_makes_one_block_per_term)
{
    struct nh_block *a = make_block(50, 2, 7), *b = make_block(3, 4, 57);
    size_t n;
    uint8_t *bytes = concat(a, b, &n);

    cr_assert_eq(run_list_decode(&list, bytes, n, 7, &err), NH_OK);
    cr_assert_eq(list.n, 2);
    cr_assert(nh_run_first(&list.runs[0]) == 7 && nh_run_last(&list.runs[0]) == 56 && nh_run_term(&list.runs[0]) == 2);
    cr_assert(nh_run_first(&list.runs[1]) == 57 && nh_run_last(&list.runs[1]) == 59 && nh_run_term(&list.runs[1]) == 4);
    cr_assert_eq(run_list_bytes(&list), n);
    cr_assert_eq(memcmp(nh_run_data(&list.runs[0]), a->data, size_of(a)), 0);
    cr_assert_eq(memcmp(nh_run_data(&list.runs[1]), b->data, size_of(b)), 0);
    for (uint32_t i = 0; i <= a->n; i++)
        cr_assert_eq(list.runs[0].block->offsets[i], a->offsets[i]);
    cr_assert_eq((uintptr_t)nh_run_data(&list.runs[1]) % NH_RECORD_ALIGN, 0);
    free(bytes);
    nh_block_unref(a);
    nh_block_unref(b);
}

Test(block, decoding_continues_what_the_list_holds)
{
    struct nh_block *a = make_block(3, 2, 7), *b = make_block(2, 2, 10);

    cr_assert_eq(run_list_decode(&list, b->data, size_of(b), 7, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "entry 10 where 7 is due"));
    cr_assert_eq(run_list_decode(&list, a->data, size_of(a), 7, &err), NH_OK);
    cr_assert_eq(run_list_decode(&list, NULL, 0, 7, &err), NH_OK);
    cr_assert_eq(run_list_decode(&list, a->data, size_of(a), 7, &err), NH_ECORRUPT);
    cr_assert_eq(run_list_decode(&list, b->data, size_of(b), 7, &err), NH_OK);
    cr_assert_eq(list.n, 2);
    nh_block_unref(a);
    nh_block_unref(b);
}

/* Two good terms and a bad record: nothing of it may stay. */
Test(block, a_decoding_error_leaves_the_list_unchanged)
{
    struct nh_block *held = make_block(1, 1, 6), *a = make_block(3, 2, 7), *b = make_block(3, 3, 10);
    size_t n;
    uint8_t *bytes = concat(a, b, &n);

    run_list_add(&list, held, 0, 1);
    bytes[n - 1] ^= 1;
    bytes[size_of(a) + b->offsets[2] + 30] ^= 1;
    cr_assert_eq(run_list_decode(&list, bytes, n, 0, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "entry 12"), "%s", err.text);
    cr_assert_eq(list.n, 1);
    cr_assert_eq(list.runs[0].block, held);
    free(bytes);
    nh_block_unref(held);
    nh_block_unref(a);
    nh_block_unref(b);
}

Test(block, every_flipped_bit_is_detected)
{
    struct nh_block *b = make_block(4, 2, 7);
    uint8_t *bytes = malloc(size_of(b));

    memcpy(bytes, b->data, size_of(b));
    for (size_t bit = 0; bit < size_of(b) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(run_list_decode(&list, bytes, size_of(b), 7, &err), NH_ECORRUPT, "bit %zu", bit);
        cr_assert_eq(list.n, 0);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(bytes);
    nh_block_unref(b);
}

Test(block, cut_off_input_decodes_only_at_the_end_of_a_record)
{
    struct nh_block *b = make_block(5, 2, 7);
    uint32_t whole = 0;

    for (size_t n = 0; n <= size_of(b); n++) {
        uint8_t *exact = malloc(n ? n : 1);
        bool at_end = n == b->offsets[whole];

        memcpy(exact, b->data, n);
        cr_assert_eq(run_list_decode(&list, exact, n, 7, &err), at_end ? NH_OK : NH_ECORRUPT, "%zu", n);
        if (at_end)
            cr_assert_eq(list.n ? nh_run_count(&list.runs[0]) : 0, whole++);
        run_list_deinit(&list);
        free(exact);
    }
    cr_assert_eq(whole, 6);
    nh_block_unref(b);
}

/* Damages that carry a right checksum: what a faulty or hostile peer could send. */
static void expect_refusal(const struct nh_block *b, size_t at, uint64_t value, size_t width, const char *why)
{
    uint8_t *bytes = malloc(size_of(b));

    memcpy(bytes, b->data, size_of(b));
    memcpy(bytes + at, &value, width);
    if (nh_record_bytes(bytes) <= size_of(b))
        fix_crc(bytes);
    cr_assert_eq(run_list_decode(&list, bytes, size_of(b), 0, &err), NH_ECORRUPT, "%s", why);
    cr_assert_not_null(strstr(err.text, why), "%s: %s", why, err.text);
    free(bytes);
}

Test(block, wrong_records_with_right_checksums_are_refused)
{
    struct nh_block *b = make_block(2, 5, 7);

    expect_refusal(b, 8, 0, 8, "out of range");
    expect_refusal(b, 16, 0, 8, "out of range");
    expect_refusal(b, 16, UINT64_MAX, 8, "out of range");
    expect_refusal(b, 16, 9, 8, "entry 8 where 10 is due");
    expect_refusal(b, 16, 8, 8, "entry 8 where 9 is due");
    expect_refusal(b, 8, 6, 8, "term 5 after term 6");
    expect_refusal(b, 32, 4, 1, "unknown type 4");
    expect_refusal(b, 33, 2, 1, "unknown flags");
    expect_refusal(b, 33, 0x80, 1, "unknown flags");
    expect_refusal(b, 34, 1, 1, "unknown flags");
    expect_refusal(b, 35, 0x80, 1, "unknown flags");
    expect_refusal(b, 32, 0x204, 2, "unknown type 4");
    expect_refusal(b, 33, 1, 1, "session of 0 bytes");
    expect_refusal(b, 4, UINT32_MAX, 4, "above the limit");
    expect_refusal(b, 4, NH_ENTRY_PAYLOAD_MAX + 1, 4, "above the limit");
    expect_refusal(b, 4, NH_ENTRY_PAYLOAD_MAX, 4, "are left");
    nh_block_unref(b);
}

Test(block, padding_must_be_zero)
{
    struct nh_block *b;

    add("abc", 1, 0);
    b = block_seal(&builder, 5, 7);
    expect_refusal(b, 47, 1, 1, "padding");
    nh_block_unref(b);
}

Test(block, terms_must_not_fall_within_the_list_either)
{
    struct nh_block *a = make_block(1, 5, 7), *b = make_block(1, 4, 8);

    run_list_add(&list, a, 0, 1);
    cr_assert_eq(run_list_decode(&list, b->data, size_of(b), 0, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "term 4 after term 5"));
    nh_block_unref(a);
    nh_block_unref(b);
}

Test(block, forwarded_proposals_travel_unsealed)
{
    struct nh_block *u, *sealed;

    add("one", 1, 0);
    add("two", 2, 9);
    u = block_unsealed(&builder);
    cr_assert_eq(run_list_decode_unsealed(&list, u->data, size_of(u), &err), NH_OK);
    cr_assert(list.n == 1 && nh_run_count(&list.runs[0]) == 2 && list.runs[0].block->first_index == 0);
    add("zero", 3, 0);
    cr_assert_eq(block_builder_add_encoded(&builder, u->data, size_of(u), &err), NH_OK);
    cr_assert_eq(builder.n, 3);
    sealed = block_seal(&builder, 4, 20);
    cr_assert_eq(nh_record_key(sealed->data + sealed->offsets[2]), 2);
    run_list_deinit(&list);
    cr_assert_eq(run_list_decode(&list, sealed->data, size_of(sealed), 20, &err), NH_OK);
    nh_block_unref(u);
    nh_block_unref(sealed);
}

static void refuse_unsealed(uint8_t *bytes, size_t n, const char *why)
{
    uint32_t before = builder.n;
    size_t size_before = builder.size_bytes;

    cr_assert_eq(block_builder_add_encoded(&builder, bytes, n, &err), NH_ECORRUPT, "%s", why);
    cr_assert_not_null(strstr(err.text, why), "%s: %s", why, err.text);
    cr_assert(builder.n == before && builder.size_bytes == size_before);
    cr_assert_eq(run_list_decode_unsealed(&list, bytes, n, &err), NH_ECORRUPT);
    cr_assert_eq(list.n, 0);
}

Test(block, malformed_proposals_leave_the_builder_unchanged)
{
    struct nh_block *u;
    uint8_t bytes[256];
    size_t n;

    add("one", 1, 0);
    add("two", 2, 0);
    u = block_unsealed(&builder);
    n = size_of(u);
    memcpy(bytes, u->data, n);
    add("held", 3, 0);
    refuse_unsealed(bytes, n - 1, "are left");
    refuse_unsealed(bytes, n - 40, "cut off");
    bytes[48 + 8] = 1;
    refuse_unsealed(bytes, n, "proposal 1 at byte 48: a proposal has a term");
    bytes[48 + 8] = 0;
    bytes[16] = 1;
    refuse_unsealed(bytes, n, "a proposal has a term");
    bytes[16] = 0;
    bytes[0] = 1;
    refuse_unsealed(bytes, n, "a proposal has a term");
    bytes[0] = 0;
    bytes[32] = NH_ENTRY_METADATA;
    refuse_unsealed(bytes, n, "cannot be proposed");
    bytes[32] = NH_ENTRY_CONFIG_CHANGE;
    cr_assert_eq(block_builder_add_encoded(&builder, bytes, n, &err), NH_OK);
    cr_assert_eq(builder.n, 3);
    nh_block_unref(u);
}
