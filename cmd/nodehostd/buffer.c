#include "cmd/nodehostd/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP_MIN 256u

void *must_alloc(void *p)
{
    if (!p) {
        fputs("nodehostd: out of memory\n", stderr);
        abort();
    }
    return p;
}

void buffer_deinit(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){0};
}

char *buffer_reserve(struct buffer *b, size_t n)
{
    if (b->cap - b->size < n) {
        size_t cap = b->cap * 2 > b->size + n ? b->cap * 2 : b->size + n;

        b->cap = cap > CAP_MIN ? cap : CAP_MIN;
        b->data = must_alloc(realloc(b->data, b->cap));
    }
    return b->data + b->size;
}

void buffer_add(struct buffer *b, const void *data, size_t size)
{
    if (size == 0)
        return;
    memcpy(buffer_reserve(b, size), data, size);
    b->size += size;
}

void buffer_add_text(struct buffer *b, const char *text)
{
    buffer_add(b, text, strlen(text));
}

void buffer_printf(struct buffer *b, const char *fmt, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0) {
        vsnprintf(buffer_reserve(b, (size_t)n + 1), (size_t)n + 1, fmt, again);
        b->size += (size_t)n;
    }
    va_end(again);
}

void buffer_consume(struct buffer *b, size_t n)
{
    b->size -= n;
    if (b->size && n)
        memmove(b->data, b->data + n, b->size);
}
