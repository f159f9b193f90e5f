/* cmd/nodehostd/slots.h - from keys to slots to shards.
 *
 * As in Redis Cluster a key has one of 16,384 slots: CRC16 of the key, or of its hash tag (what stands between the first '{' and
 * the next '}', if that is not empty). The slots are dealt out evenly to the shards of the machines kv and kv-disk in ascending
 * order: shard i of n owns [i * 16384 / n, (i + 1) * 16384 / n). So the mapping follows from the list of these shards alone,
 * which must be the same on all hosts and for ever (layout.h).
 */
#ifndef NH_CMD_NODEHOSTD_SLOTS_H
#define NH_CMD_NODEHOSTD_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#define SLOTS_TOTAL 16384u

uint16_t slot_of_key(const void *key, size_t size_bytes);
/* Which of n shards (n >= 1, <= SLOTS_TOTAL) owns a slot: 0 .. n - 1. */
uint32_t slot_owner(uint16_t slot, uint32_t n);
/* The first slot of shard i; of i == n: SLOTS_TOTAL. */
uint32_t slot_first(uint32_t i, uint32_t n);

#endif
