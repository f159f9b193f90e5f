#include "cmd/machines/kv_image.h"

#include <inttypes.h>

#define BUFFER_BYTES (64u * 1024u)

static uint64_t load_u64(const uint8_t *p)
{
    return kv_load_u32(p) | (uint64_t)kv_load_u32(p + 4) << 32;
}

static void store_u64(uint8_t *p, uint64_t v)
{
    kv_store_u32(p, (uint32_t)v);
    kv_store_u32(p + 4, (uint32_t)(v >> 32));
}

/* ---- writing ---- */

static void flush(struct kv_image_writer *w)
{
    if (!w->failed && *w->stop)
        w->failed = NH_ECLOSED;
    if (!w->failed && w->size)
        w->failed = w->out->write(w->out->ctx, w->buffer, w->size);
    w->size = 0;
}

static void put_bytes(struct kv_image_writer *w, const uint8_t *data, size_t size)
{
    while (size > 0 && !w->failed) {
        size_t n = BUFFER_BYTES - w->size < size ? BUFFER_BYTES - w->size : size;

        memcpy(w->buffer + w->size, data, n);
        w->size += n;
        data += n;
        size -= n;
        if (w->size == BUFFER_BYTES)
            flush(w);
    }
}

void kv_image_begin(struct kv_image_writer *w, struct nh_writer *out, const volatile bool *stop, uint64_t applied, uint64_t n)
{
    uint8_t head[KV_IMAGE_HEAD_BYTES];

    *w = (struct kv_image_writer){.out = out, .stop = stop, .buffer = kv_must(malloc(BUFFER_BYTES))};
    memcpy(head, KV_IMAGE_MAGIC, 4);
    kv_store_u32(head + 4, KV_IMAGE_VERSION);
    store_u64(head + 8, applied);
    store_u64(head + 16, n);
    put_bytes(w, head, sizeof head);
}

int kv_image_put(struct kv_image_writer *w, struct kv_slice key, struct kv_slice value)
{
    uint8_t sizes[8];

    kv_store_u32(sizes, key.size);
    kv_store_u32(sizes + 4, value.size);
    put_bytes(w, sizes, sizeof sizes);
    put_bytes(w, key.data, key.size);
    put_bytes(w, value.data, value.size);
    return w->failed;
}

int kv_image_end(struct kv_image_writer *w, struct nh_error *err)
{
    flush(w);
    free(w->buffer);
    w->buffer = NULL;
    return w->failed ? kv_error(err, w->failed, w->failed == NH_ECLOSED ? "told to stop" : "write the snapshot") : NH_OK;
}

/* ---- reading ---- */

static int fill(struct kv_image_reader *r, struct nh_error *err)
{
    int64_t n;

    if (*r->stop)
        return kv_error(err, NH_ECLOSED, "told to stop");
    n = r->in->read(r->in->ctx, r->buffer, BUFFER_BYTES);
    if (n < 0)
        return kv_error(err, (int)n, "read the snapshot");
    r->at = 0;
    r->size = (size_t)n;
    return NH_OK;
}

static int take(struct kv_image_reader *r, uint8_t *out, size_t size, struct nh_error *err)
{
    while (size > 0) {
        size_t n = r->size - r->at < size ? r->size - r->at : size;

        memcpy(out, r->buffer + r->at, n);
        r->at += n;
        out += n;
        size -= n;
        if (size > 0) {
            int failed = fill(r, err);

            if (failed)
                return failed;
            if (r->size == 0)
                return kv_error(err, NH_ECORRUPT, "the snapshot ends within pair %" PRIu64 " of %" PRIu64, r->n_read, r->n);
        }
    }
    return NH_OK;
}

int kv_image_open(struct kv_image_reader *r, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint8_t head[KV_IMAGE_HEAD_BYTES];
    int failed;

    *r = (struct kv_image_reader){.in = in, .stop = stop, .buffer = kv_must(malloc(BUFFER_BYTES))};
    failed = take(r, head, sizeof head, err);
    if (failed)
        return failed;
    if (memcmp(head, KV_IMAGE_MAGIC, 4) != 0)
        return kv_error(err, NH_ECORRUPT, "not a snapshot of a key-value machine");
    if (kv_load_u32(head + 4) != KV_IMAGE_VERSION)
        return kv_error(err, NH_EUNSUPPORTED, "the snapshot has version %" PRIu32 ", this machine reads version %u",
                        kv_load_u32(head + 4), KV_IMAGE_VERSION);
    r->applied = load_u64(head + 8);
    r->n = load_u64(head + 16);
    return NH_OK;
}

/* Reads the bytes of a pair behind each other; memory grows as they arrive. */
static int take_pair(struct kv_image_reader *r, size_t size, struct nh_error *err)
{
    size_t have = 0;

    do {
        size_t step = have < BUFFER_BYTES ? BUFFER_BYTES : have;
        int failed;

        step = step < size - have ? step : size - have;
        if (have + step > r->pair_cap || !r->pair) {
            r->pair_cap = have + step + 1;
            r->pair = kv_must(realloc(r->pair, r->pair_cap));
        }
        failed = take(r, r->pair + have, step, err);
        if (failed)
            return failed;
        have += step;
    } while (have < size);
    return NH_OK;
}

static int read_pair(struct kv_image_reader *r, struct kv_slice *ret_key, struct kv_slice *ret_value, struct nh_error *err)
{
    uint8_t sizes[8], *pair = r->pair;
    uint32_t key_size, value_size;
    size_t cap = r->pair_cap;
    int failed = take(r, sizes, sizeof sizes, err);

    if (failed)
        return failed;
    key_size = kv_load_u32(sizes);
    value_size = kv_load_u32(sizes + 4);
    if (value_size > KV_VALUE_BYTES_MAX)
        return kv_error(err, NH_ECORRUPT, "the value of pair %" PRIu64 " has %" PRIu32 " bytes", r->n_read, value_size);
    r->pair = r->last;
    r->pair_cap = r->last_cap;
    r->last = pair;
    r->last_cap = cap;
    failed = take_pair(r, (size_t)key_size + value_size, err);
    if (failed)
        return failed;
    *ret_key = (struct kv_slice){r->pair, key_size};
    *ret_value = (struct kv_slice){r->pair + key_size, value_size};
    if (r->n_read > 0 && kv_key_compare((struct kv_slice){r->last, r->last_key_size}, *ret_key) >= 0)
        return kv_error(err, NH_ECORRUPT, "the keys of pairs %" PRIu64 " and %" PRIu64 " do not rise", r->n_read - 1, r->n_read);
    r->last_key_size = key_size;
    r->n_read++;
    return 1;
}

int kv_image_next(struct kv_image_reader *r, struct kv_slice *ret_key, struct kv_slice *ret_value, struct nh_error *err)
{
    int failed = 0;

    if (r->n_read < r->n)
        return read_pair(r, ret_key, ret_value, err);
    if (r->at == r->size)
        failed = fill(r, err);
    if (failed)
        return failed;
    return r->at == r->size ? 0 : kv_error(err, NH_ECORRUPT, "bytes follow the last pair of the snapshot");
}

void kv_image_close(struct kv_image_reader *r)
{
    free(r->buffer);
    free(r->pair);
    free(r->last);
    *r = (struct kv_image_reader){0};
}
