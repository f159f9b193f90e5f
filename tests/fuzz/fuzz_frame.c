/* The frame parser over any bytes, cut at a place that the first byte chooses. What it accepts must encode to the same bytes; the
 * way the stream is cut must not matter. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "transport/tcp/frame.h"

#define LIMIT (1u << 16)

struct outcome {
    unsigned n_frames;
    size_t bytes;
    enum frame_status last;
};

static void run(struct frame_parser *p, const uint8_t *data, size_t size_bytes, struct outcome *o)
{
    struct frame f;

    while ((o->last = frame_parser_next(p, &data, &size_bytes, &f)) == FRAME_READY) {
        uint8_t head[FRAME_HEADER_BYTES];
        struct frame_header h;

        FUZZ_CHECK(f.size_bytes <= LIMIT);
        frame_header_encode(head, f.type, f.payload, f.size_bytes);
        FUZZ_CHECK(frame_header_decode(head, LIMIT, &h) == FRAME_READY);
        FUZZ_CHECK(h.type == f.type && h.size_bytes == f.size_bytes);
        o->n_frames++;
        o->bytes += f.size_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct outcome whole = {0}, cut = {0};
    struct frame_parser p;
    size_t at;

    if (size_bytes < 1)
        return 0;
    at = data[0] % size_bytes;
    data++;
    size_bytes--;
    at = at < size_bytes ? at : size_bytes;
    frame_parser_init(&p, LIMIT);
    run(&p, data, size_bytes, &whole);
    frame_parser_deinit(&p);
    frame_parser_init(&p, LIMIT);
    run(&p, data, at, &cut);
    if (cut.last == FRAME_MORE)
        run(&p, data + at, size_bytes - at, &cut);
    frame_parser_deinit(&p);
    FUZZ_CHECK(whole.n_frames == cut.n_frames && whole.bytes == cut.bytes && whole.last == cut.last);
    return 0;
}
