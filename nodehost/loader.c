#include "nodehost/loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "nodehost/data_dir.h"
#include "raftio/support/memory.h"

/* Every table begins like this (raftio/plugin.h). */
struct table_head {
    uint32_t abi_version;
    uint32_t struct_size;
    const char *name;
};

struct kind {
    const char *symbol;
    uint32_t abi_version;
    size_t size_bytes;     /* of the table as we know it */
    size_t required_until; /* members up to here must be set */
    size_t required_from;
    int (*check)(const void *table, struct nh_error *err); /* what else there is to it; or NULL */
};

static int check_machine(const void *table, struct nh_error *err);
static int check_logdb(const void *table, struct nh_error *err);

static const struct kind machine_kind = {NH_MACHINE_PLUGIN_SYMBOL, NH_MACHINE_ABI, sizeof(struct nh_machine_ops),
                                         .check = check_machine};
static const struct kind logdb_kind = {NH_LOGDB_PLUGIN_SYMBOL,
                                       NH_LOGDB_ABI,
                                       sizeof(struct nh_logdb_ops),
                                       offsetof(struct nh_logdb_ops, begin_save),
                                       offsetof(struct nh_logdb_ops, open),
                                       check_logdb};
static const struct kind transport_kind = {NH_TRANSPORT_PLUGIN_SYMBOL, NH_TRANSPORT_ABI, sizeof(struct nh_transport_ops),
                                           offsetof(struct nh_transport_ops, get_snapshot_connection),
                                           offsetof(struct nh_transport_ops, open)};
static const struct kind registry_kind = {NULL, NH_REGISTRY_ABI, sizeof(struct nh_registry_ops), sizeof(struct nh_registry_ops),
                                          offsetof(struct nh_registry_ops, open)};

