/* raftio/plugin.h - what all plugins have in common: acceptance rules and the services a host offers them.
 *
 * A plugin is a shared object with one exported function per kind that returns a constant table:
 *
 *     const struct nh_machine_ops   *nh_machine_plugin(void);
 *     const struct nh_logdb_ops     *nh_logdb_plugin(void);
 *     const struct nh_transport_ops *nh_transport_plugin(void);
 *
 * Every table begins with `abi_version` and `struct_size`. The host refuses another abi_version; it copies
 * min(struct_size, its own size) bytes and zeroes the rest, so a plugin built earlier lacks later members and a plugin
 * built later has them ignored. Members are appended, never reordered. A required member that is NULL is refused. That holds for
 * the tables that a program fills in itself, too.
 *
 * A function that returns int returns 0 or a negative code, and fills `err` when it fails; `err` may be NULL. A positive number
 * (an errno) is a failure like any other (NH_EABI). What it gives back through a pointer (*ret) counts on success only: `open`
 * frees what it has made before it fails.
 *
 * A plugin need not link against libnodehost: what it needs of the host comes in `struct nh_plugin_services`.
 * Plugins are opened with RTLD_NOW | RTLD_LOCAL and never unloaded. A plugin runs in the host's address space:
 * a crash in it is a crash of the host and of all its shards.
 */
#ifndef NH_RAFTIO_PLUGIN_H
#define NH_RAFTIO_PLUGIN_H

#include "raftio/types.h"

NH_BEGIN_DECLS

#define NH_MACHINE_PLUGIN_SYMBOL   "nh_machine_plugin"
#define NH_LOGDB_PLUGIN_SYMBOL     "nh_logdb_plugin"
#define NH_TRANSPORT_PLUGIN_SYMBOL "nh_transport_plugin"

/* Whether a table, or a struct with handlers, was built with this member and has it set. */
#define NH_HAS(table, member) \
    ((table)->struct_size >= offsetof(__typeof__(*(table)), member) + sizeof((table)->member) && (table)->member)

#define NH_PLUGIN_SERVICES_ABI 1u

enum nh_log_level { NH_LOG_DEBUG = 0, NH_LOG_INFO = 1, NH_LOG_WARN = 2, NH_LOG_ERROR = 3 };

/* What a host offers to its plugins. All functions may be called from any thread. Encoded forms are those of
 * raftio/raftpb.proto; an encode function returns the bytes it needs; if `cap` is less, what `out` holds is of no use. */
struct nh_plugin_services {
    uint32_t abi_version; /* NH_PLUGIN_SERVICES_ABI */
    uint32_t struct_size;
    /* One line of the host's log; `component` is a short static name ("logdb"). Not for hot paths. */
    void (*log)(enum nh_log_level level, const char *component, const char *fmt, ...) NH_PRINTF(3, 4);
    uint32_t (*crc32c)(uint32_t seed, const void *data, size_t size_bytes);

    size_t (*encode_bootstrap)(const struct nh_bootstrap *b, uint8_t *out, size_t cap);
    int (*decode_bootstrap)(const uint8_t *data, size_t size_bytes, struct nh_bootstrap *ret, struct nh_error *err);
    size_t (*encode_snapshot)(const struct nh_snapshot *s, uint8_t *out, size_t cap);
    int (*decode_snapshot)(const uint8_t *data, size_t size_bytes, struct nh_snapshot *ret, struct nh_error *err);
    size_t (*encode_state)(const struct nh_state *s, uint8_t *out, size_t cap);
    int (*decode_state)(const uint8_t *data, size_t size_bytes, struct nh_state *ret, struct nh_error *err);
    size_t (*encode_batch)(const struct nh_message_batch *b, uint8_t *out, size_t cap);
    /* *ret owns its messages, and they their runs: release all with free_batch. Every record is verified. */
    int (*decode_batch)(const uint8_t *data, size_t size_bytes, struct nh_message_batch **ret, struct nh_error *err);
    void (*free_batch)(struct nh_message_batch *b);
    size_t (*encode_chunk)(const struct nh_chunk *c, uint8_t *out, size_t cap);
    /* ret->data points into `data`. */
    int (*decode_chunk)(const uint8_t *data, size_t size_bytes, struct nh_chunk *ret, struct nh_error *err);
    /* since 1.0 ends here; append below */
};

/* The services of this library, for tests and for hosts that wire plugins by hand. Static storage. */
NH_API const struct nh_plugin_services *nh_plugin_services(void);

NH_END_DECLS
#endif
