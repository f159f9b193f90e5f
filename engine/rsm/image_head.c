#include "engine/rsm/image_private.h"

#include <stdlib.h>

#include "raftio/codec.h"
#include "raftio/support/crc32c.h"
#include "raftio/support/memory.h"

#define NAME_BYTES     (sizeof((struct image_head *)0)->machine_name)
#define NAMES_BYTES    (2u * NAME_BYTES)
#define RECORD_OFFSET  (IMAGE_PREAMBLE_BYTES + NAMES_BYTES)
#define REST_BYTES_MAX (IMAGE_HEAD_BYTES_MAX - IMAGE_PREAMBLE_BYTES)

static const uint8_t magic[8] = {'N', 'H', 'I', 'M', 'A', 'G', 'E', 0x1a};

void image_head_deinit(struct image_head *h)
{
    nh_snapshot_deinit(&h->record);
    *h = (struct image_head){0};
}

/* ---- writing ---- */

/* Printable ASCII and a NUL; what is behind the NUL does not matter here. */
static bool is_text(const char *name)
{
    size_t n = strnlen(name, NAME_BYTES);

    for (size_t i = 0; i < n; i++)
        if (name[i] < 0x20 || name[i] > 0x7e)
            return false;
    return n < NAME_BYTES;
}

static int check_head(const struct image_head *head, struct nh_error *err)
{
    if (!is_text(head->machine_name) || !is_text(head->machine_version))
        return nh_error_set(err, NH_EINVAL, "the machine's name or version is no text of less than %zu bytes", NAME_BYTES);
    if (head->compression > IMAGE_ZSTD)
        return nh_error_set(err, NH_EINVAL, "unknown compression %u", head->compression);
    return NH_OK;
}

/* Where an image lies is no part of it. */
static struct nh_snapshot stored_record(const struct nh_snapshot *record)
{
    struct nh_snapshot r = *record;

    r.file_path = NULL;
    r.file_size_bytes = 0;
    return r;
}

static void put_preamble(uint8_t *at, uint32_t compression, uint32_t rest_bytes)
{
    memcpy(at, magic, sizeof magic);
    image_put_u32(at + 8, IMAGE_VERSION);
    image_put_u32(at + 12, compression);
    image_put_u32(at + 16, rest_bytes);
    image_put_u32(at + 20, crc32c(0, at, 20));
}

int image_head_encode(const struct image_head *head, uint8_t **ret, size_t *ret_size, struct nh_error *err)
{
    struct nh_snapshot record = stored_record(&head->record);
    size_t record_bytes, size;
    uint8_t *data;
    int r = check_head(head, err);

    if (r < 0)
        return r;
    record_bytes = snapshot_encode(&record, NULL, 0);
    if (record_bytes > REST_BYTES_MAX - NAMES_BYTES - IMAGE_CRC_BYTES)
        return nh_error_set(err, NH_ETOOBIG, "the snapshot record of %zu bytes is too big for an image", record_bytes);
    size = RECORD_OFFSET + record_bytes + IMAGE_CRC_BYTES;
    data = xcalloc(1, size);
    put_preamble(data, head->compression, (uint32_t)(size - IMAGE_PREAMBLE_BYTES));
    memcpy(data + IMAGE_PREAMBLE_BYTES, head->machine_name, strlen(head->machine_name));
    memcpy(data + IMAGE_PREAMBLE_BYTES + NAME_BYTES, head->machine_version, strlen(head->machine_version));
    snapshot_encode(&record, data + RECORD_OFFSET, record_bytes);
    image_put_u32(data + size - IMAGE_CRC_BYTES, crc32c(0, data, size - IMAGE_CRC_BYTES));
    *ret = data;
    *ret_size = size;
    return NH_OK;
}

/* ---- reading ---- */

int image_preamble_decode(const uint8_t *preamble, uint32_t *ret_rest, struct nh_error *err)
{
    uint32_t version = nh_load_u32(preamble + 8), rest = nh_load_u32(preamble + 16);

    if (memcmp(preamble, magic, sizeof magic) != 0)
        return nh_error_set(err, NH_ECORRUPT, "image at offset 0: not the beginning of an image");
    if (nh_load_u32(preamble + 20) != crc32c(0, preamble, 20))
        return nh_error_set(err, NH_ECORRUPT, "image at offset 0: wrong checksum");
    if (version != IMAGE_VERSION)
        return nh_error_set(err, NH_EUNSUPPORTED, "image of version %u; this host reads %u", version, IMAGE_VERSION);
    if (nh_load_u32(preamble + 12) > IMAGE_ZSTD)
        return nh_error_set(err, NH_EUNSUPPORTED, "image with unknown compression %u", nh_load_u32(preamble + 12));
    if (rest < NAMES_BYTES + IMAGE_CRC_BYTES || rest > REST_BYTES_MAX)
        return nh_error_set(err, NH_ECORRUPT, "image at offset 16: a head of %u bytes cannot be", rest);
    *ret_rest = rest;
    return NH_OK;
}

/* Printable ASCII and then nothing but NULs. */
static bool take_name(const uint8_t *at, char *ret)
{
    memcpy(ret, at, NAME_BYTES);
    if (!is_text(ret))
        return false;
    for (size_t i = strlen(ret); i < NAME_BYTES; i++)
        if (ret[i])
            return false;
    return true;
}

int image_head_decode(const uint8_t *data, size_t size_bytes, struct image_head *ret, struct nh_error *err)
{
    size_t checked = size_bytes - IMAGE_CRC_BYTES;
    struct image_head h = {.compression = nh_load_u32(data + 12)};
    int r;

    if (nh_load_u32(data + checked) != crc32c(0, data, checked))
        return nh_error_set(err, NH_ECORRUPT, "image head of %zu bytes: wrong checksum", size_bytes);
    if (!take_name(data + IMAGE_PREAMBLE_BYTES, h.machine_name) ||
        !take_name(data + IMAGE_PREAMBLE_BYTES + NAME_BYTES, h.machine_version))
        return nh_error_set(err, NH_ECORRUPT, "image at offset %u: the machine's name or version is no text",
                            IMAGE_PREAMBLE_BYTES);
    r = snapshot_decode(data + RECORD_OFFSET, checked - RECORD_OFFSET, &h.record, err);
    if (r < 0)
        return nh_error_wrap(err, r, "image at offset %zu", RECORD_OFFSET);
    if (h.record.file_path || h.record.file_size_bytes) {
        nh_snapshot_deinit(&h.record);
        return nh_error_set(err, NH_ECORRUPT, "image at offset %zu: a record that names a file", RECORD_OFFSET);
    }
    *ret = h;
    return NH_OK;
}
