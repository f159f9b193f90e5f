/* Broken: a recover that is interrupted leaves a part of the new state with the old index. expect: crash_in_recover */
#include "tests/conformance/machine/sample_disk.h"

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    struct sample_state fresh = {.applied = m->s.applied};
    int64_t n = sample_read(in, &fresh.sum, sizeof fresh.sum);

    (void)stop, (void)err;
    sample_disk_write(m, &fresh);
    n = n < 0 ? n : sample_read(in, &fresh.count, sizeof fresh - sizeof fresh.sum);
    if (n != sizeof fresh - sizeof fresh.sum)
        return n < 0 ? (int)n : NH_ECORRUPT;
    m->s = fresh;
    return NH_OK;
}

SAMPLE_DISK_PLUGIN("broken_recover", ops.recover = recover)
