/* logdb/rocksdb/directory.h - the files around the database: format, paths, and the tie between store and WAL directory.
 *
 * FORMAT is one line, "nodehost-log <format> rocksdb <id>", id = 16 hex digits drawn at creation. The WAL directory has
 * the same line in NODEHOST-WAL. Creation writes FORMAT.new, then the mark, then creates the database, and ends by
 * renaming FORMAT.new to FORMAT; an interrupted creation is resumed, because nothing was acknowledged yet.
 */
#ifndef NH_LOGDB_ROCKSDB_DIRECTORY_H
#define NH_LOGDB_ROCKSDB_DIRECTORY_H

#include "raftio/logdb.h"

#define DIRECTORY_PATH_BYTES 4096u

struct directory {
    char dir[DIRECTORY_PATH_BYTES];
    char db[DIRECTORY_PATH_BYTES];
    char wal[DIRECTORY_PATH_BYTES];
    bool creating; /* no FORMAT yet: directory_commit must follow */
};

/* Checks or prepares the directory. Errors: EMISMATCH (other format, other WAL), ETOOBIG (paths), EIO. */
int directory_open(struct directory *d, const struct nh_logdb_config *config, struct nh_error *err);
/* Makes the names in it durable. Errors: EIO. */
int directory_sync(const char *dir, struct nh_error *err);
/* Whether files there can be written past the page cache (O_DIRECT): not every file system lets one. It is tried on a file that
 * is gone afterwards. */
bool directory_takes_direct_io(const char *dir);
/* Whether a write there with RWF_DSYNC is known to be durable as if fdatasync had followed: ext4 and XFS. Others may only hand
 * the flag on, to somebody who does not know it. */
bool directory_takes_durable_writes(const char *dir);
/* Ends a creation. */
int directory_commit(const struct directory *d, struct nh_error *err);

#endif
