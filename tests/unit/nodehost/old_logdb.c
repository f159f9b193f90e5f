/* The table of a log store that was built with the first version of raftio/logdb.h. Nobody calls its functions. */
#include <stddef.h>
#include <string.h>

#include "raftio/logdb.h"

NH_API const struct nh_logdb_ops *nh_logdb_plugin(void);

static void nothing(void)
{
}

const struct nh_logdb_ops *nh_logdb_plugin(void)
{
    static struct nh_logdb_ops ops = {.abi_version = NH_LOGDB_ABI,
                                      .struct_size = offsetof(struct nh_logdb_ops, begin_save),
                                      .name = "old"};
    void (*value)(void) = nothing;

    for (size_t at = offsetof(struct nh_logdb_ops, open); at < sizeof ops; at += sizeof value)
        memcpy((char *)&ops + at, &value, sizeof value); /* also what it is too short for */
    return &ops;
}
