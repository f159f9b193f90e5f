#include "tests/unit/logdb/cut_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/logdb/fixture.h"
#include "tests/unit/logdb/async_hook.h"

#define SECTOR     512u
#define PAGE       4096u
#define PAGES_MAX  60000u
#define NAMES_MAX  4096u
#define PATH_BYTES 256u

/* What a write that is not durable has replaced. */
struct page {
    ino_t ino;
    off_t at;
    off_t size_before; /* of the file */
    size_t size_bytes;
    uint8_t old[PAGE]; /* zero behind the end */
};

enum change_kind { CREATED, RENAMED, REMOVED };

struct change {
    enum change_kind kind;
    char path[PATH_BYTES], to[PATH_BYTES];
    char kept[PATH_BYTES]; /* another name of the file that was removed or replaced; empty: there was none */
};

static struct disk {
    bool active;
    char dir[128];
    uint64_t seed, n_calls, cut_at, n_kept;
    struct cut_disk_counts counts;
    size_t n_pages, n_changes;
    struct change changes[NAMES_MAX];
    struct page pages[PAGES_MAX];
} * disk; /* shared with children */

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

/* The calls themselves; those that are replaced are made through these. */
static struct {
    ssize_t (*pwrite)(int fd, const void *data, size_t n, off_t at);
    ssize_t (*write)(int fd, const void *data, size_t n);
    int (*open)(const char *path, int flags, ...);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*ftruncate)(int fd, off_t size);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
} real;

static void find_real(void)
{
    *(void **)&real.pwrite = dlsym(RTLD_NEXT, "pwrite");
    *(void **)&real.write = dlsym(RTLD_NEXT, "write");
    *(void **)&real.open = dlsym(RTLD_NEXT, "open");
    *(void **)&real.rename = dlsym(RTLD_NEXT, "rename");
    *(void **)&real.unlink = dlsym(RTLD_NEXT, "unlink");
    *(void **)&real.ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    *(void **)&real.fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real.fsync = dlsym(RTLD_NEXT, "fsync");
}

__attribute__((constructor)) static void init(void)
{
    find_real();
}

/* The info log and the lock of RocksDB do not count. */
static bool is_ours(const char *path)
{
    size_t n = disk && disk->active ? strlen(disk->dir) : 0;

    return n > 0 && strncmp(path, disk->dir, n) == 0 && (path[n] == '/' || path[n] == '\0') && !strstr(path, "/LOG") &&
           !strstr(path, "/LOCK") && !strstr(path, "/PROBE");
}

static bool is_our_fd(int fd, char path[PATH_BYTES], struct stat *ret)
{
    char link[64];
    ssize_t n;

    if (!disk || !disk->active)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, PATH_BYTES - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return is_ours(path) && fstat(fd, ret) == 0;
}

/* ---- what is not durable ---- */

static void keep_page(int fd, const struct stat *st, off_t at, size_t size_bytes)
{
    struct page *p = &disk->pages[disk->n_pages++];

    MUST(disk->n_pages < PAGES_MAX, "too many pages are not synced");
    *p = (struct page){.ino = st->st_ino, .at = at, .size_before = st->st_size, .size_bytes = size_bytes};
    MUST(pread(fd, p->old, size_bytes, at) >= 0, "read what is there");
}

/* With `fd` perhaps for writing only. */
static void keep_pages(int fd, const struct stat *st, off_t at, size_t size_bytes)
{
    char link[64];
    off_t end = at + (off_t)size_bytes;
    int readable;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    readable = real.open(link, O_RDONLY | O_CLOEXEC);
    MUST(readable >= 0, "%s: %s", link, strerror(errno));
    while (at < end) {
        off_t next = (at / PAGE + 1) * PAGE;

        next = next < end ? next : end;
        keep_page(readable, st, at, (size_t)(next - at));
        at = next;
    }
    close(readable);
}

