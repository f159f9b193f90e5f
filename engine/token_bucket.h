/* engine/token_bucket.h - a rate in bytes per second that several share.
 *
 * Kept as the time at which the next byte is free to go, so nothing is lost to rounding: over any time in which somebody always
 * wants to send, exactly the rate is given out. What was not used is kept for TOKEN_BURST_NS at most. A piece goes as a whole,
 * and those after it wait until it is paid for: pieces may be larger than the burst.
 *
 * Threads: one at a time. No errors.
 */
#ifndef NH_ENGINE_TOKEN_BUCKET_H
#define NH_ENGINE_TOKEN_BUCKET_H

#include <stdint.h>

#define TOKEN_BURST_NS  100000000ull
#define TOKEN_RATE_MAX  (1ull << 40) /* a higher one is this one */
#define TOKEN_BYTES_MAX (1ull << 30) /* of one piece */

struct token_bucket {
    uint64_t bytes_per_s; /* 0: no limit */
    uint64_t free_ns;     /* the next piece may go then */
    uint64_t owed;        /* a part of a nanosecond: divided by bytes_per_s */
};

void token_bucket_init(struct token_bucket *b, uint64_t bytes_per_s, uint64_t now_ns);
/* 0: a piece may go now. Otherwise when to ask again. */
uint64_t token_bucket_wait(const struct token_bucket *b, uint64_t now_ns);
/* It goes. size_bytes <= TOKEN_BYTES_MAX. */
void token_bucket_take(struct token_bucket *b, uint64_t size_bytes, uint64_t now_ns);

#endif
