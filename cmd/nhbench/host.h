/* cmd/nhbench/host.h - one of the three hosts, as a process of its own that its parent commands (cmd/nhbench/channel.h). */
#ifndef NH_CMD_NHBENCH_HOST_H
#define NH_CMD_NHBENCH_HOST_H

#include "cmd/nhbench/options.h"

/* Runs until the parent says QUIT or is gone; returns the exit code. */
int host_main(const struct bench_options *o);

#endif
