/* The kv machine, loaded as the daemon loads it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/machines/kv_command.h"
#include "nodehost/nodehost.h"

static const struct nh_machine_ops *ops;
static struct nh_machine *m;
static struct nh_entry entry;
static struct nh_error err;
static char answer[4096];
static size_t answer_size;

static void setup(void)
{
    uint64_t applied;
    struct nh_machine_args args = {.struct_size = sizeof args, .shard_id = 1, .replica_id = 1, .services = nh_plugin_services()};

    cr_assert_eq(nh_machine_load(KV_SO, &ops, &err), 0, "%s", err.text);
    cr_assert_eq(ops->open(&args, &m, &applied, &err), 0);
    entry.index = 0;
}

static void teardown(void)
{
    ops->close(m);
}

TestSuite(kv, .init = setup, .fini = teardown);

static size_t encode(uint8_t *out, size_t cap, const char *text)
{
    struct kv_slice args[16];
    char copy[512], *save = NULL;
    uint32_t n = 0;
    size_t size;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        args[n++] = (struct kv_slice){(const uint8_t *)word, (uint32_t)strlen(word)};
    size = kv_command_bytes(args, n);
    cr_assert_leq(size, cap);
    kv_command_encode(args, n, out);
    return size;
}

static uint64_t apply_bytes(const void *cmd, size_t size)
{
    entry = (struct nh_entry){.index = entry.index + 1, .cmd = cmd, .size_bytes = size};
    cr_assert_eq(ops->update(m, &entry, 1, &err), 0, "no command may put a replica in quarantine");
    answer_size = entry.result.size_bytes < sizeof answer - 1 ? entry.result.size_bytes : sizeof answer - 1;
    if (answer_size)
        memcpy(answer, entry.result.data, answer_size);
    answer[answer_size] = 0;
    return entry.result.value;
}

static uint64_t apply(const char *text)
{
    uint8_t cmd[1024];

    return apply_bytes(cmd, encode(cmd, sizeof cmd, text));
}

#define SLICE(text) ((struct kv_slice){(const uint8_t *)(text), sizeof(text) - 1})

static uint64_t apply_args(const struct kv_slice *args, uint32_t n)
{
    uint8_t cmd[1024];

    cr_assert_leq(kv_command_bytes(args, n), sizeof cmd);
    kv_command_encode(args, n, cmd);
    return apply_bytes(cmd, kv_command_bytes(args, n));
}

static int collect(void *ctx, const void *data, size_t size_bytes)
{
    (void)ctx;
    cr_assert_leq(answer_size + size_bytes, sizeof answer - 1);
    memcpy(answer + answer_size, data, size_bytes);
    answer_size += size_bytes;
    answer[answer_size] = 0;
    return 0;
}

static uint64_t query(const char *text)
{
    struct nh_writer out = {collect, NULL};
    uint8_t cmd[1024];
    uint64_t kind = 99;

    answer_size = 0;
    answer[0] = 0;
    cr_assert_eq(ops->lookup(m, cmd, encode(cmd, sizeof cmd, text), &out, &kind, &err), 0);
    return kind;
}

static int64_t integer(void)
{
    int64_t n;

    cr_assert_eq(answer_size, 8);
    memcpy(&n, answer, 8);
    return n;
}

#define EXPECT_INTEGER(call, n)               \
    do {                                      \
        cr_assert_eq(call, KV_REPLY_INTEGER); \
        cr_assert_eq(integer(), n);           \
    } while (0)
#define EXPECT_BULK(call, text)            \
    do {                                   \
        cr_assert_eq(call, KV_REPLY_BULK); \
        cr_assert_str_eq(answer, text);    \
    } while (0)
#define EXPECT_ERROR(call, text)                       \
    do {                                               \
        cr_assert_eq(call, KV_REPLY_ERROR);            \
        cr_assert(strstr(answer, text), "%s", answer); \
    } while (0)

/* Of ASCII alone, whatever the locale: no dotless i, and no letter that differs from another by one bit. */
Test(kv, names_of_commands_in_any_case)
{
    EXPECT_INTEGER(apply("InCr n"), 1);
    EXPECT_INTEGER(apply("incr n"), 2);
    EXPECT_ERROR(apply("\xc4\xb1ncr n"), "not a command");
    EXPECT_ERROR(apply("\x09NCR n"), "not a command");
    EXPECT_ERROR(apply("INC\x12 n"), "not a command");
    EXPECT_INTEGER(apply("INCR n"), 3);
}

