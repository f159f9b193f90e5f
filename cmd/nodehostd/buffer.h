/* cmd/nodehostd/buffer.h - a growable array of bytes. Zeroed = empty. Threads: one owner. */
#ifndef NH_CMD_NODEHOSTD_BUFFER_H
#define NH_CMD_NODEHOSTD_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *data;
    size_t size, cap;
};

void *must_alloc(void *p); /* ends the process when memory is out; gives `p` back */

void buffer_deinit(struct buffer *b);
/* Room for `n` more bytes; returns where they go. */
char *buffer_reserve(struct buffer *b, size_t n);
void buffer_add(struct buffer *b, const void *data, size_t size);
void buffer_add_text(struct buffer *b, const char *text);
void buffer_printf(struct buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first `n` bytes. */
void buffer_consume(struct buffer *b, size_t n);

#endif
