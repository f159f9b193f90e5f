#include "cmd/nhbench/sample.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "cmd/nhbench/clock.h"

/* The number behind `name` at the start of a line of a file of /proc; 0 if there is none. */
static uint64_t proc_number(const char *path, const char *name)
{
    FILE *f = fopen(path, "re");
    uint64_t value = 0;
    char line[256];

    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), "%" SCNu64, &value) == 1)
            break;
    if (f)
        fclose(f);
    return value;
}

static uint64_t us_of(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void take_host(struct nh_host *host, struct sample *ret)
{
    struct nh_host_info info;

    nh_get_host_info(host, &info);
    ret->passes = info.passes;
    ret->saves = info.saves;
    ret->synced_saves = info.synced_saves;
    ret->saved_updates = info.saved_updates;
    ret->saved_entries = info.saved_entries;
    ret->messages = info.messages_sent;
    ret->batches = info.batches_sent;
    ret->applied = info.proposals_applied;
    ret->apply_calls = info.apply_calls;
    ret->reads = info.reads_answered;
}

void sample_take(struct nh_host *host, struct sample *ret)
{
    struct rusage usage;

    *ret = (struct sample){.at_ns = clock_ns()};
    getrusage(RUSAGE_SELF, &usage);
    ret->user_us = us_of(usage.ru_utime);
    ret->system_us = us_of(usage.ru_stime);
    ret->voluntary = (uint64_t)usage.ru_nvcsw;
    ret->involuntary = (uint64_t)usage.ru_nivcsw;
    ret->written_bytes = proc_number("/proc/self/io", "write_bytes:");
    ret->rss_bytes = proc_number("/proc/self/status", "VmRSS:") * 1024;
    ret->peak_rss_bytes = proc_number("/proc/self/status", "VmHWM:") * 1024;
    if (host)
        take_host(host, ret);
}

void sample_subtract(const struct sample *a, const struct sample *b, struct sample *ret)
{
    *ret = *b;
    ret->at_ns -= a->at_ns;
    ret->user_us -= a->user_us;
    ret->system_us -= a->system_us;
    ret->voluntary -= a->voluntary;
    ret->involuntary -= a->involuntary;
    ret->written_bytes -= a->written_bytes;
    ret->passes -= a->passes;
    ret->saves -= a->saves;
    ret->synced_saves -= a->synced_saves;
    ret->saved_updates -= a->saved_updates;
    ret->saved_entries -= a->saved_entries;
    ret->messages -= a->messages;
    ret->batches -= a->batches;
    ret->applied -= a->applied;
    ret->apply_calls -= a->apply_calls;
    ret->reads -= a->reads;
}

void sample_add(struct sample *to, const struct sample *from)
{
    to->user_us += from->user_us;
    to->system_us += from->system_us;
    to->voluntary += from->voluntary;
    to->involuntary += from->involuntary;
    to->written_bytes += from->written_bytes;
    to->rss_bytes += from->rss_bytes;
    to->peak_rss_bytes += from->peak_rss_bytes;
    to->passes += from->passes;
    to->saves += from->saves;
    to->synced_saves += from->synced_saves;
    to->saved_updates += from->saved_updates;
    to->saved_entries += from->saved_entries;
    to->messages += from->messages;
    to->batches += from->batches;
    to->applied += from->applied;
    to->apply_calls += from->apply_calls;
    to->reads += from->reads;
}
