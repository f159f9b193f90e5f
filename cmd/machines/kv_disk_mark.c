/* cmd/machines/kv_disk_mark.c - which directory it is: a number of its own, drawn when it was first used.
 *
 * The data of a replica lies in the database of all replicas, not in the replica's directory, and stays there when the host
 * removes that directory. So the directory gets a file `mark` with a random identity, and the replica's record in the database
 * tells the identity of the directory that the data was written for. Data counts only if the two are equal.
 *
 * A crash at any point. The mark is durable, under its name, before anything with its identity is written to the database, and
 * never changes. The first such write is one batch: it deletes all that the replica ever had and puts the first record. So a
 * record that equals the mark has only data behind it that was written since the mark was made; and data that was synced was
 * written after its mark was durable, so it is found again. A mark without its record (killed between the two, or the batch was
 * not synced) deletes again what the batch had deleted. No mark, or half a removal: nothing was synced for this directory.
 */
#include "cmd/machines/kv_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#define MARK_BYTES   16u /* "NHKM", u32 version, u64 identity; little-endian */
#define MARK_VERSION 1u

static int store_mark(const char *path, const uint8_t *mark, struct nh_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool stored = fd >= 0 && write(fd, mark, MARK_BYTES) == (ssize_t)MARK_BYTES && fsync(fd) == 0;
    int cause = errno;

    if (fd >= 0)
        close(fd);
    return stored ? NH_OK : kv_error(err, cause == ENOSPC ? NH_ENOSPC : NH_EIO, "write %s: %s", path, strerror(cause));
}

static int sync_dir(const char *path, struct nh_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    int cause = errno;

    if (fd >= 0)
        close(fd);
    return synced ? NH_OK : kv_error(err, NH_EIO, "sync %s: %s", path, strerror(cause));
}

int kv_disk_random(uint64_t *ret, struct nh_error *err)
{
    if (getrandom(ret, sizeof *ret, 0) != sizeof *ret)
        return kv_error(err, NH_EIO, "no random number: %s", strerror(errno));
    return NH_OK;
}

static int make_mark(const char *dir, const char *path, uint64_t *ret, struct nh_error *err)
{
    char temp[PATH_MAX];
    uint8_t mark[MARK_BYTES] = "NHKM";
    int r;

    kv_store_u32(mark + 4, MARK_VERSION);
    r = kv_disk_random(ret, err);
    *ret |= 1; /* not 0 */
    kv_store_u64(mark + 8, *ret);
    snprintf(temp, sizeof temp, "%s/mark.new", dir);
    if (r == NH_OK)
        r = store_mark(temp, mark, err);
    if (r == NH_OK && rename(temp, path) < 0)
        r = kv_error(err, NH_EIO, "rename %s: %s", temp, strerror(errno));
    return r;
}

static int read_mark(int fd, const char *path, uint64_t *ret, struct nh_error *err)
{
    uint8_t mark[MARK_BYTES + 1];
    ssize_t n = read(fd, mark, sizeof mark);

    if (n < 0)
        return kv_error(err, NH_EIO, "read %s: %s", path, strerror(errno));
    if (n != (ssize_t)MARK_BYTES || memcmp(mark, "NHKM", 4) != 0 || kv_load_u64(mark + 8) == 0)
        return kv_error(err, NH_ECORRUPT, "%s is damaged: restore it, or remove the replica's data and let it begin anew", path);
    if (kv_load_u32(mark + 4) != MARK_VERSION)
        return kv_error(err, NH_EUNSUPPORTED, "%s has version %u, this machine reads version %u", path, kv_load_u32(mark + 4),
                        MARK_VERSION);
    *ret = kv_load_u64(mark + 8);
    return NH_OK;
}

int kv_disk_mark(const char *dir, uint64_t *ret, struct nh_error *err)
{
    char path[PATH_MAX];
    int fd, r;

    if (strlen(dir) + sizeof "/mark.new" > sizeof path)
        return kv_error(err, NH_EINVAL, "the path of the directory is too long");
    snprintf(path, sizeof path, "%s/mark", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        r = read_mark(fd, path, ret, err);
        close(fd);
    } else {
        r = errno == ENOENT ? make_mark(dir, path, ret, err) : kv_error(err, NH_EIO, "open %s: %s", path, strerror(errno));
    }
    return r == NH_OK ? sync_dir(dir, err) : r; /* one that is found may have been renamed a moment before a crash */
}
