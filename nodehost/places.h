/* nodehost/places.h - where the images and the on-disk machines of a host lie.
 *
 *     <data_dir>/snapshots/                      images (engine/snapshot_dir.h), or in a directory of the user's choice
 *         OWNER                                  there only: the unique id of the data directory and a newline
 *     <data_dir>/machines/<shard>-<replica>/     of an on-disk machine, theirs alone; 20 digits each
 *
 * A directory of images that somebody names belongs to one data directory for ever: the engine removes what it does not know
 * there, so two hosts must not share one.
 *
 * Threads: any. Errors: EINVAL, EMISMATCH (another host's directory), EIO.
 */
#ifndef NH_NODEHOST_PLACES_H
#define NH_NODEHOST_PLACES_H

#include "nodehost/data_dir.h"

#define PLACE_PATH_BYTES DATA_DIR_PATH_BYTES

/* Makes it durably, or checks whose it is. configured: NULL: the default. `out` has PLACE_PATH_BYTES bytes, here and below. */
int place_make_snapshots(const struct data_dir *d, const char *configured, char *out, struct nh_error *err);
/* The same without making anything: ENOTFOUND if there is none. */
int place_find_snapshots(const struct data_dir *d, const char *configured, char *out, struct nh_error *err);
int place_of_machine(const struct data_dir *d, uint64_t shard_id, uint64_t replica_id, char *out, struct nh_error *err);
/* Makes it if it is not there. */
int place_make_machine(const struct data_dir *d, uint64_t shard_id, uint64_t replica_id, char *out, struct nh_error *err);

#endif
