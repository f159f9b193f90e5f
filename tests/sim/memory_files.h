/* tests/sim/memory_files.h - engine/files.h in memory, for tests: it forgets what was not synced when its host crashes, fails
 * when it is told to, and has as much space as it is given.
 *
 * One struct memory_files is the disk of one host; it outlives the host's crashes. All that a crash may leave is described in
 * tests/sim/memory_tree.h. Everything is chosen by the caller's random function, in an order that depends on nothing but the
 * calls before: the same calls and the same numbers give the same disk.
 *
 * Operations. Each call is one operation, except that closing a file that was read is none, and a removal counts one more for
 * each name that it removes. Each operation may be made to fail: then it has no effect, but write    half of the bytes are there
 *     sync     and no later one makes the bytes durable that were not, as with real disks
 *     remove   what was removed before is gone
 *     close    the file is closed
 * Removed names and space: the bytes of a file count until it has neither a name nor is open.
 * There are no symbolic links, modes or limits of names. Absolute and relative paths are the same.
 *
 * After memory_files_crash files that were open give EIO; they have yet to be closed. That is no operation.
 *
 * Threads: the ops any, as engine/files.h says; crash and free when no other thread uses it.
 */
#ifndef NH_TESTS_SIM_MEMORY_FILES_H
#define NH_TESTS_SIM_MEMORY_FILES_H

#include "engine/files.h"
#include "tests/sim/memory_tree.h"

struct memory_files;

/* An empty disk without limit. */
struct memory_files *memory_files_new(void);
/* All files are closed. Takes NULL. */
void memory_files_free(struct memory_files *m);
struct files *memory_files_base(struct memory_files *m);

/* Power is cut and comes back: ends an injected crash and forgets injected failures, but not the limit. */
void memory_files_crash(struct memory_files *m, memory_random_fn random, void *ctx);

/* Bytes of files that fit. A write past it writes what fits and fails with ENOSPC. May be less than what is used. */
void memory_files_set_limit(struct memory_files *m, uint64_t bytes);
uint64_t memory_files_used(struct memory_files *m);

/* Operations so far. */
uint64_t memory_files_operations(struct memory_files *m);
/* The n-th operation from now on (1: the next one) fails with this code, once. n 0: none will. */
void memory_files_fail_at(struct memory_files *m, uint64_t n, int code);
/* The n-th operation from now on and all after it fail with EIO, until memory_files_crash: the host is dead and does not know it
 * yet. n 0: none will. */
void memory_files_crash_at(struct memory_files *m, uint64_t n);
/* That has happened. */
bool memory_files_is_crashed(struct memory_files *m);
/* Operations that failed because they were told to, since the last crash. */
uint64_t memory_files_failed(struct memory_files *m);
/* What is in a file now, valid until the next operation, which this is none; NULL: there is no such file. */
const uint8_t *memory_files_peek(struct memory_files *m, const char *path, size_t *ret_size_bytes);
/* Would this file be there, all of it, after any crash now? */
bool memory_files_is_durable(struct memory_files *m, const char *path);

#endif
