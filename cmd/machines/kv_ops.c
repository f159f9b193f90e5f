#include "cmd/machines/kv_ops.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "raftio/entry.h"

/* One entry being applied. */
struct job {
    struct kv_answers *answers;
    const struct kv_store *store;
    struct nh_machine *m;
};

static struct kv_item *find(const struct job *j, struct kv_slice key)
{
    return j->store->find(j->m, key);
}

static bool has(const struct job *j, struct kv_slice key)
{
    return j->store->has(j->m, key);
}

static void put(const struct job *j, struct kv_slice key, struct kv_slice value)
{
    j->store->put(j->m, key, value, (struct kv_slice){(const uint8_t *)"", 0});
}

/* ---- answers ---- */

static void put_bytes(struct kv_answers *a, const void *data, size_t size)
{
    if (a->cap - a->size < size) {
        a->cap = (a->cap + size) * 2;
        a->bytes = kv_must(realloc(a->bytes, a->cap));
    }
    if (size)
        memcpy(a->bytes + a->size, data, size);
    a->size += size;
}

static void forget(struct kv_answers *a)
{
    for (size_t i = 0; i < a->n_items; i++) {
        a->items[i]->answered = false;
        if (a->items[i]->dropped)
            free(a->items[i]);
    }
    a->n_items = a->size = a->held_bytes = 0;
}

void kv_answers_deinit(struct kv_answers *a)
{
    forget(a);
    free(a->bytes);
    free(a->items);
    *a = (struct kv_answers){0};
}

static enum kv_reply answer_error(struct job *j, const char *text)
{
    put_bytes(j->answers, text, strlen(text));
    return KV_REPLY_ERROR;
}

static enum kv_reply answer_integer(struct job *j, int64_t n)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)n >> (8 * i));
    put_bytes(j->answers, bytes, sizeof bytes);
    return KV_REPLY_INTEGER;
}

static enum kv_reply answer_item(struct job *j, struct kv_item *i)
{
    struct kv_answers *a = j->answers;

    if (!i)
        return KV_REPLY_NIL;
    a->item = i;
    if (i->answered)
        return KV_REPLY_BULK;
    if (a->n_items == a->cap_items) {
        a->cap_items = a->cap_items ? a->cap_items * 2 : 16;
        a->items = kv_must(realloc(a->items, a->cap_items * sizeof(struct kv_item *)));
    }
    i->answered = true;
    a->held_bytes += i->value_size;
    a->items[a->n_items++] = i;
    return KV_REPLY_BULK;
}

/* In any case of ASCII. strcasecmp would ask the process's locale, and replicas of one shard may run in different ones: in a
 * Turkish one INCR is not incr. */
static bool is_word(struct kv_slice s, const char *word)
{
    const uint8_t *text = s.data;

    if (s.size != strlen(word))
        return false;
    for (size_t i = 0; i < s.size; i++)
        if ((text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]) != (uint8_t)word[i])
            return false;
    return true;
}

/* As Redis reads integers: no spaces, no plus, no leading zeros, all of the text. */
static bool parse_integer(struct kv_slice s, int64_t *ret)
{
    char text[24], again[24];

    if (s.size == 0 || s.size >= sizeof text)
        return false;
    memcpy(text, s.data, s.size);
    text[s.size] = 0;
    errno = 0;
    *ret = strtoll(text, NULL, 10);
    snprintf(again, sizeof again, "%" PRId64, *ret);
    return errno == 0 && strlen(again) == s.size && memcmp(text, again, s.size) == 0;
}

/* ---- commands that change something: args[0] is the name ---- */

#define ERROR_INTEGER  "ERR value is not an integer or out of range"
#define ERROR_OVERFLOW "ERR increment or decrement would overflow"
#define ERROR_SYNTAX   "ERR syntax error"
#define ERROR_TOO_BIG  "ERR string exceeds maximum allowed size (33554432 bytes)"

