/* Broken: it keeps a pointer to a command. expect: borrowed_memory */
#include "tests/conformance/machine/sample.h"

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (m->borrowed_bytes > 0) /* as if it were an index over what it has seen */
            m->s.sum += *(const uint8_t *)m->borrowed;
        m->borrowed = entries[i].cmd;
        m->borrowed_bytes = entries[i].size_bytes;
        sample_update(m, &entries[i], 1, err);
    }
    return NH_OK;
}

SAMPLE_PLUGIN("broken_borrow", (ops.update = update, ops.save_snapshot = NULL, ops.recover = NULL, ops.prepare_snapshot = NULL,
                                ops.release_snapshot = NULL, ops.kind = NH_MACHINE_REGULAR))
