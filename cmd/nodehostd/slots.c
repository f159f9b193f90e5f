#include "cmd/nodehostd/slots.h"

#include <string.h>

/* CRC-16/XMODEM: polynomial 0x1021, no reflection, initial value 0. A nibble at a time. */
static uint16_t crc16(const uint8_t *p, size_t n)
{
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
                                       0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    uint16_t crc = 0;

    for (; n > 0; n--, p++) {
        crc = (uint16_t)(crc << 4 ^ table[(crc >> 12 ^ *p >> 4) & 15]);
        crc = (uint16_t)(crc << 4 ^ table[(crc >> 12 ^ *p) & 15]);
    }
    return crc;
}

uint16_t slot_of_key(const void *key, size_t size_bytes)
{
    const uint8_t *p = key, *open = size_bytes ? memchr(p, '{', size_bytes) : NULL, *close;

    if (open) {
        close = memchr(open + 1, '}', size_bytes - (size_t)(open + 1 - p));
        if (close && close > open + 1)
            return crc16(open + 1, (size_t)(close - open - 1)) % SLOTS_TOTAL;
    }
    return crc16(p, size_bytes) % SLOTS_TOTAL;
}

uint32_t slot_first(uint32_t i, uint32_t n)
{
    return (uint32_t)(((uint64_t)i * SLOTS_TOTAL + n - 1) / n);
}

uint32_t slot_owner(uint16_t slot, uint32_t n)
{
    return (uint32_t)((uint64_t)slot * n / SLOTS_TOTAL);
}
