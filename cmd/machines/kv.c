/* cmd/machines/kv.c - a map from strings to strings with the semantics of Redis: the machine behind SET and GET.
 *
 * It applies: SET [NX|XX] [GET], SETNX, GETSET, DEL, INCR, DECR, INCRBY, DECRBY, APPEND, MSET. It answers: GET, MGET, EXISTS,
 * STRLEN, DBSIZE. Bytes that are no such command are answered with an error, and so is a wrong use; neither changes
 * anything, so all replicas stay equal whatever was proposed.
 *
 * A hash table with chains, doubled when full. Where an entry lies in it depends on a seed of this instance, drawn at random
 * so that nobody can choose keys that collide; no answer depends on it.
 */
#include "cmd/machines/kv_command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "nodehost/statemachine.h"

#define TABLE_MIN 64u

struct item {
    struct item *next;
    uint64_t hash;
    uint32_t key_size;
    uint32_t value_size : 30;
    uint32_t answered : 1; /* its value is the answer to an entry of the present batch */
    uint32_t dropped : 1;  /* and it left the table since */
    uint8_t data[];        /* key, then value */
};
_Static_assert(KV_VALUE_BYTES_MAX < 1u << 30, "value_size holds it");

struct nh_machine {
    struct item **table;
    size_t cap, n; /* cap is a power of two */
    uint64_t seed;

    /* Results of one update call, which stay valid until the next: numbers and texts one after another, and items. A value is
     * never copied for an answer: a batch may ask for many that are large. */
    uint8_t *answers;
    size_t answers_size, answers_cap;
    struct item **items;
    size_t n_items, cap_items;
    const struct item *answer; /* of the entry that is being applied; NULL: what it added to `answers` */
};

/* ---- memory: a machine that cannot allocate cannot go on alike with its peers ---- */

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static void put_bytes(struct nh_machine *m, const void *data, size_t size)
{
    if (m->answers_cap - m->answers_size < size) {
        m->answers_cap = (m->answers_cap + size) * 2;
        m->answers = must(realloc(m->answers, m->answers_cap));
    }
    if (size)
        memcpy(m->answers + m->answers_size, data, size);
    m->answers_size += size;
}

/* ---- the table ---- */

static uint64_t hash_of(const struct nh_machine *m, struct kv_slice key)
{
    return XXH3_64bits_withSeed(key.data, key.size, m->seed);
}

static struct item **find(struct nh_machine *m, struct kv_slice key)
{
    uint64_t hash = hash_of(m, key);
    struct item **at = &m->table[hash & (m->cap - 1)];

    while (*at && !((*at)->hash == hash && (*at)->key_size == key.size && memcmp((*at)->data, key.data, key.size) == 0))
        at = &(*at)->next;
    return at;
}

static struct kv_slice value_of(const struct item *i)
{
    return (struct kv_slice){i->data + i->key_size, i->value_size};
}

static void grow(struct nh_machine *m)
{
    size_t cap = m->cap * 2;
    struct item **table = must(calloc(cap, sizeof(struct item *)));

    for (size_t s = 0; s < m->cap; s++) {
        struct item *i = m->table[s], *next;

        for (; i; i = next) {
            next = i->next;
            i->next = table[i->hash & (cap - 1)];
            table[i->hash & (cap - 1)] = i;
        }
    }
    free(m->table);
    m->table = table;
    m->cap = cap;
}

static struct item *make_item(struct kv_slice key, uint64_t hash, struct kv_slice head, struct kv_slice tail)
{
    struct item *i = must(malloc(sizeof *i + key.size + head.size + (size_t)tail.size));

    *i = (struct item){.hash = hash, .key_size = key.size, .value_size = (head.size + tail.size) & (UINT32_MAX >> 2)};
    memcpy(i->data, key.data, key.size);
    if (head.size)
        memcpy(i->data + key.size, head.data, head.size);
    if (tail.size)
        memcpy(i->data + key.size + head.size, tail.data, tail.size);
    return i;
}

/* An item leaves the table, its value may be an answer still. */
static void retire(struct item *i)
{
    if (i && i->answered)
        i->dropped = true;
    else
        free(i);
}

