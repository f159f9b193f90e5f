#include "raftio/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/codec_private.h"
#include "raftio/codec_wire.h"
#include "raftio/support/block.h"
#include "raftio/support/memory.h"

/* The encoder writes the wire format by hand: records go from their blocks to `out` in one copy, and nothing is allocated.
 * The decoder uses protobuf-c. Field numbers are those of raftio/raftpb.proto; test_codec_batch.c holds the two together. */

#define BATCH_DEPLOYMENT_ID  1u
#define BATCH_SOURCE_ADDRESS 2u
#define BATCH_MESSAGES       3u
#define BATCH_HEARTBEATS     4u  /* and the answers: 5 */
#define MESSAGE_NUMBERS      11u /* fields 1 .. 11 are numbers */
#define MESSAGE_RECORDS      12u
#define MESSAGE_SNAPSHOT     13u
#define ROW_NUMBERS          7u

/* ---- encoding: messages ---- */

static void numbers_of(const struct nh_message *m, uint64_t ret[MESSAGE_NUMBERS])
{
    const uint64_t numbers[MESSAGE_NUMBERS] = {m->type,     m->reject,    m->shard_id, m->to,   m->from,     m->term,
                                               m->log_term, m->log_index, m->commit,   m->hint, m->hint_high};

    memcpy(ret, numbers, sizeof numbers);
}

static size_t records_bytes(const struct nh_message *m)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < m->n_runs; i++)
        bytes += nh_run_size(&m->runs[i]);
    return bytes;
}

static size_t message_bytes(const struct nh_message *m)
{
    uint64_t numbers[MESSAGE_NUMBERS];
    size_t records = records_bytes(m), bytes = 0;

    numbers_of(m, numbers);
    for (unsigned i = 0; i < MESSAGE_NUMBERS; i++)
        bytes += wire_number_bytes(numbers[i]);
    if (records)
        bytes += wire_bytes_bytes(records);
    if (m->snapshot)
        bytes += wire_bytes_bytes(snapshot_encode(m->snapshot, NULL, 0));
    return bytes;
}

static uint8_t *put_records(uint8_t *p, const struct nh_message *m)
{
    size_t bytes = records_bytes(m);

    if (!bytes)
        return p;
    p = wire_put_bytes_head(p, MESSAGE_RECORDS, bytes);
    for (uint32_t i = 0; i < m->n_runs; i++) {
        memcpy(p, nh_run_data(&m->runs[i]), nh_run_size(&m->runs[i]));
        p += nh_run_size(&m->runs[i]);
    }
    return p;
}

static uint8_t *put_message(uint8_t *p, const struct nh_message *m)
{
    uint64_t numbers[MESSAGE_NUMBERS];

    p = wire_put_bytes_head(p, BATCH_MESSAGES, message_bytes(m));
    numbers_of(m, numbers);
    for (unsigned i = 0; i < MESSAGE_NUMBERS; i++)
        p = wire_put_number(p, i + 1, numbers[i]);
    p = put_records(p, m);
    if (m->snapshot) {
        size_t bytes = snapshot_encode(m->snapshot, NULL, 0);

        p = wire_put_bytes_head(p, MESSAGE_SNAPSHOT, bytes);
        p += snapshot_encode(m->snapshot, p, bytes);
    }
    return p;
}

/* ---- encoding: heartbeats ---- */

/* Bytes of each column of one table of heartbeats. */
struct columns {
    uint32_t n_rows;
    size_t bytes[ROW_NUMBERS];
};

/* 0: heartbeat, 1: answer, -1: the message needs more than a row. */
static int table_of(const struct nh_message *m)
{
    if (m->reject || m->log_term || m->log_index || m->n_runs || m->snapshot)
        return -1;
    return m->type == NH_MSG_HEARTBEAT ? 0 : m->type == NH_MSG_HEARTBEAT_RESP ? 1 : -1;
}

static void row_of(const struct nh_message *m, uint64_t ret[ROW_NUMBERS])
{
    const uint64_t row[ROW_NUMBERS] = {m->shard_id, m->to, m->from, m->term, m->commit, m->hint, m->hint_high};

    memcpy(ret, row, sizeof row);
}

static void columns_add(struct columns *c, const struct nh_message *m)
{
    uint64_t row[ROW_NUMBERS];

    row_of(m, row);
    for (unsigned i = 0; i < ROW_NUMBERS; i++)
        c->bytes[i] += wire_varint_bytes(row[i]);
    c->n_rows++;
}

static size_t columns_bytes(const struct columns *c)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < ROW_NUMBERS; i++)
        bytes += wire_bytes_bytes(c->bytes[i]);
    return bytes;
}

