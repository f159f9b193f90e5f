/* Broken: sync does nothing, the state is written when the machine is closed. expect: crash */
#include "tests/conformance/machine/sample_disk.h"

static int sync_nothing(struct nh_machine *m, struct nh_error *err)
{
    (void)m, (void)err;
    return NH_OK;
}

static void close_late(struct nh_machine *m)
{
    sample_disk_write(m, &m->s);
    sample_close(m);
}

SAMPLE_DISK_PLUGIN("broken_sync", (ops.sync = sync_nothing, ops.close = close_late))
