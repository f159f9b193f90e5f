/* cmd/nhbench/plot.h - `nhbench plot`: series of runs as charts.
 *
 *     latency-throughput.svg   writes (or all requests) per second and their latency, over --in-flights
 *     shards-throughput.svg    requests per second over --shard-counts
 *
 * Every point is a whole run with hosts of its own; all other options are those of a run. */
#ifndef NH_CMD_NHBENCH_PLOT_H
#define NH_CMD_NHBENCH_PLOT_H

#include "cmd/nhbench/options.h"

/* Returns the exit code. */
int plot_main(const struct bench_options *o);

#endif
