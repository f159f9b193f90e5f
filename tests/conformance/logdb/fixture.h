/* tests/conformance/logdb/fixture.h - what every conformance test of an ILogDB needs: a store, entries, expectations.
 *
 * The store is chosen by NH_LOGDB_PLUGIN: "rocksdb" (default), "memory", or the path of a shared object that exports
 * nh_logdb_plugin; NH_LOGDB_OPTIONS is its options text. Every test is a process of its own and works in a fresh directory.
 */
#ifndef NH_TESTS_CONFORMANCE_LOGDB_FIXTURE_H
#define NH_TESTS_CONFORMANCE_LOGDB_FIXTURE_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftio/logdb.h"

#define SHARD     7u
#define REPLICA   3u
#define N_WORKERS 4u

/* For threads and child processes, where cr_assert cannot be used: ends the process. */
#define MUST(condition, ...)                                                \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: " #condition ": ", __FILE__, __LINE__); \
            fprintf(stderr, __VA_ARGS__);                                   \
            fputc('\n', stderr);                                            \
            abort();                                                        \
        }                                                                   \
    } while (0)

struct fixture {
    const struct nh_logdb_ops *ops;
    struct nh_logdb *db;
    char dir[128];
    const char *options; /* for the next opening */
    struct nh_error err;
};

extern struct fixture f; /* one per process */

void fixture_init_closed(void); /* .init of a suite: makes the directory */
void fixture_init(void);        /* .init of a suite: makes the directory and opens the store */
void fixture_deinit(void);      /* .fini: closes it and removes the directory */
void fixture_open(void);
void fixture_close(void);
void fixture_reopen(void);
/* True for a store that lives in the memory of this process only; prints why the test is skipped. */
bool fixture_skip_in_memory(const char *why);
bool fixture_is(const char *name);

/* A sealed block of n entries from `first` on. Payloads follow from index and term alone. */
struct nh_block *make_block(uint64_t first, uint32_t n, uint64_t term);
struct nh_block *make_block_sized(uint64_t first, uint32_t n, uint64_t term, uint32_t payload_bytes);

/* An update of (shard, replica) with one run of one block; release with update_deinit. */
struct nh_update make_update(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint32_t n, uint64_t term);
struct nh_update make_state(uint64_t shard_id, uint64_t replica_id, uint64_t term, uint64_t vote, uint64_t commit);
void update_deinit(struct nh_update *u);

int save(const struct nh_update *updates, size_t n, uint32_t worker_id);
/* Saves and requires success. */
void must_save(const struct nh_update *updates, size_t n);
void must_save_entries(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint32_t n, uint64_t term);

/* What an iteration gave. */
struct collected {
    uint8_t *bytes;
    size_t size_bytes;
    size_t cap_bytes;
    uint32_t n; /* entries */
    uint64_t first, last;
    uint32_t n_calls;
};

int collect(uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high, size_t max_bytes, struct collected *ret);
void collected_deinit(struct collected *c);
size_t record_bytes(uint64_t index, uint64_t term);

/* Requires the bounds and, of every entry, the exact bytes. terms[i] is the term of entry first + i. */
void expect_log(uint64_t shard_id, uint64_t replica_id, uint64_t first, const uint64_t *terms, size_t n);
/* The same with one term for all. */
void expect_entries(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint64_t last, uint64_t term);
void expect_bounds(uint64_t shard_id, uint64_t replica_id, uint64_t first, uint64_t last);
void expect_state(uint64_t shard_id, uint64_t replica_id, uint64_t term, uint64_t vote, uint64_t commit);
void expect_ok(int r);

struct nh_snapshot make_snapshot(uint64_t shard_id, uint64_t index, uint64_t term);
void must_save_snapshot(uint64_t replica_id, const struct nh_snapshot *s);

/* A random number below n; the seed is printed by test_model.c. */
uint64_t below(uint64_t *state, uint64_t n);

#endif