/* What lies in [at, end) of the file is durable, and so is a size up to there. */
static void forget_pages(ino_t ino, off_t at, off_t end)
{
    size_t n = 0;

    for (size_t i = 0; i < disk->n_pages; i++) {
        struct page *p = &disk->pages[i];

        if (p->ino == ino && p->at >= at && p->at + (off_t)p->size_bytes <= end)
            continue;
        if (p->ino == ino && p->size_before < end)
            p->size_before = end;
        if (i != n)
            disk->pages[n] = *p;
        n++;
    }
    disk->n_pages = n;
}

static void forget_changes(const char *dir)
{
    size_t n = 0, size = strlen(dir);

    for (size_t i = 0; i < disk->n_changes; i++) {
        struct change *c = &disk->changes[i];

        if (strncmp(c->path, dir, size) != 0 || strrchr(c->path, '/') != c->path + size) {
            disk->changes[n++] = *c;
            continue;
        }
        if (c->kept[0])
            real.unlink(c->kept);
    }
    disk->n_changes = n;
}

static struct change *add_change(enum change_kind kind, const char *path, const char *to)
{
    struct change *c = &disk->changes[disk->n_changes++];

    MUST(disk->n_changes < NAMES_MAX, "too many names are not synced");
    *c = (struct change){.kind = kind};
    snprintf(c->path, sizeof c->path, "%s", path);
    snprintf(c->to, sizeof c->to, "%s", to);
    return c;
}

/* The file that is to lose this name, if there is one, gets another. */
static void keep_file(struct change *c, const char *path)
{
    snprintf(c->kept, sizeof c->kept, "%s-kept/%lu", disk->dir, (unsigned long)++disk->n_kept);
    if (link(path, c->kept) < 0)
        c->kept[0] = '\0';
}

/* ---- the cut ---- */

static unsigned loss; /* of a hundred */

static bool is_lost(void)
{
    return below(&disk->seed, 100) < loss;
}

static void lose_sectors(const struct page *p, uint8_t *data, off_t size)
{
    for (size_t i = 0; i < p->size_bytes; i += SECTOR - (size_t)(p->at + (off_t)i) % SECTOR) {
        size_t n = SECTOR - (size_t)(p->at + (off_t)i) % SECTOR;

        if (!is_lost())
            continue;
        disk->counts.lost_sectors++;
        for (size_t k = i; k < i + n && k < p->size_bytes && p->at + (off_t)k < size; k++)
            data[p->at + (off_t)k] = p->old[k];
    }
}

/* The file without what the cut takes of it. */
static void copy_file(const char *from, const char *to)
{
    int in = real.open(from, O_RDONLY), out = real.open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t durable = -1;
    struct stat st;
    uint8_t *data;

    MUST(in >= 0 && out >= 0 && fstat(in, &st) == 0, "%s", from);
    data = malloc((size_t)st.st_size + 1);
    MUST(pread(in, data, (size_t)st.st_size, 0) == st.st_size, "%s", from);
    for (size_t i = disk->n_pages; i-- > 0;) {
        if (disk->pages[i].ino != st.st_ino)
            continue;
        lose_sectors(&disk->pages[i], data, st.st_size);
        durable = disk->pages[i].size_before;
    }
    if (durable >= 0 && durable < st.st_size && is_lost())
        st.st_size = durable + (off_t)below(&disk->seed, (uint64_t)(st.st_size - durable) + 1);
    MUST(real.pwrite(out, data, (size_t)st.st_size, 0) == st.st_size, "%s", to);
    free(data);
    close(in);
    close(out);
}

static void in_image(char out[2 * PATH_BYTES], const char *path)
{
    snprintf(out, 2 * PATH_BYTES, "%s-image%s", disk->dir, path + strlen(disk->dir));
}

