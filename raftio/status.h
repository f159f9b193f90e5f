/* raftio/status.h - status codes, error records, and the macros every public header starts from.
 *
 * A function that can fail returns `int`: 0 (NH_OK) or one of the negative NH_E* codes below. An outcome that the
 * caller must handle anyway (a request that was dropped, a vote that was refused) is an enum of its own, never a code.
 *
 * `struct nh_error *err` is always the last parameter. It may be NULL. It is written on failure only, and each layer
 * on the way up prefixes its own words, so that the text reads "outer: inner: cause":
 *
 *     save shard 7: write batch: No space left on device
 *
 * Threads: everything here is pure and may be called from any thread.
 */
#ifndef NH_RAFTIO_STATUS_H
#define NH_RAFTIO_STATUS_H

#include <stdarg.h>
#include <stdint.h>

#ifdef __cplusplus
#define NH_BEGIN_DECLS extern "C" {
#define NH_END_DECLS   }
#else
#define NH_BEGIN_DECLS
#define NH_END_DECLS
#endif

/* Marks what libnodehost.so exports; the library is built with hidden visibility. */
#if defined(__GNUC__)
#define NH_API                __attribute__((visibility("default")))
#define NH_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define NH_MUST_USE           __attribute__((warn_unused_result))
#else
#define NH_API
#define NH_PRINTF(fmt, first)
#define NH_MUST_USE
#endif

NH_BEGIN_DECLS

/* The one list of codes. Numbers are appended, never reused. */
#define NH_STATUS_MAP(X)                                                                  \
    X(EINVAL, -1, "invalid argument")                                                     \
    X(EIO, -2, "storage or network I/O failed")                                           \
    X(EBUSY, -3, "busy: a limit is reached, retry later")                                 \
    X(ENOMEM, -4, "out of memory")                                                        \
    X(ENOTFOUND, -5, "not found")                                                         \
    X(EEXIST, -6, "already exists")                                                       \
    X(ETIMEOUT, -7, "timed out: the outcome is unknown")                                  \
    X(EDROPPED, -8, "dropped: surely not applied, safe to retry")                         \
    X(EREJECTED, -9, "rejected")                                                          \
    X(ECLOSED, -10, "closed or being closed")                                             \
    X(ETOOBIG, -11, "too big")                                                            \
    X(ECORRUPT, -12, "corrupt data")                                                      \
    X(EMISMATCH, -13, "does not match what is stored or configured")                      \
    X(EABI, -14, "incompatible plugin ABI")                                               \
    X(EUNSUPPORTED, -15, "not supported")                                                 \
    X(ELOCKED, -16, "in use by another process")                                          \
    X(ENOTREADY, -17, "not ready yet")                                                    \
    X(EREMOVED, -18, "this replica was removed from its shard")                           \
    X(EDEADLOCK, -19, "a blocking call from a thread that must not block")                \
    X(EFENCED, -20, "the log store is fenced after an I/O failure: restart after repair") \
    X(EQUARANTINED, -21, "this replica is in quarantine")                                 \
    X(ECOMPACTED, -22, "the requested log entries are compacted")                         \
    X(EMACHINE, -23, "the state machine reported an error")                               \
    X(ENOSPC, -24, "no space left on the device")                                         \
    X(ESESSION, -25, "no such session: never opened, closed, or evicted")                 \
    X(EACKED, -26, "applied before, and its result is not kept any more")

enum nh_status {
    NH_OK = 0,
#define NH_STATUS_ENUM(name, value, text) NH_##name = value,
    NH_STATUS_MAP(NH_STATUS_ENUM)
#undef NH_STATUS_ENUM
};

/* Long enough for a path and three prefixes; a longer text is cut at its end. */
#define NH_ERROR_TEXT_BYTES 384

struct nh_error {
    int code; /* one of enum nh_status */
    int sys;  /* errno of the cause, or 0 */
    char text[NH_ERROR_TEXT_BYTES];
};

/* The fixed text of a code ("invalid argument"); "unknown status" for a number that is not in the list. */
NH_API const char *nh_status_text(int code);
/* The name of a code ("EINVAL"). */
NH_API const char *nh_status_name(int code);

/* Fills *err with `code` and a formatted text and returns `code`, so that a failure is one line:
 *     return nh_error_set(err, NH_EINVAL, "shard id is 0");
 */
NH_API int nh_error_set(struct nh_error *err, int code, const char *fmt, ...) NH_PRINTF(3, 4);
/* The same with the errno value `sys` and its text appended: "open /x/LOCK: Permission denied". */
NH_API int nh_error_sys(struct nh_error *err, int code, int sys, const char *fmt, ...) NH_PRINTF(4, 5);
/* Puts "prefix: " before the text of an error that a callee has filled; returns `code` unchanged. */
NH_API int nh_error_wrap(struct nh_error *err, int code, const char *fmt, ...) NH_PRINTF(3, 4);

NH_END_DECLS
#endif
