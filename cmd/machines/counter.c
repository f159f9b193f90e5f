/* cmd/machines/counter.c - one number that clients add to: the smallest useful machine, and the example of docs/MACHINES.md.
 *
 * Command: "add N"; its result is the new value. Query: any bytes; the answer is the value. A concurrent machine: lookups and
 * snapshots run beside updates, so the value is atomic, and a snapshot is a copy that is made when it is prepared.
 */
#include "nodehost/statemachine.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct nh_machine {
    _Atomic uint64_t value;
};

static int counter_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args, (void)err;
    *ret_applied = 0; /* in memory: nothing survives a restart, the host brings it back */
    *ret = calloc(1, sizeof **ret);
    return *ret ? NH_OK : NH_ENOMEM;
}

static void counter_close(struct nh_machine *m)
{
    free(m);
}

static bool parse_add(const char *cmd, size_t size, uint64_t *ret)
{
    if (size < 5 || memcmp(cmd, "add ", 4) != 0)
        return false;
    *ret = 0;
    for (size_t i = 4; i < size; i++) {
        if (cmd[i] < '0' || cmd[i] > '9')
            return false;
        *ret = *ret * 10 + (uint64_t)(cmd[i] - '0'); /* too many digits wrap around, alike everywhere */
    }
    return true;
}

static int counter_update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)err;
    for (size_t i = 0; i < n; i++) {
        struct nh_result *result = &entries[i].result;
        uint64_t by;

        if (parse_add(entries[i].cmd, entries[i].size_bytes, &by))
            result->value = m->value += by;
        else /* a client's mistake is an answer, the same on all replicas; a failure would end this replica */
            *result = (struct nh_result){.data = "usage: add N", .size_bytes = strlen("usage: add N")};
    }
    return NH_OK;
}

static int counter_lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                          struct nh_error *err)
{
    (void)query, (void)size_bytes, (void)out, (void)err;
    *ret_value = m->value;
    return NH_OK;
}

static uint64_t counter_hash(struct nh_machine *m)
{
    return m->value;
}

static int counter_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    uint64_t *copy = malloc(sizeof *copy);

    (void)err;
    if (copy)
        *copy = m->value;
    *ret_ctx = copy;
    return copy ? NH_OK : NH_ENOMEM;
}

static int counter_save(struct nh_machine *m, void *copy, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    (void)m, (void)stop, (void)err; /* not m->value: that may be another one by now */
    return out->write(out->ctx, copy, sizeof(uint64_t));
}

static void counter_release(struct nh_machine *m, void *copy)
{
    (void)m;
    free(copy);
}

static int counter_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint64_t image[2]; /* room for more than there may be, to notice it */
    size_t size = 0;
    int64_t n;

    (void)stop, (void)err; /* there is nothing to interrupt */
    while ((n = in->read(in->ctx, (uint8_t *)image + size, sizeof image - size)) > 0)
        size += (size_t)n;
    if (n < 0 || size != sizeof(uint64_t))
        return n < 0 ? (int)n : NH_ECORRUPT;
    m->value = image[0]; /* little-endian, as all hosts are */
    return NH_OK;
}

static const struct nh_machine_ops ops = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof ops,
    .name = "counter",
    .version = "1",
    .kind = NH_MACHINE_CONCURRENT,
    .open = counter_open,
    .update = counter_update,
    .lookup = counter_lookup,
    .close = counter_close,
    .hash = counter_hash,
    .prepare_snapshot = counter_prepare,
    .save_snapshot = counter_save,
    .recover = counter_recover,
    .release_snapshot = counter_release,
};

NH_API const struct nh_machine_ops *nh_machine_plugin(void);

const struct nh_machine_ops *nh_machine_plugin(void)
{
    return &ops;
}
