#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

/* Per stream: whether its last chunk was chunk 0. */
static bool asked[SIM_HOSTS_MAX + 1][SIM_HOSTS_MAX + 1][SIM_SHARDS_MAX + 1];

static int send_batch(struct nh_connection *c, const struct nh_message_batch *batch, struct nh_error *err)
{
    const struct sim_host *h = sim.hosts[network_host(batch->source_address)];

    for (uint32_t i = 0; i < batch->n_messages && h->up; i++) /* the disk of a host that is taken down may have crashed */
        disks_check_message(h, &batch->messages[i]);
    return nh_transport_loopback()->send_batch(c, batch, err);
}

static void look_at(const struct nh_chunk *chunk)
{
    bool *was_asked = &asked[sim_host_of(chunk->from)][sim_host_of(chunk->replica_id)][chunk->shard_id];

    sim.coverage.streams_resumed += *was_asked && chunk->chunk_id > 1;
    *was_asked = chunk->chunk_id == 0;
}

/* A piece of the image is another before anybody makes a checksum of the chunk: only the image's own can tell. */
static int send_corrupted(struct nh_snapshot_connection *c, const struct nh_chunk *chunk, struct nh_error *err)
{
    uint8_t *data = xmemdup(chunk->data, chunk->size_bytes);
    struct nh_chunk other = *chunk;
    int r;

    data[sim_below(chunk->size_bytes)] ^= (uint8_t)(1 + sim_below(255));
    other.data = data;
    r = nh_transport_loopback()->send_chunk(c, &other, err);
    free(data);
    sim.coverage.images_corrupted++;
    return r;
}

static int send_chunk(struct nh_snapshot_connection *c, const struct nh_chunk *chunk, struct nh_error *err)
{
    enum chunk_fate fate = chunks_look(chunk);
    int r = NH_OK;

    look_at(chunk);
    if (fate == CHUNK_DAMAGED)
        return send_corrupted(c, chunk, err);
    if (fate == CHUNK_TWICE)
        r = nh_transport_loopback()->send_chunk(c, chunk, err);
    if (!sim.calm && sim.options.fail_files && chunk->chunk_id > 0 && sim_chance(6))
        return send_corrupted(c, chunk, err);
    if (r == NH_OK)
        r = nh_transport_loopback()->send_chunk(c, chunk, err);
    chunks_sent(chunk);
    return r;
}

const struct nh_transport_ops *wire_ops(void)
{
    static struct nh_transport_ops ops;

    ops = *nh_transport_loopback();
    ops.send_batch = send_batch;
    ops.send_chunk = send_chunk;
    return &ops;
}
