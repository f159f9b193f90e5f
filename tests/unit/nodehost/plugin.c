/* Machines that are good or wrong in one way; which, says a compile definition. */
#include "nodehost/statemachine.h"

#ifndef ABI
#define ABI NH_MACHINE_ABI
#endif
#ifndef KIND
#define KIND NH_MACHINE_REGULAR
#endif
#ifndef SIZE
#define SIZE sizeof(struct nh_machine_ops)
#endif

static int open_machine(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args;
    (void)ret;
    (void)ret_applied;
    (void)err;
    return 0;
}

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)m;
    (void)entries;
    (void)n;
    (void)err;
    return 0;
}

#ifndef LACKS
static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    (void)m;
    (void)query;
    (void)size_bytes;
    (void)out;
    (void)ret_value;
    (void)err;
    return 0;
}
#endif

static void close_machine(struct nh_machine *m)
{
    (void)m;
}

static uint64_t hash(struct nh_machine *m)
{
    (void)m;
    return 1;
}

static const struct nh_machine_ops ops = {
    .abi_version = ABI,
    .struct_size = SIZE,
    .name = "sample",
    .version = "1",
    .kind = KIND,
    .open = open_machine,
    .update = update,
#ifndef LACKS
    .lookup = lookup,
#endif
    .close = close_machine,
    .hash = hash,
};

NH_API const struct nh_machine_ops *nh_machine_plugin(void);

const struct nh_machine_ops *nh_machine_plugin(void)
{
#ifdef NOTHING
    return (void)ops, (const struct nh_machine_ops *)0;
#else
    return &ops;
#endif
}
