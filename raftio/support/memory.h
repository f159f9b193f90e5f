/* raftio/support/memory.h - allocation that cannot fail.
 *
 * Small fixed objects end the process when memory is out (there is nothing safer to do); whatever is sized by wire, disk
 * or user is bounded before it gets here.
 */
#ifndef NH_RAFTIO_SUPPORT_MEMORY_H
#define NH_RAFTIO_SUPPORT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

void *xmalloc(size_t size_bytes);
void *xcalloc(size_t n, size_t size_bytes); /* zeroed */
void *xrealloc(void *p, size_t size_bytes);
void *xmemdup(const void *p, size_t size_bytes);
char *xstrdup(const char *s); /* NULL stays NULL */

void array_grow(void **array, size_t *cap, size_t n, size_t elem_bytes); /* for array_reserve */
/* Grows `*array` of `elem_bytes` elements so that at least `n` fit (doubling, at least 8). */
static inline void array_reserve(void **array, size_t *cap, size_t n, size_t elem_bytes)
{
    if (n > *cap)
        array_grow(array, cap, n, elem_bytes);
}
/* The same for what each of thousands of replicas keeps a few of for long (by a half, no more than `n` at first). */
void array_reserve_tight(void **array, size_t *cap, size_t n, size_t elem_bytes);

/* Asks for these bytes to be brought into the processor's cache, for what is touched a few hundred nanoseconds from now. Any
 * address will do. A size that is known takes an instruction per line. */
static inline void prefetch(const void *p, size_t size_bytes)
{
    const uintptr_t at = (uintptr_t)p, line = 64;

    __asm__ volatile(""); /* or GCC takes a function that does nothing else for one without effect, and drops its calls */
    for (uintptr_t i = 0; i + 1 < size_bytes; i += line)
        __builtin_prefetch((const void *)(at + i), 1);
    __builtin_prefetch((const void *)(at + size_bytes - 1), 1); /* it need not begin with a line */
}

/* For a function that reads, without its lock, what another thread may be writing, only to prefetch where it points: of an old
 * pointer nothing comes but a useless request. */
#define NH_PEEKS __attribute__((no_sanitize("thread")))

#endif
