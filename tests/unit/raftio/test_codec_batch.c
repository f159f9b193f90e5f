#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/codec_private.h"
#include "raftio/codec_wire.h"
#include "raftio/raftpb.pb-c.h"
#include "raftio/support/block.h"
#include "raftio/support/memory.h"

static struct nh_error err;

static struct nh_block *make_block(uint32_t n, uint64_t term, uint64_t first_index)
{
    struct block_builder b = {0};

    for (uint32_t i = 0; i < n; i++) {
        struct block_record rec = {.origin = 1, .key = i + 1, .payload = "some payload bytes", .payload_bytes = i % 19};

        cr_assert_eq(block_builder_add(&b, &rec), NH_OK);
    }
    return term ? block_seal(&b, term, first_index) : block_unsealed(&b);
}

static struct nh_message plain(uint32_t type)
{
    return (struct nh_message){.type = type, .shard_id = 1, .to = 2, .from = 3, .term = 4};
}

/* A message of `type` with the runs of up to two blocks. */
static struct nh_message with_runs(uint32_t type, uint64_t log_index, struct nh_block *a, struct nh_block *b)
{
    struct nh_message m = plain(type);

    m.log_index = log_index;
    m.runs = xcalloc(2, sizeof *m.runs);
    m.runs[m.n_runs++] = (struct nh_run){a, 0, a->n};
    if (b)
        m.runs[m.n_runs++] = (struct nh_run){b, 0, b->n};
    return m;
}

static uint8_t *encode(struct nh_message *messages, uint32_t n, size_t *ret_bytes)
{
    struct nh_message_batch b = {.deployment_id = 7, .source_address = "h1:26000", .n_messages = n, .messages = messages};
    size_t bytes = batch_encode(&b, NULL, 0);
    uint8_t *out = xmalloc(bytes + 1);

    out[bytes] = 0xee;
    cr_assert_eq(batch_encode(&b, out, bytes), bytes);
    cr_assert_eq(out[bytes], 0xee);
    *ret_bytes = bytes;
    return out;
}

static int decode_messages(struct nh_message *messages, uint32_t n, struct nh_message_batch **ret)
{
    size_t bytes;
    uint8_t *out = encode(messages, n, &bytes);
    int r = batch_decode(out, bytes, ret, &err);

    free(out);
    return r;
}

static void expect_corrupt(struct nh_message m, const char *why)
{
    struct nh_message_batch *b = NULL;

    cr_assert_eq(decode_messages(&m, 1, &b), NH_ECORRUPT, "%s", why);
    cr_assert_not_null(strstr(err.text, why), "%s: %s", why, err.text);
    cr_assert_null(b);
    nh_message_deinit(&m);
}

static size_t bytes_of(const struct nh_message *m)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < m->n_runs; i++)
        bytes += nh_run_size(&m->runs[i]);
    return bytes;
}

static void assert_same(const struct nh_message *a, const struct nh_message *b)
{
    cr_assert(a->type == b->type && a->reject == b->reject && a->shard_id == b->shard_id && a->to == b->to && a->from == b->from);
    cr_assert(a->term == b->term && a->log_term == b->log_term && a->log_index == b->log_index && a->commit == b->commit);
    cr_assert(a->hint == b->hint && a->hint_high == b->hint_high && a->n_runs == b->n_runs);
    cr_assert_eq(bytes_of(a), bytes_of(b));
    cr_assert_eq(a->snapshot != NULL, b->snapshot != NULL);
    for (uint32_t i = 0; i < a->n_runs; i++)
        cr_assert_eq(memcmp(nh_run_data(&a->runs[i]), nh_run_data(&b->runs[i]), nh_run_size(&a->runs[i])), 0);
}

static void round_trip(struct nh_message *m)
{
    struct nh_message_batch *b = NULL;

    cr_assert_eq(decode_messages(m, 1, &b), NH_OK, "%s", err.text);
    cr_assert_eq(b->n_messages, 1);
    cr_assert_eq(b->deployment_id, 7);
    cr_assert_str_eq(b->source_address, "h1:26000");
    assert_same(m, &b->messages[0]);
    batch_free(b);
}

