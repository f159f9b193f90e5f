/* cmd/nhbench/guard.h - `nhbench guard`: is this build slower than an older commit?
 *
 * Builds the other commit for release in a temporary directory of the current one, then runs `nhbench run` of both by turns, as
 * neighbours on a machine change within minutes, and compares each pair. The median of the pairs' ratios decides: below --below
 * in requests per second or per CPU second is a regression. Needs git, meson and ninja. Threads: one.
 */
#ifndef NH_CMD_NHBENCH_GUARD_H
#define NH_CMD_NHBENCH_GUARD_H

#include "cmd/nhbench/options.h"

#define GUARD_ROUNDS_MAX 99u

/* Returns the exit code: 0, 1 for a regression, 2 if it cannot be told; then a message is on stderr. */
int guard_main(const struct bench_options *o);
/* The number behind "name": in a result of --json; false if it is not there. */
bool guard_find(const char *json, const char *name, double *ret);
/* The median of 1 to GUARD_ROUNDS_MAX numbers, which are sorted. */
double guard_median(double *values, uint32_t n);

#endif
