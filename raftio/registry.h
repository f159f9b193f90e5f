/* raftio/registry.h - the node registry: at which host a replica lives.
 *
 * The default registry is a map filled from membership (bootstrap records and applied configuration changes). A host may
 * be given another one, for instance one fed by a naming service.
 *
 * All members of the table are required. Threads: any. `resolve` is called when a replica starts or its membership changes and
 * when a send failed, not per message.
 */
#ifndef NH_RAFTIO_REGISTRY_H
#define NH_RAFTIO_REGISTRY_H

#include "raftio/types.h"

NH_BEGIN_DECLS

#define NH_REGISTRY_ABI 1u

struct nh_registry;

struct nh_registry_ops {
    uint32_t abi_version; /* NH_REGISTRY_ABI */
    uint32_t struct_size;
    const char *name;

    int (*open)(struct nh_registry **ret, struct nh_error *err);
    void (*close)(struct nh_registry *r);
    /* Adds or replaces the address of a replica (copied). Errors: EINVAL (longer than NH_ADDRESS_BYTES - 1). */
    int (*add)(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id, const char *address, struct nh_error *err);
    void (*remove)(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id);
    void (*remove_shard)(struct nh_registry *r, uint64_t shard_id);
    /* Copies the address into ret[NH_ADDRESS_BYTES]. Errors: ENOTFOUND. */
    int (*resolve)(struct nh_registry *r, uint64_t shard_id, uint64_t replica_id, char *ret, struct nh_error *err);
};

/* The default: a hash map in memory. */
NH_API const struct nh_registry_ops *nh_registry_static(void);

NH_END_DECLS
#endif
