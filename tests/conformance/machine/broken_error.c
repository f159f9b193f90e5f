/* Broken: a command that it does not understand is a failure. expect: errors_are_results */
#include "tests/conformance/machine/sample.h"

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (entries[i].size_bytes == 1)
            return NH_EINVAL;
    return sample_update(m, entries, n, err);
}

SAMPLE_PLUGIN("broken_error", ops.update = update)
