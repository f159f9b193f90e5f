/* What engine/files.h promises, kept by the real files and by those in memory; and what only the real ones can show. */
#include "engine/files.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>

#include "tests/sim/memory_files.h"

static struct files *fs;
static struct memory_files *memory;
static char root[64];
static struct nh_error err;

static void setup_posix(void)
{
    strcpy(root, "/tmp/nodehost-files.XXXXXX");
    cr_assert(mkdtemp(root));
    fs = files_posix();
}

static void teardown_posix(void)
{
    cr_assert_eq(fs->ops->remove(fs, root, &err), NH_OK, "%s", err.text);
    cr_assert_neq(access(root, F_OK), 0);
}

static void setup_memory(void)
{
    strcpy(root, "/root");
    memory = memory_files_new();
    fs = memory_files_base(memory);
    cr_assert_eq(fs->ops->make_dir(fs, root, &err), NH_OK);
}

static void teardown_memory(void)
{
    memory_files_free(memory);
}

TestSuite(files_posix, .init = setup_posix, .fini = teardown_posix);
TestSuite(files_memory, .init = setup_memory, .fini = teardown_memory);

/* A test of both. */
#define CONTRACT(name)       \
    static void name(void);  \
    Test(files_posix, name)  \
    {                        \
        name();              \
    }                        \
    Test(files_memory, name) \
    {                        \
        name();              \
    }                        \
    static void name(void)

#define OK(call) cr_assert_eq(call, NH_OK, "%s", err.text)

/* The failure's text names the path. */
#define FAILS(call, want, name)                                  \
    do {                                                         \
        err.text[0] = 0;                                         \
        cr_assert_eq(call, want, "%s", err.text);                \
        cr_assert_eq(err.code, want);                            \
        cr_assert(strstr(err.text, name), "text: %s", err.text); \
    } while (0)

static const char *at(const char *name)
{
    static char paths[4][FILES_PATH_BYTES];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    OK(files_path(path, &err, "%s/%s", root, name));
    return path;
}

static void put(const char *name, const char *text)
{
    struct file *f;

    OK(fs->ops->create(fs, at(name), &f, &err));
    OK(fs->ops->write(f, text, strlen(text), &err));
    OK(fs->ops->sync(f, &err));
    OK(fs->ops->close(f, &err));
}

/* A file's text, in a static buffer. */
static const char *get(const char *name)
{
    static char text[256];
    struct file *f;
    uint64_t size;
    int64_t n;

    OK(fs->ops->open(fs, at(name), &f, &size, &err));
    n = fs->ops->read_at(f, 0, text, sizeof text - 1, &err);
    cr_assert_eq(n, (int64_t)size);
    text[n] = 0;
    OK(fs->ops->close(f, &err));
    return text;
}

static bool exists(const char *name)
{
    struct file *f;
    int r = fs->ops->open(fs, at(name), &f, NULL, NULL);

    if (r == NH_OK)
        fs->ops->close(f, NULL);
    return r == NH_OK;
}

/* The names in a directory, one digit each, as bits. */
static int note(void *ctx, const char *name)
{
    *(unsigned *)ctx |= 1u << (name[0] - '0');
    return NH_OK;
}

static unsigned names(const char *dir)
{
    unsigned set = 0;

    OK(fs->ops->list(fs, at(dir), note, &set, &err));
    return set;
}

CONTRACT(what_is_written_is_read)
{
    put("a", "hello");
    cr_assert_str_eq(get("a"), "hello");
}

CONTRACT(pieces_are_appended)
{
    struct file *f;

    OK(fs->ops->create(fs, at("a"), &f, &err));
    OK(fs->ops->write(f, "one ", 4, &err));
    OK(fs->ops->write(f, "", 0, &err));
    OK(fs->ops->write(f, "two", 3, &err));
    cr_assert_str_eq(get("a"), "one two"); /* while it is being written */
    OK(fs->ops->close(f, &err));
    cr_assert_str_eq(get("a"), "one two");
}

