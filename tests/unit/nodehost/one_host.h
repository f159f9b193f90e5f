/* tests/unit/nodehost/one_host.h - a host with shards of one replica, in a directory of its own: log store in memory (it outlives
 * the host), no network. For tests of the library's face. Failures end the test. */
#ifndef NH_TESTS_UNIT_NODEHOST_ONE_HOST_H
#define NH_TESTS_UNIT_NODEHOST_ONE_HOST_H

#include "tests/unit/nodehost/machines.h"

#define ONE_MS 10000u

extern char one_dir[64], one_data[96];
extern struct nh_host *one_host;
extern struct nh_error one_err;
extern struct nh_reply one_reply; /* of the last request */

struct nh_host_config one_host_config(void);
/* Shard 1, replica 1, as a new shard. */
struct nh_replica_config one_replica_config(const struct nh_machine_ops *machine);

void one_setup(void); /* makes the directory, opens nothing */
void one_teardown(void);
void one_open(void);
void one_close(void);
/* With the configuration; waits for its leader. */
void one_start(const struct nh_replica_config *c);
/* Proposes to shard 1 until it is COMPLETED. */
void one_propose(const char *cmd);
uint64_t one_sum(void);
struct nh_shard_info one_info(void);
/* Until the condition holds; else the test fails. */
#define ONE_AWAIT(condition)                                       \
    do {                                                           \
        int tries_ = 0;                                            \
        while (!(condition) && tries_++ < 2000)                    \
            usleep(5000);                                          \
        cr_assert(condition, "%s did not come about", #condition); \
    } while (0)

#endif