/* What was loaded so far. */
struct loaded {
    struct loaded *next;
    const struct kind *kind;
    dev_t dev;
    ino_t ino;
    void *table;
    uint64_t hash;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loaded *all; /* guarded by lock */

static int check_file(const char *path, int fd, struct stat *ret, struct nh_error *err)
{
    if (fstat(fd, ret) < 0)
        return nh_error_sys(err, NH_EIO, errno, "%s", path);
    if (!S_ISREG(ret->st_mode))
        return nh_error_set(err, NH_EINVAL, "%s is not a regular file", path);
    if (ret->st_uid != 0 && ret->st_uid != geteuid())
        return nh_error_set(err, NH_EINVAL, "%s belongs to user %u: a plugin must belong to root or to the user that loads it",
                            path, (unsigned)ret->st_uid);
    if (ret->st_mode & (S_IWGRP | S_IWOTH))
        return nh_error_set(err, NH_EINVAL, "%s may be written by others (mode %o): chmod go-w it", path,
                            (unsigned)(ret->st_mode & 0777));
    return NH_OK;
}

static int open_file(const char *path, int *ret_fd, struct stat *ret, struct nh_error *err)
{
    int fd, r;

    if (!path || path[0] != '/')
        return nh_error_set(err, NH_EINVAL, "plugin '%s': the path must be absolute", path ? path : "");
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ELOOP)
        return nh_error_set(err, NH_EINVAL, "%s is a symbolic link: name the file itself", path);
    if (fd < 0)
        return nh_error_sys(err, NH_EIO, errno, "open plugin %s", path);
    r = check_file(path, fd, ret, err);
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

static bool lacks_required(const struct kind *kind, const void *table)
{
    for (size_t at = kind->required_from; at < kind->required_until; at += sizeof(void (*)(void))) {
        void (*member)(void);

        memcpy(&member, (const char *)table + at, sizeof member);
        if (!member)
            return true;
    }
    return false;
}

int loader_check_machine(const struct nh_machine_ops *m, struct nh_error *err)
{
    static const char *const kinds[] = {"regular", "concurrent", "on-disk"};
    bool regular = m->kind == NH_MACHINE_REGULAR, snapshots = !regular || m->save_snapshot || m->recover;
    const struct {
        const char *name;
        bool required, there;
    } members[] = {
        {"open", true, m->open},
        {"update", true, m->update},
        {"lookup", true, m->lookup},
        {"close", true, m->close},
        {"save_snapshot", snapshots, m->save_snapshot},
        {"recover", snapshots, m->recover},
        {"prepare_snapshot", !regular, m->prepare_snapshot},
        {"release_snapshot", m->prepare_snapshot, m->release_snapshot},
        {"sync", m->kind == NH_MACHINE_ON_DISK, m->sync},
        {"recover_files", m->save_files, m->recover_files},
    };

    if (m->kind > NH_MACHINE_ON_DISK)
        return nh_error_set(err, NH_EABI, "machine \"%s\" is of the unknown kind %" PRIu32, m->name, m->kind);
    if (m->kind == NH_MACHINE_ON_DISK && (m->flags & NH_MACHINE_QUICK))
        return nh_error_set(err, NH_EABI, "the on-disk machine \"%s\" promises quick updates, but its files may make it wait",
                            m->name);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (members[i].required && !members[i].there)
            return nh_error_set(err, NH_EABI, "the %s machine \"%s\" lacks %s, which is required", kinds[m->kind], m->name,
                                members[i].name);
    return NH_OK;
}

static int check_machine(const void *table, struct nh_error *err)
{
    return loader_check_machine(table, err);
}

/* Its name is a word of the HOST file. */
static int check_logdb(const void *table, struct nh_error *err)
{
    const struct nh_logdb_ops *ops = table;

    if (strlen(ops->name) >= DATA_DIR_LOGDB_BYTES)
        return nh_error_set(err, NH_EABI, "its name is longer than %u characters", DATA_DIR_LOGDB_BYTES - 1);
    for (const char *p = ops->name; *p; p++)
        if (*p <= ' ' || *p > '~')
            return nh_error_set(err, NH_EABI, "its name has a character that is not printable ASCII, or a space");
    return NH_OK;
}

static int check_members(const struct kind *kind, const void *table, struct nh_error *err)
{
    const struct table_head *head = table;

    if (!head->name || !head->name[0])
        return nh_error_set(err, NH_EABI, "its table has no name");
    if (lacks_required(kind, table))
        return nh_error_set(err, NH_EABI, "its table lacks a required function");
    return kind->check ? kind->check(table, err) : NH_OK;
}

/* Copies what both sides know of a table; `ret` is of our size. */
static int take_table(const struct kind *kind, const void *given, void *ret, struct nh_error *err)
{
    const struct table_head *head = given;

    if (head->abi_version != kind->abi_version)
        return nh_error_set(err, NH_EABI, "its table has ABI version %" PRIu32 ", this host takes %" PRIu32 ": build it anew",
                            head->abi_version, kind->abi_version);
    if (head->struct_size < sizeof head->abi_version + sizeof head->struct_size)
        return nh_error_set(err, NH_EABI, "its table says it has %" PRIu32 " bytes", head->struct_size);
    memset(ret, 0, kind->size_bytes);
    memcpy(ret, given, head->struct_size < kind->size_bytes ? head->struct_size : kind->size_bytes);
    return check_members(kind, ret, err);
}

int loader_take_logdb(const struct nh_logdb_ops *given, struct nh_logdb_ops *ret, struct nh_error *err)
{
    int r = take_table(&logdb_kind, given, ret, err);

    return r < 0 ? nh_error_wrap(err, r, "log store") : NH_OK;
}

int loader_take_transport(const struct nh_transport_ops *given, struct nh_transport_ops *ret, struct nh_error *err)
{
    int r = take_table(&transport_kind, given, ret, err);

    return r < 0 ? nh_error_wrap(err, r, "transport") : NH_OK;
}

int loader_take_registry(const struct nh_registry_ops *given, struct nh_registry_ops *ret, struct nh_error *err)
{
    int r = take_table(&registry_kind, given, ret, err);

    return r < 0 ? nh_error_wrap(err, r, "registry") : NH_OK;
}

static int accept_table(const struct kind *kind, const char *path, const void *given, void **ret, struct nh_error *err)
{
    void *table;
    int r;

    if (!given)
        return nh_error_set(err, NH_EABI, "%s: %s returns NULL", path, kind->symbol);
    table = xcalloc(1, kind->size_bytes);
    r = take_table(kind, given, table, err);
    if (r < 0) {
        free(table);
        return nh_error_wrap(err, r, "%s", path);
    }
    *ret = table;
    return NH_OK;
}

#define HASH_READ_BYTES 65536u

static int hash_file(const char *path, int fd, uint64_t *ret, struct nh_error *err)
{
    XXH3_state_t *state = XXH3_createState();
    uint8_t *buffer = xmalloc(HASH_READ_BYTES);
    off_t at = 0;
    ssize_t n;
    int r = NH_OK;

    XXH3_64bits_reset(state);
    while ((n = pread(fd, buffer, HASH_READ_BYTES, at)) > 0) {
        XXH3_64bits_update(state, buffer, (size_t)n);
        at += n;
    }
    if (n < 0)
        r = nh_error_sys(err, NH_EIO, errno, "read plugin %s", path);
    *ret = XXH3_64bits_digest(state);
    *ret += *ret == 0; /* 0 means that there is none */
    free(buffer);
    XXH3_freeState(state);
    return r;
}

/* By descriptor, so that the file that was checked is the one that is loaded. The loader knows objects by their names, so the
 * descriptor's number must not come to mean another file: it stays open once the object is loaded. */
static int load_object(const struct kind *kind, const char *path, int *fd, void **ret, struct nh_error *err)
{
    const void *(*plugin)(void);
    char by_fd[64];
    void *lib;

    snprintf(by_fd, sizeof by_fd, "/proc/self/fd/%d", *fd);
    lib = dlopen(by_fd, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lib)
        return nh_error_set(err, NH_EABI, "load %s: %s", path, dlerror());
    *fd = -1;
    *(void **)&plugin = dlsym(lib, kind->symbol);
    if (!plugin)
        return nh_error_set(err, NH_EABI, "%s exports no %s: it is not such a plugin", path, kind->symbol);
    return accept_table(kind, path, plugin(), ret, err);
}

static int load_locked(const struct kind *kind, const char *path, int *fd, const struct stat *st, void **ret,
                       struct nh_error *err)
{
    uint64_t hash = 0;
    struct loaded *l;
    int r;

