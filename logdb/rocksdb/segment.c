#include "logdb/rocksdb/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "logdb/rocksdb/directory.h"
#include "raftio/entry.h"
#include "raftio/support/memory.h"

#define FORMAT       1u
#define MAGIC        "NHSEGMNT"
#define HEADER_BYTES 32u
#define CRC_BYTES    4u
#define PATH_BYTES   4352u
/* So much is zeroed ahead of small records, at first and later: one change of metadata for many of them. */
#define AHEAD_BYTES     (256u * 1024)
#define AHEAD_BYTES_MAX (1024u * 1024)
/* Pages whose records are looked at in one read. */
#define SCAN_BYTES (1u << 20)

static void put_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void put_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static size_t whole_pages(size_t size_bytes)
{
    return (size_bytes + SEGMENT_PAGE - 1) / SEGMENT_PAGE * SEGMENT_PAGE;
}

/* ---- memory ---- */

void segment_buffer_reserve(struct segment_buffer *b, size_t size_bytes)
{
    size_t cap = b->cap ? b->cap : 16 * SEGMENT_PAGE;
    void *data = NULL;

    size_bytes = whole_pages(size_bytes);
    if (size_bytes <= b->cap)
        return;
    while (cap < size_bytes)
        cap *= 2;
    if (posix_memalign(&data, SEGMENT_PAGE, cap) != 0)
        abort(); /* as xmalloc does */
    if (b->data)
        memcpy(data, b->data, b->size_bytes);
    free(b->data);
    b->data = data;
    b->cap = cap;
}

void segment_buffer_deinit(struct segment_buffer *b)
{
    free(b->data);
    *b = (struct segment_buffer){0};
}

/* ---- files ---- */

static int make_path(char out[PATH_BYTES], const char *dir, uint64_t id, const char *suffix, struct nh_error *err)
{
    int n = snprintf(out, PATH_BYTES, "%s/%016" PRIx64 ".%s", dir, id, suffix);

    return n < 0 || (size_t)n >= PATH_BYTES ? nh_error_set(err, NH_ETOOBIG, "path of a segment is too long") : NH_OK;
}

static struct segment *segment_new(uint64_t id)
{
    struct segment *s = xcalloc(1, sizeof *s);

    s->id = id;
    s->write_fd = s->read_fd = -1;
    s->end = s->durable = SEGMENT_PAGE;
    s->ahead = AHEAD_BYTES;
    s->peak_users = SEGMENT_PEAK_UNKNOWN;
    return s;
}

void segment_free(struct segment *s)
{
    if (!s)
        return;
    if (s->write_fd >= 0)
        close(s->write_fd);
    if (s->read_fd >= 0)
        close(s->read_fd);
    free(s);
}

static int open_both(struct segment *s, const char *path, int flags, bool direct, struct nh_error *err)
{
    s->write_fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | flags | (direct ? O_DIRECT : 0), 0600);
    if (s->write_fd >= 0)
        s->read_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return s->read_fd < 0 ? nh_error_sys(err, NH_EIO, errno, "open %s", path) : NH_OK;
}