static bool is_too_big(struct kv_slice value)
{
    return value.size > KV_VALUE_BYTES_MAX;
}

static enum kv_reply apply_set(struct job *j, const struct kv_slice *args, uint32_t n)
{
    bool nx = false, xx = false, get = false, set;
    enum kv_reply reply = KV_REPLY_OK;

    for (uint32_t i = 3; i < n; i++) {
        nx |= is_word(args[i], "nx");
        xx |= is_word(args[i], "xx");
        get |= is_word(args[i], "get");
        if (!is_word(args[i], "nx") && !is_word(args[i], "xx") && !is_word(args[i], "get"))
            return answer_error(j, ERROR_SYNTAX);
    }
    if (nx && xx)
        return answer_error(j, ERROR_SYNTAX);
    if (is_too_big(args[2]))
        return answer_error(j, ERROR_TOO_BIG);
    set = !(nx && has(j, args[1])) && !(xx && !has(j, args[1]));
    if (get)
        reply = answer_item(j, find(j, args[1]));
    else if (!set)
        reply = KV_REPLY_NIL;
    if (set)
        put(j, args[1], args[2]);
    return reply;
}

static enum kv_reply apply_setnx(struct job *j, const struct kv_slice *args, uint32_t n)
{
    (void)n;
    if (is_too_big(args[2]))
        return answer_error(j, ERROR_TOO_BIG);
    if (has(j, args[1]))
        return answer_integer(j, 0);
    put(j, args[1], args[2]);
    return answer_integer(j, 1);
}

static enum kv_reply apply_getset(struct job *j, const struct kv_slice *args, uint32_t n)
{
    enum kv_reply reply;

    (void)n;
    if (is_too_big(args[2]))
        return answer_error(j, ERROR_TOO_BIG);
    reply = answer_item(j, find(j, args[1]));
    put(j, args[1], args[2]);
    return reply;
}

static enum kv_reply apply_del(struct job *j, const struct kv_slice *args, uint32_t n)
{
    int64_t dropped = 0;

    for (uint32_t i = 1; i < n; i++)
        dropped += j->store->drop(j->m, args[i]);
    return answer_integer(j, dropped);
}

static enum kv_reply apply_mset(struct job *j, const struct kv_slice *args, uint32_t n)
{
    if (n % 2 == 0)
        return answer_error(j, "ERR wrong number of arguments for 'mset' command");
    for (uint32_t i = 2; i < n; i += 2)
        if (is_too_big(args[i]))
            return answer_error(j, ERROR_TOO_BIG);
    for (uint32_t i = 1; i < n; i += 2)
        put(j, args[i], args[i + 1]);
    return KV_REPLY_OK;
}

static enum kv_reply add_to(struct job *j, struct kv_slice key, int64_t by)
{
    const struct kv_item *old = find(j, key);
    int64_t value = 0;
    char text[24];
    int size;

    if (old && !parse_integer(kv_value_of(old), &value))
        return answer_error(j, ERROR_INTEGER);
    if (__builtin_add_overflow(value, by, &value))
        return answer_error(j, ERROR_OVERFLOW);
    size = snprintf(text, sizeof text, "%" PRId64, value);
    put(j, key, (struct kv_slice){(const uint8_t *)text, (uint32_t)size});
    return answer_integer(j, value);
}

static enum kv_reply apply_incr(struct job *j, const struct kv_slice *args, uint32_t n)
{
    (void)n;
    return add_to(j, args[1], 1);
}

static enum kv_reply apply_decr(struct job *j, const struct kv_slice *args, uint32_t n)
{
    (void)n;
    return add_to(j, args[1], -1);
}

static enum kv_reply apply_incrby(struct job *j, const struct kv_slice *args, uint32_t n)
{
    int64_t by;

    (void)n;
    return parse_integer(args[2], &by) ? add_to(j, args[1], by) : answer_error(j, ERROR_INTEGER);
}

