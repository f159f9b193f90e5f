/* tests/unit/engine/image_fixture.h - images in memory: a sink and a source that fail and dawdle on demand, what an image is to
 * hold, and comparing. Failures are Criterion's. */
#ifndef NH_TESTS_UNIT_ENGINE_IMAGE_FIXTURE_H
#define NH_TESTS_UNIT_ENGINE_IMAGE_FIXTURE_H

#include "engine/rsm/image.h"
#include "engine/rsm/image_private.h"

struct bytes {
    uint8_t *data; /* of exactly n bytes, so that a sanitizer sees what is read past the end */
    size_t n;
};
void bytes_add(struct bytes *b, const void *data, size_t n);
void bytes_free(struct bytes *b);
/* Half random, half repeating: compresses a little. */
void bytes_fill(struct bytes *b, size_t n, unsigned seed);

struct memory_sink {
    struct bytes out;
    unsigned n_writes;
    unsigned fail_at; /* the write that fails with ENOSPC, from 1; 0: none */
};
struct image_sink memory_sink(struct memory_sink *m);

struct memory_source {
    struct bytes in; /* borrowed */
    size_t at;
    size_t step;    /* most bytes of one read; 0: any */
    size_t fail_at; /* offset at which reading fails with EIO */
};
struct image_source memory_source(struct memory_source *m, const struct bytes *in);

#define CONTENT_FILES 3u
struct content {
    struct image_head head;
    struct bytes sessions, data;
    struct {
        uint64_t id;
        struct bytes meta, bytes;
    } files[CONTENT_FILES];
    unsigned n_files;
};
/* Shard 7, index 1000, three members, machine "kv" version "3". */
void content_init(struct content *c, enum image_compression compression);
void content_add_file(struct content *c, uint64_t id, const char *meta, size_t n);
/* Everything that is small: images of a few hundred bytes with all sections. */
void content_small(struct content *c, enum image_compression compression);
void content_deinit(struct content *c);

/* Writes it in pieces of up to max_piece bytes (0: whole), of random sizes. */
struct bytes content_write(const struct content *c, size_t max_piece);
/* Reads the image and expects the content. */
void content_expect(const struct content *c, const struct bytes *image, size_t step, size_t cap);

/* image_verify of a copy of n bytes: its code. */
int verify(const uint8_t *data, size_t n, struct nh_error *err);

/* Where the blocks of an image begin; the last one is the image's end. Returns how many blocks there are. */
#define BLOCKS_MAX 32u
unsigned find_blocks(const struct bytes *image, size_t offsets[BLOCKS_MAX + 1]);

#endif