    for (l = all; l; l = l->next) {
        if (l->kind == kind && l->dev == st->st_dev && l->ino == st->st_ino) {
            *ret = l->table;
            return NH_OK;
        }
    }
    r = hash_file(path, *fd, &hash, err);
    if (r == NH_OK)
        r = load_object(kind, path, fd, ret, err);
    if (r < 0)
        return r;
    l = xcalloc(1, sizeof *l);
    *l = (struct loaded){all, kind, st->st_dev, st->st_ino, *ret, hash};
    all = l;
    return NH_OK;
}

static int load(const struct kind *kind, const char *path, void **ret, struct nh_error *err)
{
    struct stat st;
    int fd = -1, r = open_file(path, &fd, &st, err);

    if (r < 0)
        return r;
    pthread_mutex_lock(&lock);
    r = load_locked(kind, path, &fd, &st, ret, err);
    pthread_mutex_unlock(&lock);
    if (fd >= 0)
        close(fd);
    return r;
}

uint64_t loader_machine_hash(const struct nh_machine_ops *ops)
{
    uint64_t hash = 0;

    pthread_mutex_lock(&lock);
    for (const struct loaded *l = all; l; l = l->next)
        if (l->table == ops)
            hash = l->hash;
    pthread_mutex_unlock(&lock);
    return hash;
}

int nh_machine_load(const char *path, const struct nh_machine_ops **ret, struct nh_error *err)
{
    void *table;
    int r = load(&machine_kind, path, &table, err);

    if (r == NH_OK)
        *ret = table;
    return r;
}

int nh_logdb_load(const char *path, const struct nh_logdb_ops **ret, struct nh_error *err)
{
    void *table;
    int r = load(&logdb_kind, path, &table, err);

    if (r == NH_OK)
        *ret = table;
    return r;
}

int nh_transport_load(const char *path, const struct nh_transport_ops **ret, struct nh_error *err)
{
    void *table;
    int r = load(&transport_kind, path, &table, err);

    if (r == NH_OK)
        *ret = table;
    return r;
}
