/* cmd/nodehostd/server.h - the Redis server: one event loop that takes commands from clients, turns them into requests to shards,
 * and gives the answers back in order.
 *
 *     client.c        bytes of one client to calls, replies back to bytes; order and limits per client
 *     command.c       which call is which command (cmd_*.c)
 *     request.c       parts of a call on their way to shards and back
 *     shard_hosts.c   which hosts have a shard, for CLUSTER and for what is asked of the wrong host
 *     server.c        sockets, start and stop
 *
 * A *call* is one command of one client. It is answered at once, or it has *parts*, each a request to one shard; it is done when
 * its last part has ended. Replies leave in the order of the calls.
 *
 * Order: Redis clients expect their commands to work one after another. Writes of one client are proposed in order, and several
 * may be on their way; but a read waits until the client's writes before it have ended, and a write until its reads have. So a
 * client reads what it wrote.
 *
 * Threads: everything runs on the loop's thread, but request completions, which only note the outcome and wake the loop.
 */
#ifndef NH_CMD_NODEHOSTD_SERVER_H
#define NH_CMD_NODEHOSTD_SERVER_H

#include <pthread.h>
#include <uv.h>

#include "cmd/nodehostd/config.h"
#include "cmd/nodehostd/resp.h"

/* How much one client may ask for and not read; nobody is cut for it.
 *
 *   on their way   CLIENT_CALLS_MAX calls; fewer if replies are large: as many as make about CLIENT_WINDOW_BYTES
 *   done           replies wait in their calls, until those before them have left: above CLIENT_WINDOW_BYTES of them no further
 *                  command is taken. The window does not know the next replies: an answer to a query that would make it more
 *                  than CLIENT_HELD_BYTES_MAX is not kept, the shard is asked again when its turn comes
 *   leaving        replies move to `out` below CLIENT_OUT_BYTES_SOFT, so there are two times that and two replies at most
 *
 * A reply may have CLIENT_REPLY_BYTES_MAX; of an answer that is larger nothing beyond is kept, and the call is refused. So memory
 * is bounded by CLIENT_HELD_BYTES_MAX and three replies (the two that leave, and the first of those behind them, whose answer is
 * always kept), whatever a client asks for, but for what ended since the loop looked last, and for writes that answer a value
 * (GETSET, SET ... GET): these were applied, and no more than CLIENT_VALUE_WRITES_MAX are on their way. */
#define CLIENT_CALLS_MAX        1024u
#define CLIENT_CALLS_START      16u
#define CLIENT_CALLS_MIN        2u
#define CLIENT_VALUE_WRITES_MAX 16u
#define CLIENT_WINDOW_BYTES     (16u << 20)
#define CLIENT_HELD_BYTES_MAX   (64u << 20)
#define CLIENT_OUT_BYTES_SOFT   (1u << 20)
#define CLIENT_REPLY_BYTES_MAX  (256u << 20)
#define CLIENT_NAME_BYTES       64u
/* What a client may still send of a request that was refused by its form; more is answered by a reset. */
#define CLIENT_REFUSED_BYTES_MAX (1u << 30)

struct server;
struct client;
struct call;

enum command_kind {
    COMMAND_NOW,   /* answered by this host alone, at once */
    COMMAND_WRITE, /* proposes */
    COMMAND_READ,  /* reads linearizably */
};

/* One request to one shard. */
struct part {
    struct part *next; /* in the server's list of ended ones */
    struct call *call;
    uint64_t shard_id;
    struct buffer cmd; /* as the machine takes it */
    uint32_t n_keys;
    uint16_t slot; /* of the first key, if there are any */
    bool is_query; /* may be asked again */
    /* How it ended. */
    int submit_code; /* negative: it was not accepted; `data` is the text */
    int code, drop_reason, status;
    uint64_t index, value;
    char *data; /* owned */
    size_t size;
};

struct call {
    struct call *next; /* of the same client */
    struct server *server;
    struct client *client; /* NULL: gone, the reply is for nobody */
    const struct command *command;
    const struct kv_slice *args; /* valid while it runs */
    uint32_t n_args;
    int resp;
    struct buffer reply;
    bool done;
    bool counted;       /* among the client's reads or writes on their way */
    bool answers_value; /* a write whose answer may be as large as any value */
    bool put_off;       /* its answer was not kept: its shards are to be asked again, once */
    bool asked_again;
    struct part *parts;
    uint32_t n_parts, n_ended;
    size_t answer_bytes;   /* of all parts, kept or not; atomic */
    size_t expected_bytes; /* what they were when it was put off */
    uint32_t *key_parts;   /* MGET: which part has the i-th key; else NULL */
    uint32_t n_keys;
    void (*finish)(struct call *call); /* makes the reply when all parts have ended */
};

