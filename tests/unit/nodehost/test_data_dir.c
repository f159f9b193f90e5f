/* One process at a time, one identity for ever. */
#include "nodehost/data_dir.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftio/support/crc32c.h"

static char path[64], host_file[128];
static struct data_dir d;
static struct nh_error err;

static const struct data_dir_identity identity = {3, 7, "127.0.0.1:7101", "rocksdb"};

static void setup(void)
{
    char tmp[] = "/tmp/nodehost-dir.XXXXXX";

    cr_assert(mkdtemp(tmp));
    snprintf(path, sizeof path, "%s/data", tmp);
    snprintf(host_file, sizeof host_file, "%s/HOST", path);
}

static void teardown(void)
{
    char command[160];

    data_dir_close(&d);
    *strrchr(path, '/') = 0;
    snprintf(command, sizeof command, "rm -rf %s", path);
    cr_assert_eq(system(command), 0);
}

TestSuite(data_dir, .init = setup, .fini = teardown);

static int reopen(const struct data_dir_identity *id)
{
    data_dir_close(&d);
    return data_dir_open(&d, path, id, &err);
}

Test(data_dir, is_made_for_us_alone_and_remembers_us)
{
    char unique_id[NH_HOST_ID_TEXT_BYTES];
    struct stat st;

    cr_assert_eq(reopen(&identity), 0, "%s", err.text);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0700);
    cr_assert_eq(d.incarnation, 1);
    strcpy(unique_id, d.unique_id);
    cr_assert_eq(strlen(unique_id), strlen("nhid-") + 32);
    for (uint64_t i = 2; i < 10; i++) {
        cr_assert_eq(reopen(&identity), 0, "%s", err.text);
        cr_assert_eq(d.incarnation, i);
        cr_assert_str_eq(d.unique_id, unique_id);
    }
}

