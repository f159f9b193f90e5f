/* cmd/nhbench/idle.h - `nhbench idle`: what many shards cost when nothing happens, and how long they take to start and to
 * restart. */
#ifndef NH_CMD_NHBENCH_IDLE_H
#define NH_CMD_NHBENCH_IDLE_H

#include "cmd/nhbench/options.h"

/* Returns the exit code. */
int idle_main(const struct bench_options *o);

#endif
