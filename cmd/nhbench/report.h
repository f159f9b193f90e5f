/* cmd/nhbench/report.h - prints a run on stdout, for people or for programs. */
#ifndef NH_CMD_NHBENCH_REPORT_H
#define NH_CMD_NHBENCH_REPORT_H

#include "cmd/nhbench/run.h"

void report_table(const struct bench_options *o, const struct run *r);
void report_json(const struct bench_options *o, const struct run *r);
/* A line; nothing if there are none. */
void report_table_latencies(const char *label, const struct latencies *l);
/* A member of an object, with a comma behind it. */
void report_json_latencies(const char *name, const struct latencies *l);

#endif
