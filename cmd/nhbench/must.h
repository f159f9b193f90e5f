/* cmd/nhbench/must.h - ends the program where a benchmark cannot go on: without memory, or with an error that it has said. */
#ifndef NH_CMD_NHBENCH_MUST_H
#define NH_CMD_NHBENCH_MUST_H

#include <stdio.h>
#include <stdlib.h>

static inline void *must(void *p)
{
    if (!p) {
        fputs("nhbench: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

#endif