Test(codec_batch, every_type_with_every_number_travels)
{
    struct nh_member member = {.replica_id = 1, .address = "a:1"};
    struct nh_snapshot snapshot = {.shard_id = 1, .index = 9, .membership = {.n_members = 1, .members = &member}};

    for (uint32_t type = 0; type < NH_MSG_TYPE_COUNT; type++) {
        struct nh_message m = {.type = type,
                               .reject = true,
                               .shard_id = 1,
                               .to = UINT64_MAX,
                               .from = 127,
                               .term = 128,
                               .log_term = 16383,
                               .log_index = 16384,
                               .commit = 1u << 31,
                               .hint = 1ull << 63,
                               .hint_high = 1};

        m.snapshot = type == NH_MSG_INSTALL_SNAPSHOT ? &snapshot : NULL;
        round_trip(&m);
    }
}

Test(codec_batch, an_empty_batch_travels)
{
    struct nh_message_batch empty = {0}, *b = NULL;

    cr_assert_eq(batch_encode(&empty, NULL, 0), 0);
    cr_assert_eq(batch_decode(NULL, 0, &b, &err), NH_OK);
    cr_assert(b->n_messages == 0 && b->deployment_id == 0);
    cr_assert_str_eq(b->source_address, "");
    batch_free(b);
    batch_free(NULL);
}

/* With a message of each kind, heartbeats in both tables, and every size that is too little. */
Test(codec_batch, encoding_into_too_little_room_tells_what_is_needed_and_stays_within_it)
{
    struct nh_block *block = make_block(3, 4, 1);
    struct nh_message messages[] = {plain(NH_MSG_PING), with_runs(NH_MSG_REPLICATE, 0, block, NULL), plain(NH_MSG_HEARTBEAT),
                                    plain(NH_MSG_HEARTBEAT_RESP), plain(NH_MSG_HEARTBEAT)};
    struct nh_message_batch b = {7, "h1:2600", sizeof messages / sizeof *messages, messages};
    uint8_t out[1024];
    size_t n = batch_encode(&b, NULL, 0);

    cr_assert_lt(n, sizeof out);
    for (size_t cap = 0; cap < n; cap++) {
        memset(out, 0xee, sizeof out);
        cr_assert_eq(batch_encode(&b, out, cap), n);
        cr_assert_eq(out[cap], 0xee);
    }
    memset(out, 0xee, sizeof out);
    cr_assert_eq(batch_encode(&b, out, sizeof out), n);
    cr_assert_eq(out[n], 0xee);
    for (uint32_t i = 0; i < b.n_messages; i++)
        nh_message_deinit(&messages[i]);
}

/* The sizes that are counted are those that are written, at the edges of each. */
Test(codec_batch, a_number_takes_as_many_bytes_as_are_counted)
{
    for (unsigned bits = 0; bits < 64; bits++) {
        uint64_t edge = 1ull << bits, around[] = {edge - 1, edge, edge + 1, edge | (edge - 1)};

        for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
            uint8_t out[WIRE_NUMBER_BYTES_MAX];

            cr_assert_eq(wire_put_varint(out, around[i]) - out, (ptrdiff_t)wire_varint_bytes(around[i]));
            cr_assert_leq(wire_number_bytes(around[i]), WIRE_NUMBER_BYTES_MAX);
        }
    }
}

