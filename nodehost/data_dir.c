#include "nodehost/data_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftio/support/crc32c.h"

/* What helps. Under its old ids it would have forgotten how it voted. */
#define WITHOUT_HOST "restore it from a copy, or move the directory away and join anew under new replica ids"

#define HOST_FILE_BYTES_MAX 1024u
#define LINE_BYTES_MAX      256u

/* What a HOST file says. */
struct host_file {
    uint64_t format, host_id, deployment_id, incarnation;
    char unique_id[NH_HOST_ID_TEXT_BYTES];
    char address[NH_ADDRESS_BYTES];
    char logdb[DATA_DIR_LOGDB_BYTES];
};

/* ---- paths ---- */

static int join_path(char *out, const char *dir, const char *name, struct nh_error *err)
{
    int n = snprintf(out, DATA_DIR_PATH_BYTES, "%s/%s", dir, name);

    return n < 0 || (size_t)n >= DATA_DIR_PATH_BYTES ? nh_error_set(err, NH_EINVAL, "the path of the data directory is too long")
                                                     : NH_OK;
}

static int sync_directory(const char *path, struct nh_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = NH_OK;

    if (fd < 0 || fsync(fd) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "sync directory %s", path);
    if (fd >= 0)
        close(fd);
    return r;
}

/* A name is durable when the directory that it stands in is. */
static int sync_parent(const char *path, struct nh_error *err)
{
    char copy[DATA_DIR_PATH_BYTES];

    if (strlen(path) >= sizeof copy)
        return nh_error_set(err, NH_EINVAL, "the path of the directory is too long");
    strcpy(copy, path);
    return sync_directory(dirname(copy), err);
}

static int refuse_without_parent(const char *path, struct nh_error *err)
{
    char copy[DATA_DIR_PATH_BYTES];

    snprintf(copy, sizeof copy, "%s", path);
    return nh_error_set(err, NH_EIO,
                        "make directory %s: its parent %s is not there, and is not made, as it may belong on a disk that is not "
                        "mounted: mount that, or make the parent",
                        path, dirname(copy));
}

int data_dir_make(const char *path, struct nh_error *err)
{
    bool made = mkdir(path, 0700) == 0;
    struct stat st;

    if (!made && errno == ENOENT)
        return refuse_without_parent(path, err);
    if (!made && errno != EEXIST)
        return nh_error_sys(err, NH_EIO, errno, "make directory %s", path);
    if (stat(path, &st) < 0)
        return nh_error_sys(err, NH_EIO, errno, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return nh_error_set(err, NH_EINVAL, "%s is not a directory", path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return nh_error_set(err, NH_EINVAL, "%s is open to other users (mode %o): chmod 700 it", path,
                            (unsigned)(st.st_mode & 0777));
    return made ? sync_parent(path, err) : NH_OK;
}

/* ---- the lock ---- */

static int refuse_locked(int fd, const char *path, struct nh_error *err)
{
    char pid[32] = {0};
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);

    while (n > 0 && pid[n - 1] == '\n')
        pid[--n] = 0;
    return nh_error_set(err, NH_ELOCKED, "%s is in use by process %s: stop it, or give this host a directory of its own", path,
                        n > 0 ? pid : "(unknown)");
}

static int lock(struct data_dir *d, struct nh_error *err)
{
    char path[DATA_DIR_PATH_BYTES], pid[32];
    int r = join_path(path, d->path, "LOCK", err), fd, n;

    if (r < 0)
        return r;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        r = errno == EWOULDBLOCK ? refuse_locked(fd, d->path, err) : nh_error_sys(err, NH_EIO, errno, "lock %s", path);
        close(fd);
        return r;
    }
    n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        r = nh_error_sys(err, NH_EIO, errno, "write %s", path);
        close(fd);
        return r;
    }
    d->lock_fd = fd;
    d->is_open = true;
    return NH_OK;
}

/* ---- the HOST file ---- */

static int write_text(char *out, size_t cap, const struct host_file *h)
{
    int n = snprintf(out, cap,
                     "nodehost %" PRIu64 "\nhost_id %" PRIu64 "\ndeployment_id %" PRIu64 "\nunique_id %s\naddress %s\nlogdb %s\n"
                     "incarnation %" PRIu64 "\n",
                     h->format, h->host_id, h->deployment_id, h->unique_id, h->address, h->logdb, h->incarnation);

    return n + snprintf(out + n, cap - (size_t)n, "crc %08" PRIx32 "\n", crc32c(0, out, (size_t)n));
}

