/* cmd/nhbench/clock.h - the time, cheaply.
 *
 * All times are CLOCK_MONOTONIC in nanoseconds, which is the same in all processes of this machine. Threads: any.
 */
#ifndef NH_CMD_NHBENCH_CLOCK_H
#define NH_CMD_NHBENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_S  1000000000ull
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull

static inline uint64_t clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* A clock of one thread for events that come in bursts: the real clock is read again when the cycle counter has gone on by more
 * than CLOCK_CYCLES, so a time may be old by about a microsecond and never by more. Zero it first. */
#define CLOCK_CYCLES 2000u
struct burst_clock {
    uint64_t cycles, now_ns;
};

static inline uint64_t burst_clock_ns(struct burst_clock *c)
{
#if defined(__x86_64__)
    uint64_t cycles = __builtin_ia32_rdtsc();

    if (cycles - c->cycles <= CLOCK_CYCLES)
        return c->now_ns;
    c->cycles = cycles;
#endif
    c->now_ns = clock_ns();
    return c->now_ns;
}

static inline void sleep_until_ns(uint64_t at_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(at_ns / NS_PER_S), .tv_nsec = (long)(at_ns % NS_PER_S)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0) {
    }
}

static inline void sleep_ms(uint64_t ms)
{
    sleep_until_ns(clock_ns() + ms * NS_PER_MS);
}

#endif