/* The bytes on the wire are a promise to hosts of other versions. */
Test(codec_batch, the_wire_format_is_as_written_down)
{
    static const uint8_t golden[] = {
        0x08, 0x07, 0x12, 0x08, 'h',  '1',  ':',  '2',  '6',  '0',  '0',  '0',                    /* deployment, source */
        0x1a, 0x0d, 0x08, 0x0d, 0x10, 0x01, 0x18, 0x01, 0x20, 0x02, 0x28, 0x03, 0x30, 0xac, 0x02, /* REPLICATE_RESP, reject */
        0x22, 0x1c, 0x0a, 0x02, 0x01, 0x02, 0x12, 0x02, 0x02, 0x02, 0x1a, 0x02, 0x03, 0x03, /* 2 heartbeats: shard, to, from */
        0x22, 0x02, 0x04, 0x04, 0x2a, 0x02, 0x05, 0x00, 0x32, 0x02, 0x00, 0x00, 0x3a, 0x02, 0x00, 0x00, /* term, commit, hints */
        0x2a, 0x15, 0x0a, 0x01, 0x01, 0x12, 0x01, 0x02, 0x1a, 0x01, 0x03,                               /* 1 answer */
        0x22, 0x01, 0x04, 0x2a, 0x01, 0x00, 0x32, 0x01, 0x06, 0x3a, 0x01, 0x00,
    };
    struct nh_message m[4] = {plain(NH_MSG_HEARTBEAT), plain(NH_MSG_REPLICATE_RESP), plain(NH_MSG_HEARTBEAT_RESP),
                              plain(NH_MSG_HEARTBEAT)};
    uint8_t *out;
    size_t n;

    m[0].commit = 5;
    m[1].reject = true;
    m[1].term = 300;
    m[2].hint = 6;
    m[3].shard_id = 2;
    out = encode(m, 4, &n);
    cr_assert_eq(n, sizeof golden);
    cr_assert_eq(memcmp(out, golden, n), 0);
    free(out);
}

Test(codec_batch, heartbeats_come_back_after_the_others_in_their_order)
{
    struct nh_message m[5] = {plain(NH_MSG_HEARTBEAT_RESP), plain(NH_MSG_HEARTBEAT), plain(NH_MSG_PING), plain(NH_MSG_HEARTBEAT),
                              plain(NH_MSG_PONG)};
    static const int order[5] = {2, 4, 1, 3, 0};
    struct nh_message_batch *b = NULL;

    for (uint64_t i = 0; i < 5; i++)
        m[i].hint = 100 + i;
    cr_assert_eq(decode_messages(m, 5, &b), NH_OK);
    cr_assert_eq(b->n_messages, 5);
    for (int i = 0; i < 5; i++)
        assert_same(&b->messages[i], &m[order[i]]);
    batch_free(b);
}

Test(codec_batch, a_heartbeat_with_more_than_a_row_stays_a_message)
{
    struct nh_message m = plain(NH_MSG_HEARTBEAT_RESP);

    m.reject = true;
    round_trip(&m);
    m.reject = false;
    m.log_index = 5;
    round_trip(&m);
    m.log_index = 0;
    m.log_term = 5;
    round_trip(&m);
}

Test(codec_batch, entries_come_back_with_one_run_per_term)
{
    struct nh_block *a = make_block(40, 2, 11), *b = make_block(3, 5, 51);
    struct nh_message m = with_runs(NH_MSG_REPLICATE, 10, a, b);

    round_trip(&m);
    nh_message_deinit(&m);
}

Test(codec_batch, slices_travel_as_their_records_only)
{
    struct nh_block *a = make_block(40, 2, 11);
    struct nh_message m = with_runs(NH_MSG_REPLICATE, 14, a, NULL);

    m.runs[0].from = 4;
    m.runs[0].to = 7;
    round_trip(&m);
    nh_message_deinit(&m);
}

Test(codec_batch, forwarded_proposals_come_back_unsealed)
{
    struct nh_block *a = make_block(5, 0, 0);
    struct nh_message m = with_runs(NH_MSG_PROPOSE, 0, a, NULL), *got;
    struct nh_message_batch *b = NULL;

    m.hint = 1;
    m.hint_high = 5;
    cr_assert_eq(decode_messages(&m, 1, &b), NH_OK);
    got = &b->messages[0];
    assert_same(&m, got);
    cr_assert(got->runs[0].block->first_index == 0 && got->runs[0].block->term == 0);
    batch_free(b);
    nh_message_deinit(&m);
}

Test(codec_batch, entries_must_follow_the_anchor)
{
    expect_corrupt(with_runs(NH_MSG_REPLICATE, 9, make_block(3, 2, 11), NULL), "entry 11 where 10 is due");
    expect_corrupt(with_runs(NH_MSG_REPLICATE, UINT64_MAX, make_block(3, 2, 11), NULL), "entries after the last index");
    expect_corrupt(with_runs(NH_MSG_REPLICATE, 10, make_block(3, 2, 11), make_block(1, 2, 15)), "entry 15 where 14 is due");
    expect_corrupt(with_runs(NH_MSG_REPLICATE, 10, make_block(3, 2, 11), make_block(1, 1, 14)), "term 1 after term 2");
}

