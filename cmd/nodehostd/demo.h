/* cmd/nodehostd/demo.h - `nodehostd demo`: three hosts on this machine, to try things on.
 *
 * Each host is a process of its own, `nodehostd --config DIR/host-N.yaml`, on free ports of the loopback interface, with its log
 * in DIR/host-N.log. When every shard has a leader on every host, DIR/cluster.env is written whole, with lines
 * REDIS_PORT_n=, PID_n=, CONFIG_n= for n = 1 .. 3, and the addresses are printed. A host that dies is reported, the others go on;
 * Ctrl-C or SIGTERM stops them all. A directory that was made up is removed at the end, unless it is to be kept.
 */
#ifndef NH_CMD_NODEHOSTD_DEMO_H
#define NH_CMD_NODEHOSTD_DEMO_H

#include <stdbool.h>

#define DEMO_SHARDS_DEFAULT 64u

struct demo_options {
    unsigned shards;        /* 1 .. 16,384 */
    const char *dir;        /* NULL: a temporary one */
    bool keep;              /* do not remove a temporary one */
    const char *plugin_dir; /* NULL: the default of the hosts */
    const char *program;    /* path of nodehostd */
};

/* Returns the exit code. */
int demo_run(const struct demo_options *options);

#endif