Test(kv, set_and_its_options)
{
    cr_assert_eq(apply("SET a 1"), KV_REPLY_OK);
    EXPECT_BULK(query("GET a"), "1");
    cr_assert_eq(apply("set a 2 nx"), KV_REPLY_NIL);
    cr_assert_eq(apply("SET b 2 XX"), KV_REPLY_NIL);
    cr_assert_eq(query("GET b"), KV_REPLY_NIL);
    EXPECT_BULK(apply("SET a 3 GET"), "1");
    EXPECT_BULK(apply("SET a 4 XX GET"), "3");
    EXPECT_BULK(apply("SET a 5 NX GET"), "4");
    cr_assert_eq(apply("SET c 1 NX GET"), KV_REPLY_NIL);
    EXPECT_BULK(query("GET c"), "1");
    EXPECT_ERROR(apply("SET a 1 NX XX"), "syntax error");
    EXPECT_ERROR(apply("SET a 1 EX 10"), "syntax error");
    EXPECT_BULK(query("GET a"), "4");
}

Test(kv, other_writes)
{
    EXPECT_INTEGER(apply("SETNX a 1"), 1);
    EXPECT_INTEGER(apply("SETNX a 2"), 0);
    EXPECT_BULK(apply("GETSET a 7"), "1");
    cr_assert_eq(apply("GETSET new 1"), KV_REPLY_NIL);
    EXPECT_INTEGER(apply("APPEND a 89"), 3);
    EXPECT_INTEGER(apply("APPEND fresh x"), 1);
    EXPECT_INTEGER(query("STRLEN a"), 3);
    EXPECT_INTEGER(query("STRLEN none"), 0);
    cr_assert_eq(apply("MSET x 1 y 2 x 3"), KV_REPLY_OK);
    EXPECT_BULK(query("GET x"), "3");
    EXPECT_INTEGER(query("EXISTS x y none x"), 3);
    EXPECT_INTEGER(apply("DEL x y none"), 2);
    EXPECT_INTEGER(query("DBSIZE"), 3);
    EXPECT_ERROR(apply("MSET x 1 y"), "wrong number");
}

Test(kv, counting)
{
    EXPECT_INTEGER(apply("INCR n"), 1);
    EXPECT_INTEGER(apply("INCRBY n 10"), 11);
    EXPECT_INTEGER(apply("DECR n"), 10);
    EXPECT_INTEGER(apply("DECRBY n 30"), -20);
    cr_assert_eq(apply("SET n 9223372036854775807"), KV_REPLY_OK);
    EXPECT_ERROR(apply("INCR n"), "overflow");
    EXPECT_ERROR(apply("DECRBY n -1"), "overflow");
    EXPECT_ERROR(apply("DECRBY n -9223372036854775808"), "overflow");
    EXPECT_BULK(query("GET n"), "9223372036854775807");
    EXPECT_ERROR(apply("INCRBY n x"), "not an integer");
    EXPECT_ERROR(apply("INCRBY n 01"), "not an integer");
    cr_assert_eq(apply("SET s abc"), KV_REPLY_OK);
    EXPECT_ERROR(apply("INCR s"), "not an integer");
}

Test(kv, mget_tells_missing_from_empty)
{
    struct kv_slice rest, value;

    cr_assert_eq(apply("SET a x"), KV_REPLY_OK);
    cr_assert_eq(query("MGET a none"), KV_REPLY_ARRAY);
    cr_assert_eq(kv_load_u32((uint8_t *)answer), 2);
    rest = (struct kv_slice){(uint8_t *)answer + 4, (uint32_t)answer_size - 4};
    cr_assert(kv_next(&rest, &value) && value.size == 1 && value.data[0] == 'x');
    cr_assert_eq(kv_load_u32(rest.data), KV_NIL_SIZE);
}

Test(kv, bytes_that_are_no_command_are_answered_and_change_nothing)
{
    uint8_t cmd[64] = {0};
    uint64_t before = ops->hash(m);
    size_t size = encode(cmd, sizeof cmd, "SET a 1");

    for (size_t cut = 0; cut < size; cut++)
        cr_assert_eq(apply_bytes(cmd, cut), KV_REPLY_ERROR, "cut at %zu", cut);
    cmd[0] = 2; /* a later version */
    cr_assert_eq(apply_bytes(cmd, size), KV_REPLY_ERROR);
    cmd[0] = KV_VERSION;
    kv_store_u32(cmd + 4, KV_ARGS_MAX + 1);
    cr_assert_eq(apply_bytes(cmd, size), KV_REPLY_ERROR);
    kv_store_u32(cmd + 4, 2); /* bytes are left over */
    cr_assert_eq(apply_bytes(cmd, size), KV_REPLY_ERROR);
    EXPECT_ERROR(apply("FLUSHALL"), "not a command that the kv machine applies");
    EXPECT_ERROR(apply("GET a"), "not a command");
    EXPECT_ERROR(apply("SET a"), "wrong number");
    EXPECT_ERROR(query("SET a 1"), "not a query");
    cr_assert_eq(ops->hash(m), before);
}

