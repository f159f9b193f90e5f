/* Broken: it does not look whether its writer failed. expect: writer_errors */
#include "tests/conformance/machine/sample.h"

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    sample_save(m, ctx, out, stop, err);
    return NH_OK;
}

SAMPLE_PLUGIN("broken_writer", ops.save_snapshot = save)
