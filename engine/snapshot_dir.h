/* engine/snapshot_dir.h - where the images of one replica lie, and how one comes to be there whole or not at all.
 *
 *     <root>/<shard>-<replica>/             20 digits each
 *         snapshot-<index>/                 16 hexadecimal digits: a committed image
 *             image                         engine/rsm/image.h
 *             record                        crc32c u32, format u32 (1), raftpb Snapshot: the mark that the image is whole
 *         saving-<index>/                   one that this replica is making
 *         receiving-<from>-<index>/         one that is being received; from: 20 digits
 *
 * Other names are not ours: they are left alone. The exact bytes are in docs/FORMATS.md, "Snapshot directory".
 *
 * Exports lie in a directory of the user's choice, many of whatever replicas side by side. So their names have the ids, too:
 * snapshot-<shard>-<replica>-<index>, saving-<shard>-<replica>-<index>; and none takes the place of another.
 *
 * An image is made in a temporary directory and committed in this order; in brackets what a crash here leaves, and between the
 * steps the failpoints (engine/files.h):
 *
 *     1  write the image, sync it, close it            [old snapshot; a temporary directory: cleaned]
 *        snapshot_image_synced
 *     2  write the record                              [as in 1]
 *        snapshot_record_written
 *        sync it, close it                             [as in 1]
 *        snapshot_record_synced
 *        sync the temporary directory                  [as in 1]
 *        snapshot_directory_synced
 *     3  rename it to snapshot-<index>                 [old snapshot; perhaps an image that no record names: cleaned]
 *        snapshot_renamed
 *        sync the parent                               [old snapshot; an image that no record names: cleaned]
 *        snapshot_committed
 *     4  (caller) save the record in the log store     [new snapshot; the old one: cleaned]
 *     5  remove what is no longer to be kept           [new snapshot; perhaps old images, or parts of them: cleaned]
 *        snapshot_pruned
 *
 * The log store's record decides which one is the newest: an image without it never happened. So a crash at any point leaves the
 * old or the new snapshot, never neither, and no log entry may be removed before step 4 is done.
 *
 * Threads: one at a time per replica and temporary directory; opening images: any. Errors: as engine/files.h, ECORRUPT.
 */
#ifndef NH_ENGINE_SNAPSHOT_DIR_H
#define NH_ENGINE_SNAPSHOT_DIR_H

#include "engine/files.h"
#include "engine/rsm/image.h"

/* A record file is at most as long. */
#define SNAPSHOT_RECORD_BYTES_MAX (128u * 1024u)

struct snapshot_dir {
    struct files *files; /* borrowed */
    uint64_t shard_id, replica_id;
    bool is_for_exports;
    char path[FILES_PATH_BYTES];
};

/* Names the replica's directory, which need not be there: it has one from its first image on, as most of thousands have none yet
 * when they start. Nothing needs to be released. Errors: EINVAL (too long). */
int snapshot_dir_name(struct snapshot_dir *d, struct files *files, const char *root, uint64_t shard_id, uint64_t replica_id,
                      struct nh_error *err);
/* The same for the replica's exports to the directory `path`, which is its owner's to make, and to clean. */
int snapshot_dir_name_exports(struct snapshot_dir *d, struct files *files, const char *path, uint64_t shard_id,
                              uint64_t replica_id, struct nh_error *err);
/* The path of the committed image of an index; out: FILES_PATH_BYTES. Errors: EINVAL (too long). */
int snapshot_dir_image(const struct snapshot_dir *d, uint64_t index, char *out, struct nh_error *err);
/* Makes it below its root, which exists, if it is not there; durably. To be called before an image is begun. */
int snapshot_dir_make(struct snapshot_dir *d, struct nh_error *err);
/* Both. */
int snapshot_dir_init(struct snapshot_dir *d, struct files *files, const char *root, uint64_t shard_id, uint64_t replica_id,
                      struct nh_error *err);
/* At start, before anything runs: removes temporary directories, and images but the one whose index is `recorded` and the newest
 * keep - 1 below it (keep 0 is as 1). recorded 0: all. After a failure it may be called again. */
int snapshot_dir_clean(struct snapshot_dir *d, uint64_t recorded, uint32_t keep, struct nh_error *err);
/* While it runs, after `recorded` was saved in the log store: removes images below it but the newest keep - 1. Never one above,
 * nor a temporary directory. After a failure the rest is removed by the next call. */
int snapshot_dir_prune(struct snapshot_dir *d, uint64_t recorded, uint32_t keep, struct nh_error *err);
/* Everything, durably: the replica's data is being deleted. */
int snapshot_dir_remove(struct snapshot_dir *d, struct nh_error *err);

/* An image under construction. */
struct snapshot_temp {
    struct snapshot_dir *dir;    /* borrowed; NULL: nothing is under construction */
    char path[FILES_PATH_BYTES]; /* of the temporary directory; `image` is in it */
    uint64_t index;
    struct file *image; /* owned; written to by the caller */
};

/* Begins one; what a former attempt of the same name left is removed. from: the sender, or 0 if it is our own. After a failure
 * nothing needs to be released. Errors: EINVAL (index 0). */
int snapshot_temp_begin(struct snapshot_temp *t, struct snapshot_dir *dir, uint64_t index, uint64_t from, struct nh_error *err);
int snapshot_temp_write(struct snapshot_temp *t, const void *data, size_t size_bytes, struct nh_error *err);
/* Steps 1 to 3 above. If a whole image of this index is there already, that one stays (both hold the same entries, but perhaps
 * not the same bytes: snapshot_dir_record tells its size) and this one is removed; but an export is refused, as the one that is
 * there may be of another history of the shard. After a failure: snapshot_temp_abort; there may be an image of the index that is
 * not recorded. Errors: EMISMATCH (the record has another shard or index), ETOOBIG (the record), EEXIST (an export). */
int snapshot_temp_commit(struct snapshot_temp *t, const struct nh_snapshot *record, struct nh_error *err);
/* Closes and removes it. Takes a zeroed or committed one. What cannot be removed now is when the next one begins, or at start. */
void snapshot_temp_abort(struct snapshot_temp *t);

/* The committed image of an index, for reading. Errors: ENOTFOUND, ECORRUPT (a part is missing, its record does not fit). */
int snapshot_dir_open(struct snapshot_dir *d, uint64_t index, struct file **ret, uint64_t *ret_size, struct nh_error *err);
/* Its record, as it was committed (nh_snapshot_deinit). Errors: as above. */
int snapshot_dir_record(struct snapshot_dir *d, uint64_t index, struct nh_snapshot *ret, struct nh_error *err);

/* A file "record" wherever it lies. Errors: ENOTFOUND, ECORRUPT. */
int snapshot_record_load(struct files *fs, const char *path, struct nh_snapshot *ret, struct nh_error *err);

/* A file from `offset` on as an image source: for image_reader_new and image_verify. */
struct file_source {
    struct files *files;
    struct file *file;
    uint64_t offset;
};
/* From the file's beginning; *ret refers to *s, which refers to the two others. */
void file_source_init(struct file_source *s, struct files *files, struct file *file, struct image_source *ret);

#endif
