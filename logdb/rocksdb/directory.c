#include "logdb/rocksdb/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "logdb/rocksdb/layout.h"

#define LINE_BYTES 64u
#define FORMAT     "FORMAT"
#define FORMAT_NEW "FORMAT.new"
#define WAL_MARK   "NODEHOST-WAL"
#define PROBE      "PROBE-XXXXXX"
/* What direct I/O is aligned to, at most. */
#define PROBE_BYTES 4096u

static int join(char out[DIRECTORY_PATH_BYTES], const char *dir, const char *name, struct nh_error *err)
{
    int n = snprintf(out, DIRECTORY_PATH_BYTES, "%s/%s", dir, name);

    if (n < 0 || (size_t)n >= DIRECTORY_PATH_BYTES)
        return nh_error_set(err, NH_ETOOBIG, "path of %s is longer than %u bytes", name, DIRECTORY_PATH_BYTES - 1);
    return NH_OK;
}

int directory_sync(const char *dir, struct nh_error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = NH_OK;

    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "open %s", dir);
    if (fsync(fd) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "sync %s", dir);
    close(fd);
    return r;
}

static int make_dir(const char *path, struct nh_error *err)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return nh_error_sys(err, NH_EIO, errno, "make %s", path);
    return NH_OK;
}

static int move(const char *dir, const char *from, const char *to, struct nh_error *err)
{
    char old[DIRECTORY_PATH_BYTES], new[DIRECTORY_PATH_BYTES];
    int r = join(old, dir, from, err);

    if (r == NH_OK)
        r = join(new, dir, to, err);
    if (r < 0)
        return r;
    if (rename(old, new) < 0)
        return nh_error_sys(err, NH_EIO, errno, "rename %s", old);
    return directory_sync(dir, err);
}

/* Writes dir/name durably and in one step: a reader sees the whole line or no file. */
static int write_line(const char *dir, const char *name, const char *line, struct nh_error *err)
{
    char path[DIRECTORY_PATH_BYTES];
    size_t size = strlen(line);
    int fd, r = join(path, dir, "NODEHOST.tmp", err);

    if (r < 0)
        return r;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "create %s", path);
    if (write(fd, line, size) != (ssize_t)size || fsync(fd) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "write %s", path);
    close(fd);
    return r < 0 ? r : move(dir, "NODEHOST.tmp", name, err);
}

/* NH_ENOTFOUND without text if there is no such file. */
static int read_line(const char *dir, const char *name, char ret[LINE_BYTES], struct nh_error *err)
{
    char path[DIRECTORY_PATH_BYTES];
    ssize_t n;
    int fd, r = join(path, dir, name, err);

    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return NH_ENOTFOUND;
    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "open %s", path);
    n = read(fd, ret, LINE_BYTES - 1);
    if (n < 0)
        r = nh_error_sys(err, NH_EIO, errno, "read %s", path);
    close(fd);
    if (r == NH_OK)
        ret[n] = '\0';
    return r;
}

static int check_format(const struct directory *d, const char *line, struct nh_error *err)
{
    char engine[16], id[17];
    unsigned format;

    if (sscanf(line, "nodehost-log %u %15s %16s", &format, engine, id) != 3)
        return nh_error_set(err, NH_EMISMATCH, "%s/" FORMAT " is not that of a log store: restore it, or use an empty directory",
                            d->dir);
    if (format != NH_LOGDB_BIN_VERSION || strcmp(engine, "rocksdb") != 0)
        return nh_error_set(err, NH_EMISMATCH,
                            "%s holds log format %u of %s, this program reads format %u of rocksdb: "
                            "start the version that wrote it, or use an empty directory",
                            d->dir, format, engine, NH_LOGDB_BIN_VERSION);
    return NH_OK;
}

