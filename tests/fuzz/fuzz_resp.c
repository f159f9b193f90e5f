/* The request parser over any bytes, whole and cut at a place that the first byte chooses. Where the stream is cut must not
 * matter; arguments lie inside the input; limits hold. */
#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/resp.h"
#include "tests/fuzz/fuzz.h"

struct outcome {
    unsigned n_requests, n_args;
    size_t bytes;
    enum resp_status last;
};

static void check_args(const struct resp_parser *p, const char *data, size_t size_bytes, struct outcome *o)
{
    FUZZ_CHECK(p->n_args > 0 && p->n_args <= RESP_ARGS_MAX);
    for (uint32_t i = 0; i < p->n_args; i++) {
        const char *arg = (const char *)p->args[i].data;

        FUZZ_CHECK(arg >= data && arg + p->args[i].size <= data + size_bytes);
        FUZZ_CHECK(p->args[i].size <= RESP_BULK_BYTES_MAX);
        o->bytes += p->args[i].size;
    }
    o->n_requests++;
    o->n_args += p->n_args;
}

/* Parses what is there up to `end`; returns how much was used. */
static size_t run(struct resp_parser *p, char *data, size_t at, size_t end, struct outcome *o)
{
    for (;;) {
        size_t used = 0;

        o->last = resp_parse(p, data + at, end - at, &used);
        if (o->last == RESP_REQUEST)
            check_args(p, data + at, end - at, o);
        else if (o->last != RESP_EMPTY)
            return at;
        FUZZ_CHECK(used > 0 && used <= end - at);
        at += used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct outcome whole = {0}, cut = {0};
    struct resp_parser p;
    char *copy;
    size_t at, middle;

    if (size_bytes < 1)
        return 0;
    middle = data[0];
    data++;
    size_bytes--;
    middle = middle < size_bytes ? middle : size_bytes;
    copy = malloc(size_bytes + 1);
    FUZZ_CHECK(copy);
    memcpy(copy, data, size_bytes);
    resp_parser_init(&p);
    run(&p, copy, 0, size_bytes, &whole);
    resp_parser_deinit(&p);
    memcpy(copy, data, size_bytes); /* words of inline lines are unquoted in place */
    resp_parser_init(&p);
    at = run(&p, copy, 0, middle, &cut);
    if (cut.last == RESP_MORE)
        run(&p, copy, at, size_bytes, &cut);
    resp_parser_deinit(&p);
    FUZZ_CHECK(whole.n_requests == cut.n_requests && whole.n_args == cut.n_args && whole.bytes == cut.bytes &&
               whole.last == cut.last);
    free(copy);
    return 0;
}
