/* Commands of the kv machine: to the shard of their key, or split over the shards of their keys. */
#include "cmd/nodehostd/command.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/slots.h"

/* The place of a key's shard in s->kv_shards. */
static uint32_t shard_of(const struct server *s, struct kv_slice key)
{
    return slot_owner(slot_of_key(key.data, key.size), s->n_kv);
}

static bool have_shards(struct call *call)
{
    if (call->server->n_kv > 0)
        return true;
    reply_error(&call->reply, "ERR no shard of this deployment runs the kv machine");
    return false;
}

static void encode(struct buffer *b, const struct kv_slice *args, uint32_t n)
{
    size_t size = kv_command_bytes(args, n);

    kv_command_encode(args, n, (uint8_t *)buffer_reserve(b, size));
    b->size += size;
}

/* ---- answers of the machine ---- */

static int64_t integer_of(const struct part *p)
{
    uint64_t n = 0;

    for (size_t i = 0; i < 8 && i < p->size; i++)
        n |= (uint64_t)(uint8_t)p->data[i] << (8 * i);
    return (int64_t)n;
}

static void reply_machine_error(struct call *call, const struct part *p)
{
    reply_errorf(&call->reply, "%.*s", (int)(p->size < 512 ? p->size : 512), p->data ? p->data : "ERR");
}

/* A query that the machine or the host could not answer. */
static void reply_status(struct call *call, const struct part *p)
{
    reply_errorf(&call->reply, "ERR %.*s", (int)(p->size < 512 ? p->size : 512), p->data ? p->data : "");
}

static void reply_answer(struct call *call, const struct part *p)
{
    switch (p->value) {
    case KV_REPLY_OK: reply_simple(&call->reply, "OK"); break;
    case KV_REPLY_NIL: reply_null(&call->reply, call->resp); break;
    case KV_REPLY_INTEGER: reply_integer(&call->reply, integer_of(p)); break;
    case KV_REPLY_BULK: reply_bulk(&call->reply, p->data, p->size); break;
    case KV_REPLY_ERROR: reply_machine_error(call, p); break;
    default: reply_error(&call->reply, "ERR the machine gave an answer that this version does not know"); break;
    }
}

/* The first part that failed in the machine; NULL: none. */
static const struct part *find_error(const struct call *call)
{
    for (uint32_t i = 0; i < call->n_parts; i++)
        if (call->parts[i].status < 0 || call->parts[i].value == KV_REPLY_ERROR)
            return &call->parts[i];
    return NULL;
}

static bool reply_any_error(struct call *call)
{
    const struct part *bad;

    if (call_reply_failure(call))
        return true;
    bad = find_error(call);
    if (bad && bad->status < 0)
        reply_status(call, bad);
    else if (bad)
        reply_machine_error(call, bad);
    return bad != NULL;
}

static void finish_one(struct call *call)
{
    if (!reply_any_error(call))
        reply_answer(call, &call->parts[0]);
}

static void finish_sum(struct call *call)
{
    int64_t sum = 0;

    if (reply_any_error(call))
        return;
    for (uint32_t i = 0; i < call->n_parts; i++)
        sum += integer_of(&call->parts[i]);
    reply_integer(&call->reply, sum);
}

static void finish_ok(struct call *call)
{
    if (!reply_any_error(call))
        reply_simple(&call->reply, "OK");
}

/* The answers of the parts, dealt out in the order of the keys. */
static void finish_mget(struct call *call)
{
    struct kv_slice *rest;

    if (reply_any_error(call))
        return;
    rest = must_alloc(calloc(call->n_parts, sizeof *rest));
    for (uint32_t i = 0; i < call->n_parts; i++)
        if (call->parts[i].size >= 4) /* behind the number of values */
            rest[i] = (struct kv_slice){(const uint8_t *)call->parts[i].data + 4, (uint32_t)call->parts[i].size - 4};
    reply_array(&call->reply, call->n_keys);
    for (uint32_t i = 0; i < call->n_keys; i++) {
        struct kv_slice *r = &rest[call->key_parts[i]], value;

        if (r->size >= 4 && kv_load_u32(r->data) == KV_NIL_SIZE) {
            *r = (struct kv_slice){r->data + 4, r->size - 4};
            reply_null(&call->reply, call->resp);
        } else if (kv_next(r, &value)) {
            reply_bulk(&call->reply, value.data, value.size);
        } else {
            reply_null(&call->reply, call->resp);
        }
    }
    free(rest);
}

