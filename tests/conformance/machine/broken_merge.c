/* Broken: recover adds to what is there instead of replacing it. expect: snapshot_round_trip */
#include "tests/conformance/machine/sample.h"

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint64_t before = m->s.count;
    int r = sample_recover(m, in, stop, err);

    m->s.count += before;
    return r;
}

SAMPLE_PLUGIN("broken_merge", ops.recover = recover)
