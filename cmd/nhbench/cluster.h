/* cmd/nhbench/cluster.h - three hosts as processes: free ports, directories, start, words, end.
 *
 * Hosts die with this process. Every function that waits for hosts ends with false, and a message on stderr, when one of them
 * fails. Threads: one.
 */
#ifndef NH_CMD_NHBENCH_CLUSTER_H
#define NH_CMD_NHBENCH_CLUSTER_H

#include <limits.h>
#include <sys/types.h>

#include "cmd/nhbench/channel.h"
#include "cmd/nhbench/options.h"

struct cluster {
    const struct bench_options *options;
    char program[PATH_MAX], dir[PATH_MAX];
    bool is_temporary; /* the directory is ours */
    char addresses[BENCH_HOSTS * 32];
    pid_t pids[BENCH_HOSTS]; /* 0: does not run */
    int channels[BENCH_HOSTS];
    bool unclean; /* a host has failed */
};

/* Makes the directory and finds ports; nothing runs yet. */
bool cluster_init(struct cluster *c, const struct bench_options *o);
/* Starts the three processes; they open their hosts. With the same directory again: a restart. */
bool cluster_start(struct cluster *c);
/* The next word of host i must be `what`; progress on the way there is skipped. */
bool cluster_await(struct cluster *c, uint32_t i, enum said what, union channel_words *ret);
bool cluster_say(struct cluster *c, enum said what, const void *data, size_t size_bytes);
/* LEAD, and waits until every shard is led where it should be. */
bool cluster_lead(struct cluster *c);
/* kill -9, all at once. */
void cluster_kill(struct cluster *c);
/* Asks the hosts to end, then makes them. False if one of them had to be made, or failed. */
bool cluster_stop(struct cluster *c);
/* Stops them, and removes what they wrote. */
void cluster_deinit(struct cluster *c);
/* Removes everything in a directory; the directory itself too if with_itself. */
void remove_tree(const char *path, bool with_itself);

#endif
