/* engine/files.h - the only door between the engine and files.
 *
 * Snapshots are files; everything else that is durable goes through the log store. There are two implementations: the real one
 * (engine/files_posix.c), and one in memory that forgets what was not synced when its host crashes (tests/sim). Nothing else in
 * engine/ opens, names or syncs a file.
 *
 * Paths are absolute or relative to the implementation's root, made of names that the engine chose from numbers; never from the
 * wire. New files have mode 0600, directories 0700. Symbolic links are not followed: what a path names must not be one (remove
 * takes the link itself), nor the directory that holds it, unless make_dir, sync_dir, list or space names a directory in there.
 *
 * Durability. Bytes of a file are durable after `sync` of the file; names (create, rename, remove, make_dir) after `sync_dir` of
 * the directory that holds them. Without that a crash may keep any of them or none.
 *
 * Threads: any; a struct file belongs to one thread at a time. An open file stays readable when it is removed.
 * Errors: ENOTFOUND, EEXIST, ENOSPC (also a quota), EIO, with the path in the text. EINTR and short writes are dealt with inside.
 * After a failed write a part of it may be there; after a failed sync what was written may be lost even if a later sync succeeds:
 * such a file is to be removed.
 */
#ifndef NH_ENGINE_FILES_H
#define NH_ENGINE_FILES_H

#include "raftio/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILES_PATH_BYTES 4096u

struct files;
struct file;

struct files_ops {
    /* Makes one directory; one that is there is fine. Errors: EEXIST (something else has that name). */
    int (*make_dir)(struct files *fs, const char *path, struct nh_error *err);
    /* A new file for writing from its beginning. Errors: EEXIST. */
    int (*create)(struct files *fs, const char *path, struct file **ret, struct nh_error *err);
    /* An existing file for reading. ret_size may be NULL. */
    int (*open)(struct files *fs, const char *path, struct file **ret, uint64_t *ret_size, struct nh_error *err);
    /* Appends all of it. */
    int (*write)(struct file *f, const void *data, size_t size_bytes, struct nh_error *err);
    /* Up to cap bytes from `offset` on: how many, 0 at the end, or a negative code. */
    int64_t (*read_at)(struct file *f, uint64_t offset, void *data, size_t cap_bytes, struct nh_error *err);
    int (*sync)(struct file *f, struct nh_error *err);
    /* Errors (of a deferred write): EIO, ENOSPC. The file is closed in any case. Takes NULL. */
    int (*close)(struct file *f, struct nh_error *err);
    /* Within one directory (else EINVAL). Replaces `to` if it is a file, or an empty directory, like `from`; else EEXIST. */
    int (*rename)(struct files *fs, const char *from, const char *to, struct nh_error *err);
    int (*sync_dir)(struct files *fs, const char *path, struct nh_error *err);
    /* A file, or a directory with all that is in it; nothing there is fine. After a failure a part may be gone. */
    int (*remove)(struct files *fs, const char *path, struct nh_error *err);
    /* Each name in a directory, in any order; stops at the first code that is not 0 and returns it. `each` changes nothing there.
     */
    int (*list)(struct files *fs, const char *path, int (*each)(void *ctx, const char *name), void *ctx, struct nh_error *err);
    /* Bytes that may still be written to files of this directory, and that its disk has when it is empty. ret_whole may be NULL.
     */
    int (*space)(struct files *fs, const char *path, uint64_t *ret_free, uint64_t *ret_whole, struct nh_error *err);
};

struct files {
    const struct files_ops *ops;
};

/* The real ones. Static storage. */
struct files *files_posix(void);

/* A path of printf parts, `out` not among them; EINVAL if it and its NUL are more than FILES_PATH_BYTES. */
int files_path(char *out, struct nh_error *err, const char *fmt, ...) NH_PRINTF(3, 4);

/* Named places of the snapshot paths at which a test build may be killed as by kill -9: NODEHOST_FAILPOINT=name[:count] in its
 * environment at the count-th call (default 1) with this name. The variable is read once. Does nothing unless built with
 * -Dfailpoints=true (meson_options.txt). Threads: any. */
void failpoint(const char *name);

#endif
