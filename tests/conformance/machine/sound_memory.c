/* The sample, which takes large batches in parts: the kit accepts it, so what it says of the broken ones is about what is broken
 * in them. */
#include "tests/conformance/machine/sample.h"

#define TAKEN_MAX 5u

static int update_some(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    size_t taken = n < TAKEN_MAX ? n : TAKEN_MAX;

    sample_update(m, entries, taken, err);
    return taken < n ? (int)taken : NH_OK;
}

SAMPLE_PLUGIN("sound_memory", ops.update = update_some; ops.flags |= NH_MACHINE_IN_PARTS)
