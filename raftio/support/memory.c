#include "raftio/support/memory.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p, size_t size_bytes)
{
    if (!p) {
        fprintf(stderr, "out of memory: %zu bytes\n", size_bytes);
        abort();
    }
    return p;
}

void *xmalloc(size_t size_bytes)
{
    return checked(malloc(size_bytes ? size_bytes : 1), size_bytes);
}

void *xcalloc(size_t n, size_t size_bytes)
{
    return checked(calloc(n ? n : 1, size_bytes ? size_bytes : 1), size_bytes);
}

void *xrealloc(void *p, size_t size_bytes)
{
    return checked(realloc(p, size_bytes ? size_bytes : 1), size_bytes);
}

void *xmemdup(const void *p, size_t size_bytes)
{
    void *copy = xmalloc(size_bytes);

    if (size_bytes)
        memcpy(copy, p, size_bytes);
    return copy;
}

char *xstrdup(const char *s)
{
    return s ? xmemdup(s, strlen(s) + 1) : NULL;
}

static void resize(void **array, size_t *cap, size_t want, size_t elem_bytes)
{
    assert(want <= SIZE_MAX / 2 / elem_bytes);
    *array = xrealloc(*array, want * elem_bytes);
    *cap = want;
}

void array_grow(void **array, size_t *cap, size_t n, size_t elem_bytes)
{
    size_t want = *cap * 2;

    if (want < n)
        want = n;
    resize(array, cap, want < 8 ? 8 : want, elem_bytes);
}

void array_reserve_tight(void **array, size_t *cap, size_t n, size_t elem_bytes)
{
    size_t want = *cap + *cap / 2;

    if (n > *cap)
        resize(array, cap, want < n ? n : want, elem_bytes);
}
