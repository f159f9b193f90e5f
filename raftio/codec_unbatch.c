#include "raftio/codec.h"

#include <inttypes.h>
#include <stdlib.h>

#include "raftio/codec_private.h"
#include "raftio/codec_wire.h"
#include "raftio/support/block.h"
#include "raftio/support/memory.h"

/* Batches from the wire. Messages are read by hand: records go from the input to their blocks in one copy, and a message
 * without records takes no allocation of its own. What is rare or small is left to protobuf-c: snapshots, and the columns of
 * heartbeats. As in protobuf, fields come in any order, unknown ones are skipped, and of a field that is repeated though it
 * should not be the last one counts; but a message that comes twice is refused, not merged, as no encoder writes that. */

/* The smallest message that has a receiver: shard and replica, two bytes each. So what a message takes in memory is bounded
 * by the input, before it is allocated. */
#define MESSAGE_BYTES_MIN 4u

/* What batch_decode returns: the batch first, behind it the messages, which are part of the same allocation. */
struct decoded_batch {
    struct nh_message_batch batch;
    char source_address[NH_ADDRESS_BYTES];
    struct nh_run *runs; /* behind the messages, one each: most have no more, and then need no array of their own */
    struct nh_message messages[];
};

/* The input, as far as it was looked at before anything was allocated. */
struct outline {
    struct arena *arena;
    struct wire_reader input;
    uint64_t deployment_id;
    struct wire_reader source_address;
    size_t n_messages;
    const Raftpb__Heartbeats *tables[2]; /* or NULL */
    size_t n_rows[2];
};

static int refuse(const char *what, const struct wire_reader *r, struct nh_error *err)
{
    return nh_error_set(err, NH_ECORRUPT, "%zu bytes are no %s", wire_left_bytes(r), what);
}

/* ---- messages ---- */

static int decode_sealed(const struct wire_reader *records, struct nh_message *m, struct nh_run *slot, struct nh_error *err)
{
    size_t used, size = wire_left_bytes(records);
    struct run_list runs = {0};
    int r = run_decode(slot, records->at, size, m->log_index + 1, &used, err);

    if (r < 0)
        return r;
    m->runs = slot;
    m->n_runs = 1;
    if (used == size)
        return NH_OK;
    run_list_add(&runs, slot->block, slot->from, slot->to);
    nh_block_unref(slot->block);
    r = run_list_decode(&runs, records->at + used, size - used, 0, err);
    m->runs = runs.runs;
    m->n_runs = runs.n;
    return r;
}

static int decode_unsealed(const struct wire_reader *records, struct nh_message *m, struct nh_error *err)
{
    struct run_list runs = {0};
    int r = run_list_decode_unsealed(&runs, records->at, wire_left_bytes(records), err);

    m->runs = runs.runs;
    m->n_runs = runs.n;
    return r;
}

static int decode_records(const struct wire_reader *records, struct nh_message *m, struct nh_run *slot, struct nh_error *err)
{
    if (m->type == NH_MSG_PROPOSE)
        return decode_unsealed(records, m, err);
    if (m->type != NH_MSG_REPLICATE)
        return nh_error_set(err, NH_ECORRUPT, "entries in a message that has none");
    if (m->log_index == UINT64_MAX)
        return nh_error_set(err, NH_ECORRUPT, "entries after the last index");
    return decode_sealed(records, m, slot, err);
}

