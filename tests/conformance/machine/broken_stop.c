/* Broken: a large snapshot goes on when the host wants to stop. expect: stop */
#include "tests/conformance/machine/sample.h"

#define ROUNDS 100u

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    static const uint8_t zeros[65536];
    int r = sample_save(m, ctx, out, stop, err);

    for (unsigned i = 0; i < ROUNDS && r == NH_OK; i++)
        r = out->write(out->ctx, zeros, sizeof zeros);
    return r;
}

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    static uint8_t image[sizeof(struct sample_state) + ROUNDS * 65536u + 1u];
    int64_t size = sample_read(in, image, sizeof image);

    (void)stop, (void)err;
    if (size != sizeof image - 1)
        return size < 0 ? (int)size : NH_ECORRUPT;
    memcpy(&m->s, image, sizeof m->s);
    return NH_OK;
}

SAMPLE_PLUGIN("broken_stop", (ops.save_snapshot = save, ops.recover = recover))
