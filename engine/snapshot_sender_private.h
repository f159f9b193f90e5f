/* engine/snapshot_sender_private.h - what the two halves of a sender share: snapshot_sender.c (threads, posts, turns) and
 * snapshot_sending.c (one stream, step by step). Threads: the sender's task, but for what is marked. */
#ifndef NH_ENGINE_SNAPSHOT_SENDER_PRIVATE_H
#define NH_ENGINE_SNAPSHOT_SENDER_PRIVATE_H

#include "engine/snapshot_producer.h"
#include "engine/snapshot_stream.h"
#include "engine/token_bucket.h"
#include "raftio/support/list.h"

#include <pthread.h>

enum stream_state { STREAM_WAITING, STREAM_ASKING, STREAM_SENDING, STREAM_ENDING };

struct answer {
    bool present, go_back;
    enum snapshot_answer what;
    uint64_t want;
};

struct stream {
    struct list link;
    struct stream_id id;
    enum stream_state state;
    char address[NH_ADDRESS_BYTES];
    struct nh_message install;
    struct snapshot_dir dir;
    bool has_producer;
    struct stream_producer producer;
    struct answer answer; /* stored, not looked at yet */

    struct nh_snapshot_connection *connection;
    struct file *file;
    uint64_t size_bytes;             /* 0: unknown */
    uint64_t chunk_count;            /* with chunk 0; 0: unknown */
    uint64_t next;                   /* chunk to be sent */
    uint64_t durable;                /* first one that is not known to be durable there */
    uint64_t best;                   /* the highest `durable` of all times */
    struct production *production;   /* NULL: none */
    bool production_is_stale;        /* was told to stop */
    struct produced_chunk *produced; /* the next one to be sent, or NULL */

    uint64_t stalled_ns; /* SENDING: since when the production has come on by nothing; 0: it has */
    uint64_t progress;   /* as it was then */
    bool is_stalled;     /* ENDING: that was too long, it may never return */
    bool is_told;        /* ENDING: `ended` was called */

    uint64_t not_before_ns; /* WAITING */
    uint64_t asked_ns;      /* ASKING */
    bool asked_in_silence;  /* ASKING: while a connection stood */
    uint64_t heard_ns;      /* SENDING: last answer */
    uint32_t tries;         /* that failed since there was progress */
    uint32_t n_put_off;     /* FULL or BUSY, since there was progress */
    uint64_t put_off_ns;    /* the first of them */

    bool failed;
    char reason[NH_ERROR_TEXT_BYTES];
};

struct snapshot_sender {
    struct snapshot_sender_config config;
    char address[NH_ADDRESS_BYTES];
    struct task *task; /* atomic until it is set */
    struct producers *producers;
    pthread_mutex_t lock;
    struct queue posts;   /* guarded by lock */
    uint32_t n_answers;   /* guarded by lock: among the posts */
    bool closed;          /* guarded by lock */
    struct queue cancels; /* taken, not done */
    struct list streams;  /* in the order of their turns */
    uint32_t n_active;    /* streams that have a turn: ASKING, SENDING */
    struct token_bucket bucket;
    uint8_t *buffer; /* of one chunk */
};

/* Copies the request. Thread: any. */
struct stream *sending_new(const struct stream_request *request);
/* Of a stream that no production runs for; the producer is released. Thread: any, if nobody has seen the stream. */
void sending_free(struct stream *st);
/* Notes a valid answer; the next step looks at it. */
void sending_store_answer(struct stream *st, const struct nh_message *m);
/* Of a stream that is not among the others yet: it rests with those who know that its host cannot be reached. */
void sending_share_rest(struct snapshot_sender *s, struct stream *st);
/* One step: at most one chunk is sent. Returns when it wants the next one; the stream may be gone. */
uint64_t sending_step(struct snapshot_sender *s, struct stream *st);
/* Decides that it has ended. Steps bring it to its end. */
void sending_end(struct snapshot_sender *s, struct stream *st, bool failed, const char *reason);

#endif
