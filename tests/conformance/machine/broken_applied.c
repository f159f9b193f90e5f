/* Broken: open tells an index that is ahead of the state. expect: restart */
#include "tests/conformance/machine/sample_disk.h"

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    uint64_t index = entries[n - 1].index;
    struct sample_state before = m->s;

    before.applied = index; /* the index is on disk before the changes are */
    sample_disk_write(m, &before);
    return sample_update(m, entries, n, err);
}

static int sync_nothing(struct nh_machine *m, struct nh_error *err)
{
    (void)m, (void)err;
    return NH_OK;
}

SAMPLE_DISK_PLUGIN("broken_applied", (ops.update = update, ops.sync = sync_nothing))