static enum kv_reply apply_decrby(struct job *j, const struct kv_slice *args, uint32_t n)
{
    int64_t by;

    (void)n;
    if (!parse_integer(args[2], &by))
        return answer_error(j, ERROR_INTEGER);
    return by == INT64_MIN ? answer_error(j, "ERR decrement would overflow") : add_to(j, args[1], -by);
}

static enum kv_reply apply_append(struct job *j, const struct kv_slice *args, uint32_t n)
{
    const struct kv_item *old = find(j, args[1]);
    struct kv_slice head = old ? kv_value_of(old) : (struct kv_slice){(const uint8_t *)"", 0};

    (void)n;
    if (is_too_big(args[2]) || head.size > KV_VALUE_BYTES_MAX - args[2].size)
        return answer_error(j, ERROR_TOO_BIG);
    j->store->put(j->m, args[1], head, args[2]);
    return answer_integer(j, (int64_t)head.size + args[2].size);
}

struct command {
    const char *name;
    uint32_t args_min, args_max; /* with the name */
    enum kv_reply (*apply)(struct job *j, const struct kv_slice *args, uint32_t n);
};

static const struct command commands[] = {
    {"set", 3, 6, apply_set},           {"setnx", 3, 3, apply_setnx},         {"getset", 3, 3, apply_getset},
    {"del", 2, KV_ARGS_MAX, apply_del}, {"mset", 3, KV_ARGS_MAX, apply_mset}, {"incr", 2, 2, apply_incr},
    {"decr", 2, 2, apply_decr},         {"incrby", 3, 3, apply_incrby},       {"decrby", 3, 3, apply_decrby},
    {"append", 3, 3, apply_append},
};

/* Arguments of a command; *ret is to be freed. NULL: malformed. */
static struct kv_slice *parse_command(const void *data, size_t size, uint32_t *ret_n)
{
    struct kv_slice rest, *args;

    if (!kv_command_begin(data, size, ret_n, &rest) || rest.size / 4 < *ret_n)
        return NULL;
    args = kv_must(malloc(*ret_n * sizeof *args));
    for (uint32_t i = 0; i < *ret_n; i++) {
        if (!kv_next(&rest, &args[i])) {
            free(args);
            return NULL;
        }
    }
    if (rest.size > 0) {
        free(args);
        return NULL;
    }
    return args;
}

static enum kv_reply apply_args(struct job *j, const struct kv_slice *args, uint32_t n)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *c = &commands[i];

        if (!is_word(args[0], c->name))
            continue;
        return n >= c->args_min && n <= c->args_max ? c->apply(j, args, n) : answer_error(j, "ERR wrong number of arguments");
    }
    return answer_error(j, "ERR not a command that the kv machine applies");
}

static enum kv_reply apply(struct job *j, const void *cmd, size_t size)
{
    uint32_t n = 0;
    struct kv_slice *args = parse_command(cmd, size, &n);
    enum kv_reply reply = args ? apply_args(j, args, n) : answer_error(j, "ERR not a command of the kv machine");

    free(args);
    return reply;
}

static void apply_one(struct job *j, struct nh_entry *e)
{
    struct kv_answers *a = j->answers;
    size_t at = a->size;

    a->item = NULL;
    e->result.value = (uint64_t)apply(j, e->cmd, e->size_bytes);
    e->result.data = a->item ? kv_value_of(a->item).data : NULL;
    e->result.size_bytes = a->item ? a->item->value_size : a->size - at;
    if (j->store->applied)
        j->store->applied(j->m, e->index);
}

size_t kv_update(struct kv_answers *a, const struct kv_store *store, struct nh_machine *m, struct nh_entry *entries, size_t n)
{
    struct job j = {a, store, m};
    size_t done = 0;

    forget(a);
    while (done < n && a->held_bytes <= KV_HELD_BYTES_MAX)
        apply_one(&j, &entries[done++]);
    for (size_t i = 0, at = 0; i < done; i++) { /* the buffer does not move any more */
        if (entries[i].result.data)
            continue;
        entries[i].result.data = a->bytes ? a->bytes + at : NULL;
        at += entries[i].result.size_bytes;
    }
    return done;
}

