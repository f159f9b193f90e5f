/* Broken: a concurrent machine without release_snapshot. expect: acceptance */
#include "tests/conformance/machine/sample.h"

SAMPLE_PLUGIN("broken_table", ops.release_snapshot = NULL)
