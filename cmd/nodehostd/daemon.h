/* cmd/nodehostd/daemon.h - one host as a process: from a configuration to a running server and back.
 *
 * Clients are accepted from the beginning; until all shards are started their commands are answered with LOADING. SIGTERM and
 * SIGINT end it in order: no new clients, clients closed, host closed, exit 0.
 */
#ifndef NH_CMD_NODEHOSTD_DAEMON_H
#define NH_CMD_NODEHOSTD_DAEMON_H

#include "cmd/nodehostd/config.h"

/* Runs until a signal; returns the exit code. `plugin_dir` is absolute. */
int daemon_run(const struct config *config, const char *plugin_dir);

#endif
