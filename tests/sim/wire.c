#include "tests/sim/sim.h"

static int send_batch(struct nh_connection *c, const struct nh_message_batch *batch, struct nh_error *err)
{
    const struct sim_host *h = sim.hosts[network_host(batch->source_address)];

    for (uint32_t i = 0; i < batch->n_messages && h->up; i++) /* the disk of a host that is taken down may have crashed */
        disks_check_message(h, &batch->messages[i]);
    return nh_transport_loopback()->send_batch(c, batch, err);
}

const struct nh_transport_ops *wire_ops(void)
{
    static struct nh_transport_ops ops;

    ops = *nh_transport_loopback();
    ops.send_batch = send_batch;
    return &ops;
}
