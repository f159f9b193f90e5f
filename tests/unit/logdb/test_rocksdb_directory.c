/* The store refuses directories that are not its own. */
#include "tests/conformance/logdb/fixture.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftio/plugin.h"

static void init(void)
{
    setenv("NH_LOGDB_PLUGIN", "rocksdb", 1);
    fixture_init();
}

TestSuite(directory, .init = init, .fini = fixture_deinit);

static const char *path(const char *name)
{
    static char p[256];

    snprintf(p, sizeof p, "%s/%s", f.dir, name);
    return p;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(path(name), "w");

    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static int try_open(const char *wal_dir, const char *options)
{
    const struct nh_logdb_config config = {.struct_size = sizeof config,
                                           .dir = f.dir,
                                           .wal_dir = wal_dir,
                                           .n_workers = 1,
                                           .options = options,
                                           .services = nh_plugin_services()};
    struct nh_logdb *db;
    int r;

    f.err.text[0] = '\0';
    r = f.ops->open(&config, &db, &f.err);
    if (r == NH_OK)
        f.ops->close(db);
    else
        cr_assert(f.err.text[0], "a text says why");
    return r;
}

Test(directory, an_open_store_is_locked)
{
    cr_assert_eq(try_open(NULL, NULL), NH_ELOCKED, "%s", f.err.text);
}

Test(directory, another_format_is_a_mismatch)
{
    fixture_close();
    write_file("FORMAT", "nodehost-log 2 rocksdb 0123456789abcdef\n");
    cr_assert_eq(try_open(NULL, NULL), NH_EMISMATCH, "%s", f.err.text);
    write_file("FORMAT", "nodehost-log 1 other 0123456789abcdef\n");
    cr_assert_eq(try_open(NULL, NULL), NH_EMISMATCH, "%s", f.err.text);
    write_file("FORMAT", "");
    cr_assert_eq(try_open(NULL, NULL), NH_EMISMATCH, "%s", f.err.text);
    write_file("FORMAT", "something that is much longer than any line that this program would ever write there\n");
    cr_assert_eq(try_open(NULL, NULL), NH_EMISMATCH, "%s", f.err.text);
}

Test(directory, data_without_format_is_a_mismatch)
{
    must_save_entries(SHARD, REPLICA, 1, 5, 1);
    fixture_close();
    cr_assert_eq(unlink(path("FORMAT")), 0);
    cr_assert_eq(try_open(NULL, NULL), NH_EMISMATCH, "%s", f.err.text);
}

/* A database without its WAL would open and lack what was acknowledged last. */
Test(directory, a_changed_wal_directory_is_refused_before_the_database_is_touched)
{
    char other[256];

    must_save_entries(SHARD, REPLICA, 1, 5, 1);
    fixture_close();
    snprintf(other, sizeof other, "%s/other", f.dir);
    cr_assert_eq(mkdir(other, 0700), 0);
    cr_assert_eq(try_open(other, NULL), NH_EMISMATCH, "%s", f.err.text);
    write_file("other/NODEHOST-WAL", "nodehost-log 1 rocksdb 0123456789abcdef\n");
    cr_assert_eq(try_open(other, NULL), NH_EMISMATCH, "%s", f.err.text);
    fixture_open();
    expect_entries(SHARD, REPLICA, 1, 5, 1);
}

Test(directory, a_wal_directory_of_its_own)
{
    char wal[256];
    struct stat st;

    fixture_deinit();
    fixture_init_closed();
    snprintf(wal, sizeof wal, "%s/elsewhere", f.dir);
    cr_assert_eq(try_open(wal, NULL), NH_OK, "%s", f.err.text);
    cr_assert_eq(stat(path("elsewhere/NODEHOST-WAL"), &st), 0);
    cr_assert_neq(stat(path("wal"), &st), 0);
    cr_assert_eq(try_open(NULL, NULL), NH_EMISMATCH, "%s", f.err.text);
    cr_assert_eq(try_open(wal, NULL), NH_OK, "%s", f.err.text);
}

Test(directory, an_interrupted_creation_is_resumed)
{
    char from[256];

    fixture_close();
    snprintf(from, sizeof from, "%s", path("FORMAT"));
    cr_assert_eq(rename(from, path("FORMAT.new")), 0);
    fixture_open();
    must_save_entries(SHARD, REPLICA, 1, 5, 1);
    fixture_reopen();
    expect_entries(SHARD, REPLICA, 1, 5, 1);
}

Test(directory, a_missing_database_is_corrupt_and_not_created_anew)
{
    fixture_close();
    cr_assert_eq(unlink(path("db/CURRENT")), 0);
    cr_assert_eq(try_open(NULL, NULL), NH_ECORRUPT, "%s", f.err.text);
}

Test(directory, options_text_is_applied_or_refused)
{
    fixture_close();
    cr_assert_eq(try_open(NULL, "write_buffer_size=1048576;max_background_jobs=1"), NH_OK, "%s", f.err.text);
    cr_assert_eq(try_open(NULL, ""), NH_OK, "%s", f.err.text);
    cr_assert_eq(try_open(NULL, "no_such_option=1"), NH_EINVAL, "%s", f.err.text);
    cr_assert_eq(try_open(NULL, "write_buffer_size"), NH_EINVAL, "%s", f.err.text);
}

/* RocksDB would open what is left of a database, or delete its oldest tables. */
Test(directory, options_that_lose_tables_are_not_taken)
{
    glob_t found;

    must_save_entries(SHARD, REPLICA, 1, 20, 1);
    fixture_reopen(); /* into a table */
    fixture_close();
    cr_assert_eq(try_open(NULL, "compaction_style=kCompactionStyleFIFO;max_open_files=-1"), NH_EINVAL, "%s", f.err.text);
    cr_assert_eq(try_open(NULL, "compaction_style=kCompactionStyleUniversal"), NH_OK, "%s", f.err.text);
    cr_assert_eq(glob(path("db/*.sst"), 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++)
        cr_assert_eq(unlink(found.gl_pathv[i]), 0);
    globfree(&found);
    cr_assert_eq(try_open(NULL, "best_efforts_recovery=true"), NH_ECORRUPT, "%s", f.err.text);
}

Test(directory, the_probe_for_direct_io_leaves_nothing_behind)
{
    glob_t found;

    cr_assert_eq(glob(path("PROBE*"), 0, NULL, &found), GLOB_NOMATCH);
    globfree(&found);
}

Test(directory, limits_of_workers_and_paths)
{
    struct nh_logdb_config config = {.struct_size = sizeof config, .dir = f.dir, .services = nh_plugin_services()};
    static char long_dir[8192];
    struct nh_logdb *db;

    fixture_close();
    cr_assert_eq(f.ops->open(&config, &db, &f.err), NH_EINVAL, "0 workers");
    config.n_workers = 1025;
    cr_assert_eq(f.ops->open(&config, &db, &f.err), NH_EINVAL, "one worker too many");
    config.n_workers = 1024;
    cr_assert_eq(f.ops->open(&config, &db, &f.err), NH_OK, "%s", f.err.text);
    f.ops->close(db);
    memset(long_dir, 'x', sizeof long_dir - 1);
    config.dir = long_dir;
    cr_assert_eq(f.ops->open(&config, &db, &f.err), NH_ETOOBIG);
    config.dir = f.dir;
    config.wal_dir = long_dir;
    cr_assert_eq(f.ops->open(&config, &db, &f.err), NH_ETOOBIG);
}