CONTRACT(reads_at_offsets_and_past_the_end)
{
    struct file *f;
    char text[16] = "";

    put("a", "0123456789");
    OK(fs->ops->open(fs, at("a"), &f, NULL, &err));
    cr_assert_eq(fs->ops->read_at(f, 7, text, 2, &err), 2);
    cr_assert_eq(memcmp(text, "78", 2), 0);
    cr_assert_eq(fs->ops->read_at(f, 8, text, sizeof text, &err), 2);
    cr_assert_eq(fs->ops->read_at(f, 10, text, sizeof text, &err), 0);
    cr_assert_eq(fs->ops->read_at(f, 11, text, sizeof text, &err), 0);
    cr_assert_eq(fs->ops->read_at(f, UINT64_MAX, text, sizeof text, &err), 0);
    OK(fs->ops->close(f, &err));
}

CONTRACT(a_file_is_made_once)
{
    struct file *f;

    put("a", "old");
    FAILS(fs->ops->create(fs, at("a"), &f, &err), NH_EEXIST, "/a");
    OK(fs->ops->make_dir(fs, at("d"), &err));
    FAILS(fs->ops->create(fs, at("d"), &f, &err), NH_EEXIST, "/d");
    cr_assert_str_eq(get("a"), "old");
}

CONTRACT(what_is_not_there_is_not_found)
{
    struct file *f;
    uint64_t n;

    FAILS(fs->ops->open(fs, at("a"), &f, NULL, &err), NH_ENOTFOUND, "/a");
    FAILS(fs->ops->open(fs, at("d/a"), &f, NULL, &err), NH_ENOTFOUND, "/d/a");
    FAILS(fs->ops->create(fs, at("d/a"), &f, &err), NH_ENOTFOUND, "/d/a");
    FAILS(fs->ops->make_dir(fs, at("d/e"), &err), NH_ENOTFOUND, "/d/e");
    FAILS(fs->ops->sync_dir(fs, at("d"), &err), NH_ENOTFOUND, "/d");
    FAILS(fs->ops->list(fs, at("d"), note, NULL, &err), NH_ENOTFOUND, "/d");
    FAILS(fs->ops->space(fs, at("d"), &n, NULL, &err), NH_ENOTFOUND, "/d");
    FAILS(fs->ops->rename(fs, at("a"), at("b"), &err), NH_ENOTFOUND, "/a");
}

CONTRACT(directories_are_made_once_or_were_there)
{
    OK(fs->ops->make_dir(fs, at("d"), &err));
    put("d/a", "x");
    OK(fs->ops->make_dir(fs, at("d"), &err));
    OK(fs->ops->sync_dir(fs, at("d"), &err));
    cr_assert_str_eq(get("d/a"), "x");
    put("f", "x");
    FAILS(fs->ops->make_dir(fs, at("f"), &err), NH_EEXIST, "/f");
}

CONTRACT(a_file_is_no_directory)
{
    struct file *f;
    unsigned set;

    put("a", "x");
    OK(fs->ops->make_dir(fs, at("d"), &err));
    cr_assert_lt(fs->ops->list(fs, at("a"), note, &set, &err), 0);
    cr_assert_lt(fs->ops->sync_dir(fs, at("a"), &err), 0);
    FAILS(fs->ops->open(fs, at("d"), &f, NULL, &err), NH_EIO, "/d");
}

CONTRACT(rename_replaces_a_file)
{
    put("a", "new");
    put("b", "old");
    OK(fs->ops->rename(fs, at("a"), at("b"), &err));
    cr_assert_str_eq(get("b"), "new");
    cr_assert(!exists("a"));
}

CONTRACT(rename_replaces_an_empty_directory_only)
{
    OK(fs->ops->make_dir(fs, at("d"), &err));
    OK(fs->ops->make_dir(fs, at("e"), &err));
    put("d/a", "x");
    OK(fs->ops->rename(fs, at("d"), at("e"), &err));
    cr_assert_str_eq(get("e/a"), "x");
    OK(fs->ops->make_dir(fs, at("d"), &err));
    FAILS(fs->ops->rename(fs, at("d"), at("e"), &err), NH_EEXIST, "/d");
    cr_assert_str_eq(get("e/a"), "x");
}