static int copy_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char to[2 * PATH_BYTES];

    (void)st, (void)ftw;
    in_image(to, path);
    if (type == FTW_D)
        return mkdir(to, 0700);
    copy_file(path, to);
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void undo_change(const struct change *c)
{
    char path[2 * PATH_BYTES], to[2 * PATH_BYTES];

    in_image(path, c->path);
    in_image(to, c->kind == RENAMED ? c->to : c->path);
    if (c->kind == CREATED)
        real.unlink(path);
    if (c->kind == RENAMED)
        MUST(real.rename(to, path) == 0, "%s", to);
    if (c->kept[0])
        copy_file(c->kept, to);
}

static void cut_power(void)
{
    static const unsigned losses[] = {0, 20, 50, 90, 100};
    char image[160], kept[160];
    size_t n_lost;

    loss = losses[below(&disk->seed, sizeof losses / sizeof losses[0])];
    n_lost = is_lost() ? below(&disk->seed, disk->n_changes + 1) : 0;
    snprintf(image, sizeof image, "%s-image", disk->dir);
    snprintf(kept, sizeof kept, "%s-kept", disk->dir);
    MUST(nftw(disk->dir, copy_entry, 16, FTW_PHYS) == 0, "copy %s", disk->dir);
    for (size_t i = 0; i < n_lost; i++)
        undo_change(&disk->changes[disk->n_changes - 1 - i]);
    disk->counts.lost_names += n_lost;
    disk->n_pages = disk->n_changes = 0;
    remove_tree(disk->dir);
    MUST(real.rename(image, disk->dir) == 0, "%s", image);
    remove_tree(kept);
    MUST(mkdir(kept, 0700) == 0, "%s", kept);
}

void cut_disk_now(void)
{
    pthread_mutex_lock(&lock); /* for ever */
    disk->active = false;
    if (below(&disk->seed, 3) == 0) {
        disk->counts.kills++;
    } else {
        disk->counts.cuts++;
        cut_power();
    }
    disk->active = true;
    _exit(0);
}

static void count_call(void)
{
    if (++disk->n_calls == disk->cut_at)
        cut_disk_now();
}

/* ---- the calls ---- */

NH_API ssize_t pwrite(int fd, const void *data, size_t n, off_t at);
NH_API ssize_t write(int fd, const void *data, size_t n);
NH_API int open(const char *path, int flags, ...);
NH_API int rename(const char *from, const char *to);
NH_API int unlink(const char *path);
NH_API int ftruncate(int fd, off_t size);
NH_API int fdatasync(int fd);
NH_API int fsync(int fd);

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    char path[PATH_BYTES];
    struct stat st;
    ssize_t r;

    pthread_mutex_lock(&lock);
    if (is_our_fd(fd, path, &st)) {
        count_call();
        keep_pages(fd, &st, at, n);
    }
    r = real.pwrite(fd, data, n, at);
    pthread_mutex_unlock(&lock);
    return r;
}

ssize_t write(int fd, const void *data, size_t n)
{
    char path[PATH_BYTES];
    struct stat st;
    ssize_t r;

    if (!disk || fd <= STDERR_FILENO)
        return real.write(fd, data, n);
    pthread_mutex_lock(&lock);
    if (is_our_fd(fd, path, &st)) {
        count_call();
        keep_pages(fd, &st, fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR), n);
    }
    r = real.write(fd, data, n);
    pthread_mutex_unlock(&lock);
    return r;
}

