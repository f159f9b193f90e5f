/* nodehost/data_dir.h - the data directory of a host: one process at a time, one identity for ever.
 *
 *     LOCK    locked (flock) while a host is open; holds the pid of the last one, for error texts
 *     HOST    who this directory belongs to, as lines of text with a checksum; format: docs/FORMATS.md, "Data directory"
 *     logdb/  the log store's own
 *
 * The HOST file is replaced whole at every opening (temporary file, fsync, rename, fsync of the directory) because the
 * incarnation in it grows: request keys of this life must not be those of an earlier one, so it is durable before any is used.
 * For the same reason a directory that has a log store but no HOST file is refused: nobody knows which keys are in that log.
 *
 * Threads: one, the opener. Errors: ELOCKED (names the pid), EMISMATCH (names both values and the remedy), ECORRUPT, EINVAL, EIO.
 */
#ifndef NH_NODEHOST_DATA_DIR_H
#define NH_NODEHOST_DATA_DIR_H

#include <stdbool.h>

#include "nodehost/nodehost.h"

#define DATA_DIR_FORMAT          1u
#define DATA_DIR_INCARNATION_MAX (((uint64_t)1 << 24) - 1)
#define DATA_DIR_PATH_BYTES      4096u
#define DATA_DIR_LOGDB_BYTES     64u /* of the name of a log store, with its final NUL */

struct data_dir {
    bool is_open;
    int lock_fd; /* valid if is_open */
    char path[DATA_DIR_PATH_BYTES];
    char logdb_path[DATA_DIR_PATH_BYTES];
    char unique_id[NH_HOST_ID_TEXT_BYTES];
    uint64_t incarnation;
};

/* What must agree with the HOST file. */
struct data_dir_identity {
    uint64_t host_id, deployment_id;
    const char *address, *logdb_name;
};

/* Makes the directory (0700) and its files if absent, locks it, checks it, starts a new incarnation. */
int data_dir_open(struct data_dir *d, const char *path, const struct data_dir_identity *id, struct nh_error *err);
/* Locks and checks one that is there, and starts no incarnation: for looking, not for running. Changes nothing but LOCK.
 * Errors also: ENOTFOUND (no directory, or nothing was ever stored in it). */
int data_dir_look(struct data_dir *d, const char *path, const struct data_dir_identity *id, struct nh_error *err);
void data_dir_close(struct data_dir *d); /* unlocks; takes a zeroed or closed one */

/* Makes a directory for us alone (0700), durably, or checks that the one there is. Its parent must be there: if its disk is not
 * mounted, nothing may be made elsewhere. Errors: EINVAL, EIO. */
int data_dir_make(const char *path, struct nh_error *err);

#endif
