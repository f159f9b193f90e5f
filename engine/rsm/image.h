/* engine/rsm/image.h - the bytes of a snapshot: what is in an image, written and read as a stream.
 *
 * An image is a head, then sections in blocks, then an end:
 *
 *     head      magic, version, compression; machine name and version; the record (raftpb Snapshot: shard, index, term, members)
 *     sessions  one section, the encoded table (engine/rsm/sessions.h); may be empty
 *     data      one section, what the machine wrote; may be empty; absent in a dummy
 *     file      a section per extra file: id, meta, size, bytes; none in a dummy
 *     end       number of blocks, raw bytes, and a digest (XXH3, 128 bits) of all bytes before it
 *
 * Each block has a CRC32C over its head and its bytes, and its number, so that blocks cannot be swapped, lost or doubled unseen;
 * a block is at most IMAGE_BLOCK_BYTES raw, stored as it is or compressed (zstd) where that is smaller. The exact bytes are in
 * docs/FORMATS.md, "Snapshot image"; a golden file is read back by a test. Blocks are full but for the last one of a section, so
 * the bytes of an image do not depend on the pieces that it was written in (those of a compressed one depend on the version of
 * zstd). The writer never seeks: an image can be made straight into a network stream. Nothing is believed before its checksum is
 * seen, no length before it is compared with a limit.
 *
 * Threads: a writer or reader belongs to one thread at a time. Errors: ECORRUPT (with the offset and what was wrong),
 * EUNSUPPORTED (a newer version), EINVAL (calls in a wrong order), what sink and source return. A writer or reader that has
 * failed stays failed.
 */
#ifndef NH_ENGINE_RSM_IMAGE_H
#define NH_ENGINE_RSM_IMAGE_H

#include "raftio/machine.h"
#include "raftio/types.h"

#define IMAGE_VERSION        1u
#define IMAGE_BLOCK_BYTES    (256u * 1024u)
#define IMAGE_HEAD_BYTES_MAX (64u * 1024u)

enum image_compression { IMAGE_STORED = 0, IMAGE_ZSTD = 1 };

struct image_head {
    struct nh_snapshot record; /* file_path and file_size_bytes are not part of it */
    char machine_name[64], machine_version[64];
    uint32_t compression; /* enum image_compression */
};
void image_head_deinit(struct image_head *h);

/* ---- writing ---- */

/* All pieces in order. Returns 0 or a negative code, with which the writer fails and stays failed. */
struct image_sink {
    int (*write)(void *ctx, const void *data, size_t size_bytes, struct nh_error *err);
    void *ctx;
};

struct image_writer;

/* Writes the head. `head` is borrowed for the call, the sink copied. Errors: EINVAL (a name that is no text), ETOOBIG (a record
 * that does not fit IMAGE_HEAD_BYTES_MAX). */
int image_writer_new(const struct image_sink *sink, const struct image_head *head, struct image_writer **ret,
                     struct nh_error *err);
void image_writer_free(struct image_writer *w); /* takes NULL; an image without end is not one */
int image_write_sessions(struct image_writer *w, const void *data, size_t size_bytes,
                         struct nh_error *err); /* first; in pieces */
/* Any number of pieces of the machine's data. What was never called for is empty data. Errors: EINVAL (a dummy). */
int image_write_data(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err);
/* Begins a file of exactly `size` bytes; then its pieces. Errors: EINVAL (id doubled, too many files, meta too long, the file
 * before is shorter than it was said to be, a dummy). */
int image_write_file(struct image_writer *w, uint64_t file_id, const void *meta, size_t meta_bytes, uint64_t size_bytes,
                     struct nh_error *err);
int image_write_file_data(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err);
/* Ends it. Errors: EINVAL (no sessions, a file is shorter than it was said to be). *ret_size: bytes of the whole image. */
int image_writer_finish(struct image_writer *w, uint64_t *ret_size, struct nh_error *err);

/* ---- reading ---- */

/* Bytes in order: returns how many (at most cap_bytes), 0 at the end, or a negative code. */
struct image_source {
    int64_t (*read)(void *ctx, void *data, size_t cap_bytes, struct nh_error *err);
    void *ctx;
};

enum image_section { IMAGE_SESSIONS = 1, IMAGE_DATA = 2, IMAGE_FILE = 3, IMAGE_END = 4 };
struct image_file_info {
    uint64_t file_id;
    uint64_t size_bytes;
    const void *meta; /* valid until the next section */
    size_t meta_bytes;
};

struct image_reader;

/* Reads and checks the head into *ret_head (image_head_deinit). */
int image_reader_new(const struct image_source *source, struct image_head *ret_head, struct image_reader **ret,
                     struct nh_error *err);
void image_reader_free(struct image_reader *r); /* takes NULL */
/* Goes to the next section, checking what is left of the present one. Returns enum image_section or a negative code. After
 * IMAGE_END the digest was right and the source is at its end: only then is the image known to be whole. */
int image_reader_next(struct image_reader *r, struct nh_error *err);
/* The file of the present section. */
void image_reader_file(const struct image_reader *r, struct image_file_info *ret);
/* Bytes of the present section: how many, 0 at its end, or a negative code. */
int64_t image_reader_read(struct image_reader *r, void *data, size_t cap_bytes, struct nh_error *err);

/* Reads the whole image and believes nothing: all checksums, the digest, that it ends there. ret_head may be NULL; it is set on
 * success only (image_head_deinit). */
int image_verify(const struct image_source *source, struct image_head *ret_head, struct nh_error *err);

#endif
