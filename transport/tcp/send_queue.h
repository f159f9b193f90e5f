/* transport/tcp/send_queue.h - the bounded queue between the threads that send and the loop that writes, one per peer.
 *
 * A sender reserves room, encodes its frame without any lock, and posts it; the loop takes everything at once. Bytes count
 * from the reservation until the frame was written or given up, so the limit holds for all memory of the peer's frames.
 *
 * The loop is told by `wake`, once per batch: not again before it has taken. No lock is held meanwhile.
 *
 * To wake the loop costs more than to write a small frame. So while the loop has nothing to write it *lends* its socket, and
 * a sender that posts then writes at once what is queued: its own frame, and what others post meanwhile. One sender at a
 * time does (`writing`), the others leave their frames to it. What the socket does not take, large frames, and errors are
 * the loop's. Order holds because frames are written from the head of one queue, by the sender that writes, or by the loop
 * after a take, which ends the loan. The socket does not block, and no lock is held meanwhile either; the loop waits for a
 * sender that writes only before it closes the socket (send_queue_withdraw).
 *
 * Threads: reserve, cancel, post, kick, orphan: any. take, lend, withdraw, release: the peer's loop. close, join: who closes
 * the transport.
 */
#ifndef NH_TRANSPORT_TCP_SEND_QUEUE_H
#define NH_TRANSPORT_TCP_SEND_QUEUE_H

#include <pthread.h>

#include "raftio/support/list.h"
#include "raftio/types.h"

/* A frame above this size is left to the loop, and a sender writes no more than this at once: it has other things to do. Large
 * frames come when there is much to do, and then the loop is awake. */
#define SEND_DIRECT_BYTES_MAX (16u * 1024u)
/* Frames per write of a sender. */
#define SEND_DIRECT_FRAMES 16u
/* Writes of one sender, as long as others post; the loop goes on. */
#define SEND_DIRECT_ROUNDS 4u

enum out_outcome { OUT_PENDING = 0, OUT_WRITTEN, OUT_LOST };

/* A frame on its way out; owned by the queue, then by the loop. */
struct out_frame {
    struct queue_node node;
    uint64_t queued_ms;        /* loop clock */
    enum out_outcome *outcome; /* of a sender that waits, guarded by send_queue.lock; or NULL */
    size_t room_bytes;         /* that were reserved and allocated for it: its size or more */
    size_t size_bytes;         /* header and payload */
    size_t written_bytes;      /* of these, by a sender */
    uint8_t *data;             /* behind `to` */
    uint32_t n_to;
    struct nh_replica_info to[]; /* receiver of every message, for on_unreachable; none for a chunk */
};

struct send_queue {
    void (*wake)(struct send_queue *b); /* tells the loop; called by senders */
    uint64_t *frames_sent, *bytes_sent; /* count what senders write themselves; atomic, shared with others; or NULL */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct queue in;    /* guarded by lock, as all that follows */
    size_t bytes;       /* reserved, queued, waiting or being written */
    size_t bytes_max;   /* the limit; an empty queue takes one frame of any size */
    unsigned n_senders; /* inside a call that began with a reservation */
    bool scheduled;     /* the loop was told and has not looked yet */
    bool orphan;        /* nobody sends any more: write what is here, then close */
    bool closed;
    int fd;       /* lent by the loop, -1: not */
    bool writing; /* a sender writes from the head of `in`, which is its own meanwhile */
    int error;    /* errno of its write that failed; for the loop */
};

/* A frame of that size; it may be made smaller before it is posted. */
struct out_frame *out_frame_new(size_t room_bytes, uint32_t n_to);
void out_frame_free(struct out_frame *f);

void send_queue_init(struct send_queue *b, size_t bytes_max, void (*wake)(struct send_queue *b));
void send_queue_deinit(struct send_queue *b);

/* Takes part of the limit. Errors: EBUSY (full), ECLOSED. After NH_OK the caller must post or cancel. */
int send_queue_reserve(struct send_queue *b, size_t size_bytes, struct nh_error *err);
void send_queue_cancel(struct send_queue *b, size_t size_bytes);
/* Queues a frame with the reserved room (transferred), or writes it. Errors: ECLOSED; the frame is freed. */
int send_queue_post(struct send_queue *b, struct out_frame *f, struct nh_error *err);
/* The same, and waits until the frame was written or lost. */
enum out_outcome send_queue_post_and_wait(struct send_queue *b, struct out_frame *f);
/* Makes the loop look. */
void send_queue_kick(struct send_queue *b);
/* Nobody will send any more. */
void send_queue_orphan(struct send_queue *b);

/* Takes all queued frames, which ends the loan, unless a sender is writing them. *ret_orphan as above.
 * Returns 0, or the errno of a sender's write that has failed: the connection is broken. */
int send_queue_take(struct send_queue *b, struct queue *ret, bool *ret_orphan);
/* The loop has nothing to write: senders may use its socket. */
void send_queue_lend(struct send_queue *b, int fd);
/* Ends the loan before the socket is closed: when it returns no sender uses it. Takes what senders have left there. An error
 * that nobody has taken is forgotten. If the loop was told it still has to look: what told it is under way. */
void send_queue_withdraw(struct send_queue *b, struct queue *ret);
/* Frees frames and gives their bytes back; tells senders that wait. */
void send_queue_release(struct send_queue *b, struct queue *frames, enum out_outcome outcome);

/* Refuses further frames. */
void send_queue_close(struct send_queue *b);
/* Waits until no sender is inside. To be called when the loop has stopped. */
void send_queue_join(struct send_queue *b);

#endif
