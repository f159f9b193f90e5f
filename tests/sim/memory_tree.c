#include "tests/sim/memory_tree.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

#define SECTOR_BYTES 512u

/* ---- inodes and entries ---- */

static void entries_deinit(struct entries *e);
static void drop_changes(struct inode *dir);

static struct inode *inode_new(bool is_dir)
{
    struct inode *i = xcalloc(1, sizeof *i);

    i->is_dir = is_dir;
    return i;
}

static struct inode *inode_ref(struct inode *i)
{
    i->refs++;
    return i;
}

static void inode_unref(struct inode *i)
{
    assert(i->refs > 0);
    if (--i->refs > 0)
        return;
    entries_deinit(&i->live);
    entries_deinit(&i->durable);
    drop_changes(i);
    free(i->changes);
    free(i->data);
    free(i);
}

static void use(struct tree *t, struct inode *i)
{
    if (i->uses++ == 0)
        t->used_bytes += i->size_bytes;
}

static void unuse(struct tree *t, struct inode *i)
{
    assert(i->uses > 0);
    if (--i->uses == 0)
        t->used_bytes -= i->size_bytes;
}

static struct entry *entries_find(const struct entries *e, const char *name)
{
    for (size_t i = 0; i < e->n; i++)
        if (strcmp(e->items[i].name, name) == 0)
            return &e->items[i];
    return NULL;
}

/* Nothing there is fine. Keeps the order of the others. */
static void entries_remove(struct entries *e, const char *name)
{
    struct entry *at = entries_find(e, name), old;

    if (!at)
        return;
    old = *at;
    memmove(at, at + 1, (size_t)(e->items + e->n - (at + 1)) * sizeof *at);
    e->n--;
    free(old.name);
    inode_unref(old.inode);
}

static void entries_set(struct entries *e, const char *name, struct inode *inode)
{
    inode_ref(inode);
    entries_remove(e, name);
    array_reserve((void **)&e->items, &e->cap, e->n + 1, sizeof *e->items);
    e->items[e->n++] = (struct entry){.name = xstrdup(name), .inode = inode};
}

static void entries_deinit(struct entries *e)
{
    for (size_t i = 0; i < e->n; i++) {
        free(e->items[i].name);
        inode_unref(e->items[i].inode);
    }
    free(e->items);
    *e = (struct entries){0};
}

/* ---- changes ---- */

static void apply(struct entries *e, const struct change *c)
{
    if (c->gone)
        entries_remove(e, c->gone);
    if (c->set)
        entries_set(e, c->set, c->inode);
}

static void drop_changes(struct inode *dir)
{
    for (size_t i = 0; i < dir->n_changes; i++) {
        free(dir->changes[i].gone);
        free(dir->changes[i].set);
        inode_unref(dir->changes[i].inode);
    }
    dir->n_changes = 0;
}

/* Makes the change in the live state and remembers it. The live state's uses are the caller's. */
static void change(struct inode *dir, const char *gone, const char *set, struct inode *inode)
{
    const struct change c = {.gone = xstrdup(gone), .set = xstrdup(set), .inode = inode_ref(inode)};

    array_reserve((void **)&dir->changes, &dir->cap_changes, dir->n_changes + 1, sizeof c);
    dir->changes[dir->n_changes++] = c;
    apply(&dir->live, &c);
}

static bool is_named(const struct change *c, const char *name)
{
    return name && ((c->gone && strcmp(c->gone, name) == 0) || (c->set && strcmp(c->set, name) == 0));
}

static bool depends(const struct change *later, const struct change *earlier)
{
    return later->inode == earlier->inode || is_named(earlier, later->gone) || is_named(earlier, later->set);
}

/* ---- the tree ---- */

void tree_init(struct tree *t)
{
    *t = (struct tree){.root = inode_ref(inode_new(true))};
}

void tree_deinit(struct tree *t)
{
    inode_unref(t->root);
}

/* The next name of a path, or 0 at its end. */
static size_t next_name(const char **path, char *ret, size_t cap)
{
    size_t n;

    *path += strspn(*path, "/");
    n = strcspn(*path, "/");
    if (n >= cap)
        n = cap - 1; /* no such name */
    memcpy(ret, *path, n);
    ret[n] = '\0';
    *path += n;
    return n;
}

struct inode *tree_find(const struct tree *t, const char *path)
{
    struct inode *at = t->root;
    char name[4096];

    while (at && next_name(&path, name, sizeof name) > 0)
        at = dir_find(at, name);
    return at;
}

/* A change that is not synced may come to be, or not. */
static bool is_changing(const struct inode *dir, const char *name)
{
    for (size_t i = 0; i < dir->n_changes; i++) {
        const struct change *c = &dir->changes[i];

        if ((c->gone && strcmp(c->gone, name) == 0) || (c->set && strcmp(c->set, name) == 0))
            return true;
    }
    return false;
}

