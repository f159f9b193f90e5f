/* Frames: a golden one, every way to damage it, every way to cut it, and the limit. */
#include "transport/tcp/frame.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT 1000u

static struct frame_parser p;

static void setup(void)
{
    frame_parser_init(&p, LIMIT);
}

static void teardown(void)
{
    frame_parser_deinit(&p);
}

TestSuite(frame, .init = setup, .fini = teardown);

static size_t make(uint8_t *out, enum frame_type type, const void *payload, size_t size_bytes)
{
    frame_header_encode(out, type, payload, size_bytes);
    if (size_bytes)
        memcpy(out + FRAME_HEADER_BYTES, payload, size_bytes);
    return FRAME_HEADER_BYTES + size_bytes;
}

static enum frame_status parse(const uint8_t *data, size_t size_bytes, struct frame *ret)
{
    return frame_parser_next(&p, &data, &size_bytes, ret);
}

Test(frame, the_format_on_the_wire_does_not_change)
{
    static const uint8_t golden[] = {'N', 'H',  'F',  0x1a, 1,    3,    0,    0,    5,    0,   0,   0,   0,   0,  0,
                                     0,   0x4c, 0xbb, 0x71, 0x9a, 0x14, 0x23, 0x6e, 0x03, 'h', 'e', 'l', 'l', 'o'};
    uint8_t made[sizeof golden];
    struct frame f;

    cr_assert_eq(make(made, FRAME_BATCH, "hello", 5), sizeof golden);
    cr_assert_eq(memcmp(made, golden, sizeof golden), 0);
    cr_assert_eq(parse(golden, sizeof golden, &f), FRAME_READY);
    cr_assert_eq(f.type, FRAME_BATCH);
    cr_assert_eq(f.size_bytes, 5);
    cr_assert_eq(memcmp(f.payload, "hello", 5), 0);
}

Test(frame, it_may_be_cut_anywhere)
{
    uint8_t data[2 * FRAME_HEADER_BYTES + 100], payload[100];
    size_t size;

    memset(payload, 7, sizeof payload);
    size = make(data, FRAME_CHUNK, payload, sizeof payload);
    size += make(data + size, FRAME_BATCH, "", 0);
    for (size_t cut = 0; cut <= size; cut++) {
        const uint8_t *parts[] = {data, data + cut};
        size_t sizes[] = {cut, size - cut};
        unsigned n = 0;

        for (int i = 0; i < 2; i++) {
            struct frame f;

            while (frame_parser_next(&p, &parts[i], &sizes[i], &f) == FRAME_READY) {
                cr_assert_eq(f.type, n == 0 ? FRAME_CHUNK : FRAME_BATCH);
                cr_assert_eq(f.size_bytes, n == 0 ? 100 : 0);
                n++;
            }
        }
        cr_assert_eq(n, 2, "cut at %zu", cut);
        cr_assert(frame_parser_at_boundary(&p));
    }
}

Test(frame, every_damaged_byte_is_noticed)
{
    uint8_t data[FRAME_HEADER_BYTES + 20], payload[20] = {1, 2, 3};
    size_t size = make(data, FRAME_BATCH, payload, sizeof payload);

    for (size_t at = 0; at < size; at++) {
        struct frame f;

        data[at] ^= 0x10;
        cr_assert_neq(parse(data, size, &f), FRAME_READY, "byte %zu", at);
        cr_assert_neq(parse(data, size, &f), FRAME_READY, "a broken stream stays broken");
        data[at] ^= 0x10;
        frame_parser_deinit(&p);
        frame_parser_init(&p, LIMIT);
    }
}

Test(frame, the_limit_is_checked_on_the_header_alone)
{
    uint8_t head[FRAME_HEADER_BYTES], payload[LIMIT + 1] = {0};
    struct frame_header h;

    frame_header_encode(head, FRAME_BATCH, payload, LIMIT);
    cr_assert_eq(frame_header_decode(head, LIMIT, &h), FRAME_READY);
    frame_header_encode(head, FRAME_BATCH, payload, LIMIT + 1);
    cr_assert_eq(frame_header_decode(head, LIMIT, &h), FRAME_BAD_SIZE);
}

Test(frame, another_version_and_unknown_types_are_told_apart)
{
    uint8_t head[FRAME_HEADER_BYTES];
    struct frame_header h;

    frame_header_encode(head, FRAME_BATCH, "", 0);
    head[4] = 2;
    cr_assert_neq(frame_header_decode(head, LIMIT, &h), FRAME_READY);
    frame_header_encode(head, (enum frame_type)9, "", 0);
    cr_assert_eq(frame_header_decode(head, LIMIT, &h), FRAME_BAD_TYPE);
}

Test(frame, reasons_have_texts)
{
    for (uint32_t r = FRAME_REFUSED_VERSION; r <= FRAME_REFUSED_LAYOUT; r++)
        cr_assert_str_neq(frame_refusal_text(r), frame_refusal_text(99));
    for (int s = FRAME_READY; s <= FRAME_BAD_PAYLOAD_CRC; s++)
        cr_assert_gt(strlen(frame_status_text((enum frame_status)s)), 0);
}