Test(codec_batch, the_last_index_is_a_good_anchor_without_entries)
{
    struct nh_message m = plain(NH_MSG_REPLICATE);

    m.log_index = UINT64_MAX;
    round_trip(&m);
}

Test(codec_batch, sealed_and_unsealed_records_are_not_mixed_up)
{
    expect_corrupt(with_runs(NH_MSG_PROPOSE, 0, make_block(3, 2, 11), NULL), "a proposal has a term");
    expect_corrupt(with_runs(NH_MSG_REPLICATE, 0, make_block(3, 0, 0), NULL), "checksum does not match");
}

Test(codec_batch, only_two_types_have_entries)
{
    for (uint32_t type = 0; type < NH_MSG_TYPE_COUNT; type++)
        if (type != NH_MSG_REPLICATE && type != NH_MSG_PROPOSE)
            expect_corrupt(with_runs(type, 10, make_block(1, 2, 11), NULL), "entries in a message that has none");
}

Test(codec_batch, a_snapshot_goes_with_its_type_only)
{
    struct nh_message m = plain(NH_MSG_PING);

    m.snapshot = xcalloc(1, sizeof *m.snapshot);
    expect_corrupt(m, "PING to shard 1 replica 2: snapshot in a message that has none");
    expect_corrupt(plain(NH_MSG_INSTALL_SNAPSHOT), "no snapshot");
}

Test(codec_batch, types_outside_the_list_are_corrupt)
{
    struct nh_message last = plain(NH_MSG_TYPE_COUNT - 1);

    round_trip(&last);
    expect_corrupt(plain(NH_MSG_TYPE_COUNT), "unknown type 31");
    expect_corrupt(plain(UINT32_MAX), "unknown type");
}

Test(codec_batch, a_message_needs_a_receiver)
{
    struct nh_message m = plain(NH_MSG_PING);

    m.shard_id = 0;
    expect_corrupt(m, "no receiver");
    m = plain(NH_MSG_HEARTBEAT);
    m.to = 0;
    expect_corrupt(m, "row 0 of the heartbeats: no receiver");
}

Test(codec_batch, the_longest_source_address_fits_and_one_more_does_not)
{
    char address[NH_ADDRESS_BYTES + 1];
    struct nh_message_batch b = {.source_address = address}, *back = NULL;
    uint8_t out[256];

    memset(address, 'a', sizeof address);
    address[NH_ADDRESS_BYTES - 1] = '\0';
    cr_assert_eq(batch_decode(out, batch_encode(&b, out, sizeof out), &back, &err), NH_OK);
    cr_assert_str_eq(back->source_address, address);
    batch_free(back);
    address[NH_ADDRESS_BYTES - 1] = 'a';
    address[NH_ADDRESS_BYTES] = '\0';
    cr_assert_eq(batch_decode(out, batch_encode(&b, out, sizeof out), &back, &err), NH_ECORRUPT);
    cr_assert_not_null(strstr(err.text, "source address"));
}

/* ---- against protobuf-c ---- */

Test(codec_batch, protobuf_reads_what_the_encoder_writes)
{
    struct nh_block *block = make_block(3, 2, 11);
    struct nh_message m[3] = {with_runs(NH_MSG_REPLICATE, 10, block, NULL), plain(NH_MSG_HEARTBEAT),
                              plain(NH_MSG_HEARTBEAT_RESP)};
    Raftpb__MessageBatch *pb;
    uint8_t *out, *packed;
    size_t n;

    m[0].commit = 8;
    m[1].hint_high = 1ull << 40;
    out = encode(m, 3, &n);
    pb = raftpb__message_batch__unpack(NULL, n, out);
    cr_assert_not_null(pb);
    cr_assert(pb->deployment_id == 7 && pb->n_messages == 1 && pb->messages[0]->commit == 8);
    cr_assert_eq(pb->messages[0]->records.len, block->offsets[3]);
    cr_assert(pb->heartbeats->n_hint_high == 1 && pb->heartbeats->hint_high[0] == 1ull << 40);
    cr_assert_eq(pb->heartbeat_resps->n_shard_id, 1);
    cr_assert_eq(raftpb__message_batch__get_packed_size(pb), n);
    packed = xmalloc(n);
    raftpb__message_batch__pack(pb, packed);
    cr_assert_eq(memcmp(packed, out, n), 0); /* the very same bytes */
    raftpb__message_batch__free_unpacked(pb, NULL);
    free(packed);
    free(out);
    nh_message_deinit(&m[0]);
}

