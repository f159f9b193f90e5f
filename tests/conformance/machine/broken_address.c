/* Broken: an image has an address in it, so replicas write different ones. expect: determinism */
#include "tests/conformance/machine/sample.h"

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    int r = sample_save(m, ctx, out, stop, err);

    return r < 0 ? r : out->write(out->ctx, &ctx, sizeof ctx);
}

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint8_t image[sizeof(struct sample_state) + sizeof(void *)];
    int64_t size = sample_read(in, image, sizeof image);

    (void)stop, (void)err;
    if (size != sizeof image)
        return size < 0 ? (int)size : NH_ECORRUPT;
    memcpy(&m->s, image, sizeof m->s);
    return NH_OK;
}

SAMPLE_PLUGIN("broken_address", (ops.save_snapshot = save, ops.recover = recover))
