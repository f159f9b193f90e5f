/* raftio/support/plugin_status.h - what a function of a plugin has returned.
 *
 * Codes are 0 or negative. A plugin that returns a positive number, an errno for example, means a failure by it; taken for
 * success it would make an entry durable that no disk has, or an image whole that is not. Threads: any.
 */
#ifndef NH_RAFTIO_SUPPORT_PLUGIN_STATUS_H
#define NH_RAFTIO_SUPPORT_PLUGIN_STATUS_H

#include "raftio/status.h"

/* `rc`, or NH_EABI for a positive one. */
static inline int plugin_status(int rc, const char *function, struct nh_error *err)
{
    return rc <= 0 ? rc : nh_error_set(err, NH_EABI, "%s returned %d, which is no status: 0, or a negative code", function, rc);
}

/* The same of a call whose NH_ENOTFOUND is an answer: *err, which is filled on failure only, gets `cause` for every other one. */
static inline int plugin_found(int rc, const char *function, const struct nh_error *cause, struct nh_error *err)
{
    if (rc != NH_OK && rc != NH_ENOTFOUND && err)
        *err = *cause;
    return plugin_status(rc, function, err);
}

/* A failure that the plugin has given no text for gets that of its code. */
static inline const char *plugin_reason(const struct nh_error *err, int rc)
{
    return err->text[0] ? err->text : nh_status_text(rc);
}

#endif
