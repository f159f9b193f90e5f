#include "raftio/status.h"

#include <stdio.h>
#include <string.h>

const char *nh_status_text(int code)
{
    switch (code) {
    case NH_OK: return "ok";
#define STATUS_TEXT(name, value, text) \
    case NH_##name: return text;
        NH_STATUS_MAP(STATUS_TEXT)
#undef STATUS_TEXT
    default: return "unknown status";
    }
}

const char *nh_status_name(int code)
{
    switch (code) {
    case NH_OK: return "OK";
#define STATUS_NAME(name, value, text) \
    case NH_##name: return #name;
        NH_STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
    default: return "UNKNOWN";
    }
}

/* Formats aside first: the arguments may point into err->text. */
static void fill(struct nh_error *err, int code, int sys, const char *fmt, va_list args) NH_PRINTF(4, 0);
static void fill(struct nh_error *err, int code, int sys, const char *fmt, va_list args)
{
    char text[NH_ERROR_TEXT_BYTES];

    if (vsnprintf(text, sizeof text, fmt, args) < 0)
        text[0] = '\0';
    err->code = code;
    err->sys = sys;
    memcpy(err->text, text, sizeof text);
}

/* Appends as much of `tail` as fits. */
static void append(struct nh_error *err, const char *tail)
{
    size_t used = strnlen(err->text, sizeof err->text - 1);
    size_t n = strnlen(tail, sizeof err->text - 1 - used);

    memcpy(err->text + used, tail, n);
    err->text[used + n] = '\0';
}

int nh_error_set(struct nh_error *err, int code, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return code;
    va_start(args, fmt);
    fill(err, code, 0, fmt, args);
    va_end(args);
    return code;
}

int nh_error_sys(struct nh_error *err, int code, int sys, const char *fmt, ...)
{
    char text[128];
    va_list args;

    if (!err)
        return code;
    va_start(args, fmt);
    fill(err, code, sys, fmt, args);
    va_end(args);
    append(err, ": ");
    append(err, strerror_r(sys, text, sizeof text));
    return code;
}

int nh_error_wrap(struct nh_error *err, int code, const char *fmt, ...)
{
    char inner[NH_ERROR_TEXT_BYTES];
    va_list args;

    if (!err)
        return code;
    memcpy(inner, err->text, sizeof inner);
    inner[sizeof inner - 1] = '\0';
    va_start(args, fmt);
    fill(err, code, err->sys, fmt, args);
    va_end(args);
    append(err, ": ");
    append(err, inner[0] ? inner : nh_status_text(code));
    return code;
}
