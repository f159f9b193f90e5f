/* engine/raft/describe_text.h - text that is cut at its capacity (the core has no stdio), for describe.c and describe_config.c.
 *
 * Zeroed but for `buf` and `cap`: empty. Threads: a text belongs to its user. Errors: none.
 */
#ifndef NH_ENGINE_RAFT_DESCRIBE_TEXT_H
#define NH_ENGINE_RAFT_DESCRIBE_TEXT_H

#include "raftio/types.h"

struct text {
    char *buf;
    size_t cap, n; /* n: of the whole text, may be above cap */
};

static inline void text_char(struct text *t, char c)
{
    if (t->n + 1 < t->cap)
        t->buf[t->n] = c;
    t->n++;
}

static inline void text_put(struct text *t, const char *s)
{
    for (; *s; s++)
        text_char(t, *s);
}

static inline void text_u64(struct text *t, uint64_t v)
{
    char digits[20];
    size_t n = 0;

    do
        digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n > 0)
        text_char(t, digits[--n]);
}

static inline void text_number(struct text *t, const char *label, uint64_t v)
{
    text_put(t, label);
    text_u64(t, v);
}

static inline void text_nonzero(struct text *t, const char *label, uint64_t v)
{
    if (v)
        text_number(t, label, v);
}

static inline void text_two(struct text *t, const char *label, uint64_t a, const char *between, uint64_t b)
{
    text_number(t, label, a);
    text_number(t, between, b);
}

static inline void text_position(struct text *t, const char *label, uint64_t index, uint64_t term)
{
    text_two(t, label, index, "/", term);
}

static inline void text_byte(struct text *t, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";

    if (c == '"' || c == '\\') {
        text_char(t, '\\');
        text_char(t, (char)c);
    } else if (c == '\n') {
        text_put(t, "\\n");
    } else if (c >= ' ' && c <= '~') {
        text_char(t, (char)c);
    } else {
        text_put(t, "\\x");
        text_char(t, hex[c >> 4]);
        text_char(t, hex[c & 15]);
    }
}

/* In quotes, at most `max` bytes of it; the dots that say so stand outside. */
static inline void text_quoted(struct text *t, const uint8_t *data, size_t n, size_t max)
{
    text_char(t, '"');
    for (size_t i = 0; i < n && i < max; i++)
        text_byte(t, data[i]);
    text_put(t, n > max ? "\"..." : "\"");
}

/* Ends the text in its buffer; returns its whole length. */
static inline size_t text_end(struct text *t)
{
    if (t->cap > 0)
        t->buf[t->n < t->cap ? t->n : t->cap - 1] = '\0';
    return t->n;
}

void raft_text_membership(struct text *t, const struct nh_membership *m);
/* The payload of a configuration change in words, with a space before them; false, and nothing, if it is not one. */
bool raft_text_change(struct text *t, const uint8_t *payload, size_t n);

#endif