/* `bytes->at` is NULL: none came. */
static int decode_snapshot(const struct wire_reader *bytes, struct arena *a, struct nh_message *m, struct nh_error *err)
{
    const Raftpb__Snapshot *pb;
    struct nh_snapshot snapshot;
    int r;

    if ((m->type == NH_MSG_INSTALL_SNAPSHOT) != (bytes->at != NULL))
        return nh_error_set(err, NH_ECORRUPT, bytes->at ? "snapshot in a message that has none" : "no snapshot");
    if (!bytes->at)
        return NH_OK;
    pb = arena_unpack(a, &raftpb__snapshot__descriptor, bytes->at, wire_left_bytes(bytes), err);
    if (!pb)
        return NH_ECORRUPT;
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

/* The fields of one message; false if they are not what they should be. */
static bool read_message(struct wire_reader r, uint64_t numbers[MESSAGE_NUMBERS], struct wire_reader *records,
                         struct wire_reader *snapshot)
{
    struct wire_field f = {0};

    while (r.at < r.end) {
        if (!wire_get_field(&r, &f))
            return false;
        if (f.field <= MESSAGE_NUMBERS) {
            if (f.type != WIRE_VARINT)
                return false;
            numbers[f.field - 1] = f.number;
        } else if (f.field <= MESSAGE_SNAPSHOT) {
            if (f.type != WIRE_BYTES || (f.field == MESSAGE_SNAPSHOT && snapshot->at))
                return false;
            *(f.field == MESSAGE_RECORDS ? records : snapshot) = f.bytes;
        }
    }
    return true;
}

/* Adds the message to `b`; on failure it may be there half-filled, which batch_free bears. */
static int decode_message(const struct wire_reader *bytes, struct arena *a, struct nh_message_batch *b, struct nh_run *slot,
                          struct nh_error *err)
{
    uint64_t n[MESSAGE_NUMBERS] = {0};
    struct wire_reader records = {0}, snapshot = {0};
    struct nh_message *m;
    int r;

    if (!read_message(*bytes, n, &records, &snapshot))
        return refuse("Message", bytes, err);
    m = &b->messages[b->n_messages++];
    *m = (struct nh_message){
        .type = (uint32_t)n[0],
        .reject = n[1] != 0,
        .shard_id = n[2],
        .to = n[3],
        .from = n[4],
        .term = n[5],
        .log_term = n[6],
        .log_index = n[7],
        .commit = n[8],
        .hint = n[9],
        .hint_high = n[10],
    };
    if (m->type >= NH_MSG_TYPE_COUNT)
        return nh_error_set(err, NH_ECORRUPT, "unknown type %" PRIu32, m->type);
    r = check_ids(m, err);
    if (r == NH_OK && records.at < records.end)
        r = decode_records(&records, m, slot, err);
    if (r == NH_OK)
        r = decode_snapshot(&snapshot, a, m, err);
    return r < 0 ? nh_error_wrap(err, r, "%s to shard %" PRIu64 " replica %" PRIu64, nh_message_type_name(m->type), m->shard_id,
                                 m->to)
                 : NH_OK;
}

/* ---- heartbeats ---- */

/* The number of rows, which all columns must have. */
static int count_rows(const Raftpb__Heartbeats *pb, size_t *ret, struct nh_error *err)
{
    if (pb->n_to != pb->n_shard_id || pb->n_from != pb->n_shard_id || pb->n_term != pb->n_shard_id ||
        pb->n_commit != pb->n_shard_id || pb->n_hint != pb->n_shard_id || pb->n_hint_high != pb->n_shard_id)
        return nh_error_set(err, NH_ECORRUPT, "heartbeat columns of unequal length");
    *ret = pb->n_shard_id;
    return NH_OK;
}

static int read_table(struct outline *o, const struct wire_field *f, struct nh_error *err)
{
    unsigned table = f->field - BATCH_HEARTBEATS;

    if (o->tables[table])
        return nh_error_set(err, NH_ECORRUPT, "heartbeats come twice");
    o->tables[table] = arena_unpack(o->arena, &raftpb__heartbeats__descriptor, f->bytes.at, wire_left_bytes(&f->bytes), err);
    return o->tables[table] ? count_rows(o->tables[table], &o->n_rows[table], err) : NH_ECORRUPT;
}

static int decode_rows(const Raftpb__Heartbeats *pb, uint32_t type, size_t n_rows, struct nh_message_batch *b,
                       struct nh_error *err)
{
    for (size_t i = 0; i < n_rows; i++) {
        struct nh_message *m = &b->messages[b->n_messages++];
        int r;

        *m = (struct nh_message){
            .type = type,
            .shard_id = pb->shard_id[i],
            .to = pb->to[i],
            .from = pb->from[i],
            .term = pb->term[i],
            .commit = pb->commit[i],
            .hint = pb->hint[i],
            .hint_high = pb->hint_high[i],
        };
        r = check_ids(m, err);
        if (r < 0)
            return nh_error_wrap(err, r, "row %zu of the heartbeats", i);
    }
    return NH_OK;
}

/* ---- batches ---- */

static int read_batch_field(struct outline *o, const struct wire_field *f, struct nh_error *err)
{
    if (f->field > BATCH_HEARTBEATS + 1)
        return NH_OK;
    if (f->type != (f->field == BATCH_DEPLOYMENT_ID ? WIRE_VARINT : WIRE_BYTES))
        return refuse("MessageBatch", &o->input, err);
    if (f->field >= BATCH_HEARTBEATS)
        return read_table(o, f, err);
    if (f->field == BATCH_DEPLOYMENT_ID)
        o->deployment_id = f->number;
    else if (f->field == BATCH_SOURCE_ADDRESS)
        o->source_address = f->bytes;
    else if (wire_left_bytes(&f->bytes) < MESSAGE_BYTES_MIN)
        return nh_error_set(err, NH_ECORRUPT, "message of %zu bytes has no receiver", wire_left_bytes(&f->bytes));
    else
        o->n_messages++;
    return NH_OK;
}

/* Reads everything but the messages, which it counts. */
static int read_outline(struct outline *o, struct nh_error *err)
{
    struct wire_reader input = o->input;
    struct wire_field f = {0};
    int r = NH_OK;

    while (r == NH_OK && input.at < input.end)
        r = wire_get_field(&input, &f) ? read_batch_field(o, &f, err) : refuse("MessageBatch", &o->input, err);
    return r;
}

/* Fills the messages of `d`; what is filled on failure is released by batch_free. */
static int decode_all(const struct outline *o, struct decoded_batch *d, struct nh_error *err)
{
    const ProtobufCBinaryData address = {wire_left_bytes(&o->source_address), (uint8_t *)o->source_address.at};
    struct nh_message_batch *b = &d->batch;
    struct wire_reader input = o->input;
    struct wire_field f = {0};
    int r = codec_text(&address, d->source_address, sizeof d->source_address, "source address", err);

    while (r == NH_OK && b->n_messages < o->n_messages && wire_get_field(&input, &f)) {
        if (f.field == BATCH_MESSAGES)
            r = decode_message(&f.bytes, o->arena, b, &d->runs[b->n_messages], err);
    }
    if (r == NH_OK)
        r = decode_rows(o->tables[0], NH_MSG_HEARTBEAT, o->n_rows[0], b, err);
    if (r == NH_OK)
        r = decode_rows(o->tables[1], NH_MSG_HEARTBEAT_RESP, o->n_rows[1], b, err);
    return r;
}

static int decode_outlined(const struct outline *o, struct nh_message_batch **ret, struct nh_error *err)
{
    size_t n = o->n_messages + o->n_rows[0] + o->n_rows[1];
    struct decoded_batch *d;
    int r;

    if (n > UINT32_MAX)
        return nh_error_set(err, NH_ECORRUPT, "%zu messages", n);
    d = xmalloc(sizeof *d + n * sizeof d->messages[0] + o->n_messages * sizeof d->runs[0]);
    d->batch = (struct nh_message_batch){
        .deployment_id = o->deployment_id,
        .source_address = d->source_address,
        .messages = d->messages,
    };
    d->runs = (struct nh_run *)(void *)(d->messages + n);
    r = decode_all(o, d, err);
    if (r < 0)
        batch_free(&d->batch);
    else
        *ret = &d->batch;
    return r;
}

int batch_decode(const uint8_t *data, size_t size_bytes, struct nh_message_batch **ret, struct nh_error *err)
{
    struct arena a;
    struct outline o = {.arena = &a, .input = {data, size_bytes ? data + size_bytes : data}};
    int r;

    arena_init(&a, size_bytes);
    r = read_outline(&o, err);
    if (r == NH_OK)
        r = decode_outlined(&o, ret, err);
    arena_deinit(&a);
    return r < 0 ? nh_error_wrap(err, r, "message batch") : NH_OK;
}

void batch_free(struct nh_message_batch *b)
{
    struct decoded_batch *d = (struct decoded_batch *)b; /* its first member */

    for (uint32_t i = 0; b && i < b->n_messages; i++) {
        struct nh_message *m = &b->messages[i];

        if (m->n_runs == 1 && m->runs == &d->runs[i]) {
            nh_block_unref(m->runs[0].block);
            m->runs = NULL;
        }
        if (m->runs || m->snapshot)
            nh_message_deinit(m);
    }
    free(d);
}
