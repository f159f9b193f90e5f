#include "engine/rsm/image_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

/* Bytes gather in a buffer until a block is full and one byte more comes, or until their section ends: so the blocks of a section
 * do not depend on the pieces that it was written in, and its last block is known to be the last. */
struct image_writer {
    struct image_sink sink;
    bool dummy;
    uint8_t section;     /* enum image_section that is being written; 0: none yet */
    uint64_t size_bytes; /* what the sink has taken */
    uint64_t n_blocks, raw_bytes;
    uint64_t file_left; /* of the present file */
    struct image_file_ids files;
    struct image_digest *digest;
    struct image_packer *packer; /* NULL: stored */
    uint8_t *gathered;           /* room for a block's head, then the bytes */
    size_t n_gathered;
    uint8_t *packed; /* the same, compressed */
    int failed;      /* what it stays failed with */
};

/* ---- to the sink ---- */

static int write_out(struct image_writer *w, const uint8_t *data, size_t size_bytes, struct nh_error *err)
{
    int r;

    image_digest_add(w->digest, data, size_bytes);
    r = w->sink.write(w->sink.ctx, data, size_bytes, err);
    if (r < 0)
        return r;
    w->size_bytes += size_bytes;
    return NH_OK;
}

/* Writes what has gathered as a block. */
static int write_block(struct image_writer *w, uint8_t kind, bool last, struct nh_error *err)
{
    struct image_block_head h = {
        .kind = kind,
        .flags = last ? IMAGE_BLOCK_LAST : 0,
        .number = w->n_blocks,
        .raw_bytes = (uint32_t)w->n_gathered,
        .stored_bytes = (uint32_t)w->n_gathered,
    };
    uint8_t *block = w->gathered;
    bool pack = w->packer && kind != IMAGE_FILE && kind != IMAGE_END;
    size_t packed =
        pack ? image_pack(w->packer, w->packed + IMAGE_BLOCK_HEAD_BYTES, block + IMAGE_BLOCK_HEAD_BYTES, w->n_gathered) : 0;

    if (packed) {
        block = w->packed;
        h.compression = IMAGE_ZSTD;
        h.stored_bytes = (uint32_t)packed;
    }
    image_block_seal(block, &h);
    w->n_blocks++;
    w->raw_bytes += w->n_gathered;
    w->n_gathered = 0;
    return write_out(w, block, IMAGE_BLOCK_HEAD_BYTES + (size_t)h.stored_bytes, err);
}

/* Where the next gathered byte goes. */
static uint8_t *gather_at(struct image_writer *w)
{
    return w->gathered + IMAGE_BLOCK_HEAD_BYTES + w->n_gathered;
}

static int gather(struct image_writer *w, uint8_t kind, const uint8_t *data, size_t size_bytes, struct nh_error *err)
{
    while (size_bytes > 0) {
        size_t n = IMAGE_BLOCK_BYTES - w->n_gathered;
        int r = n == 0 ? write_block(w, kind, false, err) : NH_OK;

        if (r < 0)
            return r;
        if (n > size_bytes)
            n = size_bytes;
        memcpy(gather_at(w), data, n);
        w->n_gathered += n;
        data += n;
        size_bytes -= n;
    }
    return NH_OK;
}

/* ---- calls: one that fails leaves a writer that fails ---- */

static int check_usable(const struct image_writer *w, struct nh_error *err)
{
    if (w->failed)
        return nh_error_set(err, w->failed, "the image has failed before");
    return w->section == IMAGE_END ? nh_error_set(err, NH_EINVAL, "the image has ended") : NH_OK;
}

static int settle(struct image_writer *w, int r)
{
    if (r < 0)
        w->failed = r;
    return r;
}

int image_writer_new(const struct image_sink *sink, const struct image_head *head, struct image_writer **ret,
                     struct nh_error *err)
{
    struct image_writer *w;
    uint8_t *data;
    size_t size;
    int r = image_head_encode(head, &data, &size, err);

    if (r < 0)
        return r;
    w = xcalloc(1, sizeof *w);
    w->sink = *sink;
    w->dummy = head->record.dummy;
    w->gathered = xmalloc(IMAGE_BLOCK_HEAD_BYTES + IMAGE_BLOCK_BYTES);
    w->digest = image_digest_new();
    if (head->compression == IMAGE_ZSTD) {
        w->packer = image_packer_new();
        w->packed = xmalloc(IMAGE_BLOCK_HEAD_BYTES + image_pack_bound());
    }
    if (!w->digest || (head->compression == IMAGE_ZSTD && !w->packer))
        r = nh_error_set(err, NH_ENOMEM, "no memory for an image");
    else
        r = write_out(w, data, size, err);
    free(data);
    if (r < 0)
        image_writer_free(w);
    else
        *ret = w;
    return r;
}

void image_writer_free(struct image_writer *w)
{
    if (!w)
        return;
    image_digest_free(w->digest);
    image_packer_free(w->packer);
    free(w->gathered);
    free(w->packed);
    free(w);
}

/* ---- sections ---- */

static int write_sessions(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err)
{
    int r = check_usable(w, err);

    if (r < 0)
        return r;
    if (w->section && w->section != IMAGE_SESSIONS)
        return nh_error_set(err, NH_EINVAL, "the sessions come first");
    w->section = IMAGE_SESSIONS;
    return gather(w, IMAGE_SESSIONS, data, size_bytes, err);
}