/* Writes the heads of all columns first and then every row into all columns at once: one pass over the messages. */
static uint8_t *put_columns(uint8_t *p, const struct nh_message_batch *b, int table, const struct columns *c)
{
    uint8_t *column[ROW_NUMBERS];

    if (!c->n_rows)
        return p;
    p = wire_put_bytes_head(p, BATCH_HEARTBEATS + (unsigned)table, columns_bytes(c));
    for (unsigned i = 0; i < ROW_NUMBERS; i++) {
        column[i] = wire_put_bytes_head(p, i + 1, c->bytes[i]);
        p = column[i] + c->bytes[i];
    }
    for (uint32_t i = 0; i < b->n_messages; i++) {
        uint64_t row[ROW_NUMBERS];

        if (table_of(&b->messages[i]) != table)
            continue;
        row_of(&b->messages[i], row);
        for (unsigned k = 0; k < ROW_NUMBERS; k++)
            column[k] = wire_put_varint(column[k], row[k]);
    }
    return p;
}

/* ---- encoding: batches ---- */

static size_t measure(const struct nh_message_batch *b, size_t address_bytes, struct columns tables[2])
{
    size_t bytes = wire_number_bytes(b->deployment_id);

    if (address_bytes)
        bytes += wire_bytes_bytes(address_bytes);
    for (uint32_t i = 0; i < b->n_messages; i++) {
        int table = table_of(&b->messages[i]);

        if (table < 0)
            bytes += wire_bytes_bytes(message_bytes(&b->messages[i]));
        else
            columns_add(&tables[table], &b->messages[i]);
    }
    for (int t = 0; t < 2; t++)
        if (tables[t].n_rows)
            bytes += wire_bytes_bytes(columns_bytes(&tables[t]));
    return bytes;
}

size_t batch_encode(const struct nh_message_batch *b, uint8_t *out, size_t cap)
{
    size_t address_bytes = b->source_address ? strlen(b->source_address) : 0;
    struct columns tables[2] = {0};
    size_t bytes = measure(b, address_bytes, tables);
    uint8_t *p = out;

    if (bytes == 0 || bytes > cap)
        return bytes;
    p = wire_put_number(p, BATCH_DEPLOYMENT_ID, b->deployment_id);
    if (address_bytes)
        p = wire_put_bytes(p, BATCH_SOURCE_ADDRESS, b->source_address, address_bytes);
    for (uint32_t i = 0; i < b->n_messages; i++)
        if (table_of(&b->messages[i]) < 0)
            p = put_message(p, &b->messages[i]);
    for (int t = 0; t < 2; t++)
        p = put_columns(p, b, t, &tables[t]);
    assert(p == out + bytes);
    return bytes;
}

/* ---- decoding ---- */

/* What batch_decode returns: the batch first, behind it the messages, which are part of the same allocation. */
struct decoded_batch {
    struct nh_message_batch batch;
    char source_address[NH_ADDRESS_BYTES];
    struct nh_message messages[];
};

static int decode_records(const ProtobufCBinaryData *records, struct nh_message *m, struct nh_error *err)
{
    struct run_list runs = {0};
    int r;

    if (m->type == NH_MSG_PROPOSE)
        r = run_list_decode_unsealed(&runs, records->data, records->len, err);
    else if (m->type != NH_MSG_REPLICATE)
        r = nh_error_set(err, NH_ECORRUPT, "entries in a message that has none");
    else if (m->log_index == UINT64_MAX)
        r = nh_error_set(err, NH_ECORRUPT, "entries after the last index");
    else
        r = run_list_decode(&runs, records->data, records->len, m->log_index + 1, err);
    m->runs = runs.runs;
    m->n_runs = runs.n;
    return r;
}

static int decode_snapshot(const Raftpb__Snapshot *pb, struct nh_message *m, struct nh_error *err)
{
    struct nh_snapshot snapshot;
    int r;

    if ((m->type == NH_MSG_INSTALL_SNAPSHOT) != (pb != NULL))
        return nh_error_set(err, NH_ECORRUPT, pb ? "snapshot in a message that has none" : "no snapshot");
    if (!pb)
        return NH_OK;
    r = codec_snapshot(pb, &snapshot, err);
    if (r == NH_OK)
        m->snapshot = xmemdup(&snapshot, sizeof snapshot);
    return r;
}

static int check_ids(const struct nh_message *m, struct nh_error *err)
{
    if (m->shard_id == NH_NO_SHARD || m->to == NH_NO_REPLICA)
        return nh_error_set(err, NH_ECORRUPT, "no receiver");
    return NH_OK;
}

