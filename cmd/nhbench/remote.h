/* cmd/nhbench/remote.h - `nhbench remote`: load on a running cluster through the Redis protocol.
 *
 * --clients connections are dealt to --hosts in turn, each with --pipeline commands under way: SET of a random key of --keys to
 * --payload bytes, or GET. A client sends as many commands as it has got replies, in one write. Latencies run from the write to
 * the read that brought the reply's end. */
#ifndef NH_CMD_NHBENCH_REMOTE_H
#define NH_CMD_NHBENCH_REMOTE_H

#include "cmd/nhbench/options.h"

/* Returns the exit code. */
int remote_main(const struct bench_options *o);

#endif
