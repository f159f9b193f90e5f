/* What a receiver does with chunks that no sender of ours would send. */
#include "tests/unit/engine/stream_hosts.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"

#define CHUNKS 4u
#define BYTES  (3u * STREAM_CHUNK_BYTES + 1000u)

static void open_hosts(void)
{
    stream_hosts_open(BYTES);
}

static void close_hosts(void)
{
    stream_hosts_close();
}

TestSuite(snapshot_receiver, .init = open_hosts, .fini = close_hosts);

static bool give(uint64_t chunk_id)
{
    struct nh_chunk c = stream_chunk(chunk_id);

    return stream_give(&c);
}

static void begin(void)
{
    cr_assert(give(0));
    stream_run_ms(0);
    cr_assert_eq(test.net.n_answers[SNAPSHOT_WANT], 1);
}

static void finish(uint64_t from)
{
    for (uint64_t k = from; k <= CHUNKS; k++)
        cr_assert(give(k));
    stream_run_ms(0);
    stream_check_arrived(1);
}

/* ---- at the door ---- */

Test(snapshot_receiver, a_chunk_that_no_stream_is_open_for_is_cut_off)
{
    cr_assert_not(give(1));
    begin();
    cr_assert(give(1));
}

Test(snapshot_receiver, more_than_a_window_does_not_fit)
{
    begin();
    for (uint32_t i = 0; i < STREAM_WINDOW; i++)
        cr_assert(give(1));
    cr_assert_not(give(1));
    stream_run_ms(0);
    cr_assert(give(1));
}

Test(snapshot_receiver, nobody_asks_without_end)
{
    uint32_t n = 0;

    while (give(0))
        n++;
    cr_assert_lt(n, 10);
    stream_run_ms(0);
    finish(1);
}

Test(snapshot_receiver, the_crowd_at_the_door_is_limited_and_told_to_come_again)
{
    struct nh_chunk c = stream_chunk(0);
    struct nh_message_batch *b;
    uint8_t bytes[2048];
    uint32_t n = 0;

    for (uint64_t from = 3; from < 2000; from++) {
        cr_assert_eq(batch_decode(c.data, c.size_bytes, &b, NULL), NH_OK);
        b->messages[0].from = from;
        c.size_bytes = batch_encode(b, bytes, sizeof bytes);
        c.data = bytes;
        c.from = from;
        batch_free(b);
        n += stream_give(&c);
    }
    cr_assert_lt(n, 300);
    test.net.mute = true;
    stream_run_ms(0);
    cr_assert_eq(test.net.n_answers[SNAPSHOT_WANT], STREAM_RECEIVING_MAX);
    cr_assert_eq(test.net.n_answers[SNAPSHOT_BUSY], n - STREAM_RECEIVING_MAX);
}

static void check_cut(struct nh_chunk c, const char *what)
{
    cr_assert_not(stream_give(&c), "%s", what);
}

