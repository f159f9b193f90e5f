/* nodehost/import_image.h - an exported image: read, checked wholly, and written again for the new members of its shard.
 * Private to nodehost/import.c. Threads: one. Errors: as the image's and the files'. */
#ifndef NH_NODEHOST_IMPORT_IMAGE_H
#define NH_NODEHOST_IMPORT_IMAGE_H

#include "engine/snapshot_dir.h"

struct export
{
    char path[FILES_PATH_BYTES];
    struct image_head head;
    uint64_t size_bytes;
};

/* Reads record and image of a directory that nh_export_snapshot made, believing nothing: every byte of the image is checked, the
 * two must agree, and it must have the machine's data. Errors also: ENOTFOUND, ECORRUPT. */
int export_open(struct export *ret, const char *directory, struct nh_error *err);
void export_deinit(struct export *e); /* takes a zeroed one */
/* Writes the image with another record to `temp`, which the caller has begun. *ret_size: its bytes. */
int export_rewrite(const struct export *e, const struct nh_snapshot *record, struct snapshot_temp *temp, uint64_t *ret_size,
                   struct nh_error *err);

#endif
