/* raftio/support/crc32c.h - CRC32C (Castagnoli): the CPU's instruction where there is one, else a table. */
#ifndef NH_RAFTIO_SUPPORT_CRC32C_H
#define NH_RAFTIO_SUPPORT_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Checksum of `data`, continuing from `seed` (0 to start): crc32c(crc32c(0, a), b) == crc32c(0, ab). Thread: any. */
uint32_t crc32c(uint32_t seed, const void *data, size_t size_bytes);
/* The table version, for tests and for CPUs without the instruction. */
uint32_t crc32c_table(uint32_t seed, const void *data, size_t size_bytes);

#endif
