/* The memory store as a shared object: proves that the suite runs over a plugin that is loaded. */
#include "logdb/memory/memory_logdb.h"

NH_API const struct nh_logdb_ops *nh_logdb_plugin(void);

const struct nh_logdb_ops *nh_logdb_plugin(void)
{
    return nh_logdb_memory();
}