static bool read_number(const char **at, const char *name, uint64_t *ret)
{
    size_t n = strlen(name);
    char *end;

    if (strncmp(*at, name, n) != 0 || (*at)[n] != ' ' || (*at)[n + 1] < '0' || (*at)[n + 1] > '9')
        return false;
    errno = 0;
    *ret = strtoull(*at + n + 1, &end, 10);
    if (errno || *end != '\n')
        return false;
    *at = end + 1;
    return true;
}

static bool read_word(const char **at, const char *name, char *ret, size_t cap)
{
    size_t n = strlen(name), size;
    const char *end;

    if (strncmp(*at, name, n) != 0 || (*at)[n] != ' ')
        return false;
    end = strchr(*at + n + 1, '\n');
    size = end ? (size_t)(end - (*at + n + 1)) : 0;
    if (size == 0 || size >= cap)
        return false;
    memcpy(ret, *at + n + 1, size);
    ret[size] = 0;
    *at = end + 1;
    return true;
}

static int parse(const char *text, const char *path, struct host_file *ret, struct nh_error *err)
{
    const char *at = text, *crc;
    char written[16];
    bool whole;

    *ret = (struct host_file){0};
    if (!read_number(&at, "nodehost", &ret->format))
        return nh_error_set(err, NH_ECORRUPT, "%s is not a host file: " WITHOUT_HOST, path);
    if (ret->format != DATA_DIR_FORMAT)
        return nh_error_set(err, NH_EMISMATCH, "%s has format %" PRIu64 ", this version reads %u: use the version that wrote it",
                            path, ret->format, DATA_DIR_FORMAT);
    whole = read_number(&at, "host_id", &ret->host_id) && read_number(&at, "deployment_id", &ret->deployment_id) &&
            read_word(&at, "unique_id", ret->unique_id, sizeof ret->unique_id) &&
            read_word(&at, "address", ret->address, sizeof ret->address) &&
            read_word(&at, "logdb", ret->logdb, sizeof ret->logdb) && read_number(&at, "incarnation", &ret->incarnation);
    crc = at;
    if (!whole || !read_word(&at, "crc", written, sizeof written) || *at != 0 ||
        strtoul(written, NULL, 16) != crc32c(0, text, (size_t)(crc - text)))
        return nh_error_set(err, NH_ECORRUPT, "%s is damaged: " WITHOUT_HOST, path);
    return NH_OK;
}

/* NH_ENOTFOUND: there is none. */
static int load(const char *path, struct host_file *ret, struct nh_error *err)
{
    char text[HOST_FILE_BYTES_MAX + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? NH_ENOTFOUND : nh_error_sys(err, NH_EIO, errno, "open %s", path);
    n = read(fd, text, HOST_FILE_BYTES_MAX);
    close(fd);
    if (n < 0)
        return nh_error_sys(err, NH_EIO, errno, "read %s", path);
    text[n] = 0;
    return parse(text, path, ret, err);
}

static int store(const struct data_dir *d, const char *path, const struct host_file *h, struct nh_error *err)
{
    char tmp[DATA_DIR_PATH_BYTES + 8], text[HOST_FILE_BYTES_MAX];
    int size = write_text(text, sizeof text, h), fd, r = NH_OK;

    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "open %s", tmp);
    if (write(fd, text, (size_t)size) != size || fsync(fd) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "write %s", tmp);
    close(fd);
    if (r == NH_OK && rename(tmp, path) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "rename %s", tmp);
    return r < 0 ? r : sync_directory(d->path, err);
}

static int check(const struct host_file *h, const struct data_dir_identity *id, const char *dir, struct nh_error *err)
{
    if (h->host_id != id->host_id)
        return nh_error_set(err, NH_EMISMATCH,
                            "%s belongs to host %" PRIu64 ", not to host %" PRIu64 ": give each host a directory of its own", dir,
                            h->host_id, id->host_id);
    if (h->deployment_id != id->deployment_id)
        return nh_error_set(err, NH_EMISMATCH,
                            "%s belongs to deployment %" PRIu64 ", not to %" PRIu64
                            ": correct the deployment id or the directory",
                            dir, h->deployment_id, id->deployment_id);
    if (strcmp(h->address, id->address) != 0)
        return nh_error_set(
            err, NH_EMISMATCH,
            "%s was made by a host that others call %s, now it is %s: keep the former, it is stored in memberships", dir,
            h->address, id->address);
    if (strcmp(h->logdb, id->logdb_name) != 0)
        return nh_error_set(err, NH_EMISMATCH, "%s was written by the log store \"%s\", not \"%s\": use the former", dir,
                            h->logdb, id->logdb_name);
    if (h->incarnation == 0 || h->incarnation >= DATA_DIR_INCARNATION_MAX)
        return nh_error_set(err, NH_ECORRUPT,
                            "%s was opened %" PRIu64
                            " times, more often than there are numbers for it: use an empty directory and "
                            "join anew under new replica ids",
                            dir, h->incarnation);
    return NH_OK;
}

