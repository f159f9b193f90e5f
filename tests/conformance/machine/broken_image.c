/* Broken: it believes what an image says about sizes. expect: mangled_images */
#include "tests/conformance/machine/sample.h"

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    uint64_t size = sizeof(struct sample_state);
    int r = out->write(out->ctx, &size, sizeof size);

    return r < 0 ? r : sample_save(m, ctx, out, stop, err);
}

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint64_t size = 0;
    int64_t n = sample_read(in, &size, sizeof size);

    (void)stop, (void)err;
    if (n == sizeof size)
        memset((uint8_t *)&m->s + size, 0, 1); /* stands for a copy without bounds, but surely hits nothing that is mapped */
    n = n < 0 ? n : sample_read(in, &m->s, sizeof m->s);
    return n < 0 ? (int)n : n == sizeof m->s ? NH_OK : NH_ECORRUPT;
}

SAMPLE_PLUGIN("broken_image", (ops.save_snapshot = save, ops.recover = recover))
