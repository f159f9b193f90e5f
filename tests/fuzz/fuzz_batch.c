/* batch_decode over any bytes. What decodes must be what protobuf-c reads, and must encode; from then on encoding and decoding
 * must be inverse. */
#include <string.h>

#include "raftio/codec.h"
#include "raftio/raftpb.pb-c.h"
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

static void compare_message(const struct nh_message *m, const Raftpb__Message *pb)
{
    FUZZ_CHECK(m->type == pb->type && m->reject == (pb->reject != 0));
    FUZZ_CHECK(m->shard_id == pb->shard_id && m->to == pb->to && m->from == pb->from && m->term == pb->term);
    FUZZ_CHECK(m->log_term == pb->log_term && m->log_index == pb->log_index && m->commit == pb->commit);
    FUZZ_CHECK(m->hint == pb->hint && m->hint_high == pb->hint_high);
    FUZZ_CHECK((m->n_runs > 0) == (pb->records.len > 0) && (m->snapshot != NULL) == (pb->snapshot != NULL));
    for (size_t i = 0, at = 0; i < m->n_runs; at += nh_run_size(&m->runs[i]), i++)
        FUZZ_CHECK(memcmp(nh_run_data(&m->runs[i]), pb->records.data + at, nh_run_size(&m->runs[i])) == 0);
}

static void compare(const struct nh_message_batch *b, const uint8_t *data, size_t size_bytes)
{
    Raftpb__MessageBatch *pb = raftpb__message_batch__unpack(NULL, size_bytes, data);
    size_t n_rows;

    FUZZ_CHECK(pb && pb->deployment_id == b->deployment_id);
    n_rows = (pb->heartbeats ? pb->heartbeats->n_to : 0) + (pb->heartbeat_resps ? pb->heartbeat_resps->n_to : 0);
    FUZZ_CHECK(b->n_messages == pb->n_messages + n_rows);
    for (size_t i = 0; i < pb->n_messages; i++)
        compare_message(&b->messages[i], pb->messages[i]);
    raftpb__message_batch__free_unpacked(pb, NULL);
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
    compare(a, data, size_bytes);
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
