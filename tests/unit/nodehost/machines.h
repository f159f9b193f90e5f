/* tests/unit/nodehost/machines.h - machines for tests of hosts: a regular one and an on-disk one. Both add up numbers. */
#ifndef NH_TESTS_UNIT_NODEHOST_MACHINES_H
#define NH_TESTS_UNIT_NODEHOST_MACHINES_H

#include "nodehost/nodehost.h"

/* A command is a decimal number, "fail" a failure; the result is the sum, as a number and as text. Has snapshots. */
extern const struct nh_machine_ops sum_machine;
/* The same, in a file "sum" of its own directory that is written with each update. */
extern const struct nh_machine_ops disk_sum_machine;

/* Updates of all instances, and entries in them, since the start of the process. */
extern uint32_t sum_entries;

#endif
