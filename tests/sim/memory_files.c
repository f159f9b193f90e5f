#include "tests/sim/memory_files.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/list.h"
#include "raftio/support/memory.h"

/* Everything is guarded by `lock`. */
struct memory_files {
    struct files base;
    pthread_mutex_t lock;
    struct tree tree;
    uint64_t limit_bytes;
    uint64_t n_crashes, n_open, n_operations, n_failed;
    uint64_t fail_at, crash_at; /* numbers of operations; 0: none */
    int fail_code;
    bool crashed;
};

struct file {
    struct memory_files *m;
    struct inode *inode; /* held */
    char *path;          /* for error texts */
    bool writing;
    uint64_t life; /* n_crashes when it was opened */
};

/* ---- operations ---- */

/* Counts an operation. A negative code: it is to fail. */
static int count(struct memory_files *m)
{
    m->n_operations++;
    m->crashed |= m->n_operations == m->crash_at;
    if (!m->crashed && m->n_operations != m->fail_at)
        return NH_OK;
    m->n_failed++;
    return m->crashed ? NH_EIO : m->fail_code;
}

static int lock_and_count(struct memory_files *m, const char *verb, const char *path, struct nh_error *err)
{
    int r;

    pthread_mutex_lock(&m->lock);
    r = count(m);
    return r < 0 ? nh_error_set(err, r, "%s %s: injected failure", verb, path) : NH_OK;
}

static int unlock(struct memory_files *m, int r)
{
    pthread_mutex_unlock(&m->lock);
    return r;
}

static struct memory_files *files_of(struct files *fs)
{
    return container_of(fs, struct memory_files, base);
}

static int not_found(struct nh_error *err, const char *verb, const char *path)
{
    return nh_error_set(err, NH_ENOTFOUND, "%s %s: there is no such file or directory", verb, path);
}

/* ---- directories ---- */

static int make_dir(struct files *fs, const char *path, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "make directory", path, err);
    struct inode *parent, *present;
    const char *name;

    if (r < 0)
        return unlock(m, r);
    parent = tree_parent(&m->tree, path, &name);
    present = parent ? dir_find(parent, name) : NULL;
    if (!parent)
        r = not_found(err, "make directory", path);
    else if (!present)
        dir_add(&m->tree, parent, name, true);
    else if (!present->is_dir)
        r = nh_error_set(err, NH_EEXIST, "make directory %s: something else is there", path);
    return unlock(m, r);
}

/* NULL: *r says why. */
static struct inode *find_dir(struct memory_files *m, const char *verb, const char *path, int *r, struct nh_error *err)
{
    struct inode *dir = *r < 0 ? NULL : tree_find(&m->tree, path);

    if (*r < 0)
        return NULL;
    if (!dir)
        *r = not_found(err, verb, path);
    else if (!dir->is_dir)
        *r = nh_error_set(err, NH_EIO, "%s %s: it is not a directory", verb, path);
    return *r < 0 ? NULL : dir;
}

static int sync_dir(struct files *fs, const char *path, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "sync directory", path, err);
    struct inode *dir = find_dir(m, "sync directory", path, &r, err);

    if (dir)
        dir_sync(dir);
    return unlock(m, r);
}

static int list(struct files *fs, const char *path, int (*each)(void *ctx, const char *name), void *ctx, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "list directory", path, err);
    struct inode *dir = find_dir(m, "list directory", path, &r, err);
    size_t n = dir ? dir->live.n : 0;
    char **names = xcalloc(n + 1, sizeof *names);

    for (size_t i = 0; i < n; i++)
        names[i] = xstrdup(dir->live.items[i].name);
    unlock(m, r);
    for (size_t i = 0; i < n; i++) {
        if (r == NH_OK)
            r = each(ctx, names[i]);
        free(names[i]);
    }
    free(names);
    return r;
}

static uint64_t space_left(const struct memory_files *m)
{
    return m->limit_bytes > m->tree.used_bytes ? m->limit_bytes - m->tree.used_bytes : 0;
}

static int space(struct files *fs, const char *path, uint64_t *ret_free, uint64_t *ret_whole, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "ask for the space of", path, err);

    if (find_dir(m, "ask for the space of", path, &r, err)) {
        *ret_free = space_left(m);
        if (ret_whole)
            *ret_whole = m->limit_bytes;
    }
    return unlock(m, r);
}

/* ---- files ---- */

static struct file *file_new(struct memory_files *m, struct inode *inode, const char *path, bool writing)
{
    struct file *f = xmalloc(sizeof *f);

    file_hold(inode);
    m->n_open++;
    *f = (struct file){.m = m, .inode = inode, .path = xstrdup(path), .writing = writing, .life = m->n_crashes};
    return f;
}

