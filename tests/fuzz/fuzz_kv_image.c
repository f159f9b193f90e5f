/* A kv machine that recovers any bytes: it refuses them, or it is a map, whose image is those bytes (but for the applied index,
 * which kv ignores). */
#include <stdlib.h>
#include <string.h>

#include "cmd/machines/kv_image.h"
#include "tests/fuzz/fuzz.h"

const struct nh_machine_ops *nh_machine_plugin(void);

struct input {
    const uint8_t *data;
    size_t size, at;
};

static int64_t give(void *ctx, void *data, size_t cap_bytes)
{
    struct input *in = ctx;
    size_t n = in->size - in->at < cap_bytes ? in->size - in->at : cap_bytes;

    if (n)
        memcpy(data, in->data + in->at, n);
    in->at += n;
    return (int64_t)n;
}

static int compare(void *ctx, const void *data, size_t size_bytes)
{
    struct input *in = ctx;
    const uint8_t *p = data;

    FUZZ_CHECK(size_bytes <= in->size - in->at);
    for (size_t i = 0; i < size_bytes; i++, in->at++)
        FUZZ_CHECK(p[i] == in->data[in->at] || (in->at >= 8 && in->at < 16));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    const struct nh_machine_ops *ops = nh_machine_plugin();
    struct nh_machine_args args = {.struct_size = sizeof args};
    struct input from = {data, size_bytes, 0}, to = {data, size_bytes, 0};
    struct nh_reader in = {give, &from};
    struct nh_writer out = {compare, &to};
    struct nh_machine *m;
    bool stop = false;
    uint64_t applied;

    FUZZ_CHECK(ops->open(&args, &m, &applied, NULL) == 0);
    if (ops->recover(m, &in, &stop, NULL) == 0) {
        FUZZ_CHECK(ops->save_snapshot(m, NULL, &out, &stop, NULL) == 0);
        FUZZ_CHECK(to.at == size_bytes);
    }
    ops->close(m);
    return 0;
}