int image_write_sessions(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err)
{
    return settle(w, write_sessions(w, data, size_bytes, err));
}

static int end_sessions(struct image_writer *w, struct nh_error *err)
{
    return w->section == IMAGE_SESSIONS ? write_block(w, IMAGE_SESSIONS, true, err) : NH_OK;
}

static int write_data(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err)
{
    int r = check_usable(w, err);

    if (r < 0)
        return r;
    if (w->dummy)
        return nh_error_set(err, NH_EINVAL, "a dummy has no data");
    if (w->section != IMAGE_SESSIONS && w->section != IMAGE_DATA)
        return nh_error_set(err, NH_EINVAL, "the data comes between the sessions and the files");
    r = end_sessions(w, err);
    if (r < 0)
        return r;
    w->section = IMAGE_DATA;
    return gather(w, IMAGE_DATA, data, size_bytes, err);
}

int image_write_data(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err)
{
    return settle(w, write_data(w, data, size_bytes, err));
}

/* Ends the section before a file, or before the end. A machine that wrote nothing has empty data. */
static int end_section(struct image_writer *w, struct nh_error *err)
{
    int r;

    if (!w->section)
        return nh_error_set(err, NH_EINVAL, "an image without sessions");
    if (w->file_left)
        return nh_error_set(err, NH_EINVAL, "the file lacks %" PRIu64 " bytes", w->file_left);
    r = end_sessions(w, err);
    if (r < 0)
        return r;
    if (w->section == IMAGE_SESSIONS && !w->dummy)
        w->section = IMAGE_DATA;
    return w->section == IMAGE_DATA ? write_block(w, IMAGE_DATA, true, err) : NH_OK;
}

static int check_file(struct image_writer *w, uint64_t file_id, size_t meta_bytes, struct nh_error *err)
{
    const char *refused;

    if (w->dummy)
        return nh_error_set(err, NH_EINVAL, "a dummy has no files");
    if (meta_bytes > NH_SNAPSHOT_FILE_META_MAX)
        return nh_error_set(err, NH_EINVAL, "file %" PRIu64 ": %zu bytes of meta, at most %u can be", file_id, meta_bytes,
                            NH_SNAPSHOT_FILE_META_MAX);
    refused = image_file_ids_add(&w->files, file_id);
    return refused ? nh_error_set(err, NH_EINVAL, "file %" PRIu64 ": %s", file_id, refused) : NH_OK;
}

static int write_file(struct image_writer *w, uint64_t file_id, const void *meta, size_t meta_bytes, uint64_t size_bytes,
                      struct nh_error *err)
{
    int r = check_usable(w, err);

    if (r == NH_OK)
        r = check_file(w, file_id, meta_bytes, err);
    if (r == NH_OK)
        r = end_section(w, err);
    if (r < 0)
        return r;
    w->section = IMAGE_FILE;
    w->file_left = size_bytes;
    image_put_u64(gather_at(w), file_id);
    image_put_u64(gather_at(w) + 8, size_bytes);
    if (meta_bytes)
        memcpy(gather_at(w) + IMAGE_FILE_HEAD_BYTES, meta, meta_bytes);
    w->n_gathered = IMAGE_FILE_HEAD_BYTES + meta_bytes;
    return write_block(w, IMAGE_FILE, size_bytes == 0, err);
}

int image_write_file(struct image_writer *w, uint64_t file_id, const void *meta, size_t meta_bytes, uint64_t size_bytes,
                     struct nh_error *err)
{
    return settle(w, write_file(w, file_id, meta, meta_bytes, size_bytes, err));
}

static int write_file_data(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err)
{
    int r = check_usable(w, err);

    if (r < 0)
        return r;
    if (w->section != IMAGE_FILE)
        return nh_error_set(err, NH_EINVAL, "bytes of a file before a file");
    if (size_bytes > w->file_left)
        return nh_error_set(err, NH_EINVAL, "the file is longer than it was said to be");
    if (size_bytes == 0)
        return NH_OK;
    r = gather(w, IMAGE_BLOCK_FILE_BYTES, data, size_bytes, err);
    if (r < 0)
        return r;
    w->file_left -= size_bytes;
    return w->file_left ? NH_OK : write_block(w, IMAGE_BLOCK_FILE_BYTES, true, err);
}

int image_write_file_data(struct image_writer *w, const void *data, size_t size_bytes, struct nh_error *err)
{
    return settle(w, write_file_data(w, data, size_bytes, err));
}

/* ---- the end ---- */

static int finish(struct image_writer *w, struct nh_error *err)
{
    int r = check_usable(w, err);

    if (r == NH_OK)
        r = end_section(w, err);
    if (r < 0)
        return r;
    assert(w->n_gathered == 0);
    image_put_u64(gather_at(w), w->n_blocks);
    image_put_u64(gather_at(w) + 8, w->raw_bytes);
    image_digest_get(w->digest, gather_at(w) + 16);
    w->n_gathered = IMAGE_END_BYTES;
    w->section = IMAGE_END;
    return write_block(w, IMAGE_END, true, err);
}

int image_writer_finish(struct image_writer *w, uint64_t *ret_size, struct nh_error *err)
{
    int r = settle(w, finish(w, err));

    if (r == NH_OK)
        *ret_size = w->size_bytes;
    return r;
}
