/* cmd/nhbench/run.h - one measured run: three hosts, load, and what came of it. Threads: one. */
#ifndef NH_CMD_NHBENCH_RUN_H
#define NH_CMD_NHBENCH_RUN_H

#include "cmd/nhbench/cluster.h"
#include "cmd/nhbench/limit.h"

/* From the start of the first process. */
struct run_start {
    uint64_t started_ns; /* all replicas run */
    uint64_t lead_ns;    /* all shards are led where they should be */
};

struct run {
    struct said_started started[BENCH_HOSTS];
    struct said_report reports[BENCH_HOSTS];
    struct run_start start, restart; /* the latter with --restart */
    double seconds;                  /* measured */
    /* Sums. */
    struct load_result load;
    struct sample used;
    uint32_t leads;
    struct limit limits[LIMIT_KINDS]; /* --limit */
};

/* Starts a cluster, which must be initialized and is not stopped at the end, and loads it. False: a message is on stderr. */
bool run_once(struct cluster *c, struct run *ret);
/* `nhbench run`; returns the exit code. */
int run_main(const struct bench_options *o);

#endif
