/* Broken: the bytes of a result change when somebody looks. expect: results_stay */
#include "tests/conformance/machine/sample.h"

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    sample_update(m, entries, n, err);
    for (size_t i = 0; i < n; i++)
        entries[i].result.data = m->dir, entries[i].result.size_bytes = 8; /* one buffer for all answers */
    return NH_OK;
}

static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    m->dir[0]++;
    return sample_lookup(m, query, size_bytes, out, ret_value, err);
}

SAMPLE_PLUGIN("broken_result", (ops.update = update, ops.lookup = lookup))
