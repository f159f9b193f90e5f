#include "raftio/support/crc32c.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define CASTAGNOLI_REFLECTED 0x82f63b78u

/* tables[k][b]: the checksum of byte b followed by k zero bytes; eight bytes are folded at once. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void tables_fill(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;

        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? CASTAGNOLI_REFLECTED : 0);
        tables[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++)
            tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xff];
}

__attribute__((noinline)) uint32_t crc32c_table(uint32_t seed, const void *data, size_t size_bytes)
{
    const uint8_t *p = data;
    uint32_t crc = ~seed;

    pthread_once(&tables_once, tables_fill);
    for (; size_bytes >= 8; size_bytes -= 8, p += 8) {
        uint64_t word, folded = 0;

        memcpy(&word, p, sizeof word);
        word ^= crc;
        for (int k = 0; k < 8; k++)
            folded ^= tables[7 - k][word >> 8 * k & 0xff];
        crc = (uint32_t)folded;
    }
    for (; size_bytes; size_bytes--)
        crc = crc >> 8 ^ tables[0][(crc ^ *p++) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)
static bool hardware_present(void)
{
    return __builtin_cpu_supports("sse4.2");
}

/* The instruction takes three cycles and can begin every cycle, so three lanes of a buffer are summed side by side. A lane's sum
 * is moved past the bytes that follow it by a multiplication, which is linear: one table lookup per byte of the sum. */
#define LONG_LANE  2048u
#define SHORT_LANE 256u

struct shift {
    uint32_t of_byte[4][256]; /* [k][b]: the state b << 8k after a lane of zero bytes */
};
static struct shift long_shift, short_shift;
static pthread_once_t shifts_once = PTHREAD_ONCE_INIT;

static uint32_t after_zeros(uint32_t state, size_t n)
{
    for (; n; n--)
        state = state >> 8 ^ tables[0][state & 0xff];
    return state;
}

static void shift_fill(struct shift *s, size_t lane_bytes)
{
    for (int k = 0; k < 4; k++) {
        for (int bit = 0; bit < 8; bit++)
            s->of_byte[k][1u << bit] = after_zeros(1u << (8 * k + bit), lane_bytes);
        for (uint32_t b = 1; b < 256; b++) /* its lowest bit, and the others */
            s->of_byte[k][b] = s->of_byte[k][b & -b] ^ s->of_byte[k][b & (b - 1)];
    }
}

static void shifts_fill(void)
{
    pthread_once(&tables_once, tables_fill);
    shift_fill(&long_shift, LONG_LANE);
    shift_fill(&short_shift, SHORT_LANE);
}

static uint32_t shifted(const struct shift *s, uint64_t state)
{
    return s->of_byte[0][state & 0xff] ^ s->of_byte[1][state >> 8 & 0xff] ^ s->of_byte[2][state >> 16 & 0xff] ^
           s->of_byte[3][state >> 24 & 0xff];
}

static uint64_t load_word(const uint8_t *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) static uint64_t three_lanes(uint64_t crc, const uint8_t *p, size_t lane_bytes,
                                                              const struct shift *s)
{
    uint64_t second = 0, third = 0;

    for (const uint8_t *end = p + lane_bytes; p < end; p += 8) {
        crc = __builtin_ia32_crc32di(crc, load_word(p));
        second = __builtin_ia32_crc32di(second, load_word(p + lane_bytes));
        third = __builtin_ia32_crc32di(third, load_word(p + 2 * lane_bytes));
    }
    return shifted(s, shifted(s, crc) ^ second) ^ third;
}

__attribute__((target("sse4.2"))) static uint32_t one_lane(uint64_t crc, const uint8_t *p, size_t size_bytes)
{
    uint32_t crc32;

    for (; size_bytes >= 8; size_bytes -= 8, p += 8)
        crc = __builtin_ia32_crc32di(crc, load_word(p));
    crc32 = (uint32_t)crc;
    if (size_bytes >= 4) { /* each record's checksum begins four bytes past a word */
        uint32_t half;

        memcpy(&half, p, sizeof half);
        crc32 = __builtin_ia32_crc32si(crc32, half);
        p += sizeof half;
        size_bytes -= sizeof half;
    }
    for (; size_bytes; size_bytes--)
        crc32 = __builtin_ia32_crc32qi(crc32, *p++);
    return crc32;
}

/* Not inlined, as the table's version, so that a short checksum, which is most, saves no registers for it. */
__attribute__((noinline, target("sse4.2"))) static uint32_t many_lanes(uint64_t crc, const uint8_t *p, size_t size_bytes)
{
    pthread_once(&shifts_once, shifts_fill);
    for (; size_bytes >= 3 * LONG_LANE; size_bytes -= 3 * LONG_LANE, p += 3 * LONG_LANE)
        crc = three_lanes(crc, p, LONG_LANE, &long_shift);
    for (; size_bytes >= 3 * SHORT_LANE; size_bytes -= 3 * SHORT_LANE, p += 3 * SHORT_LANE)
        crc = three_lanes(crc, p, SHORT_LANE, &short_shift);
    return one_lane(crc, p, size_bytes);
}

__attribute__((target("sse4.2"))) static uint32_t hardware(uint32_t seed, const uint8_t *p, size_t size_bytes)
{
    return ~(size_bytes < 3 * SHORT_LANE ? one_lane(~seed, p, size_bytes) : many_lanes(~seed, p, size_bytes));
}
#elif defined(__aarch64__)
static bool hardware_present(void)
{
    return getauxval(AT_HWCAP) & HWCAP_CRC32;
}

/* In assembly, because the compilers disagree on how a single function asks for the extension. */
static uint32_t hardware(uint32_t seed, const uint8_t *p, size_t size_bytes)
{
    uint32_t crc = ~seed;

    for (; size_bytes >= 8; size_bytes -= 8, p += 8) {
        uint64_t word;

        memcpy(&word, p, sizeof word);
        __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    }
    for (; size_bytes; size_bytes--)
        __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)*p++));
    return ~crc;
}
#else
static bool hardware_present(void)
{
    return false;
}

static uint32_t hardware(uint32_t seed, const uint8_t *p, size_t size_bytes)
{
    return crc32c_table(seed, p, size_bytes);
}
#endif

uint32_t crc32c(uint32_t seed, const void *data, size_t size_bytes)
{
    return hardware_present() ? hardware(seed, data, size_bytes) : crc32c_table(seed, data, size_bytes);
}
