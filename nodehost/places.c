#include "nodehost/places.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/files.h"

/* ---- images ---- */

/* NH_ENOTFOUND: it belongs to nobody yet. */
static int read_owner(const char *path, char *ret, size_t cap, struct nh_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? NH_ENOTFOUND : nh_error_sys(err, NH_EIO, errno, "open %s", path);
    n = read(fd, ret, cap - 1);
    close(fd);
    if (n < 0)
        return nh_error_sys(err, NH_EIO, errno, "read %s", path);
    ret[n] = 0;
    ret[strcspn(ret, "\n")] = 0;
    return NH_OK;
}

static int check_owner(const struct data_dir *d, const char *dir, const char *path, struct nh_error *err)
{
    char owner[NH_HOST_ID_TEXT_BYTES + 1];
    int r = read_owner(path, owner, sizeof owner, err);

    if (r == NH_OK && strcmp(owner, d->unique_id) != 0)
        return nh_error_set(err, NH_EMISMATCH,
                            "snapshot directory %s belongs to the data directory %s, not to %s: give each host one of its own",
                            dir, owner[0] ? owner : "(unreadable)", d->unique_id);
    return r;
}

/* Whole or not at all: a temporary file, and the name when it is durable. */
static int write_owner(const struct data_dir *d, const char *dir, const char *path, struct nh_error *err)
{
    const struct files_ops *ops = files_posix()->ops;
    char tmp[FILES_PATH_BYTES], text[NH_HOST_ID_TEXT_BYTES + 1];
    struct file *f = NULL;
    int size = snprintf(text, sizeof text, "%s\n", d->unique_id), r = files_path(tmp, err, "%s.tmp", path), closed;

    if (r == NH_OK)
        r = ops->remove(files_posix(), tmp, err);
    if (r == NH_OK)
        r = ops->create(files_posix(), tmp, &f, err);
    if (r == NH_OK)
        r = ops->write(f, text, (size_t)size, err);
    if (r == NH_OK)
        r = ops->sync(f, err);
    closed = ops->close(f, r == NH_OK ? err : NULL);
    r = r < 0 ? r : closed;
    if (r == NH_OK)
        r = ops->rename(files_posix(), tmp, path, err);
    return r < 0 ? r : ops->sync_dir(files_posix(), dir, err);
}

/* In there the images of replicas get 51 characters and more (engine/snapshot_dir.h checks the rest). */
static int path_of_snapshots(const struct data_dir *d, const char *configured, char *out, char *owner, struct nh_error *err)
{
    int r = configured ? files_path(out, err, "%s", configured) : files_path(out, err, "%s/snapshots", d->path);

    return r < 0 ? r : files_path(owner, err, "%s/OWNER", out);
}

int place_make_snapshots(const struct data_dir *d, const char *configured, char *out, struct nh_error *err)
{
    char owner[FILES_PATH_BYTES];
    int r = path_of_snapshots(d, configured, out, owner, err);

    if (r == NH_OK)
        r = data_dir_make(out, err);
    if (r < 0)
        return nh_error_wrap(err, r, "snapshot directory");
    if (!configured)
        return NH_OK;
    r = check_owner(d, out, owner, err);
    return r == NH_ENOTFOUND ? write_owner(d, out, owner, err) : r;
}

int place_find_snapshots(const struct data_dir *d, const char *configured, char *out, struct nh_error *err)
{
    char owner[FILES_PATH_BYTES];
    int r = path_of_snapshots(d, configured, out, owner, err);

    if (r < 0)
        return r;
    if (access(out, F_OK) < 0)
        return nh_error_set(err, NH_ENOTFOUND, "snapshot directory %s is not there", out);
    if (configured)
        r = check_owner(d, out, owner, err);
    return r == NH_ENOTFOUND ? NH_OK : r;
}

/* ---- machines ---- */

int place_of_machine(const struct data_dir *d, uint64_t shard_id, uint64_t replica_id, char *out, struct nh_error *err)
{
    return files_path(out, err, "%s/machines/%020" PRIu64 "-%020" PRIu64, d->path, shard_id, replica_id);
}

int place_make_machine(const struct data_dir *d, uint64_t shard_id, uint64_t replica_id, char *out, struct nh_error *err)
{
    char parent[FILES_PATH_BYTES];
    int r = files_path(parent, err, "%s/machines", d->path);

    if (r == NH_OK)
        r = data_dir_make(parent, err);
    if (r == NH_OK)
        r = place_of_machine(d, shard_id, replica_id, out, err);
    if (r == NH_OK)
        r = data_dir_make(out, err);
    return r < 0 ? nh_error_wrap(err, r, "directory of the machine") : NH_OK;
}
