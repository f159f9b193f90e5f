#include "raftio/codec.h"

#include <string.h>

#include "raftio/codec_private.h"
#include "raftio/codec_wire.h"

/* The wire format is written by hand: records go from their blocks to `out` in one copy, and nothing is allocated. Field
 * numbers are those of raftio/raftpb.proto; test_codec_batch.c holds the two together. The other way: codec_unbatch.c. */

/* ---- encoding: messages ---- */

static size_t records_bytes(const struct nh_message *m)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < m->n_runs; i++)
        bytes += nh_run_size(&m->runs[i]);
    return bytes;
}

/* Bytes of what comes behind the numbers. */
struct rest {
    size_t records, snapshot;
};

static struct rest rest_of(const struct nh_message *m)
{
    return (struct rest){records_bytes(m), m->snapshot ? snapshot_encode(m->snapshot, NULL, 0) : 0};
}

static size_t rest_bytes(const struct rest *r)
{
    return (r->records ? wire_bytes_bytes(r->records) : 0) + (r->snapshot ? wire_bytes_bytes(r->snapshot) : 0);
}

/* Fields 1 to MESSAGE_NUMBERS. */
static uint8_t *put_numbers(uint8_t *p, const struct nh_message *m)
{
    p = wire_put_number(p, 1, m->type);
    p = wire_put_number(p, 2, m->reject);
    p = wire_put_number(p, 3, m->shard_id);
    p = wire_put_number(p, 4, m->to);
    p = wire_put_number(p, 5, m->from);
    p = wire_put_number(p, 6, m->term);
    p = wire_put_number(p, 7, m->log_term);
    p = wire_put_number(p, 8, m->log_index);
    p = wire_put_number(p, 9, m->commit);
    p = wire_put_number(p, 10, m->hint);
    return wire_put_number(p, 11, m->hint_high);
}

static size_t message_bytes(const struct nh_message *m)
{
    uint8_t numbers[MESSAGE_NUMBERS * WIRE_NUMBER_BYTES_MAX];
    struct rest rest = rest_of(m);

    return (size_t)(put_numbers(numbers, m) - numbers) + rest_bytes(&rest);
}

static uint8_t *put_records(uint8_t *p, const struct nh_message *m, size_t bytes)
{
    p = wire_put_bytes_head(p, MESSAGE_RECORDS, bytes);
    for (uint32_t i = 0; i < m->n_runs; i++) {
        size_t size = nh_run_size(&m->runs[i]);

        memcpy(p, nh_run_data(&m->runs[i]), size);
        p += size;
    }
    return p;
}

/* NULL: no room. The numbers are written beside first: to find out how long they will be takes as long. */
static uint8_t *put_message(uint8_t *p, const uint8_t *end, const struct nh_message *m)
{
    uint8_t numbers[MESSAGE_NUMBERS * WIRE_NUMBER_BYTES_MAX];
    size_t numbers_bytes = (size_t)(put_numbers(numbers, m) - numbers), bytes;
    struct rest rest = rest_of(m);

    bytes = numbers_bytes + rest_bytes(&rest);
    if (wire_bytes_bytes(bytes) > (size_t)(end - p))
        return NULL;
    p = wire_put_bytes_head(p, BATCH_MESSAGES, bytes);
    memcpy(p, numbers, numbers_bytes);
    p += numbers_bytes;
    if (rest.records)
        p = put_records(p, m, rest.records);
    if (rest.snapshot) {
        p = wire_put_bytes_head(p, MESSAGE_SNAPSHOT, rest.snapshot);
        p += snapshot_encode(m->snapshot, p, rest.snapshot);
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
    if (m->type != NH_MSG_HEARTBEAT && m->type != NH_MSG_HEARTBEAT_RESP)
        return -1;
    if (m->reject || m->log_term || m->log_index || m->n_runs || m->snapshot)
        return -1;
    return m->type == NH_MSG_HEARTBEAT ? 0 : 1;
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

/* Writes the heads of all columns first and then every row into all columns at once, in one pass. NULL: no room. */
static uint8_t *put_columns(uint8_t *p, const uint8_t *end, const struct nh_message_batch *b, int table, const struct columns *c)
{
    uint8_t *column[ROW_NUMBERS];

    if (!c->n_rows)
        return p;
    if (wire_bytes_bytes(columns_bytes(c)) > (size_t)(end - p))
        return NULL;
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

static size_t head_bytes(const struct nh_message_batch *b, size_t address_bytes)
{
    return wire_number_bytes(b->deployment_id) + (address_bytes ? wire_bytes_bytes(address_bytes) : 0);
}

static size_t measure(const struct nh_message_batch *b, size_t address_bytes)
{
    size_t bytes = head_bytes(b, address_bytes);
    struct columns tables[2] = {0};

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

/* Returns its end; NULL: no room. */
static uint8_t *put_batch(uint8_t *p, const uint8_t *end, const struct nh_message_batch *b, size_t address_bytes)
{
    struct columns tables[2] = {0};

    if (head_bytes(b, address_bytes) > (size_t)(end - p))
        return NULL;
    p = wire_put_number(p, BATCH_DEPLOYMENT_ID, b->deployment_id);
    if (address_bytes)
        p = wire_put_bytes(p, BATCH_SOURCE_ADDRESS, b->source_address, address_bytes);
    for (uint32_t i = 0; i < b->n_messages && p; i++) {
        int table = table_of(&b->messages[i]);

        if (table < 0)
            p = put_message(p, end, &b->messages[i]);
        else
            columns_add(&tables[table], &b->messages[i]);
    }
    for (int t = 0; t < 2 && p; t++)
        p = put_columns(p, end, b, t, &tables[t]);
    return p;
}

size_t batch_encode(const struct nh_message_batch *b, uint8_t *out, size_t cap)
{
    size_t address_bytes = b->source_address ? strlen(b->source_address) : 0;
    uint8_t *end = cap ? put_batch(out, out + cap, b, address_bytes) : NULL;

    return end ? (size_t)(end - out) : measure(b, address_bytes);
}
