/* logdb/rocksdb/journal.h - the write-ahead log of the store, and the home of large blocks of entries.
 *
 * Every write of the store is one record of the journal: the RocksDB write batch as it is, and before it the *payload*, the
 * records of those blocks that the batch only points to. The record is synced, then the batch goes into RocksDB, whose own WAL is
 * off. So an entry is written once: what RocksDB flushes and compacts is an index of some hundred bytes per block, and what is
 * small.
 *
 *     stream    Each worker has its own, and all other callers share a few, so that they sync side by side. A stream writes
 *               one segment at a time.
 *
 *     LSN       Numbers the calls over all streams. Calls that concern one replica exclude each other (store.h), so their
 *               LSNs have the order of their effects.
 *
 *     horizon   All calls below it are in RocksDB's tables. A record in RocksDB tells it: RocksDB without WAL keeps a prefix
 *               of what was written to it, so with the record it has all that was written before. A recovery puts the calls
 *               from the horizon on into RocksDB again, in order; those that were there already come out the same.
 *
 *     cut       A number that the horizon will be. Tails (tail.h) hold nothing from both sides of one.
 *
 *     use       A replica has live blocks in a segment (a key per use, layout.h). A segment without users, all of it below
 *               the horizon, is used again for a new one, or removed.
 *
 * Files: `<id>.segment` (segment.h) in the WAL directory. Ids grow; after an opening the streams begin new segments, so nothing
 * is ever written behind a tail that a crash has torn. `<id>.spare` are segments to be used again; an opening removes them.
 *
 * A *view* is what a reader needs around its iterator: segments that were there when it began stay until it ends.
 *
 * Threads. A stream belongs to its worker, or to who has borrowed it. Whoever appends, tells when its batch is in RocksDB
 * (journal_applied). Everything with [lock] may be called from any thread.
 */
#ifndef NH_LOGDB_ROCKSDB_JOURNAL_H
#define NH_LOGDB_ROCKSDB_JOURNAL_H

#include <pthread.h>

#include "logdb/rocksdb/directory.h"
#include "logdb/rocksdb/layout.h"
#include "logdb/rocksdb/segment.h"
#include "raftio/support/list.h"

/* A segment that gets as long as a sixteenth of the budget is followed by the next; this is the most. */
#define JOURNAL_SEGMENT_BYTES ((uint64_t)64 * 1024 * 1024)
/* Segments that wait to be used again. */
#define JOURNAL_SPARES_MAX 4u
/* Streams of those who are not workers: as many can start replicas at a time without waiting for each other's syncs. */
#define JOURNAL_SHARED_STREAMS 8u

struct journal_stream {
    struct segment *segment;      /* being written; NULL: none yet */
    struct segment_buffer record; /* being built */
    uint64_t pending;             /* [lock] its call that is perhaps not in RocksDB or a tail yet; 0: none */
    uint64_t cut;                 /* the newest one when that call got its number */
    uint64_t making;              /* [lock] the segment that it is making; 0: none */
    bool unsynced;
    bool lone;                  /* set by the caller of journal_commit_begin: the call is of one replica */
    struct segment_write write; /* of a commit that has begun */
    struct async_write async;   /* what does it */
    pthread_mutex_t borrowed;   /* of a shared one */
};

struct journal_view {
    struct list link;
    uint64_t drops; /* so many segments had been dropped when it began */
};

struct journal {
    char dir[DIRECTORY_PATH_BYTES];
    bool direct; /* segments can be written past the page cache */
    bool async;  /* and by the kernel while nobody waits */
    bool polls;  /* set by the caller of journal_open: for the end of such a write of a lone replica (async_write.h) */
    segment_crc_fn crc;
    uint64_t segment_bytes;
    struct journal_stream *streams; /* JOURNAL_SHARED_STREAMS, then the workers' */
    uint32_t n_streams;

    pthread_mutex_t lock;
    struct segment **segments; /* [lock] by id */
    size_t n_segments, cap_segments;
    struct segment *spares[JOURNAL_SPARES_MAX]; /* [lock] */
    uint32_t n_spares;
    struct list views;          /* [lock] the oldest first */
    uint64_t n_drops;           /* [lock] */
    uint64_t next_id, next_lsn; /* [lock] */
    uint64_t horizon;           /* [lock] that tables hold; 0: none */
    uint64_t cut;               /* [lock] */
    pthread_cond_t applied;     /* with lock: a call is pending no more */
    uint32_t n_waiting;         /* [lock] for that */
    bool stopped;               /* [lock] pending calls stay so: the store is fenced */
    uint64_t new_bytes;         /* [lock] written since the horizon was moved */
};