static void forget_answers(struct nh_machine *m)
{
    for (size_t i = 0; i < m->n_items; i++) {
        m->items[i]->answered = false;
        if (m->items[i]->dropped)
            free(m->items[i]);
    }
    m->n_items = m->answers_size = 0;
}

/* Sets the value to head and tail. The head may be the present value. */
static void store(struct nh_machine *m, struct kv_slice key, struct kv_slice head, struct kv_slice tail)
{
    struct item **at = find(m, key), *old = *at, *i = make_item(key, hash_of(m, key), head, tail);

    i->next = old ? old->next : NULL;
    *at = i;
    retire(old);
    if (!old && ++m->n > m->cap)
        grow(m);
}

static bool drop(struct nh_machine *m, struct kv_slice key)
{
    struct item **at = find(m, key), *old = *at;

    if (!old)
        return false;
    *at = old->next;
    retire(old);
    m->n--;
    return true;
}

/* ---- answers ---- */

static enum kv_reply answer_error(struct nh_machine *m, const char *text)
{
    put_bytes(m, text, strlen(text));
    return KV_REPLY_ERROR;
}

static enum kv_reply answer_integer(struct nh_machine *m, int64_t n)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)n >> (8 * i));
    put_bytes(m, bytes, sizeof bytes);
    return KV_REPLY_INTEGER;
}

static enum kv_reply answer_item(struct nh_machine *m, struct item *i)
{
    if (!i)
        return KV_REPLY_NIL;
    m->answer = i;
    if (i->answered)
        return KV_REPLY_BULK;
    if (m->n_items == m->cap_items) {
        m->cap_items = m->cap_items ? m->cap_items * 2 : 16;
        m->items = must(realloc(m->items, m->cap_items * sizeof(struct item *)));
    }
    i->answered = true;
    m->items[m->n_items++] = i;
    return KV_REPLY_BULK;
}

static bool is_word(struct kv_slice s, const char *word)
{
    return s.size == strlen(word) && strncasecmp((const char *)s.data, word, s.size) == 0;
}

