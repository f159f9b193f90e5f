#include "engine/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "raftio/support/memory.h"

/* Nobody nests directories like that here; it bounds the recursion of a removal. */
#define REMOVE_DEPTH_MAX 64u

struct file {
    int fd;
    char *path; /* for error texts */
};

/* ---- errors ---- */

static int code_of(int sys)
{
    switch (sys) {
    case ENOENT: return NH_ENOTFOUND;
    case ENOSPC:
    case EDQUOT: return NH_ENOSPC;
    case EEXIST: return NH_EEXIST;
    default: return NH_EIO;
    }
}

/* What errno says about `path`. */
static int fail(struct nh_error *err, const char *verb, const char *path)
{
    int sys = errno;

    return nh_error_sys(err, code_of(sys), sys, "%s %s", verb, path);
}

int files_path(char *out, struct nh_error *err, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(out, FILES_PATH_BYTES, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= FILES_PATH_BYTES)
        return nh_error_set(err, NH_EINVAL, "a path is longer than %u bytes", FILES_PATH_BYTES - 1);
    return NH_OK;
}

/* ---- directories ---- */

static int open_dir(const char *path, int flags)
{
    return (int)TEMP_FAILURE_RETRY(open(path, flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

static int make_dir(struct files *fs, const char *path, struct nh_error *err)
{
    struct stat st;

    (void)fs;
    if (mkdir(path, 0700) == 0)
        return NH_OK;
    if (errno != EEXIST || lstat(path, &st) < 0)
        return fail(err, "make directory", path);
    return S_ISDIR(st.st_mode) ? NH_OK : nh_error_set(err, NH_EEXIST, "make directory %s: something else is there", path);
}

static int sync_dir(struct files *fs, const char *path, struct nh_error *err)
{
    int fd = open_dir(path, O_RDONLY), r = NH_OK;

    (void)fs;
    if (fd < 0 || TEMP_FAILURE_RETRY(fsync(fd)) < 0)
        r = fail(err, "sync directory", path);
    if (fd >= 0)
        close(fd);
    return r;
}

static int list(struct files *fs, const char *path, int (*each)(void *ctx, const char *name), void *ctx, struct nh_error *err)
{
    int fd = open_dir(path, O_RDONLY), r = NH_OK;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;

    (void)fs;
    if (!dir) {
        r = fail(err, "list directory", path);
        if (fd >= 0)
            close(fd);
        return r;
    }
    while (r == NH_OK && (errno = 0, e = readdir(dir)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = each(ctx, e->d_name);
    if (r == NH_OK && errno != 0)
        r = fail(err, "list directory", path);
    closedir(dir);
    return r;
}

static int space(struct files *fs, const char *path, uint64_t *ret_free, uint64_t *ret_whole, struct nh_error *err)
{
    int fd = open_dir(path, O_RDONLY), r = NH_OK;
    struct statvfs st;

    (void)fs;
    if (fd < 0 || TEMP_FAILURE_RETRY(fstatvfs(fd, &st)) < 0)
        r = fail(err, "ask for the space of", path);
    if (r == NH_OK)
        *ret_free = (uint64_t)st.f_bavail * st.f_frsize;
    if (r == NH_OK && ret_whole)
        *ret_whole = (uint64_t)st.f_blocks * st.f_frsize;
    if (fd >= 0)
        close(fd);
    return r;
}

/* ---- files ---- */

/* Opens the directory that holds `path`, which may not be a symbolic link; AT_FDCWD if there is none to open. -1: errno. */
static int open_parent(const char *path, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    char dir[FILES_PATH_BYTES];

    *ret_name = n > 0 ? slash + 1 : path;
    if (n == 0)
        return AT_FDCWD;
    if (n >= sizeof dir) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(dir, path, n);
    dir[n] = '\0';
    return open_dir(dir, O_PATH);
}

/* Leaves errno alone. */
static void close_parent(int fd)
{
    int sys = errno;

    if (fd >= 0)
        close(fd);
    errno = sys;
}

static int open_file(const char *path, int flags)
{
    const char *name;
    int parent = open_parent(path, &name), fd;

    if (parent == -1)
        return -1;
    fd = (int)TEMP_FAILURE_RETRY(openat(parent, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600));
    close_parent(parent);
    return fd;
}

static struct file *file_new(int fd, const char *path)
{
    struct file *f = xmalloc(sizeof *f);

    f->fd = fd;
    f->path = xstrdup(path);
    return f;
}

static int create(struct files *fs, const char *path, struct file **ret, struct nh_error *err)
{
    int fd = open_file(path, O_WRONLY | O_CREAT | O_EXCL);

    (void)fs;
    if (fd < 0)
        return fail(err, "create", path);
    *ret = file_new(fd, path);
    return NH_OK;
}

static int open_existing(struct files *fs, const char *path, struct file **ret, uint64_t *ret_size, struct nh_error *err)
{
    int fd = open_file(path, O_RDONLY | O_NONBLOCK), r; /* a FIFO in its place must not hold us up */
    struct stat st;

    (void)fs;
    if (fd < 0)
        return fail(err, "open", path);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        r = nh_error_set(err, NH_EIO, "open %s: it is not a regular file", path);
        close(fd);
        return r;
    }
    if (ret_size)
        *ret_size = (uint64_t)st.st_size;
    *ret = file_new(fd, path);
    return NH_OK;
}

static int write_all(struct file *f, const void *data, size_t size_bytes, struct nh_error *err)
{
    const char *at = data;

    while (size_bytes > 0) {
        ssize_t n = TEMP_FAILURE_RETRY(write(f->fd, at, size_bytes));

        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return fail(err, "write", f->path);
        }
        at += n;
        size_bytes -= (size_t)n;
    }
    return NH_OK;
}

static int64_t read_at(struct file *f, uint64_t offset, void *data, size_t cap_bytes, struct nh_error *err)
{
    ssize_t n;

    if (offset > INT64_MAX)
        return 0;
    n = TEMP_FAILURE_RETRY(pread(f->fd, data, cap_bytes, (off_t)offset));
    return n < 0 ? fail(err, "read", f->path) : n;
}

static int sync_file(struct file *f, struct nh_error *err)
{
    return TEMP_FAILURE_RETRY(fsync(f->fd)) < 0 ? fail(err, "sync", f->path) : NH_OK;
}

static int close_file(struct file *f, struct nh_error *err)
{
    int r = NH_OK;

    if (!f)
        return NH_OK;
    if (close(f->fd) < 0 && errno != EINTR) /* it is closed all the same: trying again could close another's */
        r = fail(err, "close", f->path);
    free(f->path);
    free(f);
    return r;
}

/* ---- names ---- */

static bool same_directory(const char *a, const char *b)
{
    const char *end_a = strrchr(a, '/'), *end_b = strrchr(b, '/');
    size_t n = end_a ? (size_t)(end_a - a) : 0;

    return !end_a == !end_b && n == (end_b ? (size_t)(end_b - b) : 0) && memcmp(a, b, n) == 0;
}

static int rename_entry(struct files *fs, const char *from, const char *to, struct nh_error *err)
{
    const char *old_name, *new_name = strrchr(to, '/');
    int parent, r;

    (void)fs;
    if (!same_directory(from, to))
        return nh_error_set(err, NH_EINVAL, "rename %s to %s: not in the same directory", from, to);
    parent = open_parent(from, &old_name);
    if (parent == -1)
        return fail(err, "rename", from);
    r = renameat(parent, old_name, parent, parent >= 0 ? new_name + 1 : to);
    close_parent(parent);
    if (r == 0)
        return NH_OK;
    if (errno == ENOTEMPTY || errno == EISDIR || errno == ENOTDIR)
        return nh_error_sys(err, NH_EEXIST, errno, "rename %s to %s", from, to);
    return fail(err, "rename", from);
}

static bool remove_at(int parent, const char *name, unsigned depth);

/* False: errno. */
static bool remove_children(int fd, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    const struct dirent *e;
    bool ok = true;
    int sys;

    if (!dir) {
        close(fd);
        return false;
    }
    while (ok && (errno = 0, e = readdir(dir)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            ok = remove_at(fd, e->d_name, depth);
    sys = errno;
    closedir(dir);
    errno = sys;
    return ok && sys == 0;
}

static bool remove_at(int parent, const char *name, unsigned depth)
{
    int fd;

    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return true;
    if (errno != EISDIR)
        return false;
    if (depth == 0) {
        errno = ENAMETOOLONG;
        return false;
    }
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT;
    if (!remove_children(fd, depth - 1))
        return false;
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT;
}

static int remove_entry(struct files *fs, const char *path, struct nh_error *err)
{
    const char *name;
    int parent = open_parent(path, &name);
    bool ok = parent == -1 ? errno == ENOENT : remove_at(parent, name, REMOVE_DEPTH_MAX);

    (void)fs;
    if (parent != -1)
        close_parent(parent);
    return ok ? NH_OK : fail(err, "remove", path);
}

struct files *files_posix(void)
{
    static const struct files_ops ops = {
        .make_dir = make_dir,
        .create = create,
        .open = open_existing,
        .write = write_all,
        .read_at = read_at,
        .sync = sync_file,
        .close = close_file,
        .rename = rename_entry,
        .sync_dir = sync_dir,
        .remove = remove_entry,
        .list = list,
        .space = space,
    };
    static struct files fs = {.ops = &ops};

    return &fs;
}
