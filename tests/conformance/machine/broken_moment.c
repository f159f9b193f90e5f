/* Broken: the context is the live state, so a snapshot is of the moment at which it is written. expect: snapshot_moment */
#include "tests/conformance/machine/sample.h"

static int prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    (void)err;
    *ret_ctx = &m->s;
    return NH_OK;
}

static void release(struct nh_machine *m, void *ctx)
{
    (void)m, (void)ctx;
}

SAMPLE_PLUGIN("broken_moment", (ops.prepare_snapshot = prepare, ops.release_snapshot = release))
