/* tests/sim/memory_tree.h - directories and files in memory, as they are seen and as a crash may leave them.
 *
 * An inode is a directory or a file. Each has a live state, which calls see, and a durable one.
 *
 * A file is only appended to; its first `n_synced` bytes are durable. A crash cuts the rest at a random length, possibly none or
 * all of it, and any 512-byte piece of what stays may have become zeros, as on a file system that writes sizes before data.
 *
 * A directory has its live entries, its durable entries, and the list of changes that lead from these to those. Syncing it makes
 * all of them durable. A crash keeps or loses each change by itself; a rename is one change; a change is lost too if an earlier
 * one of the same name or inode is. So a new file may be lost though the file that was made after it is found, but nothing is
 * ever found under two names.
 *
 * Threads: none, the caller has a lock. Errors: none; whether a change is possible is the caller's question.
 */
#ifndef NH_TESTS_SIM_MEMORY_TREE_H
#define NH_TESTS_SIM_MEMORY_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inode;

struct entry {
    char *name;
    struct inode *inode; /* a reference */
};
struct entries {
    struct entry *items;
    size_t n, cap;
};

/* Removes the entry `gone`, then sets `set` to the inode: create (gone NULL), remove (set NULL), or rename. */
struct change {
    char *gone, *set;
    struct inode *inode; /* a reference: what was removed or set */
};

struct inode {
    uint32_t refs; /* entries, changes, open files */
    uint32_t uses; /* of these the live entries and the open files: while there is one the bytes take space */
    bool is_dir;
    bool in_doubt; /* a sync has failed: what was not durable then never will be for sure */
    uint8_t *data;
    size_t size_bytes, n_synced, cap;
    struct entries live, durable;
    struct change *changes;
    size_t n_changes, cap_changes;
};

struct tree {
    struct inode *root;
    uint64_t used_bytes; /* of the files that have uses */
};

void tree_init(struct tree *t);
void tree_deinit(struct tree *t);

/* What a path names now; NULL: nothing. Slashes at either end or doubled do not count. */
struct inode *tree_find(const struct tree *t, const char *path);
/* What it names after every crash that may come now; NULL: nothing for sure. */
struct inode *tree_find_durable(const struct tree *t, const char *path);
/* The directory that holds (or would hold) a path's last name, and that name; NULL: there is no such directory. */
struct inode *tree_parent(const struct tree *t, const char *path, const char **ret_name);

struct inode *dir_find(const struct inode *dir, const char *name); /* live; or NULL */
/* Makes an empty file or directory. `name` is free. */
struct inode *dir_add(struct tree *t, struct inode *dir, const char *name, bool is_dir);
void dir_remove(struct tree *t, struct inode *dir, const char *name); /* `name` is there */
void dir_rename(struct tree *t, struct inode *dir, const char *from, const char *to);
void dir_sync(struct inode *dir);

void file_append(struct tree *t, struct inode *file, const void *data, size_t size_bytes);
void file_sync(struct inode *file);
/* An open file. */
void file_hold(struct inode *file);
void file_release(struct tree *t, struct inode *file);
/* An open file of the life before a crash: it has no use any more. */
void file_release_stale(struct inode *file);

typedef uint64_t (*memory_random_fn)(void *ctx);
/* From now on only what the crash has left is there, and all of that is durable. */
void tree_crash(struct tree *t, memory_random_fn random, void *ctx);

#endif
