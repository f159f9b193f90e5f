/* Broken: a result depends on the clock. expect: determinism */
#include "tests/conformance/machine/sample.h"

#include <time.h>

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    sample_update(m, entries, n, err);
    if (entries[n - 1].index % 16 == 0)
        entries[n - 1].result.value = (uint64_t)time(NULL);
    return NH_OK;
}

SAMPLE_PLUGIN("broken_clock", ops.update = update)