static int start_creation(struct directory *d, char line[LINE_BYTES], struct nh_error *err)
{
    uint64_t id;
    int r = read_line(d->dir, FORMAT_NEW, line, err);

    d->creating = true;
    if (r != NH_ENOTFOUND)
        return r;
    if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id)
        return nh_error_sys(err, NH_EIO, errno, "draw an id");
    snprintf(line, LINE_BYTES, "nodehost-log %u rocksdb %016" PRIx64 "\n", NH_LOGDB_BIN_VERSION, id);
    return write_line(d->dir, FORMAT_NEW, line, err);
}

/* The WAL directory must be the one of this store: a missing WAL is lost acknowledged data, not an empty log. */
static int check_wal(const struct directory *d, const char *line, struct nh_error *err)
{
    char mark[LINE_BYTES];
    int r = read_line(d->wal, WAL_MARK, mark, err);

    if (r == NH_ENOTFOUND && d->creating)
        return write_line(d->wal, WAL_MARK, line, err);
    if (r == NH_ENOTFOUND)
        return nh_error_set(err, NH_EMISMATCH,
                            "%s has no " WAL_MARK ": it is not the WAL directory of %s; configure the one it was created with",
                            d->wal, d->dir);
    if (r == NH_OK && strcmp(mark, line) != 0)
        return nh_error_set(err, NH_EMISMATCH, "%s is the WAL directory of another store; configure the one that belongs to %s",
                            d->wal, d->dir);
    return r;
}

static int make_paths(struct directory *d, const struct nh_logdb_config *config, struct nh_error *err)
{
    int n = snprintf(d->dir, sizeof d->dir, "%s", config->dir);
    int r;

    if (n < 0 || (size_t)n >= sizeof d->dir)
        return nh_error_set(err, NH_ETOOBIG, "directory path is longer than %u bytes", DIRECTORY_PATH_BYTES - 1);
    r = join(d->db, config->dir, "db", err);
    if (r < 0)
        return r;
    if (!config->wal_dir)
        return join(d->wal, config->dir, "wal", err);
    n = snprintf(d->wal, sizeof d->wal, "%s", config->wal_dir);
    if (n < 0 || (size_t)n >= sizeof d->wal)
        return nh_error_set(err, NH_ETOOBIG, "WAL directory path is longer than %u bytes", DIRECTORY_PATH_BYTES - 1);
    return NH_OK;
}

int directory_open(struct directory *d, const struct nh_logdb_config *config, struct nh_error *err)
{
    char line[LINE_BYTES];
    int r = make_paths(d, config, err);

    if (r < 0)
        return r;
    d->creating = false;
    r = read_line(d->dir, FORMAT, line, err);
    if (r == NH_ENOTFOUND)
        r = start_creation(d, line, err);
    if (r == NH_OK)
        r = check_format(d, line, err);
    if (r == NH_OK)
        r = make_dir(d->db, err);
    if (r == NH_OK)
        r = make_dir(d->wal, err);
    if (r == NH_OK && d->creating)
        r = directory_sync(d->dir, err);
    return r < 0 ? r : check_wal(d, line, err);
}

int directory_commit(const struct directory *d, struct nh_error *err)
{
    return d->creating ? move(d->dir, FORMAT_NEW, FORMAT, err) : NH_OK;
}

bool directory_takes_durable_writes(const char *dir)
{
    struct statfs fs;

    return statfs(dir, &fs) == 0 && (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC);
}

bool directory_takes_direct_io(const char *dir)
{
    static const _Alignas(PROBE_BYTES) uint8_t zeros[PROBE_BYTES];
    char path[DIRECTORY_PATH_BYTES];
    bool works;
    int fd;

    if (join(path, dir, PROBE, NULL) < 0)
        return false;
    fd = mkostemp(path, O_DIRECT | O_CLOEXEC);
    if (fd < 0) {
        unlink(path); /* made, perhaps, before its flags were refused */
        return false;
    }
    unlink(path);
    works = pwrite(fd, zeros, sizeof zeros, 0) == (ssize_t)sizeof zeros;
    close(fd);
    return works;
}
