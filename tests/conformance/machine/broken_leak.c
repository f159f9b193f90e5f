/* Broken: close forgets memory. expect with a sanitizer that finds leaks: lifecycle */
#include "tests/conformance/machine/sample.h"

static void close_and_forget(struct nh_machine *m)
{
    pthread_mutex_destroy(&m->lock);
}

SAMPLE_PLUGIN("broken_leak", ops.close = close_and_forget)
