/* cmd/nodehostd/log.h - the daemon's own lines in the log of the library: logfmt on stderr. Threads: any. */
#ifndef NH_CMD_NODEHOSTD_LOG_H
#define NH_CMD_NODEHOSTD_LOG_H

#include "raftio/plugin.h"

#define LOG_INFO(...)  nh_plugin_services()->log(NH_LOG_INFO, "nodehostd", __VA_ARGS__)
#define LOG_WARN(...)  nh_plugin_services()->log(NH_LOG_WARN, "nodehostd", __VA_ARGS__)
#define LOG_ERROR(...) nh_plugin_services()->log(NH_LOG_ERROR, "nodehostd", __VA_ARGS__)

#endif
