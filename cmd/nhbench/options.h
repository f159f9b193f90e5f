/* cmd/nhbench/options.h - the command line of nhbench, for the parent and for the hosts that it starts.
 *
 * A host gets the words of its parent's command line again, behind a few of its own; so there is one parser and nothing to
 * convert. Strings point into argv. Threads: one.
 */
#ifndef NH_CMD_NHBENCH_OPTIONS_H
#define NH_CMD_NHBENCH_OPTIONS_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#define BENCH_HOSTS         3u
#define BENCH_SHARDS_MAX    1000000u
#define BENCH_PAYLOAD_MAX   (32u * 1024u * 1024u)
#define BENCH_IN_FLIGHT_MAX 16777216u
#define BENCH_LOADERS_MAX   16u
#define BENCH_KEY_BYTES     16u
#define BENCH_RATE_MAX      100000000u
#define BENCH_SECONDS_MAX   86400u
#define BENCH_CLIENTS_MAX   10000u
#define BENCH_PIPELINE_MAX  65536u

enum bench_read_mode { BENCH_READ_INDEX, BENCH_READ_LEASE, BENCH_READ_STALE };
enum bench_machine { BENCH_NOOP, BENCH_KV };

struct bench_options {
    uint32_t shards;
    uint32_t payload;   /* bytes of a proposal (noop) or of a value (kv) */
    uint32_t in_flight; /* requests per host, or --clients times --pipeline */
    double seconds, warm_up;
    enum bench_machine machine;
    bool chained;      /* the only request under way is made in the completion of the one before */
    bool one_by_one;   /* nh_propose for each instead of batches */
    bool sessions;     /* each request slot has a session of its own */
    double read_share; /* 0 .. 1 */
    enum bench_read_mode read_mode;
    uint32_t keys; /* per shard (kv), or in all (remote) */
    uint32_t rate; /* requests per second and host; 0: closed loop */
    uint32_t load_threads, start_threads, step_workers, apply_workers, rtt_ms;
    uint32_t gather_us;        /* the load waits so long for more answers before it proposes again */
    uint64_t snapshot_entries; /* 0: the host's default */
    uint32_t seed;
    bool json, limit, restart, log_workers, no_polling, quiesce, verbose;
    const char *log_store; /* "rocksdb", "memory", or the path of a shared object */
    const char *log_store_options;
    const char *spread;  /* "even" */
    const char *plugins; /* directory of machines */
    const char *dir;     /* NULL: a temporary one in the current directory */
    const char *pin;     /* cores of the hosts: "0-1:2-3:4", one list per host; NULL: not pinned */
    /* remote */
    const char *hosts; /* "address:port,..." */
    uint32_t clients, pipeline;
    /* plot */
    const char *out;                       /* directory */
    const char *in_flights, *shard_counts; /* numbers with commas */
    /* guard */
    const char *against, *source; /* a commit, and a directory of its repository */
    uint32_t rounds;
    double below; /* a median ratio that is a regression */
    /* of a host that a parent has started */
    uint32_t host;         /* 1 .. BENCH_HOSTS */
    int channel;           /* file descriptor */
    const char *addresses; /* of all hosts: "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3" */
    const char *host_dir;  /* its data directory */
    int n_words;           /* what the parent was called with, behind its subcommand */
    char **words;
};

/* Reads argv[first..]; false: a message is on stderr. Every limit is checked here. */
bool options_parse(int argc, char **argv, int first, struct bench_options *ret);
/* The cores of list i of --pin, like "0-3,6:4:5"; false if the text is not such a thing. */
bool options_cores(const char *text, uint32_t i, cpu_set_t *ret);
extern const char bench_usage[];

#endif