/* ---- one write in one shard, for NH.ONCE ---- */

static bool is_kv_write(const struct command *c)
{
    return c && c->kind == COMMAND_WRITE && c->first > 0;
}

static bool keys_are_in_one_shard(const struct call *call, const struct command *c, const struct kv_slice *args, uint32_t n_args)
{
    uint32_t last = c->last < 0 ? n_args - 1 : (uint32_t)c->last;
    uint32_t shard = shard_of(call->server, args[c->first]);

    for (uint32_t i = (uint32_t)c->first; i <= last; i += (uint32_t)c->step)
        if (shard_of(call->server, args[i]) != shard)
            return false;
    return true;
}

static bool answers_value(const struct kv_slice *args, uint32_t n_args)
{
    bool get = arg_is(args[0], "getset");

    for (uint32_t i = 3; i < n_args && arg_is(args[0], "set"); i++)
        get |= arg_is(args[i], "get");
    return get;
}

/* What the machine would refuse is not worth an entry of the log. NULL: it would not. */
static const char *refuse_set(const struct kv_slice *args, uint32_t n_args)
{
    bool nx = false, xx = false, get = false;

    for (uint32_t i = 3; i < n_args; i++) {
        if (arg_is(args[i], "ex") || arg_is(args[i], "px") || arg_is(args[i], "exat") || arg_is(args[i], "pxat") ||
            arg_is(args[i], "keepttl"))
            return "ERR keys do not expire here: SET takes NX or XX, and GET, but not EX, PX, EXAT, PXAT, KEEPTTL; nothing was "
                   "applied";
        nx |= arg_is(args[i], "nx");
        xx |= arg_is(args[i], "xx");
        get |= arg_is(args[i], "get");
    }
    return n_args - 3 == (uint32_t)nx + xx + get && !(nx && xx) ? NULL : "ERR syntax error: SET key value [NX|XX] [GET]";
}

static const char *refuse_write(const struct call *call, const struct command *c, const struct kv_slice *args, uint32_t n_args)
{
    if (!is_kv_write(c))
        return "ERR not a command that writes keys";
    if (c->arity > 0 ? n_args != (uint32_t)c->arity : n_args < (uint32_t)-c->arity)
        return "ERR wrong number of arguments of the command";
    if (c->step > 1 && (n_args - 1) % (uint32_t)c->step != 0)
        return "ERR wrong number of arguments of the command";
    if (c->run == cmd_set && refuse_set(args, n_args))
        return refuse_set(args, n_args);
    if (!keys_are_in_one_shard(call, c, args, n_args))
        return "ERR the keys are in several shards, which are not written at once: give them one {hash tag}";
    return NULL;
}

static void fill_part(struct call *call, const struct kv_slice *args, uint32_t n_args, struct part *p)
{
    const struct server *s = call->server;

    p->n_keys = 1;
    p->slot = slot_of_key(args[1].data, args[1].size);
    p->shard_id = s->kv_shards[slot_owner(p->slot, s->n_kv)];
    encode(&p->cmd, args, n_args);
    call->answers_value = answers_value(args, n_args);
}

bool kv_fill_part(struct call *call, const struct kv_slice *args, uint32_t n_args, struct part *p)
{
    const char *refusal;

    if (!have_shards(call))
        return false;
    refusal = refuse_write(call, command_find(args[0]), args, n_args);
    if (refusal) {
        reply_error(&call->reply, refusal);
        return false;
    }
    fill_part(call, args, n_args, p);
    return true;
}

void kv_reply_part(struct call *call, const struct part *p)
{
    reply_answer(call, p);
}

/* ---- one key ---- */

static struct part *make_one_part(struct call *call)
{
    call_make_parts(call, 1);
    fill_part(call, call->args, call->n_args, &call->parts[0]);
    call->finish = finish_one;
    return &call->parts[0];
}

