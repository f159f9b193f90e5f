#include "engine/token_bucket.h"

#include <criterion/criterion.h>

#define SECOND 1000000000ull

/* Takes pieces of this size as soon as they may go, until `until`; returns how many bytes went. */
static uint64_t greedy(struct token_bucket *b, uint64_t piece, uint64_t now, uint64_t until)
{
    uint64_t bytes = 0, wait;

    while (now < until) {
        while ((wait = token_bucket_wait(b, now))) {
            cr_assert_gt(wait, now);
            now = wait;
            if (now >= until)
                return bytes;
        }
        token_bucket_take(b, piece, now);
        bytes += piece;
    }
    return bytes;
}

Test(token_bucket, without_a_rate_nobody_waits)
{
    struct token_bucket b;

    token_bucket_init(&b, 0, 5);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(token_bucket_wait(&b, 5), 0);
        token_bucket_take(&b, TOKEN_BYTES_MAX, 5);
    }
}

Test(token_bucket, gives_out_exactly_its_rate_to_who_always_wants)
{
    static const uint64_t rates[] = {1, 3, 7, 999, 1000003, 262144, 1000000007, TOKEN_RATE_MAX};

    for (unsigned i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        uint64_t piece = rates[i] / 100 + 1 < TOKEN_BYTES_MAX ? rates[i] / 100 + 1 : TOKEN_BYTES_MAX, bytes;
        struct token_bucket b;

        token_bucket_init(&b, rates[i], SECOND);
        bytes = greedy(&b, piece, SECOND, 1001 * SECOND);
        cr_assert_geq(bytes, 1000 * rates[i], "%u", i);
        cr_assert_leq(bytes, 1000 * rates[i] + piece, "%u: the last piece may be paid for later", i);
    }
}

Test(token_bucket, a_large_piece_is_paid_for_by_those_after_it)
{
    struct token_bucket b;

    token_bucket_init(&b, 1000, SECOND);
    token_bucket_take(&b, 5000, SECOND);
    cr_assert_eq(token_bucket_wait(&b, SECOND), 6 * SECOND);
    cr_assert_eq(token_bucket_wait(&b, 6 * SECOND - 1), 6 * SECOND);
    cr_assert_eq(token_bucket_wait(&b, 6 * SECOND), 0);
}

Test(token_bucket, what_was_not_used_is_kept_for_a_short_time_only)
{
    struct token_bucket b;
    uint64_t now = 100 * SECOND;

    token_bucket_init(&b, 1000, SECOND);
    for (int i = 0; i < 100; i++) { /* a tenth of a second is kept: 100 bytes */
        cr_assert_eq(token_bucket_wait(&b, now), 0);
        token_bucket_take(&b, 1, now);
    }
    cr_assert_eq(token_bucket_wait(&b, now), 0, "just paid for");
    token_bucket_take(&b, 1, now);
    cr_assert_eq(token_bucket_wait(&b, now), now + SECOND / 1000);
}

Test(token_bucket, a_rate_above_the_limit_is_the_limit)
{
    struct token_bucket b;

    token_bucket_init(&b, UINT64_MAX, 0);
    cr_assert_eq(b.bytes_per_s, TOKEN_RATE_MAX);
    token_bucket_init(&b, TOKEN_RATE_MAX, 0);
    cr_assert_eq(b.bytes_per_s, TOKEN_RATE_MAX);
    token_bucket_take(&b, TOKEN_BYTES_MAX, 0);
    cr_assert_eq(b.free_ns, TOKEN_BYTES_MAX * SECOND / TOKEN_RATE_MAX);
}
