/* logdb/rocksdb/segment.h - one file of the journal: a header and records, in whole pages.
 *
 *     page 0: header     offset size
 *                          0     4  crc32c of bytes [4, 32)
 *                          4     4  format = 1
 *                          8     8  magic "NHSEGMNT"
 *                         16     8  id: also the name of the file, 16 hexadecimal digits and ".segment"
 *                         24     8  salt: random, so that nobody can make up records of it
 *
 *     then records, each from a page on:
 *                          0     4  crc32c of bytes [4, 64)
 *                          4     4  kind: 1 call, 2 seal
 *                          8     8  id of the segment: what lies behind the end of a file that is used again has another one
 *                         16     8  number (LSN) of the call
 *                         24     8  up to here the file was durable before this record was written
 *                         32     8  bytes of payload, which follow the 64 bytes of the record
 *                         40     8  bytes of the write batch, which follow the payload
 *                         48     4  crc32c of payload and batch
 *                         52     4  of a seal: how many replicas used the segment then
 *                         56     8  salt
 *
 * Little-endian. The rest of a record's last page is zero. Writing whole pages into a file that has them already is what a disk
 * does fastest: nothing is read first, no metadata changes, and the page cache can be passed by (O_DIRECT, where the file system
 * has it).
 *
 * A record that does not verify is the end of the segment: it is torn, and was never acknowledged. Unless a later record says
 * that the file had been durable beyond: then it was acknowledged, and is damaged.
 *
 * Threads: none of its own; the fields' guards are told in journal.h.
 */
#ifndef NH_LOGDB_ROCKSDB_SEGMENT_H
#define NH_LOGDB_ROCKSDB_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logdb/rocksdb/async_write.h"
#include "raftio/status.h"

#define SEGMENT_PAGE         4096u
#define SEGMENT_RECORD_BYTES 64u
#define SEGMENT_PEAK_UNKNOWN UINT32_MAX

typedef uint32_t (*segment_crc_fn)(uint32_t seed, const void *data, size_t size_bytes);

enum segment_record_kind { SEGMENT_CALL = 1, SEGMENT_SEAL = 2 };

struct segment_record {
    enum segment_record_kind kind;
    uint64_t lsn;
    uint64_t durable;
    uint64_t payload_bytes, batch_bytes;
    uint32_t body_crc;
    uint32_t peak_users;
};

/* Bytes in whole pages of memory, as direct I/O wants them; zeroed at first. */
struct segment_buffer {
    uint8_t *data;
    size_t size_bytes, cap;
};
/* Makes room for so many bytes in all, and for the page that the last ones fill. */
void segment_buffer_reserve(struct segment_buffer *b, size_t size_bytes);
void segment_buffer_deinit(struct segment_buffer *b);

struct segment {
    uint64_t id;
    uint64_t salt;
    bool salt_is_known; /* not while its header cannot be read */
    int write_fd;       /* -1: read only; perhaps O_DIRECT */
    int read_fd;
    uint64_t end;      /* the next record goes here */
    uint64_t prepared; /* the file has these bytes: writing there changes no metadata */
    uint64_t planned;  /* bytes that it will have, about: no more are prepared */
    uint64_t ahead;    /* bytes that are prepared next */
    uint64_t durable;
    uint64_t last_lsn; /* 0: no record that counts */
    bool sealed;
    uint32_t n_users, peak_users; /* replicas with blocks here, now and when it was finished */
    uint32_t n_moved;             /* of them, those whose blocks have been moved out, perhaps not durably */
    bool stuck;                   /* what is here cannot be moved out */
    uint64_t dropped; /* its number among those that nobody needs, 0: it is needed; it stays while older views may read it */
};

/* Makes the file, or makes `spare` (taken; NULL: none) that file, durably. Errors: EIO. */
int segment_create(const char *dir, uint64_t id, bool direct, segment_crc_fn crc, struct segment *spare, struct segment **ret,
                   struct nh_error *err);
/* Opens an old one for reading; `end` and what follows from records is not known yet. Errors: EIO, ECORRUPT (its header; it may
 * be an interrupted creation, see segment_is_blank). */
int segment_open(const char *dir, uint64_t id, segment_crc_fn crc, struct segment **ret, struct nh_error *err);
void segment_free(struct segment *s); /* closes; takes NULL */
/* Moves the file aside, to be used again (*ret takes its place) or, with a NULL, to be removed. */
int segment_retire(const char *dir, struct segment *s, bool direct, struct segment **ret, struct nh_error *err);
/* A file that never got a record of its own. Returns 1 or 0. Errors: EIO. */
int segment_is_blank(const char *dir, uint64_t id, segment_crc_fn crc, struct nh_error *err);

/* A record on its way into its segment. */
struct segment_write {
    struct segment *segment;
    const uint8_t *data;
    size_t size_bytes; /* whole pages */
    uint64_t lsn;
    bool sync;
    struct async_write *async; /* NULL: segment_append_end writes it */
};

/* Begins to write a record whose body lies in `b`, which stays as it is until segment_append_end, from SEGMENT_RECORD_BYTES on;
 * sets its durable and body_crc. With `async` it is under way afterwards, if it is to be synced, its place is prepared, and all
 * before it is durable. */
void segment_append_begin(struct segment *s, struct async_write *async, struct segment_buffer *b, struct segment_record *r,
                          bool sync, segment_crc_fn crc, struct segment_write *ret);
/* A failure leaves the file in a state that only a new opening can tell. Errors: EIO. */
int segment_append_end(struct segment_write *w, struct nh_error *err);
/* Both. */
int segment_append(struct segment *s, struct segment_buffer *b, struct segment_record *r, bool sync, segment_crc_fn crc,
                   struct nh_error *err);
int segment_sync(struct segment *s, struct nh_error *err);
/* The same for one that an earlier life wrote, and what is read from here on is read from the disk: pages that could not be
 * written stay in the page cache as if they had been, and no later sync reports it. */
int segment_sync_and_reload(struct segment *s, struct nh_error *err);

/* The record at this page. Returns 1, or 0 if there is none. Errors: EIO. */
int segment_record_at(const struct segment *s, uint64_t at, segment_crc_fn crc, struct segment_record *ret, struct nh_error *err);
/* Reads it as a whole into `b`. Returns 1, or 0 if its body does not verify. Errors: EIO. */
int segment_read_record(const struct segment *s, uint64_t at, const struct segment_record *r, segment_crc_fn crc,
                        struct segment_buffer *b, struct nh_error *err);
static inline uint64_t segment_record_pages(const struct segment_record *r)
{
    uint64_t bytes = SEGMENT_RECORD_BYTES + r->payload_bytes + r->batch_bytes;

    return (bytes + SEGMENT_PAGE - 1) / SEGMENT_PAGE * SEGMENT_PAGE;
}
/* Whether a later record shows that the one at `at` had been durable. Returns 1 or 0. Errors: EIO. */
int segment_was_durable(const struct segment *s, uint64_t at, segment_crc_fn crc, struct nh_error *err);
/* Reads bytes that are surely there. Errors: EIO, ECORRUPT (the file is shorter). */
int segment_read(const struct segment *s, uint64_t at, void *out, size_t size_bytes, struct nh_error *err);

#endif
