#include "cmd/nodehostd/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANGE_BYTES_MAX  48u /* ",N-N" */
#define LIST_BYTES_SHOWN 40u

/* ---- the list ---- */

struct range {
    uint64_t first, last;
};

static int by_first(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

/* Ascending, neighbours joined; to be freed. */
static struct range *find_ranges(const struct config *c, unsigned *ret_n)
{
    struct range *ranges = must_alloc(calloc(c->shards_count + 1, sizeof *ranges));
    unsigned n = 0, joined = 0;

    for (unsigned i = 0; i < c->shards_count; i++)
        if (config_is_kv(&c->shards[i]))
            ranges[n++] = (struct range){c->shards[i].first, c->shards[i].first + c->shards[i].count - 1};
    qsort(ranges, n, sizeof *ranges, by_first);
    for (unsigned i = 0; i < n; i++) {
        if (joined > 0 && ranges[joined - 1].last + 1 == ranges[i].first)
            ranges[joined - 1].last = ranges[i].last;
        else
            ranges[joined++] = ranges[i];
    }
    *ret_n = joined;
    return ranges;
}

char *layout_list(const struct config *c)
{
    unsigned n;
    struct range *ranges = find_ranges(c, &n);
    char *list = must_alloc(calloc(n + 1, RANGE_BYTES_MAX)), *at = list;

    for (unsigned i = 0; i < n; i++) {
        at += sprintf(at, "%s%" PRIu64, i > 0 ? "," : "", ranges[i].first);
        if (ranges[i].last > ranges[i].first)
            at += sprintf(at, "-%" PRIu64, ranges[i].last);
    }
    free(ranges);
    return list;
}

/* ---- the text of the file ---- */

static uint32_t crc_of(const char *text, size_t size_bytes)
{
    return nh_plugin_services()->crc32c(0, text, size_bytes);
}

uint32_t layout_number(const struct config *c)
{
    char *list = layout_list(c);
    uint32_t number = crc_of(list, strlen(list));

    free(list);
    return number;
}

void layout_encode(const char *list, struct buffer *ret)
{
    size_t begin = ret->size;

    buffer_printf(ret, "nodehostd-layout %u\nkv_shards %s\n", LAYOUT_FORMAT, list);
    buffer_printf(ret, "crc %08" PRIx32 "\n", crc_of(ret->data + begin, ret->size - begin));
}

static int refuse_damaged(const char *path, struct nh_error *err)
{
    return nh_error_set(err, NH_ECORRUPT,
                        "%s is damaged: restore it from a copy, or remove it if the kv shards of the configuration are those "
                        "with which the data was written",
                        path);
}

/* True if a file is byte for byte what is written for the list in its second line, which is cut out of `copy`. */
static bool take_list(char *copy, const char *text, size_t size_bytes, const char **ret)
{
    static const char name[] = "\nkv_shards ";
    struct buffer again = {0};
    char *list = strstr(copy, name);
    bool same;

    if (!list)
        return false;
    list += sizeof name - 1;
    list[strcspn(list, "\n")] = 0;
    layout_encode(list, &again);
    same = again.size == size_bytes && memcmp(again.data, text, size_bytes) == 0;
    buffer_deinit(&again);
    *ret = list;
    return same;
}

int layout_decode(const char *path, const char *text, size_t size_bytes, char **ret_list, struct nh_error *err)
{
    static const char head[] = "nodehostd-layout ";
    char *copy = must_alloc(calloc(size_bytes + 1, 1)), *end = copy;
    unsigned long format = 0;
    const char *list;
    int r = NH_OK;

    memcpy(copy, text, size_bytes);
    if (strncmp(copy, head, sizeof head - 1) == 0)
        format = strtoul(copy + sizeof head - 1, &end, 10);
    if (*end == '\n' && format != LAYOUT_FORMAT)
        r = nh_error_set(err, NH_EMISMATCH, "%s has format %lu, this version reads %u: use the version that wrote it", path,
                         format, LAYOUT_FORMAT);
    else if (!take_list(copy, text, size_bytes, &list))
        r = refuse_damaged(path, err);
    else
        *ret_list = must_alloc(strdup(list));
    free(copy);
    return r;
}

/* ---- the file ---- */

/* NH_ENOTFOUND: there is none. */
static int load(const char *path, char **ret_list, struct nh_error *err)
{
    FILE *f = fopen(path, "rbe");
    struct buffer text = {0};
    int r;

    if (!f)
        return errno == ENOENT ? NH_ENOTFOUND : nh_error_sys(err, NH_EIO, errno, "open %s", path);
    text.size = fread(buffer_reserve(&text, LAYOUT_BYTES_MAX), 1, LAYOUT_BYTES_MAX, f);
    r = ferror(f) ? nh_error_sys(err, NH_EIO, errno, "read %s", path) : layout_decode(path, text.data, text.size, ret_list, err);
    fclose(f);
    buffer_deinit(&text);
    return r;
}

static int write_file(const char *path, const struct buffer *text, struct nh_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), r = NH_OK;

    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "open %s", path);
    if (write(fd, text->data, text->size) != (ssize_t)text->size || fsync(fd) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "write %s", path);
    close(fd);
    return r;
}

static int sync_directory(const char *path, struct nh_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = NH_OK;

    if (fd < 0 || fsync(fd) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "sync directory %s", path);
    if (fd >= 0)
        close(fd);
    return r;
}

static int store(const char *dir, const char *path, const char *list, struct nh_error *err)
{
    char tmp[PATH_MAX + 8];
    struct buffer text = {0};
    int r;

    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    layout_encode(list, &text);
    r = write_file(tmp, &text, err);
    buffer_deinit(&text);
    if (r == NH_OK && rename(tmp, path) < 0)
        r = nh_error_sys(err, NH_EIO, errno, "rename %s", tmp);
    return r < 0 ? r : sync_directory(dir, err);
}

/* A long list is cut: an error has little room. */
static const char *shown(const char *list, char *out)
{
    if (!list[0])
        return "none";
    if (strlen(list) < LIST_BYTES_SHOWN)
        return list;
    snprintf(out, LIST_BYTES_SHOWN + 4, "%.*s...", (int)LIST_BYTES_SHOWN, list);
    return out;
}

static int compare(const char *path, const char *stored, const char *configured, struct nh_error *err)
{
    char a[LIST_BYTES_SHOWN + 4], b[LIST_BYTES_SHOWN + 4];

    if (strcmp(stored, configured) == 0)
        return NH_OK;
    return nh_error_set(err, NH_EMISMATCH,
                        "%s: the keys are in kv shards %s; the configuration has %s, so that they would be looked for in other "
                        "shards. Put the former list back: every host lists all kv shards, with or without a replica. More "
                        "shards need a new deployment that the data is copied into. (A new host that the others have refused "
                        "for its list has no data: empty its data directory)",
                        path, shown(stored, a), shown(configured, b));
}

int layout_check(const struct config *c, struct nh_error *err)
{
    char path[PATH_MAX], *stored = NULL, *configured;
    int r;

    if (snprintf(path, sizeof path, "%s/LAYOUT", c->host.data_dir) >= (int)sizeof path)
        return nh_error_set(err, NH_EINVAL, "the path of the data directory is too long");
    configured = layout_list(c);
    r = load(path, &stored, err);
    if (r == NH_OK)
        r = compare(path, stored, configured, err);
    else if (r == NH_ENOTFOUND)
        r = configured[0] ? store(c->host.data_dir, path, configured, err) : NH_OK;
    free(stored);
    free(configured);
    return r;
}