static int create(struct files *fs, const char *path, struct file **ret, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "create", path, err);
    struct inode *parent;
    const char *name;

    if (r < 0)
        return unlock(m, r);
    parent = tree_parent(&m->tree, path, &name);
    if (!parent)
        r = not_found(err, "create", path);
    else if (dir_find(parent, name))
        r = nh_error_set(err, NH_EEXIST, "create %s: it exists", path);
    else
        *ret = file_new(m, dir_add(&m->tree, parent, name, false), path, true);
    return unlock(m, r);
}

static int open_existing(struct files *fs, const char *path, struct file **ret, uint64_t *ret_size, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "open", path, err);
    struct inode *inode;

    if (r < 0)
        return unlock(m, r);
    inode = tree_find(&m->tree, path);
    if (!inode)
        return unlock(m, not_found(err, "open", path));
    if (inode->is_dir)
        return unlock(m, nh_error_set(err, NH_EIO, "open %s: it is not a regular file", path));
    if (ret_size)
        *ret_size = inode->size_bytes;
    *ret = file_new(m, inode, path, false);
    return unlock(m, NH_OK);
}

/* Also: may the file be used for this? */
static int lock_file(struct file *f, const char *verb, bool writing, struct nh_error *err)
{
    int r = lock_and_count(f->m, verb, f->path, err);

    if (r == NH_OK && f->life != f->m->n_crashes)
        r = nh_error_set(err, NH_EIO, "%s %s: the host has crashed since", verb, f->path);
    if (r == NH_OK && f->writing != writing)
        r = nh_error_set(err, NH_EIO, "%s %s: it was opened for something else", verb, f->path);
    return r;
}

static int write_all(struct file *f, const void *data, size_t size_bytes, struct nh_error *err)
{
    int r = lock_file(f, "write", true, err);
    size_t n = size_bytes;

    if (r < 0)
        n = f->m->crashed || f->life != f->m->n_crashes || !f->writing ? 0 : size_bytes / 2;
    if (n > space_left(f->m)) {
        n = space_left(f->m);
        r = r < 0 ? r : nh_error_set(err, NH_ENOSPC, "write %s: the disk is full", f->path);
    }
    file_append(&f->m->tree, f->inode, data, n);
    return unlock(f->m, r);
}

static int64_t read_at(struct file *f, uint64_t offset, void *data, size_t cap_bytes, struct nh_error *err)
{
    int r = lock_file(f, "read", false, err);
    size_t n = 0;

    if (r == NH_OK && offset < f->inode->size_bytes) {
        n = f->inode->size_bytes - offset < cap_bytes ? f->inode->size_bytes - offset : cap_bytes;
        memcpy(data, f->inode->data + offset, n);
    }
    unlock(f->m, r);
    return r < 0 ? r : (int64_t)n;
}

static int sync_file(struct file *f, struct nh_error *err)
{
    int r = lock_file(f, "sync", true, err);

    if (r == NH_OK)
        file_sync(f->inode);
    else if (f->life == f->m->n_crashes)
        f->inode->in_doubt = true;
    return unlock(f->m, r);
}

static int close_file(struct file *f, struct nh_error *err)
{
    struct memory_files *m = f ? f->m : NULL;
    int r = NH_OK;

    if (!f)
        return NH_OK;
    pthread_mutex_lock(&m->lock);
    if (f->life != m->n_crashes)
        file_release_stale(f->inode);
    else {
        r = f->writing ? count(m) : NH_OK;
        file_release(&m->tree, f->inode);
    }
    m->n_open--;
    unlock(m, r);
    if (r < 0)
        nh_error_set(err, r, "close %s: injected failure", f->path);
    free(f->path);
    free(f);
    return r;
}

/* ---- names ---- */

static bool can_replace(const struct inode *from, const struct inode *to)
{
    return !to || (from->is_dir == to->is_dir && to->live.n == 0);
}

static int rename_entry(struct files *fs, const char *from, const char *to, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "rename", from, err);
    const char *old_name, *new_name;
    struct inode *dir;

    if (r < 0)
        return unlock(m, r);
    dir = tree_parent(&m->tree, from, &old_name);
    if (!dir || !dir_find(dir, old_name))
        r = not_found(err, "rename", from);
    else if (dir != tree_parent(&m->tree, to, &new_name))
        r = nh_error_set(err, NH_EINVAL, "rename %s to %s: not in the same directory", from, to);
    else if (!can_replace(dir_find(dir, old_name), dir_find(dir, new_name)))
        r = nh_error_set(err, NH_EEXIST, "rename %s to %s: that is there", from, to);
    else
        dir_rename(&m->tree, dir, old_name, new_name);
    return unlock(m, r);
}