Test(kv, a_value_may_be_as_large_as_allowed_and_not_larger)
{
    uint8_t *value = calloc(1, KV_VALUE_BYTES_MAX + 1);
    struct kv_slice args[] = {{(const uint8_t *)"SET", 3}, {(const uint8_t *)"a", 1}, {value, KV_VALUE_BYTES_MAX}};
    uint8_t *cmd = malloc(kv_command_bytes(args, 3) + 1);

    kv_command_encode(args, 3, cmd);
    cr_assert_eq(apply_bytes(cmd, kv_command_bytes(args, 3)), KV_REPLY_OK);
    EXPECT_ERROR(apply("APPEND a x"), "maximum allowed size");
    args[2].size++;
    kv_command_encode(args, 3, cmd);
    EXPECT_ERROR(apply_bytes(cmd, kv_command_bytes(args, 3)), "maximum allowed size");
    EXPECT_INTEGER(query("STRLEN a"), KV_VALUE_BYTES_MAX);
    free(cmd);
    free(value);
}

/* Two instances that did the same in another order of keys have the same hash, and a table that has grown finds everything. */
Test(kv, hashes_depend_on_the_content_alone)
{
    struct nh_machine *other, *first = m;
    struct nh_machine_args args = {.struct_size = sizeof args};
    uint64_t applied;
    char text[64];

    cr_assert_eq(ops->open(&args, &other, &applied, &err), 0);
    for (int i = 0; i < 3000; i++) {
        snprintf(text, sizeof text, "SET key:%d %d", i, i);
        cr_assert_eq(apply(text), KV_REPLY_OK);
    }
    m = other;
    for (int i = 2999; i >= 0; i--) {
        snprintf(text, sizeof text, "SET key:%d %d", i, i);
        cr_assert_eq(apply(text), KV_REPLY_OK);
    }
    cr_assert_eq(ops->hash(first), ops->hash(other));
    EXPECT_BULK(query("GET key:1234"), "1234");
    cr_assert_eq(apply("SET key:7 8"), KV_REPLY_OK);
    cr_assert_neq(ops->hash(first), ops->hash(other));
    ops->close(other);
    m = first;
}

Test(kv, results_of_one_batch_stay_valid_together)
{
    uint8_t cmds[100][64];
    struct nh_entry entries[100] = {0};

    for (int i = 0; i < 100; i++) {
        char text[32];

        snprintf(text, sizeof text, "APPEND k %d", i % 10);
        entries[i] = (struct nh_entry){.index = (uint64_t)i + 1, .cmd = cmds[i], .size_bytes = encode(cmds[i], 64, text)};
    }
    cr_assert_eq(ops->update(m, entries, 100, &err), 0);
    for (int i = 0; i < 100; i++) {
        int64_t n;

        memcpy(&n, entries[i].result.data, 8);
        cr_assert_eq(n, i + 1);
    }
}

/* Found by reading: 1,024 of these in one batch, of a value of 32 MiB, copied 32 GiB on every replica and at every replay. */
Test(kv, answers_with_a_value_do_not_copy_it)
{
    enum { N = 1024 };
    static struct nh_entry entries[N];
    uint8_t ask[64], getset[64], del[64];
    size_t ask_size = encode(ask, sizeof ask, "SET k x NX GET");

    apply("SET k 0123456789abcdef");
    for (int i = 0; i < N; i++)
        entries[i] = (struct nh_entry){.index = ++entry.index, .cmd = ask, .size_bytes = ask_size};
    /* Then it leaves the table twice over; the earlier answers stay what they were. */
    entries[N - 3].cmd = getset;
    entries[N - 3].size_bytes = encode(getset, sizeof getset, "GETSET k second");
    entries[N - 2].cmd = del;
    entries[N - 2].size_bytes = encode(del, sizeof del, "DEL k");
    cr_assert_eq(ops->update(m, entries, N, &err), 0);
    for (int i = 0; i < N - 2; i++) {
        cr_assert_eq(entries[i].result.value, KV_REPLY_BULK);
        cr_assert_eq(entries[i].result.data, entries[0].result.data, "answer %d is a copy", i);
    }
    cr_assert_eq(entries[0].result.size_bytes, 16);
    cr_assert_eq(memcmp(entries[0].result.data, "0123456789abcdef", 16), 0);
    cr_assert_eq(*(const uint8_t *)entries[N - 2].result.data, 1, "DEL dropped one");
    cr_assert_eq(entries[N - 1].result.value, KV_REPLY_NIL);
    cr_assert_eq(apply("GETSET k third"), KV_REPLY_BULK, "what was set last");
    cr_assert_str_eq(answer, "x");
}

/* Found by comparing with Redis: the text up to a zero byte was taken for the number. */
Test(kv, a_number_with_a_zero_byte_behind_it_is_none)
{
    static const char nul[] = "5\0"
                              "7";
    struct kv_slice set[] = {SLICE("SET"), SLICE("k"), {(const uint8_t *)nul, 3}};
    struct kv_slice add[] = {SLICE("INCRBY"), SLICE("n"), {(const uint8_t *)nul, 2}};

    cr_assert_eq(apply_args(set, 3), KV_REPLY_OK);
    EXPECT_ERROR(apply("INCR k"), "not an integer");
    EXPECT_ERROR(apply_args(add, 3), "not an integer");
    EXPECT_INTEGER(apply("INCR n"), 1);
}
