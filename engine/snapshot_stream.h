/* engine/snapshot_stream.h - images on their way from host to host: chunks, windows, resumption.
 *
 * A stream brings one image from one replica to another. Chunks travel on connections of their own (ITransport), answers travel
 * back as ordinary messages (NH_MSG_SNAPSHOT_RECEIVED), so heartbeats and replication never wait behind an image.
 *
 *     chunk 0          data: a batch (batch_encode) of the one INSTALL_SNAPSHOT message; its record tells index, term, size
 *                      (0: unknown, a stream made on the fly) and membership; at most STREAM_HEAD_BYTES_MAX
 *     chunk 1 .. n     data: STREAM_CHUNK_BYTES of the image each, the last one 1 .. STREAM_CHUNK_BYTES
 *
 * All tell index, term and size of the record; chunk_count is n + 1, or 0 while that is unknown. The last one always tells.
 *
 *     sender                                       receiver
 *     chunk 0 ---------------------------------->  wanted here? one stream more? space for it?
 *        <-- WANT 1 | FULL | BUSY | REFUSED | DONE     (nothing else is sent before this answer)
 *     chunk 1 .. STREAM_WINDOW ------------------>  written; every half window made durable, then
 *        <-- WANT k                                    k = the first one that is not durable: the window moves
 *     ...          last ------------------------->  all of it verified, step by step (image_reader_next),
 *        <-- DONE                                      committed (engine/snapshot_dir.h); the message goes to the replica's core
 *
 * Who does not know how things stand asks with chunk 0: after a connection broke (on a new one, later and later), when no answer
 * came for STREAM_ANSWER_MS, be it that the producer is slow. The receiver makes durable what it has and tells by WANT k where
 * to go on; k = n + 1: it has all and is verifying. A receiver that restarted has forgotten and says WANT 1. A gap between chunks
 * is answered by WANT k with `reject` set: go back to k. Chunks that came before are ignored.
 *
 * DONE: an image of that index, or newer, is there (also when the first DONE was lost). FULL (no space) and BUSY (too many
 * streams) are temporary: the sender waits and asks again, up to STREAM_PATIENCE_MS. REFUSED (not ours, corrupt, senseless, an
 * I/O error there) ends the stream as failed, and so do STREAM_TRIES broken connections, missing answers or gaps in a row.
 * A stream that the transport has no connection for (EBUSY) waits for its turn, as if `sending_max` were reached.
 * A stream made on the fly also ends as failed if its producer comes on by nothing for STREAM_STALL_MS.
 * Patience and tries begin anew only when more chunks are durable than ever before. A receiver drops a stream from which it hears
 * nothing for STREAM_IDLE_MS. A second chunk 0 of the same stream with another index, term or size begins anew; with the same
 * ones its message replaces the first one's (a leader of a newer term goes on where the old one was).
 *
 * Memory: a sender holds one chunk, for a stream made on the fly PRODUCER_CHUNKS_MAX (engine/snapshot_producer.h) and one;
 * with a runtime of one thread the whole image. A receiver holds at most STREAM_WINDOW chunks per stream, of at most
 * `receiving_max` streams. All streams of a host share one token bucket (engine/token_bucket.h).
 *
 * Threads. A sender and a receiver are runtime tasks each (one thread; and two for producers); the functions below may be called
 * from any thread and only post, unless it says otherwise. Callbacks run on these tasks, with no lock held; the functions that
 * only post may be called from them. send_chunk blocks the sender's task while the network does, and with it the other streams:
 * at most for the transport's time-outs. So streams to a host that cannot be reached share their tries: one of them waits for a
 * connection, and the others rest with it if it fails. Whoever cancels or stops waits for one chunk at most.
 */
#ifndef NH_ENGINE_SNAPSHOT_STREAM_H
#define NH_ENGINE_SNAPSHOT_STREAM_H

#include "engine/files.h"
#include "engine/rsm/image.h"
#include "engine/runtime.h"
#include "engine/snapshot_dir.h"
#include "raftio/transport.h"

#define STREAM_CHUNK_BYTES     (256u * 1024u)
#define STREAM_HEAD_BYTES_MAX  (IMAGE_HEAD_BYTES_MAX + 4096u)
#define STREAM_WINDOW          16u /* chunks sent and not known to be durable */
#define STREAM_ANSWER_MS       10000u
#define STREAM_IDLE_MS         30000u
#define STREAM_TRIES           5u
#define STREAM_RETRY_MS        1000u /* after the first failure; doubled each time, up to */
#define STREAM_RETRY_MAX_MS    16000u
#define STREAM_PATIENCE_MS     600000u
#define STREAM_STALL_MS        600000u
#define STREAM_SENDING_MAX     8u /* defaults; more wait their turn (sender) or are BUSY (receiver) */
#define STREAM_RECEIVING_MAX   8u
#define STREAM_RECEIVING_LIMIT 1024u
#define STREAM_UNKNOWN_BYTES   (64u * STREAM_CHUNK_BYTES) /* space that a stream of unknown size needs to begin, and to go on */
/* Streams leave the log store, which may have the same disk, this much free: some segments of a journal and a flush. A write of
 * it that fails would end the whole host. On a small disk it is a share of that. */
#define STREAM_SPARE_BYTES (512u * 1024u * 1024u)
#define STREAM_SPARE_SHARE 10u

enum snapshot_answer {
    SNAPSHOT_WANT = 0,
    SNAPSHOT_DONE = 1,
    SNAPSHOT_FULL = 2,
    SNAPSHOT_BUSY = 3,
    SNAPSHOT_REFUSED = 4,
};

/* ---- sender ---- */

struct stream_id {
    uint64_t shard_id;
    uint64_t from; /* our replica */
    uint64_t to;
    uint64_t index;
};

