/* The list of kv shards that a data directory remembers: where keys live follows from it. */
#include "cmd/nodehostd/layout.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/nodehost-layout.XXXXXX";
static char path[64];
static struct nh_error err;

static void setup(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/LAYOUT", dir);
}

static void teardown(void)
{
    char tmp[80];

    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    unlink(tmp);
    unlink(path);
    rmdir(dir);
}

TestSuite(layout, .init = setup, .fini = teardown);

/* A host with these sections; "20+5 kv" is 20, 21, 22, 23, 24. */
static struct config *config_of(const char *sections)
{
    char text[2048], machine[32];
    struct config *c = NULL;
    unsigned first, count;
    int n = snprintf(text, sizeof text,
                     "host: { id: 1, data_dir: \"%s\" }\nraft: { listen: \"127.0.0.1:7101\" }\nredis: { listen: "
                     "\"127.0.0.1:6379\" }\npeers: [{ id: 1, raft: \"127.0.0.1:7101\", redis: \"127.0.0.1:6379\" }]\nshards:\n",
                     dir),
        used;

    for (; sscanf(sections, " %u+%u %31[a-z-]%n", &first, &count, machine, &used) == 3; sections += used)
        n += snprintf(text + n, sizeof text - (size_t)n, "  - { first: %u, count: %u, machine: %s, replicas: [1] }\n", first,
                      count, machine);
    cr_assert_eq(config_parse("h1.yaml", text, (size_t)n, &c, &err), NH_OK, "%s", err.text);
    return c;
}

static int check(const char *sections)
{
    struct config *c = config_of(sections);
    int r = layout_check(c, &err);

    config_free(c);
    return r;
}

static void expect_list(const char *sections, const char *list)
{
    struct config *c = config_of(sections);
    char *got = layout_list(c);

    cr_assert_str_eq(got, list);
    free(got);
    config_free(c);
}

static void put(const char *text, size_t size)
{
    FILE *f = fopen(path, "w");

    cr_assert(f && fwrite(text, 1, size, f) == size && fclose(f) == 0);
}

static size_t get(char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(out, 1, cap - 1, f) : 0;

    if (f)
        fclose(f);
    out[n] = 0;
    return n;
}

Test(layout, the_same_shards_make_the_same_list)
{
    expect_list("1+1000 kv", "1-1000");
    expect_list("501+500 kv-disk  1+500 kv", "1-1000");
    expect_list("7+1 kv  20000+5 kv  9+1 kv", "7,9,20000-20004");
    expect_list("1+10 counter  30+1 kv", "30");
    expect_list("1+10 counter", "");
}

Test(layout, golden)
{
    static const char golden[] = "nodehostd-layout 1\nkv_shards 7,9,20000-20004\ncrc 9f992465\n";
    struct buffer text = {0};
    char *list = NULL;

    layout_encode("7,9,20000-20004", &text);
    cr_assert_eq(text.size, sizeof golden - 1);
    cr_assert_arr_eq(text.data, golden, text.size, "%.*s", (int)text.size, text.data);
    cr_assert_eq(layout_decode("LAYOUT", golden, sizeof golden - 1, &list, &err), NH_OK);
    cr_assert_str_eq(list, "7,9,20000-20004");
    free(list);
    buffer_deinit(&text);
}

Test(layout, any_damage_is_refused)
{
    struct buffer text = {0};
    char *list = NULL;

    layout_encode("1-1000", &text);
    for (size_t size = 0; size < text.size; size++)
        cr_assert_eq(layout_decode("LAYOUT", text.data, size, &list, &err), NH_ECORRUPT, "cut at %zu", size);
    for (size_t i = 0; i < text.size * 8; i++) {
        int r;

        text.data[i / 8] ^= (char)(1 << i % 8);
        r = layout_decode("LAYOUT", text.data, text.size, &list, &err);
        cr_assert(r == NH_ECORRUPT || r == NH_EMISMATCH, "bit %zu", i);
        text.data[i / 8] ^= (char)(1 << i % 8);
    }
    buffer_add(&text, "", 1);
    cr_assert_eq(layout_decode("LAYOUT", text.data, text.size, &list, &err), NH_ECORRUPT, "one byte more");
    cr_assert_null(list);
    buffer_deinit(&text);
}