/* As Redis reads integers: no spaces, no plus, no leading zeros, all of the text. */
static bool parse_integer(struct kv_slice s, int64_t *ret)
{
    char text[24], again[24];
    char *end;

    if (s.size == 0 || s.size >= sizeof text)
        return false;
    memcpy(text, s.data, s.size);
    text[s.size] = 0;
    errno = 0;
    *ret = strtoll(text, &end, 10);
    snprintf(again, sizeof again, "%" PRId64, *ret);
    return errno == 0 && *end == 0 && strcmp(text, again) == 0;
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

static const struct kv_slice nothing = {(const uint8_t *)"", 0};

static enum kv_reply apply_set(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    bool nx = false, xx = false, get = false, set;
    enum kv_reply reply = KV_REPLY_OK;
    struct item *old;

    for (uint32_t i = 3; i < n; i++) {
        nx |= is_word(args[i], "nx");
        xx |= is_word(args[i], "xx");
        get |= is_word(args[i], "get");
        if (!is_word(args[i], "nx") && !is_word(args[i], "xx") && !is_word(args[i], "get"))
            return answer_error(m, ERROR_SYNTAX);
    }
    if (nx && xx)
        return answer_error(m, ERROR_SYNTAX);
    if (is_too_big(args[2]))
        return answer_error(m, ERROR_TOO_BIG);
    old = *find(m, args[1]);
    set = old ? !nx : !xx;
    if (get)
        reply = answer_item(m, old);
    else if (!set)
        reply = KV_REPLY_NIL;
    if (set)
        store(m, args[1], args[2], nothing);
    return reply;
}

static enum kv_reply apply_setnx(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    (void)n;
    if (is_too_big(args[2]))
        return answer_error(m, ERROR_TOO_BIG);
    if (*find(m, args[1]))
        return answer_integer(m, 0);
    store(m, args[1], args[2], nothing);
    return answer_integer(m, 1);
}

static enum kv_reply apply_getset(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    enum kv_reply reply;

    (void)n;
    if (is_too_big(args[2]))
        return answer_error(m, ERROR_TOO_BIG);
    reply = answer_item(m, *find(m, args[1]));
    store(m, args[1], args[2], nothing);
    return reply;
}

static enum kv_reply apply_del(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    int64_t dropped = 0;

    for (uint32_t i = 1; i < n; i++)
        dropped += drop(m, args[i]);
    return answer_integer(m, dropped);
}

static enum kv_reply apply_mset(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    if (n % 2 == 0)
        return answer_error(m, "ERR wrong number of arguments for 'mset' command");
    for (uint32_t i = 2; i < n; i += 2)
        if (is_too_big(args[i]))
            return answer_error(m, ERROR_TOO_BIG);
    for (uint32_t i = 1; i < n; i += 2)
        store(m, args[i], args[i + 1], nothing);
    return KV_REPLY_OK;
}

static enum kv_reply add_to(struct nh_machine *m, struct kv_slice key, int64_t by)
{
    const struct item *old = *find(m, key);
    int64_t value = 0;
    char text[24];
    int size;

    if (old && !parse_integer(value_of(old), &value))
        return answer_error(m, ERROR_INTEGER);
    if (__builtin_add_overflow(value, by, &value))
        return answer_error(m, ERROR_OVERFLOW);
    size = snprintf(text, sizeof text, "%" PRId64, value);
    store(m, key, (struct kv_slice){(const uint8_t *)text, (uint32_t)size}, nothing);
    return answer_integer(m, value);
}

static enum kv_reply apply_incr(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    (void)n;
    return add_to(m, args[1], 1);
}

static enum kv_reply apply_decr(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    (void)n;
    return add_to(m, args[1], -1);
}

static enum kv_reply apply_incrby(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    int64_t by;

    (void)n;
    return parse_integer(args[2], &by) ? add_to(m, args[1], by) : answer_error(m, ERROR_INTEGER);
}

static enum kv_reply apply_decrby(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    int64_t by;

    (void)n;
    if (!parse_integer(args[2], &by))
        return answer_error(m, ERROR_INTEGER);
    return by == INT64_MIN ? answer_error(m, "ERR decrement would overflow") : add_to(m, args[1], -by);
}

static enum kv_reply apply_append(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    const struct item *old = *find(m, args[1]);
    struct kv_slice head = old ? value_of(old) : nothing;

    (void)n;
    if (is_too_big(args[2]) || head.size > KV_VALUE_BYTES_MAX - args[2].size)
        return answer_error(m, ERROR_TOO_BIG);
    store(m, args[1], head, args[2]);
    return answer_integer(m, (int64_t)head.size + args[2].size);
}

struct command {
    const char *name;
    uint32_t args_min, args_max; /* with the name */
    enum kv_reply (*apply)(struct nh_machine *m, const struct kv_slice *args, uint32_t n);
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
    args = must(malloc(*ret_n * sizeof *args));
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

static enum kv_reply apply_args(struct nh_machine *m, const struct kv_slice *args, uint32_t n)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *c = &commands[i];

        if (!is_word(args[0], c->name))
            continue;
        return n >= c->args_min && n <= c->args_max ? c->apply(m, args, n) : answer_error(m, "ERR wrong number of arguments");
    }
    return answer_error(m, "ERR not a command that the kv machine applies");
}

static enum kv_reply apply(struct nh_machine *m, const void *cmd, size_t size)
{
    uint32_t n = 0;
    struct kv_slice *args = parse_command(cmd, size, &n);
    enum kv_reply reply = args ? apply_args(m, args, n) : answer_error(m, "ERR not a command of the kv machine");

    free(args);
    return reply;
}

/* ---- the table of functions ---- */

static int kv_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    struct nh_machine *m = calloc(1, sizeof *m);

    (void)args;
    (void)err;
    must(m);
    m->cap = TABLE_MIN;
    m->table = must(calloc(m->cap, sizeof(struct item *)));
    if (getrandom(&m->seed, sizeof m->seed, 0) != sizeof m->seed)
        m->seed = (uint64_t)(uintptr_t)m;
    *ret = m;
    *ret_applied = 0;
    return 0;
}