/* Makes an image on the fly: an on-disk machine's. */
struct stream_producer {
    /* Writes the whole image; it is called again after a broken connection, and must give the same bytes. It runs on one of two
     * tasks for producers and may take long; `stop` tells it to end early (written with __atomic_store_n), and from then on the
     * sink answers ECLOSED. With a runtime of one thread it is never stopped, and the sink never waits. One that writes nothing
     * for STREAM_STALL_MS is told to end; its stream has ended then, whether it returns or not. */
    int (*produce)(void *ctx, const struct image_sink *sink, const volatile bool *stop, struct nh_error *err);
    void (*release)(void *ctx); /* once, when the stream has ended and no produce runs any more */
    void *ctx;
};

struct snapshot_sender_config {
    struct runtime *runtime; /* borrowed, like all below */
    struct files *files;
    const struct nh_transport_ops *transport_ops;
    struct nh_transport *transport;
    uint64_t deployment_id;
    const char *address;  /* of this host */
    uint64_t bytes_per_s; /* 0: no limit */
    uint32_t sending_max; /* 0: default */
    void *ctx;
    /* The sender took the request up (it may still wait for its turn); then exactly one end. reason: "" if it did not fail. */
    void (*started)(void *ctx, const struct stream_id *id);
    void (*ended)(void *ctx, const struct stream_id *id, bool failed, const char *reason);
};
/* The reason of a stream that gave way to a newer one for the same replica (compare the text). The core is not to hear
 * of it: it waits for the newer one. */
#define STREAM_REPLACED "replaced by a newer stream to the same replica"
/* The reason of a stream whose image was pruned before it could be opened (compare the text): a newer one is there to be sent. */
#define STREAM_PRUNED "its image is not there any more"

struct snapshot_sender;

int snapshot_sender_new(const struct snapshot_sender_config *config, struct snapshot_sender **ret, struct nh_error *err);
void snapshot_sender_start(struct snapshot_sender *s);
/* Ends all streams (failed, "the host is being closed", on the caller's thread); no callback of a stream follows. Waits for a
 * chunk that is being sent and for produce functions. Later requests are forgotten, but their producers released. */
void snapshot_sender_stop(struct snapshot_sender *s);
void snapshot_sender_free(struct snapshot_sender *s); /* takes NULL */

struct stream_request {
    struct stream_id id;
    char address[NH_ADDRESS_BYTES];   /* where the receiving replica lives */
    const struct nh_message *install; /* INSTALL_SNAPSHOT with its record, of id.index; copied. Its size is set from the image */
    struct snapshot_dir dir;          /* copied; the image of id.index is read from there, unless: */
    const struct stream_producer *producer; /* NULL, or copied */
};
/* A stream to the same replica that is under way is ended first (failed: STREAM_REPLACED). */
void snapshot_sender_send(struct snapshot_sender *s, const struct stream_request *request);
/* An answer came: a NH_MSG_SNAPSHOT_RECEIVED message. One that belongs to no stream is forgotten. */
void snapshot_sender_answer(struct snapshot_sender *s, const struct nh_message *m);
/* Ends the streams of our replica of this shard, with their callbacks; then, when no produce of them runs any more and every
 * release has been called, calls done(ctx), once, on the sender's task. That may take a while: it waits for a chunk that is being
 * sent. Of a sender that is stopped: on the stopping thread, later on the caller's. */
void snapshot_sender_cancel(struct snapshot_sender *s, uint64_t shard_id, void (*done)(void *ctx), void *ctx);

/* ---- receiver ---- */

struct snapshot_receiver_config {
    struct runtime *runtime;
    struct files *files;
    uint32_t receiving_max;     /* 0: default; at most STREAM_RECEIVING_LIMIT */
    uint64_t disk_budget_bytes; /* of all streams together; 0: what the disk has, but for STREAM_SPARE_BYTES */
    void *ctx;
    /* The directory of our replica, if it wants an image of this index now: NH_OK, or ENOTFOUND (REFUSED), EEXIST (it has that or
     * a newer one: DONE). After NH_OK an image of this index and term that is committed there already is handed over at once. */
    int (*admit)(void *ctx, uint64_t shard_id, uint64_t replica_id, const struct nh_snapshot *record, struct snapshot_dir *ret);
    /* Sends a message (SNAPSHOT_RECEIVED) to the host of the sender. */
    void (*answer)(void *ctx, const char *address, const struct nh_message *m);
    /* A committed image: `install` (transferred: its contents, not the struct) goes to the core of its replica.
     * record.file_size_bytes is set. May come twice for the same image. */
    void (*received)(void *ctx, struct nh_message *install);
};

struct snapshot_receiver;

int snapshot_receiver_new(const struct snapshot_receiver_config *config, struct snapshot_receiver **ret, struct nh_error *err);
void snapshot_receiver_start(struct snapshot_receiver *r);
/* Unfinished streams are removed from the disk, without an answer; no callback follows. */
void snapshot_receiver_stop(struct snapshot_receiver *r);
void snapshot_receiver_free(struct snapshot_receiver *r); /* takes NULL */
/* From the transport's thread: copies the chunk. False: it does not fit (more than a window is waiting, no chunk 0 came before
 * it, or it makes no sense), the connection is to be cut. Nothing of a chunk is believed that was not checked. */
bool snapshot_receiver_chunk(struct snapshot_receiver *r, const struct nh_chunk *chunk);
/* Drops the streams to our replica of this shard, for which `admit` has to refuse more by then; when nothing is written for it
 * any more calls done(ctx), as the sender does. */
void snapshot_receiver_cancel(struct snapshot_receiver *r, uint64_t shard_id, void (*done)(void *ctx), void *ctx);

#endif
