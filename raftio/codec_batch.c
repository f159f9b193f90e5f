#include "raftio/codec.h"

#include <assert.h>
#include <string.h>

#include "raftio/codec_private.h"
#include "raftio/codec_wire.h"

/* The wire format is written by hand: records go from their blocks to `out` in one copy, and nothing is allocated. Field
 * numbers are those of raftio/raftpb.proto; test_codec_batch.c holds the two together. The other way: codec_unbatch.c. */

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