#define CUT(chunk_id, field, value)                   \
    do {                                              \
        struct nh_chunk cut = stream_chunk(chunk_id); \
        cut.field = value;                            \
        check_cut(cut, #field);                       \
    } while (0)

Test(snapshot_receiver, fields_that_make_no_sense_are_cut_off)
{
    begin();
    for (uint64_t k = 0; k < 2; k++) {
        CUT(k, shard_id, 0);
        CUT(k, replica_id, 0);
        CUT(k, from, 0);
        CUT(k, from, 2);
        CUT(k, index, 0);
        CUT(k, term, 0);
        CUT(k, size_bytes, 0);
        CUT(k, size_bytes, STREAM_CHUNK_BYTES + 1);
        CUT(k, chunk_count, CHUNKS);
        CUT(k, chunk_count, CHUNKS + 2);
        CUT(k, file_size_bytes, UINT64_MAX);
    }
    CUT(1, chunk_count, 1);
    CUT(0, deployment_id, 2);
    CUT(0, index, STREAM_INDEX + 1);
    CUT(0, term, STREAM_TERM + 1);
    CUT(0, shard_id, 2);
    CUT(0, replica_id, 3);
    CUT(0, from, 3);
    CUT(0, file_size_bytes, 0);
    CUT(0, size_bytes, 1);
    CUT(0, size_bytes, STREAM_HEAD_BYTES_MAX + 1);
    finish(1);
}

/* ---- chunk 0 with something else in it ---- */

static struct nh_message_batch *decoded_head(void)
{
    struct nh_chunk c = stream_chunk(0);
    struct nh_message_batch *b;

    cr_assert_eq(batch_decode(c.data, c.size_bytes, &b, NULL), NH_OK);
    return b;
}

static bool give_head(struct nh_message_batch *b)
{
    struct nh_chunk c = stream_chunk(0);
    uint8_t bytes[4096];

    c.data = bytes;
    c.size_bytes = batch_encode(b, bytes, sizeof bytes);
    cr_assert_leq(c.size_bytes, sizeof bytes);
    batch_free(b);
    return stream_give(&c);
}

#define HEAD_CUT(change)                             \
    do {                                             \
        struct nh_message_batch *b = decoded_head(); \
        struct nh_message *m = &b->messages[0];      \
        struct nh_snapshot *s = m->snapshot;         \
        (void)s;                                     \
        change;                                      \
        cr_assert_not(give_head(b), "%s", #change);  \
    } while (0)

Test(snapshot_receiver, a_message_that_does_not_belong_to_its_chunk_is_cut_off)
{
    HEAD_CUT(b->deployment_id = 2);
    HEAD_CUT(b->source_address = "");
    HEAD_CUT(m->shard_id = 2);
    HEAD_CUT(m->to = 3);
    HEAD_CUT(m->from = 3);
    HEAD_CUT(s->shard_id = 2);
    HEAD_CUT(s->index++);
    HEAD_CUT(s->term++);
    HEAD_CUT(s->file_size_bytes++);
    HEAD_CUT(s->dummy = true);
    HEAD_CUT(s->witness = true);
    HEAD_CUT(s->membership.members[1].replica_id = 0);
    HEAD_CUT(s->membership.n_members = 1);
    HEAD_CUT(nh_snapshot_deinit(s); free(s); m->snapshot = NULL; m->type = NH_MSG_HEARTBEAT);
    HEAD_CUT(nh_snapshot_deinit(s); free(s); m->snapshot = NULL; m->type = NH_MSG_REPLICATE);
    stream_run_ms(0);
    stream_check_nothing(1);
}

Test(snapshot_receiver, two_messages_in_chunk_0_are_cut_off)
{
    struct nh_message_batch *b = decoded_head(), two = *b;
    struct nh_message messages[2] = {b->messages[0], {.type = NH_MSG_PING, .shard_id = 1, .to = 2, .from = 1}};
    struct nh_chunk c = stream_chunk(0);
    uint8_t bytes[4096];

    two.n_messages = 2;
    two.messages = messages;
    c.data = bytes;
    c.size_bytes = batch_encode(&two, bytes, sizeof bytes);
    batch_free(b);
    cr_assert_not(stream_give(&c));
}

Test(snapshot_receiver, no_damage_of_chunk_0_does_harm)
{
    struct nh_chunk c = stream_chunk(0);
    uint8_t *bytes = xmalloc(c.size_bytes);

    test.net.mute = true; /* it may come from anywhere */
    test.hosts[1].admits = NH_ENOTFOUND;
    for (size_t i = 0; i < c.size_bytes; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(bytes, stream_chunk(0).data, c.size_bytes);
            bytes[i] ^= (uint8_t)(1u << bit);
            c.data = bytes;
            stream_give(&c);
            stream_run_ms(0);
        }
    for (size_t n = 1; n < c.size_bytes; n++) {
        struct nh_chunk cut = stream_chunk(0);

        cut.size_bytes = n;
        cr_assert_not(stream_give(&cut), "%zu bytes", n);
    }
    free(bytes);
    stream_check_nothing(1);
}

Test(snapshot_receiver, a_path_from_elsewhere_means_nothing)
{
    struct nh_message_batch *b = decoded_head();

    b->messages[0].snapshot->file_path = xstrdup("/etc/passwd");
    cr_assert(give_head(b));
    stream_run_ms(0);
    finish(1);
    cr_assert_null(test.hosts[1].received.snapshot->file_path);
}

/* ---- other chunks ---- */

static void check_refused(struct nh_chunk c, const char *what)
{
    uint32_t n = test.net.n_answers[SNAPSHOT_REFUSED];

    cr_assert(give(0));
    if (c.chunk_id > 1)
        for (uint64_t k = 1; k < c.chunk_id; k++)
            cr_assert(give(k));
    cr_assert(stream_give(&c), "%s", what);
    stream_run_ms(0);
    cr_assert_eq(test.net.n_answers[SNAPSHOT_REFUSED], n + 1, "%s", what);
    stream_check_nothing(1);
}

#define REFUSED(id, field, value)                   \
    do {                                            \
        struct nh_chunk refused = stream_chunk(id); \
        refused.field = value;                      \
        check_refused(refused, #field);             \
    } while (0)

Test(snapshot_receiver, sizes_that_do_not_fit_are_refused)
{
    REFUSED(1, size_bytes, STREAM_CHUNK_BYTES - 1);
    REFUSED(2, size_bytes, 1);
    REFUSED(CHUNKS, size_bytes, stream_chunk(CHUNKS).size_bytes - 1);
    REFUSED(CHUNKS, size_bytes, stream_chunk(CHUNKS).size_bytes + 1);
    REFUSED(1, file_size_bytes, stream_chunk(1).file_size_bytes - 1);
    cr_assert(give(0));
    finish(1);
}

Test(snapshot_receiver, a_chunk_of_another_image_is_ignored)
{
    struct nh_chunk c;

    begin();
    c = stream_chunk(1);
    c.data = test.image + 1; /* it would be seen */
    c.index++;
    cr_assert(stream_give(&c));
    c.index--;
    c.term++;
    cr_assert(stream_give(&c));
    finish(1);
}

/* Of a stream that ended: neither its turn nor its space is missing to the next one. */
Test(snapshot_receiver, what_has_ended_takes_no_room)
{
    struct nh_chunk c = stream_chunk(1);

    c.size_bytes--;
    for (uint32_t i = 0; i <= STREAM_RECEIVING_MAX; i++)
        check_refused(c, "one byte too few");
    cr_assert_eq(test.net.n_answers[SNAPSHOT_BUSY], 0);
    cr_assert(give(0));
    finish(1);
}

/* As if an image of this size began. */
static void announce(uint64_t size_bytes)
{
    struct nh_chunk c = stream_chunk(0);
    struct nh_message_batch *b;
    uint8_t bytes[2048];

    cr_assert_eq(batch_decode(c.data, c.size_bytes, &b, NULL), NH_OK);
    b->messages[0].snapshot->file_size_bytes = size_bytes;
    c.size_bytes = batch_encode(b, bytes, sizeof bytes);
    c.data = bytes;
    c.file_size_bytes = size_bytes;
    c.chunk_count = 1 + (size_bytes + STREAM_CHUNK_BYTES - 1) / STREAM_CHUNK_BYTES;
    batch_free(b);
    cr_assert(stream_give(&c));
    stream_run_ms(0);
}

Test(snapshot_receiver, a_reserve_of_space_is_left_to_others)
{
    static const uint64_t disks[] = {1ull << 30, (uint64_t)STREAM_SPARE_BYTES * STREAM_SPARE_SHARE, 1ull << 40};

    for (uint32_t i = 0; i < 3; i++) {
        uint64_t reserve = i == 0 ? disks[i] / STREAM_SPARE_SHARE : STREAM_SPARE_BYTES;

        memory_files_set_limit(test.hosts[1].disk, disks[i]);
        announce(disks[i] - reserve + 1);
        cr_assert_eq(test.net.n_answers[SNAPSHOT_FULL], i + 1);
        announce(disks[i] - reserve);
        cr_assert_eq(test.net.n_answers[SNAPSHOT_WANT], i + 1);
    }
}

Test(snapshot_receiver, what_follows_a_gap_is_asked_for_once)
{
    begin();
    cr_assert(give(1));
    cr_assert(give(3));
    cr_assert(give(4));
    stream_run_ms(0);
    cr_assert_eq(test.net.n_answers[SNAPSHOT_WANT], 2);
    finish(2);
}

/* ---- images ---- */

/* Sends the whole image after `change` was made to it. */
static void check_image_refused(void (*change)(uint8_t *image, size_t bytes))
{
    change(test.image, test.image_bytes);
    cr_assert(give(0));
    for (uint64_t k = 1; k <= CHUNKS; k++)
        cr_assert(give(k));
    stream_run_ms(0);
    cr_assert_eq(test.net.n_answers[SNAPSHOT_REFUSED], 1);
    stream_check_nothing(1);
}

static void change_first_byte(uint8_t *image, size_t bytes)
{
    (void)bytes;
    image[0] ^= 1;
}

static void change_last_byte(uint8_t *image, size_t bytes)
{
    image[bytes - 1] ^= 0x80;
}

static void swap_two_pieces(uint8_t *image, size_t bytes)
{
    uint8_t piece[4096];

    memcpy(piece, image + bytes / 2, sizeof piece);
    memcpy(image + bytes / 2, image + bytes / 2 + sizeof piece, sizeof piece);
    memcpy(image + bytes / 2 + sizeof piece, piece, sizeof piece);
}

Test(snapshot_receiver, an_image_with_a_wrong_head_is_not_committed)
{
    check_image_refused(change_first_byte);
}

Test(snapshot_receiver, an_image_with_a_wrong_end_is_not_committed)
{
    check_image_refused(change_last_byte);
}

Test(snapshot_receiver, an_image_with_pieces_out_of_order_is_not_committed)
{
    check_image_refused(swap_two_pieces);
}

/* The image is whole, but of another state than was announced. */
static void check_other_state(struct nh_message_batch *b, uint64_t index, uint64_t term)
{
    struct nh_chunk c = stream_chunk(0);
    uint8_t bytes[4096];

    c.data = bytes;
    c.size_bytes = batch_encode(b, bytes, sizeof bytes);
    c.index = index;
    c.term = term;
    batch_free(b);
    cr_assert(stream_give(&c));
    for (uint64_t k = 1; k <= CHUNKS; k++) {
        c = stream_chunk(k);
        c.index = index;
        c.term = term;
        cr_assert(stream_give(&c));
    }
    stream_run_ms(0);
    stream_check_nothing(1);
}

Test(snapshot_receiver, an_image_of_another_state_than_announced_is_not_committed)
{
    struct nh_message_batch *b = decoded_head();

    b->messages[0].snapshot->index++;
    check_other_state(b, STREAM_INDEX + 1, STREAM_TERM);
    b = decoded_head();
    b->messages[0].snapshot->term++;
    check_other_state(b, STREAM_INDEX, STREAM_TERM + 1);
    b = decoded_head();
    b->messages[0].snapshot->membership.config_change_id++;
    check_other_state(b, STREAM_INDEX, STREAM_TERM);
    b = decoded_head();
    b->messages[0].snapshot->membership.members[2].kind = NH_MEMBER_NON_VOTING;
    check_other_state(b, STREAM_INDEX, STREAM_TERM);
    cr_assert_eq(test.net.n_answers[SNAPSHOT_REFUSED], 4);
}

/* ---- chunk 0 again ---- */

Test(snapshot_receiver, another_index_begins_anew)
{
    struct nh_message_batch *b = decoded_head();
    struct nh_chunk c;
    uint8_t bytes[4096];

    b->messages[0].snapshot->index++;
    c = stream_chunk(0);
    c.index++;
    c.data = bytes;
    c.size_bytes = batch_encode(b, bytes, sizeof bytes);
    batch_free(b);
    cr_assert(stream_give(&c));
    c = stream_chunk(1);
    c.index++;
    cr_assert(stream_give(&c));
    stream_run_ms(0);
    cr_assert(give(0));
    stream_run_ms(0);
    finish(1);
}

Test(snapshot_receiver, the_same_again_goes_on_with_the_newer_message)
{
    struct nh_message_batch *b = decoded_head();

    b->messages[0].term = STREAM_TERM;
    cr_assert(give_head(b));
    cr_assert(give(1));
    cr_assert(give(0));
    stream_run_ms(0);
    finish(2);
}

/* ---- answers that a sender gets from who is mistaken ---- */

static void check_answer(uint64_t what, uint64_t wanted, bool go_back)
{
    const struct nh_message m = {.type = NH_MSG_SNAPSHOT_RECEIVED,
                                 .reject = go_back,
                                 .shard_id = 1,
                                 .to = 1,
                                 .from = 2,
                                 .log_index = STREAM_INDEX,
                                 .hint = wanted,
                                 .hint_high = what};

    stream_hosts_close();
    open_hosts();
    test.net.mute = true;
    stream_send(0, 2, false);
    stream_run_ms(0);
    snapshot_sender_answer(test.hosts[0].sender, &m);
    stream_run_ms(5000);
    snapshot_sender_answer(test.hosts[0].sender, &m);
    stream_run_ms(5000);
    test.net.mute = false;
    stream_run_ended(0, 1);
    cr_assert_eq(test.hosts[0].n_failed, 0, "%s", test.hosts[0].reason);
    stream_check_arrived(1);
}

Test(snapshot_receiver, a_sender_bears_senseless_answers)
{
    static const uint64_t wanted[] = {0, 2, CHUNKS, CHUNKS + 1, CHUNKS + 2, UINT64_MAX};

    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        check_answer(SNAPSHOT_WANT, wanted[i], false);
        check_answer(SNAPSHOT_WANT, wanted[i], true);
    }
    check_answer(SNAPSHOT_REFUSED + 1, 1, false);
    check_answer(UINT64_MAX, 1, false);
}
