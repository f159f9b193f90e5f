/* engine/snapshot_receiver_private.h - what the two halves of a receiver share: snapshot_receiver.c (threads, mailboxes, turns)
 * and snapshot_receiving.c (one stream, step by step). Threads: the receiver's task, but for what is marked. */
#ifndef NH_ENGINE_SNAPSHOT_RECEIVER_PRIVATE_H
#define NH_ENGINE_SNAPSHOT_RECEIVER_PRIVATE_H

#include "engine/snapshot_stream.h"
#include "raftio/support/list.h"

#include <pthread.h>

/* A chunk that waits; checked as far as it can be without knowing its stream. */
struct received_chunk {
    struct queue_node node;
    struct nh_chunk chunk;
    struct nh_message_batch *batch; /* of chunk 0: one message, INSTALL_SNAPSHOT; otherwise NULL */
    uint8_t data[];                 /* of the others */
};

enum receiving_state { RECEIVING_OPENING, RECEIVING_WRITING, RECEIVING_VERIFYING, RECEIVING_OVER };

struct receiving {
    struct list link; /* guarded by lock, as what follows */
    struct queue inbox;
    uint32_t n_heads, n_chunks; /* in the inbox */

    uint64_t shard_id, replica_id, from; /* never change */
    enum receiving_state state;
    char address[NH_ADDRESS_BYTES]; /* of the sender */
    struct nh_message install;
    struct snapshot_dir dir;
    struct snapshot_temp temp;
    uint64_t index, term, size_bytes; /* size 0: unknown */
    uint64_t chunk_count;             /* 0: unknown */
    uint64_t wanted;                  /* chunk to be written next */
    uint64_t durable;                 /* first one that is not */
    uint64_t written_bytes, reserved_bytes;
    bool gap_told;
    uint64_t heard_ns;
    /* VERIFYING */
    struct file *file;
    struct file_source file_source;
    struct image_source source;
    struct image_reader *reader;
    bool in_section;
};

struct snapshot_receiver {
    struct snapshot_receiver_config config;
    struct task *task; /* atomic until it is set */
    pthread_mutex_t lock;
    struct list streams;      /* guarded by lock; only the task takes one away */
    uint32_t n_streams;       /* guarded by lock */
    bool closed;              /* guarded by lock */
    struct queue cancels;     /* guarded by lock */
    struct receiving **turns; /* room for all streams */
    uint32_t n_receiving;     /* streams that are WRITING or VERIFYING */
    uint64_t reserved_bytes;  /* by them */
    uint64_t pending_bytes;   /* of that: not written yet */
    uint8_t *buffer;          /* of one chunk */
};

/* Copies and checks a chunk; NULL: it makes no sense. Thread: any. */
struct received_chunk *received_chunk_new(const struct nh_chunk *chunk, struct nh_error *err);
void received_chunk_free(struct received_chunk *p); /* takes NULL; thread: any */

/* One step: deals with this chunk, or without one with whatever is due. Returns when it wants the next one, chunks apart. */
uint64_t receiving_step(struct snapshot_receiver *r, struct receiving *st, struct received_chunk *p);
/* Removes what is unfinished; without an answer. */
void receiving_drop(struct snapshot_receiver *r, struct receiving *st);

#endif
