/* The sample as it is: the kit accepts it, so what it says of the broken ones is about what is broken in them. */
#include "tests/conformance/machine/sample.h"

SAMPLE_PLUGIN("sound_memory", (void)0)
