/* The sample on disk as it is. */
#include "tests/conformance/machine/sample_disk.h"

SAMPLE_DISK_PLUGIN("sound_disk", (void)0)
