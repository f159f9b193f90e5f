/* batch_decode over any bytes. What decodes must encode, and from then on encoding and decoding must be inverse. */
#include <string.h>

#include "raftio/codec.h"
#include "tests/fuzz/fuzz.h"

static uint8_t *encode(const struct nh_message_batch *b, size_t *ret_bytes)
{
    size_t bytes = batch_encode(b, NULL, 0);
    uint8_t *out = malloc(bytes ? bytes : 1);

    FUZZ_CHECK(out);
    FUZZ_CHECK(batch_encode(b, out, bytes) == bytes);
    *ret_bytes = bytes;
    return out;
}

static void check_message(const struct nh_message *m)
{
    FUZZ_CHECK(m->type < NH_MSG_TYPE_COUNT);
    FUZZ_CHECK(m->n_runs == 0 || m->type == NH_MSG_REPLICATE || m->type == NH_MSG_PROPOSE);
    FUZZ_CHECK((m->snapshot != NULL) == (m->type == NH_MSG_INSTALL_SNAPSHOT));
    for (uint32_t i = 0; i < m->n_runs; i++)
        FUZZ_CHECK(nh_run_count(&m->runs[i]) > 0 && nh_run_size(&m->runs[i]) > 0);
    if (m->type == NH_MSG_REPLICATE && m->n_runs)
        FUZZ_CHECK(nh_run_first(&m->runs[0]) == m->log_index + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct nh_message_batch *a, *b;
    struct nh_error err = {0};
    size_t n_first, n_second;
    uint8_t *first, *second;
    int r = batch_decode(data, size_bytes, &a, &err);

    if (r != NH_OK) {
        FUZZ_CHECK(r == NH_ECORRUPT && err.code == NH_ECORRUPT && err.text[0]);
        return 0;
    }
    for (uint32_t i = 0; i < a->n_messages; i++)
        check_message(&a->messages[i]);
    first = encode(a, &n_first);
    FUZZ_CHECK(batch_decode(first, n_first, &b, NULL) == NH_OK);
    FUZZ_CHECK(a->n_messages == b->n_messages && a->deployment_id == b->deployment_id);
    FUZZ_CHECK(strcmp(a->source_address, b->source_address) == 0);
    second = encode(b, &n_second);
    FUZZ_CHECK(n_first == n_second && memcmp(first, second, n_first) == 0);
    free(first);
    free(second);
    batch_free(a);
    batch_free(b);
    return 0;
}
