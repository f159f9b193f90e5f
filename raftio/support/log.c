#include "raftio/support/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A longer text is cut. Escaping makes at most four bytes of one. */
#define LOG_TEXT_BYTES      1024u
#define LOG_LINE_BYTES      (4u * LOG_TEXT_BYTES + 256u)
#define LOG_COMPONENT_BYTES 32u

static int min_level = NH_LOG_INFO; /* atomic */

/* The pair must change as one; the lock is not held while the sink runs. */
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static log_sink_fn sink_fn;
static void *sink_ctx;

void log_set_level(enum nh_log_level level)
{
    __atomic_store_n(&min_level, (int)level, __ATOMIC_RELAXED);
}

bool log_enabled(enum nh_log_level level)
{
    return (int)level >= __atomic_load_n(&min_level, __ATOMIC_RELAXED);
}

void log_set_sink(log_sink_fn sink, void *ctx)
{
    pthread_mutex_lock(&sink_lock);
    sink_fn = sink;
    sink_ctx = ctx;
    pthread_mutex_unlock(&sink_lock);
}

static const char *level_name(enum nh_log_level level)
{
    switch (level) {
    case NH_LOG_DEBUG: return "debug";
    case NH_LOG_INFO: return "info";
    case NH_LOG_WARN: return "warn";
    case NH_LOG_ERROR: return "error";
    default: return "unknown";
    }
}

/* Writes `text` quoted, so that one record is one line whatever the text holds. Returns the end. */
static char *put_quoted(char *out, const char *text)
{
    *out++ = '"';
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\') {
            *out++ = '\\';
            *out++ = (char)c;
        } else if (c == '\n') {
            *out++ = '\\';
            *out++ = 'n';
        } else if (c < 0x20 || c == 0x7f) {
            *out++ = '\\';
            *out++ = 'x';
            *out++ = "0123456789abcdef"[c >> 4];
            *out++ = "0123456789abcdef"[c & 15];
        } else {
            *out++ = (char)c;
        }
    }
    *out++ = '"';
    return out;
}

static void write_stderr(enum nh_log_level level, const char *component, const char *text)
{
    char line[LOG_LINE_BYTES];
    struct timespec now;
    struct tm utc;
    size_t used;
    char *end;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    used = strftime(line, sizeof line, "time=%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ level=%s component=%.*s msg=", now.tv_nsec / 1000000,
                             level_name(level), (int)LOG_COMPONENT_BYTES, component);
    end = put_quoted(line + used, text);
    *end++ = '\n';
    while (write(STDERR_FILENO, line, (size_t)(end - line)) < 0 && errno == EINTR)
        ;
}

void log_write(enum nh_log_level level, const char *component, const char *fmt, ...)
{
    char text[LOG_TEXT_BYTES];
    int saved_errno = errno;
    log_sink_fn sink;
    va_list args;
    void *ctx;

    if (!log_enabled(level))
        return;
    va_start(args, fmt);
    if (vsnprintf(text, sizeof text, fmt, args) < 0)
        text[0] = '\0';
    va_end(args);
    pthread_mutex_lock(&sink_lock);
    sink = sink_fn;
    ctx = sink_ctx;
    pthread_mutex_unlock(&sink_lock);
    if (!component)
        component = "host";
    if (sink)
        sink(ctx, level, component, text);
    else
        write_stderr(level, component, text);
    errno = saved_errno;
}
