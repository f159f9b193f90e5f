/* cmd/nhbench/channel.h - what nhbench and the hosts that it has started say to each other, over a socket pair.
 *
 *     parent                       host
 *                                  STARTED    all replicas run
 *     LEAD (all have started)
 *                                  LEADING    its shards are led by it
 *     GO (all lead)
 *                                  PROGRESS   each second
 *                                  REPORT     load has ended
 *     SAMPLE (instead of GO)       SAMPLED    at any time
 *     QUIT                         (ends)
 *
 * FAILED may come at any time, with a text, and is the last word. Both ends are the same program on one machine: structs go as
 * they are. Threads: one per end.
 */
#ifndef NH_CMD_NHBENCH_CHANNEL_H
#define NH_CMD_NHBENCH_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>

#include "cmd/nhbench/load.h"
#include "cmd/nhbench/sample.h"

enum said {
    SAID_STARTED = 1,
    SAID_LEADING,
    SAID_PROGRESS,
    SAID_REPORT,
    SAID_SAMPLED,
    SAID_FAILED,
    SAID_LEAD,
    SAID_GO,
    SAID_SAMPLE,
    SAID_QUIT
};

struct said_started {
    uint64_t open_ns, start_ns; /* how long opening the host took, and starting the replicas */
    uint64_t rss_before_bytes, rss_after_bytes;
};
struct said_go {
    uint64_t begin_ns, end_ns; /* of the measured interval */
};
struct said_progress {
    uint64_t done, failed;
};
struct said_report {
    struct load_result load;
    struct sample used; /* in the measured interval */
    uint32_t leads, wanted_leads;
};
struct said_sampled {
    struct sample sample;
    uint32_t leads, leaderless, shards, quiesced;
};
#define SAID_TEXT_BYTES 512u

/* False: the other end is gone. */
bool channel_say(int fd, enum said what, const void *data, size_t size_bytes);
/* Waits for the next word; its bytes go to `data`, which has room for any of them if it is a union channel_words. False: the
 * other end is gone, or speaks differently. */
union channel_words {
    struct said_started started;
    struct said_go go;
    struct said_progress progress;
    struct said_report report;
    struct said_sampled sampled;
    char text[SAID_TEXT_BYTES];
};
bool channel_hear(int fd, enum said *ret_what, union channel_words *ret);

#endif
