/* engine/snapshot_producer.h - runs the produce functions of streams (engine/snapshot_stream.h) on tasks of their own, and hands
 * over what they write as chunks.
 *
 * A production is one run of one produce function. To go on after a broken connection, it is run again and the chunks below
 * `first` are thrown away. With threads a production waits while PRODUCER_CHUNKS_MAX of its chunks wait to be taken; with a
 * runtime of one thread nobody could take them, so it goes on as if there were room.
 *
 * Threads: producers_wake and the produce functions run on the producers' tasks, all else belongs to one owner.
 */
#ifndef NH_ENGINE_SNAPSHOT_PRODUCER_H
#define NH_ENGINE_SNAPSHOT_PRODUCER_H

#include "engine/snapshot_stream.h"
#include "raftio/support/list.h"

#define PRODUCER_TASKS      2u
#define PRODUCER_CHUNKS_MAX 2u

struct producers;
struct production;

struct produced_chunk {
    struct queue_node node;
    uint64_t chunk_id; /* 1 ... */
    bool last;
    size_t size_bytes;
    uint8_t data[STREAM_CHUNK_BYTES];
};

/* wake: a production has a chunk or has ended; called on a producer's task. */
struct producers *producers_new(struct runtime *runtime, void (*wake)(void *ctx), void *ctx);
void producers_start(struct producers *p);
/* Every production is to be told to stop before; waits for the one that runs. */
void producers_stop(struct producers *p);
void producers_free(struct producers *p); /* takes NULL; no production is left */

/* Queues a run. The producer is borrowed until the production is freed. */
struct production *production_new(struct producers *p, const struct stream_producer *producer, uint64_t first);
/* Tells it to end early. One that has not begun ends at once. */
void production_stop(struct production *r);
/* The next chunk, to be freed with free(); NULL: none now, or production_over tells why none will follow. */
struct produced_chunk *production_take(struct production *r);
/* True: produce has returned, or was never called. *ret_code: what it returned; if that is NH_OK, *ret_count is the number of
 * chunks with chunk 0. */
bool production_over(struct production *r, int *ret_code, uint64_t *ret_count, struct nh_error *err);
/* A number that changes when it writes; as long as it has not begun, when any other one does. */
uint64_t production_progress(struct production *r, bool *ret_begun);
void production_free(struct production *r); /* one that is over; takes NULL */

#endif
