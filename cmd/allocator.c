/* The memory allocator of the programs here, compiled into each of them if they are built with jemalloc (meson_options.txt).
 *
 * A host with thousands of active shards frees small things on other threads than took them, all the time; glibc pays for that
 * with a fifth of its throughput (docs/PERFORMANCE.md). The library leaves the choice to its program, so it is made here. RocksDB
 * and machines from shared objects come along.
 *
 * jemalloc reads this text at start; whoever runs the program adds to it by MALLOC_CONF in the environment.
 *   background_thread, muzzy_decay_ms
 *                      what start and load have freed goes back to the system, also from threads that fell silent
 *   lg_tcache_max      blocks of entries, up to 64 KiB, pass between threads without the arenas' locks
 *   tcache_nslots_...  but a dozen threads do not each keep much: it counts per idle shard
 */
#include <stddef.h>

__attribute__((visibility("default"))) const char *malloc_conf =
    "background_thread:true,muzzy_decay_ms:0,lg_tcache_max:16,tcache_nslots_large:4,tcache_nslots_small_max:64";

/* A symbol of jemalloc's own. With link-time optimization the linker chooses its libraries before it sees that malloc is called,
 * and would leave this one out. */
int mallctl(const char *name, void *old, size_t *old_bytes, void *value, size_t value_bytes);
__attribute__((used)) static int (*const needs_jemalloc)(const char *, void *, size_t *, void *, size_t) = mallctl;