Test(codec_batch, columns_of_unequal_length_are_corrupt)
{
    uint64_t ones[3] = {1, 1, 1};

    for (int column = 0; column < 7; column++) {
        Raftpb__MessageBatch pb = RAFTPB__MESSAGE_BATCH__INIT;
        Raftpb__Heartbeats hb = RAFTPB__HEARTBEATS__INIT;
        struct nh_message_batch *b = NULL;
        size_t *counts[7] = {&hb.n_shard_id, &hb.n_to, &hb.n_from, &hb.n_term, &hb.n_commit, &hb.n_hint, &hb.n_hint_high};
        uint8_t out[256];

        hb.shard_id = hb.to = hb.from = hb.term = hb.commit = hb.hint = hb.hint_high = ones;
        for (int i = 0; i < 7; i++)
            *counts[i] = 2;
        pb.heartbeat_resps = &hb;
        cr_assert_eq(batch_decode(out, raftpb__message_batch__pack(&pb, out), &b, &err), NH_OK);
        batch_free(b);
        *counts[column] = 3;
        cr_assert_eq(batch_decode(out, raftpb__message_batch__pack(&pb, out), &b, &err), NH_ECORRUPT);
        *counts[column] = 0;
        cr_assert_eq(batch_decode(out, raftpb__message_batch__pack(&pb, out), &b, &err), NH_ECORRUPT);
        cr_assert_not_null(strstr(err.text, "unequal length"));
    }
}

/* ---- damage and bounds ---- */

Test(codec_batch, cut_off_and_damaged_input_never_stumbles)
{
    struct nh_member member = {.replica_id = 1, .address = "a:1"};
    struct nh_snapshot snapshot = {.index = 9, .membership = {.n_members = 1, .members = &member}};
    struct nh_message m[4] = {with_runs(NH_MSG_REPLICATE, 10, make_block(2, 2, 11), make_block(2, 3, 13)),
                              plain(NH_MSG_INSTALL_SNAPSHOT), plain(NH_MSG_HEARTBEAT), plain(NH_MSG_HEARTBEAT_RESP)};
    struct nh_message_batch *b;
    uint8_t *out;
    size_t n;

    m[1].snapshot = &snapshot;
    out = encode(m, 4, &n);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = xmemdup(out, cut);
        int r = batch_decode(exact, cut, &b, &err);

        cr_assert(r == NH_OK || r == NH_ECORRUPT);
        if (r == NH_OK)
            batch_free(b);
        free(exact);
    }
    for (size_t bit = 0; bit < n * 8; bit++) {
        int r;

        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        r = batch_decode(out, n, &b, &err);
        cr_assert(r == NH_OK || r == NH_ECORRUPT);
        if (r == NH_OK)
            batch_free(b);
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(out);
    nh_message_deinit(&m[0]);
}

Test(codec_batch, any_damage_to_a_record_is_detected)
{
    struct nh_block *block = make_block(2, 2, 11);
    struct nh_message m = with_runs(NH_MSG_REPLICATE, 10, block, NULL);
    struct nh_message_batch *b = NULL;
    size_t n, records = block->offsets[2];
    uint8_t *out = encode(&m, 1, &n);

    for (size_t at = n - records; at < n; at++) {
        out[at] ^= 0x10;
        cr_assert_eq(batch_decode(out, n, &b, &err), NH_ECORRUPT, "byte %zu", at);
        out[at] ^= 0x10;
    }
    cr_assert_eq(batch_decode(out, n, &b, &err), NH_OK);
    batch_free(b);
    free(out);
    nh_message_deinit(&m);
}