/* ---- life ---- */

/* Opens the segments that are there, for reading. Errors: EIO, ECORRUPT. */
int journal_open(struct journal *j, const char *dir, bool direct, uint32_t n_workers, uint64_t budget_bytes, segment_crc_fn crc,
                 struct nh_error *err);
/* Syncs what is not, and seals. Best effort: returns the first error. */
int journal_seal(struct journal *j, struct nh_error *err);
void journal_deinit(struct journal *j);

/* ---- writing; thread: of the stream ---- */

static inline struct journal_stream *journal_stream_of(struct journal *j, uint32_t worker_id)
{
    return &j->streams[JOURNAL_SHARED_STREAMS + worker_id - 1];
}
/* A shared one that is free, or the first to become so. Thread: any. */
struct journal_stream *journal_borrow(struct journal *j);
void journal_return(struct journal_stream *s);

/* Begins a record with a payload of about `bytes`, in a segment whose id is not lower than `id_min`. Errors: EIO. */
int journal_begin(struct journal *j, struct journal_stream *s, size_t bytes, uint64_t id_min, struct nh_error *err);
/* Room for so many bytes at the end of the payload; what was written there is counted by journal_take. */
uint8_t *journal_room(struct journal_stream *s, size_t bytes);
static inline void journal_take(struct journal_stream *s, size_t bytes)
{
    s->record.size_bytes += bytes;
}
/* Takes the last bytes of the payload back. */
static inline void journal_give_back(struct journal_stream *s, size_t bytes)
{
    s->record.size_bytes -= bytes;
}
/* Where the last `bytes` of the payload will lie. */
struct layout_location journal_location(const struct journal_stream *s, size_t bytes);
/* Begins to write the record, whose last `batch_bytes` are no payload but the batch. Its number is in s->pending. */
void journal_commit_begin(struct journal *j, struct journal_stream *s, size_t batch_bytes, bool sync);
/* It is written on return, and durable if `sync`. Errors: EIO. */
int journal_commit_end(struct journal_stream *s, struct nh_error *err);
/* Its batch is in RocksDB, or waits in tails. Returns true if so much is new that the horizon should move. */
bool journal_applied(struct journal *j, struct journal_stream *s);
/* No further call will be applied. Thread: any. */
void journal_stop(struct journal *j);

/* ---- reading and uses; any thread ---- */

/* Begins before the iterator is made, ends when it is not used any more. */
void journal_view_begin(struct journal *j, struct journal_view *v);
void journal_view_end(struct journal *j, struct journal_view *v);
/* Reads what lies there, for a reader with a view, or a writer that holds the replica whose block it is. Errors: EIO, ECORRUPT.
 */
int journal_read(struct journal *j, const struct layout_location *at, void *out, struct nh_error *err);
/* A replica has blocks in this segment, or has none there any more. False: there is no such segment. */
bool journal_use(struct journal *j, uint64_t segment_id);
void journal_unuse(struct journal *j, uint64_t segment_id);

/* ---- reclaiming; thread: one at a time ---- */

/* Makes a cut, and waits until no call below it is pending, or the journal is stopped. *ret_floor is the lowest segment that has,
 * or may get, calls from it on. */
uint64_t journal_make_cut(struct journal *j, uint64_t *ret_floor);
/* The number of the next call, and below which one tables hold all. Thread: any. */
uint64_t journal_next_lsn(struct journal *j);
uint64_t journal_horizon(struct journal *j);
/* What was written since the horizon was moved. */
uint64_t journal_new_bytes(struct journal *j);
/* Tables hold all calls below `horizon`, and what was moved before. */
void journal_set_horizon(struct journal *j, uint64_t horizon);
/* Lets go of segments that nobody needs. Errors: EIO (logged, nothing is lost). */
int journal_drop_dead(struct journal *j, struct nh_error *err);
/* Bytes of all finished segments. */
uint64_t journal_bytes(struct journal *j);
/* The oldest finished segment below the horizon that few of its replicas still use, or `any` do; 0: none. */
uint64_t journal_choose_victim(struct journal *j, bool any);
/* One of its users has moved all out: it is none any more once the horizon was moved. */
void journal_moved(struct journal *j, uint64_t segment_id);
/* After an attempt to free it: if it is still used it is not chosen again. Returns true then. */
bool journal_give_up(struct journal *j, uint64_t segment_id);

#endif
