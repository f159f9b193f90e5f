/* raftio/support/log.h - the host's log: logfmt lines on stderr, or into a user's function.
 *
 *     time=2026-11-21T01:40:02.123Z level=info component=engine msg="shard 7: replica 1 is leader of term 3"
 *
 * Library code either returns an error or logs it, never both: the top function of a thread logs, once. Not for hot paths.
 * Threads: any.
 */
#ifndef NH_RAFTIO_SUPPORT_LOG_H
#define NH_RAFTIO_SUPPORT_LOG_H

#include "raftio/plugin.h"

typedef void (*log_sink_fn)(void *ctx, enum nh_log_level level, const char *component, const char *text);

/* Lines below `level` are not formatted. Default: NH_LOG_INFO to stderr. */
void log_set_level(enum nh_log_level level);
/* NULL: back to stderr. */
void log_set_sink(log_sink_fn sink, void *ctx);
bool log_enabled(enum nh_log_level level);
void log_write(enum nh_log_level level, const char *component, const char *fmt, ...) NH_PRINTF(3, 4);

#define LOG_DEBUG(...) (log_enabled(NH_LOG_DEBUG) ? log_write(NH_LOG_DEBUG, LOG_COMPONENT, __VA_ARGS__) : (void)0)
#define LOG_INFO(...)  log_write(NH_LOG_INFO, LOG_COMPONENT, __VA_ARGS__)
#define LOG_WARN(...)  log_write(NH_LOG_WARN, LOG_COMPONENT, __VA_ARGS__)
#define LOG_ERROR(...) log_write(NH_LOG_ERROR, LOG_COMPONENT, __VA_ARGS__)

#endif