int open(const char *path, int flags, ...)
{
    bool makes = false;
    struct stat st;
    mode_t mode;
    va_list args;
    int fd;

    va_start(args, flags);
    mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    pthread_mutex_lock(&lock);
    if (flags & O_CREAT && is_ours(path) && stat(path, &st) < 0) {
        makes = true;
        count_call();
    }
    fd = real.open(path, flags, mode);
    if (makes && fd >= 0 && fstat(fd, &st) == 0) {
        add_change(CREATED, path, "");
        forget_pages(st.st_ino, 0, INT64_MAX); /* of a former file with that number */
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

int rename(const char *from, const char *to)
{
    int r;

    pthread_mutex_lock(&lock);
    if (is_ours(from)) {
        count_call();
        keep_file(add_change(RENAMED, from, to), to);
    }
    r = real.rename(from, to);
    pthread_mutex_unlock(&lock);
    return r;
}

int unlink(const char *path)
{
    int r;

    pthread_mutex_lock(&lock);
    if (is_ours(path) && access(path, F_OK) == 0) {
        count_call();
        keep_file(add_change(REMOVED, path, ""), path);
    }
    r = real.unlink(path);
    pthread_mutex_unlock(&lock);
    return r;
}

int ftruncate(int fd, off_t size)
{
    char path[PATH_BYTES];
    struct stat st;
    int r;

    pthread_mutex_lock(&lock);
    if (is_our_fd(fd, path, &st))
        count_call();
    r = real.ftruncate(fd, size);
    pthread_mutex_unlock(&lock);
    return r;
}

/* With 64-bit offsets, as meson has them, these are pwrite64, open64 and ftruncate64. RocksDB calls the short names. */
NH_API __typeof__(pwrite) short_pwrite __asm__("pwrite") __attribute__((alias("pwrite64")));
NH_API __typeof__(open) short_open __asm__("open") __attribute__((alias("open64")));
NH_API __typeof__(ftruncate) short_ftruncate __asm__("ftruncate") __attribute__((alias("ftruncate64"), copy(ftruncate)));

static int do_sync(int fd, int (*sync)(int fd))
{
    char path[PATH_BYTES];
    struct stat st;
    bool ours;

    pthread_mutex_lock(&lock);
    ours = is_our_fd(fd, path, &st);
    if (ours) {
        count_call();
        if (S_ISDIR(st.st_mode))
            forget_changes(path);
        else
            forget_pages(st.st_ino, 0, INT64_MAX);
    }
    pthread_mutex_unlock(&lock);
    return ours ? 0 : sync(fd);
}

int fdatasync(int fd)
{
    return do_sync(fd, real.fdatasync);
}

int fsync(int fd)
{
    return do_sync(fd, real.fsync);
}

void on_async_begin(int fd, int64_t at, size_t size_bytes)
{
    char path[PATH_BYTES];
    struct stat st;

    pthread_mutex_lock(&lock);
    if (is_our_fd(fd, path, &st)) {
        count_call();
        keep_pages(fd, &st, at, size_bytes);
    }
    pthread_mutex_unlock(&lock);
}

int64_t on_async_end(int fd, int64_t at, size_t size_bytes, int64_t result)
{
    char path[PATH_BYTES];
    struct stat st;

    pthread_mutex_lock(&lock);
    if (is_our_fd(fd, path, &st) && result == (int64_t)size_bytes) {
        count_call();
        forget_pages(st.st_ino, at, at + (off_t)size_bytes);
        disk->counts.async_writes++;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- its user ---- */

void cut_disk_begin(const char *dir, uint64_t seed)
{
    char kept[160];

    disk = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST((void *)disk != MAP_FAILED, "no memory");
    snprintf(disk->dir, sizeof disk->dir, "%s", dir);
    snprintf(kept, sizeof kept, "%s-kept", dir);
    MUST(mkdir(kept, 0700) == 0, "%s", kept);
    disk->seed = seed;
    disk->active = true;
}

void cut_disk_end(void)
{
    char kept[160];

    snprintf(kept, sizeof kept, "%s-kept", disk->dir);
    disk->active = false;
    remove_tree(kept);
}

void cut_disk_after(uint64_t n_calls)
{
    disk->cut_at = disk->n_calls + n_calls;
}

void cut_disk_hold(void)
{
    pthread_mutex_lock(&lock);
}

void cut_disk_release(void)
{
    pthread_mutex_unlock(&lock);
}

struct cut_disk_counts cut_disk_counts(void)
{
    return disk->counts;
}