/* Each name is an operation of its own. */
static int remove_from(struct memory_files *m, struct inode *dir, const char *name)
{
    struct inode *i = dir_find(dir, name);
    int r = NH_OK;

    while (r == NH_OK && i->live.n > 0)
        r = remove_from(m, i, i->live.items[i->live.n - 1].name);
    if (r == NH_OK)
        r = count(m);
    if (r == NH_OK)
        dir_remove(&m->tree, dir, name);
    return r;
}

static int remove_entry(struct files *fs, const char *path, struct nh_error *err)
{
    struct memory_files *m = files_of(fs);
    int r = lock_and_count(m, "remove", path, err);
    struct inode *parent;
    const char *name;

    if (r < 0)
        return unlock(m, r);
    parent = tree_parent(&m->tree, path, &name);
    if (parent && dir_find(parent, name))
        r = remove_from(m, parent, name);
    if (r < 0)
        nh_error_set(err, r, "remove %s: injected failure", path);
    return unlock(m, r);
}

/* ---- for tests ---- */

struct memory_files *memory_files_new(void)
{
    static const struct files_ops ops = {
        .make_dir = make_dir,
        .create = create,
        .open = open_existing,
        .write = write_all,
        .read_at = read_at,
        .sync = sync_file,
        .close = close_file,
        .rename = rename_entry,
        .sync_dir = sync_dir,
        .remove = remove_entry,
        .list = list,
        .space = space,
    };
    struct memory_files *m = xcalloc(1, sizeof *m);

    m->base.ops = &ops;
    m->limit_bytes = INT64_MAX;
    pthread_mutex_init(&m->lock, NULL);
    tree_init(&m->tree);
    return m;
}

void memory_files_free(struct memory_files *m)
{
    if (!m)
        return;
    assert(m->n_open == 0);
    tree_deinit(&m->tree);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

struct files *memory_files_base(struct memory_files *m)
{
    return &m->base;
}

void memory_files_crash(struct memory_files *m, memory_random_fn random, void *ctx)
{
    pthread_mutex_lock(&m->lock);
    m->n_crashes++;
    m->crashed = false;
    m->fail_at = m->crash_at = m->n_failed = 0;
    tree_crash(&m->tree, random, ctx);
    unlock(m, 0);
}

void memory_files_set_limit(struct memory_files *m, uint64_t bytes)
{
    pthread_mutex_lock(&m->lock);
    m->limit_bytes = bytes;
    unlock(m, 0);
}

uint64_t memory_files_used(struct memory_files *m)
{
    uint64_t used;

    pthread_mutex_lock(&m->lock);
    used = m->tree.used_bytes;
    unlock(m, 0);
    return used;
}

uint64_t memory_files_operations(struct memory_files *m)
{
    uint64_t n;

    pthread_mutex_lock(&m->lock);
    n = m->n_operations;
    unlock(m, 0);
    return n;
}

void memory_files_fail_at(struct memory_files *m, uint64_t n, int code)
{
    pthread_mutex_lock(&m->lock);
    m->fail_at = n > 0 ? m->n_operations + n : 0;
    m->fail_code = code;
    unlock(m, 0);
}

void memory_files_crash_at(struct memory_files *m, uint64_t n)
{
    pthread_mutex_lock(&m->lock);
    m->crash_at = n > 0 ? m->n_operations + n : 0;
    unlock(m, 0);
}

bool memory_files_is_crashed(struct memory_files *m)
{
    bool crashed;

    pthread_mutex_lock(&m->lock);
    crashed = m->crashed;
    unlock(m, 0);
    return crashed;
}

uint64_t memory_files_failed(struct memory_files *m)
{
    uint64_t n;

    pthread_mutex_lock(&m->lock);
    n = m->n_failed;
    unlock(m, 0);
    return n;
}

bool memory_files_is_durable(struct memory_files *m, const char *path)
{
    const struct inode *f;
    bool durable;

    pthread_mutex_lock(&m->lock);
    f = tree_find_durable(&m->tree, path);
    durable = f && !f->is_dir && f->n_synced == f->size_bytes;
    unlock(m, 0);
    return durable;
}

const uint8_t *memory_files_peek(struct memory_files *m, const char *path, size_t *ret_size_bytes)
{
    const struct inode *f;

    pthread_mutex_lock(&m->lock);
    f = tree_find(&m->tree, path);
    unlock(m, 0);
    if (!f || f->is_dir)
        return NULL;
    *ret_size_bytes = f->size_bytes;
    return f->data;
}
