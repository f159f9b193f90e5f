/* cmd/machines/counter.c - one number that clients add to: the smallest useful machine, and the example of docs/MACHINES.md.
 *
 * Command: "add N"; its result is the new value. Query: any bytes; the answer is the value. */
#include "nodehost/statemachine.h"

#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wunused-parameter" /* so small a machine does not need all that it is given */

struct nh_machine {
    _Atomic uint64_t value;
};

static int machine_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    *ret_applied = 0; /* in memory: nothing survives a restart, the host brings it back */
    *ret = calloc(1, sizeof **ret);
    return *ret ? NH_OK : NH_ENOMEM;
}

static void machine_close(struct nh_machine *m)
{
    free(m);
}

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    for (struct nh_entry *e = entries; e < entries + n; e++) {
        const char *cmd = e->cmd;
        size_t i = strlen("add ");
        uint64_t by = 0;

        while (i < e->size_bytes && cmd[i] >= '0' && cmd[i] <= '9')
            by = by * 10 + (uint64_t)(cmd[i++] - '0'); /* too many digits wrap around, alike everywhere */
        if (i == e->size_bytes && i > strlen("add ") && memcmp(cmd, "add ", strlen("add ")) == 0)
            e->result.value = m->value += by;
        else /* a client's mistake is an answer, the same on all replicas; a failure would end this replica */
            e->result = (struct nh_result){.data = "usage: add N", .size_bytes = strlen("usage: add N")};
    }
    return NH_OK;
}

static int lookup(struct nh_machine *m, const void *query, size_t n, struct nh_writer *out, uint64_t *ret, struct nh_error *err)
{
    *ret = m->value;
    return NH_OK;
}

static uint64_t hash(struct nh_machine *m)
{
    return m->value;
}

static int prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    uint64_t *copy = *ret_ctx = malloc(sizeof *copy);

    if (copy)
        *copy = m->value;
    return copy ? NH_OK : NH_ENOMEM;
}

static int save(struct nh_machine *m, void *copy, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    return out->write(out->ctx, copy, sizeof(uint64_t)); /* not m->value: that may be another one by now */
}

static void release(struct nh_machine *m, void *copy)
{
    free(copy);
}

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint64_t image[2]; /* room for more than there may be, to notice it */
    size_t size = 0;
    int64_t n;

    while ((n = in->read(in->ctx, (uint8_t *)image + size, sizeof image - size)) > 0)
        size += (size_t)n;
    if (n < 0 || size != sizeof image[0])
        return n < 0 ? (int)n : NH_ECORRUPT;
    m->value = image[0]; /* little-endian, as all hosts are */
    return NH_OK;
}

NH_API const struct nh_machine_ops *nh_machine_plugin(void);
const struct nh_machine_ops *nh_machine_plugin(void)
{
    /* clang-format off */
    static const struct nh_machine_ops ops = {
        .abi_version = NH_MACHINE_ABI, .struct_size = sizeof ops, .name = "counter", .version = "1", .kind = NH_MACHINE_CONCURRENT,
        .open = machine_open, .update = update, .lookup = lookup, .close = machine_close, .hash = hash,
        .prepare_snapshot = prepare, .save_snapshot = save, .recover = recover, .release_snapshot = release};
    /* clang-format on */

    return &ops;
}