/* The smallest messages that can be must stay far enough below the arena's bound, however many they are. */
Test(codec_batch, many_smallest_messages_decode)
{
    enum { N = 50000 };
    struct nh_member member = {.replica_id = 1};
    struct nh_snapshot snapshots[2] = {{.index = 0}, {.membership = {.n_members = 1, .members = &member}}};
    struct nh_message *m = xcalloc(N, sizeof *m);
    struct nh_message_batch *b = NULL;

    for (int shape = 0; shape < 4; shape++) {
        static const uint32_t types[4] = {NH_MSG_LOCAL_TICK, NH_MSG_INSTALL_SNAPSHOT, NH_MSG_INSTALL_SNAPSHOT, NH_MSG_HEARTBEAT};

        for (int i = 0; i < N; i++) {
            m[i] = (struct nh_message){.type = types[shape], .shard_id = 1, .to = 1};
            m[i].snapshot = shape == 1 ? &snapshots[0] : shape == 2 ? &snapshots[1] : NULL;
        }
        cr_assert_eq(decode_messages(m, N, &b), NH_OK, "%d: %s", shape, err.text);
        cr_assert_eq(b->n_messages, N);
        batch_free(b);
    }
    free(m);
}

/* Two bytes that would become a few hundred: refused before that much memory is taken. */
Test(codec_batch, input_that_would_blow_up_is_refused)
{
    enum { N = 1 << 20 };
    uint8_t *out = xmalloc(N);
    struct nh_message_batch *b = NULL;

    for (size_t i = 0; i < N; i += 2) {
        out[i] = 0x1a; /* an empty message */
        out[i + 1] = 0;
    }
    cr_assert_eq(batch_decode(out, N, &b, &err), NH_ECORRUPT);
    cr_assert_str_eq(err.text, "message batch: message of 0 bytes has no receiver");
    for (size_t i = 0; i < N; i += 2) {
        out[i] = 0x72; /* an empty unknown field */
        out[i + 1] = 0;
    }
    cr_assert_eq(batch_decode(out, N, &b, &err), NH_OK);
    batch_free(b);
    free(out);
}

/* ---- wire format as others might write it ---- */

static int decode_bytes(const char *bytes, size_t n, struct nh_message_batch **ret)
{
    uint8_t *exact = xmemdup(bytes, n);
    int r = batch_decode(exact, n, ret, &err);

    free(exact);
    return r;
}

#define DECODE(bytes, ret) decode_bytes(bytes, sizeof bytes - 1, ret)

Test(codec_batch, the_smallest_message_decodes_and_one_byte_less_does_not)
{
    struct nh_message_batch *b = NULL;

    cr_assert_eq(DECODE("\x1a\x04\x18\x01\x20\x02", &b), NH_OK);
    cr_assert(b->n_messages == 1 && b->messages[0].shard_id == 1 && b->messages[0].to == 2);
    batch_free(b);
    cr_assert_eq(DECODE("\x1a\x03\x18\x01\x20", &b), NH_ECORRUPT);
    cr_assert_str_eq(err.text, "message batch: message of 3 bytes has no receiver");
}

Test(codec_batch, order_unknown_fields_and_repetition_do_not_matter)
{
    struct nh_message_batch *b = NULL;

    /* A message (to 9, then 2; field 15 of each wire type; shard 1; field 300), unknown 14, deployment 3, then 7. */
    cr_assert_eq(DECODE("\x1a\x20\x20\x09\x20\x02\x78\x05\x79........\x7a\x02..\x7d....\x18\x01\xe0\x12\x01"
                        "\x72\x01.\x08\x03\x08\x07",
                        &b),
                 NH_OK, "%s", err.text);
    cr_assert(b->deployment_id == 7 && b->n_messages == 1);
    cr_assert(b->messages[0].shard_id == 1 && b->messages[0].to == 2);
    batch_free(b);
}

