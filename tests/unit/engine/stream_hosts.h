/* Hosts that send images to each other, on one thread with virtual time: the harness of the tests of streams.
 *
 * Three hosts, each with a disk in memory, a sender and a receiver, and one replica of shard 1: replica n on host n - 1. Replica
 * 2 wants an image until it has one. The network is a function call; one fault can be put into it.
 */
#ifndef NH_TESTS_UNIT_STREAM_HOSTS_H
#define NH_TESTS_UNIT_STREAM_HOSTS_H

#include "engine/snapshot_stream.h"
#include "tests/sim/memory_files.h"

#define STREAM_HOSTS 3u
#define STREAM_INDEX 100u
#define STREAM_TERM  5u
#define CHUNKS_MAX   256u
#define DEAD_MS      5000u

/* What happens to chunk `net.chunk`, `net.times` times. */
enum stream_fault {
    FAULT_NONE,
    FAULT_BROKEN,        /* it is lost, and the connection breaks */
    FAULT_LOST,          /* nobody notices */
    FAULT_TWICE,         /* it comes twice */
    FAULT_CORRUPT,       /* a byte of its data is another one */
    FAULT_RESTART,       /* before it comes, its receiver is closed and opened again */
    FAULT_CRASH,         /* the same, but power is cut */
    FAULT_UNREACHABLE,   /* nobody listens any more: for `times` connections */
    FAULT_DISK_FULL,     /* the next operation of the receiver's disk fails */
    FAULT_DISK_BROKEN,   /* the same */
    FAULT_ANSWER_LOST,   /* the answers that follow it */
    FAULT_ANSWERS_TWICE, /* and so do all later ones */
};
#define STREAM_FAULTS 12u

struct stream_host {
    struct memory_files *disk;
    struct snapshot_dir dir;
    struct snapshot_sender *sender;
    struct snapshot_receiver *receiver;
    char address[16];
    uint32_t n_started, n_ended, n_failed, n_released;
    char reason[NH_ERROR_TEXT_BYTES];
    uint32_t n_received;
    struct nh_message received; /* the last one */
    bool has_image;             /* its log store has the record */
    int admits;                 /* what `admit` says to an image that is not there; 0: welcome */
};

struct stream_net {
    enum stream_fault fault;
    uint64_t chunk;
    uint32_t times, n_faults;    /* n_faults: happened */
    uint32_t n_sent[CHUNKS_MAX]; /* by chunk, of all hosts */
    uint32_t n_answers[5];       /* by enum snapshot_answer */
    uint64_t first_after_fault;  /* first chunk but 0 that was sent after the fault */
    uint64_t bytes;              /* of chunks but 0 */
    bool mute;                   /* no answer arrives */
    char order[256];             /* to which replica chunks but 0 were sent: '1' ... */
    uint32_t n_order;
    bool overrun;      /* a receiver refused a chunk */
    uint32_t dead;     /* replica whose host answers no connection: who sends to it waits for DEAD_MS in vain; 0: none */
    uint32_t n_waited; /* who has */
    uint32_t connections_max, n_connections; /* at once, of all hosts; max 0: no limit */
};

struct stream_test {
    struct stream_host hosts[STREAM_HOSTS];
    struct stream_net net;
    uint64_t now_ns;
    uint8_t *image;
    size_t image_bytes;
    /* before stream_hosts_open */
    uint64_t bytes_per_s, disk_budget_bytes;
    uint32_t sending_max, receiving_max;
    bool two_sources; /* host 2 has the image too */
    /* the producer */
    uint32_t n_produced;
    uint64_t produce_fails_at; /* bytes; 0: never */
    uint32_t n_pauses;         /* it is to make so many, from this byte on, so long, and without listening meanwhile */
    uint64_t pause_at, pause_ms;
    bool deaf;
    bool again; /* when both producers hang in streams that have ended, host 0 begins a third one, to replica 2 */
    uint32_t n_paused, n_ended_in_pause; /* by host 0, when one was over */
};
extern struct stream_test test;

/* Makes an image of about this many bytes, and opens and starts the hosts. Host 0 has the image. */
void stream_hosts_open(size_t data_bytes);
void stream_hosts_close(void);
/* Power of this host is cut, or (not) it is closed; and it begins anew. */
void stream_host_restart(uint32_t host, bool crash);

/* Polls until nobody has anything to do before `until_ns`, which is the time then. */
void stream_run_until(uint64_t until_ns);
void stream_run_ms(uint64_t ms);
/* Until this host has ended as many streams; fails after a virtual hour. */
void stream_run_ended(uint32_t host, uint32_t n);

/* Replica host + 1 sends to replica `to`; produced: on the fly. */
void stream_send(uint32_t host, uint64_t to, bool produced);
void stream_send_index(uint32_t host, uint64_t to, uint64_t index, bool produced);
/* Of another shard: whoever gets it refuses it. */
void stream_send_shard(uint32_t host, uint64_t to, uint64_t shard_id);
uint32_t stream_chunks(void); /* of the image, without chunk 0 */

/* The image lies at this host whole, once, with the right bytes; nothing else is there. */
void stream_check_arrived(uint32_t host);
/* Nothing is there. */
void stream_check_nothing(uint32_t host);
/* A chunk of the stream from host 0 to host 1, as it would be sent; chunk 0 is encoded with the record. */
bool stream_give(const struct nh_chunk *chunk);
struct nh_chunk stream_chunk(uint64_t chunk_id);

#endif
