#include "raftio/plugin.h"

#include "raftio/codec.h"
#include "raftio/support/crc32c.h"
#include "raftio/support/log.h"

const struct nh_plugin_services *nh_plugin_services(void)
{
    static const struct nh_plugin_services services = {
        .abi_version = NH_PLUGIN_SERVICES_ABI,
        .struct_size = sizeof services,
        .log = log_write,
        .crc32c = crc32c,
        .encode_bootstrap = bootstrap_encode,
        .decode_bootstrap = bootstrap_decode,
        .encode_snapshot = snapshot_encode,
        .decode_snapshot = snapshot_decode,
        .encode_state = state_encode,
        .decode_state = state_decode,
        .encode_batch = batch_encode,
        .decode_batch = batch_decode,
        .free_batch = batch_free,
        .encode_chunk = chunk_encode,
        .decode_chunk = chunk_decode,
    };

    return &services;
}