struct inode *tree_find_durable(const struct tree *t, const char *path)
{
    struct inode *at = t->root;
    char name[4096];

    while (at && next_name(&path, name, sizeof name) > 0) {
        const struct entry *e = is_changing(at, name) ? NULL : entries_find(&at->durable, name);

        at = e ? e->inode : NULL;
    }
    return at;
}

struct inode *tree_parent(const struct tree *t, const char *path, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    struct inode *dir;
    char *above;

    *ret_name = slash ? slash + 1 : path;
    if (!**ret_name)
        return NULL;
    above = xstrdup(path);
    above[*ret_name - path] = '\0';
    dir = tree_find(t, above);
    free(above);
    return dir && dir->is_dir ? dir : NULL;
}

struct inode *dir_find(const struct inode *dir, const char *name)
{
    const struct entry *e = entries_find(&dir->live, name);

    return e ? e->inode : NULL;
}

struct inode *dir_add(struct tree *t, struct inode *dir, const char *name, bool is_dir)
{
    struct inode *i = inode_new(is_dir);

    change(dir, NULL, name, i);
    use(t, i);
    return i;
}

void dir_remove(struct tree *t, struct inode *dir, const char *name)
{
    struct inode *i = dir_find(dir, name);

    unuse(t, i);
    change(dir, name, NULL, i);
}

void dir_rename(struct tree *t, struct inode *dir, const char *from, const char *to)
{
    struct inode *i = dir_find(dir, from), *replaced = dir_find(dir, to);

    if (replaced == i)
        return;
    if (replaced)
        unuse(t, replaced);
    change(dir, from, to, i);
}

void dir_sync(struct inode *dir)
{
    for (size_t i = 0; i < dir->n_changes; i++)
        apply(&dir->durable, &dir->changes[i]);
    drop_changes(dir);
}

/* ---- files ---- */

void file_append(struct tree *t, struct inode *file, const void *data, size_t size_bytes)
{
    if (size_bytes == 0)
        return;
    array_reserve((void **)&file->data, &file->cap, file->size_bytes + size_bytes, 1);
    memcpy(file->data + file->size_bytes, data, size_bytes);
    file->size_bytes += size_bytes;
    if (file->uses > 0)
        t->used_bytes += size_bytes;
}

void file_sync(struct inode *file)
{
    if (!file->in_doubt)
        file->n_synced = file->size_bytes;
}

void file_hold(struct inode *file)
{
    inode_ref(file);
    file->uses++; /* it has a live entry, its bytes count already */
}

void file_release(struct tree *t, struct inode *file)
{
    unuse(t, file);
    inode_unref(file);
}

void file_release_stale(struct inode *file)
{
    inode_unref(file);
}

/* ---- a crash ---- */

static void crash_file(struct inode *f, memory_random_fn random, void *ctx)
{
    size_t unsynced = f->size_bytes - f->n_synced;
    uint64_t how = random(ctx) % 4; /* nothing of it, all of it, torn in two ways */

    if (how == 0)
        unsynced = 0;
    else if (how > 1)
        unsynced = random(ctx) % (unsynced + 1);
    f->size_bytes = f->n_synced + unsynced;
    for (size_t at = f->n_synced; how == 3 && at < f->size_bytes; at += SECTOR_BYTES)
        if (random(ctx) % 2)
            memset(f->data + at, 0, f->size_bytes - at < SECTOR_BYTES ? f->size_bytes - at : SECTOR_BYTES);
    f->n_synced = f->size_bytes;
    f->in_doubt = false;
}

/* Makes the live state that the crash leaves: the durable one and some changes. */
static void crash_entries(struct inode *dir, memory_random_fn random, void *ctx)
{
    bool *lost = xcalloc(dir->n_changes + 1, sizeof *lost);

    for (size_t i = 0; i < dir->n_changes; i++) {
        lost[i] = random(ctx) % 2;
        for (size_t k = 0; k < i && !lost[i]; k++)
            lost[i] = lost[k] && depends(&dir->changes[i], &dir->changes[k]);
        if (!lost[i])
            apply(&dir->durable, &dir->changes[i]);
    }
    free(lost);
    drop_changes(dir);
    entries_deinit(&dir->live);
    for (size_t i = 0; i < dir->durable.n; i++)
        entries_set(&dir->live, dir->durable.items[i].name, dir->durable.items[i].inode);
}

static void crash_dir(struct tree *t, struct inode *dir, memory_random_fn random, void *ctx)
{
    crash_entries(dir, random, ctx);
    for (size_t i = 0; i < dir->live.n; i++) {
        struct inode *child = dir->live.items[i].inode;

        if (child->is_dir)
            crash_dir(t, child, random, ctx);
        else
            crash_file(child, random, ctx);
        child->uses = 0;
        use(t, child);
    }
}

void tree_crash(struct tree *t, memory_random_fn random, void *ctx)
{
    t->used_bytes = 0;
    crash_dir(t, t->root, random, ctx);
}
