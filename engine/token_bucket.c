#include "engine/token_bucket.h"

#include <assert.h>

void token_bucket_init(struct token_bucket *b, uint64_t bytes_per_s, uint64_t now_ns)
{
    *b = (struct token_bucket){
        .bytes_per_s = bytes_per_s < TOKEN_RATE_MAX ? bytes_per_s : TOKEN_RATE_MAX,
        .free_ns = now_ns,
    };
}

uint64_t token_bucket_wait(const struct token_bucket *b, uint64_t now_ns)
{
    return b->bytes_per_s > 0 && b->free_ns > now_ns ? b->free_ns : 0;
}

void token_bucket_take(struct token_bucket *b, uint64_t size_bytes, uint64_t now_ns)
{
    uint64_t oldest = now_ns > TOKEN_BURST_NS ? now_ns - TOKEN_BURST_NS : 0, cost;

    assert(size_bytes <= TOKEN_BYTES_MAX);
    if (b->bytes_per_s == 0)
        return;
    if (b->free_ns < oldest) {
        b->free_ns = oldest;
        b->owed = 0;
    }
    cost = size_bytes * 1000000000ull + b->owed; /* below 2^61 */
    b->free_ns += cost / b->bytes_per_s;
    b->owed = cost % b->bytes_per_s;
}