static int make_unique_id(char *out, struct nh_error *err)
{
    uint64_t random[2];

    if (getrandom(random, sizeof random, 0) != sizeof random)
        return nh_error_sys(err, NH_EIO, errno, "getrandom");
    snprintf(out, NH_HOST_ID_TEXT_BYTES, "nhid-%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    return NH_OK;
}

static int refuse_nameless(const struct data_dir *d, struct nh_error *err)
{
    return nh_error_set(err, NH_ECORRUPT,
                        "%s has a log store but no HOST file: restore the file from a copy, or use an empty directory and "
                        "join anew under new replica ids",
                        d->path);
}

static int make_host(const struct data_dir *d, const struct data_dir_identity *id, struct host_file *ret, struct nh_error *err)
{
    if (access(d->logdb_path, F_OK) == 0) /* is made after HOST */
        return refuse_nameless(d, err);
    *ret = (struct host_file){.format = DATA_DIR_FORMAT, .host_id = id->host_id, .deployment_id = id->deployment_id};
    snprintf(ret->address, sizeof ret->address, "%s", id->address);
    snprintf(ret->logdb, sizeof ret->logdb, "%s", id->logdb_name);
    return make_unique_id(ret->unique_id, err);
}

static int begin_incarnation(struct data_dir *d, const struct data_dir_identity *id, struct nh_error *err)
{
    char path[DATA_DIR_PATH_BYTES];
    struct host_file h;
    int r = join_path(path, d->path, "HOST", err);

    if (r == NH_OK)
        r = load(path, &h, err);
    if (r == NH_OK)
        r = check(&h, id, d->path, err);
    else if (r == NH_ENOTFOUND)
        r = make_host(d, id, &h, err);
    if (r < 0)
        return r;
    h.incarnation++;
    d->incarnation = h.incarnation;
    memcpy(d->unique_id, h.unique_id, sizeof d->unique_id);
    return store(d, path, &h, err);
}

static int set_paths(struct data_dir *d, const char *path, struct nh_error *err)
{
    *d = (struct data_dir){0};
    if (strlen(path) >= DATA_DIR_PATH_BYTES)
        return nh_error_set(err, NH_EINVAL, "the path of the data directory is too long");
    strcpy(d->path, path);
    return join_path(d->logdb_path, path, "logdb", err);
}

static int look_at_host(struct data_dir *d, const struct data_dir_identity *id, struct nh_error *err)
{
    char path[DATA_DIR_PATH_BYTES];
    struct host_file h;
    int r = join_path(path, d->path, "HOST", err);

    if (r == NH_OK)
        r = load(path, &h, err);
    if (r == NH_ENOTFOUND && access(d->logdb_path, F_OK) == 0)
        return refuse_nameless(d, err);
    if (r == NH_OK)
        r = check(&h, id, d->path, err);
    if (r == NH_OK)
        memcpy(d->unique_id, h.unique_id, sizeof d->unique_id);
    return r == NH_ENOTFOUND ? nh_error_set(err, r, "%s has no HOST file", d->path) : r;
}

int data_dir_look(struct data_dir *d, const char *path, const struct data_dir_identity *id, struct nh_error *err)
{
    int r = set_paths(d, path, err);

    if (r < 0)
        return r;
    if (access(path, F_OK) < 0)
        return nh_error_set(err, NH_ENOTFOUND, "%s is not there", path);
    r = data_dir_make(path, err); /* which is there: checks its kind and mode */
    if (r == NH_OK)
        r = lock(d, err);
    if (r == NH_OK)
        r = look_at_host(d, id, err);
    if (r < 0)
        data_dir_close(d);
    return r;
}

int data_dir_open(struct data_dir *d, const char *path, const struct data_dir_identity *id, struct nh_error *err)
{
    int r = set_paths(d, path, err);

    if (r < 0)
        return r;
    r = data_dir_make(path, err);
    if (r == NH_OK)
        r = lock(d, err);
    if (r == NH_OK)
        r = begin_incarnation(d, id, err);
    if (r == NH_OK)
        r = data_dir_make(d->logdb_path, err);
    if (r < 0)
        data_dir_close(d);
    return r;
}

void data_dir_close(struct data_dir *d)
{
    if (d->is_open)
        close(d->lock_fd);
    d->is_open = false;
}