CONTRACT(rename_replaces_nothing_of_another_kind)
{
    OK(fs->ops->make_dir(fs, at("d"), &err));
    put("a", "x");
    FAILS(fs->ops->rename(fs, at("d"), at("a"), &err), NH_EEXIST, "/d");
    FAILS(fs->ops->rename(fs, at("a"), at("d"), &err), NH_EEXIST, "/a");
}

CONTRACT(rename_stays_in_its_directory)
{
    OK(fs->ops->make_dir(fs, at("d"), &err));
    put("a", "x");
    FAILS(fs->ops->rename(fs, at("a"), at("d/a"), &err), NH_EINVAL, "/a");
    cr_assert(exists("a"));
}

CONTRACT(remove_takes_all_or_nothing_there)
{
    OK(fs->ops->make_dir(fs, at("d"), &err));
    OK(fs->ops->make_dir(fs, at("d/1"), &err));
    OK(fs->ops->make_dir(fs, at("d/2"), &err));
    put("d/1/a", "x");
    put("d/1/b", "x");
    put("d/3", "x");
    put("4", "x");
    OK(fs->ops->remove(fs, at("d/1"), &err));
    cr_assert_eq(names("d"), 1u << 2 | 1u << 3);
    OK(fs->ops->remove(fs, at("d"), &err));
    OK(fs->ops->remove(fs, at("d"), &err));
    OK(fs->ops->remove(fs, at("d/1/a"), &err));
    cr_assert_eq(names(""), 1u << 4);
    OK(fs->ops->remove(fs, at("4"), &err));
    cr_assert_eq(names(""), 0);
}

CONTRACT(an_open_file_stays_readable)
{
    struct file *f;
    char text[8];

    OK(fs->ops->make_dir(fs, at("d"), &err));
    put("d/a", "still");
    OK(fs->ops->open(fs, at("d/a"), &f, NULL, &err));
    OK(fs->ops->remove(fs, at("d"), &err));
    cr_assert_eq(fs->ops->read_at(f, 0, text, sizeof text, &err), 5);
    cr_assert_eq(memcmp(text, "still", 5), 0);
    OK(fs->ops->close(f, &err));
}

static int stop_at_second(void *ctx, const char *name)
{
    (void)name;
    return ++*(int *)ctx == 2 ? 77 : 0;
}

CONTRACT(list_stops_when_told)
{
    int n = 0;

    put("1", "");
    put("2", "");
    put("3", "");
    cr_assert_eq(names(""), 1u << 1 | 1u << 2 | 1u << 3);
    cr_assert_eq(fs->ops->list(fs, at(""), stop_at_second, &n, &err), 77);
    cr_assert_eq(n, 2);
}

CONTRACT(there_is_space)
{
    uint64_t n = 0, whole = 0;

    OK(fs->ops->space(fs, root, &n, &whole, &err));
    cr_assert_gt(n, 0);
    cr_assert_geq(whole, n);
}

CONTRACT(a_reader_cannot_write_nor_a_writer_read)
{
    struct file *f;
    char c;

    OK(fs->ops->create(fs, at("a"), &f, &err));
    FAILS(fs->ops->read_at(f, 0, &c, 1, &err), NH_EIO, "/a");
    OK(fs->ops->close(f, &err));
    OK(fs->ops->open(fs, at("a"), &f, NULL, &err));
    FAILS(fs->ops->write(f, "x", 1, &err), NH_EIO, "/a");
    OK(fs->ops->close(f, &err));
    OK(fs->ops->close(NULL, &err));
}

/* ---- paths ---- */

Test(files, a_path_has_a_limit)
{
    static char long_name[FILES_PATH_BYTES + 1], out[FILES_PATH_BYTES];

    memset(long_name, 'x', FILES_PATH_BYTES - 3);
    cr_assert_eq(files_path(out, &err, "%s/%s", "a", long_name), NH_OK);
    cr_assert_eq(strlen(out), FILES_PATH_BYTES - 1);
    memset(long_name, 'x', FILES_PATH_BYTES - 2);
    cr_assert_eq(files_path(out, &err, "%s/%s", "a", long_name), NH_EINVAL);
    cr_assert_eq(files_path(out, NULL, "%s/%s", "a", long_name), NH_EINVAL);
}

/* ---- the real ones alone ---- */