/* *ret is zeroed; on failure it may be half-filled, which nh_message_deinit bears. */
static int decode_message(const Raftpb__Message *pb, struct nh_message *ret, struct nh_error *err)
{
    int r;

    *ret = (struct nh_message){
        .type = pb->type,
        .reject = pb->reject,
        .shard_id = pb->shard_id,
        .to = pb->to,
        .from = pb->from,
        .term = pb->term,
        .log_term = pb->log_term,
        .log_index = pb->log_index,
        .commit = pb->commit,
        .hint = pb->hint,
        .hint_high = pb->hint_high,
    };
    if (ret->type >= NH_MSG_TYPE_COUNT)
        return nh_error_set(err, NH_ECORRUPT, "unknown type %" PRIu32, ret->type);
    r = check_ids(ret, err);
    if (r == NH_OK && pb->records.len > 0)
        r = decode_records(&pb->records, ret, err);
    if (r == NH_OK)
        r = decode_snapshot(pb->snapshot, ret, err);
    return r < 0 ? nh_error_wrap(err, r, "%s to shard %" PRIu64 " replica %" PRIu64, nh_message_type_name(ret->type),
                                 ret->shard_id, ret->to)
                 : NH_OK;
}

/* The number of rows, which all columns must have. `pb` may be NULL. */
static int count_rows(const Raftpb__Heartbeats *pb, size_t *ret, struct nh_error *err)
{
    if (!pb) {
        *ret = 0;
        return NH_OK;
    }
    if (pb->n_to != pb->n_shard_id || pb->n_from != pb->n_shard_id || pb->n_term != pb->n_shard_id ||
        pb->n_commit != pb->n_shard_id || pb->n_hint != pb->n_shard_id || pb->n_hint_high != pb->n_shard_id)
        return nh_error_set(err, NH_ECORRUPT, "heartbeat columns of unequal length");
    *ret = pb->n_shard_id;
    return NH_OK;
}

static int decode_rows(const Raftpb__Heartbeats *pb, uint32_t type, size_t n_rows, struct nh_message *ret, struct nh_error *err)
{
    for (size_t i = 0; i < n_rows; i++) {
        int r;

        ret[i] = (struct nh_message){
            .type = type,
            .shard_id = pb->shard_id[i],
            .to = pb->to[i],
            .from = pb->from[i],
            .term = pb->term[i],
            .commit = pb->commit[i],
            .hint = pb->hint[i],
            .hint_high = pb->hint_high[i],
        };
        r = check_ids(&ret[i], err);
        if (r < 0)
            return nh_error_wrap(err, r, "row %zu of the heartbeats", i);
    }
    return NH_OK;
}

/* Fills the zeroed messages of `d`; what is filled on failure is released by batch_free. */
static int decode_all(const Raftpb__MessageBatch *pb, const size_t n_rows[2], struct decoded_batch *d, struct nh_error *err)
{
    int r = codec_text(&pb->source_address, d->source_address, sizeof d->source_address, "source address", err);

    for (size_t i = 0; r == NH_OK && i < pb->n_messages; i++)
        r = decode_message(pb->messages[i], &d->messages[i], err);
    if (r == NH_OK)
        r = decode_rows(pb->heartbeats, NH_MSG_HEARTBEAT, n_rows[0], d->messages + pb->n_messages, err);
    if (r == NH_OK)
        r = decode_rows(pb->heartbeat_resps, NH_MSG_HEARTBEAT_RESP, n_rows[1], d->messages + pb->n_messages + n_rows[0], err);
    return r;
}

static int batch_from_pb(const Raftpb__MessageBatch *pb, struct nh_message_batch **ret, struct nh_error *err)
{
    size_t n_rows[2] = {0}, n;
    struct decoded_batch *d;
    int r = count_rows(pb->heartbeats, &n_rows[0], err);

    if (r == NH_OK)
        r = count_rows(pb->heartbeat_resps, &n_rows[1], err);
    if (r < 0)
        return r;
    n = pb->n_messages + n_rows[0] + n_rows[1];
    if (n > UINT32_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%zu messages", n);
    d = xcalloc(1, sizeof *d + n * sizeof d->messages[0]);
    d->batch = (struct nh_message_batch){
        .deployment_id = pb->deployment_id,
        .source_address = d->source_address,
        .n_messages = (uint32_t)n,
        .messages = d->messages,
    };
    r = decode_all(pb, n_rows, d, err);
    if (r < 0)
        batch_free(&d->batch);
    else
        *ret = &d->batch;
    return r;
}

int batch_decode(const uint8_t *data, size_t size_bytes, struct nh_message_batch **ret, struct nh_error *err)
{
    const Raftpb__MessageBatch *pb;
    struct arena a;
    int r;

    arena_init(&a, size_bytes);
    pb = arena_unpack(&a, &raftpb__message_batch__descriptor, data, size_bytes, err);
    r = pb ? batch_from_pb(pb, ret, err) : NH_ECORRUPT;
    arena_deinit(&a);
    return r < 0 ? nh_error_wrap(err, r, "message batch") : NH_OK;
}

void batch_free(struct nh_message_batch *b)
{
    for (uint32_t i = 0; b && i < b->n_messages; i++)
        nh_message_deinit(&b->messages[i]);
    free(b); /* the first member of struct decoded_batch */
}