Test(data_dir, a_second_process_is_refused_by_name)
{
    char pid[64];
    int status;

    cr_assert_eq(reopen(&identity), 0);
    if (fork() == 0) {
        struct data_dir other;

        snprintf(pid, sizeof pid, "is in use by process %d:", (int)getppid());
        _exit(data_dir_open(&other, path, &identity, &err) == NH_ELOCKED && strstr(err.text, pid) ? 0 : 1);
    }
    cr_assert(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    data_dir_close(&d);
    cr_assert_eq(reopen(&identity), 0, "unlocked again");
}

static void expect_mismatch(struct data_dir_identity other, const char *text)
{
    cr_assert_eq(reopen(&other), NH_EMISMATCH);
    cr_assert(strstr(err.text, text), "%s", err.text);
}

Test(data_dir, another_identity_is_refused_with_both_values)
{
    cr_assert_eq(reopen(&identity), 0);
    expect_mismatch((struct data_dir_identity){4, 7, "127.0.0.1:7101", "rocksdb"}, "belongs to host 3, not to host 4");
    expect_mismatch((struct data_dir_identity){3, 8, "127.0.0.1:7101", "rocksdb"}, "belongs to deployment 7, not to 8");
    expect_mismatch((struct data_dir_identity){3, 7, "127.0.0.1:7102", "rocksdb"},
                    "others call 127.0.0.1:7101, now it is 127.0.0.1:7102");
    expect_mismatch((struct data_dir_identity){3, 7, "127.0.0.1:7101", "memory"}, "log store \"rocksdb\", not \"memory\"");
    cr_assert_eq(reopen(&identity), 0);
    cr_assert_eq(d.incarnation, 2, "a refusal is no start");
}

Test(data_dir, every_damaged_byte_of_the_host_file_is_noticed)
{
    char text[1024];
    ssize_t n;
    int fd;

    cr_assert_eq(reopen(&identity), 0);
    data_dir_close(&d);
    fd = open(host_file, O_RDWR);
    n = read(fd, text, sizeof text);
    cr_assert_gt(n, 100);
    for (ssize_t i = 0; i < n; i++) {
        char bad = (char)(text[i] ^ 1);
        int r;

        cr_assert_eq(pwrite(fd, &bad, 1, i), 1);
        r = reopen(&identity);
        cr_assert(r == NH_ECORRUPT || r == NH_EMISMATCH, "byte %zd: %d", i, r);
        cr_assert_eq(pwrite(fd, &text[i], 1, i), 1);
    }
    for (ssize_t cut = 0; cut < n; cut++) {
        cr_assert_eq(ftruncate(fd, cut), 0);
        cr_assert_eq(reopen(&identity), NH_ECORRUPT, "cut at %zd", cut);
        cr_assert(strstr(err.text, "join anew under new replica ids"), "%s", err.text); /* the old ones have voted */
    }
    close(fd);
}

Test(data_dir, a_directory_that_others_may_read_is_refused)
{
    cr_assert_eq(mkdir(path, 0755), 0);
    cr_assert_eq(chmod(path, 0755), 0);
    cr_assert_eq(reopen(&identity), NH_EINVAL);
    cr_assert(strstr(err.text, "chmod 700"), "%s", err.text);
}

Test(data_dir, what_a_crash_left_is_ignored)
{
    char tmp[160];
    FILE *f;

    cr_assert_eq(reopen(&identity), 0);
    snprintf(tmp, sizeof tmp, "%s.tmp", host_file);
    f = fopen(tmp, "w");
    cr_assert(f && fputs("half", f) >= 0 && fclose(f) == 0);
    cr_assert_eq(reopen(&identity), 0, "%s", err.text);
    cr_assert_eq(d.incarnation, 2);
}

Test(data_dir, a_file_in_its_place_is_refused)
{
    FILE *f = fopen(path, "w");

    cr_assert(f && fclose(f) == 0);
    cr_assert_eq(reopen(&identity), NH_EINVAL);
    cr_assert(strstr(err.text, "is not a directory"), "%s", err.text);
}

/* Parents are not made: on a disk that is not mounted they would be somewhere else. */
Test(data_dir, a_missing_parent_is_refused_and_not_made)
{
    char parent[64], below[128];

    snprintf(parent, sizeof parent, "%s", path);
    snprintf(below, sizeof below, "%s/h1", path);
    cr_assert_eq(data_dir_open(&d, below, &identity, &err), NH_EIO);
    cr_assert(strstr(err.text, below) && strstr(err.text, "its parent") && strstr(err.text, "is not there"), "%s", err.text);
    cr_assert(strstr(err.text, "is not made"), "%s", err.text);
    cr_assert(strstr(err.text, "mount that, or make the parent"), "%s", err.text);
    cr_assert_eq(access(parent, F_OK), -1);
}

Test(data_dir, a_log_without_its_host_file_is_refused)
{
    cr_assert_eq(reopen(&identity), 0);
    data_dir_close(&d);
    cr_assert_eq(unlink(host_file), 0);
    /* Starting at incarnation 1 again would give out request keys that are in the log already. */
    cr_assert_eq(reopen(&identity), NH_ECORRUPT);
    cr_assert(strstr(err.text, "no HOST file"), "%s", err.text);
    cr_assert_eq(access(host_file, F_OK), -1, "a refusal writes nothing");
}

/* As write_text does it, with an incarnation of our choice. */
static void write_incarnation(uint64_t incarnation)
{
    char text[512];
    int n = snprintf(text, sizeof text,
                     "nodehost 1\nhost_id 3\ndeployment_id 7\nunique_id nhid-1\naddress 127.0.0.1:7101\nlogdb rocksdb\n"
                     "incarnation %" PRIu64 "\n",
                     incarnation);
    FILE *f = fopen(host_file, "w");

    cr_assert(f && fprintf(f, "%scrc %08" PRIx32 "\n", text, crc32c(0, text, (size_t)n)) > 0 && fclose(f) == 0);
}

Test(data_dir, the_golden_host_file_is_read_and_incarnations_end)
{
    cr_assert_eq(mkdir(path, 0700), 0);
    write_incarnation(DATA_DIR_INCARNATION_MAX - 1);
    cr_assert_eq(reopen(&identity), 0, "%s", err.text);
    cr_assert_eq(d.incarnation, DATA_DIR_INCARNATION_MAX);
    cr_assert_str_eq(d.unique_id, "nhid-1");
    cr_assert_eq(reopen(&identity), NH_ECORRUPT);
    cr_assert(strstr(err.text, "was opened 16777215 times"), "%s", err.text);
    write_incarnation(0);
    cr_assert_eq(reopen(&identity), NH_ECORRUPT);
}

Test(data_dir, unlocks_also_when_descriptor_0_was_free)
{
    close(STDIN_FILENO);
    cr_assert_eq(reopen(&identity), 0);
    cr_assert_eq(d.lock_fd, 0);
    cr_assert_eq(reopen(&identity), 0, "%s", err.text);
}

Test(data_dir, looking_at_it_locks_and_starts_no_incarnation)
{
    struct data_dir_identity other = identity;
    char logdb[128];

    cr_assert_eq(data_dir_look(&d, path, &identity, &err), NH_ENOTFOUND, "%s", err.text);
    cr_assert_neq(access(path, F_OK), 0, "nothing was made");
    cr_assert_eq(reopen(&identity), 0, "%s", err.text);
    data_dir_close(&d);
    for (int i = 0; i < 2; i++) {
        struct data_dir second;

        cr_assert_eq(data_dir_look(&d, path, &identity, &err), 0, "%s", err.text);
        cr_assert_eq(data_dir_look(&second, path, &identity, &err), NH_ELOCKED);
        data_dir_close(&d);
    }
    other.host_id = 4;
    cr_assert_eq(data_dir_look(&d, path, &other, &err), NH_EMISMATCH);
    cr_assert_eq(reopen(&identity), 0, "%s", err.text);
    cr_assert_eq(d.incarnation, 2);
    data_dir_close(&d);
    cr_assert_eq(unlink(host_file), 0);
    cr_assert_eq(data_dir_look(&d, path, &identity, &err), NH_ECORRUPT, "it has a log store");
    snprintf(logdb, sizeof logdb, "%s/logdb", path);
    cr_assert_eq(rmdir(logdb), 0);
    cr_assert_eq(data_dir_look(&d, path, &identity, &err), NH_ENOTFOUND);
}
