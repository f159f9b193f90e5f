/* nhbench: how fast NodeHost is here, and how fast it could be. */
#include "cmd/nhbench/options.h"

#include <stdio.h>
#include <string.h>

#include "cmd/nhbench/guard.h"
#include "cmd/nhbench/host.h"
#include "cmd/nhbench/idle.h"
#include "cmd/nhbench/plot.h"
#include "cmd/nhbench/remote.h"
#include "cmd/nhbench/run.h"

static const struct {
    const char *name;
    int (*run)(const struct bench_options *o);
} commands[] = {{"run", run_main},   {"idle", idle_main},   {"remote", remote_main},
                {"plot", plot_main}, {"guard", guard_main}, {"host", host_main}};

int main(int argc, char **argv)
{
    struct bench_options options;

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(bench_usage, stdout);
        return 0;
    }
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return options_parse(argc, argv, 2, &options) ? commands[i].run(&options) : 2;
    fprintf(stderr, "nhbench: %s\nSee: nhbench --help\n", argc > 1 ? "unknown command" : "a command is missing");
    return 2;
}
