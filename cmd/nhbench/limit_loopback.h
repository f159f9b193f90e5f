/* cmd/nhbench/limit_loopback.h - frames between two threads over TCP on 127.0.0.1. */
#ifndef NH_CMD_NHBENCH_LIMIT_LOOPBACK_H
#define NH_CMD_NHBENCH_LIMIT_LOOPBACK_H

#include "cmd/nhbench/limit.h"

/* One write per frame; counts what was sent and received. False: a message is on stderr. */
bool limit_loopback(const struct limit_shape *shape, double seconds, struct limit *ret);

#endif
