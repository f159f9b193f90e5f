/* engine/snapshot_dir.h - where the images of one replica lie, and how one comes to be there whole or not at all.
 *
 *     <root>/<shard>-<replica>/                        20 digits each
 *         snapshot-<index>/                            16 hexadecimal digits
 *             image                                    engine/rsm/image.h
 *             record                                   crc32c u32, format u32 (1), raftpb Snapshot: the mark that the image is
 * whole saving-<index>/                              being made by this replica receiving-<from>-<index>/ being received
 *
 * An image is made in a temporary directory and committed in this order (fault 2; what has happened after a crash in brackets):
 *
 *     write image, sync it, close it                   [old snapshot; a directory to be cleaned]
 *     write record, sync it; sync the directory
 *     rename to snapshot-<index>; sync the parent      [old snapshot; an image that no record of the log store names: cleaned]
 *     (caller) save the record in the log store        [new snapshot]
 *     remove what is no longer to be kept              [new snapshot; old images to be cleaned]
 *
 * The log store's record decides which one is the newest: an image without it never happened. So a crash at any point leaves the
 * old or the new snapshot, never neither, and no log entry is removed before the last step but one.
 *
 * Threads: one at a time per replica and temporary directory; opening images: any. Errors: as engine/files.h, ECORRUPT.
 */
#ifndef NH_ENGINE_SNAPSHOT_DIR_H
#define NH_ENGINE_SNAPSHOT_DIR_H

#include "engine/files.h"
#include "engine/rsm/image.h"

struct snapshot_dir {
    struct files *files; /* borrowed */
    uint64_t shard_id, replica_id;
    char path[FILES_PATH_BYTES];
};

/* Makes the replica's directory below `root` if it is not there, durably. */
int snapshot_dir_init(struct snapshot_dir *d, struct files *files, const char *root, uint64_t shard_id, uint64_t replica_id,
                      struct nh_error *err);
/* At start, before anything runs: removes temporary directories and images whose index is not `recorded`, or (kept: newest first)
 * one of the `keep - 1` before it. recorded 0: all. */
int snapshot_dir_clean(struct snapshot_dir *d, uint64_t recorded, uint32_t keep, struct nh_error *err);
/* While it runs, after `recorded` was saved in the log store: removes images below it but the newest keep - 1. Never one above.
 */
int snapshot_dir_prune(struct snapshot_dir *d, uint64_t recorded, uint32_t keep, struct nh_error *err);
/* Everything: the replica's data is being deleted. */
int snapshot_dir_remove(struct snapshot_dir *d, struct nh_error *err);

/* An image under construction. */
struct snapshot_temp {
    struct snapshot_dir *dir; /* borrowed */
    char path[FILES_PATH_BYTES];
    uint64_t index;
    struct file *image; /* written to by the caller */
};
/* Begins one; what a former attempt of the same name left is removed. from: the sender, or 0 if it is our own. */
int snapshot_temp_begin(struct snapshot_temp *t, struct snapshot_dir *dir, uint64_t index, uint64_t from, struct nh_error *err);
int snapshot_temp_write(struct snapshot_temp *t, const void *data, size_t size_bytes, struct nh_error *err);
/* Steps 1 to 3 above. If an image of this index is there already, that one stays (both hold the same) and this one is removed.
 * After a failure: snapshot_temp_abort. */
int snapshot_temp_commit(struct snapshot_temp *t, const struct nh_snapshot *record, struct nh_error *err);
/* Closes and removes it. Takes a zeroed or committed one. */
void snapshot_temp_abort(struct snapshot_temp *t);

/* The committed image of an index, for reading. Errors: ENOTFOUND, ECORRUPT (its record does not fit). */
int snapshot_dir_open(struct snapshot_dir *d, uint64_t index, struct file **ret, uint64_t *ret_size, struct nh_error *err);
/* Its record, as it was committed (nh_snapshot_deinit). */
int snapshot_dir_record(struct snapshot_dir *d, uint64_t index, struct nh_snapshot *ret, struct nh_error *err);

/* A file from `offset` on as an image source: for image_reader_new and image_verify. */
struct file_source {
    struct files *files;
    struct file *file;
    uint64_t offset;
};
void file_source_init(struct file_source *s, struct files *files, struct file *file, struct image_source *ret);

#endif