static unsigned mode_of(const char *name)
{
    struct stat st;

    cr_assert_eq(lstat(at(name), &st), 0);
    return st.st_mode & 07777;
}

Test(files_posix, are_ours_alone)
{
    umask(0);
    put("a", "x");
    OK(fs->ops->make_dir(fs, at("d"), &err));
    cr_assert_eq(mode_of("a"), 0600);
    cr_assert_eq(mode_of("d"), 0700);
}

Test(files_posix, links_are_not_followed)
{
    struct file *f;
    unsigned set;

    OK(fs->ops->make_dir(fs, at("d"), &err));
    put("d/a", "x");
    cr_assert_eq(symlink("d", at("dir")), 0);
    cr_assert_eq(symlink("d/a", at("file")), 0);
    cr_assert_eq(symlink("d/none", at("new")), 0);
    FAILS(fs->ops->open(fs, at("file"), &f, NULL, &err), NH_EIO, "/file");
    FAILS(fs->ops->open(fs, at("dir/a"), &f, NULL, &err), NH_EIO, "/dir/a");
    FAILS(fs->ops->create(fs, at("new"), &f, &err), NH_EEXIST, "/new");
    FAILS(fs->ops->create(fs, at("dir/b"), &f, &err), NH_EIO, "/dir/b");
    FAILS(fs->ops->make_dir(fs, at("dir"), &err), NH_EEXIST, "/dir");
    FAILS(fs->ops->list(fs, at("dir"), note, &set, &err), NH_EIO, "/dir");
    FAILS(fs->ops->sync_dir(fs, at("dir"), &err), NH_EIO, "/dir");
    FAILS(fs->ops->rename(fs, at("dir/a"), at("dir/b"), &err), NH_EIO, "/dir/a");
    FAILS(fs->ops->remove(fs, at("dir/a"), &err), NH_EIO, "/dir/a");
    cr_assert_str_eq(get("d/a"), "x");
}

Test(files_posix, removal_takes_links_not_what_they_name)
{
    OK(fs->ops->make_dir(fs, at("d"), &err));
    OK(fs->ops->make_dir(fs, at("e"), &err));
    put("d/a", "x");
    cr_assert_eq(symlink("../d", at("e/dir")), 0);
    cr_assert_eq(symlink("../d/a", at("e/file")), 0);
    cr_assert_eq(symlink("d", at("dir")), 0);
    OK(fs->ops->remove(fs, at("e"), &err));
    OK(fs->ops->remove(fs, at("dir"), &err));
    cr_assert_str_eq(get("d/a"), "x");
    cr_assert_neq(access(at("e"), F_OK), 0);
}

Test(files_posix, a_fifo_does_not_hold_us_up)
{
    struct file *f;

    cr_assert_eq(mkfifo(at("p"), 0600), 0);
    FAILS(fs->ops->open(fs, at("p"), &f, NULL, &err), NH_EIO, "/p");
}

Test(files_posix, a_tree_that_is_too_deep_is_refused)
{
    char path[1024];
    size_t n = (size_t)snprintf(path, sizeof path, "%s/t", root);

    cr_assert_eq(mkdir(path, 0700), 0);
    for (int i = 0; i < 70; i++) {
        n += (size_t)snprintf(path + n, sizeof path - n, "/t");
        cr_assert_eq(mkdir(path, 0700), 0);
    }
    FAILS(fs->ops->remove(fs, at("t"), &err), NH_EIO, "/t");
    for (int i = 0; i < 71; i++, path[strlen(path) - 2] = 0)
        cr_assert_eq(rmdir(path), 0);
}

Test(files_posix, a_file_that_may_not_grow_is_an_error)
{
    const struct rlimit small = {.rlim_cur = 10, .rlim_max = RLIM_INFINITY};
    const struct rlimit large = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    struct file *f;

    signal(SIGXFSZ, SIG_IGN);
    OK(fs->ops->create(fs, at("a"), &f, &err));
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    FAILS(fs->ops->write(f, "0123456789abcdef", 16, &err), NH_EIO, "/a"); /* short, then not at all */
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &large), 0);
    OK(fs->ops->close(f, &err));
    cr_assert_str_eq(get("a"), "0123456789");
}
