/* cmd/nodehostd/demo.h - `nodehostd demo`: three hosts on this machine, to try things on.
 *
 * Each host is a process of its own, `nodehostd --config DIR/host-N.yaml`, on free ports of the loopback interface, with its log
 * in DIR/host-N.log. If DIR/host-1.yaml is there already, the hosts that are there run again, with their ports and data. When
 * every shard has a leader on every host, DIR/cluster.env is written whole, with lines REDIS_PORT_n=, PID_n=, CONFIG_n= for n = 1
 * .. 3, and the addresses are printed. A host that dies is reported, the others go on; Ctrl-C or SIGTERM stops them all, and
 * cluster.env is removed. A directory that was made up is removed at the end, unless it is to be kept.
 */
#ifndef NH_CMD_NODEHOSTD_DEMO_H
#define NH_CMD_NODEHOSTD_DEMO_H

#include <stdbool.h>

#define DEMO_SHARDS_DEFAULT 64u

struct demo_options {
    unsigned shards;        /* 1 .. 16,384; 0: those that the directory has, else DEMO_SHARDS_DEFAULT */
    const char *dir;        /* NULL: a temporary one */
    bool keep;              /* do not remove a temporary one */
    const char *plugin_dir; /* NULL: the default of the hosts */
    const char *program;    /* path of nodehostd */
};

/* Returns the exit code. */
int demo_run(const struct demo_options *options);

#endif
