/* Broken: update never returns from some entry on. expect: determinism: update has not returned */
#include "tests/conformance/machine/sample.h"

#include <unistd.h>

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    while (m->s.count > 250)
        pause();
    return sample_update(m, entries, n, err);
}

SAMPLE_PLUGIN("broken_block", ops.update = update)
