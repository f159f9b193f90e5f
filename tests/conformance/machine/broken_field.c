/* Broken: the image lacks a field. expect: snapshot_round_trip */
#include "tests/conformance/machine/sample.h"

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    struct sample_state s = *(struct sample_state *)ctx;

    s.count = 0;
    return sample_save(m, &s, out, stop, err);
}

SAMPLE_PLUGIN("broken_field", ops.save_snapshot = save)
