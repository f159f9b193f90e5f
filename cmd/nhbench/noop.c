#include "cmd/nhbench/noop.h"

#include <stdbool.h>
#include <stdlib.h>

struct nh_machine {
    uint64_t count;
};

static int noop_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args, (void)err;
    *ret_applied = 0;
    *ret = calloc(1, sizeof **ret);
    return *ret ? NH_OK : NH_ENOMEM;
}

static void noop_close(struct nh_machine *m)
{
    free(m);
}

static int noop_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)err;
    for (size_t i = 0; i < n; i++)
        entries[i].result.value = ++m->count;
    return NH_OK;
}

static int noop_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                       struct nh_error *err)
{
    (void)query, (void)size_bytes, (void)out, (void)err;
    *ret_value = m->count;
    return NH_OK;
}

static uint64_t noop_hash(struct nh_machine *m)
{
    return m->count;
}

static int noop_save(struct nh_machine *m, void *snapshot_ctx, struct nh_writer *out, const volatile bool *stop,
                     struct nh_error *err)
{
    (void)snapshot_ctx, (void)stop, (void)err;
    return out->write(out->ctx, &m->count, sizeof m->count);
}

static int noop_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint64_t image[2]; /* room for more than there may be, to notice it */
    size_t size = 0;
    int64_t n;

    (void)stop, (void)err;
    while ((n = in->read(in->ctx, (uint8_t *)image + size, sizeof image - size)) > 0)
        size += (size_t)n;
    if (n < 0 || size != sizeof m->count)
        return n < 0 ? (int)n : NH_ECORRUPT;
    m->count = image[0];
    return NH_OK;
}

const struct nh_machine_ops *noop_machine(void)
{
    static const struct nh_machine_ops ops = {
        .abi_version = NH_MACHINE_ABI,
        .struct_size = sizeof ops,
        .name = "noop",
        .version = "1",
        .kind = NH_MACHINE_REGULAR,
        .flags = NH_MACHINE_QUICK,
        .open = noop_open,
        .update = noop_update,
        .lookup = noop_lookup,
        .close = noop_close,
        .hash = noop_hash,
        .save_snapshot = noop_save,
        .recover = noop_recover,
    };

    return &ops;
}
