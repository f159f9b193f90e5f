/* cmd/nhbench/noop.h - a machine that only counts its entries, so that a run measures the host and nothing else. */
#ifndef NH_CMD_NHBENCH_NOOP_H
#define NH_CMD_NHBENCH_NOOP_H

#include "nodehost/statemachine.h"

/* Any command, any query; the answer is the number of entries so far. Regular, with snapshots of eight bytes. Static storage. */
const struct nh_machine_ops *noop_machine(void);

#endif