static int write_all(int fd, const uint8_t *data, size_t size_bytes, uint64_t at, struct nh_error *err)
{
    while (size_bytes > 0) {
        ssize_t n = pwrite(fd, data, size_bytes, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return nh_error_sys(err, NH_EIO, n < 0 ? errno : ENOSPC, "write a segment of the journal");
        data += n;
        at += (uint64_t)n;
        size_bytes -= (size_t)n;
    }
    return NH_OK;
}

static int write_header(struct segment *s, segment_crc_fn crc, struct nh_error *err)
{
    struct segment_buffer page = {0};
    int r;

    segment_buffer_reserve(&page, SEGMENT_PAGE);
    memset(page.data, 0, SEGMENT_PAGE);
    put_u32(page.data + 4, FORMAT);
    memcpy(page.data + 8, MAGIC, 8);
    put_u64(page.data + 16, s->id);
    put_u64(page.data + 24, s->salt);
    put_u32(page.data, crc(0, page.data + CRC_BYTES, HEADER_BYTES - CRC_BYTES));
    r = write_all(s->write_fd, page.data, SEGMENT_PAGE, 0, err);
    segment_buffer_deinit(&page);
    if (s->prepared < SEGMENT_PAGE)
        s->prepared = SEGMENT_PAGE;
    return r;
}

static int draw_salt(struct segment *s, struct nh_error *err)
{
    if (getrandom(&s->salt, sizeof s->salt, 0) != (ssize_t)sizeof s->salt)
        return nh_error_sys(err, NH_EIO, errno, "draw a salt");
    s->salt_is_known = true;
    return NH_OK;
}

int segment_create(const char *dir, uint64_t id, bool direct, segment_crc_fn crc, struct segment *spare, struct segment **ret,
                   struct nh_error *err)
{
    struct segment *s = spare ? spare : segment_new(id);
    char path[PATH_BYTES], old[PATH_BYTES];
    int r = make_path(path, dir, id, "segment", err);

    if (r == NH_OK && spare)
        r = make_path(old, dir, spare->id, "spare", err);
    if (r == NH_OK && !spare)
        r = open_both(s, path, O_CREAT | O_EXCL, direct, err);
    s->id = id;
    if (r == NH_OK)
        r = draw_salt(s, err);
    if (r == NH_OK)
        r = write_header(s, crc, err);
    if (r == NH_OK) /* before any record: under a damaged header there must be nothing that counts */
        r = segment_sync(s, err);
    if (r == NH_OK && spare && rename(old, path) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "rename %s", old);
    if (r == NH_OK)
        r = directory_sync(dir, err);
    if (r < 0) {
        segment_free(s);
        return r;
    }
    *ret = s;
    return NH_OK;
}

/* As many bytes as the file has, up to size_bytes; *ret_n tells. */
static int read_some(int fd, uint64_t at, void *out, size_t size_bytes, size_t *ret_n, struct nh_error *err)
{
    uint8_t *p = out;

    *ret_n = 0;
    while (*ret_n < size_bytes) {
        ssize_t n = pread(fd, p + *ret_n, size_bytes - *ret_n, (off_t)(at + *ret_n));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return nh_error_sys(err, NH_EIO, errno, "read a segment of the journal");
        if (n == 0)
            break;
        *ret_n += (size_t)n;
    }
    return NH_OK;
}

static bool header_is_good(const uint8_t *p, size_t size_bytes, uint64_t id, segment_crc_fn crc)
{
    return size_bytes >= HEADER_BYTES && nh_load_u32(p) == crc(0, p + CRC_BYTES, HEADER_BYTES - CRC_BYTES) &&
           nh_load_u32(p + 4) == FORMAT && memcmp(p + 8, MAGIC, 8) == 0 && nh_load_u64(p + 16) == id;
}

static int open_for_reading(struct segment *s, const char *dir, struct nh_error *err)
{
    char path[PATH_BYTES];
    struct stat st;
    int r = make_path(path, dir, s->id, "segment", err);

    if (r < 0)
        return r;
    s->read_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (s->read_fd < 0 || fstat(s->read_fd, &st) < 0)
        return nh_error_sys(err, NH_EIO, errno, "open %s", path);
    s->prepared = (uint64_t)st.st_size;
    return NH_OK;
}

int segment_open(const char *dir, uint64_t id, segment_crc_fn crc, struct segment **ret, struct nh_error *err)
{
    struct segment *s = segment_new(id);
    uint8_t header[HEADER_BYTES];
    size_t n = 0;
    int r = open_for_reading(s, dir, err);

    if (r == NH_OK)
        r = read_some(s->read_fd, 0, header, sizeof header, &n, err);
    if (r == NH_OK && !header_is_good(header, n, id, crc))
        r = nh_error_set(err, NH_ECORRUPT, "segment %016" PRIx64 " of the journal has a damaged header", id);
    if (r < 0) {
        segment_free(s);
        return r;
    }
    s->salt = nh_load_u64(header + 24);
    s->salt_is_known = true;
    *ret = s;
    return NH_OK;
}

int segment_retire(const char *dir, struct segment *s, bool direct, struct segment **ret, struct nh_error *err)
{
    char path[PATH_BYTES], aside[PATH_BYTES];
    struct segment *spare;
    int r = make_path(path, dir, s->id, "segment", err);

    if (r == NH_OK)
        r = make_path(aside, dir, s->id, "spare", err);
    if (r < 0)
        return r;
    if (!ret)
        return unlink(path) < 0 ? nh_error_sys(err, NH_EIO, errno, "remove %s", path) : NH_OK;
    if (rename(path, aside) < 0)
        return nh_error_sys(err, NH_EIO, errno, "rename %s", path);
    spare = segment_new(s->id);
    r = open_both(spare, aside, 0, direct, err);
    if (r < 0) {
        segment_free(spare);
        return r;
    }
    /* Before its header is written: under its old name it would look damaged. */
    r = directory_sync(dir, err);
    if (r < 0) {
        segment_free(spare);
        return r;
    }
    spare->prepared = s->prepared;
    *ret = spare;
    return NH_OK;
}

/* ---- writing ---- */

/* It need not succeed: the record before it is written. */
static void prepare_ahead(struct segment *s, uint64_t end)
{
    static const _Alignas(SEGMENT_PAGE) uint8_t zeros[AHEAD_BYTES];

    uint64_t left = s->planned > end ? s->planned - end : 0, n = left < s->ahead ? left : s->ahead;

    for (uint64_t at = 0; at < n; at += sizeof zeros) {
        uint64_t piece = n - at < sizeof zeros ? n - at : sizeof zeros;

        if (write_all(s->write_fd, zeros, piece, end + at, NULL) < 0)
            return;
        s->prepared = end + at + piece;
    }
    s->ahead = s->ahead < AHEAD_BYTES_MAX ? 2 * s->ahead : AHEAD_BYTES_MAX;
}

static void encode_record(uint8_t *p, const struct segment *s, const struct segment_record *r, segment_crc_fn crc)
{
    memset(p, 0, SEGMENT_RECORD_BYTES);
    put_u32(p + 4, r->kind);
    put_u64(p + 8, s->id);
    put_u64(p + 16, r->lsn);
    put_u64(p + 24, r->durable);
    put_u64(p + 32, r->payload_bytes);
    put_u64(p + 40, r->batch_bytes);
    put_u32(p + 48, r->body_crc);
    put_u32(p + 52, r->peak_users);
    put_u64(p + 56, s->salt);
    put_u32(p, crc(0, p + CRC_BYTES, SEGMENT_RECORD_BYTES - CRC_BYTES));
}

void segment_append_begin(struct segment *s, struct async_write *async, struct segment_buffer *b, struct segment_record *r,
                          bool sync, segment_crc_fn crc, struct segment_write *ret)
{
    size_t bytes = SEGMENT_RECORD_BYTES + r->payload_bytes + r->batch_bytes, pages = whole_pages(bytes);

    r->durable = s->durable;
    r->body_crc = crc(0, b->data + SEGMENT_RECORD_BYTES, bytes - SEGMENT_RECORD_BYTES);
    encode_record(b->data, s, r, crc);
    memset(b->data + bytes, 0, pages - bytes);
    *ret = (struct segment_write){.segment = s, .data = b->data, .size_bytes = pages, .lsn = r->lsn, .sync = sync};
    /* Only if all before it is durable: such a write is durable by itself, what lies in the disk's cache need not be. */
    if (async && sync && s->durable == s->end && s->end + pages <= s->prepared &&
        async_write_begin(async, s->write_fd, b->data, pages, s->end))
        ret->async = async;
}

static int write_rest(struct segment_write *w, size_t done, struct nh_error *err)
{
    struct segment *s = w->segment;
    uint64_t end = s->end + w->size_bytes;
    int status = write_all(s->write_fd, w->data + done, w->size_bytes - done, s->end + done, err);

    if (status == NH_OK && end > s->prepared) {
        s->prepared = end;
        if (w->size_bytes <= AHEAD_BYTES / 4)
            prepare_ahead(s, end);
    }
    return status;
}

int segment_append_end(struct segment_write *w, struct nh_error *err)
{
    struct segment *s = w->segment;
    int64_t done = w->async ? async_write_end(w->async) : 0;
    bool is_durable = done == (int64_t)w->size_bytes;
    int status = NH_OK;

    if (done < 0)
        return nh_error_sys(err, NH_EIO, (int)-done, "write a segment of the journal");
    if (!is_durable)
        status = write_rest(w, (size_t)done, err);
    if (status < 0)
        return status;
    s->end += w->size_bytes;
    s->last_lsn = w->lsn;
    if (is_durable)
        s->durable = s->end;
    return w->sync && !is_durable ? segment_sync(s, err) : NH_OK;
}

int segment_append(struct segment *s, struct segment_buffer *b, struct segment_record *r, bool sync, segment_crc_fn crc,
                   struct nh_error *err)
{
    struct segment_write w;

    segment_append_begin(s, NULL, b, r, sync, crc, &w);
    return segment_append_end(&w, err);
}

int segment_sync(struct segment *s, struct nh_error *err)
{
    if (fdatasync(s->write_fd >= 0 ? s->write_fd : s->read_fd) < 0)
        return nh_error_sys(err, NH_EIO, errno, "sync a segment of the journal");
    s->durable = s->end;
    return NH_OK;
}

int segment_sync_and_reload(struct segment *s, struct nh_error *err)
{
    int r = segment_sync(s, err);

    if (r == NH_OK)
        posix_fadvise(s->read_fd, 0, 0, POSIX_FADV_DONTNEED);
    return r;
}

/* ---- reading ---- */

int segment_read(const struct segment *s, uint64_t at, void *out, size_t size_bytes, struct nh_error *err)
{
    size_t n;
    int r = read_some(s->read_fd, at, out, size_bytes, &n, err);

    if (r == NH_OK && n < size_bytes)
        r = nh_error_set(err, NH_ECORRUPT, "segment %016" PRIx64 " of the journal ends early", s->id);
    return r;
}

/* Whether p begins a record of this segment that lies at `at` and fits into the file. */
static bool decode_record(const uint8_t *p, const struct segment *s, uint64_t at, segment_crc_fn crc, struct segment_record *ret)
{
    uint64_t room = s->prepared > at ? s->prepared - at : 0;

    if (nh_load_u32(p) != crc(0, p + CRC_BYTES, SEGMENT_RECORD_BYTES - CRC_BYTES) || nh_load_u64(p + 8) != s->id ||
        (s->salt_is_known && nh_load_u64(p + 56) != s->salt))
        return false;
    *ret = (struct segment_record){
        .kind = (enum segment_record_kind)nh_load_u32(p + 4),
        .lsn = nh_load_u64(p + 16),
        .durable = nh_load_u64(p + 24),
        .payload_bytes = nh_load_u64(p + 32),
        .batch_bytes = nh_load_u64(p + 40),
        .body_crc = nh_load_u32(p + 48),
        .peak_users = nh_load_u32(p + 52),
    };
    return (ret->kind == SEGMENT_CALL || ret->kind == SEGMENT_SEAL) && ret->durable <= at && ret->payload_bytes <= room &&
           ret->batch_bytes <= room - ret->payload_bytes && segment_record_pages(ret) <= room;
}

int segment_record_at(const struct segment *s, uint64_t at, segment_crc_fn crc, struct segment_record *ret, struct nh_error *err)
{
    uint8_t head[SEGMENT_RECORD_BYTES];
    size_t n;
    int r = read_some(s->read_fd, at, head, sizeof head, &n, err);

    return r < 0 ? r : n == sizeof head && decode_record(head, s, at, crc, ret);
}

int segment_read_record(const struct segment *s, uint64_t at, const struct segment_record *r, segment_crc_fn crc,
                        struct segment_buffer *b, struct nh_error *err)
{
    size_t body = r->payload_bytes + r->batch_bytes, n;
    int status;

    b->size_bytes = 0;
    segment_buffer_reserve(b, SEGMENT_RECORD_BYTES + body);
    status = read_some(s->read_fd, at, b->data, SEGMENT_RECORD_BYTES + body, &n, err);
    if (status < 0)
        return status;
    b->size_bytes = n;
    return n == SEGMENT_RECORD_BYTES + body && crc(0, b->data + SEGMENT_RECORD_BYTES, body) == r->body_crc;
}

/* Calls `found` for the records of this segment behind `at`, page by page, until it says true. Returns 1 or 0. */
static int search(const struct segment *s, uint64_t at, segment_crc_fn crc,
                  bool (*found)(uint64_t at, const struct segment_record *r), struct nh_error *err)
{
    uint8_t *buffer = xmalloc(SCAN_BYTES);
    uint64_t from = at + SEGMENT_PAGE;
    int r = NH_OK;

    while (r == NH_OK && from < s->prepared) {
        size_t n = 0;

        r = read_some(s->read_fd, from, buffer, SCAN_BYTES, &n, err);
        if (r < 0 || n < SEGMENT_RECORD_BYTES)
            break;
        for (size_t i = 0; r == NH_OK && n - i >= SEGMENT_RECORD_BYTES; i += SEGMENT_PAGE) {
            struct segment_record record;

            if (decode_record(buffer + i, s, from + i, crc, &record) && found(at, &record))
                r = 1;
            if (n - i <= SEGMENT_PAGE)
                break;
        }
        from += SCAN_BYTES;
    }
    free(buffer);
    return r;
}

static bool proves_durable(uint64_t at, const struct segment_record *r)
{
    return r->durable > at;
}

int segment_was_durable(const struct segment *s, uint64_t at, segment_crc_fn crc, struct nh_error *err)
{
    return search(s, at, crc, proves_durable, err);
}

static bool is_any(uint64_t at, const struct segment_record *r)
{
    (void)at, (void)r;
    return true;
}

int segment_is_blank(const char *dir, uint64_t id, segment_crc_fn crc, struct nh_error *err)
{
    struct segment *s = segment_new(id);
    int r = open_for_reading(s, dir, err);

    if (r == NH_OK)
        r = search(s, 0, crc, is_any, err);
    segment_free(s);
    return r < 0 ? r : !r;
}