static int kv_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)err;
    forget_answers(m);
    for (size_t i = 0; i < n; i++) {
        struct nh_result *result = &entries[i].result;
        size_t at = m->answers_size;

        m->answer = NULL;
        result->value = (uint64_t)apply(m, entries[i].cmd, entries[i].size_bytes);
        result->data = m->answer ? value_of(m->answer).data : NULL;
        result->size_bytes = m->answer ? m->answer->value_size : m->answers_size - at;
    }
    for (size_t i = 0, at = 0; i < n; i++) { /* the buffer does not move any more */
        if (entries[i].result.data)
            continue;
        entries[i].result.data = m->answers ? m->answers + at : NULL;
        at += entries[i].result.size_bytes;
    }
    return 0;
}

static void kv_close(struct nh_machine *m)
{
    forget_answers(m);
    for (size_t s = 0; s < m->cap; s++) {
        while (m->table[s]) {
            struct item *i = m->table[s];

            m->table[s] = i->next;
            free(i);
        }
    }
    free(m->table);
    free(m->answers);
    free(m->items);
    free(m);
}

/* Sums over entries: the order in the table does not matter. */
static uint64_t kv_hash(struct nh_machine *m)
{
    uint64_t sum = m->n;

    for (size_t s = 0; s < m->cap; s++) {
        for (const struct item *i = m->table[s]; i; i = i->next) {
            uint64_t key = XXH3_64bits(i->data, i->key_size);

            sum += XXH3_64bits_withSeed(value_of(i).data, i->value_size, key);
        }
    }
    return sum;
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

static int write_values(struct nh_machine *m, const struct kv_slice *keys, uint32_t n, struct nh_writer *out, uint64_t *ret_value)
{
    uint8_t number[4];
    int r;

    kv_store_u32(number, n);
    r = write_text(out, ret_value, KV_REPLY_ARRAY, number, sizeof number);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        const struct item *item = *find(m, keys[i]);

        kv_store_u32(number, item ? item->value_size : KV_NIL_SIZE);
        r = out->write(out->ctx, number, sizeof number);
        if (r == 0 && item && item->value_size)
            r = out->write(out->ctx, value_of(item).data, item->value_size);
    }
    return r;
}

static int answer_query(struct nh_machine *m, const struct kv_slice *args, uint32_t n, struct nh_writer *out, uint64_t *ret_value)
{
    const struct item *item = n > 1 ? *find(m, args[1]) : NULL;
    uint64_t count = 0;

    if (is_word(args[0], "get") && n == 2)
        return item ? write_text(out, ret_value, KV_REPLY_BULK, value_of(item).data, item->value_size)
                    : write_text(out, ret_value, KV_REPLY_NIL, NULL, 0);
    if (is_word(args[0], "mget") && n >= 2)
        return write_values(m, args + 1, n - 1, out, ret_value);
    if (is_word(args[0], "strlen") && n == 2)
        return write_integer(out, ret_value, item ? item->value_size : 0);
    if (is_word(args[0], "dbsize") && n == 1)
        return write_integer(out, ret_value, m->n);
    if (is_word(args[0], "exists") && n >= 2) {
        for (uint32_t i = 1; i < n; i++)
            count += *find(m, args[i]) != NULL;
        return write_integer(out, ret_value, count);
    }
    return write_error(out, ret_value, "ERR not a query that the kv machine answers");
}

static int kv_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                     struct nh_error *err)
{
    uint32_t n = 0;
    struct kv_slice *args = parse_command(query, size_bytes, &n);
    int r = args ? answer_query(m, args, n, out, ret_value) : write_error(out, ret_value, "ERR not a query of the kv machine");

    free(args);
    if (r < 0 && err) { /* a plugin need not link against the library, so not even for this */
        err->code = r;
        snprintf(err->text, sizeof err->text, "the answer is too large");
    }
    return r;
}

static const struct nh_machine_ops ops = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "kv",
    .version = "1",
    .kind = NH_MACHINE_REGULAR,
    .open = kv_open,
    .update = kv_update,
    .lookup = kv_lookup,
    .close = kv_close,
    .hash = kv_hash,
};

NH_API const struct nh_machine_ops *nh_machine_plugin(void);

const struct nh_machine_ops *nh_machine_plugin(void)
{
    return &ops;
}