/* ---- queries ---- */

static int write_text(struct nh_writer *out, uint64_t *ret_value, enum kv_reply kind, const void *data, size_t size)
{
    *ret_value = (uint64_t)kind;
    return size ? out->write(out->ctx, data, size) : 0;
}

static int write_integer(struct nh_writer *out, uint64_t *ret_value, uint64_t n)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(n >> (8 * i));
    return write_text(out, ret_value, KV_REPLY_INTEGER, bytes, sizeof bytes);
}

static int write_error(struct nh_writer *out, uint64_t *ret_value, const char *text)
{
    return write_text(out, ret_value, KV_REPLY_ERROR, text, strlen(text));
}

static int write_values(const struct kv_view *view, const struct kv_slice *keys, uint32_t n, struct nh_writer *out,
                        uint64_t *ret_value)
{
    uint8_t number[4];
    int r;

    kv_store_u32(number, n);
    r = write_text(out, ret_value, KV_REPLY_ARRAY, number, sizeof number);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        struct kv_slice value = {NULL, 0};
        int found = view->find(view->ctx, keys[i], &value);

        if (found < 0)
            return found;
        kv_store_u32(number, found ? value.size : KV_NIL_SIZE);
        r = out->write(out->ctx, number, sizeof number);
        if (r == 0 && value.size)
            r = out->write(out->ctx, value.data, value.size);
    }
    return r;
}

static int write_existing(const struct kv_view *view, const struct kv_slice *keys, uint32_t n, struct nh_writer *out,
                          uint64_t *ret_value)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < n; i++) {
        int found = view->find(view->ctx, keys[i], NULL);

        if (found < 0)
            return found;
        count += (uint64_t)found;
    }
    return write_integer(out, ret_value, count);
}

static int answer_about(const struct kv_view *view, const struct kv_slice *args, struct nh_writer *out, uint64_t *ret_value)
{
    struct kv_slice value = {NULL, 0};
    int found = view->find(view->ctx, args[1], &value);

    if (found < 0)
        return found;
    if (is_word(args[0], "strlen"))
        return write_integer(out, ret_value, value.size);
    return write_text(out, ret_value, found ? KV_REPLY_BULK : KV_REPLY_NIL, value.data, value.size);
}

static int answer_query(const struct kv_view *view, const struct kv_slice *args, uint32_t n, struct nh_writer *out,
                        uint64_t *ret_value)
{
    if ((is_word(args[0], "get") || is_word(args[0], "strlen")) && n == 2)
        return answer_about(view, args, out, ret_value);
    if (is_word(args[0], "mget") && n >= 2)
        return write_values(view, args + 1, n - 1, out, ret_value);
    if (is_word(args[0], "exists") && n >= 2)
        return write_existing(view, args + 1, n - 1, out, ret_value);
    if (is_word(args[0], "dbsize") && n == 1)
        return write_integer(out, ret_value, view->count(view->ctx));
    return write_error(out, ret_value, "ERR not a query that the kv machine answers");
}

int kv_lookup(const struct kv_view *view, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
              struct nh_error *err)
{
    uint32_t n = 0;
    struct kv_slice *args = parse_command(query, size_bytes, &n);
    int r = args ? answer_query(view, args, n, out, ret_value) : write_error(out, ret_value, "ERR not a query of the kv machine");

    free(args);
    if (r == NH_ETOOBIG)
        return kv_error(err, r, "the answer of this shard has more than %u bytes, which is the limit: ask for fewer keys at once",
                        NH_ENTRY_PAYLOAD_MAX);
    return r < 0 ? kv_error(err, r, "the answer could not be read") : r;
}

int kv_error(struct nh_error *err, int code, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return code;
    va_start(args, fmt);
    err->code = code;
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    return code;
}