void cmd_kv_write(struct call *call)
{
    if (have_shards(call))
        part_propose(make_one_part(call));
}

void cmd_set(struct call *call)
{
    const char *refusal = refuse_set(call->args, call->n_args);

    if (refusal)
        reply_error(&call->reply, refusal);
    else
        cmd_kv_write(call);
}

void cmd_kv_read(struct call *call)
{
    if (have_shards(call))
        part_query(make_one_part(call));
}

/* ---- many keys ---- */

struct key_place {
    uint32_t shard; /* place in kv_shards */
    uint32_t arg;   /* of the key */
};

static int by_shard(const void *a, const void *b)
{
    const struct key_place *x = a, *y = b;

    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->arg < y->arg ? -1 : x->arg > y->arg;
}

/* The keys sorted by shard, those of one shard in their order; to be freed. */
static struct key_place *place_keys(const struct call *call, uint32_t step, uint32_t n_keys)
{
    struct key_place *places = must_alloc(malloc(n_keys * sizeof *places));

    for (uint32_t i = 0; i < n_keys; i++)
        places[i] = (struct key_place){shard_of(call->server, call->args[1 + i * step]), 1 + i * step};
    qsort(places, n_keys, sizeof *places, by_shard);
    return places;
}

/* A command of the same name with the keys (and what follows each, up to `step`) of one shard. */
static void encode_group(struct call *call, struct part *p, const struct key_place *places, uint32_t n, uint32_t step)
{
    struct kv_slice *args = must_alloc(malloc((1 + (size_t)n * step) * sizeof *args));

    args[0] = call->args[0];
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < step; k++)
            args[1 + i * step + k] = call->args[places[i].arg + k];
    encode(&p->cmd, args, 1 + n * step);
    p->n_keys = n;
    p->slot = slot_of_key(args[1].data, args[1].size);
    free(args);
}

/* Splits the call over the shards of its keys. */
static void split(struct call *call, uint32_t step)
{
    uint32_t n_keys = (call->n_args - 1) / step, n_parts = 1, part = 0;
    struct key_place *places = place_keys(call, step, n_keys);

    for (uint32_t i = 1; i < n_keys; i++)
        n_parts += places[i].shard != places[i - 1].shard;
    call_make_parts(call, n_parts);
    call->key_parts = must_alloc(malloc(n_keys * sizeof *call->key_parts));
    call->n_keys = n_keys;
    for (uint32_t from = 0, to; from < n_keys; from = to, part++) {
        struct part *p = &call->parts[part];

        for (to = from; to < n_keys && places[to].shard == places[from].shard; to++)
            call->key_parts[(places[to].arg - 1) / step] = part;
        p->shard_id = call->server->kv_shards[places[from].shard];
        encode_group(call, p, places + from, to - from, step);
    }
    free(places);
}

static void send_parts(struct call *call, void (*finish)(struct call *call))
{
    call->finish = finish;
    if (call_reply_elsewhere(call)) {
        call_done(call);
        return;
    }
    for (uint32_t i = 0; i < call->n_parts; i++) {
        if (call->command->kind == COMMAND_WRITE)
            part_propose(&call->parts[i]);
        else
            part_query(&call->parts[i]);
    }
}

void cmd_del(struct call *call)
{
    if (!have_shards(call))
        return;
    split(call, 1);
    send_parts(call, finish_sum);
}

void cmd_exists(struct call *call)
{
    if (!have_shards(call))
        return;
    split(call, 1);
    send_parts(call, finish_sum);
}

void cmd_mget(struct call *call)
{
    if (!have_shards(call))
        return;
    split(call, 1);
    send_parts(call, finish_mget);
}

void cmd_mset(struct call *call)
{
    if (!have_shards(call))
        return;
    if (call->n_args % 2 == 0) {
        reply_wrong_arity(call);
        return;
    }
    for (uint32_t i = 2; i < call->n_args; i += 2) {
        if (call->args[i].size > KV_VALUE_BYTES_MAX) { /* all of it is checked before any of it is sent */
            reply_error(&call->reply, "ERR string exceeds maximum allowed size (33554432 bytes)");
            return;
        }
    }
    split(call, 2);
    send_parts(call, finish_ok);
}
