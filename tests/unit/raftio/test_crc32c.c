#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/crc32c.h"

typedef uint32_t (*crc_fn)(uint32_t, const void *, size_t);

/* The vectors of RFC 3720, B.4, and the usual check value. */
static void check_vectors(crc_fn crc)
{
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];

    memset(ones, 0xff, sizeof ones);
    for (unsigned i = 0; i < 32; i++) {
        up[i] = (uint8_t)i;
        down[i] = (uint8_t)(31 - i);
    }
    cr_assert_eq(crc(0, "123456789", 9), 0xe3069283u);
    cr_assert_eq(crc(0, zeros, 32), 0x8a9136aau);
    cr_assert_eq(crc(0, ones, 32), 0x62a8ab43u);
    cr_assert_eq(crc(0, up, 32), 0x46dd794eu);
    cr_assert_eq(crc(0, down, 32), 0x113fdb5cu);
    cr_assert_eq(crc(0, NULL, 0), 0);
}

Test(crc32c, known_vectors)
{
    check_vectors(crc32c);
    check_vectors(crc32c_table);
}

Test(crc32c, both_versions_agree_at_every_length_and_alignment)
{
    uint8_t data[600];

    srand(7);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)rand();
    for (size_t start = 0; start < 9; start++)
        for (size_t n = 0; n + start <= sizeof data; n++)
            cr_assert_eq(crc32c(5, data + start, n), crc32c_table(5, data + start, n), "%zu at %zu", n, start);
}

/* Long ones are summed in lanes. */
Test(crc32c, both_versions_agree_on_what_takes_several_lanes)
{
    static uint8_t data[40000];

    srand(8);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)rand();
    for (size_t n = 600; n < 3000; n++)
        cr_assert_eq(crc32c(6, data + n % 8, n), crc32c_table(6, data + n % 8, n), "%zu", n);
    for (size_t n = 3000; n + 8 < sizeof data; n += 251)
        cr_assert_eq(crc32c(~0u, data + n % 8, n), crc32c_table(~0u, data + n % 8, n), "%zu", n);
}

Test(crc32c, a_checksum_continues_at_every_cut)
{
    const char text[] = "the quick brown fox jumps over the lazy dog";
    uint32_t whole = crc32c(0, text, sizeof text);

    for (size_t cut = 0; cut <= sizeof text; cut++) {
        cr_assert_eq(crc32c(crc32c(0, text, cut), text + cut, sizeof text - cut), whole);
        cr_assert_eq(crc32c_table(crc32c_table(0, text, cut), text + cut, sizeof text - cut), whole);
    }
}
