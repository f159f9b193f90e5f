/* cmd/nodehostd/resp.h - the Redis protocol as bytes: requests in, replies out. No sockets.
 *
 * A request is an array of bulk strings ("*2\r\n$3\r\nGET\r\n$1\r\na\r\n") or an inline line of words ("GET a\r\n", words may be
 * quoted as in a shell). Arguments are slices of the buffer that was parsed: nothing is copied, except that the words of an
 * inline line are unquoted in place.
 *
 * Limits are checked before anything is taken for them; a request that breaks one is a protocol error, after which the connection
 * can only be closed, as the place where the next request begins is not known.
 *
 * Replies have two forms, RESP2 and RESP3 (after HELLO 3); the writer takes the version. Threads: one owner.
 */
#ifndef NH_CMD_NODEHOSTD_RESP_H
#define NH_CMD_NODEHOSTD_RESP_H

#include "cmd/machines/kv_command.h"
#include "cmd/nodehostd/buffer.h"

#define RESP_ARGS_MAX          65536u             /* of one request */
#define RESP_BULK_BYTES_MAX    KV_VALUE_BYTES_MAX /* one argument */
#define RESP_REQUEST_BYTES_MAX (48u << 20)        /* all arguments together: fits into an entry */
#define RESP_INLINE_BYTES_MAX  65536u             /* an inline line, and any line of the protocol */

enum resp_status {
    RESP_REQUEST, /* one request; *ret_bytes were used */
    RESP_EMPTY,   /* an empty line or array: nothing to do; *ret_bytes were used */
    RESP_MORE,    /* not whole yet */
    RESP_ERROR,   /* parser.error is the text of the reply; close the connection */
};

/* Remembers how far it came, so that a request that arrives in many pieces is not scanned from its beginning each time. */
struct resp_parser {
    struct kv_slice *args;
    uint32_t n_args, cap_args;
    int64_t n_expected; /* arguments of the array; -1: none is being read */
    size_t at;          /* parsed up to here */
    size_t arg_bytes;
    uint32_t *offsets; /* of the arguments so far: the buffer may move between calls */
    uint32_t *sizes;
    uint32_t cap_offsets;
    const char *error;
};

void resp_parser_init(struct resp_parser *p);
void resp_parser_deinit(struct resp_parser *p);
/* Looks for one request at the beginning of `data`. With RESP_MORE it is to be called again with the same bytes and more behind
 * them; with RESP_REQUEST p->args are valid as long as the buffer. */
enum resp_status resp_parse(struct resp_parser *p, char *data, size_t size_bytes, size_t *ret_bytes);

/* The request that was parsed last lies at `data` now: sets p->args anew. It must not be parsed twice, as words of an inline line
 * are unquoted in place. */
void resp_resolve(struct resp_parser *p, const char *data);

/* ---- replies; `resp` is 2 or 3 ---- */

void reply_simple(struct buffer *b, const char *text);
/* `text` without the minus: "ERR no". Line breaks become spaces. */
void reply_error(struct buffer *b, const char *text);
void reply_errorf(struct buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void reply_integer(struct buffer *b, int64_t n);
void reply_bulk(struct buffer *b, const void *data, size_t size);
void reply_text(struct buffer *b, const char *text); /* a bulk string */
void reply_null(struct buffer *b, int resp);
void reply_null_array(struct buffer *b, int resp);
void reply_array(struct buffer *b, size_t n);         /* n elements follow */
void reply_map(struct buffer *b, int resp, size_t n); /* n pairs follow */
void reply_set(struct buffer *b, int resp, size_t n); /* n elements follow */
/* Text for people: a verbatim string in RESP3. */
void reply_verbatim(struct buffer *b, int resp, const char *text, size_t size);

#endif