struct client {
    uv_tcp_t tcp;
    struct server *server;
    struct client *next, *prev;
    uint64_t id;
    char name[CLIENT_NAME_BYTES], address[NH_ADDRESS_BYTES];
    int resp;
    struct buffer in, out, writing;
    size_t in_at;        /* bytes of `in` that were used */
    size_t parsed_bytes; /* of a request at in_at that waits for its turn; 0: none */
    struct resp_parser parser;
    uv_write_t write_req;
    uv_shutdown_t shutdown_req;
    bool is_writing, is_reading, closing, last_call; /* last_call: close when all is answered */
    bool is_refused, lingers;                        /* its last request was malformed; what it sends is thrown away */
    size_t refused_bytes;
    bool in_multi; /* between MULTI and EXEC: commands are answered, not run */
    struct call *first, *last;
    uint32_t n_calls, n_writes, n_reads, n_value_writes;
    uint32_t calls_max; /* CLIENT_CALLS_MIN .. CLIENT_CALLS_MAX */
    size_t held_bytes;  /* replies of calls that are done */
    uint32_t n_put_off; /* calls that are put off, or asked again and not done */
};

/* Parts of one shard that are proposed together, at the end of a round of input or when they are this many bytes: a batch is
 * accepted whole or not at all. */
#define SHARD_QUEUE_BYTES (4u << 20)
struct shard_queue {
    uint64_t shard_id;
    struct nh_proposal *items;
    size_t n, cap, bytes;
    struct shard_queue *next_dirty;
    bool dirty;
};

struct server_stats {
    uint64_t connections, rejected, commands, clients;
};

struct server {
    uv_loop_t loop;
    const struct config *config;
    struct nh_host *host;
    uv_tcp_t listener;
    uv_async_t ended_async;
    uv_prepare_t flush_prepare;
    struct client *clients;
    uint32_t max_clients; /* as configured, if there are descriptors for so many */
    uint64_t next_client_id;
    struct server_stats stats;
    uint64_t started_ms;
    bool stopping;
    /* Shards of the kv machine, ascending: they share the slots. */
    uint64_t *kv_shards;
    uint32_t n_kv;
    struct shard_queue *kv_queues; /* parallel to kv_shards */
    struct shard_queue *dirty;
    bool log_failed;                            /* atomic: the log store is fenced, nothing is answered until a restart */
    const bool *is_gone;                        /* atomic; parallel to config->peers: our last connection to it failed */
    uint32_t next_place;                        /* which of the hosts that may have a shard is named next (shard_hosts.h) */
    uint32_t n_shards_wanted, n_shards_started; /* the latter atomic */
    bool loading;                               /* atomic: shards are being started */

    pthread_mutex_t ended_lock;
    struct part *ended_first, *ended_last; /* guarded by ended_lock */
};

static inline bool server_log_failed(const struct server *s)
{
    return __atomic_load_n(&s->log_failed, __ATOMIC_RELAXED);
}
/* Prepares a server: loop, listening socket, table of shards. Errors: EIO (the address). */
int server_init(struct server *s, const struct config *config, struct nh_error *err);
/* Runs until server_stop. `host` must be set. */
void server_run(struct server *s);
/* Ends server_run: no new clients, open ones are closed. Thread: the loop's. */
void server_stop(struct server *s);
/* After the host is closed: ends the calls that were still on their way, closes the loop. */
void server_deinit(struct server *s);

/* ---- client.c ---- */

void client_accept(struct server *s);
void client_close(struct client *c);
/* Sends what is done, and goes on with what was read. */
void client_go_on(struct client *c);
/* A call has its reply: it may have been the last of its client that others wait for. */
void call_done(struct call *call);
/* All parts of a call have ended. True: there is no room for the answer now, and it is forgotten; the parts run again. */
bool call_put_off(struct call *call);
void call_free(struct call *call);

/* ---- request.c ---- */

/* Gives the call `n` parts. */
void call_make_parts(struct call *call, uint32_t n);
/* Sends a part on its way; it may end at once. */
void part_propose(struct part *p);
void part_query(struct part *p);
/* Sends the parts of a call that is put off on their way again: queries. */
void call_ask_again(struct call *call);
void part_change_membership(struct part *p, const struct nh_config_change *change);
void part_transfer(struct part *p, uint64_t target);
void part_look_at_peers(struct part *p); /* its data are struct nh_peer_info */
void part_open_session(struct part *p, uint64_t client_id);
void part_close_session(struct part *p, uint64_t client_id);
/* Proposals of its shard that wait to be sent go first: a client's writes stay in order. */
void part_propose_in_session(struct part *p, const struct nh_session_step *step);
void part_snapshot(struct part *p);
void part_export(struct part *p, const char *directory); /* its data is the path */
/* Proposes what was queued since the last call. */
void requests_flush(struct server *s);
/* Takes what has ended. Thread: the loop's. */
void requests_take_ended(struct server *s);
/* Writes the error reply of a call whose parts did not all succeed; false if all did. */
bool call_reply_failure(struct call *call);
/* The same as if the call had this part alone. */
bool part_reply_failure(struct call *call, const struct part *p);
/* Refuses a call of several parts, of which none was sent yet, if one of their shards is not on this host. False: all are. */
bool call_reply_elsewhere(struct call *call);
/* "-ERR shard N: why; nothing was changed" for a refusal that has a reason. False: it is none. */
bool part_reply_refusal(struct call *call, const struct part *p);

#endif
