/* Broken: save_snapshot reads the live state in two steps when it runs beside updates. expect: concurrency */
#include "tests/conformance/machine/sample.h"

#include <unistd.h>

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    struct sample_state s = *(struct sample_state *)ctx;
    uint64_t before = sample_copy(m).count;

    usleep(2000);
    s.count += sample_copy(m).count - before;
    return sample_save(m, &s, out, stop, err);
}

SAMPLE_PLUGIN("broken_race", ops.save_snapshot = save)