Test(codec_batch, numbers_may_be_padded_to_ten_bytes_and_not_to_eleven)
{
    struct nh_message_batch *b = NULL;

    cr_assert_eq(DECODE("\x08\x87\x80\x80\x80\x80\x80\x80\x80\x80\x00", &b), NH_OK);
    cr_assert_eq(b->deployment_id, 7);
    batch_free(b);
    cr_assert_eq(DECODE("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &b), NH_OK);
    cr_assert_eq(b->deployment_id, UINT64_MAX);
    batch_free(b);
    cr_assert_eq(DECODE("\x08\x87\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", &b), NH_ECORRUPT);
}

Test(codec_batch, what_is_no_protobuf_is_corrupt)
{
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"\x08", 1},                         /* a number without bytes */
        {"\x08\x80", 2},                     /* cut off */
        {"\x80", 1},                         /* a tag that is cut off */
        {"\x00\x01", 2},                     /* field 0 */
        {"\x88\x80\x80\x80\x80\x01\x01", 7}, /* field number of 33 bits */
        {"\x12\x02"
         "a",
         3},                                                      /* longer than what is there */
        {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},     /* by far */
        {"\x71.......", 8},                                       /* eight bytes, one is missing */
        {"\x75...", 4},                                           /* four */
        {"\x73\x74", 2},                                          /* a group */
        {"\x0a\x01.", 3},                                         /* deployment as bytes */
        {"\x10\x01", 2},                                          /* source as a number */
        {"\x18\x01", 2},                                          /* message as a number */
        {"\x20\x01", 2},                                          /* heartbeats as a number */
        {"\x1a\x05\x1a\x01.\x20\x01", 7},                         /* shard as bytes */
        {"\x1a\x06\x18\x01\x20\x01\x60\x01", 8},                  /* records as a number */
        {"\x1a\x05\x18\x01\x20\x01\x78", 7},                      /* field inside a message that is cut off */
        {"\x22\x00\x22\x00", 4},                                  /* heartbeats twice */
        {"\x2a\x00\x22\x00\x2a\x00", 6},                          /* answers twice */
        {"\x22\x01\x0a", 3},                                      /* columns that are cut off */
        {"\x1a\x0a\x08\x10\x18\x01\x20\x01\x6a\x00\x6a\x00", 12}, /* a snapshot twice */
    };
    struct nh_message_batch *b = NULL;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(decode_bytes(bad[i].bytes, bad[i].n, &b), NH_ECORRUPT, "%zu", i);
        cr_assert_null(b);
    }
}

Test(codec_batch, messages_of_one_run_and_of_more_stand_side_by_side)
{
    struct nh_message m[4] = {with_runs(NH_MSG_REPLICATE, 10, make_block(2, 2, 11), NULL), plain(NH_MSG_PING),
                              with_runs(NH_MSG_REPLICATE, 10, make_block(2, 2, 11), make_block(2, 3, 13)),
                              with_runs(NH_MSG_REPLICATE, 20, make_block(1, 7, 21), NULL)};
    struct nh_message_batch *b = NULL;

    cr_assert_eq(decode_messages(m, 4, &b), NH_OK, "%s", err.text);
    for (int i = 0; i < 4; i++) {
        assert_same(&m[i], &b->messages[i]);
        nh_message_deinit(&m[i]);
    }
    batch_free(b);
}

/* ---- the arena ---- */

Test(codec_batch, the_arena_ends_exactly_at_its_bound)
{
    struct arena a;

    arena_init(&a, 100);
    cr_assert_eq(a.left_bytes, ARENA_BYTES_MIN + 100 * ARENA_FACTOR);
    cr_assert_null(a.allocator.alloc(&a, a.left_bytes + 1));
    cr_assert_not_null(a.allocator.alloc(&a, a.left_bytes));
    cr_assert_eq(a.left_bytes, 0);
    cr_assert_null(a.allocator.alloc(&a, 1));
    arena_deinit(&a);
}

Test(codec_batch, the_arena_gives_aligned_memory_that_does_not_overlap)
{
    struct arena a;
    uint8_t *last = NULL;

    arena_init(&a, 10000);
    for (size_t n = 1; n < 300; n++) {
        uint8_t *p = a.allocator.alloc(&a, n);

        cr_assert_not_null(p);
        cr_assert_eq((uintptr_t)p % 16, 0);
        memset(p, (int)(n & 0xff), n);
        if (last)
            cr_assert_eq(last[n - 2], (uint8_t)(n - 1));
        last = p;
    }
    arena_deinit(&a);
}
