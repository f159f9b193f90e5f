/* The loopback transport as a shared object: proves that the suite runs over a plugin that is loaded. */
#include "transport/loopback/loopback.h"

NH_API const struct nh_transport_ops *nh_transport_plugin(void);

const struct nh_transport_ops *nh_transport_plugin(void)
{
    return nh_transport_loopback();
}
