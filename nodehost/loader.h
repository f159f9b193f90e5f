/* nodehost/loader.h - loads plugins from shared objects: nh_machine_load, nh_logdb_load, nh_transport_load.
 *
 * What is loaded runs with all our rights, so it must be as hard to replace as our own program: an absolute path to a regular
 * file (no symbolic link at its end) that belongs to root or to us and that nobody else may write. The file that was checked is
 * the file that is loaded: it is opened once and loaded by its descriptor.
 *
 * Tables are copied: a plugin that was built against an older header lacks later members, which are zero then. An object
 * stays loaded for ever, and loading it again gives the same table.
 *
 * Threads: any. Errors: EINVAL (path), EIO, EABI (no such symbol, other ABI, a member is missing that is required, of a machine
 * also by its kind), with the path and the reason.
 */
#ifndef NH_NODEHOST_LOADER_H
#define NH_NODEHOST_LOADER_H

#include "nodehost/nodehost.h"

/* Of the bytes of the shared object that a table was loaded from, as they were then (XXH3, never 0); 0: it was not loaded. */
uint64_t loader_machine_hash(const struct nh_machine_ops *ops);
/* Tables that the program has filled in itself are taken like loaded ones: checked, and copied as far as both sides know them. */
int loader_take_logdb(const struct nh_logdb_ops *given, struct nh_logdb_ops *ret, struct nh_error *err);
int loader_take_transport(const struct nh_transport_ops *given, struct nh_transport_ops *ret, struct nh_error *err);
int loader_take_registry(const struct nh_registry_ops *given, struct nh_registry_ops *ret, struct nh_error *err);
/* Has the table all that raftio/machine.h requires of its kind? EABI: with what it lacks. */
int loader_check_machine(const struct nh_machine_ops *ops, struct nh_error *err);

#endif
