/* raftio/codec.h - from structs (raftio/types.h) to bytes (raftio/raftpb.proto) and back.
 *
 * Encoding: `x_encode` returns the bytes needed; if `cap` is less, what `out` holds is of no use. Decoding verifies everything
 * that can be verified (lengths, ranges, record checksums, UTF-8-free strings of bounded length) and never trusts a count before
 * it has seen the bytes. Errors: NH_ECORRUPT with what was wrong. Threads: any.
 *
 * Refused: a membership whose members are not sorted by replica id, have id 0 or an unknown kind, or are more than
 * NH_MEMBERS_MAX; text that is too long or not printable; a configuration change without the members that it is about;
 * what belongs to a joint configuration in one that is not.
 * Memory taken while decoding is bounded by the input (raftio/codec_private.h).
 */
#ifndef NH_RAFTIO_CODEC_H
#define NH_RAFTIO_CODEC_H

#include "raftio/types.h"

struct nh_hello {
    uint32_t bin_version;
    uint64_t deployment_id;
    char source_address[NH_ADDRESS_BYTES];
    char target_address[NH_ADDRESS_BYTES];
    bool snapshot_connection;
    uint64_t data_layout; /* 0: none told */
};

size_t state_encode(const struct nh_state *s, uint8_t *out, size_t cap);
int state_decode(const uint8_t *data, size_t size_bytes, struct nh_state *ret, struct nh_error *err);
size_t membership_encode(const struct nh_membership *m, uint8_t *out, size_t cap);
int membership_decode(const uint8_t *data, size_t size_bytes, struct nh_membership *ret, struct nh_error *err);
size_t bootstrap_encode(const struct nh_bootstrap *b, uint8_t *out, size_t cap);
int bootstrap_decode(const uint8_t *data, size_t size_bytes, struct nh_bootstrap *ret, struct nh_error *err);
size_t snapshot_encode(const struct nh_snapshot *s, uint8_t *out, size_t cap);
int snapshot_decode(const uint8_t *data, size_t size_bytes, struct nh_snapshot *ret, struct nh_error *err);
size_t config_change_encode(const struct nh_config_change *c, uint8_t *out, size_t cap);
int config_change_decode(const uint8_t *data, size_t size_bytes, struct nh_config_change *ret, struct nh_error *err);
size_t hello_encode(const struct nh_hello *h, uint8_t *out, size_t cap);
int hello_decode(const uint8_t *data, size_t size_bytes, struct nh_hello *ret, struct nh_error *err);
size_t chunk_encode(const struct nh_chunk *c, uint8_t *out, size_t cap);
int chunk_decode(const uint8_t *data, size_t size_bytes, struct nh_chunk *ret, struct nh_error *err);

/* HEARTBEAT and HEARTBEAT_RESP messages that use no other field than those of a row travel as columns; the decoder turns
 * them into messages again, after the others. Order among the messages of one shard is kept otherwise. */
size_t batch_encode(const struct nh_message_batch *b, uint8_t *out, size_t cap);
/* *ret is one allocation tree, released by batch_free alone: a message's runs may be part of it. source_address is copied.
 * REPLICATE records are verified (crc, order) against log_index + 1; PROPOSE records are unsealed; no other type has any.
 * Refused too: an unknown type, shard or receiver 0, a snapshot outside INSTALL_SNAPSHOT or none in it. Local-only types
 * decode: refusing them is the transport's part (nh_message_type_is_local). */
int batch_decode(const uint8_t *data, size_t size_bytes, struct nh_message_batch **ret, struct nh_error *err);
void batch_free(struct nh_message_batch *b);

#endif