Test(layout, another_format_is_named)
{
    static const char text[] = "nodehostd-layout 2\nslots 1 2 3\n";
    char *list = NULL;

    cr_assert_eq(layout_decode("LAYOUT", text, sizeof text - 1, &list, &err), NH_EMISMATCH);
    cr_assert_str_eq(err.text, "LAYOUT has format 2, this version reads 1: use the version that wrote it");
}

Test(layout, the_first_start_decides)
{
    cr_assert_eq(check("1+1000 kv  2000+3 counter"), NH_OK);
    cr_assert_eq(check("1+1000 kv"), NH_OK, "other machines have no keys");
    cr_assert_eq(check("501+500 kv-disk  1+500 kv"), NH_OK, "sections may be split");
    cr_assert_eq(check("1+1001 kv"), NH_EMISMATCH);
    cr_assert(strstr(err.text, "/LAYOUT: the keys are in kv shards 1-1000; the configuration has 1-1001, so that"), "%s",
              err.text);
    cr_assert(strstr(err.text, "More shards need a new deployment that the data is copied into"), "%s", err.text);
    cr_assert_eq(check("1+1000 kv  2000+3 kv"), NH_EMISMATCH);
    cr_assert_eq(check("2+999 kv"), NH_EMISMATCH);
    cr_assert_eq(check("1+1000 counter"), NH_EMISMATCH);
    cr_assert(strstr(err.text, "the configuration has none"), "%s", err.text);
    cr_assert_eq(check("1+1000 kv"), NH_OK, "a refusal changes nothing");
}

Test(layout, without_keys_nothing_is_decided)
{
    char text[256];

    cr_assert_eq(check("1+10 counter"), NH_OK);
    cr_assert_eq(get(text, sizeof text), 0);
    cr_assert_eq(check("1+10 counter  11+10 kv"), NH_OK);
    cr_assert_eq(check("1+10 counter  11+11 kv"), NH_EMISMATCH);
}

Test(layout, a_damaged_file_stays_as_it_is)
{
    static const char damaged[] = "nodehostd-layout 1\nkv_shards 1-1000\ncrc 00000000\n";
    char text[256];

    put(damaged, sizeof damaged - 1);
    cr_assert_eq(check("1+1000 kv"), NH_ECORRUPT);
    cr_assert(strstr(err.text, "/LAYOUT is damaged: restore it from a copy, or remove it"), "%s", err.text);
    cr_assert_eq(get(text, sizeof text), sizeof damaged - 1);
    put("", 0);
    cr_assert_eq(check("1+1000 kv"), NH_ECORRUPT, "nor is an empty one none");
}

/* A crash before the rename. */
Test(layout, what_a_crash_left_is_written_over)
{
    char tmp[80], text[256];
    FILE *f;

    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    f = fopen(tmp, "w");
    cr_assert(f && fputs("nodehostd-layout 1\nkv_shards 1-10000000000000000000000000000000\n", f) >= 0 && fclose(f) == 0);
    cr_assert_eq(check("1+1000 kv"), NH_OK);
    cr_assert_eq(access(tmp, F_OK), -1);
    get(text, sizeof text);
    cr_assert(strstr(text, "kv_shards 1-1000\n"), "%s", text);
}

Test(layout, what_cannot_be_written_is_an_error)
{
    cr_assert_eq(chmod(dir, 0), 0);
    if (access(dir, W_OK) == 0) /* root may do everything */
        cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(check("1+1000 kv"), NH_EIO);
    chmod(dir, 0700);
    rmdir(path);
}

Test(layout, long_lists_are_cut_in_the_error)
{
    char sections[600], *at = sections;

    for (int i = 0; i < 20; i++)
        at += sprintf(at, "%d+1 kv ", 1000 + 2 * i);
    cr_assert_eq(check(sections), NH_OK);
    cr_assert_eq(check("1+1 kv"), NH_EMISMATCH);
    cr_assert(strstr(err.text, "kv shards 1000,1002,1004,1006,1008,1010,1012,1014,...; the configuration has 1, so"), "%s",
              err.text);
}
