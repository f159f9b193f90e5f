#include "logdb/rocksdb/batch.h"

#include <stdbool.h>

int batch_read_begin(struct batch_reader *r, const void *batch, size_t size_bytes, struct nh_error *err)
{
    if (size_bytes < BATCH_HEAD_BYTES)
        return nh_error_set(err, NH_ECORRUPT, "a write batch of %zu bytes", size_bytes);
    r->at = (const uint8_t *)batch + BATCH_HEAD_BYTES;
    r->end = (const uint8_t *)batch + size_bytes;
    return NH_OK;
}

static bool read_size(struct batch_reader *r, size_t *ret)
{
    size_t size = 0;

    for (unsigned shift = 0; r->at < r->end && shift < 32; shift += 7) {
        uint8_t byte = *r->at++;

        size |= (size_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = size;
            return true;
        }
    }
    return false;
}

static bool read_string(struct batch_reader *r, const char **ret, size_t *ret_bytes)
{
    if (!read_size(r, ret_bytes) || *ret_bytes > (size_t)(r->end - r->at))
        return false;
    *ret = (const char *)r->at;
    r->at += *ret_bytes;
    return true;
}

int batch_read(struct batch_reader *r, struct batch_operation *ret, struct nh_error *err)
{
    unsigned kind;

    if (r->at == r->end)
        return 0;
    kind = *r->at++;
    if (kind != BATCH_DELETE && kind != BATCH_PUT && kind != BATCH_DELETE_RANGE)
        return nh_error_set(err, NH_ECORRUPT, "operation %u in a write batch", kind);
    *ret = (struct batch_operation){.kind = (enum batch_kind)kind};
    if (!read_string(r, &ret->key, &ret->key_bytes) || (kind != BATCH_DELETE && !read_string(r, &ret->value, &ret->value_bytes)))
        return nh_error_set(err, NH_ECORRUPT, "a write batch ends early");
    return 1;
}
